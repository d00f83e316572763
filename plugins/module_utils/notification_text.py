# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people are told of a run, drawn from its report.

The text for stakeholders is made of our own sentences, times, durations and the contacts alone: nothing that a database,
a program or an error has said can come into it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import re
import typing as t

from .outcome import GOOD, Facts, facts, kind_of, still_down, stopped_hosts
from .phrases import capital
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Levels of severity, the document's section 2, highest first.
LEVELS = ("Critical", "High", "Medium", "Low")

#: Lines of one list; the report holds the whole of it.
LONGEST_LIST = 15

#: Colours of a message by its tone: news, good, unchanged, bad.
TONES = {"start": "news", **dict.fromkeys(GOOD, "good"), "refused": "warning", "failed_unchanged": "warning"}


@dataclasses.dataclass(frozen=True)
class Text:
    """A message in words.

    :param tone: ``news``, ``good``, ``warning`` or ``bad``.
    :param lines: empty ones separate paragraphs.
    """

    title: str
    lines: tuple[str, ...]
    tone: str = "news"

    def body(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


@dataclasses.dataclass(frozen=True)
class Contact:
    """Somebody of ``rollback_contacts``."""

    role: str
    name: str = ""
    email: str = ""
    phone: str = ""
    audience: str = "technical"

    @classmethod
    def parse(cls, given: Mapping[str, t.Any]) -> Contact:
        """A contact from the setting; a product owner is a stakeholder unless it says otherwise."""
        role = str(given.get("role") or "")
        usual = "stakeholder" if role == "product_owner" else "technical"
        texts = {key: str(given.get(key) or "") for key in ("name", "email", "phone")}
        return cls(role=role, audience=str(given.get("audience") or usual), **texts)

    def spoken(self) -> str:
        """Name, role and how to reach them, as words."""
        role = visible(self.role.replace("_", " "))
        who = f"{visible(self.name)} ({role})" if self.name else role
        return ", ".join([who, *(visible(way) for way in (self.phone, self.email) if way)])


def event_of(report: Facts) -> str:
    """``end`` for a good outcome, ``failure`` for any other."""
    return "end" if report.get("outcome") in GOOD else "failure"


def severity_level(report: Facts) -> str:
    """The level of the run; empty where nobody knows it."""
    level = str(facts(report, "severity").get("level") or "")
    return level if level in LEVELS else ""


def started_report(report: Facts) -> dict[str, t.Any]:
    """The report of a run that has only begun, as data for a channel: no outcome can be told from it."""
    title = technical_words(report, "start", (), ()).title
    return {**report, "outcome": "started", "message": title, "failure": None, "next_commands": [], "event": "start"}


def _tone(report: Facts, event: str) -> str:
    return TONES.get("start" if event == "start" else str(report.get("outcome")), "bad")


def _subject(report: Facts) -> str:
    versions = [visible(version) for version in facts(report, "plan").get("versions") or []]
    database = f"database {visible(facts(report, 'target').get('database') or '?')}"
    if not versions or kind_of(report) != "rollback":
        return database
    return f"migration{'s' if len(versions) > 1 else ''} {', '.join(_cut(versions))} of {database}"


def _cut(entries: Sequence[str]) -> list[str]:
    if len(entries) <= LONGEST_LIST:
        return list(entries)
    return [*entries[:LONGEST_LIST], f"… and {len(entries) - LONGEST_LIST} more"]


def technical_words(report: Facts, event: str, contacts: Sequence[Contact], mentioned: Sequence[Contact]) -> Text:
    """For those who run the system: everything they need to act without opening the report.

    :param contacts: everybody, to be called after a failure.
    :param mentioned: those whom the message is for, where its channel has no recipients of its own.
    """
    words = "STARTED" if event == "start" else visible(report.get("outcome")).replace("_", " ").upper()
    runbook = visible(report.get("runbook"))
    title = f"{words}: {runbook}, {_subject(report)}" if event == "start" else f"{words}: {_subject(report)}"
    parts = _started(report) if event == "start" else _ended(report)
    if event == "failure" and contacts:
        parts.append(["To call:", *(f"  {contact.spoken()}" for contact in _cut_people(contacts))])
    if mentioned:
        parts.append([f"For: {'; '.join(contact.spoken() for contact in _cut_people(mentioned))}"])
    return Text(title, _paragraphs(parts), _tone(report, event))


def _cut_people(people: Sequence[Contact]) -> Sequence[Contact]:
    return people[:LONGEST_LIST]


def _paragraphs(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    lines: list[str] = []
    for part in parts:
        lines += [*([""] if lines and part else []), *part]
    return tuple(lines)


def _where(report: Facts) -> str:
    target = facts(report, "target")
    version = f", PostgreSQL {visible(target['server_version'])}" if target.get("server_version") else ""
    host = f"{visible(target.get('host') or 'the local socket')}:{visible(target.get('port') or '?')}"
    return f"{capital(_subject(report))} on {host}{version}."


def _severity(report: Facts) -> list[str]:
    level, severity = severity_level(report), facts(report, "severity")
    said = [visible(severity[key]) for key in ("action", "deadline") if severity.get(key)]
    return [f"Severity: {', '.join([level, *said])}."] if level else []


def _started(report: Facts) -> list[list[str]]:
    who = visible(report.get("person") or "Somebody")
    began = f"{who} started the runbook {visible(report.get('runbook'))} at {moment(report.get('started_at'))}, run {visible(report.get('run_id'))}."
    return [[began, _where(report)], _severity(report), _to_be_lost(report), _estimates(report)]


def _to_be_lost(report: Facts) -> list[str]:
    """What the plan says will go."""
    window = facts(facts(report, "restore"), "window").get("text")
    lines = [visible(window)] if window else []
    rows = report.get("rows_estimate")
    if isinstance(rows, int) and rows:
        lines.append(f"About {rows:,} row{'' if rows == 1 else 's'} will be lost.")
    objects = _planned_objects(facts(report, "plan"))
    if objects and kind_of(report) == "rollback":
        lines += [f"{len(objects)} object{'' if len(objects) == 1 else 's'} will be dropped or changed:"]
        lines += [f"  {name}" for name in _cut(objects)]
    return lines


def _planned_objects(plan: Facts) -> list[str]:
    """What the DOWNs of the plan name and is there; the states hold the versions that stay, too."""
    states = facts(plan, "states")
    chosen = [facts(states, str(version)) for version in plan.get("versions") or []]
    return [visible(name) for state in chosen for name in state.get("present") or []]


def _estimates(report: Facts) -> list[str]:
    items = facts(report, "checklists").get("before") or []
    known = [
        visible(item.get("evidence"))
        for item in items
        if hasattr(item, "get")
        and item.get("key") == "downtime_estimated"
        and item.get("status") in ("passed", "confirmed")
        and item.get("evidence")
    ]
    return [f"Estimated stop: {said}" for said in known[:1]]


def _ended(report: Facts) -> list[list[str]]:
    said = [visible(line) for line in str(report.get("message") or "").split("\n")]
    if said and said[-1] == report.get("outcome"):
        said.pop()
    stop = report.get("downtime_seconds")
    numbers = [f"The application was stopped for {duration(stop)}."] if stop is not None else []
    rows = facts(report, "effect").get("rows_lost")
    if rows and report.get("committed"):
        numbers.append(f"{rows:,} row{'' if rows == 1 else 's'} went with what was dropped.")
    commands = [visible(command) for command in report.get("next_commands") or []]
    return [
        said,
        [*_severity(report), *numbers],
        ["Next:", *(f"  {command}" for command in commands)] if commands else [],
        _files(report),
    ]


def _files(report: Facts) -> list[str]:
    backup, run = facts(report, "backup").get("path"), report.get("run_id")
    lines = [f"Backup: {visible(backup)}"] if backup else []
    if report.get("report_path"):
        lines.append(
            f"Report: {visible(report['report_path'])} on {visible(report.get('host') or 'the database host')}"
        )
    return [*lines, f"Run: {visible(run)}"] if run else lines


#: What a run does to the service, for people who do not know what a migration is.
_DOES = {
    "rollback": "the latest change to the service is being taken back",
    "restore": "the data of the service are being put back to an earlier state",
    "backup": "a backup of the service's data is being made",
    "assess": "the state of the service is being looked at",
    "verify": "the data of the service are being examined",
}
_TRIED = {
    "rollback": "Taking back the latest change to the service",
    "restore": "Putting the data of the service back to an earlier state",
    "backup": "Making a backup of the service's data",
    "assess": "Looking at the state of the service",
    "verify": "Examining the data of the service",
}
_DONE = {
    "rolled_back": "The latest change to the service was taken back.",
    "restored": "The data of the service were put back to an earlier state.",
    "nothing_to_do": "There was nothing to take back. Nothing was changed.",
    "backed_up": "A backup of the service's data was made.",
    "assessed": "The state of the service was looked at.",
    "verified": "The data of the service were examined, and found to be in order.",
}
_NOT_DONE = {
    "refused": "was not begun. Nothing was changed.",
    "failed_unchanged": "did not succeed. The data are as they were before.",
    "needs_attention": "did not succeed. The data are as they were before.",
    "unknown": "was interrupted, and it is not known yet whether it took effect.",
}
_TITLES = {
    "untouched": "The service was not interrupted",
    "up": "The service works again",
    "unproven": "The service runs again, and not every test passed",
    "down": "The service is not available",
}


def plain_words(report: Facts, event: str, contacts: Sequence[Contact], mentioned: Sequence[Contact]) -> Text:
    """For stakeholders: what happened to the service, since when, whether it works again, how long it was down, whom to ask.

    :param contacts: everybody; those who are no stakeholders can be asked.
    :param mentioned: those whom the message is for; they know their own numbers.
    """
    state = service_state(report)
    if event == "start":
        title = "The service may be unavailable for a while"
        happened = [
            f"Since {moment(report.get('started_at'))} {_DOES[kind_of(report)]}.",
            "The service may be unavailable until that is done.",
        ]
    else:
        title, happened = _TITLES[state], [_plain_outcome(report), *_plain_service(report, state)]
    askable = [contact for contact in contacts if contact.audience != "stakeholder"]
    people = "; ".join(contact.spoken() for contact in _cut_people(askable)) or "the team that runs the service."
    named = ", ".join(visible(contact.name) for contact in mentioned if contact.name)
    return Text(
        title,
        _paragraphs([happened, [f"Questions: {people}"], [f"For: {named}"] if named else []]),
        _tone(report, event),
    )


def _plain_outcome(report: Facts) -> str:
    outcome = str(report.get("outcome"))
    since = facts(facts(report, "restore"), "window").get("from")
    lost = (
        f" What was entered or changed after {moment(since)} may be missing."
        if since and report.get("committed")
        else ""
    )
    if outcome in _DONE:
        level = (
            f" It was judged as {severity_level(report)}." if outcome == "assessed" and severity_level(report) else ""
        )
        return _DONE[outcome] + level + lost
    if outcome == "needs_attention" and kind_of(report) == "verify":
        return "The data of the service were examined, and something was found that has to be looked at."
    tried = _TRIED[kind_of(report)]
    if outcome == "needs_attention" and report.get("committed"):
        return f"{tried} took effect, but something after that did not go as it should.{lost}"
    return f"{tried} {_NOT_DONE.get(outcome, 'did not end as it should.')}"


def _plain_service(report: Facts, state: str) -> list[str]:
    begun = [stage.get("started_at") for stage in report.get("stages") or [] if stage.get("name") == "stop"]
    since, seconds = moment(begun[0] if begun else None), report.get("downtime_seconds")
    if state == "untouched":
        return ["The service was not interrupted by it."]
    if state == "down":
        return [f"The service has been unavailable since {since}, and does not work yet."]
    lasted = f" for {duration(seconds)}" if seconds is not None else ""
    again = "It works again." if state == "up" else "It runs again, but not every test of it passed."
    return [f"The service was unavailable from {since}{lasted}. {again}"]


def service_state(report: Facts) -> str:
    """``untouched``, ``up``, ``down``, or ``unproven`` where it runs and a test of it failed."""
    application = facts(report, "application")
    run = {
        "stop_result": {"hosts": facts(application, "stopped")},
        "restart_result": {"hosts": facts(application, "restarted")},
    }
    if still_down(run):
        return "down"
    if not stopped_hosts(run) and report.get("downtime_seconds") is None:
        return "untouched"
    return "unproven" if facts(report, "smoke_tests").get("passed") is False else "up"


def moment(text: t.Any) -> str:
    """A UTC time to the minute, from the report's own form; anything else is not repeated."""
    try:
        time = dt.datetime.fromisoformat(re.sub(r"Z$", "+00:00", str(text or "")))
    except ValueError:
        return "a time that is not known"
    zoned = time.replace(tzinfo=time.tzinfo or dt.UTC).astimezone(dt.UTC)
    return f"{zoned:%Y-%m-%d %H:%M} UTC"


def duration(seconds: t.Any) -> str:
    """A number of seconds as words, rounded up."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return "a time that is not known"
    whole = max(1, math.ceil(seconds))
    for size, noun in ((3600, "hour"), (60, "minute")):
        if whole >= 2 * size:
            number = math.ceil(whole / size)
            return f"{number} {noun}s"
    return f"{whole} second{'' if whole == 1 else 's'}"
