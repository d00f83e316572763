# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real git checkout: what can be checked out, what is in the way, and the way back."""

from __future__ import annotations

import os
import subprocess
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import release
from ansible_collections.cypher.rollback.plugins.module_utils.release import ReleaseRefused, change_release

if t.TYPE_CHECKING:
    import pathlib

IDENTITY = (
    "-c",
    "user.name=t",
    "-c",
    "user.email=t@example.org",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "tag.gpgsign=false",
)


class Checkout:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")
        self.commit("one", {"app.py": "1\n", "bin/run": "run\n"})
        self.git("tag", "-a", "v1", "-m", "one")
        self.commit("two", {"app.py": "2\n", "new.py": "new\n"})

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", "-C", self.folder, *IDENTITY, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message: str, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def state(self) -> tuple[str, str, str]:
        branch = self.git("rev-parse", "--abbrev-ref", "HEAD")
        return self.git("rev-parse", "HEAD"), branch, self.git("status", "--porcelain")

    def change(self, ref: str, branch: str = "", **options: t.Any) -> dict[str, t.Any]:
        return dict(change_release(str(self.folder), ref, branch, **options))


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
    return Checkout(tmp_path / "shop")


def test_changes_to_a_tag_and_back_to_the_branch(checkout: Checkout) -> None:
    before = checkout.state()
    there = checkout.change("v1")
    assert there["changed"]
    assert there["previous_commit"] == before[0]
    assert there["previous_branch"] == "main"
    assert there["commit"] == checkout.git("rev-parse", "v1^{commit}") == checkout.git("rev-parse", "HEAD")
    assert (checkout.folder / "app.py").read_text() == "1\n"
    assert checkout.state()[1] == "HEAD"
    assert not checkout.change("v1")["changed"]
    back = checkout.change(there["previous_commit"], there["previous_branch"])
    assert (back["changed"], back["branch"]) == (True, "main")
    assert checkout.state() == before


def test_a_branch_that_moved_on_is_not_checked_out_on_the_way_back(checkout: Checkout) -> None:
    there = checkout.change("v1")
    checkout.git("branch", "-f", "main", "v1")
    back = checkout.change(there["previous_commit"], "main")
    assert (back["changed"], back["branch"], back["commit"]) == (True, "", there["previous_commit"])


def test_asking_changes_nothing(checkout: Checkout) -> None:
    before = checkout.state()
    asked = checkout.change("v1", make_change=False)
    assert asked["changed"]
    assert asked["commit"] != before[0]
    assert checkout.state() == before


def test_the_release_that_is_there_already_is_no_change_and_keeps_the_branch(checkout: Checkout) -> None:
    before = checkout.state()
    assert not checkout.change("main")["changed"]
    assert not checkout.change("HEAD")["changed"]
    assert checkout.state() == before


@pytest.mark.parametrize("ref", ["v9", "--help", "-f", "", "v1 v1", "v1\n", "v1^{tree}", "HEAD:app.py", "../../etc"])
def test_a_ref_that_names_no_commit_is_refused(checkout: Checkout, ref: str) -> None:
    before = checkout.state()
    with pytest.raises(ReleaseRefused, match="rollback_previous_ref"):
        checkout.change(ref)
    assert checkout.state() == before


@pytest.mark.parametrize("staged", [False, True])
def test_local_changes_are_refused_by_name(checkout: Checkout, staged: bool) -> None:
    (checkout.folder / "app.py").write_text("hotfix\n")
    (checkout.folder / "bin/run").unlink()
    if staged:
        checkout.git("add", "-A")
    before = checkout.state()
    for make_change in (False, True):
        with pytest.raises(ReleaseRefused, match=r"local changes in app\.py, bin/run\."):
            checkout.change("v1", make_change=make_change)
    assert checkout.state() == before


def test_many_local_changes_are_counted(checkout: Checkout) -> None:
    checkout.commit("many", {f"{number:02}.txt": "x" for number in range(15)})
    for number in range(15):
        (checkout.folder / f"{number:02}.txt").write_text("y")
    with pytest.raises(ReleaseRefused, match=r"09\.txt and 5 more"):
        checkout.change("v1")


