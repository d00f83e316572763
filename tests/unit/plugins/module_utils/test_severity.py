# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Severity: every trigger line of section 2 of the source document, on evidence made for it, and the verdict."""

from __future__ import annotations

import datetime as dt
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import assess_message, severity
from ansible_collections.cypher.rollback.plugins.module_utils.message import message_for, next_commands
from ansible_collections.cypher.rollback.plugins.module_utils.query_timing import compare
from ansible_collections.cypher.rollback.plugins.module_utils.severity_table import severity_table

NOW = dt.datetime(2026, 2, 13, 10, 15, tzinfo=dt.UTC)
Measured = dict[str, t.Any]


def query(percent: float, spread: float = 0.0, **more: t.Any) -> Measured:
    """A query of 100 ms that is slower by so many per cent; its runs lie as far apart as the spread in per cent says."""
    now = 100 + percent
    runs = [now * (1 - spread / 100), now * (1 - spread / 200), now, now * (1 + spread / 200), now * (1 + spread / 100)]
    entry: Measured = {
        "name": "orders",
        "now_ms": now,
        "spread_ms": round(runs[3] - runs[1], 2),
        "runs": 5,
        "runs_ms": runs,
        "timed_out": False,
        "timeout_ms": 10000,
        "error": "",
    }
    entry.update(compare(entry, {"median": 0.1, "seconds": [0.1, 0.1, 0.1]}))
    return {"queries": [{**entry, **more}]}


def log(window: float = 300, before: float = 0.0, **counts: t.Any) -> Measured:
    entry: Measured = {"host": "app1", "name": "shop", "type": "file", "window_seconds": window, "problem": ""}
    for kind in ("critical", "errors", "warnings", "known"):
        entry[kind] = counts.pop(kind, 0)
        entry[f"{kind}_per_minute"] = entry[kind] * 60 / window
        entry[f"baseline_{kind}_per_minute"] = before
    return {"logs": [{**entry, "baseline_window_seconds": 3600, **counts}]}


def unread() -> Measured:
    return log(problem="/var/log/shop.log cannot be read: permission denied.", critical=0)


def check(priority: str, status: str, failures: int = 3) -> Measured:
    said = {
        "up": "shop answered as expected, 3 of 3 times.",
        "down": "shop failed every time (3 of 3): http://a/ answered with status 500 instead of 200: (empty)",
        "partly": "shop failed 1 of 3 times, the last time so: http://a/ did not answer within 5 seconds.",
        "inconclusive": "shop could not be asked 3 of 3 times: the proxy refused with status 407.",
    }
    entry = {"host": "app1", "name": "shop", "priority": priority, "status": status, "samples": 3, "failures": failures}
    return {"health": [{**entry, "message": said[status]}]}


def rows(now: int | None, before: int | None = 1000, **more: t.Any) -> Measured:
    entry = {
        "table": "b2b.orders",
        "rows": now,
        "baseline_rows": before,
        "missing": False,
        "estimated": False,
        "problem": "",
    }
    return {"rows": [{**entry, **more}]}


def metric(level: str | None, change: float | None = None, problem: str = "", **limits: float) -> Measured:
    empty = {"critical": None, "high": None, "medium": None}
    entry = {
        "name": "p95",
        "value": 0.3,
        "baseline_value": 0.2,
        "change_percent": change,
        "worse": "higher",
        "level": level,
    }
    return {"prometheus": [{**entry, **empty, **limits, "problem": problem}]}


