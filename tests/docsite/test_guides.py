# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides: each command is run as it stands there, here or because README.md has the same one, and their examples are right."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.cypher.rollback.plugins.module_utils.notification import notify_problems
from ansible_collections.cypher.rollback.plugins.module_utils.outcome import RULES
from ansible_collections.cypher.rollback.plugins.module_utils.smoke import smoke_test_problems

from tests.support.documentation import GUIDES, blocks
from tests.support.reader import RUN_BLOCKS, Reader, guide_yaml, readme_yaml, shell
from tests.support.runbook import REPOSITORY, Application, Project, git
from tests.support.settings_table import PAGE, SECTIONS, settings, settings_page

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

PAGES = sorted(path.stem for path in GUIDES.glob("*.rst"))


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """A shop at 0003 in git, whose release 0002 has the tag of the guides."""
    project = Project(tmp_path / "own", database)
    project.migrate("0003", orders=20)
    return project


@pytest.fixture
def application(project: Project) -> Iterator[Application]:
    """The shop, which will be looked at as the release after the rollback."""
    with Application(project, "0003") as running:
        running.release_file.write_text("0002\n", encoding="utf-8")
        yield running


@pytest.fixture
def reader(tmp_path: Path, project: Project, application: Application) -> Reader:
    assert application.running
    return Reader(tmp_path, project)


def test_a_rollback_is_previewed_answered_and_its_undoing_previewed(reader: Reader, project: Project) -> None:
    git(project.project, "init", "--quiet", "--initial-branch=main")
    git(project.project, "add", "--all")
    git(project.project, "commit", "--quiet", "-m", "0002")
    git(project.project, "tag", "v1.4.2")
    project.settings["rollback_require_checklist"] = True
    reader.write_inventory()
    before = project.dump()
    several = reader.follow_guide("guide_preview", "several_preview")
    assert several.returncode == 0, several.output
    assert "WOULD BE LOST" in several.output
    previous = reader.follow_guide("guide_previous_code", "previous_preview")
    assert previous.returncode == 0, previous.output
    assert "v1.4.2" in previous.output
    assert (project.dump(), project.backups.exists()) == (before, False)
    run = reader.follow_guide("guide_verification", "checklist")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert run.report["severity"]["level"] == "High"
    assert "Ana" in json.dumps(run.report["checklists"]["before"])
    after = project.dump()
    undo = reader.follow_guide("guide_undo", "undo_preview")
    assert undo.returncode == 0, undo.output
    assert project.published()[0].name in undo.output
    assert project.dump() == after


def test_backups_are_read_and_their_removal_previewed(reader: Reader, project: Project) -> None:
    for _time in range(2):
        reader.succeed("backup", "backed_up")
    older, newest = project.published()
    project.settings["rollback_backup_keep"] = 1
    reader.write_inventory()
    listed = reader.follow_guide("guide_backups", "read")
    assert listed.returncode == 0, listed.output
    assert re.search(rf"{newest.name} .* yes\b", listed.output), listed.output
    preview = reader.follow_guide("guide_backups", "expire_preview")
    assert preview.returncode == 0, preview.output
    assert older.name in preview.output
    assert project.published() == [older, newest]


def test_single_objects_are_taken_back(reader: Reader, project: Project) -> None:
    project.database.execute(
        "ALTER TABLE b2b.orders ADD COLUMN new_column int; CREATE TABLE b2b.new_table (id int);"
        " CREATE INDEX idx_new ON b2b.orders (notes)"
    )
    before = project.dump()
    preview = reader.follow_guide("guide_one_object", "column_preview")
    assert preview.returncode == 0, preview.output
    assert "new_column" in preview.output
    assert project.dump() == before
    # Beside it stands the shop, healthy as the release that its tables fit.
    (project.project / "release.txt").write_text("0003\n", encoding="utf-8")
    for name, gone in (("index", "b2b.idx_new"), ("table", "b2b.new_table")):
        run = reader.follow_guide("guide_one_object", name)
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert project.database.execute(f"SELECT to_regclass('{gone}')") == [(None,)]


def test_a_run_that_died_is_gone_on_with(reader: Reader, application: Application) -> None:
    died = reader.paste(RUN_BLOCKS["rollback"], KILL_AFTER="rollback")
    assert died.report is None, died.output
    folder = died.folder
    listed = reader.follow_guide("guide_resume", "history")
    assert folder.name in listed.output, listed.output
    run = reader.follow_guide("guide_resume", "resume", RUN_ID=folder.name)
    assert run.returncode == 0, run.output
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["outcome"] == "rolled_back"
    assert application.health() == 200


