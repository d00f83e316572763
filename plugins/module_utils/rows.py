# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows: how many there are, and what this transaction did to them."""

from __future__ import annotations

import typing as t

from .effect import RowChange

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .catalog import Catalog, CatalogObject, Cursor


#: Of a table ``c``: this role may read it, and no policy hides rows from it.
_READABLE = (
    "pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT') "
    "AND NOT pg_catalog.row_security_active(c.oid)"
)


def may_read_all(cursor: Cursor, table: int) -> bool:
    """Whether this role may read every row of a table.

    :param table: oid of the table.
    """
    cursor.execute(f"SELECT {_READABLE} FROM pg_catalog.pg_class c WHERE c.oid = %s", (table,))
    row = cursor.fetchone()
    return bool(row and row[0])


def count_rows(cursor: Cursor, tables: Iterable[CatalogObject]) -> dict[str, int]:
    """Exact number of rows by identity; the identity is SQL already, quoted by the server.

    A table that the role may not read, or of which row security shows it a part, is left out: no number is better than
    a wrong one.
    """
    wanted = list(tables)
    cursor.execute(
        "SELECT c.oid::pg_catalog.int8 FROM pg_catalog.pg_class c WHERE c.oid = ANY(%s::pg_catalog.oid[]) "
        f"AND NOT ({_READABLE})",
        ([table.oid for table in wanted],),
    )
    unreadable = {row[0] for row in cursor.fetchall()}
    counted = {}
    for table in wanted:
        if table.oid in unreadable:
            continue
        cursor.execute(f"SELECT pg_catalog.count(*) FROM ONLY {table.identity}")
        row = cursor.fetchone()
        counted[table.identity] = int(row[0]) if row else 0
    return counted


def count_values(cursor: Cursor, table: int, relation: str, column: str) -> int | None:
    """Values of a column that are not NULL, in the partitions and heirs as well; ``None`` where the role may not see all.

    :param table: oid of the table.
    :param relation: its identity, which is SQL already.
    :param column: the column's identity, which ends with its quoted name.
    """
    if not may_read_all(cursor, table):
        return None
    cursor.execute(f"SELECT pg_catalog.count({column}) FROM {relation}")
    return int(cursor.fetchall()[0][0])


def estimate_values(cursor: Cursor, table: int, column: str) -> int:
    """What the planner believes of a column's values that are not NULL; 0 for a table that was never analyzed.

    :param column: bare name.
    """
    cursor.execute(
        "SELECT coalesce(pg_catalog.sum(greatest(c.reltuples, 0) * (1 - coalesce(s.null_frac, 0))), 0)::pg_catalog.int8 "
        "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_stats s "
        "ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = %s AND NOT s.inherited "
        "WHERE c.oid = %s OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(%s::pg_catalog.oid::pg_catalog.regclass) WHERE isleaf)",
        (column, table, table),
    )
    return int(cursor.fetchall()[0][0])


def own_row_changes(cursor: Cursor, before: Catalog, after: Catalog, rows: Mapping[str, int]) -> list[RowChange]:
    """What the open transaction did to the rows of tables that stay, from its own exact counters.

    PostgreSQL counts the rows of a transaction as it goes (pg_stat_xact_all_tables), so nothing has to be scanned. A
    TRUNCATE does not count there but gives the table a new file, so a table with a new file is counted again; all are
    where the server does not count (track_counts is off).
    """
    counters = _counters(cursor)
    changes = []
    for table in after.tables():
        previous = before.get(table.address)
        if previous is None:
            continue
        inserted, updated, deleted = (counters or {}).get(table.oid, (0, 0, 0))
        if counters is None or previous.file != table.file:
            now = count_rows(cursor, [table]).get(table.identity)
            known = rows.get(previous.identity)
            if now is not None and known is not None:
                deleted = max(deleted, known + inserted - now)
                inserted = max(inserted, now - known)
        if inserted or updated or deleted:
            changes.append(RowChange(table.identity, inserted, updated, deleted))
    return changes


def rows_touched(cursor: Cursor, before: Catalog) -> list[str]:
    """Tables that were there before and whose rows the open transaction changed so far, as far as the server counts that."""
    counters = _counters(cursor) or {}
    return [table.identity for table in before.tables() if table.oid in counters]


def _counters(cursor: Cursor) -> dict[int, tuple[int, int, int]] | None:
    cursor.execute("SELECT pg_catalog.current_setting('track_counts')")
    if cursor.fetchall()[0][0] != "on":
        return None
    cursor.execute(
        "SELECT relid::pg_catalog.int8, n_tup_ins, n_tup_upd, n_tup_del FROM pg_catalog.pg_stat_xact_all_tables "
        "WHERE n_tup_ins + n_tup_upd + n_tup_del > 0"
    )
    return {oid: (inserted, updated, deleted) for oid, inserted, updated, deleted in cursor.fetchall()}


def sequences_advanced(cursor: Cursor) -> list[str]:
    """Sequences that the open transaction advanced, which no ROLLBACK takes back.

    nextval() and setval() hold this lock to the end of the transaction, and nothing else takes it on a sequence.
    """
    cursor.execute(
        "SELECT i.identity FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation "
        "CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) i "
        "WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode = 'RowExclusiveLock' "
        "AND c.relkind = 'S' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
        "ORDER BY 1"
    )
    return [str(row[0]) for row in cursor.fetchall()]
