# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the summary of a run on the console, after the report is written on the database host."""

from __future__ import annotations

import typing as t

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cypher.rollback.plugins.module_utils.journal import nameless_run
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain
from ansible_collections.cypher.rollback.plugins.module_utils.summary import summary
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import controller_facts

display = Display()


class ActionModule(ActionBase):
    """See plugins/modules/run_report.py for the options."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Write the report unless in check mode, and show the summary either way."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        report = plain(self._task.args.get("report") or {})
        report["run_id"] = run_id = self._task.args.get("run_id") or report.get("run_id") or nameless_run()
        answer: dict[str, t.Any] = {"changed": False, "outcome": report.get("outcome")}
        if not self._task.check_mode:
            arguments = {
                **self._task.args,
                "run_id": run_id,
                "report": report,
                "controller": controller_facts(task_vars or {}),
            }
            answer = self._execute_module(
                module_name="cypher.rollback.run_report", module_args=arguments, task_vars=task_vars
            )
            report["report_path"] = answer.get("path")
        # The report is in its file and in the facts; here it would bury what the operator looks for.
        answer.pop("invocation", None)
        text = summary(report)
        # Output for programs stays whole; they find the text in the result.
        if not str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK")).endswith(("json", "jsonl")):
            display.display(f"\n{text}\n")
        for note in report.get("notifications") or []:
            if note["status"] == "failed":
                display.warning(f"Notification {note['name']} was not delivered: {note['message']}")
        result.update(answer, run_id=run_id, summary=text.split("\n"))
        return result
