# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a project before it is stopped, and another image for it."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.cypher.rollback.plugins.module_utils.compose import ComposeRefused
from ansible_collections.cypher.rollback.plugins.module_utils.compose_image import ImageWanted, change_image
from ansible_collections.cypher.rollback.plugins.module_utils.compose_info import Question, look

from tests.support.compose_project import LIMIT_SECONDS, PULL_POLICY, PYTHON_IMAGE, REPOSITORY, engine_problem

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose_project import ComposeProject

#: The stages stop and restart of one host, without what a run has beside them.
STAGES = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    rollback_app_services: [web]
    rollback_app_timeout: 30
    rollback_run_id: ""
    stop_host: localhost
    restart_host: localhost
    restart_only: [all]
    stop_result: &nothing {hosts: {}, changed: false, failed: false, message: "", to_restart: []}
    restart_result: *nothing
  tasks:
    - ansible.builtin.include_tasks: "{{ tasks }}"
    - ansible.builtin.copy:
        content: "{{ (stop_result if stop_result.hosts else restart_result) | to_json }}"
        dest: "{{ rollback_project_dir }}/result.json"
      check_mode: false
"""


def question(project: ComposeProject, *services: str, **others: t.Any) -> Question:
    return Question(str(project.project), services, **others)


def test_what_could_not_be_stopped_and_started_is_named(project: ComposeProject, tmp_path: Path) -> None:
    def refusal(*services: str, **others: t.Any) -> str:
        with pytest.raises(ComposeRefused) as refused:
            look(question(project, *services, **others))
        return str(refused.value)

    port = int(project.values["ERP_DB_PORT"])
    assert "publishes rollback_db_port" in refusal("db", database_host="127.0.0.1", database_port=port)
    assert "rollback_pg_exec names it" in refusal("db", database_exec=["docker", "compose", "exec", "-T", "db"])
    assert "its image is" in refusal("db")
    both = refusal("nothing", "db")
    assert "no such service" in both
    assert "never stopped" in both
    with pytest.raises(ComposeRefused, match="cannot read the project"):
        look(Question(str(tmp_path), ["app"]))
    with pytest.raises(ComposeRefused, match="is no folder"):
        look(Question("/nowhere", ["app"]))

    paused = project.containers()["mail"]["Id"]
    subprocess.run(["docker", "pause", paused], check=True, capture_output=True)
    try:
        assert "docker unpause" in refusal("mail")
    finally:
        subprocess.run(["docker", "unpause", paused], check=True, capture_output=True)


def test_a_service_without_a_container_and_an_engine_that_is_away_are_refused(
    project: ComposeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (project.project / "compose.yaml").read_text(encoding="utf-8")
    try:
        (project.project / "compose.yaml").write_text(text + "\n  new:\n    image: new\n", encoding="utf-8")
        with pytest.raises(ComposeRefused, match="create new"):
            look(question(project, "new"))
    finally:
        (project.project / "compose.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(ComposeRefused, match="engine cannot be asked"):
        look(question(project, "app"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ComposeRefused, match="rollback_app_driver"):
        look(question(project, "app"))


def test_containers_are_told_with_what_is_worth_a_warning(project: ComposeProject) -> None:
    found = look(question(project, "app", "setup"))
    assert found["services"]["app"]["containers"][0]["state"] == "running"
    assert not found["services"]["app"]["changed"]
    [warning] = found["warnings"]
    assert "runs once and ends" in warning
    file = project.project / "compose.yaml"
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(text.replace("retries: 100", "retries: 99"), encoding="utf-8")
        found = look(question(project, "app"))
    finally:
        file.write_text(text, encoding="utf-8")
    assert found["services"]["app"]["changed"]
    assert "was changed since its container was made" in found["warnings"][0]


def test_another_image_changes_one_value_and_no_container(project: ComposeProject) -> None:
    file, before = project.environment_file, project.looks()
    text = file.read_text(encoding="utf-8")
    now = project.values["APP_TAG"]
    other = "0003" if now == "0004" else "0004"
    wanted = ImageWanted(str(project.project), "APP_TAG", other, ["app", "worker"])
    os.chmod(file, 0o640)
    try:
        asked = change_image(wanted, make_change=False)
        assert (asked["changed"], asked["previous_image"], file.read_text(encoding="utf-8")) == (True, now, text)
        done = change_image(wanted)
        assert done["stale"] == ["app", "worker"]
        assert file.read_text(encoding="utf-8") == text.replace(f"APP_TAG={now}", f"APP_TAG={other}")
        assert file.stat().st_mode & 0o777 == 0o640
        assert [path.name for path in project.project.glob(".env*")] == [".env"]
        assert not change_image(wanted)["changed"]
        assert project.looks() == before
    finally:
        file.write_text(text, encoding="utf-8")
        os.chmod(file, 0o600)


def test_an_image_that_is_not_there_or_not_used_is_refused(project: ComposeProject) -> None:
    text = project.environment_file.read_bytes()
    folder = str(project.project)
    with pytest.raises(ComposeRefused, match="docker pull cypher-erp-test:0001"):
        change_image(ImageWanted(folder, "APP_TAG", "0001", ["app"]))
    with pytest.raises(ComposeRefused, match="takes its image from APP_TAG"):
        change_image(ImageWanted(folder, "APP_TAG", "0001", ["mail"]))
    assert project.environment_file.read_bytes() == text


#: Docker whose Compose ends well where it waited in vain, as it does now and then in the moment in which its time is up.
HASTY_DOCKER = """#!/bin/sh
case " $* " in
  *" up "*) {docker} "$@" 2>/dev/null; exit 0 ;;
