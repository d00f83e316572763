# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup that is taken before the stop is confirmed during it, or gives way to another one."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import shutil
import typing as t

import psycopg2.errors
import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    early,
    manifest,
    readiness,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused

from tests.support.backups import (
    ROWS,
    SCHEMA,
    leaves_nothing,
    plain_role,
    small_device,
    with_pg_dump,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Database

#: Types whose own hash functions take different values for one.
VALUES = """
CREATE TYPE state AS ENUM ('new', 'paid');
CREATE TYPE pair AS (a numeric, b text);
CREATE DOMAIN amount AS numeric CHECK (VALUE IS NOT NULL);
CREATE TABLE b2b.kinds (
    id int, n numeric, i8 int8, f float8, span interval, doc jsonb, words text[], c char(3), bp bpchar, raw bytea,
    s state, p pair, d amount, t text, at timestamptz, r int4range, net inet);
INSERT INTO b2b.kinds VALUES
    (1, 5, -1, 0, '1 day', '{"a": 1.0}', '{a,b}', 'a', 'a', '\x01', 'new', (1, 'x'), 1, NULL, '2026-01-01 00:00Z', '[1,3)', '::1'),
    (2, 7, 2, 1, '2 days', '{"a": 2}', '{}', 'b', 'b', '\x02', 'paid', (2, NULL), 2, '', '2026-01-02 00:00Z', '[2,4)', '::2');
"""


@pytest.fixture
def backup_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def request_for(database: Database, backup_dir: pathlib.Path) -> readiness.BackupRequest:
    database.execute(SCHEMA)
    return readiness.BackupRequest(
        ConnectionSettings(**database.connection_arguments()),
        str(backup_dir),
        version="0003",
        bin_dir=str(database.server.bin_dir),
    )


def take_early(request: readiness.BackupRequest) -> backup.Backup:
    return early.take_early(dataclasses.replace(request, run_id="run-1"))


def confirm(request: readiness.BackupRequest, taken: backup.Backup) -> backup.Backup:
    return early.confirm_or_take(dataclasses.replace(request, run_id="run-1"), taken.path)


def test_an_early_backup_is_confirmed_where_nothing_changed(
    request_for: readiness.BackupRequest, backup_dir: pathlib.Path, database: Database
) -> None:
    database.execute(VALUES)
    taken = take_early(request_for)
    # None of these changes what a dump holds.
    database.execute("SELECT pg_stat_reset()")
    database.execute("VACUUM FULL b2b.orders")
    database.execute("ANALYZE")
    database.execute("REFRESH MATERIALIZED VIEW matview")
    database.execute("UPDATE b2b.orders SET note = note WHERE id < 10")
    database.execute("BEGIN; DELETE FROM b2b.orders; ROLLBACK")
    with contextlib.closing(database.connect(autocommit=True)) as other, other.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE scratch (id serial PRIMARY KEY, t text CHECK (t <> '') DEFAULT 'x')")
        confirmed = confirm(request_for, taken)
    assert confirmed.confirmed_at
    assert not confirmed.stale
    assert (confirmed.id, confirmed.path, confirmed.bytes) == (taken.id, taken.path, taken.bytes)
    assert confirmed.tables == {**ROWS, "b2b.kinds": 2}
    assert [entry.name for entry in backup_dir.iterdir()] == [taken.id]
    assert "exactly as it is now" in confirmed.describe()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("INSERT INTO b2b.orders VALUES (9999, 'one more')", "b2b.orders had 5000 rows and has 5001"),
        ("DELETE FROM b2b.orders WHERE id = 7", "b2b.orders had 5000 rows and has 4999"),
        ("TRUNCATE b2b.orders", "b2b.orders had 5000 rows and has 0"),
        ("UPDATE b2b.orders SET note = 'other' WHERE id = 7", "b2b.orders has as many rows"),
        ("UPDATE b2b.orders SET id = 5002 - id WHERE id = 2501 OR id IN (1, 5001)", "b2b.orders has as many rows"),
        ("WITH a AS (UPDATE b2b.orders SET note = 'order 9' WHERE id = 8) UPDATE b2b.orders SET note = 'order 8' WHERE id = 9",
         "b2b.orders has as many rows"),
        ("DELETE FROM leaf_2; INSERT INTO leaf VALUES (1)", "public.leaf"),
        ("INSERT INTO public.only_generated DEFAULT VALUES", "only_generated had 1 rows and has 2"),
        ("SELECT nextval('numbers')", "sequence public.numbers moved"),
        ("ALTER SEQUENCE numbers INCREMENT 5", "definitions in pg_sequence"),
        ("CREATE TABLE b2b.more (a int)", "b2b.more is new"),
        ("DROP TABLE b2b.empty CASCADE", "b2b.empty is gone"),
        ("ALTER TABLE b2b.orders RENAME TO purchases", "b2b.orders is gone"),
        ("ALTER TABLE b2b.orders ADD CHECK (id > 0)", "definitions in pg_constraint"),
        ("COMMENT ON TABLE b2b.orders IS 'x'", "definitions in pg_description"),
        ("ALTER TABLE b2b.orders ALTER note SET STORAGE EXTERNAL", "definitions in pg_attribute"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "definitions in pg_proc"),
        ("GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO PUBLIC", "definitions in pg_"),
        ("ALTER TABLE b2b.orders OWNER TO pg_monitor", "definitions in pg_class"),
        ("SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), 1, 'x')", "large objects changed"),
        ("SELECT lo_from_bytea(0, '')", "large objects|pg_largeobject_metadata"),
    ],
)  # fmt: skip
def test_an_early_backup_gives_way_where_anything_changed(
    request_for: readiness.BackupRequest, backup_dir: pathlib.Path, database: Database, change: str, says: str
) -> None:
    taken = take_early(request_for)
    # Neither of these hints is there any more: the content alone tells.
    database.execute(change)
    database.execute("SELECT pg_stat_reset()")
    fresh = confirm(request_for, taken)
    assert re.search(says, "; ".join(fresh.stale)), fresh.stale
    assert not fresh.confirmed_at
    assert any("of no use" in warning for warning in fresh.warnings)
    assert fresh.id != taken.id
    assert [entry.name for entry in backup_dir.iterdir()] == [fresh.id]
    assert manifest.verify(fresh.path, manifest.load(fresh.path)) == []
    counted = (
        "SELECT count(*) FROM b2b.orders" if "b2b.orders is gone" not in says else "SELECT count(*) FROM b2b.purchases"
    )
    assert fresh.tables.get("b2b.orders", fresh.tables.get("b2b.purchases")) == database.execute(counted)[0][0]


