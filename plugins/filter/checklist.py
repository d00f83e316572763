# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role checklist: who is told, what is asked, and the list with what was answered."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils import checklist
from ansible_collections.cypher.rollback.plugins.module_utils.answers import yes_or_no
from ansible_collections.cypher.rollback.plugins.module_utils.checklist_findings import telling, unread
from ansible_collections.cypher.rollback.plugins.module_utils.journal import utc_now
from ansible_collections.cypher.rollback.plugins.module_utils.phrases import playbook
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain


def checklist_told(channels: t.Any, contacts: t.Any) -> dict[str, t.Any]:
    """Which channels tell each audience, and who belongs to it, without any address."""
    return telling(plain(channels), plain(contacts))


def checklist_questions(found: t.Any) -> list[dict[str, str]]:
    """What a person is to be asked about the lists of all databases, each item once."""
    lists = [plain(one).get("items") or [] for one in found if hasattr(one, "items")]
    asked = [question for items in lists for question in checklist.questions(items)]
    return list({question["key"]: question for question in asked}.values())


def checklist_logs(answers: t.Any) -> list[dict[str, t.Any]]:
    """The logs of all hosts. A host that could not be asked is a log that could not be read."""
    found: list[dict[str, t.Any]] = []
    for answer in plain(answers):
        host = str(answer.get("checklist_host") or "")
        logs = answer.get("logs")
        if logs is None and not answer.get("skipped"):
            logs = [unread(str(answer.get("msg") or "the host gave no answer"))]
        found += [{**log, "host": host} for log in logs or []]
    return found


def checklist_answered(
    found: t.Any, asked: t.Any, phase: str, *, by: str, required: bool = False, run: t.Any = None
) -> dict[str, t.Any]:
    """The result of the role.

    :param found: what checklist_info returned; one that failed leaves every item unknown.
    :param asked: the registered questions; skipped ones included.
    :param required: the list is a condition.
    :param run: how it was started: ``runbook``, ``inventory``, ``one_of_many``, ``host``, and ``given``, its extra variables.
    """
    result = plain(found)
    items = result.get("items")
    if not items:
        problem = checklist.Finding("unknown", str(result.get("msg") or "The list could not be checked."))
        items = checklist.draw(phase, dict.fromkeys(checklist.LISTS[phase], problem), checklist.Answers(at=utc_now()))
    typed = {
        str(one["checklist_item"]["key"]): answer
        for one in plain(asked).get("results") or []
        if "checklist_item" in one and (answer := yes_or_no(one.get("user_input"))) is not None
    }
    items = checklist.answered(items, checklist.Answers(typed, by=by, at=utc_now()))
    problems = checklist.problems(items)
    started = plain(run or {})
    command = playbook(started, str(started.get("runbook") or "rollback"), **(started.get("given") or {}))
    message = checklist.refusal(items, command) if phase == "before" else checklist.shortfall(items)
    return {
        "items": items,
        "severity": result.get("severity") or {},
        "logs": result.get("logs") or [],
        "problems": problems,
        "message": message if required else "",
        "warnings": [f"Checklist: {problem}" for problem in problems],
    }


class FilterModule:
    """The filters of the checklists."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {
            "checklist_answered": checklist_answered,
            "checklist_logs": checklist_logs,
            "checklist_questions": checklist_questions,
            "checklist_told": checklist_told,
        }
