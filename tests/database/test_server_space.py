# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on the server: seen where its files are on this host, and only then."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import server_space
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

MEGABYTE = 1024 * 1024


@pytest.fixture
def small_folder(database: Database) -> Iterator[pathlib.Path]:
    """A file system of 40 MB that belongs to the server's user."""
    folder = pathlib.Path(database.server.data_dir).parent / f"small_{database.name}"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    facts = os.stat(database.server.data_dir)
    os.chown(folder, facts.st_uid, facts.st_gid)
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def free(database: Database, stated: int | None = None, user: str = "") -> int | None:
    settings = ConnectionSettings(**database.connection_arguments())
    arguments: dict[str, t.Any] = {"user": user, "password": "secret"} if user else {}
    with (
        contextlib.closing(database.server.connect("postgres", **arguments)) as connection,
        connection.cursor() as cursor,
    ):
        return server_space.free_bytes(cursor, settings, stated)


def on_disk(database: Database) -> int:
    facts = os.statvfs(database.server.data_dir)
    return facts.f_bavail * facts.f_frsize


def test_a_server_on_this_host_is_looked_at(database: Database) -> None:
    seen = free(database)
    assert seen is not None
    assert abs(seen - on_disk(database)) < 1024 * MEGABYTE
    assert free(database, stated=5) == 5
    assert free(database, stated=1 << 60) != 1 << 60


def test_the_smallest_tablespace_of_the_database_counts(database: Database, small_folder: pathlib.Path) -> None:
    database.execute(f"CREATE TABLESPACE {database.name} LOCATION '{small_folder}'")
    try:
        assert t.cast("int", free(database)) > 40 * MEGABYTE or on_disk(database) < 40 * MEGABYTE
        database.execute(f"CREATE TABLE t (a int) TABLESPACE {database.name}")
        assert t.cast("int", free(database)) <= 40 * MEGABYTE
    finally:
        database.execute("DROP TABLE IF EXISTS t")
        database.execute(f"DROP TABLESPACE {database.name}")


def test_a_role_that_may_not_see_the_folder_gets_what_is_stated(database: Database) -> None:
    name = f"plain_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    try:
        assert free(database, user=name) is None
        assert free(database, stated=7, user=name) == 7
    finally:
        database.execute(f"DROP ROLE {name}")


def test_the_folder_of_another_server_is_not_taken_for_it(database: Database, tmp_path: pathlib.Path) -> None:
    ((identifier, started),) = database.execute(
        "SELECT system_identifier::text, extract(epoch FROM pg_postmaster_start_time())::int8 FROM pg_control_system()"
    )
    data_dir = str(database.server.data_dir)
    assert server_space.is_server_of(data_dir, identifier, started)
    assert not server_space.is_server_of(data_dir, str(int(identifier) + 1), started)
    assert not server_space.is_server_of(data_dir, identifier, started + 3600)
    assert not server_space.is_server_of(str(tmp_path), identifier, started)
