# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three databases in one run, each on a host and with an application of its own, over SSH."""

from __future__ import annotations

import re
import typing as t

import pytest

from tests.support.estate import Estate

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database
    from tests.support.runbook import Run
    from tests.support.ssh_hosts import SshHosts

pytestmark = pytest.mark.usefixtures("custom_stats")

DATABASES = ["db1", "db2", "db3"]
APP_OF = {"db1": "app1", "db2": "app2", "db3": "app3"}


@pytest.fixture
def estate(tmp_path: Path, databases: dict[str, Database], hosts: SshHosts) -> Iterator[Estate]:
    with Estate(tmp_path, databases, hosts, list(APP_OF.values())).running() as running:
        yield running


def table(run: Run) -> dict[str, list[str]]:
    """The lines of the table at the end, by host; the order of the databases is that of the lines."""
    shown = re.search(r'"\d of \d databases ended well\.".*?(?=\n\s*\])', run.output, re.DOTALL)
    assert shown, run.output
    assert run.output.count("databases ended well.") == 1
    lines = re.findall(r'^\s*"(.*?)",?$', shown[0], re.MULTILINE)
    return {line.split()[0]: line.split() for line in lines if re.match(r"db\d ", line)}


def test_the_canary_fails_and_the_others_are_left_as_they_are(estate: Estate) -> None:
    before = estate.processes()
    estate.host("db1").cut_off()
    run = estate.follow("rollback")
    estate.host("db1").reconnect()
    assert run.returncode != 0
    rows = table(run)
    assert list(rows) == DATABASES
    assert [rows[host][2] for host in DATABASES] == ["refused", "not_started", "not_started"]
    assert [rows[host][1] for host in DATABASES] == [database.name for database in estate.databases.values()]
    found = run.left
    assert found["rollback_outcomes"] == {"db1": "refused", "db2": "not_started", "db3": "not_started"}
    assert (found["rollback_outcome"], found["rollback_version"], found["rollback_report"]) == ("refused", "0003", "")
    assert "The database's host db1 cannot be reached" in found["rollback_message"]
    assert "db2, db3: Not started, because db1 failed before it" in run.output
    assert estate.run_folders() == []
    assert estate.processes() == before
    assert all(estate.has_orders(host) for host in DATABASES)

    # A preview looks at all of them, and shows which would be refused.
    estate.database_vars["db1"]["rollback_max_rows_lost"] = 1
    preview = estate.follow("preview")
    assert preview.returncode != 0
    assert preview.left["rollback_outcomes"] == {"db1": "refused", "db2": "planned", "db3": "planned"}
    assert [table(preview)[host][2] for host in DATABASES] == ["refused", "planned", "planned"]
    assert "rollback_max_rows_lost" in preview.left["rollback_message"]
    assert estate.processes() == before


def test_the_order_is_judged_first_and_may_go_on_after_a_failure(estate: Estate) -> None:
    before = estate.processes()
    # Nothing here hangs on how a host is reached.
    here = ("-e", "ansible_connection=local", "-e", "version=0009")
    wrong = estate.run(*here, "-e", "rollback_serial=half")
    assert wrong.returncode != 0
    assert set(wrong.left["rollback_outcomes"].values()) == {"refused"}
    assert "rollback_serial is 'half', which names no batches. Give numbers" in wrong.left["rollback_message"]
    all_of_them = estate.run(*here, "-e", "rollback_serial=1", "-e", "rollback_stop_on_failure=false")
    assert all_of_them.left["rollback_outcomes"] == dict.fromkeys(DATABASES, "refused")
    assert [len(estate.reports(host)) for host in DATABASES] == [2, 2, 2]
    assert estate.processes() == before


def test_each_database_has_an_outcome_of_its_own(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    # As an ansible.cfg may have them.
    monkeypatch.setenv("ANSIBLE_ANY_ERRORS_FATAL", "1")
    monkeypatch.setenv("ANSIBLE_STRATEGY", "free")
    before = estate.processes()
    # The release that runs on app3 needs what the DOWN drops: its smoke test fails after the commit.
    estate.app_vars["app3"]["rollback_smoke_tests"] = [{"name": "ill", "command": ["false"]}]
    estate.app_vars["app3"]["rollback_smoke_timeout"] = 1
    run = estate.run("-e", "version=0003")
    assert run.returncode != 0
    rows = table(run)
    outcomes = {"db1": "rolled_back", "db2": "rolled_back", "db3": "needs_attention"}
    assert {host: rows[host][2] for host in DATABASES} == outcomes
    assert run.left["rollback_outcomes"] == outcomes
    reports = {host: estate.reports(host)[0] for host in DATABASES}
    assert run.left["rollback_run"] == reports["db3"]["run_id"]
    assert len({report["run_id"] for report in reports.values()}) == 3
    assert {host: report["target"]["database"] for host, report in reports.items()} == {
        host: database.name for host, database in estate.databases.items()
    }
    # Each has stopped its own application and no other one, the canary before all others.
    assert {host: list(report["application"]["stopped"]) for host, report in reports.items()} == {
        host: [app] for host, app in APP_OF.items()
    }
    assert all(reports["db1"]["finished_at"] <= reports[host]["started_at"] for host in ("db2", "db3"))
    assert "rollback_hosts=db3" in reports["db3"]["message"]
    after = estate.processes()
    assert all(after.values())
    assert not set(before.values()) & set(after.values())
    assert not any(estate.has_orders(host) for host in DATABASES)

    # What is rolled back is left alone, and rollback_hosts takes a part of them.
    again = estate.follow("part")
    assert again.returncode == 0, again.output
    assert again.left["rollback_outcome"] == "nothing_to_do"
    assert [len(estate.reports(host)) for host in DATABASES] == [1, 2, 1]
    assert estate.processes() == after
