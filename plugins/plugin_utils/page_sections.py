# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was lost and kept, restored and proven: the middle of a report's page."""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.outcome import failed_checks
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
    plural,
    size,
    status,
    words,
)

Report = t.Mapping[str, t.Any]


def lost(report: Report) -> Section:
    """What the run removed and changed in the database."""
    effect = mapping(report, "effect")
    section = Section("lost", _lost_title(report))
    dropped = entries(effect, "dropped")
    gone = {entry.get("identity") for entry in dropped}
    whole = [entry for entry in dropped if not entry.get("part_of") or entry.get("part_of") not in gone]
    parts = [entry for entry in dropped if entry.get("part_of") and entry.get("part_of") in gone]
    if dropped or effect.get("rows_lost"):
        section.notes.append(Cell(_lost_sentence(effect, whole, parts)))
    section.tables.extend(
        [
            _objects("Only by CASCADE: no statement names them", [e for e in whole if e.get("cascaded")], tone="warn"),
            _objects("Named by the DOWN", [e for e in whole if not e.get("cascaded")]),
            _row_changes(effect),
            Table(
                "Parts of the dropped objects",
                ("Type", "Name", "Part of"),
                [[words(e.get("type")), name(e.get("identity")), name(e.get("part_of"))] for e in parts],
                aside=True,
            ),
            _changed(effect),
            _named("Added by the DOWN", entries(effect, "added")),
            _skipped(effect),
            _named("Left over: named by the DOWN and still there", entries(effect, "left_over"), tone="warn"),
            _named("Tables whose rows could not be counted", entries(effect, "uncounted"), tone="warn"),
            _named("Not valid any more", entries(effect, "invalid"), tone="warn"),
            *_drift(mapping(report, "schema_drift")),
        ]
    )
    return section


def _lost_title(report: Report) -> str:
    if report.get("check_mode") or report.get("outcome") == "planned":
        return "What would be lost"
    if report.get("outcome") == "unknown":
        return "What was lost if it was committed"
    if not report.get("committed"):
        return "What would have been lost (nothing was)"
    return "What was lost"


def _lost_sentence(effect: Report, whole: t.Sequence[Report], parts: t.Sequence[Report]) -> str:
    inside = f" and {plural(len(parts), 'part')} of them" if parts else ""
    return f"{plural(len(whole), 'object')}{inside}, {plural(int(effect.get('rows_lost') or 0), 'row')}."


def _by_type(found: t.Sequence[Report]) -> str:
    counts = collections.Counter(str(entry.get("type") or "object") for entry in found)
    return ", ".join(plural(count, kind) for kind, count in counts.most_common())


def _objects(title: str, found: list[dict[str, t.Any]], tone: str = "") -> Table:
    ordered = sorted(found, key=lambda entry: (-(entry.get("rows") or 0), str(entry.get("type"))))
    rows = [[words(e.get("type")), name(e.get("identity")), number(e.get("rows"))] for e in ordered]
    return Table(title, ("Type", "Name", "Rows"), rows, note=_by_type(found), tone=tone)


def _named(title: str, found: list[dict[str, t.Any]], tone: str = "") -> Table:
    rows = [[words(entry.get("type")), name(entry.get("identity") or entry.get("name"))] for entry in found]
    return Table(title, ("Type", "Name"), rows, tone=tone)


def _row_changes(effect: Report) -> Table:
    keys = ("deleted", "inserted", "updated")
    rows = [[name(e.get("table")), *(number(e.get(key)) for key in keys)] for e in entries(effect, "row_changes")]
    return Table("Rows changed in tables that stay", ("Table", "Deleted", "Inserted", "Updated"), rows)


def _changed(effect: Report) -> Table:
    rows = [
        [words(e.get("type")), name(e.get("identity")), name(e.get("before")), name(e.get("after"))]
        for e in entries(effect, "changed")
    ]
    return Table("Changed", ("Type", "Name", "Before", "After"), rows)


