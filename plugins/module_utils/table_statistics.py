# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which indexes are used and which are not, and what autovacuum left: the server's own counters, as information.

They count since the statistics were last reset, and a restored database has none at first.
"""

from __future__ import annotations

import typing as t

from .checks import INFORMATION, Check, some

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .catalog import Cursor

TOP = 10

#: An index that keeps a constraint is there for that, used or not.
_INDEXES = """
SELECT pg_catalog.format('%I.%I', s.schemaname, s.indexrelname), pg_catalog.format('%I.%I', s.schemaname, s.relname), s.idx_scan,
    NOT x.indisunique AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = s.indexrelid),
    pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.indexrelid))
FROM pg_catalog.pg_stat_user_indexes s JOIN pg_catalog.pg_index x ON x.indexrelid = s.indexrelid
ORDER BY s.idx_scan DESC, 1
"""
_TABLES = """
SELECT pg_catalog.format('%I.%I', schemaname, relname), n_live_tup, n_dead_tup, autovacuum_count, vacuum_count,
    last_analyze IS NULL AND last_autoanalyze IS NULL
FROM pg_catalog.pg_stat_user_tables ORDER BY n_dead_tup DESC, n_live_tup DESC, 1
"""


def statistics_checks(cursor: Cursor) -> Iterator[Check]:
    """Use of indexes, and statistics of tables."""
    yield from _index_checks(cursor)
    yield from _table_checks(cursor)


def _index_checks(cursor: Cursor) -> Iterator[Check]:
    cursor.execute(_INDEXES)
    rows = cursor.fetchall()
    used = [f"{name} on {table}: {scans} scans" for name, table, scans, _free, _size in rows if scans]
    never = [f"{name} on {table} ({size})" for name, table, scans, free, size in rows if not scans and free]
    yield Check("indexes used most", INFORMATION, "reported", some(used, 3) or "none used yet", tuple(used[:TOP]))
    told = f"{len(never)}: {some(never, 3)}" if never else "none"
    yield Check("indexes never used", INFORMATION, "reported", told, tuple(never))


def _table_checks(cursor: Cursor) -> Iterator[Check]:
    cursor.execute(_TABLES)
    rows = cursor.fetchall()
    lines = [
        f"{name}: {live} live rows, {dead} dead, vacuumed {auto} times by autovacuum and {own} by hand"
        for name, live, dead, auto, own, _never in rows
    ]
    live, dead = (sum(row[place] for row in rows) for place in (1, 2))
    most = f", most in {rows[0][0]}: {rows[0][2]}" if dead else ""
    told = f"{len(rows)} tables, about {live} live rows and {dead} dead{most}"
    yield Check("table statistics", INFORMATION, "reported", told, tuple(lines))
    never = [name for name, live, _dead, _auto, _own, unknown in rows if unknown and live]
    if never:
        advice = "; the planner guesses there: run ANALYZE"
        yield Check(
            "tables never analyzed", INFORMATION, "none", f"{len(never)}: {some(never, 3)}{advice}", tuple(never)
        )
