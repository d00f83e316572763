# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a real server: what is published is whole, and what goes wrong leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    archive,
    backup,
    journal,
    manifest,
    pg_tools,
    publication,
    readiness,
    snapshot,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings, client_environment
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused

from tests.support.backups import (
    ROWS,
    SCHEMA,
    background_backup,
    leaves_nothing,
    plain_role,
    wait_for,
    with_pg_dump,
    wrapped_programs,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database


@pytest.fixture
def backup_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def request_for(database: Database, backup_dir: pathlib.Path) -> readiness.BackupRequest:
    database.execute(SCHEMA)
    return readiness.BackupRequest(
        ConnectionSettings(**database.connection_arguments()),
        str(backup_dir),
        version="0003",
        bin_dir=str(database.server.bin_dir),
    )


# --- what is published ------------------------------------------------------------------------------------------------


def test_a_backup_is_whole_private_and_described(
    request_for: readiness.BackupRequest, backup_dir: pathlib.Path, database: Database
) -> None:
    taken = backup.take_backup(dataclasses.replace(request_for, run_id="run-1"))
    folder = pathlib.Path(taken.path)
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]
    assert taken.id.startswith("backup_before_rollback_0003_20")
    assert taken.verified
    assert taken.tables == ROWS
    loaded = manifest.load(taken.path)
    assert manifest.verify(taken.path, loaded) == []
    assert (loaded.id, loaded.kind, loaded.version, loaded.run_id) == (taken.id, "before_rollback", "0003", "run-1")
    assert loaded.rows == ROWS
    assert loaded.large_objects == 2
    assert loaded.globals_scope == "globals"
    assert loaded.seconds["dump"] < loaded.seconds["total"] <= taken.seconds
    ((identifier,),) = database.execute("SELECT system_identifier::text FROM pg_control_system()")
    assert (loaded.database, loaded.system_identifier) == (database.name, identifier)
    assert {entry.path for entry in loaded.files} == set(manifest.files_below(taken.path)) - {"manifest.json", "lock"}
    assert taken.bytes == sum((folder / entry.path).stat().st_size for entry in loaded.files)


def test_it_restores_to_the_same_rows(request_for: readiness.BackupRequest, database: Database) -> None:
    taken = backup.take_backup(request_for)
    copy = f"{database.name}_copy"
    database.server.create_database(copy)
    try:
        with client_environment(request_for.settings, dbname=copy) as env:
            tools = pg_tools.find_tools(_major(database), request_for.bin_dir)
            argv = [tools.pg_restore, "--exit-on-error", "--no-password", f"--dbname={copy}", f"{taken.path}/dump"]
            pg_tools.run_tool(argv, env)
        counted = {}
        for name in ROWS:
            only = "" if name in ("public.parent", "public.child") else "ONLY "
            ((counted[name],),) = database.server.execute(f"SELECT count(*) FROM {only}{name}", copy)
        assert counted == ROWS
    finally:
        database.server.drop_database(copy)


def _major(database: Database) -> int:
    ((number,),) = database.execute("SELECT current_setting('server_version_num')::int / 10000")
    return int(number)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o377])
def test_everything_is_private_whatever_the_umask(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, umask: int
) -> None:
    request = dataclasses.replace(request_for, backup_dir=str(tmp_path / "new" / "deeper"))
    before = os.umask(umask)
    try:
        taken = backup.take_backup(request)
    finally:
        os.umask(before)
    modes = {}
    for parent, _folders, names in os.walk(tmp_path / "new"):
        modes[parent] = stat.S_IMODE(os.stat(parent).st_mode)
        modes.update(
            {os.path.join(parent, name): os.stat(os.path.join(parent, name)).st_mode & 0o7777 for name in names}
        )
    assert {path: mode for path, mode in modes.items() if mode not in (0o700, 0o600)} == {}
    assert modes[taken.path] == 0o700
    assert modes[f"{taken.path}/manifest.json"] == 0o600


def test_the_rows_are_those_of_the_dumps_snapshot(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, database: Database
) -> None:
    """Rows that are committed while the dump runs are neither in it nor counted."""
    started, go_on = tmp_path / "started", tmp_path / "go_on"
    script = f'touch {started}; while [ ! -e {go_on} ]; do sleep 0.02; done; exec "$REAL" "$@"'
    request = with_pg_dump(request_for, tmp_path, script)
    with background_backup(request, tmp_path) as process:
        wait_for(started.exists)
        database.execute("DELETE FROM b2b.orders WHERE id <= 100; INSERT INTO b2b.empty VALUES (1)")
        go_on.touch()
        assert process.wait(60) == 0, process.communicate()
    (folder,) = pathlib.Path(request.backup_dir).iterdir()
    assert manifest.load(str(folder)).rows == ROWS


