# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""README's table of versions is what was really run, and that is what the collection says it supports."""

from __future__ import annotations

import datetime as dt
import json
import typing as t

import pytest

from tests.support import matrix

RUN: dict[str, t.Any] = {
    "ansible_core": "2.19.1",
    "python": "3.11.7",
    "postgresql": "15.18",
    "pglast": "8.8",
    "passed": 12,
    "failed": 0,
    "skipped": 1,
    "seconds": 30,
}


@pytest.fixture(scope="module")
def found() -> dict[str, t.Any]:
    """The run that is in the repository."""
    loaded: dict[str, t.Any] = json.loads(matrix.MATRIX.read_text(encoding="utf-8"))
    return loaded


def test_the_table_is_that_of_the_run(found: dict[str, t.Any]) -> None:
    readme = matrix.README.read_text(encoding="utf-8")
    assert matrix.with_table(readme, found) == readme
    assert matrix.versions_table(found) in readme
    assert matrix.with_table(readme, {"date": "2001-01-01", "runs": [RUN]}) != readme


def test_none_of_what_ran_failed(found: dict[str, t.Any]) -> None:
    assert [run for run in found["runs"] if run["failed"]] == []
    assert all(run["passed"] > 10 for run in found["runs"])
    assert dt.date.fromisoformat(found["date"]) <= dt.datetime.now(dt.UTC).date()


def test_the_lowest_ansible_core_ran_on_the_lowest_and_the_highest_python(found: dict[str, t.Any]) -> None:
    lowest = [run["python"].rpartition(".")[0] for run in found["runs"] if run["ansible_core"] == matrix.lowest_core()]
    assert lowest == ["3.11", "3.13"]
    assert "Python 3.11 or newer, ansible-core 2.18 or newer" in matrix.README.read_text(encoding="utf-8")
    assert matrix.lowest_core() == "2.18.0"


def minors(runs: list[dict[str, t.Any]], name: str, parts: int) -> set[str]:
    """The versions of one component that ran, cut to so many parts."""
    return {".".join(run[name].split(".")[:parts]) for run in runs}


def test_every_ansible_core_ran_on_the_lowest_and_on_the_highest_python_that_it_can_have(
    found: dict[str, t.Any],
) -> None:
    runs = found["runs"]
    assert minors(runs, "ansible_core", 2) == set(matrix.CORE_PYTHONS)
    for core, pythons in matrix.CORE_PYTHONS.items():
        of_core = [run for run in runs if run["ansible_core"].startswith(f"{core}.")]
        assert minors(of_core, "python", 2) == set(pythons)
    assert minors(runs, "python", 2) == {"3.11", "3.12", "3.13"}
    allowed = (matrix.REPOSITORY / "tests" / "requirements-run.txt").read_text(encoding="utf-8").splitlines()
    assert "ansible-core>=2.18,<2.22" in allowed


def test_every_postgresql_from_15_on_that_can_be_had_ran(found: dict[str, t.Any]) -> None:
    assert minors(found["runs"], "postgresql", 1) == {"15", "16", "17", "18"}


def test_a_failure_stands_in_the_table() -> None:
    table = matrix.versions_table({"date": "2026-02-13", "runs": [RUN, {**RUN, "failed": 3}]})
    assert table.startswith("Run on 2026-02-13:\n")
    assert "| 2.19.1 | 3.11.7 | 15.18 | 8.8 | 12 passed |\n" in table
    assert "| 12 passed, **3 failed** |\n" in table
