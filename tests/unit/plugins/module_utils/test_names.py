# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of a DOWN, as far as no server is needed to understand them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import names
from ansible_collections.cypher.rollback.plugins.module_utils.catalog import Catalog, CatalogObject, bare_name
from ansible_collections.cypher.rollback.plugins.module_utils.sql import NamedObject, Statement


class NoServer:
    """A cursor that nobody may use."""

    def execute(self, operation: str, parameters: t.Any = None, /) -> object:
        raise AssertionError(operation, parameters)

    fetchone = fetchall = execute


def table(oid: int, schema: str, name: str, **more: t.Any) -> CatalogObject:
    return CatalogObject("pg_class", oid, bare_name(name), "table", f"{schema}.{name}", schema, "", "r", **more)


def part(catalog: str, oid: int, name: str, type_: str, of: int) -> CatalogObject:
    return CatalogObject(catalog, oid, name, type_, f"{name} of {of}", None, "", owners=(("pg_class", of, 0),))


def names_of(*objects: CatalogObject, path: tuple[str, ...] = ("b2b", "erp")) -> names.Names:
    return names.Names(Catalog({item.address: item for item in objects}), NoServer(), path)


def test_an_unqualified_name_means_the_first_of_the_path_and_the_others_are_elsewhere() -> None:
    looked_up = names_of(table(1, "shared", "t"), table(2, "erp", "t"), table(3, "b2b", "u"))
    found = looked_up.resolve(NamedObject("table", "t"))
    assert found.target is not None
    assert found.target.identity == "erp.t"
    assert [place.identity for place in found.elsewhere] == ["shared.t"]


def test_a_qualified_name_means_one_place_only() -> None:
    looked_up = names_of(table(1, "shared", "t"), table(2, "erp", "t"))
    found = looked_up.resolve(NamedObject("table", "t", "shared"))
    assert found.target is not None
    assert found.target.identity == "shared.t"
    assert found.elsewhere == ()
    assert looked_up.resolve(NamedObject("table", "t", "b2b")).target is None


def test_a_view_is_no_table_of_that_name() -> None:
    assert names_of(table(1, "erp", "t")).resolve(NamedObject("view", "t")).target is None


@pytest.mark.parametrize(("quoted", "bare"), [('"Ab ""c"""', 'Ab "c"'), ('"order"', "order"), ("plain", "plain")])
def test_quoted_names_are_compared_bare(quoted: str, bare: str) -> None:
    found = names_of(table(1, '"My S"', quoted)).resolve(NamedObject("table", bare, "My S"))
    assert found.target is not None
    assert found.target.identity == f'"My S".{quoted}'
    assert found.target.schema == "My S"


def test_a_column_is_found_by_its_bare_name() -> None:
    holder = table(7, "erp", '"order"', columns={1: ('"user"', "text")})
    found = names_of(holder).resolve(NamedObject("table column", "user", relation=(None, "order")))
    assert found.target is not None
    assert found.target.address == ("pg_attribute:user", 7)
    assert found.target.identity == 'erp."order"."user"'


@pytest.mark.parametrize(
    ("type_", "catalog"), [("trigger", "pg_trigger"), ("policy", "pg_policy"), ("table constraint", "pg_constraint")]
)
def test_a_part_is_looked_up_on_its_relation(type_: str, catalog: str) -> None:
    objects = [
        table(1, "erp", "t"),
        table(2, "b2b", "u"),
        part(catalog, 11, "x", type_, 1),
        part(catalog, 12, "x", type_, 2),
    ]
    found = names_of(*objects).resolve(NamedObject(type_, "x", relation=(None, "t")))
    assert found.target is not None
    assert found.target.address == (catalog, 11)
    assert found.elsewhere == ()


@pytest.mark.parametrize(
    ("arguments", "types"),
    [
        ("", []),
        ("int", ["int"]),
        ("numeric(3,1), text", ["numeric(3,1)", "text"]),
        ('"a,b", c[]', ['"a,b"', "c[]"]),
        ('"a""(,", d', ['"a""(,"', "d"]),
    ],
)
def test_argument_lists_are_split_at_their_own_commas(arguments: str, types: list[str]) -> None:
    assert names.split_arguments(arguments) == types


def statement(text: str, *drops: NamedObject, if_exists: bool = False) -> Statement:
    kind = " ".join(text.split()[:2]) if text.startswith(("DROP", "CREATE")) else text.split(maxsplit=1)[0].upper()
    return Statement(1, text, "f.sql", 1, kind, drops, False, if_exists, bool(drops), bool(drops))


class Script(t.NamedTuple):
    """As much of a DOWN as the names need."""

    statements: tuple[Statement, ...]


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("SET search_path TO shared", "shared.t"),
        ("SET search_path = shared, erp", "shared.t"),
        ("SET LOCAL search_path TO 'shared'", "shared.t"),
        ('SET SESSION search_path TO "shared"', "shared.t"),
        ("SET SCHEMA 'shared'", "shared.t"),
        ("SET search_path TO SHARED", "shared.t"),
        ("SET search_path TO DEFAULT", "erp.t"),
        ("SET lock_timeout TO '1s'", "erp.t"),
        ("RESET search_path", "erp.t"),
    ],
)
def test_a_down_may_set_its_own_search_path_until_it_ends(setting: str, place: str) -> None:
    drop = statement("DROP TABLE t", NamedObject("table", "t"))
    looked_up = names_of(table(1, "shared", "t"), table(2, "erp", "t"))
    (found,) = looked_up.resolve_scripts([Script((statement(setting), drop))])
    assert found.target is not None
    assert found.target.identity == place
    both = looked_up.resolve_scripts([Script((statement(setting), drop)), Script((drop,))])
    assert both[-1].target is not None
    assert both[-1].target.identity == "erp.t"


def test_a_name_is_listed_once_and_if_exists_is_remembered() -> None:
    named = NamedObject("table", "t")
    script = Script((statement("DROP TABLE t", named), statement("DROP TABLE IF EXISTS t", named, if_exists=True)))
    (found,) = names_of(table(1, "erp", "t")).resolve_scripts([script])
    assert found.if_exists


def test_what_cannot_be_looked_up_is_left_out() -> None:
    script = Script((statement("DROP CAST", NamedObject("cast", "(a AS b)")),))
    assert names_of().resolve_scripts([script]) == []
