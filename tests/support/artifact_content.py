# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection's archive must hold, and what it must not: for users, without what makes and tests it."""

from __future__ import annotations

import fnmatch
import json
import re
import tarfile
import typing as t

from tests.support.settings_table import REPOSITORY

if t.TYPE_CHECKING:
    from pathlib import Path

#: Folders whose files users need, every one that is in git.
FOLDERS = ("changelogs", "docs", "extensions", "inventories", "meta", "playbooks", "plugins", "roles")
#: Files beside them.
FILES = ("CHANGELOG.rst", "LICENSE", "README.md", "requirements.txt", "requirements.yml")
#: What ansible-galaxy writes.
WRITTEN = ("FILES.json", "MANIFEST.json")
#: Left behind by programs, wherever it is.
REMAINS = ("*.pyc", "*__pycache__*", "*.orig", "*.rej", "*.retry", "*.swp", "*~", "*.tar.gz", "*/.*", ".*")
#: Comes and goes with a release.
CHANGELOG = ("changelogs/fragments/*", "changelogs/changelog.yaml")

_SECRET = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\$ANSIBLE_VAULT;")


def content_problems(archive: Path, folder: Path = REPOSITORY) -> list[str]:
    """What is wrong with an archive, a sentence each; none where it can be given to users.

    :param folder: what it was built from.
    :raises tarfile.TarError: it is no archive.
    """
    with tarfile.open(archive) as opened:
        files = {member.name: member for member in opened.getmembers() if member.isfile()}
        folders = {member.name for member in opened.getmembers() if member.isdir()}
        texts = {name: _read(opened, member) for name, member in files.items()}
    problems = [f"{name} is missing." for name in sorted(wanted(folder) - set(files))]
    allowed = {*FOLDERS, *FILES, *WRITTEN}
    problems += [f"{name} does not belong into it." for name in sorted({*files, *folders}) if _foreign(name, allowed)]
    problems += [f"{name} holds a secret." for name, text in texts.items() if _SECRET.search(text)]
    return problems + _version_problems(archive.name, texts.get("MANIFEST.json", b"{}"))


def wanted(folder: Path) -> set[str]:
    """The files that users need: whatever is in these folders and is neither a program's remains nor a part of the changelog."""
    there = {
        path.relative_to(folder).as_posix() for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file()
    }
    left_out = (*REMAINS, *CHANGELOG)
    return {*FILES, *(name for name in there if not any(fnmatch.fnmatch(name, pattern) for pattern in left_out))}


def _foreign(name: str, allowed: set[str]) -> bool:
    return name.split("/", maxsplit=1)[0] not in allowed or any(fnmatch.fnmatch(name, pattern) for pattern in REMAINS)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with t.cast("t.IO[bytes]", archive.extractfile(member)) as content:
        return content.read()


def _version_problems(name: str, manifest: bytes) -> list[str]:
    version = json.loads(manifest).get("collection_info", {}).get("version", "none")
    return [] if f"-{version}.tar.gz" in name else [f"{name} holds version {version}."]
