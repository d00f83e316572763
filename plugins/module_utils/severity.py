# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How bad it is: section 2 of the source document, as a table of rules and a verdict.

Every trigger line of the document is one rule. The highest level of which a rule fired is the verdict; a rule that is
inconclusive counts as if it had fired, because unsure means the higher one, and the verdict then says so.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import typing as t

from .errors import Refused
from .severity_rules import (
    CLEAR,
    CRITICAL,
    FIRED,
    HIGH,
    INCONCLUSIVE,
    LEVELS,
    LOW,
    MEDIUM,
    SETTING_OF,
    SOURCES,
    critical_lines,
    entries,
    failing_queries,
    frequent,
    health,
    known_lines,
    lost_rows,
    metrics,
    performance,
    query_timeouts,
    some,
)

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .severity_rules import Judge, Measurements

SETTING = "rollback_severity_thresholds"

#: What section 2 says to do, and until when.
ACTIONS = {
    CRITICAL: ("Roll back now", "now"),
    HIGH: ("Roll back within one hour", "within one hour"),
    MEDIUM: ("Watch and decide", "watch and decide"),
    LOW: ("Watch", "watch"),
}
#: Where nothing of the level is certain, a person looks first: to roll back a database that is well does harm, too.
UNSURE_ACTIONS = {
    CRITICAL: "Look now, and roll back unless you find that it is well",
    HIGH: "Look, and roll back within one hour unless you find that it is well",
}
#: A query that ends, and does not fail, may still be a hundred times slower than before.
_SAYS_LITTLE = (("critical_query_timeout", "queries"), ("p0_down", "queries"))
HOUR = dt.timedelta(hours=1)

#: Percent are those of the document, where it has any. Rates are lines a minute.
THRESHOLDS: Mapping[str, float] = {
    "performance_critical_percent": 50,
    "performance_high_percent": 20,
    "performance_medium_percent": 10,
    "noise_ms": 1,
    "critical_log_errors": 1,
    "errors_frequent_per_minute": 1,
    "errors_frequent_factor": 2,
    "warnings_many_per_minute": 10,
    "warnings_many_factor": 2,
    "rows_lost_percent": 1,
    "rows_tolerated_percent": 0,
}
#: Of each pair the first must not be below the second.
_ORDERED = (
    ("performance_critical_percent", "performance_high_percent"),
    ("performance_high_percent", "performance_medium_percent"),
    ("rows_lost_percent", "rows_tolerated_percent"),
)


class ThresholdRefused(Refused):
    """A threshold that is none."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One trigger line of section 2.

    :param section: where it stands, ``2.1`` to ``2.4``.
    :param romanian: the document's own words.
    :param judges: by source of evidence.
    """

    name: str
    section: str
    level: str
    romanian: str
    english: str
    judges: Mapping[str, Judge]


def _performance(level: str) -> Mapping[str, Judge]:
    return {"queries": performance(level), "prometheus": metrics(level)}


RULES: tuple[Rule, ...] = (
    Rule("critical_log_errors", "2.1", CRITICAL, "Erori critice în logs", "Critical errors in logs", {"logs": critical_lines}),
    Rule("performance_degraded_critical", "2.1", CRITICAL, "Performanță degradată > 50%", "Performance degraded by more than 50 %", _performance(CRITICAL)),
    Rule("data_loss", "2.1", CRITICAL, "Pierdere de date", "Data loss", {"rows": lost_rows}),
    Rule("p0_down", "2.1", CRITICAL, "Funcționalitate P0 nu funcționează", "P0 functionality does not work",
         {"health": health({"P0": ("down",)}, ("P0",)), "queries": failing_queries}),
    Rule("critical_query_timeout", "2.1", CRITICAL, "Timeout pe query-uri critice", "Timeouts of critical queries", {"queries": query_timeouts}),
    Rule("performance_degraded_high", "2.2", HIGH, "Performanță degradată 20-50%", "Performance degraded by 20 to 50 %", _performance(HIGH)),
    Rule("frequent_unexpected_errors", "2.2", HIGH, "Erori neașteptate frecvente", "Frequent unexpected errors",
         {"logs": frequent("errors", "errors_frequent")}),
    Rule("critical_feature_partly_down", "2.2", HIGH, "Feature critic parțial nefuncțional", "A critical feature works only partly",
         {"health": health({"P0": ("partly",), "P1": ("down", "partly")}, ("P1",))}),
    Rule("many_warnings", "2.2", HIGH, "Warning-uri mari în logs", "Many warnings in logs", {"logs": frequent("warnings", "warnings_many")}),
    Rule("performance_degraded_medium", "2.3", MEDIUM, "Performanță degradată < 20%", "Performance degraded by less than 20 %", _performance(MEDIUM)),
    Rule("occasional_errors", "2.3", MEDIUM, "Erori non-critice ocazionale", "Occasional errors that are not critical",
         {"logs": some("errors", "errors_frequent")}),
    Rule("non_critical_feature_affected", "2.3", MEDIUM, "Feature non-critic afectat", "A feature that is not critical is affected",
         {"health": health({"P2": ("down", "partly")}, ("P2",))}),
    Rule("minor_warnings", "2.4", LOW, "Warning-uri minore", "Minor warnings", {"logs": some("warnings", "warnings_many")}),
    Rule("performance_acceptable", "2.4", LOW, "Performanță în limite acceptabile", "Performance within acceptable limits", _performance(LOW)),
    Rule("known_problems", "2.4", LOW, "Probleme documentate cunoscute", "Known, documented problems", {"logs": known_lines}),
)  # fmt: skip


