# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a plan in one transaction, proves its effect inside it, and only then commits, or, for a preview, never does."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import typing as t

from .catalog import snapshot
from .checks import failed_checks, prove_plan
from .connection import connect
from .effect import prove_effect
from .errors import FailedUnchanged, OutcomeUnknown, Refused, RollbackError
from .names import Names
from .rows import count_rows, own_row_changes
from .server import blockers, describe_session, sessions

try:
    import psycopg2
    import psycopg2.errorcodes
except ImportError:  # the module says so
    pass

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg2.extensions

    from .catalog import Catalog
    from .checks import Check, WantedCheck
    from .connection import ConnectionSettings
    from .effect import Effect
    from .ledger import Cursor, Ledger
    from .names import Resolution
    from .plan import Plan
    from .sql import Statement

#: First half of the advisory lock's key pair, "roll" in ASCII; the second is the database's oid.
LOCK_KEY = 0x726F6C6C
# A DOWN may SET what it likes, but not lift the limits of the run: RESET goes back to the values of the start packet.
_OWN_LIMITS = "RESET lock_timeout; RESET statement_timeout"
_OWN_SESSION = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET search_path"

COMMIT_ANSWER_SECONDS = 30.0
PREVIEW_LOCK_TIMEOUT = "1s"
_POLL_SECONDS = 0.1


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


@dataclasses.dataclass(frozen=True)
class Order:
    """All that one execution needs to know."""

    settings: ConnectionSettings
    plan: Plan
    search_path: Sequence[str]
    limits: Limits
    checks: Sequence[WantedCheck] = ()
    row_counts: Mapping[str, int] | None = None
    run_id: str = ""
    preview: bool = False
    accept_left_over: bool = False


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


