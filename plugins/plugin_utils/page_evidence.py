# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why it was decided, what people confirmed, who was told, and what the statements did: the rest of a report's page."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.plugin_utils.page_parts import (
    Cell,
    Section,
    Table,
    duration,
    entries,
    mapping,
    moment,
    name,
    number,
    pairs,
    status,
    words,
)

Report = t.Mapping[str, t.Any]

LEVEL_TONES = {"Critical": "bad", "High": "bad", "Medium": "warn", "Low": "good"}
_RULE_ORDER = {"fired": 0, "inconclusive": 1, "not_measured": 2, "clear": 3}
_MEASURED = {
    "queries": "Critical queries",
    "logs": "Errors in logs",
    "health": "Health",
    "rows": "Rows",
    "prometheus": "Prometheus",
}


def severity(report: Report) -> Section:
    """The level, the rules behind it, and what was measured."""
    found = mapping(report, "severity")
    section = Section("severity", "Severity")
    if not found.get("level"):
        return section
    level = Cell(str(found["level"]), "status", LEVEL_TONES.get(str(found["level"]), ""))
    section.facts.extend([("Level", level), ("What to do", words(found.get("action")))])
    given = (
        f"given by {found['given_by']}" if found.get("given_by") else ", ".join(map(str, found.get("decided_by") or []))
    )
    told = (
        ("Until when", found.get("deadline")),
        ("Decided by", given),
        ("Assessed at", moment(found.get("assessed_at"))),
        ("Compared with", found.get("backup")),
        ("Not measured", "; ".join(map(str, found.get("not_measured") or []))),
    )
    section.facts.extend((label, words(text)) for label, text in told if text)
    if found.get("inconclusive"):
        section.notes.append(Cell("Some evidence was inconclusive: the higher level stands.", tone="warn"))
    section.tables.append(_rules(found))
    for kind, title in _MEASURED.items():
        section.tables.append(_measurements(kind, title, entries(found, "measurements", kind)))
    if found.get("next_command"):
        section.blocks.append(("The next command was", str(found["next_command"])))
    return section


def _rules(found: Report) -> Table:
    findings = sorted(entries(found, "findings"), key=lambda one: _RULE_ORDER.get(str(one.get("status")), 4))
    rows = [
        [
            Cell(
                str(one.get("level") or ""), "status", LEVEL_TONES.get(str(one.get("level")), "") if _fired(one) else ""
            ),
            Cell(str(one.get("rule") or ""), "name", below=f"section {one['section']}" if one.get("section") else ""),
            _verdict(one),
            words(one.get("text")),
        ]
        for one in findings
    ]
    return Table("Rules", ("Level", "Rule", "Status", "Evidence"), rows)


def _verdict(finding: Report) -> Cell:
    # What fires at the lowest level is no trouble.
    if (finding.get("status"), finding.get("level")) == ("fired", "Low"):
        return Cell("holds", "status", "good")
    return status(finding.get("status"))


def _fired(finding: Report) -> bool:
    return finding.get("status") in ("fired", "inconclusive")


def _measurements(kind: str, title: str, measured: list[dict[str, t.Any]]) -> Table:
    if kind == "queries":
        heads = ("Query", "Before", "Now", "Spread", "Runs", "Change")
        return Table(title, heads, [_query(one) for one in measured])
    if kind == "logs":
        keys = ("critical", "errors", "warnings", "baseline_errors", "baseline_warnings")
        heads = ("Source", "Critical", "Errors", "Warnings", "Errors before", "Warnings before")
        return Table(title, heads, [[_source(one), *(number(one.get(key)) for key in keys)] for one in measured])
    if kind == "health":
        rows = [[_titled(one), words(one.get("priority")), status(one.get("status")), _tries(one)] for one in measured]
        return Table(title, ("Check", "Priority", "Status", "Failed"), rows)
    if kind == "rows":
        return Table(title, ("Table", "Before", "Now", "Change"), [_counted(one) for one in measured])
    return Table(title, ("Name", "Measured"), [[_titled(one), words(pairs(one, "name", "table"))] for one in measured])


def _counted(one: Report) -> list[Cell]:
    before, now = one.get("baseline_rows"), one.get("rows")
    whole = isinstance(before, int) and isinstance(now, int)
    told = one.get("problem") or one.get("why")
    if one.get("missing"):
        told = "missing; it was there in the backup"
    estimated = "estimated" if one.get("estimated") else ""
    return [
        Cell(str(one.get("table") or ""), "name", below=str(told or estimated)),
        number(before),
        Cell("missing", "number", "bad") if one.get("missing") else number(now),
        Cell(f"{now - before:+,}" if whole else "", "number", "bad" if whole and now < before else ""),
    ]


def _query(one: Report) -> list[Cell]:
    change = one.get("change_percent")
    text = "timed out" if one.get("timed_out") else f"{change:+.0f} %" if isinstance(change, (int, float)) else ""
    milliseconds = (_milliseconds(one.get(key)) for key in ("baseline_ms", "now_ms", "spread_ms"))
    tone = "bad" if one.get("timed_out") else ""
    return [_titled(one), *milliseconds, number(one.get("runs")), Cell(text, "number", tone)]


