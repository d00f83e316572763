# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The early backup: taken while the application runs, and proven, once it has stopped, to hold what the database holds."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import os
import threading
import time
import typing as t

from . import content as contents
from . import manifest as manifests
from .backup import Backup, failures, iso, take_backup
from .errors import FailedUnchanged, Refused
from .pg_tools import interruptible
from .publication import remove_published
from .readiness import BackupRefused, check_request, open_connection
from .snapshot import NO_LIMITS, Snapshot, naming_blockers

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import psycopg2.extensions

    from .readiness import BackupRequest

    Job = Callable[[psycopg2.extensions.cursor], list[str]]

with contextlib.suppress(ImportError):
    import psycopg2

#: Connections that compare. The server itself takes more processes for a large table.
WORKERS = 2

_CLUSTER = "SELECT (SELECT system_identifier::text FROM pg_control_system())"


class EarlyBackupFailed(Refused):
    """The backup failed while the application was running, so nothing was stopped."""


class _OfNoUse(Exception):
    """The early backup is not one of the database as it is; the arguments say why."""


def take_early(request: BackupRequest) -> Backup:
    """Take a backup that :func:`confirm_or_take` can confirm later.

    :raises Refused: also where it fails, because nothing was stopped yet.
    """
    try:
        return take_backup(dataclasses.replace(request, early=True))
    except FailedUnchanged as err:
        raise EarlyBackupFailed(
            f"{err} Nothing was stopped. Resolve that and run again; an empty rollback_backup_early_bytes leaves the "
            "backup until after the stop.",
            **err.details,
        ) from err


def confirm_or_take(request: BackupRequest, path: str) -> Backup:
    """The early backup where the database still holds exactly what it holds, otherwise a new one in its place.

    :param path: folder of the early backup.
    :raises Refused: what :func:`readiness.check_ready` refuses.
    :raises FailedUnchanged: the comparison or the new backup failed.
    """
    check_request(request)
    try:
        return _confirm(request, path)
    except _OfNoUse as err:
        reasons = tuple(str(reason) for reason in err.args)
    try:
        taken = take_backup(request)
    except BackupRefused as err:
        if "free_bytes" not in err.details:
            raise
        # No room for two. The early one does not hold what was written since. The new one may get its very name.
        remove_published(request.backup_dir, path)
        taken = take_backup(request)
    else:
        remove_published(request.backup_dir, path)
    told = f"The early backup was of no use, so another one was taken after the stop: {_listed(reasons)}."
    return dataclasses.replace(taken, stale=reasons, warnings=(*taken.warnings, told))


def _listed(reasons: tuple[str, ...]) -> str:
    shown = "; ".join(reasons[:5])
    return shown if len(reasons) <= 5 else f"{shown}; and {len(reasons) - 5} more"


def _confirm(request: BackupRequest, path: str) -> Backup:
    started = time.monotonic()
    now = dt.datetime.now(dt.UTC)
    seconds: dict[str, float] = {}
    with interruptible("The backup"), failures():
        manifest, before = _load(request, path)
        seconds["files"] = round(time.monotonic() - started, 3)
        with Snapshot(request) as snapshot, naming_blockers(snapshot):
            differences = _Comparison(request, snapshot, manifest, before).differences()
    seconds["compare"] = round(time.monotonic() - started - seconds["files"], 3)
    if differences:
        raise _OfNoUse(*differences)
    finished = iso(dt.datetime.now(dt.UTC))
    return Backup(
        id=manifest.id,
        path=path,
        kind=manifest.kind,
        bytes=manifest.bytes,
        verified=True,
        tables=manifest.rows,
        seconds=round(time.monotonic() - started, 3),
        started_at=iso(now),
        finished_at=finished,
        phases=seconds,
        warnings=manifest.warnings,
        version=manifest.version,
        provider=manifest.provider,
        compression=manifest.compression,
        applied=manifest.applied,
        confirmed_at=finished,
    )


def _load(request: BackupRequest, path: str) -> tuple[manifests.Manifest, contents.Content]:
    """The early backup's manifest and content, its files checked.

    :raises _OfNoUse: it is not whole, or not one of this run.
    """
    try:
        manifest = manifests.load(path, request.key)
    except manifests.ManifestInvalid as err:
        raise _OfNoUse(str(err)) from err
    wanted = (os.path.basename(path), request.kind, request.version, request.settings.dbname, request.run_id)
    if (manifest.id, manifest.kind, manifest.version, manifest.database, manifest.run_id) != wanted:
        raise _OfNoUse(f"{path} is the backup {manifest.id} of another run, version or database")
    if not manifest.proof:
        raise _OfNoUse(f"{path} was not taken as an early backup")
    if manifest.proof.get("moved"):
        raise _OfNoUse(f"while it was taken, {manifest.proof['moved']} changed")
    try:
        before = contents.Content.from_dict(manifest.proof["content"])
        problems = manifests.verify_stamps(path, manifest, manifest.proof["stamps"])
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise _OfNoUse(f"the proof in the manifest of {path} cannot be read ({err})") from err
    if problems:
        raise _OfNoUse(*problems)
    return manifest, before


