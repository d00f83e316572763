# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verification of a database from a fresh session, after a rollback or by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .catalog import snapshot
from .checks import Check, compare_rows, critical_tables, gone_check, operator_checks, structure_checks
from .connection import connect, server_errors
from .errors import RollbackError
from .rows import count_rows
from .server import inspect_target
from .watch import Watch

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .checks import WantedCheck
    from .connection import ConnectionSettings
    from .server import Target


@dataclasses.dataclass(frozen=True)
class VerifyRequest:
    """What is to hold.

    :param dropped: what a rollback removed, as in its effect; ``None`` when the database is verified by itself.
    :param added: what that rollback made anew, under names that it may also have dropped.
    :param row_counts: rows by table in the backup; ``None`` when there is none to compare with.
    :param changed_tables: tables whose rows the rollback itself changed, proven in its transaction.
    :param invalid: identities of indexes and constraints that were not valid before the rollback either.
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
    with contextlib.closing(connection), watched as watch, connection.cursor() as cursor:
        target = inspect_target(connection, request.settings)
        connection.commit()
        connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
        with watch.lock_errors(
            RollbackError, f"The database could not be verified: a table was locked for {request.lock_timeout}"
        ):
            return target, tuple(_checks(cursor, request))


def _checks(cursor: t.Any, request: VerifyRequest) -> t.Iterator[Check]:
    catalog = snapshot(cursor)
    dropped = request.dropped or ()
    if request.dropped is not None:
        again = {(item["type"], item["identity"]) for item in request.added}
        yield gone_check([item for item in dropped if (item["type"], item["identity"]) not in again], catalog)
    if request.row_counts is not None:
        there = {table.identity: table for table in catalog.tables()}
        # A partitioned table has no rows but those of its partitions, which are compared themselves.
        parents = {item.identity for item in catalog if item.kind == "p"}
        ignored = {*request.changed_tables, *(item["identity"] for item in dropped), *parents}
        counted = count_rows(
            cursor, [table for name, table in there.items() if name in request.row_counts and name not in ignored]
        )
        yield compare_rows(request.row_counts, counted, ignored, there)
    yield from structure_checks(cursor, lambda item: item.identity in request.invalid)
    yield from critical_tables(cursor, request.critical_tables, {item["identity"] for item in dropped})
    yield from operator_checks(cursor, request.checks)
