# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a table is at work, seen from its locks and from its statistics."""

from __future__ import annotations

import time
import typing as t

if t.TYPE_CHECKING:
    from .catalog import Cursor

#: Long enough for a session that is never idle to hand its counters in (PGSTAT_MIN_INTERVAL is one second).
SAMPLE_SECONDS = 1.2
_PAUSE_SECONDS = 0.1

# A locked child of a partitioned table is not asked for: its indexes cannot be dropped concurrently anyway.
_HOLDERS = """
SELECT pg_catalog.count(DISTINCT l.pid) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = %s AND a.backend_type = 'client backend' AND a.application_name NOT LIKE 'cypher.rollback%%'
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
_COUNTERS = """
SELECT ARRAY[seq_scan, idx_scan, n_tup_ins, n_tup_upd, n_tup_del] FROM pg_catalog.pg_stat_all_tables WHERE relid = %s
"""


def use_of(cursor: Cursor, table: int, seconds: float = SAMPLE_SECONDS) -> str:
    """Who or what uses a table, as a clause; empty where nobody was seen to.

    :param table: its oid.
    :param seconds: how long it is looked at.
    """
    deadline = time.monotonic() + seconds
    before = _counters(cursor, table)
    while True:
        cursor.execute(_HOLDERS, (table,))
        holders = cursor.fetchall()[0][0]
        if holders:
            return f"{holders} other session{'s hold' if holders > 1 else ' holds'} a lock on its table"
        if _counters(cursor, table) != before:
            return "its table was read or written while it was looked at"
        if time.monotonic() >= deadline:
            return ""
        time.sleep(_PAUSE_SECONDS)


def _counters(cursor: Cursor, table: int) -> list[int] | None:
    cursor.execute("SELECT pg_catalog.pg_stat_clear_snapshot()")
    cursor.execute(_COUNTERS, (table,))
    row = cursor.fetchone()
    return list(row[0]) if row else None
