# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The standard runbook on the real Cypher ERP, through ansible-playbook."""

from __future__ import annotations

import os
import re
import stat
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.migrations import find_migrations, read_down

from tests.support.runbook import CYPHER_ERP, Application, Project

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database

SCHEMAS = ("b2b", "erp", "shared", "public")
EXISTS = {
    "table": "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relname = %s",
    "view": "SELECT count(*) FROM pg_class WHERE relkind = 'v' AND relname = %s",
    "index": "SELECT count(*) FROM pg_class WHERE relkind IN ('i', 'I') AND relname = %s",
    "function": "SELECT count(*) FROM pg_proc WHERE proname = %s",
    "type": "SELECT count(*) FROM pg_type WHERE typname = %s",
    "role": "SELECT count(*) FROM pg_roles WHERE rolname = %s",
    "schema": "SELECT count(*) FROM pg_namespace WHERE nspname = %s",
    "trigger": "SELECT count(*) FROM pg_trigger WHERE tgname = %s",
}


def named_objects(version: str) -> list[tuple[str, str]]:
    """Type and bare name of everything that a DOWN of the document names."""
    migration = next(item for item in find_migrations(str(CYPHER_ERP / "migrations")) if item.version == version)
    return [(item.type, item.name) for statement in read_down(migration).statements for item in statement.drops]


def still_there(database: Database, version: str) -> list[str]:
    """What a DOWN names and the database still has, in any schema, asked without the product's own queries."""
    with database.connect() as connection, connection.cursor() as cursor:
        found = []
        for kind, name in named_objects(version):
            cursor.execute(EXISTS[kind], (name,))
            ((count,),) = cursor.fetchall()
            if count:
                found.append(f"{kind} {name}")
    connection.close()
    return found


def row_counts(database: Database) -> dict[str, int]:
    """Rows of every table, counted by the test itself."""
    tables = database.execute(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('b2b', 'erp', 'shared', 'public')"
    )
    return {name: database.execute(f"SELECT count(*) FROM {name}")[0][0] for (name,) in tables}


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    return Project(tmp_path, database)


def test_the_six_migrations_are_taken_back_one_after_the_other(project: Project) -> None:
    project.migrate("0006")
    for version in ("0006", "0005", "0004", "0003", "0002", "0001"):
        counts = row_counts(project.database)
        assert len(still_there(project.database, version)) == len(named_objects(version))
        run = project.run("-e", f"version={version}")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert still_there(project.database, version) == []
        after = row_counts(project.database)
        assert after == {name: rows for name, rows in counts.items() if name in after}
        report = run.report
        assert report is not None
        gone = {name: rows for name, rows in counts.items() if name not in after}
        tables = {item["identity"]: item["rows"] for item in report["effect"]["dropped"] if item["type"] == "table"}
        assert {name: tables[name] for name in gone} == gone
        named = [item for item in report["effect"]["dropped"] if not item["cascaded"] and not item["part_of"]]
        assert len(named) == len(named_objects(version))
        assert report["effect"]["left_over"] == []
        assert report["verification"]["passed"] is True
        assert report["backup"]["verified"] is True
        assert report["backup"]["id"].startswith(f"backup_before_rollback_{version}_")
        assert run.message.splitlines()[-1] == "rolled_back"
    assert len(project.published()) == 6


def test_application_and_backup_around_a_rollback(project: Project) -> None:
    project.migrate("0003")
    with Application(project, "0003") as application:
        assert application.health() == 200
        application.release_file.write_text("0002\n", encoding="utf-8")
        umask = os.umask(0)
        try:
            run = project.run("-e", "version=0003")
        finally:
            os.umask(umask)
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert application.running
        assert application.health() == 200
    assert run.report is not None
    assert run.report["downtime_seconds"] > 0
    assert [stage["name"] for stage in run.report["stages"]] == [
        "plan", "checklist", "stop", "backup", "rollback", "verify", "previous_code", "restart", "smoke_test",
        "closing_checklist", "notify",
    ]  # fmt: skip
    (backup,) = project.published()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    files = [item for item in [*backup.rglob("*"), *run.folder.rglob("*")] if item.is_file()]
    assert files
    assert {oct(stat.S_IMODE(item.stat().st_mode)) for item in files} == {"0o600"}


def test_several_versions_go_in_one_transaction(project: Project) -> None:
    project.migrate("0006")
    run = project.run("-e", "to_version=0002")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert run.report["plan"]["versions"] == ["0006", "0005", "0004", "0003"]
    assert [still_there(project.database, version) for version in run.report["plan"]["versions"]] == [[], [], [], []]
    assert len(still_there(project.database, "0002")) == len(named_objects("0002"))


