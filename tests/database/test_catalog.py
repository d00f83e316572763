# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DOWN did, as the engine proves it, against what the database says: every kind of object, by every kind of name."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import catalog, connection, names
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.sql import parse_script

from tests.cypher_erp import data, migrate
from tests.support.engine import SHOP, Engine, dropped

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Engine:
    made = Engine(database, tmp_path)
    made.script(SHOP)
    return made


def row_changes(done: t.Any) -> dict[str, tuple[int, int, int]]:
    return {change.table: (change.inserted, change.updated, change.deleted) for change in done.effect.row_changes}


# --- rows ------------------------------------------------------------------------------------------------------------


def test_cascade_is_told_from_what_the_down_names(engine: Engine) -> None:
    done = engine.rollback("DROP TABLE app.orders CASCADE;")
    assert dropped(done, cascaded=False, part_of="") == {"table app.orders"}
    assert dropped(done, cascaded=True) == {"view app.order_report", "table constraint of_order on app.lines"}
    assert dropped(done, part_of="app.orders") >= {"table constraint orders_customer_id_fkey on app.orders"}
    (table,) = [item for item in done.effect.dropped if item.type == "table"]
    assert table.rows == 50
    assert done.effect.rows_lost == 50
    assert done.effect.row_changes == ()
    assert done.effect.touched == ()
    locked = {lock["relation"]: lock["mode"] for lock in done.locks}
    assert locked["app.lines"] == "AccessExclusiveLock"


def test_rows_of_a_partitioned_table_count_once(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.events (id int, day int) PARTITION BY RANGE (day);"
        "CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id);"
        "CREATE TABLE app.events_1_x PARTITION OF app.events_1 DEFAULT;"
        "CREATE TABLE app.events_2 PARTITION OF app.events FOR VALUES FROM (10) TO (20);"
        "INSERT INTO app.events SELECT n, n % 20 FROM generate_series(1, 100) n"
    )
    done = engine.rollback("DROP TABLE app.events;")
    assert done.effect.rows_lost == 100
    rows = {item.identity: item.rows for item in done.effect.dropped if item.type == "table"}
    assert rows == {"app.events": 100, "app.events_1": 50, "app.events_1_x": 50, "app.events_2": 50}
    assert dropped(done, cascaded=True) == set()


def test_rows_of_inheriting_tables_are_their_own(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.parent (id int); CREATE TABLE app.child () INHERITS (app.parent);"
        "INSERT INTO app.parent VALUES (1), (2); INSERT INTO app.child VALUES (3), (4), (5)"
    )
    done = engine.rollback("DROP TABLE app.parent CASCADE;")
    assert {item.identity: (item.rows, item.cascaded) for item in done.effect.dropped} == {
        "app.parent": (2, False),
        "app.child": (3, True),
    }
    assert done.effect.rows_lost == 5


def test_a_column_takes_what_is_built_on_it_along(engine: Engine) -> None:
    engine.script("CREATE INDEX by_note ON app.orders (note)")
    done = engine.rollback("ALTER TABLE app.orders DROP COLUMN note CASCADE;")
    assert dropped(done, cascaded=False, part_of="") == {"table column app.orders.note"}
    assert dropped(done, part_of="app.orders.note") == {"index app.by_note"}
    assert dropped(done, cascaded=True) == {"view app.order_report"}
    assert done.effect.rows_lost == 0
    assert next(item.rows for item in done.effect.dropped if item.type == "table column") == 50


def test_rows_that_statements_change_are_counted(engine: Engine) -> None:
    done = engine.rollback(
        "DELETE FROM app.lines WHERE id <= 30;\nUPDATE app.orders SET note = 'x' WHERE id <= 7;\n"
        "INSERT INTO app.customers SELECT n, 'new' FROM generate_series(11, 15) n;"
    )
    assert row_changes(done) == {"app.lines": (0, 0, 30), "app.orders": (0, 7, 0), "app.customers": (5, 0, 0)}
    assert done.effect.rows_lost == 30
    assert set(done.effect.touched) == {"app.lines", "app.orders", "app.customers"}


