# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the critical tables now, against those that a backup's manifest recorded."""

from __future__ import annotations

import contextlib
import typing as t

from .connection import connect
from .rows import may_read_all

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .catalog import Cursor
    from .connection import ConnectionSettings

with contextlib.suppress(ImportError):
    import psycopg2

#: Seconds to count one table. What has more rows than that allows is estimated.
COUNT_SECONDS = 20

_NEW = "{} is not in the backup"

#: A table with everything that inherits from it; of a partitioned one the rows are those of its partitions.
_TREE = (
    "WITH RECURSIVE tree(oid) AS (SELECT %s::pg_catalog.oid UNION "
    "SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON tree.oid = i.inhparent) "
)


def measure_rows(
    settings: ConnectionSettings,
    tables: Sequence[str],
    before: Mapping[str, int] | None,
    search_path: Sequence[str] = (),
    no_baseline: str = "",
) -> list[dict[str, t.Any]]:
    """Count each table, and look up what the manifest says of it.

    :param tables: names as SQL has them, with or without a schema.
    :param before: rows by quoted identity; ``None``: there is nothing to compare with.
    :param no_baseline: why, as a clause.
    :return: of each ``table``, ``rows``, ``baseline_rows``, ``change``, ``missing`` (it was there in the backup),
        ``estimated``, ``problem``: why it cannot be counted, and ``why``: why there is nothing to compare with.
    :raises CannotConnect: the server lets nobody in.
    """
    if before is None:
        # Counting large tables is of no use where nothing can be learned from it.
        why = no_baseline or "there is no backup to compare with"
        return [{**_entry(name), "why": why} for name in tables]
    connection = connect(
        settings,
        application_name="cypher.rollback assess",
        statement_timeout=f"{COUNT_SECONDS}s",
        lock_timeout=f"{COUNT_SECONDS}s",
        search_path=search_path,
    )
    with contextlib.closing(connection):
        connection.set_session(readonly=True, autocommit=True)
        with connection.cursor() as cursor:
            return [_counted(t.cast("Cursor", cursor), name, before, search_path) for name in tables]


def _entry(name: str) -> dict[str, t.Any]:
    return {
        "table": name,
        "rows": None,
        "baseline_rows": None,
        "change": None,
        "missing": False,
        "estimated": False,
        "problem": "",
        "why": "",
    }


def _counted(cursor: Cursor, name: str, before: Mapping[str, int], search_path: Sequence[str]) -> dict[str, t.Any]:
    entry = _entry(name)
    try:
        cursor.execute("SELECT pg_catalog.to_regclass(%s)::pg_catalog.oid::pg_catalog.int8", (name,))
        oid = cursor.fetchall()[0][0]
        if oid is None:
            known = _recorded(cursor, name, before, search_path)
            return {**entry, "missing": known is not None, "baseline_rows": known, "why": _NEW.format(name)}
        recorded = [before[identity] for identity in _identities(cursor, oid) if identity in before]
        entry["baseline_rows"] = sum(recorded) if recorded else None
        if entry["baseline_rows"] is None:
            return {**entry, "why": _NEW.format(name)}
        if not may_read_all(cursor, oid):
            return {**entry, "problem": "this role may not read all of its rows"}
        entry["rows"], entry["estimated"] = _rows(cursor, oid)
        entry["change"] = entry["rows"] - entry["baseline_rows"]
    except psycopg2.Error as err:
        if cursor.connection.closed:  # type: ignore[attr-defined]  # psycopg2's own, which the protocol leaves out
            raise
        entry["problem"] = " ".join(str(err).split()) or type(err).__name__
    return entry


def _recorded(cursor: Cursor, name: str, before: Mapping[str, int], search_path: Sequence[str]) -> int | None:
    """Rows that the manifest has of a table which is not there any more."""
    cursor.execute(
        "SELECT ARRAY(SELECT pg_catalog.quote_ident(x) FROM pg_catalog.unnest(pg_catalog.parse_ident(%s)) x), "
        "ARRAY(SELECT pg_catalog.quote_ident(x) FROM pg_catalog.unnest(%s::pg_catalog.text[]) x)",
        (name, list(search_path)),
    )
    parts, schemas = cursor.fetchall()[0]
    candidates = [".".join(parts)] if len(parts) > 1 else [f"{schema}.{parts[0]}" for schema in schemas]
    return next((before[identity] for identity in candidates if identity in before), None)


def _identities(cursor: Cursor, oid: int) -> list[str]:
    cursor.execute(
        _TREE + "SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname) FROM tree "
        "JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
        (oid,),
    )
    return [row[0] for row in cursor.fetchall()]


def _rows(cursor: Cursor, oid: int) -> tuple[int, bool]:
    """Number of rows, and whether it is only the server's own estimate of those that are alive."""
    cursor.execute("SELECT %s::pg_catalog.oid::pg_catalog.regclass::pg_catalog.text", (oid,))
    name = cursor.fetchall()[0][0]
    try:
        cursor.execute(f"SELECT pg_catalog.count(*) FROM {name}")
        return int(cursor.fetchall()[0][0]), False
    except psycopg2.errors.QueryCanceled:
        cursor.execute(
            _TREE + "SELECT coalesce(sum(pg_catalog.pg_stat_get_live_tuples(oid)), 0)::pg_catalog.int8 FROM tree",
            (oid,),
        )
        return int(cursor.fetchall()[0][0]), True
