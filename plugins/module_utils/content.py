# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database holds at one moment, as numbers: proof that it, or what was restored from it, holds the same at another.

Each part of what pg_dump writes has a count and a sum of 64-bit hashes, taken on the server, whatever the order: the
rows of each table, large objects, and the rows of the system catalogs. The seed is new for each backup.

Hashing the row as it is would miss changes, because PostgreSQL's hash functions serve equality (measured on 15: 5 and
-5, 1.0 and 1.00, -1 and 4294967295, '1 day' and '24 hours' are one hash each), and because the hash of a row is linear in
those of its columns, so that a sum over rows stays the same when two rows exchange a value. So a column is hashed by its
bytes where its hash function does that, otherwise by what its type sends or prints, and the row's hash is hashed again.

The sums of rows and large objects are the same in a restored database, whose oids are others and whose inherited columns
can stand in another order: enums count by their labels, columns in the order of their names. Those of the system catalogs
are not.
"""

from __future__ import annotations

import dataclasses
import secrets
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .catalog import Cursor

#: Count and sum of hashes; the sum as text, it is wider than 64 bits.
Sum = tuple[int, str]

#: PostgreSQL 14 made rows hashable.
FIRST_WITH_ROW_HASH = 140000
BATCH = 50
#: Pages (8 kB) from which on a table has a query of its own.
LARGE_PAGES = 1024
LARGE_OBJECT_CHUNK = 1 << 20

#: What is printed must not depend on the role's or the database's settings. jit compiles longer than it saves here.
SETTINGS = (
    "SET lc_monetary = 'C'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET extra_float_digits = 3; "
    "SET bytea_output = 'hex'; SET row_security = off; SET jit = off"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with rows of its own that a dump holds.

    :param columns: expressions, one a column.
    :param counters: rows inserted, updated and deleted as the server's statistics have it.
    :param file: number of its file, which TRUNCATE and rewrites change.
    """

    oid: int
    identity: str
    pages: int
    columns: tuple[str, ...]
    counters: tuple[int, ...]
    file: int

    @property
    def activity(self) -> tuple[int, ...]:
        """What is noted of it as a hint."""
        return (*self.counters, self.file)


@dataclasses.dataclass(frozen=True)
class Content:
    """A database at one moment.

    :param tables: count and sum by quoted name.
    :param activity: ``[inserted, updated, deleted, file]`` by quoted name: hints where to look first, proof of nothing.
    :param sequences: last value and whether it was handed out, by quoted name.
    :param catalogs: count and sum by system catalog.
    :param large_objects: count and sum of their pieces.
    """

    seed: int
    tables: Mapping[str, Sum] = dataclasses.field(default_factory=dict)
    activity: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    sequences: Mapping[str, tuple[int, bool]] = dataclasses.field(default_factory=dict)
    catalogs: Mapping[str, Sum] = dataclasses.field(default_factory=dict)
    large_objects: Sum = (0, "0")

    def to_dict(self) -> dict[str, t.Any]:
        """For the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, t.Any]) -> t.Self:
        """From the manifest.

        :raises TypeError: where it is none.
        :raises KeyError: where a part is missing.
        """
        return cls(
            seed=int(values["seed"]),
            large_objects=_pair(values["large_objects"]),
            sequences={name: (int(last), bool(called)) for name, (last, called) in values["sequences"].items()},
            activity={name: tuple(map(int, numbers)) for name, numbers in values["activity"].items()},
            tables={name: _pair(entry) for name, entry in values["tables"].items()},
            catalogs={name: _pair(entry) for name, entry in values["catalogs"].items()},
        )


def _pair(entry: t.Any) -> Sum:
    number, total = entry
    return int(number), str(total)


def new_seed() -> int:
    """Nobody who writes rows can know which of them have one hash."""
    return secrets.randbits(62)


# --- tables -----------------------------------------------------------------------------------------------------------

#: Hashed byte by byte by the hash function of the type, as are text and varchar. For all others that is not so, or not
#: for certain. 18 is "char" with its quotes.
_BYTES = "bool,18,int2,int4,oid,date,uuid,name,bytea"
#: Their binary form holds all that makes a value, sign, scale and negative zero included.
_SENT = "int8,numeric,float4,float8,time,timestamp,timestamptz,timetz,interval"

#: Members of an extension have rows in a dump only where the extension says so.
_TABLES = """
SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname), c.relpages,
       (SELECT array_agg(CASE
                   WHEN y.oid = ANY ('{text,varchar}'::regtype[]) THEN format('x.%I COLLATE "C"', a.attname)
                   WHEN y.typtype = 'e' THEN format('x.%I::pg_catalog.text COLLATE "C"', a.attname)
                   WHEN y.oid = ANY ('{bytes}'::regtype[]) THEN format('x.%I', a.attname)
                   WHEN y.oid = ANY ('{sent}'::regtype[]) THEN format('pg_catalog.%s(x.%I)', y.typsend, a.attname)
                   ELSE format('pg_catalog.concat_ws('','', pg_catalog.num_nulls(x.%1$I), x.%1$I)', a.attname) END
               ORDER BY a.attname COLLATE "C")
          FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'),
       pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid),
       coalesce(pg_relation_filenode(c.oid), 0)::bigint
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'
                      AND NOT EXISTS (SELECT FROM pg_extension x WHERE x.oid = e.refobjid AND c.oid = ANY (x.extconfig)))
 ORDER BY c.relpages DESC, c.oid
