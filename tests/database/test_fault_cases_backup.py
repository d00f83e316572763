# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbered fault cases of backups, one test each, against a real server.

What the runbook makes of a failed backup (the DOWN is not run, the application goes on as before) is in
tests/runbook/test_failures.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import typing as t

import psycopg2
import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    backup_catalog,
    backup_levels,
    manifest,
    pg_tools,
    readiness,
    retention,
    selection,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings, connect
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.readiness import BackupRequest
from ansible_collections.cypher.rollback.plugins.module_utils.server import Target, inspect_target

from tests.support.backups import (
    background_backup,
    leaves_nothing,
    plain_role,
    small_device,
    wait_for,
    with_pg_dump,
    wrapped_programs,
)
from tests.support.runbook import ANSIBLE_PLAYBOOK, REPOSITORY

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Database

ROWS = {"b2b.orders": 5000, "b2b.empty": 0, "public.notes": 3}

LARGEST = 'FILE=$(ls -S "$ARCHIVE"/[0-9]*.dat | head -1)'


@pytest.fixture
def backup_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def asked(database: Database, backup_dir: pathlib.Path) -> BackupRequest:
    """The request for a backup of a database with rows, an empty table and a large object."""
    database.execute(
        "CREATE SCHEMA b2b; CREATE TABLE b2b.orders (id int PRIMARY KEY, note text); CREATE TABLE b2b.empty (a int); "
        "INSERT INTO b2b.orders SELECT i, 'order ' || i FROM generate_series(1, 5000) i; "
        "CREATE TABLE notes AS SELECT i FROM generate_series(1, 3) i; SELECT lo_from_bytea(0, 'abc')"
    )
    return BackupRequest(
        ConnectionSettings(**database.connection_arguments()),
        str(backup_dir),
        version="0003",
        bin_dir=str(database.server.bin_dir),
    )


@pytest.fixture
def device(tmp_path: pathlib.Path) -> Iterator[Callable[[int], pathlib.Path]]:
    """Mounts a file system of so many megabytes, with a folder for backups in it."""
    with contextlib.ExitStack() as stack:

        def mount(megabytes: int) -> pathlib.Path:
            folder = stack.enter_context(small_device(tmp_path / "small", megabytes)) / "backups"
            folder.mkdir(mode=0o700)
            return folder

        yield mount


