# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two databases in one run of the emergency runbook, and of the one that goes back from there."""

from __future__ import annotations

import json
import re
import secrets
import typing as t

import pytest

from tests.conftest import Database
from tests.support.runbook import Project

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres_server import PostgresServer
    from tests.support.runbook import Run

pytestmark = pytest.mark.usefixtures("custom_stats")

HOSTS = ("db1", "db2")
CONTENT = "SELECT to_regclass('b2b.carts') IS NOT NULL, count(*), sum(list_price) FROM b2b.products"


class Databases(Project):
    """A project with a database on each of two hosts, which are both this one."""

    def __init__(self, folder: Path, databases: dict[str, Database]) -> None:
        super().__init__(folder, databases[HOSTS[0]], rollback_serial="1,100%")
        self.databases = databases
        self.settings["rollback_backup_dir"] = f"{self.backups}/{{{{ inventory_hostname }}}}"
        for database in databases.values():
            self.database = database
            self.migrate("0003", orders=20)

    def inventory(self) -> Path:
        path = self.folder / "hosts.json"
        hosts = {host: {"rollback_db_name": database.name} for host, database in self.databases.items()}
        path.write_text(json.dumps({"all": {"vars": self.settings, "children": {"erp_db": {"hosts": hosts}}}}))
        return path

    def ends(self, run: Run, outcomes: dict[str, str]) -> None:
        """A run ended with these outcomes, and says so in its table and to a workflow."""
        assert run.left["rollback_outcomes"] == outcomes, run.output
        for host, outcome in outcomes.items():
            assert re.search(rf'"{host} +{self.databases[host].name} +{outcome}\b', run.output), run.output

    def content(self) -> dict[str, tuple[t.Any, ...]]:
        return {host: database.execute(CONTENT)[0] for host, database in self.databases.items()}


@pytest.fixture
def project(tmp_path: Path, server: PostgresServer) -> Iterator[Databases]:
    databases = {host: Database(server, f"test_{secrets.token_hex(6)}") for host in HOSTS}
    for database in databases.values():
        server.create_database(database.name)
    yield Databases(tmp_path, databases)
    for (name,) in server.execute("SELECT datname FROM pg_database"):
        if name.startswith(tuple(database.name for database in databases.values())):
            server.drop_database(name)


def test_every_database_goes_back_to_a_backup_of_its_own_and_to_what_was_replaced(project: Databases) -> None:
    project.ends(project.run("-e", "version=0007", playbook="backup"), dict.fromkeys(HOSTS, "backed_up"))
    before = project.content()
    for host, database in project.databases.items():
        database.execute(f"UPDATE b2b.products SET list_price = {HOSTS.index(host)}; DROP TABLE b2b.carts CASCADE")
    damaged = project.content()
    assert damaged["db1"] != damaged["db2"]

    emergency = project.run("-e", "confirm=yes", playbook="emergency_rollback")
    assert emergency.returncode == 0, emergency.output
    project.ends(emergency, dict.fromkeys(HOSTS, "restored"))
    assert project.content() == before

    back = project.run("-e", "confirm=yes", playbook="swap_back")
    assert back.returncode == 0, back.output
    project.ends(back, dict.fromkeys(HOSTS, "restored"))
    assert project.content() == damaged

    # The canary has no backup of before its damage that could be taken: the other one is left as it is.
    for backup in (project.backups / "db1").glob("backup_*"):
        (backup / "manifest.json").unlink()
    refused = project.run("-e", "confirm=yes", playbook="emergency_rollback")
    assert refused.returncode != 0
    project.ends(refused, {"db1": "refused", "db2": "not_started"})
    assert project.content() == damaged
