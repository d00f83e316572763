# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore is asked for, what is known before it begins, and its connection beside the databases that change."""

from __future__ import annotations

import dataclasses
import typing as t

from .connection import CannotConnect, ConnectionSettings, connect
from .errors import Refused

if t.TYPE_CHECKING:
    import psycopg2.extensions

    from .database_properties import Properties
    from .exec_place import ExecPlace
    from .manifest import Manifest
    from .pg_tools import PgTools
    from .server import Target

ANOTHER = "Choose another backup with the extra variable backup."


class CannotRestore(Refused):
    """Something that a restore needs is missing; nothing was stopped or changed."""


@dataclasses.dataclass(frozen=True)
class RestoreRequest:
    """What to restore, and where.

    :param settings: ``dbname`` is the name of the live database, which need not exist any more.
    :param path: folder of the backup.
    :param key: what signs manifests; empty: signatures are not asked for.
    :param place: where the client programs are; ``None``: on this host.
    :param jobs: workers of pg_restore; 0: as many as this host has processors, 4 at the most, 1 for a small database.
    :param maintenance_db: database to be connected to while others are created and dropped.
    :param missing_roles: ``refuse`` or ``create``.
    :param server_free_bytes: room on the server, where it cannot be seen from here.
    :param purpose: ``restore``, or ``verify`` for a scratch database that is compared and dropped.
    """

    settings: ConnectionSettings
    path: str
    key: str = dataclasses.field(default="", repr=False)
    bin_dir: str = ""
    place: ExecPlace | None = None
    jobs: int = 0
    require_patched: bool = False
    maintenance_db: str = "postgres"
    missing_roles: str = "refuse"
    server_free_bytes: int | None = None
    run_id: str = ""
    purpose: str = "restore"


@dataclasses.dataclass(frozen=True)
class RestoreReadiness:
    """Everything that can be known before anything is stopped.

    :param tools: client programs of the server's major version; ``None`` for a backup that needs none.
    :param properties: what the restored database gets: the manifest's, of an old backup the live database's, if any.
    :param estimated_bytes: room that the restored database and the log of writing it may need on the server.
    :param free_bytes: room on the server, ``None`` where it is not known.
    :param missing_roles: roles that are going to be created.
    :param extension_versions: those to be installed in a version that is not the server's default.
    """

    tools: PgTools | None
    jobs: int
    manifest: Manifest
    target: Target
    estimated_bytes: int
    free_bytes: int | None
    properties: Properties | None = None
    missing_roles: tuple[str, ...] = ()
    extension_versions: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_superuser: bool = True
    warnings: tuple[str, ...] = ()


def maintenance_connection(request: RestoreRequest) -> psycopg2.extensions.connection:
    """A connection to the maintenance database, outside transactions, without limits.

    :raises CannotConnect: naming ``rollback_maintenance_db``.
    """
    if request.maintenance_db == request.settings.dbname:
        raise CannotRestore(
            f"rollback_maintenance_db is {request.maintenance_db}, the database that is to be replaced. "
            "Set it to another database of the server, such as postgres or template1."
        )
    try:
        connection = connect(
            request.settings,
            application_name="cypher.rollback restore",
            lock_timeout="0",
            statement_timeout="0",
            search_path=("pg_catalog",),
            dbname=request.maintenance_db,
        )
    except CannotConnect as err:
        raise CannotConnect(
            f"{err} To restore, a connection to the database {request.maintenance_db} (rollback_maintenance_db) is needed."
        ) from err
    connection.autocommit = True
    return connection
