# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the rows of a table in a backup come from: an archive of pg_dump, or a copy of the database."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
import threading
import typing as t

from .connection import connect
from .copy_text import CHUNK_BYTES, CopyText, encoding_of, qualified
from .errors import FailedUnchanged

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.extensions

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .connection import ConnectionSettings
    from .pg_tools import Tools

#: "3405; 1259 16397 TABLE b2b orders postgres": dump id, catalog, oid, kind, then names in which newlines are blanks.
_ENTRY = re.compile(r"^(\d+); (\d+) (\d+) (TABLE DATA|TABLE ATTACH|TABLE) (.*)$", re.MULTILINE)
_CREATE_TABLE = re.compile(r"^CREATE (?:UNLOGGED )?TABLE ", re.MULTILINE)
_ATTACH = re.compile(r"^ALTER TABLE ONLY ", re.MULTILINE)
_ATTACH_PARTITION = " ATTACH PARTITION "
#: What may follow the type of a column in CREATE TABLE (dumpTableSchema in pg_dump.c).
_BEHIND_TYPE = re.compile(
    r",?\n| (?:COLLATE|DEFAULT|NOT NULL|GENERATED|CONSTRAINT|STORAGE|COMPRESSION|CHECK|WITH OPTIONS)\b"
)
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")


class Readable(t.Protocol):
    """What COPY ... FROM STDIN reads from."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; empty at the end."""


@dataclasses.dataclass(frozen=True)
class TableName:
    """A table by its bare names, and as PostgreSQL writes it."""

    schema: str
    name: str
    identity: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of a table, or of one of its partitions, to be read before the next part is asked for.

    :param encoding: PostgreSQL's name of the encoding.
    """

    columns: tuple[str, ...]
    encoding: str
    rows: Readable


class RowSource(t.Protocol):
    """The tables of one backup."""

    def parts(self, table: TableName, partitioned: bool) -> Iterator[Part]:
        """All rows of a table, of a partitioned one those of all its partitions in the backup."""

    def other_types(self, table: TableName, types: Mapping[str, str]) -> dict[str, str]:
        """Columns, of those given with their types of today, that had another type, and what the backup says."""


# --- an archive of pg_dump ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A line of ``pg_restore -l``."""

    dump_id: str
    catalog: str
    oid: str
    kind: str
    names: str