def test_untracked_files_are_left_alone(checkout: Checkout) -> None:
    (checkout.folder / ".env").write_text("secret\n")
    assert checkout.change("v1")["changed"]
    assert (checkout.folder / ".env").read_text() == "secret\n"


def test_an_untracked_file_in_the_way_is_found_before_anything_changes(checkout: Checkout) -> None:
    there = checkout.change("v1")
    (checkout.folder / "new.py").write_text("mine\n")
    before = checkout.state()
    for make_change in (False, True):
        with pytest.raises(ReleaseRefused, match=r"new\.py"):
            checkout.change(there["previous_commit"], make_change=make_change)
    assert checkout.state() == before
    assert (checkout.folder / "new.py").read_text() == "mine\n"


def test_hooks_and_the_environment_of_another_repository_have_no_say(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    hook = checkout.folder / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    other = Checkout(tmp_path / "other")
    before = other.state()
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
    assert change_release(str(checkout.folder), "v1")["changed"]
    monkeypatch.undo()
    assert not (checkout.folder / "hooked").exists()
    assert other.state() == before


def test_a_lock_that_git_left_behind_is_told_in_its_words(checkout: Checkout) -> None:
    before = checkout.state()
    (checkout.folder / ".git/index.lock").touch()
    with pytest.raises(ReleaseRefused, match=r"index\.lock"):
        checkout.change("v1")
    (checkout.folder / ".git/index.lock").unlink()
    assert checkout.state() == before


def test_what_is_no_checkout_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ReleaseRefused, match="is no folder"):
        change_release(str(tmp_path / "gone"), "v1")
    with pytest.raises(ReleaseRefused, match="is no git checkout: fatal: not a git repository"):
        change_release(str(tmp_path), "v1")
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "bare"], check=True)
    with pytest.raises(ReleaseRefused, match="it has no work tree"):
        change_release(str(tmp_path / "bare"), "v1")
    subprocess.run(["git", "init", "-q", tmp_path / "empty"], check=True)
    with pytest.raises(ReleaseRefused, match="has no commit yet"):
        change_release(str(tmp_path / "empty"), "v1")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of another user")
def test_a_checkout_of_another_user_is_refused_with_the_way_out(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for path in (checkout.folder, checkout.folder / ".git"):
        os.chown(path, 65534, 65534)
    with pytest.raises(ReleaseRefused, match=r"belongs to another user .* safe\.directory"):
        checkout.change("v1")


def test_git_that_is_not_installed_is_named(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout.folder))
    with pytest.raises(ReleaseRefused, match="git is not installed"):
        checkout.change("v1")


def answer(host: str, **given: t.Any) -> dict[str, t.Any]:
    return {"ansible_loop_var": "host", "host": host, **given}


CODE = {"ref": "v1", "commit": "a" * 40, "previous_commit": "b" * 40, "previous_branch": "main", "changed": True}
BLANK: dict[str, t.Any] = {"skipped": True, "reason": "not set", "hosts": {}, "changed": False, "failed": False}


def test_the_stage_tells_what_was_done_on_every_host_after_a_failure_too() -> None:
    result = release.note_checkout(BLANK, "app1", CODE)
    assert (result["skipped"], result["changed"], result["failed"]) == (False, True, False)
    result = release.note_checkout(result, "app2", {"msg": "local changes in a.py"})
    assert result["failed"]
    assert result["message"] == "app2: local changes in a.py"
    assert result["hosts"]["app1"]["previous_commit"] == "b" * 40
    undone = release.note_undo(result, [answer("app1", **{**CODE, "commit": "b" * 40})])
    assert undone["changed"] is False
    assert undone["hosts"]["app1"]["message"] == f"the code is at {'b' * 12} again."


