# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes with an object by itself, and what only CASCADE takes along, from PostgreSQL's own dependencies.

The rules are those of its manual's chapter on pg_depend: automatic, internal and partition dependencies go along, a
normal one needs CASCADE. An internal one also leads back: with its query a view goes, with its expression a generated column.
"""

from __future__ import annotations

import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalog import Cursor

_BY_ITSELF = ["a", "i", "P", "S"]
_BY_CASCADE = [*_BY_ITSELF, "n"]

_REACHED = """
WITH RECURSIVE gone(classid, objid, objsubid) AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, %(oid)s::pg_catalog.oid, %(column)s::pg_catalog.int4
  UNION
  SELECT next.* FROM gone g CROSS JOIN LATERAL (
    SELECT d.classid, d.objid, d.objsubid FROM pg_catalog.pg_depend d
     WHERE d.refclassid = g.classid AND d.refobjid = g.objid AND (g.objsubid = 0 OR d.refobjsubid = g.objsubid)
       AND d.deptype::text = ANY(%(types)s)
    UNION ALL
    SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d
     WHERE d.classid = g.classid AND d.objid = g.objid AND d.deptype = 'i'
       AND g.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass)
  ) next
)
SELECT i.type, i.identity FROM gone g CROSS JOIN LATERAL pg_catalog.pg_identify_object(g.classid, g.objid, g.objsubid) i
WHERE i.identity IS NOT NULL AND (g.classid, g.objid, g.objsubid) <> ('pg_catalog.pg_class'::pg_catalog.regclass, %(oid)s, %(column)s)
  AND NOT (g.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND g.objid = %(oid)s AND %(column)s = 0)
  AND g.classid NOT IN ('pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_amop'::pg_catalog.regclass)
  AND (g.classid <> 'pg_catalog.pg_rewrite'::pg_catalog.regclass
       OR (SELECT r.rulename <> '_RETURN' FROM pg_catalog.pg_rewrite r WHERE r.oid = g.objid))
  AND (g.classid <> 'pg_catalog.pg_trigger'::pg_catalog.regclass
       OR (SELECT NOT r.tgisinternal FROM pg_catalog.pg_trigger r WHERE r.oid = g.objid))
  AND (g.classid <> 'pg_catalog.pg_type'::pg_catalog.regclass
       OR (SELECT y.typrelid = 0 AND y.typelem = 0 FROM pg_catalog.pg_type y WHERE y.oid = g.objid))
  AND i.schema IS DISTINCT FROM 'pg_toast'
ORDER BY 1, 2
"""


@dataclasses.dataclass(frozen=True)
class Dependents:
    """What else goes, each as type and identity.

    :param parts: by itself.
    :param cascaded: only where the statement says CASCADE.
    """

    parts: tuple[str, ...]
    cascaded: tuple[str, ...]


def dependents(cursor: Cursor, relation: int, column: int = 0) -> Dependents:
    """What hangs on a table, an index, or one column of a table.

    :param relation: its oid.
    :param column: number of the column; 0 for the relation itself.
    """
    parts = _reached(cursor, relation, column, _BY_ITSELF)
    everything = _reached(cursor, relation, column, _BY_CASCADE)
    known = set(parts)
    return Dependents(tuple(parts), tuple(item for item in everything if item not in known))


def _reached(cursor: Cursor, relation: int, column: int, types: Sequence[str]) -> list[str]:
    cursor.execute(_REACHED, {"oid": relation, "column": column, "types": list(types)})
    return [f"{kind} {identity}" for kind, identity in cursor.fetchall()]