def test_a_failure_in_the_last_of_several_leaves_all_in_place(project: Project) -> None:
    project.migrate("0006")
    path = next(project.migrations.glob("0003-*.sql"))
    path.write_text(path.read_text(encoding="utf-8") + "\nSELECT 1 / 0;\n", encoding="utf-8")
    before = project.dump()
    run = project.run("-e", "to_version=0002")
    assert run.returncode != 0
    assert run.outcome == "failed_unchanged", run.output
    assert "division by zero" in run.message
    assert f"{path} line" in " ".join(run.message.split())
    assert project.dump() == before


def test_a_later_migration_that_is_applied_is_refused_with_the_command_that_works(project: Project) -> None:
    project.migrate("0004")
    with Application(project, "0004") as application:
        before = project.dump()
        run = project.run("-e", "version=0003")
        assert run.returncode != 0
        assert run.outcome == "refused", run.output
        assert "0004" in run.message
        command = re.search(r"cypher\.rollback\.rollback -e (to_version=\d+)", " ".join(run.message.split()))
        assert command, run.message
        assert application.running
        assert (project.dump(), project.published()) == (before, [])
        application.release_file.write_text("0002\n", encoding="utf-8")
        run = project.run("-e", command[1])
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert run.report["plan"]["versions"] == ["0004", "0003"]


def test_what_is_rolled_back_already_is_left_alone(project: Project) -> None:
    project.migrate("0002")
    with Application(project, "0002") as application:
        pid = (project.folder / "app.pid").read_text(encoding="ascii")
        run = project.run("-e", "version=0003")
        assert (run.returncode, run.outcome) == (0, "nothing_to_do"), run.output
        assert "changed=0" in run.output
        assert application.running
        assert (project.folder / "app.pid").read_text(encoding="ascii") == pid
    assert project.published() == []


def test_a_version_whose_file_went_with_the_newer_code_is_remembered(project: Project) -> None:
    project.migrate("0003", orders=5)
    first = project.run("-e", "version=0003")
    assert first.outcome == "rolled_back", first.output
    next(project.migrations.glob("0003-*.sql")).unlink()
    again = project.run("-e", "version=3")
    assert (again.returncode, again.outcome) == (0, "nothing_to_do"), again.output
    assert first.folder.name in again.message
    project.database.execute("CREATE TABLE b2b.orders (id int)")
    refused = project.run("-e", "version=0003")
    assert refused.outcome == "refused", refused.output
    assert "No migration has the version '0003'" in refused.message


def test_the_preview_announces_what_the_run_removes_and_leaves_no_trace(project: Project) -> None:
    project.migrate("0004")
    project.database.execute("CREATE VIEW public.big_orders AS SELECT * FROM b2b.orders WHERE grand_total > 100")
    with Application(project, "0004") as application:
        before = project.dump()
        preview = project.run("-e", "to_version=0002", "--check", "--diff")
        assert preview.returncode == 0, preview.output
        assert preview.report is None
        assert not project.backups.exists()
        assert application.running
        assert project.dump() == before
        assert "public.big_orders" in preview.output
        assert "planned" in preview.output.splitlines()[-12:] or "PLANNED" in preview.output
        application.release_file.write_text("0002\n", encoding="utf-8")
        run = project.run("-e", "to_version=0002", "--diff")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output

    def diff_of(output: str) -> list[str]:
        return [line for line in output.splitlines() if line.startswith("-") and not line.startswith("---")]

    assert diff_of(preview.output)
    assert diff_of(preview.output) == diff_of(run.output)
    assert run.report is not None
    cascaded = [
        item["identity"] for item in run.report["effect"]["dropped"] if item["cascaded"] and not item["part_of"]
    ]
    assert "public.big_orders" in cascaded


@pytest.mark.parametrize(
    "version",
    ["../../etc/passwd", "", "[1, 2]", "0042"],
)
def test_a_version_that_is_none_touches_nothing(project: Project, version: str) -> None:
    project.migrate("0003", orders=5)
    before = project.dump()
    run = project.run("-e", '{"version": %s}' % (version if version.startswith("[") else f'"{version}"'))
    assert run.returncode != 0
    assert run.outcome == "refused", run.output
    assert "Traceback" not in run.output
    assert (project.dump(), project.published()) == (before, [])


def test_an_integer_finds_its_migration_also_where_yaml_made_it_from_an_octal(project: Project) -> None:
    project.migrate("0003", orders=5)
    variables = project.folder / "vars.yml"
    variables.write_text("version: 0003\n", encoding="utf-8")
    run = project.run("-e", f"@{variables}")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert run.report["plan"]["versions"] == ["0003"]


def test_the_row_of_a_ledger_goes_in_the_same_transaction(project: Project) -> None:
    project.settings |= {"rollback_ledger_table": "public.schema_migrations"}
    project.migrate("0003", orders=5, ledger=True)
    run = project.run("-e", "version=0003")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert project.database.execute("SELECT version FROM public.schema_migrations ORDER BY 1") == [("0001",), ("0002",)]
    again = project.run("-e", "version=0003")
    assert (again.returncode, again.outcome) == (0, "nothing_to_do"), again.output
