# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runbooks as jobs of AWX: its private data folder, extra variables and credential files, the installed collection, nobody at the terminal.

One database goes through the life of a bad migration, job by job, and each test looks at one of them.
"""

from __future__ import annotations

import dataclasses
import secrets
import stat
import typing as t

import pytest

from tests.conftest import Database
from tests.support.artifact import install_artifact
from tests.support.awx_job import Controller, Job
from tests.support.runbook import Application, Project

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres_server import PostgresServer

#: What the survey sends for the questions that nobody answered.
UNANSWERED = {
    "to_version": "", "rollback_hosts": "", "checklist": "", "checklist_confirmed": "no", "resume": "", "abandon": "",
}  # fmt: skip
KEY = "k3y-of-the-backups-0123456789"


@dataclasses.dataclass
class Life:
    """The jobs in their order, and what was seen after each."""

    project: Project
    password: str
    backup: Job | None = None
    preview: Job | None = None
    after_preview: t.Any = None
    rollback: Job | None = None
    after_rollback: t.Any = None
    unanswered: Job | None = None
    after_unanswered: t.Any = None
    emergency: Job | None = None
    after_emergency: t.Any = None

    def state(self, application: Application) -> tuple[t.Any, ...]:
        """Whether the application runs, the tables of the migration in question, and the runs so far."""
        exists = self.project.database.execute("SELECT to_regclass('b2b.orders') IS NOT NULL")[0][0]
        return application.running, exists, len(self.project.run_folders())


@pytest.fixture(scope="module")
def life(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("awx")
    artifact = install_artifact(tmp_path_factory.mktemp("artifact"))
    name = f"test_{secrets.token_hex(6)}"
    server.create_database(name)
    project = Project(folder, Database(server, name))
    project.migrate("0003", orders=20)
    try:
        with Application(project, "0003") as application:
            password = project.settings.pop("rollback_db_password")
            hosts = {"hosts": ["cypher1"]}
            inventory = {
                "_meta": {"hostvars": {"cypher1": {**project.settings, "remote_tower_id": 7}}},
                **dict.fromkeys(("all", "erp_db", "erp_app"), hosts),
            }
            files = {"ROLLBACK_DB_PASSWORD_FILE": password, "ROLLBACK_BACKUP_KEY_FILE": f"{KEY}\n"}
            yield lived(Life(project, password), application, Controller(folder, artifact, inventory, files))
    finally:
        for (other,) in server.execute(f"SELECT datname FROM pg_database WHERE datname LIKE '{name}%'"):
            server.drop_database(other)


def lived(life: Life, application: Application, controller: Controller) -> Life:
    """Run the jobs."""
    life.backup = controller.launch("backup.yml", {"version": "0004", "rollback_hosts": ""})
    asked = {"version": "0003", "rollback_max_rows_lost": "500", **UNANSWERED}
    life.preview = controller.launch("rollback.yml", asked, check=True)
    life.after_preview = life.state(application)
    application.release_file.write_text("0002\n", encoding="utf-8")
    # The rollback's node of the workflow gets what the preview's node left.
    life.rollback = controller.launch("rollback.yml", {**life.preview.artifacts, **asked}, verbosity=3)
    life.after_rollback = life.state(application)
    application.release_file.write_text("0003\n", encoding="utf-8")
    emergency = {"backup": "", "version": "", "tables": "", "rollback_hosts": "", "resume": "", "abandon": ""}
    life.unanswered = controller.launch("emergency_rollback.yml", {"confirm": "", **emergency})
    life.after_unanswered = life.state(application)
    life.emergency = controller.launch("emergency_rollback.yml", {"confirm": "yes", **emergency})
    life.after_emergency = life.state(application)
    return life


def job(played: Job | None) -> Job:
    assert played is not None
    return played


def test_a_preview_says_what_would_go_and_leaves_nothing(life: Life) -> None:
    preview = job(life.preview)
    assert preview.status == "successful", preview.stdout
    # Only the backup before it left a run.
    assert life.after_preview == (True, True, 1)
    assert preview.artifacts["rollback_outcome"] == "planned"
    assert preview.artifacts["rollback_version"] == "0003"


def test_the_rollback_after_the_preview_is_a_run_of_its_own(life: Life) -> None:
    rollback = job(life.rollback)
    assert rollback.status == "successful", rollback.stdout
    assert life.after_rollback[:2] == (True, False)
    left = rollback.artifacts
    assert (left["rollback_outcome"], left["rollback_version"]) == ("rolled_back", "0003")
    folders = {folder.name: folder for folder in life.project.run_folders()}
    assert left["rollback_run"] in folders
    assert left["rollback_run"] != job(life.preview).artifacts["rollback_run"]
    assert left["rollback_report"] == str(folders[left["rollback_run"]] / "report.json")
    assert left["rollback_backup"] in {folder.name for folder in life.project.published()}


def test_nobody_is_waited_for_at_the_terminal_of_a_job(life: Life) -> None:
    unanswered = job(life.unanswered)
    # One that waits is ended after a while, and is not a failed one but a "timeout".
    assert unanswered.status == "failed", unanswered.stdout
    assert life.after_unanswered[:2] == life.after_rollback[:2]
    assert unanswered.artifacts["rollback_outcome"] == "refused"
    assert "answer its question confirm with yes" in unanswered.artifacts["rollback_message"]


def test_an_emergency_with_its_answer_restores_the_backup(life: Life) -> None:
    emergency = job(life.emergency)
    assert emergency.status == "successful", emergency.stdout
    assert life.after_emergency[:2] == (True, True)
    assert emergency.artifacts["rollback_outcome"] == "restored"
    assert emergency.artifacts["rollback_backup"] == job(life.backup).artifacts["rollback_backup"]


def test_the_secrets_of_the_credential_are_in_nothing_that_the_controller_keeps(life: Life) -> None:
    for played in (life.backup, life.preview, life.rollback, life.emergency):
        text = job(played).everything()
        assert life.password not in text
        assert KEY not in text
    manifests = list(life.project.backups.glob("backup_*/manifest.json"))
    assert manifests
    for path in [*manifests, *life.project.backups.glob("runs/*/*")]:
        if path.is_file():
            assert life.password not in path.read_text(encoding="utf-8")
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
