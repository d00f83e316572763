# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a run and the page of all runs, in a real browser without a window."""

from __future__ import annotations

import json
import re
import shutil
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.visible import visible
from ansible_collections.cypher.rollback.plugins.plugin_utils.page import history_page, report_page

from tests.support import reports

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup-dev")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: In a container the browser is root and has no GPU; and it is to reach for nothing by itself either.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, DESKTOP = 375, 1280


class Reader:
    """A browser's window, and everything that a page in it did but should not."""

    def __init__(self, page: t.Any, folder: pathlib.Path) -> None:
        self.page = page
        self.file = folder / "report.html"
        self.requests: list[str] = []
        self.trouble: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.trouble.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("dialog", self._refuse)

    def _refuse(self, dialog: t.Any) -> None:
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, text: str, width: int = DESKTOP, scheme: str = "light") -> t.Any:
        """Show a page as it would be shown from its file."""
        self.file.write_text(text, encoding="utf-8")
        self.requests.clear()
        self.trouble.clear()
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.emulate_media(color_scheme=scheme, media="screen")
        self.page.goto(self.file.as_uri())
        return self.page

    def check(self) -> None:
        """Nothing but the file was asked for, nothing was complained of, and nothing sticks out at the side."""
        self.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        widths = self.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1], widths
        # The empty icon is in the page itself; without it a browser asks for one.
        assert [url for url in self.requests if not url.startswith("data:")] == [self.file.as_uri()]
        assert self.trouble == []


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """One browser and one window for all pages: starting them is what takes long."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield Reader(browser.new_page(), tmp_path_factory.mktemp("page"))
        browser.close()


#: What a reader must find on the page of each outcome: the headline, and texts anywhere.
CONTENT = {
    "rolled_back": ("Rolled back", [
        "Migration 0003 of database cypher_erp is rolled back and verified", "Application down for 3.2 s", "49,988", "What was lost",
        "14 objects and 24 parts of them", "Only by CASCADE", "erp.open_orders", "Skipped by IF EXISTS", "erp.idx_orders_date_range",
        "Left over", "b2b.order_total(uuid)", "b2b.customers", "What was kept", "73.4 MB", "verified: it was read back",
        "dropped objects are gone", "Severity", "Critical", "query_slower_critical", "section 2.1", "+212 %", "12.8 ms", "inconclusive", "18,390", "-10",
        "3 of 3", "Problems confirmed", "Probleme confirmate", "Ana Pop", "2026-11-22 21:56:10 UTC", "Logs verificate (fără erori)",
        "21:58:29 ERROR cart service not found", "#erp-incidents", "Connection refused", "v1.2.0", "customers can be read",
        "ion.marin@example.com", "DBA lead", "The newest before_migration backup is 26 hours old.", "DROP TABLE", "AccessExclusiveLock",
        "idle in transaction", "/var/backups/cypher-erp/runs/20261122T215816Z-0003-b4ccc8/report.json",
    ]),
    "restored": ("Restored", [
        "Emergency rollback from backup_before_migration_0003_20261121_200000", "What was restored", "newest valid backup before a migration",
        "Everything written since 2026-11-21 20:00:00 UTC (26 hours) is lost", "Passed over", "dump/1.dat has 3 bytes",
        "Compared with the manifest", "18,000", "cypher_erp_replaced_20261122", "cypher.rollback.swap_back -e database=",
    ]),
    "failed_unchanged": ("Failed, nothing changed", [
        "is locked by process 19633", "The database is as it was before the run, and the application runs as before.",
        "What would have been lost (nothing was)", "Rows that would have been lost (nothing was)", "Whom to call", "+40 721 000 001",
    ]),
    "needs_attention": ("Needs attention", [
        "The database was changed, and something after that failed. The application does not run on app1.", "port 8080 is taken",
        "To go on once the cause is put right:", "ansible-playbook -i inventories/production cypher.rollback.restart",
        "cypher.rollback.undo_rollback -e run=20261122T215816Z-0003-b4ccc8", "Whom to call", "Application still down on app1",
        "Resumed by Ion Marin after Back up", "1 failed", "orders without a customer", "No smoke test proved that the application works.",
        "b2b.orders 49", "… and 10 more (in report.json)",
    ]),
    "unknown": ("Not known", [
        "The connection was lost while the answer to COMMIT was awaited.", "SELECT pg_xact_status('812');", "If committed: check out",
        "Nothing was started again", "Application still down on app1",
    ]),
    "refused": ("Refused", [
        "Migration 0004 is applied and needs 0003.", "ansible-playbook cypher.rollback.rollback -e to_version=0002",
        "no application was stopped",
    ]),
    "planned": ("Preview", ["What would be lost", "check mode", "Nothing was stopped, written or sent.", "cypher.rollback.rollback -e version=0003"]),
    "assessed": ("Severity: Critical", ["Roll back now.", "checkout is down.", "p0_down", "no Prometheus is set", "cypher.rollback.rollback -e version=0003"]),
    "backed_up": ("Backed up", ["There is a backup to go back to.", "backup_before_rollback_0003_20261122_215818"]),
    "nothing_to_do": ("Nothing to do", ["Migration 0003 is not applied.", "no application was stopped"]),
}  # fmt: skip


@pytest.mark.parametrize("outcome", CONTENT)
def test_the_page_tells_the_run_and_loads_nothing(reader: Reader, outcome: str) -> None:
    report = reports.report(outcome)
    word, parts = CONTENT[outcome]
    page = reader.open(report_page(report))
    reader.check()
    assert page.locator("h1").inner_text().endswith(word)
    assert page.title().startswith(f"{word}: ")
    text = page.locator("body").inner_text()
    for part in parts:
        assert part in text, part
    assert "None" not in text
    assert "Undefined" not in text
    page.set_viewport_size({"width": PHONE, "height": 800})
    reader.check()


def test_the_outcome_comes_first_and_every_command_can_be_copied_whole(reader: Reader) -> None:
    report = reports.report("needs_attention")
    page = reader.open(report_page(report))
    text = page.locator("body").inner_text()
    order = [
        "Needs attention",
        "What to do next",
        "Whom to call",
        "Timeline",
        "What was lost",
        "What was kept",
        "Statements and locks",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    shown = page.locator("pre.command").all_inner_texts()
    assert shown == report["next_commands"]
    assert page.locator("h1").bounding_box()["y"] < 120


def test_the_timeline_is_to_scale_and_marks_the_stop_and_the_failure(reader: Reader) -> None:
    report = reports.report("needs_attention")
    page = reader.open(report_page(report))
    rows = page.locator(".timeline tbody tr")
    assert rows.count() == len(report["stages"]) + 2
    track = page.locator(".timeline .track").first.bounding_box()

    def share(row: t.Any) -> tuple[float, float]:
        stripe = row.locator(".track span").bounding_box()
        return (stripe["x"] - track["x"]) / track["width"], stripe["width"] / track["width"]

    begin, width = share(page.locator("tr.stop"))
    assert begin == pytest.approx(2.29 / 5.74, abs=0.03)
    assert width == pytest.approx(report["downtime_seconds"] / 5.74, abs=0.03)
    failed = rows.filter(has_text="Start the application")
    assert "failed" in failed.inner_text()
    assert failed.locator(".track .bad").count() == 1
    assert page.locator("tr.mark").count() == 1


def test_a_long_list_is_folded_and_whole(reader: Reader) -> None:
    dropped = [
        {"type": "table", "identity": f"b2b.part_{number:03}", "cascaded": False, "rows": number, "part_of": ""}
        for number in range(500)
    ]
    effect = {**reports.EFFECT, "dropped": dropped}
    report = reports.report("rolled_back", rollback_result={**reports.ROLLED_BACK, "effect": effect})
    page = reader.open(report_page(report), width=PHONE)
    folded = page.locator("details", has=page.locator("summary", has_text="Named by the DOWN"))
    assert "(500: 500 tables)" in folded.locator("summary").inner_text()
    assert folded.locator("tbody tr").count() == 500
    assert not folded.locator("tbody tr").first.is_visible()
    folded.locator("summary").click()
    assert folded.locator("tbody tr").nth(499).is_visible()
    reader.check()


@pytest.mark.parametrize("bad", reports.HOSTILE, ids=range(len(reports.HOSTILE)))
def test_a_hostile_name_is_text(reader: Reader, bad: str) -> None:
    for width, outcome in ((PHONE, "needs_attention"), (DESKTOP, "restored")):
        report = reports.hostile(reports.report(outcome), bad)
        page = reader.open(report_page(report), width=width)
        reader.check()
        assert page.locator("script, img, iframe, object, form, link:not([href='data:,'])").count() == 0
        found = page.evaluate(
            "Array.from(document.querySelectorAll('*')).flatMap(one => one.getAttributeNames()).filter(name => name.startsWith('on'))"
        )
        assert found == []
        text = " ".join(page.locator("body").inner_text().split())
        assert (
            " ".join(visible(f"b2b.orders {bad}" if outcome == "restored" else f"cypher_erp {bad}", keep="\n").split())
            in text
        )
        links = page.evaluate("Array.from(document.links).map(one => one.getAttribute('href'))")
        assert all(re.match(r"#|mailto:[\w.@%+-]+$|tel:[+\d]+$", link) for link in links), links


#: Contrast of every visible text with what is behind it, as WCAG 2.2 computes it; colours without alpha lie on each other.
CONTRAST = """
() => {
  const parts = (text) => { const all = text.match(/[\\d.]+/g).map(Number); return all.length > 3 ? all : [...all, 1]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (one) => { for (; one; one = one.parentElement) { const c = parts(getComputedStyle(one).backgroundColor);
    if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.nodeValue.trim() || !one.checkVisibility() || one.closest('svg')) continue;
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(behind(one))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 80)]);
  }
  return found;
}
"""


def test_every_text_can_be_read_in_light_and_dark(reader: Reader) -> None:
    for outcome in ("rolled_back", "needs_attention", "refused", "planned"):
        page = reader.open(report_page(reports.report(outcome)))
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        for scheme, background in (("light", "rgb(246, 247, 249)"), ("dark", "rgb(18, 22, 28)")):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
            found = page.evaluate(CONTRAST)
            assert len(found) > 20
            assert [entry for entry in found if entry[0] < 4.5] == []


def test_a_screen_reader_finds_its_way(reader: Reader) -> None:
    page = reader.open(report_page(reports.report("rolled_back")))
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.locator("[lang=ro]").count() == 4
    tables = page.locator("table")
    for number in range(tables.count()):
        heads, cells = (
            tables.nth(number).locator("th[scope=col]"),
            tables.nth(number).locator("tbody tr").first.locator("td"),
        )
        assert heads.count() == cells.count() > 0
    sections = page.evaluate("Array.from(document.querySelectorAll('nav a')).map(one => one.getAttribute('href'))")
    for target in sections:
        assert page.locator(target).count() == 1
    # A status is a word and a sign, never only a colour.
    for state in page.locator("td.status").all_text_contents():
        assert re.search(r"[a-z]{2}", state), state


def test_it_can_be_printed_with_what_is_folded(reader: Reader) -> None:
    page = reader.open(report_page(reports.report("rolled_back")), scheme="dark")
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF-")
    assert len(printed) > 20000
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    row = page.locator("details", has=page.locator("summary", has_text="Parts of")).locator("tbody tr").first
    assert row.bounding_box()["height"] > 5
    assert not page.locator("nav").is_visible()


def test_a_report_of_which_hardly_anything_is_there_or_is_of_another_shape_is_still_a_page(reader: Reader) -> None:
    shapes: list[dict[str, t.Any]] = [
        {},
        {"outcome": "elsewhere", "stages": None, "effect": [], "severity": "High", "verification": {"checks": ["x"]}},
        {"outcome": "rolled_back", "target": None, "stages": [{"started_at": "noon"}], "contacts": [None], "logs": [{"lines": "x"}]},
    ]  # fmt: skip
    for report in shapes:
        reader.open(report_page(report))
        reader.check()


RUNS: list[dict[str, t.Any]] = [
    {"run_id": "died1", "status": "died", "problem": "It ended without a report: its journal ends with stage backup started.",
     "started_at": "2026-11-25T10:00:00.000Z", "versions": []},
    *({"run_id": f"r{number}", "status": "finished", "runbook": "rollback", "outcome": "failed_unchanged" if number % 5 == 0 else "rolled_back",
       "versions": ["0003"], "database": "cypher_erp", "started_at": f"2026-11-{24 - number:02}T10:00:00.000Z", "seconds": 4.0 + number,
       "downtime_seconds": None if number == 3 else 2.0, "rows_lost": 410, "person": "Ana Pop", "page": f"r{number}/report.html"}
      for number in range(20)),
    {"run_id": "e1", "status": "finished", "runbook": "emergency_rollback", "outcome": "restored", "versions": [], "database": "cypher_erp",
     "started_at": "2026-11-01T10:00:00.000Z", "seconds": 300.0, "downtime_seconds": 250.0, "page": "e 1/report.html"},
]  # fmt: skip


def test_the_page_of_all_runs_shows_durations_over_time_and_links_to_each(reader: Reader) -> None:
    for width, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        page = reader.open(history_page(RUNS), width=width, scheme=scheme)
        reader.check()
        text = page.locator("body").inner_text()
        for part in ("22 in this folder", "died", "its journal ends with stage backup started", "20 runs, median 13.5 s, median stop 2.0 s.",
                     "1 run, median 5 min 0 s", "Emergency rollback", "2026-11-24 10:00:00", "Ana Pop", "failed unchanged"):  # fmt: skip
            assert part in text, part
        assert page.locator("svg").count() == 2
        assert page.locator("svg").first.locator("rect.total").count() == 20
        assert page.locator("svg").first.locator("rect.stopped").count() == 19
        assert page.locator("svg").first.locator("rect.total.failed").count() == 4
        links = page.evaluate("Array.from(document.links).map(one => one.getAttribute('href'))")
        assert links == [*(f"r{number}/report.html" for number in range(20)), "e%201/report.html"]
        assert [entry for entry in page.evaluate(CONTRAST) if entry[0] < 4.5] == []
    assert history_page(RUNS) == history_page(json.loads(json.dumps(RUNS)))


def test_hostile_runs_and_none_at_all_are_a_page_too(reader: Reader) -> None:
    page = reader.open(
        history_page([reports.hostile(run, bad) for run in RUNS[:3] for bad in reports.HOSTILE]), width=PHONE
    )
    reader.check()
    assert page.locator("script, img").count() == 0
    page = reader.open(history_page([]))
    reader.check()
    assert "There is none yet." in page.locator("body").inner_text()