"""


def read_tables(cursor: Cursor) -> list[Table]:
    """Every table whose rows a dump holds, the largest first; the search path must be ``pg_catalog``."""
    cursor.execute(_TABLES.replace("{bytes}", f"{{{_BYTES}}}").replace("{sent}", f"{{{_SENT}}}"))
    return [
        Table(oid, identity, pages, tuple(columns or ()), (inserted, updated, deleted), file)
        for oid, identity, pages, columns, inserted, updated, deleted, file in cursor.fetchall()
    ]


def sum_query(tables: Sequence[Table], seed: int, server_version: int) -> str:
    """One statement with a row for each table: oid, count, sum."""
    return " UNION ALL ".join(
        f"SELECT {table.oid}::bigint, count(*), coalesce(sum({_row_hash(table, seed, server_version)}), 0)::text "
        f"FROM ONLY {table.identity} AS x"
        for table in tables
    )


def _row_hash(table: Table, seed: int, server_version: int) -> str:
    if server_version < FIRST_WITH_ROW_HASH:
        return f"hashtextextended(ROW({', '.join(table.columns)})::text, {seed})"
    # Without the second hash the sum would be linear in the columns.
    return f"hashtextextended(hash_record_extended(ROW({', '.join(table.columns)}), {seed})::text, {seed})"


def read_rows(cursor: Cursor, tables: Sequence[Table], seed: int, server_version: int) -> dict[int, Sum]:
    """Count and sum of each table, by oid."""
    found: dict[int, Sum] = {}
    for batch in in_batches(tables):
        cursor.execute(sum_query(batch, seed, server_version))
        found.update({oid: (number, total) for oid, number, total in cursor.fetchall()})
    return found


def with_partitioned(sums: Mapping[int, Sum], parents: Mapping[int, int | None]) -> dict[int, Sum]:
    """Sums of tables by oid, and those of the partitioned tables that they belong to, in whichever partition a row lies.

    :param parents: partitioned table of each table; ``None``: it belongs to none.
    """
    found = dict.fromkeys(parents, (0, "0"))
    for oid, (number, total) in sums.items():
        ancestor: int | None = oid
        while ancestor is not None and ancestor in found:
            rows, sum_of_rows = found[ancestor]
            found[ancestor] = (rows + number, str(int(sum_of_rows) + int(total)))
            ancestor = parents[ancestor]
    return found


def in_batches(tables: Iterable[Table]) -> list[list[Table]]:
    """Large tables one by one, the small ones together, in the given order."""
    batches: list[list[Table]] = []
    small: list[Table] = []
    for table in tables:
        if table.pages >= LARGE_PAGES:
            batches.append([table])
            continue
        if not small or len(small) == BATCH:
            small = []
            batches.append(small)
        small.append(table)
    return batches


# --- sequences, large objects, catalogs -------------------------------------------------------------------------------

_SEQUENCES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relpersistence <> 't' AND has_schema_privilege(n.oid, 'USAGE')
   AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') END
   AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'
                      AND NOT EXISTS (SELECT FROM pg_extension x WHERE x.oid = e.refobjid AND c.oid = ANY (x.extconfig)))
 ORDER BY 1
"""

#: 262144 is INV_READ. pg_largeobject itself is for superusers only.
_LARGE_OBJECTS = """
SELECT count(*), coalesce(sum(hashtextextended(concat_ws(' ', oid, start, sha256(lo_get(oid, start, {chunk}))), {seed})), 0)::text
  FROM (SELECT oid, lo_lseek64(fd, 0, 2) AS size, fd
          FROM (SELECT oid, lo_open(oid, 262144) AS fd FROM pg_largeobject_metadata OFFSET 0) opened OFFSET 0) sized,
       LATERAL (SELECT lo_close(fd) OFFSET 0) closed, LATERAL generate_series(0, size, {chunk}) AS start
"""

