# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run as data. The console summary, the notification and every page about the run are drawn from it."""

from __future__ import annotations

import os
import typing as t

from .journal import REPORT, Stage, seconds_between
from .message import message_for, next_commands
from .outcome import (
    Facts,
    decide,
    facts,
    hosts_of,
    is_committed,
    kind_of,
    plan_of,
    state_of,
    stopped_hosts,
    verification_of,
)
from .restore_message import swap_back_commands

#: Keys of a stage in the report; others are the stage action's own marks.
_STAGE_KEYS = ("name", "status", "started_at", "finished_at", "seconds")

_EMPTY_TARGET = dict.fromkeys(("host", "port", "database", "server_version", "system_identifier"))
_EMPTY_PLAN: dict[str, t.Any] = {"versions": [], "statements": 0}
_EMPTY_BACKUP = dict.fromkeys(("id", "path", "kind", "bytes", "verified"))
_EMPTY_EFFECT: dict[str, t.Any] = {"dropped": [], "skipped": [], "left_over": [], "rows_lost": 0}
_EMPTY_VERIFICATION: dict[str, t.Any] = {"passed": None, "checks": []}


def compose(run: Facts) -> dict[str, t.Any]:
    """Draw the report of a run from the facts that its stages left.

    :param run: ``run_id``, ``runbook``, ``check_mode``, ``run_dir``, ``host``, ``target`` (as set, for a run without a
        plan), ``version``, ``to_version``, ``asked`` (extra variables of a restoring run),
        ``inventory``, ``one_of_many``, ``stages``, ``notifications``,
        ``rollback_failure`` and the ``<stage>_result`` facts. Any of them may be missing.
    :returns: at least the keys that the contract names, each with its empty value where the run has none.
    """
    run = plain(run)
    outcome = decide(state_of(run))
    stages = [{key: stage.get(key) for key in _STAGE_KEYS} for stage in run.get("stages") or []]
    return {
        "run_id": run.get("run_id") or None,
        "runbook": run.get("runbook") or "rollback",
        "outcome": outcome,
        "message": message_for(outcome, run),
        **_parts(run),
        "stages": stages,
        "downtime_seconds": downtime(run, stages),
        "check_mode": bool(run.get("check_mode")),
        "host": run.get("host"),
        "started_at": stages[0]["started_at"] if stages else None,
        "finished_at": _last_moment(stages),
        "failure": facts(run, "rollback_failure") or None,
        "next_commands": next_commands(outcome, run),
        "notifications": run.get("notifications") or [],
        "person": run.get("person") or None,
        "contacts": run.get("contacts") or [],
        "resumed": run.get("resumed") or [],
        "severity": _severity(run),
        "checklists": {
            "before": facts(run, "checklist_result").get("items") or [],
            "after": facts(run, "closing_checklist_result").get("items") or [],
        },
        "logs": facts(run, "closing_checklist_result").get("logs") or [],
        "report_path": _report_path(run),
    }


def _parts(run: Facts) -> dict[str, t.Any]:
    plan, rollback = facts(run, "plan_result"), facts(run, "rollback_result")
    details = facts(facts(run, "rollback_failure"), "details")
    return {
        "target": {**_EMPTY_TARGET, **facts(run, "target"), **_asked(run), **facts(plan_of(run), "target")},
        "plan": {**_EMPTY_PLAN, **facts(plan, "plan")},
        "backup": {**_EMPTY_BACKUP, **_backup(run)},
        "committed": is_committed(run),
        "restore": _restore(run),
        "swap": _swap(run),
        "effect": {**_EMPTY_EFFECT, **(facts(rollback, "effect") or facts(details, "effect"))},
        "verification": {**_EMPTY_VERIFICATION, **verification_of(run)},
        "schema_drift": facts(rollback, "schema_drift") or facts(details, "schema_drift") or None,
        "statements": rollback.get("statements") or [],
        "locks": rollback.get("locks") or [],
        "sessions": rollback.get("sessions") or plan.get("sessions") or [],
        "application": {
            "stopped": hosts_of(facts(run, "stop_result")),
            "restarted": hosts_of(facts(run, "restart_result")),
        },
        "previous_code_plan": facts(run, "previous_code_plan"),
        "previous_code": facts(run, "previous_code_result") or None,
        "smoke_tests": {"passed": None, "tests": [], **facts(run, "smoke_test_result")},
        "warnings": _warnings(run),
    }