@functools.cache
def constants(path: Path) -> set[str]:
    """The literal texts of a file of tests."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@functools.cache
def files_that_run(page: str) -> tuple[Path, ...]:
    """Files of tests that name a guide, and those that import the helpers that do."""
    every = sorted((REPOSITORY / "tests").rglob("*.py"))
    naming = [path for path in every if page in constants(path)]
    helpers = [f"tests.support.{path.stem} import" for path in naming if path.parent.name == "support"]
    texts = {path: path.read_text(encoding="utf-8") for path in every if helpers}
    return (*naming, *(path for path, text in texts.items() if any(helper in text for helper in helpers)))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_guide_is_run(page: str) -> None:
    """It has a mark, and README.md has the same command, or tests name the guide and the mark."""
    named = set().union(*(constants(path) for path in files_that_run(page)))
    text = (GUIDES / f"{page}.rst").read_text(encoding="utf-8")
    found = blocks(page)
    assert len(found) == len(re.findall(r"code-block:: *(?:bash|sh|shell|console)\b|^\$ ", text, re.MULTILINE))
    for name, body in found:
        assert name, f"{page} has a command without a mark: {body}"
        assert RUN_BLOCKS.get(name) == body or name in named, f"no test runs {name} of {page}"


def test_the_guides_are_those_of_the_site() -> None:
    listed = yaml.safe_load((GUIDES.parent / "extra-docs.yml").read_text(encoding="utf-8"))["sections"]
    names = [name for section in listed for name in section["toctree"]]
    assert sorted(names) == PAGES
    for name in names:
        label = f".. _ansible_collections.cypher.rollback.docsite.{name}:"
        assert label in (GUIDES / f"{name}.rst").read_text(encoding="utf-8"), name


def test_the_page_of_the_settings_is_that_of_the_argument_specs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == settings_page(), "run: python -m tests.support.settings_table"
    assert set(re.findall(r"^   \* - ``(\w+)``$", text, re.MULTILINE)) == set(settings())
    names = list(settings())
    starts = [names.index(name) for _title, name in SECTIONS]
    assert starts == sorted(starts)
    assert starts[0] == 0


def test_the_outcomes_are_those_of_the_collection() -> None:
    text = (GUIDES / "reference_outcomes.rst").read_text(encoding="utf-8").split("What is refused")[0]
    assert set(re.findall(r"^   \* - ``(\w+)``$", text, re.MULTILINE)) == {outcome for outcome, _rule in RULES}


@functools.cache
def known_names() -> frozenset[str]:
    """Settings, and whatever else that begins with rollback_ the collection itself uses."""
    folders = ("extensions", "playbooks", "plugins", "roles")
    files = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.suffix in {".py", ".yml"}]
    return frozenset(name for path in files for name in re.findall(r"\brollback_\w+", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_and_playbook_that_a_guide_names_exists(page: str) -> None:
    text = (GUIDES / f"{page}.rst").read_text(encoding="utf-8")
    assert set(re.findall(r"``(rollback_\w+)(?::[^`]*)?``", text)) - known_names() == set()
    playbooks = {path.stem for path in (REPOSITORY / "playbooks").glob("*.yml")}
    named = set(re.findall(r"ansible-playbook [^\n]*\bcypher\.rollback\.(\w+)", text))
    assert named - playbooks == set()


def test_the_examples_of_the_guides_would_be_taken() -> None:
    assert guide_yaml("guide_getting_started") == readme_yaml()
    (channels,) = guide_yaml("guide_notifications")
    told = json.loads(json.dumps(channels).replace("{{ vault_slack_url }}", "https://hooks.slack.com/services/x"))
    assert notify_problems(told["rollback_notify"], told["rollback_contacts"]) == []
    assert {channel["type"] for channel in told["rollback_notify"]} == {"slack", "email", "webhook", "command"}
    (checks,) = guide_yaml("guide_verification")
    assert smoke_test_problems(checks["rollback_smoke_tests"]) == []
    allowed = settings()
    for page in PAGES:
        for example in guide_yaml(page):
            named = {name for name in example if name.startswith("rollback_")}
            assert named - set(allowed) == set(), page


def test_the_commands_of_contributing_are_run() -> None:
    """Those that change nothing are run, of make's it is asked what it would do."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    page = PAGE.read_bytes()
    for line in commands:
        asked = line.replace("make ", "make --dry-run ", 1) if line.startswith("make ") else line
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTEST_"))}
        done = shell(asked.replace(".venv/bin/", f"{Path(sys.executable).parent}/"), REPOSITORY, inherited)
        assert done.returncode == 0, done.stdout + done.stderr
    assert PAGE.read_bytes() == page
    assert len(commands) >= 10
