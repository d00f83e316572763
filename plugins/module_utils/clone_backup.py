# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup by a copy of the database on its own server: fast to take, restored by a rename, lost with the server.

The folder of such a backup names the copy before it exists. Whoever finds that folder unpublished and unlocked knows that
its run died, and what to drop.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import json
import os
import typing as t

from . import clone as clones
from . import content as contents
from . import manifest as manifests
from . import server_space
from .archive import prove
from .catalog import SCHEMA_FILE
from .client_programs import start_programs
from .cluster_globals import GLOBALS_FILE, Globals
from .connection import client_environment
from .database_copy import copy_name, create_copy, refuse_users, shown, users_of, users_that_stay
from .database_properties import read_properties
from .errors import RollbackError
from .publication import CLONE_FILE, UNCHANGED, BackupFailed, phase, sync_folder, write_private
from .readiness import BackupRefused, Readiness, check_server, check_space, megabytes, named, open_connection
from .snapshot import RowCounter, Snapshot, tables_by_identity

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg2.extensions

    from .manifest import Manifest
    from .publication import PartialFolder
    from .readiness import BackupRequest
    from .snapshot import Counts

    Cursor = psycopg2.extensions.cursor

with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.errors
    from psycopg2.sql import SQL, Identifier, Literal

#: Room beside the database itself: what the server writes meanwhile.
SPACE_FLOOR_BYTES = 32 * 1024 * 1024
#: Manifest, roles of the cluster, schema.
FOLDER_BYTES = 16 * 1024 * 1024
#: Clone and source are read at once: a snapshot and two readers, pg_dumpall, and the one that copies.
CONNECTIONS = 5
NAME_ATTEMPTS = 20


# --- before anything is stopped ---------------------------------------------------------------------------------------

_MAY_COPY = """
SELECT r.rolname::text, r.rolsuper OR r.rolcreatedb,
       r.rolsuper OR d.datistemplate OR pg_catalog.pg_has_role(d.datdba, 'USAGE'),
       pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(d.datdba)), pg_catalog.quote_ident(r.rolname)
  FROM pg_catalog.pg_roles r, pg_catalog.pg_database d WHERE r.rolname = current_user AND d.datname = %s
"""

