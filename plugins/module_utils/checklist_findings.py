# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What evidence says about each item of a checklist that a program can check."""

from __future__ import annotations

import statistics
import typing as t

from .backup_catalog import span
from .checklist import Finding
from .errors import Refused
from .notification import AUDIENCES, Channel, contacts_of, words_of
from .severity import ACTIONS

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Facts = Mapping[str, t.Any]

#: Rules of section 2 that speak of the critical queries' times, by more than the document's limits of Low.
SLOWER = ("performance_degraded_critical", "performance_degraded_high", "critical_query_timeout")

#: Those that speak of times within these limits.
ACCEPTABLE = ("performance_degraded_medium", "performance_acceptable")

# --- before -----------------------------------------------------------------------------------------------------------


class WrongSeverity(Refused):
    """The extra variable severity names no level."""


def given_level(given: str) -> str:
    """The level that the extra variable ``severity`` names; empty where none was given.

    :raises WrongSeverity: it names none.
    """
    if not given:
        return ""
    level = given.strip().capitalize()
    if level not in ACTIONS:
        raise WrongSeverity(
            f"The extra variable severity is {given[:60]!r}, and the levels are {', '.join(ACTIONS)}. Give one of these, or "
            "leave it out and run playbooks/assess.yml first."
        )
    return level


def given_severity(level: str, by: str, at: str) -> dict[str, t.Any]:
    """The severity of a report where a person gave its level; empty where nobody did."""
    if not level:
        return {}
    action, deadline = ACTIONS[level]
    return {
        "level": level,
        "action": action,
        "deadline": deadline,
        "decided_by": [],
        "inconclusive": False,
        "assessed_at": at,
        "given_by": by or "a person",
        "findings": [],
        "measurements": {},
        "next_command": "",
    }


def telling(channels: object, contacts: object) -> dict[str, dict[str, list[t.Any]]]:
    """Which channels tell each audience, and who belongs to it. Nothing of their addresses is in it.

    :param channels: ``rollback_notify``; a channel that is set wrongly tells nobody.
    :param contacts: ``rollback_contacts``.
    :returns: ``channels`` (``name``, ``events``, ``severities``) and ``contacts`` (words), each by audience.
    """
    people = contacts_of(contacts)
    told: dict[str, list[t.Any]] = {audience: [] for audience in AUDIENCES}
    for given in channels if isinstance(channels, (list, tuple)) else []:
        try:
            channel = Channel.parse(given, people)
        except Refused:
            continue
        entry = {"name": channel.name, "events": list(channel.events), "severities": list(channel.severities)}
        readers = {channel.audience}
        if channel.kind == "email":
            readers = {channel.audience} if words_of(channel.settings.get("to")) else set()
            readers |= {channel.audience_of(contact) for contact in channel.people(people) if contact.email}
        for audience in readers:
            told[audience].append(entry)
    whom: dict[str, list[t.Any]] = {audience: [] for audience in AUDIENCES}
    for contact in people:
        whom[contact.audience].append(" ".join(word for word in (contact.role, contact.name) if word))
    return {"channels": told, "contacts": whom}


def told_of(event: str, level: str, channels: Iterable[Facts]) -> list[str]:
    """Names of those channels of one audience that are told of an event of a run of this severity.

    :param event: ``start``, ``end`` or ``failure``.
    :param level: empty where it is not known, so that it may be any.
    """
    return [
        str(channel.get("name"))
        for channel in channels
        if event in (channel.get("events") or [event])
        and (not level or not channel.get("severities") or level in channel["severities"])
    ]


def impact(given: str, assessment: Facts | None, age_seconds: float, hours: float) -> Finding:
    """Item impact_assessed.

    :param given: the level that a person gave; empty, none.
    :param assessment: ``severity`` of the newest recent assessment of this database, ``None`` where there is none.
    """
    if given:
        return Finding("open", f"The severity was given as {given}.")
    if not assessment:
        return Finding(
            "open",
            f"No assessment of this database in the last {hours:g} hours; playbooks/assess.yml makes one, -e severity=High "
            "gives the level by hand.",
        )
    by = ", ".join(str(rule) for rule in assessment.get("decided_by") or [])
    unsure = ", not for certain" if assessment.get("inconclusive") else ""
    why = f" because of {by}" if by else ""
    return Finding("passed", f"Assessed as {assessment.get('level')} {span(age_seconds)} ago{why}{unsure}.")


