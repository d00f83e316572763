# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built collection, installed somewhere else: what it holds, and that it runs without the checkout."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tarfile
import typing as t
from pathlib import Path

import pytest

from tests.support.runbook import REPOSITORY, Application, Project

if t.TYPE_CHECKING:
    from tests.conftest import Database

#: Where setup_venv.py puts the collections that this one builds on.
DEPENDENCIES = ("ansible/posix", "community/docker", "community/library_inventory_filtering_v1", "community/postgresql")


@dataclasses.dataclass(frozen=True)
class Artifact:
    """The archive, the tree in which it is installed, and an environment that knows no other copy."""

    archive: Path
    tree: Path
    environment: dict[str, str]

    @property
    def installed(self) -> Path:
        return self.tree / "ansible_collections" / "cypher" / "rollback"


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def collections_folder() -> Path:
    """The folder that holds the dependencies, beside this Python's packages."""
    for folder in sys.path:
        root = Path(folder) / "ansible_collections"
        if (root / "community" / "postgresql").is_dir():
            return root
    raise AssertionError("community.postgresql is not installed: run make setup")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("artifact")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = {**inherited, "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_NOCOLOR": "1", "HOME": str(folder)}
    build = [program("ansible-galaxy"), "collection", "build", "--output-path", str(folder), str(REPOSITORY)]
    subprocess.run(build, env=environment, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("cypher-rollback-*.tar.gz")
    tree = folder / "tree"
    for name in DEPENDENCIES:
        link = tree / "ansible_collections" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(collections_folder() / name, target_is_directory=True)
    # The folders beside Python's own packages hold the checkout: they are left out.
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(tree), "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}
    install = [program("ansible-galaxy"), "collection", "install", "--offline", "-p", str(tree), str(archive)]
    subprocess.run(install, env=environment, cwd=folder, check=True, capture_output=True)
    return Artifact(archive, tree, environment)


def test_the_archive_holds_what_runs_and_not_what_tests(artifact: Artifact) -> None:
    with tarfile.open(artifact.archive) as archive:
        names = archive.getnames()
    assert {"README.md", "LICENSE", "CHANGELOG.rst", "MANIFEST.json", "meta/runtime.yml"} <= set(names)
    assert {"playbooks/rollback.yml", "playbooks/stages/recover.yml", "plugins/modules/db_rollback.py"} <= set(names)
    first = {name.split("/")[0] for name in names}
    assert first <= {
        "CHANGELOG.rst", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "ansible.cfg", "changelogs", "docs", "extensions",
        "inventories", "meta", "playbooks", "plugins", "requirements.txt", "requirements.yml", "roles",
    }  # fmt: skip
    assert [name for name in names if name.endswith((".pyc", "__pycache__", ".orig", ".retry"))] == []


def test_no_other_copy_of_the_collection_is_found(artifact: Artifact, tmp_path: Path) -> None:
    for name in DEPENDENCIES:
        link = tmp_path / "ansible_collections" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(collections_folder() / name, target_is_directory=True)
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
