# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One state of the database that a dump, its row counts and its hashes share."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import re
import time
import types
import typing as t

from . import content as contents
from .catalog import schema_text
from .database_properties import read_properties
from .dependencies import read_extensions, read_roles
from .pg_tools import ToolFailed
from .publication import UNCHANGED, BackupFailed
from .readiness import open_connection

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg2.extensions

    from .readiness import BackupRequest

with contextlib.suppress(ImportError):
    import psycopg2

COUNT_BATCH = 50
#: pg_dump keeps --lock-wait-timeout by a statement_timeout around its LOCK TABLE.
_LOCKED = re.compile(r"lock timeout|could not obtain lock|statement timeout.*LOCK TABLE", re.DOTALL)

_TABLES = """
SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname), c.relkind,
       (SELECT i.inhparent::bigint FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
         WHERE i.inhrelid = c.oid AND p.relkind = 'p')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
 ORDER BY c.relpages DESC, c.oid
"""

#: Where the next record is inserted, not what is written: with synchronous_commit off a commit is not, for a moment, and two
#: backups would stand at one place.
_SNAPSHOT_FACTS = """
SELECT pg_export_snapshot(), pg_current_wal_insert_lsn()::text, pg_snapshot_xmin(pg_current_snapshot())::text,
       pg_snapshot_xmax(pg_current_snapshot())::text, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
"""

#: The size of a large object without reading it; pg_largeobject itself is for superusers only. 262144 is INV_READ.
_LARGE_OBJECTS = """
SELECT oid::bigint, lo_lseek64(fd, 0, 2), lo_close(fd)
  FROM (SELECT oid, lo_open(oid, 262144) AS fd FROM pg_largeobject_metadata OFFSET 0) opened
"""

#: Who waits for a table for itself alone is in the way, too: everybody else queues behind.
_BLOCKERS = """
SELECT a.pid, a.usename, a.application_name, a.state, to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       left(a.query, 200), array_agg(DISTINCT l.relation::regclass::text)
  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1
"""

