# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator reads before answering whether a backup shall take the place of the live database."""

from __future__ import annotations

import shlex
import textwrap
import typing as t

from .backup_catalog import span
from .readiness import megabytes
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .restore_plan import RestorePlanRequest

WIDTH = 96
#: Backups that were passed over; the report holds all.
MOST_SKIPPED = 8

_TITLES = {"emergency": "EMERGENCY ROLLBACK", "undo": "UNDO OF A ROLLBACK", "swap_back": "SWAP BACK"}

#: The runbook of each purpose, and the extra variables that say what it is about.
_RUNBOOKS = {
    "emergency": ("emergency_rollback", ("backup", "version", "tables")),
    "undo": ("undo_rollback", ("run", "backup")),
    "swap_back": ("swap_back", ("kept",)),
}

Plan = t.Mapping[str, t.Any]


def lines_of(request: RestorePlanRequest, plan: Plan) -> list[str]:
    """The whole prompt, line by line; every name made visible."""
    title = _TITLES[request.purpose] + (f" of {len(request.tables)} table(s)" if request.tables else "")
    found = [title, "=" * len(title), *_where(plan), *_source(plan), *_skipped(plan), *_lost(plan), "", "This will:"]
    found += [f"  {number}. {step}" for number, step in enumerate(_steps(request, plan), 1)]
    return [visible(line) for line in [*found, *_back(request, plan)]]


def command_of(request: RestorePlanRequest) -> str:
    """The command that starts what is planned."""
    runbook, names = _RUNBOOKS[request.purpose]
    given = {name: getattr(request, name) for name in names}
    given = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in given.items()}
    extra = [f"-e {shlex.quote(f'{_EXTRA.get(name, name)}={value}')}" for name, value in given.items() if value]
    return " ".join([f"{request.command}.{runbook}", *extra])


#: Named otherwise as an extra variable.
_EXTRA = {"kept": "database"}


def _entry(name: str, text: str) -> list[str]:
    indent = " " * 12
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{name:<12}", subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


def _where(plan: Plan) -> list[str]:
    target = plan["target"]
    state = megabytes(plan["database_bytes"]) if plan["exists"] else "does not exist any more"
    others = f", {len(plan['sessions'])} other session(s), which will be ended" if plan["sessions"] else ""
    return [
        *_entry(
            "Server", f"{target['host'] or 'the local socket'}:{target['port']}, PostgreSQL {target['server_version']}"
        ),
        *_entry("Cluster", f"system identifier {target['system_identifier']}"),
        *_entry("Database", f"{target['database']} ({state}{others})"),
    ]


def _source(plan: Plan) -> list[str]:
    incoming, backup = plan["incoming"], plan["backup"]
    if incoming:
        return _entry("Kept as", f"{incoming['database']}, replaced {incoming['replaced_at']}. {plan['why']}")
    age = f"{span(backup['age_seconds'])} ago" if backup.get("age_seconds") is not None else "age not known"
    facts = f"{backup['kind']} {backup['version']}, {backup['provider']}, {megabytes(backup['bytes'])}, taken {backup['created_at']} ({age})"
    return [*_entry("Backup", backup["id"]), *_entry("", facts), *_entry("", str(plan["why"]))]


def _skipped(plan: Plan) -> list[str]:
    skipped = plan["passed_over"]
    lines = [line for each in skipped[:MOST_SKIPPED] for line in _entry("", f"{each['id']}: {each['reason']}")]
    more = _entry("", f"and {len(skipped) - MOST_SKIPPED} more") if len(skipped) > MOST_SKIPPED else []
    gap = _entry("", plan["gap"]["text"]) if plan["gap"] else []
    return ["Passed over", *lines, *more, *gap] if skipped else []


def _lost(plan: Plan) -> list[str]:
    return [*_entry("Lost", plan["window"]["text"]), *[line for row in plan["rows"] for line in _entry("", _row(row))]]


def _row(row: Mapping[str, t.Any]) -> str:
    now = "not known" if row["now"] is None else f"{row['now']:,}"
    return f"{row['table']}: {now} rows now, {row['then']:,} then"


def _steps(request: RestorePlanRequest, plan: Plan) -> Sequence[str]:
    name = plan["target"]["database"]
    ends = ["start the application and run the smoke tests"]
    stop = "stop the application"
    if request.tables:
        put_back = f"put the rows of {', '.join(request.tables)} back into {name}, in one transaction"
        return [stop, f"back up {name} as it is", put_back, *ends]
    code = ["check out the release that fits it, where one is set (rollback_previous_ref)"]
    if request.purpose == "undo":
        code = [
            f"check out {release['ref'][:12]}{' (' + release['branch'] + ')' if release['branch'] else ''} again on {host}"
            for host, release in plan["releases"].items()
        ]
    exchange = f"give it the name {name}" + (f"; what has it now is kept as {plan['kept']}" if plan["kept"] else "")
    if plan["incoming"]:
        return [stop, f"take {plan['incoming']['database']} and {exchange}", *ends]
    return [stop, _restore(plan), exchange, *code, *ends]


def _restore(plan: Plan) -> str:
    estimate = plan["estimate"]
    seconds = f"about {span(estimate['seconds'])}" if estimate["seconds"] is not None else "a time that is not known"
    free = f" of {megabytes(estimate['free_bytes'])} free" if estimate["free_bytes"] is not None else ""
    return (
        f"restore the backup into a new database beside it ({seconds}; {megabytes(estimate['bytes'])}{free} on the server), "
        "and compare every table with the manifest"
    )


def _back(request: RestorePlanRequest, plan: Plan) -> list[str]:
    if not plan["kept"]:
        return []
    asked = shlex.quote(f"database={plan['kept']}")
    return ["", f"To swap back afterwards: {request.command}.swap_back -e {asked}"]
