# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told at the end: what happened, what state things are in, what to do next."""

from __future__ import annotations

import re
import typing as t

from . import object_message, restore_message, verify_message
from .assess_message import assessed, commands, severity_of
from .outcome import Facts, facts, is_committed, kind_of, stopped_hosts
from .phrases import (
    application_state,
    capital,
    count,
    database,
    down,
    first_error,
    hosts,
    join,
    lines,
    playbook,
    restart_command,
    sentence,
    why_down,
    without_outcome,
)
from .visible import visible

NOTHING_DONE = "Nothing was stopped or changed."


def message_for(outcome: str, run: Facts) -> str:
    """A few sentences, and the bare outcome as the last line."""
    say = {**_SENTENCES, **restore_message.SENTENCES} if kind_of(run) == "restore" else _SENTENCES
    say = verify_message.sentences() if kind_of(run) == "verify" else say
    return f"{say[outcome](run)}\n{outcome}"


def next_commands(outcome: str, run: Facts) -> list[str]:
    """The commands that go on from here, ready to be pasted."""
    if kind_of(run) in ("restore", "verify"):
        of_kind = restore_message.next_commands if kind_of(run) == "restore" else verify_message.next_commands
        return of_kind(outcome, run)
    if kind_of(run) == "assess":
        return commands(severity_of(run), run) if severity_of(run) else []
    if outcome == "needs_attention":
        return _commands_after_commit(run)
    if outcome == "unknown":
        return [restart_command(run, changed=False)]
    if outcome == "planned":
        return [rollback_command(run)]
    return []


def _commands_after_commit(run: Facts) -> list[str]:
    if object_message.half_dropped(run):
        return [rollback_command(run)]
    return [_resume(run)] if is_committed(run) and _is_lost(run) else [restart_command(run), *_undo(run)]


def rollback_command(run: Facts) -> str:
    """The run once more, for real."""
    runbook = str(run.get("runbook") or "rollback")
    return playbook(
        run, runbook, version=run.get("version"), to_version=run.get("to_version"), **object_message.asked(run)
    )


def versions(run: Facts) -> str:
    """The migrations that the run is about, or its one object, as words."""
    if object_message.named(run):
        return object_message.named(run)
    named = [str(version) for version in facts(facts(run, "plan_result"), "plan").get("versions") or []]
    wanted = named or [str(run[name]) for name in ("version", "to_version") if run.get(name)]
    if not wanted:
        return "the migration"
    return f"migration{'s' if len(wanted) > 1 else ''} {', '.join(visible(version) for version in wanted)}"


def _were(run: Facts) -> str:
    return "were" if _are(run) == "are" else "was"


def _rolled_back(run: Facts) -> str:
    stopped = stopped_hosts(run)
    application = f"the application runs again on {hosts(stopped)}" if stopped else "no application was stopped"
    smoke = facts(run, "smoke_test_result").get("tests") or []
    tested = f" and {count(len(smoke), 'smoke test')} passed" if smoke else ", no smoke test is set"
    return join(
        f"{capital(versions(run))} of {database(run)} {_are(run)} rolled back and verified; {application}{tested}.",
        _backup(run),
        _unfinished_code(run),
        object_message.ledger(run),
    )


def _are(run: Facts) -> str:
    return "are" if len(facts(facts(run, "plan_result"), "plan").get("versions") or []) > 1 else "is"


def _unfinished_code(run: Facts) -> str:
    code = facts(run, "previous_code_result")
    if object_message.is_index(run):
        return "No code depends on an index, so it was left as it is." if not code or code.get("skipped") else ""
    if code.get("skipped") or not code:
        return (
            "The code was left as it is (rollback_previous_ref is not set): deploy the release that fits this database."
        )
    return ""


def _nothing_to_do(run: Facts) -> str:
    said = sentence(facts(run, "plan_result").get("message"))
    return join(
        said or f"{capital(versions(run))} {_are(run)} not applied to {database(run)}.",
        "Nothing was stopped, changed or backed up.",
    )


def _planned(run: Facts) -> str:
    if kind_of(run) == "assess":
        return assessed(run)
    ran = object_message.previewed(run) or "the DOWN was run there in a transaction that was undone."
    return lines(
        join(
            f"Preview of {versions(run)} on {database(run)}: {ran} Nothing was stopped, written or sent.",
            object_message.ledger(run),
        ),
        *(
            f"As things are now, the rollback itself would be refused: {sentence(without_outcome(said))}"
            for said in facts(run, "plan_result").get("would_refuse") or []
        ),
        f"To do it: {rollback_command(run)}",
    )


