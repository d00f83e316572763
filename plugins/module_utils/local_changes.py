# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tracked files of a checkout that were changed by hand: refused, or kept in git's stash until the way back."""

from __future__ import annotations

import typing as t

from .git import CheckoutFailed, Git, ReleaseRefused

if t.TYPE_CHECKING:
    from collections.abc import Sequence

#: How many changed files a message names.
NAMED_FILES = 10

STASH_MESSAGE = "cypher.rollback: local changes before the previous release was checked out"

#: A stash is a commit, and git makes none without a name.
_IDENTITY = (
    "-c",
    "user.name=cypher.rollback",
    "-c",
    "user.email=cypher.rollback@localhost",
    "-c",
    "commit.gpgsign=false",
)


def named(files: Sequence[str]) -> str:
    """Some files by name, and how many more there are."""
    more = f" and {len(files) - NAMED_FILES} more" if len(files) > NAMED_FILES else ""
    return ", ".join(files[:NAMED_FILES]) + more


def changed_files(git: Git) -> list[str]:
    """Tracked files with changes of their own, staged ones included. What is inside a submodule is its own matter.

    :raises ReleaseRefused: when git cannot tell.
    """
    said = git("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=all")
    if said.exit_code != 0:
        raise ReleaseRefused(f"git cannot tell the state of {git.folder}: {said.error}.")
    return [entry[3:] for entry in said.output.split("\0") if entry]


def refuse_changes(git: Git, files: Sequence[str]) -> None:
    """:raises ReleaseRefused: naming the files, where there are any."""
    if files:
        raise ReleaseRefused(
            f"The checkout {git.folder} has local changes in {named(files)}. Commit them, keep them aside for the time "
            f"of the previous release (rollback_local_changes=stash), or leave rollback_previous_ref empty."
        )


def refuse_files_in_the_way(git: Git, commit: str) -> None:
    """Untracked files that the release would bring itself. Git refuses them too, but only once the changes are stashed.

    :raises ReleaseRefused: naming them.
    """
    brought = set(git.lines("diff", "--name-only", "--no-renames", "--diff-filter=A", "-z", "HEAD", commit))
    untracked = git.lines("ls-files", "--others", "--full-name", "-z", "--", ":/")
    found = [name for name in untracked if name in brought]
    if found:
        raise ReleaseRefused(
            f"Untracked files are in the way of {commit[:12]} in {git.folder}: {named(found)}. Move them elsewhere. "
            "Nothing was changed."
        )


def stash(git: Git) -> str:
    """Put the changes aside; the commit that holds them.

    :raises CheckoutFailed: when git does not.
    """
    said = git(*_IDENTITY, "stash", "push", "--quiet", "--message", STASH_MESSAGE)
    kept = git("rev-parse", "--verify", "--quiet", "refs/stash").output.strip()
    if said.exit_code != 0 or not kept or changed_files(git):
        raise CheckoutFailed(
            f"git did not stash the local changes in {git.folder}: {said.error or 'it gave no reason'}."
        )
    return kept


def bring_back(git: Git, kept: str) -> bool:
    """Apply a stash to the release that it was taken from, staged files staged again, and forget it; whether it was there.

    :raises CheckoutFailed: when it does not apply; the stash is then kept.
    """
    entry = next((name for name, commit in _stashes(git) if commit == kept), "")
    if not entry:
        return False
    said = git(*_IDENTITY, "stash", "apply", "--quiet", "--index", kept)
    if said.exit_code != 0:
        raise CheckoutFailed(
            f"The local changes in {git.folder} could not be brought back: {said.error or 'git gave no reason'}. They are kept: "
            f"git -C {git.folder} stash apply --index {kept}"
        )
    git("stash", "drop", "--quiet", entry)
    return True


def _stashes(git: Git) -> list[tuple[str, str]]:
    said = git("stash", "list", "--format=%gd %H")
    return [(line.split()[0], line.split()[1]) for line in said.output.splitlines() if len(line.split()) == 2]
