# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application's code: which release is checked out, and another one instead of it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import typing as t

from .errors import NeedsAttention, Refused

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GIT_LIMIT_SECONDS = 300

#: How many changed files a message names.
NAMED_FILES = 10

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NO_REF = re.compile(r"^-|[\x00-\x20\x7f]|^$")


class ReleaseRefused(Refused):
    """The release cannot be checked out, found without changing anything."""


class CheckoutFailed(NeedsAttention):
    """Git did not change to the release."""


@dataclasses.dataclass(frozen=True)
class Checkout:
    """What is checked out. ``branch`` is empty when HEAD is detached."""

    commit: str
    branch: str


@dataclasses.dataclass(frozen=True)
class Release:
    """A ref and the commit that it names."""

    ref: str
    commit: str


def git_environment() -> dict[str, str]:
    """An environment in which git asks nothing, speaks English and takes the repository from its folder alone."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(("GIT_CONFIG", "GIT_SSH"))
    }
    return {**inherited, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8", "LANGUAGE": "C"}


@dataclasses.dataclass(frozen=True)
class Said:
    """What git said."""

    exit_code: int
    output: str
    error: str


class Repository:
    """The git checkout of the application.

    :param folder: ``rollback_project_dir``; it may be a folder inside the checkout.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def _git(self, *words: str) -> Said:
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
            done.returncode, done.stdout.decode("utf-8", "replace"), _one_line(done.stderr.decode("utf-8", "replace"))
        )

    def current(self) -> Checkout:
        """What is checked out now.

        :raises ReleaseRefused: when the folder is no git checkout that may be used.
        """
        if not os.path.isdir(self.folder):
            raise ReleaseRefused(f"rollback_project_dir {self.folder!r} is no folder on this host.")
        inside = self._git("rev-parse", "--is-inside-work-tree")
        if "dubious ownership" in inside.error:
            raise ReleaseRefused(
                f"git refuses {self.folder}, because it belongs to another user than {_user()}. Run as its owner "
                f"(ansible_become_user), or allow it: git config --global --add safe.directory {self.folder}"
            )
        if inside.exit_code != 0 or inside.output.strip() != "true":
            raise ReleaseRefused(
                f"rollback_project_dir {self.folder!r} is no git checkout: {inside.error or 'it has no work tree'}. "
                "Leave rollback_previous_ref empty where the code comes another way."
            )
        head = self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if head.exit_code != 0:
            raise ReleaseRefused(f"The checkout {self.folder} has no commit yet.")
        return Checkout(head.output.strip(), self._git("symbolic-ref", "--quiet", "--short", "HEAD").output.strip())

    def resolve(self, ref: str) -> Release:
        """The commit of a ref, from what is in the checkout: nothing is fetched.

        :raises ReleaseRefused: when it names none.
        """
        if _NO_REF.search(ref):
            raise ReleaseRefused(f"rollback_previous_ref {ref!r} is no name of a tag, branch or commit.")
        found = self._git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        commit = found.output.strip()
        if found.exit_code != 0 or not _COMMIT.fullmatch(commit):
            raise ReleaseRefused(
                f"rollback_previous_ref {ref!r} names no commit in {self.folder}. "
                f"If it is on the remote: git -C {self.folder} fetch --tags; otherwise correct rollback_previous_ref."
            )
        return Release(ref, commit)

    def changed_files(self) -> list[str]:
        """Tracked files with changes of their own, staged ones included."""
        said = self._git(
            "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=dirty"
        )
        if said.exit_code != 0:
            raise ReleaseRefused(f"git cannot tell the state of {self.folder}: {said.error}.")
        return [entry[3:] for entry in said.output.split("\0") if entry]

    def refuse_changes(self) -> None:
        """:raises ReleaseRefused: naming the tracked files that were changed by hand."""
        files = self.changed_files()
        if files:
            named = ", ".join(files[:NAMED_FILES]) + (
                f" and {len(files) - NAMED_FILES} more" if len(files) > NAMED_FILES else ""
            )
            raise ReleaseRefused(
                f"The checkout {self.folder} has local changes in {named}. Commit them or put them aside "
                f"(git -C {self.folder} stash), or leave rollback_previous_ref empty."
            )

    def refuse_overwriting(self, commit: str) -> None:
        """Ask git whether the change would work, without making it.

        :raises ReleaseRefused: with git's words, for instance when an untracked file is in the way.
        """
        said = self._git("read-tree", "--dry-run", "-m", "-u", "HEAD", commit)
        if said.exit_code != 0:
            raise ReleaseRefused(
                f"git cannot check out {commit[:12]} in {self.folder}: {said.error}. Nothing was changed."
            )

    def prepared(self, ref: str) -> tuple[Checkout, Release]:
        """What is checked out and what would be, after every question that can be asked without changing anything.

        :raises ReleaseRefused: saying what is in the way.
        """
        now = self.current()
        release = self.resolve(ref)
        if release.commit != now.commit:
            self.refuse_changes()
            self.refuse_overwriting(release.commit)
        return now, release

    def check_out(self, release: Release, branch: str = "") -> Checkout:
        """Change to a release, and prove it.

        :param branch: be on this branch again, where it still names the release's commit; otherwise HEAD is detached.
        :raises CheckoutFailed: with git's words; git changes nothing when it refuses.
        """
        target = ["--detach", release.commit]
        if (
            branch
            and self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").output.strip() == release.commit
        ):
            target = [branch, "--"]
        said = self._git("checkout", "--quiet", *target)
        now = self.current()
        if said.exit_code != 0 or now.commit != release.commit:
            raise CheckoutFailed(
                f"git did not check out {release.ref} in {self.folder}: {said.error or 'it gave no reason'}. "
                f"The checkout is at {now.commit[:12]}. Correct that, then: "
                f"git -C {self.folder} checkout --detach {release.commit}"
            )
        return now


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _user() -> str:
    return f"the one with uid {os.geteuid()}"


