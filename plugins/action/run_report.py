# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the summary of a run on the console, after the report is written on the database host."""

from __future__ import annotations

import os
import typing as t

from ansible import constants
from ansible.utils.display import Display
from ansible_collections.cypher.rollback.plugins.module_utils.journal import REPORT, nameless_run
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain
from ansible_collections.cypher.rollback.plugins.module_utils.summary import summary
from ansible_collections.cypher.rollback.plugins.modules import run_report
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import controller_facts
from ansible_collections.cypher.rollback.plugins.plugin_utils.in_process import EngineAction
from ansible_collections.cypher.rollback.plugins.plugin_utils.page import pages

display = Display()


def drawn(arguments: dict[str, t.Any]) -> dict[str, str]:
    """The texts for people. Whatever goes wrong with them, the report must be written."""
    report = dict(arguments["report"])
    report["report_path"] = report.get("report_path") or os.path.join(
        str(arguments.get("run_dir") or ""), str(arguments["run_id"]), REPORT
    )
    try:
        return pages(report, arguments.get("languages") or ("ro", "en"))
    except Exception as err:  # noqa: BLE001 (a name or a value that nobody thought of)
        display.warning(
            f"The page and the post-mortem of run {arguments['run_id']} could not be drawn: {type(err).__name__}: {err}. "
            "Its report is written all the same."
        )
        return {}


class ActionModule(EngineAction):
    """See plugins/modules/run_report.py for the options."""

    module = run_report

    def run_module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Write the report unless in check mode, and show the summary either way."""
        report = plain(arguments.get("report") or {})
        report["person"] = report.get("person") or controller_facts(task_vars)["user"]
        report["run_id"] = run_id = arguments.get("run_id") or report.get("run_id") or nameless_run()
        answer: dict[str, t.Any] = {"changed": False, "outcome": report.get("outcome")}
        if not self._task.check_mode:
            written = {**arguments, "run_id": run_id, "report": report, "controller": controller_facts(task_vars)}
            answer = super().run_module({**written, "pages": drawn(written)}, task_vars)
            if answer.get("lost"):
                display.warning(f"The report of run {run_id} is not written: {answer['msg']}")
                answer = {"changed": False, "outcome": report.get("outcome")}
            report |= {"report_path": answer.get("path"), "pages": answer.get("pages") or {}}
        # The report is in its file and in the facts; here it would bury what the operator looks for.
        answer.pop("invocation", None)
        text = summary(report)
        # Output for programs stays whole; they find the text in the result.
        for_people = not str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK")).endswith(("json", "jsonl"))
        if for_people:
            display.display(f"\n{text}\n")
        for note in report.get("notifications") or []:
            if note["status"] == "failed":
                display.warning(f"Notification {note['name']} was not delivered: {note['message']}")
        # Ansible shows all of a failed result, and the summary stands above it already.
        again = [] if for_people and answer.get("failed") else text.split("\n")
        return {**answer, "run_id": run_id, "summary": again}
