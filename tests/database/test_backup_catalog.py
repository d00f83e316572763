# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a real server in the catalog: verified, chosen, and shown by the modules and the playbook."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    backup_catalog,
    backup_levels,
    manifest,
    pg_tools,
    publication,
    readiness,
    selection,
    server,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings

from tests.support.runbook import ANSIBLE_PLAYBOOK, REPOSITORY

if t.TYPE_CHECKING:
    from tests.conftest import Database

SCHEMA = """
CREATE SCHEMA b2b;
CREATE TABLE b2b.orders (id int PRIMARY KEY, note text);
INSERT INTO b2b.orders SELECT i, 'order ' || i FROM generate_series(1, 500) i;
"""
KEY = "a key from the vault"


class Shop:
    """A database, and the folder of its backups."""

    def __init__(self, database: Database, folder: pathlib.Path) -> None:
        database.execute(SCHEMA)
        self.database = database
        self.folder = folder
        self.backups = folder / "backups"
        self.settings = ConnectionSettings(**database.connection_arguments())
        self.means = backup_levels.Means(settings=self.settings, bin_dir=str(database.server.bin_dir))
        self.request = readiness.BackupRequest(
            self.settings, str(self.backups), kind="before_migration", version="0007", bin_dir=self.means.bin_dir
        )

    def take(self, **changes: t.Any) -> pathlib.Path:
        """Take a backup."""
        return pathlib.Path(backup.take_backup(dataclasses.replace(self.request, **changes)).path)

    @property
    def target(self) -> server.Target:
        """The database as a run knows it."""
        with contextlib.closing(self.database.connect()) as connection:
            return server.inspect_target(connection, self.settings)

    def choose(self, **options: t.Any) -> selection.Choice:
        """Choose for this database."""
        return selection.choose(str(self.backups), self.target, means=self.means, **options)

    def databases(self) -> set[str]:
        """Every database of the server."""
        return {name for (name,) in self.database.execute("SELECT datname FROM pg_database")}

    def recording(self, script: str = 'exec "$REAL" "$@"') -> tuple[str, pathlib.Path]:
        """Client programs of which pg_restore notes every call, and the file with the notes."""
        folder, notes = self.folder / "bin", self.folder / "calls"
        folder.mkdir()
        for program in pg_tools.PROGRAMS:
            (folder / program).symlink_to(self.database.server.bin_dir / program)
        (folder / "pg_restore").unlink()
        real = shlex.quote(str(self.database.server.bin_dir / "pg_restore"))
        (folder / "pg_restore").write_text(
            f'#!/bin/sh\nREAL={real}\necho "$*" >> {shlex.quote(str(notes))}\n'
            f'case "$*" in *--version*) exec "$REAL" "$@";; esac\n{script}\n',
            encoding="utf-8",
        )
        (folder / "pg_restore").chmod(0o755)
        return str(folder), notes


@pytest.fixture
def shop(database: Database, tmp_path: pathlib.Path) -> Shop:
    return Shop(database, tmp_path)


def data_file(path: pathlib.Path) -> pathlib.Path:
    return max((path / "dump").glob("*.dat*"), key=lambda file: file.stat().st_size)


