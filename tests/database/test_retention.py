# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a real server that are removed: never the last valid one, never one in use, and a clone with its database."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    backup_catalog,
    backup_levels,
    clone,
    manifest,
    publication,
    readiness,
    retention,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings

from tests.support.runbook import REPOSITORY, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database

SCHEMA = "CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders SELECT i, 'x' FROM generate_series(1, 99) i"


@pytest.fixture
def settings(database: Database) -> ConnectionSettings:
    database.execute(SCHEMA)
    return ConnectionSettings(**database.connection_arguments())


@pytest.fixture
def means(settings: ConnectionSettings, database: Database) -> backup_levels.Means:
    return backup_levels.Means(settings=settings, bin_dir=str(database.server.bin_dir))


@pytest.fixture
def take(settings: ConnectionSettings, database: Database, tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    request = readiness.BackupRequest(
        settings,
        str(tmp_path / "backups"),
        kind="before_migration",
        version="0007",
        bin_dir=str(database.server.bin_dir),
    )
    return lambda **changes: pathlib.Path(backup.take_backup(dataclasses.replace(request, **changes)).path)


def expire(path: pathlib.Path, keep: int, **options: t.Any) -> retention.Expired:
    return retention.expire(str(path.parent), retention.Policy(keep), **options)


def removed(done: retention.Expired) -> list[str]:
    return [decision.entry.id for decision in done.removed]


def databases(database: Database) -> set[str]:
    return {name for (name,) in database.execute("SELECT datname FROM pg_database")}


def test_the_last_valid_one_survives_damaged_newer_ones(take: Callable[..., pathlib.Path]) -> None:
    oldest, valid, *damaged = [take() for _number in range(4)]
    for path in damaged:
        shutil.rmtree(path / "dump")
    done = expire(valid, 1)
    assert removed(done) == [oldest.name]
    assert backup_catalog.inspect(str(valid), level="checksum").valid is True
    assert all(path.is_dir() for path in damaged)


READER = """
import sys
from ansible_collections.cypher.rollback.plugins.module_utils.publication import share_lock
with share_lock(sys.argv[1]):
    print("reading", flush=True)
    sys.stdin.read()
"""


def test_a_reader_keeps_its_backup_until_it_ends_or_dies(take: Callable[..., pathlib.Path]) -> None:
    old, _newest = take(), take()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(old)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        done = expire(old, 1)
        assert (done.removed, old.is_dir()) == ((), True)
        assert done.kept[1].reason == retention.IN_USE
        assert backup_catalog.read_entry(str(old)).in_use
    finally:
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
    assert removed(expire(old, 1)) == [old.name]


def test_what_is_half_removed_is_not_in_the_catalog_and_goes_with_the_next_backup(
    take: Callable[..., pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, newest = take(), take()
    with monkeypatch.context() as patched:
        patched.setattr(publication.shutil, "rmtree", lambda *_arguments, **_options: None)
        assert removed(expire(old, 1)) == [old.name]
    assert [entry.id for entry in backup_catalog.list_backups(str(newest.parent))] == [newest.name]
    assert len(list(newest.parent.iterdir())) == 2
    take()
    assert not any(path.name.startswith(publication.PARTIAL_PREFIX) for path in newest.parent.iterdir())


def test_a_clone_goes_with_its_database(
    take: Callable[..., pathlib.Path], means: backup_levels.Means, database: Database
) -> None:
    before = databases(database)
    old = take(provider="clone")
    newest = take(provider="clone")
    names = [manifest.load(str(path)).clone["database"] for path in (old, newest)]
    assert databases(database) == before | set(names)
    assert removed(expire(old, 1, means=means, check_mode=True)) == [old.name]
    assert databases(database) == before | set(names)
    assert removed(expire(old, 1, means=means)) == [old.name]
    assert databases(database) == before | {names[1]}
    assert (old.exists(), newest.is_dir()) == (False, True)
    clone.drop(means.settings, manifest.load(str(newest)))


def test_a_clone_whose_database_is_gone_is_not_the_last_valid_one(
    take: Callable[..., pathlib.Path], means: backup_levels.Means
) -> None:
    oldest, dump, lost = take(), take(), take(provider="clone")
    clone.drop(means.settings, manifest.load(str(lost)))
    done = expire(dump, 1, means=means)
    assert removed(done) == [oldest.name]
    assert {decision.entry.id for decision in done.kept} == {dump.name, lost.name}
    take()
    done = expire(dump, 1, means=means)
    assert sorted(removed(done)) == sorted([dump.name, lost.name])


def test_a_clone_that_became_a_database_of_its_own_is_not_dropped(
    take: Callable[..., pathlib.Path], means: backup_levels.Means, database: Database
) -> None:
    restored, newest = take(provider="clone"), take()
    name = manifest.load(str(restored)).clone["database"]
    database.execute(f"COMMENT ON DATABASE \"{name}\" IS 'replaced'")
    database.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert removed(expire(newest, 1, means=means)) == [restored.name]
    assert name in databases(database)
    database.server.drop_database(name)


def test_a_clone_that_somebody_is_in_stays_whole(
    take: Callable[..., pathlib.Path], means: backup_levels.Means, database: Database
) -> None:
    used, newest = take(provider="clone"), take()
    name = manifest.load(str(used)).clone["database"]
    database.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    session = database.server.connect(name)
    try:
        done = expire(newest, 1, means=means)
        assert (done.removed, used.is_dir(), name in databases(database)) == ((), True, True)
        assert name in done.kept[1].reason
    finally:
        session.close()
    wait_until(lambda: not database.execute(f"SELECT FROM pg_stat_activity WHERE datname = '{name}'"))
    assert removed(expire(newest, 1, means=means)) == [used.name]
    assert name not in databases(database)


def test_two_that_remove_at_once_do_not_get_in_each_others_way(
    take: Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    paths = [take() for _number in range(5)]
    script = tmp_path / "expire.py"
    script.write_text(
        "import sys\n"
        "from ansible_collections.cypher.rollback.plugins.module_utils import retention\n"
        "done = retention.expire(sys.argv[1], retention.Policy(int(sys.argv[2])))\n"
        "print(len(done.removed))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(paths[0].parent), keep], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        for keep in ("1", "2")
    ]
    answers = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    left = [entry.id for entry in backup_catalog.list_backups(str(paths[0].parent))]
    # What one of the two reads at that moment, the other leaves to the next time.
    assert paths[4].name in left
    assert sum(map(int, answers)) == 5 - len(left)
    assert removed(expire(paths[0], 1)) == [name for name in left if name != paths[4].name]


def test_an_archive_that_is_not_signed_does_not_count_and_does_not_go(take: Callable[..., pathlib.Path]) -> None:
    unsigned, signed, newest = take(), take(key="secret"), take(key="secret")
    file = newest / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "applied": None, "run_id": "other"}))
    done = expire(newest, 1, key="secret")
    assert done.removed == ()
    reasons = {decision.entry.id: decision.reason for decision in done.kept}
    assert reasons[signed.name] == "The only one."
    assert all("Not ours to remove" in reasons[path.name] for path in (unsigned, newest))
    assert os.path.isdir(unsigned)