def test_the_password_is_in_no_command_line_and_no_environment(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path
) -> None:
    seen = tmp_path / "seen"
    script = f'{{ echo "$@"; env; }} >> {seen}; exec "$REAL" "$@"'
    programs = wrapped_programs(
        tmp_path / "bin", request_for.bin_dir, pg_dump=script, pg_restore=script, pg_dumpall=script
    )
    backup.take_backup(dataclasses.replace(request_for, bin_dir=programs))
    text = seen.read_text("utf-8")
    assert text.count("PGPASSFILE=") == 4
    assert request_for.settings.password not in text
    assert not pathlib.Path(text.partition("PGPASSFILE=")[2].splitlines()[0]).exists()


def test_zeroed_and_flipped_files_are_found_after_publication(request_for: readiness.BackupRequest) -> None:
    taken = backup.take_backup(request_for)
    loaded = manifest.load(taken.path)
    biggest = max(
        loaded.files, key=lambda entry: entry.bytes if ".dat" in entry.path and "toc" not in entry.path else 0
    )
    path = pathlib.Path(taken.path, biggest.path)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert manifest.verify(taken.path, loaded) == [
        f"{biggest.path} has the right size and a wrong checksum: its content changed after it was written."
    ]
    path.write_bytes(b"")
    assert f"{biggest.path} has 0 bytes, {biggest.bytes} were written." in manifest.verify(taken.path, loaded)


# --- what is not whole is not published -------------------------------------------------------------------------------

LARGEST = 'FILE=$(ls -S "$ARCHIVE"/[0-9]*.dat | head -1)'


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (f'{LARGEST}; : > "$FILE"', "cut short or damaged"),
        (f'{LARGEST}; truncate -s -5 "$FILE"', "cut short or damaged"),
        (f'{LARGEST}; head -c 3000 "$FILE" > "$FILE.x"; mv "$FILE.x" "$FILE"', "cut short or damaged"),
        (f'{LARGEST}; sed -i 17d "$FILE"', "b2b.orders has 5000 rows in the database and 4999"),
        (f'{LARGEST}; sed -i 1p "$FILE"', "b2b.orders has 5000 rows in the database and 5001"),
        ('for FILE in "$ARCHIVE"/blob_*.dat; do : > "$FILE"; done', "bytes in the database and 0 in blob_"),
        # Our own reader may have begun before the file went.
        (f'{LARGEST}; rm "$FILE"', "pg_restore failed|No such file or directory"),
        ('truncate -s 300 "$ARCHIVE/toc.dat"', "pg_restore failed"),
        ('rm "$ARCHIVE/toc.dat"', "pg_restore failed"),
    ],
)
def test_damage_before_the_reading_back_is_found(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, damage: str, says: str
) -> None:
    request = with_pg_dump(request_for, tmp_path, f'"$REAL" "$@" || exit; {damage}')
    with pytest.raises(FailedUnchanged, match=says) as failure:
        backup.take_backup(request)
    assert "no backup was published" in str(failure.value)
    assert leaves_nothing(tmp_path / "backups")


