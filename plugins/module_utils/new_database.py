# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database that a backup is restored into: marked from its first moment, and dropped unless it is kept.

Whoever fills it holds an advisory lock in the maintenance database, which the server gives back when that process dies.
A later run therefore knows which of these databases nobody is at work on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import time
import typing as t

from .connection import connect
from .errors import FailedUnchanged, RollbackError
from .restore_request import CannotRestore, maintenance_connection

if t.TYPE_CHECKING:
    import psycopg2.extensions

    from .database_properties import Properties
    from .restore_request import RestoreReadiness, RestoreRequest

with contextlib.suppress(ImportError):
    import psycopg2
    from psycopg2.sql import SQL, Composable, Identifier, Literal

#: Bytes of a name (NAMEDATALEN - 1).
LONGEST_NAME = 63
#: What the comment begins with, by state.
BEING_RESTORED = "cypher.rollback: restore of "
RESTORED = "cypher.rollback: complete restore of "
BEING_VERIFIED = "cypher.rollback: verification of "

#: How long the creation of a database by somebody who may be dead is waited for, and a lock that may be a dead one's.
DEAD_RUN_SECONDS = 10.0
HELD_SECONDS = 0.5
LOOK_SECONDS = 0.02

_MIDDLE = "_restore_"
_SUFFIX_DIGITS = 8

_LOCK = "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('cypher.rollback restore into ' || %s, 0))"
_UNLOCK = "SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended('cypher.rollback restore into ' || %s, 0))"
#: A limit on idle sessions would end the one that holds the lock.
_NO_LIMITS = (
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'"
)
_CREATING = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE application_name = 'cypher.rollback restore' AND state = 'active'
                  AND pid <> pg_catalog.pg_backend_pid() AND query LIKE 'CREATE DATABASE %')
"""
_DATABASES = """
SELECT datname::text, coalesce(pg_catalog.shobj_description(oid, 'pg_database'), ''), datallowconn
  FROM pg_catalog.pg_database WHERE datname LIKE %s ORDER BY 1
"""


class RestoreFailed(FailedUnchanged):
    """The backup could not be restored, or did not prove equal; the live database is as it was."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """What the comment of such a database says."""

    state: str
    backup: str
    run_id: str
    live: str

    def text(self) -> str:
        """The comment."""
        return f"{self.state}{self.backup}, run {self.run_id or '-'}, for {self.live}"


def new_name(live: str) -> str:
    """A name for a database beside the live one, at most 63 bytes of UTF-8."""
    return f"{_stem(live)}{_MIDDLE}{secrets.token_hex(_SUFFIX_DIGITS // 2)}"


def _stem(live: str) -> str:
    room = LONGEST_NAME - len(_MIDDLE) - _SUFFIX_DIGITS
    return live.encode()[:room].decode(errors="ignore")


def is_new_name(name: str, live: str) -> bool:
    """Whether :func:`new_name` may have made this name."""
    return bool(re.fullmatch(rf"{re.escape(_stem(live) + _MIDDLE)}[0-9a-f]{{{_SUFFIX_DIGITS}}}", name))


class NewDatabase(contextlib.AbstractContextManager["NewDatabase"]):
    """An empty database from template0, which is dropped when the block is left without :meth:`keep`.

    :param connection: to the maintenance database, outside transactions; this closes it.
    """

    def __init__(self, request: RestoreRequest, ready: RestoreReadiness) -> None:
        self.name = new_name(request.settings.dbname)
        state = BEING_VERIFIED if request.purpose == "verify" else BEING_RESTORED
        self._mark = Mark(state, ready.manifest.id, request.run_id, request.settings.dbname)
        self._request = request
        self._ready = ready
        self._kept = False
        self._connection = maintenance_connection(request)

    def __enter__(self) -> t.Self:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(_NO_LIMITS)
                cursor.execute(_LOCK, (self.name,))
                if cursor.fetchone() != (True,):
                    raise CannotRestore(f"Another run restores into {self.name}. Run again.")
                self._create(cursor)
        except BaseException as err:
            self.__exit__(type(err), err, None)
            raise
        return self

    def _create(self, cursor: psycopg2.extensions.cursor) -> None:
        statement = creation(self.name, self._ready.properties, self._connection.server_version)
        cursor.execute(statement)
        # Nobody can have connected before the mark is there: that is how an unmarked one is known to be empty.
        self.mark(cursor)
        cursor.execute(SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(Identifier(self.name)))

    def mark(self, cursor: psycopg2.extensions.cursor, state: str = "") -> None:
        """Write the comment that tells what this database is."""
        text = dataclasses.replace(self._mark, state=state or self._mark.state).text()
        cursor.execute(SQL("COMMENT ON DATABASE {} IS {}").format(Identifier(self.name), Literal(text)))

    @contextlib.contextmanager
    def cursor(self) -> t.Iterator[psycopg2.extensions.cursor]:
        """A cursor in the maintenance database, outside transactions."""
        with self._connection.cursor() as cursor:
            yield cursor

    def keep(self) -> int:
        """Mark the database as complete, so that it stays; its oid."""
        with self._connection.cursor() as cursor:
            # This commit is the first that waits for the disk, and with it for all that was written before.
            self.mark(cursor, RESTORED)
            cursor.execute("SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s", (self.name,))
            ((oid,),) = cursor.fetchall()
        self._kept = True
        return int(oid)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if not self._kept:
                self._drop(error)
        finally:
            self._connection.close()

    def _drop(self, error: BaseException | None) -> None:
        """:raises RestoreFailed: the database is still there; the message has the command that drops it."""
        try:
            if self._connection.closed:
                self._connection = maintenance_connection(self._request)
            drop(self._connection, self._request, self.name)
        except (psycopg2.Error, RollbackError) as err:
            happened = f"{error} " if error else ""
            details = error.details if isinstance(error, RollbackError) else {}
            raise RestoreFailed(
                f"{happened}The database {self.name}, into which the backup was to be restored, could not be dropped "
                f"({' '.join(str(err).split())}). The next restore drops it, or you: {drop_command(self.name)}",
                **{**details, "left_over": self.name},
            ) from err


def creation(name: str, wanted: Properties | None, server_version: int) -> Composable:
    """CREATE DATABASE with encoding, locale and tablespace; nobody can connect to it yet."""
    parts = [SQL("CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false").format(Identifier(name))]
    if wanted is not None:
        locale = (Literal(wanted.encoding), Literal(wanted.collate), Literal(wanted.ctype))
        parts.append(SQL("ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(*locale))
        # template0's own; who names it needs a privilege on it.
        if wanted.tablespace != "pg_default":
            parts.append(SQL("TABLESPACE {}").format(Identifier(wanted.tablespace)))
        if server_version >= 150000:
            parts.append(SQL("LOCALE_PROVIDER {}").format(Identifier(wanted.locale_provider)))
        keyword = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}.get(wanted.locale_provider)
        if keyword and wanted.locale:
            parts.append(SQL(f"{keyword} {{}}").format(Literal(wanted.locale)))
        if wanted.icu_rules:
            parts.append(SQL("ICU_RULES {}").format(Literal(wanted.icu_rules)))
    return SQL(" ").join(parts)


def drop_command(name: str) -> str:
    """What an operator types in psql."""
    quoted = name.replace('"', '""')
    return f'DROP DATABASE IF EXISTS "{quoted}" WITH (FORCE);'


def drop(connection: psycopg2.extensions.connection, request: RestoreRequest, name: str) -> None:
    """Drop a database of ours with whoever is connected to it. One that is not there is no error.

    :raises psycopg2.Error: it could not be dropped.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT datistemplate FROM pg_catalog.pg_database WHERE datname = %s", (name,))
        row = cursor.fetchone()
        if row is None:
            return
        if row[0]:
            cursor.execute(SQL("ALTER DATABASE {} WITH IS_TEMPLATE false").format(Identifier(name)))
        statement = SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name))
        try:
            cursor.execute(statement)
        except psycopg2.errors.ObjectInUse:
            _drop_subscriptions(request, name)
            cursor.execute(statement)


