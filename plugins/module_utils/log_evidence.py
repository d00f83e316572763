# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors and warnings in logs: how many now, and how many before."""

from __future__ import annotations

import collections
import datetime as dt
import itertools
import re
import time
import typing as t
import zoneinfo

from .errors import Refused
from .log_lines import CLASSES, Judge, LineTimes, begin_entry, default_class, quoted, without_colours
from .log_reading import CannotRead, Line, Reading, reader_of

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .log_lines import Entry

#: Seconds that one source may take.
SOURCE_LIMIT = 30.0

#: Offending lines that are kept of a source.
LINES_KEPT = 20

_PLACES = {"docker": "container", "journald": "unit", "file": "path"}
_PLURALS = {"critical": "critical", "error": "errors", "warning": "warnings"}


def log_source_problems(sources: object) -> list[str]:
    """What is wrong with a value of ``rollback_log_sources``, a sentence each; an empty list when nothing is."""
    if not isinstance(sources, (list, tuple)):
        return ["rollback_log_sources must be a list."]
    problems: list[str] = []
    for number, source in enumerate(sources, 1):
        if not hasattr(source, "get"):
            problems.append(f"rollback_log_sources: entry {number} is no dictionary.")
            continue
        problems += _source_problems(source, str(source.get("name") or f"entry {number}"))
    return problems


def _source_problems(source: Mapping[str, t.Any], name: str) -> Iterator[str]:
    place = _PLACES.get(str(source.get("type")))
    if not source.get("name"):
        yield f"rollback_log_sources: {name} has no name."
    if place is None:
        yield f"rollback_log_sources: {name} has the type {source.get('type')!r}; use docker, journald or file."
    elif not source.get(place):
        yield f"rollback_log_sources: {name} is of the type {source.get('type')} and needs {place}."
    elif str(source[place]).startswith("-"):
        yield f"rollback_log_sources: {place} of {name} begins with a dash, which no {place} does."
    for key in (*CLASSES, "known"):
        for pattern in _texts(source.get(key)):
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as err:
                yield (
                    f"rollback_log_sources: {pattern!r} under {key} of {name} is no regular expression: {err}. "
                    f"Correct it, or escape what is meant literally."
                )
    if source.get("timezone"):
        try:
            zoneinfo.ZoneInfo(str(source["timezone"]))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            yield f"rollback_log_sources: {name} has the timezone {source['timezone']!r}, which this host does not know."


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]


def collect_logs(  # noqa: PLR0917  # Positions as settled with its callers.
    sources: Sequence[Mapping[str, t.Any]],
    window: float,
    baseline_window: float,
    now: dt.datetime | None = None,
    since: dt.datetime | None = None,
    timeout: float = SOURCE_LIMIT,
) -> list[dict[str, t.Any]]:
    """Count the problems in each log, now and before.

    An entry (a line with its stack trace) counts once, for the worst class that it is of; what matches ``known`` counts
    as that alone. A class whose patterns are given has these alone; one without has the built-in rules: the level that
    the line gives itself, else words.

    :param sources: entries of ``rollback_log_sources``.
    :param window: seconds that count as now.
    :param baseline_window: seconds before them that it is compared with; 0 for none.
    :param now: the end of the window; the present, unless given.
    :param since: the beginning of the window instead of its length, such as the restart of the application.
    :param timeout: seconds for each source.
    :returns: one dictionary a source, in order, with ``name``, ``type``, ``window_seconds`` and
        ``baseline_window_seconds`` (those that the log really covers), the counts ``critical``, ``errors``, ``warnings``
        and ``known``, the same with ``baseline_`` before them, ``…_per_minute`` of each, ``lines`` (the last offending
        ones of now) and ``problem``. Every count of what could not be read is ``None`` and never 0; so are those of the
        baseline where ``baseline_window_seconds`` is 0, because the log begins later. A ``problem`` beside counts
        says what they lack.
    :raises Refused: when a source is written wrongly, see :func:`log_source_problems`.
    """
    problems = log_source_problems(sources)
    if problems:
        raise Refused(" ".join(problems))
    end = now or dt.datetime.now(dt.UTC)
    begin = since or end - dt.timedelta(seconds=window)
    span = _Span(begin - dt.timedelta(seconds=baseline_window), begin, end)
    return [_collect(source, span, timeout) for source in sources]


class _Span(t.NamedTuple):
    """The baseline is from ``start`` to ``begin``, and now from ``begin`` to ``end``."""

    start: dt.datetime
    begin: dt.datetime
    end: dt.datetime


