# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told after a backup, or a database that was kept, was to take the place of the live one."""

from __future__ import annotations

import typing as t

from .outcome import Facts, facts, is_committed, is_swapped, is_way_back_unknown, plan_of, stopped_hosts
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
)
from .visible import visible

#: Extra variables that say what a run is about, and so belong to the command that does it again.
ASKED = ("backup", "version", "tables", "run", "database")


def next_commands(outcome: str, run: Facts) -> list[str]:
    """The commands that go on from here, ready to be pasted."""
    if outcome in {"planned", "failed_unchanged"}:
        return [again_command(run)]
    if outcome == "needs_attention":
        return [restart_command(run), *swap_back_commands(run)]
    if outcome == "unknown":
        return swap_back_commands(run) if is_way_back_unknown(run) else [again_command(run)]
    return swap_back_commands(run) if outcome == "restored" else []


def again_command(run: Facts) -> str:
    """The command that does the same once more."""
    asked = facts(run, "asked")
    return playbook(run, str(run.get("runbook")), **{name: _words(asked.get(name)) for name in ASKED})


def _words(value: t.Any) -> t.Any:
    return ",".join(str(entry) for entry in value) if isinstance(value, (list, tuple)) else value


def swap_back_commands(run: Facts) -> list[str]:
    """The command that gives the live name back to the database that had it, where there is one."""
    kept = facts(run, "swap_result").get("kept")
    return [playbook(run, "swap_back", database=kept)] if kept and (is_swapped(run) or is_way_back_unknown(run)) else []


def _backup(run: Facts) -> str:
    backup = facts(plan_of(run), "backup")
    return f"backup {visible(backup['id'])}" if backup.get("id") else "the database that was kept"


def _tables(run: Facts) -> list[str]:
    tables = facts(run, "restore_tables_result").get("tables") or []
    return [visible(table.get("identity")) for table in tables]


def _what(run: Facts, verb: str) -> str:
    if _tables(run):
        return f"{', '.join(_tables(run))} of {database(run)} {'are' if verb == 'is' else 'WERE'} put back from {_backup(run)}"
    incoming = facts(plan_of(run), "incoming").get("database")
    if incoming:
        return f"{capital(database(run))} {verb} again what was kept as {visible(incoming)}"
    return f"{capital(database(run))} {verb} restored from {_backup(run)}"


def _window(run: Facts) -> str:
    return "" if _tables(run) else sentence(facts(plan_of(run), "window").get("text"))


def _restored(run: Facts) -> str:
    stopped = stopped_hosts(run)
    application = f"the application runs again on {hosts(stopped)}" if stopped else "no application was stopped"
    smoke = facts(run, "smoke_test_result").get("tests") or []
    tested = f" and {count(len(smoke), 'smoke test')} passed" if smoke else ", no smoke test is set"
    return lines(
        join(f"{_what(run, 'is')}; {application}{tested}.", capital(_window(run))),
        _kept(run),
        _state_before(run),
        *[f"To swap back: {command}" for command in swap_back_commands(run)],
    )


def _kept(run: Facts) -> str:
    kept = facts(run, "swap_result").get("kept")
    return f"The database that was replaced is kept as {visible(kept)}." if kept and is_swapped(run) else ""


def _state_before(run: Facts) -> str:
    backup = facts(facts(run, "backup_result"), "backup")
    return f"The state before it is in the backup {visible(backup['path'])}." if backup.get("path") else ""


def _nothing_to_do(run: Facts) -> str:
    return join(sentence(plan_of(run).get("message")), "Nothing was stopped, changed or backed up.")


def _planned(run: Facts) -> str:
    shown = [visible(line) for line in plan_of(run).get("lines") or []]
    return lines(*shown, "Nothing was stopped, written or sent.", f"To do it: {again_command(run)}")


def _failed_unchanged(run: Facts) -> str:
    stopped = stopped_hosts(run)
    application = f"the application runs again on {hosts(stopped)}" if stopped else "no application was stopped"
    said = first_error(run)
    swap = facts(run, "swap_result")
    if swap.get("swapped_back"):
        kept = f"; the restored one is kept as {visible(swap['kept'])}" if swap.get("kept") else ""
        state = f"The databases were exchanged back: {database(run)} is the one from before the run{kept}. {capital(application)}."
    elif "database is as it was" in said:
        state = f"{capital(application)}."
    else:
        state = f"{capital(database(run))} is as it was before the run, and {application}."
    return lines(
        join(said, state, _left(run)),
        f"Put right what the first sentence names, then run it again: {again_command(run)}",
    )


def _left(run: Facts) -> str:
    """The restored database that was not exchanged. A clone is a backup, and stays one."""
    restored = facts(facts(run, "restore_result"), "restored")
    if not restored.get("database") or facts(run, "swap_result").get("swapped") or restored.get("provider") == "clone":
        return ""
    return f"The restored database {visible(restored['database'])} is still there; the next run drops it."


def _unknown(run: Facts) -> str:
    down = hosts(stopped_hosts(run))
    details = facts(facts(run, "rollback_failure"), "details")
    question = (
        f"SELECT pg_xact_status('{visible(details['xid'])}');"
        if details.get("xid")
        else "SELECT oid, datname, datallowconn FROM pg_database;"
    )
    return lines(
        first_error(run),
        f"Which database has the name of {database(run)} is not known, so nothing was started"
        + (f": the application stands still on {down}." if down else "."),
        f"When the server answers again, ask it in psql: {question}",
        *_once_known(run),
    )


def _once_known(run: Facts) -> list[str]:
    """What to do in either case, once the server has said which database has the name."""
    if is_way_back_unknown(run):
        return [
            "If that was committed, the database from before the run is live again. Start it with the release that fits: "
            + restart_command(run, changed=False),
            f"If not, the restored one is live. To go on with it: {restart_command(run, changed=True)}",
            *[f"To go back instead: {command}" for command in swap_back_commands(run)],
        ]
    return [
        f"If the databases were exchanged, go on: {restart_command(run, changed=True)}",
        f"If not, run it again: {again_command(run)}",
    ]


def _needs_attention(run: Facts) -> str:
    if not is_committed(run):
        return lines(
            first_error(run),
            join(
                f"{capital(database(run))} is as it was before the run, but {down(run)}.",
                why_down(run),
            ),
            f"Start it: {restart_command(run)}",
        )
    return lines(
        f"{_what(run, 'WAS')}, but something after that failed.",
        first_error(run),
        join(application_state(run), _kept(run), _state_before(run)),
        f"To go on once the cause is put right: {restart_command(run)}",
        *[f"To go back instead: {command}" for command in swap_back_commands(run)],
    )


#: What a restoring run says otherwise than the standard runbook.
SENTENCES: dict[str, t.Callable[[Facts], str]] = {
    "restored": _restored,
    "nothing_to_do": _nothing_to_do,
    "planned": _planned,
    "failed_unchanged": _failed_unchanged,
    "needs_attention": _needs_attention,
    "unknown": _unknown,
}
