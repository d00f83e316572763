# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single tables put back from a backup of a real server: exactly these, exactly so, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    commit,
    manifest,
    readiness,
    table_restore,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import (
    FailedUnchanged,
    OutcomeUnknown,
    Refused,
)
from ansible_collections.cypher.rollback.plugins.modules import db_restore_tables
from ansible_collections.cypher.rollback.plugins.plugin_utils import in_process

from tests.cypher_erp import data, migrate
from tests.support.tcp_proxy import TcpProxy

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.cypher.rollback.plugins.module_utils.table_restore import TablesRestored

    from tests.conftest import Database

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SECONDS = 20.0
ROLES = ("b2b_app", "erp_app", "report_app", "b2b_rw", "erp_rw", "report_ro")


class Shop:
    """A database with a backup of it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.settings = ConnectionSettings(**database.connection_arguments())
        self.path = ""

    def script(self, text: str) -> None:
        """Run SQL in one transaction."""
        with contextlib.closing(self.database.connect()) as session:
            with session, session.cursor() as cursor:
                cursor.execute(text)

    def rows(self, query: str) -> list[tuple[t.Any, ...]]:
        return self.database.execute(query)

    def back_up(self, **changes: t.Any) -> str:
        request = readiness.BackupRequest(
            settings=self.settings,
            backup_dir=str(self.folder),
            version="0007",
            bin_dir=str(self.database.server.bin_dir),
            **changes,
        )
        self.path = backup.take_backup(request).path
        return self.path

    def request(self, *tables: str, **changes: t.Any) -> table_restore.TableRestoreRequest:
        fields: dict[str, t.Any] = {
            "settings": self.settings,
            "path": self.path,
            "tables": tables,
            "bin_dir": str(self.database.server.bin_dir),
            "search_path": ("app", "public"),
        }
        return table_restore.TableRestoreRequest(**{**fields, **changes})

    def restore(self, *tables: str, **changes: t.Any) -> TablesRestored:
        return table_restore.restore_tables(self.request(*tables, **changes))

    def contents(self, *except_for: str) -> dict[str, t.Any]:
        """Every row of every table, trigger states, and where sequences stand."""
        with contextlib.closing(self.database.connect()) as session, session.cursor() as cursor:
            cursor.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                "WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'"
            )
            found: dict[str, t.Any] = {}
            for (name,) in cursor.fetchall():
                if name not in except_for:
                    cursor.execute(f"SELECT x::text FROM ONLY {name} x ORDER BY 1")
                    found[name] = cursor.fetchall()
            cursor.execute(
                "SELECT tgrelid::regclass::text, tgname::text, tgenabled FROM pg_trigger "
                "UNION ALL SELECT ev_class::regclass::text, rulename::text, ev_enabled FROM pg_rewrite ORDER BY 1, 2"
            )
            found["triggers"] = cursor.fetchall()
            cursor.execute("SELECT relname FROM pg_class WHERE relname LIKE 'cypher_rollback%'")
            found["left"] = cursor.fetchall()
            return found


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return Shop(database, folder)


ORDERS = """
CREATE SCHEMA app;
CREATE TABLE app.customers (id int PRIMARY KEY, name text);
CREATE TABLE app.orders (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id int CONSTRAINT of_customer REFERENCES app.customers,
    number text UNIQUE, total numeric, doubled numeric GENERATED ALWAYS AS (total * 2) STORED, updated_at timestamptz
);
CREATE TABLE app.items (
    id serial PRIMARY KEY, order_id int NOT NULL CONSTRAINT of_order REFERENCES app.orders ON DELETE CASCADE, quantity int
);
CREATE TABLE app.audit (what text);
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN NEW.updated_at := now(); INSERT INTO audit VALUES (TG_OP); RETURN NEW; END$$;
ALTER FUNCTION app.touch() SET search_path = app;
INSERT INTO app.customers SELECT n, 'customer ' || n FROM generate_series(1, 10) n;
INSERT INTO app.orders (customer_id, number, total, updated_at)
    SELECT 1 + n % 10, 'N' || n, n * 1.10, timestamptz '2026-01-01 00:00Z' + n * interval '1 s' FROM generate_series(1, 100) n;
