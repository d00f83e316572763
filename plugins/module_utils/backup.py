# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verified backup of one database: written beside its proof, read back, published by one rename."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
import typing as t

from . import content as contents
from . import manifest as manifests
from .archive import ArchiveReader, large_object_files, prove, table_files
from .connection import ConnectionSettings, client_environment, connect
from .errors import FailedUnchanged, Refused
from .pg_tools import PgTools, ToolFailed, Tools, find_tools, interruptible

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg2.extensions

    from .archive import FileProof

with contextlib.suppress(ImportError):
    import psycopg2

KINDS = ("before_rollback", "before_migration")
PARTIAL_PREFIX = ".partial-"
ARCHIVE = "dump"
GLOBALS_FILE = "globals.sql"

#: Size of an uncompressed archive by pg_database_size. Measured: 0.92 for an ERP with its indexes; without any index
#: 0.44 (integers), 0.57 (jsonb), 0.80 (text), 1.74 (uuid and timestamps) and 1.88 (bytea).
ESTIMATE_FACTOR = 1.0
#: Below this a warning; only values that PostgreSQL itself compresses well (TOAST) go beyond it.
COMFORTABLE_FACTOR = 2.0
ESTIMATE_FLOOR_BYTES = 16 * 1024 * 1024
#: Below this a second worker costs more than it saves (measured: 0.10 against 0.08 s).
ONE_JOB_BELOW_BYTES = 64 * 1024 * 1024
MOST_JOBS = 4
#: The exporting transaction, the row counts and pg_dumpall.
CONNECTIONS_BESIDE_DUMP = 3
COUNT_BATCH = 50
LOOK_SECONDS = 0.1

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_DURATION = re.compile(r"\d+(\.\d+)?\s*(us|ms|s|min|h|d)?")
_TOO_MANY_CONNECTIONS = re.compile(r"too many (clients|connections)|remaining connection slots")
#: pg_dump keeps --lock-wait-timeout by a statement_timeout around its LOCK TABLE.
_LOCKED = re.compile(r"lock timeout|could not obtain lock|statement timeout.*LOCK TABLE", re.DOTALL)
_LOCK_QUEUED = re.compile(r"could not obtain lock on relation")

UNCHANGED = "The database is unchanged and no backup was published."


class BackupRefused(Refused):
    """Something that a backup needs is missing; found before anything was written."""


class BackupFailed(FailedUnchanged):
    """The backup could not be made or did not prove whole; nothing of it is left."""


@dataclasses.dataclass(frozen=True)
class BackupRequest:
    """What to back up, and where to.

    :param backup_dir: folder of all backups; made, private, where it is missing.
    :param version: the migration that is about to be rolled back or applied; becomes part of the name.
    :param jobs: workers of pg_dump; 0: as many as the host has processors, 4 at the most, 1 for a small database.
    :param lock_timeout: PostgreSQL duration to wait for a table that another session has locked; ``0``: for ever.
    :param early: also record what proves later that the database still holds what the backup holds.
    """

    settings: ConnectionSettings
    backup_dir: str
    kind: str = "before_rollback"
    version: str = ""
    bin_dir: str = ""
    jobs: int = 0
    require_patched: bool = False
    lock_timeout: str = "5s"
    run_id: str = ""
    early: bool = False


@dataclasses.dataclass(frozen=True)
class Readiness:
    """Everything that can be known before anything is stopped."""

    tools: PgTools
    jobs: int
    database_bytes: int
    estimated_bytes: int
    free_bytes: int
    server_version: str
    system_identifier: str
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Backup:
    """A published backup.

    :param confirmed_at: when an early backup was proven to hold the database as it was then; empty for any other.
    :param stale: why an early backup was of no use, so that this one was taken.
    """

    id: str
    path: str
    kind: str
    bytes: int
    verified: bool
    tables: dict[str, int]
    seconds: float
    started_at: str
    finished_at: str
    phases: dict[str, float]
    warnings: tuple[str, ...]
    confirmed_at: str = ""
    stale: tuple[str, ...] = ()

    def describe(self) -> str:
        """One sentence for the operator."""
        size = _megabytes(self.bytes)
        if self.confirmed_at:
            return (
                f"Backup {self.id}, taken before the stop, holds the database exactly as it is now: {len(self.tables)} "
                f"tables, {size}, compared in {self.seconds:.1f} s."
            )
        return f"Backup {self.id} taken and verified: {len(self.tables)} tables, {size} in {self.seconds:.1f} s."


