# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows: how many there are, and what this transaction did to them."""

from __future__ import annotations

import typing as t

from .effect import RowChange

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from .catalog import Catalog, CatalogObject
    from .ledger import Cursor


def count_rows(cursor: Cursor, tables: Iterable[CatalogObject]) -> dict[str, int]:
    """Exact number of rows by identity; the identity is SQL already, quoted by the server."""
    counted = {}
    for table in tables:
        cursor.execute(f"SELECT pg_catalog.count(*) FROM ONLY {table.identity}")
        row = cursor.fetchone()
        counted[table.identity] = int(row[0]) if row else 0
    return counted


def own_row_changes(cursor: Cursor, before: Catalog, after: Catalog, rows: dict[str, int]) -> list[RowChange]:
    """What the open transaction did to the rows of tables that stay, from its own exact counters.

    PostgreSQL counts the rows of a transaction as it goes (pg_stat_xact_user_tables), so nothing has to be scanned. A
    TRUNCATE does not count there but gives the table a new file, so a table with a new file is counted again.
    """
    cursor.execute(
        "SELECT relid::pg_catalog.int8, n_tup_ins, n_tup_upd, n_tup_del FROM pg_catalog.pg_stat_xact_all_tables "
        "WHERE n_tup_ins + n_tup_upd + n_tup_del > 0"
    )
    counters = {oid: (inserted, updated, deleted) for oid, inserted, updated, deleted in cursor.fetchall()}
    changes = []
    for table in after.tables():
        previous = before.get(table.address)
        if previous is None:
            continue
        inserted, updated, deleted = counters.get(table.oid, (0, 0, 0))
        if previous.file != table.file:
            now = count_rows(cursor, [table])[table.identity]
            deleted = max(deleted, rows.get(previous.identity, 0) + inserted - now)
        if inserted or updated or deleted:
            changes.append(RowChange(table.identity, inserted, updated, deleted))
    return changes
