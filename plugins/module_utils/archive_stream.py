# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of an archive as pg_restore writes it: rows of each table, bytes of each large object, values of sequences.

This is what a restore would load, whatever the files are compressed with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing as t

with contextlib.suppress(ImportError):
    import psycopg2.extensions

CHUNK_BYTES = 1 << 18

#: Comments have no newlines in their names, and \restrict is for psql.
_SKIPPED = re.compile(rb"(?:--[^\n]*+\n|\\[^\n]*+\n|\s)*+")
#: Semicolons and newlines occur in names and in literals.
_STATEMENT = re.compile(rb"""(?:[^;"']++|"[^"]*+"|'[^']*+')*+;\n""")
_SETVAL = re.compile(rb"SELECT pg_catalog\.setval\('((?:[^']|'')*+)', (-?\d+), (true|false)\);\n")
_LO_OPEN = re.compile(rb"SELECT pg_catalog\.lo_open\('(\d+)', \d+\);\n")
_LO_WRITE = re.compile(rb"SELECT pg_catalog\.lowrite\(0, '\\{1,2}x([0-9a-f]*+)'\);\n")
_ENCODING = re.compile(rb"SET client_encoding = '([A-Za-z0-9_-]+)';\n")
_TERMINATOR = b"\n\\.\n"


class StreamBroken(Exception):
    """The output of pg_restore ends in the middle of a table or statement."""


@dataclasses.dataclass
class ArchiveData:
    """What was found.

    :param rows: of each table with data, in the order of the archive's list.
    :param large_objects: bytes by oid.
    :param sequences: last value, and whether it was handed out, by quoted name.
    """

    rows: list[int] = dataclasses.field(default_factory=list)
    large_objects: dict[int, int] = dataclasses.field(default_factory=dict)
    sequences: dict[str, tuple[int, bool]] = dataclasses.field(default_factory=dict)


def read_data(output: t.IO[bytes]) -> ArchiveData:
    """Read the output of ``pg_restore --data-only`` to its end.

    :raises StreamBroken: it stops in the middle.
    """
    reader = _Reader()
    while chunk := output.read(CHUNK_BYTES):
        reader.feed(chunk)
    reader.finish()
    return reader.data


class _Reader:
    def __init__(self) -> None:
        self.data = ArchiveData()
        self._buffer = b""
        self._in_rows = False
        self._large_object = 0
        self._encoding = "utf-8"
        self._doubled = False

    def feed(self, chunk: bytes) -> None:
        self._buffer += chunk
        while self._rows() if self._in_rows else self._statement():
            pass

    def finish(self) -> None:
        if self._in_rows:
            raise StreamBroken(f"the rows of table number {len(self.data.rows)} have no end")
        if _SKIPPED.sub(b"", self._buffer):
            raise StreamBroken(f"a statement has no end: {self._buffer[:60]!r}")

    def _rows(self) -> bool:
        """A row is a line; newlines in data are escaped, and no row is a backslash and a dot. Whether there is more to do."""
        end = self._buffer.find(_TERMINATOR)
        # The newline before the first row belongs to the statement, and stands in the buffer for this search.
        consumed = end if end >= 0 else max(len(self._buffer) - len(_TERMINATOR) + 1, 0)
        self.data.rows[-1] += self._buffer.count(b"\n", 0, consumed)
        if end < 0:
            self._buffer = self._buffer[consumed:]
            return False
        self._buffer = self._buffer[end + len(_TERMINATOR) :]
        self._in_rows = False
        return True

    def _statement(self) -> bool:
        skipped = t.cast("re.Match[bytes]", _SKIPPED.match(self._buffer)).end()
        match = _STATEMENT.match(self._buffer, skipped)
        if match is None:
            self._buffer = self._buffer[skipped:]
            return False
        if match[0].startswith(b"COPY "):
            self._in_rows = True
            self.data.rows.append(0)
            self._buffer = self._buffer[match.end() - 1 :]
            return True
        self._buffer = self._buffer[match.end() :]
        self._note(match[0])
        return True

    def _note(self, statement: bytes) -> None:
        if match := _LO_WRITE.fullmatch(statement):
            self.data.large_objects[self._large_object] += len(match[1]) // 2
        elif match := _LO_OPEN.fullmatch(statement):
            self._large_object = int(match[1])
            self.data.large_objects[self._large_object] = 0
        elif match := _SETVAL.fullmatch(statement):
            name = match[1].replace(b"''", b"'")
            if self._doubled:
                name = name.replace(b"\\\\", b"\\")
            self.data.sequences[name.decode(self._encoding)] = (int(match[2]), match[3] == b"true")
        elif match := _ENCODING.fullmatch(statement):
            name_of_encoding = match[1].decode("ascii").upper()
            self._encoding = str(psycopg2.extensions.encodings.get(name_of_encoding, "utf-8"))
        elif statement == b"SET standard_conforming_strings = off;\n":
            self._doubled = True
