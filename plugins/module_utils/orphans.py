# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orphans: rows that refer to a row which is not there, under every foreign key of the database.

A foreign key keeps them out only while it is valid and its triggers fire. NOT VALID leaves the old rows unread, and
``session_replication_role = replica`` or a disabled trigger lets new ones in, after which the constraint still calls itself
valid. So the rows are read, in the way of PostgreSQL's own RI_Initial_Check (ri_triggers.c): of MATCH SIMPLE, a row with a
NULL in its key refers to nothing; of MATCH FULL, one with some NULLs and not all is wrong by itself.

A foreign key that is not enforced (PostgreSQL 18) is not meant to hold, and is left out.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .budget import Budget, NotChecked
from .checks import FAILED, INFORMATION, PASSED, Check, some

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .catalog import Cursor
    from .rolled_back import RolledBack

#: Seconds during a stop for all foreign keys whose tables the rollback did not change: what is found there is older.
UNCHANGED_SECONDS = 1.0

_COLUMNS = (
    "(SELECT pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) ORDER BY u.place) FROM pg_catalog.unnest({key}) "
    "WITH ORDINALITY u(number, place) JOIN pg_catalog.pg_attribute a ON a.attrelid = {rel} AND a.attnum = u.number)"
)
#: Operators between referenced and referring column, and the collation where the two have different ones.
_OPERATORS = """
(SELECT pg_catalog.array_agg(
    CASE WHEN pa.attcollation <> fa.attcollation AND pa.attcollation <> 0
         THEN (SELECT pg_catalog.format('COLLATE %I.%I ', ln.nspname, l.collname) FROM pg_catalog.pg_collation l
               JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace WHERE l.oid = pa.attcollation) ELSE '' END
    || pg_catalog.format('OPERATOR(%I.%s)', opn.nspname, op.oprname) ORDER BY u.place)
 FROM ROWS FROM (pg_catalog.unnest(k.conpfeqop), pg_catalog.unnest(k.confkey), pg_catalog.unnest(k.conkey))
      WITH ORDINALITY u(operator, theirs, ours, place)
 JOIN pg_catalog.pg_operator op ON op.oid = u.operator JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
 JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.theirs
 JOIN pg_catalog.pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = u.ours)
"""
#: Those of partitions are parts of their parent's, which is read in their place. What is asked of a table is asked once.
_FOREIGN_KEYS = f"""
WITH RECURSIVE family(root, oid) AS (
    SELECT k.oid, k.oid FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0
    UNION ALL
    SELECT f.root, k.oid FROM family f JOIN pg_catalog.pg_constraint k ON k.conparentid = f.oid
), silent(root) AS (
    SELECT f.root FROM family f JOIN pg_catalog.pg_trigger g ON g.tgconstraint = f.oid AND g.tgenabled IN ('D', 'R')
), relation(oid) AS (
    SELECT conrelid FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0
    UNION
    SELECT confrelid FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0
), member(oid, part) AS (
    SELECT oid, oid FROM relation
    UNION
    SELECT r.oid, p.relid::pg_catalog.oid FROM relation r JOIN pg_catalog.pg_class c ON c.oid = r.oid AND c.relkind = 'p'
    CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.oid) p
), side AS MATERIALIZED (
    SELECT c.oid, c.relkind = 'p' AS partitioned, c.relpersistence <> 't' AS lasting,
        pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
        pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
            AND NOT pg_catalog.row_security_active(c.oid) AS readable,
        m.names, m.bytes
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN (SELECT member.oid, pg_catalog.array_agg(pg_catalog.format('%I.%I', pn.nspname, p.relname)) AS names,
              pg_catalog.sum(pg_catalog.pg_relation_size(p.oid)) AS bytes
          FROM member JOIN pg_catalog.pg_class p ON p.oid = member.part
          JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace GROUP BY member.oid) m ON m.oid = c.oid
)
SELECT i.identity, k.convalidated, k.oid IN (SELECT root FROM silent),
    coalesce((pg_catalog.to_jsonb(k.*) ->> 'conperiod')::bool, false), k.confmatchtype::text,
    r.name, r.partitioned, {_COLUMNS.format(key="k.conkey", rel="k.conrelid")},
    p.name, p.partitioned, {_COLUMNS.format(key="k.confkey", rel="k.confrelid")},
    {_OPERATORS}, r.readable AND p.readable, r.names || p.names, (r.bytes + p.bytes)::pg_catalog.int8
FROM pg_catalog.pg_constraint k JOIN side r ON r.oid = k.conrelid JOIN side p ON p.oid = k.confrelid
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0) i
WHERE k.contype = 'f' AND k.conparentid = 0 AND r.lasting
  AND coalesce((pg_catalog.to_jsonb(k.*) ->> 'conenforced')::bool, true)
"""


