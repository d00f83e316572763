# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database of a backup that is a clone: found, opened for a restore, judged, dropped.

It takes no connections, so nobody changes what it holds. Autovacuum works in it all the same, and freezes its rows before
their transactions wrap around; neither changes a row that anybody can see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
import typing as t

from .connection import CannotConnect, connect
from .database_copy import shown, users_that_stay
from .errors import FailedUnchanged, Refused, RollbackError
from .publication import CLONE_FILE, PARTIAL_PREFIX, take_lock

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg2.extensions

    from .connection import ConnectionSettings
    from .manifest import Manifest

    Cursor = psycopg2.extensions.cursor
    #: What differs between a connection's database and a manifest, as sentences.
    Compare = Callable[[psycopg2.extensions.connection, Manifest], list[str]]

with contextlib.suppress(ImportError):
    import psycopg2
    from psycopg2.sql import SQL, Identifier

PROVIDER = "clone"
#: How the comment of a clone begins; the id of the backup follows.
MARKER = "cypher.rollback: clone "

APPLICATION = "cypher.rollback clone"
#: How long a statement of a run that was killed may still take to notice that.
DEAD_RUN_SECONDS = 10.0
LOOK_SECONDS = 0.1


# --- the server -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def maintenance(settings: ConnectionSettings, maintenance_db: str) -> Iterator[psycopg2.extensions.connection]:
    """A connection to another database than the live one, with autocommit.

    :raises Refused: it is the live one, or does not let us in.
    """
    if maintenance_db == settings.dbname:
        raise Refused(
            f"rollback_maintenance_db is {maintenance_db}, the database itself, and who copies or renames a database must "
            "not be connected to it. Set it to another one, such as postgres."
        )
    try:
        connection = connect(
            settings,
            application_name=APPLICATION,
            statement_timeout="0",
            search_path=("pg_catalog",),
            dbname=maintenance_db,
        )
    except CannotConnect as err:
        raise Refused(
            f"{err} This is the database {maintenance_db} of rollback_maintenance_db, needed to copy or rename another one."
        ) from err
    with contextlib.closing(connection):
        connection.autocommit = True
        yield connection


def try_lock(cursor: Cursor, name: str) -> bool:
    """Lock the name of a clone for as long as the connection lasts; whether nobody else has it."""
    cursor.execute(
        "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))", (f"cypher.rollback clone {name}",)
    )
    return bool(cursor.fetchall()[0][0])


def allow_connections(cursor: Cursor, name: str, *, allow: bool) -> None:
    """Whether a database takes new connections; those that are there stay."""
    cursor.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(Identifier(name), SQL(str(allow).lower())))


# --- the clone of a published backup ----------------------------------------------------------------------------------


class CloneUnusable(Refused):
    """The clone of a backup is gone, is another database, or is no backup any more."""


class CloneInUse(FailedUnchanged):
    """Somebody is connected to a clone that is to be dropped."""


@dataclasses.dataclass(frozen=True)
class CloneDatabase:
    """A clone as the server has it.

    :param open: whether it takes connections.
    :param broken: a DROP DATABASE of it was interrupted; nothing but another one is possible.
    """

    oid: int
    name: str
    comment: str
    open: bool
    broken: bool

    def marked_for(self, backup_id: str) -> bool:
        """Whether its comment says that it belongs to that backup, which may have got a number when it was published."""
        named_id = self.comment.removeprefix(MARKER)
        return self.comment.startswith(MARKER) and (
            backup_id == named_id
            or (backup_id.startswith(f"{named_id}_") and backup_id[len(named_id) + 1 :].isdecimal())
        )


_DATABASE = """
SELECT oid::pg_catalog.int8, datname::pg_catalog.text, coalesce(pg_catalog.shobj_description(oid, 'pg_database'), ''),
       datallowconn, datconnlimit = -2
  FROM pg_catalog.pg_database WHERE """


def database_named(cursor: Cursor, name: str) -> CloneDatabase | None:
    """The database of a name, whatever it is."""
    return _one(cursor, "datname = %s", name)


