# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the live database that are to be put back: which ones are meant, and what they are made of."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import typing as t

from .errors import Refused
from .row_source import TableName

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.extensions

if t.TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_UNCHANGED = "Nothing was changed."


class TablesRefused(Refused):
    """These tables cannot be put back by themselves; the database is as it was."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a live table.

    :param quoted: its name as SQL.
    :param identity: ``a`` for GENERATED ALWAYS AS IDENTITY, ``d`` for BY DEFAULT, else empty.
    :param generated: computed by the server from others.
    :param needs_value: NOT NULL, and nothing gives it a value by itself.
    """

    name: str
    quoted: str
    type: str
    identity: str
    generated: bool
    needs_value: bool


@dataclasses.dataclass(frozen=True)
class KeyColumn:
    """A column of the key by which rows are told apart, with the equality that its index uses."""

    name: str
    quoted: str
    equals: str


@dataclasses.dataclass(frozen=True)
class Switch:
    """A trigger or rule of the user's that has to be silent for as long as rows are put back.

    :param state: as in ``pg_trigger.tgenabled``: ``O`` on, ``R`` for replicas, ``A`` always.
    """

    table: str
    kind: str
    quoted: str
    state: str

    def off(self) -> str:
        """SQL that silences it."""
        return f"ALTER TABLE {self.table} DISABLE {self.kind} {self.quoted}"

    def back(self) -> str:
        """SQL that makes it as it was."""
        how = {"R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}.get(self.state, "ENABLE")
        return f"ALTER TABLE {self.table} {how} {self.kind} {self.quoted}"


@dataclasses.dataclass(frozen=True)
class LiveTable:
    """A live table.

    :param members: oids of the table and of all its partitions.
    :param key: empty where rows can only be compared as wholes.
    :param sequences: those that columns of the table own, as (column as SQL, identity of the sequence).
    """

    table: TableName
    oid: int
    partitioned: bool
    columns: tuple[Column, ...]
    key: tuple[KeyColumn, ...]
    members: tuple[int, ...]
    switches: tuple[Switch, ...]
    sequences: tuple[tuple[str, str], ...]

    @property
    def only(self) -> str:
        """The table in FROM, UPDATE and DELETE: what inherits from it has rows of its own."""
        return self.table.identity if self.partitioned else f"ONLY {self.table.identity}"


# --- names -------------------------------------------------------------------------------------------------------------


def resolve_tables(
    cursor: psycopg2.extensions.cursor, wanted: Sequence[str], backed_up: Collection[str], search_path: Sequence[str]
) -> list[TableName]:
    """The tables that are meant, each once, in the given order.

    :param wanted: names as in SQL, with or without their schema.
    :param backed_up: quoted identities of the tables in the backup.
    :param search_path: schemas in which a name without one is looked up.
    :raises TablesRefused: naming the candidates in the backup.
    """
    if not wanted:
        raise TablesRefused(
            "No table is named. Give the extra variable tables, such as -e tables=b2b.orders,b2b.order_items."
        )
    found: dict[str, TableName] = {}
    for text in wanted:
        table = _resolve(cursor, text, backed_up, search_path)
        found[table.identity] = table
    return list(found.values())


def _resolve(
    cursor: psycopg2.extensions.cursor, text: str, backed_up: Collection[str], search_path: Sequence[str]
) -> TableName:
    parts = _parts(cursor, text)
    schemas = [parts[0]] if len(parts) == 2 else list(search_path)
    candidates = [table for schema in schemas if (table := _name(cursor, schema, parts[-1])).identity in backed_up]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(table.identity for table in candidates)
        raise TablesRefused(
            f"The table {text} may be any of {names}: all are in the backup. {_UNCHANGED} Name it with its schema.",
            candidates=[table.identity for table in candidates],
        )
    near = _near(_name(cursor, "", parts[-1]).identity.partition(".")[2], text, backed_up)
    hint = f"The backup has {', '.join(near)}." if near else "The field tables of its manifest lists those that are."
    where = "" if len(parts) == 2 else f" in the schemas {', '.join(search_path)} (rollback_search_path)"
    raise TablesRefused(
        f"There is no table {text} in the backup{where}. {hint} {_UNCHANGED} Correct the extra variable tables.",
        candidates=near,
    )


def _parts(cursor: psycopg2.extensions.cursor, text: str) -> list[str]:
    cursor.execute("SAVEPOINT name")
    try:
        cursor.execute("SELECT pg_catalog.parse_ident(%s)", (text,))
        parts = [str(part) for part in cursor.fetchall()[0][0]]
    except psycopg2.DataError:
        parts = []
    cursor.execute("ROLLBACK TO SAVEPOINT name")
    if len(parts) not in (1, 2):
        raise TablesRefused(
            f"{text!r} is not the name of a table. {_UNCHANGED} Write it as in SQL: schema.table, "
            'and "quoted" where it has capitals, blanks or signs.'
        )
    return parts


def _name(cursor: psycopg2.extensions.cursor, schema: str, name: str) -> TableName:
    cursor.execute("SELECT pg_catalog.format('%%I.%%I', %s::text, %s::text)", (schema, name))
    return TableName(schema, name, str(cursor.fetchall()[0][0]))


def _near(quoted: str, text: str, backed_up: Collection[str]) -> list[str]:
    same = sorted(identity for identity in backed_up if identity.endswith(f".{quoted}"))
    return same or difflib.get_close_matches(text, sorted(backed_up), n=3)


# --- what they are -----------------------------------------------------------------------------------------------------

_TABLE = """
SELECT c.oid::pg_catalog.int8, c.relkind::text, c.relpersistence::text, pg_catalog.row_security_active(c.oid),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
       AND pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
       AND pg_catalog.has_table_privilege(c.oid, 'DELETE'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

_MEMBERS = """
SELECT p.relid::pg_catalog.oid::pg_catalog.int8, c.relkind::text, pg_catalog.format('%%I.%%I', n.nspname, c.relname)
FROM pg_catalog.pg_partition_tree(%s::pg_catalog.oid::pg_catalog.regclass) p
JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY p.level, 1
"""

_COLUMNS = """
SELECT a.attname::text, pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod), a.attidentity::text,
       a.attgenerated <> '', (a.attnotnull OR y.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' AND y.typdefault IS NULL
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

# Every unique index is a btree, and strategy 3 of a btree's operators is equality.
_KEYS = """
SELECT x.indexrelid::pg_catalog.int8, a.attname::text, pg_catalog.quote_ident(a.attname),
       pg_catalog.format('OPERATOR(%I.%s)', n.nspname, p.oprname), a.attnotnull, a.attgenerated <> ''
FROM pg_catalog.pg_index x
CROSS JOIN LATERAL pg_catalog.generate_series(0, x.indnkeyatts - 1) k(number)
JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[k.number]
JOIN pg_catalog.pg_opclass o ON o.oid = x.indclass[k.number]
JOIN pg_catalog.pg_amop m ON m.amopfamily = o.opcfamily AND m.amopstrategy = 3
     AND m.amoplefttype = o.opcintype AND m.amoprighttype = o.opcintype
JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
WHERE x.indrelid = {oid} AND x.indisunique AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
ORDER BY NOT x.indisprimary, x.indnkeyatts, 1, k.number
"""

# Those that enforce foreign keys and deferred uniqueness are internal and belong to a constraint; a partition's copy of a
# user's trigger may be internal, but belongs to none.
_SWITCHES = """
SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname), s.kind, pg_catalog.quote_ident(s.name), s.state
FROM (SELECT tgrelid, 'TRIGGER', tgname, tgenabled::text, oid FROM pg_catalog.pg_trigger
      WHERE (NOT tgisinternal OR tgconstraint = 0) AND tgenabled <> 'D'
      UNION ALL
      SELECT ev_class, 'RULE', rulename, ev_enabled::text, oid FROM pg_catalog.pg_rewrite
      WHERE ev_type <> '1' AND ev_enabled <> 'D') AS s (relation, kind, name, state, oid)
JOIN pg_catalog.pg_class c ON c.oid = s.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE s.relation = ANY(%s::pg_catalog.oid[]) ORDER BY pg_catalog.array_position(%s::pg_catalog.oid[], s.relation), s.oid
"""

_SEQUENCES = """
SELECT DISTINCT pg_catalog.quote_ident(a.attname), pg_catalog.format('%%I.%%I', n.nspname, q.relname)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class q ON q.oid = d.objid AND q.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = q.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 AND d.refobjid = ANY(%s::pg_catalog.oid[]) ORDER BY 2
"""


def read_table(cursor: psycopg2.extensions.cursor, table: TableName, user: str, backup_id: str) -> LiveTable:
    """Everything about a live table that putting its rows back depends on.

    :param user: role of the run, for messages.
    :raises TablesRefused: it is missing, not a table, or not wholly seen or not to be written by the role.
    """
    cursor.execute(_TABLE, (table.schema, table.name))
    row = cursor.fetchone()
    if row is None:
        raise TablesRefused(
            f"The table {table.identity} is in the backup and not in the live database, and only rows are put back here. "
            f"{_UNCHANGED} Restore the whole database: ansible-playbook playbooks/emergency_rollback.yml -e backup={backup_id}",
            table=table.identity,
        )
    oid, kind, persistence, filtered, allowed, owns, owner = row
    if kind not in "rp" or persistence == "t":
        what = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}.get(kind, "a temporary table")
        raise TablesRefused(
            f"{table.identity} is {what} in the live database, and has no rows of its own to put back. {_UNCHANGED} "
            "Name the tables that it reads.",
            table=table.identity,
        )
    _refuse_unseen(table, user, filtered, allowed)
    members = _members(cursor, table, oid) if kind == "p" else (oid,)
    cursor.execute(_SWITCHES, (list(members), list(members)))
    switches = tuple(Switch(*found) for found in cursor.fetchall())
    if switches and not owns:
        raise TablesRefused(
            f"The table {table.identity} has triggers or rules that must be silent while its rows are put back, and the role {user} may not "
            f"silence them: {table.identity} belongs to {owner}. {_UNCHANGED} Set rollback_db_user to {owner}, or run: GRANT {owner} TO {user}",
            table=table.identity,
        )
    cursor.execute(_SEQUENCES, (list(members),))
    sequences = tuple((str(column), str(sequence)) for column, sequence in cursor.fetchall())
    return LiveTable(
        table, oid, kind == "p", _columns(cursor, oid), _key(cursor, oid), members, switches, sequences
    )  # fmt: skip