@dataclasses.dataclass(frozen=True)
class ForeignKey:
    """A foreign key, every name quoted by the server.

    :param disabled: one of its triggers does not fire, on a partition or on the table itself.
    :param period: its last column is a period that must be covered (PostgreSQL 18).
    :param match: ``s`` simple, ``f`` full, ``p`` partial.
    :param tables: both tables and all their partitions.
    :param bytes: of all of them.
    """

    identity: str
    valid: bool
    disabled: bool
    period: bool
    match: str
    table: str
    table_partitioned: bool
    columns: Sequence[str]
    referenced: str
    referenced_partitioned: bool
    referenced_columns: Sequence[str]
    operators: Sequence[str]
    readable: bool
    tables: Sequence[str]
    bytes: int

    @property
    def weak(self) -> str:
        """Why the server does not keep orphans out; empty where it does."""
        return "NOT VALID" if not self.valid else "disabled" if self.disabled else ""

    @property
    def partitioned(self) -> bool:
        """Whether one of its tables is."""
        return self.table_partitioned or self.referenced_partitioned


def foreign_keys(cursor: Cursor) -> list[ForeignKey]:
    """Every foreign key: first those that nothing enforces, then the small ones."""
    cursor.execute(_FOREIGN_KEYS)
    found = [ForeignKey(*row) for row in cursor.fetchall()]
    return sorted(found, key=lambda item: (not item.weak, item.bytes, item.identity))


def orphans_query(key: ForeignKey) -> str:
    """Counts the orphans under a foreign key, and gives the key of one of them."""
    ours = "" if key.table_partitioned else "ONLY "
    theirs = "" if key.referenced_partitioned else "ONLY "
    pairs = list(zip(key.referenced_columns, key.operators, key.columns, strict=True))
    together = " OR " if key.match == "f" else " AND "
    meant = together.join(f"f.{column} IS NOT NULL" for column in key.columns)
    count = (
        'SELECT pg_catalog.count(*), pg_catalog.min(pg_catalog."left"(ROW('
        f"{', '.join(f'f.{column}' for column in key.columns)})::pg_catalog.text, 80)) FROM {ours}{key.table} f"
    )
    if key.period:
        theirs_period, _operator, ours_period = pairs.pop()
        same = " AND ".join(f"p.{there} {operator} f.{here}" for there, operator, here in pairs)
        covered = f"SELECT pg_catalog.range_agg(p.{theirs_period}) FROM {theirs}{key.referenced} p WHERE {same}"
        return (
            f"{count} WHERE ({meant}) AND coalesce(f.{ours_period} OPERATOR(pg_catalog.<@) ({covered}), false) IS FALSE"
        )
    same = " AND ".join(f"p.{there} {operator} f.{here}" for there, operator, here in pairs)
    return f"{count} LEFT JOIN {theirs}{key.referenced} p ON {same} WHERE p.{key.referenced_columns[0]} IS NULL AND ({meant})"


def orphan_checks(cursor: Cursor, budget: Budget, rollback: RolledBack | None) -> Iterator[Check]:
    """One check for all foreign keys that hold, and one for each that does not.

    By itself, every orphan fails. After a rollback (the application stands still, and the DOWN is committed) only those fail
    that it can have made: not those of tables of which it changed no row, nor those under a foreign key that was NOT VALID or
    disabled before it.
    """
    keys = foreign_keys(cursor)
    changed = [item for item in keys if _is_changed(item, rollback)]
    rest = [item for item in keys if item not in changed]
    missed: list[str] = []
    fine = 0
    for keys, limit in ((changed, budget), (rest, budget.part(UNCHANGED_SECONDS))):
        for key in keys:
            try:
                check = _orphans(cursor, limit, key, rollback)
            except NotChecked as why:
                missed.append(f"{key.identity} ({why})")
                continue
            fine += not check
            if check:
                yield check
    total = len(changed) + len(rest)
    whole = PASSED if fine == total else INFORMATION
    yield Check("foreign keys without orphans", whole, f"all {total}", f"{'all ' if fine == total else ''}{fine}")
    if missed:
        yield Check(
            "foreign keys that were not read", INFORMATION, "all read", f"not checked: {some(missed)}", tuple(missed)
        )


def _is_changed(key: ForeignKey, rollback: RolledBack | None) -> bool:
    return rollback is None or rollback.may_have_changed(key.tables, partitioned=key.partitioned)


def _orphans(cursor: Cursor, limit: Budget, key: ForeignKey, rollback: RolledBack | None) -> Check | None:
    if not key.readable:
        raise NotChecked("this role may not read all rows of its tables")
    number, example = limit.ask(cursor, orphans_query(key))[0]
    if not number:
        return None
    rows = f"{number} row{'' if number == 1 else 's'} of {key.table} without one of {key.referenced}, such as {example}"
    state = f"{key.weak}: " if key.weak else ""
    old = ""
    if rollback and key.weak and key.identity in rollback.invalid:
        old = f"; it was {key.weak} before the rollback already"
    elif not _is_changed(key, rollback):
        old = "; older than the rollback, which changed no row of these tables"
    return Check(f"orphans under {key.identity}", INFORMATION if old else FAILED, "0 orphans", f"{state}{rows}{old}")