def test_a_file_that_changes_after_it_was_read_is_read_again(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "1.dat"
    file.write_bytes(b"1\n2\n\\.\n\n\n")
    with archive.ArchiveReader(str(tmp_path)) as reader:
        reader.look()
        assert reader.proofs()["1.dat"].rows == 2
        file.write_bytes(b"1\n\\.\n\n\n")
        assert reader.proofs()["1.dat"].rows == 1
        (tmp_path / "2.dat").write_bytes(b"not finished")
        reader.look()
        assert list(reader.proofs()) == ["1.dat"]
        reader.finish()
        assert reader.proofs()["2.dat"].rows is None


def test_a_table_left_out_of_the_dump_is_found(request_for: readiness.BackupRequest, tmp_path: pathlib.Path) -> None:
    request = with_pg_dump(request_for, tmp_path, 'exec "$REAL" "$@" --exclude-table-data=b2b.orders')
    with pytest.raises(FailedUnchanged, match=r"b2b\.orders has no data file"):
        backup.take_backup(request)


def test_a_count_that_differs_is_found(request_for: readiness.BackupRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    real = snapshot.RowCounter.counts

    def one_more(counter: snapshot.RowCounter) -> snapshot.Counts:
        counts = real(counter)
        return counts._replace(rows={oid: rows + (rows == 5000) for oid, rows in counts.rows.items()})

    monkeypatch.setattr(snapshot.RowCounter, "counts", one_more)
    with pytest.raises(FailedUnchanged, match="5001 rows in the database and 5000"):
        backup.take_backup(request_for)


def test_a_data_file_that_is_not_whole_has_no_rows(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "archive"
    with client_environment(request_for.settings) as env:
        tools = pg_tools.find_tools(_server_major(request_for), request_for.bin_dir)
        pg_tools.run_tool([tools.pg_dump, "--format=directory", "--compress=0", f"--file={folder}"], env)
    biggest = max((path for path in folder.iterdir() if path.name[0].isdigit()), key=lambda path: path.stat().st_size)
    assert archive.prove(str(folder), biggest.name).rows == 5000
    whole = biggest.read_bytes()
    for damaged in (
        whole[:-1],
        whole[:40],
        b"",
        whole + b"x",
        whole[:60] + b"\x00\xff\x00" + whole[63:-8] + whole[-3:],
    ):
        biggest.write_bytes(damaged)
        assert archive.prove(str(folder), biggest.name).rows is None


def _server_major(request: readiness.BackupRequest) -> int:
    return readiness.check_ready(request).tools.version[0]


# --- locks, connections, signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "jobs"),
    [('could not obtain lock on relation "orders"', "2"), ("FATAL:  sorry, too many clients already", "1")],
)
def test_one_more_attempt_after(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, message: str, jobs: str
) -> None:
    once = tmp_path / "once"
    script = (
        f'if [ ! -e {once} ]; then touch {once}; mkdir "$ARCHIVE"; touch "$ARCHIVE/1.dat"; '
        f"echo {shlex.quote('pg_dump: error: ' + message)} >&2; exit 1; fi\n"
        f'echo "$@" > {tmp_path}/second; exec "$REAL" "$@"'
    )
    taken = backup.take_backup(dataclasses.replace(with_pg_dump(request_for, tmp_path, script), jobs=2))
    assert taken.tables == ROWS
    assert f"--jobs={jobs}" in (tmp_path / "second").read_text("utf-8")


def hanging(request: readiness.BackupRequest, tmp_path: pathlib.Path) -> tuple[readiness.BackupRequest, pathlib.Path]:
    """A pg_dump that never ends, and the file with its process id that tells it has written everything."""
    ready = tmp_path / "ready"
    script = f'"$REAL" "$@"; echo $$ > {ready}.x; mv {ready}.x {ready}; exec sleep 1000'
    return with_pg_dump(request, tmp_path, script), ready


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_pg_dump_and_leaves_nothing(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, backup_dir: pathlib.Path, number: signal.Signals
) -> None:
    request, ready = hanging(request_for, tmp_path)
    with background_backup(request, tmp_path) as process:
        wait_for(ready.exists)
        process.send_signal(number)
        _out, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert f"was interrupted by signal {number.name}" in errors.decode()
    assert not pathlib.Path(f"/proc/{ready.read_text('utf-8').strip()}").exists()
    assert leaves_nothing(backup_dir)


def test_leftovers_of_a_dead_run_go_and_those_of_a_living_one_stay(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, backup_dir: pathlib.Path
) -> None:
    request, ready = hanging(request_for, tmp_path)
    with background_backup(request, tmp_path) as process:
        wait_for(ready.exists)
        partial = next(backup_dir.iterdir())
        taken = backup.take_backup(request_for)
        assert partial.exists()
        process.kill()
        process.wait()
        # Its pg_dump outlives it, still writes, and holds the lock that it inherited.
        publication.remove_leftovers(str(backup_dir))
        assert partial.exists()
        os.kill(int(ready.read_text("utf-8")), signal.SIGKILL)
        wait_for(lambda: publication.remove_leftovers(str(backup_dir)) == [partial.name])
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]


def test_what_is_not_a_leftover_is_left_alone(backup_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (backup_dir / ".partial-link").symlink_to(tmp_path / "precious")
    (backup_dir / ".partial-file").touch()
    (backup_dir / "backup_x").mkdir()
    (backup_dir / ".partial-dead").mkdir()
    assert publication.remove_leftovers(str(backup_dir)) == [".partial-dead"]
    assert (tmp_path / "precious" / "file").exists()
    assert len(list(backup_dir.iterdir())) == 3


# --- refused before anything is written -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "../0003", "a/b", "0003; DROP", "*", "x" * 129, "a..b", "-x", ".x", "0003\n"])
def test_a_version_that_is_no_name_is_refused(request_for: readiness.BackupRequest, version: str) -> None:
    with pytest.raises(Refused, match="version"):
        backup.take_backup(dataclasses.replace(request_for, version=version))
    assert leaves_nothing(pathlib.Path(request_for.backup_dir))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "other"}, "kind of backup"),
        ({"lock_timeout": "soon"}, "rollback_lock_timeout"),
        ({"jobs": -1}, "rollback_backup_jobs"),
        ({"backup_dir": "relative"}, "rollback_backup_dir"),
    ],
)
def test_a_request_that_means_nothing_is_refused(
    request_for: readiness.BackupRequest, change: dict[str, t.Any], says: str
) -> None:
    with pytest.raises(Refused, match=says):
        readiness.check_ready(dataclasses.replace(request_for, **change))


