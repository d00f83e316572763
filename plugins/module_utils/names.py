# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which object of the database a DOWN means by a name.

An unqualified name is looked up in the schemas of ``rollback_search_path``, in their order, as PostgreSQL does. Objects
of the same kind and name in other schemas are found as well: they are what ``IF EXISTS`` silently leaves in place.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .catalog import bare_name, column_address

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .catalog import Address, Catalog, CatalogObject, Cursor
    from .migrations import DownScript
    from .sql import NamedObject, Statement

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
    "domain constraint": "pg_constraint",
}
_COLUMNS = frozenset({"table column", "foreign table column", "composite type column"})
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
KNOWN_TYPES = frozenset({*_RELATION_KINDS, *_ROUTINE_TYPES, *_ON_RELATION, *_GLOBAL, *_IN_SCHEMA, *_COLUMNS})


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
    :param if_exists: a statement that names it says IF EXISTS.
    """

    named: NamedObject
    target: Found | None
    elsewhere: tuple[Found, ...] = ()
    if_exists: bool = False


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

    def resolve_scripts(self, scripts: Iterable[DownScript]) -> list[Resolution]:
        """Each name of the DOWN scripts with what it means, also after a ``SET search_path`` of theirs."""
        found: dict[tuple[NamedObject, tuple[str, ...]], Resolution] = {}
        for script in scripts:
            path = tuple(self._path)
            for statement in script.statements:
                path = _path_after(statement, path, tuple(self._path))
                for named in statement.drops:
                    if named.type not in KNOWN_TYPES:
                        continue
                    known = found.get((named, path)) or self.resolve(named, path)
                    found[named, path] = dataclasses.replace(known, if_exists=known.if_exists or statement.if_exists)
        return list(found.values())

    def resolve(self, named: NamedObject, path: Sequence[str] | None = None) -> Resolution:
        """What one name means.

        :param path: schemas in which an unqualified name is looked up, where they are not those of the run.
        """
        path = self._path if path is None else path
        if named.type in _ON_RELATION or named.type in _COLUMNS:
            return self._resolve_on_relation(named, path)
        return _choose(named, named.schema, self._candidates(named), path)

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

    def _resolve_on_relation(self, named: NamedObject, path: Sequence[str]) -> Resolution:
        if named.relation is None:
            return Resolution(named, None)
        schema, holder = named.relation
        catalog, kinds = ("pg_type", "") if named.type == "domain constraint" else ("pg_class", "rpvmfc")
        holders = [item for item in self._named(catalog, holder) if not kinds or (item.kind and item.kind in kinds)]
        if named.type in _COLUMNS:
            with_it = [
                item
                for item in holders
                if any(bare_name(name) == named.name for name, _definition in item.columns.values())
            ]
            return _choose(named, schema, with_it, path, column=named.name)
        wanted = {item.oid: item for item in holders}
        parts = {
            owner: item
            for item in self._named(_ON_RELATION[named.type], named.name)
            for owner_catalog, owner, _column in item.owners
            if owner_catalog == catalog and owner in wanted
        }
        chosen = _choose(named, schema, [wanted[oid] for oid in parts], path)
        return Resolution(
            named,
            _found(parts[chosen.target.address[1]], chosen.target.schema) if chosen.target else None,
            tuple(_found(parts[item.address[1]], item.schema) for item in chosen.elsewhere),
        )


def _choose(
    named: NamedObject, schema: str | None, candidates: Sequence[CatalogObject], path: Sequence[str], column: str = ""
) -> Resolution:
    places = {_schema(item): _found(item, _schema(item), column) for item in candidates}
    if named.type in _GLOBAL:
        return Resolution(named, next(iter(places.values()), None))
    if schema is not None:
        return Resolution(named, places.get(schema))
    target = next((places[name] for name in path if name in places), None)
    return Resolution(named, target, tuple(place for place in places.values() if place is not target))


def _schema(item: CatalogObject) -> str:
    return bare_name(item.schema or "")


def _found(item: CatalogObject, schema: str, column: str = "") -> Found:
    if not column:
        return Found(item.address, item.identity, schema)
    written = next(name for name, _definition in item.columns.values() if bare_name(name) == column)
    return Found(column_address(item.oid, column), f"{item.identity}.{written}", schema)


_SET_PATH = re.compile(
    r"SET\s+(?:SESSION\s+|LOCAL\s+)?(?:search_path\s*(?:=|\bTO\b)|SCHEMA\b)\s*(?P<value>.+)", re.IGNORECASE | re.DOTALL
)
_RESET_PATH = re.compile(r"RESET\s+(?:search_path|ALL)\s*", re.IGNORECASE)


def _path_after(statement: Statement, path: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """The search path after a statement, as far as its text tells."""
    if statement.kind == "RESET":
        return own if _RESET_PATH.fullmatch(statement.text) else path
    match = _SET_PATH.fullmatch(statement.text) if statement.kind == "SET" else None
    if match is None:
        return path
    if match["value"].strip().lower() == "default":
        return own
    return tuple(_path_entry(entry) for entry in split_arguments(match["value"]))


def _path_entry(entry: str) -> str:
    if entry.startswith("'"):
        return entry[1:-1].replace("''", "'")
    return bare_name(entry) if entry.startswith('"') else entry.lower()


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