#: Rule, what makes it fire, what leaves it clear, what makes it inconclusive, and words of the three sentences.
LINES: list[tuple[str, Measured, str, Measured, str, Measured | None, str]] = [
    (
        "critical_log_errors",
        log(critical=1),
        "The log shop on app1 has 1 critical error in 5 min.",
        log(errors=40),
        "1 log read, nothing of it there.",
        unread(),
        "The log shop on app1 could not be read: /var/log/shop.log cannot be read: permission denied.",
    ),
    (
        "performance_degraded_critical",
        query(51),
        'Query "orders": 151 ms (median of 5, spread 0.00 ms), baseline 100 ms, +51.0 % (+51.0 to +51.0 %).',
        query(50),
        "1 query compared, none in that range.",
        query(45, 20),
        "the runs differ too much to tell on which side of the limit.",
    ),
    (
        "data_loss",
        rows(990),
        "Table b2b.orders has 990 rows, 1,000 before the migration (-1 %).",
        rows(1000),
        "1 critical table compared, no rows lost.",
        rows(999),
        "(-0.1 %), which may be ordinary work or lost data.",
    ),
    (
        "p0_down",
        check("P0", "down"),
        "P0 shop on app1 failed every time (3 of 3): http://a/ answered with status 500 instead of 200: (empty).",
        check("P0", "up", 0),
        "1 check made, nothing of it there.",
        check("P0", "inconclusive", 0),
        "P0 shop on app1 could not be asked 3 of 3 times: the proxy refused with status 407.",
    ),
    (
        "critical_query_timeout",
        query(0, timed_out=True, now_ms=None),
        'Query "orders" did not end within 10 s (rollback_severity_query_timeout).',
        query(0),
        "1 critical query ended in time.",
        None,
        "",
    ),
    (
        "performance_degraded_high",
        query(50),
        "+50.0 %",
        query(51),
        "1 query compared, none in that range.",
        query(17, 12),
        "the runs differ too much",
    ),
    (
        "frequent_unexpected_errors",
        log(errors=5),
        "The log shop on app1 has 5 errors in 5 min, 1 a minute, 0 a minute before.",
        log(errors=4),
        "1 log read, nothing of it there.",
        log(errors=10, before=1.5),
        "as often as before: put what is known into the log's key known, or raise the threshold.",
    ),
    (
        "critical_feature_partly_down",
        check("P0", "partly", 1),
        "P0 shop on app1 failed 1 of 3 times, the last time so: http://a/ did not answer within 5 seconds.",
        check("P1", "up", 0),
        "1 check made, nothing of it there.",
        check("P1", "inconclusive", 0),
        "P1 shop on app1 could not be asked 3 of 3 times",
    ),
    (
        "many_warnings",
        log(warnings=50),
        "The log shop on app1 has 50 warnings in 5 min, 10 a minute, 0 a minute before.",
        log(warnings=49),
        "1 log read, nothing of it there.",
        log(warnings=60, before=9),
        "as often as before",
    ),
    (
        "performance_degraded_medium",
        query(19.9),
        "+19.9 % (+19.9 to +19.9 %).",
        query(9.9),
        "1 query compared, none in that range.",
        query(10, 4),
        "the runs differ too much",
    ),
    (
        "occasional_errors",
        log(errors=1),
        "The log shop on app1 has 1 error in 5 min, 0.2 a minute, 0 a minute before.",
        log(),
        "1 log read, nothing of it there.",
        unread(),
        "could not be read",
    ),
    (
        "non_critical_feature_affected",
        check("P2", "down"),
        "P2 shop on app1 failed every time (3 of 3)",
        check("P2", "up", 0),
        "1 check made, nothing of it there.",
        check("P2", "inconclusive", 0),
        "P2 shop on app1 could not be asked",
    ),
    (
        "minor_warnings",
        log(warnings=1),
        "1 warning in 5 min",
        log(warnings=50),
        "1 log read, nothing of it there.",
        unread(),
        "could not be read",
    ),
    (
        "performance_acceptable",
        query(9.9),
        "+9.9 % (+9.9 to +9.9 %).",
        query(20),
        "1 query compared, none in that range.",
        query(9.9, 4),
        "the runs differ too much",
    ),
    (
        "known_problems",
        log(known=3),
        "The log shop on app1 has 3 lines of known problems in 5 min.",
        log(),
        "1 log read, nothing of it there.",
        unread(),
        "could not be read",
    ),
]


def finding(measured: Measured, rule: str, source: str = "", **limits: float) -> Measured:
    found = severity.findings(measured, {**severity.THRESHOLDS, **limits})
    own = [entry for entry in found if entry["rule"] == rule and entry["status"] != "not_measured"]
    own = [entry for entry in own if not source or entry["source"] == source] or [
        entry for entry in found if entry["rule"] == rule
    ]
    return own[0]


