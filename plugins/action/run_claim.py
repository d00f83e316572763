# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the claim who runs the playbook, and ask this host whether another claim's process still lives."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.modules import run_claim
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import controller_facts, is_dead
from ansible_collections.cypher.rollback.plugins.plugin_utils.in_process import EngineAction


class ActionModule(EngineAction):
    """See plugins/modules/run_claim.py for the options."""

    module = run_claim

    def run_module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Take or give back the claim; once more where the run that holds it is known to be dead."""
        own = controller_facts(task_vars)
        arguments["controller"] = own
        answer = super().run_module(arguments, task_vars)
        holder = ((answer.get("details") or {}).get("held_by") or {}).get("controller") or {}
        if answer.get("failed") and holder and is_dead(holder, own):
            answer = super().run_module({**arguments, "dead_holder": dict(holder)}, task_vars)
        return answer
