# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification finds what is wrong with a database after a rollback, or by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.checks import WantedCheck, failed_checks
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused, RollbackError
from ansible_collections.cypher.rollback.plugins.module_utils.manifest import Manifest, write
from ansible_collections.cypher.rollback.plugins.module_utils.server import Target, inspect_target
from ansible_collections.cypher.rollback.plugins.module_utils.verify import VerifyRequest, verify_database
from ansible_collections.cypher.rollback.plugins.module_utils.wanted_checks import refuse_malformed

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
    assert found["critical table app.lines"] == ("passed", "absent, a rollback dropped it")
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


def details(engine: Engine, **changes: t.Any) -> dict[str, tuple[str, ...]]:
    """What each check has in full."""
    _target, checks = verify_database(VerifyRequest(engine.settings, ["app"], (), (), **changes))
    return {check.name: check.details for check in checks}


ORPHANS = "orphans under of_order on app.lines"
KEYS = "foreign keys without orphans"


def replica(engine: Engine, statements: str) -> None:
    """Run statements that no trigger of a foreign key sees."""
    engine.script(f"SET session_replication_role = replica; {statements}")


def test_an_orphan_under_a_valid_foreign_key_fails(engine: Engine) -> None:
    assert verify(engine)[KEYS] == ("passed", "all 2")
    replica(engine, "DELETE FROM app.orders WHERE id = 7")
    found = verify(engine)
    assert found[ORPHANS] == ("failed", "4 rows of app.lines without one of app.orders, such as (7)")
    assert found[KEYS] == ("information", "1")
    assert found["constraints are valid"][0] == "passed"


def test_an_orphan_under_a_foreign_key_that_is_not_valid_fails(engine: Engine) -> None:
    engine.script(
        "ALTER TABLE app.lines DROP CONSTRAINT of_order; INSERT INTO app.lines VALUES (999, 77), (1000, NULL);"
        "ALTER TABLE app.lines ADD CONSTRAINT of_order FOREIGN KEY (order_id) REFERENCES app.orders NOT VALID"
    )
    told = "NOT VALID: 1 row of app.lines without one of app.orders, such as (77)"
    assert verify(engine)[ORPHANS] == ("failed", told)
    handed = after(engine, "DELETE FROM app.lines WHERE id = 5;")
    assert verify(engine, **handed)[ORPHANS] == ("information", f"{told}; it was NOT VALID before the rollback already")


def test_only_a_rollback_that_can_have_made_an_orphan_fails_for_it(engine: Engine) -> None:
    replica(engine, "DELETE FROM app.orders WHERE id = 7")
    old = verify(engine, **{**after(engine, "DROP VIEW app.order_report;"), "row_counts": None})
    assert old[ORPHANS][0] == "information"
    assert "older than the rollback, which changed no row of these tables" in old[ORPHANS][1]
    handed = after(engine, "SET session_replication_role = replica;\nDELETE FROM app.orders WHERE id = 8;")
    assert verify(engine, **handed)[ORPHANS][0] == "failed"


def test_keys_of_several_columns_are_read_as_match_says(engine: Engine) -> None:
    engine.script(
        'CREATE SCHEMA "Odd ""one"; CREATE TABLE "Odd ""one"."the table" ("a b" int, "B" text, PRIMARY KEY ("a b", "B"));'
        'CREATE TABLE app.simple (x int, y text, CONSTRAINT two FOREIGN KEY (x, y) REFERENCES "Odd ""one"."the table");'
        'CREATE TABLE app.whole (x int, y text, CONSTRAINT two FOREIGN KEY (x, y) REFERENCES "Odd ""one"."the table" MATCH FULL);'
        """INSERT INTO "Odd ""one"."the table" VALUES (1, 'a')"""
    )
    rows = "(1, 'a'), (NULL, NULL), (1, NULL), (NULL, 'b'), (2, 'a')"
    replica(engine, f"INSERT INTO app.simple VALUES {rows}; INSERT INTO app.whole VALUES {rows}")
    found = verify(engine)
    assert found["orphans under two on app.simple"][1].startswith(
        '1 row of app.simple without one of "Odd ""one"."the table"'
    )
    assert found["orphans under two on app.whole"][1].startswith("3 rows of app.whole")


