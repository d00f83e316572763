# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup needs, checked before anything is stopped or written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import typing as t

from .client_programs import Wanted, find_programs
from .connection import ConnectionSettings, connect
from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg2.extensions

    from .exec_place import ExecPlace
    from .pg_tools import PgTools

KINDS = ("before_rollback", "before_migration")

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

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_DURATION = re.compile(r"\d+(\.\d+)?\s*(us|ms|s|min|h|d)?")


class BackupRefused(Refused):
    """Something that a backup needs is missing; found before anything was written."""


@dataclasses.dataclass(frozen=True)
class BackupRequest:
    """What to back up, and where to.

    :param backup_dir: folder of all backups; made, private, where it is missing.
    :param version: the migration that is about to be rolled back or applied; becomes part of the name.
    :param place: where the client programs are; ``None``: on this host.
    :param jobs: workers of pg_dump; 0: as many as the host has processors, 4 at the most, 1 for a small database.
    :param lock_timeout: PostgreSQL duration to wait for a table that another session has locked; ``0``: for ever.
    :param provider: how the backup is made, an entry of ``backup.PROVIDERS``.
    :param key: signs the manifest; empty: it is not signed.
    :param content: also record a hash of every table, as it is in the dump's snapshot.
    :param queries: queries whose times are recorded, ``name`` and ``query`` each.
    :param compress: choose the best compression that both sides have, for a backup that nothing waits for.
    :param migrations_dir: where given, whether ``version`` was applied is recorded.
    :param ledger_table: the ledger of applied migrations; empty: the objects that a DOWN names tell.
    :param search_path: schemas in which migrations and queries name objects without one.
    :param maintenance_db: database of the same server to be connected to while a copy is made.
    :param server_free_bytes: room on the server where that cannot be seen from here; None: not known.
    :param early: also record what proves later that the database still holds what the backup holds.
    """

    settings: ConnectionSettings
    backup_dir: str
    kind: str = "before_rollback"
    version: str = ""
    bin_dir: str = ""
    place: ExecPlace | None = None
    jobs: int = 0
    require_patched: bool = False
    lock_timeout: str = "5s"
    run_id: str = ""
    early: bool = False
    provider: str = "dump"
    maintenance_db: str = "postgres"
    server_free_bytes: int | None = None
    key: str = dataclasses.field(default="", repr=False)
    content: bool = False
    queries: tuple[Mapping[str, str], ...] = ()
    compress: bool = False
    migrations_dir: str = ""
    ledger_table: str = ""
    ledger_column: str = "version"
    search_path: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Readiness:
    """Everything that can be known before anything is stopped.

    :param free_bytes: room where the backup goes: in the folder's file system, or of a clone on the server; None: not known.
    """

    tools: PgTools
    jobs: int
    database_bytes: int
    estimated_bytes: int
    free_bytes: int | None
    server_version: str
    system_identifier: str
    warnings: tuple[str, ...] = ()


class ServerFacts(t.NamedTuple):
    """What the server itself tells; ``free_slots`` are connections that this role can still open."""

    tools: PgTools
    system_identifier: str
    server_version: str
    database_bytes: int
    free_slots: int
    warnings: tuple[str, ...] = ()


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
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       r.rolsuper OR (r.rolcreatedb AND pg_has_role(d.datdba, 'MEMBER'))
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
    server = check_server(request)
    size = server.database_bytes
    jobs, job_warnings = _jobs(request, size, server.free_slots)
    estimated = _estimate(size)
    free = check_space(request.backup_dir, size, estimated)
    refuse_full_place(server.tools, estimated)
    warnings = (
        *server.tools.warnings,
        *server.warnings,
        *job_warnings,
        *_space_warnings(request.backup_dir, size, free),
    )
    return Readiness(
        server.tools, jobs, size, estimated, free, server.server_version, server.system_identifier, warnings
    )


def check_server(request: BackupRequest) -> ServerFacts:
    """Refuse what no kind of backup can do without: a private folder, a primary, its programs, the right to read all.

    :raises Refused: with what is missing and the setting or command that resolves it.
    """
    check_request(request)
    _check_folder(request.backup_dir)
    with contextlib.closing(open_connection(request)) as connection, connection.cursor() as cursor:
        cursor.execute(_SERVER)
        ((in_recovery, system_identifier, server_version, size, by_limits, by_server, restores),) = cursor.fetchall()
        if in_recovery:
            raise BackupRefused(
                f"{request.settings.describe()} is a standby. Set rollback_db_host and rollback_db_port to the primary."
            )
        wanted = Wanted(connection.server_version // 10000, request.bin_dir, request.place, request.require_patched)
        tools = find_programs(wanted, request.settings, system_identifier)
        _check_readable(request, cursor)
    free_slots = min(by_server, by_limits if by_limits is not None else by_server)
    return ServerFacts(tools, system_identifier, server_version, size, free_slots, _restore_warnings(request, restores))


def _restore_warnings(request: BackupRequest, restores: bool) -> tuple[str, ...]:
    """Better heard by whoever deploys than by whoever has an emergency."""
    if restores or request.kind != "before_migration":
        return ()
    user = request.settings.user or "the current user"
    warning = (
        f"The role {user} can take this backup and could not restore it: that needs the database's owner with CREATEDB, or a "
        f"superuser. Before there is an emergency: ALTER ROLE {user} CREATEDB, or another rollback_db_user."
    )
    return (warning,)


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
            f"The role {user} cannot read {named(unreadable)}, so a backup would be incomplete. "
            f"Grant it SELECT there (and USAGE on the schema), for all at once: GRANT pg_read_all_data TO {user}.",
            tables=unreadable,
        )
    if filtered:
        raise BackupRefused(
            f"Row security hides rows of {named(filtered)} from the role {user}, so a backup would be incomplete. "
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


def named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
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


def check_space(path: str, database_bytes: int, estimated: int) -> int:
    """Room in the file system of the backups.

    :raises BackupRefused: it is less than what is needed.
    """
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    facts = os.statvfs(existing)
    free = facts.f_bavail * facts.f_frsize
    if free < estimated:
        raise BackupRefused(
            f"The backup may need {megabytes(estimated)} (the database has {megabytes(database_bytes)}) and the file "
            f"system of {path} has {megabytes(free)} free. Make room, or set rollback_backup_dir to another file system.",
            estimated_bytes=estimated,
            free_bytes=free,
        )
    return free


def refuse_full_place(tools: PgTools, needed: int) -> None:
    """:raises BackupRefused: the archive has no room inside the container, where it is for a while."""
    if tools.place and tools.free_bytes < needed:
        raise BackupRefused(
            f"The client programs may need {megabytes(needed)} in {tools.place.folder} inside the container, and "
            f"{megabytes(tools.free_bytes)} are free there. Make room, or set rollback_pg_exec_dir to another folder of it.",
            estimated_bytes=needed,
            free_bytes=tools.free_bytes,
        )


def _space_warnings(path: str, database_bytes: int, free: int) -> tuple[str, ...]:
    if free >= database_bytes * COMFORTABLE_FACTOR:
        return ()
    have = f"The file system of {path} has {megabytes(free)} free and the database {megabytes(database_bytes)}"
    return (f"{have}: a backup with much bytea or compressed text may not fit.",)


def megabytes(size: int) -> str:
    """A number of bytes for the operator."""
    number = size / 1024 / 1024
    return f"{number:,.0f} MB" if number >= 10 else f"{number:.2f} MB"
