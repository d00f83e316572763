# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a backup can be restored on its server, found before anything is stopped or written."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from . import manifest as manifests
from .connection import server_errors
from .publication import share_lock
from .restorable_server import check_server
from .restore_request import ANOTHER, CannotRestore, maintenance_connection

if t.TYPE_CHECKING:
    from .manifest import Manifest
    from .restore_request import RestoreReadiness, RestoreRequest

PURPOSES = ("restore", "verify")
MISSING_ROLES = ("refuse", "create")


def check_restorable(request: RestoreRequest) -> RestoreReadiness:
    """Refuse a restore that cannot work. Only reads, and starts nothing that would open the archive.

    :raises Refused: with what is missing and the setting or command that resolves it.
    """
    _check_request(request)
    with share_lock(request.path):
        return check_locked(request)


def check_locked(request: RestoreRequest) -> RestoreReadiness:
    """The same by somebody who keeps the backup from being removed."""
    _check_request(request)
    manifest = whole_manifest(request)
    with contextlib.closing(maintenance_connection(request)) as connection, connection.cursor() as cursor:
        with server_errors(CannotRestore, "checking whether the backup can be restored"):
            return check_server(request, manifest, connection, cursor)


def whole_manifest(request: RestoreRequest) -> Manifest:
    """The manifest of a backup whose files are as they were written, and of the database that is asked for.

    :raises Refused: saying what is wrong with it.
    """
    _check_folder(request.path)
    manifest = manifests.load(request.path, request.key)
    problems = manifests.verify(request.path, manifest)
    if problems:
        raise CannotRestore(
            f"The backup {manifest.id} is not as it was written: {' '.join(problems[:5])} {ANOTHER}", problems=problems
        )
    if manifest.database != request.settings.dbname:
        raise CannotRestore(
            f"The backup {manifest.id} is of the database {manifest.database}, not of {request.settings.dbname}. "
            f"Correct rollback_db_name. Or: {ANOTHER}"
        )
    return manifest


def _check_request(request: RestoreRequest) -> None:
    if request.purpose not in PURPOSES:
        raise CannotRestore(f"There is no purpose {request.purpose!r}; choose one of {', '.join(PURPOSES)}.")
    if request.missing_roles not in MISSING_ROLES:
        raise CannotRestore(f"rollback_missing_roles is {request.missing_roles!r}; give {' or '.join(MISSING_ROLES)}.")
    if request.jobs < 0:
        raise CannotRestore(f"rollback_restore_jobs is {request.jobs}; give 0 for automatic, or a number of workers.")


def _check_folder(path: str) -> None:
    """The folder is one, is no link, and nobody else's to exchange."""
    try:
        facts = os.lstat(path)
    except OSError as err:
        raise CannotRestore(f"The backup {path} cannot be read: {err.strerror}. {ANOTHER}") from err
    if stat.S_ISLNK(facts.st_mode) or not stat.S_ISDIR(facts.st_mode):
        raise CannotRestore(f"The backup {path} is not a folder of its own but a link or a file. {ANOTHER}")
    if facts.st_uid not in (0, os.geteuid()):
        raise CannotRestore(
            f"The backup {path} belongs to the user with id {facts.st_uid}, neither to root nor to the user with id "
            f"{os.geteuid()} that this runs as. {ANOTHER}"
        )
    if facts.st_mode & stat.S_IWOTH:
        raise CannotRestore(f"The backup {path} can be written by every user of the host. {ANOTHER}")
