# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which earlier run is remembered, and which is not."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.history import rollback_of
from ansible_collections.cypher.rollback.plugins.module_utils.server import Target

if t.TYPE_CHECKING:
    import pathlib

TARGET = Target("db1", 5432, "shop", "15.3", 15, "77")


def write(run_dir: pathlib.Path, run_id: str, **changes: t.Any) -> None:
    report = {
        "run_id": run_id,
        "outcome": "rolled_back",
        "finished_at": run_id,
        "target": {"system_identifier": "77", "database": "shop"},
        "plan": {"versions": ["0004", "0003"]},
        **changes,
    }
    (run_dir / run_id).mkdir(parents=True)
    (run_dir / run_id / "report.json").write_text(json.dumps(report), encoding="utf-8")


@pytest.mark.parametrize("version", ["0003", "3", 3, "0004"])
def test_the_newest_rollback_of_a_version_is_found(tmp_path: pathlib.Path, version: object) -> None:
    write(tmp_path, "1")
    write(tmp_path, "2")
    found = rollback_of(str(tmp_path), version, TARGET)
    assert found is not None
    assert found["run_id"] == "2"


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "failed_unchanged"},
        {"target": {"system_identifier": "78", "database": "shop"}},
        {"target": {"system_identifier": "77", "database": "other"}},
        {"plan": {"versions": ["0005"]}},
        {"plan": None},
    ],
)
def test_another_run_is_not_taken_for_it(tmp_path: pathlib.Path, changes: dict[str, t.Any]) -> None:
    write(tmp_path, "1", **changes)
    assert rollback_of(str(tmp_path), "0003", TARGET) is None


def test_what_is_no_report_is_passed_over(tmp_path: pathlib.Path) -> None:
    (tmp_path / "died").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{", encoding="utf-8")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "report.json").write_text("[]", encoding="utf-8")
    assert rollback_of(str(tmp_path), "0003", TARGET) is None
    assert rollback_of(str(tmp_path / "missing"), "0003", TARGET) is None
