# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workflow is told at the end of a job."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import artifacts, outcome


def result(outcome: str, **report: t.Any) -> dict[str, t.Any]:
    message = f"Something happened.\nDo this: ansible-playbook x\n{outcome}"
    return {"report": {"outcome": outcome, "run_id": f"run-{outcome}", **report}, "message": message}


def test_one_database_leaves_all_that_the_next_node_needs() -> None:
    ended = result(
        "rolled_back", plan={"versions": ["0004", "0003"]}, backup={"id": "backup_1"}, report_path="/runs/1/report.json"
    )
    assert artifacts.of_job({"db1": ended}, "0003") == {
        "rollback_outcome": "rolled_back",
        "rollback_run": "run-rolled_back",
        "rollback_version": "0004, 0003",
        "rollback_report": "/runs/1/report.json",
        "rollback_message": "Something happened. Do this: ansible-playbook x",
        "rollback_backup": "backup_1",
    }


def test_a_refused_run_has_the_version_that_was_asked_for_as_text() -> None:
    left = artifacts.of_job({"db1": result("refused", plan={"versions": []}, backup=None)}, 3)
    assert (left["rollback_version"], left["rollback_backup"], left["rollback_report"]) == ("3", "", "")


def test_a_preview_wrote_no_report() -> None:
    left = artifacts.of_job({"db1": result("planned", check_mode=True, report_path="/runs/1/report.json")})
    assert left["rollback_report"] == ""


def test_with_several_databases_the_worst_one_speaks() -> None:
    ended = {"db1": result("rolled_back"), "db2": result("needs_attention"), "db3": result("not_started")}
    left = artifacts.of_job(ended)
    assert left["rollback_outcome"] == "needs_attention"
    assert left["rollback_run"] == "run-needs_attention"
    assert left["rollback_outcomes"] == {"db1": "rolled_back", "db2": "needs_attention", "db3": "not_started"}


def test_every_outcome_of_a_run_has_its_place() -> None:
    words = {rule[0] for rule in outcome.RULES} | set(outcome.GOOD)
    assert words <= set(artifacts.ORDER)
    good = [artifacts.is_good(word) for word in artifacts.ORDER]
    assert good == sorted(good, reverse=True), "every good outcome comes before every bad one"
    assert artifacts.worst(["unknown", "something new", "rolled_back"]) == "something new"


@pytest.mark.parametrize(("check_mode", "outcome"), [(False, "unknown"), (True, "planned")])
def test_a_run_that_left_nothing_is_good_only_in_a_preview(check_mode: bool, outcome: str) -> None:
    ended = artifacts.ended({"db1": {}}, check_mode)["db1"]
    assert artifacts.outcome_of(ended) == outcome
    assert artifacts.is_good(outcome) is check_mode
    assert ended["message"].splitlines()[-1] == outcome


def test_a_message_is_one_line_that_a_node_can_show() -> None:
    assert artifacts.one_line("a\x1b[31m\n\n b\nneeds_attention") == "a\\x1b[31m b"
    assert len(artifacts.one_line("word " * 1000)) == artifacts.LONGEST_MESSAGE
    assert artifacts.one_line("It is restored") == "It is restored"