_NOT_IN_A_COPY = """
SELECT (SELECT count(*) FROM pg_catalog.pg_subscription WHERE subdbid = d.oid),
       (SELECT count(*) FROM pg_catalog.pg_class WHERE relpersistence = 'u' AND relkind = 'r')
  FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""


def check_ready(request: BackupRequest) -> Readiness:
    """Refuse a clone that cannot work, before anything is stopped; nothing is written.

    That the application is connected is no reason yet: it will be stopped. :func:`fill` names who is left.

    :raises Refused: with what is missing and the setting or command that resolves it.
    """
    server = check_server(request)
    size = server.database_bytes
    if server.free_slots < CONNECTIONS:
        raise BackupRefused(
            f"The server has {max(server.free_slots, 0)} free connections, the backup needs {CONNECTIONS}. "
            "End some sessions, or raise max_connections or the role's or database's connection limit."
        )
    check_space(request.backup_dir, FOLDER_BYTES, FOLDER_BYTES)
    warnings = [*server.tools.warnings, *server.warnings, *_not_in_a_copy(request)]
    with clones.maintenance(request.settings, request.maintenance_db) as connection, connection.cursor() as cursor:
        _check_privileges(cursor, request)
        estimated = size + SPACE_FLOOR_BYTES
        free = _check_server_space(cursor, request, size, estimated)
        if free is None:
            warnings.append(server_space.NOT_KNOWN)
        users = users_of(cursor, request.settings.dbname)
        if users:
            warnings.append(
                f"A clone is made while nobody is connected to {request.settings.dbname}. Now there are: {shown(users)}. "
                "Those that do not go with the application have to be stopped, or set rollback_backup_kind to dump."
            )
    return Readiness(
        server.tools, 1, size, estimated, free, server.server_version, server.system_identifier, tuple(warnings)
    )


def _check_privileges(cursor: Cursor, request: BackupRequest) -> None:
    cursor.execute(_MAY_COPY, (request.settings.dbname,))
    ((user, may_create, may_copy, owner, quoted),) = cursor.fetchall()
    if not may_create:
        raise BackupRefused(
            f"The role {user} may not create databases, which a clone is. Run: ALTER ROLE {quoted} CREATEDB, "
            "or set rollback_backup_kind to dump."
        )
    if not may_copy:
        raise BackupRefused(
            f"The role {user} may not copy the database {request.settings.dbname}: it belongs to {owner}. "
            f"Run: GRANT {owner} TO {quoted}, set rollback_db_user to {owner}, or set rollback_backup_kind to dump."
        )


def _check_server_space(cursor: Cursor, request: BackupRequest, size: int, estimated: int) -> int | None:
    free = server_space.free_bytes(cursor, request.settings, request.server_free_bytes)
    if free is not None and free < estimated:
        raise BackupRefused(
            f"A clone of {request.settings.dbname} may need {megabytes(estimated)} on the server (the database has "
            f"{megabytes(size)}), and {megabytes(free)} are free. Make room there; where the number is wrong, correct "
            "rollback_server_free_bytes; or set rollback_backup_kind to dump.",
            estimated_bytes=estimated,
            free_bytes=free,
        )
    return free


def _not_in_a_copy(request: BackupRequest) -> Iterator[str]:
    """What PostgreSQL does not copy, or loses in a crash, and a dump would hold."""
    with contextlib.closing(open_connection(request)) as connection, connection.cursor() as cursor:
        cursor.execute(_NOT_IN_A_COPY)
        ((subscriptions, unlogged),) = cursor.fetchall()
    if subscriptions:
        yield f"The database has {subscriptions} subscriptions, which a clone does not hold: they stay with the database that it replaces."
    if unlogged:
        yield f"The database has {unlogged} unlogged tables: a crash of the server empties them, in a clone, too."


# --- taking it --------------------------------------------------------------------------------------------------------


def fill(
    request: BackupRequest, ready: Readiness, partial: PartialFolder, created_at: str, seconds: dict[str, float]
) -> Manifest:
    """Everything but the publication; the manifest holds what was proven.

    :raises FailedUnchanged: somebody is connected, or clone and source differ; the clone is dropped then.
    """
    with clones.maintenance(request.settings, request.maintenance_db) as connection:
        _notice_our_end(connection)
        with _Clone(request, partial, connection) as clone:
            with phase(seconds, "copy"):
                clone.create(ready)
            manifest = _describe(request, ready, clone, created_at, seconds)
            clone.close()
            clone.keep = True
    return dataclasses.replace(manifest, warnings=(*ready.warnings, *manifest.warnings), seconds=dict(seconds))


def _notice_our_end(connection: psycopg2.extensions.connection) -> None:
    """Without this, the server goes on with a copy for a client that was killed. PostgreSQL 14 has it, on Linux."""
    with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
        cursor.execute("SET client_connection_check_interval = '1s'")


class _Clone(contextlib.AbstractContextManager["_Clone"]):
    """A clone in the making; dropped when the block is left before it is to be kept."""

    def __init__(
        self, request: BackupRequest, partial: PartialFolder, connection: psycopg2.extensions.connection
    ) -> None:
        self.request = request
        self.partial = partial
        self.connection = connection
        self.name = ""
        self.oid = 0
        self.keep = False

    @property
    def opened(self) -> BackupRequest:
        """A request for the clone itself."""
        settings = dataclasses.replace(self.request.settings, dbname=self.name)
        return dataclasses.replace(self.request, settings=settings)

    def create(self, ready: Readiness) -> None:
        """Copy the database, mark the copy, and let only its owner and superusers read it."""
        live = self.request.settings.dbname
        with self.connection.cursor() as cursor:
            refuse_users(live, users_that_stay(cursor, live))
            self.name = self._announce(cursor, ready)
            try:
                create_copy(self.connection, live, self.name, ready.database_bytes)
            except psycopg2.errors.DuplicateDatabase:
                # Somebody else made one of this name a moment ago: it is not ours to drop.
                self.name = ""
                raise
            database = Identifier(self.name)
            cursor.execute(
                SQL("COMMENT ON DATABASE {} IS {}").format(database, Literal(clones.MARKER + self.partial.id))
            )
            # Privileges are not copied: everybody may connect to a new database.
            cursor.execute(SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))
            clones.allow_connections(cursor, self.name, allow=True)
            cursor.execute("SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_database WHERE datname = %s", (self.name,))
            ((self.oid,),) = cursor.fetchall()

    def _announce(self, cursor: Cursor, ready: Readiness) -> str:
        """Name what is about to exist, on disk, and lock that name for as long as the server works at it."""
        name = _lock_free_name(cursor, self.request.settings.dbname)
        text = json.dumps({"database": name, "system_identifier": ready.system_identifier}) + "\n"
        write_private(os.path.join(self.partial.path, CLONE_FILE), text)
        prove(self.partial.path, CLONE_FILE)
        sync_folder(self.partial.path)
        return name

    def close(self) -> None:
        """Let nobody in any more.

        :raises BackupFailed: somebody else was in.
        """
        with self.connection.cursor() as cursor:
            clones.allow_connections(cursor, self.name, allow=False)
            users = users_that_stay(cursor, self.name)
        if users:
            raise BackupFailed(
                f"Others are connected to the clone {self.name} and may write to it ({shown(users)}). {UNCHANGED} "
                "Stop what connects to every database of the server, and run again.",
                sessions=users,
            )

    def __exit__(self, *_exc: object) -> None:
        if self.keep or not self.name:
            return
        try:
            clones.drop_unfinished(self.request.settings, self.request.maintenance_db, self.name)
        except (RollbackError, psycopg2.Error):
            # The folder that names the clone stays, so that the next run drops it.
            self.partial.path = ""


def _lock_free_name(cursor: Cursor, live: str) -> str:
    """A name that no database has, locked until the connection ends."""
    now = dt.datetime.now(dt.UTC)
    for number in range(1, NAME_ATTEMPTS):
        name = copy_name(live, now, number)
        if clones.try_lock(cursor, name) and not clones.database_named(cursor, name):
            return name
    raise BackupFailed(f"No name for a clone of {live} is free. {UNCHANGED} Run again in a minute.")


def _describe(
    request: BackupRequest, ready: Readiness, clone: _Clone, created_at: str, seconds: dict[str, float]
) -> Manifest:
    """The manifest, of what the clone holds: proven to be what the source holds."""
    partial = clone.partial
    with contextlib.ExitStack() as stack:
        snapshot = stack.enter_context(Snapshot(clone.opened))
        begun = snapshot.early_content()
        counter = stack.enter_context(RowCounter(clone.opened, snapshot, begun))
        source = stack.enter_context(_Source(request, begun.seed))
        env = stack.enter_context(
            client_environment(request.settings, dbname=request.maintenance_db, folder=partial.path)
        )
        roles = Globals(
            stack.enter_context(start_programs(ready.tools)),
            ready.tools.pg_dumpall,
            env,
            partial,
            request.maintenance_db,
        )
        with phase(seconds, "compare"):
            counts = counter.counts()
            _check_same(counts.content, source.content())
        scope, warning = roles.finish()
        surroundings = snapshot.surroundings()
    with clone.connection.cursor() as cursor:
        surroundings["properties"] = read_properties(cursor, request.settings.dbname).to_dict()
    write_private(os.path.join(partial.path, SCHEMA_FILE), counts.schema)
    names = [CLONE_FILE, SCHEMA_FILE, *([GLOBALS_FILE] if scope != "none" else [])]
    proofs = [prove(partial.path, name) for name in names]
    return dataclasses.replace(
        _manifest(request, ready, clone, snapshot, counts),
        created_at=created_at,
        files=tuple(manifests.BackupFile(proof.name, proof.bytes, proof.sha256) for proof in proofs),
        globals_scope=scope,
        warnings=(warning,) if warning else (),
        **surroundings,
    )


def _manifest(request: BackupRequest, ready: Readiness, clone: _Clone, snapshot: Snapshot, counts: Counts) -> Manifest:
    content = t.cast("contents.Content", counts.content)
    return manifests.Manifest(
        id=clone.partial.id,
        kind=request.kind,
        version=request.version,
        database=request.settings.dbname,
        system_identifier=ready.system_identifier,
        server_version=ready.server_version,
        created_at="",
        files=(),
        tables=tables_by_identity(snapshot.tables, counts),
        provider=clones.PROVIDER,
        snapshot=snapshot.facts,
        tools={"version": ready.tools.version_text, "bin_dir": ready.tools.where},
        large_objects=len(counts.large_objects),
        run_id=request.run_id,
        database_bytes=ready.database_bytes,
        content={
            "seed": content.seed,
            "sequences": {name: list(value) for name, value in content.sequences.items()},
            "large_objects": list(content.large_objects),
        },
        clone={"database": clone.name, "oid": clone.oid},
    )


class _Source(contextlib.AbstractContextManager["_Source"]):
    """Reads the source in a thread, while the clone is read."""

    def __init__(self, request: BackupRequest, seed: int) -> None:
        self._connection = open_connection(request)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="source")
        self._content = self._pool.submit(self._read, seed)

    def _read(self, seed: int) -> contents.Content:
        with self._connection.cursor() as cursor:
            cursor.execute(contents.SETTINGS)
            tables = contents.read_tables(cursor)
            rows = contents.read_rows(cursor, tables, seed, self._connection.server_version)
            return contents.Content(
                seed,
                tables={table.identity: rows[table.oid] for table in tables},
                sequences=contents.read_sequences(cursor),
                catalogs=contents.read_catalogs(cursor, seed),
                large_objects=contents.read_large_objects(cursor, seed),
            )

    def content(self) -> contents.Content:
        """What was read, waiting for the end of it."""
        return self._content.result()

    def __exit__(self, *_exc: object) -> None:
        if not self._content.done():
            with contextlib.suppress(psycopg2.Error):
                self._connection.cancel()
        self._pool.shutdown()
        self._connection.close()


def _check_same(clone: contents.Content | None, source: contents.Content) -> None:
    """:raises BackupFailed: naming what differs."""
    copied = t.cast("contents.Content", clone)
    problems = [*contents.differences(copied.tables, source.tables)]
    problems += [f"the sequence {name}" for name in contents.differences(copied.sequences, source.sequences)]
    problems += [
        f"definitions in {name}"
        for name in contents.differences(copied.catalogs, source.catalogs)
        if name not in contents.SHARED
    ]
    if copied.large_objects != source.large_objects:
        problems.append("large objects")
    if problems:
        raise BackupFailed(
            f"The clone and the database differ in {named(problems)}: somebody wrote after the copy was made, or it is not "
            f"a true one. {UNCHANGED} Stop whatever writes there, or set rollback_backup_kind to dump.",
            problems=problems,
        )


def discard(request: BackupRequest, manifest: Manifest) -> None:
    """Drop a clone whose manifest could not be published.

    :raises BackupFailed: it is still there, with the command that drops it.
    """
    name = str(manifest.clone["database"])
    try:
        clones.drop_unfinished(request.settings, request.maintenance_db, name)
    except (RollbackError, psycopg2.Error) as err:
        raise BackupFailed(
            f"The backup could not be published, and its clone could not be dropped ({' '.join(str(err).split())}). "
            f"{UNCHANGED} Run in the database {request.maintenance_db}: DROP DATABASE {_quoted(name)}"
        ) from err


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
