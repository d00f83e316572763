# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup before a migration, through ansible-playbook."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import manifest

from tests.support.runbook import Application, Project

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    queries = [
        {"name": "customers", "query": "SELECT * FROM customers"},
        {"name": "not there", "query": "SELECT * FROM b2b.nowhere"},
        {"name": "writes", "query": "DELETE FROM b2b.customers"},
    ]
    made = Project(
        tmp_path,
        database,
        rollback_backup_key="s3cret-key-of-backups",
        rollback_critical_queries=queries,
        rollback_backup_keep=2,
    )
    made.migrate("0002")
    return made


def test_a_deployment_takes_its_backup_while_the_application_runs(project: Project) -> None:
    with Application(project, "0002") as application:
        run = project.run("-e", "version=0003", "-v", playbook="backup")
        assert (run.returncode, run.outcome) == (0, "backed_up"), run.output
        assert application.health() == 200
    (published,) = project.published()
    assert published.name.startswith("backup_before_migration_0003_")
    taken = manifest.load(str(published), "s3cret-key-of-backups")
    assert manifest.verify(str(published), taken) == []
    assert (taken.kind, taken.version, taken.applied) == ("before_migration", "0003", False)
    assert all("hash" in facts for facts in taken.tables.values())
    assert taken.compression != "none"
    good, missing, writing = taken.baseline
    assert (len(good["seconds"]), good["error"]) == (5, ""), good
    assert good["median"] == sorted(good["seconds"])[2]
    assert "does not exist" in missing["error"]
    assert "read-only transaction" in writing["error"]
    assert (missing["median"], writing["median"]) == (None, None)
    assert "s3cret-key-of-backups" not in run.output
    assert run.report is not None
    assert run.report["backup"]["path"] == str(published)
    assert [stage["name"] for stage in run.report["stages"]] == ["backup", "notify"]


def test_an_applied_migration_is_a_warning(project: Project) -> None:
    run = project.run("-e", '{"version": 2}', playbook="backup")
    assert (run.returncode, run.outcome) == (0, "backed_up"), run.output
    (published,) = project.published()
    taken = manifest.load(str(published))
    assert (taken.version, taken.applied) == ("0002", True)
    assert any("is applied already" in warning for warning in taken.warnings)
    assert "is applied already" in run.output


def test_only_as_many_as_wanted_are_kept_and_two_at_once_both_succeed(project: Project) -> None:
    runs = [project.start("-e", "version=0003", playbook="backup") for _number in range(2)]
    for run in runs:
        output, _none = run.communicate(timeout=120)
        assert run.returncode == 0, output
    first = set(project.published())
    assert len(first) == 2
    assert project.run("-e", "version=0003", playbook="backup").outcome == "backed_up"
    assert len(project.published()) == 2
    assert set(project.published()) != first


def test_check_mode_writes_nothing(project: Project) -> None:
    run = project.run("-e", "version=0003", "--check", playbook="backup")
    assert run.returncode == 0, run.output
    assert project.published() == []
    assert not any(project.folder.rglob(".partial-*"))


@pytest.mark.parametrize("arguments", [(), ("-e", "version=../x"), ("-e", '{"version": ""}')])
def test_without_a_usable_version_it_is_one_refusal(project: Project, arguments: tuple[str, ...]) -> None:
    run = project.run(*arguments, playbook="backup")
    assert run.returncode != 0
    assert run.outcome == "refused", run.output
    assert "Give the version of a migration" in run.message
    assert project.published() == []
