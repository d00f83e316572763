# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification finds what is wrong with a database after a rollback, or by itself."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.checks import WantedCheck, failed_checks
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.cypher.rollback.plugins.module_utils.verify import VerifyRequest, verify_database

from tests.support.engine import SHOP, Engine

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database

COUNTS = {"app.customers": 10, "app.lines": 200, "app.orders": 50}


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Engine:
    made = Engine(database, tmp_path)
    made.script(SHOP)
    return made


def verify(engine: Engine, **changes: t.Any) -> dict[str, tuple[str, str]]:
    """Status and what was found, by the name of the check."""
    fields: dict[str, t.Any] = {
        "settings": engine.settings,
        "search_path": ["app"],
        "critical_tables": (),
        "checks": (),
    }
    before = engine.state()
    _target, checks = verify_database(VerifyRequest(**{**fields, **changes}))
    assert engine.state() == before
    return {check.name: (check.status, check.actual) for check in checks}


def after(engine: Engine, down: str) -> dict[str, t.Any]:
    """What a rollback hands to the verification."""
    effect = engine.rollback(down).effect.to_dict()
    return {
        "dropped": effect["dropped"],
        "added": effect["added"],
        "changed_tables": effect["touched"],
        "depth": "proof",
        "invalid": effect["invalid"],
        "row_counts": COUNTS,
    }


def test_a_good_rollback_passes(engine: Engine) -> None:
    found = verify(engine, **after(engine, "DROP TABLE app.lines;\nDELETE FROM app.orders WHERE id > 40;"))
    assert {status for status, _actual in found.values()} == {"passed"}
    assert found["row counts equal the backup's"] == ("passed", "1 tables equal")


def test_a_dropped_object_that_came_back_fails(engine: Engine) -> None:
    handed = after(engine, "DROP TABLE app.lines;")
    engine.script("CREATE TABLE app.lines ()")
    assert verify(engine, **handed)["dropped objects are gone"] == ("failed", "table app.lines")


def test_what_the_down_made_again_does_not_count_as_back(engine: Engine) -> None:
    handed = after(engine, "DROP VIEW app.order_report;\nCREATE VIEW app.order_report AS SELECT 1;")
    assert verify(engine, **handed)["dropped objects are gone"][0] == "passed"


def test_row_counts_that_differ_from_the_backup_fail(engine: Engine) -> None:
    handed = after(engine, "DROP TABLE app.lines;")
    engine.script("DELETE FROM app.orders WHERE id = 1")
    found = verify(engine, **handed)["row counts equal the backup's"]
    assert found == ("failed", "app.orders: 49 instead of 50")


def test_a_table_that_vanished_fails(engine: Engine) -> None:
    handed = after(engine, "DROP TABLE app.lines;")
    engine.script("DROP TABLE app.orders CASCADE")
    assert verify(engine, **handed)["row counts equal the backup's"] == ("failed", "app.orders: missing instead of 50")


def test_partitioned_tables_are_compared_by_their_partitions(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.events (id int) PARTITION BY LIST (id); CREATE TABLE app.one PARTITION OF app.events FOR VALUES IN (1);"
        "CREATE TABLE app.two PARTITION OF app.events FOR VALUES IN (2); INSERT INTO app.events VALUES (1), (2), (2)"
    )
    counts = {**COUNTS, "app.events": 3, "app.one": 1, "app.two": 2}
    handed = {**after(engine, "DROP TABLE app.one;"), "row_counts": counts}
    assert verify(engine, **handed)["row counts equal the backup's"][0] == "passed"
    engine.script("DELETE FROM app.events")
    assert verify(engine, **handed)["row counts equal the backup's"] == ("failed", "app.two: 0 instead of 2")


INVALID = "ALTER TABLE app.orders ADD CONSTRAINT later CHECK (id > 100) NOT VALID"


