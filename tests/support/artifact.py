# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the collection and installs the archive where nothing of the checkout can be found."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from tests.support.settings_table import REPOSITORY

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
        """Where the collection is."""
        return self.tree / "ansible_collections" / "cypher" / "rollback"


def program(name: str) -> str:
    """A program of the environment that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def collections_folder() -> Path:
    """The folder that holds the dependencies, beside this Python's packages.

    :raises AssertionError: they are not installed.
    """
    for folder in sys.path:
        root = Path(folder) / "ansible_collections"
        if (root / "community" / "postgresql").is_dir():
            return root
    raise AssertionError("community.postgresql is not installed: run make setup")


def link_dependencies(tree: Path) -> None:
    """Put the collections that this one builds on into a tree, as links."""
    for name in DEPENDENCIES:
        link = tree / "ansible_collections" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(collections_folder() / name, target_is_directory=True)


def install_artifact(folder: Path) -> Artifact:
    """Build the archive in a folder, and install it in a tree below, beside the collections that it builds on.

    :raises subprocess.CalledProcessError: ansible-galaxy failed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = {**inherited, "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_NOCOLOR": "1", "HOME": str(folder)}
    build = [program("ansible-galaxy"), "collection", "build", "--output-path", str(folder), str(REPOSITORY)]
    subprocess.run(build, env=environment, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("cypher-rollback-*.tar.gz")
    tree = folder / "tree"
    link_dependencies(tree)
    # The folders beside Python's own packages hold the checkout: they are left out.
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(tree), "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}
    install = [program("ansible-galaxy"), "collection", "install", "--offline", "-p", str(tree), str(archive)]
    subprocess.run(install, env=environment, cwd=folder, check=True, capture_output=True)
    return Artifact(archive, tree, environment)
