# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built collection, installed somewhere else: what it holds, and that it runs without the checkout."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import typing as t

import pytest

from tests.support.artifact import Artifact, install_artifact, link_dependencies, program
from tests.support.artifact_content import content_problems
from tests.support.runbook import REPOSITORY, Application, Project

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return install_artifact(tmp_path_factory.mktemp("artifact"))


def test_the_archive_holds_what_runs_and_not_what_tests(artifact: Artifact) -> None:
    assert content_problems(artifact.archive) == []


def test_what_does_not_belong_into_an_archive_is_named(artifact: Artifact, tmp_path: Path) -> None:
    """An archive that lacks a playbook, holds a test and a script's compiled form, and names another version."""
    spoilt = tmp_path / artifact.archive.name.replace("1.0.0", "9.9.9")
    with tarfile.open(artifact.archive) as archive, tarfile.open(spoilt, "w:gz") as other:
        for member in archive.getmembers():
            if member.name != "playbooks/rollback.yml":
                other.addfile(member, archive.extractfile(member) if member.isfile() else None)
        for name in ("tests/conftest.py", "plugins/modules/stage.pyc"):
            other.addfile(tarfile.TarInfo(name))
    said = " ".join(content_problems(spoilt))
    for expected in ("playbooks/rollback.yml", "tests/conftest.py", "plugins/modules/stage.pyc", "9.9.9"):
        assert expected in said


def test_no_other_copy_of_the_collection_is_found(artifact: Artifact, tmp_path: Path) -> None:
    link_dependencies(tmp_path)
    done = subprocess.run(
        [program("ansible-playbook"), "--syntax-check", "cypher.rollback.rollback"],
        cwd=tmp_path,
        env={**artifact.environment, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "cypher.rollback" in done.stdout + done.stderr


def test_the_installed_collection_takes_a_migration_back(
    artifact: Artifact, tmp_path: Path, database: Database
) -> None:
    project = Project(tmp_path / "shop", database)
    project.migrate("0003")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Application(project, "0003") as application:
        application.release_file.write_text("0002\n", encoding="utf-8")
        done = subprocess.run(
            [
                *(program("ansible-playbook"), "-i", str(project.inventory()), "cypher.rollback.rollback"),
                *("-e", "version=0003", "-vvv"),
            ],
            cwd=elsewhere,
            env={**artifact.environment, "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        assert application.health() == 200
    assert database.execute("SELECT to_regclass('b2b.orders')") == [(None,)]
    assert [folder.name for folder in project.run_folders()]
    used = [line.split()[-1] for line in output.splitlines() if line.startswith("Using module file ")]
    ours = [path for path in used if "/cypher/rollback/" in path]
    assert [path for path in ours if not path.startswith(f"{artifact.installed}/")] == []
    assert f"{REPOSITORY}/" not in output.replace(sys.prefix, "")
