# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told at the end: what happened, what state things are in, what to do next."""

from __future__ import annotations

import re
import shlex
import typing as t

from .outcome import Facts, facts, failed_checks, is_committed, still_down, stopped_hosts, verification_of
from .visible import visible

NOTHING_DONE = "Nothing was stopped or changed."


def message_for(outcome: str, run: Facts) -> str:
    """A few sentences, and the bare outcome as the last line."""
    return f"{_SENTENCES[outcome](run)}\n{outcome}"


def next_commands(outcome: str, run: Facts) -> list[str]:
    """The commands that go on from here, ready to be pasted."""
    if outcome in {"needs_attention", "unknown"}:
        return [restart_command(run)]
    if outcome == "planned":
        return [rollback_command(run)]
    return []


def restart_command(run: Facts) -> str:
    """Starts the application and runs the smoke tests, nothing else."""
    return _playbook(run, "restart")


def rollback_command(run: Facts) -> str:
    """The run once more, for real."""
    requested = {name: run.get(name) for name in ("version", "to_version")}
    given = [f"-e {shlex.quote(f'{name}={value}')}" for name, value in requested.items() if value not in (None, "")]
    return " ".join([_playbook(run, str(run.get("runbook") or "rollback")), *given])


def _playbook(run: Facts, name: str) -> str:
    inventory = [f"-i {shlex.quote(visible(source))}" for source in run.get("inventory") or []]
    narrowed = (
        [f"-e {shlex.quote('rollback_hosts=' + str(run['host']))}"]
        if run.get("one_of_many") and run.get("host")
        else []
    )
    return " ".join(["ansible-playbook", *inventory, f"cypher.rollback.{name}", *narrowed])


#: What our own refusals end with, after a colon.
_ENDS_WITH_COMMAND = re.compile(r": (ansible-playbook|SELECT|GRANT|ALTER|DROP|REASSIGN) [^\n]*$")


def sentence(text: t.Any) -> str:
    """Text as a sentence that others can follow: one final stop, no control characters.

    A text that ends with a command is left as it is: a stop would be copied along with the command.
    """
    shown = visible(str(text or "").strip(), keep="\n")
    if not shown or shown[-1] in ".!?:" or _ENDS_WITH_COMMAND.search(shown):
        return shown
    return shown + "."


def versions(run: Facts) -> str:
    """The migrations that the run is about, as words."""
    named = [str(version) for version in facts(facts(run, "plan_result"), "plan").get("versions") or []]
    wanted = named or [str(run[name]) for name in ("version", "to_version") if run.get(name)]
    if not wanted:
        return "the migration"
    return f"migration{'s' if len(wanted) > 1 else ''} {', '.join(visible(version) for version in wanted)}"


def database(run: Facts) -> str:
    """The database, as words."""
    target = facts(facts(run, "plan_result"), "target") or facts(run, "target")
    return f"database {visible(target['database'])}" if target.get("database") else "the database"


def _failure(run: Facts) -> str:
    failure = facts(run, "rollback_failure")
    if failure:
        stage = f"Stage {visible(failure['stage'])} failed: " if failure.get("stage") else ""
        return stage + (sentence(_without_outcome(failure.get("message"))) or "it gave no reason.")
    failed = failed_checks(verification_of(run).get("checks") or [])
    if failed:
        return f"The verification failed: {', '.join(visible(check.get('name')) for check in failed)}."
    if facts(run, "smoke_test_result").get("passed") is False:
        return sentence(facts(run, "smoke_test_result").get("message") or "The smoke tests failed")
    if (
        facts(facts(run, "plan_result"), "plan")
        and not verification_of(run)
        and facts(run, "rollback_result").get("committed")
    ):
        return "Nothing verified it: the stage verify left no result."
    return "" if still_down(run) else "The run ended before its last stage."


def _without_outcome(message: t.Any) -> str:
    return re.sub(r"\n(refused|failed_unchanged|needs_attention|unknown)\s*\Z", "", str(message or ""))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _join(*sentences: str) -> str:
    return " ".join(part for part in sentences if part)


def _lines(*sentences: str) -> str:
    return "\n".join(part for part in sentences if part)


def _were(run: Facts) -> str:
    return "were" if _are(run) == "are" else "was"


def _rolled_back(run: Facts) -> str:
    stopped = stopped_hosts(run)
    application = f"the application runs again on {_hosts(stopped)}" if stopped else "no application was stopped"
    smoke = facts(run, "smoke_test_result").get("tests") or []
    tested = f" and {_count(len(smoke), 'smoke test')} passed" if smoke else ", no smoke test is set"
    return _join(
        f"{_capital(versions(run))} of {database(run)} {_are(run)} rolled back and verified; {application}{tested}.",
        _backup(run),
        _unfinished_code(run),
    )


def _are(run: Facts) -> str:
    return "are" if len(facts(facts(run, "plan_result"), "plan").get("versions") or []) > 1 else "is"