def test_partitions_are_read_with_their_table_and_a_table_may_refer_to_itself(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.days (day int PRIMARY KEY) PARTITION BY LIST (day);"
        "CREATE TABLE app.day1 PARTITION OF app.days FOR VALUES IN (1); CREATE TABLE app.day2 PARTITION OF app.days FOR VALUES IN (2);"
        "CREATE TABLE app.events (day int CONSTRAINT of_day REFERENCES app.days, n int) PARTITION BY LIST (n);"
        "CREATE TABLE app.events1 PARTITION OF app.events FOR VALUES IN (1);"
        "CREATE TABLE app.staff (id int PRIMARY KEY, boss int CONSTRAINT of_boss REFERENCES app.staff);"
        "INSERT INTO app.days VALUES (1), (2); INSERT INTO app.events VALUES (1, 1), (2, 1); INSERT INTO app.staff VALUES (1, NULL), (2, 1)"
    )
    assert verify(engine)[KEYS] == ("passed", "all 4")
    replica(engine, "DELETE FROM app.day2; DELETE FROM app.staff WHERE id = 1")
    found = verify(engine)
    assert found["orphans under of_day on app.events"] == (
        "failed",
        "1 row of app.events without one of app.days, such as (2)",
    )
    assert found["orphans under of_boss on app.staff"][0] == "failed"
    assert found[KEYS] == ("information", "2")
    engine.script("ALTER TABLE app.events1 DISABLE TRIGGER ALL")
    assert verify(engine)["orphans under of_day on app.events"][1].startswith("disabled: 1 row")


def test_keys_of_periods_are_covered_and_those_not_enforced_are_not_meant_to_hold(engine: Engine) -> None:
    if engine.server_version < 180000:
        pytest.skip("PERIOD and NOT ENFORCED are there from PostgreSQL 18 on")
    engine.script(
        "CREATE TABLE app.rooms (id int4range, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));"
        "CREATE TABLE app.stays (room int4range, during daterange, CONSTRAINT in_room FOREIGN KEY (room, PERIOD during)"
        " REFERENCES app.rooms (id, PERIOD during));"
        "ALTER TABLE app.lines ADD CONSTRAINT loose FOREIGN KEY (id) REFERENCES app.customers NOT ENFORCED;"
        "INSERT INTO app.rooms VALUES ('[1,1]', '[2026-01-01,2026-02-01)'), ('[1,1]', '[2026-02-01,2026-03-01)');"
        "INSERT INTO app.stays VALUES ('[1,1]', '[2026-01-15,2026-02-15)')"
    )
    assert verify(engine)[KEYS] == ("passed", "all 3")
    replica(
        engine,
        "INSERT INTO app.stays VALUES ('[1,1]', '[2026-02-15,2026-03-15)'), ('[2,2]', '[2026-01-15,2026-01-16)')",
    )
    assert verify(engine)["orphans under in_room on app.stays"][1].startswith("2 rows of app.stays")


def test_what_was_not_reached_is_not_passed(engine: Engine) -> None:
    found = verify(engine, seconds=0, critical_tables=["app.orders"])
    assert found[KEYS] == ("information", "0")
    assert "not checked: of_order on app.lines (not reached within 0 s)" in found["foreign keys that were not read"][1]
    assert found["critical table app.orders"] == ("information", "not checked: not reached within 0 s")
    assert "failed" not in {status for status, _actual in found.values()}


