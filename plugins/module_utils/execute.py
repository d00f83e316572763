# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a plan in one transaction, proves its effect inside it, and only then commits, or, for a preview, never does."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from .catalog import column_address, snapshot
from .checks import INFORMATION, failed_checks, invalid_objects, prove_plan
from .commit import settle
from .connection import connect, optional_limits
from .effect import prove_effect
from .errors import FailedUnchanged, NeedsAttention, Refused, RollbackError
from .names import KNOWN_TYPES, Names
from .rows import count_rows, count_values, own_row_changes, rows_touched, sequences_advanced
from .schema_drift import compare_schema, drift_check, drift_facts, drift_warning
from .server import sessions, strong_locks
from .sql import parse_script
from .triggers import disabled_triggers, trigger_checks
from .watch import Watch

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.errorcodes
    import psycopg2.errors
    import psycopg2.extensions

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .catalog import Address, Catalog, Cursor
    from .checks import Check, WantedCheck
    from .connection import ConnectionSettings
    from .effect import Effect
    from .ledger import Ledger
    from .names import Resolution
    from .plan import Plan
    from .schema_drift import RecordedSchema
    from .sql import Statement

#: First half of the advisory lock's key pair, "roll" in ASCII; the second is the database's oid.
LOCK_KEY = 0x726F6C6C
# A DOWN may SET what it likes, but not lift the limits of the run: RESET goes back to the values of the start packet.
_OWN_LIMITS = "RESET lock_timeout; RESET statement_timeout; SET idle_in_transaction_session_timeout = 0"
_OWN_SESSION = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"

#: Kinds of statements that make no object and change no setting, so that a DROP that has to wait may wait past them.
_MAKES_NOTHING = frozenset(
    {"REVOKE", "DROP OWNED", "REASSIGN OWNED", "ALTER DEFAULT PRIVILEGES", "DELETE", "UPDATE", "TRUNCATE", "COMMENT"}
)