def _link(folder: pathlib.Path) -> None:
    folder.rename(folder.parent / "real")
    folder.symlink_to(folder.parent / "real")


def _file(folder: pathlib.Path) -> None:
    folder.rmdir()
    folder.touch()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_link, "is a symbolic link"),
        (_file, "is not a folder"),
        (lambda folder: folder.chmod(0o777), "written by every user"),
        (lambda folder: os.chown(folder, 65534, -1), "belongs to the user with id 65534"),
    ],
)
def test_a_backup_folder_that_others_could_exchange_is_refused(
    request_for: readiness.BackupRequest, backup_dir: pathlib.Path, make: Callable[[pathlib.Path], None], says: str
) -> None:
    try:
        make(backup_dir)
    except PermissionError:
        pytest.skip("only root can give a folder away")
    with pytest.raises(Refused, match=rf"{says}.*rollback_backup_dir"):
        readiness.check_ready(request_for)


def test_readiness_writes_nothing(request_for: readiness.BackupRequest, tmp_path: pathlib.Path) -> None:
    request = dataclasses.replace(request_for, backup_dir=str(tmp_path / "new" / "deeper"))
    ready = readiness.check_ready(request)
    assert ready.estimated_bytes > ready.database_bytes > 0
    assert not (tmp_path / "new").exists()


def test_a_role_that_may_read_everything_is_enough(request_for: readiness.BackupRequest, database: Database) -> None:
    with plain_role(database, request_for) as request:
        taken = backup.take_backup(request)
        assert taken.tables == ROWS
        assert manifest.load(taken.path).globals_scope == "globals"
        assert not any("could not restore it" in warning for warning in taken.warnings)
        before_migration = dataclasses.replace(request, kind="before_migration")
        assert any("could not restore it" in warning for warning in backup.take_backup(before_migration).warnings)


def test_the_owner_who_may_create_databases_is_not_warned(
    request_for: readiness.BackupRequest, database: Database
) -> None:
    asked = dataclasses.replace(request_for, kind="before_migration")
    with plain_role(database, asked) as request:
        database.execute(
            f"ALTER ROLE {request.settings.user} CREATEDB; ALTER DATABASE {database.name} OWNER TO {request.settings.user}"
        )
        try:
            assert not any("could not restore it" in warning for warning in backup.take_backup(request).warnings)
        finally:
            database.execute(f"ALTER DATABASE {database.name} OWNER TO postgres")


@pytest.mark.parametrize(
    ("revoke", "names"),
    [
        ("REVOKE SELECT ON b2b.orders FROM {role}", "b2b.orders"),
        ("REVOKE USAGE ON SCHEMA b2b FROM {role}", "b2b.empty, b2b.orders"),
        ("REVOKE SELECT ON SEQUENCE numbers FROM {role}", "public.numbers"),
        ("ALTER TABLE b2b.orders ENABLE ROW LEVEL SECURITY", "Row security hides rows of b2b.orders"),
        ("SELECT lo_from_bytea(0, 'x')", "1 large objects"),
    ],
)
def test_what_the_role_cannot_read_is_named(
    request_for: readiness.BackupRequest, database: Database, revoke: str, names: str
) -> None:
    with plain_role(database, request_for) as request:
        database.execute(revoke.format(role=request.settings.user))
        with pytest.raises(Refused, match=names):
            backup.take_backup(request)
    assert leaves_nothing(pathlib.Path(request_for.backup_dir))


