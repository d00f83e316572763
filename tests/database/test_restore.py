# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring beside the live database: what is refused, what fails, and that nothing is left of either."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import shlex
import signal
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    clone,
    connection,
    manifest,
    new_database,
    pg_tools,
    publication,
    readiness,
    restore,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused
from ansible_collections.cypher.rollback.plugins.modules import db_restore
from psycopg2 import sql

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, note text);
INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 3000) i;
CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders);
INSERT INTO lines SELECT i, i FROM generate_series(1, 3000) i;
CREATE INDEX ON lines (order_id);
CREATE SEQUENCE numbers;
SELECT nextval('numbers'), lo_from_bytea(0, '\\x010203');
"""


@pytest.fixture
def settings(database: Database) -> Iterator[ConnectionSettings]:
    """The live database, and whatever is restored beside it."""
    database.execute(SCHEMA)
    yield ConnectionSettings(**database.connection_arguments())
    if not database.server.running:
        database.server.start()
    for name in beside(database):
        database.server.drop_database(name)


def beside(database: Database) -> list[str]:
    """Databases that restores made."""
    names = database.server.execute("SELECT datname FROM pg_database WHERE datname LIKE '%_restore_%' ORDER BY 1")
    return [name for (name,) in names if name.startswith(database.name)]


def take(settings: ConnectionSettings, folder: pathlib.Path, bin_dir: object, **changes: t.Any) -> str:
    """A backup; its folder."""
    request = readiness.BackupRequest(
        settings, str(folder / "backups"), version="0007", bin_dir=str(bin_dir), **changes
    )
    return str(backup.take_backup(request).path)


@pytest.fixture
def request_for(database: Database, settings: ConnectionSettings, tmp_path: pathlib.Path) -> restore.RestoreRequest:
    """A restore of a backup whose content is recorded."""
    path = take(settings, tmp_path, database.server.bin_dir, content=True)
    return restore.RestoreRequest(settings, path, bin_dir=str(database.server.bin_dir), run_id="run-1")


def edit(path: str, **changes: t.Any) -> None:
    """Change the manifest of a backup that nobody signed."""
    found = manifest.load(path)
    os.unlink(os.path.join(path, manifest.NAME))
    manifest.write(path, dataclasses.replace(found, **changes))


def programs(folder: pathlib.Path, bin_dir: str, pg_restore: str) -> str:
    """The client programs with a shell script in the place of pg_restore; ``$REAL`` is the real one."""
    folder.mkdir()
    for program in pg_tools.PROGRAMS:
        (folder / program).symlink_to(os.path.join(bin_dir, program))
    real = os.path.join(bin_dir, "pg_restore")
    (folder / "pg_restore").unlink()
    lines = ["#!/bin/sh", f"REAL={shlex.quote(real)}", 'case "$*" in *--version*) exec "$REAL" "$@";; esac', pg_restore]
    (folder / "pg_restore").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "pg_restore").chmod(0o755)
    return str(folder)


# --- going well -------------------------------------------------------------------------------------------------------


def test_a_backup_is_restored_beside_the_live_database(request_for: restore.RestoreRequest, database: Database) -> None:
    database.execute("DELETE FROM lines; UPDATE orders SET note = 'damaged'")
    restored = restore.restore_beside(request_for)
    rows = database.server.execute("SELECT count(*), min(note) FROM orders", restored.database)
    assert rows == [(3000, "order 1")]
    assert database.execute("SELECT count(*) FROM lines") == [(0,)]
    assert restored.tables == {"public.lines": 3000, "public.orders": 3000}
    assert database.server.execute(
        f"SELECT oid::bigint, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{restored.database}'"
    ) == [(restored.oid, new_database.Mark(new_database.RESTORED, *_names(request_for)).text())]
    statistics = database.server.execute(
        "SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'lines'", restored.database
    )
    assert statistics == [(True,)]


def _names(request: restore.RestoreRequest) -> tuple[str, str, str]:
    return os.path.basename(request.path), request.run_id, request.settings.dbname


def test_the_live_database_may_be_gone(request_for: restore.RestoreRequest, database: Database) -> None:
    database.server.drop_database(database.name)
    assert restore.restore_beside(request_for).tables["public.orders"] == 3000


@pytest.mark.parametrize(
    "name", ["a b=c 'd' \"e\" %s \\", "x" * 61 + "ü", "host=nowhere", "postgresql://x/y", "new\nline", "-d", "表" * 21]
)
def test_hostile_names(name: str, database: Database, settings: ConnectionSettings, tmp_path: pathlib.Path) -> None:
    server = database.server
    server.create_database(name, template=database.name)
    made = dataclasses.replace(settings, dbname=name)
    try:
        path = take(made, tmp_path, server.bin_dir)
        restored = restore.restore_beside(restore.RestoreRequest(made, path, bin_dir=str(server.bin_dir)))
        assert len(restored.database.encode()) <= 63
        assert server.execute("SELECT count(*) FROM lines", restored.database) == [(3000,)]
        again = dataclasses.replace(restore.RestoreRequest(made, path, bin_dir=str(server.bin_dir)), run_id="another")
        assert restore.drop_leftovers(again) == [restored.database]
    finally:
        server.drop_database(name)


def test_an_old_backup_gets_the_live_databases_properties_and_says_what_was_not_compared(
    request_for: restore.RestoreRequest, database: Database
) -> None:
    database.server.execute(sql.SQL("ALTER DATABASE {} SET work_mem TO '7MB'").format(sql.Identifier(database.name)))
    found = manifest.load(request_for.path)
    bare = {name: {"rows": facts["rows"]} for name, facts in found.tables.items()}
    edit(request_for.path, tables=bare, content={}, properties={}, extensions={}, roles={})
    restored = restore.restore_beside(request_for)
    assert any("no record of the content of rows" in text for text in restored.warnings)
    assert any("those that" in text for text in restored.warnings)
    assert database.server.execute("SHOW work_mem", restored.database) == [("7MB",)]


def test_verification_by_restore_leaves_nothing(request_for: restore.RestoreRequest, database: Database) -> None:
    assert restore.verify_by_restore(request_for) == []
    found = manifest.load(request_for.path)
    edit(request_for.path, tables={**found.tables, "public.lines": {**found.tables["public.lines"], "rows": 3001}})
    assert restore.verify_by_restore(request_for) == [
        "public.lines has 3001 rows in the backup and 3000 in the restored database."
    ]
    assert beside(database) == []


def test_the_recorded_version_of_an_extension_is_installed(
    database: Database, settings: ConnectionSettings, tmp_path: pathlib.Path
) -> None:
    versions = database.execute("SELECT version FROM pg_available_extension_versions WHERE name = 'hstore' ORDER BY 1")
    if len(versions) < 2:
        pytest.skip("the server has one version of hstore, or none")
    oldest = versions[0][0]
    database.execute(f'CREATE SCHEMA "ex t"; CREATE EXTENSION hstore SCHEMA "ex t" VERSION \'{oldest}\'')
    database.execute("CREATE TABLE h (h \"ex t\".hstore); INSERT INTO h VALUES ('a=>1')")
    path = take(settings, tmp_path, database.server.bin_dir, content=True)
    request = restore.RestoreRequest(settings, path, bin_dir=str(database.server.bin_dir), jobs=2)
    restored = restore.restore_beside(request)
    assert database.server.execute(
        "SELECT extversion FROM pg_extension WHERE extname = 'hstore'", restored.database
    ) == [(oldest,)]


def test_subscriptions_do_not_keep_a_scratch_database(
    database: Database, settings: ConnectionSettings, tmp_path: pathlib.Path
) -> None:
    database.execute(
        "CREATE SUBSCRIPTION far CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    )
    try:
        path = take(settings, tmp_path, database.server.bin_dir)
        request = restore.RestoreRequest(settings, path, bin_dir=str(database.server.bin_dir))
        assert restore.verify_by_restore(request) == []
        restored = restore.restore_beside(request)
        assert any("subscriptions far" in text for text in restored.warnings)
        assert restore.drop_leftovers(dataclasses.replace(request, run_id="next")) == [restored.database]
    finally:
        database.execute("DROP SUBSCRIPTION far")


def test_a_clone_is_opened_compared_and_closed_again(
    database: Database, settings: ConnectionSettings, tmp_path: pathlib.Path
) -> None:
    path = take(settings, tmp_path, database.server.bin_dir, provider=clone.PROVIDER)
    request = restore.RestoreRequest(settings, path, bin_dir=str(database.server.bin_dir))
    name = manifest.load(path).clone["database"]
    try:
        assert restore.verify_by_restore(request) == []
        restored = restore.restore_beside(request)
        assert (restored.database, restored.provider) == (name, "clone")
        assert database.server.execute("SELECT count(*) FROM lines", name) == [(3000,)]
        database.server.execute("DELETE FROM lines", name)
        with pytest.raises(restore.RestoreFailed, match=r"public\.lines has 3000 rows in the backup and 0"):
            restore.restore_beside(request)
    finally:
        database.server.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(sql.Identifier(name)))
        database.server.drop_database(name)


# --- refused before anything is written --------------------------------------------------------------------------------


def refuse(request: restore.RestoreRequest, match: str) -> Refused:
    """Both the check and the restore itself refuse."""
    with pytest.raises(Refused, match=match):
        restore.check_restorable(request)
    with pytest.raises(Refused, match=match) as caught:
        restore.restore_beside(request)
    return caught.value


def test_no_program_touches_an_archive_that_is_not_proven(
    request_for: restore.RestoreRequest, database: Database, tmp_path: pathlib.Path
) -> None:
    trap = programs(tmp_path / "bin", request_for.bin_dir, f"touch {tmp_path}/called; exit 1")
    trapped = dataclasses.replace(request_for, bin_dir=trap)
    refuse(dataclasses.replace(trapped, key="secret"), "is not signed")
    data = min(pathlib.Path(request_for.path, "dump").glob("*.dat"))
    whole = data.read_bytes()
    data.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refuse(trapped, "is not as it was written")
    data.write_bytes(whole)
    restore.check_restorable(trapped)
    assert not (tmp_path / "called").exists()
    with pytest.raises(FailedUnchanged):
        restore.restore_beside(trapped)
    assert (tmp_path / "called").exists()
    assert beside(database) == []


def test_signed_manifests(database: Database, settings: ConnectionSettings, tmp_path: pathlib.Path) -> None:
    path = take(settings, tmp_path, database.server.bin_dir, key="right")
    request = restore.RestoreRequest(settings, path, key="wrong", bin_dir=str(database.server.bin_dir))
    refuse(request, "rollback_backup_key")
    assert restore.verify_by_restore(dataclasses.replace(request, key="right")) == []


def test_another_cluster_or_database_or_a_removed_backup(
    request_for: restore.RestoreRequest, database: Database
) -> None:
    edit(request_for.path, system_identifier="1")
    refuse(request_for, "is of the cluster 1, and this is")
    edit(request_for.path, database="another")
    refuse(request_for, "of the database another, not of")
    lock = publication.take_lock(request_for.path)
    try:
        refuse(request_for, "another run")
    finally:
        os.close(lock)
    assert beside(database) == []


def test_links_and_open_folders(request_for: restore.RestoreRequest, tmp_path: pathlib.Path) -> None:
    link = tmp_path / os.path.basename(request_for.path)
    link.symlink_to(request_for.path)
    refuse(dataclasses.replace(request_for, path=str(link)), "not a folder of its own")
    os.chmod(request_for.path, 0o777)  # noqa: S103 - that is the mistake to be refused
    refuse(request_for, "can be written by every user")
    os.chmod(request_for.path, 0o700)


def test_space_connections_and_settings(request_for: restore.RestoreRequest, database: Database) -> None:
    refused = refuse(
        dataclasses.replace(request_for, server_free_bytes=1_000_000),
        r"may need \d+ MB on the server, and 0\.95 MB are free",
    )
    assert refused.details["free_bytes"] == 1_000_000
    refuse(dataclasses.replace(request_for, maintenance_db=database.name), "rollback_maintenance_db is")
    refuse(dataclasses.replace(request_for, maintenance_db="not there"), r"rollback_maintenance_db")
    refuse(dataclasses.replace(request_for, missing_roles="perhaps"), "rollback_missing_roles")
    refuse(dataclasses.replace(request_for, jobs=-1), "rollback_restore_jobs")
    assert beside(database) == []


def test_an_extension_that_the_server_cannot_install(request_for: restore.RestoreRequest) -> None:
    extensions = {"plpgsql": {"version": "1.0"}, "not_there": {"version": "3.1"}}
    edit(request_for.path, extensions=extensions)
    assert refuse(request_for, r"cannot install: not_there 3\.1").details["extensions"] == ["not_there 3.1"]
    edit(request_for.path, extensions={"plpgsql": {"version": "99"}})
    refuse(request_for, r"plpgsql 99\. Of these names it offers: plpgsql 1\.0")


def test_a_tablespace_that_is_not_there(request_for: restore.RestoreRequest) -> None:
    edit(request_for.path, properties={**manifest.load(request_for.path).properties, "tablespace": "fast"})
    refuse(request_for, "The server has no tablespace fast")
    edit(
        request_for.path,
        properties={**manifest.load(request_for.path).properties, "tablespace": "pg_default", "encoding": "X"},
    )
    refuse(request_for, "has no encoding X")


def test_a_role_without_privileges(request_for: restore.RestoreRequest, database: Database) -> None:
    name = f"plain_{secrets.token_hex(4)}"
    database.server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        plain = dataclasses.replace(
            request_for, settings=dataclasses.replace(request_for.settings, user=name, password="x")
        )
        refuse(plain, "may not create databases")
        database.server.execute(f"ALTER ROLE {name} CREATEDB")
        refuse(plain, f"GRANT postgres TO {name}")
    finally:
        database.server.execute(f"DROP ROLE {name}")


# --- roles ------------------------------------------------------------------------------------------------------------


def test_missing_roles_are_refused_or_created_without_passwords(
    database: Database, settings: ConnectionSettings, tmp_path: pathlib.Path
) -> None:
    server = database.server
    group, owner = f'gr"oup {secrets.token_hex(3)}', f"own er {secrets.token_hex(3)}"
    names = {"g": sql.Identifier(group), "o": sql.Identifier(owner), "d": sql.Identifier(database.name)}
    for statement in (
        "CREATE ROLE {g} NOLOGIN CREATEDB", "CREATE ROLE {o} LOGIN PASSWORD 'x' CONNECTION LIMIT 3 VALID UNTIL '2099-01-01 00:00:00+00' IN ROLE {g}",
        "ALTER ROLE {o} SET search_path TO app, \"we ird\"", "ALTER DATABASE {d} OWNER TO {o}", "GRANT CONNECT ON DATABASE {d} TO {g}",
    ):  # fmt: skip
        server.execute(sql.SQL(statement).format(**names))
    database.execute(
        sql.SQL("ALTER TABLE orders OWNER TO {o}; GRANT SELECT ON lines TO {g}")
        .format(**names)
        .as_string(database.connect())
    )
    path = take(settings, tmp_path, server.bin_dir)
    recorded = server.execute("SELECT * FROM pg_roles ORDER BY 1")
    server.drop_database(database.name)
    for name in (owner, group):
        server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    request = restore.RestoreRequest(settings, path, bin_dir=str(server.bin_dir))
    assert refuse(request, "-e missing_roles=create").details["roles"] == sorted([group, owner])
    create = dataclasses.replace(request, missing_roles="create")
    trap = programs(tmp_path / "bin", request.bin_dir, "exit 1")
    try:
        with pytest.raises(FailedUnchanged):
            restore.restore_beside(dataclasses.replace(create, bin_dir=trap))
        assert server.execute("SELECT count(*) FROM pg_roles WHERE rolname ~ '^(gr|own )'") == [(0,)]
        restored = restore.restore_beside(create)
        assert set(restored.roles) == {group, owner}
        assert any(owner in text and group not in text and "password" in text for text in restored.warnings)
        now = server.execute("SELECT * FROM pg_roles ORDER BY 1")
        assert [row[:-1] for row in now] == [row[:-1] for row in recorded]
        memberships = (
            "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members WHERE member = %s::regrole"
        )
        with contextlib.closing(server.connect()) as session, session.cursor() as cursor:
            cursor.execute(memberships, (sql.Identifier(owner).as_string(session),))
            assert len(cursor.fetchall()) == 1
        owners = server.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'", restored.database)
        assert owners == [(owner,)]
    finally:
        for name in beside(database):
            server.drop_database(name)
        for name in (owner, group):
            server.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def test_an_ordinary_role_that_may_create_databases_is_enough(database: Database, tmp_path: pathlib.Path) -> None:
    server, name = database.server, f"plain_{secrets.token_hex(4)}"
    server.execute(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD 'x'")
    server.create_database(name, owner=name)
    try:
        settings = dataclasses.replace(ConnectionSettings(**server.connection_arguments(name)), user=name, password="x")
        with contextlib.closing(connection.connect(settings)) as session:
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute(SCHEMA)
                cursor.execute(f"ALTER DATABASE {name} SET search_path TO public, app")
        path = take(settings, tmp_path, server.bin_dir, content=True)
        request = restore.RestoreRequest(settings, path, bin_dir=str(server.bin_dir))
        restored = restore.restore_beside(request)
        assert server.execute("SELECT count(*) FROM lines", restored.database) == [(3000,)]
        assert restore.drop_leftovers(dataclasses.replace(request, run_id="next")) == [restored.database]
    finally:
        server.drop_database(name)
        server.execute(f"DROP ROLE {name}")


# --- failing halfway --------------------------------------------------------------------------------------------------


def test_what_differs_from_the_manifest_is_dropped(request_for: restore.RestoreRequest, database: Database) -> None:
    found = manifest.load(request_for.path)
    wrong = {**found.tables, "public.orders": {"rows": 3000, "hash": "1"}, "public.gone": {"rows": 1}}
    del wrong["public.lines"]
    content = {**found.content, "sequences": {"public.numbers": [5, True]}, "large_objects": [1, "1"]}
    edit(request_for.path, tables=wrong, content=content)
    with pytest.raises(restore.RestoreFailed) as caught:
        restore.restore_beside(request_for)
    assert sorted(caught.value.details["problems"]) == [
        "The large objects are as many as in the backup and have another content.",
        "The rows of public.orders are as many as in the backup, 3000, and have another content.",
        "The sequence public.numbers stands at 5 in the backup and at 1 in the restored database.",
        "public.gone is in the backup and not in the restored database.",
        "public.lines is in the restored database and not in the backup.",
    ]
    assert beside(database) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error: disk full' >&2; exit 1", "disk full"),
        ('"$REAL" "$@"; exit 1', "exit code 1"),
        ("kill -9 $$", "SIGKILL"),
        ("exit 0", r"public\.lines is in the backup and not in the restored database"),
    ],
)
def test_pg_restore_failing(
    script: str, said: str, request_for: restore.RestoreRequest, database: Database, tmp_path: pathlib.Path
) -> None:
    broken = dataclasses.replace(request_for, bin_dir=programs(tmp_path / "bin", request_for.bin_dir, script))
    with pytest.raises(FailedUnchanged, match=said):
        restore.restore_beside(broken)
    assert beside(database) == []
    assert database.execute("SELECT count(*) FROM orders") == [(3000,)]


def test_a_server_that_goes_down_leaves_a_database_that_is_named(
    request_for: restore.RestoreRequest, database: Database, tmp_path: pathlib.Path
) -> None:
    script = f"touch {tmp_path}/started; while test ! -e {tmp_path}/go; do sleep 0.05; done; exit 1"
    hanging = dataclasses.replace(request_for, bin_dir=programs(tmp_path / "bin", request_for.bin_dir, script))
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(in_process(hanging, tmp_path))
        wait_for((tmp_path / "started").exists, process)
        database.server.stop("immediate")
        (tmp_path / "go").touch()
        _none, said = process.communicate(timeout=60)
    database.server.start()
    left = beside(database)
    assert len(left) == 1
    assert f'DROP DATABASE IF EXISTS "{left[0]}" WITH (FORCE);' in said
    assert restore.drop_leftovers(request_for) == left


def in_process(request: restore.RestoreRequest, folder: pathlib.Path) -> subprocess.Popen[str]:
    """A restore in a process of its own, which can be killed."""
    fields = {**dataclasses.asdict(request), "settings": dataclasses.asdict(request.settings)}
    (folder / "request.json").write_text(json.dumps(fields), encoding="utf-8")
    program = (
        "import json, sys\n"
        "from ansible_collections.cypher.rollback.plugins.module_utils import connection, restore\n"
        "fields = json.load(open(sys.argv[1]))\n"
        "fields['settings'] = connection.ConnectionSettings(**fields['settings'])\n"
        "print('ready', flush=True)\n"
        "restore.restore_beside(restore.RestoreRequest(**fields))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "request.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: t.Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigterm_drops_the_new_database(
    request_for: restore.RestoreRequest, database: Database, tmp_path: pathlib.Path
) -> None:
    script = f"touch {tmp_path}/started; sleep 60 & wait"
    hanging = dataclasses.replace(request_for, bin_dir=programs(tmp_path / "bin", request_for.bin_dir, script))
    with in_process(hanging, tmp_path) as process:
        wait_for((tmp_path / "started").exists, process)
        assert len(beside(database)) == 1
        # Somebody at work on it: another run leaves it alone.
        assert restore.drop_leftovers(dataclasses.replace(request_for, run_id="other")) == []
        process.send_signal(signal.SIGTERM)
        _none, said = process.communicate(timeout=30)
    assert "was interrupted by signal SIGTERM" in said
    assert beside(database) == []


@pytest.mark.parametrize("moment", [0.05, 0.15, 0.3, 0.5, 0.8])
def test_sigkill_leaves_what_the_next_run_drops(
    moment: float, request_for: restore.RestoreRequest, database: Database, tmp_path: pathlib.Path
) -> None:
    before = database.execute("SELECT sum(id), count(*) FROM lines")
    with in_process(request_for, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment * (0.7 + secrets.randbelow(600) / 1000))
        process.kill()
        process.communicate()
    left = beside(database)
    restored = restore.restore_beside(dataclasses.replace(request_for, run_id="run-2"))
    assert beside(database) == [restored.database]
    # The server may have gone on to make one for the dead run.
    assert set(left) <= set(restored.left_overs)
    assert database.execute("SELECT sum(id), count(*) FROM lines") == before


def test_only_what_is_certainly_ours_is_dropped(request_for: restore.RestoreRequest, database: Database) -> None:
    """Neither by name nor by comment alone; an unmarked one only where nobody could ever connect to it."""
    server, live = database.server, database.name
    marks = {
        f"{live}_restore_00000001": None,
        f"{live}_restore_00000002": "somebody's own",
        f"{live}_restore_00000003": "cypher.rollback: restore of x, run y, for another",
        f"{live}_restore_0000000g": f"cypher.rollback: restore of x, run y, for {live}",
        f"{live}_restore_00000004": f"cypher.rollback: complete restore of x, run run-1, for {live}",
        f"{live}_restore_00000005": f"cypher.rollback: complete restore of x, run old, for {live}",
        f"{live}_restore_00000006": f"cypher.rollback: verification of x, run old, for {live}",
        f"{live}_restore_00000007": None,
    }
    for name, comment in marks.items():
        server.create_database(name)
        server.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(comment)))
    server.execute(f"ALTER DATABASE {live}_restore_00000007 ALLOW_CONNECTIONS false")
    verifying = dataclasses.replace(request_for, purpose="verify")
    assert restore.drop_leftovers(verifying) == [f"{live}_restore_00000006", f"{live}_restore_00000007"]
    assert restore.drop_leftovers(request_for) == [f"{live}_restore_00000005"]
    assert len(beside(database)) == 5


# --- the module -------------------------------------------------------------------------------------------------------


class Ended(Exception):
    """What a module says at its end."""


class FakeModule:
    """An AnsibleModule that raises what it would print."""

    def __init__(self, params: dict[str, t.Any], check_mode: bool = False) -> None:
        self.params, self.check_mode, self.warnings = params, check_mode, []  # type: ignore[var-annotated]  # a list for texts

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def exit_json(self, **result: t.Any) -> t.NoReturn:
        raise Ended(result)

    def fail_json(self, **result: t.Any) -> t.NoReturn:
        raise Ended({"failed": True, **result})


def run_module(
    request: restore.RestoreRequest, database: Database, *, check_mode: bool = False, **params: t.Any
) -> dict[str, t.Any]:
    """Run db_restore in this process."""

    def make_module(argument_spec: dict[str, t.Any], supports_check_mode: bool) -> FakeModule:
        assert supports_check_mode
        given = {"path": request.path, "bin_dir": request.bin_dir, **database.login(), **params}
        return FakeModule(
            {name: given.get(name, spec.get("default")) for name, spec in argument_spec.items()}, check_mode
        )

    with pytest.raises(Ended) as caught:
        db_restore.main(make_module)
    return t.cast("dict[str, t.Any]", caught.value.args[0])


def test_the_module(request_for: restore.RestoreRequest, database: Database) -> None:
    checked = run_module(request_for, database, check_mode=True)
    assert checked["changed"]
    assert checked["estimate"]["jobs"] == 1
    assert beside(database) == []
    done = run_module(request_for, database, run_id="r")
    assert done["compared"]
    assert beside(database) == [done["restored"]["database"]]
    failed = run_module(request_for, database, key="k")
    assert failed["failed"]
    assert failed["outcome"] == "refused"
