# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The post-mortem: what the run knows in the form of section 8.2, and what only people know left to them."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.outcome import GOOD
from ansible_collections.cypher.rollback.plugins.module_utils.visible import visible
from ansible_collections.cypher.rollback.plugins.plugin_utils import page_head, page_sections
from ansible_collections.cypher.rollback.plugins.plugin_utils.page_parts import (
    duration,
    entries,
    mapping,
    moment,
    plural,
)

Report = t.Mapping[str, t.Any]

#: Section 8.1 of the source document, in its Romanian and in English.
QUESTIONS = (
    {"ro": "Ce s-a întâmplat?", "en": "What happened?"},
    {"ro": "Care a fost cauza?", "en": "What was the cause?"},
    {"ro": "Ce a funcționat bine în rollback?", "en": "What worked well in the rollback?"},
    {"ro": "Ce nu a funcționat bine?", "en": "What did not work well?"},
    {"ro": "Ce putem îmbunătăți?", "en": "What can we improve?"},
    {"ro": "Trebuie să actualizăm documentația?", "en": "Does the documentation need an update?"},
)
_TO_FILL_IN = {"ro": "DE COMPLETAT", "en": "TO FILL IN"}

#: What Markdown, with GitHub's tables and HTML, may take for more than a character.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


#: What begins a list or underlines a heading when a line begins with it.
_LEADING = re.compile(r"^(\d+(?=[.)]\s)|(?=[-+]\s|[-=]+$))")


def escaped(value: t.Any) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = _SPECIAL.sub(lambda found: "\\" + found[0], visible(value).strip())
    return _LEADING.sub(r"\1\\", text)


def code(value: t.Any) -> str:
    """Text as a code span, which takes it as it is; the fence is longer than any in it."""
    text = visible(value)
    if not text:
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    edge = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{edge}{text}{edge}{fence}"


def view(report: Report, languages: t.Sequence[str]) -> dict[str, t.Any]:
    """What the template shows."""
    chosen = [language for language in languages if language in _TO_FILL_IN] or ["en"]
    paragraphs, steps = page_head.told(report)
    return {
        "report": report,
        "title": _title(report),
        "head": page_head.headline(report),
        "paragraphs": paragraphs,
        "steps": steps,
        "versions": page_head.versions(report),
        "fill_in": f"**[{' / '.join(_TO_FILL_IN[language] for language in chosen)}]**",
        "questions": [[question[language] for language in chosen] for question in QUESTIONS],
        "severity": mapping(report, "severity"),
        "minutes": _minutes(report),
        "impact": _impact(report),
        "timeline": _timeline(report),
        "process": _process(report),
        "attachments": _attachments(report),
        "contacts": page_head.contacts(report),
    }


def _title(report: Report) -> str:
    named = page_head.versions(report)
    if report.get("runbook", "rollback") == "rollback" and named:
        return f"Rollback of Migration {', '.join(named)}"
    return page_head.title(report)


def _minutes(report: Report) -> str:
    seconds = report.get("downtime_seconds")
    if seconds is None:
        return "none, no application was stopped"
    down = page_head.hosts_down(report)
    still = f"; still down on {', '.join(down)} when the run ended" if down else ""
    minutes = f"{seconds / 60:.1f}" if seconds >= 6 else "less than 0.1"
    return f"{minutes} minutes ({duration(seconds)}){still}"


def _impact(report: Report) -> list[str]:
    """What the run did to the data, as sentences."""
    effect, restore = mapping(report, "effect"), mapping(report, "restore")
    dropped = entries(effect, "dropped")
    said = []
    if dropped or effect.get("rows_lost"):
        words = page_sections.lost(report).title
        said.append(f"{words}: {plural(len(dropped), 'object')}, {plural(int(effect.get('rows_lost') or 0), 'row')}")
    window = mapping(restore, "window").get("text")
    return [*said, str(window)] if window else said


def _timeline(report: Report) -> list[tuple[str, str]]:
    """Times and events in the document's order; a time that is not known is empty, for people."""
    began, ended = _migration_backup(report), report.get("finished_at")
    severity = mapping(report, "severity")
    # A level that a person gave says nothing of when the problem was seen.
    detected = None if severity.get("given_by") else severity.get("assessed_at")
    events = [(moment(began), "Backup before the migration")] if began else []
    events += [("", "Migration started"), (moment(detected) if detected else "", "Problem detected")]
    if report.get("started_at"):
        events.append((moment(report["started_at"]), "Rollback initiated"))
    events += [event for stage in entries(report, "stages") for event in _stage_events(stage)]
    events += [_resumed(mark) for mark in entries(report, "resumed")]
    if ended:
        well = report.get("outcome") in GOOD
        events.append((moment(ended), "Rollback completed" if well else f"Run ended: {report.get('outcome')}"))
    known = sorted((event for event in events if event[0]), key=lambda event: event[0])
    return [*(event for event in events if not event[0]), *known]


def _migration_backup(report: Report) -> t.Any:
    backup = mapping(report, "backup")
    if backup.get("kind") == "before_migration" and backup.get("created_at"):
        return backup["created_at"]
    return mapping(report, "schema_drift").get("created_at")


def _stage_events(stage: Report) -> list[tuple[str, str]]:
    if not stage.get("started_at"):
        return []
    took = duration(stage.get("seconds"))
    state = f"{stage.get('status')}{f' after {took}' if took else ''}"
    return [(moment(stage["started_at"]), f"{page_head.stage_words(stage)}: {state}")]


def _resumed(mark: Report) -> tuple[str, str]:
    return moment(mark.get("at")), f"Resumed by {mark.get('by') or 'somebody'} after {mark.get('after') or 'its start'}"


def _process(report: Report) -> list[str]:
    """The stages as sentences."""
    said = []
    for stage in entries(report, "stages"):
        took = duration(stage.get("seconds"))
        state = str(stage.get("status") or "")
        said.append(f"{page_head.stage_words(stage)}: {state}{f' in {took}' if took else ''}")
    return said


def _attachments(report: Report) -> list[tuple[str, str]]:
    path = str(report.get("report_path") or "")
    folder = os.path.dirname(path)
    found = [("Report", path)] if path else []
    if folder:
        found += [("Page", os.path.join(folder, "report.html")), ("Journal", os.path.join(folder, "journal.jsonl"))]
    before = mapping(report, "restore", "state_before")
    backups = [("Backup", mapping(report, "backup")), ("Backup of the state before the run", before)]
    return [*found, *((label, str(backup["path"])) for label, backup in backups if backup.get("path"))]
