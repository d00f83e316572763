# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: lines, stages, files of a run's folder."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import journal

if t.TYPE_CHECKING:
    from collections.abc import Iterator

T0, T1, T2 = "2026-11-22T15:00:00.000Z", "2026-11-22T15:00:01.500Z", "2026-11-22T15:00:04.000Z"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: str | os.PathLike[str]) -> int:
    return os.stat(path).st_mode & 0o7777


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "-rf", "a b", "a\n", "x" * 129, "ø"])
def test_a_run_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(journal.RunFolderRefused, match="rollback_run_id"):
        journal.run_folder("/runs", name)


@pytest.mark.usefixtures("open_umask")
def test_folders_and_files_are_private_under_any_umask(tmp_path: pathlib.Path) -> None:
    folder = journal.make_run_folder(str(tmp_path / "new" / "runs"), "r1")
    journal.append(folder, "{}")
    report = journal.write_report(folder, {"outcome": "refused"})
    assert [mode(path) for path in (tmp_path / "new", tmp_path / "new" / "runs", folder)] == [0o700] * 3
    assert [mode(path) for path in (report, os.path.join(folder, journal.JOURNAL))] == [0o600] * 2


def test_a_link_in_place_of_the_run_folder_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "r1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(journal.RunFolderRefused, match="symbolic link"):
        journal.make_run_folder(str(tmp_path), "r1")


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(journal.RunFolderRefused, match=r"Not a directory.*rollback_run_dir"):
        journal.make_run_folder(str(tmp_path / "file" / "runs"), "r1")


def test_a_report_is_never_replaced(tmp_path: pathlib.Path) -> None:
    paths = [journal.write_report(str(tmp_path), {"number": number}) for number in range(3)]
    assert [os.path.basename(path) for path in paths] == ["report.json", "report-2.json", "report-3.json"]
    assert [json.loads(pathlib.Path(path).read_text())["number"] for path in paths] == [0, 1, 2]
    assert sorted(os.listdir(tmp_path)) == ["report-2.json", "report-3.json", "report.json"]


def test_a_line_holds_no_line_break_and_no_control_character() -> None:
    line = journal.journal_line("r1", "stage", T0, stage="a\nb\x1b[2J\u202e", message="x" * 5000)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["stage"] == "a\nb\x1b[2J\u202e"
    assert len(json.loads(line)["message"]) == journal.LONGEST_TEXT + 1


def test_a_torn_line_is_left_out(tmp_path: pathlib.Path) -> None:
    journal.append(str(tmp_path), journal.journal_line("r1", "claimed", T0))
    with open(tmp_path / journal.JOURNAL, "a", encoding="utf-8") as torn:
        torn.write('{"at": "2026')
    assert [event["event"] for event in journal.read(str(tmp_path))] == ["claimed"]
    assert journal.read(str(tmp_path / "nowhere")) == []


def run_through(*steps: tuple[str, str, str]) -> list[dict[str, t.Any]]:
    stages: list[dict[str, t.Any]] = []
    for name, status, at in steps:
        stages = journal.advance(stages, name, status, at)[0]
    return stages


def told(stages: list[dict[str, t.Any]]) -> list[tuple[t.Any, ...]]:
    return [(stage["name"], stage["status"], stage["seconds"]) for stage in stages]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("plan", "started", T0)], [("plan", "started", None)]),
        ([("plan", "started", T0), ("plan", "started", T1)], [("plan", "started", None)]),
        ([("plan", "started", T0), ("stop", "started", T1)], [("plan", "finished", 1.5), ("stop", "started", None)]),
        ([("plan", "started", T0), ("plan", "failed", T1)], [("plan", "failed", 1.5)]),
        ([("plan", "started", T0), ("stop", "failed", T1)], [("plan", "failed", 1.5), ("stop", "failed", 0.0)]),
        ([("plan", "started", T0), ("plan", "finished", T1), ("plan", "failed", T2)], [("plan", "failed", 1.5)]),
        ([("plan", "started", T0), ("previous_code", "skipped", T1)], [("plan", "finished", 1.5), ("previous_code", "skipped", 0.0)]),
        ([("plan", "started", T1), ("plan", "finished", T0)], [("plan", "finished", 0.0)]),
        (
            [("restart", "started", T0), ("restart", "finished", T1), ("restart", "started", T2)],
            [("restart", "finished", 1.5), ("restart", "started", None)],
        ),
    ],
)  # fmt: skip
def test_stages_follow_each_other(steps: list[tuple[str, str, str]], expected: list[tuple[t.Any, ...]]) -> None:
    assert told(run_through(*steps)) == expected


def test_what_changed_is_told_in_order_and_the_old_list_stays() -> None:
    old = run_through(("plan", "started", T0))
    new, changed = journal.advance(old, "stop", "started", T1)
    assert [stage["name"] for stage in changed] == ["plan", "stop"]
    assert old[0]["status"] == "started"
    assert journal.open_stage(new) == "stop"


def test_a_process_at_work_is_seen_until_it_is_killed(tmp_path: pathlib.Path) -> None:
    program = (
        "import sys, time\n"
        "from ansible_collections.cypher.rollback.plugins.module_utils.journal import at_work\n"
        "with at_work(sys.argv[1]):\n    print('at work', flush=True)\n    time.sleep(60)\n"
    )
    assert not journal.is_at_work(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "at work\n"
        assert journal.is_at_work(str(tmp_path))
        worker.kill()
        worker.wait()
    assert not journal.is_at_work(str(tmp_path))