INSERT INTO app.items (order_id, quantity) SELECT 1 + n % 100, n FROM generate_series(1, 300) n;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE TRIGGER touch_always BEFORE UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE TRIGGER touch_replica BEFORE UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE TRIGGER touch_off BEFORE UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER TABLE app.orders ENABLE ALWAYS TRIGGER touch_always;
ALTER TABLE app.orders ENABLE REPLICA TRIGGER touch_replica;
ALTER TABLE app.orders DISABLE TRIGGER touch_off;
CREATE RULE noted AS ON UPDATE TO app.orders DO ALSO INSERT INTO app.audit VALUES ('rule');
"""


@pytest.fixture
def orders(shop: Shop) -> Shop:
    shop.script(ORDERS)
    shop.back_up()
    return shop


def wait_until(condition: t.Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --- the document's case: a backfill on the Cypher ERP ------------------------------------------------------------------


@pytest.fixture
def erp(shop: Shop) -> Iterator[Shop]:
    for role in ROLES:
        shop.rows(f"DROP ROLE IF EXISTS {role}")
    with contextlib.closing(shop.database.connect()) as connection:
        migrate.apply(connection, "0006")
    with contextlib.closing(shop.database.connect()) as connection:
        data.load(connection, 200, "0006")
    yield shop
    for (name,) in shop.rows(f"SELECT datname FROM pg_database WHERE datname LIKE '{shop.database.name}\\_backup%'"):
        shop.database.server.drop_database(name)
    with contextlib.closing(shop.database.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS b2b, erp, shared CASCADE")
        for role in ROLES:
            cursor.execute(f"DROP ROLE IF EXISTS {role}")


NEW_ORDER = """
INSERT INTO b2b.orders (id, customer_id, subtotal) SELECT '00000000-0000-0000-0000-000000000001', id, 5 FROM b2b.customers LIMIT 1;
INSERT INTO b2b.order_items (order_id, line_no, product_id, quantity, unit_price)
    SELECT '00000000-0000-0000-0000-000000000001', 1, id, 5, 1 FROM b2b.products LIMIT 1;
