# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a migration is applied already when a backup for it is taken: such a backup cannot undo it."""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import ledger as ledgers
from . import sql
from .catalog import snapshot
from .errors import Refused
from .migrations import NoSuchMigration, find_migrations, resolve_version
from .names import Names
from .plan import Scripts
from .readiness import open_connection

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalog import Cursor
    from .ledger import VersionState
    from .migrations import Migration
    from .readiness import BackupRequest


class Judged(t.NamedTuple):
    """What is known of the version.

    :param version: as the migration's file has it, ``0007`` for 7; as it was given where there is no such file.
    :param applied: ``None``: not known.
    """

    version: str
    applied: bool | None = None
    warnings: tuple[str, ...] = ()


def judge_version(request: BackupRequest) -> Judged:
    """Look for the version among the migrations and in the database; a backup is taken whatever comes out.

    :raises CannotConnect: the server lets nobody in.
    """
    if not request.migrations_dir or not os.path.isdir(request.migrations_dir):
        return Judged(request.version)
    try:
        migrations = find_migrations(request.migrations_dir)
        migration = resolve_version(request.version, migrations)
    except NoSuchMigration:
        return Judged(request.version)
    except Refused as err:
        return Judged(request.version, None, (f"{_UNKNOWN.format(request.version)}: {err}",))
    try:
        state = _state(request, migration, migrations)
    except Refused as err:
        return Judged(migration.version, None, (f"{_UNKNOWN.format(migration.version)}: {err}",))
    return _judged(request, migration, state)


_UNKNOWN = "Whether {} was applied already when the backup was taken is not known"


def _judged(request: BackupRequest, migration: Migration, state: VersionState | None) -> Judged:
    if state is None or state.state == ledgers.UNKNOWN:
        return Judged(migration.version)
    if state.state == ledgers.PARTLY:
        told = f"{_UNKNOWN.format(migration.version)}: {state.evidence()}."
        return Judged(migration.version, None, (told,))
    applied = state.state == ledgers.APPLIED
    if not applied or request.kind != "before_migration":
        return Judged(migration.version, applied)
    told = (
        f"Migration {migration.version} is applied already ({state.evidence()}), so this backup cannot undo it, and no "
        "emergency takes it by itself. Take a backup before the migration runs."
    )
    return Judged(migration.version, True, (told,))


def _state(request: BackupRequest, migration: Migration, migrations: Sequence[Migration]) -> VersionState | None:
    """What the ledger says, or the objects that the DOWN names; ``None`` where the DOWN cannot be read here."""
    with contextlib.closing(open_connection(request)) as connection, connection.cursor() as cursor:
        if request.ledger_table:
            path = ", ".join(f'"{schema.replace(chr(34), chr(34) * 2)}"' for schema in request.search_path)
            cursor.execute("SELECT pg_catalog.set_config('search_path', %s, false)", (path,))
            ledger = ledgers.TableLedger(
                t.cast("Cursor", cursor), request.ledger_table, request.ledger_column, migrations
            )
            return ledger.state(migration, None)
        if not sql.HAS_PGLAST:
            return None
        catalog_cursor = t.cast("Cursor", cursor)
        names = Names(snapshot(catalog_cursor), catalog_cursor, request.search_path)
        return ledgers.InferredLedger(names).state(migration, Scripts(accept_commented=True).readable(migration))
