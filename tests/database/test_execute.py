# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each way in which a DOWN can fail leaves the database as it was, and says what happened and what to do next."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import commit, execute, planning
from ansible_collections.cypher.rollback.plugins.module_utils.checks import WantedCheck
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, OutcomeUnknown, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.execute import Limits

from tests.conftest import Database
from tests.support.engine import SHOP, Engine, dropped
from tests.support.postgres_server import REPOSITORY, PostgresServer
from tests.support.tcp_proxy import TcpProxy

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 20.0


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Engine:
    made = Engine(database, tmp_path)
    made.script(SHOP)
    return made


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def backends(engine: Engine, query: str = "") -> list[int]:
    """Sessions of the engine that run this query now."""
    found = engine.database.server.execute(
        f"SELECT pid FROM pg_stat_activity WHERE datname = '{engine.database.name}' "
        f"AND application_name LIKE 'cypher.rollback%' AND state = 'active' AND query LIKE '%{query}%'"
    )
    return [row[0] for row in found]


@contextlib.contextmanager
def in_background(work: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Do work beside the test; what it raises is in the list after the block."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as err:  # noqa: BLE001 - the test looks at it
            raised.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        thread.join(SECONDS)
        assert not thread.is_alive()


def fails(engine: Engine, down: str, **changes: t.Any) -> FailedUnchanged:
    """Execute a DOWN that fails, and see that nothing happened."""
    before = engine.state()
    with pytest.raises(FailedUnchanged) as caught:
        engine.rollback(down, **changes)
    assert engine.state() == before
    assert "as it was" in str(caught.value) or "Nothing was changed" in str(caught.value)
    return caught.value


# --- statements that fail --------------------------------------------------------------------------------------------


def test_an_error_in_the_middle_undoes_everything_and_names_the_statement(engine: Engine) -> None:
    err = fails(engine, "DROP TABLE app.lines;\nDELETE FROM app.orders;\nSELECT 1/0;\nDROP TABLE app.customers;")
    assert "statement 3" in str(err)
    assert "line 5" in str(err)
    assert "SELECT 1/0" in str(err)
    assert "division by zero" in str(err)
    assert err.details["line"] == 5
    assert err.details["sqlstate"] == "22012"


def test_a_statement_beyond_its_timeout_is_cancelled_and_undone(engine: Engine) -> None:
    started = time.monotonic()
    err = fails(engine, "DROP TABLE app.lines;\nSELECT pg_sleep(60);", limits=Limits(statement_timeout="200ms"))
    assert time.monotonic() - started < 10
    assert "rollback_statement_timeout is 200ms" in str(err)
    assert "pg_sleep" in str(err)


def test_a_lock_of_another_session_is_named_within_the_timeout(engine: Engine) -> None:
    with contextlib.closing(engine.session("nightly report")) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT count(*) AS reading FROM app.orders")
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchall()[0]
        started = time.monotonic()
        err = fails(engine, "DROP TABLE app.lines;\nDROP TABLE app.orders CASCADE;", limits=Limits("700ms"))
        assert time.monotonic() - started < 5
    for part in (
        "within 700ms",
        f"pid {pid}",
        "user postgres",
        "nightly report",
        "since 20",
        "pg_backend_pid",
        "rollback_lock_timeout",
    ):
        assert part in str(err)
    assert f"SELECT pg_terminate_backend({pid})" in str(err)
    assert [item["pid"] for item in err.details["blockers"]] == [pid]


def test_a_lock_before_the_first_statement_is_reported_as_such(engine: Engine) -> None:
    # PostgreSQL locks the tables of a view to write its definition out.
    with contextlib.closing(engine.session("migration")) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE app.orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Refused) as caught:
            engine.rollback("DROP TABLE app.lines;", limits=Limits("500ms"))
    assert "within 500ms" in str(caught.value)
    assert "application migration" in str(caught.value)