esac
exec {docker} "$@"
"""

#: The stages previous_code and restart of two hosts, of which the first answers no more.
BOTH = """
- hosts: db1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: cypher.rollback.previous_code}
    - ansible.builtin.include_role: {name: cypher.rollback.restart}
"""


class Small:
    """A project with one service, in a file that ``.env`` names, as ``docker compose`` alone would not find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"cypher{secrets.token_hex(4)}"
        (folder / ".env").write_text(f"COMPOSE_FILE=compose.prod.yaml\nCOMPOSE_PROJECT_NAME={self.name}\nDB_HOST=db\n")
        self.define(1)

    def define(self, replicas: int, image: str = PYTHON_IMAGE, **more: t.Any) -> None:
        web = {
            "image": image,
            "pull_policy": PULL_POLICY,
            "init": True,
            "command": ["python3", "-c", "import signal; signal.pause()"],
            "environment": {"DB_HOST": "${DB_HOST}"},
            "deploy": {"replicas": replicas},
            **more,
        }
        (self.folder / "compose.prod.yaml").write_text(yaml.safe_dump({"services": {"web": web}}))

    def compose(self, *words: str) -> str:
        return run("docker", "compose", *words, cwd=self.folder)

    def states(self) -> dict[str, str]:
        listed = map(json.loads, self.compose("ps", "--all", "--format", "json").splitlines())
        return {one["Name"].removeprefix(f"{self.name}-"): one["State"] for one in listed}

    def stage(self, name: str, *words: str) -> dict[str, t.Any]:
        play = self.folder / "stage.yml"
        play.write_text(STAGES, encoding="utf-8")
        tasks = REPOSITORY / "roles" / name / "tasks" / "docker_compose.yml"
        program = str(Path(sys.executable).parent / "ansible-playbook")
        run(program, "-e", f"tasks={tasks}", "-e", f"rollback_project_dir={self.folder}", *words, str(play))
        return dict(json.loads((self.folder / "result.json").read_text(encoding="utf-8")))


def run(*command: str, cwd: Path | None = None, ends: int = 0) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    assert done.returncode == ends, done.stdout + done.stderr
    return done.stdout + (done.stderr if ends else "")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    problem = engine_problem()
    if problem:
        pytest.skip(problem)
    project = Small(tmp_path)
    try:
        project.compose("up", "--detach")
        yield project
    finally:
        project.compose("down", "--timeout", "1", "--remove-orphans")