def planned(plan: Facts) -> Finding:
    """Item rollback_planned, from the result of the stage plan."""
    if plan.get("outcome") != "planned":
        return Finding("failed", f"There is no plan: {plan.get('message') or 'the stage plan left no result'}")
    versions = ", ".join(str(version) for version in plan.get("versions") or [])
    statements = plan.get("statements") or 0
    about = _of(plan, "object")
    if about:
        what = f"the {about.get('kind')} {about.get('identity')}"
    else:
        what = f"the migrations {versions}, newest first" if "," in versions else f"migration {versions}"
    return Finding("passed", f"The plan takes back {what}, in {statements} statement{'s' if statements != 1 else ''}.")


def backup(entry: Facts | None, problem: str, database_bytes: int) -> Finding:
    """Item backup_available: the run's own backup is the condition, an older one is beside it.

    :param entry: the newest before_migration backup of this database, with its files there in the right size.
    :param problem: why the folder of backups cannot be relied on; empty, it can.
    """
    if problem:
        return Finding("failed", problem)
    own = (
        "Before the DOWN runs, this run takes a backup, reads it back, and does not go on without it; the room for it was "
        f"checked ({database_bytes:,} bytes of database)."
        if database_bytes
        else "Before the DOWN runs, this run takes a backup, reads it back, and does not go on without it."
    )
    if not entry:
        return Finding("passed", f"{own} There is no backup from before the migration.")
    return Finding(
        "passed",
        f"{own} From before the migration there is {entry['id']}, {span(entry.get('age_seconds') or 0)} old; only its manifest "
        "was read now, playbooks/backups.yml verifies it.",
    )


def audience_told(audience: str, channels: Sequence[str], contacts: Sequence[str]) -> Finding:
    """Items team_notified and stakeholders_notified, before anything is stopped.

    :param channels: names of those channels that tell this audience that the run begins.
    :param contacts: people of this audience, as words.
    """
    if channels:
        return Finding("passed", f"Told by this run as it begins, by {', '.join(channels)}.")
    whom = f" To be told: {', '.join(contacts)}." if contacts else ""
    return Finding("open", f"No channel of rollback_notify tells a {audience} audience that the run begins.{whom}")


def downtime(earlier: Sequence[float], database_bytes: int, *, stops: bool = True) -> Finding:
    """Item downtime_estimated.

    :param earlier: seconds that the application was down in earlier runs on this database.
    :param stops: the run stops the application.
    """
    if not stops:
        return Finding("not_applicable", "This run does not stop the application.")
    size = f"; the database has {database_bytes:,} bytes now" if database_bytes else ""
    if not earlier:
        return Finding("open", f"No earlier run on this database stopped its application{size}.")
    several = f" ({_seconds(min(earlier))} to {_seconds(max(earlier))} s)" if len(earlier) > 1 else ""
    runs = f"{len(earlier)} earlier run{'s' if len(earlier) > 1 else ''}"
    return Finding("passed", f"About {_seconds(statistics.median(earlier))} s, from {runs}{several}{size}.")


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


# --- after ------------------------------------------------------------------------------------------------------------


def database_verified(results: Facts) -> Finding:
    """Item database_verified, from the stage verify; of a restoring run, from the comparison with the backup."""
    verification = _of(_of(results, "verify"), "verification") or _of(_of(results, "rollback"), "verification")
    restored, put_back = _of(results, "restore"), _of(results, "restore_tables")
    if verification.get("passed") is not None:
        checks = verification.get("checks") or []
        failed = [str(check.get("name")) for check in checks if check.get("status") == "failed"]
        if failed or not verification["passed"]:
            return Finding("failed", f"The verification failed: {', '.join(failed) or 'it names no check'}.")
        passed = sum(check.get("status") == "passed" for check in checks)
        return Finding("passed", f"{passed} check{'s' if passed != 1 else ''} of the verification passed.")
    if restored.get("compared") is not None:
        if restored["compared"]:
            return Finding(
                "passed", "The restored database was compared with the backup's manifest before it was put in place."
            )
        return Finding("failed", "The restored database was not compared with the backup's manifest.")
    if put_back.get("committed") is not None:
        return Finding("passed", str(put_back.get("message") or "The tables hold what the backup holds."))
    return Finding("unknown", "Nothing verified the database: no stage left a result.")


def application_works(results: Facts) -> Finding:
    """Item application_works, from the stage restart."""
    restart = _of(results, "restart")
    hosts = restart.get("hosts") or {}
    told = {name: host for name, host in hosts.items() if host.get("driver") != "none"}
    down = [name for name, host in told.items() if host.get("failed") or host.get("running") is False]
    if down:
        return Finding("failed", f"The application does not run on {', '.join(down)}.")
    if not told:
        return Finding("not_applicable", "This run has no application to start.")
    unsure = [name for name, host in told.items() if host.get("running") is None]
    if unsure:
        return Finding("unknown", f"Whether the application runs on {', '.join(unsure)} could not be asked.")
    return Finding("passed", f"It runs on {', '.join(told)}.")