class Watch:
    """Notices, on a connection of its own, who keeps the transaction from a lock while it waits."""

    def __init__(self, settings: ConnectionSettings, pid: int) -> None:
        self._settings = settings
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: list[dict[str, t.Any]] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _look(self) -> None:
        # Without this evidence a lock timeout is still reported, only without names.
        with contextlib.suppress(Exception):
            connection = connect(self._settings, application_name="cypher.rollback watch", statement_timeout="2s")
            connection.autocommit = True
            with contextlib.closing(connection), connection.cursor() as cursor:
                while not self._stop.wait(_POLL_SECONDS):
                    found = blockers(cursor, self._pid)
                    if found:
                        self.seen = found


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

    def run(self) -> Execution:
        """Everything between BEGIN and COMMIT or ROLLBACK."""
        try:
            return self._run()
        except psycopg2.Error as err:
            raise self._failure(err) from err

    def _run(self) -> Execution:
        started = time.monotonic()
        order, connection = self._order, self._connection
        cursor = connection.cursor()
        _stay_alive(connection, cursor)
        _take_lock(cursor)
        before = snapshot(cursor)
        names = Names(before, cursor, order.search_path)
        ledger = self._ledger_of(cursor, names)
        resolved = names.resolve_all(_named(order.plan))
        rows = dict(order.row_counts) if order.row_counts is not None else count_rows(cursor, before.tables())
        in_the_way = tuple(sessions(cursor))
        self._run_scripts(cursor)
        cursor.execute(_OWN_SESSION)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        after = snapshot(cursor)
        effect = prove_effect(before, after, resolved, rows, own_row_changes(cursor, before, after, rows))
        checks = self._prove(cursor, effect, resolved, before)
        locks = _locks(cursor, before)
        for migration in order.plan.migrations:
            ledger.forget(cursor, migration)
        touched = tuple(change.table for change in own_row_changes(cursor, before, after, rows))
        effect = dataclasses.replace(effect, touched=touched)
        xid = self._end(cursor)
        return Execution(
            not order.preview, xid, effect, checks, tuple(self._timed), locks, in_the_way, time.monotonic() - started
        )

    def _run_scripts(self, cursor: psycopg2.extensions.cursor) -> None:
        for script in self._order.plan.scripts:
            waiting = [statement for statement in script.statements if not self._attempt(cursor, script.version, statement, 1)]
            tries = 1
            while waiting:
                tries += 1
                still = [statement for statement in waiting if not self._attempt(cursor, script.version, statement, tries)]
                if len(still) == len(waiting):
                    self._execute(cursor, script.version, still[0], tries)
                waiting = still

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
            cursor.execute("ROLLBACK TO SAVEPOINT statement")
            return False
        cursor.execute("RELEASE SAVEPOINT statement")
        return True

    def _execute(self, cursor: psycopg2.extensions.cursor, version: str, statement: Statement, tries: int) -> None:
        self._at = (version, statement)
        started = time.monotonic()
        cursor.execute(statement.text)
        if statement.kind in ("SET", "RESET"):
            cursor.execute(_OWN_LIMITS)
        self._timed.append(
            Timed(version, statement.number, statement.line, statement.kind, round(time.monotonic() - started, 6), tries)
        )
        self._at = None

    def _prove(
        self,
        cursor: psycopg2.extensions.cursor,
        effect: Effect,
        resolved: Sequence[Resolution],
        before: Catalog,
    ) -> tuple[Check, ...]:
        only_drops = all(statement.only_drops for statement in self._order.plan.statements)
        checks = prove_plan(
            cursor,
            effect,
            resolved,
            before,
            only_drops=only_drops,
            wanted=self._order.checks,
            accept_left_over=self._order.accept_left_over,
        )
        failed = failed_checks(checks)
        details = {"effect": effect.to_dict(), "checks": [dataclasses.asdict(check) for check in checks]}
        limit = self._order.limits.max_rows_lost
        if limit is not None and effect.rows_lost > limit:
            raise FailedUnchanged(
                f"The DOWN destroys {effect.rows_lost} rows, and rollback_max_rows_lost allows {limit}. It was undone: the database is as it was.",
                **details,
            )
        if failed:
            raise FailedUnchanged(
                f"The DOWN ran, but its result is not right, so it was undone: {'; '.join(failed)}. The database is as it was.",
                **details,
            )
        return checks

    def _end(self, cursor: psycopg2.extensions.cursor) -> str:
        if self._order.preview:
            self._connection.rollback()
            return ""
        cursor.execute("SELECT pg_catalog.pg_current_xact_id()::text")
        xid = str(cursor.fetchall()[0][0])
        try:
            self._connection.commit()
        except psycopg2.Error as err:
            if err.pgcode is not None and not self._connection.closed:
                raise
            _settle(self._order.settings, xid, err)
        return xid

    def _failure(self, err: psycopg2.Error) -> RollbackError:
        lost = self._connection.closed or err.pgcode in _SHUTDOWN
        if not self._connection.closed:
            with contextlib.suppress(psycopg2.Error):
                self._connection.rollback()
        where, details = self._where()
        said = " ".join(str(err).split())
        if err.pgcode == psycopg2.errorcodes.LOCK_NOT_AVAILABLE:
            return self._lock_failure(where, details)
        reason = f"The connection was lost {where}" if lost else f"The server refused {where}"
        if err.pgcode == psycopg2.errorcodes.QUERY_CANCELED:
            reason = f"The server cancelled {where} (rollback_statement_timeout is {self._order.limits.statement_timeout})"
        return FailedUnchanged(f"{reason}: {said}. The transaction was undone: the database is as it was.", sqlstate=err.pgcode, **details)

    def _where(self) -> tuple[str, dict[str, t.Any]]:
        if self._at is None:
            return "at the end of the DOWN", {}
        version, statement = self._at
        where = f"in the DOWN of {version}, statement {statement.number}, {statement.file} line {statement.line} ({' '.join(statement.text.split())[:120]})"
        return where, {"version": version, "statement": statement.number, "file": statement.file, "line": statement.line}

    def _lock_failure(self, where: str, details: dict[str, t.Any]) -> RollbackError:
        seen = self._watch.seen
        who = "; ".join(describe_session(item) for item in seen) or "a session that had gone when we looked"
        ends = ", ".join(f"SELECT pg_terminate_backend({item['pid']})" for item in seen)
        limit = PREVIEW_LOCK_TIMEOUT if self._order.preview else self._order.limits.lock_timeout
        return FailedUnchanged(
            f"A lock was not to be had within {limit} {where}. It is held by {who}. The transaction was undone: the database is as it was. "
            f"End that session{f' ({ends})' if ends else ''} or raise rollback_lock_timeout, then run again.",
            blockers=seen,
            **details,
        )


