# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Cypher ERP project that the other tests roll back: its migrations, data and application."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cypher_erp import data, migrate

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

PROJECT = Path(migrate.__file__).parent
VERSIONS = list(migrate.migration_files())
ROLES = ("b2b_app", "erp_app", "report_app", "b2b_rw", "erp_rw", "report_ro")
SEARCH_PATH = "b2b, erp, shared, public"

# SHA-256 of each DOWN section as the rollback playbook (version 1.0, section 4.2) has it.
DOWN_DIGESTS = {
    "0001": "2cc48851e98d9b420f791bcb653c2435a3ece019b16e7139a618e23324be54e6",
    "0002": "3cead33e6dd59777fda35079fd06cf459404edad666bbc292abe686f1815ab96",
    "0003": "751f27c1704ab387ed5311c2d0ad4b790f5a40f11303ae79991014ca23aceb93",
    "0004": "5f6b4de16d5cf7d4514fd2e80782af6079f62b2db5a26ac60616ad5ca3035adf",
    "0005": "23d3f18a9c40fc839a38f94f280950ded665de206e407cad22de685fc543f8d1",
    "0006": "1e5930dc1b1639d49bcdd54dbda79784a243545242eaeb9a3d9655a750396d60",
}

LOOKUPS = {
    "TABLE": "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)",
    "VIEW": "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)",
    "INDEX": "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)",
    "FUNCTION": "SELECT prokind::text FROM pg_proc WHERE oid = to_regprocedure(%s)",
    "TYPE": "SELECT typtype::text FROM pg_type WHERE oid = to_regtype(%s)",
    "SCHEMA": "SELECT 'schema' WHERE to_regnamespace(%s) IS NOT NULL",
    "ROLE": "SELECT 'role' WHERE to_regrole(%s) IS NOT NULL",
    "TRIGGER": "SELECT 'trigger' FROM pg_trigger WHERE tgname || ' ON ' || tgrelid::regclass = replace(%s, 'b2b.', '')",
}
KINDS = {
    "TABLE": {"r", "p"},
    "VIEW": {"v"},
    "INDEX": {"i", "I"},
    "FUNCTION": {"f"},
    "TYPE": {"e"},
    "SCHEMA": {"schema"},
    "ROLE": {"role"},
    "TRIGGER": {"trigger"},
}


def down_statements(version: str) -> list[str]:
    """The statements of a DOWN section, which have one line each; of 0001 the roles after what grants to them."""
    text = migrate.split_migration(migrate.migration_files()[version])[1]
    statements = [line for line in text.splitlines() if line.startswith("DROP")]
    return sorted(statements, key=lambda statement: "ROLE" in statement)


def named_objects(version: str) -> list[tuple[str, str]]:
    """Kind and name of every object that a DOWN names."""
    pattern = re.compile(r"DROP (\w+) IF EXISTS (.+?)(?: CASCADE)?;")
    return [(match[1], match[2]) for line in down_statements(version) if (match := pattern.fullmatch(line))]


def found_kinds(database: Database, version: str) -> dict[tuple[str, str], str | None]:
    """What each name of a DOWN stands for in the database, None for nothing."""
    found = {}
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET search_path = {SEARCH_PATH}")
        for kind, name in named_objects(version):
            cursor.execute(LOOKUPS[kind], (name,))
            row = cursor.fetchone()
            found[kind, name] = row[0] if row else None
    return found


def roll_back(database: Database, version: str) -> None:
    with contextlib.closing(database.connect()) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
            for statement in down_statements(version):
                cursor.execute(statement)


def apply(database: Database, upto: str, first: str = "0001", **arguments: t.Any) -> None:
    with contextlib.closing(database.connect()) as connection:
        migrate.apply(connection, upto, first, **arguments)


def load(database: Database, upto: str, orders: int = 50, **arguments: t.Any) -> None:
    with contextlib.closing(database.connect()) as connection:
        data.load(connection, orders, upto, **arguments)


