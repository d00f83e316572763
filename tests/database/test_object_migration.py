# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A column, a table or an index is taken back without a migration: what is meant, what goes with it, and what is refused."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import execute, planning
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.wanted_object import wanted_object

from tests.support.engine import SHOP, Engine, dropped

if t.TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.cypher.rollback.plugins.module_utils.execute import Execution
    from ansible_collections.cypher.rollback.plugins.module_utils.planning import Planned

    from tests.conftest import Database


FUNCTION = "CREATE FUNCTION app.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Engine:
    made = Engine(database, tmp_path)
    made.script(SHOP)
    return made


def request(engine: Engine, options: dict[str, t.Any]) -> planning.PlanRequest:
    """Options of the object beside fields of the request, as ``column="app.orders.note", limits=...``."""
    names = ("column", "table", "index", "cascade", "index_drop")
    asked = {"index_drop": "transaction", **{name: options.pop(name) for name in names if name in options}}
    return engine.request(None, object=wanted_object({"object": asked}), **options)


def plan(engine: Engine, **options: t.Any) -> Planned:
    return planning.plan_rollback(request(engine, options))


def take_back(engine: Engine, *, preview: bool = False, **options: t.Any) -> Execution:
    """Plan and execute, in a transaction."""
    wanted = request(engine, options)
    planned = planning.plan_rollback(wanted)
    assert planned.plan.object is not None, planned.plan.message
    order = execute.Order(wanted.settings, planned.plan, wanted.search_path, wanted.limits, preview=preview)
    return execute.execute_plan(order, planning.ledger_maker(wanted, []))


def refused(engine: Engine, **options: t.Any) -> str:
    """What the refusal says, and that it changed nothing."""
    before = engine.state()
    with pytest.raises(Refused) as caught:
        plan(engine, **options)
    assert engine.state() == before
    assert "Nothing was stopped or changed." in str(caught.value)
    return str(caught.value)


# --- columns ---------------------------------------------------------------------------------------------------------


def test_a_column_goes_with_its_indexes_and_constraints_and_its_values_are_counted(engine: Engine) -> None:
    engine.script(
        "ALTER TABLE app.orders ADD COLUMN new_column int CHECK (new_column > 0);"
        "CREATE INDEX idx_new_column ON app.orders (new_column);"
        "CREATE INDEX idx_both ON app.orders (id, new_column);"
        "CREATE INDEX idx_expression ON app.orders ((new_column * 2)) WHERE id > 3;"
        "UPDATE app.orders SET new_column = id WHERE id <= 20"
    )
    planned = plan(engine, column="app.orders.new_column")
    about = planned.plan.object
    assert about is not None
    assert planned.plan.versions == ["column-app-orders-new_column"]
    assert about.statement == "ALTER TABLE app.orders DROP COLUMN new_column"
    parts = {"index app.idx_new_column", "index app.idx_both", "index app.idx_expression"}
    assert parts < set(about.parts)
    assert "table constraint orders_new_column_check on app.orders" in about.parts
    assert "With it go" in planned.plan.message
    assert planned.plan.message.endswith("No migration is marked as taken back.")
    assert planned.warnings == ()

    before = engine.state()
    preview = take_back(engine, column="app.orders.new_column", preview=True)
    assert engine.state() == before
    assert preview.effect.rows_lost == 20

    done = take_back(engine, column="app.orders.new_column")
    assert done.committed
    assert done.effect.rows_lost == 20
    assert [(item.identity, item.rows) for item in done.effect.dropped if item.type == "table column"] == [
        ("app.orders.new_column", 20)
    ]
    assert parts < dropped(done, cascaded=False, part_of="app.orders.new_column")
    assert dropped(done, cascaded=True) == set()
    assert engine.database.execute("SELECT count(*) FROM app.orders") == [(50,)]