#: A limit on idle transactions would end the one that keeps the snapshot alive.
NO_LIMITS = """
SELECT set_config(name, '0', false) FROM pg_settings
 WHERE name IN ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """A user table as the snapshot shows it; ``parent`` is the partitioned table it belongs to."""

    oid: int
    identity: str
    kind: str
    parent: int | None


class Snapshot(contextlib.AbstractContextManager["Snapshot"]):
    """One state of the database, for as long as the block lasts."""

    def __init__(self, request: BackupRequest) -> None:
        self._connection = open_connection(request)
        self._dbname = request.settings.dbname
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(NO_LIMITS)
                cursor.execute(_SNAPSHOT_FACTS)
                (row,) = cursor.fetchall()
                cursor.execute(_TABLES)
                self.tables = [Table(*columns) for columns in cursor.fetchall()]
        except BaseException:
            self._connection.close()
            raise
        self.name: str = row[0]
        self.server_version: int = self._connection.server_version
        self.facts = dict(zip(("lsn", "xmin", "xmax", "taken_at"), row[1:5], strict=True))

    def early_content(self) -> contents.Content:
        """What else than rows a dump in this snapshot holds, for an early backup; to be read before the dump begins."""
        seed = contents.new_seed()
        with self._connection.cursor() as cursor:
            cursor.execute(contents.SETTINGS)
            return contents.Content(
                seed,
                sequences=contents.read_sequences(cursor),
                catalogs=contents.read_catalogs(cursor, seed),
                activity={table.identity: table.activity for table in contents.read_tables(cursor)},
            )

    def surroundings(self) -> dict[str, t.Any]:
        """What no dump holds and a restore needs, as fields of the manifest."""
        with self._connection.cursor() as cursor:
            return {
                "properties": read_properties(cursor, self._dbname).to_dict(),
                "extensions": read_extensions(cursor),
                "roles": read_roles(cursor),
            }

    def blockers(self) -> list[dict[str, t.Any]]:
        """Sessions that hold a table for themselves alone, or wait to do so."""
        names = ("pid", "user", "application", "state", "since", "query", "tables")
        with self._connection.cursor() as cursor:
            cursor.execute(_BLOCKERS)
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def __exit__(self, *_exc: object) -> None:
        self._connection.close()


class Counts(t.NamedTuple):
    """What the server has in the snapshot: rows by table's oid, bytes by large object's oid.

    :param schema: its definitions, as ``catalog.schema_text`` has them.
    :param hashes: where the content was hashed, rows and sum by table's oid, without those of extensions.
    """

    rows: dict[int, int]
    large_objects: dict[int, int]
    seconds: float
    schema: str = ""
    content: contents.Content | None = None
    hashes: Mapping[int, contents.Sum] = types.MappingProxyType({})


class RowCounter(contextlib.AbstractContextManager["RowCounter"]):
    """Counts every table in the snapshot from a connection of its own, in a thread, while the dump runs.

    :param begun: seed and begin of a content; rows and large objects are summed up for it, too.
    """

    def __init__(self, request: BackupRequest, snapshot: Snapshot, begun: contents.Content | None = None) -> None:
        self._begun = begun
        self._connection = open_connection(request)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="count")
        self._counts = self._pool.submit(self._count, snapshot)

    def _count(self, snapshot: Snapshot) -> Counts:
        started = time.monotonic()
        leaves = [table for table in snapshot.tables if table.kind == "r"]
        content = None
        hashes: dict[int, contents.Sum] = {}
        with self._connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot.name,))
            cursor.execute(NO_LIMITS)
            # A policy must not hide rows from the count: the server then reports an error.
            cursor.execute("SET row_security = off")
            if self._begun is None:
                rows = _count(cursor, leaves)
            else:
                content, hashes = _sum_up(cursor, self._begun, snapshot)
                rows = {oid: number for oid, (number, _total) in hashes.items()}
            cursor.execute(_LARGE_OBJECTS)
            large_objects = {oid: size for oid, size, _closed in cursor.fetchall()}
            schema = schema_text(cursor)
        return Counts(rows, large_objects, round(time.monotonic() - started, 3), schema, content, hashes)

    def raise_if_failed(self) -> None:
        """:raises psycopg2.Error: where counting has ended with an error."""
        if self._counts.done():
            self._counts.result()

    def counts(self) -> Counts:
        """What was counted, waiting for the end of it."""
        return self._counts.result()

    def __exit__(self, *_exc: object) -> None:
        if not self._counts.done():
            with contextlib.suppress(psycopg2.Error):
                self._connection.cancel()
        self._pool.shutdown()
        self._connection.close()


def _count(cursor: psycopg2.extensions.cursor, leaves: Sequence[Table]) -> dict[int, int]:
    rows: dict[int, int] = {}
    for start in range(0, len(leaves), COUNT_BATCH):
        cursor.execute(" UNION ALL ".join(_count_query(table) for table in leaves[start : start + COUNT_BATCH]))
        rows.update(cursor.fetchall())
    return rows


def _sum_up(
    cursor: psycopg2.extensions.cursor, begun: contents.Content, snapshot: Snapshot
) -> tuple[contents.Content, dict[int, contents.Sum]]:
    """The whole content, and of it the tables that are counted. The application is running: one process is enough."""
    cursor.execute(contents.SETTINGS)
    cursor.execute("SET max_parallel_workers_per_gather = 0")
    tables = contents.read_tables(cursor)
    by_oid = contents.read_rows(cursor, tables, begun.seed, snapshot.server_version)
    large_objects = contents.read_large_objects(cursor, begun.seed)
    sums = {table.identity: by_oid[table.oid] for table in tables}
    counted = {table.oid for table in snapshot.tables}
    hashes = {oid: each for oid, each in by_oid.items() if oid in counted}
    return dataclasses.replace(begun, tables=sums, large_objects=large_objects), hashes


def _count_query(table: Table) -> str:
    return f"SELECT {table.oid}::bigint, count(*) FROM ONLY {table.identity}"


def rows_by_identity(tables: Sequence[Table], counts: Mapping[int, int]) -> dict[str, int]:
    """Rows by quoted name; a partitioned table has those of its partitions."""
    found = contents.with_partitioned({oid: (rows, "0") for oid, rows in counts.items()}, _parents(tables))
    return {table.identity: found[table.oid][0] for table in sorted(tables, key=lambda table: table.identity)}


def _parents(tables: Sequence[Table]) -> dict[int, int | None]:
    return {table.oid: table.parent for table in tables}


def tables_by_identity(tables: Sequence[Table], counts: Counts) -> dict[str, dict[str, t.Any]]:
    """Rows and, where the content was hashed, ``hash`` of each table, for the manifest."""
    rows = rows_by_identity(tables, counts.rows)
    hashes = contents.with_partitioned(counts.hashes, _parents(tables)) if counts.content else {}
    oids = {table.identity: table.oid for table in tables}
    return {name: {"rows": rows[name], **({"hash": hashes[oids[name]][1]} if hashes else {})} for name in rows}


@contextlib.contextmanager
def naming_blockers(snapshot: Snapshot) -> Iterator[None]:
    """Where a table is locked by somebody else: who that is."""
    try:
        yield
    except (ToolFailed, psycopg2.Error) as err:
        if not _LOCKED.search(str(err)):
            raise
        blockers = snapshot.blockers()
        who = "; ".join("pid {pid}, {user}, {application}, since {since}: {query}".format(**each) for each in blockers)
        raise BackupFailed(
            f"The backup failed: a table is locked by another session ({who or 'which has ended meanwhile'}). {UNCHANGED} "
            "End that session, or allow more time with rollback_lock_timeout.",
            blockers=blockers,
        ) from err
