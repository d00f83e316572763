# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of a run along its time."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.cypher.rollback.plugins.plugin_utils.page_head import hosts_down, stage_words, stopped_words
from ansible_collections.cypher.rollback.plugins.plugin_utils.page_parts import (
    Cell,
    clock,
    duration,
    entries,
    status,
    time_of,
)

if t.TYPE_CHECKING:
    import datetime as dt

Report = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Bar:
    """One line of the timeline; ``start`` and ``width`` in per cent of the whole.

    :param kind: ``stage``, ``stop`` or ``mark``.
    """

    label: str
    begun: str
    took: str
    state: Cell
    start: str
    width: str
    kind: str = "stage"


def timeline(report: Report) -> list[Bar]:
    """The stop first, then the stages as they came, with the moments at which a dead run was taken up again."""
    stages = [stage for stage in entries(report, "stages") if time_of(stage.get("started_at"))]
    ends = [found for stage in stages for key in ("started_at", "finished_at") if (found := time_of(stage.get(key)))]
    if not ends:
        return []
    scale = _Scale(min(ends), max(ends))
    bars = [(_order(stage), _stage_bar(stage, scale)) for stage in stages]
    bars += [(str(mark.get("at") or ""), _mark(mark, scale)) for mark in entries(report, "resumed")]
    return [*_stop(report, stages, scale), *(stripe for _when, stripe in sorted(bars, key=lambda pair: pair[0]))]


class _Scale:
    """Moments as parts of the run's time."""

    def __init__(self, begin: dt.datetime, end: dt.datetime) -> None:
        self.begin = begin
        self.seconds = max((end - begin).total_seconds(), 0.001)

    def place(self, moment: dt.datetime | None) -> float:
        """Per cent from the beginning, within the run."""
        passed = (moment - self.begin).total_seconds() if moment else 0.0
        return min(100.0, max(0.0, 100 * passed / self.seconds))

    def stripe(self, start: dt.datetime | None, seconds: t.Any) -> tuple[str, str]:
        """Start and width, wide enough to be seen."""
        share = 100 * seconds / self.seconds if isinstance(seconds, (int, float)) else 0.0
        place = min(self.place(start), 99.4)
        return f"{place:.2f}%", f"{min(max(share, 0.6), 100 - place):.2f}%"


def _order(stage: Report) -> str:
    return str(stage.get("started_at") or "")


def _stage_bar(stage: Report, scale: _Scale) -> Bar:
    start, width = scale.stripe(time_of(stage.get("started_at")), stage.get("seconds"))
    return Bar(
        stage_words(stage),
        clock(stage.get("started_at")),
        duration(stage.get("seconds")) or "not ended",
        status(stage.get("status")),
        start,
        width,
    )


def _mark(mark: Report, scale: _Scale) -> Bar:
    start, width = scale.stripe(time_of(mark.get("at")), 0)
    after = f" after {stage_words({'name': mark['after']})}" if mark.get("after") else ""
    by = f" by {mark['by']}" if mark.get("by") else ""
    label = f"Resumed{by}{after}"
    return Bar(label, clock(mark.get("at")), "", Cell("the run had died", "status", "warn"), start, width, "mark")


def _stop(report: Report, stages: t.Sequence[Report], scale: _Scale) -> list[Bar]:
    seconds = report.get("downtime_seconds")
    begun = next((stage.get("started_at") for stage in stages if stage.get("name") == "stop"), None)
    if seconds is None or not begun:
        return []
    start, width = scale.stripe(time_of(begun), seconds)
    state = Cell("still down", "status", "bad") if hosts_down(report) else Cell("down", "status", "warn")
    label = stopped_words(report)
    return [Bar(label[:1].upper() + label[1:], clock(begun), duration(seconds), state, start, width, "stop")]
