# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by a copy on the same server: equal to the source, closed, dropped only by what may drop them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import signal
import stat
import subprocess
import sys
import time
import typing as t

import psycopg2
import psycopg2.sql
import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    clone,
    clone_backup,
    comparison,
    database_copy,
    manifest,
    publication,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.readiness import BackupRequest

from tests.support.postgres_server import PostgresServer

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = """
CREATE SCHEMA b2b;
CREATE TYPE b2b.state AS ENUM ('new', 'paid');
CREATE TABLE b2b.orders (id serial PRIMARY KEY, note text, state b2b.state DEFAULT 'new');
INSERT INTO b2b.orders (note) SELECT 'order ' || i FROM generate_series(1, 3000) i;
CREATE TABLE parent (a int) PARTITION BY LIST (a);
CREATE TABLE leaf PARTITION OF parent FOR VALUES IN (1);
CREATE TABLE leaf_2 PARTITION OF parent FOR VALUES IN (2);
INSERT INTO parent VALUES (1), (1), (2);
CREATE UNLOGGED TABLE unlogged (a int);
INSERT INTO unlogged VALUES (1);
CREATE MATERIALIZED VIEW matview AS SELECT count(*) FROM b2b.orders;
SELECT lo_from_bytea(0, '\\x0102030a0a'), lo_from_bytea(0, '');
"""

ROWS = {"b2b.orders": 3000, "public.parent": 3, "public.leaf": 2, "public.leaf_2": 1, "public.unlogged": 1}

HOSTILE = [
    "Data base",
    'it\'s "quoted" ; DROP DATABASE x; --',
    "50%s %(name)s %",
    "back\\slash\nline",
    "x" * 63,
    "ț" * 31,
    "a" + "漢" * 20,
    "-leading=dash host=elsewhere",
]


@dataclasses.dataclass(frozen=True)
class Live:
    """A live database, and what is asked for of it."""

    server: PostgresServer
    name: str
    request: BackupRequest

    def execute(self, statement: str) -> list[tuple[t.Any, ...]]:
        return self.server.execute(statement, self.name)

    def clones(self) -> list[str]:
        """Databases that are marked as clones, or look like one that is being made."""
        rows = self.server.execute(
            "SELECT datname FROM pg_database WHERE oid > 16383 AND (shobj_description(oid, 'pg_database') LIKE 'cypher.rollback: clone %' "
            "OR NOT datallowconn) ORDER BY 1"
        )
        return [name for (name,) in rows]

    def take(self, **changes: t.Any) -> tuple[backup.Backup, manifest.Manifest]:
        taken = backup.take_backup(dataclasses.replace(self.request, **changes))
        return taken, manifest.load(taken.path, self.request.key)

    def problems(self, described: manifest.Manifest, *, compared: bool = False) -> list[str]:
        compare = comparison.compare_with_manifest if compared else None
        return clone.problems(self.request.settings, described, compare=compare)

    @contextlib.contextmanager
    def maintenance(self) -> Iterator[psycopg2.extensions.connection]:
        with clone.maintenance(self.request.settings, "postgres") as connection:
            yield connection


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def backup_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def live_named(server: PostgresServer, backup_dir: pathlib.Path) -> Iterator[Callable[[str], Live]]:
    """Makes a live database of a name; everything that the test made is dropped afterwards."""
    before = {name for (name,) in server.execute("SELECT datname FROM pg_database")}

    def make(name: str) -> Live:
        server.create_database(name)
        server.execute(SCHEMA, name)
        settings = ConnectionSettings(**server.connection_arguments(name))
        return Live(
            server,
            name,
            BackupRequest(
                settings, str(backup_dir), version="0003", bin_dir=str(server.bin_dir), provider="clone", run_id="run-1"
            ),
        )

    yield make
    if not server.running:
        server.start()
    for (name,) in server.execute("SELECT datname FROM pg_database"):
        if name not in before:
            server.drop_database(name)


