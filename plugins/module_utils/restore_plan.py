# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup, or kept database, takes the place of the live one, why, and what that costs: all before anything is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
import typing as t

from .backup_catalog import moment, span
from .backup_levels import Means
from .connection import connect, server_errors
from .errors import Refused, RollbackError
from .history import committed_rollback
from .kept import kept_databases
from .outcome import hosts_of
from .restorable import check_restorable
from .restore_lines import command_of, lines_of
from .restore_request import RestoreRequest
from .selection import choose
from .server import inspect_target
from .swap_readiness import SwapRequest, check_swap, session

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .catalog import Cursor
    from .connection import ConnectionSettings
    from .exec_place import ExecPlace
    from .kept import Kept
    from .restore_request import RestoreReadiness
    from .selection import Choice
    from .server import Target
    from .swap_readiness import SwapReadiness

PURPOSES = ("emergency", "undo", "swap_back")

#: Longest that a live database, perhaps a sick one, is waited for to count the rows of its critical tables.
COUNT_SECONDS = 3.0
#: A restore takes this many times what the backup took (measured: 24 s against 17 s), and never less than a second.
RESTORE_BY_BACKUP = 1.5


class CannotPlan(Refused):
    """What was asked for cannot be gone back to; nothing was stopped or changed."""


@dataclasses.dataclass(frozen=True)
class RestorePlanRequest:
    """What is to be gone back to.

    :param settings: ``dbname`` is the live database, which may be gone.
    :param purpose: ``emergency``: the newest valid backup before a migration; ``undo``: the one that a rollback took before
        it began; ``swap_back``: a database that was kept when it was replaced.
    :param backup: id of a backup that is to be taken and no other; empty: as the purpose says.
    :param version: only backups before this migration; empty, before any.
    :param run: the rollback that is undone; empty, the newest one.
    :param kept: the database that is swapped back; empty, the one that was replaced last.
    :param tables: put only these back; empty, the whole database.
    :param place: where the client programs are; ``None``: on this host.
    :param server_free_bytes: room on the server, where it cannot be seen from here.
    :param command: how playbooks are started here, for messages.
    """

    settings: ConnectionSettings
    backup_dir: str
    purpose: str = "emergency"
    backup: str = ""
    version: str = ""
    run: str = ""
    kept: str = ""
    tables: tuple[str, ...] = ()
    key: str = dataclasses.field(default="", repr=False)
    bin_dir: str = ""
    place: ExecPlace | None = None
    jobs: int = 0
    require_patched: bool = False
    maintenance_db: str = "postgres"
    missing_roles: str = "refuse"
    server_free_bytes: int | None = None
    timeout: float = 30.0
    run_dir: str = ""
    run_id: str = ""
    system_identifier: str = ""
    critical_tables: tuple[str, ...] = ()
    command: str = "ansible-playbook cypher.rollback"


@dataclasses.dataclass(frozen=True)
class Server:
    """What the server says about the live database.

    :param now: the server's own time.
    :param exists: the live database is there.
    :param bytes: its size; ``None`` where it is not known.
    :param kept: databases that once had the live name, the one that was replaced last first.
    """

    target: Target
    now: dt.datetime
    exists: bool
    connectable: bool
    bytes: int | None
    kept: tuple[Kept, ...]


def plan_restore(request: RestorePlanRequest) -> dict[str, t.Any]:
    """Everything that is known before anything is stopped, for the operator and for the stages. Reads only.

    :raises Refused: with what to change.
    """
    with server_errors(Refused, "looking at it; nothing was stopped or changed"):
        server = look(request)
        plan = _swap_back(request, server) if request.purpose == "swap_back" else _from_backup(request, server)
    return {**plan, "command": command_of(request), "lines": lines_of(request, plan)}


