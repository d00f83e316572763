# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of Prometheus, compared with limits or with those of before."""

from __future__ import annotations

import json
import math
import typing as t
import urllib.parse

from .errors import Refused, RollbackError
from .http_request import NoAnswer, NotAsked, fetch, without_credentials
from .log_lines import without_secrets

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMITS = ("critical", "high", "medium")
_LEVELS = {"critical": "Critical", "high": "High", "medium": "Medium"}

#: Labels of a series, without the name of the metric, by which a value finds its baseline.
Labels: t.TypeAlias = "frozenset[tuple[str, str]]"


class NoValue(RollbackError):
    """The query gave nothing that can be compared."""


def prometheus_query_problems(queries: object) -> list[str]:
    """What is wrong with a value of ``rollback_prometheus_queries``, a sentence each; an empty list when nothing is."""
    if not isinstance(queries, (list, tuple)):
        return ["rollback_prometheus_queries must be a list."]
    problems = []
    for number, query in enumerate(queries, 1):
        if not hasattr(query, "get"):
            problems.append(f"rollback_prometheus_queries: entry {number} is no dictionary.")
            continue
        name = str(query.get("name") or f"entry {number}")
        problems += [
            f"rollback_prometheus_queries: {name} has no {key}." for key in ("name", "query") if not query.get(key)
        ]
        if str(query.get("worse") or "higher") not in ("higher", "lower"):
            problems.append(f"rollback_prometheus_queries: worse of {name} must be higher or lower.")
        for key in LIMITS:
            try:
                _limit(query, key)
            except ValueError:
                problems.append(f"rollback_prometheus_queries: {key} of {name} is no number.")
    return problems


def _limit(query: Mapping[str, t.Any], key: str) -> float | None:
    value = query.get(key)
    if value is None or value == "":
        return None
    number = float(value)
    if math.isnan(number):
        raise ValueError
    return number


def collect_prometheus(
    url: str, headers: Mapping[str, str] | None, queries: Sequence[Mapping[str, t.Any]], timeout: float = 10.0
) -> list[dict[str, t.Any]]:
    """Ask every query, and judge its value.

    Of several series the worst counts; with a baseline each is compared with the one of the same labels.
    With a baseline the limits are per cent by which it became worse, without a sign; without one they are values, and
    reached when the value is as bad or worse.

    :param url: address of the server, which may have credentials; empty for none.
    :param headers: further HTTP headers.
    :param queries: entries of ``rollback_prometheus_queries``.
    :param timeout: seconds for one answer.
    :returns: one dictionary a query, in order: ``name``, ``query``, ``value``, ``baseline_value``, ``change_percent``
        (with its sign), ``worse``, ``critical``, ``high``, ``medium``, ``series`` (how many), ``labels`` of the worst,
        ``level`` (``Low`` where no limit is reached, ``None`` without a value or without limits) and ``problem``.
    :raises Refused: when a query is written wrongly, see :func:`prometheus_query_problems`.
    """
    problems = prometheus_query_problems(queries)
    if problems:
        raise Refused(" ".join(problems))
    if not url:
        return []
    return [_measure(url, headers or {}, query, timeout) for query in queries]


def _measure(url: str, headers: Mapping[str, str], query: Mapping[str, t.Any], timeout: float) -> dict[str, t.Any]:
    worse = str(query.get("worse") or "higher")
    result: dict[str, t.Any] = {
        "name": str(query["name"]),
        "query": str(query["query"]),
        "value": None,
        "baseline_value": None,
        "change_percent": None,
        "worse": worse,
        **{key: _limit(query, key) for key in LIMITS},
        "series": 0,
        "labels": {},
        "level": None,
        "problem": "",
    }
    try:
        now = _ask(url, headers, str(query["query"]), timeout)
        if query.get("baseline"):
            _compare(result, now, _ask(url, headers, str(query["baseline"]), timeout))
        else:
            labels, value = _worst(now, worse)
            result |= {"value": value, "series": len(now), "labels": dict(labels)}
        result["level"] = _level(result)
    except (NotAsked, NoAnswer, NoValue) as err:
        result["problem"] = without_secrets(str(err))
    return result