def test_a_query_that_takes_longer_than_what_is_left_is_ended(engine: Engine) -> None:
    engine.script(
        "CREATE FUNCTION app.slow(a int, b int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN a = b; END $$;"
        "CREATE VIEW app.slow_view AS SELECT FROM app.lines WHERE app.slow(id, 1)"
    )
    started = time.monotonic()
    found = verify(engine, seconds=1, critical_tables=["app.slow_view"])
    assert found["critical table app.slow_view"] == ("information", "not checked: not finished within 1 s")
    assert time.monotonic() - started < 10


def test_a_table_that_the_role_may_not_read_is_not_passed(engine: Engine) -> None:
    role = f"reader_{engine.database.name}"
    engine.script(
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA app TO {role}; GRANT SELECT ON app.orders TO {role}"
    )
    try:
        settings = dataclasses.replace(engine.settings, user=role, password="x")
        found = verify(engine, settings=settings)
        assert found[KEYS] == ("information", "0")
        unread = found["foreign keys that were not read"][1]
        assert "of_order on app.lines (this role may not read all rows of its tables)" in unread
    finally:
        engine.script(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_sequences_behind_their_columns_fail(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.numbered (id serial PRIMARY KEY, other bigint GENERATED ALWAYS AS IDENTITY, down int, odd int);"
        "CREATE SEQUENCE app.downwards INCREMENT -1; CREATE SEQUENCE app.odds INCREMENT 2;"
        "ALTER TABLE app.numbered ALTER down SET DEFAULT nextval('app.downwards'), ALTER odd SET DEFAULT nextval('app.odds');"
        "INSERT INTO app.numbered DEFAULT VALUES; INSERT INTO app.numbered DEFAULT VALUES"
    )
    name = "sequences ahead of their columns"
    assert verify(engine)[name] == ("passed", "all 4")
    # What another node gave does not meet the sequence.
    engine.script("INSERT INTO app.numbered (odd) VALUES (100)")
    assert verify(engine)[name] == ("passed", "all 4")
    engine.script("INSERT INTO app.numbered (id, down) VALUES (50, -20); ALTER TABLE app.numbered ALTER other RESTART")
    found = verify(engine)
    assert found[name] == ("information", "1")
    assert found["sequence app.numbered_id_seq is behind app.numbered.id"] == (
        "failed",
        "its next value is 4, and 1 such value is there already, up to 50",
    )
    assert found["sequence app.downwards is behind app.numbered.down"][1].endswith("up to -20")
    assert found["sequence app.numbered_other_seq is behind app.numbered.other"][1].startswith(
        "its next value is 1, and 4"
    )
    old = verify(engine, **after(engine, "DROP TABLE app.lines;"))
    assert old["sequence app.numbered_id_seq is behind app.numbered.id"][0] == "information"
    handed = after(engine, "DELETE FROM app.numbered WHERE id = 1;")
    assert verify(engine, **handed)["sequence app.numbered_id_seq is behind app.numbered.id"][0] == "failed"


AUDIT = (
    "CREATE FUNCTION app.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
    "CREATE TRIGGER audit AFTER INSERT ON app.orders EXECUTE FUNCTION app.audit()"
)


def test_disabled_triggers_are_told_and_those_of_foreign_keys_fail(engine: Engine) -> None:
    engine.script(f"{AUDIT}; ALTER TABLE app.orders DISABLE TRIGGER audit")
    found = verify(engine)
    assert found["triggers are enabled"] == ("information", "disabled: audit on app.orders")
    assert found["foreign keys are enforced"][0] == "passed"
    engine.script("ALTER TABLE app.lines DISABLE TRIGGER ALL; INSERT INTO app.lines VALUES (999, 77)")
    found = verify(engine)
    assert found["foreign keys are enforced"][0] == "failed"
    assert "of_order on app.lines (ALTER TABLE ... ENABLE TRIGGER ALL" in found["foreign keys are enforced"][1]
    assert found[ORPHANS][1].startswith("disabled: 1 row of app.lines")
    handed = after(engine, "DELETE FROM app.lines WHERE id = 1;")
    found = verify(engine, **handed)
    assert found["foreign keys are enforced"] == ("information", "disabled already before: of_order on app.lines")
    assert found["triggers are enabled"] == ("information", "disabled already before: audit on app.orders")
    assert found[ORPHANS][1].endswith("it was disabled before the rollback already")


@pytest.mark.parametrize(("trigger", "name"), [("audit", "triggers are enabled"), ("ALL", "foreign keys are enforced")])
def test_a_down_that_leaves_triggers_disabled_is_undone(engine: Engine, trigger: str, name: str) -> None:
    engine.script(AUDIT)
    before = engine.state()
    with pytest.raises(
        FailedUnchanged, match=f"{name}: expected none disabled, found .*write ENABLE TRIGGER into the DOWN"
    ):
        engine.rollback(f"ALTER TABLE app.orders DISABLE TRIGGER {trigger};")
    assert engine.state() == before


def test_a_schema_that_must_be_there_and_is_missing_fails(engine: Engine, tmp_path: Path) -> None:
    asked: dict[str, t.Any] = {"required_schemas": ["app", "erp"]}
    told = "missing: erp; if so meant, correct rollback_required_schemas"
    assert verify(engine, **asked)["required schemas"] == ("failed", told)
    handed = after(engine, "DROP TABLE app.lines;")
    assert verify(engine, **handed, **asked)["required schemas"][0] == "information"
    handed = {**handed, "dropped": [*handed["dropped"], {"type": "schema", "identity": "erp"}]}
    assert verify(engine, **handed, **asked)["required schemas"] == (
        "information",
        "missing: erp (dropped by this rollback)",
    )
    write_report(engine, tmp_path / "runs", [{"type": "schema", "identity": "erp"}])
    found = verify(engine, **asked, run_dir=str(tmp_path / "runs"))
    assert found["required schemas"] == ("information", "missing: erp (dropped by run r1)")
    engine.script("CREATE SCHEMA erp")
    assert verify(engine, **asked)["required schemas"] == ("passed", "app, erp")


def target_of(engine: Engine) -> Target:
    """What a report and a manifest call this database."""
    with contextlib.closing(engine.database.connect()) as session:
        return inspect_target(session, engine.settings)


def write_report(engine: Engine, runs: Path, dropped: list[dict[str, str]]) -> None:
    """A run that was rolled back a moment ago."""
    target = target_of(engine).to_dict()
    (runs / "r1").mkdir(parents=True)
    report = {"run_id": "r1", "outcome": "rolled_back", "target": target, "effect": {"dropped": dropped}}
    (runs / "r1" / "report.json").write_text(
        json.dumps({**report, "finished_at": "2999-01-01T00:00:00Z"}), encoding="utf-8"
    )


QUERY = {"name": "orders of one", "query": "SELECT * FROM app.orders WHERE customer_id = 3 ORDER BY id"}


def test_the_database_is_described(engine: Engine) -> None:
    found = verify(engine, queries=[QUERY, {"name": "of a gone one", "query": "SELECT * FROM app.carts"}])
    assert found["server version"][1].startswith("PostgreSQL ")
    assert found["tables of each schema"] == ("information", "app 3, public 0")
    assert details(engine)["tables of each schema"] == ("app.customers", "app.lines", "app.orders")
    assert "Sort" in found["plan of orders of one"][1]
    assert found["plan of of a gone one"] == ("information", "asks for app.carts, which is gone")
    assert found["time of of a gone one"] == ("information", "asks for app.carts, which is gone")
    assert "nothing to compare with" in found["time of orders of one"][1]
    assert found["table statistics"][1].startswith("3 tables")
    assert "indexes never used" in found
    assert "indexes used most" in found
    proof = verify(engine, depth="proof")
    assert not {"server version", "table statistics", "plan of orders of one"} & proof.keys()


def test_a_big_table_that_is_read_whole_is_told(engine: Engine) -> None:
    engine.script("INSERT INTO app.customers SELECT n FROM generate_series(100, 30000) n; ANALYZE app.customers")
    found = verify(engine, queries=[{"name": "by name", "query": "SELECT * FROM app.customers WHERE name = 'x'"}])
    assert "READS ALL of app.customers (about 29911 rows)" in found["plan of by name"][1]


@pytest.fixture
def backed_up(engine: Engine, tmp_path: Path) -> Path:
    """The folder of a backup of the shop, whose query was quick then."""
    manifest = Manifest(
        id="backup_before_migration_0007_20260101_020000", kind="before_migration", version="0007", database=engine.database.name,
        system_identifier=target_of(engine).system_identifier, server_version="15", created_at="2026-01-01T02:00:00Z", files=(),
        tables={name: {"rows": rows} for name, rows in COUNTS.items()},
        baseline=({**SLOW, "seconds": [0.001, 0.001, 0.0011], "median": 0.001, "error": ""},),
    )  # fmt: skip
    folder = tmp_path / "backups" / manifest.id
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    write(str(folder), manifest)
    return tmp_path / "backups"


SLOW = {"name": "slow", "query": "SELECT pg_sleep(0.05)"}
SINCE = "row counts since the newest backup"


def test_rows_are_compared_with_the_newest_backup(engine: Engine, backed_up: Path, tmp_path: Path) -> None:
    asked: dict[str, t.Any] = {
        "backup_dir": str(backed_up),
        "critical_tables": ["app.orders", "customers"],
        "search_path": ["app"],
    }
    assert verify(engine, **asked)[SINCE][1].endswith("old: 3 equal")
    engine.script("DELETE FROM app.lines; INSERT INTO app.customers VALUES (500)")
    found = verify(engine, **asked)
    assert found[SINCE][1].endswith("1 equal, 1 fell, 1 grew (app.lines: 200, now 0, app.customers: 10, now 11)")
    assert "failed" not in {status for status, _actual in found.values()}
    engine.script("TRUNCATE app.orders CASCADE; DROP TABLE app.customers CASCADE")
    found = verify(engine, **asked)
    assert found["rows of critical table app.orders"] == ("failed", "empty")
    assert found["rows of critical table customers"][0] == "failed"
    assert "no run of this collection dropped it" in found["rows of critical table customers"][1]
    write_report(engine, tmp_path / "runs", [{"type": "table", "identity": "app.customers"}])
    found = verify(engine, **asked, run_dir=str(tmp_path / "runs"))
    assert "rows of critical table customers" not in found
    assert "1 dropped by rollbacks" in found[SINCE][1]
    nothing = verify(engine, backup_dir=str(tmp_path / "none"))
    assert nothing[SINCE][1].startswith("not checked: there is no backup of this database")


def test_a_query_that_became_slow_fails(engine: Engine, backed_up: Path) -> None:
    found = verify(engine, backup_dir=str(backed_up), queries=[SLOW])
    assert found["time of slow"][0] == "failed"
    assert re.search(r"^\d+(\.\d+)? ms \(\+\d+(\.\d)? %\)$", found["time of slow"][1])


def test_a_check_cannot_end_the_read_only_transaction_and_write(engine: Engine) -> None:
    check = WantedCheck("sly", "SELECT 1; COMMIT; DELETE FROM app.lines", 1)
    with contextlib.suppress(RollbackError):
        verify(engine, checks=[check])
    assert engine.database.execute("SELECT count(*) FROM app.lines") == [(200,)]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT count(* FROM x", "syntax error"),
        ("SELECT 1; SELECT 2", "it has 2 statements, and a check is one query"),
        ("  ", "its query is empty"),
        ("COMMIT", "COMMIT"),
    ],
)
def test_a_malformed_check_is_refused_by_its_name(query: str, why: str) -> None:
    with pytest.raises(Refused, match="The check 'mine' of rollback_verify_checks cannot be run: ") as caught:
        refuse_malformed([WantedCheck("fine", "SELECT 1", 1), WantedCheck("mine", query, 1)])
    assert why in str(caught.value)
    assert "Nothing was stopped or changed." in str(caught.value)
