# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of an assessment as a table for a console: what fired first, then what is clear, then what is not known."""

from __future__ import annotations

import textwrap
import typing as t

from .severity_rules import CLEAR, FIRED, INCONCLUSIVE, LOW, NOT_MEASURED, percent
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH = 96
_STATUS = {FIRED: "FIRED", INCONCLUSIVE: "UNSURE", CLEAR: "clear", NOT_MEASURED: "unknown"}
_INDENT = " " * 10


def severity_table(severity: Mapping[str, t.Any] | None, whole: bool = True) -> list[list[str]]:
    """Its parts, each with a heading, at most 96 columns wide but for names that are longer; none without an assessment.

    :param whole: also what is clear, and what was not measured; otherwise only what led to the level.
    """
    if not severity or not severity.get("level"):
        return []
    unsure = ", not certain" if severity.get("inconclusive") else ""
    action, deadline = visible(severity.get("action")).upper(), str(severity.get("deadline") or "").partition(", ")[2]
    head = f"SEVERITY  {visible(severity['level']).upper()}{unsure}: {action}{f' ({visible(deadline)})' if deadline else ''}"
    given = f"  given by {visible(severity['given_by'])}" if severity.get("given_by") else ""
    baseline = f"  baseline {visible(severity['backup'])}" if severity.get("backup") else ""
    found = list(severity.get("findings") or [])
    told = [entry for entry in found if entry.get("status") in (FIRED, INCONCLUSIVE)]
    rows = _told(told)
    if whole:
        rows += [line for entry in found if entry.get("status") == CLEAR for line in _clear(entry)]
    missing = _wrapped(f"  {_STATUS[NOT_MEASURED]:<8}", "; ".join(map(str, severity.get("not_measured") or [])))
    if not whole:
        return [[head, *filter(None, (given,)), *rows]]
    return [[head, *filter(None, (given, baseline)), *rows, *missing], *_times(severity)]


def _start(entry: Mapping[str, t.Any]) -> str:
    status = str(entry.get("status"))
    # What fires at the lowest level is no trouble.
    shown = "holds" if (status, entry.get("level")) == (FIRED, LOW) else _STATUS.get(status, status)
    return f"  {shown:<8}{visible(entry.get('section'))} {visible(entry.get('level')):<8}  "


def _told(found: Sequence[Mapping[str, t.Any]]) -> list[str]:
    """What fired or may have, in the order of the document; a log that cannot be read is told once."""
    lines: list[str] = []
    said: dict[str, str] = {}
    for entry in found:
        rule, text = visible(entry.get("rule")), visible(entry.get("text"))
        same = f"  (as {said[text]})" if text in said else ""
        lines += [f"{_start(entry)}{rule}{same}", *([] if same else _wrapped(_INDENT, text))]
        said.setdefault(text, rule)
    return lines


def _clear(entry: Mapping[str, t.Any]) -> list[str]:
    start = _start(entry)
    return _wrapped(
        f"{start}{visible(entry.get('rule')):<29} ", visible(entry.get("text")), indent=" " * (len(start) + 30)
    )


def _wrapped(start: str, text: str, indent: str = _INDENT) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(
        visible(text),
        WIDTH,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _times(severity: Mapping[str, t.Any]) -> list[list[str]]:
    queries = list((severity.get("measurements") or {}).get("queries") or [])
    if not queries:
        return []
    head = ("CRITICAL QUERIES, medians", "baseline", "now", "spread", "change")
    return [_columns([head, *(_query(entry) for entry in queries)])]


def _query(entry: Mapping[str, t.Any]) -> tuple[str, ...]:
    change = entry.get("change_percent")
    now = (
        "timed out"
        if entry.get("timed_out")
        else "failed"
        if entry.get("error")
        else _milliseconds(entry.get("now_ms"))
    )
    return (
        "  " + textwrap.shorten(visible(entry.get("name")), 46, placeholder=" …"),
        _milliseconds(entry.get("baseline_ms")),
        now,
        _milliseconds(entry.get("spread_ms")),
        f"{percent(change)} %" if change is not None else "-",
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f} ms"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    width = max(len(row[0]) for row in rows)
    return [f"{row[0]:<{width}}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]