def test_values_count_against_the_limit_before_and_in_the_transaction(engine: Engine) -> None:
    engine.script("UPDATE app.orders SET note = NULL WHERE id > 30")
    said = refused(engine, column="app.orders.note", cascade=True, limits=execute.Limits(max_rows_lost=29))
    assert "destroys at least 30 rows, and rollback_max_rows_lost allows 29" in said
    wanted = request(engine, {"column": "app.orders.note", "cascade": True})
    planned = planning.plan_rollback(wanted)
    order = execute.Order(wanted.settings, planned.plan, wanted.search_path, execute.Limits(max_rows_lost=29))
    before = engine.state()
    with pytest.raises(FailedUnchanged, match="destroys 30 rows"):
        execute.execute_plan(order, planning.ledger_maker(wanted, []))
    assert engine.state() == before
    assert take_back(engine, column="app.orders.note", cascade=True, limits=execute.Limits(max_rows_lost=30)).committed


def test_values_that_the_role_may_not_count_are_refused_with_a_limit(engine: Engine) -> None:
    engine.script(
        "ALTER TABLE app.customers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        "DO $$ BEGIN CREATE ROLE object_owner LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "GRANT USAGE ON SCHEMA app TO object_owner; ALTER TABLE app.customers OWNER TO object_owner;"
        "GRANT pg_monitor TO object_owner"
    )
    try:
        engine.settings = planning.dataclasses.replace(engine.settings, user="object_owner", password="x")
        said = refused(engine, column="app.customers.name", limits=execute.Limits(max_rows_lost=1000))
        assert "cannot be counted by this role" in said
        assert "rollback_db_user" in said
    finally:
        engine.script("ALTER TABLE app.customers OWNER TO postgres; DROP OWNED BY object_owner; DROP ROLE object_owner")


def test_somebody_elses_table_is_refused(engine: Engine) -> None:
    engine.script(
        "DO $$ BEGIN CREATE ROLE object_guest LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "GRANT USAGE ON SCHEMA app TO object_guest; GRANT pg_monitor TO object_guest"
    )
    try:
        engine.settings = planning.dataclasses.replace(engine.settings, user="object_guest", password="x")
        said = refused(engine, column="app.customers.name")
        assert "object_guest may not drop parts of the table app.customers: it belongs to postgres" in said
    finally:
        engine.script("DROP OWNED BY object_guest; DROP ROLE object_guest")


def test_names_with_capitals_blanks_quotes_and_dots(engine: Engine) -> None:
    engine.script('CREATE SCHEMA "My.Schema"; CREATE TABLE "My.Schema"."The ""Table" (id int, "A.b C" text, gone int)')
    engine.script("""INSERT INTO "My.Schema"."The ""Table" VALUES (1, 'x', 1), (2, NULL, 2)""")
    name = '"My.Schema"."The ""Table"."A.b C"'
    planned = plan(engine, column=name)
    assert planned.plan.versions == ["column-My_Schema-The_Table-A_b_C"]
    assert planned.plan.object is not None
    assert planned.plan.object.asked["column"] == name
    done = take_back(engine, column=name)
    assert done.effect.rows_lost == 1
    assert dropped(done) == {f"table column {name}"}


def test_a_name_that_differs_in_capitals_is_refused_and_not_called_absent(engine: Engine) -> None:
    engine.script('CREATE TABLE app."Prices" (id int, "Net" int); CREATE INDEX "Net_idx" ON app."Prices" ("Net")')
    said = refused(engine, column="app.prices.net")
    assert """app."Prices"."Net", which differs in capitals""" in said
    assert """-e '{"column": "app.\\"Prices\\".\\"Net\\""}'""" in said
    assert '"Net_idx"' in refused(engine, index="net_idx")
    assert '"Prices"' in refused(engine, table="app.prices")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"column": "app.orders.never"}, "There is no column app.orders.never"),
        ({"column": "nowhere.orders.note"}, "There is no column nowhere.orders.note"),
        ({"table": "never"}, "There is no table never"),
        ({"index": "app.never"}, "There is no index app.never"),
    ],
)
def test_what_is_nowhere_is_nothing_to_do(engine: Engine, options: dict[str, str], word: str) -> None:
    planned = plan(engine, **options)
    assert planned.plan.scripts == ()
    assert word in planned.plan.message
    assert "there is nothing to take back" in planned.plan.message