def look(request: RestorePlanRequest) -> Server:
    """Ask the server, through the maintenance database: the live one may be sick, full or gone.

    :raises Refused: it cannot be asked, or is not one on which a restore can be safe.
    """
    there = SwapRequest(request.settings, "", maintenance_db=request.maintenance_db)
    with session(there) as connection, connection.cursor() as cursor:
        found = inspect_target(connection, there.there, request.system_identifier)
        cursor.execute(
            "SELECT pg_catalog.clock_timestamp(), d.oid IS NOT NULL, coalesce(d.datallowconn, false), "
            "CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') THEN pg_catalog.pg_database_size(d.oid) END "
            "FROM (VALUES (%s)) live(name) LEFT JOIN pg_catalog.pg_database d ON d.datname = live.name",
            (request.settings.dbname,),
        )
        now, exists, connectable, size = cursor.fetchall()[0]
        kept = tuple(kept_databases(cursor, request.settings.dbname))
    target = dataclasses.replace(found, database=request.settings.dbname)
    return Server(target, now, exists, connectable, size, kept)


# --- a backup ---------------------------------------------------------------------------------------------------------


def _from_backup(request: RestorePlanRequest, server: Server) -> dict[str, t.Any]:
    report = _undone(request, server) if request.purpose == "undo" else None
    named = request.backup or str(((report or {}).get("backup") or {}).get("id") or "")
    means = Means(request.settings, request.bin_dir, request.place, request.jobs, request.maintenance_db)
    choice = choose(
        request.backup_dir, server.target, named=named, version=request.version if not named else "", key=request.key, means=means
    )  # fmt: skip
    ready = check_restorable(restore_request(request, choice.entry.path))
    _check_tables(request, server)
    swap = None if request.tables else check_swap(_swap_request(request, "", ready))
    kept = swap.kept if swap else ""
    return {
        **_plan_of(request, server, swap),
        "message": f"{choice.entry.id} can be restored.",
        "backup": _backup(choice),
        "why": _why(request, choice, report),
        "passed_over": [each.to_dict() for each in choice.skipped],
        "gap": choice.gap.to_dict() if choice.gap else None,
        "window": _window(server, _snapshot_time(choice), kept, request),
        "rows": _rows(request, choice) if server.connectable else [],
        "estimate": _estimate(choice, ready),
        "properties": ready.properties.to_dict() if ready.properties else {},
        "missing_roles": list(ready.missing_roles),
        "releases": _releases(report, choice),
        "incoming": None,
        "restore_warnings": list(dict.fromkeys([*ready.warnings, *(swap.warnings if swap else ())])),
    }


def restore_request(request: RestorePlanRequest, path: str) -> RestoreRequest:
    """The restore that is planned."""
    return RestoreRequest(
        settings=request.settings,
        path=path,
        key=request.key,
        bin_dir=request.bin_dir,
        place=request.place,
        jobs=request.jobs,
        require_patched=request.require_patched,
        maintenance_db=request.maintenance_db,
        missing_roles=request.missing_roles,
        server_free_bytes=request.server_free_bytes,
        run_id=request.run_id,
    )


def _swap_request(request: RestorePlanRequest, incoming: str, ready: RestoreReadiness | None = None) -> SwapRequest:
    return SwapRequest(
        request.settings,
        incoming,
        maintenance_db=request.maintenance_db,
        timeout=request.timeout,
        properties=ready.properties.to_dict() if ready and ready.properties else {},
        run_id=request.run_id,
        state_dir=request.run_dir,
    )


def _plan_of(request: RestorePlanRequest, server: Server, swap: SwapReadiness | None) -> dict[str, t.Any]:
    """What every plan says."""
    return {
        "outcome": "planned",
        "purpose": request.purpose,
        "target": server.target.to_dict(),
        "database_bytes": server.bytes or 0,
        "exists": server.exists,
        "tables": list(request.tables),
        "kept": swap.kept if swap else "",
        "sessions": list(swap.sessions) if swap else [],
        "changes": list(swap.changes) if swap else [],
        "earlier_kept": [kept.to_dict() for kept in server.kept],
    }