def test_a_prepared_transaction_in_the_way_is_named_with_the_command_that_ends_it(
    tmp_path: Path, server: PostgresServer
) -> None:
    with PostgresServer(server.original_bin_dir, settings={"max_prepared_transactions": 2}) as own:
        own.create_database("shop")
        engine = Engine(Database(own, "shop"), tmp_path)
        engine.script(SHOP)
        with contextlib.closing(engine.session()) as holder, holder.cursor() as cursor:
            cursor.execute("BEGIN; DELETE FROM app.lines; PREPARE TRANSACTION 'forgotten'")
        with pytest.raises(FailedUnchanged, match="ROLLBACK PREPARED 'forgotten'"):
            engine.rollback("DROP TABLE app.lines;", limits=Limits("500ms"))


def test_a_deadlock_is_undone_and_says_so(engine: Engine) -> None:
    down = "LOCK TABLE app.lines IN ACCESS EXCLUSIVE MODE;\nSELECT pg_sleep(0.5);\nDROP TABLE app.customers CASCADE;\nDROP TABLE app.lines;"
    with contextlib.closing(engine.session("other")) as other, other.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '30s'; SELECT count(*) FROM app.customers")

        def cross() -> None:
            wait_until(lambda: backends(engine, "pg_sleep"))
            cursor.execute("SELECT count(*) FROM app.lines")

        with in_background(cross):
            err = fails_without_state(engine, down)
        other.rollback()
    assert "deadlock" in str(err)
    assert "run again" in str(err)


def fails_without_state(engine: Engine, down: str) -> FailedUnchanged:
    with pytest.raises(FailedUnchanged) as caught:
        engine.rollback(down)
    return caught.value


def test_a_deferred_constraint_is_found_before_the_commit(engine: Engine) -> None:
    engine.script("ALTER TABLE app.lines ALTER CONSTRAINT of_order DEFERRABLE INITIALLY DEFERRED")
    err = fails(engine, "DELETE FROM app.orders WHERE id = 1;")
    assert "deferred constraints" in str(err)
    assert "of_order" in str(err)


def test_a_deferred_constraint_trigger_is_found_before_the_commit(engine: Engine) -> None:
    engine.script(
        "CREATE FUNCTION app.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'audit says no'; END $$;"
        "CREATE CONSTRAINT TRIGGER audit AFTER DELETE ON app.lines DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.refuse()"
    )
    err = fails(engine, "DELETE FROM app.lines WHERE id = 1;\nSET CONSTRAINTS ALL DEFERRED;")
    assert "audit says no" in str(err)


def test_a_failure_at_commit_itself_is_a_failure(engine: Engine) -> None:
    # The ledger's row goes last, so its deferred trigger fires at COMMIT and nowhere else.
    engine.script(
        "CREATE TABLE app.ledger (version text PRIMARY KEY); INSERT INTO app.ledger VALUES ('0001');"
        "CREATE FUNCTION app.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        "CREATE CONSTRAINT TRIGGER audit AFTER DELETE ON app.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.refuse()"
    )
    err = fails(engine, "DROP TABLE app.lines;\nSET CONSTRAINTS ALL DEFERRED;", ledger_table="app.ledger")
    assert "ledger" in str(err) or "at COMMIT" in str(err)


# --- connections that break ------------------------------------------------------------------------------------------

SLOW = "DROP TABLE app.lines;\nSELECT pg_sleep(30);"


def test_a_terminated_backend_is_a_failure_without_change(engine: Engine) -> None:
    before = engine.state()
    with in_background(lambda: engine.rollback(SLOW)) as raised:
        wait_until(lambda: backends(engine, "pg_sleep"))
        engine.database.execute(f"SELECT pg_terminate_backend({backends(engine, 'pg_sleep')[0]})")
    (err,) = raised
    assert isinstance(err, FailedUnchanged)
    assert "connection was lost" in str(err)
    assert "statement 2" in str(err)
    assert engine.state() == before


@pytest.mark.parametrize("how", ["immediate", "fast", "kill"])
def test_a_server_that_stops_in_the_middle_has_everything_when_it_is_back(
    tmp_path: Path, server: PostgresServer, how: str
) -> None:
    with PostgresServer(server.original_bin_dir, durable=True) as own:
        own.create_database("shop")
        engine = Engine(Database(own, "shop"), tmp_path)
        engine.script(SHOP)
        before = engine.state()
        with in_background(lambda: engine.rollback(SLOW)) as raised:
            wait_until(lambda: backends(engine, "pg_sleep"))
            own.kill() if how == "kill" else own.stop(how)
        own.start()
        (err,) = raised
        assert isinstance(err, FailedUnchanged)
        assert "connection was lost" in str(err)
        assert engine.state() == before
        assert engine.rollback("DROP TABLE app.lines;").committed


