# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills ansible-playbook with SIGKILL after a stage or a task, as a power cut would."""

from __future__ import annotations

import os
import signal
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_after
type: aggregate
short_description: kill the controller
description: KILL_AFTER names the stage, or the task after "task ".
"""


class CallbackModule(CallbackBase):
    """Waits for the task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_after"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """Kill where it was the one."""
        wanted = os.environ["KILL_AFTER"]
        task, answer = result._task, result._result
        name = task.get_name().rpartition(" : ")[2]
        stage = answer.get("stage") if name == "End the stage" else None
        is_include = str(task.action).rpartition(".")[2].startswith("include_")
        if wanted in (stage, f"task {name}") and not is_include:
            os.kill(os.getpid(), signal.SIGKILL)