PREVIEW_LOCK_TIMEOUT = "1s"


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far a run may go.

    :param lock_timeout: PostgreSQL duration that one statement waits for a lock.
    :param statement_timeout: PostgreSQL duration of one statement; ``0`` for none.
    :param max_rows_lost: more than these rows are not destroyed; ``None`` for no limit.
    """

    lock_timeout: str = "5s"
    statement_timeout: str = "0"
    max_rows_lost: int | None = None


@dataclasses.dataclass(frozen=True)
class Timed:
    """A statement that ran."""

    version: str
    number: int
    line: int
    kind: str
    seconds: float
    tries: int


@dataclasses.dataclass(frozen=True)
class Execution:
    """A plan that ran to its end.

    :param committed: ``False`` for a preview.
    :param xid: the transaction, for ``pg_xact_status``.
    :param schema_drift: every difference from the schema before the oldest migration; ``None``: there was none to compare with.
    """

    committed: bool
    xid: str
    effect: Effect
    checks: tuple[Check, ...]
    statements: tuple[Timed, ...]
    locks: tuple[dict[str, str], ...]
    sessions: tuple[dict[str, t.Any], ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    schema_drift: Mapping[str, t.Any] | None = None


@dataclasses.dataclass(frozen=True)
class Order:
    """All that one execution needs to know.

    :param schema: what the schema has to be afterwards; ``None``: not known.
    :param before_commit: is told what the transaction did, just before its COMMIT; why it could not note that, or nothing.
    """

    settings: ConnectionSettings
    plan: Plan
    search_path: Sequence[str]
    limits: Limits
    checks: Sequence[WantedCheck] = ()
    row_counts: Mapping[str, int] | None = None
    run_id: str = ""
    preview: bool = False
    accept_left_over: bool = False
    schema: RecordedSchema | None = None
    before_commit: t.Callable[[Execution], str] | None = None


def execute_plan(order: Order, ledger_of: t.Callable[[t.Any, Names], Ledger]) -> Execution:
    """Run the plan, or preview it.

    :param ledger_of: makes the ledger for a cursor and the names of the database.
    :raises FailedUnchanged: the transaction did not commit; everything is as before.
    :raises OutcomeUnknown: the answer to COMMIT was lost and the server cannot be asked.
    """
    limits = order.limits
    connection = connect(
        order.settings,
        application_name=f"cypher.rollback {order.run_id}".strip(),
        lock_timeout=PREVIEW_LOCK_TIMEOUT if order.preview else limits.lock_timeout,
        statement_timeout=limits.statement_timeout,
        search_path=order.search_path,
    )
    with contextlib.closing(connection), Watch(order.settings, connection.get_backend_pid()) as watch:
        return Transaction(order, connection, watch, ledger_of).run()


class Transaction:
    """The one transaction of a run."""

    def __init__(
        self,
        order: Order,
        connection: psycopg2.extensions.connection,
        watch: Watch,
        ledger_of: t.Callable[[t.Any, Names], Ledger],
    ) -> None:
        self._order = order
        self._connection = connection
        self._watch = watch
        self._ledger_of = ledger_of
        self._timed: list[Timed] = []
        self._at: tuple[str, Statement] | None = None
        self._doing = "before the first statement"
        self._limits = _OWN_LIMITS
        self._drift: dict[str, t.Any] | None = None
        self._warnings: list[str] = []
        self._values: dict[Address, int] = {}
        self._disabled: tuple[str, ...] = ()

    def run(self) -> Execution:
        """Everything between BEGIN and COMMIT or ROLLBACK."""
        try:
            return self._run()
        except psycopg2.Error as err:
            raise self._failure(err) from err

    def _run(self) -> Execution:
        started = time.monotonic()
        order = self._order
        for check in order.checks:
            _refuse_unsafe(check)
        self._limits = "; ".join(filter(None, (self._limits, optional_limits(self._connection))))
        self._connection.set_session(isolation_level="READ COMMITTED")
        cursor = self._connection.cursor()
        cursor.execute(self._limits)
        xid = _take_lock(cursor)
        before = snapshot(cursor)
        names = Names(before, cursor, order.search_path)
        ledger = self._ledger_of(cursor, names)
        self._refuse_moved_on(ledger)
        resolved = names.resolve_scripts(order.plan.scripts)
        rows = dict(order.row_counts) if order.row_counts is not None else count_rows(cursor, before.tables())
        self._values = self._count_values(cursor)
        self._disabled = tuple(item.identity for item in disabled_triggers(cursor))
        in_the_way = tuple(sessions(cursor))
        self._run_scripts(cursor)
        effect, checks = self._prove(cursor, resolved, before, rows)
        locks = strong_locks(cursor, before)
        self._forget(cursor, ledger)
        effect = _with_touched(effect, rows_touched(cursor, before))
        self._warnings.extend(_traces(cursor) if order.preview else ())
        done = Execution(
            not order.preview, "" if order.preview else xid, effect, checks, tuple(self._timed), locks, in_the_way,
            time.monotonic() - started, tuple(self._warnings), self._drift,
        )  # fmt: skip
        trouble = self._end(cursor, xid, done)
        warnings = (*done.warnings, trouble) if trouble else done.warnings
        return dataclasses.replace(done, seconds=time.monotonic() - started, warnings=warnings)

    def _count_values(self, cursor: psycopg2.extensions.cursor) -> dict[Address, int]:
        """Values of a column that is taken back by itself; once it is dropped, nobody can count them."""
        about = self._order.plan.object
        if about is None or not about.column:
            return {}
        counted = count_values(cursor, about.oid, about.relation, about.identity) if about.holds_values else 0
        if counted is None and self._order.limits.max_rows_lost is not None:
            raise FailedUnchanged(
                f"The values of {about.identity} could not be counted, so whether rollback_max_rows_lost holds is not known. Nothing was changed. "
                "Set rollback_db_user to a role that may read all rows of this table."
            )
        return {} if counted is None else {column_address(about.oid, about.column): counted}

    def _refuse_moved_on(self, ledger: Ledger) -> None:
        """Between plan and lock another run may have ended: what was planned must still be so."""
        planned = {state.version: state for state in self._order.plan.states}
        for migration, script in zip(self._order.plan.migrations, self._order.plan.scripts, strict=True):
            was, now = planned[migration.version], ledger.state(migration, script)
            if was.state != now.state:
                raise FailedUnchanged(
                    f"{migration.version} was {was.state} when the rollback was planned, and is {now.state} now ({now.evidence()}): "
                    "something changed the database meanwhile. Nothing was changed here. Look at it with --check, then run again."
                )

    def _run_scripts(self, cursor: psycopg2.extensions.cursor) -> None:
        for script in self._order.plan.scripts:
            waiting: list[Statement] = []
            for statement in script.statements:
                if waiting and not _may_pass(statement):
                    waiting = self._resolve(cursor, script.version, waiting)
                if not self._attempt(cursor, script.version, statement, 1):
                    waiting.append(statement)
            self._resolve(cursor, script.version, waiting)
            self._doing = f"behind the DOWN of {script.version}"
            cursor.execute(f"{_OWN_SESSION}; {self._limits}")

    def _resolve(self, cursor: psycopg2.extensions.cursor, version: str, waiting: list[Statement]) -> list[Statement]:
        """Run the statements that others had to go before, in as many rounds as it takes; nothing waits afterwards."""
        tries = 1
        while waiting:
            tries += 1
            still = [statement for statement in waiting if not self._attempt(cursor, version, statement, tries)]
            if len(still) == len(waiting):
                self._execute(cursor, version, still[0], tries)
            waiting = still
        return waiting

    def _attempt(self, cursor: psycopg2.extensions.cursor, version: str, statement: Statement, tries: int) -> bool:
        """Run a statement; ``False`` when others of the DOWN must go first."""
        if not statement.retryable:
            self._execute(cursor, version, statement, tries)
            return True
        cursor.execute("SAVEPOINT statement")
        try:
            self._execute(cursor, version, statement, tries)
        except psycopg2.Error as err:
            if err.pgcode != psycopg2.errorcodes.DEPENDENT_OBJECTS_STILL_EXIST:
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT statement; RELEASE SAVEPOINT statement")
            return False
        cursor.execute("RELEASE SAVEPOINT statement")
        return True

    def _execute(self, cursor: psycopg2.extensions.cursor, version: str, statement: Statement, tries: int) -> None:
        self._at = (version, statement)
        self._watch.forget()
        started = time.monotonic()
        cursor.execute(statement.text)
        seconds = round(time.monotonic() - started, 6)
        if not statement.only_drops:
            # SET does it openly; a function or DO block may do it too.
            cursor.execute(self._limits)
        self._timed.append(Timed(version, statement.number, statement.line, statement.kind, seconds, tries))
        self._at = None

    def _prove(
        self, cursor: psycopg2.extensions.cursor, resolved: Sequence[Resolution], before: Catalog, rows: dict[str, int]
    ) -> tuple[Effect, tuple[Check, ...]]:
        self._doing = "when its deferred constraints were checked"
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        self._doing = "while its result was proven"
        after = snapshot(cursor)
        statements = self._order.plan.statements
        nameless = frozenset(
            item.type for statement in statements for item in statement.drops if item.type not in KNOWN_TYPES
        )
        effect = prove_effect(
            before,
            after,
            resolved,
            rows,
            own_row_changes(cursor, before, after, rows),
            nameless=nameless,
            values=self._values,
        )
        checks = prove_plan(
            cursor,
            effect,
            resolved,
            before,
            only_drops=all(statement.only_drops for statement in statements),
            wanted=self._order.checks,
            accept_left_over=self._order.accept_left_over,
        )
        checks = (*checks, *trigger_checks(cursor, self._disabled), *self._compare_schema(after))
        details = {"effect": effect.to_dict(), "checks": [dataclasses.asdict(check) for check in checks]}
        details |= {"schema_drift": self._drift} if self._drift else {}
        self._refuse_too_many_rows(effect, details)
        failed = failed_checks(checks)
        if failed:
            raise FailedUnchanged(
                f"The DOWN ran, but its result is not right, so it was undone: {'; '.join(failed)}. The database is as it was.",
                **details,
            )
        invalid = (*(item.identity for item in invalid_objects(cursor)), *self._disabled)
        return dataclasses.replace(effect, invalid=invalid), checks

    def _compare_schema(self, after: Catalog) -> t.Iterator[Check]:
        recorded = self._order.schema
        if recorded is None:
            return
        drift = compare_schema(recorded, after)
        self._drift = drift_facts(recorded, drift)
        check = drift_check(recorded, drift)
        if check.status == INFORMATION:
            self._warnings.append(drift_warning(recorded, drift))
        yield check

    def _refuse_too_many_rows(self, effect: Effect, details: dict[str, t.Any]) -> None:
        limit = self._order.limits.max_rows_lost
        if limit is None:
            return
        if effect.rows_lost > limit:
            raise FailedUnchanged(
                f"The DOWN destroys {effect.rows_lost} rows, and rollback_max_rows_lost allows {limit}. It was undone: the database is as it was. "
                "See them with --check --diff, then raise rollback_max_rows_lost.",
                **details,
            )
        if effect.uncounted:
            raise FailedUnchanged(
                f"The rows of {', '.join(effect.uncounted)} could not be counted, so whether rollback_max_rows_lost holds is not known. "
                "It was undone: the database is as it was. Set rollback_db_user to a role that may read all of them.",
                **details,
            )

    def _forget(self, cursor: psycopg2.extensions.cursor, ledger: Ledger) -> None:
        self._doing = "when its versions were taken out of the ledger"
        for migration in self._order.plan.migrations:
            ledger.forget(cursor, migration)

    def _end(self, cursor: psycopg2.extensions.cursor, xid: str, done: Execution) -> str:
        """COMMIT or ROLLBACK; why what was done could not be noted before it, or nothing."""
        cursor.execute("SELECT pg_catalog.pg_current_xact_id()::text")
        if str(cursor.fetchall()[0][0]) != xid:
            raise NeedsAttention(
                f"Transaction {xid} ended before the DOWN did, so a part of it may be committed: a function or check of it ends transactions. "
                "Compare the database with the backup, and restore that where it matters.",
                xid=xid,
            )
        if self._order.preview:
            self._connection.rollback()
            return ""
        trouble = self._order.before_commit(done) if self._order.before_commit else ""
        self._doing = "at COMMIT"
        try:
            self._connection.commit()
        except psycopg2.Error as err:
            if err.pgcode is not None and not self._connection.closed:
                raise
            settle(self._order.settings, xid, err)
        return trouble

    def _failure(self, err: psycopg2.Error) -> RollbackError:
        lost = self._connection.closed or err.pgcode in _SHUTDOWN
        if not self._connection.closed:
            with contextlib.suppress(psycopg2.Error):
                self._connection.rollback()
        where, details = self._where()
        said = " ".join(str(err).split()) or type(err).__name__
        details["sqlstate"] = err.pgcode
        if err.pgcode == psycopg2.errorcodes.LOCK_NOT_AVAILABLE:
            limit = PREVIEW_LOCK_TIMEOUT if self._order.preview else self._order.limits.lock_timeout
            return FailedUnchanged(
                f"A lock was not to be had within {limit} {where}. The transaction was undone: the database is as it was. "
                f"{self._watch.describe()} Or raise rollback_lock_timeout. Then run again.",
                blockers=self._watch.seen,
                **details,
            )
        reason = f"The connection was lost {where}" if lost else f"The server refused {where}"
        if err.pgcode == psycopg2.errorcodes.QUERY_CANCELED:
            reason = (
                f"The server cancelled {where} (rollback_statement_timeout is {self._order.limits.statement_timeout})"
            )
        advice = f" {_ADVICE[err.pgcode]}" if err.pgcode in _ADVICE else ""
        if err.pgcode == psycopg2.errorcodes.DEPENDENT_OBJECTS_STILL_EXIST and self._order.plan.object is not None:
            advice = " Take that back first, or look at it with -e cascade=yes --check."
        return FailedUnchanged(
            f"{reason}: {said}. The transaction was undone: the database is as it was.{advice}", **details
        )

    def _where(self) -> tuple[str, dict[str, t.Any]]:
        if self._at is None:
            return self._doing, {}
        version, statement = self._at
        where = (
            f"in the DOWN of {version}, statement {statement.number}, {statement.file} line {statement.line} "
            f"({' '.join(statement.text.split())[:120]})"
        )
        return where, {
            "version": version,
            "statement": statement.number,
            "file": statement.file,
            "line": statement.line,
        }


#: admin_shutdown, crash_shutdown, cannot_connect_now
_SHUTDOWN = frozenset({"57P01", "57P02", "57P03"})

#: What to do next, by SQLSTATE.
_ADVICE = {
    "53200": "Raise max_locks_per_transaction and restart the server, or roll back fewer migrations at once; then run again.",
    "40P01": "Another session held what this one waited for and the other way round: end it, or run again.",
    "2BP01": "Write what depends on it into the DOWN, or CASCADE.",
    "42501": "Set rollback_db_user to a role that may do that.",
}


def _may_pass(statement: Statement) -> bool:
    """Whether a DROP that waits for others may wait past this one: it makes nothing that has the name by then."""
    return statement.only_drops or statement.kind in _MAKES_NOTHING or statement.kind == "ALTER TABLE"


def _refuse_unsafe(check: WantedCheck) -> None:
    """A check runs inside the transaction: it must not be able to end it.

    :raises Refused: for more than one statement, or one that controls the transaction.
    """
    if len(parse_script(check.query, f"rollback_verify_checks, {check.name}")) != 1:
        raise Refused(
            f"The check {check.name} of rollback_verify_checks is not one statement. Nothing was changed. Write one query."
        )


def _take_lock(cursor: Cursor) -> str:
    """Keep other runs out of this database, and give the transaction's id.

    :raises Refused: naming the run that is there.
    """
    cursor.execute(
        "SELECT pg_catalog.pg_try_advisory_xact_lock(%s, oid::pg_catalog.int8::pg_catalog.bit(32)::pg_catalog.int4), "
        "pg_catalog.pg_current_xact_id()::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
        (LOCK_KEY,),
    )
    locked, xid = cursor.fetchall()[0]
    if not locked:
        refuse_other_run(cursor)
        raise Refused("Another run was changing this database and has just ended. Nothing was changed. Run again.")
    return str(xid)


def refuse_other_run(cursor: Cursor) -> None:
    """Refuse while another run's transaction is open in this database, before waiting for its locks.

    :raises Refused: naming that run.
    """
    cursor.execute(
        "SELECT a.pid, a.application_name, coalesce(a.client_addr::text, 'local'), "
        "pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
        "FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.classid = %s AND l.granted AND l.pid <> pg_catalog.pg_backend_pid() "
        "AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
        (LOCK_KEY,),
    )
    holders = "; ".join(
        f"{name} (pid {pid}, client {client}, since {since})" for pid, name, client, since in cursor.fetchall()
    )
    if holders:
        raise Refused(
            f"Another run is changing this database: {holders}. Nothing was stopped or changed here. Wait for it, then run again."
        )


def _with_touched(effect: Effect, tables: Sequence[str]) -> Effect:
    """A truncated table is in the row changes, and not among those that the server counts."""
    return dataclasses.replace(
        effect, touched=tuple(dict.fromkeys([*(change.table for change in effect.row_changes), *tables]))
    )


def _traces(cursor: Cursor) -> t.Iterator[str]:
    """What a preview leaves although it is undone."""
    advanced = sequences_advanced(cursor)
    if advanced:
        yield (
            f"The DOWN takes values from {', '.join(advanced)}, and PostgreSQL does not take those back: after this preview they go on "
            "from a later value."
        )
