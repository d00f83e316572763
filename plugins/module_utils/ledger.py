# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which migrations are applied, with the evidence.

Two readers so far: the objects that each DOWN names, and a table with one row a version. A reader for another tool's
ledger is one more class with the same two methods.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from .catalog import bare_name
from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .catalog import Cursor
    from .migrations import DownScript, Migration
    from .names import Names, Resolution
    from .sql import NamedObject

APPLIED = "applied"
ABSENT = "absent"
PARTLY = "partly applied"
UNKNOWN = "unknown"

#: They belong to the whole cluster, so another database's migrations may have made them.
_SHARED_TYPES = frozenset({"role", "extension", "event trigger"})


@dataclasses.dataclass(frozen=True)
class VersionState:
    """Whether a migration is applied.

    :param state: ``applied``, ``absent``, ``partly applied``, or ``unknown`` where nothing tells.
    :param source: ``objects`` or the name of the ledger table.
    :param present: what was found of it.
    :param missing: what was not.
    """

    version: str
    state: str
    source: str
    present: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def evidence(self) -> str:
        """One clause for a message."""
        if self.source != "objects":
            return f"{'a' if self.present else 'no'} row in {self.source}"
        if self.state == UNKNOWN:
            return "its DOWN names no object that would tell"
        total = len(self.present) + len(self.missing)
        return f"{len(self.present)} of the {total} objects that its DOWN names are there"

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return {
            "state": self.state,
            "source": self.source,
            "present": list(self.present),
            "missing": list(self.missing),
        }


class Ledger(t.Protocol):
    """A record of what is applied."""

    def state(self, migration: Migration, script: DownScript | None) -> VersionState:
        """Whether one migration is applied. Without a readable DOWN, the objects tell nothing."""

    def unknown_versions(self) -> list[str]:
        """Versions that are recorded as applied and have no migration file."""

    def refuse_unfit(self, chosen: Sequence[Migration]) -> None:
        """:raises Refused: when what it says of a migration that is to be rolled back cannot be taken back."""

    def forget(self, cursor: Cursor, migration: Migration) -> None:
        """Record, in the DOWN's own transaction, that the migration is no longer applied."""


