# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""README.md: its commands are run as they stand there, and what it says about settings, outcomes and links is so."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.cypher.rollback.plugins.module_utils.notification import notify_problems
from ansible_collections.cypher.rollback.plugins.module_utils.outcome import RULES

from tests.runbook.test_artifact import DEPENDENCIES, collections_folder
from tests.support.runbook import LIMIT_SECONDS, REPOSITORY, Application, Project, Run
from tests.support.settings_table import README, settings, with_table

if t.TYPE_CHECKING:
    from tests.conftest import Database

TEXT = README.read_text(encoding="utf-8")
RUN_BLOCKS = dict(re.findall(r"<!-- run: (\w+) -->\n```bash\n(.*?)```", TEXT, re.DOTALL))
#: Setting up, the demo and all tests: the demo has a test of its own, and this is one of the tests.
OTHER_COMMANDS = {"make setup", ".venv/bin/ansible-playbook --version", "make demo", "make test"}


def shell(block: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a block as a person who pastes it into a shell."""
    return subprocess.run(
        ["sh", "-e"], input=block, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def at_terminal(block: str, folder: Path, environment: dict[str, str], answer: str) -> tuple[int, str]:
    """Run a block in a terminal of its own, in which somebody answers once asked; exit code and output."""
    terminal, its_end = pty.openpty()
    # A session of its own whose terminal this is: whoever is not in the foreground of one is not asked.
    command = ["setsid", "--ctty", "--wait", "sh", "-e", "-c", block]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=its_end, stdout=its_end, stderr=its_end
    ) as process:
        os.close(its_end)
        output, asked, deadline = b"", False, time.monotonic() + LIMIT_SECONDS
        with contextlib.suppress(OSError):  # the other end is closed
            while time.monotonic() < deadline:
                if select.select([terminal], [], [], 0.5)[0]:
                    output += os.read(terminal, 65536)
                    continue
                # What is typed before the question is read is thrown away, so it is typed until the run goes on.
                _before, question, after = output.partition(b"Are you sure? (yes/no)")
                asked = bool(question)
                if asked and b"TASK [" not in after:
                    os.write(terminal, f"{answer}\r".encode())
        os.close(terminal)
    assert asked, output.decode(errors="replace")
    return process.returncode, output.decode(errors="replace")


class Reader:
    """Somebody who follows README.md in a checkout, with a database of their own."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder = folder
        self.project = project
        for name in ("playbooks", "roles", "ansible.cfg"):
            (folder / name).symlink_to(REPOSITORY / name)
        (folder / ".venv").symlink_to(sys.prefix)
        self.write_inventory()

    def write_inventory(self) -> None:
        """The example, with the values of this database and application."""
        (block,) = re.findall(r"```yaml\n(erp_db:.*?)```", TEXT, re.DOTALL)
        inventory = yaml.safe_load(block)
        assert set(inventory["all"]["vars"]) <= set(settings())
        inventory["all"]["vars"] |= self.project.settings
        (self.folder / "shop").mkdir(exist_ok=True)
        (self.folder / "shop" / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    def follow(self, name: str, answer: str = "") -> Run:
        """Run a block of README.md, and answer the question that it asks."""
        before = set(self.project.run_folders())
        environment = self.project.environment()
        if answer:
            code, output = at_terminal(RUN_BLOCKS[name], self.folder, environment, answer)
        else:
            done = shell(RUN_BLOCKS[name], self.folder, environment)
            code, output = done.returncode, done.stdout + done.stderr
        new = [folder for folder in self.project.run_folders() if folder not in before]
        report = json.loads((new[0] / "report.json").read_text(encoding="utf-8")) if new else None
        return Run(code, output, report, new[0] if new else self.folder)

    def succeed(self, name: str, outcome: str, answer: str = "") -> Run:
        """The same, where it ends well and says how."""
        run = self.follow(name, answer)
        assert (run.returncode, run.outcome) == (0, outcome), run.output
        return run


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


def test_old_backups_are_removed_as_described(with_backups: tuple[Reader, Application]) -> None:
    reader, _application = with_backups
    project = reader.project
    for _time in range(2):
        reader.succeed("backup", "backed_up")
    newest = project.published()[-1]
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
    assert assessed.report["severity"]["level"] in {row.split("|")[1].strip() for row in LEVELS.splitlines()}
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


#: Rows of the table of levels.
LEVELS = TEXT.split("| level | what to do |\n|---|---|\n")[1].split("\n\n")[0]


def test_the_channels_of_the_example_are_right() -> None:
    (block,) = re.findall(r"```yaml\n(rollback_contacts:.*?)```", TEXT, re.DOTALL)
    example = yaml.safe_load(block.replace("{{ vault_slack_url }}", "https://hooks.slack.com/services/x"))
    assert notify_problems(example["rollback_notify"], example["rollback_contacts"]) == []
    kinds = {channel["type"] for channel in example["rollback_notify"]}
    assert kinds == {"slack", "email", "webhook", "command"}


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
    reader.succeed("rollback", "rolled_back")
    assert content(project) != before
    application.release_file.write_text("0003\n", encoding="utf-8")
    reader.succeed("undo", "restored")
    assert content(project) == before
    assert len(beside(project)) == 1
    assert application.health() == 200


def test_the_collection_is_installed_as_described(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.tar.gz")
    shutil.copytree(REPOSITORY, checkout, ignore=hidden)
    tree = tmp_path / "collections"
    for name in DEPENDENCIES:
        link = tree / "ansible_collections" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(collections_folder() / name, target_is_directory=True)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "ANSIBLE_COLLECTIONS_PATH": str(tree),
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
        "ANSIBLE_GALAXY_SERVER": "http://127.0.0.1:9",  # nobody listens there: all that is needed is here
        "PIP_NO_INDEX": "1",
    }
    done = shell(RUN_BLOCKS["install"], checkout, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = shell("ansible-playbook --syntax-check cypher.rollback.rollback", tmp_path, environment)
    assert listed.returncode == 0, listed.stdout + listed.stderr


def test_no_command_is_left_out() -> None:
    blocks = re.findall(r"(<!-- run: \w+ -->\n)?```bash\n(.*?)```", TEXT, re.DOTALL)
    assert len(RUN_BLOCKS) == 18
    others = {line for mark, block in blocks if not mark for line in block.splitlines()}
    assert others == OTHER_COMMANDS
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", " ".join([*others, *re.findall(r"`(make \w+)`", TEXT)])):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_settings_table_is_that_of_the_argument_specs() -> None:
    assert "| `rollback_db_host` |" in TEXT
    assert with_table(TEXT) == TEXT, "run: python -m tests.support.settings_table"


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"`(rollback_\w+)[`:]", TEXT))
    assert named
    assert named - set(settings()) == set()


def test_the_outcomes_are_those_of_the_collection() -> None:
    section = TEXT.split("### How a run ends")[1].split("###")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {outcome for outcome, _rule in RULES}


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