def verdict(*measured: Measured, **limits: float) -> Measured:
    merged: Measured = {}
    for each in measured:
        merged.update(each)
    return severity.verdict(merged, {**severity.THRESHOLDS, **limits}, NOW)


def test_every_trigger_line_of_the_document_is_a_rule() -> None:
    document = {
        "2.1": [
            "Erori critice în logs",
            "Performanță degradată > 50%",
            "Pierdere de date",
            "Funcționalitate P0 nu funcționează",
            "Timeout pe query-uri critice",
        ],
        "2.2": [
            "Performanță degradată 20-50%",
            "Erori neașteptate frecvente",
            "Feature critic parțial nefuncțional",
            "Warning-uri mari în logs",
        ],
        "2.3": ["Performanță degradată < 20%", "Erori non-critice ocazionale", "Feature non-critic afectat"],
        "2.4": ["Warning-uri minore", "Performanță în limite acceptabile", "Probleme documentate cunoscute"],
    }
    rules: dict[str, list[str]] = {}
    for rule in severity.RULES:
        rules.setdefault(rule.section, []).append(rule.romanian)
        assert rule.level == {"2.1": "Critical", "2.2": "High", "2.3": "Medium", "2.4": "Low"}[rule.section]
        assert rule.english
    assert rules == document
    assert [line[0] for line in LINES] == [rule.name for rule in severity.RULES]


@pytest.mark.parametrize(("rule", "measured", "text"), [(line[0], line[1], line[2]) for line in LINES])
def test_it_fires(rule: str, measured: Measured, text: str) -> None:
    found = finding(measured, rule)
    assert found["status"] == "fired", found
    assert text in found["text"]
    assert found["evidence"]["found"]
    decided = verdict(measured)
    assert (decided["level"], decided["inconclusive"]) == (found["level"], False)
    assert rule in decided["decided_by"]


@pytest.mark.parametrize(("rule", "measured", "text"), [(line[0], line[3], line[4]) for line in LINES])
def test_it_is_clear(rule: str, measured: Measured, text: str) -> None:
    found = finding(measured, rule)
    assert (found["status"], found["text"]) == ("clear", text)


@pytest.mark.parametrize(("rule", "measured", "text"), [(line[0], line[5], line[6]) for line in LINES if line[5]])
def test_it_is_inconclusive_and_counts_as_if_it_had_fired(rule: str, measured: Measured, text: str) -> None:
    found = finding(measured, rule)
    assert found["status"] == "inconclusive", found
    assert text in found["text"]
    decided = verdict(measured)
    assert severity.LEVELS.index(decided["level"]) >= severity.LEVELS.index(found["level"])
    assert decided["inconclusive"]
    assert decided["text"].startswith("Not certain, and unsure means the higher level: ")


@pytest.mark.parametrize("rule", [rule.name for rule in severity.RULES])
def test_without_its_source_it_is_not_measured_and_says_which_setting_is_missing(rule: str) -> None:
    found = finding({}, rule)
    assert found["status"] == "not_measured"
    assert found["text"].startswith("Not measured: no rollback_")


@pytest.mark.parametrize(
    ("level", "action", "deadline"),
    [
        ("Critical", "Roll back now", "now"),
        ("High", "Roll back within one hour", "within one hour, by 2026-02-13 11:15 UTC"),
        ("Medium", "Watch and decide", "watch and decide"),
        ("Low", "Watch", "watch"),
    ],
)
def test_the_level_has_the_document_s_action_and_deadline(level: str, action: str, deadline: str) -> None:
    percent = {"Critical": 80, "High": 30, "Medium": 15, "Low": 0}[level]
    decided = verdict(query(percent))
    assert (decided["level"], decided["action"], decided["deadline"]) == (level, action, deadline)
    assert decided["assessed_at"] == "2026-02-13T10:15:00.000Z"


def test_the_highest_level_counts_and_what_fired_for_certain_decides() -> None:
    decided = verdict(query(30), log(errors=1), rows(999))
    assert (decided["level"], decided["decided_by"], decided["inconclusive"]) == ("Critical", ["data_loss"], True)
    decided = verdict(query(80), log(errors=1), rows(999))
    assert (decided["decided_by"], decided["inconclusive"]) == (["performance_degraded_critical"], False)


