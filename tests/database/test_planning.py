# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning: what is applied, what runs, and everything that is refused before anything is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.connection import CannotConnect
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused, RollbackError
from ansible_collections.cypher.rollback.plugins.module_utils.execute import Limits
from ansible_collections.cypher.rollback.plugins.module_utils.verify import VerifyRequest, verify_database

from tests.conftest import Database
from tests.support.engine import SHOP, Engine, dropped
from tests.support.postgres_server import UNPRIVILEGED, PostgresServer

if t.TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Engine:
    """Three migrations, each with a table of its own; all applied."""
    made = Engine(database, tmp_path)
    made.script(SHOP)
    made.migration("0001", "DROP TABLE IF EXISTS app.customers CASCADE;")
    made.migration("0002", "DROP VIEW IF EXISTS app.order_report;\nDROP TABLE IF EXISTS app.orders CASCADE;")
    made.migration("0003", "DROP TABLE IF EXISTS app.lines;")
    return made


def refused(engine: Engine, version: object = "0003", **changes: t.Any) -> str:
    """What is said; nothing may have happened."""
    before = engine.state()
    with pytest.raises(Refused) as caught:
        engine.plan(version, **changes)
    assert engine.state() == before
    return str(caught.value)


# --- versions --------------------------------------------------------------------------------------------------------


def test_the_newest_is_planned_with_its_evidence(engine: Engine) -> None:
    planned = engine.plan("0003")
    assert planned.plan.versions == ["0003"]
    assert (
        planned.plan.message == "To roll back, newest first: 0003 (1 of the 1 objects that its DOWN names are there)."
    )
    assert planned.target.database == engine.database.name
    assert planned.target.system_identifier.isdecimal()
    assert planned.warnings == ()


def test_a_version_below_an_applied_one_is_refused_with_the_command_that_works(engine: Engine) -> None:
    said = refused(engine, "0002")
    assert "0003 is applied on top of it (0003: 1 of the 1 objects" in said
    assert said.endswith("ansible-playbook cypher.rollback.rollback -e to_version=0001")
    assert refused(engine, "0001").endswith("-e to_version=0")


def test_all_above_a_version_are_taken_back_newest_first_in_one_transaction(engine: Engine) -> None:
    assert engine.plan(None, to_version="0001").plan.versions == ["0003", "0002"]
    assert engine.plan(None, to_version="0").plan.versions == ["0003", "0002", "0001"]
    done = engine.execute(None, to_version="0001")
    assert dropped(done, cascaded=False, part_of="") == {"table app.lines", "table app.orders", "view app.order_report"}
    assert engine.plan(None, to_version="0001").plan.scripts == ()
    assert engine.plan("0001").plan.versions == ["0001"]


def test_what_is_not_applied_needs_nothing(engine: Engine) -> None:
    engine.execute("0003")
    planned = engine.plan("0003")
    assert planned.plan.scripts == ()
    assert planned.plan.message == "Migration 0003 is not applied (0 of the 1 objects that its DOWN names are there)."


def test_both_or_neither_version_is_refused(engine: Engine) -> None:
    assert "Both version and to_version" in refused(engine, "0003", to_version="0001")
    assert "version" in refused(engine, None)


def test_a_partly_applied_migration_is_taken_back_with_a_warning(engine: Engine) -> None:
    engine.execute("0003")
    engine.script("DROP VIEW app.order_report")
    planned = engine.plan("0002")
    assert planned.plan.versions == ["0002"]
    assert planned.warnings == ("0002 is partly applied: missing view app.order_report.",)


def test_a_migration_of_which_nothing_tells_is_taken_as_applied_with_a_warning(engine: Engine) -> None:
    engine.migration("0004", "UPDATE app.orders SET note = 'older';")
    planned = engine.plan("0004")
    assert planned.plan.versions == ["0004"]
    assert "its DOWN names no object that would tell" in planned.warnings[0]
    assert "rollback_ledger_table" in planned.warnings[0]


def test_a_down_that_cannot_run_matters_only_where_it_is_to_run(engine: Engine) -> None:
    engine.migration("0002", "VACUUM;")
    assert engine.plan("0003").plan.versions == ["0003"]
    assert "VACUUM" in refused(engine, None, to_version="0001")


