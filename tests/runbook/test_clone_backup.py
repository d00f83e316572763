# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback whose backup is a clone: made after the stop, never early, undone by a rename, and kept like any other."""

from __future__ import annotations

import contextlib
import json
import typing as t

import pytest

from tests.support.runbook import Application, Project

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database


@pytest.fixture
def project(database: Database, tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, database, rollback_backup_kind="clone", rollback_backup_early_bytes="0")
    project.migrate("0003", orders=50)
    yield project
    for name in others(project):
        database.server.drop_database(name)


def others(project: Project) -> list[str]:
    """Databases beside the live one: clones and kept ones."""
    rows = project.database.server.execute(
        f"SELECT datname FROM pg_database WHERE datname LIKE '{project.database.name}%' AND datname <> '{project.database.name}' ORDER BY 1"
    )
    return [name for (name,) in rows]


def test_a_rollback_with_a_clone_is_kept_and_undone(project: Project) -> None:
    before = project.dump()
    with Application(project, "0003") as application:
        application.release_file.write_text("0002\n", encoding="utf-8")
        run = project.run("-e", "version=0003")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert application.running
        assert run.stage("early_backup") is None
        (published,) = project.published()
        manifest = json.loads((published / "manifest.json").read_text(encoding="utf-8"))
        assert (manifest["provider"], manifest["kind"]) == ("clone", "before_rollback")
        assert manifest["tables"]["b2b.orders"]["rows"] == 50
        assert others(project) == [manifest["clone"]["database"]]
        (row,) = project.database.execute(
            f"SELECT datallowconn FROM pg_database WHERE datname = '{manifest['clone']['database']}'"
        )
        assert row == (False,)
        assert project.dump() != before

        project.settings |= {"rollback_backup_keep": 1, "rollback_backup_keep_days": 0.00001}
        expired = project.run("-e", "expire=yes", playbook="backups")
        assert "REMOVED  0" in expired.output
        assert (project.published(), others(project)) == ([published], [manifest["clone"]["database"]])

        application.release_file.write_text("0003\n", encoding="utf-8")
        undone = project.run("-e", "confirm=yes", playbook="undo_rollback")
        assert (undone.returncode, undone.outcome) == (0, "restored"), undone.output
        assert application.health() == 200
    assert project.dump() == before


def test_who_stays_connected_is_named_and_the_application_is_up_again(project: Project) -> None:
    before = project.dump()
    with Application(project, "0003") as application:
        with contextlib.closing(project.database.connect(application_name="a nightly report")):
            run = project.run("-e", "version=0003")
        assert run.returncode != 0
        assert run.outcome == "failed_unchanged", run.output
        assert "a nightly report" in run.message
        assert "rollback_backup_kind" in run.message
        assert application.health() == 200
    assert project.dump() == before
    assert (project.published(), others(project)) == ([], [])


def test_what_a_clone_needs_is_asked_before_the_stop(project: Project) -> None:
    project.settings["rollback_server_free_bytes"] = 1000
    with Application(project, "0003") as application:
        run = project.run("-e", "version=0003")
        assert run.returncode != 0
        assert run.outcome == "refused", run.output
        assert "rollback_server_free_bytes" in run.message
        assert run.stage("stop") is None
        assert application.running
    assert others(project) == []