def test_rows_that_truncate_removes_are_counted(engine: Engine) -> None:
    engine.script("CREATE TABLE app.log (id int); INSERT INTO app.log SELECT generate_series(1, 40)")
    done = engine.rollback(
        "DELETE FROM app.log WHERE id <= 5;\nTRUNCATE app.log, app.lines;\nINSERT INTO app.log VALUES (1), (2);"
    )
    assert row_changes(done)["app.lines"] == (0, 0, 200)
    assert row_changes(done)["app.log"] == (2, 0, 40)
    assert done.effect.rows_lost == 240


def test_a_rewritten_table_lost_no_rows(engine: Engine) -> None:
    done = engine.rollback("ALTER TABLE app.lines ALTER COLUMN id TYPE bigint;")
    assert done.effect.row_changes == ()
    assert done.effect.rows_lost == 0
    assert ("table column", "app.lines.id") in {(item["type"], item["identity"]) for item in done.effect.changed}


def test_rows_are_counted_where_the_server_does_not_count(engine: Engine) -> None:
    engine.script(f'ALTER DATABASE "{engine.database.name}" SET track_counts = off')
    done = engine.rollback("DELETE FROM app.lines WHERE id <= 30;")
    assert row_changes(done) == {"app.lines": (0, 0, 30)}
    assert done.effect.touched == ("app.lines",)


