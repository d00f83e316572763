# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Git on the application's host: asks nothing, fetches nothing and runs no hook."""

from __future__ import annotations

import dataclasses
import os
import subprocess

from .errors import NeedsAttention, Refused

GIT_LIMIT_SECONDS = 300


class ReleaseRefused(Refused):
    """The release cannot be checked out, found without changing anything."""


class CheckoutFailed(NeedsAttention):
    """Git did not change to the release."""


@dataclasses.dataclass(frozen=True)
class Said:
    """What git said."""

    exit_code: int
    output: str
    error: str


def git_environment() -> dict[str, str]:
    """An environment in which git asks nothing, speaks English and takes the repository from its folder alone."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(("GIT_CONFIG", "GIT_SSH"))
    }
    return {**inherited, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8", "LANGUAGE": "C"}


def one_line(text: str) -> str:
    """Text without line breaks."""
    return " ".join(text.split())


@dataclasses.dataclass(frozen=True)
class Git:
    """Git in one folder."""

    folder: str

    def __call__(self, *words: str) -> Said:
        """Run one command of git.

        :raises ReleaseRefused: when git is not there.
        :raises CheckoutFailed: when it does not end.
        """
        # The checkout's own hooks are code that nobody reviewed for this moment: they do not run.
        argv = ["git", "-C", self.folder, "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false", *words]
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=GIT_LIMIT_SECONDS,
                env=git_environment(),
                check=False,
            )
        except FileNotFoundError as err:
            raise ReleaseRefused(
                "git is not installed on this host. Install it, or leave rollback_previous_ref empty."
            ) from err
        except subprocess.TimeoutExpired as err:
            raise CheckoutFailed(f"git {words[0]} in {self.folder} did not end within {GIT_LIMIT_SECONDS} s.") from err
        return Said(
            done.returncode, done.stdout.decode("utf-8", "replace"), one_line(done.stderr.decode("utf-8", "replace"))
        )

    def lines(self, *words: str) -> list[str]:
        """What a command lists with ``-z``; nothing where it fails."""
        said = self(*words)
        return [entry for entry in said.output.split("\0") if entry] if said.exit_code == 0 else []

    def has_commit(self, commit: str) -> bool:
        """Whether a commit is in this repository."""
        return self("cat-file", "-e", f"{commit}^{{commit}}").exit_code == 0
