# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a database on its own server, by CREATE DATABASE with the database as its template."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import time
import typing as t

from .eviction import sessions_of
from .kept import LONGEST_NAME
from .publication import UNCHANGED, BackupFailed
from .server import describe_session

if t.TYPE_CHECKING:
    import psycopg2.extensions

    from .catalog import Cursor

with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.errors
    from psycopg2.sql import SQL, Identifier

#: From here on the files are copied (FILE_COPY). Measured on 15.18: 715 MB in 2.4 s with 2 kB of WAL, against 3.2 s and
#: as much WAL as the database has (WAL_LOG); 31 MB 0.20 against 0.23 s. Below, the checkpoints of FILE_COPY cost more
#: than the copy: 10 MB in 0.31 against 0.13 s where another database has 100 MB that are not written yet.
FILE_COPY_FROM_BYTES = 64 * 1024 * 1024
FIRST_WITH_STRATEGY = 150000

#: The server itself waits 5 s for sessions that are on their way out (measured), and then names nobody.
LEAVING_SECONDS = 5.0
LOOK_SECONDS = 0.1
SHOWN_SESSIONS = 5

_PREPARED = (
    "SELECT gid, pg_catalog.quote_literal(gid) FROM pg_catalog.pg_prepared_xacts WHERE database = %s ORDER BY prepared"
)


def copy_name(live: str, now: dt.datetime, number: int = 1) -> str:
    """``<live>_backup_<UTC>``, ``live`` shortened by whole characters where the name would be too long.

    :param number: other than 1, is added: for the next name where one is taken.
    """
    suffix = f"_backup_{now.astimezone(dt.UTC):%Y%m%d_%H%M%S}" + (f"_{number}" if number > 1 else "")
    return live.encode()[: LONGEST_NAME - len(suffix)].decode(errors="ignore") + suffix


def users_of(cursor: Cursor, dbname: str) -> list[str]:
    """Who keeps a database from being copied: its other sessions and prepared transactions, as text."""
    cursor.execute("SELECT oid FROM pg_catalog.pg_database WHERE datname = %s", (dbname,))
    found = [describe_session(session) for session in sessions_of(cursor, [oid for (oid,) in cursor.fetchall()])]
    cursor.execute(_PREPARED, (dbname,))
    return found + [f"prepared transaction {gid} (ROLLBACK PREPARED {quoted})" for gid, quoted in cursor.fetchall()]


def shown(users: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(users) - SHOWN_SESSIONS
    return "; ".join(users[:SHOWN_SESSIONS]) + (f"; and {more} more" if more > 0 else "")


def users_that_stay(cursor: Cursor, dbname: str) -> list[str]:
    """Who still uses a database after a moment for those that are ending; nobody is ended here."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while users := users_of(cursor, dbname):
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    return users


def refuse_users(dbname: str, users: list[str]) -> None:
    """:raises BackupFailed: naming who is connected, where somebody is."""
    if users:
        raise BackupFailed(
            f"The database {dbname} cannot be copied while others are connected to it ({shown(users)}). {UNCHANGED} "
            "Stop what holds these connections (rollback_app_services, or the pooler or report that they belong to), "
            "or set rollback_backup_kind to dump, which needs no such thing.",
            sessions=users,
        )


def create_copy(connection: psycopg2.extensions.connection, source: str, name: str, size: int) -> None:
    """Copy a database; the copy takes no connections yet. While it runs, the server lets nobody connect to the source.

    :param connection: to another database, with autocommit.
    :param size: bytes of the source.
    :raises BackupFailed: somebody is connected to the source.
    :raises psycopg2.errors.DuplicateDatabase: the name is taken.
    """
    statement = SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false").format(
        Identifier(name), Identifier(source)
    )
    if connection.server_version >= FIRST_WITH_STRATEGY:
        statement += SQL(" STRATEGY {}").format(SQL("FILE_COPY" if size >= FILE_COPY_FROM_BYTES else "WAL_LOG"))
    try:
        _execute_interruptibly(connection, statement)
    except psycopg2.errors.ObjectInUse as err:
        with connection.cursor() as cursor:
            refuse_users(source, users_of(cursor, source))
        raise BackupFailed(
            f"The database {source} was in use while it should be copied, by somebody who has gone meanwhile. {UNCHANGED} "
            "Run again, or set rollback_backup_kind to dump."
        ) from err


def _execute_interruptibly(connection: psycopg2.extensions.connection, statement: t.Any) -> None:
    """The driver keeps Python from handling a signal for as long as a statement takes, so it runs in a thread."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="copy") as pool, connection.cursor() as cursor:
        running = pool.submit(cursor.execute, statement)
        try:
            while not running.done():
                concurrent.futures.wait([running], LOOK_SECONDS)
        except BaseException:
            with contextlib.suppress(psycopg2.Error):
                connection.cancel()
            raise
        running.result()