class InferredLedger:
    """Infers what is applied from the objects that each DOWN names."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def state(self, migration: Migration, script: DownScript | None) -> VersionState:
        """All objects there: applied; none: absent; else partly applied."""
        if script is None:
            return VersionState(migration.version, UNKNOWN, "objects")
        resolved = _evidence(script, self._names.resolve_scripts([script]))
        present = tuple(str(item.named) for item in resolved if item.target)
        missing = tuple(str(item.named) for item in resolved if not item.target)
        if not resolved:
            state = UNKNOWN
        elif not present:
            state = ABSENT
        else:
            state = PARTLY if missing else APPLIED
        return VersionState(migration.version, state, "objects", present, missing)

    def unknown_versions(self) -> list[str]:
        """Objects do not say which version made them."""
        return []

    def refuse_unfit(self, chosen: Sequence[Migration]) -> None:
        """Nothing is written down, so nothing can be in the way."""

    def forget(self, cursor: Cursor, migration: Migration) -> None:
        """Nothing to do: with the objects the evidence is gone."""


def _evidence(script: DownScript, resolved: Sequence[Resolution]) -> list[Resolution]:
    """The names that tell whether a migration is applied: those of objects that its DOWN drops and does not make again."""
    remade = _remade(script)
    telling = [item for item in resolved if not any(_same(item.named, other) for other in remade)]
    of_this_database = [item for item in telling if item.named.type not in _SHARED_TYPES]
    return of_this_database or telling


_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_CREATE = re.compile(
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:UNIQUE\s+|CONSTRAINT\s+|UNLOGGED\s+|RECURSIVE\s+)?"
    r"(?P<type>MATERIALIZED\s+VIEW|FOREIGN\s+TABLE|EVENT\s+TRIGGER|\w+)\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    rf"(?P<name>{_IDENTIFIER}(?:\s*\.\s*{_IDENTIFIER})*)",
    re.IGNORECASE,
)


def _remade(script: DownScript) -> list[tuple[str, str | None, str]]:
    """Type, schema and name of what a DOWN makes: the older form of a view or function, mostly."""
    made = []
    for statement in script.statements:
        match = _CREATE.match(statement.text) if statement.kind.startswith("CREATE") else None
        if match is not None:
            parts = [part if part.startswith('"') else part.lower() for part in re.findall(_IDENTIFIER, match["name"])]
            names = [bare_name(part) for part in parts]
            type_ = " ".join(match["type"].lower().split())
            made.append((type_, names[-2] if len(names) > 1 else None, names[-1]))
    return made


def _same(named: NamedObject, made: tuple[str, str | None, str]) -> bool:
    type_, schema, name = made
    # CREATE INDEX and CREATE TRIGGER give no schema, DROP INDEX may.
    return (named.type, named.name) == (type_, name) and (None in (named.schema, schema) or named.schema == schema)


class TableLedger:
    """A table with one row a version, as most home-grown tools keep one."""

    def __init__(self, cursor: Cursor, table: str, column: str, migrations: Sequence[Migration]) -> None:
        """:raises Refused: when the table or its column cannot be read."""
        self._name = table
        self._table, self._privileges = _existing_table(cursor, table)
        self._column = _existing_column(cursor, self._table, table, column)
        if "SELECT" not in self._privileges:
            raise Refused(_lacks("SELECT", self._table))
        cursor.execute(f"SELECT {self._column}::pg_catalog.text FROM {self._table}")
        rows = [row[0] for row in cursor.fetchall() if row[0] is not None]
        self._rows: Mapping[str, list[str]] = {
            item.version: [row for row in rows if is_row_of(row, item)] for item in migrations
        }
        known = {row for found in self._rows.values() for row in found}
        self._unknown = [row for row in rows if row not in known]

    def state(self, migration: Migration, script: DownScript | None) -> VersionState:  # noqa: ARG002 - other ledgers need it
        """Applied when the table has its row."""
        rows = self._rows.get(migration.version, [])
        return VersionState(migration.version, APPLIED if rows else ABSENT, self._name, tuple(rows))

    def unknown_versions(self) -> list[str]:
        """Rows without a migration file."""
        return list(self._unknown)

    def refuse_unfit(self, chosen: Sequence[Migration]) -> None:
        """:raises Refused: for a version with two rows, or a table that the role may not delete from."""
        for migration in chosen:
            rows = self._rows.get(migration.version, [])
            if len(rows) > 1:
                raise Refused(
                    f"{self._name} has {len(rows)} rows for version {migration.version} ({', '.join(rows)}), so which one to delete is "
                    "not certain. Nothing was stopped or changed. Leave one row there, or correct rollback_ledger_table."
                )
            if rows and "DELETE" not in self._privileges:
                raise Refused(_lacks("DELETE", self._table))

    def forget(self, cursor: Cursor, migration: Migration) -> None:
        """Delete the row of the version; a DOWN that deleted it already is fine."""
        rows = self._rows.get(migration.version, [])
        cursor.execute(f"DELETE FROM {self._table} WHERE {self._column}::pg_catalog.text = ANY(%s)", (rows,))


def _lacks(privilege: str, table: str) -> str:
    return (
        f"The role of rollback_db_user lacks {privilege} on the ledger table {table}. Nothing was stopped or changed. "
        f"As the owner of that table, run: GRANT SELECT, DELETE ON {table} TO that role."
    )


def _existing_table(cursor: Cursor, table: str) -> tuple[str, list[str]]:
    """The table's full name and the privileges on it."""
    parts = [bare_name(part if part.startswith('"') else part.lower()) for part in re.findall(_IDENTIFIER, table)]
    if not re.fullmatch(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})?", table):
        raise Refused(f"rollback_ledger_table is {table!r}, which is no name of a table. Give it as schema.table.")
    cursor.execute(
        "SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname), pg_catalog.array_remove(ARRAY["
        "CASE WHEN pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN 'SELECT' END, "
        "CASE WHEN pg_catalog.has_table_privilege(c.oid, 'DELETE') THEN 'DELETE' END], NULL) "
        "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p') AND c.oid = pg_catalog.to_regclass(%s)",
        (".".join(_quoted(part) for part in parts),),
    )
    row = cursor.fetchone()
    if row is None:
        raise Refused(
            f"The ledger table {table} does not exist. Nothing was stopped or changed. Correct rollback_ledger_table, or leave it empty."
        )
    return str(row[0]), list(row[1])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _existing_column(cursor: Cursor, table: str, given: str, column: str) -> str:
    cursor.execute(
        "SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a "
        "WHERE a.attrelid = %s::pg_catalog.regclass AND a.attname = %s AND a.attnum > 0 AND NOT a.attisdropped",
        (table, column),
    )
    row = cursor.fetchone()
    if row is None:
        raise Refused(
            f"The ledger table {given} has no column {column}. Nothing was stopped or changed. Correct rollback_ledger_column."
        )
    return str(row[0])


def is_row_of(row: str, migration: Migration) -> bool:
    """Whether a ledger's row means this migration: its version, also as a number, or its file name with or without suffix."""
    file_name = os.path.basename(migration.path or migration.down_path or "")
    if row in {migration.version, file_name, os.path.splitext(file_name)[0]}:
        return True
    return row.isdecimal() and migration.version.isdecimal() and int(row) == int(migration.version)
