# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios 5.1 to 5.3 of the document: one object is taken back through ansible-playbook, without a migration."""

from __future__ import annotations

import typing as t

import pytest

from tests.support.runbook import Application, Project

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database

STAGES = ["plan", "stop", "backup", "rollback", "verify", "previous_code", "restart", "smoke_test", "notify"]


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    return Project(tmp_path, database, rollback_index_drop="concurrently")


def test_a_column_whose_backfill_failed_is_previewed_and_taken_back(project: Project) -> None:
    project.migrate("0003")
    database = project.database
    database.execute("ALTER TABLE b2b.orders ADD COLUMN new_column int")
    database.execute("CREATE INDEX idx_new_column ON b2b.orders (new_column)")
    database.execute("UPDATE b2b.orders SET new_column = 1 WHERE id IN (SELECT id FROM b2b.orders LIMIT 20)")
    before = project.dump()
    with Application(project, "0003") as application:
        preview = project.run("--check", "-e", "column=b2b.orders.new_column", playbook="rollback_object")
        assert (preview.returncode, project.dump()) == (0, before), preview.output
        for said in (
            "Preview of column b2b.orders.new_column",
            "cypher.rollback.rollback_object -e column=b2b.orders.new_column",
            "ALTER TABLE b2b.orders DROP COLUMN new_column",
            "index b2b.idx_new_column",
            "20 rows",
        ):
            assert said in preview.output
        assert application.health() == 200

        run = project.run("-e", "column=b2b.orders.new_column", playbook="rollback_object")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert application.health() == 200
    assert run.report is not None
    assert run.message.startswith(
        f"Column b2b.orders.new_column of database {database.name} is rolled back and verified"
    )
    assert "No migration is marked as taken back" in run.message
    assert run.report["effect"]["rows_lost"] == 20
    assert run.report["downtime_seconds"] > 0
    assert [stage["name"] for stage in run.report["stages"] if stage["name"] in STAGES] == STAGES
    assert run.report["backup"]["id"].startswith("backup_before_rollback_column-b2b-orders-new_column_")
    found = database.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'new_column'"
    )
    assert found == []


def test_an_index_that_slows_writing_goes_while_the_application_runs(project: Project) -> None:
    project.migrate("0003")
    database = project.database
    database.execute("CREATE INDEX idx_problematic_index ON b2b.orders (created_at, id)")
    with Application(project, "0003") as application:
        run = project.run("-e", "index=idx_problematic_index", playbook="rollback_object")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert application.health() == 200
    assert run.report is not None
    assert run.stage("stop") is None
    assert run.report["downtime_seconds"] is None
    assert [item["kind"] for item in run.report["statements"]] == ["DROP INDEX CONCURRENTLY"]
    assert "no application was stopped and 1 smoke test passed" in run.message
    assert run.report["smoke_tests"]["passed"] is True
    assert run.report["backup"]["verified"] is True
    assert "The application is NOT stopped: rollback_index_drop is concurrently." in run.output
    assert database.execute("SELECT * FROM pg_indexes WHERE indexname = 'idx_problematic_index'") == []