def _collect(source: Mapping[str, t.Any], span: _Span, timeout: float) -> dict[str, t.Any]:
    zone = zoneinfo.ZoneInfo(str(source["timezone"])) if source.get("timezone") else None
    reading = Reading()
    counts = _Counts()
    try:
        lines = reader_of(source, LineTimes(span.end, zone), timeout).read(span.start, reading)
        judge = Judge(_patterns(source))
        for entry in entries(_in_time(lines, timeout)):
            if entry.at is None and not reading.timeless:
                continue
            if entry.at is None or entry.at >= span.begin:
                counts.add_now(judge(entry), entry)
            elif entry.at >= span.start:
                counts.before[judge(entry)] += 1
    except (CannotRead, OSError) as err:
        return _unread(source, span, " ".join(str(err).split()))
    return _result(source, span, reading, counts)


def _in_time(lines: Iterable[Line], seconds: float) -> Iterator[Line]:
    """:raises CannotRead: when reading them takes longer."""
    deadline = time.monotonic() + seconds
    for number, line in enumerate(lines):
        if number % 256 == 0 and time.monotonic() > deadline:
            raise CannotRead(f"The log is too long to be read within {seconds:g} seconds; shorten rollback_log_window.")
        yield line


def _patterns(source: Mapping[str, t.Any]) -> dict[str, tuple[re.Pattern[str], ...] | None]:
    return {
        key: None if source.get(key) is None else tuple(re.compile(pattern) for pattern in _texts(source[key]))
        for key in (*CLASSES, "known")
    }


def entries(lines: Iterable[Line]) -> Iterator[Entry]:
    """The entries of lines. A line without a time of its own has that of the one before it."""
    entry: Entry | None = None
    last: dt.datetime | None = None
    for line in lines:
        last = line.at or last
        first, *more = without_colours(line.text).split("\n")
        if entry is None or line.level or not entry.takes(first):
            if entry is not None:
                yield entry
            entry = begin_entry(first, last)
            entry.level = _raised(entry, line.level)
        for one in more:
            entry.takes(one if one[:1].isspace() else f" {one}")
    if entry is not None:
        yield entry


def _raised(entry: Entry, level: str) -> str:
    """The worse of what the log knows of the line and of what the line says."""
    if not level:
        return entry.level
    said = default_class(entry)
    return next((name for name in CLASSES if name in (level, said)), level)


class _Counts:
    def __init__(self) -> None:
        self.now: collections.Counter[str] = collections.Counter()
        self.before: collections.Counter[str] = collections.Counter()
        self.kept: dict[str, collections.deque[tuple[int, str]]] = {
            name: collections.deque(maxlen=LINES_KEPT) for name in CLASSES
        }
        self.order = itertools.count()

    def add_now(self, name: str, entry: Entry) -> None:
        self.now[name] += 1
        if name in self.kept:
            self.kept[name].append((next(self.order), entry.text))

    def lines(self) -> list[str]:
        """The last offending lines in their order; warnings only where the worse ones leave room."""
        worse = sorted([*self.kept["critical"], *self.kept["error"]])[-LINES_KEPT:]
        room = LINES_KEPT - len(worse)
        warnings = list(self.kept["warning"])[-room:] if room else []
        return [quoted(text) for _number, text in sorted([*worse, *warnings])]


def _result(source: Mapping[str, t.Any], span: _Span, reading: Reading, counts: _Counts) -> dict[str, t.Any]:
    start, begin = span.start, span.begin
    if reading.begins is not None:
        start = max(start, reading.begins)
    if reading.cut_at is not None:
        begin = max(begin, reading.cut_at)
    seconds = max((span.end - begin).total_seconds(), 0.0)
    before = 0.0 if reading.timeless else max((span.begin - start).total_seconds(), 0.0)
    result: dict[str, t.Any] = {
        "name": str(source["name"]),
        "type": str(source["type"]),
        "window_seconds": round(seconds, 3),
        "baseline_window_seconds": round(before, 3),
        "known": counts.now["known"],
        "baseline_known": counts.before["known"] if before else None,
    }
    for name, key in _PLURALS.items():
        result |= _numbers(key, counts.now[name], seconds)
        result |= _numbers(f"baseline_{key}", counts.before[name] if before else None, before)
    # Without times nobody knows since when the lines are there; where none of them is bad, nobody needs to.
    clean = reading.timeless and not any(counts.now[name] for name in _PLURALS)
    return result | {"lines": counts.lines(), "problem": "" if clean else reading.problem}


def _numbers(key: str, count: int | None, seconds: float) -> dict[str, t.Any]:
    rate = None if count is None else round(count * 60.0 / max(seconds, 1.0), 3)
    return {key: count, f"{key}_per_minute": rate}


def _unread(source: Mapping[str, t.Any], span: _Span, problem: str) -> dict[str, t.Any]:
    result: dict[str, t.Any] = {
        "name": str(source["name"]),
        "type": str(source["type"]),
        "window_seconds": round((span.end - span.begin).total_seconds(), 3),
        "baseline_window_seconds": 0.0,
        "known": None,
        "baseline_known": None,
    }
    for key in _PLURALS.values():
        result |= _numbers(key, None, 0.0)
        result |= _numbers(f"baseline_{key}", None, 0.0)
    return result | {"lines": [], "problem": problem}