def test_a_second_run_finds_nothing_to_do(engine: Engine) -> None:
    assert take_back(engine, column="orders.customer_id").committed
    assert plan(engine, column="orders.customer_id").plan.scripts == ()


def test_an_unqualified_name_means_one_object_of_the_search_path_or_is_refused(engine: Engine) -> None:
    planned = plan(engine, column="orders.customer_id")
    assert planned.plan.object is not None
    assert planned.plan.object.identity == "app.orders.customer_id"
    engine.script(
        "CREATE SCHEMA other; CREATE TABLE other.archive (id int); CREATE TABLE public.orders (customer_id int)"
    )
    said = refused(engine, column="orders.customer_id")
    assert "names 2 objects: app.orders.customer_id, public.orders.customer_id" in said
    assert "Write the schema: -e column=app.orders.customer_id" in said
    said = refused(engine, table="archive")
    assert "archive is other.archive" in said
    assert "rollback_search_path (app, public)" in said
    assert plan(engine, table="other.archive").plan.object is not None


def test_a_view_needs_cascade_and_is_named(engine: Engine) -> None:
    said = refused(engine, column="app.orders.note")
    assert "view app.order_report" in said
    assert "-e cascade=yes" in said
    planned = plan(engine, column="app.orders.note", cascade=True)
    assert planned.plan.object is not None
    assert planned.plan.object.cascaded == ("view app.order_report",)
    assert planned.plan.object.statement.endswith(" CASCADE")
    assert "CASCADE also drops view app.order_report" in planned.plan.message
    done = take_back(engine, column="app.orders.note", cascade=True)
    assert dropped(done, cascaded=True) == {"view app.order_report"}


def test_what_came_to_depend_on_it_since_the_plan_undoes_the_run(engine: Engine) -> None:
    wanted = request(engine, {"column": "app.customers.name"})
    planned = planning.plan_rollback(wanted)
    engine.script("CREATE VIEW app.names AS SELECT name FROM app.customers")
    before = engine.state()
    with pytest.raises(
        FailedUnchanged, match=r"view names depends .*Take that back first, or look at it with -e cascade=yes --check"
    ):
        execute.execute_plan(
            execute.Order(wanted.settings, planned.plan, wanted.search_path, wanted.limits),
            planning.ledger_maker(wanted, []),
        )
    assert engine.state() == before


def test_cascade_is_only_written_where_it_is_needed(engine: Engine) -> None:
    planned = plan(engine, column="app.customers.name", cascade=True)
    assert planned.plan.object is not None
    assert planned.plan.object.statement == "ALTER TABLE app.customers DROP COLUMN name"


@pytest.mark.parametrize(
    ("made", "asked", "dependent"),
    [
        ("CREATE VIEW app.v2 AS SELECT * FROM app.order_report", {"column": "app.orders.note"}, "view app.v2"),
        ("CREATE MATERIALIZED VIEW app.mv AS SELECT name FROM app.customers", {"column": "app.customers.name"},
         "materialized view app.mv"),
        (f"{FUNCTION}CREATE TRIGGER tg BEFORE UPDATE OF name ON app.customers FOR EACH ROW EXECUTE FUNCTION app.f()",
         {"column": "app.customers.name"}, "trigger tg on app.customers"),
        ("CREATE POLICY own ON app.customers USING (name = current_user)", {"column": "app.customers.name"},
         "policy own on app.customers"),
        ("", {"column": "app.orders.id"}, "table constraint of_order on app.lines"),
        ("", {"table": "app.customers"}, "table constraint orders_customer_id_fkey on app.orders"),
        ("CREATE FUNCTION app.g(app.customers) RETURNS int LANGUAGE sql AS 'SELECT 1'", {"table": "app.customers"},
         "function app.g(app.customers)"),
        ("CREATE TABLE app.child () INHERITS (app.customers)", {"table": "app.customers"}, "table app.child"),
    ],
)  # fmt: skip
def test_what_depends_on_it_is_named_exactly_where_postgresql_asks_for_cascade(
    engine: Engine, made: str, asked: dict[str, t.Any], dependent: str
) -> None:
    engine.script(made or "SELECT 1")
    assert dependent in refused(engine, **asked)
    ((kind, name),) = asked.items()
    statement = (
        f"DROP TABLE {name}"
        if kind == "table"
        else f"ALTER TABLE {name.rpartition('.')[0]} DROP COLUMN {name.rpartition('.')[2]}"
    )
    with pytest.raises(Exception, match="other objects depend on it"):
        engine.script(statement)
    done = take_back(engine, **asked, cascade=True)
    planned = dropped(done, cascaded=True)
    assert dependent in planned