def flip(path: pathlib.Path) -> None:
    """Change one bit in the middle."""
    file = data_file(path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


# --- verified ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["manifest", "checksum", "read", "restore"])
def test_a_whole_backup_passes_every_level(shop: Shop, level: str) -> None:
    path = shop.take()
    before = shop.databases()
    entry = backup_catalog.inspect(str(path), level=level, means=shop.means)
    assert (entry.valid, entry.reason, entry.level) == (None if level == "manifest" else True, "", level)
    assert shop.databases() == before
    assert entry.lsn > 0
    assert entry.seconds is not None


@pytest.mark.parametrize("level", ["checksum", "read", "restore"])
@pytest.mark.parametrize("damage", ["flipped", "emptied", "tampered", "unsigned"])
def test_nothing_reads_an_archive_whose_checksum_or_signature_is_wrong(shop: Shop, level: str, damage: str) -> None:
    path = shop.take(key=KEY)
    bin_dir, notes = shop.recording()
    means = dataclasses.replace(shop.means, bin_dir=bin_dir)
    if damage == "flipped":
        flip(path)
    elif damage == "emptied":
        data_file(path).write_bytes(b"")
    else:
        file = path / "manifest.json"
        content = json.loads(file.read_text())
        name, value = ("version", "0008") if damage == "tampered" else ("signature", {})
        content[name] = value
        file.write_text(json.dumps(content))
    entry = backup_catalog.inspect(str(path), KEY, level, means)
    assert entry.valid is False
    assert entry.reason
    assert not notes.exists(), notes.read_text()


def test_an_archive_exchanged_together_with_its_checksum_has_no_signature(shop: Shop) -> None:
    path = shop.take(key=KEY)
    flip(path)
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    changed = data_file(path)
    for entry in content["files"]:
        if entry["path"] == f"dump/{changed.name}":
            with changed.open("rb") as opened:
                entry["sha256"] = manifest.digest_of(opened.fileno())
    file.write_text(json.dumps(content))
    assert backup_catalog.inspect(str(path), level="checksum").valid is True
    found = backup_catalog.inspect(str(path), KEY, "checksum")
    assert (found.valid, "wrong signature" in found.reason) == (False, True)


def test_pg_restore_is_asked_once_and_what_it_says_counts(shop: Shop) -> None:
    path = shop.take()
    bin_dir, notes = shop.recording('echo "pg_restore: error: cannot" >&2; exit 1')
    means = dataclasses.replace(shop.means, bin_dir=bin_dir)
    entry = backup_catalog.inspect(str(path), level="read", means=means)
    assert (entry.valid, entry.level) == (False, "checksum")
    assert "pg_restore: error: cannot" in entry.reason
    assert [line for line in notes.read_text().splitlines() if "--version" not in line] == [
        f"--file=/dev/null {path}/dump"
    ]


def test_without_fitting_programs_it_is_not_known(shop: Shop) -> None:
    path = shop.take()
    means = dataclasses.replace(shop.means, bin_dir=str(shop.folder))
    entry = backup_catalog.inspect(str(path), level="read", means=means)
    assert (entry.valid, entry.level) == (None, "checksum")
    assert "rollback_pg_bin_dir" in entry.reason


def test_a_restore_that_differs_from_the_manifest_is_told(shop: Shop) -> None:
    path = shop.take()
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    content["tables"]["b2b.orders"]["rows"] = 501
    file.write_text(json.dumps(content))
    before = shop.databases()
    assert backup_catalog.inspect(str(path), level="read", means=shop.means).valid is True
    entry = backup_catalog.inspect(str(path), level="restore", means=shop.means)
    assert (entry.valid, entry.level) == (False, "read")
    assert "b2b.orders" in entry.reason
    assert shop.databases() == before


def test_a_restore_that_cannot_be_tried_says_nothing_about_the_backup(shop: Shop) -> None:
    path = shop.take()
    means = dataclasses.replace(shop.means, server_free_bytes=1)
    entry = backup_catalog.inspect(str(path), level="restore", means=means)
    assert (entry.valid, entry.level) == (None, "read")
    assert "rollback_server_free_bytes" in entry.reason


# --- chosen -----------------------------------------------------------------------------------------------------------


def test_the_order_is_that_of_the_log_though_the_clock_was_moved_back(shop: Shop) -> None:
    first, second = shop.take(), shop.take()
    assert first.name != second.name
    shop.database.execute("INSERT INTO b2b.orders VALUES (501, 'later')")
    third = shop.take()
    file = third / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "created_at": "2001-01-01T00:00:00.000Z"}))
    assert next(entry.id for entry in backup_catalog.list_backups(str(shop.backups))) == third.name
    assert shop.choose().entry.id == third.name


