# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a backup is proven: by its manifest, its checksums, a full read, or a restore.

No program touches an archive before every byte of it is known to be what was written: a crafted archive runs code as the
user of pg_restore (CVE-2026-116314), when it is only listed, too.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from . import clone, dump
from . import manifest as manifests
from .client_programs import Wanted, find_programs, run_program
from .errors import FailedUnchanged, Refused
from .pg_tools import Interrupted, ToolFailed, interruptible
from .restore import RestoreRequest, verify_by_restore

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .connection import ConnectionSettings
    from .exec_place import ExecPlace

MANIFEST, CHECKSUM, READ, RESTORE = "manifest", "checksum", "read", "restore"
#: Each includes those before it.
LEVELS = (MANIFEST, CHECKSUM, READ, RESTORE)

DUMP, CLONE = "dump", clone.PROVIDER
PROVIDERS = (DUMP, CLONE)
#: Without it, a folder is no archive of pg_dump.
CONTENTS_FILE = f"{dump.ARCHIVE}/toc.dat"

SHOWN_PROBLEMS = 3


@dataclasses.dataclass(frozen=True)
class Means:
    """What the verification has beside the backup itself.

    :param settings: the server, for clones and for the level ``restore``; ``None``: none is known.
    :param place: where the client programs are; ``None``: on this host.
    :param jobs: workers of pg_restore; 0: as many as the host has processors, 4 at the most.
    """

    settings: ConnectionSettings | None = None
    bin_dir: str = ""
    place: ExecPlace | None = None
    jobs: int = 0
    maintenance_db: str = "postgres"
    require_patched: bool = False
    missing_roles: str = "refuse"
    server_free_bytes: int | None = None
    run_id: str = ""


@dataclasses.dataclass(frozen=True)
class Proof:
    """What came out.

    :param valid: ``None``: up to ``level`` it is whole, and what was asked beyond that could not be done.
    """

    valid: bool | None
    level: str
    reason: str = ""


def prove(folder: str, manifest: manifests.Manifest, level: str, means: Means, key: str = "") -> Proof:
    """Verify a backup, whose manifest and signature were checked, up to a level. Whoever calls holds the readers' lock.

    :param key: with it, a restore checks the signature once more.
    """
    if level == MANIFEST:
        return Proof(None, MANIFEST)
    problems = [*_not_private(folder), *manifests.verify(folder, manifest), *_incomplete(manifest)]
    if problems:
        return Proof(False, MANIFEST, told(problems))
    if manifest.provider == DUMP and level == CHECKSUM:
        return Proof(True, CHECKSUM)
    if manifest.provider == CLONE and level != RESTORE:
        return _look_at_clone(manifest, level, means)
    # A clone that was open to connections is only told by its content, so that a restore does not ask whether it was.
    proof = Proof(True, CHECKSUM) if manifest.provider == CLONE else _read_archive(folder, manifest, means)
    return _restore(folder, manifest, means, key, proof.level) if proof.valid and level == RESTORE else proof


def told(problems: list[str]) -> str:
    """The first problems, and how many more there are."""
    more = len(problems) - SHOWN_PROBLEMS
    return " ".join(problems[:SHOWN_PROBLEMS]) + (f" And {more} more." if more > 0 else "")


def distrust(path: str, *, folder: bool) -> str:
    """Why a folder or file is not ours alone; empty where it is."""
    try:
        facts = os.lstat(path)
    except OSError as err:
        return f"It cannot be looked at: {err.strerror}."
    wrong_type = (
        "It is not a folder, so it is no backup of this collection." if folder else "It is not an ordinary file."
    )
    foreign = f"It belongs to the user with id {facts.st_uid}, neither to root nor to the user with id {os.geteuid()} that this runs as."
    reasons = (
        (stat.S_ISLNK(facts.st_mode), "It is a symbolic link, and links are never followed."),
        (not (stat.S_ISDIR if folder else stat.S_ISREG)(facts.st_mode), wrong_type),
        (facts.st_uid not in (0, os.geteuid()), foreign),
        (bool(facts.st_mode & stat.S_IWOTH), "It can be written by every user of the host."),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _not_private(folder: str) -> Iterator[str]:
    """Files and folders of a backup that somebody else can exchange or that lead elsewhere."""
    for parent, folders, files in os.walk(folder):
        for names, are_folders in ((folders, True), (files, False)):
            for name in names:
                problem = distrust(os.path.join(parent, name), folder=are_folders)
                if problem:
                    yield f"{os.path.relpath(os.path.join(parent, name), folder)}: {problem}"


def _incomplete(manifest: manifests.Manifest) -> list[str]:
    if manifest.provider == DUMP and all(entry.path != CONTENTS_FILE for entry in manifest.files):
        return [f"Its manifest does not name {CONTENTS_FILE}, without which there is no archive."]
    return []


def _look_at_clone(manifest: manifests.Manifest, level: str, means: Means) -> Proof:
    """Whether the copy is still there, and closed since it was made; so much is cheap, and belongs to each level."""
    settings = _settings(means, manifest)
    if settings is None:
        return Proof(
            None, CHECKSUM, "It is a clone, and no server was named to see whether its database is still there."
        )
    try:
        problems = clone.problems(settings, manifest, means.maintenance_db)
    except Refused as err:
        return Proof(None, CHECKSUM, f"It is a clone, and its server could not be asked for its database: {err}")
    if problems:
        return Proof(False, CHECKSUM, told(problems))
    return Proof(True, CHECKSUM if level == CHECKSUM else READ)


def _settings(means: Means, manifest: manifests.Manifest) -> ConnectionSettings | None:
    return dataclasses.replace(means.settings, dbname=manifest.database) if means.settings else None


def _read_archive(folder: str, manifest: manifests.Manifest, means: Means) -> Proof:
    major = manifest.server_version.partition(".")[0]
    if not major.isdecimal():
        return Proof(False, CHECKSUM, f"Its manifest names no version of PostgreSQL: {manifest.server_version[:40]!r}.")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    try:
        with interruptible("The verification"):
            tools = find_programs(Wanted(int(major), means.bin_dir, means.place, means.require_patched))
            run_program(
                tools,
                [tools.pg_restore, "--file=/dev/null", os.path.join(folder, dump.ARCHIVE)],
                {**environment, "LC_ALL": "C.UTF-8"},
            )
    except ToolFailed as err:
        return Proof(False, CHECKSUM, f"pg_restore cannot read it: {err}")
    except Refused as err:
        return Proof(None, CHECKSUM, f"Its checksums are right, and it could not be read: {err}")
    return Proof(True, READ)


def _restore(folder: str, manifest: manifests.Manifest, means: Means, key: str, passed: str) -> Proof:
    """Into a scratch database, compared with the manifest, and dropped again."""
    settings = _settings(means, manifest)
    if settings is None:
        return Proof(None, passed, "It is whole so far, and no server was named to restore it on.")
    request = RestoreRequest(
        settings=settings,
        path=folder,
        key=key,
        bin_dir=means.bin_dir,
        place=means.place,
        jobs=means.jobs,
        require_patched=means.require_patched,
        maintenance_db=means.maintenance_db,
        missing_roles=means.missing_roles,
        server_free_bytes=means.server_free_bytes,
        run_id=means.run_id,
    )
    try:
        problems = verify_by_restore(request)
    except Interrupted:
        raise
    except (Refused, FailedUnchanged) as err:
        return Proof(None, passed, f"It is whole so far, and could not be restored to be compared: {err}")
    return Proof(False, passed, told(problems)) if problems else Proof(True, RESTORE)