def test_a_generated_column_depends_on_its_source_and_has_no_values_of_its_own(engine: Engine) -> None:
    engine.script("ALTER TABLE app.orders ADD COLUMN twice int GENERATED ALWAYS AS (customer_id * 2) STORED")
    planned = plan(engine, column="app.orders.twice", limits=execute.Limits(max_rows_lost=0))
    assert any("is generated" in warning for warning in planned.warnings)
    if engine.server_version >= 140000:
        assert "column app.orders.twice" in refused(engine, column="app.orders.customer_id")
    done = take_back(engine, column="app.orders.customer_id", cascade=True)
    assert {"table column app.orders.customer_id", "table column app.orders.twice"} <= dropped(done)
    assert done.effect.rows_lost == 50


def test_an_identity_column_goes_with_its_sequence(engine: Engine) -> None:
    engine.script("ALTER TABLE app.customers ADD COLUMN number int GENERATED ALWAYS AS IDENTITY")
    done = take_back(engine, column="app.customers.number")
    assert dropped(done, part_of="app.customers.number") >= {"sequence app.customers_number_seq"}
    assert done.effect.rows_lost == 10


def test_the_only_column_of_a_table_goes(engine: Engine) -> None:
    engine.script("CREATE TABLE app.single (id int); INSERT INTO app.single VALUES (1)")
    assert take_back(engine, column="app.single.id").effect.rows_lost == 1


def test_columns_that_postgresql_would_not_drop(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.parent (id int, extra int); CREATE TABLE app.child () INHERITS (app.parent);"
        "CREATE TABLE app.events (at date, kind int, body text) PARTITION BY RANGE (at, (kind + 1));"
        "CREATE TABLE app.events_1 PARTITION OF app.events DEFAULT;"
        "CREATE TYPE app.shape AS (a int, b int); CREATE TABLE app.shapes OF app.shape"
    )
    said = refused(engine, column="app.child.extra")
    assert "is inherited from app.parent" in said
    assert "-e column=app.parent.extra" in said
    assert "is inherited from app.events" in refused(engine, column="app.events_1.body")
    for column in ("at", "kind"):
        said = refused(engine, column=f"app.events.{column}")
        assert "part of the partition key of app.events" in said
        assert "-e table=app.events" in said
    assert "table of a composite type" in refused(engine, column="app.shapes.a")
    engine.script("INSERT INTO app.events VALUES ('2026-01-01', 1, 'x'), ('2026-01-02', 1, NULL)")
    assert take_back(engine, column="app.events.body").effect.rows_lost == 1


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_goes_with_its_rows_indexes_and_sequences(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.new_table (id serial PRIMARY KEY, parent int REFERENCES app.new_table, order_id int REFERENCES app.orders);"
        "INSERT INTO app.new_table (order_id) SELECT n FROM generate_series(1, 7) n"
    )
    planned = plan(engine, table="app.new_table", limits=execute.Limits(max_rows_lost=7))
    assert planned.rows_estimate == 7
    assert planned.plan.object is not None
    assert {"index app.new_table_pkey", "sequence app.new_table_id_seq"} <= set(planned.plan.object.parts)
    assert planned.plan.object.cascaded == ()
    done = take_back(engine, table="new_table")
    assert done.effect.rows_lost == 7
    assert dropped(done, cascaded=False, part_of="") == {"table app.new_table"}
    assert dropped(done, cascaded=True) == set()


