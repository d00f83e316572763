# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the controller of another run still lives can be known only here, and its claim only on the database host."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import controller_facts, is_dead
from ansible_collections.cypher.rollback.plugins.plugin_utils.in_process import EngineAction


class ClaimingAction(EngineAction):
    """Runs the module, and once more where the run that stands in the way is known to be dead."""

    def run_module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """The module's answer; ``details.held_by`` in it is the claim of another run."""
        own = controller_facts(task_vars)
        arguments["controller"] = own
        answer = super().run_module(arguments, task_vars)
        holder = ((answer.get("details") or {}).get("held_by") or {}).get("controller") or {}
        if holder and is_dead(holder, own):
            answer = super().run_module({**arguments, "dead_holder": dict(holder)}, task_vars)
        return answer
