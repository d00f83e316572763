# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup before the stop, through ansible-playbook: confirmed, taken again, or the reason that nothing is stopped."""

from __future__ import annotations

import contextlib
import threading
import typing as t

import psycopg2
import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import manifest

from tests.support.runbook import Application, Project

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database

STAGES = [
    "plan", "checklist", "early_backup", "stop", "backup", "rollback", "verify", "previous_code", "restart", "smoke_test",
    "closing_checklist", "notify",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    made = Project(tmp_path, database, rollback_backup_early_bytes=0)
    made.migrate("0003")
    return made


@contextlib.contextmanager
def writer(project: Project, application: Application) -> Iterator[list[int]]:
    """Someone who inserts customers for as long as the application runs; how many."""
    written = [0]
    end = threading.Event()

    def write() -> None:
        with contextlib.closing(psycopg2.connect(**project.database.connection_arguments())) as connection:
            connection.autocommit = True
            while application.health() == 200 and not end.is_set():
                with connection.cursor() as cursor:
                    cursor.execute(
                        "INSERT INTO b2b.customers (company_name, tax_id, email) "
                        "SELECT 'Late ' || n, 'RO9' || n, n || '@late.example.com' FROM (SELECT %s AS n) AS x",
                        (written[0],),
                    )
                written[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        end.set()
        thread.join()


def test_a_database_that_nobody_wrote_to_is_backed_up_once_before_the_stop(project: Project) -> None:
    with Application(project, "0003") as application:
        application.release_file.write_text("0002\n", encoding="utf-8")
        run = project.run("-e", "version=0003")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert application.health() == 200
    assert run.report is not None
    assert [stage["name"] for stage in run.report["stages"]] == STAGES
    (published,) = project.published()
    assert run.report["backup"]["path"] == str(published)
    assert run.report["backup"]["verified"] is True
    assert manifest.load(str(published)).created_at < run.report["stages"][STAGES.index("stop")]["started_at"]
    assert manifest.verify(str(published), manifest.load(str(published))) == []
    assert run.report["verification"]["passed"] is True


def test_what_is_written_until_the_stop_is_in_the_backup(project: Project) -> None:
    before = project.database.execute("SELECT count(*) FROM b2b.customers")[0][0]
    with Application(project, "0003") as application:
        application.release_file.write_text("0002\n", encoding="utf-8")
        with writer(project, application) as written:
            run = project.run("-e", "version=0003")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert [stage["name"] for stage in run.report["stages"]] == STAGES
    (published,) = project.published()
    assert manifest.load(str(published)).created_at > run.report["stages"][STAGES.index("backup")]["started_at"]
    assert written[0] > 0
    assert manifest.load(str(published)).rows["b2b.customers"] == before + written[0]
    assert any("The early backup was of no use" in warning for warning in run.report["warnings"])


def test_where_the_early_backup_fails_nothing_is_stopped(project: Project, database: Database) -> None:
    with Application(project, "0003") as application, contextlib.closing(database.connect()) as holder:
        pid = (project.folder / "app.pid").read_text(encoding="ascii")
        project.settings |= {"rollback_lock_timeout": "300ms"}
        before = project.dump()
        holder.cursor().execute("CREATE TABLE public.held (a int)")
        holder.commit()
        holder.cursor().execute("LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE")
        run = project.run("-e", "version=0003")
        holder.rollback()
        holder.cursor().execute("DROP TABLE public.held")
        holder.commit()
        assert run.returncode != 0
        assert run.outcome == "refused", run.output
        assert "Nothing was stopped" in run.message
        assert application.health() == 200
        assert (project.folder / "app.pid").read_text(encoding="ascii") == pid
        assert (project.dump(), project.published()) == (before, [])
    assert run.report is not None
    assert run.report["downtime_seconds"] is None
    assert [stage["name"] for stage in run.report["stages"]] == ["plan", "checklist", "early_backup", "notify"]


def test_a_small_database_is_backed_up_during_the_stop_alone(project: Project) -> None:
    project.settings |= {"rollback_backup_early_bytes": 10**12}
    run = project.run("-e", "version=0003")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert run.stage("early_backup") is None
    assert len(project.published()) == 1
