# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true of the server before anything is stopped."""

from __future__ import annotations

import dataclasses
import typing as t

from .errors import Refused

if t.TYPE_CHECKING:
    import psycopg2.extensions

    from .connection import ConnectionSettings
    from .ledger import Cursor

OLDEST_MAJOR = 13


@dataclasses.dataclass(frozen=True)
class Target:
    """The database that a run is about."""

    host: str
    port: int
    database: str
    server_version: str
    server_major: int
    system_identifier: str

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return dataclasses.asdict(self)


def inspect_target(connection: psycopg2.extensions.connection, settings: ConnectionSettings, expected_identifier: str = "") -> Target:
    """Refuse a server on which a rollback cannot be safe, and say which one it is.

    :param expected_identifier: system identifier that the cluster must have; empty, any.
    :raises Refused: for a pooler, a standby, a read-only or too old server, another cluster than the one meant.
    """
    with connection.cursor() as cursor:
        _refuse_pooler(connection, cursor)
        cursor.execute(
            "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int / 10000, "
            "pg_catalog.current_database(), (SELECT system_identifier::text FROM pg_catalog.pg_control_system()), "
            "pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')"
        )
        version, major, database, identifier, standby, read_only = cursor.fetchall()[0]
    where = settings.describe()
    if standby:
        raise Refused(f"The {where} is a standby: it cannot be changed. Set rollback_db_host to the primary.")
    if read_only == "on":
        raise Refused(
            f"The {where} is read-only (default_transaction_read_only is on). Turn it off for this server, database or role, or set rollback_db_host to the primary."
        )
    if major < OLDEST_MAJOR:
        raise Refused(f"The {where} runs PostgreSQL {version}; {OLDEST_MAJOR} is the oldest that is supported.")
    if expected_identifier and expected_identifier != identifier:
        raise Refused(
            f"The {where} belongs to the cluster {identifier}, and rollback_db_system_identifier is {expected_identifier}. "
            "Correct rollback_db_host and rollback_db_port, or that setting."
        )
    return Target(settings.host, settings.port, database, version, major, identifier)


def _refuse_pooler(connection: psycopg2.extensions.connection, cursor: Cursor) -> None:
    # A pooler makes up the process number that it tells its client, because it owns the server's connections.
    cursor.execute("SELECT pg_catalog.pg_backend_pid()")
    row = cursor.fetchone()
    if row is not None and row[0] != connection.get_backend_pid():
        raise Refused(
            "A connection pooler such as pgbouncer answers there. In transaction mode it loses the limits and locks that a rollback needs. "
            "Set rollback_db_host and rollback_db_port to the PostgreSQL server itself."
        )


def sessions(cursor: Cursor, run_application: str = "cypher.rollback") -> list[dict[str, t.Any]]:
    """Other sessions of this database, for the preview and for messages."""
    cursor.execute(
        "SELECT pid, usename::text, application_name, coalesce(client_addr::text, 'local'), state, "
        "pg_catalog.to_char(coalesce(xact_start, state_change) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), pg_catalog.left(query, 200) "
        "FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() "
        "AND backend_type = 'client backend' AND application_name NOT LIKE %s ORDER BY xact_start NULLS LAST, pid",
        (run_application + "%",),
    )
    return [session_of(row) for row in cursor.fetchall()]


def blockers(cursor: Cursor, pid: int) -> list[dict[str, t.Any]]:
    """Sessions that keep one from a lock it waits for."""
    cursor.execute(
        "SELECT pid, usename::text, application_name, coalesce(client_addr::text, 'local'), state, "
        "pg_catalog.to_char(coalesce(xact_start, state_change) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), pg_catalog.left(query, 200) "
        "FROM pg_catalog.pg_stat_activity WHERE pid = ANY(pg_catalog.pg_blocking_pids(%s)) ORDER BY pid",
        (pid,),
    )
    return [session_of(row) for row in cursor.fetchall()]


def session_of(row: tuple[t.Any, ...]) -> dict[str, t.Any]:
    """A row of pg_stat_activity under the names of the report."""
    return dict(zip(("pid", "user", "application", "client", "state", "since", "query"), row, strict=True))


def describe_session(session: dict[str, t.Any]) -> str:
    """One session in a message."""
    return (
        f"pid {session['pid']}, user {session['user']}, application {session['application'] or '-'}, {session['state']} "
        f"since {session['since']}, query: {' '.join(str(session['query']).split())}"
    )