#: admin_shutdown, crash_shutdown, cannot_connect_now
_SHUTDOWN = frozenset({"57P01", "57P02", "57P03"})


def _named(plan: Plan) -> Iterator[t.Any]:
    seen = set()
    for statement in plan.statements:
        for item in statement.drops:
            if item not in seen:
                seen.add(item)
                yield item


def _stay_alive(connection: psycopg2.extensions.connection, cursor: psycopg2.extensions.cursor) -> None:
    if connection.server_version >= 140000:
        # Measured: without it the backend of a killed client keeps its locks until its statement ends.
        cursor.execute("SET client_connection_check_interval = '200ms'")
    cursor.execute("SET idle_in_transaction_session_timeout = 0")


def _take_lock(cursor: psycopg2.extensions.cursor) -> None:
    cursor.execute(
        "SELECT pg_catalog.pg_try_advisory_xact_lock(%s, (SELECT oid::int8::int4 FROM pg_catalog.pg_database "
        "WHERE datname = pg_catalog.current_database()))",
        (LOCK_KEY,),
    )
    if not cursor.fetchall()[0][0]:
        refuse_other_run(cursor)
        raise Refused("Another run was changing this database and has just ended. Nothing was changed. Run again.")


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
    holders = "; ".join(f"{name} (pid {pid}, client {client}, since {since})" for pid, name, client, since in cursor.fetchall())
    if holders:
        raise Refused(
            f"Another run is changing this database: {holders}. Nothing was stopped or changed here. Wait for it, then run again."
        )


#: They let nobody read, or nobody write, while they last.
_STRONG_LOCKS = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")


def _locks(cursor: psycopg2.extensions.cursor, before: Catalog) -> tuple[dict[str, str], ...]:
    """Locks of the transaction that keep others out of tables and views which were there before."""
    cursor.execute(
        "SELECT l.relation::pg_catalog.int8, l.mode FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() "
        "AND l.locktype = 'relation' AND l.granted AND l.mode = ANY(%s)",
        (list(_STRONG_LOCKS),),
    )
    strongest: dict[str, str] = {}
    for oid, mode in cursor.fetchall():
        item = before.get(("pg_class", oid))
        if item is None or item.kind is None or item.kind not in "rpvmf":
            continue
        known = strongest.get(item.identity, mode)
        strongest[item.identity] = max(known, mode, key=_STRONG_LOCKS.index)
    return tuple({"relation": relation, "mode": mode} for relation, mode in sorted(strongest.items()))


def _settle(settings: ConnectionSettings, xid: str, lost: Exception) -> None:
    """After a lost answer to COMMIT: ask the server what became of the transaction.

    :raises FailedUnchanged: it was rolled back.
    :raises OutcomeUnknown: nobody can say.
    """
    deadline = time.monotonic() + COMMIT_ANSWER_SECONDS
    while time.monotonic() < deadline:
        status = _transaction_status(settings, xid)
        if status == "committed":
            return
        if status == "aborted":
            raise FailedUnchanged(
                f"The connection was lost at COMMIT ({' '.join(str(lost).split())}); the server says that transaction {xid} was rolled back. "
                "The database is as it was."
            )
        time.sleep(0.5)
    raise OutcomeUnknown(
        f"The connection was lost at COMMIT ({' '.join(str(lost).split())}), and the server could not be asked for {COMMIT_ANSWER_SECONDS:.0f} s. "
        f"Whether the DOWN happened is not known, so nothing was restarted. When the server answers again, ask it: SELECT pg_xact_status('{xid}')",
        xid=xid,
    )


def _transaction_status(settings: ConnectionSettings, xid: str) -> str | None:
    try:
        connection = connect(settings, application_name="cypher.rollback status")
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.pg_xact_status(%s::pg_catalog.xid8)", (xid,))
            status = cursor.fetchall()[0][0]
            return None if status is None else str(status)
    except (psycopg2.Error, Refused):
        return None
