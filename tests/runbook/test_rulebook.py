# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch, run by ansible-rulebook itself: it rolls a migration back, or only asks, by setting."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.postgres_server import free_port
from tests.support.runbook import REPOSITORY, Project, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

RULEBOOK = Path(sys.executable).with_name("ansible-rulebook")
SECONDS = 120

pytestmark = [
    pytest.mark.skipif(not RULEBOOK.exists(), reason="ansible-rulebook is not installed"),
    pytest.mark.skipif(shutil.which("java") is None, reason="ansible-rulebook needs Java 17, and there is no java"),
]


class Watch:
    """ansible-rulebook at work on a project, with a command that says what the test wants to be assessed."""

    def __init__(self, project: Project, **settings: t.Any) -> None:
        self.project = project
        self.folder = project.folder
        self.levels = self.folder / "levels.json"
        self.asked = self.folder / "asked.jsonl"
        self.output = self.folder / "rulebook.log"
        self.assessments = self.folder / "assessments"
        script = (
            "import pathlib, sys; folder = pathlib.Path(sys.argv[1]); log = folder / 'assessments'; "
            "log.open('a').write('.'); print((folder / 'levels.json').read_text())"
        )
        teller = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read().strip() + '\\n')"
        self.settings = {
            "rollback_watch_inventory": str(project.inventory()),
            "rollback_watch_interval": 0.3,
            "rollback_watch_pause": 0.3,
            "rollback_watch_times": 2,
            "rollback_watch_command": [sys.executable, "-c", script, str(self.folder)],
            "rollback_watch_ask_command": [sys.executable, "-c", teller, str(self.asked)],
            **settings,
        }

    def says(self, level: str, **more: t.Any) -> None:
        """What the next assessments say."""
        finding = {"rule": "p0_down", "level": level, "status": "fired", "text": "The shop does not answer."}
        severity = {"level": level, "inconclusive": False, "decided_by": ["p0_down"], "findings": [finding], **more}
        new = self.levels.with_suffix(".new")
        new.write_text(json.dumps({"cypher1": {"severity": severity, "run_id": "20261122T210000Z-assess-1"}}))
        new.replace(self.levels)

    def count(self) -> int:
        """Assessments so far."""
        return self.assessments.stat().st_size if self.assessments.exists() else 0

    def questions(self) -> list[dict[str, t.Any]]:
        """What somebody was asked so far."""
        return [json.loads(line) for line in self.asked.read_text().splitlines()] if self.asked.exists() else []

    def reports(self) -> list[dict[str, t.Any]]:
        """Reports of the runs so far."""
        found = []
        for folder in self.project.run_folders():
            # The watch removes what is obsolete.
            with contextlib.suppress(FileNotFoundError):
                found.append(json.loads((folder / "report.json").read_text()))
        return found

    def text(self) -> str:
        """What ansible-rulebook printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    @contextlib.contextmanager
    def running(self, rulebook: str = "watch_and_roll_back") -> Iterator[subprocess.Popen[bytes]]:
        """Start ansible-rulebook, and end it with what it started."""
        variables = self.folder / "watch.yml"
        variables.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
        inventory = str(self.project.inventory())
        argv = [str(RULEBOOK), "-r", f"cypher.rollback.{rulebook}", "-i", inventory, "-e", str(variables)]
        path = f"{RULEBOOK.parent}{os.pathsep}{os.environ['PATH']}"
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=REPOSITORY,
                env={**self.project.environment(), "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """A project whose newest migration is 0003."""
    project = Project(tmp_path, database)
    project.migrate("0003")
    return project


def orders(database: Database) -> object:
    """The table that 0003 made, if it is there."""
    return database.execute("SELECT to_regclass('b2b.orders')")[0][0]


def test_it_rolls_back_once_what_stays_critical(project: Project, database: Database) -> None:
    watch = Watch(project, rollback_watch_action="rollback", rollback_watch_version="0003")
    watch.says("Low")
    with watch.running():
        wait_until(lambda: watch.count() >= 3, SECONDS)
        assert watch.reports() == []
        watch.says("Critical", inconclusive=True)
        wait_until(watch.questions, SECONDS)
        assert orders(database) is not None, watch.text()
        watch.says("Critical")
        wait_until(watch.reports, SECONDS)
        seen = watch.count()
        wait_until(lambda: watch.count() >= seen + 8, SECONDS)
    (report,) = watch.reports()
    assert (report["outcome"], report["person"]) == ("rolled_back", "the watch (ansible-rulebook)"), watch.text()
    assert orders(database) is None
    assert [question["wanted"] for question in watch.questions()] == ["ask"]


def test_it_only_asks_where_that_is_set_and_assesses_by_itself(project: Project, database: Database) -> None:
    project.settings |= {
        "rollback_health_checks": [{"name": "shop", "url": "http://127.0.0.1:1/"}],
        "rollback_health_samples": 1,
        "rollback_critical_queries": [],
    }
    settings = {"rollback_watch_command": [], "rollback_watch_times": 1, "rollback_watch_version": "0003"}
    watch = Watch(project, **settings)
    with watch.running():
        wait_until(watch.questions, SECONDS)
        first = watch.questions()[0]["run_id"]
        runs = set()

        def removed() -> set[str]:
            present = {report["run_id"] for report in watch.reports()}
            runs.update(present)
            return runs - present

        # The one that was asked about stays; the others go when there is a newer one.
        assert first not in wait_until(removed, SECONDS)
    question = watch.questions()[0]
    assert question["text"] == (
        "cypher1 is Critical (1 in a row). P0 shop on cypher1 failed every time (1 of 1): http://127.0.0.1:1/ did not "
        "answer: [Errno 111] Connection refused. To roll back, run: ansible-playbook -i "
        f"{watch.settings['rollback_watch_inventory']} cypher.rollback.rollback -e version=0003 -e rollback_hosts=cypher1"
    )
    assert question["run_id"] == watch.reports()[0]["run_id"]
    assert len(watch.questions()) == 1
    assert {report["runbook"] for report in watch.reports()} == {"assess"}
    assert orders(database) is not None


def test_it_does_not_start_without_the_version_that_it_is_to_roll_back(project: Project) -> None:
    watch = Watch(project, rollback_watch_action="rollback")
    watch.says("Critical")
    with watch.running() as process:
        process.wait(SECONDS)
    assert (
        "rollback_watch_action is rollback, and rollback_watch_version is empty: nothing is rolled back by itself without "
        "its version. Give the version, or use ask."
    ) in " ".join(watch.text().split())
    assert watch.count() == 0


def test_an_alert_is_a_reason_to_assess(project: Project) -> None:
    project.settings |= {"rollback_critical_queries": []}
    port = free_port()
    watch = Watch(project, rollback_watch_listen_port=port, rollback_watch_token="secret")
    alert = {"version": "4", "groupKey": "{}:{}", "status": "firing", "commonLabels": {"severity": "critical"}}
    with watch.running("assess_on_alerts"):
        wait_until(lambda: post(port, {**alert, "status": "resolved"}, "secret") == 200, SECONDS)
        assert post(port, alert, "guessed") == 401
        assert post(port, alert, "secret") == 200
        assert post(port, alert, "secret") == 200
        wait_until(watch.reports, SECONDS)
    assert [report["runbook"] for report in watch.reports()] == ["assess"]


def post(port: int, body: dict[str, t.Any], token: str) -> int:
    """Status with which the webhook answers; 0 while nobody listens."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/alerts", json.dumps(body).encode(), headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return int(err.code)
    except OSError:
        return 0