def _drop_subscriptions(request: RestoreRequest, name: str) -> None:
    """A database with a subscription cannot be dropped. The restored one never used its slot, which belongs to the live one."""
    connection = connect(request.settings, application_name="cypher.rollback restore", dbname=name)
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(
            "SELECT subname::text FROM pg_catalog.pg_subscription "
            "WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
        )
        for (subscription,) in cursor.fetchall():
            for action in (
                "ALTER SUBSCRIPTION {} DISABLE",
                "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
                "DROP SUBSCRIPTION {}",
            ):
                cursor.execute(SQL(action).format(Identifier(subscription)))


# --- what dead runs left ----------------------------------------------------------------------------------------------


def drop_leftovers(request: RestoreRequest) -> list[str]:
    """Drop the databases that runs for this live database left, and give their names.

    Only what has a name of our making, our mark, and nobody who holds its lock. A complete one, which waits for its run to
    exchange it, is dropped by the next restore, of which there is one at a time, and never by a verification.
    """
    live = request.settings.dbname
    dropped = []
    with contextlib.closing(maintenance_connection(request)) as connection, connection.cursor() as cursor:
        deadline = time.monotonic() + DEAD_RUN_SECONDS
        while _is_creating(cursor) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        cursor.execute(_DATABASES, (f"%{_MIDDLE}%",))
        for name, comment, connectable in cursor.fetchall():
            if not is_new_name(name, live) or not _may_go(request, comment, connectable):
                continue
            if not _lock_soon(cursor, name):
                continue
            with contextlib.suppress(psycopg2.Error):
                drop(connection, request, name)
                dropped.append(name)
            cursor.execute(_UNLOCK, (name,))
    return dropped


def _is_creating(cursor: psycopg2.extensions.cursor) -> bool:
    """Whether the server is making such a database, which it does to the end for a client that was killed, too."""
    cursor.execute(_CREATING)
    return bool(cursor.fetchall()[0][0])


def _lock_soon(cursor: psycopg2.extensions.cursor, name: str) -> bool:
    """Take the lock of a database, which the session of a run that was just killed may hold for a moment."""
    deadline = time.monotonic() + HELD_SECONDS
    while True:
        cursor.execute(_LOCK, (name,))
        if cursor.fetchone() == (True,):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)


def _may_go(request: RestoreRequest, comment: str, connectable: bool) -> bool:
    if not comment:
        return not connectable
    if not comment.endswith(f", for {request.settings.dbname}"):
        return False
    if comment.startswith(RESTORED):
        return request.purpose == "restore" and f", run {request.run_id or '-'}, " not in comment
    return comment.startswith((BEING_RESTORED, BEING_VERIFIED))
