# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory-format archive of pg_dump, read file by file for proof that it is whole.

A listing by pg_restore proves nothing, and its full read misses a data file cut to nothing as well as any damage in an
uncompressed one (both measured). So every byte is read here: hashed, and its rows counted where it is not compressed. The
rows of compressed files are counted in what pg_restore makes of them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import re
import threading
import typing as t

CHUNK_BYTES = 1 << 20

#: What pg_dump writes after the last row of a table (dumpTableData_copy in pg_dump.c).
TERMINATOR = b"\\.\n\n\n"
_TERMINATOR_LINES = TERMINATOR.count(b"\n")

_TABLE_FILE = re.compile(r"(\d+)\.dat(\.gz|\.zst|\.lz4)?")
_LARGE_OBJECT_FILE = re.compile(r"blob_(\d+)\.dat(\.gz|\.zst|\.lz4)?")
#: "3405; 0 16397 TABLE DATA b2b orders postgres": dump id, catalog, oid of the table. Newlines are blanks there.
_TABLE_DATA = re.compile(r"^(\d+); \d+ (\d+) TABLE DATA ", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class FileProof:
    """What was read back from one file.

    :param rows: rows of a table's data file; ``None`` for other and for compressed files, and where the file is not whole.
    :param stamp: inode, size and time of the last change; a file with another stamp is not the one that was read.
    """

    name: str
    bytes: int
    sha256: str
    rows: int | None = None
    stamp: tuple[int, int, int] = (0, 0, 0)


def _stamp(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


class _Rows:
    """Counts the rows of COPY text as it passes by: a row is a line, newlines in data are escaped."""

    def __init__(self) -> None:
        self._lines = 0
        self._tail = b""

    def update(self, chunk: bytes) -> None:
        self._lines += chunk.count(b"\n")
        keep = len(TERMINATOR) + 1
        self._tail = chunk[-keep:] if len(chunk) >= keep else (self._tail + chunk)[-keep:]

    def total(self) -> int | None:
        """``None`` unless the terminator is the last that came."""
        if self._tail == TERMINATOR or self._tail == b"\n" + TERMINATOR:
            return self._lines - _TERMINATOR_LINES
        return None


def prove(folder: str, name: str, stop: threading.Event | None = None) -> FileProof:
    """Sync one file to disk, then read it: size, SHA-256 and, for a table's uncompressed data, its rows.

    :param stop: set by whoever no longer needs the answer.
    :raises OSError: the file cannot be synced or read.
    """
    table = _TABLE_FILE.fullmatch(name)
    rows = _Rows() if table and not table[2] else None
    digest = hashlib.sha256()
    size = 0
    descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
        stamp = _stamp(os.fstat(descriptor))
        while (chunk := os.read(descriptor, CHUNK_BYTES)) and not (stop and stop.is_set()):
            digest.update(chunk)
            size += len(chunk)
            if rows:
                rows.update(chunk)
    finally:
        os.close(descriptor)
    return FileProof(name, size, digest.hexdigest(), rows.total() if rows else None, stamp)


def looks_finished(folder: str, name: str) -> bool:
    """Whether a plain data file that pg_dump may still be writing has its terminator: nothing comes after it."""
    with contextlib.suppress(OSError), open(os.path.join(folder, name), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(TERMINATOR) - 1))
        return file.read() in (TERMINATOR, b"\n" + TERMINATOR)
    return False


class ArchiveReader(contextlib.AbstractContextManager["ArchiveReader"]):
    """Proves the files of an archive in threads, those that are finished while pg_dump still writes others.

    Hashing and fsync release Python's lock, so two threads keep two processors busy.
    """

    def __init__(self, folder: str, threads: int = 2) -> None:
        self.folder = folder
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="proof")
        self._proofs: dict[str, concurrent.futures.Future[FileProof]] = {}

    def look(self) -> None:
        """Start on every file that is finished while pg_dump still runs."""
        for name in self._names():
            table = _TABLE_FILE.fullmatch(name)
            if name not in self._proofs and table and not table[2] and looks_finished(self.folder, name):
                self._start(name)

    def finish(self) -> None:
        """Start on the rest of the files, now that pg_dump has ended."""
        for name in self._names():
            if name not in self._proofs:
                self._start(name)

    def proofs(self) -> dict[str, FileProof]:
        """The proof of every file as it is now, waiting for those under way; what changed since it was read is read again.

        :raises OSError: a file cannot be synced or read, or one that was read is gone.
        """
        changed = [name for name in self._proofs if not self._is_current(name)]
        for name in changed:
            self._start(name)
        return {name: self._proofs[name].result() for name in sorted(self._proofs)}

    def _is_current(self, name: str) -> bool:
        return self._proofs[name].result().stamp == _stamp(os.stat(os.path.join(self.folder, name)))

    def _start(self, name: str) -> None:
        self._proofs[name] = self._pool.submit(prove, self.folder, name, self._stop)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


def table_files(listing: str, names: t.Collection[str]) -> dict[int, str | None]:
    """Oid of every table with data in the archive, to the name of its data file; ``None`` where the file is missing.

    :param listing: output of ``pg_restore -l``.
    :param names: names of the files that the archive has.
    """
    by_dump_id = {match[1]: name for name in names if (match := _TABLE_FILE.fullmatch(name))}
    return {int(oid): by_dump_id.get(dump_id) for dump_id, oid in _TABLE_DATA.findall(listing)}


def tables_in_order(listing: str) -> list[int]:
    """Oid of every table with data in the archive, in its order."""
    return [int(oid) for _dump_id, oid in _TABLE_DATA.findall(listing)]


def is_compressed(names: t.Collection[str]) -> bool:
    """Whether a table's or large object's file is, whatever pg_dump was asked for."""
    matches = (_TABLE_FILE.fullmatch(name) or _LARGE_OBJECT_FILE.fullmatch(name) for name in names)
    return any(match and match[2] for match in matches)


def large_object_files(names: t.Collection[str]) -> dict[int, str]:
    """Oid of every large object in the archive, to the name of its file."""
    return {int(match[1]): name for name in names if (match := _LARGE_OBJECT_FILE.fullmatch(name))}
