# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup by pg_dump: directory format, read back file by file, compared with what the server counted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import typing as t

from . import content as contents
from . import manifest as manifests
from .archive import ArchiveReader, large_object_files, prove, table_files
from .cluster_globals import GLOBALS_FILE, Globals
from .connection import client_environment
from .pg_tools import ToolFailed, Tools
from .publication import UNCHANGED, BackupFailed, phase, sync_folder
from .readiness import named, open_connection
from .snapshot import RowCounter, Snapshot, naming_blockers, rows_by_identity

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .archive import FileProof
    from .publication import PartialFolder
    from .readiness import BackupRequest, Readiness
    from .snapshot import Counts, Table

ARCHIVE = "dump"

LOOK_SECONDS = 0.1

_TOO_MANY_CONNECTIONS = re.compile(r"too many (clients|connections)|remaining connection slots")
_LOCK_QUEUED = re.compile(r"could not obtain lock on relation")


@dataclasses.dataclass(frozen=True)
class _Work:
    """A backup under way."""

    request: BackupRequest
    ready: Readiness
    partial: PartialFolder
    snapshot: Snapshot
    counter: RowCounter
    env: Mapping[str, str]
    tools: Tools

    @property
    def archive(self) -> str:
        """Folder that pg_dump writes."""
        return os.path.join(self.partial.path, ARCHIVE)


def fill(
    request: BackupRequest, ready: Readiness, partial: PartialFolder, created_at: str, seconds: dict[str, float]
) -> manifests.Manifest:
    """Everything but the publication; the manifest holds what was proven."""
    with contextlib.ExitStack() as stack:
        snapshot = stack.enter_context(Snapshot(request))
        env = stack.enter_context(client_environment(request.settings, folder=partial.path))
        begun = snapshot.early_content() if request.early else None
        counter = stack.enter_context(RowCounter(request, snapshot, begun))
        work = _Work(request, ready, partial, snapshot, counter, env, stack.enter_context(Tools()))
        roles = Globals(work.tools, ready.tools.pg_dumpall, env, partial, request.settings.dbname)
        surroundings = snapshot.surroundings()
        with phase(seconds, "dump"), naming_blockers(snapshot):
            reader = stack.enter_context(_dump(work))
        with phase(seconds, "read"):
            proofs, files_of_tables = _read_back(work, reader)
        with phase(seconds, "count_wait"), naming_blockers(snapshot):
            counts = counter.counts()
        seconds["count"] = counts.seconds
        with phase(seconds, "globals_wait"):
            scope, warning = roles.finish()
        _check_whole(snapshot.tables, counts, proofs, files_of_tables)
        moved = _moved_meanwhile(request, begun) if begun else ""
        sync_folder(work.archive)
    entries = [_entry(proof, f"{ARCHIVE}/") for proof in proofs.values()]
    if scope != "none":
        entries.append(_entry(prove(partial.path, GLOBALS_FILE)))
    described = _describe(work, counts, created_at)
    return dataclasses.replace(
        described,
        files=tuple(entries),
        globals_scope=scope,
        warnings=(*ready.warnings, *([warning] if warning else [])),
        seconds=dict(seconds),
        **surroundings,
        proof=_proof_of(partial.path, proofs, entries, counts.content, moved) if counts.content else {},
    )


def _moved_meanwhile(request: BackupRequest, begun: contents.Content) -> str:
    """What pg_dump may have read outside its snapshot and changed while it ran; empty: nothing.

    Sequences know no transactions, and functions such as pg_get_viewdef show what is there now.
    """
    with contextlib.closing(open_connection(request)) as connection, connection.cursor() as cursor:
        cursor.execute(contents.SETTINGS)
        sequences = contents.differences(begun.sequences, contents.read_sequences(cursor))
        catalogs = contents.differences(begun.catalogs, contents.read_catalogs(cursor, begun.seed))
    return ", ".join(
        [*(f"the sequence {name}" for name in sequences), *(f"definitions in {name}" for name in catalogs)]
    )


def _proof_of(
    folder: str,
    proofs: Mapping[str, FileProof],
    entries: Sequence[manifests.BackupFile],
    content: contents.Content,
    moved: str,
) -> dict[str, t.Any]:
    """What the manifest of an early backup has for its confirmation."""
    stamps = {entry.path: manifests.stamp_of(os.path.join(folder, entry.path)) for entry in entries}
    exchanged = [name for name, proof in proofs.items() if tuple(stamps[f"{ARCHIVE}/{name}"][:3]) != proof.stamp]
    if exchanged:
        raise BackupFailed(f"Files of the backup changed after they were read: {named(exchanged)}. {UNCHANGED}")
    return {"moved": moved, "stamps": stamps, "content": content.to_dict()}


def _entry(proof: FileProof, prefix: str = "") -> manifests.BackupFile:
    return manifests.BackupFile(f"{prefix}{proof.name}", proof.bytes, proof.sha256)


