# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The property of every restore: whatever PostgreSQL lets people do, the restored database is equal to what was backed up."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import secrets
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import backup, readiness, restore
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.database_properties import read_properties

from tests.support import everything

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.conftest import Database
    from tests.support.postgres_server import PostgresServer


@pytest.fixture
def roles(server: PostgresServer) -> Iterator[everything.Everything]:
    with everything.everything(server) as made:
        yield made


@pytest.fixture(params=everything.KINDS)
def filled(request: pytest.FixtureRequest, roles: everything.Everything) -> Iterator[ConnectionSettings]:
    """One of the databases, under a name that needs care, and whatever is restored beside it."""
    name = f'Li\'ve "{request.param}"=%s\\\n{secrets.token_hex(3)}'
    roles.server.create_database(name)
    roles.fill(name, request.param)
    yield ConnectionSettings(**roles.server.connection_arguments(name))
    for (each,) in roles.server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'Li''ve%'"):
        roles.server.drop_database(each)


def test_the_restored_database_is_equal(
    filled: ConnectionSettings, roles: everything.Everything, tmp_path: pathlib.Path
) -> None:
    server = roles.server
    before = roles.dump(filled.dbname)
    request = readiness.BackupRequest(
        filled,
        str(tmp_path / "backups"),
        version="0007",
        kind="before_migration",
        bin_dir=str(server.bin_dir),
        content=True,
    )
    taken = backup.take_backup(request)
    wanted = restore.RestoreRequest(filled, taken.path, bin_dir=str(server.bin_dir), jobs=2)
    restored = restore.restore_beside(wanted)

    assert everything.differing_lines(before, roles.dump(restored.database)) == []
    assert everything.content_of(server, restored.database) == everything.content_of(server, filled.dbname)
    with contextlib.closing(server.connect("postgres")) as session, session.cursor() as cursor:
        live, beside = read_properties(cursor, filled.dbname), read_properties(cursor, restored.database)
    assert {**beside.to_dict(), "comment": live.comment} == live.to_dict()
    assert everything.differing_lines(before, roles.dump(filled.dbname)) == []
    assert [text for text in restored.warnings if "vulnerabilities" not in text] == []
    assert restored.tables == taken.tables
    assert restore.verify_by_restore(wanted) == []


REORDERED = """
CREATE TABLE base (a int DEFAULT 1, b text);
CREATE TABLE derived (own date) INHERITS (base);
ALTER TABLE base ADD COLUMN added_later int DEFAULT 5;
CREATE TABLE reordered (b text, a int, added_later int);
ALTER TABLE reordered INHERIT base;
INSERT INTO derived VALUES (1, 'x', '2026-01-01', 9);
INSERT INTO reordered VALUES ('y', 3, 4);
"""


def test_inherited_columns_come_first_in_any_restore_and_hold_the_same(
    database: Database, tmp_path: pathlib.Path
) -> None:
    database.execute(REORDERED)
    settings = ConnectionSettings(**database.connection_arguments())
    bin_dir = str(database.server.bin_dir)
    request = readiness.BackupRequest(settings, str(tmp_path / "b"), version="0007", bin_dir=bin_dir, content=True)
    wanted = restore.RestoreRequest(settings, backup.take_backup(request).path, bin_dir=bin_dir)
    restored = restore.restore_beside(wanted)
    try:
        assert everything.content_of(database.server, restored.database) == everything.content_of(
            database.server, database.name
        )
        rows = database.server.execute("SELECT b, a, added_later FROM reordered", restored.database)
        assert rows == [("y", 3, 4)]
    finally:
        database.server.drop_database(restored.database)