def _asked(run: Facts) -> dict[str, t.Any]:
    """The database that a verification by itself found."""
    return facts(facts(run, "verify_result"), "target") if kind_of(run) == "verify" else {}


def _severity(run: Facts) -> dict[str, t.Any] | None:
    """The assessment of this run, or the one that led to it."""
    return facts(facts(run, "assess_result"), "severity") or facts(facts(run, "checklist_result"), "severity") or None


def _backup(run: Facts) -> dict[str, t.Any]:
    """The backup that was taken; of a run that restores, the one that is gone back to."""
    source = plan_of(run) if kind_of(run) == "restore" else facts(run, "backup_result")
    return facts(source, "backup")


#: Of the plan of a restoring run.
_RESTORE_KEYS = ("purpose", "why", "passed_over", "gap", "window", "estimate", "incoming", "lines")
#: Of its stages; a module's own marks stay out.
_RESTORED_KEYS = ("database", "tables", "phases", "roles", "left_overs", "provider")


def _restore(run: Facts) -> dict[str, t.Any] | None:
    """What a restoring run chose, why, what that costs, and what became of it."""
    if kind_of(run) != "restore":
        return None
    plan, restored = plan_of(run), facts(run, "restore_result")
    tables = facts(run, "restore_tables_result")
    return {
        **{key: plan.get(key) for key in _RESTORE_KEYS},
        **{key: facts(restored, "restored").get(key) for key in _RESTORED_KEYS},
        "compared": restored.get("compared"),
        "seconds": restored.get("seconds"),
        "put_back": {key: tables.get(key) for key in ("tables", "committed")} if tables else None,
        "state_before": facts(facts(run, "backup_result"), "backup") or None,
    }


def _swap(run: Facts) -> dict[str, t.Any] | None:
    """The exchange, with the command that undoes it."""
    swap = facts(run, "swap_result")
    keys = ("swapped", "swapped_back", "live", "incoming", "kept", "ended", "xid", "seconds", "fenced")
    back = next(iter(swap_back_commands(run)), None)
    return {**{key: swap.get(key) for key in keys}, "swap_back_command": back} if "swapped" in swap else None


def plain(value: t.Any) -> t.Any:
    """Data without the wrappers of a template engine: dict, list and scalars only."""
    if hasattr(value, "items"):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(entry) for entry in value]
    return value


def _warnings(run: Facts) -> list[str]:
    stages = (
        "restore_plan",
        "plan",
        "preflight",
        "stop_preflight",
        "stop",
        "backup",
        "restore",
        "restore_tables",
        "swap",
        "rollback",
        "verify",
        "restart",
        "checklist",
        "closing_checklist",
    )
    sources = [f"{stage}_result" for stage in stages]
    return list(
        dict.fromkeys(str(warning) for source in sources for warning in facts(run, source).get("warnings") or [])
    )


def downtime(run: Facts, stages: t.Sequence[Stage]) -> float | None:
    """Seconds from the first service stopped to the last smoke test passed; ``None`` when nothing was stopped.

    While the application is still down, there is no end to count to: then it is what has passed until the last stage.
    """
    if not stopped_hosts(run):
        return None
    begun = next((stage["started_at"] for stage in stages if stage["name"] == "stop"), None)
    ends = [
        stage["finished_at"]
        for stage in stages
        if stage["name"] in ("smoke_test", "restart") and stage["status"] != "skipped"
    ]
    return seconds_between(begun, ends[-1] if ends and ends[-1] else _last_moment(stages))


def _last_moment(stages: t.Sequence[Stage]) -> str | None:
    moments = [moment for stage in stages for moment in (stage["started_at"], stage["finished_at"]) if moment]
    return max(moments, default=None)


def _report_path(run: Facts) -> str | None:
    if run.get("check_mode") or not run.get("run_dir") or not run.get("run_id"):
        return None
    return os.path.join(str(run["run_dir"]), str(run["run_id"]), REPORT)
