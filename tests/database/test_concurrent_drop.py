# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An index is dropped while others work on its table, and where that is cut short, the next run goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import concurrent_drop, execute, planning
from ansible_collections.cypher.rollback.plugins.module_utils.checks import WantedCheck
from ansible_collections.cypher.rollback.plugins.module_utils.errors import (
    FailedUnchanged,
    NeedsAttention,
    OutcomeUnknown,
    Refused,
)
from ansible_collections.cypher.rollback.plugins.module_utils.execute import Limits
from ansible_collections.cypher.rollback.plugins.module_utils.index_use import use_of
from ansible_collections.cypher.rollback.plugins.module_utils.wanted_object import wanted_object

from tests.support.engine import SHOP, Engine, dropped
from tests.support.runbook import wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ansible_collections.cypher.rollback.plugins.module_utils.execute import Execution, Order

    from tests.conftest import Database

MARKED = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('app.idx_x')"


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Engine:
    made = Engine(database, tmp_path)
    made.script(f"{SHOP}CREATE INDEX idx_x ON app.orders (note)")
    return made


def request(engine: Engine, index_drop: str = "concurrently", limits: Limits | None = None) -> planning.PlanRequest:
    wish = wanted_object({"object": {"index": "app.idx_x", "index_drop": index_drop}})
    return engine.request(None, object=wish, limits=limits or Limits())


def order_of(wanted: planning.PlanRequest, checks: t.Sequence[WantedCheck] = ()) -> Order:
    planned = planning.plan_rollback(wanted)
    return execute.Order(wanted.settings, planned.plan, wanted.search_path, wanted.limits, checks, run_id="concurrent")


def drop(engine: Engine, limits: Limits | None = None, **settings: t.Any) -> Execution:
    wanted = request(engine, limits=limits)
    order = order_of(wanted)
    return concurrent_drop.drop_concurrently(
        dataclasses.replace(order, settings=dataclasses.replace(order.settings, **settings))
    )


def valid(engine: Engine) -> list[bool]:
    """Whether the index is valid; nothing where it is gone."""
    return [row[0] for row in engine.database.execute(MARKED)]


