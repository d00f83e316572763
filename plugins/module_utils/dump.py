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
from .archive import ArchiveReader, is_compressed, large_object_files, prove, table_files, tables_in_order
from .archive_stream import ArchiveData, StreamBroken, read_data
from .catalog import SCHEMA_FILE
from .client_programs import start_programs
from .cluster_globals import GLOBALS_FILE, Globals
from .connection import client_environment
from .pg_tools import ToolFailed
from .publication import UNCHANGED, BackupFailed, phase, sync_folder, write_private
from .readiness import named, open_connection
from .snapshot import RowCounter, Snapshot, naming_blockers, tables_by_identity

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .archive import FileProof
    from .pg_tools import PgTools, RunningTool, Tools
    from .publication import PartialFolder
    from .readiness import BackupRequest, Readiness
    from .snapshot import Counts, Table

ARCHIVE = "dump"

LOOK_SECONDS = 0.1
#: pg_dump knows other methods than gzip from this major on.
FIRST_WITH_METHODS = 16
NONE, GZIP, ZSTD = "none", "gzip:1", "zstd:1"

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
    compression: str = NONE

    @property
    def archive(self) -> str:
        """Folder that pg_dump writes."""
        return os.path.join(self.partial.path, ARCHIVE)


@dataclasses.dataclass(frozen=True)
class _ReadBack:
    """What the archive turned out to hold.

    :param rows: by table's oid; ``None``: its file is missing or not whole.
    :param large_objects: bytes by oid.
    :param data: what pg_restore made of it, where that was asked.
    """

    proofs: Mapping[str, FileProof]
    files_of_tables: Mapping[int, str | None]
    rows: Mapping[int, int | None]
    large_objects: Mapping[int, int]
    data: ArchiveData | None = None


def fill(
    request: BackupRequest, ready: Readiness, partial: PartialFolder, created_at: str, seconds: dict[str, float]
) -> manifests.Manifest:
    """Everything but the publication; the manifest holds what was proven."""
    with contextlib.ExitStack() as stack:
        snapshot = stack.enter_context(Snapshot(request))
        env = stack.enter_context(client_environment(request.settings, folder=partial.path))
        begun = _begin(request, snapshot)
        counter = stack.enter_context(RowCounter(request, snapshot, begun))
        tools = stack.enter_context(start_programs(ready.tools))
        compression = best_compression(ready.tools, tools, env, partial.path) if request.compress else NONE
        work = _Work(request, ready, partial, snapshot, counter, env, tools, compression)
        roles = Globals(work.tools, ready.tools.pg_dumpall, env, partial, request.settings.dbname)
        surroundings = snapshot.surroundings()
        with phase(seconds, "dump"), naming_blockers(snapshot):
            reader = stack.enter_context(_dump(work))
        with phase(seconds, "read"):
            found = _read_back(work, reader)
        with phase(seconds, "count_wait"), naming_blockers(snapshot):
            counts = counter.counts()
        seconds["count"] = counts.seconds
        with phase(seconds, "globals_wait"):
            scope, warning = roles.finish()
        _check_whole(snapshot.tables, counts, found)
        moved = _moved_meanwhile(request, begun) if begun and request.early else ""
        sync_folder(work.archive)
    entries = _entries(partial.path, found, counts, scope)
    return dataclasses.replace(
        _describe(work, counts, found, created_at),
        files=tuple(entries),
        globals_scope=scope,
        warnings=(*ready.warnings, *([warning] if warning else [])),
        seconds=dict(seconds),
        **surroundings,
        proof=_proof_of(partial.path, found.proofs, entries, counts.content, moved)
        if counts.content and request.early
        else {},
    )


def _begin(request: BackupRequest, snapshot: Snapshot) -> contents.Content | None:
    if request.early:
        return snapshot.early_content()
    return contents.Content(contents.new_seed()) if request.content else None


def _entries(folder: str, found: _ReadBack, counts: Counts, scope: str) -> list[manifests.BackupFile]:
    entries = [_entry(proof, f"{ARCHIVE}/") for proof in found.proofs.values()]
    if scope != "none":
        entries.append(_entry(prove(folder, GLOBALS_FILE)))
    write_private(os.path.join(folder, SCHEMA_FILE), counts.schema)
    return [*entries, _entry(prove(folder, SCHEMA_FILE))]


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


def _describe(work: _Work, counts: Counts, found: _ReadBack, created_at: str) -> manifests.Manifest:
    """The manifest without its files."""
    return manifests.Manifest(
        id=work.partial.id,
        kind=work.request.kind,
        version=work.request.version,
        database=work.request.settings.dbname,
        system_identifier=work.ready.system_identifier,
        server_version=work.ready.server_version,
        created_at=created_at,
        files=(),
        tables=tables_by_identity(work.snapshot.tables, counts),
        snapshot=work.snapshot.facts,
        tools={"version": work.ready.tools.version_text, "bin_dir": work.ready.tools.where},
        jobs=work.ready.jobs,
        compression=work.compression if is_compressed(found.proofs) else NONE,
        large_objects=len(counts.large_objects),
        run_id=work.request.run_id,
        database_bytes=work.ready.database_bytes,
        content=_content(counts.content, found.data) if counts.content else {},
    )


def _content(content: contents.Content, data: ArchiveData | None) -> dict[str, t.Any]:
    """What a restore is compared with. Sequences move while pg_dump runs: what it wrote counts, where that was read."""
    sequences = data.sequences if data else content.sequences
    return {
        "seed": content.seed,
        "sequences": {name: list(value) for name, value in sequences.items()},
        "large_objects": list(content.large_objects),
    }


