# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The surveys of AWX ask for what the runbooks take: variables, choices and defaults of both are compared, and the contract's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.cypher.rollback.plugins.module_utils.answers import is_yes
from ansible_collections.cypher.rollback.plugins.module_utils.artifacts import of_job
from ansible_collections.cypher.rollback.plugins.module_utils.severity import ACTIONS
from ansible_collections.cypher.rollback.plugins.modules import db_backup_info

from tests.support.awx_server import survey_problem
from tests.support.documentation import blocks, command
from tests.support.runbook import REPOSITORY
from tests.support.settings_table import settings

Item = dict[str, t.Any]

ROLE = REPOSITORY / "roles" / "awx_templates"
PROJECT = REPOSITORY / "extensions" / "awx" / "project"
#: Where the contract is while the collection is made; a clone for itself has it not.
CONTRACT = REPOSITORY.parent / "shared" / "contract.md"


class Loader(yaml.SafeLoader):
    """Reads what is marked as no template."""


def unsafe(loader: Loader, node: yaml.MappingNode) -> dict[t.Hashable, t.Any]:
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor("!unsafe", unsafe)


def load(path: Path) -> t.Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 (a safe loader, with one more tag)


TABLE = load(ROLE / "vars" / "main.yml")
JOBS: list[Item] = TABLE["__awx_templates_jobs"]
WORKFLOWS: list[Item] = TABLE["__awx_templates_workflows"]
QUESTIONS = [
    pytest.param(question, id=f"{template['key']}-{question['variable']}")
    for template in [*JOBS, *WORKFLOWS]
    for question in template["survey"]
]


def extra_variables() -> dict[str, Item]:
    """The options that stand for an extra variable, as the argument specs of the roles say, by its name."""
    found: dict[str, Item] = {}
    for path in sorted(REPOSITORY.glob("roles/*/meta/argument_specs.yml")):
        for entry in load(path)["argument_specs"].values():
            for name, option in (entry.get("options") or {}).items():
                text = (
                    " ".join(option["description"])
                    if isinstance(option["description"], list)
                    else option["description"]
                )
                for variable in re.findall(r"[Dd]efault, the extra variable C\((\w+)\)", text):
                    found.setdefault(variable, option)
                if name == "checklist_confirmed":
                    found[name] = option
    level = yaml.safe_load(db_backup_info.DOCUMENTATION)["options"]["level"]
    return {**found, "verify": level, "expire": {"type": "bool"}}


EXTRA = extra_variables()
YES_OR_NO = {"confirm", "checklist_confirmed", "expire"}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_asks_for_a_variable_of_the_runbooks(question: Item) -> None:
    variable = question["variable"]
    spec = settings()[variable] if variable.startswith("rollback_") else EXTRA[variable]
    choices, default = question.get("choices"), question.get("default", "")
    if variable in YES_OR_NO:
        assert [is_yes(choice, variable) for choice in question["choices"]] == [False, True]
        assert default == "no"
    elif variable == "severity":
        assert choices == list(ACTIONS)
        assert default == ""
    else:
        assert choices == spec.get("choices")
        assert default == (spec.get("default") or "")
    # Nothing has to be typed: what has to be answered has an answer that does the least.
    assert question["required"] is bool(default)
    assert not spec.get("required")
    assert (question["type"] == "integer") is (spec.get("type") == "int" or variable == "rollback_max_rows_lost")


@pytest.mark.parametrize("template", [*JOBS, *WORKFLOWS], ids=lambda template: template["key"])
def test_the_controller_would_take_the_survey(template: Item) -> None:
    assert survey_problem({"name": "", "description": "", "spec": template["survey"]}) is None


def test_every_question_is_asked_somewhere() -> None:
    asked = [question for template in JOBS for question in template["survey"]]
    assert [one for one in TABLE["__awx_templates_questions"].values() if one not in asked] == []


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job["key"])
def test_a_job_runs_a_playbook_of_the_project(job: Item) -> None:
    (play,) = load(PROJECT / job["playbook"])
    assert play["import_playbook"] == f"cypher.rollback.{job['playbook'].removesuffix('.yml')}"


def test_the_project_has_every_runbook_that_a_person_starts() -> None:
    files = {path.name for path in PROJECT.glob("*.yml")}
    playbooks = {path.name for path in (REPOSITORY / "playbooks").glob("*.yml")}
    assert playbooks - files == {"ask_for_rollback.yml", "assess_for_watch.yml", "awx_configure.yml"}
    assert files <= playbooks


def test_a_workflow_asks_what_its_steps_need() -> None:
    surveys = {job["key"]: {question["variable"] for question in job["survey"]} for job in JOBS}
    for workflow in WORKFLOWS:
        asked = {question["variable"] for question in workflow["survey"]}
        for step in [node["job"] for node in workflow["nodes"] if "job" in node]:
            assert surveys[step] <= asked, f"{workflow['key']} does not ask all that {step} needs"