@pytest.fixture
def live(live_named: Callable[[str], Live]) -> Live:
    return live_named(f"live_{secrets.token_hex(4)}")


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_a_clone_is_a_backup_like_any_other(live: Live, backup_dir: pathlib.Path) -> None:
    live.execute(f"ALTER DATABASE {live.name} SET work_mem = '5MB'")
    live.execute(f"COMMENT ON DATABASE {live.name} IS 'ours'")
    taken, described = live.take()
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]
    assert taken.tables == ROWS
    assert manifest.verify(taken.path, described) == []
    assert {"clone.json", "schema.txt", "globals.sql"} == {entry.path for entry in described.files}
    assert stat.S_IMODE(os.stat(taken.path).st_mode) == 0o700
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in pathlib.Path(taken.path).iterdir()} == {0o600}
    assert (described.provider, described.kind, described.run_id) == ("clone", "before_rollback", "run-1")
    assert described.database_bytes > 7_000_000
    assert 0 < described.seconds["total"] <= taken.seconds
    assert described.large_objects == 2
    assert described.snapshot["lsn"]
    assert described.properties["comment"] == "ours"
    assert described.properties["settings"] == [{"role": "", "settings": ["work_mem=5MB"]}]
    assert described.content["sequences"] == {"b2b.orders_id_seq": [3000, True]}
    assert all("hash" in described.tables[name] for name in ("b2b.orders", "public.leaf"))
    assert live.clones() == [described.clone["database"]]
    assert live.problems(described) == []
    assert live.problems(described, compared=True) == []
    assert any("1 unlogged tables" in warning for warning in taken.warnings)


def test_a_clone_lets_nobody_in_and_its_mark_is_its_backup(live: Live) -> None:
    taken, described = live.take()
    name = described.clone["database"]
    with pytest.raises(psycopg2.OperationalError, match="not currently accepting connections"):
        live.server.connect(name)
    ((oid, comment, acl),) = live.server.execute(
        f"SELECT oid::int8, shobj_description(oid, 'pg_database'), datacl::text FROM pg_database WHERE datname = '{name}'"
    )
    assert (oid, comment) == (described.clone["oid"], f"cypher.rollback: clone {taken.id}")
    assert "=c" not in acl.replace("postgres=CTc", "").lower()


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_of_a_database_is_cloned(live_named: Callable[[str], Live], name: str) -> None:
    live = live_named(name)
    _taken, described = live.take()
    copy = described.clone["database"]
    assert described.database == name
    assert live.clones() == [copy]
    assert len(copy.encode()) <= 63
    assert copy.startswith(name.encode()[:40].decode(errors="ignore")[:10])
    assert live.problems(described, compared=True) == []
    assert clone.drop(live.request.settings, described) is True
    assert live.clones() == []
    assert live.execute("SELECT count(*) FROM b2b.orders") == [(3000,)]


@pytest.mark.parametrize("live_name", ["x" * 63, "ț" * 31, "漢" * 21, "short", ""])
@pytest.mark.parametrize("number", [1, 2, 19])
def test_names_fit_and_tell_apart(live_name: str, number: int) -> None:
    at = clone_backup.dt.datetime(2026, 2, 13, 10, 15, tzinfo=clone_backup.dt.UTC)
    name = database_copy.copy_name(live_name, at, number)
    assert len(name.encode()) <= 63
    assert name.endswith("_backup_20260213_101500" + (f"_{number}" if number > 1 else ""))
    assert live_name.startswith(name.partition("_backup_")[0])