def _skipped(effect: Report) -> Table:
    def elsewhere(entry: Report) -> str:
        places = entry.get("elsewhere") or entry.get("exists_as") or []
        return ", ".join(map(str, [places] if isinstance(places, str) else places))

    rows = [[words(e.get("type")), name(e.get("identity")), name(elsewhere(e))] for e in entries(effect, "skipped")]
    return Table("Skipped by IF EXISTS, so not dropped", ("Type", "Name", "Exists as"), rows, tone="warn")


def _drift(drift: Report) -> list[Table]:
    rows = [
        [words(sort), name(e.get("name"))] for sort in ("missing", "extra", "different") for e in entries(drift, sort)
    ]
    before = f"compared with {drift.get('backup')}" if drift else ""
    return [Table("Differs from the schema before the migration", ("How", "What"), rows, note=before, tone="warn")]


def kept(report: Report) -> Section:
    """What there is to go back to."""
    section = Section("kept", "What was kept")
    backup, restore, swap = mapping(report, "backup"), mapping(report, "restore"), mapping(report, "swap")
    before = mapping(restore, "state_before") if restore else backup
    if before.get("path"):
        section.facts.extend(_backup_facts(before))
    elif report.get("committed") and not restore:
        section.notes.append(Cell("No backup of the state before this run was taken.", tone="warn"))
    if swap.get("kept") and swap.get("swapped"):
        section.facts.append(("The database that was replaced, kept as", name(swap["kept"])))
    if swap.get("swapped_back"):
        section.notes.append(Cell("The databases were exchanged, and exchanged back.", tone="warn"))
        section.facts.append(("The restored database, kept as", name(swap.get("kept"))))
    if swap.get("swap_back_command") and swap["swap_back_command"] not in (report.get("next_commands") or []):
        section.blocks.append(("To give the name back to it", str(swap["swap_back_command"])))
    return section


def _backup_facts(backup: Report) -> list[tuple[str, Cell]]:
    read = Cell("verified: it was read back", "status", "good")
    return [
        ("Backup of the state before this run", name(backup.get("id"))),
        ("Where", name(backup.get("path"))),
        ("Size", words(size(backup.get("bytes")))),
        ("Verified", read if backup.get("verified") else Cell("NOT read back", "status", "bad")),
    ]


def restored(report: Report) -> Section:
    """What a restoring run went back to, and why."""
    section = Section("restore", "What was restored")
    restore, backup = mapping(report, "restore"), mapping(report, "backup")
    if not restore:
        return section
    if backup.get("id"):
        section.facts.extend(_source_facts(backup))
    incoming = mapping(restore, "incoming").get("database")
    section.facts.extend(
        [("Database that is gone back to", name(incoming))] if incoming else [],
    )
    if restore.get("why"):
        section.facts.append(("Why this one", words(restore["why"])))
    window = mapping(restore, "window")
    if window.get("text"):
        section.notes.append(Cell(str(window["text"]), tone="warn"))
    gap = mapping(restore, "gap").get("text")
    section.notes.extend([Cell(str(gap), tone="warn")] if gap else [])
    section.tables.extend(_restore_tables(restore))
    return section


def _source_facts(backup: Report) -> list[tuple[str, Cell]]:
    facts = [("Backup", name(backup.get("id"))), ("Where", name(backup.get("path")))]
    facts += [("Made at", words(moment(backup["created_at"])))] if backup.get("created_at") else []
    return [*facts, ("Size", words(size(backup.get("bytes"))))]


def _restore_tables(restore: Report) -> list[Table]:
    compared = mapping(restore, "tables") if restore.get("compared") else {}
    put_back = entries(mapping(restore, "put_back"), "tables")
    keys = ("missing", "changed", "extra")
    return [
        Table(
            "Passed over",
            ("Backup", "Why"),
            [[name(entry.get("id")), words(entry.get("reason"))] for entry in entries(restore, "passed_over")],
        ),
        Table(
            "Tables put back",
            ("Table", "Missing", "Changed", "Extra"),
            [[name(e.get("identity")), *(number(e.get(key) or 0) for key in keys)] for e in put_back],
        ),
        Table(
            "Compared with the manifest of the backup, and equal",
            ("Table", "Rows"),
            [[name(table), number(rows)] for table, rows in compared.items()],
        ),
    ]