def fill_up(folder: pathlib.Path) -> None:
    """Leave no byte free in the file system of a folder."""
    with (folder.parent / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def target_of(request: BackupRequest) -> Target:
    with contextlib.closing(connect(request.settings)) as connection:
        return inspect_target(connection, request.settings)


def chosen(request: BackupRequest) -> selection.Choice:
    return selection.choose(request.backup_dir, target_of(request), kinds=("before_rollback",))


def means_of(request: BackupRequest) -> backup_levels.Means:
    return backup_levels.Means(settings=request.settings, bin_dir=request.bin_dir)


def visible(request: BackupRequest) -> list[str]:
    return [entry.id for entry in backup_catalog.list_backups(request.backup_dir)]


def takes_the_next(request: BackupRequest) -> backup.Backup:
    """A second run goes well, whatever the first one left."""
    taken = backup.take_backup(request)
    assert [entry.name for entry in pathlib.Path(request.backup_dir).iterdir()] == [taken.id]
    return taken


# --- room -------------------------------------------------------------------------------------------------------------


def test_case_01_disk_full_during_the_dump(
    asked: BackupRequest, database: Database, device: Callable[[int], pathlib.Path]
) -> None:
    """TOAST compresses this to a hundredth, so that the estimate fits and the dump does not."""
    database.execute("CREATE TABLE big AS SELECT repeat('x', 1000000) AS t FROM generate_series(1, 100)")
    folder = device(48)
    with pytest.raises(FailedUnchanged, match=r"No space left on device.*no backup was published"):
        backup.take_backup(dataclasses.replace(asked, backup_dir=str(folder)))
    assert leaves_nothing(folder)


def test_case_02_disk_full_while_compressing(
    asked: BackupRequest, database: Database, tmp_path: pathlib.Path, device: Callable[[int], pathlib.Path]
) -> None:
    """pg_dump compresses by itself, so there is no pipe whose exit code could get lost."""
    database.execute("CREATE TABLE big AS SELECT md5(random()::text) AS t FROM generate_series(1, 100000)")
    folder = device(64)
    script = f'head -c 63m /dev/zero > {folder.parent}/filler; exec "$REAL" "$@"'
    request = with_pg_dump(dataclasses.replace(asked, backup_dir=str(folder), compress=True), tmp_path, script)
    with pytest.raises(FailedUnchanged, match=r"No space left on device.*no backup was published"):
        backup.take_backup(request)
    assert leaves_nothing(folder)


def test_case_03_disk_full_while_writing_the_manifest(
    asked: BackupRequest, device: Callable[[int], pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = device(48)
    request = dataclasses.replace(asked, backup_dir=str(folder))
    real = manifest.write

    def write_on_a_full_device(*arguments: t.Any) -> str:
        fill_up(folder)
        return real(*arguments)

    monkeypatch.setattr(manifest, "write", write_on_a_full_device)
    with pytest.raises(FailedUnchanged, match=r"No space left on device.*no backup was published"):
        backup.take_backup(request)
    assert leaves_nothing(folder)
    monkeypatch.undo()
    (folder.parent / "filler").unlink()
    assert takes_the_next(request).tables == ROWS


# --- programs and processes that are killed ---------------------------------------------------------------------------


def test_case_04_pg_dump_is_killed_half_way(asked: BackupRequest, database: Database, tmp_path: pathlib.Path) -> None:
    database.execute("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 10) AS t FROM generate_series(1, 300000) i")
    seen = tmp_path / "seen"
    script = (
        f'(while ! ls "$ARCHIVE"/[0-9]*.dat >/dev/null 2>&1; do sleep 0.005; done; ls "$ARCHIVE" > {seen}; kill -9 $$) & '
        'exec "$REAL" "$@"'
    )
    with pytest.raises(FailedUnchanged, match="pg_dump was killed by signal SIGKILL"):
        backup.take_backup(with_pg_dump(asked, tmp_path, script))
    assert ".dat" in seen.read_text("utf-8")
    assert leaves_nothing(pathlib.Path(asked.backup_dir))
    takes_the_next(asked)


#: The process is gone right after the folder has its name, before it can tell anybody.
KILLED_AFTER_RENAME = """
import os, signal
rename = os.rename
def rename_and_die(*arguments):
    rename(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = rename_and_die
"""


def test_case_05_the_controller_is_killed_after_the_rename(asked: BackupRequest, tmp_path: pathlib.Path) -> None:
    with background_backup(asked, tmp_path, KILLED_AFTER_RENAME) as process:
        assert process.wait(60) == -signal.SIGKILL, process.communicate()
    (found,) = backup_catalog.list_backups(asked.backup_dir)
    assert backup_catalog.inspect(found.path, level="read", means=means_of(asked)).valid is True
    assert chosen(asked).entry.id == found.id
    assert manifest.load(found.path).rows == ROWS


@pytest.mark.parametrize("lost", ["the whole file", "its end"])
def test_case_06_a_power_cut_takes_written_pages(asked: BackupRequest, lost: str) -> None:
    """Without fsync, a power cut after the rename leaves files cut short, zeroed or empty."""
    older = backup.take_backup(asked)
    newer = backup.take_backup(asked)
    (file,) = [path for path in pathlib.Path(newer.path, "dump").glob("[0-9]*.dat") if path.stat().st_size > 10000]
    os.truncate(file, 0 if lost == "the whole file" else file.stat().st_size // 2)
    choice = chosen(asked)
    assert choice.entry.id == older.id
    (skipped,) = choice.skipped
    assert skipped.id == newer.id
    assert re.search(r"has \d+ bytes, \d+ were written", skipped.reason)
    with pytest.raises(Refused, match="were written"):
        selection.choose(asked.backup_dir, target_of(asked), named=newer.id)


# --- programs, locks, privileges --------------------------------------------------------------------------------------


def test_case_07_pg_dump_of_an_older_major(asked: BackupRequest, tmp_path: pathlib.Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    for program in pg_tools.PROGRAMS:
        (older / program).write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) 9.2.18'\n", "utf-8")
        (older / program).chmod(0o755)
    with pytest.raises(Refused, match=r"9\.2 in .*older.*rollback_pg_bin_dir"):
        backup.take_backup(dataclasses.replace(asked, bin_dir=str(older)))
    assert leaves_nothing(pathlib.Path(asked.backup_dir))


def test_case_08_a_table_is_locked_by_another_connection(
    asked: BackupRequest, backup_dir: pathlib.Path, database: Database
) -> None:
    with contextlib.closing(database.connect(application_name="the holder")) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE b2b.orders IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(FailedUnchanged, match=r"locked.*the holder.*rollback_lock_timeout") as failure:
            backup.take_backup(dataclasses.replace(asked, lock_timeout="300ms"))
        assert time.monotonic() - started < 10
        (blocker,) = failure.value.details["blockers"]
        assert (blocker["pid"], blocker["tables"]) == (holder.info.backend_pid, ["b2b.orders"])
    assert leaves_nothing(backup_dir)
    takes_the_next(asked)


WAITING = (
    "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = 'b2b.empty'::regclass"
)
COPYING = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY public.big%' AND state = 'active'"


@contextlib.contextmanager
def queued(database: Database) -> Iterator[psycopg2.extensions.connection]:
    """A session that waits for a table for itself alone, behind whoever reads it."""

    def wait() -> None:
        with connection.cursor() as cursor, contextlib.suppress(psycopg2.Error):
            cursor.execute("LOCK TABLE b2b.empty IN ACCESS EXCLUSIVE MODE")

    with contextlib.closing(database.connect(application_name="the queue")) as connection:
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            wait_for(lambda: bool(database.execute(WAITING)))
            yield connection
        finally:
            connection.cancel()
            thread.join()


@pytest.mark.parametrize("gives_way", [True, False])
def test_case_09_an_exclusive_lock_is_queued_during_a_parallel_dump(
    asked: BackupRequest, database: Database, tmp_path: pathlib.Path, gives_way: bool
) -> None:
    """The leader has its locks, two large tables keep both workers busy, and then somebody queues for the last one.

    A worker asks for the lock of its table when it comes to it, and gives up where somebody waits for that.
    """
    for name in ("big", "bigger"):
        rows = "SELECT i, repeat(md5(i::text), 10) AS t FROM generate_series(1, 600000) i"
        database.execute(f"CREATE TABLE {name} AS {rows}")
    # Without it all tables look empty, and the workers begin with any.
    database.execute("ANALYZE")
    attempts = tmp_path / "attempts"
    script = f'echo "$*" | grep -o -- "--jobs=[0-9]*" >> {attempts}; exec "$REAL" "$@"'
    request = dataclasses.replace(with_pg_dump(asked, tmp_path, script), jobs=2, lock_timeout="2s")
    with background_backup(request, tmp_path) as process:
        wait_for(lambda: len(database.execute(COPYING)) == 2)
        with queued(database) as connection:
            wait_for(lambda: process.poll() is not None or len(attempts.read_text("utf-8").split()) == 2)
            if gives_way:
                connection.cancel()
            _out, errors = process.communicate(timeout=60)
    ended = errors.decode()
    assert attempts.read_text("utf-8").split() == ["--jobs=2"] * 2, ended
    if gives_way:
        assert process.returncode == 0, ended
        assert len(visible(asked)) == 1
    else:
        assert process.returncode != 0
        assert "the queue" in ended
        assert leaves_nothing(pathlib.Path(asked.backup_dir))


def test_case_10_row_security_hides_rows(
    asked: BackupRequest, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is written; and where it comes later, pg_dump and the count fail instead of leaving out rows."""
    database.execute("ALTER TABLE b2b.orders ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE POLICY few ON b2b.orders USING (id < 10)")
    with plain_role(database, asked) as request:
        with pytest.raises(Refused, match=r"Row security hides rows of b2b\.orders.*BYPASSRLS"):
            backup.take_backup(request)
        monkeypatch.setattr(readiness, "_check_readable", lambda *_arguments: None)
        with pytest.raises(FailedUnchanged, match="row-level security"):
            backup.take_backup(request)
    assert leaves_nothing(pathlib.Path(asked.backup_dir))


def test_case_11_the_role_may_not_read_a_table(asked: BackupRequest, database: Database) -> None:
    with plain_role(database, asked) as request:
        database.execute(f"REVOKE SELECT ON b2b.orders FROM {request.settings.user}")
        with pytest.raises(Refused, match=r"cannot read b2b\.orders.*pg_read_all_data"):
            backup.take_backup(request)
    assert leaves_nothing(pathlib.Path(asked.backup_dir))


# --- folders ----------------------------------------------------------------------------------------------------------


def _link(folder: pathlib.Path) -> None:
    folder.rename(folder.parent / "real")
    folder.symlink_to(folder.parent / "real")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_link, "is a symbolic link"),
        (lambda folder: folder.chmod(0o777), "written by every user"),
        (lambda folder: os.chown(folder, 65534, -1), "belongs to the user with id 65534"),
    ],
    ids=["symlink", "world-writable", "of another user"],
)
def test_case_12_the_backup_folder_is_not_ours_alone(
    asked: BackupRequest, backup_dir: pathlib.Path, make: Callable[[pathlib.Path], None], says: str
) -> None:
    make(backup_dir)
    with pytest.raises(Refused, match=rf"{says}.*rollback_backup_dir"):
        backup.check_ready(asked)


def test_case_12_the_backup_folder_cannot_be_written_or_is_missing(
    asked: BackupRequest, tmp_path: pathlib.Path
) -> None:
    """On /proc not even root can write. A missing folder is made, and not before it is needed."""
    with pytest.raises(Refused, match=r"cannot be written.*rollback_backup_dir"):
        backup.check_ready(dataclasses.replace(asked, backup_dir="/proc/sys/backups"))
    missing = dataclasses.replace(asked, backup_dir=str(tmp_path / "new" / "deeper"))
    backup.check_ready(missing)
    assert not (tmp_path / "new").exists()
    assert backup.take_backup(missing).tables == ROWS


def test_case_13_less_room_than_estimated(asked: BackupRequest, device: Callable[[int], pathlib.Path]) -> None:
    folder = device(10)
    with pytest.raises(Refused, match=r"may need \d+ MB .* has \d+(\.\d+)? MB free.*rollback_backup_dir") as refusal:
        backup.check_ready(dataclasses.replace(asked, backup_dir=str(folder)))
    assert refusal.value.details["free_bytes"] <= 10 * 1024 * 1024 < refusal.value.details["estimated_bytes"]


def test_case_14_everything_is_private_at_umask_000(asked: BackupRequest, tmp_path: pathlib.Path) -> None:
    before = os.umask(0)
    try:
        taken = backup.take_backup(dataclasses.replace(asked, backup_dir=str(tmp_path / "new" / "deeper")))
    finally:
        os.umask(before)
    paths = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert pathlib.Path(taken.path) in paths
    modes = {(path.is_dir(), stat.S_IMODE(path.lstat().st_mode)) for path in paths}
    assert modes == {(True, 0o700), (False, 0o600)}


# --- what is in it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["zero bytes", "one bit"])
def test_case_15_a_file_changes_after_publication(asked: BackupRequest, damage: str) -> None:
    older = backup.take_backup(asked)
    newer = backup.take_backup(asked)
    (file,) = [path for path in pathlib.Path(newer.path, "dump").glob("[0-9]*.dat") if path.stat().st_size > 10000]
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(b"" if damage == "zero bytes" else content)
    (problem,) = manifest.verify(newer.path, manifest.load(newer.path))
    assert ("has 0 bytes" if damage == "zero bytes" else "wrong checksum") in problem
    assert chosen(asked).entry.id == older.id


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('exec "$REAL" "$@" --exclude-table-data=b2b.orders', r"b2b\.orders has no data file"),
        (
            f'"$REAL" "$@" || exit; {LARGEST}; printf "%s\\n\\n\\n" "\\\\." > "$FILE"',
            "5000 rows in the database and 0 in",
        ),
        (f'"$REAL" "$@" || exit; {LARGEST}; sed -i 17d "$FILE"', "5000 rows in the database and 4999"),
    ],
    ids=["left out", "no rows", "one row less"],
)
def test_case_16_fewer_rows_than_the_source(
    asked: BackupRequest, tmp_path: pathlib.Path, script: str, says: str
) -> None:
    with pytest.raises(FailedUnchanged, match=says):
        backup.take_backup(with_pg_dump(asked, tmp_path, script))
    assert leaves_nothing(pathlib.Path(asked.backup_dir))


def test_case_16_an_empty_database_is_recorded_as_such(database: Database, backup_dir: pathlib.Path) -> None:
    settings = ConnectionSettings(**database.connection_arguments())
    request = BackupRequest(settings, str(backup_dir), version="0003", bin_dir=str(database.server.bin_dir))
    taken = backup.take_backup(request)
    assert (taken.tables, taken.verified) == ({}, True)


def test_case_17_no_connection_is_left_for_the_workers(asked: BackupRequest, database: Database) -> None:
    with plain_role(database, dataclasses.replace(asked, jobs=4), "CONNECTION LIMIT 8") as request:
        ready = backup.check_ready(request)
        assert ready.jobs == 3
        assert any("pg_dump runs with 3 jobs instead of 4" in warning for warning in ready.warnings)
        assert backup.take_backup(request).tables == ROWS
        database.execute(f"ALTER ROLE {request.settings.user} CONNECTION LIMIT 4")
        with pytest.raises(Refused, match=r"3 free connections.*needs 4.*max_connections"):
            backup.check_ready(request)


class Clock(backup.dt.datetime):
    """A clock that shows what it is told to."""

    at = (2026, 2, 13, 10, 15)

    @classmethod
    def now(cls, tz: t.Any = None) -> t.Any:
        return cls(*cls.at, tzinfo=tz)


def test_case_18_two_backups_in_one_second(asked: BackupRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup.dt, "datetime", Clock)
    names = [backup.take_backup(asked).id for _number in range(3)]
    first = "backup_before_rollback_0003_20260213_101500"
    assert names == [first, f"{first}_2", f"{first}_3"]
    for name in names:
        path = os.path.join(asked.backup_dir, name)
        assert manifest.verify(path, manifest.load(path)) == []
    monkeypatch.undo()
    assert chosen(asked).entry.id == names[-1]


def test_case_18_the_clock_was_moved_back(
    asked: BackupRequest, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup.dt, "datetime", Clock)
    first = backup.take_backup(asked)
    database.execute("INSERT INTO notes VALUES (4)")
    monkeypatch.setattr(Clock, "at", (2026, 2, 13, 9, 0))
    second = backup.take_backup(asked)
    monkeypatch.undo()
    os.utime(first.path)
    assert manifest.load(second.path).created_at < manifest.load(first.path).created_at
    assert visible(asked) == [second.id, first.id]
    assert chosen(asked).entry.id == second.id


# --- secrets, retention, known vulnerabilities ------------------------------------------------------------------------

CANARY = "canary: of a mine\\ %s 'x' 5f1c9b"

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Back up
      cypher.rollback.db_backup: {options}
    - name: Say so
      cypher.rollback.stage: {{name: backup, run_dir: {run_dir}, run_id: run-1}}
"""


@contextlib.contextmanager
def canary_role(database: Database, request: BackupRequest) -> Iterator[BackupRequest]:
    with plain_role(database, request) as plain:
        with contextlib.closing(database.connect(autocommit=True)) as connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER ROLE {plain.settings.user} PASSWORD %s", (CANARY,))
        yield dataclasses.replace(plain, settings=dataclasses.replace(plain.settings, password=CANARY))


def leaks(*folders: pathlib.Path) -> list[str]:
    """Processes and files that hold the password, as it is or as a part of something else."""
    secrets = {
        CANARY.encode(),
        json.dumps(CANARY)[1:-1].encode(),
        CANARY.replace("\\", "\\\\").replace(":", "\\:").encode(),
    }
    places = [*pathlib.Path("/proc").glob("[0-9]*/cmdline"), *pathlib.Path("/proc").glob("[0-9]*/environ")]
    places += [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    found = []
    for place in places:
        with contextlib.suppress(OSError):
            content = place.read_bytes()
            found += [str(place)] * any(secret in content for secret in secrets)
    return found


def test_case_64_the_password_is_nowhere(asked: BackupRequest, database: Database, tmp_path: pathlib.Path) -> None:
    """Not in what -vvv shows, nor in Ansible's log, the journal, command lines, environments or any file but the passfile."""
    ready, go_on, play = tmp_path / "ready", tmp_path / "go_on", tmp_path / "play.yml"
    script = f'touch {ready}; while [ ! -e {go_on} ]; do sleep 0.02; done; exec "$REAL" "$@"'
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with canary_role(database, asked) as request:
        login = {
            "login_host": request.settings.host,
            "login_port": request.settings.port,
            "login_user": request.settings.user,
            "login_db": database.name,
            "login_password": "{{ lookup('ansible.builtin.file', password_file) }}",
            "backup_dir": request.backup_dir,
            "version": "0003",
            "bin_dir": wrapped_programs(tmp_path / "bin", request.bin_dir, pg_dump=script),
        }
        runs = tmp_path / "runs"
        play.write_text(PLAY.format(options=json.dumps(login), run_dir=runs), "utf-8")
        vault = tmp_path / "vault" / "password"
        vault.parent.mkdir()
        vault.write_text(CANARY, "utf-8")
        environment = {**os.environ, "ANSIBLE_LOG_PATH": str(tmp_path / "log"), "TMPDIR": str(temporary)}
        environment |= {
            "ANSIBLE_LOCAL_TEMP": str(temporary),
            "ANSIBLE_REMOTE_TEMP": str(temporary),
            "ANSIBLE_KEEP_REMOTE_FILES": "0",
        }
        command = [
            ANSIBLE_PLAYBOOK,
            "-vvv",
            "-i",
            "localhost,",
            "-c",
            "local",
            str(play),
            "-e",
            f"password_file={vault}",
        ]
        command += ["-e", f"ansible_python_interpreter={sys.executable}"]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        wait_for(ready.exists)
        during = leaks(pathlib.Path(request.backup_dir), temporary, runs)
        go_on.touch()
        output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0, output
    (passfile,) = during
    assert passfile.startswith(f"{request.backup_dir}/.partial-")
    assert passfile.endswith("/passfile")
    assert "5f1c9b" not in output
    assert "5f1c9b" not in (tmp_path / "log").read_text("utf-8")
    assert leaks(pathlib.Path(request.backup_dir), temporary, runs) == []


def test_case_64_the_passfile_goes_with_sigterm(
    asked: BackupRequest, database: Database, tmp_path: pathlib.Path
) -> None:
    seen = tmp_path / "seen"
    script = f'printf %s "$PGPASSFILE" > {seen}.x; mv {seen}.x {seen}; exec sleep 1000'
    with (
        canary_role(database, asked) as request,
        background_backup(with_pg_dump(request, tmp_path, script), tmp_path) as process,
    ):
        wait_for(seen.exists)
        passfile = pathlib.Path(seen.read_text("utf-8"))
        assert stat.S_IMODE(passfile.stat().st_mode) == 0o600
        process.send_signal(signal.SIGTERM)
        _out, errors = process.communicate(timeout=30)
    assert "SIGTERM" in errors.decode()
    assert "5f1c9b" not in errors.decode()
    assert not passfile.parent.exists()
    assert leaves_nothing(pathlib.Path(asked.backup_dir))


def test_case_66_only_damaged_backups_are_newer(asked: BackupRequest) -> None:
    """However few are to be kept: the last one that is whole stays, and the damaged ones are not counted for it."""
    whole, flipped, short, other = [pathlib.Path(backup.take_backup(asked).path) for _number in range(4)]
    for path, damage in ((flipped, "bit"), (short, "end")):
        (file,) = [each for each in (path / "dump").glob("[0-9]*.dat") if each.stat().st_size > 10000]
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content if damage == "bit" else content[:-9])
    (other / "manifest.json").write_text("{}", "utf-8")
    for keep, days in ((1, None), (None, 0.0), (1, 0.0)):
        done = retention.expire(asked.backup_dir, retention.Policy(keep, days))
        assert whole.name not in [decision.entry.id for decision in done.removed]
        assert backup_catalog.inspect(str(whole), level="read", means=means_of(asked)).valid is True
    assert chosen(asked).entry.id == whole.name


def test_case_69_programs_with_a_known_vulnerability(asked: BackupRequest, tmp_path: pathlib.Path) -> None:
    """A warning with its number, or a refusal where that is asked for; the same for every program of the folder."""
    major = backup.check_ready(asked).tools.version[0]
    if major not in pg_tools.FIXED_IN[0][2]:
        pytest.skip(f"no vulnerability of PostgreSQL {major} is recorded")
    old = tmp_path / "old"
    old.mkdir()
    for program in pg_tools.PROGRAMS:
        real = os.path.join(asked.bin_dir, program)
        says = f"{program} (PostgreSQL) {major}.0"
        (old / program).write_text(
            f'#!/bin/sh\ncase "$*" in *--version*) echo "{says}";; *) exec {real} "$@";; esac\n', "utf-8"
        )
        (old / program).chmod(0o755)
    request = dataclasses.replace(asked, bin_dir=str(old))
    taken = backup.take_backup(request)
    assert any("CVE-2026-116314" in warning and f"{major}.0" in warning for warning in taken.warnings)
    assert any("CVE-2026-116314" in warning for warning in manifest.load(taken.path).warnings)
    with pytest.raises(Refused, match=r"CVE-2026-116314.*rollback_pg_bin_dir.*rollback_require_patched_client"):
        backup.take_backup(dataclasses.replace(request, require_patched=True))
    assert visible(asked) == [taken.id]
