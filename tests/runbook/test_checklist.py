# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checklists through ansible-playbook: refused, asked at a terminal, answered beforehand, and in the report."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.checklist import BEFORE

from tests.support.runbook import LIMIT_SECONDS, REPOSITORY, Application, Project, Run

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    project = Project(tmp_path, database, rollback_require_checklist=True, rollback_person="Ana Pop")
    project.migrate("0003", orders=20)
    return project


@pytest.fixture
def application(project: Project) -> Iterator[Application]:
    with Application(project, "0003") as running:
        running.release_file.write_text("0002\n", encoding="utf-8")
        yield running


def items_of(run: Run, phase: str) -> dict[str, dict[str, t.Any]]:
    """A list of the report, by item."""
    assert run.report is not None, run.output
    return {item["key"]: item for item in run.report["checklists"][phase]}


def statuses(run: Run, phase: str) -> dict[str, str]:
    return {key: item["status"] for key, item in items_of(run, phase).items()}


def at_terminal(project: Project, *arguments: str) -> Run:
    """A run at a terminal of its own, with somebody who answers each question with yes once it is there."""
    before = set(project.run_folders())
    terminal, its_end = pty.openpty()
    # A session of its own whose terminal this is: whoever is not in the foreground of one is not asked.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *project.command("rollback", *arguments)],
        cwd=REPOSITORY,
        env=project.environment(),
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    output, deadline = b"", time.monotonic() + 120
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.5)[0]:
                output += os.read(terminal, 65536)
            # What is typed before the question reads it is thrown away, so it is typed until the run goes on.
            asked = output.rpartition(b"(yes/no):")
            if asked[1] and not re.search(rb"ok: |TASK \[", asked[2]):
                os.write(terminal, b"yes\r")
    os.close(terminal)
    if b"PLAY RECAP" not in output:
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=False)
    code = process.wait(LIMIT_SECONDS)
    (folder,) = [folder for folder in project.run_folders() if folder not in before]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Run(code, output.decode(errors="replace"), report, folder)


def test_without_a_terminal_an_open_list_is_refused_and_confirmed_it_goes_on(
    project: Project, application: Application
) -> None:
    preview = project.run("-e", "version=0003", "--check")
    assert preview.returncode == 0, preview.output
    assert "CHECKLIST before the rollback  2 of 7 hold" in preview.output
    assert "  open    The problem is confirmed: Only a person can say this." in preview.output
    assert "  yes     The rollback is planned: The plan takes back migration 0003" in preview.output

    run = project.run("-e", "version=0003")
    assert run.outcome == "refused", run.output
    open_items = [key for key in BEFORE if key not in ("rollback_planned", "backup_available")]
    assert run.message.startswith(
        "rollback_require_checklist is set, and not every item of the checklist holds. Nothing was stopped."
    )
    assert (
        f"-e checklist={','.join(f'{key}=yes' for key in open_items)}, or, where all of them hold: ansible-playbook"
        in run.message
    )
    assert re.search(
        r"cypher\.rollback\.rollback -e version=0003 -e checklist_confirmed=yes$", run.message, re.MULTILINE
    )
    assert [key for key, status in statuses(run, "before").items() if status == "open"] == open_items
    assert application.running
    assert run.stage("stop") is None

    log = project.folder / "shop.log"
    log.write_text("", encoding="utf-8")
    project.settings["rollback_log_sources"] = [{"name": "shop", "type": "file", "path": str(log)}]
    run = project.run(
        "-e", "version=0003", "-e", "checklist_confirmed=yes", "-e", "severity=high", "-e", "checklist_by=Ion"
    )
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert statuses(run, "before") == {
        "problem_confirmed": "confirmed", "impact_assessed": "confirmed", "rollback_planned": "passed", "backup_available": "passed",
        "team_notified": "confirmed", "downtime_estimated": "confirmed", "stakeholders_notified": "confirmed",
    }  # fmt: skip
    item = items_of(run, "before")["problem_confirmed"]
    assert (item["by"], item["evidence"]) == ("Ion", "Ion answered yes.")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", item["at"])
    assert run.report is not None
    assert (run.report["severity"]["level"], run.report["severity"]["given_by"]) == ("High", "Ion")
    assert statuses(run, "after") == {
        "database_verified": "passed", "application_works": "passed", "smoke_tests_passed": "passed", "logs_clean": "passed",
        "performance_normal": "unknown", "team_notified": "open", "post_mortem_scheduled": "open",
    }  # fmt: skip
    assert [log["name"] for log in run.report["logs"]] == ["shop"]
    assert "CHECKLIST after the rollback  4 of 7 hold" in run.output


def test_each_open_item_is_asked_at_a_terminal_and_errors_in_the_log_need_attention(
    project: Project, application: Application
) -> None:
    log = project.folder / "shop.log"
    log.write_text("", encoding="utf-8")
    project.settings["rollback_log_sources"] = [{"name": "shop", "type": "file", "path": str(log)}]
    shout = f"echo $(date -u +%Y-%m-%dT%H:%M:%SZ) ERROR relation b2b.orders does not exist >> {log}"
    project.settings["rollback_smoke_tests"] += [{"name": "shout", "command": shout}]
    run = at_terminal(project, "-e", "version=0003", "-e", "checklist=downtime_estimated=yes")
    assert (run.returncode != 0, run.outcome) == (True, "needs_attention"), run.output
    asked = re.findall(r"\((\w[^()]*)\)\? [^\r\n]*\r?\n\(yes/no\):", run.output)
    assert list(dict.fromkeys(asked)) == [
        "Probleme confirmate", "Impact evaluat", "Echipa notificată", "Stakeholder-i notificați", "Post-mortem programat",
    ]  # fmt: skip
    assert set(statuses(run, "before").values()) == {"confirmed", "passed"}
    answered = items_of(run, "before")["stakeholders_notified"]
    assert (answered["how"], answered["by"]) == ("person", "Ana Pop")
    assert answered["evidence"].startswith(
        "Ana Pop answered yes. No channel of rollback_notify tells a stakeholder audience"
    )
    assert statuses(run, "after")["logs_clean"] == "failed"
    assert statuses(run, "after")["post_mortem_scheduled"] == "confirmed"
    said = "Since the restart: 1 error in shop on cypher1, the last one: "
    assert said in items_of(run, "after")["logs_clean"]["evidence"]
    assert (
        "Stage closing_checklist failed: rollback_require_checklist is set, and not every item of the checklist after the "
        f"rollback holds. The logs are verified (without errors) (logs_clean): failed. {said}"
    ) in run.message
    assert application.running
    assert application.health() == 200
