# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on a console, for someone tired: the outcome first, then what was lost, then what to do."""

from __future__ import annotations

import textwrap
import typing as t

from .outcome import Facts, facts, failed_checks
from .severity_table import severity_table
from .verification_table import verification_table
from .visible import visible

WIDTH = 96

#: Lines of one list on the console; the report holds the whole of it.
LONGEST_LIST = 20

_OTHER_EFFECTS = (
    ("skipped", "SKIPPED BY IF EXISTS, so not dropped"),
    ("left_over", "LEFT OVER, named by the DOWN and still there"),
    ("changed", "CHANGED"),
    ("added", "ADDED"),
)


#: Outcomes that leave something to be done, which may take more than one person.
_TO_BE_SEEN_TO = ("failed_unchanged", "needs_attention", "unknown")


def summary(report: Facts) -> str:
    """Plain text of at most 96 columns, except for paths and commands, which must stay whole to be copied."""
    parts = [_head(report), _message(report), *_severity(report), _contacts(report)]
    if report["outcome"] != "nothing_to_do":
        parts += [*_restore(report), _plan(report), *_effect(report), *_preview(report), _verification(report)]
        parts += _checklists(report)
    parts += [
        _code(report),
        _application(report),
        _stages(report),
        _notifications(report),
        _warnings(report),
        _where(report),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(report: Facts) -> list[str]:
    target = facts(report, "target")
    where = f"{target.get('database') or '?'} on {target.get('host') or 'the local socket'}:{target.get('port') or '?'}"
    rule = "=" * WIDTH
    words = str(report["outcome"]).replace("_", " ").upper()
    return [rule, *_wrapped(visible(f"{words}   {where}   run {report.get('run_id') or 'without a name'}"), ""), rule]


def _severity(report: Facts) -> list[list[str]]:
    return severity_table(facts(report, "severity"), whole=report.get("runbook") == "assess")


def _message(report: Facts) -> list[str]:
    lines = str(report["message"]).split("\n")[:-1]
    return [wrapped for line in lines for wrapped in _wrapped(visible(line), "")]


def _contacts(report: Facts) -> list[str]:
    """Whom to call, where something is left to be done."""
    if report["outcome"] not in _TO_BE_SEEN_TO:
        return []
    people = [
        [visible(contact.get(key)) or "-" for key in ("role", "name", "phone")]
        for contact in report.get("contacts") or []
    ]
    lines = [_wrapped(f"{role.replace('_', ' ')}: {name}, {phone}", "  ") for role, name, phone in people]
    return ["TO CALL", *_cut([line for wrapped in lines for line in wrapped])] if lines else []


def _wrapped(line: str, indent: str) -> list[str]:
    wrapped = textwrap.wrap(
        line, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    # A command broken over lines cannot be pasted.
    before, mark, command = line.partition("ansible-playbook ")
    if not mark or len(wrapped) < 2:
        return wrapped
    return [*_wrapped(before.rstrip(), indent), f"{indent}    {mark}{command}"] if before else [f"{indent}{line}"]


def _restore(report: Facts) -> list[list[str]]:
    restore = facts(report, "restore")
    if not restore:
        return []
    backup, swap = facts(report, "backup"), facts(report, "swap")
    chosen = [f"RESTORE  {visible(backup['id'])}"] if backup.get("id") else []
    chosen += _wrapped(visible(restore.get("why") or ""), "  ")
    lost = [] if restore.get("put_back") else _wrapped(visible(facts(restore, "window").get("text") or ""), "  ")
    skipped = [
        line
        for entry in restore.get("passed_over") or []
        for line in _wrapped(visible(f"{entry.get('id')}: {entry.get('reason')}"), "  ")
    ]
    titled = (("PASSED OVER", skipped), ("WINDOW OF WRITES", lost), *_put_back(restore), ("SWAP", _swap(swap)))
    parts = [chosen, *[[title, *_cut(lines)] for title, lines in titled if lines]]
    return [*parts, _compared(restore)]


def _compared(restore: Facts) -> list[str]:
    tables = facts(restore, "tables")
    if not tables or not restore.get("compared"):
        return []
    rows = sum(number for number in tables.values() if isinstance(number, int))
    return [f"COMPARED  {_count(len(tables), 'table')} with the manifest, {_count(rows, 'row')}"]


def _put_back(restore: Facts) -> list[tuple[str, list[str]]]:
    tables = facts(restore, "put_back").get("tables") or []
    words = ("missing", "changed", "extra")
    rows = [(_label(table), *(f"{table.get(word) or 0:,} {word}" for word in words)) for table in tables]
    return [("TABLES PUT BACK", [f"  {line}" for line in _columns(rows)])] if rows else []


def _swap(swap: Facts) -> list[str]:
    if swap.get("swapped_back"):
        return ["  exchanged, and exchanged back because the application did not come up"]
    kept = [f"  the replaced database is kept as {visible(swap['kept'])}"] if swap.get("kept") else []
    back = [f"  back: {swap['swap_back_command']}"] if kept and swap.get("swap_back_command") else []
    return [*kept, *back] if swap.get("swapped") else []


def _plan(report: Facts) -> list[str]:
    plan = facts(report, "plan")
    if not plan.get("versions"):
        return []
    scripts = plan.get("scripts") or []
    versions = ", ".join(visible(version) for version in plan["versions"])
    lines = [f"PLAN  {versions}, {_count(plan.get('statements') or 0, 'statement')}"]
    if facts(plan, "object"):
        return [*lines, *_object_plan(facts(plan, "object"))]
    return lines + _cut([f"  {visible(script.get('version'))}  {visible(script.get('file'))}" for script in scripts])


def _object_plan(about: Facts) -> list[str]:
    """The statement that takes one object back, what goes with it, and what becomes of the application."""
    lines = [f"  {visible(about.get('statement'))}"]
    for title, items in (("with it go", about.get("parts")), ("CASCADE also drops", about.get("cascaded"))):
        lines += [f"  {title}", *_cut([f"    {visible(item)}" for item in items])] if items else []
    if about.get("kind") != "index":
        return lines
    way = (
        "The application is NOT stopped"
        if about.get("concurrently")
        else "In a transaction, with the application stopped"
    )
    return [*lines, *_wrapped(f"{way}: {visible(about.get('why'))}", "  ")]


def _effect(report: Facts) -> list[list[str]]:
    effect = facts(report, "effect")
    dropped = effect.get("dropped") or []
    parts = [_dropped(report, dropped), _rows(effect)]
    for key, words in _OTHER_EFFECTS:
        entries = effect.get(key) or []
        parts.append(
            [f"{words}  {len(entries)}", *_cut([f"  {_object(entry)}" for entry in entries])] if entries else []
        )
    return parts


def _dropped(report: Facts, dropped: t.Sequence[Facts]) -> list[str]:
    if not dropped:
        return []
    gone = {entry.get("identity") for entry in dropped}
    whole = [entry for entry in dropped if not entry.get("part_of") or entry["part_of"] not in gone]
    undone = report["outcome"] in ("failed_unchanged", "refused")
    title = "WOULD BE LOST" if report.get("check_mode") else "WOULD HAVE BEEN LOST (nothing was)" if undone else "LOST"
    rows = facts(report, "effect").get("rows_lost") or 0
    inside = f" and {_count(len(dropped) - len(whole), 'part')} of them" if len(dropped) > len(whole) else ""
    named = [_object(entry) for entry in whole if not entry.get("cascaded")]
    cascaded = [_object(entry) for entry in whole if entry.get("cascaded")]
    total = f"{title}  {_count(len(whole), 'object')}{inside}, {_count(rows, 'row')}"
    return [total, *_list("named by the DOWN", named), *_list("only by CASCADE, no statement names them", cascaded)]


def _rows(effect: Facts) -> list[str]:
    tables = [(_object(entry), f"{entry['rows']:,}") for entry in effect.get("dropped") or [] if entry.get("rows")]
    deleted = [
        (f"deleted from {_label(change.get('table'))}", f"{change['deleted']:,}")
        for change in effect.get("row_changes") or []
        if change.get("deleted")
    ]
    return (
        ["ROWS, table by table", *_cut([f"  {line}" for line in _columns([*tables, *deleted])])]
        if tables or deleted
        else []
    )


def _list(title: str, lines: list[str]) -> list[str]:
    return [f"  {title}: {len(lines)}", *_cut([f"    {line}" for line in lines])] if lines else []


def _cut(lines: list[str]) -> list[str]:
    if len(lines) <= LONGEST_LIST + 1:
        return lines
    return [*lines[:LONGEST_LIST], f"    … and {len(lines) - LONGEST_LIST} more (in the report)"]


def _label(entry: t.Any) -> str:
    if not hasattr(entry, "get"):
        return visible(entry)
    return visible(entry.get("identity") or entry.get("name") or entry.get("object") or "?")


def _object(entry: t.Any) -> str:
    if not hasattr(entry, "get"):
        return visible(entry)
    kind = f"{visible(entry['type'])} " if entry.get("type") else ""
    elsewhere = entry.get("elsewhere") or entry.get("exists_as") or []
    places = [elsewhere] if isinstance(elsewhere, str) else [_label(place) for place in elsewhere]
    found = f"; exists as {', '.join(visible(place) for place in places)}" if places else ""
    return f"{kind}{_label(entry)}{found}"


def _columns(rows: t.Sequence[tuple[str, ...]]) -> list[str]:
    width = min(60, max((len(row[0]) for row in rows), default=0))
    return [f"{row[0]:<{width}}  " + "  ".join(f"{cell:>12}" for cell in row[1:]) for row in rows]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _preview(report: Facts) -> list[list[str]]:
    if not report.get("check_mode"):
        return []
    slowest = sorted(report.get("statements") or [], key=lambda statement: -(statement.get("seconds") or 0))
    times = [f"  {statement.get('seconds') or 0:>8.3f} s  {_statement(statement)}" for statement in slowest]
    total = sum(statement.get("seconds") or 0 for statement in slowest)
    sessions = [_session(session) for session in report.get("sessions") or []]
    titled = (
        ("LOCKS TAKEN, on what stays first", _locks(report)),
        (f"TIME A STATEMENT, slowest first, {total:.2f} s in all", times),
        ("OTHER SESSIONS, which may be in the way", sessions),
    )
    return [[f"{title}  {len(lines)}", *_cut(lines)] for title, lines in titled if lines]


def _locks(report: Facts) -> list[str]:
    gone = {entry.get("identity") for entry in facts(report, "effect").get("dropped") or []}
    locks = sorted(report.get("locks") or [], key=lambda lock: lock.get("relation") in gone)
    return [
        f"  {visible(lock.get('mode'))}  {visible(lock.get('relation'))}{'' if lock.get('relation') in gone else ' (stays)'}"
        for lock in locks
    ]


def _statement(statement: Facts) -> str:
    place = f"{visible(statement.get('version'))} line {statement.get('line')}"
    return f"{place}  {visible(statement.get('kind') or statement.get('summary'))}"


def _session(session: Facts) -> str:
    application = visible(session.get("application")) or "no application name"
    state = f", {visible(session['state'])}" if session.get("state") else ""
    who = f"pid {session.get('pid')}, {visible(session.get('user'))}, {application}{state}"
    query = " ".join(str(session.get("query") or "").split())
    line = f"{who}, since {session.get('since')}: {visible(query)}"
    return "  " + textwrap.shorten(line, WIDTH - 2, placeholder=" …")


def _verification(report: Facts) -> list[str]:
    verification = facts(report, "verification")
    checks = verification.get("checks") or []
    if not checks:
        return []
    failed = failed_checks(checks)
    passed = sum(check.get("status") == "passed" for check in checks)
    lines = [f"VERIFICATION  {passed} passed, {len(failed)} failed"]
    if report.get("runbook") == "verify":
        return [*lines, *verification_table(checks, WIDTH)]
    for check in failed:
        lines.append(f"  FAILED  {visible(check.get('name'))}")
        lines += [
            f"          {key} {visible(check.get(key))}" for key in ("expected", "actual") if check.get(key) is not None
        ]
    return lines


#: An item of a checklist in one word; what is none of these needs a look.
_CHECKED = {"passed": "yes", "confirmed": "yes", "not_applicable": "-", "failed": "NO", "denied": "NO"}


def _checklists(report: Facts) -> list[list[str]]:
    """The items of each list that are not as they should be; in a preview, all of them."""
    lists = facts(report, "checklists")
    parts = []
    for phase in ("before", "after"):
        items = lists.get(phase) or []
        fine = [item for item in items if _CHECKED.get(str(item.get("status")), "NO") != "NO"]
        shown = items if report.get("check_mode") else [item for item in items if item not in fine]
        title = f"CHECKLIST {phase} the rollback  {len(fine)} of {len(items)} hold"
        lines = [line for item in shown for line in _item(item)]
        parts.append([title, *lines] if items else [])
    return parts


def _item(item: Facts) -> list[str]:
    status = str(item.get("status"))
    word = f"{_CHECKED.get(status, status):<8}"
    text = f"{visible(facts(item, 'text').get('en') or item.get('key'))}: {visible(item.get('evidence'))}"
    lines = textwrap.wrap(text, WIDTH - 10, break_long_words=False, break_on_hyphens=False)
    return [f"  {word if not number else ' ' * 8}{line}" for number, line in enumerate(lines)]


def _application(report: Facts) -> list[str]:
    tests = facts(report, "smoke_tests").get("tests") or []
    failed = failed_checks(tests)
    lines = [f"SMOKE TESTS  {len(tests) - len(failed)} passed, {len(failed)} failed"] if tests else []
    lines += [
        f"  FAILED  {visible(test.get('name'))}  {visible(test.get('host'))}  {visible(test.get('message'))}"
        for test in failed
    ]
    return lines


def _code(report: Facts) -> list[str]:
    """Which release comes back, as long as none has."""
    if report.get("previous_code"):
        return []
    plan = facts(report, "previous_code_plan")
    lines = [line for entry in plan.values() for line in _wrapped(visible(entry.get("message") or ""), "  ")]
    return ["CODE", *_cut(lines)] if lines else []


def _stages(report: Facts) -> list[str]:
    stages = report.get("stages") or []
    if not stages:
        return []
    downtime = report.get("downtime_seconds")
    stop = f"application down for {downtime:.1f} s" if downtime is not None else "no application was stopped"
    rows = [(visible(stage["name"]), visible(stage["status"]), _seconds(stage.get("seconds"))) for stage in stages]
    return [f"STAGES  {stop}", *[f"  {line}" for line in _columns(rows)]]


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.2f} s" if seconds is not None else "-"


def _notifications(report: Facts) -> list[str]:
    entries = report.get("notifications") or []
    lines = [
        f"  {visible(entry['status'])}  {visible(entry.get('event') or 'end')} to {visible(entry['name'])}: {visible(entry['message'])}"
        for entry in entries
    ]
    return ["NOTIFICATIONS", *_cut(lines)] if lines else []


def _warnings(report: Facts) -> list[str]:
    warnings = report.get("warnings") or []
    return (
        ["WARNINGS", *_cut([line for warning in warnings for line in _wrapped(visible(warning), "  ")])]
        if warnings
        else []
    )


def _where(report: Facts) -> list[str]:
    backup = facts(report, "backup")
    lines = []
    if backup.get("path"):
        checked = "verified" if backup.get("verified") else "NOT verified"
        lines.append(f"BACKUP  {visible(backup.get('id'))} ({backup.get('bytes') or 0:,} bytes, {checked})")
        lines.append(f"        {visible(backup['path'])}")
    if report.get("report_path"):
        lines.append(f"REPORT  {visible(report['report_path'])}")
        lines += [f"        {visible(path)}" for path in facts(report, "pages").values()]
    elif report.get("check_mode"):
        lines.append("Check mode: nothing was stopped, written or sent.")
    return lines
