# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told at the end, where a command in it is to be pasted."""

from __future__ import annotations

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.message import message_for, next_commands

RESUME = "ansible-playbook -i hosts.yml cypher.rollback.rollback -e resume=20261122T152140Z-0003-5f2c"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("No such version.", "No such version. Nothing was stopped or changed.\nrefused"),
        ("No such version. Nothing was stopped.", "No such version. Nothing was stopped.\nrefused"),
        (
            f"It died. Nothing was done by this run. To go on: {RESUME}",
            f"It died. Nothing was done by this run. To go on: {RESUME}\nrefused",
        ),
        (f"It died. To go on: {RESUME}", f"It died. To go on: {RESUME}\nNothing was stopped or changed.\nrefused"),
    ],
)
def test_a_refusal_leaves_a_command_at_its_end_as_it_is(said: str, told: str) -> None:
    assert message_for("refused", {"runbook": "rollback", "rollback_failure": {"message": said}}) == told


def test_a_preview_says_what_the_rollback_itself_would_be_refused_for() -> None:
    run = {
        "runbook": "rollback",
        "version": "0003",
        "plan_result": {"would_refuse": ["The folder is full. Nothing was stopped."]},
    }
    told = message_for("planned", run).splitlines()
    assert (
        told[1] == "As things are now, the rollback itself would be refused: The folder is full. Nothing was stopped."
    )
    assert told[2].startswith("To do it: ansible-playbook ")


def test_where_the_databases_host_is_lost_after_the_commit_the_run_is_gone_on_with() -> None:
    run = {
        "runbook": "rollback",
        "run_id": "r1",
        "version": "0003",
        "rollback_result": {"committed": True},
        "backup_result": {"backup": {"path": "/backups/one"}},
        "rollback_failure": {"stage": "verify", "message": "db1 cannot be reached.", "details": {"lost": True}},
    }
    told = message_for("needs_attention", run)
    assert "go on where it ended: ansible-playbook cypher.rollback.rollback -e resume=r1\n" in told
    assert "undo_rollback" not in told
    assert next_commands("needs_attention", run) == ["ansible-playbook cypher.rollback.rollback -e resume=r1"]
