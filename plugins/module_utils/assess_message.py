# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told after an assessment: how bad it is, what decided that, and the command that comes next."""

from __future__ import annotations

import typing as t

from .outcome import Facts, facts
from .phrases import capital, database, join, lines, playbook, sentence
from .severity_rules import CRITICAL, HIGH
from .visible import visible


def severity_of(run: Facts) -> dict[str, t.Any]:
    """The assessment that a run made."""
    return facts(facts(run, "assess_result"), "severity")


def commands(severity: Facts, run: Facts) -> list[str]:
    """What to run next, as the run was started: the preview before the rollback; nothing but a look where it can wait.

    A DOWN needs a server that answers, and brings no row back that is lost: that only a backup does.
    """
    if severity.get("level") not in (CRITICAL, HIGH) or severity.get("database_down"):
        return [playbook(run, "assess", version=run.get("version"))]
    rollback = playbook(run, "rollback", version=severity.get("version") or run.get("version"))
    found = [f"{rollback} --check", rollback]
    if "data_loss" in (severity.get("decided_by") or []):
        found.append(f"{playbook(run, 'emergency_rollback')} --check")
    return found


def assessed(run: Facts) -> str:
    """How bad it is, until when something has to be done, and why."""
    severity = severity_of(run)
    unsure = ", not certain" if severity.get("inconclusive") else ""
    return lines(
        f"{capital(database(run))}: severity {visible(severity.get('level'))}{unsure}. {_action(severity)}.",
        join(_rules(severity), sentence(severity.get("text"))),
        _not_measured(severity),
        _no_baseline(severity, run),
        _next(severity, run),
        "This run wrote no report, because it was in check mode." if run.get("check_mode") else "",
    )


def _action(severity: Facts) -> str:
    action, deadline = str(severity.get("action") or ""), str(severity.get("deadline") or "")
    by = deadline.partition(", ")[2]
    return visible(f"{action}, {by}" if by else action)


def _rules(severity: Facts) -> str:
    rules = severity.get("decided_by") or []
    return f"Decided by {', '.join(visible(rule) for rule in rules)}." if rules else ""


def _not_measured(severity: Facts) -> str:
    missing = severity.get("not_measured") or []
    return f"Not measured: {visible('; '.join(map(str, missing)))}." if missing else ""


def _no_baseline(severity: Facts, run: Facts) -> str:
    """The command that records a baseline, where there is none."""
    if severity.get("backup") or severity.get("database_down"):
        return ""
    return f"To have a baseline, before the next migration: {playbook(run, 'backup')} -e version=<its version>"


def _next(severity: Facts, run: Facts) -> str:
    found = commands(severity, run)
    if severity.get("database_down"):
        return f"Bring the server back first: a rollback needs it. Then assess again: {found[0]}"
    if len(found) == 1:
        return f"To look again: {found[0]}"
    told = [f"Preview, which changes nothing: {found[0]}", f"Then, to do it: {found[1]}"]
    if len(found) > 2:
        told.append(f"A DOWN brings no lost row back. The newest backup does; its preview: {found[2]}")
    return "\n".join(told)
