# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verification of a database from a fresh session, after a rollback or by itself.

The questions of sections 6.1 and 6.2 of the source document, asked so that they can be answered for whatever version the
database is at:

=====================================  ==================================================================
the document asks                      the check here
=====================================  ==================================================================
``version()``                          server version
schemas of pg_namespace                required schemas (those of ``rollback_required_schemas``)
tables of b2b                          tables of each schema; critical table ...
counts of products, customers, orders  row counts equal the backup's, or since the newest backup; critical table ...
order_items without orders             foreign keys without orphans, every one of the database
constraints of b2b.orders              constraints are valid, indexes are valid, foreign keys are enforced, triggers are enabled
EXPLAIN ANALYZE of the critical query  plan of ..., time of ...
pg_stat_user_indexes                   indexes used most, indexes never used (its columns are relname and indexrelname)
pg_stat_user_tables                    table statistics, tables never analyzed
not asked                              sequences ahead of their columns; ``rollback_verify_checks``
=====================================  ==================================================================

While the application stands still, only what proves the rollback is asked (:data:`PROOF`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .budget import Budget
from .catalog import snapshot
from .checks import (
    INFORMATION,
    Check,
    compare_rows,
    critical_tables,
    gone_check,
    operator_checks,
    structure_checks,
)
from .connection import connect, server_errors
from .errors import RollbackError
from .orphans import orphan_checks
from .performance import CriticalQueries, plan_checks, time_checks
from .rolled_back import RolledBack, rolled_back
from .rows import count_rows
from .schemas import schema_checks, table_checks
from .sequences import sequence_checks
from .server import inspect_target
from .since_backup import Known, known_of, row_checks
from .table_statistics import statistics_checks
from .triggers import trigger_checks
from .watch import Watch

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .catalog import Catalog, Cursor
    from .checks import WantedCheck
    from .connection import ConnectionSettings
    from .server import Target

PROOF, FULL = "proof", "full"
#: Of the budget, so that a database without any other answer still has its plans and times.
SECONDS = 60


@dataclasses.dataclass(frozen=True)
class VerifyRequest:
    """What is to hold.

    :param dropped: what a rollback removed, as in its effect; ``None`` when the database is verified by itself.
    :param added: what that rollback made anew, under names that it may also have dropped.
    :param row_counts: rows by table in the backup; ``None`` when there is none to compare with.
    :param changed_tables: tables whose rows the rollback itself changed, proven in its transaction.
    :param invalid: identities of indexes and constraints that were not valid, and of triggers that were disabled, before the
        rollback either.
    :param required_schemas: those that must be there, unless a rollback dropped them.
    :param seconds: for all checks that read whole tables, except the proof that no row was lost.
    :param depth: ``proof`` is what a rollback has to show while the application stands still; ``full`` also looks at
        statistics, backups, plans and times.
    :param queries: critical queries, ``name`` and ``query`` of each.
    :param backup_dir: where the newest backup of this database is looked for; ``key``: its signature must fit.
    :param run_dir: folder of the runs, whose reports tell what was dropped.
    """

    settings: ConnectionSettings
    search_path: Sequence[str]
    critical_tables: Sequence[str]
    checks: Sequence[WantedCheck]
    dropped: Sequence[Mapping[str, t.Any]] | None = None
    added: Sequence[Mapping[str, t.Any]] = ()
    row_counts: Mapping[str, int] | None = None
    changed_tables: Sequence[str] = ()
    invalid: Sequence[str] = ()
    lock_timeout: str = "5s"
    statement_timeout: str = "0"
    required_schemas: Sequence[str] = ()
    seconds: float = SECONDS
    depth: str = FULL
    queries: Sequence[Mapping[str, str]] = ()
    backup_dir: str = ""
    key: str = dataclasses.field(default="", repr=False)
    run_dir: str = ""

    @property
    def rollback(self) -> RolledBack | None:
        """What is known of the rollback before it; ``None``: the database is verified by itself."""
        return rolled_back(self.dropped, self.changed_tables, self.invalid) if self.dropped is not None else None


def verify_database(request: VerifyRequest) -> tuple[Target, tuple[Check, ...]]:
    """Check everything in one read-only snapshot.

    :raises RollbackError: when the server cannot be asked, or a table is locked.
    """
    with server_errors(RollbackError, "verifying the database"):
        return _verify(request)


def _verify(request: VerifyRequest) -> tuple[Target, tuple[Check, ...]]:
    connection = connect(
        request.settings,
        application_name="cypher.rollback verify",
        search_path=request.search_path,
        lock_timeout=request.lock_timeout,
        statement_timeout=request.statement_timeout,
    )
    watched = Watch(request.settings, connection.get_backend_pid())
    budget = Budget(request.seconds)
    with contextlib.closing(connection), watched as watch, connection.cursor() as cursor:
        target = inspect_target(connection, request.settings)
        # Also for a check that ends the transaction. To compile the questions to the catalog takes longer than to answer them.
        cursor.execute("SET default_transaction_read_only = on; SET jit = off")
        connection.commit()
        connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
        full = request.depth == FULL
        known = known_of(target, request.backup_dir, request.key, request.run_dir) if full else Known()
        with watch.lock_errors(
            RollbackError, f"The database could not be verified: a table was locked for {request.lock_timeout}"
        ):
            done = list(_Verification(cursor, request, target, known, budget).checks())
    # On a connection of its own, when the snapshot keeps nothing from being vacuumed any more.
    if full:
        queries = CriticalQueries(request.settings, request.queries, request.search_path)
        done.extend(time_checks(queries, budget, known))
    return target, tuple(done)


@dataclasses.dataclass(frozen=True)
class _Verification:
    """The checks in one read-only snapshot."""

    cursor: Cursor
    request: VerifyRequest
    target: Target
    known: Known
    budget: Budget

    def checks(self) -> Iterator[Check]:
        """The quick ones first, then those that read whole tables."""
        catalog = snapshot(self.cursor)
        full = self.request.depth == FULL
        if full:
            yield Check("server version", INFORMATION, "reported", f"PostgreSQL {self.target.server_version}")
        yield from self._structure(catalog)
        if full:
            yield from table_checks(catalog)
        counted = yield from self._rows(catalog)
        yield from operator_checks(self.cursor, self.request.checks)
        yield from self._contents(catalog, counted)
        if full:
            yield from plan_checks(self.cursor, self.budget, self.request.queries)
            yield from statistics_checks(self.cursor)

    def _structure(self, catalog: Catalog) -> Iterator[Check]:
        request = self.request
        after_rollback = request.dropped is not None
        if request.dropped is not None:
            again = {(item["type"], item["identity"]) for item in request.added}
            yield gone_check(
                [item for item in request.dropped if (item["type"], item["identity"]) not in again], catalog
            )
        gone = {name: run for name, (run, _ended) in self.known.runs.items()}
        gone.update((str(item["identity"]), "this rollback") for item in request.dropped or ())
        yield from schema_checks(catalog, request.required_schemas, gone, after_rollback=after_rollback)
        yield from structure_checks(self.cursor, lambda item: item.identity in request.invalid)
        yield from trigger_checks(self.cursor, request.invalid if after_rollback else None)

    def _rows(self, catalog: Catalog) -> t.Generator[Check, None, dict[str, int]]:
        """Rows of the tables that stay, which are the proof and so have no limit but that of the statement."""
        request = self.request
        if request.row_counts is None:
            return {}
        there = {table.identity: table for table in catalog.tables()}
        # A partitioned table has no rows but those of its partitions, which are compared themselves.
        parents = {item.identity for item in catalog if item.kind == "p"}
        ignored = {*request.changed_tables, *(item["identity"] for item in request.dropped or ()), *parents}
        counted = count_rows(
            self.cursor, [table for name, table in there.items() if name in request.row_counts and name not in ignored]
        )
        yield compare_rows(request.row_counts, counted, ignored, there)
        return counted

    def _contents(self, catalog: Catalog, counted: Mapping[str, int]) -> Iterator[Check]:
        request, rollback = self.request, self.request.rollback
        gone = {str(item["identity"]) for item in request.dropped or ()} | self.known.runs.keys()
        # A table with children has more rows than its own.
        parents = _parents(self.cursor)
        own = {name: rows for name, rows in counted.items() if name not in parents}
        yield from critical_tables(self.cursor, request.critical_tables, gone, own, self.budget)
        yield from orphan_checks(self.cursor, self.budget, rollback)
        yield from sequence_checks(self.cursor, self.budget, rollback)
        if request.depth == FULL and request.row_counts is None:
            path = request.search_path
            critical = {name: (name, *(f"{schema}.{name}" for schema in path)) for name in request.critical_tables}
            yield from row_checks(self.cursor, self.budget, catalog, self.known, critical)


def _parents(cursor: Cursor) -> set[str]:
    cursor.execute(
        "SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_inherits h "
        "JOIN pg_catalog.pg_class c ON c.oid = h.inhparent JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    )
    return {row[0] for row in cursor.fetchall()}