def test_an_invalid_constraint_or_index_fails(engine: Engine) -> None:
    engine.script(INVALID)
    engine.script("CREATE TABLE app.twins (id int); INSERT INTO app.twins VALUES (1), (1)")
    with contextlib.suppress(Exception):
        engine.database.execute("CREATE UNIQUE INDEX CONCURRENTLY half_built ON app.twins (id)")
    found = verify(engine)
    assert found["constraints are valid"] == ("failed", "later on app.orders")
    assert found["indexes are valid"] == ("failed", "app.half_built")


def test_what_was_invalid_before_the_rollback_is_only_reported(engine: Engine) -> None:
    engine.script(INVALID)
    handed = after(engine, "DROP TABLE app.lines;")
    assert verify(engine, **handed)["constraints are valid"] == (
        "information",
        "invalid already before: later on app.orders",
    )
    engine.script(INVALID.replace("orders", "customers"))
    assert verify(engine, **handed)["constraints are valid"] == ("failed", "later on app.customers")


def test_a_constraint_that_is_not_enforced_is_not_meant_to_be_valid(engine: Engine) -> None:
    if engine.server_version < 180000:
        pytest.skip("NOT ENFORCED is there from PostgreSQL 18 on")
    engine.script("ALTER TABLE app.orders ADD CONSTRAINT never CHECK (id > 100) NOT ENFORCED")
    assert verify(engine)["constraints are valid"][0] == "passed"


def test_critical_tables_are_reported(engine: Engine) -> None:
    handed = after(engine, "DROP TABLE app.lines;")
    found = verify(
        engine,
        critical_tables=["app.orders", "app.lines", "app.never", "customers", "a.b.c.d.e", "app.order_report"],
        **handed,
    )
    assert found["critical table app.orders"] == ("information", "50 rows")
    assert found["critical table app.lines"] == ("passed", "absent")
    assert found["critical table app.never"] == ("information", "absent")
    assert found["critical table customers"] == ("information", "10 rows")
    assert found["critical table app.order_report"] == ("information", "50 rows")
    assert found["critical table a.b.c.d.e"][0] == "failed"


def test_each_check_of_the_operator_stands_alone(engine: Engine) -> None:
    checks = [
        WantedCheck("broken", "SELECT * FROM nowhere", 1),
        WantedCheck("writes", "DELETE FROM app.orders RETURNING 1", 1),
        WantedCheck("no rows", "SELECT 1 WHERE false", 1),
        WantedCheck("number", "SELECT count(*) FROM orders", "50"),
        WantedCheck("truth", "SELECT true", True),
        WantedCheck("null", "SELECT NULL", None),
        WantedCheck("wrong", "SELECT 9007199254740993", 9007199254740992),
        WantedCheck("nothing returned", "SET LOCAL work_mem = '1MB'", 1),
    ]
    request = VerifyRequest(engine.settings, ["app"], (), checks)
    _target, done = verify_database(request)
    found = {check.name: (check.status, check.actual) for check in done}
    assert found["broken"][0] == "failed"
    assert "does not exist" in found["broken"][1]
    assert found["writes"][0] == "failed"
    assert "read-only" in found["writes"][1]
    assert found["no rows"] == ("failed", "no row")
    assert found["number"] == ("passed", "50")
    assert found["truth"] == ("passed", "t")
    assert found["null"] == ("passed", "")
    assert found["wrong"][0] == "failed"
    assert found["nothing returned"][0] == "failed"
    assert len(failed_checks(done)) == 5


def test_a_locked_table_ends_the_verification_with_the_holder_named(engine: Engine) -> None:
    with contextlib.closing(engine.session("reindex")) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE app.orders IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        request = VerifyRequest(engine.settings, ["app"], ["app.orders"], (), lock_timeout="500ms")
        with pytest.raises(RollbackError, match=r"locked for 500ms.*application reindex"):
            verify_database(request)
        assert time.monotonic() - started < 5


def test_a_connection_that_breaks_is_no_result(engine: Engine) -> None:
    checks = [WantedCheck("breaks", "SELECT pg_terminate_backend(pg_backend_pid())", True)]
    with pytest.raises(RollbackError, match="The server failed while verifying the database"):
        verify_database(VerifyRequest(engine.settings, ["app"], (), checks))
