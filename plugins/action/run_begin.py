# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a run's beginning who runs the playbook, and give the stages of a resumed run to the tasks that follow."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.modules import run_begin
from ansible_collections.cypher.rollback.plugins.plugin_utils.claiming import ClaimingAction
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import own_session


class ActionModule(ClaimingAction):
    """See plugins/modules/run_begin.py for the options."""

    module = run_begin

    def run_module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Begin or resume."""
        answer = super().run_module(arguments, task_vars)
        if not answer.get("failed"):
            marks = {"run_id": answer["run_id"], "session": own_session()}
            answer["ansible_facts"] = {"rollback_stages": [{**stage, **marks} for stage in answer.get("stages") or []]}
        return answer
