# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application's code: which release is checked out, and another one instead of it."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from .git import CheckoutFailed, Git, ReleaseRefused, one_line
from .local_changes import bring_back, changed_files, named, refuse_changes, refuse_files_in_the_way, stash
from .lost_host import is_lost
from .submodules import Submodules

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NO_REF = re.compile(r"^-|[\x00-\x20\x7f]|^$")


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


class Repository:
    """The git checkout of the application.

    :param folder: ``rollback_project_dir``; it may be a folder inside the checkout.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.git = Git(folder)

    def current(self) -> Checkout:
        """What is checked out now.

        :raises ReleaseRefused: when the folder is no git checkout that may be used.
        """
        if not os.path.isdir(self.folder):
            raise ReleaseRefused(f"rollback_project_dir {self.folder!r} is no folder on this host.")
        inside = self.git("rev-parse", "--is-inside-work-tree")
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
        head = self.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if head.exit_code != 0:
            raise ReleaseRefused(f"The checkout {self.folder} has no commit yet.")
        return Checkout(head.output.strip(), self.git("symbolic-ref", "--quiet", "--short", "HEAD").output.strip())

    def resolve(self, ref: str) -> Release:
        """The commit of a ref, from what is in the checkout: nothing is fetched.

        :raises ReleaseRefused: when it names none.
        """
        if _NO_REF.search(ref):
            raise ReleaseRefused(f"rollback_previous_ref {ref!r} is no name of a tag, branch or commit.")
        found = self.git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        commit = found.output.strip()
        if found.exit_code != 0 or not _COMMIT.fullmatch(commit):
            raise ReleaseRefused(
                f"rollback_previous_ref {ref!r} names no commit in {self.folder}. "
                f"If it is on the remote: git -C {self.folder} fetch --tags; otherwise correct rollback_previous_ref."
            )
        return Release(ref, commit)

    def refuse_overwriting(self, commit: str) -> None:
        """Ask git whether the change would work, without making it.

        :raises ReleaseRefused: with git's words, for instance when an untracked file is in the way.
        """
        said = self.git("read-tree", "--dry-run", "-m", "-u", "HEAD", commit)
        if said.exit_code != 0:
            raise ReleaseRefused(
                f"git cannot check out {commit[:12]} in {self.folder}: {said.error}. Nothing was changed."
            )

    def check_out(self, release: Release, branch: str = "") -> Checkout:
        """Change to a release, and prove it.

        :param branch: be on this branch again, where it still names the release's commit; otherwise HEAD is detached.
        :raises CheckoutFailed: with git's words.
        """
        target = ["--detach", release.commit]
        if (
            branch
            and self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").output.strip() == release.commit
        ):
            target = [branch, "--"]
        said = self.git("checkout", "--quiet", *target)
        now = self.current()
        if said.exit_code != 0 or now.commit != release.commit:
            raise CheckoutFailed(
                f"git did not check out {release.ref} in {self.folder}: {said.error or 'it gave no reason'}. Correct that, then: "
                f"git -C {self.folder} checkout --detach {release.commit}."
            )
        return now


def _user() -> str:
    return f"the one with uid {os.geteuid()}"


@dataclasses.dataclass(frozen=True)
class Manner:
    """How a release is changed.

    :param local_changes: ``refuse`` or ``stash``.
    :param submodules: whether they follow.
    :param unstash: commit of a stash to bring back afterwards; empty for none.
    """

    local_changes: str = "refuse"
    submodules: bool = True
    unstash: str = ""


class Change:
    """One change of a checkout to a release, and back where it fails."""

    def __init__(self, folder: str, ref: str, branch: str, manner: Manner) -> None:
        """Ask every question that can be asked without changing anything.

        :raises ReleaseRefused: saying what is in the way.
        """
        self.repository = Repository(folder)
        self.manner = manner
        self.before = self.repository.current()
        self.release = self.repository.resolve(ref)
        self.branch = branch if branch and branch != self.before.branch else ""
        self.stashed: list[str] = []
        if self.release.commit != self.before.commit:
            self._ask()

    def _ask(self) -> None:
        git, commit = self.repository.git, self.release.commit
        files = changed_files(git)
        if files and self.manner.local_changes == "stash":
            refuse_files_in_the_way(git, commit)
            self.stashed = files
        else:
            refuse_changes(git, files)
            self.repository.refuse_overwriting(commit)
        if self.manner.submodules:
            Submodules(git).refuse(commit)

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be changed."""
        return self.release.commit != self.before.commit or bool(self.branch)

    def make(self) -> dict[str, t.Any]:
        """Change to the release; where that fails, the code is where it was before.

        :raises CheckoutFailed: saying so.
        """
        git = self.repository.git
        kept = stash(git) if self.stashed else ""
        try:
            after = self.repository.check_out(self.release, self.branch)
            followed = Submodules(git).follow() if self.manner.submodules else []
        except CheckoutFailed as err:
            raise self._back(kept, err) from err
        back = bring_back(git, self.manner.unstash) if self.manner.unstash else False
        return {
            "branch": after.branch,
            "stash": kept,
            "submodules": followed,
            "unstashed": back,
            "changed": after != self.before or bool(followed) or back,
        }

    def _back(self, kept: str, failed: CheckoutFailed) -> CheckoutFailed:
        try:
            self.repository.check_out(Release(self.before.commit, self.before.commit), self.before.branch)
            if self.manner.submodules:
                Submodules(self.repository.git).follow()
            if kept:
                bring_back(self.repository.git, kept)
        except CheckoutFailed as err:
            return CheckoutFailed(f"{failed} The way back to {self.before.commit[:12]} failed too: {err}")
        return CheckoutFailed(f"{failed} The code is where it was before, at {self.before.commit[:12]}.")


