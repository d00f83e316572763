# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused of a project before anything is stopped, with a docker command that answers as it is told."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.compose import Compose, ComposeRefused
from ansible_collections.cypher.rollback.plugins.module_utils.compose_info import Question, look

if t.TYPE_CHECKING:
    from pathlib import Path

#: Answers as Docker Compose does: variables of the environment before those of .env.
DOCKER = """#!/bin/sh
case "$*" in
  *"version --short"*) cat version ;;
  *"config --hash"*) echo "web 0a" ;;
  "compose config"*) cat plain 2>/dev/null || sed "s/@/${DB_HOST-db}/" file ;;
  *config*) sed "s/@/${DB_HOST-db}/" file ;;
  "ps "*) cat elsewhere 2>/dev/null || test ! -e away ;;
  *ps*) cat containers ;;
esac
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        docker = folder / "docker"
        docker.write_text(DOCKER, encoding="utf-8")
        docker.chmod(0o755)
        (folder / ".env").write_text("# \nDB_HOST=db\nexport UNUSED=1\n", encoding="utf-8")
        self.write("version", "2.26.1-4")
        self.define()
        self.have(("web", "shop-web-1", "running", "False"))

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def define(self, **more: t.Any) -> None:
        web = {"image": "shop:1", "environment": {"DB_HOST": "@"}, **more}
        self.write("file", json.dumps({"name": "shop", "services": {"web": web}}))

    def have(self, *containers: tuple[str, str, str, str]) -> None:
        lines = [
            json.dumps(
                {"Service": service, "Name": name, "State": state, "Labels": f"com.docker.compose.oneoff={once}"}
            )
            for service, name, state, once in containers
        ]
        self.write("containers", "\n".join(lines) + "\n")

    def have_elsewhere(self, *containers: tuple[str, str, str, str]) -> None:
        """Containers of any project, by service, project, folder and state."""
        self.write("elsewhere", "".join("\t".join(container) + "\n" for container in containers))

    def look(self, **more: t.Any) -> dict[str, t.Any]:
        return look(Question(str(self.folder), ["web"], **more))

    def refusal(self) -> str:
        with pytest.raises(ComposeRefused) as refused:
            self.look()
        return str(refused.value)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("DB_HOST", raising=False)
    return Project(tmp_path)


def test_a_project_with_nothing_in_the_way_is_told(project: Project) -> None:
    assert [one["name"] for one in project.look()["services"]["web"]["containers"]] == ["shop-web-1"]
    project.write("version", "dev\n")
    assert Compose(str(project.folder)).version() == ()
    project.look()


def test_a_service_with_more_or_fewer_containers_than_the_file_wants_is_refused(project: Project) -> None:
    two = [("web", f"shop-web-{number}", "running", "False") for number in (1, 2)]
    project.have(*two)
    said = project.refusal()
    assert "web has 2 containers, and the compose file wants 1: the start would remove 1" in said
    assert f"docker compose --project-directory {project.folder} up --detach --no-deps --no-recreate web" in said
    for definition in ({"scale": 2}, {"deploy": {"replicas": 2}}):
        project.define(**definition)
        assert len(project.look()["services"]["web"]["containers"]) == 2
    project.have(two[0])
    assert "web has 1 container, and the compose file wants 2: the start would make 1" in project.refusal()


def test_a_container_of_compose_run_is_none_of_the_service_s_and_refused_while_it_runs(project: Project) -> None:
    own = ("web", "shop-web-1", "running", "False")
    project.have(own, ("web", "shop-web-run-1", "exited", "True"), ("other", "shop-other-run-1", "running", "True"))
    found = project.look()
    assert (len(found["services"]["web"]["containers"]), found["warnings"]) == (1, [])
    project.have(own, ("web", "shop-web-run-1", "running", "True"))
    assert "docker stop shop-web-run-1" in project.refusal()
    project.have(("web", "shop-web-run-1", "exited", "True"))
    assert "web has no container" in project.refusal()


def test_a_value_of_the_run_that_would_take_the_place_of_the_applications_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same value, and one that the project does not take, change nothing.
    monkeypatch.setenv("DB_HOST", "db")
    monkeypatch.setenv("UNUSED", "2")
    project.look()
    monkeypatch.setenv("DB_HOST", "localhost")
    said = project.refusal()
    assert said.startswith("DB_HOST has another value in the environment of this run than in ")
    assert "unset DB_HOST." in said
    assert "localhost" not in said
    # The containers that are only started again keep what they have.
    assert project.look(makes_anew=False)["warnings"] == [said]


def test_a_project_that_the_start_would_take_for_another_and_an_old_compose_are_refused(project: Project) -> None:
    project.write("plain", json.dumps({"name": "another", "services": {}}))
    assert "the folder that holds the compose file" in project.refusal()
    project.write("version", "v2.17.3")
    assert "Docker Compose is 2.17, and has to be 2.18 or newer" in project.refusal()


def test_a_service_that_runs_in_another_project_of_the_folder_is_refused_and_not_made_a_second_time(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.have()
    assert project.refusal().startswith(
        "web has no container in the Compose project shop, and a rollback makes and pulls none."
    )
    own, link = str(project.folder), tmp_path_factory.mktemp("links") / "current"
    link.symlink_to(own)
    others = [
        ("web", "theirs", "/srv/elsewhere", "running"),
        ("db", "x", own, "running"),
        ("web", "shop", own, "running"),
    ]
    project.have_elsewhere(*others)
    assert "create web" in project.refusal()
    # The folder is the same one by whichever name Docker Compose was told it, and so is the project's.
    for started_in, told in ((own, own), (str(link), own), (own, str(link))):
        project.have_elsewhere(*others, ("web", "x", started_in, "running"))
        with pytest.raises(ComposeRefused) as refused:
            look(Question(told, ["web"]))
        assert str(refused.value) == (
            f"web has no container in the Compose project shop, and the project x, which was made from the same folder {told}, has one "
            "that runs: a rollback would not stop it. Write COMPOSE_PROJECT_NAME=x into .env in that folder, or start it under the "
            "project's own name, shop."
        )
    project.have_elsewhere(("web", "x", own, "exited"), ("web", "y", own, "created"))
    assert "the projects x and y, which were made from the same folder" in project.refusal()
    assert "create" not in project.refusal()


def test_a_service_that_runs_in_another_project_beside_its_own_is_a_warning(project: Project) -> None:
    project.have_elsewhere(("web", "x", str(project.folder), "running"), ("web", "y", str(project.folder), "exited"))
    [warning] = project.look()["warnings"]
    assert warning == (
        f"web runs in the Compose project x as well, which was made from the same folder {project.folder}, and only that of the "
        "project shop is stopped. Where the other uses this database, stop it first: docker compose -p x stop web."
    )


def test_an_engine_that_does_not_tell_of_other_projects_is_refused(project: Project) -> None:
    project.write("away", "")
    assert "engine cannot be asked" in project.refusal()
