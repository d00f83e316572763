# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The working folder of a session, behind a command that runs the words on this host with this host's own shell."""

from __future__ import annotations

import os
import pathlib
import signal
import socket

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.exec_place import ExecPlace
from ansible_collections.cypher.rollback.plugins.module_utils.exec_session import HOLDER, Session
from ansible_collections.cypher.rollback.plugins.module_utils.pg_tools import ToolFailed


@pytest.fixture
def place(tmp_path: pathlib.Path) -> ExecPlace:
    return ExecPlace(("env",), folder=str(tmp_path))


#: More than any system gives out.
NO_PROCESS = 99_999_999


def make(folder: str, name: str, holder: str | None) -> pathlib.Path:
    made = pathlib.Path(folder) / f"cypher-rollback-{name}"
    made.mkdir()
    (made / "passfile").touch()
    if holder is not None:
        (made / HOLDER).write_text(holder, encoding="utf-8")
    return made


def test_folders_of_those_that_are_no_more_are_removed_and_no_others(place: ExecPlace) -> None:
    host = socket.gethostname()
    gone = make(place.folder, "gone", f"{NO_PROCESS} 1 {host}\n")
    again = make(place.folder, "again", f"{os.getpid()} 1 {host}\n")
    kept = [
        make(place.folder, "elsewhere", f"{NO_PROCESS} 1 other\n"),
        make(place.folder, "unmarked", None),
        make(place.folder, "empty", ""),
    ]
    link = pathlib.Path(place.folder) / "cypher-rollback-link"
    target = make(place.folder, "target", f"{NO_PROCESS} 1 other\n").rename(f"{place.folder}/target")
    (target / HOLDER).write_text(f"{NO_PROCESS} 1 {host}\n", encoding="utf-8")
    link.symlink_to(target)
    with Session(place) as living:
        assert (pathlib.Path(living.folder) / HOLDER).read_text(encoding="utf-8").split()[2] == host
        with Session(place):
            assert pathlib.Path(living.folder).exists()
    assert not gone.exists()
    assert not again.exists()
    assert all((folder / "passfile").exists() for folder in [*kept, target])
    assert link.is_symlink()
    assert len(list(pathlib.Path(place.folder).iterdir())) == len(kept) + 2


def test_a_holder_that_was_killed_leaves_nothing(place: ExecPlace) -> None:
    with Session(place, "*:*:*:*:secret") as session:
        os.kill(session._holder.pid, signal.SIGKILL)
        with pytest.raises(ToolFailed, match="stopped or restarted meanwhile"):
            session.run("sh", "-c", "echo lost connection >&2; exit 1")
        assert pathlib.Path(session.folder, "passfile").exists()
    assert list(pathlib.Path(place.folder).iterdir()) == []


def test_what_fails_by_itself_is_not_said_to_be_the_containers(place: ExecPlace) -> None:
    with Session(place) as session:
        with pytest.raises(ToolFailed) as failed:
            session.run("sh", "-c", "echo Wrong. >&2; exit 1")
    assert str(failed.value) == "sh by 'env' failed: Wrong."
