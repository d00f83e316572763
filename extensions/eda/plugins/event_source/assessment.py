# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source: assesses the databases every so often, and says of each whether it is time to act."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import typing as t
from pathlib import Path

DOCUMENTATION = r"""
---
short_description: Assess the databases every so often
description:
  - An ansible-rulebook event source that runs the assessment of cypher.rollback and gives one event for each host.
  - The event has the key C(assessment) with C(host), C(level), C(inconclusive), C(run_id), C(decided_by), C(reasons),
    C(in_a_row) (assessments of this level or a worse one), C(incident) (the same from the first High or Critical until
    it is lower again), C(wanted) (V(rollback), V(ask), V(tell) when it cannot be assessed, or V(nothing)), C(command)
    (what rolls back) and C(text).
  - After an event that wants a rollback it rests for O(pause) seconds, so that no assessment disturbs the rollback.
options:
  inventory:
    description: Inventory file or folder of the assessment.
    type: str
    required: true
  interval:
    description: Seconds between two assessments.
    type: float
    default: 60
  times:
    description: Assessments in a row that must be of a level before anything is done because of it.
    type: int
    default: 3
  action:
    description: V(ask), or V(rollback) to roll back by itself where it is Critical for sure.
    type: str
    default: ask
    choices: [ask, rollback]
  version:
    description: Version that would be rolled back. Required for the action V(rollback).
    type: str
    default: ""
  ask_command:
    description: Command that tells somebody, a list; it gets the event as JSON on standard input.
    type: list
    elements: str
    default: []
  arguments:
    description: Further arguments of ansible-playbook, such as C(--vault-password-file).
    type: list
    elements: str
    default: []
  command:
    description: Command to run instead of ansible-playbook; it prints a JSON object with C(severity) for each host.
    type: list
    elements: str
    default: []
  pause:
    description: Seconds without an assessment after a rollback was started.
    type: float
    default: 600
  timeout:
    description: Seconds that one assessment may take.
    type: float
    default: 600
"""

EXAMPLES = r"""
- cypher.rollback.assessment:
    inventory: inventories/production
    interval: 60
    times: 3
    action: rollback
    version: "0003"
"""

PLAYBOOK = "cypher.rollback.assess_for_watch"
ROLLBACK = "cypher.rollback.rollback"
ORDER = ("Low", "Medium", "High", "Critical")

logger = logging.getLogger(__name__)


class Settings(t.NamedTuple):
    """The arguments of the source."""

    inventory: str
    interval: float
    times: int
    action: str
    version: str
    ask_command: list[str]
    arguments: list[str]
    command: list[str]
    pause: float
    timeout: float

    @classmethod
    def parse(cls, args: dict[str, t.Any]) -> Settings:
        """Settings from the rulebook.

        :raises ValueError: with a sentence for the operator.
        """
        try:
            settings = cls(
                inventory=str(args.get("inventory") or ""),
                interval=float(args.get("interval") or 60),
                times=int(args.get("times") or 3),
                action=str(args.get("action") or "ask"),
                version=str(args.get("version") or ""),
                ask_command=_words(args.get("ask_command")),
                arguments=_words(args.get("arguments")),
                command=_words(args.get("command")),
                pause=float(args.get("pause") or 600),
                timeout=float(args.get("timeout") or 600),
            )
        except (TypeError, ValueError) as err:
            raise ValueError(f"rollback_watch_interval, _times, _pause and _timeout must be numbers: {err}.") from err
        if settings.action not in ("ask", "rollback"):
            raise ValueError(f"rollback_watch_action is {settings.action!r}; use ask or rollback.")
        if settings.action == "rollback" and not settings.version:
            raise ValueError(
                "rollback_watch_action is rollback, and rollback_watch_version is empty: nothing is rolled back by itself "
                "without its version. Give the version, or use ask."
            )
        if not settings.inventory and not settings.command:
            raise ValueError("rollback_watch_inventory is empty: give the inventory file or folder of the databases.")
        if settings.interval <= 0 or settings.times < 1 or settings.timeout <= 0:
            raise ValueError("rollback_watch_interval, _times and _timeout must be greater than 0.")
        return settings


def _words(value: object) -> list[str]:
    if not value:
        return []
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else shlex.split(str(value))


