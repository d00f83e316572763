# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks: what is compared, and how values of a database meet those of an inventory."""

from __future__ import annotations

import decimal
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import checks
from ansible_collections.cypher.rollback.plugins.module_utils.catalog import Catalog, CatalogObject


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (1, "1"),
        ("1", 1),
        (decimal.Decimal("1.50"), "1.5"),
        (1.5, "1.50"),
        (True, "true"),
        (True, "t"),
        (False, "False"),
        (None, None),
        (None, ""),
        ("text", "text"),
        (12345678901234567890, "12345678901234567890"),
    ],
)
def test_equal_values(actual: object, expected: object) -> None:
    assert checks.equals(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (1, 2),
        (None, 0),
        (0, None),
        (True, 1),
        ("a", "A"),
        ("", "0"),
        (9007199254740993, 9007199254740992),
        (True, "false"),
    ],
)
def test_different_values(actual: object, expected: object) -> None:
    assert not checks.equals(actual, expected)


def test_failed_checks_are_clauses() -> None:
    found = [
        checks.Check("a", checks.FAILED, "1", "2"),
        checks.Check("b", checks.PASSED, "1", "1"),
        checks.Check("c", checks.INFORMATION, "", "9"),
    ]
    assert checks.failed_checks(found) == ["a: expected 1, found 2"]


def test_row_counts() -> None:
    expected = {"s.a": 1, "s.b": 2, "s.c": 3, "s.d": 4, "s.e": 5}
    found = checks.compare_rows(expected, {"s.a": 1, "s.b": 3}, {"s.c"}, {"s.a", "s.b", "s.d"})
    assert found.status == "failed"
    assert found.expected == "4 tables equal"
    assert (
        found.actual
        == "s.b: 3 instead of 2, s.d: not to be counted by this role instead of 4, s.e: missing instead of 5"
    )
    assert checks.compare_rows({"s.a": 1}, {"s.a": 1, "s.z": 9}, set(), {"s.a"}).status == "passed"


def test_only_some_of_many_are_listed() -> None:
    found = checks.compare_rows({f"t{n:02}": 1 for n in range(30)}, {}, set(), set())
    assert found.actual.endswith("t09: missing instead of 1 and 20 more")


def test_dropped_objects_that_are_there() -> None:
    item = CatalogObject("pg_class", 1, "t", "table", "s.t", "s", "")
    dropped = [{"type": "table", "identity": "s.t"}, {"type": "view", "identity": "s.t"}]
    assert checks.gone_check(dropped, Catalog({item.address: item})) == checks.Check(
        "dropped objects are gone", "failed", "0 of 2 there", "table s.t"
    )
    assert checks.gone_check(dropped, Catalog({})).status == "passed"


class Cursor:
    """A cursor with one answer."""

    def __init__(self, rows: list[tuple[t.Any, ...]]) -> None:
        self._rows = rows

    def execute(self, operation: str, parameters: t.Any = None, /) -> object:
        return (operation, parameters)

    def fetchone(self) -> tuple[t.Any, ...] | None:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[tuple[t.Any, ...]]:
        return self._rows


INVALID = [("indexes", "s.i", "pg_class", 1), ("constraints", "c on s.t", "pg_constraint", 2)]


@pytest.mark.parametrize(("is_old", "status"), [(True, "information"), (False, "failed")])
def test_invalid_objects_fail_unless_they_are_old(is_old: bool, status: str) -> None:
    found = list(checks.structure_checks(Cursor(INVALID), lambda _: is_old))
    assert [(check.name, check.status) for check in found] == [
        ("constraints are valid", status),
        ("indexes are valid", status),
    ]
    assert "s.i" in found[1].actual


def test_nothing_invalid_passes() -> None:
    assert {check.status for check in checks.structure_checks(Cursor([]), lambda _: False)} == {"passed"}
