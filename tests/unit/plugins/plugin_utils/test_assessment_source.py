# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event source of the watch: what it wants, from one assessment to the next."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import typing as t
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[4] / "extensions" / "eda" / "plugins" / "event_source" / "assessment.py"


def load() -> t.Any:
    """The source as a module; ansible-rulebook runs it from its path too."""
    spec = importlib.util.spec_from_file_location("cypher_rollback_assessment_source", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


source = load()

CRITICAL = {"level": "Critical", "inconclusive": False}
DOUBTFUL = {"level": "Critical", "inconclusive": True}
HIGH = {"level": "High", "inconclusive": False}
LOW = {"level": "Low", "inconclusive": False}
NOTHING: dict[str, t.Any] = {}


def wanted(*severities: dict[str, t.Any], action: str = "rollback", times: int = 2) -> list[str]:
    """What is wanted after each of these assessments of one host."""
    settings = source.Settings.parse({"inventory": "/hosts", "action": action, "times": times, "version": "0003"})
    watched: dict[str, t.Any] = {}
    events = []
    for severity in severities:
        found = {"db1": {"severity": severity}} if severity else {"": {"problem": "no answer"}}
        events += source.judge_all(found, watched, settings)
    return [event["wanted"] for event in events]


@pytest.mark.parametrize(
    ("severities", "expected"),
    [
        ([CRITICAL], ["nothing"]),
        ([CRITICAL, CRITICAL, CRITICAL], ["nothing", "rollback", "rollback"]),
        ([CRITICAL, LOW, CRITICAL], ["nothing"] * 3),
        ([CRITICAL, HIGH, CRITICAL], ["nothing", "ask", "nothing"]),
        ([CRITICAL, NOTHING, CRITICAL], ["nothing"] * 3),
        ([DOUBTFUL, DOUBTFUL, DOUBTFUL], ["nothing", "ask", "ask"]),
        ([DOUBTFUL, CRITICAL, CRITICAL], ["nothing", "nothing", "rollback"]),
        ([HIGH, HIGH], ["nothing", "ask"]),
        ([LOW, LOW, LOW], ["nothing"] * 3),
        ([NOTHING, NOTHING, NOTHING], ["nothing", "tell", "tell"]),
        ([{"level": "Terrible"}, {"level": "Terrible"}], ["nothing", "tell"]),
    ],
)
def test_only_what_stays_critical_for_certain_is_rolled_back(
    severities: list[dict[str, t.Any]], expected: list[str]
) -> None:
    assert wanted(*severities) == expected


def test_where_it_may_only_ask_it_asks() -> None:
    assert wanted(CRITICAL, CRITICAL, CRITICAL, action="ask") == ["nothing", "ask", "ask"]
    assert wanted(CRITICAL, action="ask", times=1) == ["ask"]


def test_an_incident_lasts_until_it_is_lower_again() -> None:
    settings = source.Settings.parse({"inventory": "/hosts"})
    watched: dict[str, t.Any] = {}
    incidents = [
        source.judge_all({"db1": {"severity": severity}}, watched, settings)[0]["incident"]
        for severity in (LOW, HIGH, CRITICAL, LOW, CRITICAL)
    ]
    assert incidents[0] == incidents[3] == ""
    assert incidents[1] == incidents[2] != ""
    assert incidents[4] not in ("", incidents[1])


def test_runs_that_say_the_same_become_obsolete_unless_somebody_was_told() -> None:
    settings = source.Settings.parse({"inventory": "/hosts", "times": 2})
    watched: dict[str, t.Any] = {}
    obsolete = []
    for number, severity in enumerate([LOW, LOW, HIGH, HIGH, HIGH, HIGH, LOW, LOW]):
        source.judge_all({"db1": {"severity": severity, "run_id": f"R{number}"}}, watched, settings)
        obsolete.append(watched["db1"].obsolete)
    assert obsolete == ["", "R0", "", "R2", "", "R4", "", "R6"]


def test_hosts_are_counted_by_themselves() -> None:
    settings = source.Settings.parse({"inventory": "/hosts", "times": 2})
    watched: dict[str, t.Any] = {}
    source.judge_all({"db1": {"severity": CRITICAL}, "db2": {"severity": LOW}}, watched, settings)
    events = source.judge_all({"db1": {"severity": CRITICAL}, "db2": {"severity": CRITICAL}}, watched, settings)
    assert [(event["host"], event["wanted"]) for event in events] == [("db1", "ask"), ("db2", "nothing")]


def test_the_question_says_why_and_what_to_run() -> None:
    settings = source.Settings.parse({"inventory": "/my hosts", "times": 1})
    findings = [
        {"level": "High", "status": "fired", "text": "Orders are 30 % slower."},
        {"level": "High", "status": "clear", "text": "No."},
        {"level": "Medium", "status": "fired", "text": "Less."},
    ]
    answer = {"severity": {**HIGH, "findings": findings, "decided_by": ["slower"]}, "run_id": "R1"}
    (event,) = source.judge_all({"db1": answer}, {}, settings)
    assert event["text"] == (
        "db1 is High (1 in a row). Orders are 30 % slower. To roll back, run: ansible-playbook -i '/my hosts' "
        "cypher.rollback.rollback -e version=VERSION -e rollback_hosts=db1"
    )
    assert (event["run_id"], event["decided_by"], event["reasons"]) == ("R1", ["slower"], ["Orders are 30 % slower."])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"action": "rollback", "inventory": "/h"},
            "rollback_watch_action is rollback, and rollback_watch_version is empty",
        ),
        ({"action": "panic", "inventory": "/h"}, "rollback_watch_action is 'panic'; use ask or rollback."),
        ({}, "rollback_watch_inventory is empty: give the inventory file or folder of the databases."),
        (
            {"inventory": "/h", "times": "often"},
            "rollback_watch_interval, _times, _pause and _timeout must be numbers: ",
        ),
        ({"inventory": "/h", "interval": -1}, "rollback_watch_interval, _times and _timeout must be greater than 0."),
    ],
)
def test_settings_that_cannot_be_right_end_the_watch_at_once(args: dict[str, t.Any], message: str) -> None:
    with pytest.raises(ValueError, match="rollback_watch") as refused:
        source.Settings.parse(args)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("code", "timeout", "problem"),
    [
        ("print('{\"db1\": {}}')", 20, None),
        (
            "print('half a li'); raise SystemExit(3)",
            20,
            "the assessment ended with exit code 3 and no answer: half a li",
        ),
        ("pass", 20, "the assessment ended with exit code 0 and no answer: it said nothing"),
        ("import time; time.sleep(60)", 0.3, "the assessment did not end within 0.3 seconds"),
    ],
)
def test_an_assessment_without_an_answer_is_a_problem(code: str, timeout: float, problem: str | None) -> None:
    settings = source.Settings.parse({"command": [sys.executable, "-c", code], "timeout": timeout})
    assert asyncio.run(source.assess(settings)) == ({"": {"problem": problem}} if problem else {"db1": {}})


def test_an_assessment_that_cannot_be_started_is_a_problem() -> None:
    settings = source.Settings.parse({"command": ["/no/such/program"]})
    found = asyncio.run(source.assess(settings))
    assert found[""]["problem"].startswith("the assessment cannot be run: ")


def test_what_could_not_be_assessed_is_told() -> None:
    settings = source.Settings.parse({"inventory": "/h", "times": 1})
    (event,) = source.judge_all({"": {"problem": "no answer"}}, {}, settings)
    assert (event["wanted"], event["level"], event["inconclusive"]) == ("tell", "unknown", True)
    assert event["text"] == "The database could not be assessed once, and nothing was done: no answer"