def test_a_partitioned_table_goes_with_its_partitions(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.events (at date, body text) PARTITION BY RANGE (at);"
        "CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
        "CREATE TABLE app.events_2 PARTITION OF app.events DEFAULT;"
        "CREATE INDEX events_at ON app.events (at); INSERT INTO app.events VALUES ('2026-01-01', 'a'), ('2027-01-01', 'b')"
    )
    said = refused(engine, index="app.events_1_at_idx")
    assert "is the part of app.events_at that belongs to the partition app.events_1" in said
    assert "-e index=app.events_at" in said
    assert any("is a partition of app.events" in warning for warning in plan(engine, table="app.events_2").warnings)
    assert "index of a partitioned table" in refused(engine, index="app.events_at", index_drop="concurrently")
    planned = plan(engine, index="app.events_at", index_drop="auto")
    assert planned.plan.object is not None
    assert not planned.plan.object.concurrently
    assert "index of a partitioned table" in planned.plan.object.why
    assert take_back(engine, index="app.events_at").committed
    done = take_back(engine, table="app.events")
    assert done.effect.rows_lost == 2
    assert {"table app.events", "table app.events_1", "table app.events_2"} <= dropped(done, cascaded=False)


def test_a_table_between_two_others_needs_cascade_for_what_refers_to_it(engine: Engine) -> None:
    said = refused(engine, table="app.orders")
    for part in ("table constraint of_order on app.lines", "view app.order_report", "-e cascade=yes"):
        assert part in said
    done = take_back(engine, table="app.orders", cascade=True)
    assert dropped(done, cascaded=True) == {"table constraint of_order on app.lines", "view app.order_report"}
    assert done.effect.rows_lost == 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table": "app.order_report"}, "app.order_report is a view and not a table"),
        ({"column": "app.order_report.note"}, "app.order_report is a view and not a table"),
        ({"table": "app.orders_pkey"}, "Give -e index=app.orders_pkey"),
        ({"table": "app.numbers"}, "app.numbers is a sequence"),
        ({"index": "app.orders"}, "Give -e table=app.orders"),
        ({"table": "pg_catalog.pg_class"}, "belongs to PostgreSQL itself"),
        ({"table": "pg_class"}, "belongs to PostgreSQL itself"),
        ({"column": "pg_catalog.pg_class.relname"}, "belongs to PostgreSQL itself"),
        ({"index": "pg_catalog.pg_class_oid_index"}, "belongs to PostgreSQL itself"),
    ],
)
def test_something_else_of_that_name_is_told(engine: Engine, options: dict[str, str], said: str) -> None:
    assert said in refused(engine, **options)


def test_the_ledger_and_the_members_of_extensions_stay(engine: Engine) -> None:
    engine.script("CREATE TABLE app.schema_migrations (version text, at timestamptz)")
    for options in ({"table": "app.schema_migrations"}, {"column": "app.schema_migrations.at"}):
        assert "is the ledger of the migrations" in refused(engine, **options, ledger_table="app.schema_migrations")
    # No extension with tables comes with every server, so one is told that it has this one.
    engine.script(
        "INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype) SELECT 'pg_class'::regclass, "
        "'app.customers'::regclass, 0, 'pg_extension'::regclass, oid, 0, 'e' FROM pg_extension WHERE extname = 'plpgsql'"
    )
    said = refused(engine, table="app.customers")
    assert "belongs to the extension plpgsql" in said
    assert "DROP EXTENSION plpgsql" in said


def test_the_ledger_is_not_touched_and_the_migration_is_named(engine: Engine) -> None:
    engine.script(
        "CREATE TABLE app.schema_migrations (version text); INSERT INTO app.schema_migrations VALUES ('0001')"
    )
    engine.migration("0001", "ALTER TABLE app.customers DROP COLUMN name;")
    engine.migration("0002", "-- nothing\n")
    planned = plan(engine, column="app.customers.name", ledger_table="app.schema_migrations")
    assert planned.plan.object is not None
    assert planned.plan.object.migrations == ("0001",)
    assert planned.plan.message.endswith("The DOWN of 0001 names it, and the ledger is not touched.")
    assert take_back(engine, column="app.customers.name", ledger_table="app.schema_migrations").committed
    assert engine.database.execute("SELECT version FROM app.schema_migrations") == [("0001",)]


def test_no_folder_of_migrations_is_needed(engine: Engine) -> None:
    assert take_back(engine, column="app.customers.name", migrations_dir="/nonexistent").committed