#: A failed check is what the reader looks for; a passed one may be counted.
_ORDER = {"failed": 0, "not checked": 1, "skipped": 2, "information": 3, "passed": 4}


def verification(report: Report) -> Section:
    """The checks of the database, failed ones first."""
    checks = sorted(entries(report, "verification", "checks"), key=lambda one: _ORDER.get(str(one.get("status")), 0))
    section = Section("verification", "Verification")
    if not checks:
        return section
    failed, passed = failed_checks(checks), sum(check.get("status") == "passed" for check in checks)
    section.notes.append(
        Cell(f"{passed} passed, {len(failed)} failed, {len(checks)} in all.", tone="bad" if failed else "good")
    )
    rows = [[status(c.get("status")), _check(c), name(c.get("expected")), _found(c)] for c in checks]
    bad, good = rows[: len(failed)], rows[len(failed) :]
    heads = ("Status", "Check", "Expected", "Found")
    section.tables.extend(
        [Table("Failed", heads, bad, tone="bad"), Table("All others" if bad else "Checks", heads, good)]
    )
    return section


#: Findings of one check that the page shows; the data has all.
_DETAILS = 50


def _found(check: Report) -> Cell:
    """What a check found, and all of it where that only counts."""
    details = check.get("details")
    lines = [str(detail) for detail in details] if isinstance(details, (list, tuple)) else []
    more = [f"… and {len(lines) - _DETAILS} more (in report.json)"] if len(lines) > _DETAILS else []
    return name(check.get("actual"), below="\n".join([*lines[:_DETAILS], *more]))


def _check(check: Report) -> Cell:
    known = ("name", "status", "expected", "actual")
    return Cell(str(check.get("name") or ""), below=str(check.get("message") or "") or pairs(check, *known, "message"))


def application(report: Report) -> Section:
    """The application's hosts, its code, and the proof that it works."""
    section = Section("application", "Application")
    stopped, started = mapping(report, "application", "stopped"), mapping(report, "application", "restarted")
    hosts = list(dict.fromkeys([*stopped, *started]))
    rows = [[name(host), _host_state(mapping(stopped, host)), _host_state(mapping(started, host))] for host in hosts]
    tests = sorted(entries(report, "smoke_tests", "tests"), key=lambda test: _ORDER.get(str(test.get("status")), 0))
    section.tables.extend(
        [
            Table("Hosts", ("Host", "Stop", "Start"), rows),
            Table(
                "Smoke tests",
                ("Status", "Test", "Host", "Took", "Tries"),
                [_smoke(test) for test in tests],
                tone="bad" if failed_checks(tests) else "",
            ),
        ]
    )
    if hosts and not tests:
        section.notes.append(Cell("No smoke test proved that the application works.", tone="warn"))
    code = mapping(report, "previous_code")
    if code.get("message") or code.get("reason"):
        section.facts.append(("Code", words(code.get("message") or code.get("reason"))))
    return section


def _host_state(host: Report) -> Cell:
    if not host:
        return Cell("")
    state = "failed" if host.get("failed") else "running" if host.get("running") else "stopped"
    said = str(host.get("message") or "")
    return Cell(state, "status", "bad" if state == "failed" else "good" if state == "running" else "", below=said)


def _smoke(test: Report) -> list[Cell]:
    named = Cell(str(test.get("name") or ""), below=str(test.get("message") or ""))
    took = Cell(duration(test.get("seconds")), "number")
    return [status(test.get("status")), named, name(test.get("host")), took, number(test.get("attempts"))]