def test_what_was_not_measured_is_named_and_does_not_raise_the_level() -> None:
    decided = verdict(query(0), rows(1000))
    assert (decided["level"], decided["inconclusive"], decided["decided_by"]) == (
        "Low",
        False,
        ["performance_acceptable"],
    )
    assert decided["not_measured"] == [
        "logs (no rollback_log_sources)",
        "health (no rollback_health_checks)",
        "prometheus (no rollback_prometheus_url)",
    ]


def test_where_nothing_could_be_measured_it_is_not_low() -> None:
    decided = verdict()
    assert (decided["level"], decided["inconclusive"], decided["decided_by"]) == ("Critical", True, [])
    told = (
        "Too little could be measured to say that it is well, so it counts as Critical: unsure means the higher level."
    )
    assert decided["text"] == told
    ended = query(0)
    ended["queries"][0].update(baseline_ms=None, change_percent=None, problem="there is no baseline")
    assert verdict(ended)["text"] == told


def test_where_only_clear_rules_are_there_it_is_low() -> None:
    decided = verdict(check("P0", "up", 0))
    assert (decided["level"], decided["inconclusive"], decided["decided_by"]) == ("Low", False, [])
    assert decided["text"] == "None of the document's triggers fired."


def test_a_tiny_difference_is_noise_whatever_it_is_in_per_cent() -> None:
    entry = {"name": "tiny", "now_ms": 0.1, "runs_ms": [0.1] * 5, "runs": 5, "spread_ms": 0.0}
    tiny = {"queries": [{**entry, **compare(entry, {"median": 0.00005, "seconds": [0.00005] * 3})}]}
    assert verdict(tiny)["level"] == "Low"
    assert verdict(tiny, noise_ms=0.01)["level"] == "Critical"


def test_an_outlier_moves_neither_median_nor_interval() -> None:
    entry = {"name": "q", "now_ms": 100.0, "runs_ms": [100.0, 100.0, 100.0, 100.0, 900.0]}
    compared = compare(entry, {"median": 0.1, "seconds": [0.7, 0.1, 0.1]})
    assert (compared["change_low_percent"], compared["change_percent"], compared["change_high_percent"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("measured", "limits", "level"),
    [
        (query(30), {"performance_critical_percent": 25}, "Critical"),
        (query(80), {"performance_critical_percent": 100}, "High"),
        (query(9), {"performance_medium_percent": 5}, "Medium"),
        (log(critical=2), {"critical_log_errors": 3}, "Low"),
        (log(errors=10), {"errors_frequent_per_minute": 5}, "Medium"),
        (log(warnings=10), {"warnings_many_per_minute": 1}, "High"),
        (rows(950), {"rows_lost_percent": 10, "rows_tolerated_percent": 6}, "Low"),
    ],
)
def test_thresholds_move_the_limits(measured: Measured, limits: dict[str, float], level: str) -> None:
    decided = severity.verdict(measured, severity.thresholds_from(limits), NOW)
    assert (decided["level"], decided["inconclusive"]) == (level, False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"performance": 5},
            "rollback_severity_thresholds has performance, which is no threshold; there are performance_critical_percent, ",
        ),
        ({"noise_ms": "fast"}, "rollback_severity_thresholds has 'fast' for noise_ms; give a number of 0 or more."),
        ({"noise_ms": True}, "has True for noise_ms"),
        ({"noise_ms": -1}, "has -1 for noise_ms"),
        ({"noise_ms": "nan"}, "has 'nan' for noise_ms"),
        (
            {"performance_high_percent": 60},
            "leaves performance_critical_percent at 50 and performance_high_percent at 60; the first must not",
        ),
        ([1], "rollback_severity_thresholds is [1]; give a dictionary of names and numbers, or leave it out."),
    ],
)
def test_thresholds_that_are_none_are_refused_in_one_sentence(given: t.Any, said: str) -> None:
    with pytest.raises(severity.ThresholdRefused) as refused:
        severity.thresholds_from(given)
    assert said in str(refused.value)


def test_a_number_may_be_text_as_extra_vars_are() -> None:
    assert severity.thresholds_from({"noise_ms": "2.5"})["noise_ms"] == 2.5


