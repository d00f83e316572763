# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a project before it is stopped, and another image for it."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import os
import subprocess
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.compose import ComposeRefused
from ansible_collections.cypher.rollback.plugins.module_utils.compose_image import ImageWanted, change_image
from ansible_collections.cypher.rollback.plugins.module_utils.compose_info import Question, look

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.support.compose_project import ComposeProject


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
