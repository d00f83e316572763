# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An index is dropped while its table is used: outside of a transaction, with a wait that ends, and proven afterwards.

PostgreSQL marks the index invalid, waits for whoever still uses it, and then removes it (manual, DROP INDEX). A wait that
is given up in between leaves it invalid: it is not used any more, costs every write as before, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from .catalog import snapshot
from .checks import PASSED, Check, failed_checks, invalid_objects, prove_plan
from .connection import connect, optional_limits
from .effect import Dropped, Effect, prove_effect
from .errors import FailedUnchanged, NeedsAttention, OutcomeUnknown, Refused
from .execute import LOCK_KEY, Execution, Timed, refuse_other_run
from .names import Names
from .server import describe_session, sessions
from .triggers import disabled_triggers
from .wanted_object import CONCURRENTLY, INDEX
from .watch import Watch

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.extensions

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .catalog import Catalog
    from .execute import Order
    from .names import Resolution
    from .plan import ObjectPlan
    from .planning import PlanRequest

#: How long the server may take to notice that its client went, before it is asked what became of the index.
ANSWER_SECONDS = 30.0
_PAUSE_SECONDS = 0.1

VALID, INVALID, GONE = "valid", "invalid", "gone"

# Whoever holds any lock on the table is waited for, readers and prepared transactions too (WaitForLockers in PostgreSQL's index.c).
_OPEN = """
SELECT l.virtualtransaction, coalesce(a.pid, 0), coalesce(a.usename, p.owner)::text, coalesce(a.application_name, ''),
  coalesce(a.client_addr::text, 'local'), coalesce(a.state, 'prepared transaction'),
  pg_catalog.to_char(coalesce(a.xact_start, p.prepared) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  coalesce(pg_catalog.left(a.query, 200), ''),
  coalesce('SELECT pg_terminate_backend(' || a.pid || ')', 'ROLLBACK PREPARED ' || pg_catalog.quote_literal(p.gid), '')
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction
WHERE l.locktype = 'relation' AND l.relation = (SELECT indrelid FROM pg_catalog.pg_index WHERE indexrelid = %s) AND l.granted
  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
_SESSION_KEYS = ("pid", "user", "application", "client", "state", "since", "query", "end")


def drop_concurrently(order: Order) -> Execution:
    """Drop the index of the plan.

    :raises FailedUnchanged: the index is as it was.
    :raises NeedsAttention: it is gone but something else is not right, or it is left invalid.
    :raises OutcomeUnknown: the connection was lost and the server cannot be asked.
    """
    about = order.plan.object
    if about is None or not about.concurrently:
        raise Refused("The plan does not drop an index concurrently. Nothing was changed.")
    connection = connect(
        order.settings,
        application_name=f"cypher.rollback {order.run_id}".strip(),
        lock_timeout=order.limits.lock_timeout,
        statement_timeout=order.limits.statement_timeout,
        search_path=order.search_path,
    )
    with contextlib.closing(connection), Watch(order.settings, connection.get_backend_pid()) as watch:
        return _Drop(order, about, connection, watch).run()


def gone_already(request: PlanRequest, digest: str) -> Execution | None:
    """What is to be said of an index that was planned and is not there any more; ``None``: nothing was planned.

    Whoever dropped it, an attempt of the same run that died before it could tell included, it is what was asked for.

    :param digest: of the plan.
    """
    wanted = request.object
    if wanted is None or wanted.index_drop != CONCURRENTLY or wanted.kind != INDEX or not digest:
        return None
    effect = Effect((Dropped("index", wanted.given, False, None),), (), (), (), (), (), 0)
    check = Check("the index is gone", PASSED, "no such index", "no such index")
    warning = f"The index {wanted.given} was gone before it was dropped here: an earlier attempt had done it, or somebody else."
    return Execution(True, "", effect, (check,), (), (), (), 0.0, (warning,))


class _Drop:
    """The one statement of such a run, and what is learned around it."""

    def __init__(
        self, order: Order, about: ObjectPlan, connection: psycopg2.extensions.connection, watch: Watch
    ) -> None:
        self._order = order
        self._about = about
        self._connection = connection
        self._watch = watch
        self._pid = connection.get_backend_pid()

    def run(self) -> Execution:
        started = time.monotonic()
        limits = optional_limits(self._connection)
        try:
            before, resolved, others = self._look(limits)
            self._wait_for_open_transactions()
        except psycopg2.Error as err:
            raise FailedUnchanged(
                f"The server failed before the index was touched: {_said(err)}. The database is as it was. Run again."
            ) from err
        seconds = self._drop()
        try:
            effect, checks = self._prove(before, resolved)
        except psycopg2.Error as err:
            raise NeedsAttention(
                f"The index {self._about.identity} is dropped, and looking at the database afterwards failed: {_said(err)}. "
                "Verify it with verify.yml.",
                committed=True,
            ) from err
        statement = self._order.plan.statements[0]
        timed = Timed(
            self._order.plan.versions[0], statement.number, statement.line, "DROP INDEX CONCURRENTLY", seconds, 1
        )
        return Execution(True, "", effect, checks, (timed,), (), others, time.monotonic() - started)

    def _look(self, limits: str) -> tuple[Catalog, list[Resolution], tuple[dict[str, t.Any], ...]]:
        """Everything before, in one snapshot that is given up: DROP INDEX CONCURRENTLY would wait for it."""
        with self._snapshot(limits) as cursor:
            self._take_lock(cursor)
            before = snapshot(cursor)
            resolved = Names(before, cursor, self._order.search_path).resolve_scripts(self._order.plan.scripts)
            if [item.target.address for item in resolved if item.target] != [("pg_class", self._about.oid)]:
                raise FailedUnchanged(
                    f"The index {self._about.identity} is not the one that was planned: something changed the database meanwhile. "
                    "Nothing was changed here. Look at it with --check, then run again."
                )
            return before, resolved, tuple(sessions(cursor))

    @contextlib.contextmanager
    def _snapshot(self, limits: str = "") -> Iterator[psycopg2.extensions.cursor]:
        self._connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        cursor = self._connection.cursor()
        try:
            if limits:
                cursor.execute(limits)
            yield cursor
            self._connection.commit()
        finally:
            if not self._connection.closed:
                self._connection.rollback()

    def _take_lock(self, cursor: psycopg2.extensions.cursor) -> None:
        """Keep other runs out for as long as this session lives."""
        cursor.execute(
            "SELECT pg_catalog.pg_try_advisory_lock(%s, oid::pg_catalog.int8::pg_catalog.bit(32)::pg_catalog.int4) "
            "FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
            (LOCK_KEY,),
        )
        if not cursor.fetchall()[0][0]:
            refuse_other_run(cursor)
            raise Refused("Another run was changing this database and has just ended. Nothing was changed. Run again.")

    def _wait_for_open_transactions(self) -> None:
        """Whoever would keep the drop waiting in its middle is waited for before it begins."""
        self._connection.set_session(isolation_level="READ COMMITTED", readonly=False, autocommit=True)
        cursor = self._connection.cursor()
        deadline = time.monotonic() + self._seconds(cursor)
        waited_for = self._open(cursor)
        while waited_for:
            still = self._open(cursor)
            waited_for = {key: session for key, session in waited_for.items() if key in still}
            if waited_for and time.monotonic() >= deadline:
                who = "; ".join(describe_session(session) for session in waited_for.values())
                ends = ", ".join(str(session["end"]) for session in waited_for.values())
                raise FailedUnchanged(
                    f"The index {self._about.identity} was not touched, because a transaction on its table did not end within "
                    f"{self._order.limits.lock_timeout}: {who}. The database is as it was. To end that session: {ends}. "
                    "Or raise rollback_lock_timeout. Then run again.",
                    blockers=list(waited_for.values()),
                )
            if waited_for:
                time.sleep(_PAUSE_SECONDS)

    def _seconds(self, cursor: psycopg2.extensions.cursor) -> float:
        """The lock timeout as the server understands it; without one, as long as for an answer."""
        cursor.execute("SELECT setting::int / 1000.0 FROM pg_catalog.pg_settings WHERE name = 'lock_timeout'")
        return float(cursor.fetchall()[0][0]) or ANSWER_SECONDS

    def _open(self, cursor: psycopg2.extensions.cursor) -> dict[str, dict[str, t.Any]]:
        cursor.execute(_OPEN, (self._about.oid,))
        return {row[0]: dict(zip(_SESSION_KEYS, row[1:], strict=True)) for row in cursor.fetchall()}

    def _drop(self) -> float:
        started = time.monotonic()
        self._watch.forget()
        try:
            self._connection.cursor().execute(self._about.statement)
        except psycopg2.Error as err:
            self._judge(err)
        return round(time.monotonic() - started, 6)

    def _judge(self, err: psycopg2.Error) -> None:
        """What became of the index; it returns where the index is gone."""
        state, said = self._state(), _said(err)
        if err.pgcode in _TIMEOUTS:
            said = f"{said}. {self._watch.describe()} Or raise {_TIMEOUTS[err.pgcode]}"
        if state == GONE:
            return
        if state == VALID:
            raise FailedUnchanged(
                f"The index {self._about.identity} was not dropped: {said}. The index is valid, and the database is as it was. Run again.",
                sqlstate=err.pgcode,
                blockers=self._watch.seen,
            ) from err
        raise NeedsAttention(
            f"DROP INDEX CONCURRENTLY did not reach its end: {said}. The index {self._about.identity} is there and INVALID: no query uses it, "
            "every write may still keep it up, and nothing else was changed. Running the same command again finishes the drop.",
            half_dropped=self._about.identity,
            sqlstate=err.pgcode,
            blockers=self._watch.seen,
        ) from err

    def _state(self) -> str:
        """Valid, invalid or gone, when the session that was at work is gone or has answered.

        :raises OutcomeUnknown: the server does not say.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            with contextlib.suppress(psycopg2.Error, Refused):
                state = self._ask()
                if state:
                    return state
            if time.monotonic() >= deadline:
                raise OutcomeUnknown(
                    f"The connection was lost while the index {self._about.identity} was dropped concurrently, and for {ANSWER_SECONDS:.0f} s "
                    f"the server could not be asked what became of it. When it answers again, ask it: SELECT indisvalid FROM pg_index "
                    f"WHERE indexrelid = {self._about.oid} (no row: it is dropped). Where it is still there, run again."
                )
            time.sleep(_PAUSE_SECONDS)

    def _ask(self) -> str:
        connection = connect(self._order.settings, application_name="cypher.rollback status", statement_timeout="5s")
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %s AND (%s OR state = 'active')), "
                "(SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = %s)",
                (self._pid, bool(self._connection.closed), self._about.oid),
            )
            at_work, valid = cursor.fetchall()[0]
        if at_work:
            return ""
        return GONE if valid is None else VALID if valid else INVALID

    def _prove(self, before: Catalog, resolved: list[Resolution]) -> tuple[Effect, tuple[Check, ...]]:
        connection = connect(
            self._order.settings, application_name="cypher.rollback proof", search_path=self._order.search_path,
            lock_timeout=self._order.limits.lock_timeout, statement_timeout=self._order.limits.statement_timeout,
        )  # fmt: skip
        with contextlib.closing(connection):
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            cursor = connection.cursor()
            effect = self._own(prove_effect(before, snapshot(cursor), resolved, {}, ()))
            checks = prove_plan(
                cursor, effect, resolved, before, only_drops=True, wanted=self._order.checks,
                accept_left_over=self._order.accept_left_over,
            )  # fmt: skip
            invalid = [item.identity for item in invalid_objects(cursor)]
            disabled = [item.identity for item in disabled_triggers(cursor)]
            effect = dataclasses.replace(effect, invalid=(*invalid, *disabled))
        failed = failed_checks(checks)
        if failed:
            raise NeedsAttention(
                f"The index {self._about.identity} was dropped, but the result is not right: {'; '.join(failed)}. The application was not stopped.",
                committed=True,
                effect=effect.to_dict(),
                verification={"passed": False, "checks": [dataclasses.asdict(check) for check in checks]},
            )
        return effect, checks

    def _own(self, effect: Effect) -> Effect:
        """Without what the application, which runs, did to the catalog in the meantime."""
        own = tuple(item for item in effect.dropped if self._about.identity in (item.identity, item.part_of))
        return dataclasses.replace(effect, dropped=own, changed=(), added=(), uncounted=(), rows_lost=0)


#: lock_not_available, query_canceled
_TIMEOUTS = {"55P03": "rollback_lock_timeout", "57014": "rollback_statement_timeout"}


def _said(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".") or type(err).__name__
