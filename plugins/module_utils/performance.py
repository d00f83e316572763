# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans of the critical queries, and how long they take against the baseline of the newest backup that has one."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .budget import NotChecked
from .checks import FAILED, INFORMATION, PASSED, Check, some
from .query_timing import TimingRequest, time_queries

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .budget import Budget
    from .catalog import Cursor
    from .connection import ConnectionSettings
    from .since_backup import Known

#: Rows, by the server's own estimate, from which on it is told that a whole table is read.
BIG_ROWS = 10_000
#: Runs of each query, besides one that warms the caches up.
RUNS = 3
#: Seconds that one run may take.
TIMEOUT = 10.0
#: Section 2 of the source document: worse than this is High or Critical.
DEGRADED_PERCENT = 50.0
#: Milliseconds that are lost in the noise of a server and a network, however many percent they are.
FLOOR_MS = 5.0

_GONE = re.compile(r'(?:relation|schema) ("[^ ]*") does not exist')


@dataclasses.dataclass(frozen=True)
class CriticalQueries:
    """Which queries matter, and where they are asked.

    :param queries: ``name`` and ``query`` of each.
    """

    settings: ConnectionSettings
    queries: Sequence[Mapping[str, str]]
    search_path: Sequence[str] = ()


def plan_checks(cursor: Cursor, budget: Budget, queries: Sequence[Mapping[str, str]]) -> Iterator[Check]:
    """How the server would run each critical query now: its nodes, the indexes it uses, big tables that it reads whole.

    A query that asks for a table which is gone is told, and does not fail: its migration was rolled back.
    """
    for query in queries:
        title = f"plan of {query['name']}"
        try:
            found = budget.ask(cursor, f"EXPLAIN (FORMAT JSON, VERBOSE) {query['query']}")
        except NotChecked as why:
            yield Check(title, INFORMATION, "reported", _why_not(str(why)))
            continue
        nodes = list(_nodes(found[0][0][0]["Plan"]))
        yield Check(title, INFORMATION, "reported", _described(nodes, _big_tables(cursor, nodes)), tuple(_lines(nodes)))


def _why_not(said: str) -> str:
    gone = _GONE.search(said)
    return f"asks for {gone[1].strip(chr(34))}, which is gone" if gone else f"not checked: {said}"


def _nodes(plan: Mapping[str, t.Any], depth: int = 0) -> Iterator[dict[str, t.Any]]:
    yield {**plan, "depth": depth}
    for part in plan.get("Plans") or []:
        yield from _nodes(part, depth + 1)


def _big_tables(cursor: Cursor, nodes: Sequence[Mapping[str, t.Any]]) -> list[str]:
    """Tables that are read from one end to the other, and are not small."""
    read = sorted({(node["Schema"], node["Relation Name"]) for node in nodes if node["Node Type"] == "Seq Scan"})
    big = []
    for schema, name in read:
        cursor.execute(
            "SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname), c.reltuples::pg_catalog.int8 FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
            (schema, name),
        )
        big += [f"{identity} (about {rows} rows)" for identity, rows in cursor.fetchall() if rows >= BIG_ROWS]
    return big


def _described(nodes: Sequence[Mapping[str, t.Any]], big: Sequence[str]) -> str:
    used = sorted({str(node["Index Name"]) for node in nodes if node.get("Index Name")})
    said = [
        f"{nodes[0]['Node Type']}, cost {nodes[0]['Total Cost']:.0f}",
        f"index {some(used, 3)}" if used else "no index",
        f"READS ALL of {some(big, 3)}" if big else "",
    ]
    return "; ".join(filter(None, said))


def _lines(nodes: Sequence[Mapping[str, t.Any]]) -> Iterator[str]:
    for node in nodes:
        place = node.get("Index Name") or node.get("Relation Name") or ""
        on = f" on {place}" if place else ""
        yield f"{'  ' * node['depth']}{node['Node Type']}{on}  rows {node['Plan Rows']}, cost {node['Total Cost']}"


def time_checks(asked: CriticalQueries, budget: Budget, known: Known) -> Iterator[Check]:
    """Times of the critical queries against the baseline. Worse by more than half fails, unless that is noise.

    That is so where the lower end of the interval of the change is not above the limit, or the difference is tiny.
    """
    entry = known.baseline
    baseline = entry.manifest.baseline if entry and entry.manifest else ()
    none = known.problem or "no backup of this database has one; playbooks/backup.yml records it"
    for query in asked.queries:
        if budget.over:
            yield Check(f"time of {query['name']}", INFORMATION, "reported", "not checked: no time was left")
            continue
        request = TimingRequest(asked.settings, [query], baseline, none, asked.search_path, RUNS, TIMEOUT)
        yield _timed(time_queries(request)[0], entry.id if entry else "")


def _timed(found: Mapping[str, t.Any], backup: str) -> Check:
    title = f"time of {found['name']}"
    if found["error"]:
        return Check(title, INFORMATION, "reported", _why_not(str(found["error"])))
    now, before = found["now_ms"], found["baseline_ms"]
    took = f"longer than {found['timeout_ms'] / 1000:g} s" if now is None else f"{now:g} ms"
    if before is None:
        return Check(title, INFORMATION, "reported", f"{took}; nothing to compare with: {found['problem']}")
    expected = f"at most {DEGRADED_PERCENT:g} % over the {before:g} ms of {backup}"
    if now is None:
        return Check(title, FAILED if found["timeout_ms"] > before * 1.5 else INFORMATION, expected, took)
    slower = (found["change_low_percent"] or 0) > DEGRADED_PERCENT and now - before > FLOOR_MS
    return Check(title, FAILED if slower else PASSED, expected, f"{took} ({found['change_percent'] or 0:+g} %)")
