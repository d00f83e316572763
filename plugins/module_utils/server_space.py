# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much room the server's file systems have, where that can be seen from here."""

from __future__ import annotations

import os
import struct
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from .catalog import Cursor
    from .connection import ConnectionSettings

#: What to tell the operator where :func:`free_bytes` gives nothing.
NOT_KNOWN = (
    "How much room the database server has cannot be seen from this host, so it was not checked. "
    "Set rollback_server_free_bytes to have it checked."
)

#: data_directory is shown to superusers and members of pg_read_all_settings only.
_SERVER = """
SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'),
       (SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()),
       extract(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.int8
"""

#: Empty for pg_default, which lies in the data directory.
_TABLESPACES = """
SELECT pg_catalog.pg_tablespace_location(t.oid) FROM pg_catalog.pg_tablespace t
 WHERE t.spcname <> 'pg_global'
   AND (SELECT oid FROM pg_catalog.pg_database WHERE datname = %s) IN (SELECT pg_catalog.pg_tablespace_databases(t.oid))
"""

#: The server notes the time of its start in postmaster.pid a moment before the one that it tells.
_START_SECONDS = 5


def free_bytes(cursor: Cursor, settings: ConnectionSettings, stated: int | None = None) -> int | None:
    """Room for another copy of a database on its server; None where it is neither seen nor stated.

    Seen where the server's data directory lies on this host: then the least of the file systems that hold it and the
    tablespaces of the database.

    :param cursor: connected to any database of the server.
    :param settings: ``dbname`` names the database that is to be copied or restored.
    :param stated: rollback_server_free_bytes. Where the room can be seen as well, the smaller of both counts.
    """
    cursor.execute(_SERVER)
    ((data_directory, system_identifier, started),) = cursor.fetchall()
    seen = None
    if data_directory and is_server_of(data_directory, system_identifier, started):
        cursor.execute(_TABLESPACES, (settings.dbname,))
        places = [location or data_directory for (location,) in cursor.fetchall()]
        seen = _least([data_directory, *places])
    known = [number for number in (seen, stated) if number is not None]
    return min(known, default=None)


def is_server_of(data_directory: str, system_identifier: str, started: int) -> bool:
    """Whether a folder of this host is the data directory of that very server, not of one like it.

    A server in a container or behind a forwarded port tells a path that may be another server's here, and a standby on
    the same host has the same system identifier: it started at another time.
    """
    try:
        with open(os.path.join(data_directory, "global", "pg_control"), "rb") as control:
            (found,) = struct.unpack("=Q", control.read(8))
        with open(os.path.join(data_directory, "postmaster.pid"), encoding="utf-8", errors="replace") as pid_file:
            noted = int(pid_file.read().splitlines()[2])
    except (OSError, ValueError, IndexError, struct.error):
        return False
    return str(found) == system_identifier and abs(noted - started) <= _START_SECONDS


def _least(places: Iterable[str]) -> int | None:
    free = []
    for place in set(places):
        try:
            facts = os.statvfs(place)
        except OSError:
            return None
        free.append(facts.f_bavail * facts.f_frsize)
    return min(free, default=None)
