# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a host that answers no more, and what is done for the others."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import lost_host
from ansible_collections.cypher.rollback.plugins.module_utils.app_stage import note
from ansible_collections.cypher.rollback.plugins.module_utils.phrases import down
from ansible_collections.cypher.rollback.plugins.module_utils.release import note_checkout

BLANK: dict[str, t.Any] = {"hosts": {}, "changed": False, "failed": False, "message": "", "to_restart": []}
GONE = {"unreachable": True, "msg": "Failed to connect:\n timed out"}
RUNS = {"was_running": True, "running": True, "attempted": False, "changed": False, "message": "It runs."}
UP = {**RUNS, "attempted": True, "changed": True}


def test_a_host_that_is_lost_while_it_stops_may_be_down_and_is_to_run_again() -> None:
    result = note(BLANK, "stop", "app1", {"driver": "command", "found": RUNS, "acted": GONE})
    assert result["failed"]
    assert result["to_restart"] == ["app1"]
    assert result["message"].startswith(
        "app1: Whether it was stopped is not known: the host cannot be reached: Failed to"
    )
    assert result["hosts"]["app1"]["lost"]


def test_a_unit_of_systemd_is_judged_in_the_same_way() -> None:
    acted = {"results": [{"ansible_loop_var": "unit", "unit": "web", **GONE}]}
    found = {"rc": 0, "stdout_lines": ["active"]}
    evidence = {"driver": "systemd", "services": ["web"], "acted": acted, "after": acted, "found": found}
    assert note(BLANK, "stop", "app1", evidence)["to_restart"] == ["app1/web"]
    evidence["found"] = {"rc": 3, "stdout_lines": ["inactive"]}
    assert note(BLANK, "stop", "app1", evidence)["to_restart"] == []


@pytest.mark.parametrize("found", [GONE, {}, {"skipped": True}])
def test_a_host_that_was_lost_before_runs_as_it_did(found: dict[str, t.Any]) -> None:
    result = note(BLANK, "stop", "app1", {"driver": "command", "found": found, "acted": GONE})
    assert (result["failed"], result["to_restart"]) == (True, [])


def test_a_task_that_took_too_long_is_a_lost_host() -> None:
    acted = {"failed": True, "msg": "Timed out after 60 second(s).", "timedout": {"period": 60}}
    assert note(BLANK, "stop", "app1", {"driver": "command", "found": RUNS, "acted": acted})["to_restart"] == ["app1"]


def test_a_host_whose_code_could_not_be_put_back_keeps_no_other_from_coming_back() -> None:
    code = {"ref": "v1", "commit": "a" * 40, "previous_commit": "b" * 40, "previous_branch": "main", "changed": True}
    release: dict[str, t.Any] = {"hosts": {}, "changed": False, "failed": False, "message": ""}
    release = note_checkout(note_checkout(release, "app1", GONE), "app2", code)
    assert (release["failed"], release["lost"]) == (False, ["app1"])
    refused = note_checkout(release, "app3", {"msg": "local changes"})
    assert (refused["failed"], refused["lost"]) == (True, ["app1"])

    restart = note(BLANK, "restart", "app1", {"driver": "command", "lost": "Nothing was started."})
    restart = note(restart, "restart", "app2", {"driver": "command", "acted": UP})
    assert restart["failed"]
    assert restart["message"] == "app1: Nothing was started."
    run = {"stop_result": {"hosts": {}, "to_restart": ["app1", "app2", "app3"]}, "restart_result": restart}
    assert down(run) == (
        "the application does not run on app3; whether the application runs on app1 is not known; it runs again on app2"
    )


def test_before_anything_is_stopped_each_lost_host_is_named_with_what_to_do() -> None:
    answers = [
        {"ansible_loop_var": "host", "host": "app1", "rc": 0},
        {"ansible_loop_var": "host", "host": "app2", **GONE},
        {"ansible_loop_var": "host", "host": "app3", "skipped": True},
    ]
    (problem,) = lost_host.application_problems(answers)
    assert problem.startswith("app2: the host cannot be reached: Failed to connect: timed out. ")
    assert "rollback_app_hosts" in problem


@pytest.mark.parametrize(("module", "outcome"), [("db_backup", ""), ("db_rollback", "unknown"), ("db_swap", "unknown")])
def test_a_database_s_host_that_is_lost_fails_the_stage(module: str, outcome: str) -> None:
    answer = lost_host.database_host(module, "db1", "no\nroute.")
    assert answer["failed"]
    assert answer["outcome"] == outcome
    assert "db1 cannot be reached" in answer["msg"]
    assert ("not known" in answer["msg"]) is (outcome == "unknown")
