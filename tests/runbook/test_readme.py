# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""README.md: its commands are run as they stand there, and what it says about settings and links is so."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

from tests.support.artifact import install_artifact, program
from tests.support.reader import RUN_BLOCKS, TEXT, Reader, readme_yaml, shell
from tests.support.runbook import REPOSITORY, Application, Project
from tests.support.settings_table import README, settings

if t.TYPE_CHECKING:
    from tests.conftest import Database

#: Setting up, the demo and all tests: the demo has a test of its own, and this is one of the tests.
OTHER_COMMANDS = {"make setup", ". .venv/bin/activate", "make demo", "make test"}


def test_the_commands_do_what_they_are_there_for(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path / "own", database)
    project.migrate("0003")
    with Application(project, "0003") as application:
        # The release that fits whatever is left of the database.
        application.release_file.write_text("0001\n", encoding="utf-8")
        reader = Reader(tmp_path, project)
        before = project.dump()
        preview = reader.follow("preview")
        assert preview.returncode == 0, preview.output
        assert preview.report is None
        assert "WOULD BE LOST" in preview.output
        assert (project.dump(), project.backups.exists()) == (before, False)
        run = reader.follow("rollback")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert {item.name for item in run.folder.iterdir()} >= {
            "report.json",
            "journal.jsonl",
            "report.html",
            "post-mortem.md",
        }
        assert {"manifest.json", "dump", "globals.sql"} <= {item.name for item in project.published()[0].iterdir()}
        verified = reader.follow("verify")
        assert verified.returncode == 0, verified.output
        several = reader.follow("several")
        assert (several.returncode, several.outcome) == (0, "rolled_back"), several.output
        assert several.report is not None
        assert several.report["plan"]["versions"] == ["0002"]
        subprocess.run(application.commands["stop"], check=True, capture_output=True)
        restarted = reader.follow("restart")
        assert restarted.returncode == 0, restarted.output
        assert application.health() == 200


@pytest.fixture
def with_backups(tmp_path: Path, database: Database) -> t.Iterator[tuple[Reader, Application]]:
    """Somebody with a database at 0003 and a shop on it; what is kept beside it goes at the end."""
    project = Project(tmp_path / "own", database)
    project.migrate("0003")
    with Application(project, "0003") as application:
        yield Reader(tmp_path, project), application
    for name in beside(project):
        database.server.drop_database(name)


def beside(project: Project) -> set[str]:
    """Databases whose names begin with that of the live one."""
    rows = project.database.server.execute("SELECT datname FROM pg_database")
    live = project.database.name
    return {name for (name,) in rows if name.startswith(live) and name != live}


def content(project: Project) -> str:
    """What :meth:`Project.dump` says, however the server spells the cast of a list: it does so otherwise after a restore."""
    whole = re.sub(r"\(ARRAY\[([^\]]*)\]\)::text\[\]", r"ARRAY[\1]", project.dump())
    return re.sub(r"\(('(?:[^']|'')*'::character varying)\)::text", r"\1", whole)


def test_backups_and_the_emergency_are_as_described(with_backups: tuple[Reader, Application]) -> None:
    reader, application = with_backups
    project = reader.project
    before = content(project)
    reader.succeed("backup", "backed_up")
    (backup,) = project.published()
    assert backup.name.startswith("backup_before_migration_0007_")
    assert {"manifest.json", "dump", "globals.sql", "schema.txt"} <= {item.name for item in backup.iterdir()}
    for name in ("backups", "proof"):
        listed = reader.follow(name)
        assert listed.returncode == 0, listed.output
        assert re.search(rf"{backup.name} .* yes\b", listed.output), listed.output
    assert beside(project) == set()

    project.database.execute("UPDATE b2b.products SET list_price = 0; DROP TABLE b2b.carts CASCADE")
    damaged = content(project)
    preview = reader.follow("emergency_preview")
    assert preview.returncode == 0, preview.output
    assert backup.name in preview.output
    assert (preview.report, content(project), beside(project)) == (None, damaged, set())
    restored = reader.succeed("emergency", "restored", answer="yes")
    assert content(project) == before
    (kept,) = beside(project)
    assert kept.startswith(f"{project.database.name}_replaced_")
    assert kept in restored.message
    assert application.health() == 200
    # Without the carts the shop of this release is not healthy, which is what swapping back is to find out.
    application.release_file.write_text("0002\n", encoding="utf-8")
    reader.succeed("swap_back", "restored")
    assert content(project) == damaged
    old_ones_go(reader, backup)


def old_ones_go(reader: Reader, old: Path) -> None:
    """Who keeps one backup has the newer one left."""
    project = reader.project
    reader.succeed("backup", "backed_up")
    (newest,) = set(project.published()) - {old}
    project.settings["rollback_backup_keep"] = 1
    reader.write_inventory()
    expired = reader.follow("expire")
    assert expired.returncode == 0, expired.output
    assert project.published() == [newest]


