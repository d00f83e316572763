# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The post-mortem: filled in as far as a run knows, the rest marked for people."""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible.utils.display import Display
from ansible_collections.cypher.rollback.plugins.action import run_report as action
from ansible_collections.cypher.rollback.plugins.modules import run_report as module
from ansible_collections.cypher.rollback.plugins.plugin_utils.in_process import Exit, InProcessModule
from ansible_collections.cypher.rollback.plugins.plugin_utils.page import post_mortem

from tests.support import reports

if t.TYPE_CHECKING:
    import pathlib

TO_FILL_IN = "**[DE COMPLETAT / TO FILL IN]**"

#: The headings of section 8.2 of the source document, in its order.
HEADINGS = [
    "Date", "Problem Description", "Impact Assessment", "Root Cause", "Timeline", "Rollback Process", "Questions", "Lessons Learned",
    "Action Items", "Attachments",
]  # fmt: skip


def test_it_is_the_documents_template_with_what_the_run_knows() -> None:
    text = post_mortem(reports.report("rolled_back"))
    assert text.startswith("# Post-Mortem: Rollback of Migration 0003\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [*HEADINGS, "Contacts"]
    for line in (
        "- Date: 2026-11-22 21:58:16 UTC",
        "- Migration: 0003",
        "- Rolled back by: Ana Pop",
        "- Impact Level: Critical",
        "- Downtime: less than 0.1 minutes (3.2 s)",
        f"- Affected Users: {TO_FILL_IN}",
        "- What was lost: 38 objects, 49,988 rows",
        "- Critical: checkout is down.",
        f"| {TO_FILL_IN} | Migration started |",
        "| 2026-11-22 21:55:02 UTC | Problem detected |",
        "| 2026-11-22 21:58:16 UTC | Rollback initiated |",
        "| 2026-11-22 21:58:18 UTC | Stop the application: finished after 0.7 s |",
        "| 2026-11-22 21:58:21 UTC | Rollback completed |",
        "5. Run the DOWN: finished in 0.3 s",
        f"| Fix the migration 0003 | {TO_FILL_IN} | {TO_FILL_IN} |",
        "- Report: `/var/backups/cypher-erp/runs/20261122T215816Z-0003-b4ccc8/report.json`",
        "- Page: `/var/backups/cypher-erp/runs/20261122T215816Z-0003-b4ccc8/report.html`",
        "- Journal: `/var/backups/cypher-erp/runs/20261122T215816Z-0003-b4ccc8/journal.jsonl`",
        "- Backup: `/var/backups/cypher-erp/backup_before_rollback_0003_20261122_215818`",
        f"- Metrics: {TO_FILL_IN}",
        "| DBA lead | Ion Marin | +40 721 000 001, ion.marin@example.com |",
    ):
        assert f"{line}\n" in text, line


@pytest.mark.parametrize("outcome", reports.FACTS)
def test_every_outcome_has_a_whole_text(outcome: str) -> None:
    report = reports.report(outcome)
    text = post_mortem(report)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[: len(HEADINGS)] == HEADINGS
    assert f"- Outcome: {outcome} (" in text
    assert not re.search(r"[{}]|None|Undefined", text), text
    assert ("Rollback completed" in text) == (
        outcome in ("rolled_back", "restored", "planned", "assessed", "backed_up", "nothing_to_do")
    )
    assert post_mortem({"outcome": outcome})


def test_what_a_restore_cost_and_a_run_that_failed_are_said() -> None:
    restored = post_mortem(reports.report("restored"))
    assert "# Post-Mortem: Emergency rollback from backup_before_migration_0003_20261121_200000\n" in restored
    assert "- Everything written since 2026-11-21 20:00:00 UTC (26 hours) is lost from the live database;" in restored
    assert "| 2026-11-21 20:00:00 UTC | Backup before the migration |" in restored
    assert "- Downtime: 0.2 minutes (9.1 s)\n" in restored
    failed = post_mortem(reports.report("needs_attention"))
    assert "still down on app1 when the run ended" in failed
    assert "| Run ended: needs_attention |" in failed
    assert "| Resumed by Ion Marin after backup |" in failed
    assert "`ansible-playbook -i inventories/production cypher.rollback.restart`" in failed


@pytest.mark.parametrize(
    ("languages", "question", "mark"),
    [
        (("ro", "en"), "1. **Ce s-a întâmplat?** / What happened?", "DE COMPLETAT / TO FILL IN"),
        (("en", "ro"), "1. **What happened?** / Ce s-a întâmplat?", "TO FILL IN / DE COMPLETAT"),
        (("ro",), "6. **Trebuie să actualizăm documentația?**", "[DE COMPLETAT]"),
        (("en",), "6. **Does the documentation need an update?**", "[TO FILL IN]"),
    ],
)
def test_the_questions_are_asked_in_the_languages_that_are_set(
    languages: tuple[str, ...], question: str, mark: str
) -> None:
    text = post_mortem(reports.report("rolled_back"), languages)
    assert f"{question}\n" in text
    assert mark in text
    assert len(re.findall(r"^\d\. \*\*", text, re.MULTILINE)) == 6
    assert ("întâmplat" in text) == ("ro" in languages)
    assert ("What happened?" in text) == ("en" in languages)


@pytest.mark.parametrize("bad", reports.HOSTILE, ids=range(len(reports.HOSTILE)))
def test_a_hostile_name_stays_text_in_markdown(bad: str) -> None:
    markdown = pytest.importorskip("markdown_it")
    plain = post_mortem(reports.hostile(reports.report("needs_attention"), "harmless"))
    text = post_mortem(reports.hostile(reports.report("needs_attention"), bad))
    assert all(char == "\n" or char.isprintable() for char in text)
    # As lax as a viewer may be: HTML is let through, and tables are known.
    reader = markdown.MarkdownIt("commonmark", {"html": True}).enable("table")

    def marks(source: str) -> list[str]:
        """What the reader sees in it, without the texts: headings, rows, emphasis, links, HTML."""
        kinds = [token for block in reader.parse(source) for token in (block, *(block.children or []))]
        return [token.type for token in kinds if token.type not in ("text", "text_special", "inline", "softbreak")]

    assert marks(text) == marks(plain)


REPORT = reports.report("rolled_back")


def run_module(run_dir: pathlib.Path, pages: dict[str, str]) -> dict[str, t.Any]:
    """Run the module of the report in this process."""
    arguments = {"report": REPORT, "run_dir": str(run_dir), "run_id": "r1", "pages": pages}

    def make(**rules: t.Any) -> InProcessModule:
        return InProcessModule(arguments, False, **rules)

    with pytest.raises(Exit) as end:
        module.main(make)
    return end.value.result


def test_a_second_report_has_its_own_page_and_nothing_is_replaced(tmp_path: pathlib.Path) -> None:
    first, second = (
        run_module(tmp_path, {"report.html": text, "post-mortem.md": text}) for text in ("first", "second")
    )
    folder = tmp_path / "r1"
    assert first["pages"] == {name: str(folder / name) for name in ("report.html", "post-mortem.md")}
    assert second["path"] == str(folder / "report-2.json")
    assert second["pages"] == {
        "report.html": str(folder / "report-2.html"),
        "post-mortem.md": str(folder / "post-mortem-2.md"),
    }
    assert (folder / "report.html").read_text() == "first"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_page_that_cannot_be_written_is_a_warning_and_the_report_is_there(tmp_path: pathlib.Path) -> None:
    result = run_module(tmp_path, {"x" * 300: "too long a name for a file"})
    assert "failed" not in result
    assert (tmp_path / "r1" / "report.json").exists()
    [warning] = result["warnings"]
    assert warning.startswith("The page and the post-mortem of the run could not be written: ")
    assert warning.endswith(f"The report is {tmp_path}/r1/report.json.")


def test_a_page_that_cannot_be_drawn_is_a_warning_and_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, text: shown.append(text))
    arguments = {"report": REPORT, "run_dir": "/runs", "run_id": "r1", "languages": ["en"]}
    assert list(action.drawn(arguments)) == ["report.html", "post-mortem.md"]

    def broken(*_arguments: object) -> t.NoReturn:
        raise ValueError("no such shape")

    monkeypatch.setattr(action, "pages", broken)
    assert action.drawn(arguments) == {}
    assert shown == [
        "The page and the post-mortem of run r1 could not be drawn: ValueError: no such shape. Its report is written all the same."
    ]
