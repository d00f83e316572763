# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each kind of evidence says about one trigger line of the document's section 2.

Every judge is a function from measurements and thresholds to one of four statuses, with one sentence. As in the analysis
of Argo Rollouts, *inconclusive* is a result of its own, and so is a source that was never set; as in Kayenta's judge, a
change counts where the whole interval that the samples leave for it lies beyond a limit, not where one number does.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

CRITICAL, HIGH, MEDIUM, LOW = "Critical", "High", "Medium", "Low"
#: From the lowest to the highest.
LEVELS = (LOW, MEDIUM, HIGH, CRITICAL)

FIRED, CLEAR, INCONCLUSIVE, NOT_MEASURED = "fired", "clear", "inconclusive", "not_measured"

#: Sources of evidence, and the setting without which there is none.
SETTING_OF = {
    "queries": "rollback_critical_queries",
    "rows": "rollback_critical_tables",
    "logs": "rollback_log_sources",
    "health": "rollback_health_checks",
    "prometheus": "rollback_prometheus_url",
}
SOURCES = tuple(SETTING_OF)
SHOWN = 3

Measurements = t.Mapping[str, t.Any]
Thresholds = t.Mapping[str, float]
Entry = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What one source says about one rule.

    :param status: ``fired``, ``clear``, ``inconclusive`` or ``not_measured``.
    :param text: one sentence.
    :param evidence: the measurements that it rests on.
    """

    status: str
    text: str
    evidence: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


Judge = t.Callable[[Measurements, Thresholds], Judgement]


def entries(measured: Measurements, source: str) -> Sequence[Entry]:
    """The measurements of one source."""
    return list(measured.get(source) or [])


def not_measured(measured: Measurements, source: str, why: str = "") -> Judgement:
    """Nothing was measured, and why: by default because the setting is empty."""
    reason = why or str((measured.get("unset") or {}).get(source) or f"no {SETTING_OF[source]}")
    return Judgement(NOT_MEASURED, f"Not measured: {reason}.")


def _listed(clauses: Sequence[str]) -> str:
    more = f"; and {len(clauses) - SHOWN} more" if len(clauses) > SHOWN else ""
    text = "; ".join(clauses[:SHOWN]) + more
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _judged(
    found: Sequence[Entry], doubtful: Sequence[Entry], said: Callable[[Entry], str], clear: str, why: str = ""
) -> Judgement:
    """Fired where something was found, inconclusive where something may be, clear otherwise.

    :param why: what makes the doubtful ones doubtful, as a clause.
    """
    if found:
        return Judgement(FIRED, _listed([said(entry) for entry in found]), {"found": [dict(entry) for entry in found]})
    if doubtful:
        clauses = [f"{said(entry)}{why}" for entry in doubtful]
        return Judgement(INCONCLUSIVE, _listed(clauses), {"found": [dict(entry) for entry in doubtful]})
    return Judgement(CLEAR, clear)


# --- critical queries -------------------------------------------------------------------------------------------------


def band(percent: float, thresholds: Thresholds) -> str:
    """The level of a slow-down: above 50 % Critical, from 20 % High, from 10 % Medium, with the default thresholds."""
    if percent > thresholds["performance_critical_percent"]:
        return CRITICAL
    if percent >= thresholds["performance_high_percent"]:
        return HIGH
    return MEDIUM if percent >= thresholds["performance_medium_percent"] else LOW


def possible_levels(entry: Entry, thresholds: Thresholds) -> tuple[str, ...]:
    """The levels that a query's change may have, lowest first; none where it cannot be compared.

    Below ``noise_ms`` a difference is that of two measurements of the same thing, whatever it is in percent.
    """
    baseline = entry.get("baseline_ms")
    if baseline is None or entry.get("error"):
        return ()
    if entry.get("timed_out"):
        limit = float(entry.get("timeout_ms") or 0)
        return (CRITICAL,) if limit > baseline * (1 + thresholds["performance_critical_percent"] / 100) else ()
    if entry.get("now_ms") is None:
        return ()
    if entry["now_ms"] - baseline < thresholds["noise_ms"]:
        return (LOW,)
    change = entry["change_percent"]
    ends = (entry.get("change_low_percent"), entry.get("change_high_percent"))
    lowest, highest = (band(change if end is None else end, thresholds) for end in ends)
    return LEVELS[LEVELS.index(lowest) : LEVELS.index(highest) + 1]


def performance(level: str) -> Judge:
    """A judge of the times of the critical queries, for one level of section 2."""

    def judge(measured: Measurements, thresholds: Thresholds) -> Judgement:
        queries = entries(measured, "queries")
        if not queries:
            return not_measured(measured, "queries")
        levels = [(entry, possible_levels(entry, thresholds)) for entry in queries]
        compared = [(entry, possible) for entry, possible in levels if possible]
        if not compared:
            return not_measured(measured, "queries", _not_compared(queries))
        found = [entry for entry, possible in compared if possible == (level,)]
        doubtful = [entry for entry, possible in compared if level in possible and len(possible) > 1]
        if level == LOW and len(found) < len(compared):
            found = []
        clear = f"{counted(len(compared), 'query', 'queries')} compared, none in that range."
        return _judged(found, doubtful, _times, clear, "; the runs differ too much to tell on which side of the limit")

    return judge


def _not_compared(found: Sequence[Entry]) -> str:
    reasons = dict.fromkeys(str(entry.get("why") or entry.get("problem") or "") for entry in found)
    return next((reason for reason in reasons if reason), "the baseline has none of them").rstrip(".")


def _times(entry: Entry) -> str:
    name = f'query "{visible(entry.get("name"))}"'
    if entry.get("timed_out"):
        return f"{name} did not end within {number(entry.get('timeout_ms'))} ms, baseline {number(entry.get('baseline_ms'))} ms"
    range_ = (
        f", {percent(entry['change_low_percent'])} to {percent(entry['change_high_percent'])} %"
        if entry.get("change_low_percent") is not None and entry.get("change_high_percent") is not None
        else ""
    )
    return (
        f"{name}: {number(entry.get('now_ms'))} ms (median of {entry.get('runs')}, spread {number(entry.get('spread_ms'))} ms), "
        f"baseline {number(entry.get('baseline_ms'))} ms, {percent(entry['change_percent'])} %{range_ and f' ({range_[2:]})'}"
    )


def number(value: t.Any) -> str:
    """Milliseconds for people: three digits that count."""
    if value is None:
        return "?"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(value: float) -> str:
    """A change for people, with its sign, exact enough to see on which side of a limit it is."""
    return f"{value:+.0f}" if abs(value) >= 100 else f"{value:+.1f}"


def query_timeouts(measured: Measurements, _thresholds: Thresholds) -> Judgement:
    """Timeouts of critical queries."""
    queries = entries(measured, "queries")
    if not queries:
        return not_measured(measured, "queries")
    found = [entry for entry in queries if entry.get("timed_out")]
    ran = [entry for entry in queries if not entry.get("error")]
    if not found and not ran:
        return not_measured(measured, "queries", "no critical query could be run")
    return _judged(found, [], _timed_out, f"{counted(len(ran), 'critical query', 'critical queries')} ended in time.")


def _timed_out(entry: Entry) -> str:
    seconds = float(entry.get("timeout_ms") or 0) / 1000
    return f'query "{visible(entry.get("name"))}" did not end within {seconds:g} s (rollback_severity_query_timeout)'


def failing_queries(measured: Measurements, _thresholds: Thresholds) -> Judgement:
    """The database itself, and critical queries that fail where they worked before: nothing critical works without them."""
    down = measured.get("database") or {}
    if down.get("problem"):
        status = FIRED if down.get("certain", True) else INCONCLUSIVE
        return Judgement(status, str(down["problem"]), {"database": str(down["problem"])})
    queries = entries(measured, "queries")
    if not queries:
        return not_measured(measured, "queries")
    failing = [entry for entry in queries if entry.get("error") and not entry.get("baseline_error")]
    found = [entry for entry in failing if entry.get("baseline_ms") is not None]
    doubtful = [entry for entry in failing if entry.get("baseline_ms") is None]
    old = len(queries) - len(failing) - sum(not entry.get("error") for entry in queries)
    clear = f"No critical query fails{f' that did not fail in the baseline ({old} did)' if old else ''}."
    return _judged(found, doubtful, _failing, clear, "; whether it worked before is not known: no baseline has it")


def _failing(entry: Entry) -> str:
    return f'the critical query "{visible(entry.get("name"))}" fails: {visible(entry.get("error"))}'


# --- rows -------------------------------------------------------------------------------------------------------------


def lost_rows(measured: Measurements, thresholds: Thresholds) -> Judgement:
    """Critical tables that are gone, or hold fewer rows than the backup before the migration recorded."""
    tables = entries(measured, "rows")
    if not tables:
        return not_measured(measured, "rows")
    compared = [entry for entry in tables if entry.get("baseline_rows") is not None or entry.get("problem")]
    if not compared:
        return not_measured(measured, "rows", _not_compared(tables))
    lost = [(entry, _fall(entry)) for entry in compared]
    found = [
        entry
        for entry, fall in lost
        if entry.get("missing") or (fall is not None and not entry.get("estimated") and fall >= thresholds["rows_lost_percent"] and fall > 0)
    ]  # fmt: skip
    doubtful = [
        entry
        for entry, fall in lost
        if entry not in found and (entry.get("problem") or (fall is not None and fall > thresholds["rows_tolerated_percent"]))
    ]  # fmt: skip
    clear = f"{counted(len(compared), 'critical table', 'critical tables')} compared, no rows lost."
    return _judged(found, doubtful, _rows, clear)


def _fall(entry: Entry) -> float | None:
    before, now = entry.get("baseline_rows"), entry.get("rows")
    return None if not before or now is None else (before - now) * 100 / before


def _rows(entry: Entry) -> str:
    name = visible(entry.get("table"))
    if entry.get("missing"):
        before = entry.get("baseline_rows")
        return f"table {name} is gone{f' with {before:,} rows' if before else ''}"
    if entry.get("problem"):
        return f"table {name} cannot be counted: {visible(entry['problem']).rstrip('.')}"
    fall = _fall(entry) or 0
    about = "about " if entry.get("estimated") else ""
    return (
        f"table {name} has {about}{entry['rows']:,} rows, {entry['baseline_rows']:,} before the migration "
        f"(-{fall:.2g} %)" + ("" if fall >= 1 and not about else ", which may be ordinary work or lost data")
    )


# --- logs -------------------------------------------------------------------------------------------------------------


def critical_lines(measured: Measurements, thresholds: Thresholds) -> Judgement:
    """Critical errors in logs."""
    said = _counted_lines("critical", "critical error", "critical errors")
    return _logs(measured, said, lambda log: _of(log, "critical") >= max(1, thresholds["critical_log_errors"]))


def frequent(kind: str, limit: str) -> Judge:
    """A judge of a rate: as often as the limit, and by a factor more often than before.

    A rate that was as high before is inconclusive: either it is ordinary, or the window before is after the migration, too.

    :param kind: ``errors`` or ``warnings``.
    :param limit: beginning of the names of its two thresholds.
    """

    def judge(measured: Measurements, thresholds: Thresholds) -> Judgement:
        def high(log: Entry) -> bool:
            return _of(log, f"{kind}_per_minute") >= thresholds[f"{limit}_per_minute"] and _of(log, kind) > 0

        def risen(log: Entry) -> bool:
            return _of(log, f"{kind}_per_minute") >= thresholds[f"{limit}_factor"] * _of(
                log, f"baseline_{kind}_per_minute"
            )

        why = "; as often as before: put what is known into the log's key known, or raise the threshold"
        return _logs(
            measured, _rates(kind), lambda log: high(log) and risen(log), lambda log: high(log) and not risen(log), why
        )

    return judge


def some(kind: str, limit: str) -> Judge:
    """A judge of what is there and not frequent."""

    def judge(measured: Measurements, thresholds: Thresholds) -> Judgement:
        def few(log: Entry) -> bool:
            return _of(log, kind) > 0 and _of(log, f"{kind}_per_minute") < thresholds[f"{limit}_per_minute"]

        return _logs(measured, _rates(kind), few)

    return judge


def known_lines(measured: Measurements, _thresholds: Thresholds) -> Judgement:
    """Known, documented problems."""
    return _logs(measured, _counted_lines("known", "line of a known problem", "lines of known problems"), lambda log: _of(log, "known") > 0)  # fmt: skip


def _of(log: Entry, key: str) -> float:
    return float(log.get(key) or 0)


def _logs(
    measured: Measurements,
    said: Callable[[Entry], str],
    holds: Callable[[Entry], bool],
    may_hold: Callable[[Entry], bool] = lambda _log: False,
    why: str = "",
) -> Judgement:
    logs = entries(measured, "logs")
    if not logs:
        return not_measured(measured, "logs")
    read = [log for log in logs if not log.get("problem")]
    unread = [log for log in logs if log.get("problem")]
    found, doubtful = [log for log in read if holds(log)], [log for log in read if may_hold(log)]
    if not found and not doubtful and unread:
        return _judged(
            [], unread, lambda log: f"{_place(log)} could not be read: {visible(log['problem']).rstrip('.')}", ""
        )
    return _judged(found, doubtful, said, f"{counted(len(read), 'log', 'logs')} read, nothing of it there.", why)


def _counted_lines(key: str, one: str, many: str) -> Callable[[Entry], str]:
    return lambda log: f"{_place(log)} has {counted(int(_of(log, key)), one, many)} in {_minutes(log)}"


def _rates(kind: str) -> Callable[[Entry], str]:
    def said(log: Entry) -> str:
        before = (
            f", {_of(log, f'baseline_{kind}_per_minute'):.3g} a minute before"
            if log.get("baseline_window_seconds")
            else ""
        )
        return (
            f"{_place(log)} has {counted(int(_of(log, kind)), kind[:-1], kind)} in {_minutes(log)}, "
            f"{_of(log, f'{kind}_per_minute'):.3g} a minute{before}"
        )

    return said


def _minutes(log: Entry) -> str:
    return f"{_of(log, 'window_seconds') / 60:.3g} min"


def _place(entry: Entry) -> str:
    host = f" on {visible(entry['host'])}" if entry.get("host") else ""
    return f"the log {visible(entry.get('name'))}{host}" if entry.get("name") else f"the log{host}"


# --- health -----------------------------------------------------------------------------------------------------------


def health(found: Mapping[str, Sequence[str]], priorities: Iterable[str]) -> Judge:
    """A judge of health checks.

    :param found: by priority, the statuses in which the rule fires.
    :param priorities: those whose inconclusive checks make the rule inconclusive.
    """
    wanted = tuple(priorities)

    def judge(measured: Measurements, _thresholds: Thresholds) -> Judgement:
        checks = entries(measured, "health")
        if not checks:
            return not_measured(measured, "health")
        own = [check for check in checks if check.get("priority") in (*found, *wanted)]
        if not own:
            names = " or ".join(dict.fromkeys((*found, *wanted)))
            return not_measured(measured, "health", f"no check of priority {names} in rollback_health_checks")
        fired = [check for check in own if check.get("status") in found.get(str(check.get("priority")), ())]
        doubtful = [check for check in own if check.get("status") == "inconclusive" and check.get("priority") in wanted]
        return _judged(fired, doubtful, _check, f"{counted(len(own), 'check', 'checks')} made, nothing of it there.")

    return judge


def _check(check: Entry) -> str:
    name, said = str(check.get("name") or ""), str(check.get("message") or "")
    host = f" on {visible(check['host'])}" if check.get("host") else ""
    words = {"down": "does not work", "partly": "works only partly", "inconclusive": "could not be asked"}
    rest = words.get(str(check.get("status")), "")
    if said.startswith(f"{name} "):
        rest = said.removeprefix(f"{name} ")
    elif said:
        rest = f"{rest}: {said}"
    return f"{visible(check.get('priority'))} {visible(name)}{host} {visible(rest).rstrip('.')}"


# --- Prometheus -------------------------------------------------------------------------------------------------------


def metrics(level: str) -> Judge:
    """A judge of the values that Prometheus gave, for one level of section 2."""

    def judge(measured: Measurements, _thresholds: Thresholds) -> Judgement:
        values = entries(measured, "prometheus")
        if not values:
            return not_measured(measured, "prometheus")
        found = [value for value in values if value.get("level") == level]
        doubtful = [value for value in values if value.get("problem") and level in _limits(value)]
        if level == LOW and len(found) < len(values):
            found = []
        return _judged(
            found, doubtful, _metric, f"{counted(len(values), 'metric', 'metrics')} compared, none in that range."
        )

    return judge


def _limits(value: Entry) -> tuple[str, ...]:
    """The levels that a metric without a value may have."""
    limited = tuple(level for level in (MEDIUM, HIGH, CRITICAL) if value.get(level.lower()) is not None)
    return (LOW, *(limited or (CRITICAL,)))


def _metric(value: Entry) -> str:
    name = visible(value.get("name"))
    if value.get("problem"):
        return f"the metric {name} has no value: {visible(value['problem']).rstrip('.')}"
    change = value.get("change_percent")
    before = f", baseline {value.get('baseline_value'):.4g}, {percent(change)} %" if change is not None else ""
    return f"the metric {name} is {value.get('value'):.4g}{before}"


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{count:,} {one if count == 1 else many}"