def test_tables_are_put_back_as_described(with_backups: tuple[Reader, Application]) -> None:
    reader, application = with_backups
    project = reader.project
    reader.succeed("backup", "backed_up")
    before = rows_of(project, "b2b.orders", "b2b.order_items")
    project.database.execute(
        "UPDATE b2b.orders SET notes = 'damaged'; DELETE FROM b2b.order_items; UPDATE b2b.products SET name = name || '!'"
    )
    others = rows_of(project, "b2b.products")
    run = reader.succeed("tables", "restored")
    assert rows_of(project, "b2b.orders", "b2b.order_items") == before
    assert rows_of(project, "b2b.products") == others
    assert run.report is not None
    tables = {table["identity"]: table for table in run.report["restore"]["put_back"]["tables"]}
    assert tables["b2b.orders"]["changed"] == 50
    assert tables["b2b.order_items"]["missing"] == 150
    assert len(project.published()) == 2
    assert beside(project) == set()
    assert application.health() == 200


def test_the_problem_is_assessed_and_one_object_taken_back_as_described(
    with_backups: tuple[Reader, Application],
) -> None:
    reader, application = with_backups
    project = reader.project
    assessed = reader.succeed("assess", "assessed")
    assert assessed.report is not None
    assert assessed.report["severity"]["level"] in {"Critical", "High", "Medium", "Low"}
    project.database.execute("ALTER TABLE b2b.orders ADD COLUMN new_column int; UPDATE b2b.orders SET new_column = 1")
    run = reader.succeed("column", "rolled_back")
    assert run.report is not None
    assert run.report["effect"]["rows_lost"] == 50
    columns = "SELECT 1 FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'new_column'"
    assert project.database.execute(columns) == []
    assert application.health() == 200
    listed = reader.follow("history")
    assert listed.returncode == 0, listed.output
    assert "rolled_back" in listed.output
    assert (project.backups / "runs" / "index.html").is_file()


def rows_of(project: Project, *tables: str) -> list[t.Any]:
    """All rows of these tables as text."""
    return [
        project.database.server.execute(f"SELECT o::text FROM {table} AS o ORDER BY 1", project.database.name)
        for table in tables
    ]


def test_a_rollback_is_undone_as_described(with_backups: tuple[Reader, Application]) -> None:
    reader, application = with_backups
    project = reader.project
    before = content(project)
    application.release_file.write_text("0002\n", encoding="utf-8")
    rolled_back = reader.succeed("rollback", "rolled_back")
    assert content(project) != before
    application.release_file.write_text("0003\n", encoding="utf-8")
    undone = reader.succeed("undo", "restored")
    assert content(project) == before
    assert undone.report is not None
    assert rolled_back.folder.name in undone.report["restore"]["why"]
    assert len(beside(project)) == 1
    assert application.health() == 200


def test_from_an_archive_to_a_first_preview(tmp_path: Path, database: Database) -> None:
    """The install block and the first inventory, where nothing of the checkout can be found."""
    project = Project(tmp_path / "shop", database)
    project.migrate("0003")
    before = project.dump()
    artifact = install_artifact(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copy(artifact.archive, folder)
    # Galaxy and the package index are out of reach: what the block wants of them is here.
    shutil.copytree(artifact.tree, folder / "collections", symlinks=True, ignore=shutil.ignore_patterns("cypher"))
    environment = {
        **artifact.environment,
        "PATH": os.pathsep.join([str(Path(program("pip")).parent), os.environ["PATH"]]),
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_GALAXY_SERVER": "http://127.0.0.1:9",  # nobody listens there
        "PIP_NO_INDEX": "1",
        "PYTHON": sys.executable,
    }
    installed = shell(RUN_BLOCKS["install"], folder, environment)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert (folder / "collections" / "ansible_collections" / "cypher" / "rollback" / "MANIFEST.json").is_file()
    inventory = readme_yaml()[0]
    assert list(inventory) == ["erp_db", "all"]
    mine = {name: value for name, value in project.settings.items() if name != "rollback_app_driver"}
    inventory["all"]["vars"] |= mine
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    preview = shell(RUN_BLOCKS["preview"], folder, environment)
    assert preview.returncode == 0, preview.stdout + preview.stderr
    assert "WOULD BE LOST" in preview.stdout
    assert (project.dump(), project.backups.exists()) == (before, False)


def test_no_command_is_left_out() -> None:
    blocks = re.findall(r"(<!-- run: \w+ -->\n)?```bash\n(.*?)```", TEXT, re.DOTALL)
    others = {line for mark, block in blocks if not mark for line in block.splitlines()}
    assert others == OTHER_COMMANDS
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", " ".join([*others, *re.findall(r"`(make \w+)`", TEXT)])):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    # Each mark is followed by a test of this file.
    texts = {
        node.value
        for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    }
    assert len(RUN_BLOCKS) >= 18
    assert set(RUN_BLOCKS) - texts == set()


def test_the_environment_of_a_checkout_is_activated_as_described(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    done = shell(
        ". .venv/bin/activate\nansible-playbook --syntax-check cypher.rollback.rollback",
        tmp_path,
        {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"`(rollback_\w+)[`:]", TEXT))
    assert named
    assert named - set(settings()) == set()


@pytest.mark.parametrize(
    "path", [*sorted(REPOSITORY.glob("roles/*/README.md")), README], ids=lambda path: path.parent.name
)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_every_role_is_described() -> None:
    roles = [folder for folder in (REPOSITORY / "roles").iterdir() if (folder / "tasks").is_dir()]
    assert len(roles) >= 10
    assert [role.name for role in roles if not (role / "README.md").is_file()] == []