def test_rows_that_row_security_hides_are_not_counted_wrongly(engine: Engine) -> None:
    role = f"owner_{engine.database.name}"
    engine.script(
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT CREATE ON SCHEMA app TO {role}; GRANT USAGE ON SCHEMA app TO {role};"
        f"CREATE TABLE app.mine (id int); INSERT INTO app.mine SELECT generate_series(1, 10); ALTER TABLE app.mine OWNER TO {role};"
        "ALTER TABLE app.mine ENABLE ROW LEVEL SECURITY; ALTER TABLE app.mine FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY few ON app.mine USING (id < 3)"
    )
    engine.settings = dataclasses.replace(engine.settings, user=role, password="p")
    try:
        done = engine.rollback("DROP TABLE app.mine;", preview=True)
        assert next(item.rows for item in done.effect.dropped if item.type == "table") is None
        assert done.effect.uncounted == ("app.mine",)
        with pytest.raises(Refused, match=r"app\.mine cannot be counted"):
            engine.plan(limits=dataclasses.replace(engine.request().limits, max_rows_lost=100))
        with pytest.raises(FailedUnchanged, match=r"rows of app\.mine could not be counted"):
            engine.execute(limits=dataclasses.replace(engine.request().limits, max_rows_lost=100))
    finally:
        engine.script(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- kinds -----------------------------------------------------------------------------------------------------------

KINDS = {
    "overloaded function, only the named one": (
        "CREATE FUNCTION app.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION app.f(text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION app.f(int);",
        {"function app.f(integer)"},
        set(),
    ),
    "functions without schema, one with default arguments": (
        "CREATE FUNCTION app.g(a int, b text DEFAULT 'x', OUT c int) LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION IF EXISTS g(integer, TEXT);",
        {"function app.g(integer,pg_catalog.text)"},
        set(),
    ),
    "procedure": (
        "CREATE PROCEDURE app.p() LANGUAGE sql AS 'SELECT 1'",
        "DROP PROCEDURE app.p;",
        {"procedure app.p()"},
        set(),
    ),
    "aggregate": (
        "CREATE AGGREGATE app.total(int) (SFUNC = int4pl, STYPE = int)",
        "DROP AGGREGATE app.total(int);",
        {"aggregate app.total(integer)"},
        set(),
    ),
    "routine": (
        "CREATE FUNCTION app.r() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP ROUTINE app.r;",
        {"function app.r()"},
        set(),
    ),
    "type with columns of that type": (
        "CREATE TYPE app.mood AS ENUM ('ok'); ALTER TABLE app.lines ADD mood app.mood; CREATE FUNCTION app.m(app.mood) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP TYPE app.mood CASCADE;",
        {"type app.mood"},
        {"table column app.lines.mood", "function app.m(app.mood)"},
    ),
    "domain": ("CREATE DOMAIN app.plus AS int CHECK (VALUE > 0)", "DROP DOMAIN app.plus;", {"type app.plus"}, set()),
    "constraint of a domain": (
        "CREATE DOMAIN app.plus AS int CONSTRAINT big CHECK (VALUE > 9)",
        "ALTER DOMAIN app.plus DROP CONSTRAINT big;",
        {"domain constraint big on app.plus"},
        set(),
    ),
    "composite type": ("CREATE TYPE app.pair AS (a int, b int)", "DROP TYPE app.pair;", {"type app.pair"}, set()),
    "attribute of a type": (
        "CREATE TYPE app.pair AS (a int, b int)",
        "ALTER TYPE app.pair DROP ATTRIBUTE a;",
        {"table column app.pair.a"},
        set(),
    ),
    "range type": ("CREATE TYPE app.span AS RANGE (subtype = int)", "DROP TYPE app.span;", {"type app.span"}, set()),
    "materialized view": (
        "CREATE MATERIALIZED VIEW app.m AS SELECT count(*) FROM app.orders; CREATE UNIQUE INDEX on_m ON app.m (count)",
        "DROP MATERIALIZED VIEW app.m;",
        {"materialized view app.m"},
        set(),
    ),
    "trigger": (
        (
            "CREATE TRIGGER t BEFORE UPDATE ON app.lines FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();"
            "CREATE TRIGGER t BEFORE UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        "DROP TRIGGER t ON app.lines;",
        {"trigger t on app.lines"},
        set(),
    ),
    "trigger that goes with its function": (
        (
            "CREATE FUNCTION app.tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER t BEFORE UPDATE ON app.lines FOR EACH ROW EXECUTE FUNCTION app.tf()"
        ),
        "DROP FUNCTION app.tf() CASCADE;",
        {"function app.tf()"},
        {"trigger t on app.lines"},
    ),
    "policy": ("CREATE POLICY p ON app.lines", "DROP POLICY p ON app.lines;", {"policy p on app.lines"}, set()),
    "rule": (
        "CREATE RULE r AS ON INSERT TO app.lines DO NOTHING",
        "DROP RULE r ON app.lines;",
        {"rule r on app.lines"},
        set(),
    ),
    "constraint": (
        "SELECT 1",
        "ALTER TABLE app.lines DROP CONSTRAINT of_order;",
        {"table constraint of_order on app.lines"},
        set(),
    ),
    "sequence that a default uses": (
        "ALTER TABLE app.lines ALTER id SET DEFAULT nextval('app.numbers')",
        "DROP SEQUENCE app.numbers CASCADE;",
        {"sequence app.numbers"},
        {"default value for app.lines.id"},
    ),
    "index": ("CREATE INDEX i ON app.lines (order_id)", "DROP INDEX i;", {"index app.i"}, set()),
    "event trigger": (
        (
            "CREATE FUNCTION app.et() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
            "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION app.et()"
        ),
        "DROP EVENT TRIGGER watch;",
        {"event trigger watch"},
        set(),
    ),
    "extension": ("CREATE EXTENSION IF NOT EXISTS plpgsql", "DROP EXTENSION plpgsql;", {"extension plpgsql"}, set()),
    "publication": ("CREATE PUBLICATION p FOR TABLE app.lines", "DROP PUBLICATION p;", {"publication p"}, set()),
    "operator": (
        "CREATE OPERATOR app.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR app.=== (int, int);",
        {"operator app.===(integer,integer)"},
        set(),
    ),
    "cast": (
        "CREATE TYPE app.x AS (a int); CREATE TYPE app.y AS (a int); CREATE CAST (app.x AS app.y) WITH INOUT",
        "DROP CAST (app.x AS app.y);",
        {"cast (app.x AS app.y)"},
        set(),
    ),
    "statistics": (
        "CREATE STATISTICS app.s ON id, order_id FROM app.lines",
        "DROP STATISTICS app.s;",
        {"statistics object app.s"},
        set(),
    ),
    "foreign data": (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER sv FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE app.ft (a int) SERVER sv",
        "DROP SERVER sv CASCADE;\nDROP FOREIGN DATA WRAPPER w;",
        {"server sv", "foreign-data wrapper w"},
        {"foreign table app.ft"},
    ),
    "schema": (
        "CREATE SCHEMA old; CREATE TABLE old.t (); CREATE VIEW app.on_old AS SELECT FROM old.t",
        "DROP SCHEMA old CASCADE;",
        {"schema old"},
        {"table old.t", "view app.on_old"},
    ),
    "names with quotes, blanks, percent and words of SQL": (
        (
            'CREATE SCHEMA "My ""Schema"" 100%"; CREATE TABLE "My ""Schema"" 100%"."order" ("user" int, "a.b" int);'
            'CREATE TABLE "My ""Schema"" 100%"."Țară nouă" (); CREATE FUNCTION "My ""Schema"" 100%"."select"("char") RETURNS int LANGUAGE sql AS \'SELECT 1\''
        ),
        (
            'ALTER TABLE "My ""Schema"" 100%"."order" DROP COLUMN "user", DROP COLUMN "a.b";\nDROP TABLE "My ""Schema"" 100%"."Țară nouă";\n'
            'DROP FUNCTION "My ""Schema"" 100%"."select"("char");'
        ),
        {
            'table column "My ""Schema"" 100%"."order"."user"',
            'table column "My ""Schema"" 100%"."order"."a.b"',
            'table "My ""Schema"" 100%"."Țară nouă"',
            'function "My ""Schema"" 100%"."select"(pg_catalog."char")',
        },
        set(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_applied_dropped_and_absent(engine: Engine, kind: str) -> None:
    create, down, named, cascaded = KINDS[kind]
    engine.script(create)
    before = engine.dump()
    preview = engine.rollback(down, preview=True)
    assert engine.dump() == before
    planned = engine.plan()
    if kind not in ("operator", "cast"):
        assert planned.plan.states[0].state == "applied"
    done = engine.execute()
    assert dropped(done, cascaded=False, part_of="") == named
    # The default of a column is no object of its own here: its column is changed.
    changed = {
        f"default value for {item['identity']}" for item in done.effect.changed if item["type"] == "table column"
    }
    assert dropped(done, cascaded=True) | (changed & cascaded) == cascaded
    assert done.effect.left_over == ()
    assert done.effect.skipped == ()
    assert done.effect.to_dict() == preview.effect.to_dict()
    if kind not in ("operator", "cast"):
        assert engine.plan().plan.scripts == ()


def test_what_the_down_makes_again_is_not_left_over(engine: Engine) -> None:
    engine.script("CREATE FUNCTION app.tax(int) RETURNS int LANGUAGE sql AS 'SELECT 2'")
    down = (
        "DROP VIEW app.order_report;\nCREATE VIEW app.order_report AS SELECT id FROM app.orders;\n"
        "DROP FUNCTION app.tax(int);\nCREATE FUNCTION app.tax(int) RETURNS int LANGUAGE sql AS 'SELECT 1';\nDROP TABLE app.lines;"
    )
    done = engine.rollback(down)
    assert done.effect.left_over == ()
    assert {(item["type"], item["identity"]) for item in done.effect.added} == {
        ("view", "app.order_report"),
        ("function", "app.tax(integer)"),
    }
    # They are there again, so they do not tell that the migration is applied.
    assert engine.plan().plan.scripts == ()


def test_what_if_exists_passed_over_is_listed_with_where_it_is(engine: Engine) -> None:
    engine.script("CREATE SCHEMA other; CREATE VIEW other.nowhere AS SELECT 1")
    done = engine.rollback(
        "DROP TABLE IF EXISTS app.lines, app.never;\nDROP VIEW IF EXISTS nowhere;\n"
        "CREATE FUNCTION app.tmp() RETURNS int LANGUAGE sql AS 'SELECT 1';\nDROP FUNCTION app.tmp();",
        left_over="accept",
    )
    assert [(item["type"], item["identity"], item["elsewhere"]) for item in done.effect.skipped] == [
        ("table", "app.never", []),
        ("view", "nowhere", ["other.nowhere"]),
    ]
    assert [item["identity"] for item in done.effect.left_over] == ["other.nowhere"]


def test_a_definition_does_not_change_because_a_schema_of_the_path_goes(engine: Engine) -> None:
    """PostgreSQL writes names as short as the search path allows."""
    engine.script(
        "CREATE SCHEMA front; CREATE TABLE front.customers (); CREATE VIEW public.v AS SELECT name FROM app.customers"
    )
    done = engine.rollback("DROP SCHEMA front CASCADE;", search_path=("front", "app", "public"))
    assert done.effect.changed == ()


def test_what_changed_is_told(engine: Engine) -> None:
    done = engine.rollback(
        "ALTER TABLE app.orders ALTER COLUMN note SET DEFAULT 'x';\nALTER TABLE app.lines RENAME TO rows;\n"
        "GRANT SELECT ON app.customers TO PUBLIC;\nALTER SEQUENCE app.numbers INCREMENT 5;\nALTER TABLE app.orders ADD COLUMN extra int;"
    )
    changed = {(item["type"], item["identity"]) for item in done.effect.changed}
    assert changed >= {
        ("table column", "app.orders.note"),
        ("table", "app.lines"),
        ("table", "app.customers"),
        ("sequence", "app.numbers"),
        ("table column", "app.orders.extra"),
    }
    assert done.effect.dropped == ()


def test_a_snapshot_leaves_the_session_as_it_was(engine: Engine) -> None:
    with (
        contextlib.closing(connection.connect(engine.settings, search_path=("app", 'we"ird'))) as session,
        session.cursor() as cursor,
    ):
        cursor.execute("SHOW search_path")
        before = cursor.fetchall()
        found = catalog.snapshot(cursor)
        cursor.execute("SHOW search_path")
        assert cursor.fetchall() == before
        assert not catalog.compare(found, catalog.snapshot(cursor))


def test_objects_of_extensions_and_of_the_system_are_left_out(engine: Engine) -> None:
    with contextlib.closing(engine.session()) as session, session.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE mine (a int); CREATE TABLE app.toasted (a text)")
        found = {
            item.identity for item in catalog.snapshot(cursor) if item.catalog in ("pg_class", "pg_proc", "pg_language")
        }
    assert {identity.split(".")[0] for identity in found} == {"app"}


def test_every_name_of_the_erp_means_the_object_that_the_server_finds(database: Database) -> None:
    with contextlib.closing(database.connect()) as session:
        migrate.apply(session)
        with session.cursor() as cursor:
            found = catalog.snapshot(cursor)
            cursor.execute("SET search_path TO b2b, erp, shared, public")
            looked_up = names.Names(found, cursor, ("b2b", "erp", "shared", "public"))
            for path in migrate.migration_files().values():
                for statement in parse_script(migrate.split_migration(path)[1], path.name):
                    for named in statement.drops:
                        resolution = looked_up.resolve(named)
                        assert resolution.target is not None, str(named)
                        assert resolution.elsewhere == ()


@pytest.mark.parametrize("version", ["0006", "0005", "0004", "0003", "0002", "0001"])
def test_each_migration_of_the_erp_is_taken_back(database: Database, tmp_path: Path, version: str) -> None:
    with contextlib.closing(database.connect()) as session:
        migrate.apply(session, version)
        if version >= "0002":
            data.load(session, orders=20, upto=version)
    engine = Engine(database, tmp_path)
    changes: dict[str, t.Any] = {
        "migrations_dir": str(migrate.MIGRATIONS_DIR),
        "search_path": ("b2b", "erp", "shared", "public"),
    }
    preview = engine.execute(version, preview=True, **changes)
    done = engine.execute(version, **changes)
    assert done.effect.to_dict() == preview.effect.to_dict()
    assert done.effect.left_over == ()
    assert done.effect.skipped == ()
    assert all(check.status == "passed" for check in done.checks)
    assert engine.plan(version, **changes).plan.scripts == ()
