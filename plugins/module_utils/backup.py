# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verified backup of one database: written beside its proof, read back, published by one rename."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import time
import typing as t

from . import clone, clone_backup, dump, readiness
from .applied import judge_version
from .baseline import measure
from .pg_tools import ToolFailed, interruptible
from .publication import UNCHANGED, BackupFailed, PartialFolder, make_folder, phase, remove_leftovers
from .readiness import BackupRefused, megabytes

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .manifest import Manifest
    from .readiness import BackupRequest, Readiness

with contextlib.suppress(ImportError):
    import psycopg2


@dataclasses.dataclass(frozen=True)
class Backup:
    """A published backup.

    :param applied: whether ``version`` was applied already; ``None``: not known.
    :param baseline: seconds of the critical queries, as in the manifest.
    :param confirmed_at: when an early backup was proven to hold the database as it was then; empty for any other.
    :param stale: why an early backup was of no use, so that this one was taken.
    """

    id: str
    path: str
    kind: str
    bytes: int
    verified: bool
    tables: dict[str, int]
    seconds: float
    started_at: str
    finished_at: str
    phases: dict[str, float]
    warnings: tuple[str, ...]
    version: str = ""
    provider: str = "dump"
    compression: str = "none"
    applied: bool | None = None
    baseline: tuple[Mapping[str, t.Any], ...] = ()
    confirmed_at: str = ""
    stale: tuple[str, ...] = ()

    def describe(self) -> str:
        """One sentence for the operator."""
        size = megabytes(self.bytes)
        if self.confirmed_at:
            return (
                f"Backup {self.id}, taken before the stop, holds the database exactly as it is now: {len(self.tables)} "
                f"tables, {size}, compared in {self.seconds:.1f} s."
            )
        return f"Backup {self.id} taken and verified: {len(self.tables)} tables, {size} in {self.seconds:.1f} s."


def _nothing_outside(_request: BackupRequest, _manifest: Manifest) -> None:
    """Everything that a dump makes lies in the folder."""


class Provider(t.NamedTuple):
    """A way to make backups.

    :param check_ready: refuses what cannot work, before anything is stopped or written.
    :param fill: makes the backup in the folder, proves it, notes its phases in the last argument, and gives the manifest,
        which is then written and published. The fourth argument is the manifest's ``created_at``.
    :param discard: removes what ``fill`` made outside the folder, where the backup could not be published.
    """

    check_ready: Callable[[BackupRequest], Readiness]
    fill: Callable[[BackupRequest, Readiness, PartialFolder, str, dict[str, float]], Manifest]
    discard: Callable[[BackupRequest, Manifest], None] = _nothing_outside


PROVIDERS: Mapping[str, Provider] = {
    "dump": Provider(readiness.check_ready, dump.fill),
    "clone": Provider(clone_backup.check_ready, clone_backup.fill, clone_backup.discard),
}


def check_ready(request: BackupRequest) -> Readiness:
    """Refuse a backup that cannot work, before anything is stopped; nothing is written.

    :raises Refused: with what is missing and the setting or command that resolves it.
    """
    return _provider(request).check_ready(request)


def _provider(request: BackupRequest) -> Provider:
    if request.provider not in PROVIDERS:
        raise BackupRefused(f"rollback_backup_kind is {request.provider!r}; choose one of {', '.join(PROVIDERS)}.")
    return PROVIDERS[request.provider]


def take_backup(request: BackupRequest) -> Backup:
    """Take a backup, prove it, publish it.

    :raises Refused: what :func:`check_ready` refuses.
    :raises FailedUnchanged: the backup failed or did not prove whole; nothing of it is left.
    """
    started = time.monotonic()
    now = dt.datetime.now(dt.UTC)
    with interruptible("The backup"), failures():
        provider = _provider(request)
        ready = provider.check_ready(request)
        judged = judge_version(request)
        request = dataclasses.replace(request, version=judged.version)
        baseline = measure(request)
        make_folder(request.backup_dir)
        left = clone.drop_leftovers(request.settings, request.maintenance_db, request.backup_dir)
        remove_leftovers(request.backup_dir)
        name = f"backup_{request.kind}_{request.version}_{now:%Y%m%d_%H%M%S}"
        with PartialFolder(request.backup_dir, name) as partial:
            seconds = {"check": round(time.monotonic() - started, 3)}
            manifest = provider.fill(request, ready, partial, iso(now), seconds)
            manifest = dataclasses.replace(
                manifest,
                applied=judged.applied,
                baseline=baseline,
                warnings=(*judged.warnings, *manifest.warnings, *left),
                seconds={**manifest.seconds, "total": round(time.monotonic() - started, 3)},
            )
            try:
                with phase(seconds, "publish"):
                    manifest = partial.publish(manifest, request.key)
            except BaseException:
                provider.discard(request, manifest)
                raise
        # The pg_dump of a run that was killed goes on for a while and holds its folder; by now it is over, too.
        remove_leftovers(request.backup_dir)
    return _published(request, manifest, now, started, seconds)


def _published(
    request: BackupRequest, manifest: Manifest, now: dt.datetime, started: float, seconds: dict[str, float]
) -> Backup:
    return Backup(
        id=manifest.id,
        path=os.path.join(request.backup_dir, manifest.id),
        kind=manifest.kind,
        bytes=manifest.bytes,
        verified=True,
        tables=manifest.rows,
        seconds=round(time.monotonic() - started, 3),
        started_at=iso(now),
        finished_at=iso(dt.datetime.now(dt.UTC)),
        phases=seconds,
        warnings=manifest.warnings,
        version=manifest.version,
        provider=manifest.provider,
        compression=manifest.compression,
        applied=manifest.applied,
        baseline=manifest.baseline,
    )


def iso(moment: dt.datetime) -> str:
    """UTC time with milliseconds, as in journal and report."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Errors of the system and of the driver, as what they mean for the run."""
    try:
        yield
    except ToolFailed as err:
        raise BackupFailed(f"The backup failed: {err} {UNCHANGED}", **err.details) from err
    except psycopg2.Error as err:
        raise BackupFailed(f"The backup failed: {' '.join(str(err).split())} {UNCHANGED}") from err
    except OSError as err:
        where = f" ({err.filename})" if err.filename else ""
        raise BackupFailed(f"The backup failed: {err.strerror or err}{where}. {UNCHANGED}") from err