def test_a_truncated_newer_one_is_passed_over_and_never_where_it_was_named(shop: Shop) -> None:
    whole = shop.take()
    shop.database.execute("INSERT INTO b2b.orders VALUES (501, 'later')")
    cut = shop.take()
    file = data_file(cut)
    os.truncate(file, file.stat().st_size // 2)
    choice = shop.choose()
    assert choice.entry.id == whole.name
    assert [each.id for each in choice.skipped] == [cut.name]
    assert f"dump/{file.name} has {file.stat().st_size} bytes" in choice.skipped[0].reason
    assert choice.gap is not None
    assert choice.gap.seconds > 0
    with pytest.raises(selection.NoValidBackup, match=f"{cut.name} was named and cannot be used"):
        shop.choose(named=cut.name)


def test_backups_of_another_database_are_not_chosen(shop: Shop) -> None:
    shop.take()
    other = dataclasses.replace(shop.target, database="another")
    with pytest.raises(selection.NoValidBackup, match="of the database"):
        selection.choose(str(shop.backups), other)
    elsewhere = dataclasses.replace(shop.target, system_identifier="1")
    with pytest.raises(selection.NoValidBackup, match="another cluster"):
        selection.choose(str(shop.backups), elsewhere)


def test_a_clone_counts_as_long_as_its_database_is_there_and_closed(shop: Shop) -> None:
    path = shop.take(provider="clone")
    name = manifest.load(str(path)).clone["database"]
    assert backup_catalog.inspect(str(path), level="checksum", means=shop.means).valid is True
    choice = shop.choose()
    assert (choice.entry.id, choice.entry.provider) == (path.name, "clone")
    assert choice.entry.bytes > 1_000_000
    assert backup_catalog.inspect(str(path), level="restore", means=shop.means).level == "restore"
    shop.database.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    with pytest.raises(selection.NoValidBackup, match="open to connections"):
        shop.choose()
    # What it holds is what it held.
    entry = backup_catalog.inspect(str(path), level="restore", means=shop.means)
    assert (entry.valid, entry.level) == (True, "restore"), entry.reason
    shop.database.server.execute("DELETE FROM b2b.orders WHERE id = 1", name)
    entry = backup_catalog.inspect(str(path), level="restore", means=shop.means)
    assert (entry.valid, entry.level, "b2b.orders" in entry.reason) == (False, "checksum", True)
    shop.database.execute(f'DROP DATABASE "{name}"')
    with pytest.raises(selection.NoValidBackup, match="is gone"):
        shop.choose()
    silent = dataclasses.replace(shop.means, settings=dataclasses.replace(shop.settings, port=1))
    entry = backup_catalog.inspect(str(path), level="checksum", means=silent)
    assert (entry.valid, "could not be asked" in entry.reason) == (None, True)


# --- playbook ---------------------------------------------------------------------------------------------------------


def play(shop: Shop, *arguments: str, **settings: t.Any) -> subprocess.CompletedProcess[str]:
    login = shop.database.connection_arguments()
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": os.path.join(os.path.dirname(ANSIBLE_PLAYBOOK), "python"),
        "rollback_db_host": login["host"],
        "rollback_db_port": login["port"],
        "rollback_db_name": shop.database.name,
        "rollback_db_user": login["user"],
        "rollback_db_password": login["password"],
        "rollback_pg_bin_dir": shop.means.bin_dir,
        "rollback_backup_dir": str(shop.backups),
        **settings,
    }
    inventory = shop.folder / "hosts.json"
    hosts = {"db1": {}, "db2": {"rollback_db_name": "elsewhere"}} if "two" in arguments else {"db1": {}}
    inventory.write_text(json.dumps({"all": {"vars": variables, "children": {"erp_db": {"hosts": hosts}}}}))
    command = [ANSIBLE_PLAYBOOK, "-i", str(inventory), "playbooks/backups.yml", *arguments]
    return subprocess.run(
        [word for word in command if word != "two"],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_playbook_shows_all_and_fails_where_an_emergency_would(shop: Shop) -> None:
    nothing = play(shop)
    assert (nothing.returncode, "There is no valid before_migration backup" in nothing.stdout) == (2, True)
    old = shop.take(key=KEY)
    newest = shop.take(key=KEY)
    login = shop.database.connection_arguments()
    fine = play(shop, "-e", "verify=restore", "-vvv", rollback_backup_key=KEY)
    assert fine.returncode == 0, fine.stdout
    assert f"{newest.name}  before_migration  0007" in fine.stdout
    for secret in (KEY, login["password"]):
        assert not secret or secret not in fine.stdout + fine.stderr
    two = play(shop, "two", rollback_backup_key=KEY)
    assert two.returncode == 2
    assert "no valid before_migration backup of elsewhere" in two.stdout
    flip(newest)
    broken = play(shop, rollback_backup_key=KEY)
    assert broken.returncode == 2
    assert f"The newest valid one is {old.name}" in broken.stdout
    named = play(shop, "-e", f"backup={old.name}", rollback_backup_key=KEY)
    assert named.returncode == 0, named.stdout
    assert "ROWS OF 1 TABLES" in named.stdout
    assert play(shop, "-e", f"backup={newest.name}", rollback_backup_key=KEY).returncode == 2
    missing = play(shop, "-e", "backup=backup_none")
    assert (missing.returncode, "There is no backup 'backup_none'" in missing.stdout) == (2, True)


def test_the_playbook_removes_only_when_it_is_told_to(shop: Shop) -> None:
    paths = [shop.take() for _number in range(3)]
    refused = play(shop, "-e", "expire=yes")
    assert (refused.returncode, "rollback_backup_keep" in refused.stdout) == (2, True)
    preview = play(shop, "-e", "expire=yes", "--check", "--diff", rollback_backup_keep=1)
    assert preview.returncode == 0, preview.stdout
    assert "WOULD BE REMOVED  2" in preview.stdout
    assert f"-{paths[0].name}" in preview.stdout
    assert all(path.is_dir() for path in paths)
    done = play(shop, "-e", "expire=yes", rollback_backup_keep=1)
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert [path.is_dir() for path in paths] == [False, False, True]
    again = play(shop, "-e", "expire=yes", rollback_backup_keep=1)
    assert (again.returncode, "changed=0" in again.stdout) == (0, True)
    assert publication.PARTIAL_PREFIX not in " ".join(os.listdir(shop.backups))
