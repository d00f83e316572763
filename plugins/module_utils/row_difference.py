# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a table as a backup has them beside the live ones: what differs, and the one statement that puts them back.

The rows of the backup lie in temporary tables of the one session: nobody else sees them, they are not written ahead, and
they go with the transaction, whether it commits, is undone, or its program is killed.

Two rows are the same when their bytes are (``record_image_eq``, which needs no equality of the types: json, xml, point),
or else their texts, because a text is what a backup holds: the bytes of an array may come back in another form.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .copy_text import CHUNK_BYTES
from .errors import FailedUnchanged, RollbackError
from .live_table import LiveTable, TablesRefused

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg2.extensions

    from .live_table import Column
    from .row_source import Part, RowSource

#: Keys of each sort that are shown.
SAMPLES = 5
SAMPLE_CHARACTERS = 100
_SORTS = {
    "missing": "d.live IS NULL",
    "extra": "d.side IS NULL",
    "changed": "d.live IS NOT NULL AND d.side IS NOT NULL",
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """How many rows differ.

    :param missing: in the backup, not in the live table.
    :param extra: in the live table, not in the backup.
    :param changed: in both, and not the same.
    """

    missing: int
    extra: int
    changed: int


class SideTable:
    """The rows of one table as the backup has them, and their difference to the live ones.

    :param number: tells the temporary tables of a run apart.
    """

    def __init__(self, cursor: psycopg2.extensions.cursor, live: LiveTable, number: int) -> None:
        self._cursor = cursor
        self.live = live
        self._rows = f"cypher_rollback_rows_{number}"
        self._difference = f"cypher_rollback_difference_{number}"
        self._number = number
        self.columns: tuple[Column, ...] = ()
        self.backup_rows = 0

    # --- the rows of the backup ----------------------------------------------------------------------------------------

    def load(self, source: RowSource) -> None:
        """Read all rows out of the backup.

        :raises TablesRefused: the columns are not those that the live table has.
        :raises FailedUnchanged: the backup cannot be read to its end.
        """
        types = {column.name: column.type for column in self.live.columns}
        other = source.other_types(self.live.table, types)
        for part in source.parts(self.live.table, self.live.partitioned):
            if not self.columns:
                self._create(part, other)
            self._copy(part)
        if not self.columns:
            self._create_for(tuple(column for column in self.live.columns if not column.generated))
        self._cursor.execute(f"ANALYZE pg_temp.{self._rows}")

    def _create(self, part: Part, other: dict[str, str]) -> None:
        by_name = {column.name: column for column in self.live.columns if not column.generated}
        identity = self.live.table.identity
        gone = [name for name in part.columns if name not in by_name]
        if gone or not part.columns:
            raise TablesRefused(
                f"The backup has columns of {identity} that the live table has not, or computes itself: {', '.join(gone) or '(none at all)'}. "
                f"{_INSTEAD}",
                columns=gone,
            )
        changed = [f"{name} (then: {other[name]}; now: {by_name[name].type})" for name in part.columns if name in other]
        if changed:
            raise TablesRefused(
                f"Columns of {identity} have another type than in the backup: {', '.join(changed)}. {_INSTEAD}",
                columns=[name for name in part.columns if name in other],
            )
        self._create_for(tuple(by_name[name] for name in part.columns))

    def _create_for(self, columns: tuple[Column, ...]) -> None:
        if not columns:
            raise TablesRefused(f"{self.live.table.identity} has no columns to put back. Nothing was changed.")
        self.columns = columns
        self._cursor.execute(
            f"CREATE TEMPORARY TABLE {self._rows} ON COMMIT DROP AS SELECT {_list(columns)} FROM {self.live.only} WITH NO DATA"
        )

    def _copy(self, part: Part) -> None:
        by_name = {column.name: column for column in self.columns}
        if set(part.columns) != set(by_name):
            raise TablesRefused(
                f"The partitions of {self.live.table.identity} in the backup have different columns. {_INSTEAD}"
            )
        names = ", ".join(by_name[name].quoted for name in part.columns)
        reader = _Remembering(part)
        try:
            self._cursor.copy_expert(
                f"COPY pg_temp.{self._rows} ({names}) FROM STDIN (ENCODING '{part.encoding}')",
                t.cast("t.TextIO", reader),
                CHUNK_BYTES,
            )
        except Exception:
            if reader.error is not None:
                raise reader.error from None
            raise
        self.backup_rows += self._cursor.rowcount

    # --- what differs --------------------------------------------------------------------------------------------------

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the columns that tell rows apart; empty where the backup lacks one of them, or there is no key."""
        known = {column.name for column in self.columns}
        names = tuple(column.name for column in self.live.key)
        return names if set(names) <= known else ()

    def compare(self) -> Difference:
        """Find the rows that differ, now."""
        self._cursor.execute(f"DROP TABLE IF EXISTS pg_temp.{self._difference}")
        query = self._by_key() if self.key else self._by_whole_rows()
        self._cursor.execute(f"CREATE TEMPORARY TABLE {self._difference} ON COMMIT DROP AS {query}")
        self._cursor.execute(f"ANALYZE pg_temp.{self._difference}")
        counts = ", ".join(f"count(*) FILTER (WHERE {sort})" for sort in _SORTS.values())
        self._cursor.execute(f"SELECT {counts} FROM pg_temp.{self._difference} d")
        return Difference(*self._cursor.fetchall()[0])

    def _by_key(self) -> str:
        joined = " AND ".join(f"s.{key.quoted} {key.equals} l.{key.quoted}" for key in self.live.key)
        side, live = _row("s", self.columns), _row("l", self.columns)
        return (
            f"SELECT s.ctid AS side, l.ctid AS live, l.tableoid AS member FROM pg_temp.{self._rows} s "
            f"FULL JOIN {self.live.only} l ON ({joined}) WHERE s.ctid IS NULL OR l.ctid IS NULL "
            f"OR (pg_catalog.record_image_ne({side}, {live}) AND {_text(side)} <> {_text(live)})"
        )

    def _by_whole_rows(self) -> str:
        """Equal rows are numbered, so that each of the one side finds at most one of the other."""
        text = _text(_row("x", self.columns))
        numbered = f"{text} AS image, pg_catalog.row_number() OVER (PARTITION BY {text}) AS number"
        return (
            "SELECT s.ctid AS side, l.ctid AS live, l.member FROM "
            f"(SELECT x.ctid, {numbered} FROM pg_temp.{self._rows} x) s FULL JOIN "
            f"(SELECT x.ctid, x.tableoid AS member, {numbered} FROM {self.live.only} x) l "
            "ON s.image = l.image AND s.number = l.number WHERE s.ctid IS NULL OR l.ctid IS NULL"
        )

    def samples(self) -> dict[str, list[dict[str, str]]]:
        """Keys of some rows of each sort; none where there is no key."""
        if not self.key:
            return {}
        found = {}
        for sort, condition in _SORTS.items():
            row = "l" if sort == "extra" else "s"
            keys = ", ".join(
                f"pg_catalog.left({row}.{key.quoted}::pg_catalog.text, {SAMPLE_CHARACTERS})" for key in self.live.key
            )
            self._cursor.execute(f"SELECT {keys} FROM {self._joined(row)} WHERE {condition} ORDER BY 1 LIMIT {SAMPLES}")
            found[sort] = [dict(zip(self.key, values, strict=True)) for values in self._cursor.fetchall()]
        return found

    def changed_columns(self) -> dict[str, int]:
        """Columns that differ in the rows that changed, with the number of these rows."""
        counts = ", ".join(
            f"count(*) FILTER (WHERE {_text(f'ROW(s.{column.quoted})')} <> {_text(f'ROW(l.{column.quoted})')})"
            for column in self.columns
        )
        self._cursor.execute(f"SELECT {counts} FROM {self._joined('s')} JOIN {self.live.only} l ON {_IS_LIVE}")
        numbers = self._cursor.fetchall()[0]
        return {column.name: number for column, number in zip(self.columns, numbers, strict=True) if number}

    def _joined(self, row: str) -> str:
        of_row = f"pg_temp.{self._rows} s ON s.ctid = d.side" if row == "s" else f"{self.live.only} l ON {_IS_LIVE}"
        return f"pg_temp.{self._difference} d JOIN {of_row}"

    # --- putting it back -----------------------------------------------------------------------------------------------

    def delete(self) -> str:
        """SQL that deletes the extra rows."""
        return f"DELETE FROM {self.live.only} l USING pg_temp.{self._difference} d WHERE d.side IS NULL AND {_IS_LIVE} RETURNING 1"

    def update(self, written: Sequence[Column]) -> str:
        """SQL that sets the changed rows back in these columns; all others keep their values."""
        values = ", ".join(f"{column.quoted} = s.{column.quoted}" for column in written)
        return (
            f"UPDATE {self.live.only} l SET {values} FROM pg_temp.{self._difference} d, pg_temp.{self._rows} s "
            f"WHERE s.ctid = d.side AND {_IS_LIVE} RETURNING 1"
        )

    def insert(self) -> str:
        """SQL that inserts the missing rows; columns that the backup has not get their defaults."""
        return (
            f"INSERT INTO {self.live.table.identity} ({_list(self.columns)}) OVERRIDING SYSTEM VALUE "
            f"SELECT {_list(self.columns, 's.')} FROM pg_temp.{self._difference} d JOIN pg_temp.{self._rows} s ON s.ctid = d.side "
            "WHERE d.live IS NULL RETURNING 1"
        )

    def columns_without_value(self) -> list[str]:
        """Columns that only the live table has and that an inserted row would have no value for."""
        known = {column.name for column in self.columns}
        return [column.name for column in self.live.columns if column.needs_value and column.name not in known]


_IS_LIVE = "l.ctid = d.live AND l.tableoid = d.member"
_INSTEAD = (
    "Nothing was changed. Rows of another shape cannot be put back by themselves: roll back the migration that changed the table, "
    "or restore the whole database with playbooks/emergency_rollback.yml."
)


class _Remembering:
    """Rows on their way; what goes wrong on their side is kept, because the driver turns it into a text."""

    def __init__(self, part: Part) -> None:
        self._rows = part.rows
        self.error: RollbackError | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        try:
            return self._rows.read(size)
        except RollbackError as err:
            self.error = err
            raise
        except OSError as err:
            self.error = FailedUnchanged(f"The backup cannot be read: {err.strerror}. Nothing was changed.")
            raise


def _list(columns: Sequence[Column], before: str = "") -> str:
    return ", ".join(f"{before}{column.quoted}" for column in columns)


def _row(alias: str, columns: Sequence[Column]) -> str:
    return f"ROW({_list(columns, f'{alias}.')})"


def _text(row: str) -> str:
    return f'{row}::pg_catalog.text COLLATE pg_catalog."C"'
