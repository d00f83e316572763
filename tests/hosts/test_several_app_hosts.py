# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One database whose application runs on three hosts, over SSH; hosts that do not stop, do not answer, or are cut off."""

from __future__ import annotations

import contextlib
import json
import subprocess
import typing as t

import pytest

from tests.support.estate import Estate
from tests.support.runbook import REPOSITORY, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database
    from tests.support.ssh_hosts import SshHosts

APPS = ["app1", "app2", "app3"]


@pytest.fixture
def estate(tmp_path: Path, database: Database, hosts: SshHosts) -> Iterator[Estate]:
    made = Estate(tmp_path, {"db1": database}, hosts, APPS)
    # What the hosts of the application do is the same, and the modules of the database need not be sent anywhere.
    made.database_vars["db1"]["ansible_connection"] = "local"
    with made.running() as running:
        yield running


def events(estate: Estate) -> list[dict[str, t.Any]]:
    """The journal of the newest run, as far as it is written."""
    folders = estate.run_folders()
    journal = folders[-1] / "journal.jsonl" if folders else estate.folder / "none"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def run_and_cut_off(estate: Estate, host: str, stage: str) -> tuple[int, str]:
    """Run the rollback, and cut a host off when a stage has begun; exit code and output."""
    command = estate.command("rollback", "-e", "version=0003")
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=estate.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        begun = {"stage": stage, "status": "started"}
        try:
            wait_until(
                lambda: process.poll() is not None or any(begun.items() <= event.items() for event in events(estate)),
                estate.limit_seconds,
            )
            estate.host(host).cut_off()
            output = process.communicate(timeout=estate.limit_seconds)[0]
        except BaseException:
            process.kill()
            raise
    return process.returncode, output


def test_the_application_is_stopped_on_all_hosts_before_the_down_and_runs_on_all_after_it(estate: Estate) -> None:
    before = estate.processes()
    run = estate.run("-e", "version=0003")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    stopped = run.report["application"]["stopped"]
    assert {name: host["stopped"] for name, host in stopped.items()} == dict.fromkeys(APPS, True)
    assert {test["name"] for test in run.report["smoke_tests"]["tests"]} == {f"health of {app}" for app in APPS}
    after = estate.processes()
    assert all(after.values())
    assert not set(before.values()) & set(after.values())
    assert not estate.has_orders("db1")
    order = [stage["name"] for stage in run.report["stages"]]
    assert order.index("stop") < order.index("backup") < order.index("rollback") < order.index("restart")

    again = estate.run("-e", "version=0003")
    assert (again.returncode, again.outcome) == (0, "nothing_to_do"), again.output
    assert estate.processes() == after


def test_a_host_that_cannot_be_stopped_prevents_the_down(estate: Estate) -> None:
    before = estate.processes()
    estate.host("app2").cut_off()
    run = estate.run("-e", "version=0003")
    assert run.outcome == "refused", run.output
    assert "app2: the host cannot be reached" in run.message
    assert "Nothing was stopped" in run.message
    assert run.stage("stop") is None
    estate.host("app2").reconnect()
    assert estate.processes() == before

    # It answers, and then does not do as it is told.
    estate.app_vars["app2"]["rollback_app_stop_command"] = "echo not tonight; exit 1"
    estate.app_vars["app2"]["rollback_app_timeout"] = 2
    run = estate.run("-e", "version=0003")
    assert run.outcome == "failed_unchanged", run.output
    assert "app2: " in run.message
    assert "not tonight" in run.message
    assert estate.has_orders("db1")
    after = estate.processes()
    assert all(after.values())
    assert (after["app2"], after["app3"]) == (before["app2"], before["app3"])


def test_a_host_that_is_cut_off_after_it_stopped_is_named_and_the_others_come_back(estate: Estate) -> None:
    code, output = run_and_cut_off(estate, "app2", "backup")
    (report,) = estate.reports("db1")
    assert (code != 0, report["outcome"]) == (True, "needs_attention"), output
    assert "rolled back and committed" in report["message"]
    assert "hether the application runs on app2 is not known; it runs again on app1, app3" in report["message"]
    assert "cypher.rollback.restart" in report["message"]
    assert [warning for warning in report["warnings"] if warning.startswith("app2 answers no more since its app")]
    assert not estate.has_orders("db1")
    estate.host("app2").reconnect()
    assert [bool(pid) for pid in estate.processes().values()] == [True, False, True]

    restarted = estate.follow("restart")
    assert restarted.returncode == 0, restarted.output
    assert all(estate.processes().values())


def test_a_host_that_is_cut_off_while_it_stops_may_be_down_and_the_others_come_back(estate: Estate) -> None:
    stop = " ".join(str(word) for word in estate.app_vars["app2"]["rollback_app_stop_command"])
    estate.app_vars["app2"]["rollback_app_stop_command"] = f"{stop}; {estate.host('app2').cut_command}; sleep 60"
    estate.app_vars["app2"]["rollback_app_timeout"] = 20
    run = estate.run("-e", "version=0003")
    assert run.outcome == "needs_attention", run.output
    assert "app2: Whether it was stopped is not known: the host cannot be reached" in run.message
    assert "is as it was before the run, but whether the application runs on app2 is not known" in run.message
    assert run.stage("backup") is None
    assert estate.has_orders("db1")
    assert [bool(pid) for pid in estate.processes().values()] == [True, False, True]


def test_the_host_of_the_database_is_cut_off_and_the_application_comes_back(estate: Estate) -> None:
    estate.database_vars["db1"] |= estate.hosts.variables("db1")
    code, output = run_and_cut_off(estate, "db1", "backup")
    assert code != 0
    assert "The database's host db1 cannot be reached while db_backup works there" in output
    assert "failed_unchanged" in output
    assert "The report of run" in output
    assert all(estate.processes().values())
    assert estate.has_orders("db1")
