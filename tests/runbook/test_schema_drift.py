# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A DOWN that forgets something is found by the backup that was made before its migration, through ansible-playbook."""

from __future__ import annotations

import typing as t

import pytest

from tests.support.runbook import Application, Project

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database

UP = "ALTER TABLE b2b.orders ADD voucher int, ADD code text;"
FORGETS = "ALTER TABLE b2b.orders DROP COLUMN voucher;"
FORGOTTEN = "table column b2b.orders.code"


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """Backed up by the deployment, then migrated."""
    made = Project(tmp_path, database, rollback_backup_key="s3cret-key-of-backups")
    made.migrate("0003", orders=20)
    made.write_migration("0007-vouchers.sql", FORGETS, UP)
    taken = made.run("-e", "version=0007", playbook="backup")
    assert taken.outcome == "backed_up", taken.output
    database.execute(UP)
    return made


@pytest.fixture
def application(project: Project) -> Iterator[Application]:
    with Application(project, "0003") as running:
        yield running


def columns(project: Project) -> set[str]:
    rows = project.database.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'b2b' AND table_name = 'orders'"
    )
    return {name for (name,) in rows}


def test_what_the_down_forgot_is_named_in_the_preview_and_in_the_run(
    project: Project, application: Application
) -> None:
    preview = project.run("-e", "version=0007", "--check")
    assert preview.returncode == 0, preview.output
    assert f"extra: {FORGOTTEN}" in " ".join(preview.output.split())
    assert "voucher" in columns(project)

    run = project.run("-e", "version=0007")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert application.running
    assert {"voucher", "code"} & columns(project) == {"code"}
    assert run.report is not None
    (backup,) = (path.name for path in project.published() if "before_migration" in path.name)
    assert run.report["schema_drift"]["backup"] == backup
    assert run.report["schema_drift"]["extra"] == [FORGOTTEN]
    assert any(FORGOTTEN in warning and backup in warning for warning in run.report["warnings"])
    assert "s3cret-key-of-backups" not in run.output


def test_with_refuse_nothing_is_committed_and_the_application_is_up_again(
    project: Project, application: Application
) -> None:
    project.settings["rollback_schema_drift"] = "refuse"
    run = project.run("-e", "version=0007")
    assert run.returncode != 0
    assert run.outcome == "failed_unchanged", run.output
    for part in ("schema as before migration 0007", FORGOTTEN, "rollback_schema_drift: warn"):
        assert part in run.message
    assert {"voucher", "code"} <= columns(project)
    assert application.health() == 200
    assert run.report is not None
    assert run.report["schema_drift"]["extra"] == [FORGOTTEN]
