# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a run that took one object back, and the command that does it again, ready to be pasted."""

from __future__ import annotations

import itertools
import json
import shlex
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.message import message_for, next_commands
from ansible_collections.cypher.rollback.plugins.module_utils.report import compose
from ansible_collections.cypher.rollback.plugins.module_utils.summary import summary


def run_of(kind: str, identity: str, **about: t.Any) -> dict[str, t.Any]:
    planned = {
        "kind": kind,
        "identity": identity,
        "statement": f"DROP {kind.upper()} {identity}",
        "asked": {kind: identity, "cascade": about.pop("cascade", False), "index_drop": "transaction"},
        "parts": [],
        "cascaded": [],
        "migrations": [],
        **about,
    }
    return {
        "runbook": "rollback_object",
        "run_id": "r1",
        "asked": {kind: "as given", "cascade": ""},
        "plan_result": {
            "outcome": "planned",
            "plan": {"versions": [f"{kind}-x"], "statements": 1, "object": planned},
            "target": {"database": "cypher_erp"},
        },
    }


def extra(command: str) -> dict[str, str]:
    """The extra variables of a command, as a shell and ansible-playbook read them."""
    words = shlex.split(command)
    found: dict[str, str] = {}
    for option, value in itertools.pairwise(words):
        if option == "-e":
            found |= json.loads(value) if value.startswith("{") else dict([value.split("=", 1)])
    return found


@pytest.mark.parametrize(
    "identity", ["b2b.orders.new_column", '"My Schema"."Orders"."New ""Col"', 'b2b.orders."it\'s"']
)
def test_the_next_command_names_the_object_exactly(identity: str) -> None:
    (command,) = next_commands("planned", run_of("column", identity))
    assert command.startswith("ansible-playbook cypher.rollback.rollback_object -e ")
    assert extra(command) == {"column": identity}


def test_cascade_belongs_to_the_command() -> None:
    (command,) = next_commands("planned", run_of("table", "b2b.new_table", cascade=True))
    assert extra(command) == {"table": "b2b.new_table", "cascade": "yes"}


def test_a_preview_says_what_the_real_run_does_with_the_application() -> None:
    said = message_for("planned", run_of("table", "b2b.new_table"))
    assert (
        "Preview of table b2b.new_table on database cypher_erp: it was dropped there in a transaction that was undone."
        in said
    )
    assert "No migration is marked as taken back: the migration tool may still believe" in said
    assert "NOT stopped" not in said
    said = message_for("planned", run_of("index", "b2b.idx_x", concurrently=True, migrations=["0007"]))
    assert "For real the application is NOT stopped, and the index is dropped concurrently." in said
    assert "(the DOWN of 0007 names it)" in said


def test_what_was_done_is_named_in_place_of_a_migration() -> None:
    said = message_for("rolled_back", run_of("column", "b2b.orders.new_column"))
    assert said.startswith("Column b2b.orders.new_column of database cypher_erp is rolled back and verified")
    assert "deploy the release that fits this database" in said
    said = message_for("rolled_back", run_of("index", "b2b.idx_x"))
    assert "No code depends on an index, so it was left as it is." in said
    assert "deploy the release" not in said


def test_what_was_asked_for_is_named_where_there_is_no_plan() -> None:
    run = {"runbook": "rollback_object", "asked": {"index": "idx_x"}, "plan_result": {"outcome": "nothing_to_do"}}
    assert "Index idx_x is not applied" in message_for("nothing_to_do", run)
    assert "The object is not applied" in message_for("nothing_to_do", {**run, "asked": {}})


def test_a_half_dropped_index_has_one_command_that_goes_on() -> None:
    run = run_of("index", "b2b.idx_x", concurrently=True, why="Its table was read.") | {
        "rollback_failure": {
            "stage": "rollback",
            "outcome": "needs_attention",
            "message": "DROP INDEX CONCURRENTLY did not reach its end. The index b2b.idx_x is there and INVALID.",
            "details": {"half_dropped": "b2b.idx_x"},
        },
        "backup_result": {"backup": {"path": "/backups/b1", "id": "b1"}},
    }
    report = compose(run)
    assert report["outcome"] == "needs_attention"
    assert report["next_commands"] == ["ansible-playbook cypher.rollback.rollback_object -e index=b2b.idx_x"]
    for said in ("The index b2b.idx_x is there and INVALID.", "The application was not stopped.",
                 "To go on: ansible-playbook cypher.rollback.rollback_object -e index=b2b.idx_x", "/backups/b1"):  # fmt: skip
        assert said in report["message"]
    assert "restart" not in report["message"]


def test_the_summary_shows_the_statement_what_goes_and_the_way() -> None:
    parts = {"parts": ["index b2b.idx_a"], "cascaded": ["view b2b.v"]}
    text = summary(compose(run_of("table", "b2b.new_table", **parts) | {"check_mode": True}))
    for said in ("PLAN  table-x, 1 statement", "  DROP TABLE b2b.new_table", "  with it go\n    index b2b.idx_a",
                 "  CASCADE also drops\n    view b2b.v"):  # fmt: skip
        assert said in text
    index = run_of("index", "b2b.idx_x", why="Nobody was seen to use its table.") | {"check_mode": True}
    assert "In a transaction, with the application stopped: Nobody was seen to use its table." in summary(
        compose(index)
    )
    index = run_of("index", "b2b.idx_x", why="Its table was read.", concurrently=True) | {"check_mode": True}
    assert "The application is NOT stopped: Its table was read." in summary(compose(index))
