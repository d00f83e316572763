# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which object of the database a DOWN means by a name.

An unqualified name is looked up in the schemas of ``rollback_search_path``, in their order, as PostgreSQL does. Objects
of the same kind and name in other schemas are found as well: they are what ``IF EXISTS`` silently leaves in place.
"""

from __future__ import annotations

import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .catalog import Address, Catalog, CatalogObject, Cursor
    from .sql import NamedObject

_RELATION_KINDS = {
    "table": "rp",
    "view": "v",
    "materialized view": "m",
    "index": "iI",
    "sequence": "S",
    "foreign table": "f",
    "relation": "rpvmfiIS",
}
_ROUTINE_TYPES = {
    "function": ("function",),
    "procedure": ("procedure",),
    "aggregate": ("aggregate",),
    "routine": ("function", "procedure", "aggregate"),
}
_ON_RELATION = {
    "trigger": "pg_trigger",
    "rule": "pg_rewrite",
    "policy": "pg_policy",
    "table constraint": "pg_constraint",
}
_GLOBAL = {
    "schema": "pg_namespace",
    "role": "pg_authid",
    "extension": "pg_extension",
    "event trigger": "pg_event_trigger",
    "publication": "pg_publication",
    "server": "pg_foreign_server",
    "foreign-data wrapper": "pg_foreign_data_wrapper",
    "language": "pg_language",
}
_IN_SCHEMA = {
    "type": "pg_type",
    "domain": "pg_type",
    "collation": "pg_collation",
    "conversion": "pg_conversion",
    "statistics object": "pg_statistic_ext",
    "text search configuration": "pg_ts_config",
    "text search dictionary": "pg_ts_dict",
    "text search parser": "pg_ts_parser",
    "text search template": "pg_ts_template",
    "operator class": "pg_opclass",
    "operator family": "pg_opfamily",
}
#: Kinds of objects that can be looked up; a name of another kind says nothing about what is applied.
KNOWN_TYPES = frozenset({*_RELATION_KINDS, *_ROUTINE_TYPES, *_ON_RELATION, *_GLOBAL, *_IN_SCHEMA, "table column"})


@dataclasses.dataclass(frozen=True)
class Found:
    """An object of the database that a name may mean."""

    address: Address
    identity: str
    schema: str


@dataclasses.dataclass(frozen=True)
class Resolution:
    """What a name of a DOWN means in the database.

    :param target: the object that the statement would drop, or ``None``.
    :param elsewhere: objects of that kind and name in other schemas, where the name has no schema of its own.
    """

    named: NamedObject
    target: Found | None
    elsewhere: tuple[Found, ...] = ()


class Names:
    """Looks names up in one catalog snapshot."""

    def __init__(self, catalog: Catalog, cursor: Cursor, search_path: Sequence[str]) -> None:
        """:param cursor: a connection to the same database, to understand the argument types of functions."""
        self._catalog = catalog
        self._cursor = cursor
        self._path = list(search_path)
        self._by_name: dict[tuple[str, str], list[CatalogObject]] = {}
        for item in catalog:
            self._by_name.setdefault((item.catalog, item.name), []).append(item)

    def resolve_all(self, named: Iterable[NamedObject]) -> list[Resolution]:
        """Each name with what it means."""
        return [self.resolve(item) for item in named]

    def resolve(self, named: NamedObject) -> Resolution:
        """What one name means."""
        if named.type in _ON_RELATION or named.type == "table column":
            return self._resolve_on_relation(named)
        return self._choose(named, named.schema, self._candidates(named))

    def _candidates(self, named: NamedObject) -> list[CatalogObject]:
        if named.type in _RELATION_KINDS:
            kinds = _RELATION_KINDS[named.type]
            return [item for item in self._named("pg_class", named.name) if item.kind and item.kind in kinds]
        if named.type in _ROUTINE_TYPES:
            return self._routines(named)
        catalog = _GLOBAL.get(named.type) or _IN_SCHEMA.get(named.type)
        if catalog is None:
            return []
        found = self._named(catalog, named.name)
        if named.type == "type" and not found:
            return [item for item in self._named("pg_class", named.name) if item.kind == "c"]
        return found

    def _named(self, catalog: str, name: str) -> list[CatalogObject]:
        return self._by_name.get((catalog, name), [])

    def _routines(self, named: NamedObject) -> list[CatalogObject]:
        found = [item for item in self._named("pg_proc", named.name) if item.type in _ROUTINE_TYPES[named.type]]
        if named.arguments is None or not found:
            return found
        wanted = self._type_oids(split_arguments(named.arguments))
        self._cursor.execute(
            "SELECT p.oid, p.proargtypes::pg_catalog.oid[]::pg_catalog.int8[] FROM pg_catalog.pg_proc p WHERE p.oid = ANY(%s::pg_catalog.oid[])",
            ([item.oid for item in found],),
        )
        same = {oid for oid, arguments in self._cursor.fetchall() if list(arguments) == wanted}
        return [item for item in found if item.oid in same]

    def _type_oids(self, types: Sequence[str]) -> list[int | None]:
        if not types:
            return []
        self._cursor.execute(
            "SELECT pg_catalog.to_regtype(x)::pg_catalog.oid::pg_catalog.int8 FROM pg_catalog.unnest(%s::pg_catalog.text[]) "
            "WITH ORDINALITY u(x, n) ORDER BY n",
            (list(types),),
        )
        return [row[0] for row in self._cursor.fetchall()]

    def _resolve_on_relation(self, named: NamedObject) -> Resolution:
        if named.relation is None:
            return Resolution(named, None)
        schema, table = named.relation
        relations = [item for item in self._named("pg_class", table) if item.kind and item.kind in "rpvmfc"]
        if named.type == "table column":
            holders = [item for item in relations if any(unquoted(name) == named.name for name, _ in item.columns.values())]
            return self._choose(named, schema, holders, suffix=named.name)
        wanted = {item.oid: item for item in relations}
        found = [
            (item, wanted[owner])
            for item in self._named(_ON_RELATION[named.type], named.name)
            for owner_catalog, owner, _column in item.owners
            if owner_catalog == "pg_class" and owner in wanted
        ]
        places = {relation.oid: item for item, relation in found}
        chosen = self._choose(named, schema, [wanted[oid] for oid in places])
        return Resolution(
            named,
            _found(places[chosen.target.address[1]], chosen.target.schema) if chosen.target else None,
            tuple(_found(places[item.address[1]], item.schema) for item in chosen.elsewhere),
        )

    def _choose(self, named: NamedObject, schema: str | None, candidates: list[CatalogObject], suffix: str = "") -> Resolution:
        places = {_schema(item): _found(item, _schema(item), suffix) for item in candidates}
        if named.type in _GLOBAL:
            return Resolution(named, next(iter(places.values()), None))
        if schema is not None:
            return Resolution(named, places.get(schema))
        target = next((places[name] for name in self._path if name in places), None)
        return Resolution(named, target, tuple(place for place in places.values() if place is not target))


def _schema(item: CatalogObject) -> str:
    return unquoted(item.schema or "")


def _found(item: CatalogObject, schema: str, suffix: str = "") -> Found:
    identity = f"{item.identity}.{suffix}" if suffix else item.identity
    address = ("pg_attribute:" + suffix, item.oid) if suffix else item.address
    return Found(address, identity, schema)


def unquoted(name: str) -> str:
    """The bare name of an identifier as PostgreSQL writes it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def split_arguments(arguments: str) -> list[str]:
    """The types of an argument list, split at the commas that are not within parentheses or quotes."""
    parts, depth, quoted, current = [], 0, False, ""
    for char in arguments:
        quoted ^= char == '"'
        depth += 0 if quoted else (char == "(") - (char == ")")
        if char == "," and depth == 0 and not quoted:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    return [*parts, current.strip()] if current.strip() else parts
