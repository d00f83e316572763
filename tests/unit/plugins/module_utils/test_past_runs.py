# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs of a folder: those with a report, those that died, those that are at work, and what cannot be read."""

from __future__ import annotations

import json
import os
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.claims import Claims
from ansible_collections.cypher.rollback.plugins.module_utils.journal import (
    append,
    at_work,
    journal_line,
    make_run_folder,
)
from ansible_collections.cypher.rollback.plugins.module_utils.past_runs import FolderUnreadable, runs, table

if t.TYPE_CHECKING:
    import pathlib


def write(run_dir: pathlib.Path, run_id: str, day: int, name: str = "report.json", **changes: t.Any) -> None:
    report = {
        "run_id": run_id,
        "runbook": "rollback",
        "outcome": "rolled_back",
        "committed": True,
        "person": "Ana Pop",
        "host": "db1",
        "started_at": f"2026-11-{day:02}T10:00:00.000Z",
        "finished_at": f"2026-11-{day:02}T10:00:05.500Z",
        "downtime_seconds": 3.25,
        "target": {"system_identifier": "77", "database": "shop"},
        "plan": {"versions": ["0004", "0003"]},
        "effect": {"rows_lost": 1410},
        "stages": [{"name": "plan"}, {"name": "notify"}],
        **changes,
    }
    folder = run_dir / run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(report), encoding="utf-8")


def began(run_dir: pathlib.Path, run_id: str, day: int) -> str:
    """A run that wrote nothing but the beginning of a stage."""
    folder = make_run_folder(str(run_dir), run_id)
    append(folder, journal_line(run_id, "stage", f"2026-11-{day:02}T10:00:00.000Z", stage="backup", status="started"))
    return folder


def test_runs_are_listed_from_their_reports_newest_first(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "a", 3)
    write(tmp_path, "b", 5, outcome="failed_unchanged", committed=False, downtime_seconds=None)
    write(tmp_path, "c", 4)
    (tmp_path / "b" / "report.html").write_text("page", encoding="utf-8")
    (tmp_path / "index.html").write_text("no run", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    found = runs(str(tmp_path))
    assert [run["run_id"] for run in found] == ["b", "c", "a"]
    assert found[0]["page"] == "b/report.html"
    assert (found[0]["rows_lost"], found[0]["downtime_seconds"]) == (None, None)
    assert found[2] == {
        "run_id": "a", "status": "finished", "problem": "", "runbook": "rollback", "outcome": "rolled_back", "versions": ["0004", "0003"],
        "database": "shop", "host": "db1", "person": "Ana Pop", "started_at": "2026-11-03T10:00:00.000Z",
        "finished_at": "2026-11-03T10:00:05.500Z", "seconds": 5.5, "downtime_seconds": 3.25, "rows_lost": 1410, "last_stage": "notify",
        "report": "a/report.json", "page": None,
    }  # fmt: skip


def test_every_report_of_a_folder_is_a_run_of_its_own(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "a", 3)
    write(tmp_path, "a", 4, "report-2.json")
    assert [run["report"] for run in runs(str(tmp_path))] == ["a/report-2.json", "a/report.json"]


def test_a_run_that_died_says_where_and_one_at_work_is_not_taken_for_dead(tmp_path: pathlib.Path) -> None:
    died, works = began(tmp_path, "died", 3), began(tmp_path, "works", 4)
    began(tmp_path, "claims", 5)
    Claims(str(tmp_path), "77-shop").take({"run_id": "claims", "controller": {"pid": "1"}})
    with at_work(works):
        found = {run["run_id"]: run for run in runs(str(tmp_path))}
    assert [run["status"] for run in found.values()] == ["at_work", "at_work", "died"]
    assert {run["last_stage"] for run in found.values()} == {"backup"}
    assert found["works"]["problem"] == (
        "It is at work, or died a short time ago: its journal ends with stage backup started at 2026-11-04T10:00:00.000Z."
    )
    assert found["died"]["problem"] == (
        "It ended without a report: its journal ends with stage backup started at 2026-11-03T10:00:00.000Z. Look at what state "
        f"the database and the application are in; {died}/journal.jsonl has every stage."
    )
    assert [run["status"] for run in runs(str(tmp_path)) if run["run_id"] == "works"] == ["died"]


def test_a_report_that_is_none_is_named_and_not_hidden(tmp_path: pathlib.Path) -> None:
    for name, text in (("broken", "{"), ("list", "[]"), ("bytes", "\udcff")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    write(
        tmp_path,
        "odd",
        3,
        plan=None,
        target="x",
        stages=["x"],
        effect=None,
        finished_at="noon",
        downtime_seconds="long",
        person=None,
    )
    found = {run["run_id"]: run for run in runs(str(tmp_path))}
    assert {name: run["status"] for name, run in found.items()} == {
        "odd": "finished", "list": "unreadable", "bytes": "unreadable", "broken": "unreadable",
    }  # fmt: skip
    assert found["list"]["problem"] == "report.json cannot be read: it is no report"
    assert found["broken"]["problem"].startswith("report.json cannot be read: Expecting property name")
    assert (found["odd"]["seconds"], found["odd"]["versions"], found["odd"]["database"]) == (None, [], "")
    assert "cannot be read" in "\n".join(table(list(found.values()), str(tmp_path)))


def test_only_the_runs_of_one_database_and_those_of_which_it_is_not_known(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "a", 3)
    write(tmp_path, "b", 4, target={"database": "other"})
    began(tmp_path, "c", 5)
    assert [run["run_id"] for run in runs(str(tmp_path), "shop")] == ["c", "a"]


def test_no_folder_has_no_runs_and_one_that_cannot_be_read_is_refused(tmp_path: pathlib.Path) -> None:
    assert runs(str(tmp_path / "missing")) == []
    assert table([], "/runs") == ["RUNS  /runs  0 runs", "  There is none yet."]
    (tmp_path / "file").touch()
    with pytest.raises(
        FolderUnreadable, match=r"The folder of runs .*/file cannot be read: Not a directory. Run as the user"
    ):
        runs(str(tmp_path / "file"))


def test_the_table_is_for_a_console(tmp_path: pathlib.Path) -> None:
    for day in range(1, 6):
        write(tmp_path, f"r{day}", day, person="Ana\x1b[2J\u202e\nPop")
    lines = table(runs(str(tmp_path)), str(tmp_path), 2)
    assert lines[0] == f"RUNS  {tmp_path}  5 runs"
    assert lines[1].split() == [
        "STARTED",
        "(UTC)",
        "RUNBOOK",
        "DATABASE",
        "MIGRATIONS",
        "OUTCOME",
        "STOP",
        "WHOLE",
        "ROWS",
        "LOST",
        "BY",
    ]
    assert lines[2] == (
        r"  2026-11-05 10:00:00  rollback  shop      0004, 0003  rolled_back  3.2 s  5.5 s      1,410  Ana\x1b[2J\u202e\nPop"
    )
    assert lines[4:] == ["… and 3 older"]
    assert all(char.isprintable() for line in lines for char in line)
    assert len(table(runs(str(tmp_path)), str(tmp_path))) == 7


def test_a_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "elsewhere", "a", 3)
    (tmp_path / "runs").mkdir()
    os.symlink(tmp_path / "elsewhere" / "a", tmp_path / "runs" / "a")
    assert runs(str(tmp_path / "runs")) == []