def best_compression(tools: PgTools, started: Tools, env: Mapping[str, str], folder: str) -> str:
    """The method and level for a backup that nobody waits for, of those that these programs have.

    Measured with 356 MB uncompressed, two processors, pg_dump and reading back: none 2.1 s (15) and 3.5 s (17), gzip:1 7.9 s
    for 106 MB (15), zstd:1 4.7 s for 80 MB (17).

    Which ones a build of pg_dump has, it says before it connects or writes anything: its folder cannot be made. zstd has
    no checksum in these files, as uncompressed ones have none: what changes before the files are read back keeps its rows.
    """
    if tools.version[0] < FIRST_WITH_METHODS:
        return GZIP
    nowhere = os.path.join(folder, "nowhere", ARCHIVE)
    try:
        started.start([tools.pg_dump, "--format=directory", f"--compress={ZSTD}", f"--file={nowhere}"], env).wait()
    except ToolFailed as err:
        if "nowhere" in " ".join(err.details.get("stderr", ())):
            return ZSTD
    return GZIP


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
        # Where the application is stopped meanwhile there is none: zlib doubles the time (measured).
        f"--compress={_argument(work)}",
        # Every file is synced here, while pg_dump writes the next.
        "--no-sync",
        "--no-password",
        f"--snapshot={work.snapshot.name}",
        f"--lock-wait-timeout={work.request.lock_timeout}",
        f"--file={work.archive}",
    ]


def _argument(work: _Work) -> str:
    if work.compression == NONE:
        return "0"
    return work.compression if work.ready.tools.version[0] >= FIRST_WITH_METHODS else work.compression.partition(":")[2]


def _read_back(work: _Work, reader: ArchiveReader) -> _ReadBack:
    """The archive as pg_restore reads it, while the reader proves the rest of the files."""
    pg_restore = work.ready.tools.pg_restore
    streamed = work.request.content or work.compression != NONE
    output = ["--data-only", "--file=-"] if streamed else ["--file=/dev/null"]
    full_read = work.tools.start([pg_restore, *output, work.archive], work.env)
    listing = work.tools.start([pg_restore, "--list", work.archive], work.env).wait()
    data = _read_stream(full_read) if streamed else None
    proofs = reader.proofs()
    full_read.wait()
    files_of_tables = table_files(listing, proofs)
    if data:
        return _ReadBack(proofs, files_of_tables, _rows_in_order(listing, data), data.large_objects, data)
    rows = {oid: proofs[file].rows if file else None for oid, file in files_of_tables.items()}
    sizes = {oid: proofs[file].bytes for oid, file in large_object_files(proofs).items()}
    return _ReadBack(proofs, files_of_tables, rows, sizes)


def _read_stream(full_read: RunningTool) -> ArchiveData:
    """:raises BackupFailed: pg_restore itself found nothing wrong, and yet its output has no end."""
    try:
        return read_data(full_read.output)
    except StreamBroken as err:
        full_read.wait()
        raise BackupFailed(f"The backup was read back and is not whole: {err}. {UNCHANGED} {_LOOK_AT_DISK}") from err


def _rows_in_order(listing: str, data: ArchiveData) -> dict[int, int | None]:
    oids = tables_in_order(listing)
    if len(oids) != len(data.rows):
        raise BackupFailed(
            f"The backup was read back and is not whole: it lists {len(oids)} tables with data, and pg_restore reads "
            f"{len(data.rows)}. {UNCHANGED} {_LOOK_AT_DISK}"
        )
    return dict(zip(oids, data.rows, strict=True))


_LOOK_AT_DISK = "Look for trouble with the disk or its file system before the next try."


def _check_whole(tables: Sequence[Table], counts: Counts, found: _ReadBack) -> None:
    """Every table has its data file, every data file the rows, every large object the bytes that the server counted.

    :raises BackupFailed: naming what is missing.
    """
    leaves = {table.oid: table.identity for table in tables if table.kind == "r"}
    # Data of an extension's own tables is not counted, and has to be whole all the same.
    of_extensions = {oid: f"the extension's table with oid {oid}" for oid in found.rows if oid not in leaves}
    problems = [
        problem
        for oid, name in {**leaves, **of_extensions}.items()
        if (problem := _table_problem(name, counts.rows.get(oid), oid, found))
    ]
    problems += _large_object_problems(counts.large_objects, found)
    if problems:
        raise BackupFailed(
            f"The backup was read back and is not whole: {'; '.join(problems[:5])}. {UNCHANGED} {_LOOK_AT_DISK}",
            problems=problems,
        )


def _table_problem(table: str, counted: int | None, oid: int, found: _ReadBack) -> str:
    file = found.files_of_tables.get(oid)
    if file is None:
        return f"{table} has no data file"
    rows = found.rows[oid]
    if rows is None:
        return f"the data file {file} of {table} is cut short or damaged"
    if counted is not None and rows != counted:
        return f"{table} has {counted} rows in the database and {rows} in {file}"
    return ""


def _large_object_problems(sizes: Mapping[int, int], found: _ReadBack) -> list[str]:
    if sizes.keys() != found.large_objects.keys():
        return [f"the database has {len(sizes)} large objects and the archive {len(found.large_objects)}"]
    return [
        f"large object {oid} has {size} bytes in the database and {found.large_objects[oid]} in blob_{oid}"
        for oid, size in sizes.items()
        if found.large_objects[oid] != size
    ]