@dataclasses.dataclass
class Watched:
    """What is known of one host from one assessment to the next."""

    host: str
    bad: int = 0
    critical: int = 0
    unknown: int = 0
    incident: str = ""
    last: tuple[str, str, bool] = ("", "", False)
    told: tuple[str, str] = ("", "")
    obsolete: str = ""

    def judge(self, answer: dict[str, t.Any], settings: Settings) -> dict[str, t.Any]:
        """The event of one assessment.

        Rolled back by itself is only what is Critical by a measurement, and was so several times in a row.
        """
        severity: dict[str, t.Any] = answer.get("severity") or {}
        level = str(severity.get("level") or "")
        level = level if level in ORDER else ""
        problem = "" if level else str(answer.get("problem") or "the assessment gave no level")
        certain = level == "Critical" and not severity.get("inconclusive")
        self._count(level, certain)
        wanted = self._wanted(settings, certain, problem)
        self._note_run(str(answer.get("run_id") or ""), level, wanted)
        return {
            "host": self.host,
            "level": level or "unknown",
            "inconclusive": bool(severity.get("inconclusive")) or not level,
            "certain": certain,
            "run_id": str(answer.get("run_id") or ""),
            "assessed_at": str(severity.get("assessed_at") or ""),
            "decided_by": [str(one) for one in severity.get("decided_by") or []],
            "reasons": _reasons(severity, level),
            "in_a_row": self.critical if certain else self.unknown if problem else self.bad,
            "incident": self.incident,
            "wanted": wanted,
            "version": settings.version,
            "command": _command(settings, self.host),
            "inventories": [os.path.abspath(settings.inventory)] if settings.inventory else [],
            "ask_command": settings.ask_command,
            "text": self._text(level, problem, _reasons(severity, level), settings),
        }

    def _count(self, level: str, certain: bool) -> None:
        bad = level in ("High", "Critical")
        self.unknown = 0 if level else self.unknown + 1
        self.bad = self.bad + 1 if bad else 0
        self.critical = self.critical + 1 if certain else 0
        if bad or self.unknown == 1:
            self.incident = self.incident or f"{self.host} {dt.datetime.now(dt.UTC).isoformat(timespec='microseconds')}"
        elif level:
            self.incident = ""

    def _note_run(self, run_id: str, level: str, wanted: str) -> None:
        """The run before this one is obsolete where it said the same, unless somebody was told of it."""
        told = wanted != "nothing" and self.told != (self.incident, level)
        if told:
            self.told = (self.incident, level)
        before, its_level, it_was_told = self.last
        self.obsolete = before if its_level == level and not it_was_told else ""
        self.last = (run_id, level, told)

    def _wanted(self, settings: Settings, certain: bool, problem: str) -> str:
        if certain and self.critical >= settings.times and settings.action == "rollback":
            return "rollback"
        waits = certain and settings.action == "rollback"
        if self.bad >= settings.times and not waits:
            return "ask"
        return "tell" if problem and self.unknown >= settings.times else "nothing"

    def _text(self, level: str, problem: str, reasons: list[str], settings: Settings) -> str:
        if problem:
            often = "once" if self.unknown == 1 else f"{self.unknown} times in a row"
            return f"{self.host} could not be assessed {often}, and nothing was done: {problem}"
        said = " ".join(reasons) or "No rule said more."
        command = _command(settings, self.host)
        return f"{self.host} is {level} ({max(self.bad, 1)} in a row). {said} To roll back, run: {command}"


def _reasons(severity: dict[str, t.Any], level: str) -> list[str]:
    findings = severity.get("findings") or []
    return [
        str(one.get("text") or one.get("rule"))
        for one in findings
        if one.get("level") == level and one.get("status") in ("fired", "inconclusive")
    ][:5]


def _command(settings: Settings, host: str) -> str:
    inventory = ["-i", os.path.abspath(settings.inventory)] if settings.inventory else []
    version = f"version={settings.version or 'VERSION'}"
    return shlex.join(["ansible-playbook", *inventory, ROLLBACK, "-e", version, "-e", f"rollback_hosts={host}"])


async def _run(settings: Settings, folder: str, obsolete: dict[str, str]) -> tuple[int, str]:
    """The assessment; its exit code and what it printed.

    :param obsolete: the run of each host that is removed afterwards.
    """
    answer = os.path.join(folder, "severity.json")
    # Nobody wants to be told every minute that all is well: the watch tells by its own rules.
    variables = json.dumps({"rollback_watch_file": answer, "rollback_notify": [], "rollback_watch_obsolete": obsolete})
    # The ansible-playbook beside this Python, if there is one: the rulebook may run from a venv that is not on the PATH.
    beside = Path(sys.executable).with_name("ansible-playbook")
    program = str(beside) if beside.exists() else "ansible-playbook"
    argv = settings.command or [program, "-i", settings.inventory, PLAYBOOK, "-e", variables, *settings.arguments]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if not settings.command else asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _none = await asyncio.wait_for(process.communicate(), settings.timeout)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, output.decode("utf-8", "replace")


async def assess(settings: Settings, obsolete: dict[str, str] | None = None) -> dict[str, dict[str, t.Any]]:
    """The answer of every host, with ``severity``; under an empty name, with ``problem``, why there is none."""
    with tempfile.TemporaryDirectory(prefix="cypher-rollback-watch-") as folder:
        try:
            code, output = await _run(settings, folder, obsolete or {})
        except TimeoutError:
            return {"": {"problem": f"the assessment did not end within {settings.timeout:g} seconds"}}
        except OSError as err:
            return {"": {"problem": f"the assessment cannot be run: {err}"}}
        answer = Path(folder, "severity.json")
        text = output if settings.command else answer.read_text(encoding="utf-8") if answer.exists() else ""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and found and all(isinstance(one, dict) for one in found.values()):
        return found
    tail = " ".join(output.split())[-500:]
    return {"": {"problem": f"the assessment ended with exit code {code} and no answer: {tail or 'it said nothing'}"}}


def judge_all(
    found: dict[str, dict[str, t.Any]], watched: dict[str, Watched], settings: Settings
) -> list[dict[str, t.Any]]:
    """The events of one assessment of all hosts. One without an answer ends every row that was being counted."""
    if "" in found:
        for one in watched.values():
            one.bad = one.critical = 0
    else:
        watched.pop("", None)
    events = []
    for host, severity in found.items():
        one = watched.setdefault(host, Watched(host or "The database"))
        events.append(one.judge(severity, settings))
    return events


async def main(queue: asyncio.Queue[t.Any], args: dict[str, t.Any]) -> None:
    """Assess and tell, until the rulebook ends.

    :raises ValueError: when the settings cannot be right, with a sentence for the operator.
    """
    settings = Settings.parse(args)
    watched: dict[str, Watched] = {}
    while True:
        obsolete = {host: one.obsolete for host, one in watched.items() if one.obsolete}
        events = judge_all(await assess(settings, obsolete), watched, settings)
        for event in events:
            logger.info("%s: %s, wanted: %s", event["host"], event["level"], event["wanted"])
            await queue.put({"assessment": event})
        started = any(event["wanted"] == "rollback" for event in events)
        await asyncio.sleep(settings.pause if started else settings.interval)