def test_a_stop_removes_no_container_and_a_start_is_one_of_all_of_them(small: Small) -> None:
    small.compose("up", "--detach", "--scale", "web=3")
    with pytest.raises(ComposeRefused, match="web has 3 containers, and the compose file wants 1"):
        look(Question(str(small.folder), ["web"]))

    previewed = small.stage("stop", "--check")
    assert previewed["message"] == "localhost: web would be stopped."
    assert set(small.states().values()) == {"running"}
    stopped = small.stage("stop")
    assert (stopped["failed"], stopped["to_restart"], stopped["message"]) == (
        False,
        ["localhost/web"],
        "localhost: web stopped.",
    )
    assert small.states() == dict.fromkeys(("web-1", "web-2", "web-3"), "exited")

    small.define(3)
    run("docker", "start", f"{small.name}-web-1")
    started = small.stage("restart")
    assert (started["failed"], started["message"]) == (False, "localhost: web started.")
    assert small.states() == dict.fromkeys(("web-1", "web-2", "web-3"), "running")
    assert look(Question(str(small.folder), ["web"]))["warnings"] == []


def test_a_service_that_the_release_does_not_have_keeps_no_other_down(small: Small) -> None:
    small.compose("stop", "--timeout", "1")
    release = {"hosts": {"localhost": {"changed": True, "commit": "a", "previous_commit": "b"}}}
    own = {"rollback_app_services": ["web", "newer"], "previous_code_result": release}
    started = small.stage("restart", "-e", json.dumps(own))
    assert (started["failed"], started["message"]) == (False, "localhost: web started.")
    [warning] = started["warnings"]
    assert warning.startswith("localhost: newer was not started")
    # What is named and not there is no word for every service.
    small.compose("stop", "--timeout", "1")
    assert not small.stage("restart", "-e", json.dumps({"restart_only": ["localhost/newer"]}))["failed"]
    assert small.states() == {"web-1": "exited"}


