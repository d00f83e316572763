# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verification alone: a table, a report and an exit code; checks that cannot be run are refused before the stop."""

from __future__ import annotations

import typing as t

from tests.support.runbook import Project

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database


def test_a_verification_shows_every_check_and_fails_where_one_does(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path, database)
    project.migrate("0002")
    good = project.run(playbook="verify")
    assert (good.returncode, good.outcome) == (0, "verified"), good.output
    assert good.report is not None
    assert good.report["runbook"] == "verify"
    assert good.report["target"]["system_identifier"]
    assert "passed  foreign keys without orphans" in good.output
    assert "is verified: " in good.message
    assert "Nothing was changed." in good.message
    database.execute("SET session_replication_role = replica; DELETE FROM b2b.products")
    bad = project.run(playbook="verify")
    assert (bad.returncode, bad.outcome) == (2, "needs_attention"), bad.output
    assert "The verification of database " in bad.message
    assert "orphans under " in bad.message
    assert "cypher.rollback.assess" in bad.message
    assert "FAILED  orphans under " in bad.output
    assert bad.report is not None
    assert any(check["status"] == "failed" for check in bad.report["verification"]["checks"])


def test_a_check_that_cannot_be_parsed_is_refused_before_the_stop(tmp_path: Path, database: Database) -> None:
    check = {"name": "orders are paid", "query": "SELECT count(* FROM b2b.orders", "expect": 0}
    project = Project(tmp_path, database, rollback_verify_checks=[check])
    project.migrate("0003")
    run = project.run("-e", "version=0003")
    assert (run.returncode, run.outcome) == (2, "refused"), run.output
    assert "The check 'orders are paid' of rollback_verify_checks cannot be run" in run.message
    assert "Nothing was stopped or changed." in run.message
    assert run.stage("stop") is None