@contextlib.contextmanager
def writer(engine: Engine) -> Iterator[list[int]]:
    """Writes to the table all the time, in short transactions; the block sees how many there were."""
    stop, written = threading.Event(), [0]

    def write() -> None:
        with contextlib.closing(engine.session("erp")) as session, session.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("UPDATE app.orders SET note = note || 'x' WHERE id = %s", (1 + written[0] % 50,))
                session.commit()
                written[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until(lambda: written[0] > 5)
        yield written
    finally:
        stop.set()
        thread.join(10)


def test_an_index_goes_under_a_running_writer_that_is_never_kept_waiting(engine: Engine) -> None:
    with writer(engine) as written:
        before = written[0]
        done = drop(engine)
        assert written[0] > before
    assert done.committed
    assert dropped(done) == {"index app.idx_x"}
    assert [item.kind for item in done.statements] == ["DROP INDEX CONCURRENTLY"]
    assert all(check.status != "failed" for check in done.checks)
    assert (done.effect.rows_lost, done.effect.changed, done.effect.added) == (0, (), ())
    assert valid(engine) == []


def test_what_others_make_and_drop_meanwhile_is_not_the_effect_of_the_run(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = concurrent_drop._Drop._drop

    def beside(self: t.Any) -> float:
        engine.script(
            "DROP TABLE app.lines; CREATE TABLE app.reports (id int); ALTER TABLE app.customers ADD COLUMN x int"
        )
        return own(self)

    monkeypatch.setattr(concurrent_drop._Drop, "_drop", beside)
    done = drop(engine)
    assert dropped(done) == {"index app.idx_x"}
    assert (done.effect.changed, done.effect.added) == ((), ())


def test_auto_takes_the_way_that_fits_what_the_table_does(engine: Engine) -> None:
    quiet = planning.plan_rollback(request(engine, "auto")).plan.object
    assert quiet is not None
    assert (quiet.concurrently, quiet.why) == (False, "Nobody was seen to use its table.")
    with contextlib.closing(engine.session("report")) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM app.orders")
        held = planning.plan_rollback(request(engine, "auto")).plan
    assert held.object is not None
    assert (held.object.concurrently, held.object.why) == (True, "1 other session holds a lock on its table.")
    assert held.object.statement == "DROP INDEX CONCURRENTLY app.idx_x"
    assert held.object.asked == {"index": "app.idx_x", "cascade": False, "index_drop": "concurrently"}
    for part in (
        "The application is NOT stopped",
        "dropped concurrently",
        "A preview drops it in a transaction that is undone",
    ):
        assert part in held.message
    with writer(engine):
        busy = planning.plan_rollback(request(engine, "auto")).plan.object
    assert busy is not None
    assert busy.concurrently
    assert "its table" in busy.why.lower()


def test_the_statistics_alone_show_that_a_table_is_used(engine: Engine) -> None:
    stop = threading.Event()

    def read() -> None:
        with contextlib.closing(engine.session("erp")) as session:
            session.autocommit = True
            with session.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("SELECT count(*) FROM app.customers")
                    time.sleep(0.3)  # between two looks at the locks, there is nearly never one to be seen

    thread = threading.Thread(target=read)
    thread.start()
    try:
        with contextlib.closing(engine.database.connect(application_name="cypher.rollback plan")) as session:
            (oid,) = engine.database.execute("SELECT 'app.customers'::regclass::oid::int8")[0]
            with session.cursor() as cursor:
                assert "its table" in wait_until(lambda: use_of(cursor, oid), 15)
    finally:
        stop.set()
        thread.join(10)


def test_the_preview_drops_it_in_a_transaction_that_is_undone(engine: Engine) -> None:
    before = engine.state()
    wanted = request(engine)
    done = execute.execute_plan(dataclasses.replace(order_of(wanted), preview=True), planning.ledger_maker(wanted, []))
    assert not done.committed
    assert dropped(done) == {"index app.idx_x"}
    assert engine.state() == before


def test_an_open_transaction_is_waited_for_before_the_index_is_touched_and_then_named(engine: Engine) -> None:
    with contextlib.closing(engine.session("nightly")) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM app.orders")
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchall()[0]
        with pytest.raises(FailedUnchanged) as caught:
            drop(engine, Limits("400ms"))
        for part in ("was not touched", "within 400ms", "application nightly", f"SELECT pg_terminate_backend({pid})",
                     "The database is as it was", "rollback_lock_timeout"):  # fmt: skip
            assert part in str(caught.value)
    assert valid(engine) == [True]


def test_a_transaction_that_ends_in_time_is_waited_for(engine: Engine) -> None:
    with contextlib.closing(engine.session("short")) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM app.orders")
        timer = threading.Timer(0.5, holder.rollback)
        timer.start()
        assert drop(engine, Limits("20s")).committed
        timer.join()


def hold_from_the_drop_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> contextlib.ExitStack:
    """Somebody begins to read between the look for open transactions and the drop, and does not end."""
    stack = contextlib.ExitStack()
    own = concurrent_drop._Drop._drop

    def late(self: t.Any) -> float:
        holder = stack.enter_context(contextlib.closing(engine.session("late report")))
        holder.cursor().execute("SELECT count(*) FROM app.orders")
        return own(self)

    monkeypatch.setattr(concurrent_drop._Drop, "_drop", late)
    return stack


def test_a_drop_that_gives_up_in_the_middle_says_that_the_index_is_invalid_and_the_next_one_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold_from_the_drop_on(engine, monkeypatch):
        with pytest.raises(NeedsAttention) as caught:
            drop(engine, Limits("500ms"))
    for part in ("did not reach its end", "app.idx_x is there and INVALID", "lock timeout", "application late report",
                 "rollback_lock_timeout", "Running the same command again finishes the drop"):  # fmt: skip
        assert part in str(caught.value)
    assert caught.value.details["half_dropped"] == "app.idx_x"
    assert valid(engine) == [False]
    monkeypatch.undo()
    wanted = request(engine)
    assert any("is not valid" in warning for warning in planning.plan_rollback(wanted).warnings)
    assert drop(engine).committed
    assert valid(engine) == []
    assert planning.plan_rollback(wanted).plan.scripts == ()


def test_a_statement_timeout_names_its_setting(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_from_the_drop_on(engine, monkeypatch):
        with pytest.raises(NeedsAttention, match="rollback_statement_timeout"):
            drop(engine, Limits("30s", "700ms"))


def test_a_killed_run_leaves_an_invalid_index_and_the_next_run_finishes(engine: Engine) -> None:
    order = order_of(request(engine, limits=Limits("60s")))
    fork = multiprocessing.get_context("fork")
    looked, go_on = fork.Event(), fork.Event()

    def die() -> None:
        own = concurrent_drop._Drop._drop

        def late(self: t.Any) -> float:
            looked.set()
            go_on.wait(30)
            return own(self)

        concurrent_drop._Drop._drop = late  # so that it comes too late
        concurrent_drop.drop_concurrently(order)

    process = fork.Process(target=die)
    process.start()
    assert looked.wait(30)
    with contextlib.closing(engine.session("reader")) as reader:
        reader.cursor().execute("SELECT count(*) FROM app.orders")
        go_on.set()
        wait_until(lambda: valid(engine) == [False], 20)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(10)
        mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cypher.rollback concurrent'"
        if engine.server_version >= 140000:
            wait_until(lambda: engine.database.execute(mine) == [(0,)], 20)
            assert valid(engine) == [False]
    wait_until(lambda: engine.database.execute(mine) == [(0,)], 20)
    if valid(engine):
        assert drop(engine).committed
    assert valid(engine) == []


def test_a_lost_connection_is_followed_up_until_the_server_says_what_became_of_the_index(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold_from_the_drop_on(engine, monkeypatch):
        killer = threading.Thread(target=_terminate_when_marked, args=(engine,))
        killer.start()
        with pytest.raises(NeedsAttention, match="INVALID"):
            drop(engine, Limits("30s"))
        killer.join(10)
    monkeypatch.undo()
    assert drop(engine).committed


def _terminate_when_marked(engine: Engine) -> None:
    wait_until(lambda: valid(engine) == [False], 20)
    engine.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cypher.rollback concurrent'"
    )


def test_a_server_that_does_not_answer_leaves_the_outcome_unknown(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrent_drop, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(concurrent_drop._Drop, "_ask", lambda _self: "")
    with hold_from_the_drop_on(engine, monkeypatch):
        with pytest.raises(OutcomeUnknown) as caught:
            drop(engine, Limits("300ms"))
    assert "SELECT indisvalid FROM pg_index WHERE indexrelid =" in str(caught.value)
    assert "no row: it is dropped" in str(caught.value)


def test_a_statement_that_fails_at_once_leaves_the_index_valid(engine: Engine) -> None:
    wanted = request(engine)
    order = order_of(wanted)
    about = order.plan.object
    assert about is not None
    broken = dataclasses.replace(about, statement="DROP INDEX CONCURRENTLY app.idx_x CASCADE")
    with pytest.raises(FailedUnchanged) as caught:
        concurrent_drop.drop_concurrently(
            dataclasses.replace(order, plan=dataclasses.replace(order.plan, object=broken))
        )
    assert "was not dropped" in str(caught.value)
    assert "The index is valid, and the database is as it was. Run again." in str(caught.value)


def test_another_run_at_work_is_refused_and_another_index_too(engine: Engine) -> None:
    order = order_of(request(engine))
    with contextlib.closing(engine.session("cypher.rollback other")) as other, other.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, oid::int8::bit(32)::int4) FROM pg_database WHERE datname = current_database()",
            (execute.LOCK_KEY,),
        )
        with pytest.raises(Refused, match=r"Another run is changing this database: cypher\.rollback other"):
            concurrent_drop.drop_concurrently(order)
    engine.script("DROP INDEX app.idx_x; CREATE INDEX idx_x ON app.orders (id)")
    with pytest.raises(FailedUnchanged, match="is not the one that was planned"):
        concurrent_drop.drop_concurrently(order)


def test_a_check_that_fails_afterwards_needs_attention_because_nothing_can_be_undone(engine: Engine) -> None:
    order = order_of(request(engine), [WantedCheck("orders", "SELECT count(*) FROM app.orders", 51)])
    with pytest.raises(NeedsAttention) as caught:
        concurrent_drop.drop_concurrently(order)
    assert "was dropped, but the result is not right: orders: expected 51, found 50" in str(caught.value)
    assert caught.value.details["committed"] is True
    assert caught.value.details["effect"]["dropped"][0]["identity"] == "app.idx_x"
    assert valid(engine) == []


def test_an_index_that_is_gone_when_its_turn_comes_is_what_was_asked_for(engine: Engine) -> None:
    wanted = request(engine)
    digest = order_of(wanted).plan.digest
    assert concurrent_drop.gone_already(wanted, "") is None
    assert concurrent_drop.gone_already(request(engine, "transaction"), digest) is None
    done = concurrent_drop.gone_already(wanted, digest)
    assert done is not None
    assert done.committed
    assert dropped(done) == {"index app.idx_x"}
    assert "was gone before it was dropped here" in done.warnings[0]