def _unfinished_code(run: Facts) -> str:
    code = facts(run, "previous_code_result")
    if code.get("skipped") or not code:
        return (
            "The code was left as it is (rollback_previous_ref is not set): deploy the release that fits this database."
        )
    return ""


def _nothing_to_do(run: Facts) -> str:
    said = sentence(facts(run, "plan_result").get("message"))
    return _join(
        said or f"{_capital(versions(run))} {_are(run)} not applied to {database(run)}.",
        "Nothing was stopped, changed or backed up.",
    )


def _planned(run: Facts) -> str:
    return (
        f"Preview of {versions(run)} on {database(run)}: the DOWN was run there in a transaction that was undone. "
        f"Nothing was stopped, written or sent.\nTo do it: {rollback_command(run)}"
    )


def _refused(run: Facts) -> str:
    failure = facts(run, "rollback_failure")
    said = (
        sentence(_without_outcome(failure.get("message")))
        or "The run ended before it had a plan; look at the task that failed."
    )
    return said if "othing was stopped" in said else _join(said, NOTHING_DONE)


def _failed_unchanged(run: Facts) -> str:
    stopped = stopped_hosts(run)
    application = f"the application runs again on {_hosts(stopped)}" if stopped else "no application was stopped"
    failure = _failure(run)
    # Most errors of the engine say it themselves.
    unchanged = "" if "database is as it was" in failure else f"{database(run)} is as it was before the run, and "
    return _join(
        failure,
        f"{_capital(unchanged + application)}.",
        "Put right what the first sentence names, then run the rollback again.",
    )


def _unknown(run: Facts) -> str:
    failure = facts(run, "rollback_failure")
    xid = facts(failure, "details").get("xid") or facts(run, "rollback_result").get("xid")
    question = (
        f"SELECT pg_xact_status('{visible(xid)}');"
        if xid
        else "see whether the objects that the DOWN drops are still there."
    )
    down = _hosts(stopped_hosts(run))
    return _lines(
        _failure(run),
        f"Whether {versions(run)} {_were(run)} rolled back in {database(run)} is not known, so nothing was restarted"
        + (f": the application stands still on {down}." if down else "."),
        f"When the server answers again, ask it in psql: {question}",
        f"If committed: check out the release that fits, then {restart_command(run)}",
        f"If aborted, the database is unchanged: start the application in the same way, then {rollback_command(run)}",
        _going_back(run),
    )


def _needs_attention(run: Facts) -> str:
    return _attention_after_commit(run) if is_committed(run) else _attention_unchanged(run)


def _attention_unchanged(run: Facts) -> str:
    return _lines(
        _failure(run),
        _join(
            f"{_capital(database(run))} is as it was before the run, but the application does not run "
            f"on {_hosts(still_down(run))}.",
            _why_down(run),
        ),
        f"Start it: {restart_command(run)}",
    )


def _attention_after_commit(run: Facts) -> str:
    done = f"{_capital(versions(run))} of {database(run)} {_were(run).upper()} rolled back and committed"
    return _lines(
        f"{done}, but something after that failed.",
        _failure(run),
        _join(_application_state(run), _code_state(run)),
        f"To go on once the cause is put right: {restart_command(run)}",
        _going_back(run),
    )


def _application_state(run: Facts) -> str:
    down, stopped = still_down(run), stopped_hosts(run)
    if down:
        return _join(f"The application does not run on {_hosts(down)}.", _why_down(run))
    return f"The application was started again on {_hosts(stopped)}." if stopped else "No application was stopped."


def _why_down(run: Facts) -> str:
    said = sentence(facts(run, "restart_result").get("message"))
    first = facts(run, "rollback_failure")
    return "" if first.get("stage") == "restart" else said


def _code_state(run: Facts) -> str:
    code = facts(run, "previous_code_result")
    if facts(run, "rollback_failure").get("stage") == "previous_code":
        return "The code is not known to be that of the previous release."
    if not code or code.get("skipped"):
        return "The code was left as it is."
    return sentence(code.get("message")) or "The code is that of the previous release."


def _backup(run: Facts) -> str:
    backup = facts(facts(run, "backup_result"), "backup")
    return f"The state before it is in the backup {visible(backup['path'])}." if backup.get("path") else ""


def _going_back(run: Facts) -> str:
    backup = facts(facts(run, "backup_result"), "backup")
    return f"To go back instead, restore the backup {visible(backup['path'])}" if backup.get("path") else ""


def _hosts(names: t.Sequence[str]) -> str:
    return ", ".join(visible(name) for name in names)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


_SENTENCES: dict[str, t.Callable[[Facts], str]] = {
    "rolled_back": _rolled_back,
    "nothing_to_do": _nothing_to_do,
    "planned": _planned,
    "refused": _refused,
    "failed_unchanged": _failed_unchanged,
    "needs_attention": _needs_attention,
    "unknown": _unknown,
}