def test_a_way_back_that_fails_leaves_the_host_changed() -> None:
    result = release.note_checkout(BLANK, "app1", CODE)
    undone = release.note_undo(result, [answer("app1", unreachable=True, msg="gone")])
    assert undone["failed"]
    assert undone["hosts"]["app1"]["changed"] is True
    assert release.release_problems([answer("app1", unreachable=True, msg="gone"), answer("app2", skipped=True)]) == [
        "app1: the host cannot be reached: gone"
    ]
    assert release.release_problems([answer("app1", **CODE)]) == []


def test_local_changes_are_stashed_where_that_is_set_and_brought_back_on_the_way_back(checkout: Checkout) -> None:
    (checkout.folder / "app.py").write_text("mine\n")
    (checkout.folder / "bin" / "run").write_text("mine, staged\n")
    checkout.git("add", "bin/run")
    (checkout.folder / "notes.txt").write_text("untracked\n")
    before = checkout.state()
    there = checkout.change("v1", local_changes="stash")
    assert (checkout.folder / "app.py").read_text() == "1\n"
    assert (checkout.folder / "notes.txt").read_text() == "untracked\n"
    assert there["stashed"] == ["app.py", "bin/run"]
    assert there["stash"] == checkout.git("rev-parse", "refs/stash")
    assert "cypher.rollback" in checkout.git("stash", "list")
    back = checkout.change(there["previous_commit"], there["previous_branch"], unstash=there["stash"])
    assert back["unstashed"]
    assert checkout.state() == before
    assert (checkout.folder / "app.py").read_text() == "mine\n"
    assert checkout.git("stash", "list") == ""


def test_asking_stashes_nothing_and_names_what_would_be(checkout: Checkout) -> None:
    (checkout.folder / "app.py").write_text("mine\n")
    before = checkout.state()
    asked = checkout.change("v1", local_changes="stash", make_change=False)
    assert (asked["stashed"], asked["stash"], asked["changed"]) == (["app.py"], "", True)
    assert checkout.state() == before
    with pytest.raises(ReleaseRefused, match=r"rollback_local_changes=stash"):
        checkout.change("v1", make_change=False)


def test_with_a_stash_an_untracked_file_in_the_way_is_found_before_anything_changes(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "--detach", "v1")
    (checkout.folder / "app.py").write_text("mine\n")
    (checkout.folder / "new.py").write_text("somebody's\n")
    with pytest.raises(ReleaseRefused, match=r"new\.py.*Move"):
        checkout.change("main", local_changes="stash", make_change=False)


def test_a_checkout_that_fails_goes_back_to_where_it_was_with_its_changes(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout.folder / "app.py").write_text("mine\n")
    before = checkout.state()
    real = release.Repository.check_out

    def half(self: release.Repository, wanted: release.Release, branch: str = "") -> t.Any:
        real(self, wanted, branch)
        if wanted.ref == "v1":
            raise release.CheckoutFailed("git did not check out v1: the disk is full.")

    monkeypatch.setattr(release.Repository, "check_out", half)
    with pytest.raises(release.CheckoutFailed, match=r"the disk is full\. The code is where it was before") as caught:
        checkout.change("v1", local_changes="stash")
    assert caught.value.outcome == "needs_attention"
    assert checkout.state() == before
    assert (checkout.folder / "app.py").read_text() == "mine\n"
    assert checkout.git("stash", "list") == ""


