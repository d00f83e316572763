# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the process that holds a claim still lives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import (
    controller_facts,
    is_dead,
    process_started,
)


def test_a_killed_process_is_dead_and_a_living_one_is_not() -> None:
    own = controller_facts({})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        holder = {**own, "pid": str(process.pid), "started": process_started(process.pid)}
        assert not is_dead(holder, own)
        assert is_dead({**holder, "started": "1"}, own)
        process.kill()
        process.wait()
    assert is_dead(holder, own)


@pytest.mark.parametrize(
    "change", [{"host": "other"}, {"boot_id": "x"}, {"pid_namespace": ""}, {"pid": "?"}, {"pid": ""}]
)
def test_what_cannot_be_known_from_here_is_not_called_dead(change: dict[str, str]) -> None:
    own = controller_facts({})
    assert not is_dead({**own, "pid": "4194304", **change}, own)


def test_the_user_and_job_of_a_controller_come_from_its_variables() -> None:
    facts = controller_facts({"awx_user_name": "ana", "awx_job_id": 42})
    assert (facts["user"], facts["job"], facts["pid"]) == ("ana", "42", str(os.getppid()))
