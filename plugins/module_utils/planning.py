# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From files and a database to a plan, with everything checked that can be known before anything is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .catalog import bare_name, snapshot
from .connection import connect, server_errors, settings_from
from .errors import FailedUnchanged, Refused
from .execute import Limits, Order, execute_plan, refuse_other_run
from .history import is_still_gone, rollback_of
from .ledger import InferredLedger, TableLedger
from .migrations import NoSuchMigration, find_migrations, resolve_version
from .names import Names
from .object_migration import made_by, plan_object
from .plan import Plan, Wanted, make_plan
from .privileges import refuse_missing
from .rows import count_rows, count_values, estimate_values
from .schema_drift import NO_COMPARISON, DriftOptions, drift_argument_spec, drift_options, recorded_schema
from .server import inspect_target, sessions
from .wanted_object import object_argument_spec, wanted_object
from .watch import Watch

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .catalog import Catalog, CatalogObject
    from .connection import ConnectionSettings
    from .ledger import Ledger
    from .migrations import Migration
    from .names import Resolution
    from .schema_drift import RecordedSchema
    from .server import Target
    from .wanted_object import WantedObject

#: They take from a role what would keep it from being dropped.
_REVOKES = frozenset({"REVOKE", "DROP OWNED", "REASSIGN OWNED"})


