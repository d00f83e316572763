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
import typing as t

from .errors import FailedUnchanged, Refused
from .names import KNOWN_TYPES

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .migrations import DownScript, Migration
    from .names import Names
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
            return "its DOWN names no object that it drops"
        total = len(self.present) + len(self.missing)
        return f"{len(self.present)} of the {total} objects that its DOWN names are there"

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return {"state": self.state, "source": self.source, "present": list(self.present), "missing": list(self.missing)}


class Cursor(t.Protocol):
    """What is needed of a database cursor."""

    rowcount: int

    def execute(self, query: str, vars: t.Any = ..., /) -> object: ...

    def fetchone(self) -> tuple[t.Any, ...] | None: ...

    def fetchall(self) -> list[tuple[t.Any, ...]]: ...


class Ledger(t.Protocol):
    """A record of what is applied."""

    def state(self, migration: Migration, script: DownScript | None) -> VersionState:
        """Whether one migration is applied. Without a readable DOWN, the objects tell nothing."""

    def unknown_versions(self) -> list[str]:
        """Versions that are recorded as applied and have no migration file."""

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
        resolved = self._names.resolve_all(_evidence(script))
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

    def forget(self, cursor: Cursor, migration: Migration) -> None:
        """Nothing to do: with the objects the evidence is gone."""


def _evidence(script: DownScript) -> Sequence[NamedObject]:
    named = dict.fromkeys(item for statement in script.statements for item in statement.drops if item.type in KNOWN_TYPES)
    of_this_database = [item for item in named if item.type not in _SHARED_TYPES]
    return of_this_database or list(named)


class TableLedger:
    """A table with one row a version, as most home-grown tools keep one."""

    def __init__(self, cursor: Cursor, table: str, column: str, migrations: Sequence[Migration]) -> None:
        """:raises Refused: when the table or its column cannot be read."""
        self._name = table
        self._table = _existing_table(cursor, table)
        self._column = _existing_column(cursor, self._table, table, column)
        cursor.execute(f"SELECT {self._column}::pg_catalog.text FROM {self._table}")
        rows = [row[0] for row in cursor.fetchall() if row[0] is not None]
        self._rows: Mapping[str, list[str]] = {item.version: [row for row in rows if is_row_of(row, item)] for item in migrations}
        known = {row for found in self._rows.values() for row in found}
        self._unknown = [row for row in rows if row not in known]

    def state(self, migration: Migration, script: DownScript | None) -> VersionState:
        """Applied when the table has its row."""
        rows = self._rows.get(migration.version, [])
        return VersionState(migration.version, APPLIED if rows else ABSENT, self._name, tuple(rows))

    def unknown_versions(self) -> list[str]:
        """Rows without a migration file."""
        return list(self._unknown)

    def forget(self, cursor: Cursor, migration: Migration) -> None:
        """Delete the row of the version; a DOWN that deleted it already is fine."""
        rows = self._rows.get(migration.version, [])
        cursor.execute(f"DELETE FROM {self._table} WHERE {self._column}::pg_catalog.text = ANY(%s)", (rows,))
        if cursor.rowcount > 1:
            raise FailedUnchanged(
                f"{self._name} has {cursor.rowcount} rows for version {migration.version}, so which one to delete is not certain. "
                "Nothing was changed. Leave one row there, or correct rollback_ledger_table."
            )


def _existing_table(cursor: Cursor, table: str) -> str:
    cursor.execute(
        "SELECT c.oid::pg_catalog.regclass::text, pg_catalog.format('%%I.%%I', n.nspname, c.relname) FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(%s)",
        (table,),
    )
    row = cursor.fetchone()
    if row is None:
        raise Refused(f"The ledger table {table} does not exist. Correct rollback_ledger_table, or leave it empty.")
    return str(row[1])


def _existing_column(cursor: Cursor, table: str, given: str, column: str) -> str:
    cursor.execute(
        "SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a "
        "WHERE a.attrelid = %s::pg_catalog.regclass AND a.attname = %s AND a.attnum > 0 AND NOT a.attisdropped",
        (table, column),
    )
    row = cursor.fetchone()
    if row is None:
        raise Refused(f"The ledger table {given} has no column {column}. Correct rollback_ledger_column.")
    return str(row[0])


def is_row_of(row: str, migration: Migration) -> bool:
    """Whether a ledger's row means this migration: its version, also as a number, or its file name with or without suffix."""
    file_name = os.path.basename(migration.path or migration.down_path or "")
    if row in {migration.version, file_name, os.path.splitext(file_name)[0]}:
        return True
    return row.isdecimal() and migration.version.isdecimal() and int(row) == int(migration.version)
