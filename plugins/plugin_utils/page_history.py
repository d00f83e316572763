# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Past runs: how long they took over time, and a list of them."""

from __future__ import annotations

import dataclasses
import statistics
import typing as t
import urllib.parse

from ansible_collections.cypher.rollback.plugins.plugin_utils.page_head import RUNBOOKS
from ansible_collections.cypher.rollback.plugins.plugin_utils.page_parts import (
    Cell,
    duration,
    moment,
    number,
    plural,
    status,
    time_of,
    words,
)

Run = t.Mapping[str, t.Any]

#: Runs of one runbook that a chart shows, the newest; the list has all.
CHARTED = 60
WIDTH, HEIGHT, LEFT, TOP = 640.0, 180.0, 64.0, 12.0


@dataclasses.dataclass(frozen=True)
class Column:
    """One run in a chart: its two bars and what a pointer is told."""

    x: float
    width: float
    total_y: float
    total_height: float
    stop_y: float
    stop_height: float
    tone: str
    told: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """The runs of one runbook from the oldest to the newest."""

    title: str
    told: str
    columns: list[Column]
    ticks: list[tuple[float, str]]
    medians: list[tuple[float, str, str]]
    first: str
    last: str


def seconds_of(run: Run) -> float | None:
    """Seconds from a run's first stage to its last."""
    begun, ended = time_of(run.get("started_at")), time_of(run.get("finished_at"))
    return round(max(0.0, (ended - begun).total_seconds()), 3) if begun and ended else None


def view(runs: t.Sequence[Run]) -> dict[str, t.Any]:
    """What the template shows, newest run first."""
    return {"rows": [_row(run) for run in runs], "charts": _charts(runs), "count": len(runs), "tones": _outcomes(runs)}


def _row(run: Run) -> dict[str, t.Any]:
    page = run.get("page")
    state = str(run.get("outcome") or run.get("status") or "")
    return {
        "link": "/".join(urllib.parse.quote(part) for part in str(page).split("/")) if page else "",
        "begun": moment(run["started_at"]).removesuffix(" UTC") if run.get("started_at") else "not known",
        "run": run.get("run_id"),
        "cells": [
            Cell(
                RUNBOOKS.get(str(run.get("runbook")), str(run.get("runbook") or "")),
                below=str(run.get("database") or ""),
            ),
            words(", ".join(map(str, run.get("versions") or []))),
            dataclasses.replace(status(state), below=str(run.get("problem") or "")),
            Cell(duration(run.get("downtime_seconds")), "number"),
            Cell(duration(run.get("seconds")), "number"),
            number(run.get("rows_lost") or None),
            words(run.get("person")),
        ],
    }


def _outcomes(runs: t.Sequence[Run]) -> list[tuple[Cell, int]]:
    states = [str(run.get("outcome") or run.get("status") or "") for run in runs]
    return [
        (status(state), states.count(state))
        for state in sorted(dict.fromkeys(states), key=lambda one: -states.count(one))
    ]


def _charts(runs: t.Sequence[Run]) -> list[Chart]:
    timed = [run for run in reversed(runs) if isinstance(run.get("seconds"), (int, float)) and run.get("seconds")]
    named = [str(run.get("runbook")) for run in timed]
    kinds = sorted(dict.fromkeys(named), key=lambda kind: -named.count(kind))
    return [_chart(kind, [run for run in timed if str(run.get("runbook")) == kind][-CHARTED:]) for kind in kinds]


def _chart(kind: str, runs: list[Run]) -> Chart:
    totals = [float(run["seconds"]) for run in runs]
    stops = [float(run["downtime_seconds"]) for run in runs if run.get("downtime_seconds") is not None]
    scale = _Scale(max(totals + stops))
    medians = [(scale.y(statistics.median(totals)), f"median {duration(statistics.median(totals))}", "total")]
    if stops:
        medians.append((scale.y(statistics.median(stops)), f"median stop {duration(statistics.median(stops))}", "stop"))
    told = f"{plural(len(runs), 'run')}, {', '.join(text for _y, text, _kind in medians)}."
    room = (WIDTH - LEFT) / len(runs)
    columns = [_column(run, LEFT + room * place, room, scale) for place, run in enumerate(runs)]
    dates = [moment(run.get("started_at"))[:10] for run in (runs[0], runs[-1])]
    return Chart(RUNBOOKS.get(kind, kind), told, columns, scale.ticks(), medians, *dates)


class _Scale:
    """Seconds as heights, up to a round number."""

    def __init__(self, longest: float) -> None:
        self.step = next(step for step in _steps() if longest / step <= 4)
        self.top = self.step * max(1, -(-longest // self.step))

    def y(self, seconds: float) -> float:
        """Distance from the top of the picture."""
        return round(TOP + HEIGHT * (1 - seconds / self.top), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Lines across the picture."""
        return [
            (self.y(self.step * index), _tick(self.step * index)) for index in range(round(self.top / self.step) + 1)
        ]


def _steps() -> t.Iterator[float]:
    yield from (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
    hour = 3600.0
    while True:
        yield hour
        hour *= 2


def _tick(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def _column(run: Run, x: float, room: float, scale: _Scale) -> Column:
    total, stop = float(run["seconds"]), float(run.get("downtime_seconds") or 0)
    width = min(28.0, max(2.0, room * 0.7))
    floor = scale.y(0)
    state = status(run.get("outcome"))
    told = f"{moment(run.get('started_at'))}: {state.text}, {duration(total)} in all, {duration(stop) if stop else 'no'} stop"
    return Column(
        round(x + (room - width) / 2, 2),
        round(width, 2),
        scale.y(total),
        round(floor - scale.y(total), 2),
        scale.y(stop),
        round(floor - scale.y(stop), 2),
        state.tone,
        told,
    )
