# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module of this name on the controller: who is to be told is reached from there, and knows its secrets."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.report import plain
from ansible_collections.cypher.rollback.plugins.modules import notification
from ansible_collections.cypher.rollback.plugins.plugin_utils.in_process import EngineAction
from ansible_collections.cypher.rollback.plugins.plugin_utils.page import report_page


def page_of(arguments: dict[str, t.Any]) -> str:
    """The run's page where a mail can take it along; empty where there is none, or it cannot be drawn."""
    mails = any(
        hasattr(channel, "get") and channel.get("type") == "email" for channel in arguments.get("channels") or []
    )
    if not mails or arguments.get("event") == "start":
        return ""
    try:
        return report_page(arguments["report"])
    except Exception:  # noqa: BLE001 (run_report draws it again and says what is wrong with it)
        return ""


class ActionModule(EngineAction):
    """See plugins/modules/notification.py for the options."""

    module = notification

    def run_module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """The module's result, from plain data: messages are sent as JSON."""
        given = plain(arguments)
        return super().run_module({"page": "" if self._task.check_mode else page_of(given), **given}, task_vars)

    def is_here(self, task_vars: dict[str, t.Any]) -> bool:
        """Always, whatever the connection of the task's host."""
        del task_vars
        return True
