# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback whose backup is a clone: made after the stop, never early, and named in the report like any other."""

from __future__ import annotations

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
    project = Project(tmp_path, database, backup_provider="clone", rollback_backup_early_bytes="0")
    project.migrate("0003")
    yield project
    for manifest in project.backups.glob("backup_*/manifest.json"):
        clone = json.loads(manifest.read_text(encoding="utf-8"))["clone"]["database"]
        database.server.drop_database(clone)


def test_a_rollback_with_a_clone_stops_first_and_leaves_a_backup(project: Project) -> None:
    with Application(project, "0003") as application:
        application.release_file.write_text("0002\n", encoding="utf-8")
        run = project.run("-e", "version=0003")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert application.running
    assert run.stage("early_backup") is None
    (published,) = project.published()
    manifest = json.loads((published / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["provider"] == "clone"
    assert manifest["tables"]["b2b.orders"]["rows"] == 50
    (row,) = project.database.execute(
        f"SELECT datallowconn FROM pg_database WHERE datname = '{manifest['clone']['database']}'"
    )
    assert row == (False,)