"""
BACKFILL = "UPDATE b2b.orders SET subtotal = subtotal * 100 + 1, tax_total = 0"


@pytest.mark.parametrize("kind", ["dump", "clone"])
def test_a_backfill_is_undone_and_new_orders_stay(erp: Shop, kind: str) -> None:
    erp.back_up(provider=kind)
    then = dict(erp.rows("SELECT id::text, x::text FROM b2b.orders x"))
    erp.script(NEW_ORDER + BACKFILL)
    erp.script("UPDATE b2b.customers SET company_name = 'changed since'")
    others = erp.contents("b2b.orders")
    done = erp.restore("b2b.orders", "b2b.order_items", search_path=["b2b"])
    now = dict(erp.rows("SELECT id::text, x::text FROM b2b.orders x"))
    new = now.pop("00000000-0000-0000-0000-000000000001")
    assert ",501.00," in new
    assert now == then
    assert erp.contents("b2b.orders") == others
    (of_orders, of_items) = done.tables
    assert done.committed
    assert (of_orders.missing, of_orders.extra) == (0, 1)
    assert of_orders.changed == of_orders.updated == len(then)
    assert set(of_orders.columns) == {"subtotal", "tax_total", "updated_at"}
    assert of_orders.key == ("id",)
    assert of_orders.samples["extra"] == [{"id": "00000000-0000-0000-0000-000000000001"}]
    assert (of_items.missing, of_items.extra, of_items.changed) == (0, 1, 0)
    again = erp.restore("orders", search_path=["b2b"])
    assert (again.differ, again.committed) == (False, False)
    assert again.describe() == "Nothing to do: b2b.orders hold what the backup holds."


def test_deleting_new_orders_needs_the_tables_that_go_with_them(erp: Shop) -> None:
    erp.back_up()
    erp.script(NEW_ORDER + BACKFILL)
    before = erp.contents()
    with pytest.raises(Refused, match=r"Add b2b\.order_items to the extra variable tables") as caught:
        erp.restore("b2b.orders", extra_rows="delete")
    assert caught.value.details["tables"] == ["b2b.order_items"]
    assert erp.contents() == before
    done = erp.restore("b2b.orders", "b2b.order_items", extra_rows="delete")
    assert [table.deleted for table in done.tables] == [1, 1]
    assert erp.restore("b2b.orders", "b2b.order_items").differ is False


def test_a_partitioned_table_is_put_back_with_all_its_partitions(erp: Shop) -> None:
    erp.back_up()
    then = erp.rows("SELECT tableoid::regclass, x::text FROM shared.outbox_events x ORDER BY 2")
    assert len({name for name, _row in then}) > 2
    erp.script(
        "DELETE FROM shared.outbox_events WHERE ctid IN (SELECT ctid FROM shared.outbox_events LIMIT 5);"
        "UPDATE shared.outbox_events SET event_type = 'wrong'"
    )
    done = erp.restore("shared.outbox_events")
    assert done.tables[0].inserted > 0
    assert done.tables[0].updated > 0
    assert erp.rows("SELECT tableoid::regclass, x::text FROM shared.outbox_events x ORDER BY 2") == then
    erp.script("UPDATE shared.outbox_events SET event_type = 'wrong'")
    one = erp.restore("shared.outbox_events_2026_01")
    assert one.tables[0].updated > 0
    rows = "SELECT x::text FROM shared.outbox_events x WHERE tableoid {} 'shared.outbox_events_2026_01'::regclass ORDER BY 1"
    assert [row for (row,) in erp.rows(rows.format("="))] == [
        row for name, row in then if name == "shared.outbox_events_2026_01"
    ]
    assert all("wrong" in row for (row,) in erp.rows(rows.format("<>")))
    with pytest.raises(Refused, match="are parts of one table"):
        erp.restore("shared.outbox_events", "shared.outbox_events_2026_01")


# --- rows, triggers, keys ------------------------------------------------------------------------------------------------


def test_missing_changed_and_extra_rows_without_any_trigger(orders: Shop) -> None:
    then = dict(orders.rows("SELECT id, x::text FROM app.orders x"))
    triggers = orders.contents()["triggers"]
    orders.script(
        "DELETE FROM app.items; DELETE FROM app.orders WHERE id <= 5; UPDATE app.orders SET total = 0 WHERE id <= 15;"
        "INSERT INTO app.orders (number) VALUES ('new')"
    )
    others = orders.contents("app.orders", "app.items")
    done = orders.restore("orders", "items")
    assert dataclasses.asdict(done.tables[0]) == {
        "identity": "app.orders", "key": ("id",), "backup_rows": 100, "live_rows": 96, "missing": 5, "extra": 1, "changed": 10,
        "inserted": 5, "updated": 10, "deleted": 0, "columns": {"total": 10, "updated_at": 10},
        "samples": {"missing": [{"id": str(n)} for n in range(1, 6)], "extra": [{"id": "101"}],
                    "changed": [{"id": str(n)} for n in (10, 11, 12, 13, 14)]},
        "sequences": {},
    }  # fmt: skip
    assert done.tables[1].inserted == 300
    now = dict(orders.rows("SELECT id, x::text FROM app.orders x"))
    assert now.pop(101)
    assert now == then
    assert orders.contents("app.orders", "app.items") == others
    assert orders.contents()["triggers"] == triggers
    assert "5 inserted, 10 set back, 0 deleted, 1 kept" in done.describe()


def test_a_preview_shows_the_same_and_leaves_everything(orders: Shop) -> None:
    orders.script("UPDATE app.orders SET total = 0 WHERE id <= 15; DELETE FROM app.items WHERE id > 290")
    before = orders.contents()
    shown = orders.restore("app.orders", "app.items", preview=True)
    assert not shown.committed
    assert shown.differ
    assert shown.xid == ""
    assert orders.contents() == before
    done = orders.restore("app.orders", "app.items")
    assert done.tables == shown.tables
    assert done.committed


def test_sequences_are_never_behind_their_column(orders: Shop) -> None:
    orders.script(
        "DELETE FROM app.items; ALTER SEQUENCE app.items_id_seq RESTART WITH 7; UPDATE app.orders SET total = 1"
    )
    shown = orders.restore("app.items", preview=True)
    assert shown.tables[0].sequences == {"app.items_id_seq": 301}
    assert orders.rows("SELECT last_value, is_called FROM app.items_id_seq") == [(7, False)]
    assert orders.restore("app.items").tables[0].sequences == {"app.items_id_seq": 301}
    assert orders.rows("INSERT INTO app.items (order_id) VALUES (1) RETURNING id") == [(301,)]
    assert orders.restore("app.orders").tables[0].sequences == {}


def test_a_foreign_key_that_would_not_hold_names_the_table_to_add(orders: Shop) -> None:
    orders.script("DELETE FROM app.items; DELETE FROM app.orders; DELETE FROM app.customers WHERE id = 3")
    before = orders.contents()
    with pytest.raises(Refused, match=r"The foreign key of_customer would not hold.*Add app\.customers") as caught:
        orders.restore("app.items", "app.orders")
    assert caught.value.details["constraint"] == "of_customer"
    assert caught.value.details["tables"] == ["app.customers"]
    assert orders.contents() == before
    # The order in which they are named does not matter.
    done = orders.restore("app.items", "app.orders", "app.customers")
    assert [table.inserted for table in done.tables] == [300, 100, 1]


def test_tables_that_refer_to_each_other_come_back_together(shop: Shop) -> None:
    shop.script(
        "CREATE SCHEMA app; CREATE TABLE app.a (id int PRIMARY KEY, b int); CREATE TABLE app.b (id int PRIMARY KEY, a int REFERENCES app.a);"
        "CREATE TABLE app.staff (id int PRIMARY KEY, boss int REFERENCES app.staff DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO app.a VALUES (1, 1), (2, 2); INSERT INTO app.b VALUES (1, 2), (2, 1);"
        "INSERT INTO app.staff VALUES (1, 2), (2, 1), (3, 3); ALTER TABLE app.a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES app.b"
    )
    shop.back_up()
    then = shop.contents()
    shop.script("TRUNCATE app.a, app.b; DELETE FROM app.staff")
    with pytest.raises(Refused, match=r"Add app\.b to"):
        shop.restore("a")
    shop.restore("a", "b", "staff")
    assert shop.contents() == then


def test_a_value_that_another_row_has_by_now_is_refused_or_deleted(orders: Shop) -> None:
    orders.script(
        "DELETE FROM app.items; DELETE FROM app.orders WHERE number = 'N7'; INSERT INTO app.orders (number) VALUES ('N7')"
    )
    before = orders.contents()
    with pytest.raises(Refused, match=r"The constraint orders_number_key of app\.orders decides") as caught:
        orders.restore("app.orders")
    assert caught.value.details["constraint"] == "orders_number_key"
    assert orders.contents() == before
    done = orders.restore("app.orders", "app.items", extra_rows="delete")
    assert (done.tables[0].inserted, done.tables[0].deleted) == (1, 1)


def test_rows_of_types_without_equality_and_odd_values(shop: Shop) -> None:
    # Not every server is built with libxml; there json and point stand for it.
    has_xml = shop.rows("SELECT count(*) FROM pg_config WHERE setting LIKE '%--with-libxml%'")[0][0]
    shop.script(
        """
        CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN app.short AS varchar(9);
        CREATE TABLE app.t (id int PRIMARY KEY, j json, x xml, p point, n numeric, f float8, a int[], e app.mood, s app.short,
            b bytea, i interval, r int4range, jb jsonb, m money, t timestamptz);
        INSERT INTO app.t VALUES (1, '{"a": 1}', '<a/>', '(1,2)', 1.0, 0.1 + 0.2, '[0:1]={1,2}', 'ok', 'x', '\\x00ff',
            '-1 days +02:03:04', '[1,5)', '{"b": 2.50}', 12.5, '2026-01-01 12:00:00.123456+02'),
            (2, null, null, null, 'NaN', '-Infinity', '{}', null, '', '', null, 'empty', 'null', null, 'infinity'),
            (3, '[1]', '<b/>', '(0,0)', 1, 1, '{NULL}', 'sad', E'a\tb\n', '', '1 mon', null, '[]', null, null);
        """.replace("x xml", "x xml" if has_xml else "x text")
    )
    shop.back_up()
    then = shop.contents()
    assert shop.restore("t").differ is False
    shop.script(
        "UPDATE app.t SET j = '{\"a\":1}', n = 1.00, p = '(1,3)' WHERE id = 1; UPDATE app.t SET x = '<c/>' WHERE id = 2;"
        "UPDATE app.t SET s = NULL, a = '{}', f = 1 + 1e-15 WHERE id = 3"
    )
    done = shop.restore("t")
    assert done.tables[0].columns == {"j": 1, "n": 1, "p": 1, "x": 1, "s": 1, "a": 1, "f": 1}
    assert shop.contents() == then


def test_a_table_without_a_key_is_compared_by_whole_rows(shop: Shop) -> None:
    shop.script(
        "CREATE SCHEMA app; CREATE TABLE app.log (a int, j json); INSERT INTO app.log VALUES (1, '1'), (1, '1'), (NULL, NULL), (2, '2')"
    )
    shop.back_up()
    then = shop.contents()
    shop.script("DELETE FROM app.log WHERE a = 1; INSERT INTO app.log VALUES (1, '1')")
    done = shop.restore("log")
    assert (done.tables[0].key, done.tables[0].missing, done.tables[0].inserted) == ((), 1, 1)
    assert shop.contents() == then
    shop.script("UPDATE app.log SET a = 3 WHERE a = 1")
    with pytest.raises(Refused, match="Set rollback_extra_rows to delete"):
        shop.restore("log")
    done = shop.restore("log", extra_rows="delete")
    assert (done.tables[0].inserted, done.tables[0].deleted) == (2, 2)
    assert shop.contents() == then


def test_a_unique_index_serves_where_there_is_no_primary_key(shop: Shop) -> None:
    shop.script(
        "CREATE SCHEMA app; CREATE TABLE app.t (a int, b text NOT NULL, c int NOT NULL, d int UNIQUE); CREATE UNIQUE INDEX ON app.t (b, c);"
        "INSERT INTO app.t SELECT n, n, n, n FROM generate_series(1, 9) n"
    )
    shop.back_up()
    shop.script("UPDATE app.t SET a = 0")
    done = shop.restore("t")
    assert (done.tables[0].key, done.tables[0].updated) == (("b", "c"), 9)


def test_what_inherits_from_a_table_is_another_table(shop: Shop) -> None:
    shop.script(
        "CREATE SCHEMA app; CREATE TABLE app.p (id int PRIMARY KEY, v int); CREATE TABLE app.c (w int, PRIMARY KEY (id)) INHERITS (app.p);"
        "INSERT INTO app.p VALUES (1, 1); INSERT INTO app.c VALUES (2, 2, 2)"
    )
    shop.back_up()
    shop.script("UPDATE app.p SET v = 0")
    assert shop.restore("p").tables[0].updated == 1
    assert shop.rows("SELECT id, v FROM app.p ORDER BY 1") == [(1, 1), (2, 0)]
    assert shop.restore("c").tables[0].updated == 1
    assert shop.rows("SELECT id, v FROM app.p ORDER BY 1") == [(1, 1), (2, 2)]


# --- another shape -------------------------------------------------------------------------------------------------------


def test_columns_that_only_the_live_table_has_keep_their_values(orders: Shop) -> None:
    orders.script(
        "DELETE FROM app.items; DELETE FROM app.orders WHERE id = 1; UPDATE app.orders SET total = 0 WHERE id = 2;"
        "ALTER TABLE app.orders ADD note text DEFAULT 'none'; UPDATE app.orders SET note = 'mine' WHERE id = 2"
    )
    orders.restore("app.orders")
    assert orders.rows("SELECT id, note FROM app.orders WHERE id < 4 ORDER BY 1") == [
        (1, "none"),
        (2, "mine"),
        (3, "none"),
    ]


SHAPES = {
    "ALTER TABLE app.orders DROP number": "columns of app.orders that the live table has not.*: number",
    "ALTER TABLE app.orders RENAME total TO amount": "columns of app.orders that the live table has not.*: total",
    "ALTER TABLE app.orders ALTER customer_id TYPE bigint": r"another type than in the backup: customer_id \(then: integer; now: bigint\)",
    "ALTER TABLE app.orders ALTER number TYPE varchar(9)": r"number \(then: text; now: character varying\(9\)\)",
    "ALTER TABLE app.orders ADD must text; UPDATE app.orders SET must = ''; ALTER TABLE app.orders ALTER must SET NOT NULL;"
    "DELETE FROM app.items; DELETE FROM app.orders WHERE id = 1": "must, which the backup has not, are NOT NULL and have no default",
}  # fmt: skip


@pytest.mark.parametrize("change", SHAPES)
def test_another_shape_is_refused(orders: Shop, change: str) -> None:
    orders.script(
        "ALTER TABLE app.orders DISABLE TRIGGER USER; DROP RULE noted ON app.orders; ALTER TABLE app.orders DROP doubled"
    )
    for statement in change.split(";"):
        orders.script(statement)
    before = orders.contents()
    with pytest.raises(Refused, match=SHAPES[change]):
        orders.restore("app.orders")
    assert orders.contents() == before


# --- names ---------------------------------------------------------------------------------------------------------------


def test_hostile_names(shop: Shop) -> None:
    shop.script(
        """
        CREATE SCHEMA "a b"; CREATE SCHEMA a; CREATE SCHEMA "s""%s;\n";
        CREATE TABLE "a b".c ("k;%s" int PRIMARY KEY, "v (x), ""y"" FROM stdin;" text);
        CREATE TABLE a."b c" (LIKE "a b".c INCLUDING ALL);
        CREATE TABLE "s""%s;\n"."COPY x (
