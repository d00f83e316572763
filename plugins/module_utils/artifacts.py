# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job leaves to the next ones of a workflow, from how the run of each of its databases ended."""

from __future__ import annotations

import typing as t

from .outcome import GOOD, facts
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Mapping

#: Outcome of a database that the run did not come to, because an earlier one failed.
NOT_STARTED = "not_started"

#: Outcomes from the best to the worst. A job with several databases has the worst of theirs.
ORDER = (
    "nothing_to_do",
    "planned",
    "verified",
    "assessed",
    "backups_valid",
    "backed_up",
    "restarted",
    "restored",
    "rolled_back",
    NOT_STARTED,
    "backups_not_valid",
    "refused",
    "failed_unchanged",
    "needs_attention",
    "unknown",
)

#: Characters of a message that a workflow's node can show.
LONGEST_MESSAGE = 1000

#: What a run ends with that was not told how it ended: the task that broke off has said why.
BROKEN_OFF = "The run broke off before it could say how it ended: see the task that failed, and the journal of the run."


def is_good(outcome: str) -> bool:
    """Whether ansible-playbook ends with exit code 0 for it."""
    return outcome in GOOD


def ended(results: Mapping[str, t.Any], check_mode: bool) -> dict[str, dict[str, t.Any]]:
    """How the run of each database ended: ``report`` and ``message``, also for one that left neither.

    :param results: the fact ``notify_result`` of each host, in the order of the run; empty where a host left none. In
        check mode that is the look at a run that died, which ends when it has said what it found.
    """
    return {host: dict(result) if result else _silent(check_mode) for host, result in results.items()}


def _silent(check_mode: bool) -> dict[str, t.Any]:
    outcome = "planned" if check_mode else "unknown"
    message = "What state the run that died has left is said above." if check_mode else BROKEN_OFF
    return {"report": {"outcome": outcome}, "message": f"{message}\n{outcome}"}


def outcome_of(result: Mapping[str, t.Any]) -> str:
    """The outcome of one database."""
    return str(facts(result, "report").get("outcome") or "unknown")


def worst(outcomes: t.Iterable[str]) -> str:
    """The outcome of a whole job; one that nobody knows is the worst."""
    return max(outcomes, key=lambda outcome: ORDER.index(outcome) if outcome in ORDER else len(ORDER))


def of_job(results: Mapping[str, Mapping[str, t.Any]], version: t.Any = "") -> dict[str, t.Any]:
    """What ``set_stats`` leaves; AWX hands it to the next nodes of a workflow as extra variables.

    :param results: as :func:`ended` gives it, one entry a database.
    :param version: the migration that was asked for, where a report names none.
    :returns: ``rollback_outcome``, ``rollback_run`` (its id), ``rollback_version``, ``rollback_report`` (path of the report,
        empty where none was written), ``rollback_message`` (one line) and ``rollback_backup``, all of the database that
        ended worst; with several databases also ``rollback_outcomes``, by host. None of them is the name of a setting: the
        next node would take it for one, and ``rollback_run_id`` would give its run the name of this one.
    """
    outcomes = {host: outcome_of(result) for host, result in results.items()}
    bad = worst(outcomes.values())
    result = next(results[host] for host, outcome in outcomes.items() if outcome == bad)
    report = facts(result, "report")
    written = "" if report.get("check_mode") else report.get("report_path") or ""
    left = {
        "rollback_outcome": bad,
        "rollback_run": str(report.get("run_id") or ""),
        "rollback_version": _version(report, version),
        "rollback_report": str(written),
        "rollback_message": one_line(result.get("message")),
        "rollback_backup": str(facts(report, "backup").get("id") or ""),
    }
    return {**left, "rollback_outcomes": outcomes} if len(outcomes) > 1 else left


def _version(report: Mapping[str, t.Any], asked: t.Any) -> str:
    versions = facts(report, "plan").get("versions") or []
    return ", ".join(str(version) for version in versions) or ("" if asked is None else str(asked))


def one_line(message: t.Any) -> str:
    """A message without its line breaks and without the outcome that its last line names."""
    lines = str(message or "").strip().splitlines()
    said = lines[:-1] if lines and lines[-1].strip() in ORDER else lines
    text = visible(" ".join(" ".join(said).split()))
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