def test_the_standard_workflow_waits_for_somebody_and_the_emergency_does_not() -> None:
    approvals = {flow["key"]: [node for node in flow["nodes"] if node.get("approval")] for flow in WORKFLOWS}
    assert len(approvals["standard"]) == 1
    assert approvals["emergency"] == []


@pytest.mark.skipif(not CONTRACT.is_file(), reason="the contract is not beside this clone")
def test_the_surveys_have_the_extra_variables_of_the_contract() -> None:
    section = CONTRACT.read_text(encoding="utf-8").partition("## Extra vars of a run")[2].partition("\n## ")[0]
    names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert names
    assert set(names) <= set(EXTRA)
    asked = {
        question["variable"] for job in JOBS if job["key"] in {"rollback", "emergency"} for question in job["survey"]
    }
    assert set(names) <= asked


def test_what_a_job_leaves_to_the_next_is_no_setting_of_it() -> None:
    left = of_job({host: {"report": {}, "message": ""} for host in ("db1", "db2")})
    assert set(left) & (set(settings()) | set(EXTRA)) == set()


def test_an_empty_host_pattern_is_none_in_every_playbook() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in (REPOSITORY / "playbooks").rglob("*.yml")}
    assert [name for name, text in texts.items() if re.search(r"rollback_hosts \| default\('all'\)", text)] == []
    assert sum("rollback_hosts | default('all', true)" in text for text in texts.values()) > 10


def test_what_the_credential_gives_is_what_the_settings_read() -> None:
    injected = TABLE["__awx_templates_credential_injectors"]
    fields = [field["id"] for field in TABLE["__awx_templates_credential_inputs"]["fields"]]
    assert [name.removeprefix("template.") for name in injected["file"]] == fields
    defaults = (REPOSITORY / "roles" / "settings" / "defaults" / "main.yml").read_text(encoding="utf-8")
    read = re.findall(r"lookup\('cypher\.rollback\.secret_file', '(\w+)'\)", defaults)
    assert list(injected["env"]) == read
    assert [value for value in injected["env"].values() if "filename" not in value] == []


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment of somebody who has the collection installed for himself."""
    installed = tmp_path / ".ansible" / "collections" / "ansible_collections" / "cypher" / "rollback"
    installed.parent.mkdir(parents=True)
    installed.symlink_to(REPOSITORY, target_is_directory=True)
    names = {f"GIT_{who}_{what}": "dana@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, **names, "HOME": str(tmp_path), "PATH": path}


def follow(name: str, home: dict[str, str]) -> None:
    """Run a command of the guide."""
    done = subprocess.run(
        ["bash", "-e", "-c", command("guide_awx", name)],
        cwd=home["HOME"],
        env=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_project_of_the_guide_is_the_whole_one(home: dict[str, str]) -> None:
    follow("project", home)
    listed = subprocess.run(
        ["git", "ls-files"], cwd=Path(home["HOME"]) / "awx" / "project", capture_output=True, text=True, check=True
    )
    files = {str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*") if path.is_file()}
    assert set(listed.stdout.split()) == files


def test_the_execution_environment_has_the_clients_of_every_major(home: dict[str, str]) -> None:
    follow("project", home)
    own = Path(home["HOME"]) / "awx" / "project" / "collections" / "requirements.yml"
    own.write_text(
        "collections:\n  - {name: https://git.example.com/rollback, type: git, version: 1.0.0}\n", encoding="utf-8"
    )
    follow("environment", home)
    context = Path(home["HOME"]) / "cypher-rollback-ee"
    containerfile = (context / "Containerfile").read_text(encoding="utf-8")
    assert "pgdg-redhat-repo-latest" in containerfile
    galaxy_stage = containerfile.partition(" AS galaxy")[2].partition("\nFROM ")[0]
    assert galaxy_stage.index("dnf install -y git-core") < galaxy_stage.index("ansible-galaxy collection install")
    assert "python3.11" in containerfile
    system = (context / "_build" / "bindep.txt").read_text(encoding="utf-8")
    assert re.findall(r"^postgresql(\d+) ", system, re.MULTILINE) == ["15", "16", "17", "18"]
    assert (context / "_build" / "exclude-bindep.txt").read_text(encoding="utf-8").split() == ["postgresql"]
    galaxy = yaml.safe_load((context / "_build" / "requirements.yml").read_text(encoding="utf-8"))
    assert [collection["name"] for collection in galaxy["collections"]] == ["https://git.example.com/rollback"]
    # The distribution's own is left out only because the collection's list has it.
    assert "postgresql [platform:rpm]" in (REPOSITORY / "meta" / "ee-bindep.txt").read_text(encoding="utf-8")


def test_every_command_of_the_guide_is_run_by_a_test() -> None:
    assert [name for name, _text in blocks("guide_awx")] == ["project", "check", "configure", "environment"]