def test_a_start_whose_health_check_did_not_pass_is_no_success_although_docker_compose_ended_well(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.define(1, healthcheck={"test": ["CMD", "false"], "interval": "1s", "retries": 100})
    small.compose("create", "--force-recreate", "web")
    hasty = tmp_path / "bin" / "docker"
    hasty.parent.mkdir()
    hasty.write_text(HASTY_DOCKER.format(docker=shutil.which("docker")), encoding="utf-8")
    hasty.chmod(0o755)
    monkeypatch.setenv("PATH", f"{hasty.parent}:{os.environ['PATH']}")
    started = small.stage("restart", "-e", json.dumps({"rollback_app_timeout": 2}))
    assert started["failed"], started
    assert started["message"] == (
        f"localhost: web is not proven to run: {small.name}-web-1 runs, and its health check says starting. "
        f"Its log: docker logs --tail 50 {small.name}-web-1"
    )
    assert small.states() == {"web-1": "running"}


@pytest.mark.parametrize(
    ("restart", "said"), [("always", "keeps restarting"), ("no", r"ended within seconds|has exited \(exit code 3\)")]
)
def test_a_service_without_a_health_check_that_does_not_stay_up_is_no_success(
    small: Small, restart: str, said: str
) -> None:
    small.define(1, command=["python3", "-c", "import time; time.sleep(1.5); exit(3)"], restart=restart)
    small.compose("create", "--force-recreate", "web")
    started = small.stage("restart")
    assert started["failed"], started
    # On a busy machine it has ended before it is looked at the first time.
    assert re.match(rf"localhost: web does not run: {small.name}-web-1 ({said})", started["message"]), started
    assert started["message"].endswith(f"Its log: docker logs --tail 50 {small.name}-web-1")


def test_a_container_of_compose_run_is_refused_while_it_runs_and_told_as_nothing_afterwards(small: Small) -> None:
    name = small.compose("run", "--detach", "--name", f"{small.name}-by-hand", "web").split()[-1]
    with pytest.raises(ComposeRefused, match=f"docker stop {small.name}-by-hand"):
        look(Question(str(small.folder), ["web"]))
    run("docker", "stop", "--time", "1", name)
    try:
        found = look(Question(str(small.folder), ["web"]))
        assert ([one["name"] for one in found["services"]["web"]["containers"]], found["warnings"]) == (
            [f"{small.name}-web-1"],
            [],
        )
    finally:
        run("docker", "rm", name)


def test_a_host_that_is_lost_before_its_image_changes_keeps_no_other_down(small: Small) -> None:
    small.define(1, f"{small.name}:${{TAG}}")
    with (small.folder / ".env").open("a") as file:
        file.write("TAG=v2\n")
    for tag in ("v1", "v2"):
        run("docker", "tag", PYTHON_IMAGE, f"{small.name}:{tag}")
    own: dict[str, t.Any] = {
        "ansible_python_interpreter": sys.executable,
        "rollback_app_driver": "docker_compose",
        "rollback_app_hosts": ["app1", "app2"],
        "rollback_app_services": ["web"],
        "rollback_app_timeout": 30,
        "rollback_image_variable": "TAG",
        "rollback_local_changes": "refuse",
        "rollback_previous_image": "v1",
        "rollback_previous_ref": "",
        "rollback_project_dir": str(small.folder),
        "rollback_run_dir": "",
        "rollback_run_id": "",
        "rollback_submodules": True,
        "previous_code_releases": None,
    }
    hosts: dict[str, t.Any] = {name: {"ansible_connection": "local"} for name in ("db1", "app2")}
    hosts["app1"] = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    (small.folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": own}}))
    (small.folder / "both.yml").write_text(BOTH, encoding="utf-8")
    small.compose("stop", "--timeout", "1")
    try:
        program = str(Path(sys.executable).parent / "ansible-playbook")
        said = run(program, "-i", str(small.folder / "hosts.yml"), str(small.folder / "both.yml"), ends=2)
        assert "app1: Nothing was started, because its code was not put back" in " ".join(said.split())
        listed = json.loads(small.compose("ps", "--format", "json"))
        assert (listed["State"], listed["Image"]) == ("running", f"{small.name}:v1")
    finally:
        small.compose("rm", "--force", "--stop")
        run("docker", "rmi", f"{small.name}:v1", f"{small.name}:v2")


def test_a_project_that_the_start_would_not_take_as_it_is_is_refused(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "compose.yaml").write_text((tmp_path / "compose.prod.yaml").read_text())
    with pytest.raises(ComposeRefused, match="the folder that holds the compose file"):
        look(Question(str(inside), ["web"]))
    link = tmp_path / "current"
    link.symlink_to(tmp_path)
    look(Question(str(link), ["web"]))

    monkeypatch.setenv("COMPOSE_PROJECT_NAME", small.name)
    monkeypatch.setenv("DB_HOST", "localhost")
    with pytest.raises(ComposeRefused, match=r"^DB_HOST has another value .* unset DB_HOST\."):
        look(Question(str(small.folder), ["web"]))


def test_a_project_that_was_started_under_another_name_is_refused_with_the_line_that_names_it(
    small: Small, tmp_path: Path
) -> None:
    other = f"{small.name}other"
    link = tmp_path / "current"
    link.symlink_to(tmp_path)
    text = (tmp_path / ".env").read_text()
    small.compose("--project-directory", str(link), "-p", other, "up", "--detach")
    try:
        [warning] = look(Question(str(tmp_path), ["web"]))["warnings"]
        assert f"docker compose -p {other} stop web" in warning
        small.compose("rm", "--force", "--stop")
        with pytest.raises(ComposeRefused) as refused:
            look(Question(str(tmp_path), ["web"]))
        assert f"web has no container in the Compose project {small.name}, and the project {other}" in str(
            refused.value
        )
        assert "has one that runs" in str(refused.value)
        assert "create" not in str(refused.value)
        # The line that it tells to write is what helps.
        assert f"Write COMPOSE_PROJECT_NAME={other} into .env" in str(refused.value)
        (tmp_path / ".env").write_text(text.replace(small.name, other))
        found = look(Question(str(tmp_path), ["web"]))
        assert (found["services"]["web"]["containers"][0]["name"], found["warnings"]) == (f"{other}-web-1", [])
    finally:
        (tmp_path / ".env").write_text(text)
        small.compose("-p", other, "down", "--timeout", "1")