def _undone(request: RestorePlanRequest, server: Server) -> dict[str, t.Any] | None:
    """The report of the rollback that is undone.

    :raises CannotPlan: there is none, and no backup was named either.
    """
    report = committed_rollback(request.run_dir, server.target, request.run)
    if report is None and not request.backup:
        which = f"run {request.run} is not one that" if request.run else "there is no run that"
        raise CannotPlan(
            f"Nothing can be undone: {which} rolled back a migration of {request.settings.dbname} and left a report with a backup in "
            f"{request.run_dir or 'rollback_run_dir'}. Nothing was stopped or changed. Name the run (-e run=...) or the backup "
            "(-e backup=...), or correct rollback_run_dir."
        )
    return report


def _releases(report: Mapping[str, t.Any] | None, choice: Choice) -> dict[str, dict[str, str]]:
    """What was checked out on each host of the application, and its image, before the rollback that is undone changed it."""
    if report is None or (report.get("backup") or {}).get("id") != choice.entry.id:
        return {}
    return {
        host: {
            "ref": str(entry.get("previous_commit") or ""),
            "branch": str(entry.get("previous_branch") or ""),
            "stash": str(entry.get("stash") or ""),
            "image": str(entry.get("previous_image") or ""),
        }
        for host, entry in hosts_of(report.get("previous_code") or {}).items()
        if entry.get("changed") and (entry.get("previous_commit") or entry.get("previous_image"))
    }


def _check_tables(request: RestorePlanRequest, server: Server) -> None:
    """Whether the backup has them is found by the preview, which resolves names along the search path."""
    if not request.tables:
        return
    if not server.exists:
        raise CannotPlan(
            f"There is no database {request.settings.dbname}, so no table can be put back into it. Nothing was stopped or changed. "
            "Run again without the extra variable tables to restore all of it."
        )


def _why(request: RestorePlanRequest, choice: Choice, report: Mapping[str, t.Any] | None) -> str:
    if request.backup:
        return "It was named with the extra variable backup."
    if report is not None:
        return f"It is the state that run {report.get('run_id')} found before it rolled back {_rolled_back(report)}."
    of = f" before {request.version}" if request.version else " before a migration"
    passed = f"; {len(choice.skipped)} passed over" if choice.skipped else ""
    return f"It is the newest valid backup{of}{passed}."


def _rolled_back(report: Mapping[str, t.Any]) -> str:
    plan = report.get("plan") or {}
    if plan.get("object"):
        return f"{plan['object']['kind']} {plan['object']['identity']}"
    return ", ".join(str(each) for each in plan.get("versions") or [])


def _backup(choice: Choice) -> dict[str, t.Any]:
    entry = choice.entry
    keys = ("id", "path", "kind", "provider", "version", "bytes", "created_at", "age_seconds")
    return {**{key: value for key, value in entry.to_dict().items() if key in keys}, "verified": bool(entry.valid)}


def _snapshot_time(choice: Choice) -> dt.datetime | None:
    manifest = choice.entry.manifest
    taken = manifest.snapshot.get("taken_at") if manifest else None
    return moment(str(taken or "")) or moment(choice.entry.created_at)


def _window(server: Server, since: dt.datetime | None, kept: str, request: RestorePlanRequest) -> dict[str, t.Any]:
    """What was written to the live database and will not be in it any more."""
    seconds = max(0.0, (server.now - since).total_seconds()) if since else None
    began = f"{since:%Y-%m-%d %H:%M:%S} UTC ({span(seconds or 0)})" if since else "a time that is not known"
    if request.tables:
        text = f"Rows of {', '.join(request.tables)} that were changed or deleted since {began} are as they were then; all other tables keep what was written."
    elif kept:
        text = f"Everything written since {began} is lost from the live database; it stays in {kept}."
    else:
        text = (
            f"Everything written since {began} is lost: there is no database {request.settings.dbname} to keep it in."
        )
    return {"from": _iso(since), "to": _iso(server.now), "seconds": seconds and round(seconds, 3), "text": text}


def _iso(time: dt.datetime | None) -> str | None:
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S}Z" if time else None