y) FROM stdin;
\\.
" (LIKE "a b".c INCLUDING ALL);
        INSERT INTO "a b".c VALUES (1, 'one'); INSERT INTO a."b c" VALUES (1, E'\\.\n'), (2, '\\N');
        INSERT INTO "s""%s;\n"."COPY x (
y) FROM stdin;
\\.
" VALUES (1, E'\\.'), (2, 'ț'), (3, NULL);
        """
    )
    tables = ['"a b".c', 'a."b c"', '"s""%s;\n"."COPY x (\ny) FROM stdin;\n\\.\n"']
    shop.back_up()
    then = shop.contents()
    for table in tables:
        shop.script(f'DELETE FROM {table} WHERE "k;%s" = 1; UPDATE {table} SET "v (x), ""y"" FROM stdin;" = \'x\'')
    done = shop.restore(*tables)
    assert [table.inserted for table in done.tables] == [1, 1, 1]
    assert [table.updated for table in done.tables] == [0, 1, 2]
    assert shop.contents() == then


def test_names_are_those_of_the_backup(orders: Shop) -> None:
    orders.script(
        "CREATE SCHEMA other; CREATE TABLE other.orders (id int); CREATE TABLE other.notes (id int); CREATE VIEW other.v AS SELECT 1"
    )
    orders.back_up()
    for wanted, said in {
        "ordres": r"no table ordres in the backup in the schemas app, public.*has app\.orders",
        "notes": r"The backup has other\.notes",
        "app.nothing.there": "is not the name of a table",
        'app."': "is not the name of a table",
        "other.v": "no table other.v in the backup",
    }.items():
        with pytest.raises(Refused, match=said):
            orders.restore(wanted)
    with pytest.raises(Refused, match=r"may be any of app\.orders, other\.orders") as caught:
        orders.restore("orders", search_path=["app", "other"])
    assert caught.value.details["candidates"] == ["app.orders", "other.orders"]
    assert [table.identity for table in orders.restore("ORDERS", "app.orders").tables] == ["app.orders"]
    with pytest.raises(Refused, match="extra variable tables"):
        orders.restore()


def test_a_table_that_is_gone_needs_the_whole_backup(orders: Shop) -> None:
    orders.script("DROP TABLE app.items")
    with pytest.raises(Refused, match=r"playbooks/emergency_rollback\.yml -e backup=backup_before_rollback_0007"):
        orders.restore("app.items")
    orders.script("CREATE VIEW app.items AS SELECT 1")
    with pytest.raises(Refused, match="is a view"):
        orders.restore("app.items")


# --- the backup ----------------------------------------------------------------------------------------------------------


def test_a_damaged_backup_is_refused_before_a_program_reads_it(orders: Shop, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("pg_dump", "pg_restore", "psql", "pg_dumpall"):
        (programs / program).write_text(
            f'#!/bin/sh\ncase "$*" in *--version*) exec {orders.database.server.bin_dir}/{program} --version;; esac\n'
            f"echo started > {tmp_path}/started\nexit 1\n"
        )
        (programs / program).chmod(0o755)
    toc = Path(orders.path) / "dump" / "toc.dat"
    whole = toc.read_bytes()
    toc.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Refused, match=r"is damaged: dump/toc\.dat has the right size and a wrong checksum"):
        orders.restore("app.orders", bin_dir=str(programs))
    toc.write_bytes(whole)
    assert not (tmp_path / "started").exists()
    with pytest.raises(FailedUnchanged, match="pg_restore failed with exit code 1"):
        orders.restore("app.orders", bin_dir=str(programs))
    assert (tmp_path / "started").exists()
    with pytest.raises(Refused, match="rollback_backup_key"):
        orders.restore("app.orders", key="secret")


def test_a_backup_of_another_database_is_refused(orders: Shop) -> None:
    name = f"{orders.database.name}_other"
    orders.database.server.create_database(name)
    try:
        with pytest.raises(Refused, match=f"is of the database {orders.database.name} in the cluster"):
            orders.restore("app.orders", settings=dataclasses.replace(orders.settings, dbname=name))
    finally:
        orders.database.server.drop_database(name)


def test_requests_that_mean_nothing(orders: Shop) -> None:
    for changes, said in (
        ({"extra_rows": "drop"}, "rollback_extra_rows is 'drop'"),
        ({"lock_timeout": "soon"}, "rollback_lock_timeout is 'soon'"),
        ({"path": "/nowhere"}, "There is no backup /nowhere"),
    ):
        with pytest.raises(Refused, match=said):
            orders.restore("app.orders", **changes)


def test_row_security_and_privileges_are_refused(orders: Shop) -> None:
    name = f"clerk_{orders.database.name}"
    orders.rows(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    settings = dataclasses.replace(orders.settings, user=name, password="secret")
    try:
        orders.script(f"GRANT USAGE ON SCHEMA app TO {name}")
        with pytest.raises(Refused, match=r"GRANT SELECT, INSERT, UPDATE, DELETE ON app\.customers"):
            orders.restore("app.customers", settings=settings)
        orders.script(
            f"GRANT ALL ON ALL TABLES IN SCHEMA app TO {name}; ALTER TABLE app.customers ENABLE ROW LEVEL SECURITY"
        )
        with pytest.raises(Refused, match=r"Row security hides rows of app\.customers"):
            orders.restore("app.customers", settings=settings)
        orders.script("ALTER TABLE app.customers DISABLE ROW LEVEL SECURITY")
        with pytest.raises(Refused, match="may not silence them"):
            orders.restore("app.orders", settings=settings)
        orders.script("UPDATE app.customers SET name = 'x'")
        assert orders.restore("app.customers", settings=settings).committed
    finally:
        orders.rows(f"DROP OWNED BY {name}")
        orders.rows(f"DROP ROLE {name}")


def test_event_triggers_see_nothing_of_it(orders: Shop) -> None:
    orders.script(
        "CREATE FUNCTION app.noted() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO app.audit VALUES (tg_tag); END$$;"
        "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION app.noted()"
    )
    orders.script("UPDATE app.orders SET total = 0")
    before = orders.rows("SELECT count(*) FROM app.audit")
    assert orders.restore("app.orders").tables[0].updated == 100
    assert orders.rows("SELECT count(*) FROM app.audit") == before


# --- others at work, and ends that come early ------------------------------------------------------------------------------


def test_a_writer_in_the_way_is_named(orders: Shop) -> None:
    orders.script("UPDATE app.orders SET total = 0")
    with contextlib.closing(orders.database.connect(application_name="the shop")) as writer, writer.cursor() as cursor:
        cursor.execute("UPDATE app.orders SET total = 1 WHERE id = 1")
        with pytest.raises(
            FailedUnchanged, match=r"could not be locked within 700ms.*application the shop.*pg_terminate_backend"
        ) as caught:
            orders.restore("app.orders", lock_timeout="700ms")
        assert caught.value.details["blockers"][0]["application"] == "the shop"
        assert orders.rows("SELECT count(*) FROM app.orders WHERE total <> 0") == [(0,)]
        writer.rollback()
    assert orders.restore("app.orders").committed


@contextlib.contextmanager
def in_background(work: t.Callable[[], object]) -> Iterator[list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as err:  # noqa: BLE001 - given to the test
            raised.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    yield raised
    thread.join(SECONDS)
    assert not thread.is_alive()


def blocked(shop: Shop) -> bool:
    return bool(
        shop.rows(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'cypher.rollback%'"
        )
    )


def test_what_was_written_until_the_lock_counts(orders: Shop) -> None:
    """The backup is read first; a writer that ends before the lock has its rows kept."""
    orders.script("UPDATE app.orders SET total = 0")
    with contextlib.closing(orders.database.connect()) as writer, writer.cursor() as cursor:
        cursor.execute("INSERT INTO app.orders (number, total) VALUES ('late', 7)")
        with in_background(lambda: orders.restore("app.orders")) as raised:
            wait_until(lambda: blocked(orders))
            writer.commit()
    assert not raised
    assert orders.rows("SELECT total FROM app.orders WHERE number = 'late'") == [(7,)]


KILLED = """
import sys, json
from ansible_collections.cypher.rollback.plugins.module_utils import table_restore
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
given = json.load(sys.stdin)
table_restore.restore_tables(table_restore.TableRestoreRequest(settings=ConnectionSettings(**given.pop("settings")), **given))
"""


@pytest.mark.parametrize("moment", ["COPY", "WITH cypher_rollback"])
def test_killed_in_the_middle_nothing_is_left(orders: Shop, moment: str) -> None:
    orders.script("INSERT INTO app.customers SELECT n, 'x' FROM generate_series(11, 400000) n")
    orders.back_up()
    orders.script("UPDATE app.customers SET name = 'wrong'")
    before = orders.contents("app.customers")
    given = {
        "settings": orders.database.connection_arguments(),
        "path": orders.path,
        "tables": ["app.customers"],
        "bin_dir": str(orders.database.server.bin_dir),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=REPOSITORY, stdin=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    at_work = f"SELECT pid FROM pg_stat_activity WHERE application_name = 'cypher.rollback' AND query LIKE '{moment}%' AND state = 'active'"
    wait_until(lambda: orders.rows(at_work))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not orders.rows("SELECT pid FROM pg_stat_activity WHERE application_name = 'cypher.rollback'"))
    assert orders.rows("SELECT count(*) FROM app.customers WHERE name = 'wrong'") == [(400000,)]
    assert orders.contents("app.customers") == before
    assert orders.restore("app.customers").tables[0].updated == 400000


@pytest.fixture
def cut(orders: Shop, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., t.ContextManager[ConnectionSettings]]:
    monkeypatch.setattr(commit, "COMMIT_ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(commit, "_PAUSE_SECONDS", 0.05)

    @contextlib.contextmanager
    def make(**how: t.Any) -> Iterator[ConnectionSettings]:
        server = orders.database.server
        with TcpProxy(server.host, server.port, **how) as proxy:
            yield dataclasses.replace(orders.settings, port=proxy.port, sslmode="disable")
            assert proxy.cuts == 1

    return make


def test_a_lost_answer_to_the_commit(orders: Shop, cut: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The settings of the session are committed, too; only the last COMMIT is meant here.
    monkeypatch.setattr(table_restore, "optional_limits", lambda _connection: "")
    orders.script("UPDATE app.orders SET total = 0")
    with cut(cut="before") as settings, pytest.raises(FailedUnchanged, match="was rolled back"):
        orders.restore("app.orders", settings=settings)
    assert orders.rows("SELECT count(*) FROM app.orders WHERE total = 0") == [(100,)]
    with cut(cut="before", refuse_afterwards=True) as settings, pytest.raises(OutcomeUnknown, match="pg_xact_status"):
        orders.restore("app.orders", settings=settings)
    with cut(cut="after") as settings:
        assert orders.restore("app.orders", settings=settings).committed
    assert orders.rows("SELECT count(*) FROM app.orders WHERE total = 0") == [(0,)]


# --- archives ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gzip:1", "zstd:1", "none"])
def test_compressed_archives(shop: Shop, method: str) -> None:
    """The archive exchanged for one that pg_dump compressed, its manifest written anew."""
    major = int(shop.rows("SHOW server_version_num")[0][0]) // 10000
    if method.startswith("zstd") and major != 17:
        pytest.skip("only this installation's pg_dump has zstd")
    shop.script(ORDERS)
    shop.back_up()
    folder = Path(shop.path)
    old = manifest.load(str(folder))
    for file in (folder / "dump").iterdir():
        file.unlink()
    (folder / "dump").rmdir()
    options = ["-Z", method if major >= 16 else method.replace("none", "0").partition(":")[2] or "0"]
    environment = shop.database.server.environment(shop.database.name)
    environment.update(
        PGPASSWORD=environment["DB_PASSWORD"], PGHOST=environment["DB_HOST"], PGPORT=environment["DB_PORT"]
    )
    environment.update(PGUSER=environment["DB_USER"], PGDATABASE=shop.database.name)
    subprocess.run(
        [shop.database.server.bin_dir / "pg_dump", "-Fd", *options, "-f", folder / "dump"], env=environment, check=True
    )
    files = [entry for entry in old.files if not entry.path.startswith("dump/")]
    for name in sorted(os.listdir(folder / "dump")):
        descriptor = os.open(folder / "dump" / name, os.O_RDONLY)
        files.append(manifest.BackupFile(f"dump/{name}", os.fstat(descriptor).st_size, manifest.digest_of(descriptor)))
        os.close(descriptor)
    (folder / manifest.NAME).unlink()
    manifest.write(str(folder), dataclasses.replace(old, files=tuple(files)))
    shop.script("UPDATE app.orders SET total = 0; DELETE FROM app.items")
    done = shop.restore("app.orders", "app.items")
    assert [(table.inserted, table.updated) for table in done.tables] == [(0, 100), (300, 0)]


def test_a_million_rows_in_reasonable_time(shop: Shop) -> None:
    shop.script(
        "CREATE SCHEMA app; CREATE TABLE app.big (id bigint PRIMARY KEY, a text, b numeric, c timestamptz);"
        "INSERT INTO app.big SELECT n, md5(n::text), n * 1.5, now() FROM generate_series(1, 1000000) n"
    )
    shop.back_up()
    shop.script("UPDATE app.big SET b = 0 WHERE id % 3 = 0; DELETE FROM app.big WHERE id % 10 = 1")
    shop.rows("VACUUM ANALYZE app.big")
    done = shop.restore("big")
    print(f"{done.seconds:.1f} s: {done.describe()}")
    assert (done.tables[0].missing, done.tables[0].changed) == (100000, 300000)
    assert shop.rows("SELECT count(*), sum(b) FROM app.big") == [(1000000, 750000750000)]
    assert done.seconds < 60


# --- the module ----------------------------------------------------------------------------------------------------------


def run_module(shop: Shop, **options: t.Any) -> dict[str, t.Any]:
    """The module's own main, in this process."""
    arguments = {**shop.database.login(), "bin_dir": str(shop.database.server.bin_dir), "path": shop.path, **options}
    check_mode = arguments.pop("check_mode", False)
    with pytest.raises(in_process.Exit) as ended:
        db_restore_tables.main(lambda **rules: in_process.InProcessModule(arguments, check_mode, **rules))
    return dict(ended.value.result)


def test_the_module_shows_and_does_it(orders: Shop) -> None:
    orders.script("UPDATE app.orders SET total = 0 WHERE id < 8; DELETE FROM app.items WHERE id = 1")
    options = {"tables": "orders,app.items", "search_path": ["app"]}
    shown = run_module(orders, check_mode=True, **options)
    assert (shown["changed"], shown["committed"]) == (True, False)
    assert shown["message"].startswith(
        "Would put back app.orders (0 inserted, 7 set back, 0 deleted, 0 kept); app.items (1 inserted"
    )
    done = run_module(orders, **options)
    assert (done["changed"], done["committed"]) == (True, True)
    assert done["tables"] == shown["tables"]
    assert "0 missing, 7 changed; 0 extra" in done["diff"]["before"]
    assert "0 missing, 0 changed; 0 extra" in done["diff"]["after"]
    assert json.loads(json.dumps(done)) == done
    again = run_module(orders, **options)
    assert (again["changed"], again["committed"]) == (False, False)
    refused = run_module(orders, tables="app.nothing")
    assert (refused["failed"], refused["outcome"]) == (True, "refused")
    assert "no table app.nothing" in refused["msg"]