def test_the_digest_changes_with_the_file(engine: Engine) -> None:
    first = engine.plan("0003").plan.digest
    assert engine.plan("0003").plan.digest == first
    engine.migration("0003", "DROP TABLE app.lines;")
    assert engine.plan("0003").plan.digest != first


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_name_without_schema_that_is_elsewhere_too_is_refused_with_the_place(engine: Engine) -> None:
    engine.script("CREATE SCHEMA archive; CREATE TABLE archive.lines ()")
    engine.migration("0003", "DROP TABLE IF EXISTS lines;")
    said = refused(engine)
    assert "names table lines without a schema. It would drop app.lines and leave archive.lines." in said
    assert "rollback_left_over: accept" in said
    done = engine.execute("0003", left_over="accept")
    assert dropped(done, part_of="") == {"table app.lines"}
    assert [item["identity"] for item in done.effect.left_over] == ["archive.lines"]


def test_a_name_that_is_only_outside_of_the_search_path_is_refused(engine: Engine) -> None:
    engine.script('CREATE SCHEMA archive; CREATE TABLE archive."only" ()')
    engine.migration("0003", 'DROP TABLE app.lines;\nDROP TABLE IF EXISTS "only";')
    assert 'would find none in rollback_search_path and leave archive."only"' in refused(engine)


# --- rows and locks --------------------------------------------------------------------------------------------------


def test_more_rows_than_allowed_are_refused_before_anything_is_stopped(engine: Engine) -> None:
    assert "destroys at least 200 rows, and rollback_max_rows_lost allows 199" in refused(
        engine, limits=Limits(max_rows_lost=199)
    )
    assert engine.plan("0003", limits=Limits(max_rows_lost=200)).rows_estimate == 200


def test_rows_of_partitions_and_heirs_count(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.events (id int) PARTITION BY LIST (id); CREATE TABLE app.events_1 PARTITION OF app.events DEFAULT;"
        "CREATE TABLE app.base (id int); CREATE TABLE app.heir () INHERITS (app.base);"
        "INSERT INTO app.events SELECT generate_series(1, 30); INSERT INTO app.heir SELECT generate_series(1, 12)"
    )
    engine.migration("0004", "DROP TABLE app.events;\nDROP TABLE app.base CASCADE;")
    assert engine.plan("0004", limits=Limits(max_rows_lost=1000)).rows_estimate == 42


def test_rows_that_a_statement_deletes_are_found_by_a_trial_that_is_undone(engine: Engine) -> None:
    engine.migration("0003", "DELETE FROM app.lines WHERE id <= 150;")
    said = refused(engine, limits=Limits(max_rows_lost=149))
    assert "A trial of the DOWN, undone at once, did not pass" in said
    assert "destroys 150 rows" in said
    assert engine.plan("0003", limits=Limits(max_rows_lost=150)).plan.versions == ["0003"]


def test_the_trial_knows_what_may_be_left_over(engine: Engine) -> None:
    engine.script("CREATE SCHEMA archive; CREATE TABLE archive.lines ()")
    engine.migration("0003", "DELETE FROM app.lines;\nDROP TABLE lines;")
    planned = engine.plan("0003", limits=Limits(max_rows_lost=1000), left_over="accept")
    assert planned.plan.versions == ["0003"]


def test_a_locked_catalog_is_refused_and_the_holder_named(engine: Engine) -> None:
    with contextlib.closing(engine.session("alter everything")) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE app.orders IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(
            Refused, match=r"within 500ms; nothing was stopped or changed\. It is held by pid .*alter everything"
        ):
            engine.plan("0003", limits=Limits("500ms"))
        assert time.monotonic() - started < 5


# --- the ledger ------------------------------------------------------------------------------------------------------


def ledger(
    engine: Engine, *rows: str, name: str = "public.schema_migrations", column: str = "version text"
) -> dict[str, t.Any]:
    engine.script(f"CREATE TABLE {name} ({column})")
    for row in rows:
        engine.database.execute(f"INSERT INTO {name} VALUES ('{row}')")
    return {"ledger_table": name, "ledger_column": column.rsplit(" ", 1)[0].strip('"')}


