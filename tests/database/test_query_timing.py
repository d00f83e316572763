# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times of queries and numbers of rows on a real server, against a baseline; and the assessment that reads both."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import assessment, query_timing, row_fall
from ansible_collections.cypher.rollback.plugins.module_utils.connection import CannotConnect, ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database


def settings_of(database: Database, **other: t.Any) -> ConnectionSettings:
    return ConnectionSettings(**{**database.connection_arguments(), **other})


def timed(database: Database, query: str, baseline: t.Any = (), **options: t.Any) -> dict[str, t.Any]:
    queries = [{"name": "it", "query": query}]
    request = query_timing.TimingRequest(settings_of(database), queries, baseline, **options)
    (entry,) = query_timing.time_queries(request)
    return entry


def recorded(query: str, median: float | None = 0.01, error: str = "") -> list[dict[str, t.Any]]:
    seconds = [] if median is None else [median, median, median]
    return [{"name": "it", "query": query, "seconds": seconds, "median": median, "error": error}]


def test_runs_are_counted_without_the_one_that_warms_up(database: Database) -> None:
    database.execute("CREATE SEQUENCE calls")
    database.execute("CREATE FUNCTION slow() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.02)'")
    entry = timed(database, "SELECT slow()", recorded("SELECT  slow()"), runs=4)
    assert (entry["runs"], len(entry["runs_ms"]), entry["timed_out"], entry["error"]) == (4, 4, False, "")
    assert 20 <= entry["now_ms"] < 200
    assert entry["baseline_ms"] == 10
    assert entry["change_percent"] >= 100
    assert entry["change_low_percent"] <= entry["change_percent"] <= entry["change_high_percent"]


def test_what_writes_is_an_error_and_nothing_is_written(database: Database) -> None:
    database.execute("CREATE TABLE kept (n int)")
    database.execute("INSERT INTO kept VALUES (1)")
    entry = timed(database, "DELETE FROM kept")
    assert "read-only transaction" in entry["error"]
    assert entry["now_ms"] is None
    assert database.execute("SELECT count(*) FROM kept") == [(1,)]


def test_a_query_that_takes_too_long_is_timed_out(database: Database) -> None:
    entry = timed(database, "SELECT pg_sleep(5)", recorded("SELECT pg_sleep(5)"), timeout=0.1)
    assert (entry["timed_out"], entry["error"], entry["runs"], entry["timeout_ms"]) == (True, "", 0, 100)


def test_a_query_whose_table_is_gone_is_an_error_that_the_baseline_did_not_have(database: Database) -> None:
    entry = timed(database, "SELECT * FROM gone", recorded("SELECT * FROM gone"))
    assert entry["error"] == 'relation "gone" does not exist'
    assert (entry["baseline_ms"], entry["baseline_error"]) == (10, "")


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ([], "there is no baseline"),
        (recorded("SELECT 2"), "it has another text than the baseline; the next playbooks/backup.yml records it"),
        (
            [{**recorded("SELECT 1")[0], "name": "other"}],
            "it is not in the baseline; the next playbooks/backup.yml records it",
        ),
        (recorded("SELECT 1", None, "no such table."), "it could not be timed in the baseline either: no such table"),
    ],
)
def test_without_a_baseline_of_its_own_it_is_not_compared_and_says_why(
    database: Database, baseline: t.Any, said: str
) -> None:
    entry = timed(database, "SELECT 1", baseline)
    assert (entry["problem"], entry["change_percent"], entry["runs"]) == (said, None, 5)


def test_a_server_that_lets_nobody_in_is_told_apart(database: Database) -> None:
    request = query_timing.TimingRequest(settings_of(database, dbname="no_such"), [{"name": "it", "query": "SELECT 1"}])
    with pytest.raises(CannotConnect, match="no_such"):
        query_timing.time_queries(request)


def test_rows_are_counted_with_partitions_and_names_resolved_as_sql_does(database: Database) -> None:
    for statement in (
        "CREATE SCHEMA b2b",
        "CREATE TABLE b2b.orders (n int) PARTITION BY RANGE (n)",
        "CREATE TABLE b2b.orders_a PARTITION OF b2b.orders FOR VALUES FROM (0) TO (10)",
        'CREATE TABLE b2b."Odd one" (n int)',
        "INSERT INTO b2b.orders SELECT generate_series(1, 6)",
        'INSERT INTO b2b."Odd one" SELECT generate_series(1, 3)',
    ):
        database.execute(statement)
    before = {"b2b.orders": 0, "b2b.orders_a": 8, 'b2b."Odd one"': 3, "b2b.gone": 5}
    names = ["orders", 'b2b."Odd one"', "gone", "b2b.gone", "b2b.never"]
    orders, odd, gone, same, never = row_fall.measure_rows(settings_of(database), names, before, ["b2b", "public"])
    assert (orders["rows"], orders["baseline_rows"], orders["change"]) == (6, 8, -2)
    assert (odd["rows"], odd["baseline_rows"], odd["change"]) == (3, 3, 0)
    assert (gone["missing"], gone["baseline_rows"]) == (True, 5)
    assert (same["missing"], same["baseline_rows"]) == (True, 5)
    assert (never["missing"], never["why"]) == (False, "b2b.never is not in the backup")


