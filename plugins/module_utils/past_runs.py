# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs of a folder, from the reports that they left and the journals of those that left none, as data and as a table."""

from __future__ import annotations

import json
import os
import re
import typing as t

from .claims import ClaimHeld, claims_in, last_words
from .errors import Refused
from .journal import JOURNAL, is_at_work, read, seconds_between
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Sequence

Run = dict[str, t.Any]

_REPORT = re.compile(r"report(-\d+)?\.json")
_HEADS = ("STARTED (UTC)", "RUNBOOK", "DATABASE", "MIGRATIONS", "OUTCOME", "STOP", "WHOLE", "ROWS LOST", "BY")
#: Numbers stand on the right.
_RIGHT = {"STOP", "WHOLE", "ROWS LOST"}


class FolderUnreadable(Refused):
    """The folder of runs cannot be read."""


def runs(run_dir: str, database: str = "") -> list[Run]:
    """Every run, newest first. What has neither report nor journal is no run; no folder, no runs.

    :param database: only runs on the database of this name, and those of which it is not known.
    :returns: ``run_id``, ``status`` (``finished``, ``at_work``, ``died`` or ``unreadable``), ``problem`` (why it is not
        finished), ``runbook``, ``outcome``, ``versions``, ``database``, ``host``, ``started_at``, ``finished_at``,
        ``seconds``, ``downtime_seconds``, ``rows_lost``, ``person``, ``last_stage``, ``report`` and ``page`` (paths
        relative to the folder).
    :raises FolderUnreadable: when it is there and cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(run_dir) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as err:
        raise FolderUnreadable(
            f"The folder of runs {run_dir} cannot be read: {err.strerror or err}. Run as the user that the runbooks "
            "connect with, or set rollback_run_dir to the folder that they use."
        ) from err
    held = _at_work(run_dir)
    found = [run for name in names for run in _of_folder(run_dir, name, held)]
    wanted = [run for run in found if not database or run["database"] in (database, "")]
    return sorted(
        wanted, key=lambda run: (str(run["started_at"] or ""), run["run_id"], str(run["report"])), reverse=True
    )


def _at_work(run_dir: str) -> set[str]:
    """Names of the runs whose claim nobody may take from them."""
    found = set()
    for claims, held in claims_in(run_dir):
        try:
            claims.check_stale(held, None)
        except ClaimHeld:
            found.add(str(held["run_id"]))
    return found


def _of_folder(run_dir: str, name: str, held: set[str]) -> list[Run]:
    folder = os.path.join(run_dir, name)
    try:
        files = sorted(os.listdir(folder))
    except OSError as err:
        return [_run(name, status="unreadable", problem=f"The folder cannot be read: {err.strerror or err}.")]
    reports = [file for file in files if _REPORT.fullmatch(file)]
    if reports:
        return [_reported(run_dir, name, file, files) for file in reports]
    return [_unfinished(folder, name, name in held)] if JOURNAL in files else []


def _run(name: str, **known: t.Any) -> Run:
    empty: Run = dict.fromkeys(
        ("outcome", "started_at", "finished_at", "seconds", "downtime_seconds", "rows_lost", "report", "page")
    )
    words = dict.fromkeys(("problem", "runbook", "database", "host", "person", "last_stage"), "")
    return {"run_id": name, "status": "finished", "versions": [], **words, **empty, **known}


def _reported(run_dir: str, name: str, file: str, files: Sequence[str]) -> Run:
    relative = f"{name}/{file}"
    try:
        with open(os.path.join(run_dir, name, file), encoding="utf-8") as text:
            report = json.load(text)
        if not isinstance(report, dict):
            raise ValueError("it is no report")
    except (OSError, ValueError) as err:
        return _run(name, status="unreadable", report=relative, problem=f"{file} cannot be read: {visible(err)}")
    page = file.removesuffix(".json") + ".html"
    target, plan, effect = (_part(report, key) for key in ("target", "plan", "effect"))
    versions = plan.get("versions")
    last = [stage for stage in report.get("stages") or [] if isinstance(stage, dict)][-1:]
    return _run(
        name,
        report=relative,
        page=f"{name}/{page}" if page in files else None,
        runbook=str(report.get("runbook") or ""),
        outcome=report.get("outcome"),
        versions=[str(version) for version in versions] if isinstance(versions, list) else [],
        database=str(target.get("database") or ""),
        host=str(report.get("host") or ""),
        started_at=report.get("started_at"),
        finished_at=report.get("finished_at"),
        seconds=_between(report.get("started_at"), report.get("finished_at")),
        downtime_seconds=_number(report.get("downtime_seconds")),
        rows_lost=_number(effect.get("rows_lost")) if report.get("committed") else None,
        person=str(report.get("person") or ""),
        last_stage=str(last[0].get("name") or "") if last else "",
    )


def _part(report: Run, key: str) -> Run:
    part = report.get(key)
    return part if isinstance(part, dict) else {}


def _number(value: t.Any) -> float | int | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _between(begun: t.Any, ended: t.Any) -> float | None:
    try:
        return seconds_between(begun, ended)
    except (TypeError, ValueError):
        return None


def _unfinished(folder: str, name: str, held: bool) -> Run:
    """A run without a report: it works, or its controller died."""
    events = read(folder)
    stages = [event for event in events if event.get("event") == "stage"]
    at_work = held or is_at_work(folder)
    said = last_words(folder) or "its journal names no stage"
    problem = (
        f"It is at work, or died a short time ago: {said}."
        if at_work
        else f"It ended without a report: {said}. Look at what state the database and the application are in; "
        f"{os.path.join(folder, JOURNAL)} has every stage."
    )
    return _run(
        name,
        status="at_work" if at_work else "died",
        problem=problem,
        started_at=str(events[0].get("at") or "") or None if events else None,
        last_stage=str(stages[-1].get("stage") or "") if stages else "",
    )


def table(found: Sequence[Run], run_dir: str, limit: int = 0) -> list[str]:
    """Lines for a console, newest first.

    :param limit: runs that are shown; 0, all.
    """
    number = f"{len(found)} run{'' if len(found) == 1 else 's'}"
    head = f"RUNS  {visible(run_dir)}  {number}"
    if not found:
        return [head, "  There is none yet."]
    shown = found[:limit] if limit else found
    rows = [_cells(run) for run in shown]
    widths = [max(len(row[column]) for row in [_HEADS, *rows]) for column in range(len(_HEADS))]
    lines = [head, _row(_HEADS, widths)]
    for run, row in zip(shown, rows, strict=True):
        lines.append(_row(row, widths))
        lines += [f"    {visible(run['run_id'])}: {visible(run['problem'])}"] if run["problem"] else []
    return [*lines, *([f"… and {len(found) - len(shown)} older"] if len(found) > len(shown) else [])]


def _cells(run: Run) -> tuple[str, ...]:
    begun = str(run["started_at"] or "")[:19].replace("T", " ")
    texts = (begun, run["runbook"], run["database"], ", ".join(run["versions"]), run["outcome"] or run["status"])
    times = (f"{run[key]:.1f} s" if run[key] is not None else "" for key in ("downtime_seconds", "seconds"))
    rows = f"{run['rows_lost']:,}" if run["rows_lost"] else ""
    return (*(visible(text) for text in texts), *times, rows, visible(run["person"]))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        f"{cell:>{width}}" if head in _RIGHT else f"{cell:<{width}}"
        for head, cell, width in zip(_HEADS, cells, widths, strict=True)
    ]
    return "  " + "  ".join(padded).rstrip()