FORMS = {
    "text": ("text", ["0001", "0002", "0003"]),
    "short text": ("text", ["1", "2", "3"]),
    "number": ("bigint", ["1", "2", "3"]),
    "file name": ("text", ["0001-step.sql", "0002-step.sql", "0003-step.sql"]),
    "file name without suffix": ("varchar", ["0001-step", "0002-step", "0003-step"]),
    "padded": ("character(20)", ["0001", "0002", "0003"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_row_of_the_ledger_goes_with_the_down_whatever_its_form(engine: Engine, form: str) -> None:
    type_, rows = FORMS[form]
    settings = ledger(engine, *rows, column=f"version {type_}")
    planned = engine.plan("0003", **settings)
    assert "a row in public.schema_migrations" in planned.plan.message
    preview = engine.execute("0003", preview=True, **settings)
    assert engine.database.execute("SELECT count(*) FROM schema_migrations") == [(3,)]
    done = engine.execute("0003", **settings)
    assert preview.effect == done.effect
    assert "public.schema_migrations" in done.effect.touched
    assert done.effect.rows_lost == 200
    left = [str(row[0]).strip() for row in engine.database.execute("SELECT version FROM schema_migrations ORDER BY 1")]
    assert left == rows[:2]
    assert engine.plan("0003", **settings).plan.scripts == ()


def test_the_ledger_decides_and_not_the_objects(engine: Engine) -> None:
    settings = ledger(engine, "0001", "0002")
    assert engine.plan("0003", **settings).plan.scripts == ()
    assert engine.plan("0002", **settings).plan.versions == ["0002"]


def test_a_down_may_delete_its_own_row(engine: Engine) -> None:
    settings = ledger(engine, "0003")
    engine.migration("0003", "DROP TABLE app.lines;\nDELETE FROM schema_migrations WHERE version = '0003';")
    assert engine.execute("0003", **settings).committed
    assert engine.database.execute("SELECT count(*) FROM schema_migrations") == [(0,)]


def test_a_failing_down_leaves_its_row(engine: Engine) -> None:
    settings = ledger(engine, "0003")
    engine.migration("0003", "DROP TABLE app.lines;\nSELECT 1/0;")
    with pytest.raises(RollbackError):
        engine.execute("0003", **settings)
    assert engine.database.execute("SELECT version FROM schema_migrations") == [("0003",)]


def test_two_rows_of_one_version_are_refused(engine: Engine) -> None:
    assert "has 2 rows for version 0003 (0003, 3), so which one to delete is not certain" in refused(
        engine, **ledger(engine, "0003", "3")
    )


def test_rows_without_a_migration_are_refused(engine: Engine) -> None:
    said = refused(engine, **ledger(engine, "0003", "0099", "20260101_other"))
    assert "names 0099, 20260101_other as applied" in said
    assert "rollback_migrations_dir" in said


def test_a_ledger_that_is_not_there_is_refused(engine: Engine) -> None:
    assert "public.nope does not exist" in refused(engine, ledger_table="public.nope")
    assert "no name of a table" in refused(engine, ledger_table="a.b.c; DROP TABLE x")
    assert "has no column when_applied" in refused(engine, **{**ledger(engine), "ledger_column": "when_applied"})


def test_a_ledger_with_a_difficult_name(engine: Engine) -> None:
    engine.script('CREATE SCHEMA "Led ger"')
    settings = ledger(engine, "0003", name='"Led ger"."order"', column='"user" text')
    assert engine.execute("0003", **settings).committed
    assert engine.database.execute('SELECT count(*) FROM "Led ger"."order"') == [(0,)]


# --- servers ---------------------------------------------------------------------------------------------------------


def test_another_cluster_than_the_one_meant_is_refused(engine: Engine) -> None:
    said = refused(engine, system_identifier="1234567890")
    assert "rollback_db_system_identifier is 1234567890" in said
    assert engine.plan("0003", system_identifier=engine.plan("0003").target.system_identifier).plan.versions == ["0003"]


@pytest.mark.parametrize("where", ["DATABASE", "ROLE"])
def test_a_read_only_database_is_refused(engine: Engine, where: str) -> None:
    name = engine.database.name if where == "DATABASE" else "postgres"
    before = engine.state()
    engine.database.server.execute(f'ALTER {where} "{name}" SET default_transaction_read_only = on')
    try:
        with pytest.raises(Refused, match="is read-only"):
            engine.plan("0003")
    finally:
        writable = engine.database.connect(options="-c default_transaction_read_only=off")
        with contextlib.closing(writable) as session:
            with session, session.cursor() as cursor:
                cursor.execute(f'ALTER {where} "{name}" RESET default_transaction_read_only')
    assert engine.state() == before


def test_a_standby_is_refused(tmp_path: Path, server: PostgresServer) -> None:
    with PostgresServer(server.original_bin_dir) as own:
        own.create_database("shop")
        engine = Engine(Database(own, "shop"), tmp_path)
        engine.script(SHOP)
        engine.migration("0003", "DROP TABLE app.lines;")
        own.stop()
        (own.data_dir / "standby.signal").touch()
        own.start()
        with pytest.raises(Refused, match=r"is a standby: it cannot be changed. Set rollback_db_host to the primary"):
            engine.plan("0003")


def test_a_wrong_limit_is_refused_before_anything_is_stopped(engine: Engine) -> None:
    for limits in (Limits("5 parsecs"), Limits(statement_timeout="soon")):
        with pytest.raises(Refused, match="Correct rollback_lock_timeout or rollback_statement_timeout"):
            engine.plan("0003", limits=limits)


def one_sentence(engine: Engine, **changes: t.Any) -> str:
    password = changes.get("password", engine.settings.password)
    engine.settings = dataclasses.replace(engine.settings, **changes)
    with pytest.raises(CannotConnect) as caught:
        engine.plan("0003")
    said = str(caught.value)
    assert "\n" not in said
    assert password not in said
    assert "rollback_db_" in said
    return said


def test_a_server_that_cannot_be_reached_is_one_sentence_without_password(engine: Engine) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "refused" in one_sentence(engine, port=unused.getsockname()[1])


def test_a_wrong_password_is_one_sentence_without_it(engine: Engine) -> None:
    assert "password authentication failed" in one_sentence(engine, password="wr:ng 'pass\\word")


def test_a_database_that_is_not_there_is_one_sentence(engine: Engine) -> None:
    assert "does not exist" in one_sentence(engine, dbname="no such database")


def test_an_unknown_connection_parameter_is_one_sentence(engine: Engine) -> None:
    assert "nonsense" in one_sentence(engine, connect_params={"nonsense": "1"})


# --- poolers ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def pgbouncer(engine: Engine, folder: Path, *extra: str) -> Iterator[int]:
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    where = engine.settings
    users = folder / "users.txt"
    users.write_text(f'"{where.user}" "{where.password}"\n', encoding="utf-8")
    settings = folder / "pgbouncer.ini"
    lines = [
        "[databases]",
        f"* = host={where.host} port={where.port}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = plain",
        f"auth_file = {users}",
        "pool_mode = transaction",
        *extra,
    ]
    settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
    identity: dict[str, t.Any] = {}
    if folder.stat().st_uid == 0:
        identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    users.chmod(0o644)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-q", str(settings)], stdout=log, stderr=log, cwd="/", **identity)
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that the pooler's user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rollback-bouncer-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize("extra", [(), ("ignore_startup_parameters = options",)])
def test_a_pooler_is_refused(engine: Engine, public_folder: Path, extra: tuple[str, ...]) -> None:
    with pgbouncer(engine, public_folder, *extra) as port:
        engine.settings = dataclasses.replace(engine.settings, port=port, sslmode="disable")
        with pytest.raises(Refused, match="connection pooler such as pgbouncer answers there") as caught:
            engine.plan("0003")
    assert "rollback_db_host and rollback_db_port" in str(caught.value)


# --- ordinary roles --------------------------------------------------------------------------------------------------

PASSWORD = "s3cret :'\"\\ %& pass"


@pytest.fixture
def owner(engine: Engine) -> Iterator[str]:
    """The engine as an ordinary role, with a difficult password, that owns the schema's tables and not the schema."""
    name = f"owner_{engine.database.name}"
    with contextlib.closing(engine.database.connect()) as session:
        with session, session.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD %s", (PASSWORD,))
            cursor.execute(f"GRANT USAGE ON SCHEMA app TO {name}")
            for table in ("customers", "orders", "lines", "order_report", "numbers"):
                cursor.execute(f"ALTER TABLE app.{table} OWNER TO {name}")
    superuser = engine.settings
    engine.settings = dataclasses.replace(superuser, user=name, password=PASSWORD)
    yield name
    engine.settings = superuser
    engine.script(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}")


def plan_as(engine: Engine) -> str:
    with pytest.raises(Refused) as caught:
        engine.plan("0003")
    assert "Nothing was stopped or changed" in str(caught.value)
    return str(caught.value)


def test_an_ordinary_owner_can_do_it(engine: Engine, owner: str) -> None:
    assert engine.plan("0003").plan.versions == ["0003"]
    done = engine.execute("0003")
    assert done.committed
    assert done.effect.rows_lost == 200
    request = VerifyRequest(engine.settings, ["app"], ["app.orders"], (), dropped=done.effect.to_dict()["dropped"])
    _target, checks = verify_database(request)
    assert {check.status for check in checks} <= {"passed", "information"}
    assert owner


def test_a_table_of_somebody_else_is_refused_with_owner_and_remedy(engine: Engine, owner: str) -> None:
    engine.script("ALTER TABLE app.lines OWNER TO postgres")
    assert f"The role {owner} may not drop the table app.lines: it belongs to postgres." in plan_as(engine)
    assert f"GRANT postgres TO {owner}" in plan_as(engine)


def test_the_owner_of_the_schema_may_drop_what_is_in_it(engine: Engine, owner: str) -> None:
    engine.script(f"ALTER TABLE app.lines OWNER TO postgres; ALTER SCHEMA app OWNER TO {owner}")
    assert engine.execute("0003", row_counts={}).committed


@pytest.mark.parametrize(
    ("create", "down"),
    [
        (
            "CREATE TRIGGER t BEFORE UPDATE ON app.lines FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "DROP TRIGGER t ON app.lines;",
        ),
        ("CREATE POLICY p ON app.lines", "DROP POLICY p ON app.lines;"),
        ("SELECT 1", "ALTER TABLE app.lines DROP CONSTRAINT of_order;"),
        ("SELECT 1", "ALTER TABLE app.lines DROP COLUMN order_id;"),
    ],
)
def test_parts_of_a_table_of_somebody_else_are_refused(engine: Engine, owner: str, create: str, down: str) -> None:
    # The owner of the schema may drop the table, and no part of it.
    engine.script(f"{create}; ALTER TABLE app.lines OWNER TO postgres; ALTER SCHEMA app OWNER TO {owner}")
    engine.migration("0003", down)
    assert "may not drop parts of the table app.lines: it belongs to postgres" in plan_as(engine)


def test_a_role_needs_createrole(engine: Engine, owner: str) -> None:
    victim = f"victim_{engine.database.name}"
    engine.script(f"CREATE ROLE {victim}")
    engine.migration("0003", f"DROP TABLE app.lines;\nDROP ROLE {victim};")
    try:
        assert f"may not drop the role {victim}: {owner} lacks CREATEROLE" in plan_as(engine)
        engine.script(f"ALTER ROLE {owner} CREATEROLE")
        if engine.server_version >= 160000:
            assert f"GRANT {victim} TO {owner} WITH ADMIN OPTION" in plan_as(engine)
            engine.script(f"GRANT {victim} TO {owner} WITH ADMIN OPTION")
        assert engine.execute("0003").committed
    finally:
        engine.script(f"DROP ROLE IF EXISTS {victim}")


def test_a_role_that_another_database_uses_is_refused(engine: Engine) -> None:
    role, other = f"shared_{engine.database.name}", f"{engine.database.name}_other"
    engine.database.server.create_database(other)
    try:
        engine.script(f"CREATE ROLE {role}")
        engine.database.server.execute(f"CREATE TABLE used (); GRANT SELECT ON used TO {role}", other)
        engine.migration("0003", f"DROP ROLE {role};")
        said = plan_as(engine)
        assert f"still owns something or has privileges in database {other}" in said
        assert f"DROP OWNED BY {role}" in said
    finally:
        engine.database.server.drop_database(other)
        engine.script(f"DROP ROLE {role}")


def test_a_role_with_privileges_on_the_database_itself(engine: Engine) -> None:
    role = f"connects_{engine.database.name}"
    engine.script(f'CREATE ROLE {role}; GRANT CONNECT ON DATABASE "{engine.database.name}" TO {role}')
    try:
        engine.migration("0003", f"DROP ROLE {role};")
        assert f"privileges in database {engine.database.name}" in plan_as(engine)
        engine.migration("0003", f"DROP ROLE {role};\nDROP OWNED BY {role};")
        assert engine.execute("0003").committed
    finally:
        engine.script(f"DROP ROLE IF EXISTS {role}")


def test_a_ledger_that_the_role_may_not_change_is_refused(engine: Engine, owner: str) -> None:
    settings = ledger(engine, "0003")
    with pytest.raises(Refused, match=r"lacks SELECT on the ledger table public\.schema_migrations"):
        engine.plan("0003", **settings)
    engine.script(f"GRANT SELECT ON schema_migrations TO {owner}")
    with pytest.raises(Refused, match=r"lacks DELETE on the ledger table"):
        engine.plan("0003", **settings)
    engine.script(f"GRANT DELETE ON schema_migrations TO {owner}")
    assert engine.execute("0003", **settings).committed


def test_planning_reads_only(engine: Engine) -> None:
    before = engine.dump()
    xid = engine.database.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    engine.plan("0003")
    assert engine.database.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text") == xid
    assert engine.dump() == before
