# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases of one run in a table: what came of each, how long it took, what was lost, and what to do."""

from __future__ import annotations

import typing as t

from .artifacts import NOT_STARTED, is_good, one_line, outcome_of
from .journal import seconds_between
from .outcome import facts
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Result = Mapping[str, t.Any]

HEAD = ("host", "database", "outcome", "seconds", "rows lost", "run")

#: Characters of what a database's run says below the table. Its report has all of it.
LONGEST_WORD = 400


def run_table(results: Mapping[str, Result]) -> list[str]:
    """Lines of text: the table, and below it what there is to do, a paragraph for each database that did not end well.

    :param results: how each database's run ended, ``report`` and ``message``, in the order of the run.
    """
    rows = [_row(host, result) for host, result in results.items()]
    done = sum(is_good(outcome_of(result)) for result in results.values())
    lines = [f"{done} of {len(results)} databases ended well.", *_aligned([HEAD, *rows])]
    return lines + [line for result, hosts in _by_word(results) for line in _paragraph(result, hosts)]


def _by_word(results: Mapping[str, Result]) -> list[tuple[Result, list[str]]]:
    """What did not end well, with the hosts of which the same is to be said."""
    found: dict[str, tuple[Result, list[str]]] = {}
    for host, result in results.items():
        if not is_good(outcome_of(result)):
            found.setdefault(str(result.get("message")), (result, []))[1].append(host)
    return list(found.values())


def _paragraph(result: Result, hosts: Sequence[str]) -> list[str]:
    commands = facts(result, "report").get("next_commands") or []
    said = f"{', '.join(map(visible, hosts))}: {_shortened(one_line(result.get('message')))}"
    return [said, *[f"    {visible(command)}" for command in commands]]


def _row(host: str, result: Result) -> tuple[str, ...]:
    report = facts(result, "report")
    seconds = seconds_between(report.get("started_at"), report.get("finished_at"))
    # What a restored backup loses is a time, and in the report.
    lost = None if report.get("restore") else facts(report, "effect").get("rows_lost")
    return (
        visible(host),
        visible(facts(report, "target").get("database") or "-"),
        visible(outcome_of(result)),
        "-" if seconds is None else f"{seconds:.1f}",
        "-" if lost is None or outcome_of(result) == NOT_STARTED else f"{lost:,}",
        visible(report.get("run_id") or "-"),
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    numbers = (HEAD.index("seconds"), HEAD.index("rows lost"))
    return [
        "  ".join(
            cell.rjust(widths[column]) if column in numbers else cell.ljust(widths[column])
            for column, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_WORD else text[: LONGEST_WORD - 1] + "…"
