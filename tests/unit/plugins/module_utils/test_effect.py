# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effect of a DOWN, drawn from two snapshots."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.catalog import (
    Catalog,
    CatalogObject,
    as_text,
    column_address,
    compare,
)
from ansible_collections.cypher.rollback.plugins.module_utils.effect import (
    Effect,
    RowChange,
    is_there,
    leaves,
    prove_effect,
)
from ansible_collections.cypher.rollback.plugins.module_utils.names import Found, Resolution
from ansible_collections.cypher.rollback.plugins.module_utils.sql import NamedObject


def thing(catalog: str, oid: int, type_: str, identity: str, **more: t.Any) -> CatalogObject:
    return CatalogObject(
        catalog,
        oid,
        identity.rsplit(".", maxsplit=1)[-1],
        type_,
        identity,
        identity.split(".", maxsplit=1)[0],
        more.pop("definition", ""),
        **more,
    )


def catalog(*objects: CatalogObject) -> Catalog:
    return Catalog({item.address: item for item in objects})


def table(oid: int, identity: str, kind: str = "r", **more: t.Any) -> CatalogObject:
    return thing("pg_class", oid, "table", identity, kind=kind, **more)


def named(item: CatalogObject, *, if_exists: bool = False, elsewhere: tuple[Found, ...] = ()) -> Resolution:
    name = NamedObject(item.type, item.name, item.schema)
    return Resolution(name, Found(item.address, item.identity, item.schema or ""), elsewhere, if_exists)


def effect_of(
    before: Catalog, after: Catalog, *resolved: Resolution, rows: dict[str, int] | None = None, **more: t.Any
) -> Effect:
    return prove_effect(before, after, resolved, rows or {}, more.pop("changes", ()), **more)


def test_parts_go_with_what_they_are_a_part_of_and_the_rest_by_cascade() -> None:
    orders = table(1, "b2b.orders")
    index = thing("pg_class", 2, "index", "b2b.i", kind="i", owners=(("pg_class", 1, 0),))
    view = thing("pg_class", 3, "view", "b2b.v", kind="v")
    on_view = thing("pg_trigger", 4, "trigger", "t on b2b.v", owners=(("pg_class", 3, 0),))
    effect = effect_of(catalog(orders, index, view, on_view), catalog(), named(orders), rows={"b2b.orders": 5})
    found = {item.identity: (item.cascaded, item.part_of, item.rows) for item in effect.dropped}
    assert found == {
        "b2b.orders": (False, "", 5),
        "b2b.i": (False, "b2b.orders", None),
        "b2b.v": (True, "", None),
        "t on b2b.v": (True, "b2b.v", None),
    }
    assert effect.rows_lost == 5


def test_two_objects_with_one_identity_are_not_confused() -> None:
    schema = thing("pg_namespace", 1, "schema", "b2b")
    role = thing("pg_authid", 1, "role", "b2b")
    acl = thing("pg_default_acl", 5, "default acl", "for role x in schema b2b", owners=(("pg_namespace", 1, 0),))
    effect = effect_of(catalog(schema, role, acl), catalog(), named(role))
    assert {(item.type, item.cascaded) for item in effect.dropped} == {
        ("role", False),
        ("schema", True),
        ("default acl", True),
    }


def test_rows_of_partitions_count_once_at_any_depth() -> None:
    root = table(1, "s.root", "p")
    middle = table(2, "s.middle", "p", owners=(("pg_class", 1, 0),))
    leaf = table(3, "s.leaf", owners=(("pg_class", 2, 0),))
    other = table(4, "s.other", owners=(("pg_class", 1, 0),))
    before = catalog(root, middle, leaf, other)
    assert [item.identity for item in leaves(before, root)] == ["s.leaf", "s.other"]
    effect = effect_of(before, catalog(), named(root), rows={"s.leaf": 3, "s.other": 4})
    assert {item.identity: item.rows for item in effect.dropped} == {
        "s.root": 7,
        "s.middle": 3,
        "s.leaf": 3,
        "s.other": 4,
    }
    assert effect.rows_lost == 7


def test_a_table_that_could_not_be_counted_has_no_number() -> None:
    root = table(1, "s.root", "p")
    leaf = table(3, "s.leaf", owners=(("pg_class", 1, 0),))
    effect = effect_of(catalog(root, leaf), catalog(), named(root))
    assert {item.rows for item in effect.dropped} == {None}
    assert effect.uncounted == ("s.leaf",)


def test_deleted_rows_are_lost_rows() -> None:
    assert effect_of(catalog(), catalog(), changes=[RowChange("s.t", 1, 2, 3)]).rows_lost == 3


def test_a_column_that_goes_is_an_object_and_what_is_built_on_it_its_part() -> None:
    columns = {1: ("id", "integer"), 2: ('"user"', "text")}
    before = table(1, 's."order"', columns=columns)
    index = thing("pg_class", 2, "index", "s.i", kind="i", owners=(("pg_class", 1, 2),))
    after = table(1, 's."order"', columns={1: ("id", "bigint")})
    wanted = Resolution(
        NamedObject("table column", "user", relation=("s", "order")),
        Found(column_address(1, "user"), 's."order"."user"', "s"),
    )
    effect = effect_of(catalog(before, index), catalog(after), wanted, rows={'s."order"': 9})
    assert [(item.type, item.identity, item.cascaded, item.rows, item.part_of) for item in effect.dropped] == [
        ("table column", 's."order"."user"', False, 9, ""),
        ("index", "s.i", False, None, 's."order"."user"'),
    ]
    assert [(item["identity"], item["before"], item["after"]) for item in effect.changed] == [
        ('s."order".id', "id integer", "id bigint")
    ]
    assert effect.rows_lost == 0
    assert is_there(catalog(before), column_address(1, "user"))
    assert not is_there(catalog(after), column_address(1, "user"))
    assert not is_there(catalog(), column_address(1, "user"))


def test_skipped_is_what_if_exists_passed_over() -> None:
    absent = Resolution(NamedObject("table", "t"), None, (Found(("pg_class", 8), "x.t", "x"),), if_exists=True)
    made_and_dropped = Resolution(NamedObject("function", "tmp", arguments=""), None)
    effect = effect_of(catalog(), catalog(table(8, "x.t")), absent, made_and_dropped)
    assert effect.skipped == ({"type": "table", "identity": "t", "elsewhere": ["x.t"]},)
    assert effect.left_over == ({"type": "table", "identity": "x.t", "named": "t"},)


def test_what_is_made_again_is_added_and_not_left_over() -> None:
    old, new = thing("pg_class", 1, "view", "s.v", kind="v"), thing("pg_class", 2, "view", "s.v", kind="v")
    effect = effect_of(catalog(old), catalog(new), named(old))
    assert effect.left_over == ()
    assert effect.added == ({"type": "view", "identity": "s.v"},)


def test_what_cannot_be_looked_up_is_taken_as_named_where_a_statement_drops_its_kind() -> None:
    cast = thing("pg_cast", 1, "cast", "(a AS b)")
    assert effect_of(catalog(cast), catalog()).dropped[0].cascaded
    assert not effect_of(catalog(cast), catalog(), nameless=frozenset({"cast"})).dropped[0].cascaded


def test_a_catalog_is_equal_to_itself_and_its_text_is_in_order() -> None:
    one, two = table(1, "s.a"), table(2, "s.b")
    assert not compare(catalog(one, two), catalog(one, two))
    assert as_text(catalog(two, one)) == as_text(catalog(one, two))
    assert compare(catalog(one), catalog(two))
