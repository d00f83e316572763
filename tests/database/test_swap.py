# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two databases are exchanged, or none is: whatever dies in between, no name is missing and nobody stays locked out."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import typing as t

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.sql
import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import commit, eviction, swap
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.database_properties import read_properties
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, OutcomeUnknown, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.kept import Kept, kept_databases
from ansible_collections.cypher.rollback.plugins.module_utils.swap import SwapRequest
from ansible_collections.cypher.rollback.plugins.modules import db_swap
from ansible_collections.cypher.rollback.plugins.plugin_utils.in_process import Exit, InProcessModule

from tests.support.postgres_server import REPOSITORY, PostgresServer
from tests.support.tcp_proxy import TcpProxy

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 20.0

HOSTILE = (
    'quo"te',
    "apo'strophe",
    "per%cent %s %(x)s",
    "two words ",
    "new\nline",
    "naïve—名前",
    "back\\slash",
    ";DROP DATABASE postgres;--",
    "名" * 21,
    "x" * 63,
)


@dataclasses.dataclass
class Pair:
    """A live database and one that shall take its place; each says in a table which one it is."""

    server: PostgresServer
    state_dir: str
    live: str
    incoming: str
    user: str = "postgres"
    password: str = ""

    def settings(self, **changes: t.Any) -> ConnectionSettings:
        arguments = self.server.connection_arguments(self.live)
        arguments["user"] = self.user
        arguments["password"] = self.password or arguments["password"]
        return ConnectionSettings(**{**arguments, **changes})

    def request(self, **changes: t.Any) -> SwapRequest:
        through = changes.pop("through", {})
        fields: dict[str, t.Any] = {
            "settings": self.settings(**through),
            "incoming": self.incoming,
            "timeout": 10.0,
            "run_id": "test-run",
            "state_dir": self.state_dir,
            "backup_id": "backup_before_migration_0007",
        }
        return SwapRequest(**{**fields, **changes})

    def swap(self, **changes: t.Any) -> swap.Swapped:
        return swap.swap(self.request(**changes))

    def fill(self) -> None:
        for name, text in ((self.live, "live"), (self.incoming, "incoming")):
            self.server.execute(f"CREATE TABLE which AS SELECT '{text}'::text AS one", name)

    def which(self, name: str | None = None) -> str:
        """Which of the two has this name."""
        return str(self.server.execute("SELECT one FROM which", name or self.live)[0][0])

    def names(self) -> dict[str, str]:
        """Which database is which, of those that this test made."""
        found = self.server.execute("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
        return {name: self.which(name) for (name,) in found}

    def kept(self) -> list[Kept]:
        with contextlib.closing(self.server.connect()) as connection, connection.cursor() as cursor:
            return kept_databases(cursor, self.live)

    def as_created(self, name: str) -> str:
        """All that pg_dump -C writes about the database itself and what is in it."""
        text = subprocess.run(
            [self.server.bin_dir / "pg_dump", "--create", "--schema-only", "--dbname", _conninfo(self.server, name)],
            env={**os.environ, "PGPASSWORD": self.server.password},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", text)

    def files(self) -> list[str]:
        return [name for name in os.listdir(self.state_dir) if name.startswith(".swap-")]


def _conninfo(server: PostgresServer, name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"host={server.host} port={server.port} user={server.user} dbname='{escaped}'"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def pairs(server: PostgresServer, tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Make pairs; every database that was not there before is dropped afterwards."""

    def others() -> set[str]:
        return {row[0] for row in server.execute("SELECT datname FROM pg_database")}

    before = others()

    def make(live: str = "", incoming: str = "") -> Pair:
        live = live or f"shop_{secrets.token_hex(4)}"
        pair = Pair(server, str(tmp_path), live, incoming or live.encode()[:30].decode(errors="ignore") + "_restore")
        server.create_database(pair.live)
        server.create_database(pair.incoming)
        pair.fill()
        return pair

    yield make
    if not server.running:
        server.start()
    for name in others() - before:
        server.drop_database(name)


@pytest.fixture
def pair(pairs: Callable[..., Pair]) -> Pair:
    return pairs()


@pytest.fixture
def role(server: PostgresServer) -> Iterator[Callable[..., str]]:
    """Make roles; they and what they own are dropped before the databases are."""
    made: list[str] = []

    def make(options: str = "LOGIN") -> str:
        name = f"role {secrets.token_hex(4)}"
        server.execute(f"CREATE ROLE {quoted(name)} {options}")
        made.append(name)
        return name

    yield make
    for name in made:
        for (database,) in server.execute("SELECT datname FROM pg_database WHERE datallowconn"):
            server.execute(f"REASSIGN OWNED BY {quoted(name)} TO postgres", database)
            server.execute(f"DROP OWNED BY {quoted(name)}", database)
    for name in made:
        server.execute(f"DROP ROLE {quoted(name)}")


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def repeating(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do work in a thread again and again, until the block ends; what it raises is raised here."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                work(stop)
        except BaseException as err:  # noqa: BLE001 - raised again in the test's own thread
            raised.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(SECONDS)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


@contextlib.contextmanager
def never_without_its_name(pair: Pair) -> Iterator[None]:
    """Ask for the name all the time."""
    with contextlib.closing(pair.server.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        asked = [0]

        def ask(_stop: threading.Event) -> None:
            cursor.execute("SELECT count(*) FROM pg_database WHERE datname = %s", (pair.live,))
            assert cursor.fetchall() == [(1,)]
            asked[0] += 1

        with repeating(ask):
            yield
        assert asked[0] > 0


def unchanged(pair: Pair) -> None:
    assert pair.names() == {pair.live: "live", pair.incoming: "incoming"}
    assert pair.files() == []


# --- what it does ----------------------------------------------------------------------------------------------------


def test_the_incoming_database_is_live_and_the_replaced_one_is_kept(pair: Pair) -> None:
    with never_without_its_name(pair):
        done = pair.swap()
    assert re.fullmatch(re.escape(pair.live) + r"_replaced_\d{8}_\d{6}", done.kept)
    assert pair.names() == {pair.live: "incoming", done.kept: "live"}
    (kept,) = pair.kept()
    assert (kept.name, kept.backup_id, kept.run_id) == (done.kept, "backup_before_migration_0007", "test-run")
    assert (kept.bytes or 0) > 1_000_000
    assert pair.server.execute(f"SELECT pg_xact_status('{done.xid}')") == [("committed",)]
    assert pair.files() == []
    (comment,) = pair.server.execute(f"SELECT shobj_description({kept.oid}, 'pg_database')")[0]
    first = f"cypher.rollback: replaced by backup_before_migration_0007 in run test-run at {kept.replaced_at}; was {pair.live}"
    assert comment.splitlines()[0] == first


def test_whoever_was_connected_is_ended_and_told(pair: Pair) -> None:
    with (
        contextlib.closing(pair.server.connect(pair.live, application_name="web")) as one,
        contextlib.closing(pair.server.connect(pair.incoming, application_name="psql")) as other,
    ):
        done = pair.swap()
        assert {(item["application"], item["database"]) for item in done.ended} == {
            ("web", pair.live),
            ("psql", pair.incoming),
        }
        for connection in (one, other):
            with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
    assert done.fenced < 2


def test_swapping_back_leaves_every_property_as_it_was(pair: Pair, role: Callable[..., str]) -> None:
    owner, reader = role("LOGIN"), role("LOGIN")
    live = quoted(pair.live)
    for statement in (
        f"ALTER DATABASE {live} OWNER TO {quoted(owner)}",
        f"REVOKE CONNECT ON DATABASE {live} FROM PUBLIC",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {live} TO {quoted(reader)} WITH GRANT OPTION",
        f'ALTER DATABASE {live} SET search_path = b2b, "od\'d", public',
        f"ALTER DATABASE {live} SET work_mem = '7MB'",
        f"ALTER ROLE {quoted(reader)} IN DATABASE {live} SET statement_timeout = '3s'",
        f"ALTER DATABASE {live} CONNECTION LIMIT 17",
        f"COMMENT ON DATABASE {live} IS 'the shop''s\nown 100%'",
    ):
        pair.server.execute(statement)
    before = pair.as_created(pair.live)
    done = pair.swap()
    # Without properties of a manifest, the new one has those of the replaced one, and there is nothing else in it.
    assert pair.which() == "incoming"
    assert pair.as_created(pair.live) == before
    assert "7MB" in before
    assert "CONNECTION LIMIT = 17" in before
    back = pair.swap(incoming=pair.kept()[0].name, backup_id="")
    assert pair.which() == "live"
    assert pair.as_created(pair.live) == before
    assert back.kept != done.kept or pair.which(back.kept) == "incoming"
    assert [kept.name for kept in pair.kept()] == [back.kept]


def test_the_live_database_has_the_properties_of_the_manifest(pair: Pair, role: Callable[..., str]) -> None:
    owner = role("LOGIN")
    model = quoted(f"{pair.live}_model")
    pair.server.create_database(f"{pair.live}_model")
    for statement in (
        f"ALTER DATABASE {model} OWNER TO {quoted(owner)}",
        f"ALTER DATABASE {model} SET timezone = 'Europe/Berlin'",
        f"ALTER DATABASE {model} CONNECTION LIMIT 5",
        f"COMMENT ON DATABASE {model} IS 'as recorded'",
    ):
        pair.server.execute(statement)
    with contextlib.closing(pair.server.connect()) as connection, connection.cursor() as cursor:
        recorded = read_properties(cursor, f"{pair.live}_model")
        pair.server.execute(f"ALTER DATABASE {quoted(pair.live)} CONNECTION LIMIT 3")
        ready = swap.check_swap(pair.request(properties=recorded.to_dict()))
        assert any("connection limit" in line for line in ready.changes)
        kept = pair.swap(properties=json.loads(json.dumps(recorded.to_dict()))).kept
        connection.rollback()
        assert read_properties(cursor, pair.live) == recorded
        assert read_properties(cursor, kept).connection_limit == 3
    pair.server.drop_database(f"{pair.live}_model")


def test_a_role_that_is_missing_is_named_before_anybody_is_disconnected(pair: Pair) -> None:
    with contextlib.closing(pair.server.connect()) as connection, connection.cursor() as cursor:
        recorded = {**read_properties(cursor, pair.live).to_dict(), "owner": "gone"}
    with contextlib.closing(pair.server.connect(pair.live)) as other, other.cursor() as cursor:
        for attempt in (swap.check_swap, swap.swap):
            with pytest.raises((Refused, FailedUnchanged), match=r"gone.*rollback_missing_roles"):
                attempt(pair.request(properties=recorded))
        cursor.execute("SELECT 1")
    unchanged(pair)


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_that_a_database_may_have(pairs: Callable[..., Pair], name: str) -> None:
    pair = pairs(name)
    done = pair.swap()
    assert len(done.kept.encode()) <= 63
    assert pair.names() == {name: "incoming", done.kept: "live"}
    assert [kept.name for kept in pair.kept()] == [done.kept]
    # In the same second, so the name of the first one may be taken.
    again = pair.swap(incoming=done.kept)
    assert again.kept != pair.live
    assert pair.names() == {name: "live", again.kept: "incoming"}


def test_a_live_database_that_is_gone_is_one_rename(pair: Pair) -> None:
    pair.server.drop_database(pair.live)
    done = pair.swap()
    assert done.kept == ""
    assert pair.names() == {pair.live: "incoming"}
    assert pair.kept() == []


def test_a_database_closed_to_connections_becomes_one_that_is_open(pair: Pair) -> None:
    pair.server.execute(f"ALTER DATABASE {quoted(pair.incoming)} ALLOW_CONNECTIONS false")
    pair.swap()
    assert pair.which() == "incoming"


def test_only_the_comment_makes_a_database_a_kept_one(pair: Pair) -> None:
    pair.server.create_database(f"{pair.live}_replaced_20260101_000000")
    done = pair.swap()
    assert [kept.name for kept in pair.kept()] == [done.kept]
    comment = pair.server.execute(
        f"SELECT quote_literal(shobj_description(oid, 'pg_database')) FROM pg_database WHERE datname = '{done.kept}'"
    )[0][0]
    pair.server.execute(f"COMMENT ON DATABASE {quoted(pair.live + '_replaced_20260101_000000')} IS {comment}")
    assert [kept.name for kept in pair.kept()] == [done.kept]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_exchanged_is_refused_with_the_setting(pair: Pair) -> None:
    other = quoted(pair.live)
    cases: list[tuple[dict[str, t.Any], str]] = [
        ({"maintenance_db": pair.live}, "rollback_maintenance_db"),
        ({"maintenance_db": "nothing_there"}, "rollback_maintenance_db"),
        ({"incoming": "nothing_there"}, "There is no database nothing_there"),
        ({"incoming": pair.live}, "cannot take the place"),
        ({"incoming": "template1"}, "cannot take the place"),
        ({"kept": pair.incoming}, "already"),
        ({"kept": "名" * 22}, "63 bytes"),
        ({"through": {"dbname": "template1"}}, "rollback_db_name"),
    ]
    for changes, words in cases:
        with pytest.raises(Refused, match=words):
            swap.check_swap(pair.request(**changes))
        with pytest.raises(FailedUnchanged, match=words):
            pair.swap(**changes)
    pair.server.execute(f"ALTER DATABASE {other} IS_TEMPLATE true")
    with pytest.raises(Refused, match="IS_TEMPLATE false"):
        swap.check_swap(pair.request())
    pair.server.execute(f"ALTER DATABASE {other} IS_TEMPLATE false")
    unchanged(pair)


def test_a_database_that_was_kept_for_another_one_is_refused(pairs: Callable[..., Pair]) -> None:
    one, other = pairs(), pairs()
    done = one.swap()
    with pytest.raises(FailedUnchanged, match=f"was kept when {one.live} was replaced"):
        other.swap(incoming=done.kept)


def test_the_check_changes_nothing_and_ends_nobody(pair: Pair) -> None:
    with contextlib.closing(pair.server.connect(pair.live, application_name="web")) as other, other.cursor() as cursor:
        ready = swap.check_swap(pair.request())
        cursor.execute("SELECT 1")
    assert [item["application"] for item in ready.sessions] == ["web"]
    assert ready.kept.startswith(pair.live)
    assert swap.check_swap(pair.request(incoming="")).live == pair.live
    unchanged(pair)


@pytest.fixture
def owner(pair: Pair, role: Callable[..., str]) -> Pair:
    """The pair as an ordinary role sees it that owns both."""
    password = secrets.token_hex(8)
    name = role(f"LOGIN CREATEDB PASSWORD '{password}'")
    for database in (pair.live, pair.incoming):
        pair.server.execute(f"ALTER DATABASE {quoted(database)} OWNER TO {quoted(name)}")
    return dataclasses.replace(pair, user=name, password=password)


def test_an_ordinary_owner_may_exchange(owner: Pair) -> None:
    swap.check_swap(owner.request())
    own: dict[str, t.Any] = {"user": owner.user, "password": owner.password}
    with contextlib.closing(owner.server.connect(owner.live, application_name="web", **own)):
        done = owner.swap()
    assert [item["application"] for item in done.ended] == ["web"]
    assert owner.names() == {owner.live: "incoming", done.kept: "live"}
    owner.swap(incoming=done.kept)
    assert owner.which() == "live"


def test_missing_privileges_are_named_with_the_command(owner: Pair, role: Callable[..., str]) -> None:
    server = owner.server
    server.execute(f"ALTER ROLE {quoted(owner.user)} NOCREATEDB")
    with pytest.raises(Refused, match=r"ALTER ROLE .* CREATEDB"):
        swap.check_swap(owner.request())
    server.execute(f"ALTER ROLE {quoted(owner.user)} CREATEDB")
    server.execute(f"ALTER DATABASE {quoted(owner.live)} OWNER TO postgres")
    with pytest.raises(Refused, match=r"it belongs to postgres.*GRANT postgres TO"):
        swap.check_swap(owner.request())
    with pytest.raises(FailedUnchanged, match="it belongs to postgres"):
        owner.swap()
    server.execute(f"ALTER DATABASE {quoted(owner.live)} OWNER TO {quoted(owner.user)}")
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        recorded = {**read_properties(cursor, owner.live).to_dict(), "owner": role()}
    with pytest.raises(Refused, match=r"GRANT .* TO "):
        swap.check_swap(owner.request(properties=recorded))
    unchanged(owner)


def test_sessions_that_the_role_cannot_end_are_named_and_everybody_is_let_in_again(owner: Pair) -> None:
    with contextlib.closing(owner.server.connect(owner.live, application_name="nightly report")) as other:
        pid = other.get_backend_pid()
        with pytest.raises(Refused, match=f"pid {pid}.*nightly report.*superuser"):
            swap.check_swap(owner.request())
        started = time.monotonic()
        with pytest.raises(
            FailedUnchanged, match=rf"within 1 s \(rollback_swap_timeout\).*pid {pid}.*not ended:"
        ) as caught:
            owner.swap(timeout=1.0)
        assert time.monotonic() - started < 5
        assert [item["pid"] for item in caught.value.details["sessions"]] == [pid]
        with other.cursor() as cursor:
            cursor.execute("SELECT one FROM which")
        unchanged(owner)
    wait_until(lambda: owner.server.execute(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == [(0,)])
    assert owner.swap().kept


def test_a_wait_longer_than_one_rename_goes_on_until_the_session_is_gone(owner: Pair) -> None:
    """PostgreSQL waits five seconds; the deadline is ours."""
    with contextlib.closing(owner.server.connect(owner.live)) as other:
        started = time.monotonic()

        def leave(stop: threading.Event) -> None:
            stop.wait(max(0.0, started + 5.6 - time.monotonic()))
            other.close()

        with repeating(leave):
            done = owner.swap(timeout=20.0)
    assert time.monotonic() - started > 5.5
    assert owner.names() == {owner.live: "incoming", done.kept: "live"}


def test_who_holds_the_lock_on_a_database_is_named(pair: Pair) -> None:
    with contextlib.closing(pair.server.connect(application_name="by hand")) as other, other.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {quoted(pair.live)} RENAME TO {quoted(pair.live + '_x')}")
        with pytest.raises(FailedUnchanged, match=f"pid {other.get_backend_pid()}.*by hand.*pg_terminate_backend"):
            pair.swap(timeout=1.0)
        other.rollback()
    unchanged(pair)


def test_a_look_after_the_wait_has_ended_forgets_nobody(pair: Pair) -> None:
    request = pair.request()
    with contextlib.closing(pair.server.connect(application_name="by hand")) as other, other.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {quoted(pair.live)} RENAME TO {quoted(pair.live + '_x')}")
        with contextlib.closing(pair.server.connect()) as waiting, waiting.cursor() as waits:
            oids = [
                oid
                for (oid,) in pair.server.execute(f"SELECT oid::int8 FROM pg_database WHERE datname = '{pair.live}'")
            ]
            with eviction.Eviction(request.there, oids, waiting.get_backend_pid()) as evicting:
                waits.execute("SET statement_timeout = '500ms'")
                with pytest.raises(psycopg2.errors.QueryCanceled):
                    waits.execute(f"ALTER DATABASE {quoted(pair.live)} RENAME TO other")
                evicting.stop()
                evicting._look()
                assert [item["pid"] for item in evicting.blocking] == [other.get_backend_pid()]
        other.rollback()


def test_a_prepared_transaction_is_named_with_the_command_that_ends_it(server: PostgresServer, tmp_path: Path) -> None:
    with PostgresServer(server.original_bin_dir, settings={"max_prepared_transactions": 2}) as own:
        pair = Pair(own, str(tmp_path), "shop", "restored")
        own.create_database("shop")
        own.create_database("restored")
        pair.fill()
        with contextlib.closing(own.connect("shop")) as other, other.cursor() as cursor:
            cursor.execute("BEGIN; DELETE FROM which; PREPARE TRANSACTION 'forgotten'")
        for attempt in (swap.check_swap, swap.swap):
            with pytest.raises((Refused, FailedUnchanged), match=r"'forgotten' of postgres in shop.*ROLLBACK PREPARED"):
                attempt(pair.request())
        unchanged(pair)
        own.execute("ROLLBACK PREPARED 'forgotten'", "shop")
        assert pair.swap().kept


def test_what_stays_with_the_replaced_database_is_said(server: PostgresServer, tmp_path: Path) -> None:
    with PostgresServer(server.original_bin_dir, settings={"wal_level": "logical"}) as own:
        pair = Pair(own, str(tmp_path), "shop", "restored")
        own.create_database("shop")
        own.create_database("restored")
        pair.fill()
        own.execute("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')", "shop")
        own.execute("CREATE SUBSCRIPTION news CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)", "shop")
        warnings = swap.check_swap(pair.request()).warnings
        for words in ("slots feed stay", "subscriptions news stay"):
            assert any(words in warning for warning in warnings)
        feed = psycopg2.connect(
            **own.connection_arguments("shop"),
            connection_factory=psycopg2.extras.LogicalReplicationConnection,
            application_name="feed",
        )
        with contextlib.closing(feed) as consumer, consumer.cursor() as cursor:
            cursor.start_replication("feed", options={"proto_version": 1, "publication_names": "p"}, decode=False)
            done = pair.swap()
        assert "feed" in {item["application"] for item in done.ended}
        assert done.warnings == warnings
        assert pair.which() == "incoming"
        own.execute("ALTER SUBSCRIPTION news SET (slot_name = NONE)", done.kept)


def test_the_second_of_two_exchanges_is_refused_and_names_the_first(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "LOCK_SECONDS", 0.2)
    with contextlib.closing(
        pair.server.connect(application_name="cypher.rollback swap first", autocommit=True)
    ) as first:
        with first.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (swap.LOCK_KEY, pair.live))
        with pytest.raises(FailedUnchanged, match=rf"cypher\.rollback swap first \(pid {first.get_backend_pid()}\)"):
            pair.swap()
    unchanged(pair)


# --- clients that come again -----------------------------------------------------------------------------------------


def test_clients_that_keep_reconnecting_do_not_keep_it_from_ending(pair: Pair) -> None:
    arguments = pair.server.connection_arguments(pair.live)
    seen: list[str] = []
    refused: list[str] = []

    def client(_stop: threading.Event) -> None:
        try:
            with contextlib.closing(psycopg2.connect(**arguments, application_name="pool")) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    while not _stop.is_set():
                        cursor.execute("SELECT one FROM which")
                        seen.append(cursor.fetchall()[0][0])
        except psycopg2.OperationalError as err:
            refused.append(str(err))

    with contextlib.ExitStack() as clients:
        for _number in range(6):
            clients.enter_context(repeating(client))
        wait_until(lambda: seen)
        with never_without_its_name(pair):
            done = pair.swap()
        wait_until(lambda: seen[-1] == "incoming")
    assert done.fenced < 3
    assert "pool" in {item["application"] for item in done.ended}
    # Nobody was ever told that there is no such database, without the reason.
    assert all("just been dropped or renamed" in text for text in refused if "does not exist" in text)
    # Who saw the new one never saw the old one again.
    assert "live" not in seen[seen.index("incoming") + 12 :]


# --- what dies in the middle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["immediate", "fast", "kill"])
def test_a_server_that_stops_in_the_middle_has_everything_when_it_is_back(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with PostgresServer(server.original_bin_dir, durable=True) as own:
        pair = Pair(own, str(tmp_path), "shop", "restored")
        own.create_database("shop")
        own.create_database("restored")
        pair.fill()
        prove = swap._Swap._prove

        def prove_and_stop(self: t.Any, cursor: t.Any) -> None:
            prove(self, cursor)
            own.kill() if how == "kill" else own.stop(how)

        with monkeypatch.context() as patch:
            patch.setattr(swap._Swap, "_prove", prove_and_stop)
            with pytest.raises(FailedUnchanged, match="were not exchanged"):
                pair.swap()
        own.start()
        unchanged(pair)
        done = pair.swap()
        own.kill()
        own.start()
        assert pair.names() == {"shop": "incoming", done.kept: "live"}


def test_a_terminated_backend_changes_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    prove = swap._Swap._prove

    def prove_and_end(self: t.Any, cursor: t.Any) -> None:
        prove(self, cursor)
        pair.server.execute(f"SELECT pg_terminate_backend({self._connection.get_backend_pid()}, 5000)")

    monkeypatch.setattr(swap._Swap, "_prove", prove_and_end)
    with pytest.raises(FailedUnchanged, match="were not exchanged"):
        pair.swap()
    unchanged(pair)


@pytest.fixture
def cut(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Callable[..., t.ContextManager[dict[str, t.Any]]]:
    """Run through a proxy that cuts the connection at COMMIT."""
    monkeypatch.setattr(commit, "COMMIT_ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(commit, "_PAUSE_SECONDS", 0.05)

    @contextlib.contextmanager
    def make(**how: t.Any) -> Iterator[dict[str, t.Any]]:
        with TcpProxy(pair.server.host, pair.server.port, **how) as proxy:
            yield {"port": proxy.port, "sslmode": "disable"}
            assert proxy.cuts == 1

    return make


def test_a_lost_answer_to_a_commit_that_happened_is_a_success(pair: Pair, cut: t.Any) -> None:
    with cut(cut="after") as through:
        done = pair.swap(through=through)
    assert pair.names() == {pair.live: "incoming", done.kept: "live"}
    assert pair.files() == []


def test_a_lost_commit_that_did_not_happen_changes_nothing(pair: Pair, cut: t.Any) -> None:
    with cut(cut="before") as through, pytest.raises(FailedUnchanged, match=r"was rolled back.*were not exchanged"):
        pair.swap(through=through)
    unchanged(pair)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_without_a_server_to_ask_the_outcome_is_unknown_and_the_next_run_tells_it(
    pair: Pair, cut: t.Any, moment: str
) -> None:
    with cut(cut=moment, refuse_afterwards=True) as through, pytest.raises(OutcomeUnknown) as caught:
        pair.swap(through=through)
    query = caught.value.details["query"]
    assert query in str(caught.value)
    names = [name for _oid, name in pair.server.execute(query)]
    assert (pair.incoming in names) == (moment == "before")
    (path,) = pair.files()
    assert os.stat(os.path.join(pair.state_dir, path)).st_mode & 0o777 == 0o600
    (said,) = swap.heal(pair.settings(), "postgres", pair.state_dir)
    assert ("before its COMMIT: it changed nothing" if moment == "before" else "after its COMMIT") in said
    assert pair.which() == {"before": "live", "after": "incoming"}[moment]
    assert swap.heal(pair.settings(), "postgres", pair.state_dir) == []


def test_a_torn_file_is_no_obstacle(pair: Pair) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap.SwapFile, "remove", lambda _file: None)
        kept = pair.swap().kept
    (path,) = pair.files()
    with open(os.path.join(pair.state_dir, path), "r+", encoding="utf-8") as torn:
        torn.truncate(20)
    done = pair.swap(incoming=kept)
    assert any("killed" in warning for warning in done.warnings)
    assert pair.which() == "live"
    assert pair.files() == []


CHILD = """
import json, sys
from ansible_collections.cypher.rollback.plugins.module_utils import swap
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
given = json.loads(sys.stdin.readline())
if given.pop("stay"):
    def stay(*_arguments):
        print("inside", flush=True)
        sys.stdin.readline()
    swap._Swap._prove = stay
settings = ConnectionSettings(**given.pop("settings"))
print("ready", flush=True)
sys.stdin.readline()
print(swap.swap(swap.SwapRequest(settings=settings, **given)).kept, flush=True)
"""


@contextlib.contextmanager
def child(pair: Pair, incoming: str, stay: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that exchanges when it reads another line."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given = {
        "settings": pair.server.connection_arguments(pair.live),
        "incoming": incoming,
        "state_dir": pair.state_dir,
        "run_id": "killed",
        "timeout": 10.0,
        "stay": stay,
    }
    try:
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def swappers(pair: Pair) -> int:
    return int(
        pair.server.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'cypher.rollback%'")[0][
            0
        ]
    )


def test_killed_between_the_renames_and_the_commit_it_leaves_nothing(pair: Pair) -> None:
    with child(pair, pair.incoming, stay=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        waiting: list[str] = []
        client = threading.Thread(target=lambda: waiting.append(pair.which()))
        client.start()
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        client.join(SECONDS)
    # Who knocked meanwhile is let in to the database as it was.
    assert waiting == ["live"]
    assert time.monotonic() - killed < 3
    assert pair.names() == {pair.live: "live", pair.incoming: "incoming"}
    assert len(pair.files()) == 1
    done = pair.swap()
    assert any("run killed" in warning and "changed nothing" in warning for warning in done.warnings)
    assert pair.files() == []


def test_killed_at_ten_random_moments_it_is_done_or_not_begun_and_a_second_run_succeeds(pair: Pair) -> None:
    moments = random.Random(20260213)  # noqa: S311 - moments of a test, the same each time
    with child(pair, pair.incoming) as process:
        assert process.stdout is not None
        started = time.monotonic()
        incoming = process.stdout.readline().rstrip("\n")
        whole = time.monotonic() - started
    assert incoming
    outcomes = []
    with never_without_its_name(pair):
        for _number in range(10):
            expected = {"live": "incoming", "incoming": "live"}[pair.which()]
            with child(pair, incoming) as process:
                time.sleep(moments.uniform(0, whole * 1.1))
                process.send_signal(signal.SIGKILL)
            wait_until(lambda: swappers(pair) == 0, 8)
            happened = pair.which() == expected
            outcomes.append(happened)
            assert set(pair.names().values()) == {"live", "incoming"}
            if happened:
                incoming = pair.kept()[0].name
            before = pair.which()
            pair.swap(incoming=incoming)
            assert pair.which() != before
            assert pair.files() == []
            incoming = pair.kept()[0].name
    print("done or not begun:", outcomes, "a whole one:", round(whole, 3))
    assert len(outcomes) == 10


# --- the module ------------------------------------------------------------------------------------------------------


def run_module(pair: Pair, check_mode: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
    """What the module returns."""
    given = {**pair.server.login(pair.live), "run_dir": pair.state_dir, "run_id": "r1", **arguments}

    def make(**rules: t.Any) -> InProcessModule:
        return InProcessModule(given, check_mode, **rules)

    with pytest.raises(Exit) as end:
        db_swap.main(make)
    return end.value.result


def test_the_module_exchanges_and_exchanges_back(pair: Pair) -> None:
    would = run_module(pair, check_mode=True, incoming=pair.incoming)
    assert would["changed"]
    assert not would["swapped"]
    unchanged(pair)
    done = run_module(pair, incoming=pair.incoming, backup_id="b7")
    assert (done["changed"], done["swapped"], done["live"]) == (True, True, pair.live)
    assert pair.names() == {pair.live: "incoming", done["kept"]: "live"}
    assert f"{done['kept']}: the database that is replaced\n" in done["diff"]["after"]
    assert run_module(pair, check_mode=True, back=True)["incoming"] == done["kept"]
    back = run_module(pair, back=True)
    assert back["incoming"] == done["kept"]
    assert pair.which() == "live"


def test_the_module_says_the_outcome(pair: Pair) -> None:
    missing = run_module(pair, incoming="nothing_there")
    assert (missing["failed"], missing["changed"], missing["outcome"]) == (True, False, "failed_unchanged")
    assert run_module(pair, check_mode=True, incoming="nothing_there")["outcome"] == "refused"
    none = run_module(pair, back=True)
    assert none["outcome"] == "refused"
    assert f"No database that once was {pair.live}" in none["msg"]
    both_or_none: list[dict[str, t.Any]] = [{}, {"incoming": "x", "back": True}]
    for wrong in both_or_none:
        assert "either incoming or back" in run_module(pair, **wrong)["msg"]
    unchanged(pair)
