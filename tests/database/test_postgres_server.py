# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that the other tests rely on: they survive what tests do to them, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

import psycopg2
import pytest

from tests.support.postgres_server import REPOSITORY, PostgresServer, ServerError, find_installations, free_port

if t.TYPE_CHECKING:
    from tests.conftest import Database


def _wait_until(condition: t.Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_database_is_empty_and_the_tests_own(database: Database) -> None:
    tables = database.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert tables == [(0,)]
    assert database.execute("SELECT current_database()") == [(database.name,)]


def test_a_wrong_password_is_refused(database: Database) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        database.connect(password="wrong")


def test_a_server_comes_back_with_its_data_after_each_way_to_stop() -> None:
    with PostgresServer() as server:
        server.execute("CREATE TABLE kept (step int)")
        port = server.port
        for step, end in enumerate([server.stop, lambda: server.stop("immediate"), server.kill]):
            server.execute(f"INSERT INTO kept VALUES ({step})")
            server.execute("CHECKPOINT")
            end()
            assert not server.running
            server.start()
            assert server.port == port
        assert server.execute("SELECT count(*) FROM kept") == [(3,)]
        folder = server.folder
    assert not folder.exists()


def test_settings_reach_the_server() -> None:
    with PostgresServer(settings={"max_connections": 17, "application_name": "it's here"}) as server:
        assert server.execute("SHOW max_connections") == [("17",)]


def test_a_setting_that_does_not_exist_is_reported_with_the_servers_log() -> None:
    with pytest.raises(ServerError, match="no_such_setting"), PostgresServer(settings={"no_such_setting": 1}):
        pass


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_the_process_that_started_it(end: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.support.postgres_server", "--", "sh", "-c", "echo $PPID; exec sleep 60"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as starter:
        assert starter.stdout is not None
        assert int(starter.stdout.readline()) == starter.pid
        children = pathlib.Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text(encoding="ascii").split()
        (postmaster,) = (
            int(pid) for pid in children if b"postgres" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        folder = pathlib.Path(pathlib.Path(f"/proc/{postmaster}/cmdline").read_bytes().split(b"\0")[2].decode()).parent
        starter.send_signal(end)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(starter.pid, signal.SIGTERM)
    assert _wait_until(lambda: not _is_alive(postmaster))
    if end == signal.SIGKILL:
        shutil.rmtree(folder)
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives the server to another user")
def test_programs_under_a_private_home_are_copied(tmp_path: pathlib.Path) -> None:
    wheels = [installation for installation in find_installations() if "pginstall" in str(installation.bin_dir)]
    if not wheels:
        pytest.skip("a distribution's programs do not run from another place: make setup-postgres")
    installation = wheels[0]
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    shutil.copytree(installation.bin_dir.parent.parent, home / "package", symlinks=True)
    with PostgresServer(home / "package" / "pginstall" / "bin") as server:
        assert server.bin_dir.is_relative_to(server.folder)
        assert server.execute("SELECT 1") == [(1,)]


def test_a_server_in_the_background_lives_until_it_is_stopped(tmp_path: pathlib.Path) -> None:
    folder, port = tmp_path / "server", free_port()
    command = [sys.executable, "-m", "tests.support.postgres_server"]
    start = [*command, f"--background={folder}", f"--port={port}", "--database=shop"]
    try:
        for _twice in range(2):
            subprocess.run(start, cwd=REPOSITORY, check=True, capture_output=True)
            with contextlib.closing(
                psycopg2.connect(
                    host="127.0.0.1", port=port, user="postgres", dbname="shop", passfile=str(folder / "passfile")
                )
            ) as connection:
                assert connection.info.dbname == "shop"
        assert (folder / "bin" / "pg_dump").exists()
        assert (folder / "passfile").stat().st_mode & 0o077 == 0
    finally:
        subprocess.run([*command, f"--stop={folder}"], cwd=REPOSITORY, check=True)
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="shop", password="any")


def test_a_port_that_is_taken_is_said(tmp_path: pathlib.Path) -> None:
    with PostgresServer() as server:
        started = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.support.postgres_server",
                f"--background={tmp_path}",
                f"--port={server.port}",
            ],
            cwd=REPOSITORY,
            check=False,
            capture_output=True,
            text=True,
        )
    assert started.returncode == 1
    assert "could not bind" in started.stderr