def test_what_cannot_be_counted_is_estimated_or_says_why(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("CREATE TABLE large AS SELECT generate_series(1, 300000) AS n")
    database.execute("CREATE VIEW slow AS SELECT n FROM large WHERE pg_sleep(1) IS NULL")
    # Views are no tables; one shows what the limit does to something that takes too long.
    monkeypatch.setattr(row_fall, "COUNT_SECONDS", 1)
    (slow,) = row_fall.measure_rows(settings_of(database), ["slow"], {"public.slow": 10}, ["public"])
    assert slow["estimated"] is True
    database.execute("CREATE ROLE shut_out_of_large LOGIN PASSWORD 'x'")
    try:
        login = settings_of(database, user="shut_out_of_large", password="x")
        (shut,) = row_fall.measure_rows(login, ["large"], {"public.large": 10}, ["public"])
    finally:
        database.execute("DROP ROLE shut_out_of_large")
    assert shut["problem"] == "this role may not read all of its rows"


def assessed(database: Database, **options: t.Any) -> dict[str, t.Any]:
    settings = options.pop("settings", settings_of(database))
    return assessment.assess(
        assessment.AssessRequest(settings, options.pop("sources", assessment.HostSources()), **options)
    )


def test_without_any_backup_it_is_named_with_the_command_that_makes_one(database: Database, tmp_path: Path) -> None:
    queries = [{"name": "it", "query": "SELECT 1"}]
    found = assessed(
        database, queries=queries, critical_tables=["t"], backup_dir=str(tmp_path / "none"), version="0003"
    )
    assert (found["level"], found["inconclusive"], found["version"], found["backup"]) == ("Critical", True, "0003", "")
    assert "Too little could be measured to say that it is well" in found["text"]
    told = next(text for text in found["not_measured"] if text.startswith("times and rows against a baseline"))
    assert "has no valid backup of" in told
    assert "playbooks/backup.yml makes one before the next" in told
    by_rule = {entry["rule"]: entry for entry in found["findings"]}
    assert by_rule["critical_query_timeout"]["status"] == "clear"
    assert by_rule["data_loss"]["status"] == by_rule["performance_acceptable"]["status"] == "not_measured"


def test_a_password_that_is_wrong_is_not_certain_and_not_low(database: Database) -> None:
    found = assessed(
        database, settings=settings_of(database, password="wrong"), queries=[{"name": "it", "query": "SELECT 1"}]
    )
    assert (found["level"], found["inconclusive"], found["database_down"]) == ("Critical", True, True)
    assert "Nobody can say from here whether the database works: cannot connect to database" in found["text"]
    assert "wrong" not in str(found)


def test_another_cluster_than_the_one_meant_is_refused(database: Database) -> None:
    with pytest.raises(Refused, match="rollback_db_system_identifier is 123"):
        assessed(database, system_identifier="123")


def test_the_version_in_question_is_given_or_the_newest_that_is_applied(database: Database, tmp_path: Path) -> None:
    for number, table in ((1, "one"), (2, "two"), (3, "three")):
        text = f"-- UP\nCREATE TABLE {table} (n int);\n\n-- DOWN (Rollback)\nDROP TABLE {table};\n"
        (tmp_path / f"000{number}-{table}.sql").write_text(text, encoding="utf-8")
    database.execute("CREATE TABLE one (n int)")
    database.execute("CREATE TABLE two (n int)")
    options = {"migrations_dir": str(tmp_path), "search_path": ["public"]}
    assert assessed(database, **options)["version"] == "0002"
    assert assessed(database, **options, version="1")["version"] == "0001"
    assert assessed(database, **options, version="9")["version"] == "9"


def test_what_other_hosts_saw_counts_and_one_that_cannot_be_asked_is_inconclusive(database: Database) -> None:
    down = {
        "name": "shop",
        "priority": "P1",
        "status": "down",
        "message": "shop failed every time (3 of 3): no answer.",
    }
    seen = assessment.evidence_of_hosts(
        [
            {"__assess_host": "app1", "evidence": {"host": "app1", "logs": [], "health": [{**down, "host": "app1"}]}},
            {"__assess_host": "app2", "skipped": True},
        ]
    )
    found = assessed(database, evidence=seen)
    assert (found["level"], found["inconclusive"]) == ("High", False)
    assert found["text"] == "P1 shop on app1 failed every time (3 of 3): no answer."
    seen += assessment.evidence_of_hosts(
        [{"__assess_host": "app3", "unreachable": True, "msg": "Failed to connect.\n"}]
    )
    found = assessed(database, evidence=seen)
    assert (found["level"], found["inconclusive"], found["decided_by"]) == (
        "Critical",
        True,
        ["critical_log_errors", "p0_down"],
    )
    assert "P0 of this host on app3 could not be asked: the host cannot be reached: Failed to connect." in found["text"]