@pytest.fixture
def cut(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., t.ContextManager[dict[str, t.Any]]]:
    """Run through a proxy that cuts the connection at COMMIT."""
    monkeypatch.setattr(commit, "COMMIT_ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(commit, "_PAUSE_SECONDS", 0.05)

    @contextlib.contextmanager
    def make(**how: t.Any) -> Iterator[dict[str, t.Any]]:
        with TcpProxy(engine.database.server.host, engine.database.server.port, **how) as proxy:
            yield {"port": proxy.port, "sslmode": "disable"}
            assert proxy.cuts == 1

    return make


def test_a_lost_answer_to_a_commit_that_happened_is_a_success(engine: Engine, cut: t.Any) -> None:
    with cut(cut="after") as through:
        done = engine.rollback("DROP TABLE app.lines;", through=through)
    assert done.committed
    assert engine.database.execute("SELECT to_regclass('app.lines')") == [(None,)]


def test_a_lost_commit_that_did_not_happen_is_a_failure_without_change(engine: Engine, cut: t.Any) -> None:
    with cut(cut="before") as through:
        err = fails(engine, "DROP TABLE app.lines;", through=through)
    assert "was rolled back" in str(err)
    assert err.details["xid"] in str(err)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_without_a_server_to_ask_the_outcome_is_unknown(engine: Engine, cut: t.Any, moment: str) -> None:
    with cut(cut=moment, refuse_afterwards=True) as through, pytest.raises(OutcomeUnknown) as caught:
        engine.rollback("DROP TABLE app.lines;", through=through)
    xid = caught.value.details["xid"]
    assert f"SELECT pg_xact_status('{xid}')" in str(caught.value)
    (status,) = engine.database.execute(f"SELECT pg_xact_status('{xid}')")[0]
    assert status == {"before": "aborted", "after": "committed"}[moment]


KILLED = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.support.engine import Engine
arguments = dict(zip(("host", "port", "dbname", "user", "password"), sys.stdin.read().split("\\n")))
engine = Engine(SimpleNamespace(connection_arguments=lambda: arguments), Path(sys.argv[1]))
engine.execute()
"""


def test_the_server_notices_within_two_seconds_that_the_program_was_killed(engine: Engine) -> None:
    if engine.server_version < 140000:
        pytest.skip("client_connection_check_interval is there from PostgreSQL 14 on")
    before = engine.state()
    engine.migration("0001", SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(engine.folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdin is not None
    process.stdin.write("\n".join(str(value) for value in engine.database.connection_arguments().values()))
    process.stdin.close()
    wait_until(lambda: backends(engine, "pg_sleep"))
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    process.wait()
    wait_until(lambda: not backends(engine, "pg_sleep"))
    assert time.monotonic() - killed < 2
    assert engine.state() == before
    assert engine.rollback("DROP TABLE app.lines;").committed


# --- two runs --------------------------------------------------------------------------------------------------------


def test_the_second_of_two_runs_is_refused_and_names_the_first(engine: Engine) -> None:
    with in_background(
        lambda: engine.rollback("DROP TABLE app.lines;\nSELECT pg_sleep(1.5);", run_id="first-run")
    ) as raised:
        wait_until(lambda: backends(engine, "pg_sleep"))
        with pytest.raises(Refused, match=r"Another run .*cypher\.rollback first-run \(pid \d+, client .*Wait for it"):
            engine.execute()
    assert raised == []


def test_runs_in_two_databases_of_one_server_do_not_meet(engine: Engine, tmp_path: Path) -> None:
    name = engine.database.name + "_b"
    engine.database.server.create_database(name, template=engine.database.name)
    try:
        other = Engine(Database(engine.database.server, name), tmp_path)
        with in_background(lambda: engine.rollback("DROP TABLE app.lines;\nSELECT pg_sleep(1);")) as raised:
            wait_until(lambda: backends(engine, "pg_sleep"))
            assert other.execute().committed
        assert raised == []
    finally:
        engine.database.server.drop_database(name)


def test_what_was_planned_must_still_be_so(engine: Engine) -> None:
    """Another run may end between the plan and the lock."""
    engine.migration("0001", "DROP TABLE IF EXISTS app.lines;")
    plan_again = engine.request()
    planned = engine.plan()
    engine.script("DROP TABLE app.lines")
    order = execute.Order(engine.settings, planned.plan, plan_again.search_path, plan_again.limits)
    with pytest.raises(FailedUnchanged, match="0001 was applied when the rollback was planned, and is absent now"):
        execute.execute_plan(order, planning.ledger_maker(plan_again, planning.read_migrations(plan_again)))


# --- a DOWN that changes the session ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lift",
    [
        "SET lock_timeout = 0",
        "SET LOCAL lock_timeout = 0",
        "RESET lock_timeout",
        "RESET ALL",
        "SELECT set_config('lock_timeout', '0', false)",
        "DO $$ BEGIN PERFORM set_config('lock_timeout', '0', true); END $$",
        "SET statement_timeout = 0",
    ],
)
def test_a_down_cannot_lift_the_limits_of_the_run(engine: Engine, lift: str) -> None:
    with contextlib.closing(engine.session()) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM app.lines")
        err = fails(engine, f"{lift};\nDROP TABLE app.lines;", limits=Limits("300ms", "5s"))
    assert "within 300ms" in str(err)


def test_a_role_or_search_path_that_a_down_sets_ends_with_it(engine: Engine) -> None:
    engine.script(
        "DROP ROLE IF EXISTS powerless; CREATE ROLE powerless; CREATE SCHEMA other; CREATE TABLE other.t (); CREATE TABLE app.t ()"
    )
    engine.migration("0001", "DROP TABLE t;")
    engine.migration("0002", "SET search_path TO other;\nDROP TABLE t;\nSET ROLE powerless;")
    done = engine.execute(None, to_version="0", left_over="accept")
    engine.script("DROP ROLE powerless")
    assert {"table other.t", "table app.t"} <= dropped(done, cascaded=False)


def test_an_unqualified_name_means_what_the_search_path_of_the_down_makes_of_it(engine: Engine) -> None:
    engine.script("CREATE SCHEMA other; CREATE TABLE other.orders ()")
    done = engine.rollback('SET search_path = "other", public;\nDROP TABLE orders;', left_over="accept")
    assert dropped(done) == {"table other.orders"}
    assert engine.database.execute("SELECT count(*) FROM app.orders") == [(50,)]


# --- the order of the statements -------------------------------------------------------------------------------------


def test_statements_wait_for_those_that_they_depend_on(engine: Engine) -> None:
    done = engine.rollback("DROP TABLE app.orders;\nDROP TABLE app.lines;\nDROP VIEW app.order_report;")
    assert dropped(done, part_of="") == {"table app.orders", "table app.lines", "view app.order_report"}
    assert [(item.number, item.tries) for item in done.statements] == [(2, 1), (3, 1), (1, 2)]


def test_a_dependency_that_stays_names_the_statement_that_fails(engine: Engine) -> None:
    err = fails(engine, "DROP TABLE app.orders;\nDROP TABLE app.lines;")
    assert "statement 1" in str(err)
    assert "order_report" in str(err)
    assert err.details["sqlstate"] == "2BP01"


def test_a_drop_never_waits_past_a_statement_that_makes_its_name_anew(engine: Engine) -> None:
    """Otherwise it would drop what the DOWN restores."""
    engine.script("CREATE VIEW app.top AS SELECT * FROM app.order_report")
    err = fails(
        engine,
        "DROP VIEW IF EXISTS app.order_report;\nCREATE OR REPLACE VIEW app.order_report AS SELECT id, note FROM app.orders;\nDROP VIEW app.top;",
    )
    assert "statement 1" in str(err)


def test_a_drop_may_wait_past_what_makes_nothing(engine: Engine) -> None:
    engine.script(
        "DROP ROLE IF EXISTS reader_of_test; CREATE ROLE reader_of_test; GRANT SELECT ON app.orders TO reader_of_test"
    )
    done = engine.rollback("DROP ROLE reader_of_test;\nREVOKE ALL ON app.orders FROM reader_of_test;")
    assert dropped(done) == {"role reader_of_test"}


# --- what the proof finds --------------------------------------------------------------------------------------------


def test_a_check_of_the_operator_that_fails_inside_the_transaction_undoes_the_down(engine: Engine) -> None:
    checks = [
        WantedCheck("broken", "SELECT nothing", 1),
        WantedCheck("orders are there", "SELECT count(*) FROM app.orders", "51"),
        WantedCheck("orders, right", "SELECT count(*) FROM app.orders", "50"),
    ]
    err = fails(engine, "DROP TABLE app.lines;", checks=checks)
    assert "orders are there: expected 51, found 50" in str(err)
    assert "broken: expected 1, found an error" in str(err)
    assert "orders, right" not in str(err)


@pytest.mark.parametrize("query", ["SELECT 1; COMMIT", "COMMIT", "SELECT 1; SELECT 2", ""])
def test_a_check_cannot_end_the_transaction(engine: Engine, query: str) -> None:
    before = engine.state()
    with pytest.raises(Refused, match="evil"):
        engine.rollback("DROP TABLE app.lines;", checks=[WantedCheck("evil", query, 1)])
    assert engine.state() == before


def test_a_check_leaves_nothing_behind(engine: Engine) -> None:
    check = WantedCheck("writes", "DELETE FROM app.customers RETURNING 1", 1)
    engine.script("ALTER TABLE app.orders DROP CONSTRAINT orders_customer_id_fkey")
    assert engine.rollback("DROP TABLE app.lines;", checks=[check]).committed
    assert engine.database.execute("SELECT count(*) FROM app.customers") == [(10,)]


def test_what_a_down_leaves_invalid_undoes_it(engine: Engine) -> None:
    down = "ALTER TABLE app.lines DROP CONSTRAINT of_order;\nALTER TABLE app.lines ADD CONSTRAINT of_line CHECK (id > 100) NOT VALID;"
    err = fails(engine, down)
    assert "constraints are valid: expected none invalid, found of_line on app.lines" in str(err)


def test_what_was_invalid_before_is_only_reported(engine: Engine) -> None:
    engine.script("ALTER TABLE app.orders ADD CONSTRAINT later CHECK (id > 100) NOT VALID")
    done = engine.rollback("DROP TABLE app.lines;")
    assert {check.name: check.status for check in done.checks}["constraints are valid"] == "information"
    assert done.effect.invalid == ("later on app.orders",)


def test_more_rows_than_allowed_are_not_destroyed(engine: Engine) -> None:
    err = fails(engine, "DELETE FROM app.lines WHERE id > 100;", limits=Limits(max_rows_lost=99))
    assert "destroys 100 rows, and rollback_max_rows_lost allows 99" in str(err)
    assert (
        engine.rollback("DELETE FROM app.lines WHERE id > 100;", limits=Limits(max_rows_lost=100)).effect.rows_lost
        == 100
    )


def test_a_drop_with_a_trigger_that_changes_other_rows_is_undone(engine: Engine) -> None:
    engine.script(
        "CREATE FUNCTION app.sweep() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM app.customers WHERE id = 10; END $$;"
        "ALTER TABLE app.orders DROP CONSTRAINT orders_customer_id_fkey;"
        "CREATE EVENT TRIGGER sweep ON sql_drop EXECUTE FUNCTION app.sweep()"
    )
    err = fails(engine, "DROP TABLE app.lines;")
    assert "app.customers: 0 updated, 1 deleted" in str(err)


# --- size ------------------------------------------------------------------------------------------------------------


def test_five_thousand_statements_run_in_reasonable_time(engine: Engine) -> None:
    engine.script(
        "DO $$ BEGIN FOR n IN 1..2500 LOOP EXECUTE format('CREATE FUNCTION app.f%s() RETURNS int LANGUAGE sql AS ''SELECT 1''', n); END LOOP; END $$"
    )
    down = "\n".join(
        f"DROP FUNCTION app.f{n}();\nUPDATE app.lines SET id = id WHERE id = {n % 200};" for n in range(1, 2501)
    )
    started = time.monotonic()
    done = engine.rollback(down)
    assert time.monotonic() - started < 60
    assert len(done.statements) == 5000
    assert len(dropped(done)) == 2500


def test_running_out_of_locks_is_announced_before_and_explained_after(tmp_path: Path, server: PostgresServer) -> None:
    with PostgresServer(
        server.original_bin_dir, settings={"max_locks_per_transaction": 10, "max_connections": 20}
    ) as own:
        own.create_database("shop")
        engine = Engine(Database(own, "shop"), tmp_path)
        engine.script("CREATE SCHEMA app")
        with contextlib.closing(own.connect("shop", autocommit=True)) as session, session.cursor() as cursor:
            for first in range(0, 4200, 100):
                cursor.execute(
                    f"DO $$ BEGIN FOR n IN {first}..{first + 99} LOOP EXECUTE format('CREATE TABLE app.t%s (id int PRIMARY KEY, x text)', n); END LOOP; END $$"
                )
        engine.migration("0001", "DROP SCHEMA app CASCADE;")
        planned = engine.plan()
        assert any("max_locks_per_transaction" in warning for warning in planned.warnings)
        before = own.execute("SELECT count(*) FROM pg_class", "shop")
        with pytest.raises(FailedUnchanged) as caught:
            engine.execute(row_counts={})
        assert "out of shared memory" in str(caught.value)
        assert "Raise max_locks_per_transaction and restart the server" in str(caught.value)
        assert own.execute("SELECT count(*) FROM pg_class", "shop") == before


# --- preview ---------------------------------------------------------------------------------------------------------

MIXED = """
DROP VIEW app.order_report;
DROP TABLE app.lines;
DELETE FROM app.orders WHERE id > 40;
UPDATE app.customers SET name = upper(name);
ALTER TABLE app.orders DROP COLUMN note;
CREATE VIEW app.order_report AS SELECT id FROM app.orders;
DROP SEQUENCE IF EXISTS app.gone;
DROP SEQUENCE app.numbers;
"""


def test_a_preview_leaves_no_trace_and_announces_what_the_run_does(engine: Engine) -> None:
    before = engine.dump()
    preview = engine.rollback(MIXED, preview=True)
    assert not preview.committed
    assert preview.xid == ""
    assert engine.dump() == before
    run = engine.rollback(MIXED)
    assert run.committed
    assert run.xid.isdecimal()
    assert preview.effect.to_dict() == run.effect.to_dict()
    assert [check.name for check in preview.checks] == [check.name for check in run.checks]
    assert preview.locks == run.locks
    assert preview.warnings == ()


def test_a_preview_waits_a_second_for_a_lock_and_no_longer(engine: Engine) -> None:
    with contextlib.closing(engine.session("shop")) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM app.lines")
        started = time.monotonic()
        err = fails(engine, "DROP TABLE app.lines;", preview=True, limits=Limits("10min"))
        assert 0.9 < time.monotonic() - started < 5
    assert "within 1s" in str(err)


def test_a_preview_says_which_sequences_it_advanced(engine: Engine) -> None:
    engine.script("CREATE TABLE app.archive (id serial, note text)")
    down = "INSERT INTO app.archive (note) SELECT note FROM app.orders;\nSELECT setval('app.numbers', 7);"
    done = engine.rollback(down, preview=True)
    (warning,) = done.warnings
    assert "app.archive_id_seq" in warning
    assert "app.numbers" in warning


def test_the_other_sessions_are_listed(engine: Engine) -> None:
    with contextlib.closing(engine.session("shop front")) as other, other.cursor() as cursor:
        cursor.execute("SELECT 'browsing'")
        done = engine.rollback("DROP TABLE app.lines;", preview=True)
    (session,) = done.sessions
    assert session["application"] == "shop front"
    assert session["state"] == "idle in transaction"
    assert "browsing" in session["query"]


def test_the_connection_settings_of_the_run_are_not_changed_by_a_proxy_that_does_nothing(engine: Engine) -> None:
    """The proxy itself is no reason for any of the failures above."""
    with TcpProxy(engine.database.server.host, engine.database.server.port) as proxy:
        done = engine.rollback("DROP TABLE app.lines;", through={"port": proxy.port, "sslmode": "disable"})
    assert done.committed
    assert dataclasses.asdict(done)["effect"]["rows_lost"] == 200
