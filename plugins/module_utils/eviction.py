# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the sessions of databases for as long as a transaction waits for these to be free of them."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from .connection import connect
from .server import blockers, describe_session

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalog import Cursor
    from .connection import ConnectionSettings

_POLL_SECONDS = 0.05

#: Autovacuum has no user: who renames a database ends it himself (CountOtherDBBackends in the server's source).
_SESSIONS = """
SELECT pid, usename::pg_catalog.text, application_name, coalesce(client_addr::pg_catalog.text, 'local'),
       coalesce(state, backend_type), pg_catalog.to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       pg_catalog.left(query, 200), datname::pg_catalog.text
  FROM pg_catalog.pg_stat_activity
 WHERE datid = ANY(%s::pg_catalog.oid[]) AND usename IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() ORDER BY pid
"""
_KEYS = ("pid", "user", "application", "client", "state", "since", "query", "database")

Session = dict[str, t.Any]


def sessions_of(cursor: Cursor, databases: Sequence[int]) -> list[Session]:
    """Sessions of these databases, background workers of users (logical replication, parallel queries) included."""
    cursor.execute(_SESSIONS, (list(databases),))
    return [dict(zip(_KEYS, row, strict=True)) for row in cursor.fetchall()]


class Eviction:
    """Ends whoever is connected to the databases, on a connection and in a thread of its own, until the block ends.

    It only reads and terminates. What keeps new sessions out is the lock that ``ALTER DATABASE … RENAME`` holds: whoever
    connects waits behind it (measured on 15 and 18), and goes on when its transaction ends, however that ends.

    :param settings: of a database that is not one of those.
    :param databases: their oids.
    :param waiting: process of the session that waits for the databases.
    """

    def __init__(self, settings: ConnectionSettings, databases: Sequence[int], waiting: int) -> None:
        self._settings = settings
        self._databases = databases
        self._waiting = waiting
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._told: dict[tuple[int, str], Session] = {}
        self._refused: dict[tuple[int, str], str] = {}
        #: Who was there at the last look, and who holds a lock on a database, such as a CREATE DATABASE that copies it.
        self.present: list[Session] = []
        self.blocking: list[Session] = []

    @property
    def ended(self) -> list[Session]:
        """Sessions that were told to end."""
        return list(self._told.values())

    def __enter__(self) -> Eviction:
        self._connection = connect(
            self._settings, application_name="cypher.rollback eviction", statement_timeout="5s", lock_timeout="5s"
        )
        self._connection.autocommit = True
        with contextlib.suppress(psycopg2.Error):
            self._look()
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        self._connection.close()

    def stop(self) -> None:
        """Look no more: what was seen last stays to be told."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def describe(self) -> str:
        """Who did not go, as sentences; empty where nobody was seen."""
        lines = [self._described(session) for session in self.present[:10]]
        lines += [f"{describe_session(session)} (holds a lock on it; {session['end']})" for session in self.blocking]
        more = len(self.present) - 10
        return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")

    def _described(self, session: Session) -> str:
        refused = self._refused.get(_key(session))
        reason = f" (not ended: {refused})" if refused else ""
        return f"in {session['database']}: {describe_session(session)}{reason}"

    def _run(self) -> None:
        # Without this connection the wait ends at its deadline, and the transaction is undone.
        with contextlib.suppress(psycopg2.Error):
            while not self._stop.wait(_POLL_SECONDS):
                self._look()

    def _look(self) -> None:
        with self._connection.cursor() as cursor:
            present = sessions_of(cursor, self._databases)
            for session in present:
                self._end(cursor, session)
            self.present = present
            seen = {session["pid"] for session in present}
            blocking = [item for item in blockers(cursor, self._waiting) if item["pid"] not in seen]
            # A wait that its time limit has just ended has no blockers any more, and those it had are what is to be told.
            if blocking or self._still_waits(cursor):
                self.blocking = blocking

    def _still_waits(self, cursor: Cursor) -> bool:
        cursor.execute("SELECT FROM pg_catalog.pg_locks WHERE pid = %s AND NOT granted", (self._waiting,))
        return bool(cursor.fetchall())

    def _end(self, cursor: Cursor, session: Session) -> None:
        try:
            cursor.execute("SELECT pg_catalog.pg_terminate_backend(%s)", (session["pid"],))
            if cursor.fetchall()[0][0]:
                self._told.setdefault(_key(session), session)
        except psycopg2.Error as err:
            if self._connection.closed:
                raise
            self._refused[_key(session)] = " ".join(str(err).split())


def _key(session: Session) -> tuple[int, str]:
    # Process numbers come again; with the time at which it began, a session is told from every other.
    return session["pid"], str(session["since"])