def change_release(
    folder: str,
    ref: str,
    branch: str = "",
    *,
    make_change: bool = True,
    local_changes: str = "refuse",
    submodules: bool = True,
    unstash: str = "",
) -> Mapping[str, t.Any]:
    """Be at a release.

    :param make_change: ``False`` only tells what would be changed.
    :param local_changes: what to do with tracked files that were changed by hand: ``refuse`` or ``stash``.
    :param submodules: whether those that are checked out follow the release.
    :param unstash: commit of a stash that is brought back, for the way back.
    :returns: ``ref``, ``commit``, ``previous_commit``, ``previous_branch``, ``branch``, ``stash`` (its commit), ``stashed``
        (files), ``submodules`` (paths that were changed), ``unstashed`` and ``changed``.
    :raises ReleaseRefused: with nothing changed.
    :raises CheckoutFailed: when git did not get there; the code is then where it was, or the message says where.
    """
    change = Change(folder, ref, branch, Manner(local_changes, submodules, unstash))
    nothing: dict[str, t.Any] = {
        "branch": change.before.branch,
        "stash": "",
        "submodules": [],
        "unstashed": False,
        "changed": change.is_needed,
    }
    done = change.make() if change.is_needed and make_change else nothing
    return {
        "ref": change.release.ref,
        "commit": change.release.commit,
        "previous_commit": change.before.commit,
        "previous_branch": change.before.branch,
        **done,
        "stashed": change.stashed,
    }


