# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run ended and what to do now, in plain words: the top of the page and of the post-mortem."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.outcome import hosts_of, still_down
from ansible_collections.cypher.rollback.plugins.plugin_utils.page_parts import duration, entries, mapping

Report = t.Mapping[str, t.Any]

#: What a run is called, by its runbook.
RUNBOOKS = {
    "rollback": "Rollback",
    "rollback_object": "Rollback of an object",
    "emergency_rollback": "Emergency rollback",
    "undo_rollback": "Undoing a rollback",
    "swap_back": "Swapping back",
    "backup": "Backup before a migration",
    "restart": "Restart",
    "verify": "Verification",
    "assess": "Assessment",
}

#: What a stage does.
STAGES = {
    "plan": "Plan",
    "claim": "Claim the database",
    "confirm": "Confirm",
    "preflight": "Judge the application",
    "checklist": "Checklist before",
    "start": "Tell everyone of the start",
    "early_backup": "Back up early",
    "stop": "Stop the application",
    "backup": "Back up",
    "rollback": "Run the DOWN",
    "restore": "Restore beside the live database",
    "restore_tables": "Put tables back",
    "swap": "Exchange the databases",
    "verify": "Verify",
    "previous_code": "Previous code",
    "restart": "Start the application",
    "smoke_test": "Smoke tests",
    "closing_checklist": "Checklist after",
    "assess": "Assess",
    "notify": "Notify",
}

_COMMAND = re.compile(
    r"^(?P<before>.*?)(?P<command>(?<!\S)ansible-playbook .+|(?<=: )(?:SELECT|GRANT|ALTER|DROP|REASSIGN|rm) .+)$"
)
_LABELS = {
    "restart": "Start the application and run the smoke tests, nothing else:",
    "undo_rollback": "Go back to the state before this run:",
    "swap_back": "Swap back to the database that was replaced:",
    "rollback": "Roll back:",
    "emergency_rollback": "Restore a backup:",
}


@dataclasses.dataclass(frozen=True)
class Headline:
    """The outcome in words. ``tone`` is ``good``, ``bad``, ``warn`` or ``plain``."""

    tone: str
    word: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Step:
    """Something to do: what it does, and the command."""

    label: str
    command: str


def hosts_down(report: Report) -> list[str]:
    """Hosts on which the application does not run."""
    application = mapping(report, "application")
    return still_down(
        {
            "stop_result": {"hosts": hosts_of({"hosts": application.get("stopped") or {}})},
            "restart_result": {"hosts": hosts_of({"hosts": application.get("restarted") or {}})},
        }
    )


def stopped_words(report: Report) -> str:
    """How long the application was down."""
    down, seconds = hosts_down(report), report.get("downtime_seconds")
    if down:
        so_far = f", {duration(seconds)} until the end of this run" if seconds is not None else ""
        return f"application still down on {', '.join(down)}{so_far}"
    return f"application down for {duration(seconds)}" if seconds is not None else "no application was stopped"


def headline(report: Report) -> Headline:
    """The outcome of a run in words."""
    outcome = str(report.get("outcome") or "unknown")
    if outcome == "assessed":
        return _assessed(report)
    if outcome == "needs_attention":
        return _needs_attention(report)
    if outcome not in _HEADLINES:
        return Headline("warn", outcome.replace("_", " ").capitalize(), "")
    return Headline(*_HEADLINES[outcome])


_HEADLINES = {
    "rolled_back": ("good", "Rolled back", "The migration is taken back and verified, and the application works."),
    "restored": ("good", "Restored", "The database is that of the backup, and the application works on it."),
    "backed_up": ("good", "Backed up", "There is a backup to go back to. Nothing was stopped or changed."),
    "nothing_to_do": ("plain", "Nothing to do", "There was nothing to take back. Nothing was stopped or changed."),
    "planned": ("plain", "Preview", "What would happen, tried and undone. Nothing was stopped, written or sent."),
    "refused": ("warn", "Refused", "The run ended before anything was stopped. Nothing was changed."),
    "failed_unchanged": (
        "warn",
        "Failed, nothing changed",
        "The database is as it was before the run, and the application runs as before.",
    ),
    "unknown": (
        "bad",
        "Not known",
        "Nobody knows yet whether the database was changed. Nothing was started again: first ask the server.",
    ),
}


def _needs_attention(report: Report) -> Headline:
    down = hosts_down(report)
    state = "was changed, and something after that failed" if report.get("committed") else "is as it was before the run"
    running = f"The application does not run on {', '.join(down)}." if down else "The application runs."
    return Headline("bad", "Needs attention", f"The database {state}. {running}")


def _assessed(report: Report) -> Headline:
    severity = mapping(report, "severity")
    level = str(severity.get("level") or "")
    tone = {"Critical": "bad", "High": "bad", "Medium": "warn", "Low": "good"}.get(level, "warn")
    by = str(severity.get("deadline") or "").partition(", ")[2]
    action = ", ".join(part for part in (str(severity.get("action") or "").rstrip("."), by) if part)
    unsure = ", not certain" if severity.get("inconclusive") else ""
    said = f"{action[:1].upper()}{action[1:]}." if action else ""
    return Headline(tone, f"Severity: {level or 'not known'}{unsure}", said)


def told(report: Report) -> tuple[list[str], list[Step]]:
    """The message as paragraphs, and its commands and those that go on from here as steps, each once."""
    lines = [line for line in str(report.get("message") or "").split("\n") if line.strip()]
    if lines and lines[-1] == report.get("outcome"):
        lines.pop()
    paragraphs: list[str] = []
    steps: list[Step] = []
    for line in lines:
        found = _COMMAND.match(line)
        if not found:
            paragraphs.append(line)
            continue
        label = found["before"].strip()
        # What leads to a command is its last sentence, or the line before.
        rest, _stop, last = label.rpartition(". ")
        if rest:
            paragraphs.append(f"{rest}.")
            label = last
        elif not label and paragraphs and paragraphs[-1].endswith(":"):
            label = paragraphs.pop()
        steps.append(Step(label, found["command"]))
    return paragraphs, _each_once([*steps, *(Step(_label(one), str(one)) for one in report.get("next_commands") or [])])


def _each_once(steps: t.Iterable[Step]) -> list[Step]:
    found: dict[str, Step] = {}
    for step in steps:
        found.setdefault(step.command, step)
    return list(found.values())


def _label(command: t.Any) -> str:
    for word in str(command).split():
        runbook = word.removeprefix("cypher.rollback.").removeprefix("playbooks/").removesuffix(".yml")
        if runbook in _LABELS:
            return _LABELS[runbook]
    return ""


def versions(report: Report) -> list[str]:
    """The migrations that the run is about."""
    return [str(version) for version in mapping(report, "plan").get("versions") or []]


def title(report: Report) -> str:
    """What the run was, as a few words."""
    runbook = str(report.get("runbook") or "rollback")
    named = versions(report)
    what = f" of migration{'s' if len(named) > 1 else ''} {', '.join(named)}" if named and "rollback" in runbook else ""
    if runbook in ("emergency_rollback", "undo_rollback"):
        backup = mapping(report, "backup").get("id")
        what = f" from {backup}" if backup else ""
    return f"{RUNBOOKS.get(runbook, runbook)}{what}"


def stage_words(stage: Report) -> str:
    """A stage as people call it."""
    return STAGES.get(str(stage.get("name")), str(stage.get("name") or "?").replace("_", " "))


def contacts(report: Report) -> list[dict[str, t.Any]]:
    """Whom to call."""
    return [contact for contact in entries(report, "contacts") if any(contact.get(key) for key in ("name", "role"))]
