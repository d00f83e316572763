# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequences behind their columns: the next value that one gives is in its column already, or will be met there."""

from __future__ import annotations

import dataclasses
import typing as t

from .budget import NotChecked
from .checks import FAILED, INFORMATION, PASSED, Check, some

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .budget import Budget
    from .catalog import Cursor
    from .rolled_back import RolledBack

#: Identity columns by their internal dependency; all others, serial columns among them, by a default that is nextval() and
#: nothing else. A default that calculates with the value says nothing about the column. Partitions have their parent's.
_SEQUENCES = r"""
WITH used(sequence, relation, number) AS (
    SELECT d.objid, d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.deptype = 'i' AND d.refobjsubid > 0
    UNION
    SELECT d.refobjid, f.adrelid, f.adnum::int FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND pg_catalog.pg_get_expr(f.adbin, f.adrelid) ~ '^nextval\(''.*''::regclass\)(::\w+)?$'
)
SELECT pg_catalog.format('%I.%I', sn.nspname, s.relname), pg_catalog.format('%I.%I', tn.nspname, c.relname),
    pg_catalog.quote_ident(a.attname), q.seqincrement,
    (SELECT pg_catalog.array_agg(pg_catalog.format('%I.%I', pn.nspname, p.relname)) FROM
        (SELECT c.oid UNION SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)) tree(oid)
        JOIN pg_catalog.pg_class p ON p.oid = tree.oid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace),
    pg_catalog.has_schema_privilege(sn.oid, 'USAGE') AND pg_catalog.has_sequence_privilege(s.oid, 'SELECT')
    AND pg_catalog.has_schema_privilege(tn.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
    AND NOT pg_catalog.row_security_active(c.oid)
FROM used u
JOIN pg_catalog.pg_sequence q ON q.seqrelid = u.sequence
JOIN pg_catalog.pg_class s ON s.oid = u.sequence JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_catalog.pg_class c ON c.oid = u.relation JOIN pg_catalog.pg_namespace tn ON tn.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = u.relation AND a.attnum = u.number AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND a.atttypid IN (20, 21, 23, 1700) AND NOT q.seqcycle
ORDER BY pg_catalog.pg_relation_size(c.oid::pg_catalog.regclass), 1, 2
"""


@dataclasses.dataclass(frozen=True)
class Feeding:
    """A sequence that gives a column its values, every name quoted by the server.

    :param tables: the table and all its partitions.
    """

    sequence: str
    table: str
    column: str
    increment: int
    tables: t.Sequence[str]
    readable: bool


def feedings(cursor: Cursor) -> list[Feeding]:
    """Every column of numbers that a sequence feeds, small tables first."""
    cursor.execute(_SEQUENCES)
    return [Feeding(*row) for row in cursor.fetchall()]


def sequence_checks(cursor: Cursor, budget: Budget, rollback: RolledBack | None) -> Iterator[Check]:
    """One check for all sequences that are ahead, and one for each that is behind.

    After a rollback, one behind a column of whose table it changed no row is older, and does not fail.
    """
    missed: list[str] = []
    found = feedings(cursor)
    total, fine = len(found), 0
    for item in found:
        try:
            behind = _behind(cursor, budget, item)
        except NotChecked as why:
            missed.append(f"{item.sequence} ({why})")
            continue
        fine += not behind
        if behind:
            old = rollback is not None and not rollback.may_have_changed(item.tables)
            said = f"{behind}; older than the rollback, which changed no row of this table" if old else behind
            name = f"sequence {item.sequence} is behind {item.table}.{item.column}"
            yield Check(name, INFORMATION if old else FAILED, "ahead of its column", said)
    whole = PASSED if fine == total else INFORMATION
    yield Check("sequences ahead of their columns", whole, f"all {total}", f"{'all ' if fine == total else ''}{fine}")
    if missed:
        yield Check(
            "sequences that were not checked", INFORMATION, "all checked", f"not checked: {some(missed)}", tuple(missed)
        )


def _behind(cursor: Cursor, budget: Budget, item: Feeding) -> str:
    """Which values a sequence will give that are there already; empty: none.

    With an increment above 1, values between its own (those of another node, say) do not count.
    """
    if not item.readable:
        raise NotChecked("this role may not read it or its table")
    last, called = budget.ask(cursor, f"SELECT last_value, is_called FROM {item.sequence}")[0]
    following = last + item.increment if called else last
    side, furthest = (">=", "max") if item.increment > 0 else ("<=", "min")
    number, far = budget.ask(
        cursor,
        f"SELECT pg_catalog.count(*), pg_catalog.{furthest}({item.column}) FROM {item.table} WHERE {item.column} {side} %s "
        f"AND ({item.column}::pg_catalog.numeric - %s) %% %s = 0",
        (following, following, item.increment),
    )[0]
    there = "value is" if number == 1 else "values are"
    return f"its next value is {following}, and {number} such {there} there already, up to {far}" if number else ""
