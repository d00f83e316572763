# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of Prometheus, from a real HTTP server that answers as its API does."""

from __future__ import annotations

import http.server
import json
import threading
import typing as t
import urllib.parse

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.prometheus_evidence import (
    collect_prometheus,
    prometheus_query_problems,
)


def vector(*series: tuple[dict[str, str], str]) -> dict[str, t.Any]:
    """Data of an instant vector."""
    return {
        "resultType": "vector",
        "result": [{"metric": labels, "value": [1795381201.5, value]} for labels, value in series],
    }


DATA: dict[str, t.Any] = {
    "now": vector(({"__name__": "a"}, "150")),
    "before": vector(({}, "100")),
    "better": vector(({}, "60")),
    "zero": vector(({}, "0")),
    "none": vector(),
    "nan": vector(({}, "NaN")),
    "infinite": vector(({}, "+Inf")),
    "scalar": {"resultType": "scalar", "result": [1795381201.5, "7"]},
    "range": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"]]}]},
    "odd": {"resultType": "vector", "result": [{"metric": {}}]},
    "by_host": vector(({"host": "a"}, "110"), ({"host": "b"}, "90"), ({"host": "c"}, "NaN")),
    "by_host_before": vector(({"host": "a"}, "100"), ({"host": "b"}, "50")),
}