@dataclasses.dataclass(frozen=True)
class PlanRequest:
    """What is needed to make a plan.

    :param migrations_dir: folder of the migrations.
    :param left_over: ``refuse`` or ``accept`` objects of the same name in other schemas.
    :param run_dir: folder of the runs, whose reports say what was rolled back before; empty, not asked.
    :param system_identifier: of the cluster that is meant; empty, any.
    :param drift: where the schema before a migration is recorded, and what a difference means.
    :param object: what is taken back instead of a migration.
    """

    settings: ConnectionSettings
    migrations_dir: str
    search_path: Sequence[str]
    wanted: Wanted
    limits: Limits
    ledger_table: str = ""
    ledger_column: str = "version"
    left_over: str = "refuse"
    system_identifier: str = ""
    run_dir: str = ""
    drift: DriftOptions = NO_COMPARISON
    object: WantedObject | None = None


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan with what was learned about its target.

    :param schema: of before the oldest migration of the plan; ``None``: no backup has it.
    """

    target: Target
    plan: Plan
    warnings: tuple[str, ...] = ()
    sessions: tuple[dict[str, t.Any], ...] = ()
    rows_estimate: int = 0
    schema: RecordedSchema | None = None


def plan_argument_spec() -> dict[str, dict[str, t.Any]]:
    """Options of the modules that make a plan."""
    return {
        "version": {"type": "raw"},
        "to_version": {"type": "raw"},
        "project_dir": {"type": "path", "default": "."},
        "migrations_dir": {"type": "str", "default": "migrations"},
        "search_path": {"type": "list", "elements": "str", "default": ["b2b", "erp", "shared", "public"]},
        "commented_down": {"type": "str", "default": "refuse", "choices": ["refuse", "accept"]},
        "left_over": {"type": "str", "default": "refuse", "choices": ["refuse", "accept"]},
        "ledger_table": {"type": "str", "default": ""},
        "ledger_column": {"type": "str", "default": "version"},
        "lock_timeout": {"type": "str", "default": "5s"},
        "statement_timeout": {"type": "str", "default": "0"},
        "max_rows_lost": {"type": "raw"},
        "system_identifier": {"type": "str", "default": ""},
        "command": {"type": "str", "default": "ansible-playbook cypher.rollback"},
        **drift_argument_spec(),
        **object_argument_spec(),
    }


def plan_request(params: Mapping[str, t.Any]) -> PlanRequest:
    """The request that a module's parameters make.

    :raises Refused: for a limit that is not a whole number, or an object that is named in no clear way.
    """
    folder = os.path.join(params["project_dir"], params["migrations_dir"])
    wanted = Wanted(params["version"], params["to_version"], params["command"], params["commented_down"] == "accept")
    limits = Limits(params["lock_timeout"], params["statement_timeout"], _rows_limit(params["max_rows_lost"]))
    return PlanRequest(
        settings_from(params), folder, params["search_path"], wanted, limits, params["ledger_table"], params["ledger_column"],
        params["left_over"], params["system_identifier"], params.get("run_dir") or "",
        drift_options(params), wanted_object(params),
    )  # fmt: skip


def _rows_limit(value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not str(value).isdecimal():
        raise Refused(
            f"rollback_max_rows_lost is {value!r}. Give a whole number of rows, or leave it empty for no limit."
        )
    return int(str(value))


def ledger_maker(request: PlanRequest, migrations: Sequence[Migration]) -> Callable[[t.Any, Names], Ledger]:
    """How the applied versions are read, as the settings say."""

    def make(cursor: t.Any, names: Names) -> Ledger:
        if request.ledger_table and request.object is None:
            return TableLedger(cursor, request.ledger_table, request.ledger_column, migrations)
        return InferredLedger(names)

    return make


def read_migrations(request: PlanRequest) -> list[Migration]:
    """The migrations; what is wrong with the version is said before any server is asked.

    :raises Refused: for a folder or version that cannot be used.
    """
    if request.object is not None:
        # They only tell which of them made the object.
        with contextlib.suppress(Refused):
            return find_migrations(request.migrations_dir)
        return []
    migrations = find_migrations(request.migrations_dir)
    for asked in (request.wanted.version, request.wanted.to_version):
        if (
            asked is not None
            and asked != ""
            and not (asked is request.wanted.to_version and str(asked).strip("0") == "")
        ):
            resolve_version(asked, migrations)
    if request.wanted.version in (None, "") and request.wanted.to_version in (None, ""):
        resolve_version(request.wanted.version, migrations)
    return migrations


def plan_rollback(request: PlanRequest) -> Planned:
    """Make the plan and refuse whatever can be refused before anything is stopped. Reads only.

    :raises Refused: with what to change.
    """
    with server_errors(Refused, "looking at it; nothing was stopped or changed"):
        try:
            migrations = read_migrations(request)
        except NoSuchMigration as missing:
            return _rolled_back_before(request, missing)
        return _plan(request, migrations)


def _rolled_back_before(request: PlanRequest, missing: NoSuchMigration) -> Planned:
    """With the previous code the migration's file went; an earlier run's report still knows it.

    :raises NoSuchMigration: when there is no such report, or what that run removed is there again.
    """
    if not request.run_dir or request.wanted.version in (None, ""):
        raise missing
    with _looking(request) as (cursor, target):
        report = rollback_of(request.run_dir, request.wanted.version, target)
        if report is None or not is_still_gone(report, snapshot(cursor)):
            raise missing
    message = (
        f"Migration {request.wanted.version} was rolled back by run {report['run_id']}, and nothing that it removed is there again. "
        "Its file is not in the migrations folder any more."
    )
    return Planned(target, Plan((), (), (), message))


@contextlib.contextmanager
def _looking(request: PlanRequest) -> Iterator[tuple[t.Any, Target]]:
    """A cursor in one read-only snapshot of a database that may be rolled back. It waits for nobody without end."""
    limits = request.limits
    connection = connect(
        request.settings,
        application_name="cypher.rollback plan",
        lock_timeout=limits.lock_timeout,
        statement_timeout=limits.statement_timeout,
        search_path=request.search_path,
    )
    watched = Watch(request.settings, connection.get_backend_pid())
    with contextlib.closing(connection), watched as watch, connection.cursor() as cursor:
        target = inspect_target(connection, request.settings, request.system_identifier)
        connection.commit()
        connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
        locked = f"A lock to look at the database was not to be had within {limits.lock_timeout}; nothing was stopped or changed"
        with watch.lock_errors(Refused, locked):
            yield cursor, target


def _plan(request: PlanRequest, migrations: Sequence[Migration]) -> Planned:
    with _looking(request) as (cursor, target):
        planned = _look(cursor, request, migrations, target)
    if planned.plan.scripts:
        _refuse_too_many_rows(request, planned.plan, planned.rows_estimate)
        drift = NO_COMPARISON if request.object else request.drift
        schema, warnings = recorded_schema(drift, planned.target, planned.plan.versions[-1])
        planned = dataclasses.replace(planned, schema=schema, warnings=(*planned.warnings, *warnings))
        _rehearse(request, planned, migrations)
    return planned


def _look(cursor: t.Any, request: PlanRequest, migrations: Sequence[Migration], target: Target) -> Planned:
    refuse_other_run(cursor)
    catalog = snapshot(cursor)
    names = Names(catalog, cursor, request.search_path)
    plan = _decide(cursor, request, migrations, names)
    if not plan.scripts:
        return Planned(target, plan)
    resolved = names.resolve_scripts(plan.scripts)
    _refuse_namesakes(resolved, request)
    refuse_missing(cursor, resolved, revokes=any(statement.kind in _REVOKES for statement in plan.statements))
    doomed = _doomed_tables(cursor, catalog, resolved)
    warnings = [*plan.warnings, *_lock_warning(cursor, catalog, doomed)]
    rows = _rows(cursor, doomed, request) + _values(cursor, plan, request)
    return Planned(target, plan, tuple(warnings), tuple(sessions(cursor)), rows)


def _decide(cursor: t.Any, request: PlanRequest, migrations: Sequence[Migration], names: Names) -> Plan:
    if request.object is None:
        return make_plan(request.wanted, migrations, ledger_maker(request, migrations)(cursor, names))
    plan = plan_object(cursor, request.object, request.search_path, request.ledger_table, request.settings.dbname)
    return made_by(plan, migrations, names)


def _refuse_namesakes(resolved: Sequence[Resolution], request: PlanRequest) -> None:
    places = [(item, place) for item in resolved for place in item.elsewhere]
    if not places or request.left_over == "accept":
        return
    item, _place = places[0]
    found = ", ".join(place.identity for candidate, place in places if candidate is item)
    others = len({id(candidate) for candidate, _place in places}) - 1
    more = f" (and {others} more names)" if others else ""
    goes = (
        f"would drop {item.target.identity} and leave"
        if item.target
        else "would find none in rollback_search_path and leave"
    )
    raise Refused(
        f"The DOWN names {item.named} without a schema{more}. It {goes} {found}. Nothing was stopped or changed. "
        f"Write the schema in the DOWN, add it to rollback_search_path ({', '.join(request.search_path)}), "
        "or set rollback_left_over: accept if those belong to something else.",
        left_over=[{"type": candidate.named.type, "identity": place.identity} for candidate, place in places],
    )


def _doomed_tables(cursor: t.Any, catalog: Catalog, resolved: Sequence[Resolution]) -> list[CatalogObject]:
    """Tables with rows that go for certain: named ones, their partitions and heirs, and all of a named schema."""
    addresses = {item.target.address for item in resolved if item.target}
    schemas = {item.named.name for item in resolved if item.target and item.named.type == "schema"}
    named = [
        item.oid
        for item in catalog
        if item.kind in ("r", "p") and (item.address in addresses or bare_name(item.schema or "") in schemas)
    ]
    cursor.execute(
        "WITH RECURSIVE doomed(oid) AS (SELECT x::pg_catalog.oid FROM pg_catalog.unnest(%s::pg_catalog.int8[]) u(x) "
        "UNION SELECT h.inhrelid FROM pg_catalog.pg_inherits h JOIN doomed d ON d.oid = h.inhparent) SELECT oid::pg_catalog.int8 FROM doomed",
        (named,),
    )
    doomed = {row[0] for row in cursor.fetchall()}
    return [table for table in catalog.tables() if table.oid in doomed]


def _rows(cursor: t.Any, tables: Sequence[CatalogObject], request: PlanRequest) -> int:
    if request.limits.max_rows_lost is not None:
        counted = count_rows(cursor, tables)
        unknown = [table.identity for table in tables if table.identity not in counted]
        if unknown:
            raise Refused(
                f"The rows of {', '.join(unknown[:8])} cannot be counted by this role, so whether rollback_max_rows_lost holds cannot be known. "
                "Nothing was stopped or changed. Set rollback_db_user to a role that may read all rows of these tables."
            )
        return sum(counted.values())
    cursor.execute(
        "SELECT coalesce(pg_catalog.sum(greatest(reltuples, 0)), 0)::pg_catalog.int8 FROM pg_catalog.pg_class WHERE oid = ANY(%s::pg_catalog.oid[])",
        ([table.oid for table in tables],),
    )
    return int(cursor.fetchone()[0])


def _values(cursor: t.Any, plan: Plan, request: PlanRequest) -> int:
    """Values of a column that is taken back, counted as rows are; what is NULL is not lost."""
    about = plan.object
    if about is None or not about.column or not about.holds_values:
        return 0
    if request.limits.max_rows_lost is None:
        return estimate_values(cursor, about.oid, about.column)
    counted = count_values(cursor, about.oid, about.relation, about.identity)
    if counted is None:
        raise Refused(
            f"The values of {about.identity} cannot be counted by this role, so whether rollback_max_rows_lost holds cannot be known. "
            "Nothing was stopped or changed. Set rollback_db_user to a role that may read all rows of this table."
        )
    return counted


def _refuse_too_many_rows(request: PlanRequest, plan: Plan, rows: int) -> None:
    limit = request.limits.max_rows_lost
    if limit is not None and rows > limit:
        raise Refused(
            f"The DOWN of {', '.join(plan.versions)} destroys at least {rows} rows, and rollback_max_rows_lost allows {limit}. "
            "Nothing was stopped or changed. See them with --check --diff, then raise rollback_max_rows_lost.",
            rows_lost=rows,
        )


def _rehearse(request: PlanRequest, planned: Planned, migrations: Sequence[Migration]) -> None:
    """What a DOWN that changes data destroys is only known by running it; with a limit set, that is done before the stop."""
    if request.limits.max_rows_lost is None or all(statement.only_drops for statement in planned.plan.statements):
        return
    order = Order(
        request.settings,
        planned.plan,
        request.search_path,
        request.limits,
        preview=True,
        accept_left_over=request.left_over == "accept",
        schema=planned.schema,
    )
    try:
        execute_plan(order, ledger_maker(request, migrations))
    except FailedUnchanged as err:
        raise Refused(
            f"A trial of the DOWN, undone at once, did not pass: {err} Nothing was stopped.", **err.details
        ) from err


def _lock_warning(cursor: t.Any, catalog: Catalog, tables: Sequence[CatalogObject]) -> list[str]:
    """A transaction that drops thousands of tables can run out of the server's lock table (measured at about 3,200)."""
    cursor.execute(
        "SELECT pg_catalog.current_setting('max_locks_per_transaction')::int * (pg_catalog.current_setting('max_connections')::int "
        "+ pg_catalog.current_setting('max_prepared_transactions')::int)"
    )
    capacity = int(cursor.fetchone()[0])
    doomed = {table.oid for table in tables}
    # A table, its TOAST table, that one's index, and each index and sequence of its own.
    needed = 3 * len(doomed) + sum(
        1 for item in catalog if any(owner in doomed for _catalog, owner, _column in item.owners)
    )
    if needed <= capacity:
        return []
    return [
        (
            f"The plan needs about {needed} locks, and the server has room for about {capacity}: it may fail with 'out of shared memory' "
            "and change nothing. Raise max_locks_per_transaction and restart the server."
        )
    ]