@pytest.mark.parametrize(
    "change",
    [
        "n = -n",
        "n = 5.00 WHERE id = 1",
        "n = n + 1e-30",
        "i8 = 4294967295 WHERE id = 1",
        "f = '-0' WHERE id = 1",
        "span = '24 hours' WHERE id = 1",
        """doc = '{"a": 1.00}' WHERE id = 1""",
        "words = '{b,a}' WHERE id = 1",
        "words = '{NULL}' WHERE id = 2",
        "bp = 'a ' WHERE id = 1",
        "raw = '' WHERE id = 1",
        "s = 'paid' WHERE id = 1",
        "p = (1.0, 'x') WHERE id = 1",
        "p = NULL WHERE id = 2",
        "d = -d",
        "t = '' WHERE id = 1",
        "t = NULL",
        "at = at + interval '1 microsecond'",
        "r = '[1,4)' WHERE id = 1",
        "net = '::1/64' WHERE id = 1",
        "n = 12 - n",
        "i8 = 1 - i8",
    ],
)
def test_no_other_value_passes_for_the_one_that_was_there(
    request_for: readiness.BackupRequest, database: Database, change: str
) -> None:
    database.execute(VALUES)
    taken = take_early(request_for)
    database.execute(f"UPDATE b2b.kinds SET {change}")
    assert confirm(request_for, taken).stale[0] == "b2b.kinds has as many rows, and not the same"


def test_a_collation_that_takes_cases_for_one_hides_nothing(
    request_for: readiness.BackupRequest, database: Database
) -> None:
    try:
        database.execute("CREATE COLLATION cases (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg2.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL is built without ICU")
    database.execute("CREATE TABLE b2b.names (name text COLLATE cases); INSERT INTO b2b.names VALUES ('abc')")
    taken = take_early(request_for)
    database.execute("UPDATE b2b.names SET name = 'ABC'")
    assert confirm(request_for, taken).stale[0] == "b2b.names has as many rows, and not the same"


def test_two_rows_that_exchange_a_value_are_not_the_same_rows(
    request_for: readiness.BackupRequest, database: Database
) -> None:
    """Hashes of rows are linear in those of their columns, and so would be a sum of them."""
    database.execute(
        "CREATE TABLE b2b.prices (id int, price int); INSERT INTO b2b.prices SELECT i, i FROM generate_series(1, 1000) i"
    )
    taken = take_early(request_for)
    database.execute("UPDATE b2b.prices SET price = CASE id WHEN 1 THEN 2 ELSE 1 END WHERE id IN (1, 2)")
    assert confirm(request_for, taken).stale[0] == "b2b.prices has as many rows, and not the same"


