# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release: in a clone, where it succeeds, where it is repeated, and where it has to refuse."""

from __future__ import annotations

import hashlib
import re
import subprocess
import typing as t

import pytest
import yaml

from tests import release as tool
from tests.support.artifact_content import content_problems
from tests.support.runbook import REPOSITORY

if t.TYPE_CHECKING:
    from pathlib import Path


def git(checkout: Path, *arguments: str) -> None:
    person = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    subprocess.run(["git", "-C", str(checkout), *person, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of what is in this checkout, released once."""
    checkout = tool.copy_checkout(REPOSITORY, tmp_path_factory.mktemp("release") / "rollback")
    git(checkout, "init", "--quiet", "--initial-branch=main")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "-m", "What is to be released")
    assert tool.release(checkout, "none").parent == checkout / "dist"
    return checkout


def test_the_release_is_an_archive_with_its_changelog_and_checksum(released: Path) -> None:
    archive = released / "dist" / "cypher-rollback-1.0.0.tar.gz"
    assert content_problems(archive, released) == []
    checksum, name = archive.with_name(f"{archive.name}.sha256").read_text(encoding="utf-8").split()
    assert (checksum, name) == (hashlib.sha256(archive.read_bytes()).hexdigest(), archive.name)
    files = tool.content_of(archive)
    changelog = (released / "CHANGELOG.rst").read_bytes()
    assert b"\nv1.0.0\n======\n" in changelog
    assert files["CHANGELOG.rst"] == hashlib.sha256(changelog).hexdigest()
    assert "changelogs/changelog.yaml" in files
    assert [name for name in files if name.startswith("changelogs/fragments/")] == []
    notes = yaml.safe_load((released / "changelogs" / "changelog.yaml").read_text(encoding="utf-8"))
    assert list(notes["releases"]) == ["1.0.0"]


def test_once_more_it_says_that_it_is_there(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = released / "dist" / "cypher-rollback-1.0.0.tar.gz"
    before = archive.read_bytes()
    assert tool.release(released, "none") == archive
    assert "there already, with the same content" in capsys.readouterr().out
    assert archive.read_bytes() == before


def test_what_cannot_be_released_is_said_in_one_sentence_and_nothing_is_built(released: Path, tmp_path: Path) -> None:
    checkout = tool.copy_checkout(released, tmp_path / "rollback")
    with pytest.raises(tool.ReleaseError, match="Run this in a clone of the repository"):
        tool.release(checkout, "none")
    git(checkout, "init", "--quiet", "--initial-branch=main")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "-m", "Release 1.0.0")
    readme = checkout / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + "More.\n", encoding="utf-8")
    with pytest.raises(tool.ReleaseError, match=re.escape("not committed: README.md. Nothing was built.")):
        tool.release(checkout, "none")
    git(checkout, "tag", "v1.0.0")
    git(checkout, "commit", "--quiet", "--all", "-m", "More")
    with pytest.raises(tool.ReleaseError, match="has its tag already"):
        tool.release(checkout, "none")
    galaxy = checkout / "galaxy.yml"
    galaxy.write_text(galaxy.read_text(encoding="utf-8").replace("version: 1.0.0", "version: 1.0.1"), encoding="utf-8")
    git(checkout, "commit", "--quiet", "--all", "-m", "Next")
    with pytest.raises(tool.ReleaseError, match=re.escape("tells what is new in 1.0.1")):
        tool.release(checkout, "none")
    assert not (checkout / "dist").exists()
