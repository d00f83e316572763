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

    from .catalog import Catalog, Cursor
    from .connection import ConnectionSettings

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


def inspect_target(
    connection: psycopg2.extensions.connection, settings: ConnectionSettings, expected_identifier: str = ""
) -> Target:
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
            f"The {where} is read-only (default_transaction_read_only is on). Turn it off for this server, database or role, "
            "or set rollback_db_host to the primary."
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


_SESSION = (
    "pid, usename::pg_catalog.text, application_name, coalesce(client_addr::pg_catalog.text, 'local'), state, "
    "pg_catalog.to_char(coalesce(xact_start, state_change) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), pg_catalog.left(query, 200)"
)
_SESSION_KEYS = ("pid", "user", "application", "client", "state", "since", "query")


def sessions(cursor: Cursor, run_application: str = "cypher.rollback") -> list[dict[str, t.Any]]:
    """Other sessions of this database, for the preview and for messages."""
    cursor.execute(
        f"SELECT {_SESSION} "
        "FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() "
        "AND backend_type = 'client backend' AND application_name NOT LIKE %s ORDER BY xact_start NULLS LAST, pid",
        (run_application + "%",),
    )
    return [dict(zip(_SESSION_KEYS, row, strict=True)) for row in cursor.fetchall()]


def blockers(cursor: Cursor, pid: int) -> list[dict[str, t.Any]]:
    """Sessions and prepared transactions that keep one session from a lock it waits for; ``end`` is how to end each."""
    cursor.execute("SELECT pg_catalog.pg_blocking_pids(%s)", (pid,))
    pids = list(cursor.fetchall()[0][0])
    if not pids:
        return []
    cursor.execute(f"SELECT {_SESSION} FROM pg_catalog.pg_stat_activity WHERE pid = ANY(%s) ORDER BY pid", (pids,))
    found = [dict(zip(_SESSION_KEYS, row, strict=True)) for row in cursor.fetchall()]
    for session in found:
        session["end"] = f"SELECT pg_terminate_backend({session['pid']})"
    # PostgreSQL gives a prepared transaction, which no session holds, as process 0.
    return found + (_prepared(cursor) if 0 in pids else [])


def _prepared(cursor: Cursor) -> list[dict[str, t.Any]]:
    cursor.execute(
        "SELECT gid, owner::pg_catalog.text, pg_catalog.to_char(prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
        "pg_catalog.quote_literal(gid) FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY prepared"
    )
    return [
        {"pid": 0, "user": owner, "application": "", "client": "local", "state": "prepared transaction", "since": since,
         "query": f"PREPARE TRANSACTION {quoted}", "end": f"ROLLBACK PREPARED {quoted}"}
        for _gid, owner, since, quoted in cursor.fetchall()
    ]  # fmt: skip


def describe_session(session: dict[str, t.Any]) -> str:
    """One session in a message."""
    query = " ".join(str(session["query"]).split())
    return (
        f"pid {session['pid']}, user {session['user'] or '-'}, application {session['application'] or '-'}, client {session['client']}, "
        f"{session['state'] or 'state not shown to this role'} since {session['since'] or '(not shown)'}, query: {query}"
    )


#: They let nobody read, or nobody write, while they last.
_STRONG_LOCKS = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")


def strong_locks(cursor: Cursor, before: Catalog) -> tuple[dict[str, str], ...]:
    """Locks of the transaction that keep others out of tables and views which were there before."""
    cursor.execute(
        "SELECT l.relation::pg_catalog.int8, l.mode FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() "
        "AND l.locktype = 'relation' AND l.granted AND l.mode = ANY(%s)",
        (list(_STRONG_LOCKS),),
    )
    strongest: dict[str, str] = {}
    for oid, mode in cursor.fetchall():
        item = before.get(("pg_class", oid))
        if item is None or item.kind is None or item.kind not in "rpvmf":
            continue
        known = strongest.get(item.identity, mode)
        strongest[item.identity] = max(known, mode, key=_STRONG_LOCKS.index)
    return tuple({"relation": relation, "mode": mode} for relation, mode in sorted(strongest.items()))