class _Comparison:
    """Compares the database in one snapshot with a content, from several connections, until the first difference."""

    def __init__(
        self, request: BackupRequest, snapshot: Snapshot, manifest: manifests.Manifest, before: contents.Content
    ) -> None:
        self._request = request
        self._snapshot = snapshot
        self._manifest = manifest
        self._before = before
        self._jobs: collections.deque[Job] = collections.deque()
        self._different = threading.Event()
        self._connections: list[psycopg2.extensions.connection] = []

    def differences(self) -> list[str]:
        """What differs, as far as that is known by the time of the first difference; empty: nothing.

        After a difference, what the statistics say beside it is good enough.
        """
        with self._opened() as connections:
            with connections[0].cursor() as cursor:
                tables = contents.read_tables(cursor)
                cursor.execute(_CLUSTER)
                ((system_identifier,),) = cursor.fetchall()
            if system_identifier != self._manifest.system_identifier:
                return [f"it is of the cluster {self._manifest.system_identifier}, this one is {system_identifier}"]
            names = {table.identity for table in tables}
            if names != self._before.tables.keys():
                return [
                    f"{name} {'is new' if name in names else 'is gone'}"
                    for name in sorted(names ^ self._before.tables.keys())
                ]
            likely = contents.suspects(tables, self._before)
            self._plan(tables, likely)
            found = self._run(connections)
            if found and likely:
                found.append(f"by the server's statistics written to: {', '.join(table.identity for table in likely)}")
            return found

    def _run(self, connections: Sequence[psycopg2.extensions.connection]) -> list[str]:
        pool = concurrent.futures.ThreadPoolExecutor(len(connections), thread_name_prefix="compare")
        try:
            found = [pool.submit(self._work, connection) for connection in connections]
            return [difference for future in found for difference in future.result()]
        except BaseException:
            self._end_others(None)
            raise
        finally:
            pool.shutdown()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[list[psycopg2.extensions.connection]]:
        try:
            for _number in range(WORKERS):
                connection = open_connection(self._request)
                self._connections.append(connection)
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION SNAPSHOT %s", (self._snapshot.name,))
                    cursor.execute(NO_LIMITS)
                    cursor.execute(contents.SETTINGS)
            yield self._connections
        finally:
            for connection in self._connections:
                connection.close()

    def _plan(self, tables: list[contents.Table], likely: list[contents.Table]) -> None:
        """Where a difference is likely or quickly found comes first."""
        rest = [table for table in tables if table not in likely]
        self._jobs.append(self._sequences)
        self._jobs.extend(self._count_of(table) for table in likely)
        self._jobs.extend((self._catalogs, self._large_objects))
        self._jobs.extend(self._rows_of(batch) for batch in contents.in_batches(likely))
        self._jobs.extend(self._rows_of(batch) for batch in contents.in_batches(rest))

    def _work(self, connection: psycopg2.extensions.connection) -> list[str]:
        found: list[str] = []
        with connection.cursor() as cursor:
            while not self._different.is_set() and not found:
                try:
                    job = self._jobs.popleft()
                except IndexError:
                    break
                try:
                    found = job(cursor)
                except psycopg2.Error:
                    # The other worker found a difference and ended this one's query.
                    if not self._different.is_set():
                        self._end_others(connection)
                        raise
        if found:
            self._end_others(connection)
        return found

    def _end_others(self, own: psycopg2.extensions.connection | None) -> None:
        self._different.set()
        for connection in self._connections:
            if connection is not own:
                with contextlib.suppress(psycopg2.Error):
                    connection.cancel()

    def _count_of(self, table: contents.Table) -> Job:
        """Inserted or deleted rows are seen by counting, at a fifth of the time."""

        def compare(cursor: psycopg2.extensions.cursor) -> list[str]:
            cursor.execute(f"SELECT count(*) FROM ONLY {table.identity}")
            ((rows,),) = cursor.fetchall()
            _then, total = self._before.tables[table.identity]
            return list(self._changed_rows([(table.identity, (rows, total))]))

        return compare

    def _rows_of(self, batch: list[contents.Table]) -> Job:
        def compare(cursor: psycopg2.extensions.cursor) -> list[str]:
            now = contents.read_rows(cursor, batch, self._before.seed, self._snapshot.server_version)
            return list(self._changed_rows((table.identity, now[table.oid]) for table in batch))

        return compare

    def _changed_rows(self, now: Iterable[tuple[str, contents.Sum]]) -> Iterable[str]:
        for name, (rows, total) in now:
            rows_then, total_then = self._before.tables[name]
            if rows != rows_then:
                yield f"{name} had {rows_then} rows and has {rows}"
            elif total != total_then:
                yield f"{name} has as many rows, and not the same"

    def _sequences(self, cursor: psycopg2.extensions.cursor) -> list[str]:
        now = contents.read_sequences(cursor)
        return [f"the sequence {name} moved" for name in contents.differences(self._before.sequences, now)]

    def _catalogs(self, cursor: psycopg2.extensions.cursor) -> list[str]:
        now = contents.read_catalogs(cursor, self._before.seed)
        return [f"definitions in {name} changed" for name in contents.differences(self._before.catalogs, now)]

    def _large_objects(self, cursor: psycopg2.extensions.cursor) -> list[str]:
        same = contents.read_large_objects(cursor, self._before.seed) == self._before.large_objects
        return [] if same else ["large objects changed"]