def _refuse_unseen(table: TableName, user: str, filtered: bool, allowed: bool) -> None:
    if not allowed:
        raise TablesRefused(
            f"The role {user} may not read and write {table.identity}. {_UNCHANGED} Set rollback_db_user to the table's owner, "
            f"or run: GRANT SELECT, INSERT, UPDATE, DELETE ON {table.identity} TO {user}",
            table=table.identity,
        )
    if filtered:
        raise TablesRefused(
            f"Row security hides rows of {table.identity} from the role {user}, so what differs cannot be told. {_UNCHANGED} "
            "Set rollback_db_user to the table's owner or to a role with BYPASSRLS.",
            table=table.identity,
        )


def _members(cursor: psycopg2.extensions.cursor, table: TableName, oid: int) -> tuple[int, ...]:
    cursor.execute(_MEMBERS, (oid,))
    rows = cursor.fetchall()
    foreign = [identity for _oid, kind, identity in rows if kind == "f"]
    if foreign:
        raise TablesRefused(
            f"{foreign[0]}, a partition of {table.identity}, is a foreign table. {_UNCHANGED} Name the other partitions by themselves.",
            table=table.identity,
        )
    return tuple(int(row[0]) for row in rows)


def _columns(cursor: psycopg2.extensions.cursor, oid: int) -> tuple[Column, ...]:
    cursor.execute(_COLUMNS, (oid,))
    return tuple(Column(*row) for row in cursor.fetchall())