class Prometheus(http.server.BaseHTTPRequestHandler):
    """Answers queries by name."""

    headers_seen: t.ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        self.headers_seen.append(dict(self.headers))
        query = urllib.parse.parse_qs(parts.query).get("query", [""])[0]
        status, answer = 200, json.dumps({"status": "success", "data": DATA.get(query)})
        if query == "bad{":
            error = {"status": "error", "errorType": "bad_data", "error": "1:5: parse error: unexpected end of input"}
            status, answer = 400, json.dumps(error)
        if parts.path != "/prom/api/v1/query":
            status, answer = 404, "<html>not here</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_given: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def url() -> t.Iterator[str]:
    """Address of the running server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/prom/"
    server.shutdown()
    server.server_close()


def ask(url: str, query: str, **more: t.Any) -> dict[str, t.Any]:
    """The evidence of one query."""
    (found,) = collect_prometheus(url, {}, [{"name": "latency", "query": query, **more}], 5)
    return found


@pytest.mark.parametrize(
    ("query", "limits", "level"),
    [
        ("now", {"critical": 150, "high": 120, "medium": 100}, "Critical"),
        ("now", {"critical": 151, "high": 120, "medium": 100}, "High"),
        ("now", {"critical": 200, "medium": 100}, "Medium"),
        ("now", {"critical": 200}, "Low"),
        ("scalar", {"high": "5"}, "High"),
        ("now", {}, None),
        ("better", {"worse": "lower", "critical": 50, "high": 60, "medium": 80}, "High"),
        ("better", {"worse": "lower", "critical": 50}, "Low"),
    ],
)
def test_a_value_is_compared_with_the_limits(url: str, query: str, limits: dict[str, t.Any], level: str | None) -> None:
    found = ask(url, query, **limits)
    assert (found["level"], found["problem"], found["change_percent"], found["baseline_value"]) == (
        level,
        "",
        None,
        None,
    )
    assert found["value"] == {"now": 150, "scalar": 7, "better": 60}[query]


@pytest.mark.parametrize(
    ("query", "limits", "expected"),
    [
        ("now", {"critical": 50}, (50, "Critical")),
        ("now", {"critical": 51}, (50, "Low")),
        ("now", {"critical": 10, "worse": "lower"}, (50, "Low")),
        ("better", {"critical": 40, "worse": "lower"}, (-40, "Critical")),
        ("better", {"critical": -40, "worse": "lower"}, (-40, "Critical")),
        ("better", {"critical": 40}, (-40, "Low")),
    ],
)
def test_with_a_baseline_the_change_counts(
    url: str, query: str, limits: dict[str, t.Any], expected: tuple[float, str]
) -> None:
    found = ask(url, query, baseline="before", **limits)
    assert (found["change_percent"], found["level"]) == expected
    assert found["baseline_value"] == 100


def test_of_several_series_the_worst_counts(url: str) -> None:
    found = ask(url, "by_host", high=100)
    assert (found["value"], found["labels"], found["series"], found["level"]) == (110, {"host": "a"}, 2, "High")
    assert ask(url, "by_host", worse="lower")["value"] == 90


def test_each_series_is_compared_with_its_own_baseline(url: str) -> None:
    found = ask(url, "by_host", baseline="by_host_before", critical=50)
    assert (found["labels"], found["value"], found["baseline_value"]) == ({"host": "b"}, 90, 50)
    assert (found["change_percent"], found["level"]) == (80, "Critical")
    assert ask(url, "by_host", baseline="before")["change_percent"] == 10


@pytest.mark.parametrize(
    ("query", "more", "problem"),
    [
        ("none", {}, "has no data for the query 'none'."),
        ("now", {"baseline": "none"}, "has no data for the query 'none'."),
        ("nan", {}, "The value of the query 'nan' is no number (NaN), as after a division by zero."),
        ("infinite", {}, "The value of the query 'infinite' is infinite, as after a division by zero."),
        ("now", {"baseline": "zero"}, "The baseline of latency is 0 and its value 150, which is no percentage of it."),
        ("range", {}, "The query 'range' gives a matrix; use an instant query that gives a number for now."),
        ("odd", {}, "The answer to the query 'odd' is not one of Prometheus."),
        ("bad{", {}, "refused the query 'bad{': 1:5: parse error: unexpected end of input."),
    ],
)
def test_what_gives_no_value_is_a_problem(url: str, query: str, more: dict[str, str], problem: str) -> None:
    found = ask(url, query, critical=1, **more)
    assert found["problem"].endswith(problem)
    assert found["level"] is None
    assert found["change_percent"] is None


def test_nothing_before_and_nothing_now_is_no_change(url: str) -> None:
    assert ask(url, "zero", baseline="zero", critical=10)["level"] == "Low"


def test_a_server_that_is_none_is_a_problem(url: str) -> None:
    host = url.removesuffix("prom/")
    assert ask(host, "now")["problem"] == (
        f"Prometheus at {host.rstrip('/')} gave status 404 and no answer of its API; correct rollback_prometheus_url."
    )
    assert "did not answer" in ask("http://127.0.0.1:1", "now")["problem"]
    assert ask("prometheus:9090", "now")["problem"].endswith("cannot be asked: it is neither http nor https.")


def test_headers_and_credentials_are_sent_and_never_shown(url: str) -> None:
    Prometheus.headers_seen.clear()
    queries = [{"name": "x", "query": "none"}]
    address = url.replace("http://", "http://reader:hunter2@")
    (found,) = collect_prometheus(address, {"X-Scope-OrgID": "hunter3"}, queries, 5)
    (sent,) = Prometheus.headers_seen
    headers = {name.lower(): value for name, value in sent.items()}
    assert headers["x-scope-orgid"] == "hunter3"
    assert headers["authorization"].startswith("Basic ")
    assert "hunter" not in json.dumps(found)


def test_without_an_address_nothing_is_asked() -> None:
    assert collect_prometheus("", {}, [{"name": "x", "query": "y"}]) == []


def test_what_is_written_wrongly_is_said_beforehand() -> None:
    queries: list[t.Any] = [
        {"name": "a"},
        {"query": "b", "worse": "sideways"},
        {"name": "c", "query": "d", "critical": "many", "high": "nan"},
        None,
    ]
    problems = [
        "rollback_prometheus_queries: a has no query.",
        "rollback_prometheus_queries: entry 2 has no name.",
        "rollback_prometheus_queries: worse of entry 2 must be higher or lower.",
        "rollback_prometheus_queries: critical of c is no number.",
        "rollback_prometheus_queries: high of c is no number.",
        "rollback_prometheus_queries: entry 4 is no dictionary.",
    ]
    assert prometheus_query_problems(queries) == problems
    assert prometheus_query_problems(None) == ["rollback_prometheus_queries must be a list."]
    with pytest.raises(Refused) as refused:
        collect_prometheus("http://x", {}, queries)
    assert str(refused.value) == " ".join(problems)