def _milliseconds(value: t.Any) -> Cell:
    if isinstance(value, (list, tuple)):
        return Cell(" to ".join(f"{part:.1f}" for part in value if isinstance(part, (int, float))) + " ms", "number")
    return Cell(f"{value:,.1f} ms" if isinstance(value, (int, float)) else "", "number")


def _source(one: Report) -> Cell:
    host = f"{one['host']}: " if one.get("host") else ""
    return Cell(f"{host}{one.get('name') or ''}", "name", below=str(one.get("problem") or ""))


def _titled(one: Report) -> Cell:
    return Cell(
        str(one.get("name") or one.get("table") or ""),
        "name",
        below=str(one.get("problem") or one.get("message") or ""),
    )


def _tries(one: Report) -> Cell:
    return Cell(f"{one.get('failures') or 0} of {one.get('samples') or 0}", "number")


def checklists(report: Report) -> Section:
    """What was confirmed, by whom, before and after."""
    section = Section("checklists", "Checklists")
    heads = ("Status", "Item", "Evidence", "Who and when")
    for key, title in (("before", "Before the rollback"), ("after", "After the rollback")):
        rows = [_item(item) for item in entries(report, "checklists", key)]
        section.tables.append(Table(title, heads, rows))
    return section


def _item(item: Report) -> list[Cell]:
    text = item.get("text")
    both = text if isinstance(text, dict) else {"en": text or item.get("key") or item.get("name")}
    by = str(item.get("by") or ("the runbook" if item.get("how") == "program" else ""))
    return [
        status(item.get("status")),
        Cell(str(both.get("en") or item.get("key") or ""), below=str(both.get("ro") or ""), language="ro"),
        words(item.get("evidence")),
        Cell(by, below=moment(item.get("at")) if item.get("at") else ""),
    ]


def people(report: Report) -> Section:
    """Who was told what, and how to reach everyone."""
    section = Section("people", "Who was told")
    rows = [
        [
            status(note.get("status")),
            name(note.get("name")),
            words(note.get("event")),
            words(", ".join(map(str, note.get("recipients") or [])) or note.get("audience")),
            Cell(str(note.get("message") or ""), below=moment(note["at"]) if note.get("at") else ""),
        ]
        for note in entries(report, "notifications")
    ]
    section.tables.append(Table("Notifications", ("Status", "Channel", "Event", "To", "Answer"), rows))
    return section


def logs(report: Report) -> Section:
    """The last offending lines of the application's logs since it was started."""
    section = Section("logs", "Logs since the start")
    keys = ("critical", "errors", "warnings")
    found = entries(report, "logs")
    rows = [
        [_source(one), Cell(duration(one.get("window_seconds")), "number"), *(number(one.get(key)) for key in keys)]
        for one in found
    ]
    section.tables.append(Table("", ("Source", "Window", "Critical", "Errors", "Warnings"), rows))
    for one in found:
        lines = [str(line) for line in one.get("lines") or []] if isinstance(one.get("lines"), list) else []
        if lines:
            section.blocks.append((_source(one).text, "\n".join(lines)))
    return section


def warnings(report: Report) -> Section:
    """What should be looked at, though nothing failed."""
    section = Section("warnings", "Warnings")
    section.notes.extend(Cell(str(warning), tone="warn") for warning in report.get("warnings") or [])
    return section


def details(report: Report) -> Section:
    """Scripts, statements, locks and sessions."""
    section = Section("details", "Statements and locks")
    statements = entries(report, "statements")
    gone = {entry.get("identity") for entry in entries(report, "effect", "dropped")}
    locks = sorted(entries(report, "locks"), key=lambda lock: lock.get("relation") in gone)
    section.tables.extend(
        [
            Table(
                "Scripts",
                ("Version", "File", "Statements"),
                [
                    [words(s.get("version")), name(s.get("file")), number(s.get("statements"))]
                    for s in entries(report, "plan", "scripts")
                ],
            ),
            Table(
                "Statements",
                ("Version", "Line", "Statement", "Took"),
                [_statement(one) for one in statements],
                aside=True,
            ),
            Table("Locks taken", ("Relation", "Mode", "Stays"), [_lock(lock, gone) for lock in locks], aside=True),
            Table(
                "Other sessions",
                ("Process", "User", "Application", "Since", "Query"),
                [_session(one) for one in entries(report, "sessions")],
                aside=True,
            ),
        ]
    )
    return section


def _statement(one: Report) -> list[Cell]:
    took = Cell(duration(one.get("seconds")), "number")
    line = Cell(str(one.get("line") or ""), "number")
    return [words(one.get("version")), line, name(one.get("kind") or one.get("summary")), took]


def _lock(lock: Report, gone: t.Collection[t.Any]) -> list[Cell]:
    stays = Cell("dropped") if lock.get("relation") in gone else Cell("stays", "status", "warn")
    return [name(lock.get("relation")), words(lock.get("mode")), stays]


def _session(one: Report) -> list[Cell]:
    query = " ".join(str(one.get("query") or "").split())
    shown = query if len(query) <= 300 else query[:299] + "…"
    since = Cell(moment(one.get("since")) if one.get("since") else "", below=str(one.get("state") or ""))
    return [words(one.get("pid")), name(one.get("user")), words(one.get("application")), since, name(shown)]