def _key(cursor: psycopg2.extensions.cursor, oid: int) -> tuple[KeyColumn, ...]:
    """The primary key, or else the shortest unique index that holds every row at once."""
    cursor.execute(_KEYS.replace("{oid}", str(int(oid))))
    indexes: dict[int, list[tuple[t.Any, ...]]] = {}
    for index, *rest in cursor.fetchall():
        indexes.setdefault(index, []).append(tuple(rest))
    for columns in indexes.values():
        if all(not_null and not generated for _name, _quoted, _equals, not_null, generated in columns):
            return tuple(KeyColumn(name, quoted, equals) for name, quoted, equals, _null, _generated in columns)
    return ()


# --- foreign keys ------------------------------------------------------------------------------------------------------

_FOREIGN_KEYS = """
SELECT k.conname::text, pg_catalog.format('%%I.%%I', cn.nspname, c.relname), pg_catalog.format('%%I.%%I', pn.nspname, p.relname)
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE k.contype = 'f' AND (k.conrelid = ANY(%s::pg_catalog.oid[]) OR k.confrelid = ANY(%s::pg_catalog.oid[]))
"""


class ForeignKey(t.NamedTuple):
    """A foreign key from or to a table that is put back; tables by identity."""

    name: str
    child: str
    parent: str


def foreign_keys(cursor: psycopg2.extensions.cursor, tables: Sequence[LiveTable]) -> list[ForeignKey]:
    """All foreign keys that putting rows back may break."""
    oids = [oid for table in tables for oid in table.members]
    cursor.execute(_FOREIGN_KEYS, (oids, oids))
    return [ForeignKey(*row) for row in cursor.fetchall()]