def thresholds_from(given: t.Any) -> dict[str, float]:
    """The document's limits with those of the setting over them.

    :raises ThresholdRefused: for a name that is none, a value that is no number, and limits in the wrong order.
    """
    if not hasattr(given, "items"):
        raise ThresholdRefused(f"{SETTING} is {given!r}; give a dictionary of names and numbers, or leave it out.")
    unknown = [str(name) for name in given if name not in THRESHOLDS]
    if unknown:
        raise ThresholdRefused(
            f"{SETTING} has {', '.join(unknown)}, which is no threshold; there are {', '.join(THRESHOLDS)}."
        )
    limits = {**THRESHOLDS, **{str(name): _number(str(name), value) for name, value in given.items()}}
    for higher, lower in _ORDERED:
        if limits[higher] < limits[lower]:
            raise ThresholdRefused(
                f"{SETTING} leaves {higher} at {limits[higher]:g} and {lower} at {limits[lower]:g}; the first must not be below "
                "the second."
            )
    return limits


def _number(name: str, value: t.Any) -> float:
    try:
        found = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or found < 0:
        raise ThresholdRefused(f"{SETTING} has {value!r} for {name}; give a number of 0 or more.")
    return found


def findings(measured: Measurements, thresholds: Mapping[str, float]) -> list[dict[str, t.Any]]:
    """What each rule says, source by source, in the order of the document.

    Prometheus is a second source for performance: where it is not set, it is named once, and not with each rule.
    """
    found = []
    for rule in RULES:
        for source, judge in rule.judges.items():
            if source == "prometheus" and not entries(measured, source):
                continue
            judgement = judge(measured, thresholds)
            found.append(
                {
                    "rule": rule.name,
                    "section": rule.section,
                    "level": rule.level,
                    "status": judgement.status,
                    "text": judgement.text,
                    "source": source,
                    "line": {"ro": rule.romanian, "en": rule.english},
                    "evidence": dict(judgement.evidence),
                }
            )
    return found


def unmeasured(measured: Measurements) -> list[str]:
    """The sources that were not set, or could not be asked, each with the reason."""
    unset = measured.get("unset") or {}
    empty = [source for source in SOURCES if not entries(measured, source)]
    said = [f"{source} ({unset.get(source) or f'no {SETTING_OF[source]}'})" for source in empty]
    why = measured.get("not_compared")
    return [*said, f"times and rows against a baseline ({why})"] if why else said


def verdict(
    measured: Measurements, thresholds: Mapping[str, float], now: dt.datetime | None = None
) -> dict[str, t.Any]:
    """The level with what decided it, what to do and until when.

    ``inconclusive`` says that nothing of that level fired for certain: it is the level only because unsure means the
    higher one. Where nothing was measured that could say that it is well, that is so of the highest.

    :param now: when it is assessed.
    """
    moment = now or dt.datetime.now(dt.UTC)
    found = findings(measured, thresholds)
    level, deciding = _decided(found)
    inconclusive = all(finding["status"] == INCONCLUSIVE for finding in deciding) if deciding else not _is_well(found)
    action, deadline = ACTIONS[level]
    if inconclusive:
        action = UNSURE_ACTIONS.get(level, action)
    if level == HIGH:
        deadline += f", by {moment + HOUR:%Y-%m-%d %H:%M} UTC"
    return {
        "level": level,
        "action": action,
        "deadline": deadline,
        "decided_by": list(dict.fromkeys(finding["rule"] for finding in deciding)),
        "inconclusive": inconclusive,
        "text": _why(deciding, inconclusive, level),
        "assessed_at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "given_by": "",
        "not_measured": unmeasured(measured),
        "findings": found,
        "measurements": {source: [dict(entry) for entry in entries(measured, source)] for source in SOURCES},
        "thresholds": dict(thresholds),
    }


def _decided(found: Sequence[dict[str, t.Any]]) -> tuple[str, list[dict[str, t.Any]]]:
    """The highest level with a rule that fired or may have, and those rules, the certain ones where there are any."""
    for level in reversed(LEVELS):
        own = [finding for finding in found if finding["level"] == level]
        fired = [finding for finding in own if finding["status"] == FIRED]
        doubtful = [finding for finding in own if finding["status"] == INCONCLUSIVE]
        if fired or doubtful:
            return level, fired or doubtful
    return (LOW if _is_well(found) else CRITICAL), []


def _is_well(found: Sequence[dict[str, t.Any]]) -> bool:
    """Whether anything that is clear says that it is well: that queries end somehow, without a baseline, does not."""
    return any(
        finding["status"] == CLEAR and (finding["rule"], finding["source"]) not in _SAYS_LITTLE for finding in found
    )


def _why(deciding: Sequence[dict[str, t.Any]], inconclusive: bool, level: str) -> str:
    if not deciding:
        return (
            f"Too little could be measured to say that it is well, so it counts as {level}: unsure means the higher level."
            if inconclusive
            else "None of the document's triggers fired."
        )
    said = " ".join(dict.fromkeys(finding["text"] for finding in deciding))
    return f"Not certain, and unsure means the higher level: {said}" if inconclusive else said