@dataclasses.dataclass(frozen=True)
class _Table:
    """A user table as the snapshot shows it; ``parent`` is the partitioned table it belongs to."""

    oid: int
    identity: str
    kind: str
    parent: int | None


# --- before anything is stopped ---------------------------------------------------------------------------------------

_SERVER = """
SELECT pg_is_in_recovery(),
       (SELECT system_identifier::text FROM pg_control_system()),
       current_setting('server_version'),
       pg_database_size(current_database()),
       CASE WHEN r.rolsuper THEN 2147483647 ELSE least(
           nullif(r.rolconnlimit, -1) - (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid),
           nullif(d.datconnlimit, -1) - (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid)) END,
       current_setting('max_connections')::int
           - CASE WHEN r.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int END
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
  FROM pg_roles r, pg_database d
 WHERE r.rolname = current_user AND d.datname = current_database()
"""

#: pg_dump locks every table that it dumps; members of an extension only where the extension says that it has user data.
_UNREADABLE = """
SELECT format('%I.%I', n.nspname, c.relname),
       has_schema_privilege(n.oid, 'USAGE') AND CASE c.relkind
           WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END,
       c.relkind IN ('r', 'p') AND row_security_active(c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'
                      AND NOT EXISTS (SELECT FROM pg_extension x WHERE x.oid = e.refobjid AND c.oid = ANY (x.extconfig)))
   AND (NOT has_schema_privilege(n.oid, 'USAGE') OR row_security_active(c.oid) OR NOT CASE c.relkind
           WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)
 ORDER BY 1
"""

_UNREADABLE_LARGE_OBJECTS = """
SELECT count(*) FROM pg_largeobject_metadata l
 WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT pg_has_role(l.lomowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) a
                    WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
"""


