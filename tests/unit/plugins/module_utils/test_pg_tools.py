# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which client programs are chosen, and how they are run and ended."""

from __future__ import annotations

import os
import signal
import threading
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import pg_tools

if t.TYPE_CHECKING:
    import pathlib


def make_programs(folder: pathlib.Path, version: str, *, pg_restore: str = "", without: str = "") -> pathlib.Path:
    """Programs that only know their version."""
    folder.mkdir(parents=True)
    for program in pg_tools.PROGRAMS:
        if program != without:
            answer = pg_restore if program == "pg_restore" and pg_restore else version
            (folder / program).write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {answer}'\n", encoding="utf-8")
            (folder / program).chmod(0o755)
    return folder


@pytest.fixture
def nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder for installations, where nothing of the machine's own is found."""
    monkeypatch.setattr(pg_tools, "INSTALL_DIRS", (str(tmp_path / "postgresql" / "*" / "bin"),))
    monkeypatch.setenv("PATH", "/nonexistent")
    return tmp_path / "postgresql"


def test_the_newest_minor_of_the_servers_major_is_chosen(nowhere_else: pathlib.Path) -> None:
    for folder, version in (("a", "15.2"), ("b", "15.18 (Debian 15.18-0+deb12u1)"), ("c", "16.3"), ("d", "15.9")):
        make_programs(nowhere_else / folder / "bin", version)
    found = pg_tools.find_tools(15)
    assert (found.version, found.bin_dir) == ((15, 18), str(nowhere_else / "b" / "bin"))
    assert found.version_text == "15.18 (Debian 15.18-0+deb12u1)"
    assert found.pg_dump == str(nowhere_else / "b" / "bin" / "pg_dump")


@pytest.mark.parametrize(
    ("version", "shown"), [("14.30", "14.30"), ("16.30", "16.30"), ("9.6.24", "9.6"), ("18beta1", "18.0")]
)
def test_another_major_is_refused_with_what_was_found(nowhere_else: pathlib.Path, version: str, shown: str) -> None:
    make_programs(nowhere_else / "x" / "bin", version)
    with pytest.raises(pg_tools.ToolsDoNotFit) as refusal:
        pg_tools.find_tools(15)
    assert refusal.value.outcome == "refused"
    assert "PostgreSQL 15" in str(refusal.value)
    assert f"{shown} in {nowhere_else}" in str(refusal.value)
    assert "rollback_pg_bin_dir" in str(refusal.value)


@pytest.mark.usefixtures("nowhere_else")
def test_nothing_installed_is_refused() -> None:
    with pytest.raises(pg_tools.ToolsDoNotFit, match=r"Found none of pg_dump.*rollback_pg_bin_dir"):
        pg_tools.find_tools(15)


def test_a_named_folder_is_the_only_one_looked_in(nowhere_else: pathlib.Path, tmp_path: pathlib.Path) -> None:
    make_programs(nowhere_else / "fits" / "bin", "15.20")
    mine = make_programs(tmp_path / "mine", "14.3")
    with pytest.raises(pg_tools.ToolsDoNotFit, match=r"14\.3 in .*mine"):
        pg_tools.find_tools(15, str(mine))


def test_a_folder_whose_programs_do_not_belong_together_does_not_fit(nowhere_else: pathlib.Path) -> None:
    make_programs(nowhere_else / "mixed" / "bin", "15.20", pg_restore="15.19")
    make_programs(nowhere_else / "partial" / "bin", "15.20", without="pg_dumpall")
    with pytest.raises(pg_tools.ToolsDoNotFit):
        pg_tools.find_tools(15)


def test_debians_wrapper_is_no_installation(nowhere_else: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = nowhere_else.parent / "usr"
    wrapped.mkdir()
    wrapper = wrapped / "pg_wrapper"
    wrapper.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.99'\n", encoding="utf-8")
    wrapper.chmod(0o755)
    for program in pg_tools.PROGRAMS:
        (wrapped / program).symlink_to(wrapper)
    monkeypatch.setenv("PATH", str(wrapped))
    make_programs(nowhere_else / "15" / "bin", "15.2")
    assert pg_tools.find_tools(15).version == (15, 2)


def test_known_vulnerabilities_warn_or_refuse(nowhere_else: pathlib.Path) -> None:
    folder = str(make_programs(nowhere_else / "15" / "bin", "15.18"))
    (warning,) = pg_tools.find_tools(15).warnings
    assert "CVE-2026-116314" in warning
    assert "CVE-2026-18408" in warning
    assert "CVE-2026-6477" not in warning
    assert folder in warning
    with pytest.raises(pg_tools.ToolsDoNotFit, match=r"CVE-2026-116314.*rollback_require_patched_client"):
        pg_tools.find_tools(15, require_patched=True)


@pytest.mark.parametrize("version", [(15, 20), (18, 7), (14, 25), (19, 0), (12, 1)])
def test_versions_without_a_known_vulnerability_warn_of_nothing(version: tuple[int, int]) -> None:
    assert pg_tools.known_vulnerabilities(version, "/x") == ()


def test_a_failing_program_is_quoted() -> None:
    argv = ["sh", "-c", "echo first >&2; echo 'pg_x: error: no luck' >&2; exit 3"]
    with pytest.raises(pg_tools.ToolFailed, match="exit code 3: first pg_x: error: no luck") as failure:
        pg_tools.run_tool(argv, dict(os.environ))
    assert failure.value.outcome == "failed_unchanged"
    assert failure.value.details["return_code"] == 3


def test_only_the_last_lines_are_quoted() -> None:
    argv = ["sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1"]
    with pytest.raises(pg_tools.ToolFailed) as failure:
        pg_tools.run_tool(argv, dict(os.environ))
    assert failure.value.details["stderr"] == [f"line {number}" for number in range(4995, 5000)]


def test_a_killed_program_names_the_signal() -> None:
    with pytest.raises(pg_tools.ToolFailed, match="was killed by signal SIGKILL"):
        pg_tools.run_tool(["sh", "-c", "kill -9 $$"], dict(os.environ))


def test_a_missing_program_is_a_failure() -> None:
    with pytest.raises(pg_tools.ToolFailed, match="cannot be started"):
        pg_tools.run_tool(["/nonexistent/pg_dump"], {})


def group_is_gone(group: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_the_whole_group_ends_with_the_block() -> None:
    with pg_tools.Tools() as tools:
        tool = tools.start(["sh", "-c", "sleep 100 & sleep 100"], dict(os.environ))
        assert tool.running()
    assert group_is_gone(tool.pid)


def test_workers_of_a_killed_program_end_too() -> None:
    with pg_tools.Tools() as tools:
        tool = tools.start(["sh", "-c", "sleep 100 >/dev/null & kill -9 $$"], dict(os.environ))
        with pytest.raises(pg_tools.ToolFailed):
            tool.wait()
        assert group_is_gone(tool.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_us_ends_the_program_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    started = time.monotonic()
    with pytest.raises(pg_tools.Interrupted, match=number.name), pg_tools.interruptible("The test"):
        pg_tools.run_tool(["sleep", "100"], dict(os.environ))
    assert time.monotonic() - started < 20
    assert signal.getsignal(number) is before