def _one(cursor: Cursor, condition: str, value: t.Any) -> CloneDatabase | None:
    cursor.execute(_DATABASE + condition, (value,))
    return next((CloneDatabase(*row) for row in cursor.fetchall()), None)


def find(cursor: Cursor, manifest: Manifest) -> CloneDatabase:
    """The clone of a backup, by its oid: its name may have changed.

    :raises CloneUnusable: it is gone, on another server, broken, or the live database now.
    """
    name, oid = manifest.clone.get("database"), manifest.clone.get("oid")
    if not isinstance(name, str) or not isinstance(oid, int):
        raise CloneUnusable(f"The manifest of {manifest.id} does not name its clone.")
    if _system_identifier(cursor) != manifest.system_identifier:
        raise CloneUnusable(f"The clone {name} of {manifest.id} is on another server than this one.")
    found = _one(cursor, "oid = %s", oid)
    if found is None:
        other = database_named(cursor, name)
        replaced = f", and another database (oid {other.oid}) has its name" if other else ""
        raise CloneUnusable(f"The clone {name} (oid {oid}) of {manifest.id} is gone{replaced}.")
    if found.broken:
        raise CloneUnusable(f"A DROP DATABASE of the clone {found.name} of {manifest.id} was interrupted: it is lost.")
    if found.name == manifest.database:
        raise CloneUnusable(
            f"The clone of {manifest.id} was restored: it is the database {found.name} now, and no backup any more."
        )
    return found


def open_for_restore(connection: psycopg2.extensions.connection, manifest: Manifest) -> CloneDatabase:
    """Make the clone of a backup connectable. Whoever calls compares it with the manifest before anything else.

    A clone that was restored and swapped back has another name and comment: what it holds decides.

    :param connection: to another database of the server, with autocommit.
    :return: the clone as it was before; ``open`` says whether it took connections.
    :raises CloneUnusable: there is no such clone any more.
    """
    with connection.cursor() as cursor:
        found = find(cursor, manifest)
        if not found.open:
            allow_connections(cursor, found.name, allow=True)
    return found


def close_again(connection: psycopg2.extensions.connection, manifest: Manifest) -> None:
    """Let nobody connect to the clone any more, where it still is one; a database that is in use stays as it is."""
    with connection.cursor() as cursor:
        try:
            found = find(cursor, manifest)
        except CloneUnusable:
            return
        if found.open and found.marked_for(manifest.id):
            allow_connections(cursor, found.name, allow=False)


def problems(
    settings: ConnectionSettings,
    manifest: Manifest,
    maintenance_db: str = "postgres",
    compare: Compare | None = None,
) -> list[str]:
    """Why the clone of a backup does not count as one, a sentence each; empty where it does.

    A clone that takes connections may have been written to. With ``compare`` what it holds decides: so it counts again
    after it was restored and swapped back, as long as nobody wrote to it.

    :param compare: for example :func:`comparison.compare_with_manifest`.
    :raises Refused: the server cannot be asked.
    """
    with maintenance(settings, maintenance_db) as connection, connection.cursor() as cursor:
        try:
            found = find(cursor, manifest)
        except CloneUnusable as err:
            return [str(err)]
        if compare is not None:
            return _differences(connection, settings, found, manifest, compare)
    if not found.open and found.marked_for(manifest.id):
        return []
    has_been_open = (
        f"The clone {found.name} of {manifest.id} has been open to connections, so it may have been written to"
    )
    return [f"{has_been_open}: verify it with the level restore, which compares what it holds."]


def _differences(
    connection: psycopg2.extensions.connection,
    settings: ConnectionSettings,
    found: CloneDatabase,
    manifest: Manifest,
    compare: Compare,
) -> list[str]:
    """Open a clone for the comparison only; one that takes connections already stays as it is."""
    with connection.cursor() as cursor:
        if not found.open:
            allow_connections(cursor, found.name, allow=True)
        try:
            with contextlib.closing(connect(settings, application_name=APPLICATION, dbname=found.name)) as opened:
                return [f"The clone {found.name} was changed: {difference}" for difference in compare(opened, manifest)]
        finally:
            if not found.open:
                allow_connections(cursor, found.name, allow=False)