def schema_dump(database: Database) -> str:
    """The whole catalogue of the database as pg_dump writes it, without its random key."""
    server = database.server
    dumped = subprocess.run(
        [
            *(server.bin_dir / "pg_dump", "--schema-only", "--no-sync", "--dbname", database.name),
            *("--host", server.host, "--port", str(server.port), "--username", server.user),
        ],
        env={**os.environ, "PGPASSWORD": server.password},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return re.sub(r"^\\(un)?restrict .*$", "", dumped, flags=re.MULTILINE)


def roles(database: Database) -> set[str]:
    return {name for (name,) in database.execute("SELECT rolname FROM pg_roles") if name in ROLES}


def row_counts(database: Database) -> dict[str, int]:
    """Rows of every table of the project."""
    tables = database.execute(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('b2b', 'erp', 'shared')"
    )
    return {table: database.execute(f"SELECT count(*) FROM {table}")[0][0] for (table,) in tables}


@pytest.fixture
def erp(database: Database) -> Iterator[Database]:
    """An empty database on a server without the roles of the project."""
    for role in ROLES:
        database.execute(f"DROP ROLE IF EXISTS {role}")
    yield database
    with contextlib.closing(database.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS b2b, erp, shared CASCADE")
        for role in ROLES:
            cursor.execute(f"DROP ROLE IF EXISTS {role}")


def test_the_down_sections_are_those_of_the_document() -> None:
    digests = {
        version: hashlib.sha256(migrate.split_migration(path)[1].encode()).hexdigest()
        for version, path in migrate.migration_files().items()
    }
    assert digests == DOWN_DIGESTS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_down_undoes_its_up_and_nothing_else(erp: Database, version: str) -> None:
    earlier = [known for known in VERSIONS if known < version]
    if earlier:
        apply(erp, earlier[-1])
    before = (schema_dump(erp), roles(erp), set(row_counts(erp)))
    apply(erp, version, first=version)
    load(erp, version)
    kinds = found_kinds(erp, version)
    loaded = row_counts(erp)

    roll_back(erp, version)

    assert all(found in KINDS[kind] for (kind, _name), found in kinds.items()), kinds
    assert (schema_dump(erp), roles(erp), set(row_counts(erp))) == before
    assert row_counts(erp) == {table: rows for table, rows in loaded.items() if table in before[2]}


def test_all_six_go_newest_first_and_can_come_again(erp: Database) -> None:
    empty = schema_dump(erp)
    apply(erp, "0006")
    full = schema_dump(erp)
    for version in reversed(VERSIONS):
        roll_back(erp, version)
    assert schema_dump(erp) == empty
    assert roles(erp) == set()
    apply(erp, "0006")
    assert schema_dump(erp) == full


def test_an_index_of_0006_is_never_in_public(erp: Database) -> None:
    apply(erp, "0006")
    names = [name for kind, name in named_objects("0006") if kind == "INDEX"]
    schemas = erp.execute(
        "SELECT n.nspname, count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        f"WHERE c.relname = ANY (ARRAY{names}) GROUP BY 1 ORDER BY 1"
    )
    assert schemas == [("b2b", 21), ("shared", 3)]


def test_migrations_and_data_need_no_superuser(erp: Database) -> None:
    erp.execute("DROP ROLE IF EXISTS erp_owner")
    erp.execute("CREATE ROLE erp_owner LOGIN CREATEROLE PASSWORD 'owner'")
    erp.execute(f"ALTER DATABASE {erp.name} OWNER TO erp_owner")
    try:
        # Foreign keys, checks and triggers are on for an ordinary user: the data pass them all.
        with contextlib.closing(erp.connect(user="erp_owner", password="owner")) as connection:
            migrate.apply(connection, "0006")
            data.load(connection, 200, "0006")
        wrong = erp.execute(
            "SELECT count(*) FROM b2b.credit_accounts WHERE balance <> b2b.calculate_credit_balance(id)"
        )
        totals = erp.execute("SELECT sum(subtotal), (SELECT sum(line_total) FROM b2b.order_items) FROM b2b.orders")
        assert wrong == [(0,)]
        assert totals[0][0] == totals[0][1] > 0
        with contextlib.closing(erp.connect(user="erp_owner", password="owner")) as connection:
            for version in reversed(VERSIONS):
                with connection, connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
                    for statement in down_statements(version):
                        cursor.execute(statement)
        assert roles(erp) == set()
    finally:
        erp.execute("DROP OWNED BY erp_owner CASCADE")
        erp.execute(f"ALTER DATABASE {erp.name} OWNER TO {erp.server.user}")
        erp.execute("DROP ROLE erp_owner")


def test_roles_of_another_database_of_the_cluster_are_kept(erp: Database) -> None:
    erp.execute("CREATE ROLE b2b_rw NOLOGIN CONNECTION LIMIT 7")
    apply(erp, "0001")
    assert erp.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'b2b_rw'") == [(7,)]
    assert roles(erp) == set(ROLES)


def test_group_roles_hold_the_privileges(erp: Database) -> None:
    apply(erp, "0006")
    query = "SELECT has_table_privilege('{0}', '{1}', '{2}'), has_schema_privilege('{0}', '{3}', 'USAGE')"
    answers = {
        (role, table, privilege): erp.execute(query.format(role, table, privilege, table.split(".", maxsplit=1)[0]))[0]
        for role, table, privilege in (
            ("b2b_app", "b2b.orders", "INSERT"),
            ("report_app", "b2b.orders", "SELECT"),
            ("report_app", "b2b.orders", "UPDATE"),
            ("erp_app", "shared.outbox_events", "UPDATE"),
            ("b2b_app", "b2b.credit_ledger", "DELETE"),
        )
    }
    assert list(answers.values()) == [(True, True), (True, True), (False, True), (True, True), (False, True)]


def test_data_are_the_same_for_the_same_seed(erp: Database) -> None:
    content = "SELECT count(*), sum(hashtextextended(o::text, 0)) FROM b2b.orders AS o"
    apply(erp, "0003")
    contents = []
    for seed in (1, 1, 2):
        load(erp, "0003", orders=100, seed=seed)
        contents += erp.execute(content)
        erp.execute("TRUNCATE b2b.products, b2b.customers, b2b.price_books CASCADE")
        erp.execute("INSERT INTO b2b.customer_tiers (tier) SELECT unnest(enum_range(NULL::b2b_customer_tier))")
    assert contents[0] == contents[1] != contents[2]
    assert {count for count, _content in contents} == {100}


def test_events_lie_in_monthly_partitions_and_the_default_one(erp: Database) -> None:
    apply(erp, "0006")
    load(erp, "0006", orders=200)
    rows = row_counts(erp)
    parts = [rows[table] for table in rows if table.startswith("shared.outbox_events_")]
    assert len(parts) == 4
    assert all(parts)
    assert sum(parts) == rows["shared.outbox_events"]
    assert erp.execute("SELECT b2b.create_monthly_partition('shared', 'outbox_events', '2025-10-01', 4)") == [(2,)]
    assert row_counts(erp)["shared.outbox_events_default"] == 0
    assert row_counts(erp)["shared.outbox_events"] == rows["shared.outbox_events"]


def test_functions_of_0005_and_0006_work(erp: Database) -> None:
    apply(erp, "0006")
    load(erp, "0006", orders=200)
    events = "(SELECT array_agg(id) FROM shared.outbox_events WHERE status = 'processing')"
    answers = [
        erp.execute(query)[0][0]
        for query in (
            "SELECT count(*) FROM shared.get_next_events('worker', 1, 60)",
            f"SELECT shared.mark_events_failed({events}, 'E', 'no answer', 1)",
            "SELECT b2b.analyze_all_tables() > 30",
            "SELECT shared.archive_old_outbox_events(1) > 0",
            "SELECT shared.cleanup_discarded_events(1) > 0",
            "SELECT b2b.archive_old_credit_ledger(1) > 0",
            "SELECT count(*) FROM b2b.credit_accounts WHERE balance <> b2b.calculate_credit_balance(id)",
            "SELECT shared.maintain_outbox_partitions(2)",
            "SELECT count(*) FROM shared.partition_row_counts",
            "SELECT count(*) > 50 FROM shared.index_usage_stats",
        )
    ]
    assert answers == [1, 1, True, True, True, True, 0, 3, 7, True]


def test_the_command_line_applies_and_keeps_a_ledger(erp: Database) -> None:
    for command in (["migrate", "--upto", "0003", "--ledger"], ["data", "--orders", "20"]):
        subprocess.run(
            [sys.executable, "-m", f"tests.cypher_erp.{command[0]}", *command[1:]],
            env=erp.server.environment(erp.name),
            cwd=PROJECT.parent.parent,
            check=True,
            capture_output=True,
        )
    assert erp.execute("SELECT version FROM public.schema_migrations ORDER BY 1") == [("0001",), ("0002",), ("0003",)]
    assert row_counts(erp)["b2b.orders"] == 20


class App:
    """The application, started and stopped by its control script."""

    def __init__(self, folder: Path, database: Database, project: Path = PROJECT) -> None:
        self.project = project
        self.pid_file = folder / "app.pid"
        self.log = folder / "app.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.environment = {**database.server.environment(database.name), "APP_PORT": str(self.port)}

    def control(self, action: str, **environment: str) -> int:
        return subprocess.run(
            [self.project / "appctl", action, "--pid-file", self.pid_file, "--log", self.log],
            env={**self.environment, "PYTHON": sys.executable, **environment},
            check=False,
            capture_output=True,
            timeout=30,
        ).returncode

    def ask(self, path: str, body: t.Any = None) -> tuple[int, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", None if body is None else json.dumps(body).encode()
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def app(erp: Database, tmp_path: Path) -> Iterator[App]:
    """The application, not started, on an empty database."""
    application = App(tmp_path, erp)
    yield application
    assert application.control("stop") == 0


def test_health_fails_when_the_tables_of_the_release_are_gone(app: App, erp: Database) -> None:
    apply(erp, "0003")
    assert app.control("start", APP_RELEASE="0003") == 0
    status, text = app.ask("/health")
    assert (status, json.loads(text)["status"]) == (200, "ok")
    assert set(json.loads(text)["tables"]) == {"b2b.products", "b2b.customers", "b2b.carts", "b2b.orders"}

    roll_back(erp, "0003")
    status, text = app.ask("/health")
    assert (status, json.loads(text)["error"]) == (503, "table b2b.carts is missing, table b2b.orders is missing")
    assert app.ask("/orders?customer=1")[0] == 503

    assert app.control("stop") == 0
    assert app.control("start", APP_RELEASE="0002") == 0
    assert app.ask("/health")[0] == 200
    assert app.ask("/orders?customer=1")[0] == 404


def test_the_release_comes_with_the_code(erp: Database, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("app.py", "appctl"):
        shutil.copy(PROJECT / name, project)
    (project / "release.txt").write_text("0002\n", encoding="utf-8")
    apply(erp, "0002")
    application = App(tmp_path, erp, project)
    try:
        assert application.control("start") == 0
        status, text = application.ask("/health")
        assert (status, json.loads(text)["release"]) == (200, "0002")
    finally:
        application.control("stop")


def test_orders_are_placed_and_listed(app: App, erp: Database) -> None:
    apply(erp, "0005")
    load(erp, "0005")
    assert app.control("start", APP_RELEASE="0005") == 0
    events = row_counts(erp)["shared.outbox_events"]
    order = {"customer": 1, "items": [{"sku": "SKU-000001", "quantity": 2}, {"sku": "SKU-000002", "quantity": 1}]}
    status, text = app.ask("/orders", order)
    placed = json.loads(text)
    listed = json.loads(app.ask("/orders?customer=1&limit=1")[1])["orders"]
    assert (status, placed["order_number"]) == (201, "SO-000000051")
    assert [(row["order_number"], row["grand_total"]) for row in listed] == [("SO-000000051", placed["grand_total"])]
    assert row_counts(erp)["shared.outbox_events"] == events + 1
    assert "<td>b2b.orders<td>51" in app.ask("/")[1]
    mistakes: list[t.Any] = [{}, [], {**order, "customer": 999}, {**order, "items": [{"sku": "no'", "quantity": 1}]}]
    for wrong in mistakes:
        assert app.ask("/orders", wrong)[0] == 400
    assert app.ask("/orders?customer=x")[0] == 400
    assert row_counts(erp)["b2b.orders"] == 51


def test_the_application_keeps_connections_and_survives_their_end(app: App, erp: Database) -> None:
    apply(erp, "0003")
    assert app.control("start", APP_RELEASE="0003") == 0
    own = "FROM pg_stat_activity WHERE application_name = 'cypher-erp' AND datname = current_database()"
    assert erp.execute(f"SELECT count(*), min(state) {own}") == [(3, "idle")]
    erp.execute(f"SELECT pg_terminate_backend(pid, 5000) {own}")
    assert [app.ask("/health")[0] for _request in range(4)] == [200] * 4


def test_the_control_script_starts_stops_and_tells(app: App, erp: Database) -> None:
    assert app.control("status") == 3
    # No tables yet: it starts all the same, and says so at /health.
    assert app.control("start", APP_RELEASE="0003") == 0
    assert app.control("start", APP_RELEASE="0003") == 0
    assert app.control("status") == 0
    assert app.ask("/health")[0] == 503
    before = time.monotonic()
    assert app.control("stop") == 0
    assert time.monotonic() - before < 5
    assert app.control("status") == 3
    with pytest.raises(urllib.error.URLError):
        app.ask("/health")
    while erp.execute("SELECT FROM pg_stat_activity WHERE application_name = 'cypher-erp'"):
        assert time.monotonic() - before < 15, "connections are left"
    assert app.control("start", APP_RELEASE="9999") == 1


def test_another_process_under_the_pid_is_not_touched(app: App) -> None:
    app.pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
    assert app.control("status") == 3
    assert app.control("stop") == 0


def test_an_application_that_does_not_stop_is_an_error(app: App, erp: Database) -> None:
    apply(erp, "0002")
    assert app.control("start", APP_RELEASE="0002") == 0
    pid = int(app.pid_file.read_text(encoding="ascii"))
    os.kill(pid, signal.SIGSTOP)
    try:
        command = [str(app.project / "appctl"), "stop", "--pid-file", str(app.pid_file), "--timeout", "0.2"]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 1
        assert app.control("status") == 0
    finally:
        os.kill(pid, signal.SIGCONT)
