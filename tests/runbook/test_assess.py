# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The assessment through ansible-playbook, of a database that is really slow, and of one that is really down."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import subprocess
import typing as t

import pytest

from tests.support.postgres_server import free_port
from tests.support.runbook import Project, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database

QUERY = "the movements of an account"
#: A difference that is certainly none of two measurements under load on a small machine.
NOISE_MS = 8


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    made = Project(
        tmp_path,
        database,
        rollback_critical_queries=[{"name": QUERY, "query": "SELECT sum(amount) FROM movements WHERE account = 4711"}],
        rollback_critical_tables=["movements"],
        rollback_severity_thresholds={"noise_ms": NOISE_MS},
        rollback_search_path=["public"],
    )
    # Of the project only the files; the tables are this test's own.
    made.write_migration("0007-movements.sql", "DROP TABLE movements;")
    return made


def fill(database: Database) -> None:
    database.execute(
        "CREATE TABLE movements AS SELECT n AS id, n % 50000 AS account, n % 97 AS amount, repeat('x', 60) AS note "
        "FROM generate_series(1, 500000) n"
    )
    database.execute("CREATE INDEX movements_account ON movements (account)")
    database.execute("VACUUM ANALYZE movements")


@contextlib.contextmanager
def load(project: Project) -> Iterator[None]:
    """Pgbench asks for one row after the other, fifty a second, while the rest happens."""
    server = project.database.server
    script = project.folder / "load.sql"
    script.write_text(
        "\\set n random(1, 500000)\nSELECT amount FROM movements WHERE id = :n LIMIT 1;\n", encoding="utf-8"
    )
    project.database.execute("CREATE INDEX movements_id ON movements (id)")
    arguments = project.database.connection_arguments()
    environment = {**os.environ, "PGPASSWORD": str(arguments["password"]), "PGAPPNAME": "pgbench of this test"}
    command = [str(server.bin_dir / "pgbench"), "-n", "-f", str(script), "-c", "2", "-R", "50", "-T", "300"]
    where = ["-h", arguments["host"], "-p", str(arguments["port"]), "-U", arguments["user"], arguments["dbname"]]
    with subprocess.Popen(
        [*command, *where], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as bench:
        try:
            seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench of this test'"
            wait_until(lambda: project.database.execute(seen)[0][0] > 0)
            yield
            assert bench.poll() is None, "pgbench ended early"
        finally:
            bench.kill()


def test_an_index_dropped_under_load_turns_low_into_critical(project: Project) -> None:
    fill(project.database)
    with load(project):
        assert project.run("-e", "version=0008", playbook="backup").outcome == "backed_up"
        before = project.run(playbook="assess")
        assert (before.returncode, before.outcome) == (0, "assessed"), before.output
        assert before.report is not None
        severity = before.report["severity"]
        assert (severity["level"], severity["inconclusive"]) == ("Low", False), severity
        assert severity["decided_by"] == ["performance_acceptable"]
        assert "severity Low. Watch." in before.message
        assert before.report["next_commands"] == [severity["next_command"]]

        project.database.execute("DROP INDEX movements_account")
        after = project.run("-e", "version=7", playbook="assess")
    assert (after.returncode, after.outcome) == (0, "assessed"), after.output
    assert after.report is not None
    severity = after.report["severity"]
    assert severity["level"] in ("Critical", "High"), severity
    assert severity["decided_by"][0].startswith("performance_degraded_")
    (timed,) = severity["measurements"]["queries"]
    assert (timed["name"], timed["runs"], timed["timed_out"]) == (QUERY, 5, False)
    assert timed["now_ms"] > timed["baseline_ms"] + NOISE_MS
    assert QUERY in after.message
    told = re.search(r"Preview, which changes nothing: (ansible-playbook .*)", after.message)
    assert told
    assert told[1] == severity["next_command"] == after.report["next_commands"][0]
    assert told[1].endswith("cypher.rollback.rollback -e version=0007 --check")
    assert "logs (no rollback_log_sources)" in after.message
    table = after.output.partition("SEVERITY  ")[2].partition("\nSTAGES ")[0]
    assert "FIRED   2.1 Critical" in table or "FIRED   2.2 High" in table
    assert max(map(len, table.splitlines())) <= 96
    assert [stage["name"] for stage in after.report["stages"]] == ["assess", "notify"]


def test_a_database_that_does_not_answer_is_critical_and_the_rest_is_looked_at_all_the_same(project: Project) -> None:
    written = project.folder / "shop.log"
    moment = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    written.write_text(f"{moment} ERROR the order could not be saved\n", encoding="utf-8")
    project.settings |= {
        "rollback_log_sources": [{"name": "shop", "type": "file", "path": str(written)}],
        "rollback_health_checks": [
            {"name": "search", "url": f"http://127.0.0.1:{free_port()}/", "status": 200, "priority": "P2"}
        ],
        "rollback_health_interval": 0.05,
    }
    server = project.database.server
    server.stop()
    try:
        run = project.run(playbook="assess")
    finally:
        server.start()
    assert (run.returncode, run.outcome) == (0, "assessed"), run.output
    assert run.report is not None
    severity = run.report["severity"]
    assert (severity["level"], severity["inconclusive"], severity["decided_by"]) == ("Critical", False, ["p0_down"])
    assert "severity Critical. Roll back now." in run.message
    assert "The database does not answer: cannot connect to database" in run.message
    assert "Bring the server back first" in run.message
    assert "Traceback" not in run.output
    fired = {entry["rule"]: entry["text"] for entry in severity["findings"] if entry["status"] == "fired"}
    assert sorted(fired) == ["non_critical_feature_affected", "occasional_errors", "p0_down"]
    assert fired["occasional_errors"].startswith("The log shop on cypher1 has 1 error in 5 min")
    assert fired["non_critical_feature_affected"].startswith("P2 search on cypher1 failed every time (3 of 3)")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (
            "rollback_severity_thresholds",
            {"performance_critical": 30},
            "rollback_severity_thresholds has performance_critical, which is no threshold",
        ),
        (
            "rollback_log_sources",
            [{"name": "shop", "type": "file"}],
            "rollback_log_sources: shop is of the type file and needs path. Nothing was stopped.",
        ),
    ],
)
def test_settings_that_are_wrong_are_one_refusal(project: Project, setting: str, value: t.Any, said: str) -> None:
    project.settings[setting] = value
    run = project.run(playbook="assess")
    assert run.returncode != 0
    assert run.outcome == "refused", run.output
    assert said in run.message