@pytest.mark.parametrize(
    ("measured", "status", "said"),
    [
        (
            query(0, error='relation "b2b.orders" does not exist'),
            "fired",
            'The critical query "orders" fails: relation "b2b.orders" does not exist.',
        ),
        (
            query(0, error="no", baseline_error="no", baseline_ms=None),
            "clear",
            "No critical query fails that did not fail in the baseline (1 did).",
        ),
        (
            query(0, error="no", baseline_ms=None),
            "inconclusive",
            "whether it worked before is not known: no baseline has it.",
        ),
        (
            {"database": {"problem": "The database does not answer: refused.", "certain": True}},
            "fired",
            "The database does not answer: refused.",
        ),
        (
            {"database": {"problem": "Nobody can say: authentication failed.", "certain": False}},
            "inconclusive",
            "Nobody can say: authentication failed.",
        ),
    ],
)
def test_what_nothing_critical_works_without(measured: Measured, status: str, said: str) -> None:
    found = finding(measured, "p0_down", "queries")
    assert found["status"] == status
    assert said in found["text"]


@pytest.mark.parametrize(
    ("measured", "status", "said"),
    [
        (rows(None, 1000, missing=True), "fired", "Table b2b.orders is gone with 1,000 rows."),
        (rows(None, 0, missing=True), "fired", "Table b2b.orders is gone."),
        (
            rows(None, problem="this role may not read all of its rows"),
            "inconclusive",
            "cannot be counted: this role may not read all of its rows.",
        ),
        (
            rows(500, estimated=True),
            "inconclusive",
            "Table b2b.orders has about 500 rows, 1,000 before the migration (-50 %), which may be",
        ),
        (rows(1001, estimated=True), "clear", "1 critical table compared, no rows lost."),
        (
            rows(5, None, why="b2b.orders is not in the backup"),
            "not_measured",
            "Not measured: b2b.orders is not in the backup.",
        ),
        (rows(0, 0), "clear", "no rows lost"),
    ],
)
def test_rows(measured: Measured, status: str, said: str) -> None:
    found = finding(measured, "data_loss")
    assert (found["status"], said in found["text"]) == (status, True), found


def test_a_query_without_a_baseline_says_what_makes_one() -> None:
    lacking = query(0)
    lacking["queries"][0].update(
        baseline_ms=None, change_percent=None, problem="/b has no valid backup; backup.yml makes one"
    )
    assert (
        finding(lacking, "performance_degraded_critical")["text"]
        == "Not measured: /b has no valid backup; backup.yml makes one."
    )


@pytest.mark.parametrize(
    ("measured", "rule", "status"),
    [
        (metric("Critical", 80.0), "performance_degraded_critical", "fired"),
        (metric("High", 30.0), "performance_degraded_high", "fired"),
        (metric("Medium", 12.0), "performance_degraded_medium", "fired"),
        (metric("Low", 1.0), "performance_acceptable", "fired"),
        (metric("Low", 1.0), "performance_degraded_critical", "clear"),
        (metric(None, problem="Prometheus has no data.", high=20), "performance_degraded_high", "inconclusive"),
        (metric(None, problem="Prometheus has no data.", high=20), "performance_degraded_critical", "clear"),
        (metric(None, problem="Prometheus has no data."), "performance_degraded_critical", "inconclusive"),
    ],
)
def test_prometheus_is_a_second_source_for_performance(measured: Measured, rule: str, status: str) -> None:
    found = finding(measured, rule, "prometheus")
    assert found["status"] == status, found
    if status == "fired":
        assert found["text"].startswith("The metric p95 is 0.3, baseline 0.2, +")
    if status == "inconclusive":
        assert found["text"] == "The metric p95 has no value: Prometheus has no data."


def run_with(decided: Measured, **more: t.Any) -> Measured:
    target = {"database": "cypher_erp", "host": "db1", "port": 5432}
    return {
        "runbook": "assess",
        "target": target,
        "inventory": ["hosts.yml"],
        "assess_result": {"severity": {**decided, **more}},
    }


