# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows in the text that pg_restore writes: the COPY statement before them, and where they end."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing as t

from .errors import FailedUnchanged

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2.extensions

CHUNK_BYTES = 1 << 18

_TERMINATOR = b"\\.\n"
_BEFORE_HEADER = re.compile(rb"SET client_encoding = '([A-Za-z0-9_-]+)';\n")
_BARE = re.compile(r'[^\s".,();]+')
_END_OF_HEADER = " FROM stdin;\n"


class NotCopyText(FailedUnchanged):
    """The text is not what pg_restore writes, or it stops in the middle."""


@dataclasses.dataclass(frozen=True)
class CopyHeader:
    """Whose rows follow, in which columns; names are bare.

    :param encoding: PostgreSQL's name of the encoding of the rows.
    """

    schema: str
    name: str
    columns: tuple[str, ...]
    encoding: str


def identifier(text: str, start: int) -> tuple[str, int]:
    """The bare name that begins there, quoted or not, and where the text goes on.

    :raises NotCopyText: there is none.
    """
    if text[start : start + 1] != '"':
        match = _BARE.match(text, start)
        if match is None:
            raise NotCopyText(f"There is no name in {text[start : start + 60]!r} of the backup.")
        return match[0], match.end()
    end = start + 1
    while (end := text.find('"', end)) >= 0:
        if text[end + 1 : end + 2] != '"':
            return text[start + 1 : end].replace('""', '"'), end + 1
        end += 2
    raise NotCopyText(f"A name does not end in {text[start : start + 60]!r} of the backup.")


def qualified(text: str, start: int) -> tuple[str, str, int]:
    """Schema and name, as pg_dump writes them, and where the text goes on.

    :raises NotCopyText: there is something else.
    """
    schema, dot = identifier(text, start)
    if text[dot : dot + 1] != ".":
        raise NotCopyText(f"The name {schema!r} in the backup has no schema.")
    name, end = identifier(text, dot + 1)
    return schema, name, end


def encoding_of(server_encoding: str) -> str:
    """Python's name of one of PostgreSQL's encodings."""
    return str(psycopg2.extensions.encodings.get(server_encoding.upper(), "utf-8"))


def parse_header(header: str, encoding: str) -> CopyHeader:
    """:raises NotCopyText: it is no COPY ... FROM stdin."""
    schema, name, at = qualified(header, len("COPY "))
    columns = []
    if header.startswith(" (", at):
        at += 2
        while True:
            column, at = identifier(header, at)
            columns.append(column)
            if not header.startswith(", ", at):
                break
            at += 2
        at += 1
    if header[at:].lstrip(" ") != _END_OF_HEADER.lstrip(" "):
        raise NotCopyText(f"The statement {header[:120]!r} in the backup is not understood.")
    return CopyHeader(schema, name, tuple(columns), encoding)


class CopyText:
    """Output of pg_restore with one table's rows; ``read`` gives only these, as ``COPY ... FROM STDIN`` wants them."""

    def __init__(self, output: t.IO[bytes]) -> None:
        self._output = output
        self._buffer = b""
        self._at_start = True
        self._ended = False

    def header(self) -> CopyHeader | None:
        """Everything before the rows; ``None`` where there are none at all.

        :raises NotCopyText: for another text.
        """
        encoding = "UTF8"
        while line := self._line():
            match = _BEFORE_HEADER.fullmatch(line)
            if match:
                encoding = match[1].decode("ascii")
            if line.startswith(b"COPY "):
                return parse_header(self._whole_header(line).decode(encoding_of(encoding)), encoding)
        return None

    def _whole_header(self, line: bytes) -> bytes:
        # A name may hold line breaks, and then its quotes are not closed yet.
        while line.count(b'"') % 2 or not line.endswith(_END_OF_HEADER.encode()):
            more = self._line()
            if not more:
                raise NotCopyText("What pg_restore writes ends within a COPY statement.")
            line += more
        return line

    def _line(self) -> bytes:
        """The next line with its end; empty at the end of the output."""
        while b"\n" not in self._buffer:
            chunk = self._chunk()
            if not chunk:
                rest, self._buffer = self._buffer, b""
                return rest
            self._buffer += chunk
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return line + newline

    def _chunk(self) -> bytes:
        # read() would wait until it has as much as asked for.
        return self._output.read1(CHUNK_BYTES)  # type: ignore[attr-defined,no-any-return]  # a buffered pipe has it

    def read(self, _size: int = -1) -> bytes:
        """The next rows; empty behind the last one.

        :raises NotCopyText: the output ends before the rows do.
        """
        while not self._ended:
            give = self._take()
            if give:
                return give
            if self._ended:
                break
            chunk = self._chunk()
            if not chunk:
                raise NotCopyText("What pg_restore writes ends before the table's last row.")
            self._buffer += chunk
        return b""

    def _take(self) -> bytes:
        """What of the buffer is certainly rows; a row is never the terminator, because backslashes in data are doubled."""
        if self._at_start and self._buffer.startswith(_TERMINATOR):
            self._ended = True
            return b""
        end = self._buffer.find(b"\n" + _TERMINATOR)
        if end >= 0:
            self._ended = True
            give, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 + len(_TERMINATOR) :]
            return give
        keep = len(_TERMINATOR)
        if len(self._buffer) <= keep:
            return b""
        give, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
        self._at_start = False
        return give

    def drain(self) -> None:
        """Read what follows the rows, so that the program can end."""
        while self._chunk():
            pass
