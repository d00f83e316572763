# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the release of galaxy.yml's version into dist: python -m tests.release [--gates test|lint|none]

A clean checkout, the gates, the changelog from its fragments, the archive, a look into it, and its checksum. All of it happens in
a copy; the checkout gets the changelog, and dist the archive, only at the end. Once more, it says that it is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import typing as t
from pathlib import Path

import yaml

from tests.support.artifact_content import content_problems

REPOSITORY = Path(__file__).resolve().parent.parent
#: What a release changes in the checkout.
CHANGELOG = ("CHANGELOG.rst", "changelogs/changelog.yaml", "changelogs/fragments")


class ReleaseError(Exception):
    """Something the person who releases has to put right; the message says what."""


def main() -> int:
    """Release; 1 where it cannot be, with one sentence that says what to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gates", choices=["test", "lint", "none"], default="test", help="what must pass before [test]"
    )
    gates = parser.parse_args().gates
    try:
        release(REPOSITORY, gates)
    except ReleaseError as err:
        print(f"release: {err}", file=sys.stderr)
        return 1
    return 0


def release(checkout: Path, gates: str) -> Path:
    """Build the release of a checkout; the archive in its folder ``dist``.

    :raises ReleaseError: nothing was changed, and the message says why not.
    """
    galaxy = yaml.safe_load((checkout / "galaxy.yml").read_text(encoding="utf-8"))
    version = str(galaxy["version"])
    target = checkout / "dist" / "{namespace}-{name}-{version}.tar.gz".format_map(galaxy)
    check_clean(checkout, version)
    run_gates(checkout, gates)
    with tempfile.TemporaryDirectory(prefix="rollback-release-") as folder:
        copy = copy_checkout(checkout, Path(folder) / "ansible_collections" / "cypher" / "rollback")
        write_changelog(copy, version)
        archive = build(copy, Path(folder) / target.name)
        if target.is_file() and content_of(target) == content_of(archive):
            print(f"Release {version} is there already, with the same content: {target}")
            return target
        check_not_tagged(checkout, version)
        take_changelog(copy, checkout)
        publish(archive, target)
    print(f"Release {version}: {target}\n{what_is_left(version, target)}")
    return target


def check_clean(checkout: Path, version: str) -> None:
    """Refuse changes that are in no commit, other than the changelog that this release wrote before.

    :raises ReleaseError: with the files.
    """
    lines = git(checkout, "status", "--porcelain", "--untracked-files=all").splitlines()
    written = version in released(checkout)
    changed = [line[3:] for line in lines if not (written and line[3:].startswith(CHANGELOG))]
    if changed:
        raise ReleaseError(
            f"not committed: {', '.join(changed[:5])}. Nothing was built. "
            "Commit or remove them, and run make release again."
        )


def run_gates(checkout: Path, gates: str) -> None:
    """Run the gates of a level, their output shown.

    :raises ReleaseError: one failed.
    """
    command = [sys.executable, "-m", "tests.run_gates", gates]
    if gates != "none" and subprocess.run(command, cwd=checkout, check=False).returncode:
        raise ReleaseError(
            "a gate failed, see the table above. Nothing was built. Put it right, commit it, and run make release again."
        )


def check_not_tagged(checkout: Path, version: str) -> None:
    """Refuse another archive of a version that has its tag.

    :raises ReleaseError: with what to raise.
    """
    if git(checkout, "tag", "--list", version, f"v{version}"):
        raise ReleaseError(
            f"{version} has its tag already, and this checkout is not what was released. Nothing was built. "
            "Raise version in galaxy.yml, or check the tag out, and run make release again."
        )


def released(checkout: Path) -> list[str]:
    """The versions that the changelog has."""
    path = checkout / "changelogs" / "changelog.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return list(found.get("releases") or {})


def copy_checkout(checkout: Path, copy: Path) -> Path:
    """Copy what git knows, where Ansible's tools look for a collection."""
    for name in git(checkout, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        source = checkout / name
        if name and source.is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)
    return copy


def write_changelog(copy: Path, version: str) -> None:
    """Put the fragments into the changelog as this version, unless it is there.

    :raises ReleaseError: there is nothing to say about it, or a fragment is no use.
    """
    fragments = list((copy / "changelogs" / "fragments").glob("*.y*ml"))
    if version in released(copy):
        if fragments:
            raise ReleaseError(
                f"changelogs/changelog.yaml has {version} already, but {fragments[0].name} is not in it. Nothing was built. "
                "Raise version in galaxy.yml, and run make release again."
            )
        return
    if not fragments:
        raise ReleaseError(f"nothing in changelogs/fragments tells what is new in {version}. Write a fragment there.")
    run(copy, "antsibull-changelog", "release", "--version", version)


def build(copy: Path, archive: Path) -> Path:
    """Build the archive and look into it.

    :raises ReleaseError: it lacks something or holds too much.
    """
    run(copy, "ansible-galaxy", "collection", "build", "--output-path", str(archive.parent))
    problems = content_problems(archive, copy)
    if problems:
        raise ReleaseError(f"the archive is not what users should get: {' '.join(problems)} Nothing was written.")
    return archive


def content_of(archive: Path) -> dict[str, t.Any]:
    """Checksums of an archive's files by name, whatever their times."""
    with tarfile.open(archive) as opened:
        with t.cast("t.IO[bytes]", opened.extractfile("FILES.json")) as listed:
            entries = json.load(listed)["files"]
    return {entry["name"]: entry["chksum_sha256"] for entry in entries if entry["ftype"] == "file"}


def take_changelog(copy: Path, checkout: Path) -> None:
    """Bring the changelog of the release, and the removal of its fragments, into the checkout."""
    for name in ("CHANGELOG.rst", "changelogs/changelog.yaml"):
        shutil.copyfile(copy / name, checkout / name)
    for fragment in (checkout / "changelogs" / "fragments").glob("*.y*ml"):
        if not (copy / "changelogs" / "fragments" / fragment.name).exists():
            fragment.unlink()


def publish(archive: Path, target: Path) -> None:
    """Put the archive and its checksum into ``dist``, each by one rename."""
    target.parent.mkdir(exist_ok=True)
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    for path, content in (
        (target, archive.read_bytes()),
        (target.with_name(f"{target.name}.sha256"), f"{checksum}  {target.name}\n".encode()),
    ):
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(content)
        new.replace(path)


def what_is_left(version: str, target: Path) -> str:
    """What the person who releases does next."""
    return (
        "The checkout has the changelog. What is left:\n"
        f"  git add -A CHANGELOG.rst changelogs && git commit -m 'Release {version}' && git tag v{version}\n"
        f"  ansible-galaxy collection publish {target.relative_to(target.parent.parent)}"
    )


def git(checkout: Path, *arguments: str) -> str:
    """What git says.

    :raises ReleaseError: it is no checkout.
    """
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {arguments[0]} failed: {done.stderr.strip()}. Run this in a clone of the repository.")
    return done.stdout.rstrip("\n")


def run(folder: Path, name: str, *arguments: str) -> None:
    """Run a program of the environment that runs this, and show its output only where it fails.

    :raises ReleaseError: with the output.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    programs = Path(sys.executable).parent
    environment = {**inherited, "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])}
    done = subprocess.run(
        [str(programs / name), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReleaseError(f"{name} failed, and nothing was written: {(done.stdout + done.stderr).strip()}")


if __name__ == "__main__":
    sys.exit(main())