def test_the_operator_is_told_level_deadline_reason_and_command() -> None:
    run = run_with(verdict(query(30)), version="0003")
    rest = "health (no rollback_health_checks); prometheus (no rollback_prometheus_url)"
    rollback = "ansible-playbook -i hosts.yml cypher.rollback.rollback -e version=0003"
    assert message_for("assessed", run).split("\n") == [
        "Database cypher_erp: severity High. Roll back within one hour, by 2026-02-13 11:15 UTC.",
        'Decided by performance_degraded_high. Query "orders": 130 ms (median of 5, spread 0.00 ms), baseline 100 ms, +30.0 % (+30.0 to +30.0 %).',
        f"Not measured: rows (no rollback_critical_tables); logs (no rollback_log_sources); {rest}.",
        "To have a baseline, before the next migration: ansible-playbook -i hosts.yml cypher.rollback.backup -e version=<its version>",
        f"Preview, which changes nothing: {rollback} --check",
        f"Then, to do it: {rollback}",
        "assessed",
    ]
    assert next_commands("assessed", run) == [f"{rollback} --check", rollback]


def test_with_a_baseline_nothing_is_said_of_how_to_get_one() -> None:
    assert "To have a baseline" not in message_for("assessed", run_with(verdict(query(0)), backup="backup_1"))


def test_lost_rows_come_back_only_from_a_backup() -> None:
    run = run_with(verdict(rows(None, missing=True)), version="0003")
    emergency = "ansible-playbook -i hosts.yml cypher.rollback.emergency_rollback --check"
    said = message_for("assessed", run)
    assert f"A DOWN brings no lost row back. The newest backup does; its preview: {emergency}" in said
    assert len(next_commands("assessed", run)) == 3


def test_where_it_can_wait_the_command_looks_again() -> None:
    run = run_with(verdict(query(0)))
    assert next_commands("assessed", run) == ["ansible-playbook -i hosts.yml cypher.rollback.assess"]
    assert "To look again: ansible-playbook -i hosts.yml cypher.rollback.assess" in message_for("assessed", run)


def test_a_rollback_needs_a_server() -> None:
    down = {"database": {"problem": "The database does not answer: refused.", "certain": True}}
    run = run_with(verdict(down), database_down=True)
    assert "Bring the server back first: a rollback needs it. Then assess again: ansible-playbook" in message_for(
        "assessed", run
    )
    assert assess_message.commands(assess_message.severity_of(run), run) == [
        "ansible-playbook -i hosts.yml cypher.rollback.assess"
    ]


def test_an_uncertain_verdict_and_check_mode_say_so() -> None:
    run = {**run_with(verdict(rows(999))), "check_mode": True}
    said = message_for("planned", run)
    assert "severity Critical, not certain. Look now, and roll back unless you find that it is well." in said
    assert "This run wrote no report, because it was in check mode." in said


def test_the_table_is_readable_at_96_columns_and_shows_what_is_hostile() -> None:
    hostile = query(80, name="x\x1b[31m" + "y" * 30)
    table = severity_table(verdict(hostile, log(errors=1), rows(1000)))
    text = "\n".join(line for part in table for line in part)
    assert "\x1b" not in text
    assert max(len(line) for line in text.split("\n")) <= 96
    lines = text.split("\n")
    assert lines[0] == "SEVERITY  CRITICAL: ROLL BACK NOW"
    assert lines[1] == "  FIRED   2.1 Critical  performance_degraded_critical"
    assert "  clear   2.1 Critical  data_loss                     1 critical table compared, no rows lost." in lines
    assert any(line.startswith("  unknown health (no rollback_health_checks)") for line in lines)
    assert any(line.endswith("100.00 ms   180.00 ms     0.00 ms     +80.0 %") for line in lines), lines
    assert (
        severity_table(verdict(query(80)), whole=False)[0][1] == "  FIRED   2.1 Critical  performance_degraded_critical"
    )
    assert severity_table({}) == []
    unreadable = severity_table(verdict(unread()))[0]
    assert " ".join("".join(unreadable).split()).count("could not be read") == 1
    assert "  UNSURE  2.2 High      many_warnings  (as critical_log_errors)" in unreadable
    assert severity_table(verdict(query(0)))[0][1] == "  holds   2.4 Low       performance_acceptable"