def test_a_sequence_that_moves_during_the_early_backup_spoils_it(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, database: Database
) -> None:
    arguments = database.connection_arguments()
    psql = f"{request_for.bin_dir}/psql -X -h {arguments['host']} -p {arguments['port']} -U {arguments['user']} {database.name}"
    script = (
        f"""PGPASSWORD={arguments["password"]} {psql} -c "SELECT nextval('numbers')" >/dev/null; exec "$REAL" "$@" """
    )
    taken = take_early(with_pg_dump(request_for, tmp_path, script))
    assert "while it was taken, the sequence public.numbers changed" in confirm(request_for, taken).stale[0]


@pytest.mark.parametrize("also_wrong", [False, True])
def test_files_of_the_early_backup_are_read_again_where_they_were_touched(
    request_for: readiness.BackupRequest, also_wrong: bool
) -> None:
    taken = take_early(request_for)
    file = max(pathlib.Path(taken.path, "dump").glob("[0-9]*.dat"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[100] ^= also_wrong
    file.write_bytes(content)
    after = confirm(request_for, taken)
    if also_wrong:
        assert "wrong checksum" in after.stale[0]
        assert manifest.verify(after.path, manifest.load(after.path)) == []
    else:
        assert after.confirmed_at


def _remove(path: pathlib.Path) -> None:
    shutil.rmtree(path)


def _spoil(path: pathlib.Path) -> None:
    text = (path / "manifest.json").read_text("utf-8")
    (path / "manifest.json").write_text(text.replace('"seed"', '"sead"'), "utf-8")


def _other_run(path: pathlib.Path) -> None:
    text = (path / "manifest.json").read_text("utf-8")
    (path / "manifest.json").write_text(text.replace('"run-1"', '"run-2"'), "utf-8")


@pytest.mark.parametrize(
    ("spoil", "says"), [(_remove, "cannot be read"), (_spoil, "proof in the manifest"), (_other_run, "another run")]
)
def test_an_early_backup_that_is_none_gives_way(
    request_for: readiness.BackupRequest, spoil: Callable[[pathlib.Path], None], says: str
) -> None:
    taken = take_early(request_for)
    spoil(pathlib.Path(taken.path))
    assert says in confirm(request_for, taken).stale[0]


def test_without_room_for_two_the_stale_one_goes_first(
    request_for: readiness.BackupRequest, database: Database, tmp_path: pathlib.Path
) -> None:
    database.execute("CREATE TABLE big AS SELECT repeat(md5(i::text), 30) AS t FROM generate_series(1, 20000) i")
    ((size,),) = database.execute("SELECT pg_database_size(current_database())")
    with small_device(tmp_path / "small", size // 1024 // 1024 + 18) as folder:
        request = dataclasses.replace(request_for, backup_dir=str(folder))
        taken = take_early(request)
        database.execute("DELETE FROM b2b.orders WHERE id = 7")
        fresh = confirm(request, taken)
        assert fresh.stale
        # Also where both were taken within one second, so that the new one has the name of the old one.
        assert [str(item) for item in folder.iterdir()] == [fresh.path]


def test_an_early_backup_that_fails_is_a_refusal(
    request_for: readiness.BackupRequest, tmp_path: pathlib.Path, backup_dir: pathlib.Path
) -> None:
    with pytest.raises(Refused, match=r"pg_dump was killed.*Nothing was stopped.*rollback_backup_early_bytes"):
        take_early(with_pg_dump(request_for, tmp_path, "kill -9 $$"))
    assert leaves_nothing(backup_dir)


def test_a_lock_during_the_comparison_names_its_holder(
    request_for: readiness.BackupRequest, database: Database
) -> None:
    taken = take_early(request_for)
    with contextlib.closing(database.connect(application_name="the holder")) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE b2b.orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(FailedUnchanged, match=r"locked.*the holder"):
            confirm(dataclasses.replace(request_for, lock_timeout="300ms"), taken)
    assert pathlib.Path(taken.path).is_dir()


def test_an_ordinary_role_can_do_both(request_for: readiness.BackupRequest, database: Database) -> None:
    with plain_role(database, request_for) as request:
        taken = take_early(request)
        assert confirm(request, taken).confirmed_at
        database.execute("UPDATE b2b.orders SET note = '' WHERE id = 1")
        assert confirm(request, taken).stale[0] == "b2b.orders has as many rows, and not the same"