def note_checkout(result: Mapping[str, t.Any], host: str, answer: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The stage's result with what was done on one more host.

    :param answer: what the task of that host registered.
    """
    return with_hosts(result, {**result["hosts"], host: _host_record(answer)})


def as_before(answer: Mapping[str, t.Any], before: Mapping[str, t.Any]) -> Mapping[str, t.Any]:
    """The answer as one run would have got it, where a run that died had changed the code and another one goes on with it.

    :param before: what was checked out when the first one began: ``previous_commit`` and ``previous_branch``.
    """
    was = before.get("previous_commit")
    if "commit" not in answer or not was or was == answer["previous_commit"]:
        return answer
    return {**answer, "changed": True, "previous_commit": was, "previous_branch": before.get("previous_branch") or ""}


def note_undo(result: Mapping[str, t.Any], answers: Sequence[Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """The stage's result after the way back: a host that is where it was before has not changed."""
    hosts = dict(result["hosts"])
    for answer in answers:
        if answer.get("skipped"):
            continue
        host, record = str(answer[answer["ansible_loop_var"]]), _host_record(answer)
        if record["failed"]:
            hosts[host] = {**hosts[host], "failed": True, "message": record["message"]}
        else:
            message = f"the code is at {record['commit'][:12]} again."
            hosts[host] = {**hosts[host], **record, "changed": False, "undone": True, "message": message}
    return with_hosts(result, hosts)


def release_problems(answers: Sequence[Mapping[str, t.Any]]) -> list[str]:
    """Why a release cannot be checked out, one sentence a host; an empty list when it can."""
    asked = [answer for answer in answers if not answer.get("skipped")]
    records = [(str(answer[answer["ansible_loop_var"]]), _host_record(answer)) for answer in asked]
    return [f"{host}: {record['message']}" for host, record in records if record["failed"]]


def release_plan(answers: Sequence[Mapping[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    """Which release each host would have: ``ref``, ``commit``, ``previous_commit``, ``previous_branch``, ``stashed``, ``message``."""
    plan: dict[str, dict[str, t.Any]] = {}
    for answer in answers:
        if answer.get("skipped") or "commit" not in answer:
            continue
        host = str(answer[answer["ansible_loop_var"]])
        now = answer["previous_branch"] or "a detached HEAD"
        come = f"{answer['ref']} ({answer['commit'][:12]})"
        instead = (
            f"instead of {now} ({answer['previous_commit'][:12]})"
            if answer["commit"] != answer["previous_commit"]
            else "which it is at already"
        )
        plan[host] = {
            **{name: answer[name] for name in ("ref", "commit", "previous_commit", "previous_branch")},
            "stashed": list(answer.get("stashed") or []),
            "message": f"{host}: the code will be {come} {instead}.{_aside(answer)}",
        }
    return plan


def _host_record(answer: Mapping[str, t.Any]) -> dict[str, t.Any]:
    names = ("ref", "commit", "previous_commit", "previous_branch", "stash")
    if "commit" not in answer:
        said = one_line(str(answer.get("msg") or "The module gave no answer."))
        lost = is_lost(answer)
        said = f"the host cannot be reached: {said}" if lost else said
        return {**dict.fromkeys(names, ""), "changed": False, "failed": True, "lost": lost, "message": said}
    said = f"the code is at {answer['ref']} ({answer['commit'][:12]})"
    code = {name: answer.get(name, "") for name in names}
    message = said + ("." if answer["changed"] else ", as before.") + _aside(answer)
    return {**code, "changed": answer["changed"], "failed": False, "lost": False, "message": message}


def _aside(answer: Mapping[str, t.Any]) -> str:
    """Where the local changes are, and how they come back."""
    files = list(answer.get("stashed") or [])
    if not files:
        return ""
    if not answer.get("stash"):
        return f" Local changes in {named(files)} would be stashed."
    return f" Local changes in {named(files)} are kept: git stash apply --index {answer['stash']}"


def with_hosts(result: Mapping[str, t.Any], hosts: Mapping[str, dict[str, t.Any]]) -> dict[str, t.Any]:
    """The stage's result with what was done on the hosts, of which one that is lost does not fail the stage."""
    failed = {name: one for name, one in hosts.items() if one["failed"]}
    lost = [name for name, one in failed.items() if one.get("lost")]
    return {
        **result,
        "skipped": False,
        "reason": "",
        "hosts": dict(hosts),
        "changed": any(one["changed"] for one in hosts.values()),
        # A host that is lost keeps no other from coming back. The stage restart leaves it alone, and fails for it.
        "failed": len(failed) > len(lost),
        "lost": lost,
        "message": " ".join(f"{name}: {one['message']}" for name, one in (failed or hosts).items()),
    }