_TEMPORARY = "NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')"
#: Temporary tables of other sessions come and go, and no dump holds them. Of dependencies a dump writes members of
#: extensions, what depends on one, and who owns a sequence.
_ONLY = {
    "pg_class": "x.relpersistence <> 't'",
    "pg_attribute": f"x.attrelid {_TEMPORARY}",
    "pg_index": f"x.indrelid {_TEMPORARY}",
    "pg_constraint": f"x.conrelid {_TEMPORARY}",
    "pg_attrdef": f"x.adrelid {_TEMPORARY}",
    "pg_sequence": f"x.seqrelid {_TEMPORARY}",
    "pg_trigger": f"x.tgrelid {_TEMPORARY}",
    "pg_inherits": f"x.inhrelid {_TEMPORARY}",
    "pg_rewrite": f"x.ev_class {_TEMPORARY}",
    "pg_type": "x.typnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_temp')",
    "pg_namespace": "x.nspname !~ '^pg_(toast_)?temp'",
    "pg_depend": f"x.objid {_TEMPORARY} AND (x.deptype IN ('e', 'x') OR x.classid = 'pg_class'::regclass "
    "AND x.objid IN (SELECT seqrelid FROM pg_sequence))",
}

#: What VACUUM, ANALYZE, REINDEX and REFRESH change, and no dump holds.
_VOLATILE = (
    "relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid,relfilenode,relhasindex,relhasrules,"
    "relhastriggers,relhassubclass,indcheckxmin"
)

_CATALOGS = """
SELECT c.relname::text, string_agg(format('x.%I', a.attname), ', ' ORDER BY a.attnum)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' AND NOT c.relisshared
   AND c.relname NOT IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject', 'pg_subscription_rel')
   AND has_table_privilege(c.oid, 'SELECT') AND a.attname <> ALL ('{volatile}')
 GROUP BY 1 ORDER BY 1
"""

_OWN_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
#: What the whole cluster has: the roles and tablespaces beside the dump, and this database's own properties.
SHARED = {
    "pg_roles": "SELECT (x.*)::text FROM pg_roles x",
    "pg_auth_members": "SELECT (x.*)::text FROM pg_auth_members x",
    "pg_tablespace": "SELECT (x.*)::text FROM pg_tablespace x",
    "pg_shdescription": "SELECT (x.*)::text FROM pg_shdescription x",
    "pg_shseclabel": "SELECT (x.*)::text FROM pg_shseclabel x",
    "pg_db_role_setting": f"SELECT (x.*)::text FROM pg_db_role_setting x WHERE setdatabase IN (0, {_OWN_DATABASE})",
    "pg_subscription": "SELECT ROW(oid, subname, subowner, subenabled, subpublications)::text FROM pg_subscription x "
    f"WHERE subdbid = {_OWN_DATABASE}",
    "pg_database": "SELECT (to_jsonb(x) - '{datfrozenxid,datminmxid,datlastsysoid}'::text[])::text FROM pg_database x "
    "WHERE datname = current_database()",
}


def read_sequences(cursor: Cursor) -> dict[str, tuple[int, bool]]:
    """Where each sequence that a dump holds stands now; sequences know no transactions."""
    cursor.execute(_SEQUENCES)
    names = [name for (name,) in cursor.fetchall()]
    found: dict[str, tuple[int, bool]] = {}
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT {number}, last_value, is_called FROM {name}" for number, name in enumerate(batch)
            )
        )
        found.update({batch[number]: (last, called) for number, last, called in cursor.fetchall()})
    return found


def read_large_objects(cursor: Cursor, seed: int) -> Sum:
    """Pieces of all large objects."""
    cursor.execute(_LARGE_OBJECTS.replace("{seed}", str(seed)).replace("{chunk}", str(LARGE_OBJECT_CHUNK)))
    ((pieces, total),) = cursor.fetchall()
    return pieces, total


def read_catalogs(cursor: Cursor, seed: int) -> dict[str, Sum]:
    """Every row of the system catalogs that a dump is drawn from, by name of the catalog."""
    cursor.execute(_CATALOGS.replace("volatile", _VOLATILE))
    rows = {
        name: f"SELECT ROW({columns})::text FROM {name} x WHERE {_ONLY.get(name, 'true')}"
        for name, columns in cursor.fetchall()
    }
    cursor.execute(
        " UNION ALL ".join(
            f"SELECT '{name}', count(*), coalesce(sum(hashtextextended(r, {seed})), 0)::text FROM ({query}) AS q (r)"
            for name, query in {**rows, **SHARED}.items()
        )
    )
    return {name: (number, total) for name, number, total in cursor.fetchall()}


# --- comparison -------------------------------------------------------------------------------------------------------


def suspects(tables: Sequence[Table], before: Content) -> list[Table]:
    """Tables that the statistics or a new file say were written to, the smallest first.

    Only a hint: statistics come late, can be reset, and count what was rolled back.
    """
    found = [table for table in tables if _was_written(table, before.activity.get(table.identity))]
    return sorted(found, key=lambda table: table.pages)


def _was_written(table: Table, before: tuple[int, ...] | None) -> bool:
    if before is None:
        return True
    *counters, file = before
    return file != table.file or any(now > then for now, then in zip(table.counters, counters, strict=True))


def differences(before: Mapping[str, t.Any], now: Mapping[str, t.Any]) -> list[str]:
    """Names whose entries differ, or that only one of the two has."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