class ArchiveRows:
    """Rows out of an archive whose manifest and checksums were found right before.

    A listing does not say where a schema's name ends and a table's begins, so every entry that may be the table's is read
    up to the statement that names it.
    """

    def __init__(self, pg_restore: str, archive: str, server_encoding: str, tools: Tools, folder: str) -> None:
        """:param folder: private folder for lists of entries, removed by the caller."""
        self._pg_restore = pg_restore
        self._archive = archive
        self._encoding = encoding_of(server_encoding)
        self._tools = tools
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
            "LC_ALL": "C.UTF-8",
        }
        self._entries: list[_Entry] | None = None
        self._children: dict[tuple[str, str], list[tuple[str, str]]] | None = None

    def parts(self, table: TableName, partitioned: bool) -> Iterator[Part]:
        """See :class:`RowSource`.

        :raises FailedUnchanged: the archive has no rows of the table, or pg_restore fails.
        """
        wanted = self._leaves((table.schema, table.name)) if partitioned else [(table.schema, table.name)]
        for schema, name in wanted:
            yield from self._part(schema, name)

    def other_types(self, table: TableName, types: Mapping[str, str]) -> dict[str, str]:
        """See :class:`RowSource`. What a table inherits is not in its own definition, and taken as unchanged."""
        definition = self._definition(table.schema, table.name)
        found = {}
        for column, today in types.items():
            then = _column_definition(definition, column)
            if then is not None and not (then.startswith(today) and _BEHIND_TYPE.match(then, len(today))):
                found[column] = then.partition("\n")[0].rstrip(",")
        return found

    def _part(self, schema: str, name: str) -> Iterator[Part]:
        for entry in self._candidates("TABLE DATA", schema, name):
            with self._reading([entry]) as text:
                header = text.header()
                if header and (header.schema, header.name) == (schema, name):
                    yield Part(header.columns, header.encoding, text)
                    text.drain()
                    return
        raise FailedUnchanged(
            f"The backup's archive has no rows of the table {schema}.{name}, although its manifest names it. "
            "Nothing was changed. Choose another one with the extra variable backup."
        )

    def _definition(self, schema: str, name: str) -> str:
        for entry in self._candidates("TABLE", schema, name):
            text = self._script([entry])
            for match in _CREATE_TABLE.finditer(text):
                found_schema, found_name, end = qualified(text, match.end())
                if (found_schema, found_name) == (schema, name):
                    return text[end:]
        return ""

    def _leaves(self, root: tuple[str, str]) -> list[tuple[str, str]]:
        """Partitions without partitions of their own; a table that nothing was attached to has none."""
        children = self._attached().get(root, [])
        leaves = []
        for child in children:
            leaves.extend(self._leaves(child) if self._is_partitioned(child) else [child])
        return leaves

    def _is_partitioned(self, table: tuple[str, str]) -> bool:
        # A partitioned table has no rows, and so no entry for them; one whose name only looks like it may have.
        return table in self._attached() or not self._candidates("TABLE DATA", *table)

    def _attached(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        if self._children is None:
            self._children = {}
            entries = [entry for entry in self._listing() if entry.kind == "TABLE ATTACH"]
            text = self._script(entries) if entries else ""
            for match in _ATTACH.finditer(text):
                schema, name, at = qualified(text, match.end())
                if text.startswith(_ATTACH_PARTITION, at):
                    child_schema, child, _end = qualified(text, at + len(_ATTACH_PARTITION))
                    self._children.setdefault((schema, name), []).append((child_schema, child))
        return self._children

    def _candidates(self, kind: str, schema: str, name: str) -> list[_Entry]:
        begin = re.sub(r"[\r\n]", " ", f"{schema} {name} ")
        return [entry for entry in self._listing() if entry.kind == kind and entry.names.startswith(begin)]

    def _listing(self) -> list[_Entry]:
        if self._entries is None:
            text = self._run(["--list"])
            self._entries = [_Entry(*match.groups()) for match in _ENTRY.finditer(text)]
        return self._entries

    def _script(self, entries: Sequence[_Entry]) -> str:
        return self._run([f"--use-list={self._list_of(entries)}", "--schema-only", "--file=-"])

    def _run(self, arguments: Sequence[str]) -> str:
        tool = self._tools.start([self._pg_restore, *arguments, self._archive], self._environment)
        text = tool.output.read().decode(self._encoding, "replace")
        tool.wait()
        return text

    @contextlib.contextmanager
    def _reading(self, entries: Sequence[_Entry]) -> Iterator[CopyText]:
        argv = [self._pg_restore, f"--use-list={self._list_of(entries)}", "--data-only", "--file=-", self._archive]
        tool = self._tools.start(argv, self._environment)
        text = CopyText(tool.output)
        try:
            yield text
            text.drain()
            tool.wait()
        finally:
            tool.stop()

    def _list_of(self, entries: Sequence[_Entry]) -> str:
        descriptor, path = tempfile.mkstemp(prefix="list-", dir=self._folder)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(f"{entry.dump_id};\n" for entry in entries)
        return path


def _column_definition(definition: str, column: str) -> str | None:
    """Type of a column and what follows it, in CREATE TABLE; every column begins a line there."""
    quoted = '"' + column.replace('"', '""') + '"'
    names = [quoted, column] if _PLAIN_NAME.fullmatch(column) else [quoted]
    for name in names:
        start = definition.find(f"\n    {name} ")
        if start >= 0:
            return definition[start + len(name) + 6 :]
    return None


# --- a copy of the database --------------------------------------------------------------------------------------------

_COLUMNS = """
SELECT a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.quote_ident(a.attname)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""


class CloneRows:
    """Rows out of a copy of the database on the same server."""

    def __init__(self, settings: ConnectionSettings, database: str) -> None:
        self._connection: psycopg2.extensions.connection = connect(
            settings, application_name="cypher.rollback rows", dbname=database, statement_timeout="0"
        )
        self._connection.set_session(readonly=True)
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_catalog.set_config('search_path', '', false), pg_catalog.set_config('row_security', 'off', false), "
                "pg_catalog.set_config('datestyle', 'ISO', false), pg_catalog.set_config('intervalstyle', 'postgres', false), "
                "pg_catalog.set_config('extra_float_digits', '3', false)"
            )

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def parts(self, table: TableName, partitioned: bool) -> Iterator[Part]:
        """See :class:`RowSource`."""
        columns = self._columns(table)
        if not columns:
            raise FailedUnchanged(
                f"The backup's database has no table {table.identity}, although its manifest names it. Nothing was changed. "
                "Choose another backup with the extra variable backup."
            )
        names = ", ".join(quoted for _name, _type, quoted in columns)
        query = f"SELECT {names} FROM {'' if partitioned else 'ONLY '}{table.identity}"
        with _Sender(self._connection, f"COPY ({query}) TO STDOUT") as sender:
            yield Part(tuple(name for name, _type, _quoted in columns), "UTF8", sender)

    def other_types(self, table: TableName, types: Mapping[str, str]) -> dict[str, str]:
        """See :class:`RowSource`."""
        then = {name: kind for name, kind, _quoted in self._columns(table)}
        return {name: then[name] for name, today in types.items() if name in then and then[name] != today}

    def _columns(self, table: TableName) -> list[tuple[str, str, str]]:
        with self._connection.cursor() as cursor:
            cursor.execute(_COLUMNS, (table.schema, table.name))
            return [(str(name), str(kind), str(quoted)) for name, kind, quoted in cursor.fetchall()]


class _Sender(contextlib.AbstractContextManager["_Sender"]):
    """COPY TO STDOUT of one connection, read as COPY FROM STDIN of another wants it, through a pipe."""

    def __init__(self, connection: psycopg2.extensions.connection, statement: str) -> None:
        self._connection = connection
        self._statement = statement
        self._error: Exception | None = None
        reading, writing = os.pipe()
        self._reading = os.fdopen(reading, "rb", buffering=0)
        self._writing = os.fdopen(writing, "wb", buffering=CHUNK_BYTES)
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> t.Self:
        self._thread.start()
        return self

    def _send(self) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.copy_expert(self._statement, self._writing, CHUNK_BYTES)
        except (psycopg2.Error, OSError) as err:
            self._error = err
        finally:
            # Closing writes what is left, to a reader that may have gone.
            with contextlib.suppress(OSError):
                self._writing.close()

    def read(self, _size: int = -1) -> bytes:
        """The next bytes; empty when all have come.

        :raises FailedUnchanged: the other connection failed.
        """
        chunk = self._reading.read(CHUNK_BYTES)
        if not chunk:
            self._thread.join()
            if self._error:
                said = " ".join(str(self._error).split())
                raise FailedUnchanged(f"The backup's database cannot be read: {said}. Nothing was changed.")
        return chunk or b""

    def __exit__(self, *_exc: object) -> None:
        self._reading.close()
        with contextlib.suppress(psycopg2.Error):
            if self._thread.is_alive():
                self._connection.cancel()
        self._thread.join()