def check_ready(request: BackupRequest) -> Readiness:
    """Refuse a backup that cannot work, before anything is stopped; nothing is written.

    :raises Refused: with what is missing and the setting or command that resolves it.
    """
    check_request(request)
    _check_folder(request.backup_dir)
    with contextlib.closing(open_connection(request)) as connection, connection.cursor() as cursor:
        cursor.execute(_SERVER)
        ((in_recovery, system_identifier, server_version, size, by_limits, by_server),) = cursor.fetchall()
        if in_recovery:
            raise BackupRefused(
                f"{request.settings.describe()} is a standby. Set rollback_db_host and rollback_db_port to the primary."
            )
        tools = find_tools(connection.server_version // 10000, request.bin_dir, require_patched=request.require_patched)
        _check_readable(request, cursor)
    free_slots = min(by_server, by_limits if by_limits is not None else by_server)
    jobs, job_warnings = _jobs(request, size, free_slots)
    estimated = _estimate(size)
    free = _check_space(request.backup_dir, size, estimated)
    warnings = (*tools.warnings, *job_warnings, *_space_warnings(request.backup_dir, size, free))
    return Readiness(tools, jobs, size, estimated, free, server_version, system_identifier, warnings)


def open_connection(request: BackupRequest) -> psycopg2.extensions.connection:
    """A connection that only reads, each transaction of it in one snapshot, without limits but the one on locks."""
    connection = connect(
        request.settings,
        application_name="cypher.rollback backup",
        lock_timeout=request.lock_timeout,
        statement_timeout="0",
        search_path=("pg_catalog",),
    )
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    return connection


def check_request(request: BackupRequest) -> None:
    """:raises BackupRefused: where a value means nothing."""
    if request.kind not in KINDS:
        raise BackupRefused(f"There is no kind of backup {request.kind!r}; choose one of {', '.join(KINDS)}.")
    if not _VERSION.fullmatch(request.version) or ".." in request.version:
        raise BackupRefused(
            f"The version {request.version[:140]!r} cannot be part of a file name. "
            "Give the version of a migration, such as 0003: letters, digits, '_', '-' and '.', at most 128."
        )
    if not _DURATION.fullmatch(request.lock_timeout):
        raise BackupRefused(f"rollback_lock_timeout is {request.lock_timeout!r}; give a duration such as 5s.")
    if request.jobs < 0:
        raise BackupRefused(f"rollback_backup_jobs is {request.jobs}; give 0 for automatic, or a number of workers.")
    if not os.path.isabs(request.backup_dir):
        raise BackupRefused(f"rollback_backup_dir is {request.backup_dir!r}; give an absolute path.")


def _check_folder(path: str) -> None:
    """The folder of backups, or the nearest one above it, is ours to write in and nobody else's to exchange."""
    remedy = "Change that, or set rollback_backup_dir to another folder."
    existing = path.rstrip("/") or "/"
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    facts = os.lstat(existing)
    if existing == (path.rstrip("/") or "/"):
        if stat.S_ISLNK(facts.st_mode):
            raise BackupRefused(f"The backup folder {path} is a symbolic link. {remedy}")
        if facts.st_mode & stat.S_IWOTH:
            raise BackupRefused(f"The backup folder {path} can be written by every user of the host. {remedy}")
        if facts.st_uid not in (0, os.geteuid()):
            raise BackupRefused(
                f"The backup folder {path} belongs to the user with id {facts.st_uid}, neither to root nor to the user "
                f"with id {os.geteuid()} that this runs as. {remedy}"
            )
    if not os.path.isdir(existing):
        raise BackupRefused(f"{existing} is not a folder, so no backup can be written to {path}. {remedy}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise BackupRefused(f"The folder {existing} cannot be written, so no backup can be written to {path}. {remedy}")


def _check_readable(request: BackupRequest, cursor: psycopg2.extensions.cursor) -> None:
    cursor.execute(_UNREADABLE)
    rows = cursor.fetchall()
    unreadable = [name for name, readable, _filtered in rows if not readable]
    filtered = [name for name, readable, is_filtered in rows if readable and is_filtered]
    user = request.settings.user or "the current user"
    if unreadable:
        raise BackupRefused(
            f"The role {user} cannot read {_named(unreadable)}, so a backup would be incomplete. "
            f"Grant it SELECT there (and USAGE on the schema), for all at once: GRANT pg_read_all_data TO {user}.",
            tables=unreadable,
        )
    if filtered:
        raise BackupRefused(
            f"Row security hides rows of {_named(filtered)} from the role {user}, so a backup would be incomplete. "
            "Set rollback_db_user to the tables' owner or to a role with BYPASSRLS.",
            tables=filtered,
        )
    cursor.execute(_UNREADABLE_LARGE_OBJECTS)
    ((hidden,),) = cursor.fetchall()
    if hidden:
        raise BackupRefused(
            f"The role {user} cannot read {hidden} large objects, so a backup would be incomplete. "
            "Set rollback_db_user to their owner, or grant SELECT ON LARGE OBJECT."
        )


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _jobs(request: BackupRequest, size: int, free_slots: int) -> tuple[int, tuple[str, ...]]:
    """Workers of pg_dump, fewer where the server has no connections left for them."""
    wanted = request.jobs or (1 if size < ONE_JOB_BELOW_BYTES else min(len(os.sched_getaffinity(0)), MOST_JOBS))
    # pg_dump itself has a connection beside those of its workers; with one job it has only that one.
    room = free_slots - CONNECTIONS_BESIDE_DUMP - 1
    if room < 0:
        raise BackupRefused(
            f"The server has {max(free_slots, 0)} free connections, the backup needs {CONNECTIONS_BESIDE_DUMP + 1}. "
            "End some sessions, or raise max_connections or the role's or database's connection limit."
        )
    if wanted > 1 and wanted > room:
        jobs = max(room, 1)
        return jobs, (
            f"The server has {free_slots} free connections: pg_dump runs with {jobs} jobs instead of {wanted}.",
        )
    return wanted, ()


def _estimate(database_bytes: int) -> int:
    """Room that the archive may need.

    Large values that PostgreSQL compresses (TOAST) and bytea, which becomes hexadecimal text, can need more; the backup
    then fails for lack of space with nothing changed.
    """
    return int(database_bytes * ESTIMATE_FACTOR) + ESTIMATE_FLOOR_BYTES


def _check_space(path: str, database_bytes: int, estimated: int) -> int:
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    facts = os.statvfs(existing)
    free = facts.f_bavail * facts.f_frsize
    if free < estimated:
        raise BackupRefused(
            f"The backup may need {_megabytes(estimated)} (the database has {_megabytes(database_bytes)}) and the file "
            f"system of {path} has {_megabytes(free)} free. Make room, or set rollback_backup_dir to another file system.",
            estimated_bytes=estimated,
            free_bytes=free,
        )
    return free


def _space_warnings(path: str, database_bytes: int, free: int) -> tuple[str, ...]:
    if free >= database_bytes * COMFORTABLE_FACTOR:
        return ()
    have = f"The file system of {path} has {_megabytes(free)} free and the database {_megabytes(database_bytes)}"
    return (f"{have}: a backup with much bytea or compressed text may not fit.",)


def _megabytes(size: int) -> str:
    megabytes = size / 1024 / 1024
    return f"{megabytes:,.0f} MB" if megabytes >= 10 else f"{megabytes:.2f} MB"


# --- the folder that becomes the backup -------------------------------------------------------------------------------


def _make_folder(path: str) -> None:
    """Make the folder and those above it, private whatever the umask."""
    if os.path.isdir(path):
        return
    _make_folder(os.path.dirname(path.rstrip("/")))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)


def remove_leftovers(backup_dir: str) -> list[str]:
    """Remove what runs that died have left, and give the names; those whose writer lives hold a lock and stay."""
    removed = []
    for entry in list(os.scandir(backup_dir)):
        if not entry.name.startswith(PARTIAL_PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):
            lock = take_lock(entry.path)
            try:
                shutil.rmtree(entry.path)
            finally:
                os.close(lock)
            removed.append(entry.name)
    return removed


def take_lock(folder: str) -> int:
    """Descriptor of the folder's lock, held until it is closed by us and by every program that inherited it.

    :raises OSError: someone else holds it, or removed the folder in the meantime.
    """
    descriptor = os.open(os.path.join(folder, manifests.LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(descriptor, 0o600)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class PartialFolder(contextlib.AbstractContextManager["PartialFolder"]):
    """A backup in the making: private, locked, and gone when the block is left without :meth:`publish`."""

    def __init__(self, backup_dir: str, name: str) -> None:
        self.backup_dir = backup_dir
        self.id = name
        self.path = ""
        self.lock = -1

    def __enter__(self) -> t.Self:
        # A run that cleans up may catch the folder before it is locked: then there is a next name.
        for _attempt in range(10):
            self.path = os.path.join(self.backup_dir, f"{PARTIAL_PREFIX}{self.id}-{secrets.token_hex(4)}")
            with contextlib.suppress(FileExistsError, FileNotFoundError, BlockingIOError):
                os.mkdir(self.path, 0o700)
                os.chmod(self.path, 0o700)
                self.lock = take_lock(self.path)
                return self
        raise BackupFailed(f"No folder for the backup can be made in {self.backup_dir}. {UNCHANGED}")

    def publish(self, manifest: manifests.Manifest) -> manifests.Manifest:
        """Write the manifest, sync, and give the folder its final name; the manifest is returned as it was written."""
        name = manifest.id
        for number in range(2, 1000):
            manifests.write(self.path, manifest)
            sync_folder(self.path)
            final = os.path.join(self.backup_dir, manifest.id)
            try:
                # An existing backup is a folder that is not empty, and rename() never replaces one of those.
                os.rename(self.path, final)
            except OSError:
                if not os.path.lexists(final):
                    raise
                os.unlink(os.path.join(self.path, manifests.NAME))
                manifest = dataclasses.replace(manifest, id=f"{name}_{number}")
                continue
            self.path = ""
            sync_folder(self.backup_dir)
            return manifest
        raise BackupFailed(f"{self.backup_dir} already has a thousand backups named {name}. {UNCHANGED}")

    def __exit__(self, *_exc: object) -> None:
        if self.path:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def sync_folder(path: str) -> None:
    """Make names that were added to or changed in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- the snapshot that the dump and the row counts share --------------------------------------------------------------

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

_SNAPSHOT_FACTS = """
SELECT pg_export_snapshot(), pg_current_wal_lsn()::text, pg_snapshot_xmin(pg_current_snapshot())::text,
       pg_snapshot_xmax(pg_current_snapshot())::text, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
"""

#: The size of a large object without reading it; pg_largeobject itself is for superusers only. 262144 is INV_READ.
_LARGE_OBJECTS = """
SELECT oid::bigint, lo_lseek64(fd, 0, 2), lo_close(fd)
  FROM (SELECT oid, lo_open(oid, 262144) AS fd FROM pg_largeobject_metadata OFFSET 0) opened
"""

_BLOCKERS = """
SELECT a.pid, a.usename, a.application_name, a.state, to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       left(a.query, 200), array_agg(DISTINCT l.relation::regclass::text)
  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1
"""

#: A limit on idle transactions would end the one that keeps the snapshot alive.
NO_LIMITS = """
SELECT set_config(name, '0', false) FROM pg_settings
 WHERE name IN ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')
"""


class Snapshot(contextlib.AbstractContextManager["Snapshot"]):
    """One state of the database, for as long as the block lasts."""

    def __init__(self, request: BackupRequest) -> None:
        self._connection = open_connection(request)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(NO_LIMITS)
                cursor.execute(_SNAPSHOT_FACTS)
                (row,) = cursor.fetchall()
                cursor.execute(_TABLES)
                self.tables = [_Table(*columns) for columns in cursor.fetchall()]
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

    def blockers(self) -> list[dict[str, t.Any]]:
        """Sessions that hold a table for themselves alone."""
        names = ("pid", "user", "application", "state", "since", "query", "tables")
        with self._connection.cursor() as cursor:
            cursor.execute(_BLOCKERS)
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def __exit__(self, *_exc: object) -> None:
        self._connection.close()


class Counts(t.NamedTuple):
    """What the server has in the snapshot: rows by table's oid, bytes by large object's oid."""

    rows: dict[int, int]
    large_objects: dict[int, int]
    seconds: float
    content: contents.Content | None = None


class RowCounter(contextlib.AbstractContextManager["RowCounter"]):
    """Counts every table in the snapshot from a connection of its own, in a thread, while the dump runs.

    :param begun: the content of an early backup, without that of tables and large objects, which is summed up too.
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
        with self._connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot.name,))
            cursor.execute(NO_LIMITS)
            # A policy must not hide rows from the count: the server then reports an error.
            cursor.execute("SET row_security = off")
            if self._begun is None:
                rows = _count(cursor, leaves)
            else:
                content, rows = _sum_up(cursor, self._begun, snapshot)
            cursor.execute(_LARGE_OBJECTS)
            large_objects = {oid: size for oid, size, _closed in cursor.fetchall()}
        return Counts(rows, large_objects, round(time.monotonic() - started, 3), content)

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


def _count(cursor: psycopg2.extensions.cursor, leaves: Sequence[_Table]) -> dict[int, int]:
    rows: dict[int, int] = {}
    for start in range(0, len(leaves), COUNT_BATCH):
        cursor.execute(" UNION ALL ".join(_count_query(table) for table in leaves[start : start + COUNT_BATCH]))
        rows.update(cursor.fetchall())
    return rows


def _sum_up(
    cursor: psycopg2.extensions.cursor, begun: contents.Content, snapshot: Snapshot
) -> tuple[contents.Content, dict[int, int]]:
    """The whole content, and the rows of the tables that are counted. The application is running: one process is enough."""
    cursor.execute(contents.SETTINGS)
    cursor.execute("SET max_parallel_workers_per_gather = 0")
    tables = contents.read_tables(cursor)
    by_oid = contents.read_rows(cursor, tables, begun.seed, snapshot.server_version)
    large_objects = contents.read_large_objects(cursor, begun.seed)
    sums = {table.identity: by_oid[table.oid] for table in tables}
    counted = {table.oid for table in snapshot.tables}
    rows = {oid: number for oid, (number, _total) in by_oid.items() if oid in counted}
    return dataclasses.replace(begun, tables=sums, large_objects=large_objects), rows


def _count_query(table: _Table) -> str:
    return f"SELECT {table.oid}::bigint, count(*) FROM ONLY {table.identity}"


def rows_by_identity(tables: Sequence[_Table], counts: Mapping[int, int]) -> dict[str, int]:
    """Rows by quoted name; a partitioned table has those of its partitions."""
    parents = {table.oid: table.parent for table in tables}
    rows = {table.oid: 0 for table in tables}
    for oid, count in counts.items():
        ancestor: int | None = oid
        while ancestor is not None:
            rows[ancestor] += count
            ancestor = parents.get(ancestor)
    return {table.identity: rows[table.oid] for table in sorted(tables, key=lambda table: table.identity)}


# --- taking it --------------------------------------------------------------------------------------------------------


def take_backup(request: BackupRequest) -> Backup:
    """Take a backup, prove it, publish it.

    :raises Refused: what :func:`check_ready` refuses.
    :raises FailedUnchanged: the backup failed or did not prove whole; nothing of it is left.
    """
    started = time.monotonic()
    now = dt.datetime.now(dt.UTC)
    with interruptible("The backup"), failures():
        ready = check_ready(request)
        _make_folder(request.backup_dir)
        remove_leftovers(request.backup_dir)
        name = f"backup_{request.kind}_{request.version}_{now:%Y%m%d_%H%M%S}"
        with PartialFolder(request.backup_dir, name) as partial:
            seconds = {"check": round(time.monotonic() - started, 3)}
            manifest = _fill(request, ready, partial, iso(now), seconds)
            with _phase(seconds, "publish"):
                manifest = partial.publish(manifest)
    return Backup(
        id=manifest.id,
        path=os.path.join(request.backup_dir, manifest.id),
        kind=manifest.kind,
        bytes=manifest.bytes,
        verified=True,
        tables=manifest.rows,
        seconds=round(time.monotonic() - started, 3),
        started_at=iso(now),
        finished_at=iso(dt.datetime.now(dt.UTC)),
        phases=seconds,
        warnings=manifest.warnings,
    )


def iso(moment: dt.datetime) -> str:
    """UTC time with milliseconds, as in journal and report."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextlib.contextmanager
def _phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = round(time.monotonic() - started, 3)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Errors of the system and of the driver, as what they mean for the run."""
    try:
        yield
    except ToolFailed as err:
        raise BackupFailed(f"The backup failed: {err} {UNCHANGED}", **err.details) from err
    except psycopg2.Error as err:
        raise BackupFailed(f"The backup failed: {' '.join(str(err).split())} {UNCHANGED}") from err
    except OSError as err:
        where = f" ({err.filename})" if err.filename else ""
        raise BackupFailed(f"The backup failed: {err.strerror or err}{where}. {UNCHANGED}") from err


@dataclasses.dataclass(frozen=True)
class _Work:
    """A backup under way."""

    request: BackupRequest
    ready: Readiness
    partial: PartialFolder
    snapshot: Snapshot
    counter: RowCounter
    env: Mapping[str, str]
    tools: Tools

    @property
    def archive(self) -> str:
        """Folder that pg_dump writes."""
        return os.path.join(self.partial.path, ARCHIVE)

    @property
    def globals_file(self) -> str:
        """What pg_dumpall writes."""
        return os.path.join(self.partial.path, GLOBALS_FILE)


def _fill(
    request: BackupRequest, ready: Readiness, partial: PartialFolder, created_at: str, seconds: dict[str, float]
) -> manifests.Manifest:
    """Everything but the publication; the manifest holds what was proven."""
    with contextlib.ExitStack() as stack:
        snapshot = stack.enter_context(Snapshot(request))
        env = stack.enter_context(client_environment(request.settings, folder=partial.path))
        begun = snapshot.early_content() if request.early else None
        counter = stack.enter_context(RowCounter(request, snapshot, begun))
        work = _Work(request, ready, partial, snapshot, counter, env, stack.enter_context(Tools()))
        roles = _Globals(work)
        with _phase(seconds, "dump"), naming_blockers(snapshot):
            reader = stack.enter_context(_dump(work))
        with _phase(seconds, "read"):
            proofs, files_of_tables = _read_back(work, reader)
        with _phase(seconds, "count_wait"), naming_blockers(snapshot):
            counts = counter.counts()
        seconds["count"] = counts.seconds
        with _phase(seconds, "globals_wait"):
            scope, warning = roles.finish()
        _check_whole(snapshot.tables, counts, proofs, files_of_tables)
        moved = _moved_meanwhile(request, begun) if begun else ""
        sync_folder(work.archive)
    entries = [_entry(proof, f"{ARCHIVE}/") for proof in proofs.values()]
    if scope != "none":
        entries.append(_entry(prove(partial.path, GLOBALS_FILE)))
    described = _describe(work, counts, created_at)
    return dataclasses.replace(
        described,
        files=tuple(entries),
        globals_scope=scope,
        warnings=(*ready.warnings, *([warning] if warning else [])),
        seconds=dict(seconds),
        proof=_proof_of(partial.path, proofs, entries, counts.content, moved) if counts.content else {},
    )


def _moved_meanwhile(request: BackupRequest, begun: contents.Content) -> str:
    """What pg_dump may have read outside its snapshot and changed while it ran; empty: nothing.

    Sequences know no transactions, and functions such as pg_get_viewdef show what is there now.
    """
    with contextlib.closing(open_connection(request)) as connection, connection.cursor() as cursor:
        cursor.execute(contents.SETTINGS)
        sequences = contents.differences(begun.sequences, contents.read_sequences(cursor))
        catalogs = contents.differences(begun.catalogs, contents.read_catalogs(cursor, begun.seed))
    return ", ".join(
        [*(f"the sequence {name}" for name in sequences), *(f"definitions in {name}" for name in catalogs)]
    )


def _proof_of(
    folder: str,
    proofs: Mapping[str, FileProof],
    entries: Sequence[manifests.BackupFile],
    content: contents.Content,
    moved: str,
) -> dict[str, t.Any]:
    """What the manifest of an early backup has for its confirmation."""
    stamps = {entry.path: manifests.stamp_of(os.path.join(folder, entry.path)) for entry in entries}
    exchanged = [name for name, proof in proofs.items() if tuple(stamps[f"{ARCHIVE}/{name}"][:3]) != proof.stamp]
    if exchanged:
        raise BackupFailed(f"Files of the backup changed after they were read: {_named(exchanged)}. {UNCHANGED}")
    return {"moved": moved, "stamps": stamps, "content": content.to_dict()}


def _entry(proof: FileProof, prefix: str = "") -> manifests.BackupFile:
    return manifests.BackupFile(f"{prefix}{proof.name}", proof.bytes, proof.sha256)


def _describe(work: _Work, counts: Counts, created_at: str) -> manifests.Manifest:
    """The manifest without its files."""
    rows = rows_by_identity(work.snapshot.tables, counts.rows)
    return manifests.Manifest(
        id=work.partial.id,
        kind=work.request.kind,
        version=work.request.version,
        database=work.request.settings.dbname,
        system_identifier=work.ready.system_identifier,
        server_version=work.ready.server_version,
        created_at=created_at,
        files=(),
        tables={name: {"rows": number} for name, number in rows.items()},
        snapshot=work.snapshot.facts,
        tools={"version": work.ready.tools.version_text, "bin_dir": work.ready.tools.bin_dir},
        jobs=work.ready.jobs,
        large_objects=len(counts.large_objects),
        run_id=work.request.run_id,
    )


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


def _dump(work: _Work) -> ArchiveReader:
    """Run pg_dump to its end; the reader has begun to prove what is finished.

    One more attempt is made where somebody queued for a lock while a worker started (pg_dump then gives up at once), and
    with one job where the server had no connection left for the workers.
    """
    try:
        return _dump_once(work, work.ready.jobs)
    except ToolFailed as err:
        reason = " ".join(err.details.get("stderr", ()))
        no_connection = _TOO_MANY_CONNECTIONS.search(reason)
        if not no_connection and not _LOCK_QUEUED.search(reason):
            raise
    shutil.rmtree(work.archive, ignore_errors=True)
    return _dump_once(work, 1 if no_connection else work.ready.jobs)


def _dump_once(work: _Work, jobs: int) -> ArchiveReader:
    reader = ArchiveReader(work.archive)
    try:
        tool = work.tools.start(_dump_command(work, jobs), work.env, [work.partial.lock])
        while not tool.ended_within(LOOK_SECONDS):
            work.counter.raise_if_failed()
            reader.look()
        tool.wait()
        reader.finish()
    except BaseException:
        reader.__exit__()
        raise
    return reader


def _dump_command(work: _Work, jobs: int) -> list[str]:
    return [
        work.ready.tools.pg_dump,
        "--format=directory",
        f"--jobs={jobs}",
        # The application is stopped while this runs, and zlib doubles the time (measured).
        "--compress=0",
        # Every file is synced here, while pg_dump writes the next.
        "--no-sync",
        "--no-password",
        f"--snapshot={work.snapshot.name}",
        f"--lock-wait-timeout={work.request.lock_timeout}",
        f"--file={work.archive}",
    ]


def _read_back(work: _Work, reader: ArchiveReader) -> tuple[dict[str, FileProof], dict[int, str | None]]:
    """The archive as pg_restore reads it, while the reader proves the rest of the files."""
    pg_restore = work.ready.tools.pg_restore
    full_read = work.tools.start([pg_restore, "--file=/dev/null", work.archive], work.env)
    listing = work.tools.start([pg_restore, "--list", work.archive], work.env).wait()
    proofs = reader.proofs()
    full_read.wait()
    return proofs, table_files(listing, proofs)


def _check_whole(
    tables: Sequence[_Table],
    counts: Counts,
    proofs: Mapping[str, FileProof],
    files_of_tables: Mapping[int, str | None],
) -> None:
    """Every table has its data file, every data file the rows, every large object the bytes that the server counted.

    :raises BackupFailed: naming what is missing.
    """
    leaves = {table.oid: table.identity for table in tables if table.kind == "r"}
    # Data of an extension's own tables is not counted, and has to be whole all the same.
    of_extensions = {oid: f"the extension's table with oid {oid}" for oid in files_of_tables if oid not in leaves}
    problems = [
        problem
        for oid, name in {**leaves, **of_extensions}.items()
        if (problem := _table_problem(name, counts.rows.get(oid), files_of_tables.get(oid), proofs))
    ]
    problems += _large_object_problems(counts.large_objects, proofs)
    if problems:
        raise BackupFailed(
            f"The backup was read back and is not whole: {'; '.join(problems[:5])}. {UNCHANGED} "
            "Look for trouble with the disk or its file system before the next try.",
            problems=problems,
        )


def _table_problem(table: str, counted: int | None, file: str | None, proofs: Mapping[str, FileProof]) -> str:
    if file is None:
        return f"{table} has no data file"
    rows = proofs[file].rows
    if rows is None:
        return f"the data file {file} of {table} is cut short or damaged"
    if counted is not None and rows != counted:
        return f"{table} has {counted} rows in the database and {rows} in {file}"
    return ""


def _large_object_problems(sizes: Mapping[int, int], proofs: Mapping[str, FileProof]) -> list[str]:
    files = large_object_files(proofs)
    if sizes.keys() != files.keys():
        return [f"the database has {len(sizes)} large objects and the archive {len(files)}"]
    return [
        f"large object {oid} has {size} bytes in the database and {proofs[files[oid]].bytes} in {files[oid]}"
        for oid, size in sizes.items()
        if proofs[files[oid]].bytes != size
    ]


class _Globals:
    """Roles, memberships and tablespaces of the cluster, without passwords, as far as the privileges allow."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._command = [
            work.ready.tools.pg_dumpall,
            "--no-role-passwords",
            "--no-password",
            "--no-sync",
            f"--database={work.request.settings.dbname}",
            f"--file={work.globals_file}",
        ]
        self._first = work.tools.start([*self._command, "--globals-only"], work.env, [work.partial.lock])

    def finish(self) -> tuple[str, str]:
        """What could be had, ``globals``, ``roles`` or ``none``, and a warning where that is not all."""
        try:
            self._first.wait()
        except ToolFailed as err:
            reason = str(err)
        else:
            return "globals", ""
        try:
            self._work.tools.start([*self._command, "--roles-only"], self._work.env).wait()
        except ToolFailed as err:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._work.globals_file)
            return "none", f"The backup has no roles of the cluster: {err}"
        return "roles", f"The backup has the roles of the cluster and not its tablespaces: {reason}"