def test_two_clones_in_one_second_have_names_of_their_own(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedClock(backup.dt.datetime):
        @classmethod
        def now(cls, tz: t.Any = None) -> t.Any:
            return cls(2026, 2, 13, 10, 15, tzinfo=tz)

    monkeypatch.setattr(backup.dt, "datetime", StoppedClock)
    both = [live.take() for _number in range(2)]
    assert [taken.id[-2:] for taken, _described in both] == ["00", "_2"]
    assert len({described.clone["database"] for _taken, described in both}) == 2
    for _taken, described in both:
        assert live.problems(described) == []
        assert clone.drop(live.request.settings, described)


def test_a_large_database_is_copied_file_by_file(live: Live) -> None:
    if int(live.execute("SHOW server_version_num")[0][0]) < 150000:
        pytest.skip("before PostgreSQL 15 there is one strategy only")
    live.execute("CREATE TABLE big AS SELECT repeat(md5(i::text), 20) AS t FROM generate_series(1, 120000) i")
    for threshold, wal_share in ((clone_backup.SPACE_FLOOR_BYTES, 0.2), (1 << 40, 0.8)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database_copy, "FILE_COPY_FROM_BYTES", threshold)
            ((before,),) = live.server.execute("SELECT pg_current_wal_lsn() - '0/0'")
            _taken, described = live.take()
            ((after,),) = live.server.execute("SELECT pg_current_wal_lsn() - '0/0'")
        written = float(after - before) / described.database_bytes
        assert (written < wal_share) if wal_share < 0.5 else (written > wal_share)


# --- who is in the way ------------------------------------------------------------------------------------------------


def test_a_session_is_named_and_not_ended(
    live: Live, backup_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_copy, "LEAVING_SECONDS", 0.3)
    with contextlib.closing(live.server.connect(live.name, application_name="a report")) as other:
        ready = backup.check_ready(live.request)
        assert any("a report" in warning and "rollback_backup_kind" in warning for warning in ready.warnings)
        with pytest.raises(FailedUnchanged, match=r"a report.*rollback_app_services.*rollback_backup_kind") as failure:
            backup.take_backup(live.request)
        assert f"pid {other.info.backend_pid}" in failure.value.details["sessions"][0]
        with other.cursor() as cursor:
            cursor.execute("SELECT 1")
    assert list(backup_dir.iterdir()) == []
    assert live.clones() == []


def test_a_session_that_is_leaving_is_waited_for(live: Live) -> None:
    other = live.server.connect(live.name)
    with database_copy.concurrent.futures.ThreadPoolExecutor(1) as pool:
        taking = pool.submit(backup.take_backup, live.request)
        deadline = time.monotonic() + 20
        while not live.server.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'cypher.rollback clone'"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        other.close()
        assert taking.result().tables == ROWS


def test_a_prepared_transaction_is_named(
    tmp_path: pathlib.Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_copy, "LEAVING_SECONDS", 0.2)
    with PostgresServer(server.bin_dir, settings={"max_prepared_transactions": "2"}) as own:
        own.create_database("live")
        with contextlib.closing(own.connect("live")) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (a int); PREPARE TRANSACTION 'it''s one'")
        settings = ConnectionSettings(**own.connection_arguments("live"))
        request = BackupRequest(settings, str(tmp_path / "b"), version="1", bin_dir=str(own.bin_dir), provider="clone")
        with pytest.raises(FailedUnchanged, match=r"prepared transaction it's one \(ROLLBACK PREPARED 'it''s one'\)"):
            backup.take_backup(request)


def test_a_writer_after_the_copy_is_found(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    real = database_copy.create_copy

    def copy_and_write(*arguments: t.Any) -> None:
        real(*arguments)
        live.execute("UPDATE b2b.orders SET note = 'late' WHERE id = 7")

    monkeypatch.setattr(clone_backup, "create_copy", copy_and_write)
    with pytest.raises(FailedUnchanged, match=r"differ in b2b\.orders"):
        backup.take_backup(live.request)
    assert live.clones() == []


# --- refused before anything is stopped -------------------------------------------------------------------------------


@contextlib.contextmanager
def as_role(live: Live, options: str = "") -> Iterator[BackupRequest]:
    """The request by an ordinary role that may read everything."""
    name = f"plain_{secrets.token_hex(4)}"
    live.server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' {options}")
    live.server.execute(f"GRANT pg_read_all_data TO {name}")
    live.execute("DO $$DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP "
                 f"EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO {name}', o); END LOOP; END$$")  # fmt: skip
    try:
        yield dataclasses.replace(
            live.request, settings=dataclasses.replace(live.request.settings, user=name, password="secret")
        )
    finally:
        live.execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}")
        live.server.execute(f"REASSIGN OWNED BY {name} TO postgres")
        live.server.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_an_ordinary_role_needs_createdb_and_the_owner(live: Live) -> None:
    with as_role(live) as request:
        user = request.settings.user
        with pytest.raises(Refused, match=rf"ALTER ROLE {user} CREATEDB.*rollback_backup_kind"):
            backup.check_ready(request)
        live.server.execute(f"ALTER ROLE {user} CREATEDB")
        with pytest.raises(Refused, match=rf"belongs to postgres.*GRANT postgres TO {user}.*rollback_db_user"):
            backup.check_ready(request)
        live.server.execute(f"ALTER DATABASE {live.name} OWNER TO {user}")
        taken = backup.take_backup(request)
        described = manifest.load(taken.path)
        assert taken.tables == ROWS
        assert any("rollback_server_free_bytes" in warning for warning in taken.warnings)
        assert clone.problems(request.settings, described, compare=comparison.compare_with_manifest) == []
        assert clone.drop(request.settings, described)


def test_too_little_room_on_the_server_is_refused_with_numbers(live: Live) -> None:
    with pytest.raises(Refused, match=r"may need \d+ MB.*1\.00 MB are free.*rollback_server_free_bytes") as refusal:
        backup.check_ready(dataclasses.replace(live.request, server_free_bytes=1024 * 1024))
    assert refusal.value.details["free_bytes"] == 1024 * 1024


@pytest.mark.parametrize(("maintenance", "says"), [("{live}", "the database itself"), ("nowhere", "does not exist")])
def test_a_maintenance_database_that_is_none_is_refused(live: Live, maintenance: str, says: str) -> None:
    name = maintenance.format(live=live.name)
    with pytest.raises(Refused, match=rf"{says}.*rollback_maintenance_db|rollback_maintenance_db.*{says}"):
        backup.check_ready(dataclasses.replace(live.request, maintenance_db=name))


# --- runs that die ----------------------------------------------------------------------------------------------------

TAKE = """
import json, sys
from ansible_collections.cypher.rollback.plugins.module_utils import backup, clone_backup, readiness
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
values = json.load(sys.stdin)
stop_at = values.pop("stop_at")
if stop_at:
    real = getattr(clone_backup, stop_at)
    def hang(*arguments, **named):
        print("reached", flush=True)
        sys.stdin.close()
        import signal
        signal.pause()
    setattr(clone_backup, stop_at, hang)
backup.take_backup(readiness.BackupRequest(ConnectionSettings(**values.pop("settings")), **values))
"""


@contextlib.contextmanager
def another_process(live: Live, stop_at: str = "") -> Iterator[subprocess.Popen[str]]:
    """A backup in a process of its own, that reaches a function and waits there."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**dataclasses.asdict(live.request), "stop_at": stop_at}))
    process.stdin.close()
    process.stdin = None
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("stop_at", ["create_copy", "read_properties", "_check_same"])
def test_what_a_killed_run_left_is_dropped_by_the_next(live: Live, backup_dir: pathlib.Path, stop_at: str) -> None:
    with another_process(live, stop_at) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n", process.communicate()
        (partial,) = backup_dir.iterdir()
        assert (partial / "clone.json").exists()
        process.kill()
        process.wait()
    # Without the server, a folder that names a clone has to stay.
    publication.remove_leftovers(str(backup_dir))
    assert partial.exists()
    taken, described = live.take()
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]
    assert live.clones() == [described.clone["database"]]
    assert live.problems(described, compared=True) == []


def test_a_backup_of_another_kind_drops_what_a_killed_run_left(live: Live, backup_dir: pathlib.Path) -> None:
    with another_process(live, "_check_same") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n", process.communicate()
        process.kill()
        process.wait()
    taken = backup.take_backup(dataclasses.replace(live.request, provider="dump"))
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]
    assert live.clones() == []


def test_a_run_killed_in_the_middle_of_the_copy_is_cleaned_up(live: Live, backup_dir: pathlib.Path) -> None:
    """The statement ends by itself, or goes on to its end: in both cases nothing is left after the next run."""
    live.execute("CREATE TABLE big AS SELECT repeat(md5(i::text), 30) AS t FROM generate_series(1, 300000) i")
    with another_process(live) as process:
        deadline = time.monotonic() + 30
        while not live.server.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%TEMPLATE%' AND state = 'active'"
        ):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    taken, described = live.take()
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]
    assert live.clones() == [described.clone["database"]]


def test_a_signal_in_the_middle_of_the_copy_leaves_nothing(live: Live, backup_dir: pathlib.Path) -> None:
    live.execute("CREATE TABLE big AS SELECT repeat(md5(i::text), 30) AS t FROM generate_series(1, 300000) i")
    with another_process(live) as process:
        deadline = time.monotonic() + 30
        while not live.server.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%TEMPLATE%' AND state = 'active'"
        ):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _out, errors = process.communicate(timeout=30)
        assert "was interrupted by signal SIGTERM" in errors
    assert list(backup_dir.iterdir()) == []
    assert live.clones() == []


def test_a_clone_that_cannot_be_dropped_stays_named(
    live: Live, backup_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: t.Any) -> None:
        live.server.kill()
        raise publication.BackupFailed("no")

    monkeypatch.setattr(clone_backup, "_check_same", fails)
    with pytest.raises(FailedUnchanged):
        backup.take_backup(live.request)
    live.server.start()
    monkeypatch.undo()
    (partial,) = backup_dir.iterdir()
    (left,) = live.clones()
    assert json.loads((partial / "clone.json").read_text("utf-8"))["database"] == left
    taken, described = live.take()
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]
    assert live.clones() == [described.clone["database"]]


def test_a_clone_that_cannot_be_published_is_dropped(
    live: Live, backup_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_arguments: t.Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", no_space)
    with pytest.raises(FailedUnchanged, match="No space left"):
        backup.take_backup(live.request)
    assert list(backup_dir.iterdir()) == []
    assert live.clones() == []


def test_what_only_looks_like_a_leftover_stays(live: Live, backup_dir: pathlib.Path) -> None:
    """The folder names a database that somebody else has made, or one of another server."""
    live.server.create_database("precious")
    ((cluster,),) = live.execute("SELECT system_identifier::text FROM pg_control_system()")
    for number, identifier in enumerate((cluster, "123")):
        folder = backup_dir / f".partial-backup_x-{number}"
        folder.mkdir()
        (folder / "clone.json").write_text(json.dumps({"database": "precious", "system_identifier": identifier}))
    warnings = clone.drop_leftovers(live.request.settings, "postgres", str(backup_dir))
    assert live.server.execute("SELECT datname FROM pg_database WHERE datname = 'precious'")
    assert [entry.name for entry in backup_dir.iterdir()] == [".partial-backup_x-1"]
    assert "on another server" in warnings[0]


# --- afterwards -------------------------------------------------------------------------------------------------------


def test_a_clone_is_opened_for_a_restore_and_closed_again(live: Live) -> None:
    _taken, described = live.take()
    name = described.clone["database"]
    with live.maintenance() as connection:
        found = clone.open_for_restore(connection, described)
        assert (found.name, found.oid, found.open) == (name, described.clone["oid"], False)
        with contextlib.closing(live.server.connect(name)) as opened:
            assert comparison.compare_with_manifest(opened, described) == []
        (problem,) = live.problems(described)
        assert "open to connections" in problem
        assert live.problems(described, compared=True) == []
        clone.close_again(connection, described)
    assert live.problems(described) == []


def test_a_clone_that_was_written_to_is_none_any_more(live: Live) -> None:
    _taken, described = live.take()
    with live.maintenance() as connection:
        found = clone.open_for_restore(connection, described)
        live.server.execute("UPDATE b2b.orders SET note = 'other' WHERE id = 1", found.name)
        clone.close_again(connection, described)
    (problem,) = live.problems(described, compared=True)
    assert "b2b.orders" in problem


def test_a_restored_clone_is_no_backup_until_it_is_swapped_back(live: Live) -> None:
    _taken, described = live.take()
    copy = described.clone["database"]

    def rename(old: str, new: str) -> None:
        live.server.execute(f"ALTER DATABASE {quoted(old)} RENAME TO {quoted(new)}")

    with live.maintenance() as connection:
        clone.open_for_restore(connection, described)
    rename(live.name, "replaced")
    rename(copy, live.name)
    live.server.execute(f"COMMENT ON DATABASE {quoted(live.name)} IS 'ours'")
    (problem,) = live.problems(described, compared=True)
    assert "was restored: it is the database" in problem
    with live.maintenance() as connection, pytest.raises(clone.CloneUnusable, match="was restored"):
        clone.open_for_restore(connection, described)
    with pytest.raises(clone.CloneUnusable, match="was not dropped"):
        clone.drop(live.request.settings, described)
    assert live.execute("SELECT count(*) FROM b2b.orders") == [(3000,)]
    rename(live.name, "set aside")
    rename("replaced", live.name)
    assert "open to connections" in live.problems(described)[0]
    assert live.problems(described, compared=True) == []
    live.server.execute("DELETE FROM b2b.orders WHERE id = 1", "set aside")
    assert "b2b.orders" in live.problems(described, compared=True)[0]
    with pytest.raises(clone.CloneUnusable, match="set aside now"):
        clone.drop(live.request.settings, described)


def test_a_clone_that_is_gone_or_another_is_said_to_be(live: Live) -> None:
    _taken, described = live.take()
    name = described.clone["database"]
    live.server.drop_database(name)
    assert "is gone." in live.problems(described)[0]
    assert clone.drop(live.request.settings, described) is False
    live.server.create_database(name)
    assert "another database" in live.problems(described)[0]
    assert clone.drop(live.request.settings, described) is False
    elsewhere = dataclasses.replace(described, system_identifier="1")
    assert "another server" in live.problems(elsewhere)[0]
    with pytest.raises(clone.CloneUnusable, match="another server"):
        clone.drop(live.request.settings, elsewhere)
    assert live.server.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")


def test_a_clone_in_use_is_not_dropped(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_copy, "LEAVING_SECONDS", 0.2)
    _taken, described = live.take()
    with live.maintenance() as connection:
        found = clone.open_for_restore(connection, described)
        with contextlib.closing(live.server.connect(found.name, application_name="looks at it")):
            with pytest.raises(FailedUnchanged, match="looks at it"):
                clone.drop(live.request.settings, described)
            live.server.connect(found.name).close()
    assert clone.drop(live.request.settings, described) is True
    assert live.clones() == []


def test_autovacuum_freezes_a_clone_and_changes_nothing_that_it_holds(
    server: PostgresServer, backup_dir: pathlib.Path
) -> None:
    often = {"autovacuum_naptime": "1s", "autovacuum_freeze_max_age": "100000", "max_locks_per_transaction": "200"}
    with PostgresServer(server.bin_dir, settings=often) as own:
        own.create_database("live")
        own.execute(SCHEMA, "live")
        settings = ConnectionSettings(**own.connection_arguments("live"))
        request = BackupRequest(settings, str(backup_dir), version="1", bin_dir=str(own.bin_dir), provider="clone")
        described = manifest.load(backup.take_backup(request).path)
        frozen = f"SELECT datfrozenxid::text::bigint FROM pg_database WHERE oid = {described.clone['oid']}"
        before = own.execute(frozen)
        own.execute("CREATE TABLE t (a int)")
        while own.execute("SELECT age(datfrozenxid) < 100000 FROM pg_database WHERE datname = 'live'") == [(True,)]:
            own.execute("DO $$BEGIN FOR i IN 1..20000 LOOP BEGIN INSERT INTO t VALUES (i); EXCEPTION WHEN division_by_zero "
                        "THEN NULL; END; END LOOP; END$$")  # fmt: skip
        deadline = time.monotonic() + 60
        while own.execute(frozen) == before:
            assert time.monotonic() < deadline, own.log_tail()
            time.sleep(0.1)
        assert clone.problems(settings, described) == []
        assert clone.problems(settings, described, compare=comparison.compare_with_manifest) == []