def change_release(folder: str, ref: str, branch: str = "", *, make_change: bool = True) -> Mapping[str, t.Any]:
    """Be at a release.

    :param make_change: ``False`` only tells what would be changed.
    :returns: ``ref``, ``commit``, ``previous_commit``, ``previous_branch``, ``branch`` and ``changed``.
    :raises ReleaseRefused: with nothing changed.
    :raises CheckoutFailed: when git did not get there.
    """
    repository = Repository(folder)
    before, release = repository.prepared(ref)
    wanted_branch = branch if branch and branch != before.branch else ""
    change = release.commit != before.commit or bool(wanted_branch)
    after = repository.check_out(release, wanted_branch) if change and make_change else before
    return {
        "ref": release.ref,
        "commit": release.commit,
        "previous_commit": before.commit,
        "previous_branch": before.branch,
        "branch": after.branch,
        "changed": change if not make_change else (after != before),
    }


def note_checkout(result: Mapping[str, t.Any], host: str, answer: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The stage's result with what was done on one more host.

    :param answer: what the task of that host registered.
    """
    return _with_hosts(result, {**result["hosts"], host: _host_record(answer)})


def note_undo(result: Mapping[str, t.Any], answers: Sequence[Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """The stage's result after the way back: a host that is where it was before has not changed."""
    hosts = dict(result["hosts"])
    for answer in answers:
        host, record = str(answer[answer["ansible_loop_var"]]), _host_record(answer)
        if record["failed"]:
            hosts[host] = {**hosts[host], "failed": True, "message": record["message"]}
        else:
            hosts[host] = {**record, "changed": False, "message": f"the code is at {record['commit'][:12]} again."}
    return _with_hosts(result, hosts)


def release_problems(answers: Sequence[Mapping[str, t.Any]]) -> list[str]:
    """Why a release cannot be checked out, one sentence a host; an empty list when it can."""
    asked = [answer for answer in answers if not answer.get("skipped")]
    records = [(str(answer[answer["ansible_loop_var"]]), _host_record(answer)) for answer in asked]
    return [f"{host}: {record['message']}" for host, record in records if record["failed"]]


def _host_record(answer: Mapping[str, t.Any]) -> dict[str, t.Any]:
    names = ("ref", "commit", "previous_commit", "previous_branch")
    if "commit" not in answer:
        said = _one_line(str(answer.get("msg") or "The module gave no answer."))
        said = f"the host cannot be reached: {said}" if answer.get("unreachable") else said
        return {**dict.fromkeys(names, ""), "changed": False, "failed": True, "message": said}
    said = f"the code is at {answer['ref']} ({answer['commit'][:12]})"
    code = {name: answer[name] for name in names}
    message = said + ("." if answer["changed"] else ", as before.")
    return {**code, "changed": answer["changed"], "failed": False, "message": message}


def _with_hosts(result: Mapping[str, t.Any], hosts: Mapping[str, dict[str, t.Any]]) -> dict[str, t.Any]:
    failed = {name: one for name, one in hosts.items() if one["failed"]}
    return {
        **result,
        "skipped": False,
        "reason": "",
        "hosts": dict(hosts),
        "changed": any(one["changed"] for one in hosts.values()),
        "failed": bool(failed),
        "message": " ".join(f"{name}: {one['message']}" for name, one in (failed or hosts).items()),
    }