def smoke_tests(results: Facts) -> Finding:
    """Item smoke_tests_passed, from the stage smoke_test."""
    smoke = _of(results, "smoke_test")
    message = str(smoke.get("message") or "")
    if smoke.get("passed") is None:
        return Finding("unknown", "No smoke test was run; set rollback_smoke_tests.")
    return Finding("passed" if smoke["passed"] else "failed", message)


def logs_clean(logs: Sequence[Facts], since: str = "the restart") -> Finding:
    """Item logs_clean, from what was counted in the logs since then; known problems were not counted."""
    if not logs:
        return Finding("unknown", "No log was read; set rollback_log_sources.")
    loud = [log for log in logs if log.get("errors") or log.get("critical")]
    if loud:
        return Finding("failed", f"Since {since}: {'; '.join(_said(log) for log in loud)}.")
    unread = [f"{_named(log)} ({str(log['problem']).rstrip('.')})" for log in logs if log.get("problem")]
    if unread:
        return Finding("unknown", f"Could not be read: {', '.join(unread)}.")
    warnings = sum(int(log.get("warnings") or 0) for log in logs)
    also = f", {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
    seconds = min(float(log.get("window_seconds") or 0) for log in logs)
    return Finding(
        "passed",
        f"No error in {len(logs)} log{'s' if len(logs) > 1 else ''} in the {seconds:.0f} s since {since}{also}.",
    )


def unread(problem: str) -> dict[str, t.Any]:
    """The log of a host that could not be asked."""
    counts = dict.fromkeys(("errors", "warnings", "critical"))
    return {"name": "all logs", "type": "none", "window_seconds": None, **counts, "lines": [], "problem": problem}


def _said(log: Facts) -> str:
    last = [str(line) for line in log.get("lines") or []][-1:]
    number = int(log.get("errors") or 0) + int(log.get("critical") or 0)
    shown = f", the last one: {last[0][:200]}" if last else ""
    return f"{number} error{'s' if number != 1 else ''} in {_named(log)}{shown}"


def _named(log: Facts) -> str:
    return f"{log.get('name')} on {log['host']}" if log.get("host") else str(log.get("name"))


def performance_normal(findings: Sequence[Facts], why_not: str = "") -> Finding:
    """Item performance_normal: whether the critical queries take as long as before the migration.

    :param findings: of :func:`severity.findings`, from the queries alone.
    :param why_not: why nothing could be compared.
    """
    own = [one for one in findings if one["rule"] in SLOWER and one["source"] == "queries"]
    compared = [one for one in own if one["status"] != "not_measured" and one["rule"] != SLOWER[-1]]
    fired = [str(one["text"]) for one in own if one["status"] == "fired"]
    if fired:
        return Finding("failed", " ".join(dict.fromkeys(fired)))
    if why_not or not compared:
        return Finding("unknown", why_not or "No critical query could be compared with its baseline.")
    unsure = [str(one["text"]) for one in compared if one["status"] == "inconclusive"]
    if unsure:
        return Finding("unknown", " ".join(dict.fromkeys(unsure)))
    usual = [str(one["text"]) for one in findings if one["rule"] in ACCEPTABLE and one["status"] == "fired"]
    return Finding("passed", " ".join(usual) or "The critical queries take as long as before the migration.")


def team_told(notifications: Sequence[Facts], channels: Sequence[str]) -> Finding:
    """Item team_notified after the rollback.

    A channel that did not answer leaves it open: it never decides about the run, and somebody has to tell the team.

    :param notifications: what became of the notifications of this run so far.
    :param channels: names of those that will tell a technical audience how the run ended.
    """
    own = [one for one in notifications if one.get("audience") != "stakeholder"]
    sent = [str(one.get("name")) for one in own if one.get("status") == "sent"]
    failed = [str(one.get("name")) for one in own if one.get("status") == "failed"]
    if failed:
        return Finding("open", f"Not delivered by {', '.join(dict.fromkeys(failed))}.")
    told = f"Told as the run began, by {', '.join(dict.fromkeys(sent))}. " if sent else ""
    if channels:
        return Finding("passed", f"{told}How it ended is told right after this list, by {', '.join(channels)}.")
    if sent:
        return Finding("passed", told.rstrip())
    return Finding("open", "No channel of rollback_notify tells a technical audience how the run ended.")


def _of(values: Facts, name: str) -> dict[str, t.Any]:
    value = values.get(name)
    return dict(value) if value and hasattr(value, "items") else {}