def _worst(values: Mapping[Labels, float], worse: str) -> tuple[Labels, float]:
    choose = max if worse == "higher" else min
    return choose(values.items(), key=lambda pair: pair[1])


def _compare(result: dict[str, t.Any], now: Mapping[Labels, float], before: Mapping[Labels, float]) -> None:
    """The series that became worst.

    :raises NoValue: when the baseline is 0, of which nothing is a percentage.
    """
    worse = result["worse"]
    pairs = [(labels, value, before[labels]) for labels, value in now.items() if labels in before]
    if not pairs:
        labels, value = _worst(now, worse)
        pairs = [(labels, value, _worst(before, worse)[1])]
    changes = [(_change(value, base), labels, value, base) for labels, value, base in pairs]
    known = [(change, labels, value, base) for change, labels, value, base in changes if change is not None]
    if len(known) < len(changes) and (not known or worse == "higher"):
        _none, labels, value, base = next(one for one in changes if one[0] is None)
        result |= {"value": value, "baseline_value": base, "series": len(now), "labels": dict(labels)}
        raise NoValue(f"The baseline of {result['name']} is 0 and its value {value:g}, which is no percentage of it.")
    sign = 1 if worse == "higher" else -1
    change, labels, value, base = max(known, key=lambda one: sign * one[0])
    result |= {
        "value": value,
        "baseline_value": base,
        "change_percent": round(change, 2),
        "series": len(now),
        "labels": dict(labels),
    }


def _change(value: float, base: float) -> float | None:
    if base == 0:
        return 0.0 if value == 0 else None
    return (value - base) / abs(base) * 100


def _level(result: Mapping[str, t.Any]) -> str | None:
    if all(result[key] is None for key in LIMITS):
        return None
    sign = 1 if result["worse"] == "higher" else -1
    compared = result["change_percent"] is not None
    badness = sign * (result["change_percent"] if compared else result["value"])
    for key in LIMITS:
        limit = result[key]
        if limit is not None and badness >= (abs(limit) if compared else sign * limit):
            return _LEVELS[key]
    return "Low"


def _ask(url: str, headers: Mapping[str, str], query: str, timeout: float) -> dict[Labels, float]:
    """The values of an instant query, by labels.

    :raises NoValue: when there is none that can be compared.
    :raises NotAsked: when the server could not be asked.
    :raises NoAnswer: when it did not answer.
    """
    base = url.split("?", 1)[0].rstrip("/")
    status, body = fetch(f"{base}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout, headers)
    shown = f"Prometheus at {without_credentials(base)}"
    try:
        answer = json.loads(body)
        answered = answer["status"]
    except (ValueError, KeyError, TypeError):
        raise NoValue(
            f"{shown} gave status {status} and no answer of its API; correct rollback_prometheus_url."
        ) from None
    if answered != "success":
        raise NoValue(f"{shown} refused the query {query!r}: {answer.get('error') or answer.get('errorType')}.")
    values = _values(answer.get("data") or {}, query)
    if not values:
        raise NoValue(f"{shown} has no data for the query {query!r}.")
    usable = {labels: value for labels, value in values.items() if math.isfinite(value)}
    if not usable:
        said = "no number (NaN)" if any(math.isnan(value) for value in values.values()) else "infinite"
        raise NoValue(f"The value of the query {query!r} is {said}, as after a division by zero.")
    return usable


def _values(data: Mapping[str, t.Any], query: str) -> dict[Labels, float]:
    kind, result = data.get("resultType"), data.get("result") or []
    try:
        if kind == "scalar":
            return {frozenset(): float(result[1])}
        if kind == "vector":
            return {_labels(series.get("metric") or {}): float(series["value"][1]) for series in result}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise NoValue(f"The answer to the query {query!r} is not one of Prometheus.") from None
    raise NoValue(f"The query {query!r} gives a {kind}; use an instant query that gives a number for now.")


def _labels(metric: Mapping[str, t.Any]) -> Labels:
    return frozenset((str(name), str(value)) for name, value in metric.items() if name != "__name__")
