# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a ledger, and the objects that tell whether a migration is applied."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import ledger
from ansible_collections.cypher.rollback.plugins.module_utils.catalog import Catalog, CatalogObject
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.migrations import DownScript, Migration
from ansible_collections.cypher.rollback.plugins.module_utils.names import Names
from ansible_collections.cypher.rollback.plugins.module_utils.sql import parse_script

ORDERS = Migration("0003", "cart-orders", "/m/0003-cart-orders.sql", None)


@pytest.mark.parametrize("row", ["0003", "3", "003", "0003-cart-orders.sql", "0003-cart-orders"])
def test_a_row_means_a_migration_in_any_of_these_forms(row: str) -> None:
    assert ledger.is_row_of(row, ORDERS)


@pytest.mark.parametrize("row", ["", "4", "30", "0003-other.sql", "v3", "3.0", "cart-orders", "²", "0003 "])
def test_a_row_of_something_else(row: str) -> None:
    assert not ledger.is_row_of(row, ORDERS)


def test_a_version_that_is_no_number_is_compared_as_text() -> None:
    migration = Migration("2024a", "x", None, "/m/2024a-down.sql")
    assert ledger.is_row_of("2024a", migration)
    assert not ledger.is_row_of("2024", migration)


class Cursor:
    """Answers in order, and keeps what was asked."""

    def __init__(self, *answers: list[tuple[t.Any, ...]]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, t.Any]] = []

    def execute(self, operation: str, parameters: t.Any = None, /) -> object:
        self.asked.append((operation, parameters))
        return None

    def fetchall(self) -> list[tuple[t.Any, ...]]:
        return self._answers.pop(0)

    def fetchone(self) -> tuple[t.Any, ...] | None:
        found = self._answers.pop(0)
        return found[0] if found else None


def table_ledger(*rows: str, privileges: tuple[str, ...] = ("SELECT", "DELETE")) -> tuple[ledger.TableLedger, Cursor]:
    cursor = Cursor([("public.done", list(privileges))], [("version",)], [(row,) for row in rows])
    return ledger.TableLedger(cursor, "done", "version", [ORDERS]), cursor


def test_a_table_tells_what_is_applied() -> None:
    found, _cursor = table_ledger("3", "0099", None)  # type: ignore[arg-type]  # asked no question here
    state = found.state(ORDERS, None)
    assert (state.state, state.evidence()) == (ledger.APPLIED, "a row in done")
    assert found.unknown_versions() == ["0099"]
    absent, _cursor = table_ledger()
    assert (absent.state(ORDERS, None).state, absent.state(ORDERS, None).evidence()) == (
        ledger.ABSENT,
        "no row in done",
    )


def test_the_row_is_deleted_as_it_stands_there() -> None:
    found, cursor = table_ledger("0003-cart-orders.sql")
    found.refuse_unfit([ORDERS])
    found.forget(cursor, ORDERS)
    assert cursor.asked[-1] == (
        "DELETE FROM public.done WHERE version::pg_catalog.text = ANY(%s)",
        (["0003-cart-orders.sql"],),
    )


def test_two_rows_and_a_missing_privilege_are_refused() -> None:
    with pytest.raises(Refused, match="2 rows for version 0003"):
        table_ledger("3", "0003")[0].refuse_unfit([ORDERS])
    with pytest.raises(Refused, match="lacks DELETE"):
        table_ledger("3", privileges=("SELECT",))[0].refuse_unfit([ORDERS])
    with pytest.raises(Refused, match="lacks SELECT"):
        table_ledger("3", privileges=())


@pytest.mark.parametrize("name", ["", "a b", "a.b.c", "x; DROP TABLE y", "a.", '"open'])
def test_what_is_no_name_of_a_table_is_refused_without_asking(name: str) -> None:
    cursor = Cursor()
    with pytest.raises(Refused, match="no name of a table"):
        ledger.TableLedger(cursor, name, "version", [])
    assert cursor.asked == []


def inferred(down: str, *there: tuple[str, str, str]) -> ledger.VersionState:
    """The state that a DOWN and these objects (catalog, type, name) make."""
    kinds = {"table": "r", "view": "v", "index": "i"}
    objects = [
        CatalogObject(
            catalog, number, name, type_, f"b2b.{name}", None if catalog == "pg_authid" else "b2b", "", kinds.get(type_)
        )
        for number, (catalog, type_, name) in enumerate(there)
    ]
    looked_up = Names(Catalog({item.address: item for item in objects}), Cursor(), ["b2b"])
    script = DownScript("0003", "x", "f.sql", 1, down, "", tuple(parse_script(down, "f.sql")), ())
    return ledger.InferredLedger(looked_up).state(ORDERS, script)


CARTS, ORDERS_TABLE, READER = (
    ("pg_class", "table", "carts"),
    ("pg_class", "table", "orders"),
    ("pg_authid", "role", "reader"),
)


@pytest.mark.parametrize(
    ("there", "state"),
    [([CARTS, ORDERS_TABLE], ledger.APPLIED), ([CARTS], ledger.PARTLY), ([], ledger.ABSENT), ([READER], ledger.ABSENT)],
)
def test_the_objects_tell_what_is_applied(there: list[tuple[str, str, str]], state: str) -> None:
    assert inferred("DROP TABLE b2b.carts; DROP TABLE orders; DROP ROLE reader", *there).state == state


def test_roles_tell_where_nothing_else_does() -> None:
    assert inferred("DROP ROLE reader", READER).state == ledger.APPLIED
    assert inferred("DROP ROLE reader").state == ledger.ABSENT


@pytest.mark.parametrize("down", ["UPDATE orders SET a = 1", "DROP CAST (int AS text)", "SELECT 1"])
def test_without_names_nothing_tells(down: str) -> None:
    assert inferred(down).state == ledger.UNKNOWN
    assert ledger.InferredLedger(Names(Catalog({}), Cursor(), [])).state(ORDERS, None).state == ledger.UNKNOWN


@pytest.mark.parametrize(
    "down",
    [
        "DROP VIEW b2b.report; CREATE VIEW b2b.report AS SELECT 1; DROP TABLE carts",
        "DROP VIEW report; CREATE OR REPLACE VIEW b2b.report AS SELECT 1; DROP TABLE carts",
        'DROP VIEW b2b.report; CREATE VIEW "b2b" . "report" AS SELECT 1; DROP TABLE carts',
    ],
)
def test_what_a_down_makes_again_tells_nothing(down: str) -> None:
    view = ("pg_class", "view", "report")
    assert inferred(down, view, CARTS).state == ledger.APPLIED
    assert inferred(down, view).state == ledger.ABSENT
    assert inferred(down, CARTS).state == ledger.APPLIED


def test_another_object_of_that_name_still_tells() -> None:
    view = ("pg_class", "view", "report")
    assert inferred("DROP VIEW b2b.report; CREATE TABLE b2b.report ()", view).state == ledger.APPLIED
    assert inferred("DROP VIEW b2b.report; CREATE VIEW erp.report AS SELECT 1", view).state == ledger.APPLIED