class WithSubmodule(Checkout):
    """Release v1 has the library at its first commit, main at its second."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.library = Checkout(folder.with_name("library"))
        super().__init__(folder)
        source = str(self.library.folder)
        self.library.git("checkout", "-q", "v1")
        self.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", source, "lib")
        self.git("commit", "-q", "-m", "with library")
        self.git("tag", "with-library-1")
        self.git("-C", "lib", "checkout", "-q", "main")
        self.git("add", "lib")
        self.git("commit", "-q", "-m", "with library 2")

    def library_text(self) -> str:
        return (self.folder / "lib" / "app.py").read_text()


@pytest.fixture
def with_submodule(tmp_path: pathlib.Path) -> WithSubmodule:
    return WithSubmodule(tmp_path / "shop")


def test_submodules_are_those_of_the_release_and_come_back(with_submodule: WithSubmodule) -> None:
    assert with_submodule.library_text() == "2\n"
    before = with_submodule.state()
    there = with_submodule.change("with-library-1")
    assert (with_submodule.library_text(), there["submodules"]) == ("1\n", ["lib"])
    assert with_submodule.state()[2] == ""
    with_submodule.change(there["previous_commit"], there["previous_branch"])
    assert with_submodule.library_text() == "2\n"
    assert with_submodule.state() == before


def test_submodules_stay_where_that_is_set(with_submodule: WithSubmodule) -> None:
    with_submodule.change("with-library-1", submodules=False)
    assert with_submodule.library_text() == "2\n"


def test_a_submodule_that_nobody_checked_out_is_left_alone(with_submodule: WithSubmodule) -> None:
    with_submodule.git("submodule", "--quiet", "deinit", "-f", "lib")
    there = with_submodule.change("with-library-1")
    assert there["submodules"] == []
    assert not list((with_submodule.folder / "lib").iterdir())


def test_a_commit_that_is_missing_in_a_submodule_is_found_before_anything_changes(
    with_submodule: WithSubmodule,
) -> None:
    with_submodule.git("update-index", "--cacheinfo", f"160000,{'12' * 20},lib")
    with_submodule.git("commit", "-q", "-m", "a library that is nowhere")
    with_submodule.git("tag", "nowhere")
    with_submodule.git("reset", "-q", "--hard", "HEAD~1")
    before = with_submodule.state()
    with pytest.raises(ReleaseRefused, match=r"submodule lib.*121212121212.*git -C .*lib fetch.*rollback_submodules"):
        with_submodule.change("nowhere", make_change=False)
    assert with_submodule.state() == before


@pytest.mark.parametrize("local_changes", ["refuse", "stash"])
def test_changes_inside_a_submodule_are_refused(with_submodule: WithSubmodule, local_changes: str) -> None:
    (with_submodule.folder / "lib" / "app.py").write_text("mine\n")
    with pytest.raises(ReleaseRefused, match=r"submodule lib .*local changes in app\.py"):
        with_submodule.change("with-library-1", local_changes=local_changes, make_change=False)


def test_a_submodule_at_another_commit_than_the_release_says_is_refused(with_submodule: WithSubmodule) -> None:
    with_submodule.git("-C", "lib", "checkout", "-q", "v1")
    with pytest.raises(ReleaseRefused, match=r"submodule lib .*is at [0-9a-f]{12}, and its release says [0-9a-f]{12}"):
        with_submodule.change("HEAD~2", local_changes="stash", make_change=False)


def test_the_preview_says_which_release_comes_instead_of_which() -> None:
    asked = {**CODE, "ref": "v1", "commit": "1" * 40, "previous_commit": "2" * 40, "previous_branch": "main"}
    stashing = {**asked, "stashed": ["app.py"], "stash": ""}
    plan = release.release_plan([answer("app1", **asked), answer("app2", **stashing), answer("app3", skipped=True)])
    assert plan["app1"]["message"] == "app1: the code will be v1 (111111111111) instead of main (222222222222)."
    assert plan["app2"]["message"].endswith("Local changes in app.py would be stashed.")
    same = release.release_plan([answer("app1", **{**asked, "previous_commit": "1" * 40, "previous_branch": ""})])
    assert same["app1"]["message"] == "app1: the code will be v1 (111111111111) which it is at already."
    assert "app3" not in plan


def test_the_stage_says_how_stashed_changes_come_back() -> None:
    result = release.note_checkout(BLANK, "app1", {**CODE, "stashed": ["a.py", "b.py"], "stash": "e" * 40})
    assert result["hosts"]["app1"]["stash"] == "e" * 40
    assert f"Local changes in a.py, b.py are kept: git stash apply --index {'e' * 40}" in result["message"]
