# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the claim who runs the playbook, and ask this host whether another claim's process still lives."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import controller_facts, is_dead

MODULE = "cypher.rollback.run_claim"


class ActionModule(ActionBase):
    """See plugins/modules/run_claim.py for the options."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Take or give back the claim; once more where the run that holds it is known to be dead."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        own = controller_facts(task_vars or {})
        arguments = {**self._task.args, "controller": own}
        answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        holder = ((answer.get("details") or {}).get("held_by") or {}).get("controller") or {}
        if answer.get("failed") and holder and is_dead(holder, own):
            arguments["dead_holder"] = dict(holder)
            answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        result.update(answer)
        return result
