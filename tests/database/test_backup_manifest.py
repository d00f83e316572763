# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup's manifest records beside the dump, and its signature."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import stat
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import backup, early, manifest, publication, readiness
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database


@pytest.fixture
def request_for(database: Database, tmp_path: pathlib.Path) -> readiness.BackupRequest:
    database.execute("CREATE SCHEMA b2b; CREATE TABLE b2b.orders AS SELECT i AS id FROM generate_series(1, 5) i")
    return readiness.BackupRequest(
        ConnectionSettings(**database.connection_arguments()),
        str(tmp_path / "backups"),
        kind="before_migration",
        version="0007",
        bin_dir=str(database.server.bin_dir),
    )


@pytest.fixture
def roles(database: Database) -> Iterator[dict[str, str]]:
    """Roles of the cluster that go with the test."""
    names = {
        short: f'"{short} % {database.name}"' for short in ("owner", "group", "reader", "policy", "set", "stranger")
    }
    for name in names.values():
        database.execute(f"CREATE ROLE {name}")
    yield names
    with contextlib.suppress(Exception):
        database.execute(f"REASSIGN OWNED BY {names['owner']} TO CURRENT_USER")
    for name in names.values():
        database.execute(f"DROP OWNED BY {name}")
    for name in names.values():
        database.execute(f"DROP ROLE {name}")


def test_roles_extensions_and_properties_are_recorded(
    database: Database, request_for: readiness.BackupRequest, roles: dict[str, str]
) -> None:
    database.execute(
        f"""
        ALTER TABLE b2b.orders OWNER TO {roles["owner"]};
        ALTER ROLE {roles["owner"]} LOGIN PASSWORD 'secret';
        ALTER ROLE {roles["owner"]} SET work_mem = '8MB';
        GRANT {roles["group"]} TO {roles["owner"]} WITH ADMIN OPTION;
        GRANT SELECT ON b2b.orders TO {roles["reader"]};
        CREATE POLICY seen ON b2b.orders TO {roles["policy"]} USING (true);
        ALTER ROLE {roles["set"]} IN DATABASE {database.name} SET work_mem = '9MB';
        """
    )
    taken = manifest.load(backup.take_backup(request_for).path)
    bare = {short: name.strip('"') for short, name in roles.items()}
    bootstrap = database.execute("SELECT rolname FROM pg_roles WHERE oid = 10")[0][0]
    assert taken.roles.keys() == {bare[name] for name in ("owner", "reader", "policy", "set")} | {bootstrap}
    owner = taken.roles[bare["owner"]]
    assert (owner["rolcanlogin"], owner["rolsuper"], owner["rolconnlimit"]) == (True, False, -1)
    assert owner["config"] == ["work_mem=8MB"]
    (membership,) = owner["memberships"]
    assert (membership["role"], membership["admin"]) == (bare["group"], True)
    assert ("set" in membership) == (int(taken.server_version.partition(".")[0]) >= 16)
    assert not any("password" in name for facts in taken.roles.values() for name in facts)
    assert taken.extensions.keys() == {"plpgsql"}
    assert taken.extensions["plpgsql"]["schema"] == "pg_catalog"
    assert taken.properties["encoding"] == "UTF8"
    assert {"role": bare["set"], "settings": ["work_mem=9MB"]} in [dict(each) for each in taken.properties["settings"]]
    assert taken.database_bytes > 1_000_000
    assert taken.applied is None


def test_a_signed_backup_counts_only_with_its_key(request_for: readiness.BackupRequest) -> None:
    request = dataclasses.replace(request_for, key="s3cret key")
    assert "s3cret" not in repr(request)
    path = backup.take_backup(request).path
    assert manifest.load(path, "s3cret key").version == "0007"
    for name in manifest.files_below(path):
        file = pathlib.Path(path, name)
        assert b"s3cret" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file = pathlib.Path(path, manifest.NAME)
    file.write_text(file.read_text("utf-8").replace('"rows": 5', '"rows": 6'), "utf-8")
    with pytest.raises(manifest.ManifestInvalid, match="has a wrong signature"):
        manifest.load(path, "s3cret key")
    unsigned = backup.take_backup(request_for).path
    with pytest.raises(manifest.ManifestInvalid, match=r"is not signed.*rollback_backup_key"):
        manifest.load(unsigned, "s3cret key")


def test_an_early_backup_of_another_key_is_not_confirmed(request_for: readiness.BackupRequest) -> None:
    request = dataclasses.replace(request_for, key="one", run_id="run-1", kind="before_rollback")
    taken = early.take_early(request)
    assert early.confirm_or_take(request, taken.path).confirmed_at
    again = early.confirm_or_take(dataclasses.replace(request, key="two"), taken.path)
    assert not again.confirmed_at
    assert "has a wrong signature" in again.stale[0]


def test_readers_share_a_backup_and_nobody_removes_it_then(request_for: readiness.BackupRequest) -> None:
    path = backup.take_backup(request_for).path
    with publication.share_lock(path):
        with publication.share_lock(path):
            assert not publication.remove_published(request_for.backup_dir, path)
        assert not publication.remove_published(request_for.backup_dir, path)
        assert os.path.isdir(path)
    lock = publication.take_lock(path)
    try:
        with pytest.raises(Refused, match="is being written or removed"):
            publication.share_lock(path).__enter__()
    finally:
        os.close(lock)
    assert not publication.remove_published(os.path.dirname(request_for.backup_dir), path)
    assert publication.remove_published(request_for.backup_dir, path)
    assert os.listdir(request_for.backup_dir) == []
    with pytest.raises(Refused, match="cannot be locked"):
        publication.share_lock(path).__enter__()