def _describe(work: _Work, counts: Counts, created_at: str) -> manifests.Manifest:
    """The manifest without its files."""
    rows = rows_by_identity(work.snapshot.tables, counts.rows)
    return manifests.Manifest(
        id=work.partial.id,
        kind=work.request.kind,
        version=work.request.version,
        database=work.request.settings.dbname,
        system_identifier=work.ready.system_identifier,
        server_version=work.ready.server_version,
        created_at=created_at,
        files=(),
        tables={name: {"rows": number} for name, number in rows.items()},
        snapshot=work.snapshot.facts,
        tools={"version": work.ready.tools.version_text, "bin_dir": work.ready.tools.bin_dir},
        jobs=work.ready.jobs,
        large_objects=len(counts.large_objects),
        run_id=work.request.run_id,
        database_bytes=work.ready.database_bytes,
    )


def _dump(work: _Work) -> ArchiveReader:
    """Run pg_dump to its end; the reader has begun to prove what is finished.

    One more attempt is made where somebody queued for a lock while a worker started (pg_dump then gives up at once), and
    with one job where the server had no connection left for the workers.
    """
    try:
        return _dump_once(work, work.ready.jobs)
    except ToolFailed as err:
        reason = " ".join(err.details.get("stderr", ()))
        no_connection = _TOO_MANY_CONNECTIONS.search(reason)
        if not no_connection and not _LOCK_QUEUED.search(reason):
            raise
    shutil.rmtree(work.archive, ignore_errors=True)
    return _dump_once(work, 1 if no_connection else work.ready.jobs)


def _dump_once(work: _Work, jobs: int) -> ArchiveReader:
    reader = ArchiveReader(work.archive)
    try:
        tool = work.tools.start(_dump_command(work, jobs), work.env, [work.partial.lock])
        while not tool.ended_within(LOOK_SECONDS):
            work.counter.raise_if_failed()
            reader.look()
        tool.wait()
        reader.finish()
    except BaseException:
        reader.__exit__()
        raise
    return reader


def _dump_command(work: _Work, jobs: int) -> list[str]:
    return [
        work.ready.tools.pg_dump,
        "--format=directory",
        f"--jobs={jobs}",
        # The application is stopped while this runs, and zlib doubles the time (measured).
        "--compress=0",
        # Every file is synced here, while pg_dump writes the next.
        "--no-sync",
        "--no-password",
        f"--snapshot={work.snapshot.name}",
        f"--lock-wait-timeout={work.request.lock_timeout}",
        f"--file={work.archive}",
    ]


def _read_back(work: _Work, reader: ArchiveReader) -> tuple[dict[str, FileProof], dict[int, str | None]]:
    """The archive as pg_restore reads it, while the reader proves the rest of the files."""
    pg_restore = work.ready.tools.pg_restore
    full_read = work.tools.start([pg_restore, "--file=/dev/null", work.archive], work.env)
    listing = work.tools.start([pg_restore, "--list", work.archive], work.env).wait()
    proofs = reader.proofs()
    full_read.wait()
    return proofs, table_files(listing, proofs)


def _check_whole(
    tables: Sequence[Table],
    counts: Counts,
    proofs: Mapping[str, FileProof],
    files_of_tables: Mapping[int, str | None],
) -> None:
    """Every table has its data file, every data file the rows, every large object the bytes that the server counted.

    :raises BackupFailed: naming what is missing.
    """
    leaves = {table.oid: table.identity for table in tables if table.kind == "r"}
    # Data of an extension's own tables is not counted, and has to be whole all the same.
    of_extensions = {oid: f"the extension's table with oid {oid}" for oid in files_of_tables if oid not in leaves}
    problems = [
        problem
        for oid, name in {**leaves, **of_extensions}.items()
        if (problem := _table_problem(name, counts.rows.get(oid), files_of_tables.get(oid), proofs))
    ]
    problems += _large_object_problems(counts.large_objects, proofs)
    if problems:
        raise BackupFailed(
            f"The backup was read back and is not whole: {'; '.join(problems[:5])}. {UNCHANGED} "
            "Look for trouble with the disk or its file system before the next try.",
            problems=problems,
        )


def _table_problem(table: str, counted: int | None, file: str | None, proofs: Mapping[str, FileProof]) -> str:
    if file is None:
        return f"{table} has no data file"
    rows = proofs[file].rows
    if rows is None:
        return f"the data file {file} of {table} is cut short or damaged"
    if counted is not None and rows != counted:
        return f"{table} has {counted} rows in the database and {rows} in {file}"
    return ""


def _large_object_problems(sizes: Mapping[int, int], proofs: Mapping[str, FileProof]) -> list[str]:
    files = large_object_files(proofs)
    if sizes.keys() != files.keys():
        return [f"the database has {len(sizes)} large objects and the archive {len(files)}"]
    return [
        f"large object {oid} has {size} bytes in the database and {proofs[files[oid]].bytes} in {files[oid]}"
        for oid, size in sizes.items()
        if proofs[files[oid]].bytes != size
    ]