def _refused(run: Facts) -> str:
    failure = facts(run, "rollback_failure")
    said = (
        sentence(without_outcome(failure.get("message")))
        or "The run ended before it had a plan; look at the task that failed."
    )
    return said if re.search(r"othing was (stopped|done)", said) else join(said, NOTHING_DONE)


def _failed_unchanged(run: Facts) -> str:
    stopped = stopped_hosts(run)
    application = f"the application runs again on {hosts(stopped)}" if stopped else "no application was stopped"
    said = first_error(run)
    # Most errors of the engine say it themselves.
    unchanged = "" if "database is as it was" in said else f"{database(run)} is as it was before the run, and "
    return join(
        said,
        f"{capital(unchanged + application)}.",
        f"Put right what the first sentence names, then run {'the rollback' if kind_of(run) == 'rollback' else 'it'} again.",
    )


def _unknown(run: Facts) -> str:
    failure = facts(run, "rollback_failure")
    xid = facts(failure, "details").get("xid") or facts(run, "rollback_result").get("xid")
    question = (
        f"SELECT pg_xact_status('{visible(xid)}');"
        if xid
        else "see whether the objects that the DOWN drops are still there."
    )
    down = hosts(stopped_hosts(run))
    return lines(
        first_error(run),
        f"Whether {versions(run)} {_were(run)} rolled back in {database(run)} is not known, so nothing was restarted"
        + (f": the application stands still on {down}." if down else "."),
        f"When the server answers again, ask it in psql: {question}",
        f"If committed: check out the release that fits, then {restart_command(run, changed=True)}",
        f"If aborted, the database is unchanged: {restart_command(run, changed=False)}",
        f"and then {rollback_command(run)}",
        _backup(run),
    )


def _needs_attention(run: Facts) -> str:
    if object_message.half_dropped(run):
        return lines(first_error(run), object_message.ran_on(run), f"To go on: {rollback_command(run)}", _backup(run))
    return _attention_after_commit(run) if is_committed(run) else _attention_unchanged(run)


def _attention_unchanged(run: Facts) -> str:
    return lines(
        first_error(run),
        join(
            f"{capital(database(run))} is as it was before the run, but {down(run)}.",
            why_down(run),
        ),
        f"Start it: {restart_command(run)}",
    )


def _attention_after_commit(run: Facts) -> str:
    done = f"{capital(versions(run))} of {database(run)} {_were(run).upper()} rolled back and committed"
    if _is_lost(run):
        return lines(
            f"{done}, but something after that failed.",
            first_error(run),
            join(application_state(run), _code_state(run)),
            f"When that host answers again, go on where it ended: {_resume(run)}",
            "How to go back instead is said at the end of that.",
        )
    return lines(
        f"{done}, but something after that failed.",
        first_error(run),
        join(application_state(run), _code_state(run)),
        f"To go on once the cause is put right: {restart_command(run)}",
        _going_back(run),
    )


def _is_lost(run: Facts) -> bool:
    """Whether the database's host answers no more, so that the run's journal and report have no end there."""
    return bool(facts(facts(run, "rollback_failure"), "details").get("lost"))


def _resume(run: Facts) -> str:
    return playbook(run, str(run.get("runbook") or "rollback"), resume=run.get("run_id"))


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
    if not backup.get("path"):
        return ""
    return "\n".join(
        [
            f"To go back instead, restore the backup {visible(backup['path'])}, beside the live database and then in its place:",
            *_undo(run),
        ]
    )


def _undo(run: Facts) -> list[str]:
    """The command that restores the state before this rollback, where there is a backup of it."""
    backed_up = facts(facts(run, "backup_result"), "backup").get("path") and is_committed(run)
    return [playbook(run, "undo_rollback", run=run.get("run_id"))] if backed_up else []


def _backed_up(run: Facts) -> str:
    backup = facts(facts(run, "backup_result"), "backup")
    checked = "read back" if backup.get("verified") else "NOT read back"
    return f"{capital(database(run))} is backed up in {visible(backup.get('path'))}, {checked}."


_SENTENCES: dict[str, t.Callable[[Facts], str]] = {
    "rolled_back": _rolled_back,
    "backed_up": _backed_up,
    "assessed": assessed,
    "nothing_to_do": _nothing_to_do,
    "planned": _planned,
    "refused": _refused,
    "failed_unchanged": _failed_unchanged,
    "needs_attention": _needs_attention,
    "unknown": _unknown,
}