def test_the_owner_of_a_table_with_forced_row_security_is_refused(
    request_for: readiness.BackupRequest, database: Database
) -> None:
    with plain_role(database, request_for) as request:
        database.execute(f"ALTER TABLE b2b.orders OWNER TO {request.settings.user}")
        database.execute("ALTER TABLE b2b.orders ENABLE ROW LEVEL SECURITY")
        assert readiness.check_ready(request)
        database.execute("ALTER TABLE b2b.orders FORCE ROW LEVEL SECURITY")
        with pytest.raises(Refused, match="BYPASSRLS"):
            readiness.check_ready(request)
        database.execute("ALTER TABLE b2b.orders OWNER TO postgres")


def test_roles_that_cannot_be_dumped_are_a_warning_and_in_the_manifest(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path
) -> None:
    script = 'touch "$ARCHIVE"; echo "pg_dumpall: error: permission denied" >&2; exit 1'
    programs = wrapped_programs(tmp_path / "bin", request_for.bin_dir, pg_dumpall=script)
    taken = backup.take_backup(dataclasses.replace(request_for, bin_dir=programs))
    loaded = manifest.load(taken.path)
    assert loaded.globals_scope == "none"
    assert any("no roles of the cluster" in warning for warning in taken.warnings)
    assert manifest.verify(taken.path, loaded) == []


# --- the module -------------------------------------------------------------------------------------------------------


def run_module(database: Database, **options: t.Any) -> dict[str, t.Any]:
    arguments = {**database.login(), "bin_dir": str(database.server.bin_dir), "version": "0003", **options}
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.cypher.rollback.plugins.modules.db_backup"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode(),
        capture_output=True,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    answer: dict[str, t.Any] = json.loads(done.stdout)
    return answer


def test_the_module_takes_a_backup(database: Database, backup_dir: pathlib.Path) -> None:
    result = run_module(database, backup_dir=str(backup_dir), kind="before_migration", version="0007")
    assert result["changed"]
    assert result["backup"]["verified"]
    assert pathlib.Path(result["backup"]["path"]).name == result["backup"]["id"]
    assert result["backup"]["id"].startswith("backup_before_migration_0007_")
    assert result["started_at"] < result["finished_at"]


def test_check_mode_writes_nothing(database: Database, tmp_path: pathlib.Path) -> None:
    result = run_module(database, backup_dir=str(tmp_path / "new"), _ansible_check_mode=True)
    assert result["changed"]
    assert result["estimate"]["estimated_bytes"] > 0
    assert "Would take" in result["message"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_refusal_has_its_outcome(database: Database, backup_dir: pathlib.Path, check_mode: bool) -> None:
    backup_dir.chmod(0o777)
    result = run_module(database, backup_dir=str(backup_dir), _ansible_check_mode=check_mode)
    assert result["failed"]
    assert result["outcome"] == "refused"
    assert "every user" in result["msg"]


def test_the_module_says_what_failed(database: Database, backup_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    programs = wrapped_programs(tmp_path / "bin", str(database.server.bin_dir), pg_dump="kill -9 $$")
    result = run_module(database, backup_dir=str(backup_dir), bin_dir=programs)
    assert result["outcome"] == "failed_unchanged"
    assert result["details"]["program"] == "pg_dump"
    assert leaves_nothing(backup_dir)
    shutil.rmtree(programs)


def test_the_module_confirms_an_early_backup_and_says_that_it_is_at_work(
    database: Database, backup_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    saw = tmp_path / "saw"
    script = f'flock --nonblock {folder}/{journal.JOURNAL} true || touch {saw}; exec "$REAL" "$@"'
    programs = wrapped_programs(tmp_path / "bin", str(database.server.bin_dir), pg_dump=script)
    run = {"backup_dir": str(backup_dir), "run_dir": str(folder.parent), "run_id": "run-1", "bin_dir": programs}
    taken = run_module(database, early=True, **run)
    assert (taken["changed"], taken["confirmed"]) == (True, False)
    assert saw.exists()
    assert not journal.is_at_work(str(folder))
    confirmed = run_module(database, confirm=taken["backup"]["path"], **run)
    assert (confirmed["changed"], confirmed["confirmed"], confirmed["backup"]["id"]) == (
        False,
        True,
        taken["backup"]["id"],
    )
    assert confirmed["confirmed_at"] > taken["finished_at"]
    database.execute("CREATE TABLE public.new (a int)")
    fresh = run_module(database, confirm=taken["backup"]["path"], **run)
    assert (fresh["changed"], fresh["confirmed"], fresh["stale"]) == (True, False, ["public.new is new"])
    assert not pathlib.Path(taken["backup"]["path"]).exists()
