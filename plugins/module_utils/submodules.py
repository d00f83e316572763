# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Submodules of a checkout: those that are checked out follow the release, from what is on the host already."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .git import CheckoutFailed, Git, ReleaseRefused, one_line
from .local_changes import changed_files, named

if t.TYPE_CHECKING:
    from collections.abc import Iterator

#: Mode of a submodule in a tree, see gitdatamodel(7).
_GITLINK = "160000"


@dataclasses.dataclass(frozen=True)
class Submodule:
    """A submodule of a release.

    :param path: below the top of the checkout.
    :param commit: that the release names.
    """

    path: str
    commit: str


class Submodules:
    """The submodules of the checkout that a folder is in."""

    def __init__(self, git: Git) -> None:
        top = git("rev-parse", "--show-toplevel").output.rstrip("\n")
        self.git = Git(top or git.folder)

    def of(self, commit: str) -> list[Submodule]:
        """Those that a commit names."""
        entries = [entry.split(None, 3) for entry in self.git.lines("ls-tree", "-r", "-z", commit)]
        return [Submodule(entry[3], entry[2]) for entry in entries if len(entry) == 4 and entry[0] == _GITLINK]

    def followed(self, commit: str) -> list[Submodule]:
        """Those of a commit that are checked out now, or that git still keeps from another release.

        One that nobody checked out on this host is not used by its application.
        """
        current = {item.path for item in self.of("HEAD")}
        return [item for item in self.of(commit) if self._is_there(item.path) or item.path not in current]

    def refuse(self, commit: str) -> None:
        """Ask whether they can follow to a commit, without changing anything.

        :raises ReleaseRefused: when one holds changes, or lacks the commit.
        """
        for item in self.of("HEAD"):
            if self._is_there(item.path):
                self._refuse_changes(item)
        for item in self.followed(commit):
            if not any(git.has_commit(item.commit) for git in self._repositories(item, commit)):
                place = os.path.join(self.git.folder, item.path)
                raise ReleaseRefused(
                    f"The submodule {item.path} has no commit {item.commit[:12]}, which the release needs. Fetch it: "
                    f"git -C {place} fetch --all; or set rollback_submodules=false where the application does not use it."
                )

    def follow(self) -> list[str]:
        """Check out what the current commit names; the paths that were changed.

        :raises CheckoutFailed: when git does not.
        """
        wanted = [item for item in self.followed("HEAD") if self._commit_of(item.path) != item.commit]
        if not wanted:
            return []
        paths = [item.path for item in wanted]
        # Offline: what is needed is there, as was asked before.
        said = self.git("submodule", "--quiet", "update", "--init", "--checkout", "--no-fetch", "--", *paths)
        behind = [item.path for item in wanted if self._commit_of(item.path) != item.commit]
        if said.exit_code != 0 or behind:
            raise CheckoutFailed(
                f"git did not check out the submodule {named(behind or paths)} in {self.git.folder}: "
                f"{one_line(said.error) or 'it gave no reason'}."
            )
        return paths

    def _is_there(self, path: str) -> bool:
        return os.path.lexists(os.path.join(self.git.folder, path, ".git"))

    def _in(self, path: str) -> Git:
        return Git(os.path.join(self.git.folder, path))

    def _commit_of(self, path: str) -> str:
        if not self._is_there(path):
            return ""
        return self._in(path)("rev-parse", "--verify", "--quiet", "HEAD^{commit}").output.strip()

    def _refuse_changes(self, item: Submodule) -> None:
        files = changed_files(self._in(item.path))
        if files:
            raise ReleaseRefused(
                f"The submodule {item.path} of {self.git.folder} has local changes in {named(files)}. Commit them or put "
                "them aside there, or set rollback_submodules=false."
            )
        now = self._commit_of(item.path)
        if now != item.commit:
            raise ReleaseRefused(
                f"The submodule {item.path} of {self.git.folder} is at {now[:12]}, and its release says {item.commit[:12]}. "
                f"Correct that: git -C {self.git.folder} submodule update -- {item.path}; or set rollback_submodules=false."
            )

    def _repositories(self, item: Submodule, commit: str) -> Iterator[Git]:
        """Where its objects may be: in its folder, and where git keeps those of submodules of other releases."""
        if self._is_there(item.path):
            yield self._in(item.path)
        kept = self.git("rev-parse", "--path-format=absolute", "--git-path", "modules").output.rstrip("\n")
        for name in self._names(item.path, commit):
            if kept and os.path.isdir(os.path.join(kept, name)):
                yield Git(os.path.join(kept, name))

    def _names(self, path: str, commit: str) -> list[str]:
        said = self.git("config", "--blob", f"{commit}:.gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$")
        pairs = [entry.partition("\n") for entry in said.output.split("\0") if entry]
        return [key[len("submodule.") : -len(".path")] for key, _newline, value in pairs if value == path]
