# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which object of the database a name from the command line means. Where that is not certain, it is refused."""

from __future__ import annotations

import dataclasses
import typing as t

from .errors import Refused
from .wanted_object import COLUMN, INDEX, TABLE

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalog import Cursor
    from .wanted_object import WantedObject

NOTHING_DONE = "Nothing was stopped or changed."

_RIGHT_KINDS = {COLUMN: "rp", TABLE: "rp", INDEX: "iI"}
_KINDS = {
    "r": "a table",
    "p": "a partitioned table",
    "i": "an index",
    "I": "an index",
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "c": "a composite type",
    "t": "a TOAST table",
}


@dataclasses.dataclass(frozen=True)
class Located:
    """A relation with the wanted name, or with the wanted column.

    :param oid: of the relation.
    :param schema: bare name.
    :param identity: of the relation, as SQL.
    :param kind: ``relkind``.
    :param system: it belongs to PostgreSQL itself, or to a session.
    :param column: number of the column; 0 for other objects.
    :param column_name: quoted where it must be.
    """

    oid: int
    schema: str
    name: str
    identity: str
    kind: str
    system: bool
    column: int
    column_name: str
    column_bare: str

    @property
    def full_name(self) -> str:
        """Of the object itself, as SQL."""
        return f"{self.identity}.{self.column_name}" if self.column else self.identity


# The same letters in another case are found as well: somebody forgot the quotes.
_LOOK = """
SELECT c.oid::pg_catalog.int8, n.nspname::text, c.relname::text, pg_catalog.format('%%I.%%I', n.nspname, c.relname), c.relkind::text,
       n.nspname ~ '^pg_' OR n.nspname = 'information_schema', coalesce(a.attnum, 0), coalesce(pg_catalog.quote_ident(a.attname), ''),
       coalesce(a.attname::text, '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                                   AND pg_catalog.lower(a.attname::text) = pg_catalog.lower(%(column)s)
WHERE pg_catalog.lower(c.relname::text) = pg_catalog.lower(%(name)s) ORDER BY 2, 3, 8
"""


def locate(cursor: Cursor, wanted: WantedObject, search_path: Sequence[str]) -> Located | None:
    """The object that is meant; ``None`` where there is none of that name.

    :raises Refused: for a name that fits two, something outside the search path or of another kind, or PostgreSQL's own.
    """
    schema, name = wanted.relation
    cursor.execute(_LOOK, {"name": name, "column": wanted.column})
    similar = [Located(*row) for row in cursor.fetchall()]
    named = [item for item in similar if item.name == name and schema in (None, item.schema)]
    right = [item for item in named if _is_right(item, wanted) and item.column_bare == wanted.column]
    own = [item for item in right if not item.system]
    if schema is None and own:
        return _the_one(wanted, own, search_path)
    if right:
        _refuse_system(wanted, right[0])
        return right[0]
    _refuse_other_kind(wanted, [item for item in named if not item.system and not _is_right(item, wanted)])
    _refuse_similar(wanted, [item for item in similar if not item.system and _is_right(item, wanted)])
    return None


def _is_right(item: Located, wanted: WantedObject) -> bool:
    return item.kind in _RIGHT_KINDS[wanted.kind]


def _the_one(wanted: WantedObject, found: Sequence[Located], search_path: Sequence[str]) -> Located:
    if len(found) > 1:
        names = ", ".join(item.full_name for item in found)
        raise Refused(
            f"{wanted.given} names {len(found)} objects: {names}. {NOTHING_DONE} Write the schema: -e {wanted.kind}={found[0].full_name}",
            candidates=[item.full_name for item in found],
        )
    if found[0].schema not in search_path:
        raise Refused(
            f"{wanted.given} is {found[0].full_name}, and rollback_search_path ({', '.join(search_path)}) does not have that schema. "
            f"{NOTHING_DONE} Write the schema: -e {wanted.kind}={found[0].full_name}",
            candidates=[found[0].full_name],
        )
    return found[0]


def _refuse_system(wanted: WantedObject, item: Located) -> None:
    if item.system:
        raise Refused(
            f"{item.full_name} belongs to PostgreSQL itself and is not taken back. {NOTHING_DONE} Correct the extra variable {wanted.kind}."
        )


def _refuse_other_kind(wanted: WantedObject, other: Sequence[Located]) -> None:
    if not other:
        return
    item = other[0]
    known = {"i": INDEX, "I": INDEX, "r": TABLE, "p": TABLE}.get(item.kind)
    remedy = (
        f"Give -e {known}={item.identity} if that is meant."
        if known
        else "Write a migration whose DOWN takes it back, and run rollback.yml."
    )
    what = _KINDS.get(item.kind, "a relation of another kind")
    meant = "a table" if wanted.kind != INDEX else "an index"
    raise Refused(f"{item.identity} is {what} and not {meant}. {NOTHING_DONE} {remedy}")


def _refuse_similar(wanted: WantedObject, similar: Sequence[Located]) -> None:
    """Names that differ in case only, in a schema that differs in case only."""
    schema, name = wanted.relation
    close = [
        item
        for item in similar
        if (schema is None or item.schema.lower() == schema.lower())
        and (item.name != name or item.column_bare != wanted.column or schema not in (None, item.schema))
        and bool(item.column) == (wanted.kind == COLUMN)
    ]
    if close:
        names = ", ".join(item.full_name for item in close)
        quoted = close[0].full_name.replace('"', '\\"')
        raise Refused(
            f"There is no {wanted.kind} {wanted.given}, but {names}, which differs in capitals. {NOTHING_DONE} Give it in its quotes, "
            f"""as JSON: -e '{{"{wanted.kind}": "{quoted}"}}'""",
            candidates=[item.full_name for item in close],
        )
