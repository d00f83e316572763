# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the critical queries take now, against the baseline that a backup before the migration recorded.

Medians are compared, because one run that had to wait says nothing. How far a median can be trusted is told by the
median absolute deviation of its runs, which an outlier does not move either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
import typing as t

from .baseline import timed
from .connection import connect

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg2.extensions

    from .connection import ConnectionSettings

with contextlib.suppress(ImportError):
    import psycopg2

#: Half of a 95 % interval of a median, in median absolute deviations and over the root of the number of runs: 1.96
#: standard errors, each 1.2533 standard deviations of a run, each 1.4826 median absolute deviations (normal errors).
INTERVAL = 1.96 * 1.2533 * 1.4826

#: The server cancelled the statement, for its timeout or on request.
_CANCELED = "57014"


@dataclasses.dataclass(frozen=True)
class TimingRequest:
    """Which queries are timed, and how.

    :param queries: ``name`` and ``query`` of each.
    :param baseline: the entries of a manifest's ``baseline``; empty: nothing to compare with.
    :param no_baseline: why there is none, as a clause with the command that makes one.
    :param runs: that count. One more warms the caches up before them and does not count.
    :param timeout: seconds that one run may take.
    """

    settings: ConnectionSettings
    queries: Sequence[Mapping[str, str]]
    baseline: Sequence[Mapping[str, t.Any]] = ()
    no_baseline: str = ""
    search_path: Sequence[str] = ()
    runs: int = 5
    timeout: float = 10.0


class _TimedOut(Exception):
    """The query did not end within the limit."""


def time_queries(request: TimingRequest) -> list[dict[str, t.Any]]:
    """Time each query in read-only transactions, and compare it with the baseline of the same name and text.

    :return: of each query ``name``, ``baseline_ms``, ``now_ms``, ``spread_ms`` (from the lower to the upper quartile),
        ``runs``, ``change_percent`` with the ends ``change_low_percent`` and ``change_high_percent`` of its interval,
        ``timed_out``, ``timeout_ms``, ``error``, ``baseline_error``, and ``problem``: why it cannot be compared.
    :raises CannotConnect: the server lets nobody in, or went away.
    """
    measured = []
    connection = _open(request)
    try:
        for query in request.queries:
            if connection.closed:
                connection = _open(request)
            measured.append(_measured(connection, query, request))
    finally:
        connection.close()
    return measured


def _open(request: TimingRequest) -> psycopg2.extensions.connection:
    connection = connect(
        request.settings,
        application_name="cypher.rollback assess",
        statement_timeout=f"{math.ceil(request.timeout * 1000)}ms",
        search_path=request.search_path,
    )
    connection.set_session(readonly=True)
    return connection


def _measured(
    connection: psycopg2.extensions.connection, query: Mapping[str, str], request: TimingRequest
) -> dict[str, t.Any]:
    seconds: list[float] = []
    timed_out, error = False, ""
    try:
        # The first run after a restart or an exchange reads from the disk. It may even time out.
        with contextlib.suppress(_TimedOut):
            _timed(connection, query["query"], request.timeout)
        seconds.extend(_timed(connection, query["query"], request.timeout) for _run in range(request.runs))
    except _TimedOut:
        timed_out = True
    except psycopg2.Error as err:
        # Without the place in the query, which takes two lines and a mark.
        error = " ".join((err.diag.message_primary or str(err)).split()) or type(err).__name__
    entry = {
        "name": query["name"],
        "timed_out": timed_out,
        "timeout_ms": round(request.timeout * 1000, 3),
        "error": error,
        **_summary([] if timed_out or error else [second * 1000 for second in seconds]),
    }
    return {**entry, **compare(entry, _baseline_of(query, request))}


def _timed(connection: psycopg2.extensions.connection, query: str, limit: float) -> float:
    started = time.monotonic()
    try:
        return timed(connection, query)
    except psycopg2.Error as err:
        # Whoever cancels it by hand does so earlier.
        if err.pgcode == _CANCELED and time.monotonic() - started >= limit * 0.9:
            raise _TimedOut from err
        raise


def _summary(runs: Sequence[float]) -> dict[str, t.Any]:
    """Median and spread of runs in milliseconds."""
    if not runs:
        return {"now_ms": None, "spread_ms": None, "runs": 0, "runs_ms": []}
    lower, upper = quartiles(runs)
    return {
        "now_ms": round(statistics.median(runs), 3),
        "spread_ms": round(upper - lower, 3),
        "runs": len(runs),
        "runs_ms": [round(run, 3) for run in runs],
    }


def quartiles(runs: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile, the ends of the middle half."""
    if len(runs) < 2:
        return runs[0], runs[0]
    lower, _median, upper = statistics.quantiles(runs, n=4, method="inclusive")
    return lower, upper


def _baseline_of(query: Mapping[str, str], request: TimingRequest) -> Mapping[str, t.Any]:
    """The baseline of a query as :func:`compare` takes it."""
    if not request.baseline:
        return {"problem": request.no_baseline or "there is no baseline"}
    of_name = [entry for entry in request.baseline if entry.get("name") == query["name"]]
    same = [entry for entry in of_name if str(entry.get("query") or "").split() == query["query"].split()]
    if same:
        return same[0]
    why = "has another text than" if of_name else "is not in"
    return {"problem": f"{query['name']} {why} the baseline; the next playbooks/backup.yml records it"}


def compare(entry: Mapping[str, t.Any], baseline: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What a query's times mean against its baseline.

    :param entry: ``now_ms`` and ``runs_ms``.
    :param baseline: ``median`` and ``seconds`` of a manifest, in seconds, ``error``, or ``problem``.
    """
    empty = dict.fromkeys(("baseline_ms", "change_percent", "change_low_percent", "change_high_percent"))
    result: dict[str, t.Any] = {**empty, "baseline_error": str(baseline.get("error") or ""), "problem": ""}
    if baseline.get("problem"):
        return {**result, "problem": str(baseline["problem"])}
    before = _milliseconds(baseline)
    if before is None:
        said = result["baseline_error"].rstrip(".") or "it has no time there"
        return {**result, "problem": f"{entry.get('name')} could not be timed in the baseline either: {said}"}
    result["baseline_ms"] = round(before, 3)
    now = entry.get("now_ms")
    if now is None or before <= 0:
        return result
    runs = [float(second) * 1000 for second in baseline.get("seconds") or []]
    error = math.hypot(_relative_error(entry.get("runs_ms") or [], now), _relative_error(runs, before))
    ratio = now / before
    result["change_percent"] = _percent(ratio)
    result["change_low_percent"] = _percent(ratio * math.exp(-error))
    result["change_high_percent"] = _percent(ratio * math.exp(error))
    return result


def _milliseconds(baseline: Mapping[str, t.Any]) -> float | None:
    median = baseline.get("median")
    number = isinstance(median, (int, float)) and not isinstance(median, bool) and math.isfinite(median)
    return float(median) * 1000 if number and median is not None else None


def _relative_error(runs: Sequence[float], median: float) -> float:
    """Half of the interval of a median, as a part of it."""
    if len(runs) < 2 or median <= 0:
        return 0.0
    deviation = statistics.median(abs(run - median) for run in runs)
    return INTERVAL * deviation / math.sqrt(len(runs)) / median


def _percent(ratio: float) -> float:
    return round((ratio - 1) * 100, 1)
