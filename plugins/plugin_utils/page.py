# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages about runs: one HTML file each, without scripts and without anything to load."""

from __future__ import annotations

import functools
import os
import re
import typing as t

import jinja2
import markupsafe
from ansible_collections.cypher.rollback.plugins.module_utils.outcome import failed_checks
from ansible_collections.cypher.rollback.plugins.module_utils.visible import visible
from ansible_collections.cypher.rollback.plugins.plugin_utils import (
    page_evidence,
    page_head,
    page_history,
    page_post_mortem,
    page_sections,
)
from ansible_collections.cypher.rollback.plugins.plugin_utils.page_parts import (
    Cell,
    duration,
    entries,
    mapping,
    moment,
    name,
    number,
    words,
)
from ansible_collections.cypher.rollback.plugins.plugin_utils.page_timeline import timeline

Report = t.Mapping[str, t.Any]

TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")

#: Names of the files, next to ``report.json``.
PAGE = "report.html"
POST_MORTEM = "post-mortem.md"

_SECTIONS = (
    page_evidence.warnings,
    page_sections.lost,
    page_sections.kept,
    page_sections.restored,
    page_sections.verification,
    page_sections.application,
    page_evidence.severity,
    page_evidence.checklists,
    page_evidence.people,
    page_evidence.logs,
    page_evidence.details,
)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+")
_PHONE = re.compile(r"\+?[0-9][0-9 ()./-]{3,30}")


def pages(report: Report, languages: t.Sequence[str] = ("ro", "en")) -> dict[str, str]:
    """The texts of a run's files by their names.

    :param languages: of the questions in the post-mortem, ``ro`` and ``en``.
    """
    return {PAGE: report_page(report), POST_MORTEM: post_mortem(report, languages)}


def report_page(report: Report) -> str:
    """``report.html`` of a run, from its report as :func:`compose` draws it."""
    paragraphs, steps = page_head.told(report)
    sections = [section for draw in _SECTIONS if not (section := draw(report)).empty]
    return _environment().get_template("report.html.j2").render(
        head=page_head.headline(report),
        title=page_head.title(report),
        database=_database(report),
        paragraphs=paragraphs,
        steps=steps,
        contacts=page_head.contacts(report),
        tiles=_tiles(report),
        facts=_facts(report),
        bars=timeline(report),
        sections=sections,
        report=report,
    )  # fmt: skip


def post_mortem(report: Report, languages: t.Sequence[str] = ("ro", "en")) -> str:
    """``post-mortem.md`` of a run: section 8.2 of the source document, filled in as far as the run knows."""
    view = page_post_mortem.view(report, languages)
    return _environment().get_template("post-mortem.md.j2").render(**view)


def history_page(runs: t.Sequence[Report]) -> str:
    """``index.html`` of a folder of runs, from what the module run_history_info lists."""
    return _environment().get_template("history.html.j2").render(page_history.view(runs))


@functools.cache
def _environment() -> jinja2.Environment:
    """Everything that is written is escaped, also characters that are not seen as themselves."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(disabled_extensions=("md.j2",), default=True),
        undefined=jinja2.ChainableUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "moment": moment,
        "duration": duration,
        "md": page_post_mortem.escaped,
        "code": page_post_mortem.code,
        "mailto": lambda address: f"mailto:{address}" if _EMAIL.fullmatch(str(address)) else "",
        "role": _role,
        "tel": lambda phone: f"tel:{re.sub('[^0-9+]', '', str(phone))}" if _PHONE.fullmatch(str(phone)) else "",
    }
    return environment


def _shown(value: t.Any) -> t.Any:
    if isinstance(value, (markupsafe.Markup, int, float)) and not isinstance(value, bool):
        return value
    if value is None or isinstance(value, jinja2.Undefined):
        return ""
    text = str(value)
    return text if text.isprintable() else visible(text, keep="\n")


def _role(role: t.Any) -> str:
    """A role of section 9 as the source document writes it."""
    text = str(role or "").replace("_", " ").replace("dba", "DBA").replace("devops", "DevOps")
    return text[:1].upper() + text[1:]


def _database(report: Report) -> str:
    target = mapping(report, "target")
    where = f"{target.get('host') or 'the local socket'}:{target.get('port') or '?'}"
    return f"{target.get('database') or '?'} on {where}"


def _tiles(report: Report) -> list[tuple[str, Cell]]:
    """The numbers that everybody asks for first."""
    tiles = [("Stop", _stop_tile(report))]
    rows = mapping(report, "effect").get("rows_lost")
    dropped = entries(report, "effect", "dropped")
    if dropped or rows:
        title = page_sections.lost(report).title
        tiles.append((title.replace("What was", "Rows").replace("What", "Rows that"), number(rows or 0)))
    tiles += _proof_tile("Verification", entries(report, "verification", "checks"))
    tiles += _proof_tile("Smoke tests", entries(report, "smoke_tests", "tests"))
    level = mapping(report, "severity").get("level")
    if level:
        below = "" if report.get("runbook") == "assess" else "before this run"
        tiles.append(("Severity", Cell(str(level), tone=page_evidence.LEVEL_TONES.get(str(level), ""), below=below)))
    return tiles


def _stop_tile(report: Report) -> Cell:
    seconds, down = report.get("downtime_seconds"), page_head.hosts_down(report)
    if seconds is None:
        return Cell("none", below="no application was stopped")
    below = f"still down on {', '.join(down)}" if down else "application down"
    return Cell(duration(seconds), tone="bad" if down else "", below=below)


def _proof_tile(label: str, checks: list[dict[str, t.Any]]) -> list[tuple[str, Cell]]:
    if not checks:
        return []
    failed = len(failed_checks(checks))
    passed = sum(check.get("status") == "passed" for check in checks)
    return [
        (
            label,
            Cell(
                f"{failed} failed" if failed else "passed",
                tone="bad" if failed else "good",
                below=f"{passed} of {passed + failed} passed",
            ),
        )
    ]


def _facts(report: Report) -> list[tuple[str, Cell]]:
    target, seconds = mapping(report, "target"), _whole_time(report)
    found = [
        ("Database", name(target.get("database"))),
        ("Server", name(f"{target.get('host') or 'the local socket'}:{target.get('port') or '?'}")),
        ("PostgreSQL", words(target.get("server_version"))),
        ("Migrations", name(", ".join(page_head.versions(report)))),
        ("By", words(report.get("person"))),
        ("Started", words(moment(report.get("started_at")) if report.get("started_at") else "")),
        ("Finished", words(moment(report.get("finished_at")) if report.get("finished_at") else "")),
        ("Took", words(duration(seconds))),
        ("Run", name(report.get("run_id"))),
        ("Host", name(report.get("host"))),
    ]
    return [(label, cell) for label, cell in found if cell.text]


def _whole_time(report: Report) -> float | None:
    return page_history.seconds_of(report)
