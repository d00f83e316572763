# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Smoke tests: their shapes, their tries and what the stage makes of them."""

from __future__ import annotations

import decimal
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import smoke
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.smoke import SmokeTest, SmokeTester

if t.TYPE_CHECKING:
    import pathlib


def parsed(**test: t.Any) -> SmokeTest:
    return SmokeTest.parse({"name": "it", **test})


def test_a_test_of_each_kind() -> None:
    assert parsed(url="http://a/b").status == (200,)
    assert parsed(url="https://a/b", status=["200", 204], contains="ok").status == (200, 204)
    assert parsed(command="true").target.argv() == ["/bin/sh", "-c", "true"]
    assert parsed(command=["test", "-d", "/"]).target.argv() == ["test", "-d", "/"]
    assert parsed(query="SELECT 1", expect=1).expect == 1
    assert parsed(query="SELECT NULL", expect=None).expect is None


def test_keys_that_ansible_fills_with_none_count_as_missing() -> None:
    blank = dict.fromkeys(("url", "status", "contains", "command", "query", "expect"))
    assert SmokeTest.parse({**blank, "name": "it", "url": "http://a/"}).kind == "url"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({}, "no name"),
        ({"name": "it"}, "none of them"),
        ({"name": "it", "url": "http://a/", "command": "true"}, "url and command"),
        ({"name": "it", "url": "http://a/", "query": "SELECT 1", "expect": 1}, "url and query"),
        ({"name": "it", "query": "SELECT 1"}, "needs expect"),
        ({"name": "it", "url": "file:///etc/passwd"}, "neither http nor https"),
        ({"name": "it", "url": "http://a/", "status": "fine"}, "status of 'it'"),
        ({"name": "it", "url": "http://a/", "status": []}, "status of 'it'"),
        ({"name": "it", "url": "http://a/", "status": 9}, "status of 'it'"),
        ({"name": "it", "url": "http://a/", "expect": 1}, "has no expect"),
        ({"name": "it", "command": "true", "contains": "x"}, "has no contains"),
        ({"name": "it", "command": {"a": 1}}, "command of smoke test 'it'"),
        ({"name": "it", "command": "true", "retries": 3}, "has no retries"),
    ],
)
def test_a_test_that_could_never_be_run_is_refused_by_name(test: dict[str, t.Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        SmokeTest.parse(test)
    (problem,) = smoke.smoke_test_problems([test])
    assert said in problem


def test_every_wrong_test_is_named_and_no_right_one() -> None:
    problems = smoke.smoke_test_problems([{"name": "a"}, {"name": "b", "command": "true"}, "c"])
    assert len(problems) == 2
    assert "'a'" in problems[0]
    assert smoke.smoke_test_problems("curl") == ["rollback_smoke_tests must be a list."]


def test_a_test_is_tried_until_it_passes_and_a_passed_one_is_left_alone(tmp_path: pathlib.Path) -> None:
    third = "echo x >>tries; test $(wc -l <tries) -ge 3"
    tests = [parsed(command=third), SmokeTest.parse({"name": "once", "command": "echo x >>once"})]
    results = SmokeTester(chdir=str(tmp_path)).run(tests, timeout=10, interval=0.05)
    assert [(one.status, one.attempts) for one in results] == [("passed", 3), ("passed", 1)]
    assert (tmp_path / "once").read_text() == "x\n"
    smoke.judge(results)


def test_a_test_that_never_passes_ends_with_the_time_and_says_why() -> None:
    begun = time.monotonic()
    results = SmokeTester().run([parsed(command="echo no table b2b.products >&2; exit 1")], timeout=0.5, interval=0.1)
    assert 0.4 < time.monotonic() - begun < 3
    assert results[0].attempts > 1
    with pytest.raises(smoke.SmokeTestsFailed, match=r"1 of 1 smoke tests failed: it \(\d+ tries\): .*no table") as err:
        smoke.judge(results)
    assert err.value.outcome == "needs_attention"


def test_a_test_that_hangs_leaves_time_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "TRY_LIMIT", 0.3)
    monkeypatch.setattr(smoke, "SHORTEST_TRY", 0.3)
    tests = [parsed(command="sleep 600"), SmokeTest.parse({"name": "other", "command": "true"})]
    hanging, other = SmokeTester().run(tests, timeout=0.5, interval=0.1)
    assert (hanging.status, other.status) == ("failed", "passed")
    assert "did not end in time" in hanging.message


def answers(*given: t.Any) -> smoke.UrlOpener:
    """An address that gives one answer after the other, and the last one for ever."""
    left = list(given)

    def open_url(url: str, limit: float, follow: bool) -> tuple[int, str]:
        del url, limit, follow
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return t.cast("tuple[int, str]", answer)

    return open_url


def test_a_url_passes_at_the_third_try() -> None:
    opener = answers(ConnectionRefusedError("nobody listens"), (503, "warming up"), (200, "fine"))
    (result,) = SmokeTester(opener).run([parsed(url="http://a/", contains="fine")], timeout=5, interval=0.01)
    assert (result.status, result.attempts, result.message) == ("passed", 3, "")


@pytest.mark.parametrize(
    ("answer", "test", "said"),
    [
        ((500, "no  table\nb2b"), {}, "answered with status 500 instead of 200: no table b2b"),
        ((200, "x"), {"status": [201, 204]}, "instead of 201 or 204"),
        ((200, ""), {"contains": "up"}, "answered without 'up': \\(empty\\)"),
        (OSError("http://u:hunter2@a/: refused"), {}, "http://u:\\*\\*\\*@a/: refused"),
    ],
)
def test_what_was_wrong_with_an_answer(answer: t.Any, test: dict[str, t.Any], said: str) -> None:
    (result,) = SmokeTester(answers(answer)).run([parsed(url="http://a/", **test)], timeout=0, interval=0)
    assert (result.status, result.attempts) == ("failed", 1)
    with pytest.raises(smoke.SmokeTestsFailed, match=said):
        smoke.judge([result])


def test_an_expected_redirect_is_not_followed() -> None:
    followed = []

    def open_url(url: str, limit: float, follow: bool) -> tuple[int, str]:
        del url, limit
        followed.append(follow)
        return (302, "")

    tests = [parsed(url="http://a/", status=302), parsed(url="http://a/")]
    SmokeTester(open_url).run(tests, timeout=0, interval=0)
    assert followed == [False, True]


@pytest.mark.parametrize(
    ("actual", "expect"),
    [
        (3, 3),
        (3, "3"),
        (decimal.Decimal("3.00"), 3),
        (True, True),
        (True, "t"),
        (True, "TRUE"),
        ("t", True),
        (False, "f"),
        (False, False),
        ("0003", "0003"),
        (None, None),
        (None, "null"),
        ("", ""),
    ],
)
def test_values_that_are_the_same(actual: object, expect: object) -> None:
    assert smoke.same_value(actual, expect)


@pytest.mark.parametrize(
    ("actual", "expect"),
    [(3, 4), (3, "three"), (True, False), (True, "f"), (False, "t"), ("0003", "3"), (None, 0), (0, None), ("a", "b")],
)
def test_values_that_differ(actual: object, expect: object) -> None:
    assert not smoke.same_value(actual, expect)


def passed(name: str) -> dict[str, t.Any]:
    return {"name": name, "kind": "url", "status": "passed", "message": "", "attempts": 1, "seconds": 0.1}


def test_the_stage_names_the_host_of_every_test() -> None:
    loop = {
        "results": [
            {"ansible_loop_var": "host", "host": "app1", "tests": [passed("a")]},
            {
                "ansible_loop_var": "host",
                "host": "app2",
                "tests": [{**passed("a"), "status": "failed", "message": "no"}],
            },
        ]
    }
    result = smoke.stage_result([loop, {"tests": [passed("q")]}], "db1")
    assert result["passed"] is False
    assert [(test["name"], test["host"]) for test in result["tests"]] == [("a", "app1"), ("a", "app2"), ("q", "db1")]
    assert result["message"] == "1 of 3 smoke tests failed: a on app2 (1 tries): no."


def test_a_stage_without_tests_neither_passed_nor_failed() -> None:
    skipped = {"results": [{"ansible_loop_var": "host", "host": "app1", "skipped": True}], "skipped": True}
    result = smoke.stage_result([skipped, {"skipped": True}], "db1")
    assert (result["passed"], result["skipped"], result["tests"]) == (None, True, [])


@pytest.mark.parametrize("answer", [{"unreachable": True, "msg": "no route"}, {"msg": "boom"}, {}])
def test_a_host_that_gave_no_answer_is_a_failure(answer: dict[str, t.Any]) -> None:
    result = smoke.stage_result([{"results": [{"ansible_loop_var": "host", "host": "app1", **answer}]}], "db1")
    assert result["passed"] is False
    assert "app1" in result["message"]


def test_a_test_must_pass_as_often_in_a_row_as_is_set(tmp_path: pathlib.Path) -> None:
    fails_at_the_third = "echo x >>tries; test $(wc -l <tries) -ne 3"
    tests = [
        SmokeTest.parse({"name": "comes and goes", "command": fails_at_the_third, "successes": 3}),
        SmokeTest.parse({"name": "steady", "command": "echo x >>steady"}),
    ]
    results = SmokeTester(chdir=str(tmp_path), successes=2).run(tests, timeout=10, interval=0.01)
    assert [(one.status, one.attempts, one.in_a_row) for one in results] == [("passed", 6, 3), ("passed", 2, 2)]


def test_too_few_in_a_row_is_a_failure_that_says_so(tmp_path: pathlib.Path) -> None:
    tests = [SmokeTest.parse({"name": "slow", "command": "true", "successes": 1000})]
    results = SmokeTester().run(tests, timeout=0.2, interval=0.1)
    with pytest.raises(smoke.SmokeTestsFailed, match=r"it passed \d of 1000 times in a row, .*rollback_smoke_timeout"):
        smoke.judge(results)
    broken = SmokeTester(chdir=str(tmp_path), successes=3).run(
        [SmokeTest.parse({"name": "broken", "command": "echo x >>t; test $(wc -l <t) -lt 3"})], timeout=0, interval=0
    )
    assert broken[0].status == "failed"


@pytest.mark.parametrize("value", [0, -1, "often", 1001, 1.5])
def test_a_number_of_successes_that_makes_no_sense_is_refused(value: object) -> None:
    (problem,) = smoke.smoke_test_problems([{"name": "a", "command": "true", "successes": value}])
    assert "successes of 'a' must be a number from 1 to 1000" in problem