def drop(settings: ConnectionSettings, manifest: Manifest, maintenance_db: str = "postgres") -> bool:
    """Drop the clone of a backup that is given up; what is not that clone any more stays.

    :return: whether there was something to drop.
    :raises CloneUnusable: the database with its oid is in use as something else, or on another server.
    :raises FailedUnchanged: somebody is connected to it.
    """
    with maintenance(settings, maintenance_db) as connection, connection.cursor() as cursor:
        found = _one(cursor, "oid = %s", manifest.clone.get("oid"))
        if _system_identifier(cursor) != manifest.system_identifier:
            raise CloneUnusable(
                f"The clone of {manifest.id} is on another server than this one, so it was not dropped."
            )
        if found is None:
            return False
        if found.name == manifest.database or not found.marked_for(manifest.id):
            raise CloneUnusable(
                f"The clone of {manifest.id} was restored and is the database {found.name} now, so it was not dropped."
            )
        if not found.broken:
            _close_for_drop(cursor, found, manifest.id)
        _drop(cursor, found.name)
    return True


def _close_for_drop(cursor: Cursor, found: CloneDatabase, backup_id: str) -> None:
    allow_connections(cursor, found.name, allow=False)
    users = users_that_stay(cursor, found.name)
    if not users:
        return
    if found.open:
        allow_connections(cursor, found.name, allow=True)
    raise CloneInUse(
        f"The clone {found.name} of {backup_id} cannot be dropped while others are connected to it ({shown(users)}). "
        "It is as it was. End these sessions first.",
        sessions=users,
    )


# --- what runs that died have left ------------------------------------------------------------------------------------


def drop_leftovers(settings: ConnectionSettings, maintenance_db: str, backup_dir: str) -> list[str]:
    """Drop clones of runs that died before they published them, and remove their folders.

    :return: a sentence for each that could not be dropped.
    """
    left = []
    for entry in list(os.scandir(backup_dir)):
        named_here = os.path.join(entry.path, CLONE_FILE)
        if not entry.name.startswith(PARTIAL_PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        if not os.path.lexists(named_here):
            continue
        try:
            lock = take_lock(entry.path)
        except OSError:
            continue
        try:
            _drop_leftover(settings, maintenance_db, named_here)
            shutil.rmtree(entry.path)
        except (RollbackError, psycopg2.Error, OSError) as err:
            left.append(
                f"{entry.path} of an earlier run names a clone that is still there: {' '.join(str(err).split())}"
            )
        finally:
            os.close(lock)
    return left


def _drop_leftover(settings: ConnectionSettings, maintenance_db: str, path: str) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        name, cluster = str(content["database"]), content["system_identifier"]
    except (ValueError, KeyError, TypeError):
        # Cut short: the name is synced before the server is asked for anything.
        return
    with maintenance(settings, maintenance_db) as connection, connection.cursor() as cursor:
        if _system_identifier(cursor) != cluster:
            raise Refused("It is on another server than this one.")
        deadline = time.monotonic() + DEAD_RUN_SECONDS
        while not try_lock(cursor, name):
            if time.monotonic() > deadline:
                raise Refused(f"The server still works at {name} for it.")
            time.sleep(LOOK_SECONDS)
    drop_unfinished(settings, maintenance_db, name)


def drop_unfinished(settings: ConnectionSettings, maintenance_db: str, name: str) -> None:
    """Drop a clone that no manifest names. Before it is marked, nobody can have connected to it."""
    with maintenance(settings, maintenance_db) as connection, connection.cursor() as cursor:
        found = database_named(cursor, name)
        if found and (found.comment.startswith(MARKER) or not (found.comment or found.open)):
            if found.open:
                allow_connections(cursor, name, allow=False)
            _drop(cursor, name)


def _drop(cursor: Cursor, name: str) -> None:
    cursor.execute(SQL("DROP DATABASE {}").format(Identifier(name)))


def _system_identifier(cursor: Cursor) -> str:
    cursor.execute("SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()")
    return str(cursor.fetchall()[0][0])
