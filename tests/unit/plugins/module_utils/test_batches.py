# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order several databases are taken."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import batches

APART = {"db1": ["app1"], "db2": ["app2"]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, [1]),
        ("1", [1]),
        ("50%", ["50%"]),
        ([1, "100%"], [1, "100%"]),
        ("1, 25%,100%", [1, "25%", "100%"]),
        (0, None),
        ("0%", None),
        (-1, None),
        (True, None),
        ("", None),
        ([], None),
        ("all", None),
        ("101%", None),
        ([1, "half"], None),
        ({"a": 1}, None),
        (1.5, None),
        ("²", None),
    ],
)
def test_a_value_names_batches_or_none(value: t.Any, expected: t.Any) -> None:
    assert batches.sizes(value) == expected
    assert bool(batches.problems([value])) is (expected is None)


def test_a_canary_comes_first_where_nothing_is_set() -> None:
    assert batches.given([None, None]) == [[1, "100%"]]
    assert batches.serial(batches.given([]), APART) == [1, "100%"]


def test_one_value_counts_for_all() -> None:
    assert batches.given([2, None, 2]) == [2]
    (problem,) = batches.problems(batches.given([1, 2]))
    assert "rollback_serial" in problem
    assert "group all" in problem


def test_databases_that_share_an_application_are_taken_one_by_one() -> None:
    assert batches.shared({"db1": ["app1", "app2"], "db2": ["app2"], "db3": ["app3", "app3"]}) == ["app2"]
    assert batches.serial(["100%"], {"db1": ["app1"], "db2": ["app1"]}) == [1]


def test_a_wrong_value_is_refused_in_one_batch_and_not_in_the_middle() -> None:
    assert batches.serial(["half"], APART) == ["100%"]


@pytest.mark.parametrize("value", [[1, "100%"], 3, "10%", "1,2,50%"])
def test_a_group_s_name_holds_the_batches(value: t.Any) -> None:
    name = batches.group_name([value], APART)
    assert name.isidentifier()
    assert batches.of_groups(["all", name, "erp_db"]) == batches.sizes(value)


def test_without_such_a_group_all_are_taken_together() -> None:
    assert batches.of_groups(["all", "erp_db"]) == ["100%"]
