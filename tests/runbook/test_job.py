# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job leaves to a workflow, read back from what Ansible says at its end."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from tests.support.runbook import Project

if t.TYPE_CHECKING:
    from tests.conftest import Database

pytestmark = pytest.mark.usefixtures("custom_stats")


def test_every_runbook_leaves_its_outcome_also_where_it_refuses(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path, database)
    project.migrate("0003")

    refused = project.run("-e", "version=0009")
    found = refused.left
    assert refused.returncode != 0
    assert (found["rollback_outcome"], found["rollback_version"]) == ("refused", "0009")
    assert json.loads(Path(found["rollback_report"]).read_text())["run_id"] == found["rollback_run"]
    assert "0009" in found["rollback_message"]
    assert "\n" not in found["rollback_message"]
    assert "rollback_outcomes" not in found

    missing = project.run(playbook="backups")
    assert missing.returncode != 0
    assert missing.left["rollback_outcome"] == "backups_not_valid"

    backup = project.run("-e", "version=0003", playbook="backup")
    found = backup.left
    assert (backup.returncode, found["rollback_outcome"]) == (0, "backed_up"), backup.output
    assert found["rollback_backup"] == project.published()[0].name

    valid = project.run(playbook="backups")
    assert (valid.returncode, valid.left["rollback_outcome"]) == (0, "backups_valid"), valid.output

    preview = project.run("-e", "version=3", "--check")
    found = preview.left
    assert (preview.returncode, found["rollback_outcome"]) == (0, "planned"), preview.output
    assert (found["rollback_version"], found["rollback_report"]) == ("0003", "")

    # A workflow's node has neither a password nor the address of a database for this one.
    for name in [name for name in project.settings if name.startswith("rollback_db_")]:
        del project.settings[name]
    started = project.run(playbook="restart")
    assert (started.returncode, started.left["rollback_outcome"]) == (0, "restarted"), started.output


class TwoHosts(Project):
    """A project whose application is on another host than the database."""

    applications: tuple[str, ...] = ("app1",)

    def inventory(self) -> Path:
        path = self.folder / "hosts.json"
        children: dict[str, t.Any] = {
            "erp_db": {"hosts": {"db1": {}}},
            "erp_app": {"hosts": {name: {} for name in self.applications}},
        }
        path.write_text(json.dumps({"all": {"vars": self.settings, "children": children}}))
        return path


def test_a_narrowed_run_that_would_do_nothing_is_refused(tmp_path: Path, database: Database) -> None:
    project = TwoHosts(tmp_path, database)
    for playbook, pattern, said in (
        ("restart", "db1", "rollback_hosts=db1 leaves no host of the group erp_app"),
        ("restart", "db9", "localhost is not in its group erp_db as far as rollback_hosts takes it"),
        ("backup", "db9", "localhost is not in its group erp_db as far as rollback_hosts takes it"),
        ("verify", "db9", "localhost is not in its group erp_db as far as rollback_hosts takes it"),
    ):
        run = project.run("-e", f"rollback_hosts={pattern}", "-e", "version=0003", playbook=playbook)
        assert run.returncode != 0, run.output
        found = run.left
        assert (found["rollback_outcome"], said in found["rollback_message"]) == ("refused", True), run.output
    assert project.published() == []
    history = project.run("-e", "rollback_hosts=db9", playbook="history")
    assert history.returncode != 0, history.output
    assert "localhost is not in its group erp_db as far as rollback_hosts takes it" in " ".join(history.output.split())
    limited = project.run("-e", "version=0003", "--limit", "app1")
    assert limited.returncode != 0, limited.output
    assert "--limit app1 (or the limit of the job) leaves no database, so nothing was done" in " ".join(
        limited.output.split()
    )


class ThreeHosts(TwoHosts):
    """A project whose application is on two hosts."""

    applications = ("app1", "app2")


def test_what_rollback_hosts_leaves_out_of_the_application_is_named(tmp_path: Path, database: Database) -> None:
    project = ThreeHosts(tmp_path, database)
    project.migrate("0003")
    project.settings |= {
        "rollback_app_driver": "command",
        "rollback_app_status_command": ["false"],
        "rollback_app_stop_command": ["true"],
        "rollback_app_start_command": ["true"],
    }
    said = "rollback_hosts leaves out app2 of the group erp_app: what runs there is not stopped"
    narrowed = project.run("-e", "version=0003", "-e", "rollback_hosts=db1,app1", "--check")
    assert narrowed.returncode == 0, narrowed.output
    assert said in " ".join(narrowed.output.split())
    whole = project.run("-e", "version=0003", "--check")
    assert said not in " ".join(whole.output.split())