# --- indexes ---------------------------------------------------------------------------------------------------------


def test_an_index_goes_and_nothing_else(engine: Engine) -> None:
    engine.script("CREATE UNIQUE INDEX idx_x ON app.customers (lower(name))")
    planned = plan(engine, index="idx_x")
    assert planned.plan.object is not None
    assert planned.plan.object.statement == "DROP INDEX app.idx_x"
    assert (
        "dropped in a transaction, with the application stopped: rollback_index_drop is transaction."
        in planned.plan.message
    )
    assert any("is a unique index" in warning for warning in planned.warnings)
    done = take_back(engine, index="idx_x")
    assert dropped(done) == {"index app.idx_x"}
    assert done.effect.rows_lost == 0


def test_an_index_of_a_constraint_is_refused_with_the_constraint(engine: Engine) -> None:
    said = refused(engine, index="app.orders_pkey")
    assert "enforces the constraint orders_pkey of app.orders" in said
    assert "ALTER TABLE app.orders DROP CONSTRAINT orders_pkey" in said


def test_a_foreign_key_on_a_unique_index_needs_cascade_and_so_a_transaction(engine: Engine) -> None:
    engine.script(
        "CREATE UNIQUE INDEX by_name ON app.customers (name); CREATE TABLE app.friends (name text REFERENCES app.customers (name))"
    )
    assert "table constraint friends_name_fkey on app.friends" in refused(engine, index="app.by_name")
    assert "CASCADE is needed" in refused(engine, index="app.by_name", cascade=True, index_drop="concurrently")
    done = take_back(engine, index="app.by_name", cascade=True, index_drop="auto")
    assert dropped(done, cascaded=True) == {"table constraint friends_name_fkey on app.friends"}


def test_an_index_that_replicates_or_is_invalid_is_warned_about(engine: Engine) -> None:
    engine.script(
        "CREATE UNIQUE INDEX by_id ON app.customers (id); ALTER TABLE app.customers REPLICA IDENTITY USING INDEX by_id"
    )
    assert any("is the replica identity of app.customers" in item for item in plan(engine, index="by_id").warnings)
    engine.script("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.by_id'::regclass")
    assert any("is not valid" in item for item in plan(engine, index="by_id").warnings)


# --- what was asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"object": {}}, "Give exactly one of column, table and index; given was none of them."),
        ({"object": {"column": "a.b", "table": "c"}}, "given were column, table"),
        ({"object": {"column": "a.b"}, "version": "0003"}, "given were column, version"),
        ({"object": {"column": "a"}}, "names no column. Give schema.table.column or table.column"),
        ({"object": {"column": "a.b.c.d"}}, "names no column"),
        ({"object": {"table": "a.b.c"}}, "names no table"),
        ({"object": {"index": "a; DROP TABLE b"}}, "names no index"),
        ({"object": {"index": "a."}}, "names no index"),
        ({"object": {"index": "1a"}}, "names no index"),
        ({"object": {"index": '"open'}}, "names no index"),
        ({"object": {"table": "a" * 64}}, "at most 63 bytes"),
        ({"object": {"table": "ä" * 32}}, "at most 63 bytes"),
    ],
)
def test_a_wish_that_is_not_clear_is_refused(params: dict[str, t.Any], said: str) -> None:
    with pytest.raises(Refused) as caught:
        wanted_object(params)
    assert said in str(caught.value)
    assert "Nothing was stopped or changed." in str(caught.value)


def test_names_are_folded_as_postgresql_does() -> None:
    wanted = wanted_object({"object": {"column": ' B2B.Orders."New ""Column" '}})
    assert wanted is not None
    assert wanted.parts == ("b2b", "orders", 'New "Column')
    assert wanted_object({"object": None}) is None


def test_a_lock_is_waited_for_no_longer_than_said(engine: Engine) -> None:
    with contextlib.closing(engine.session("report")) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM app.customers")
        with pytest.raises(FailedUnchanged, match=r"within 300ms .*column-app-customers-name.*application report"):
            take_back(engine, column="app.customers.name", limits=execute.Limits("300ms"))