def _estimate(choice: Choice, ready: RestoreReadiness) -> dict[str, t.Any]:
    took = choice.entry.seconds
    seconds = None if took is None else max(1.0, round(took * RESTORE_BY_BACKUP, 1))
    return {
        "seconds": 1.0 if ready.manifest.provider == "clone" else seconds,
        "bytes": ready.estimated_bytes,
        "free_bytes": ready.free_bytes,
        "jobs": ready.jobs,
    }


# --- rows now and then ------------------------------------------------------------------------------------------------


def _rows(request: RestorePlanRequest, choice: Choice) -> list[dict[str, t.Any]]:
    """Rows of the critical tables in the backup, and in the live database as far as it answers in time."""
    then = choice.entry.manifest.rows if choice.entry.manifest else {}
    wanted = [table for table in (request.tables or request.critical_tables) if table in then]
    now = _count(request.settings, wanted) if wanted else {}
    return [{"table": table, "then": then[table], "now": now.get(table)} for table in wanted]


def _count(settings: ConnectionSettings, tables: Sequence[str]) -> dict[str, int]:
    """Rows of those tables that could be counted. A database that does not answer leaves it empty."""
    quick = dataclasses.replace(
        settings, connect_params={**settings.connect_params, "connect_timeout": int(COUNT_SECONDS)}
    )
    counted: dict[str, int] = {}
    with contextlib.suppress(psycopg2.Error, RollbackError):
        connection = connect(
            quick,
            application_name="cypher.rollback plan",
            lock_timeout="1s",
            statement_timeout=f"{int(COUNT_SECONDS * 1000)}ms",
            search_path=("pg_catalog",),
        )
        with contextlib.closing(connection), connection.cursor() as cursor:
            connection.set_session(readonly=True)
            # One by one: what was counted before an error counts.
            counted.update(_counts(cursor, tables, time.monotonic() + COUNT_SECONDS))
    return counted


def _counts(cursor: Cursor, tables: Sequence[str], deadline: float) -> Iterable[tuple[str, int]]:
    for table in tables:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (f"{int(left * 1000) + 1}ms",))
        # The server's own spelling: qualified and quoted, because only pg_catalog is in the search path.
        cursor.execute("SELECT pg_catalog.to_regclass(%s)::text", (table,))
        named = cursor.fetchall()[0][0]
        if named is not None:
            cursor.execute(f"SELECT count(*) FROM {named}")
            yield table, int(cursor.fetchall()[0][0])


# --- a database that was kept -----------------------------------------------------------------------------------------


def _swap_back(request: RestorePlanRequest, server: Server) -> dict[str, t.Any]:
    kept = _kept(request, server)
    swap = check_swap(_swap_request(request, kept.name))
    return {
        **_plan_of(request, server, swap),
        "message": f"{kept.name} can be swapped back.",
        "backup": {},
        "why": "It was named with the extra variable database."
        if request.kept
        else "It is the one that was replaced last.",
        "passed_over": [],
        "gap": None,
        "window": _window(server, moment(kept.replaced_at), swap.kept, request),
        "rows": [],
        "estimate": {"seconds": 1.0, "bytes": 0, "free_bytes": None, "jobs": 1},
        "properties": {},
        "missing_roles": [],
        "releases": {},
        "incoming": {"database": kept.name, **kept.to_dict()},
        "restore_warnings": list(swap.warnings),
    }


def _kept(request: RestorePlanRequest, server: Server) -> Kept:
    if not request.kept and server.kept:
        return server.kept[0]
    for kept in server.kept:
        if kept.name == request.kept:
            return kept
    there = ", ".join(f"{kept.name} (replaced {kept.replaced_at})" for kept in server.kept) or "none"
    which = f"{request.kept} is not one" if request.kept else "there is none"
    raise CannotPlan(
        f"No database can be swapped back: {which} that was kept when {request.settings.dbname} was replaced. There are: {there}. "
        "Nothing was stopped or changed. Name one with the extra variable database, or correct rollback_db_name."
    )
