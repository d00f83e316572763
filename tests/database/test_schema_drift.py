# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a DOWN the schema is that of the backup before its migration, or the difference is named."""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.backup import take_backup
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged
from ansible_collections.cypher.rollback.plugins.module_utils.readiness import BackupRequest
from ansible_collections.cypher.rollback.plugins.module_utils.schema_drift import REFUSE, DriftOptions

from tests.support.engine import SHOP, Engine

if t.TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.cypher.rollback.plugins.module_utils.execute import Execution

    from tests.conftest import Database

#: What a definition may be written with in the session's own time zone and styles.
WRITTEN = """
CREATE TABLE app.months (at timestamptz, span interval DEFAULT '1 day 2 hours', x float8 DEFAULT 0.1, b bytea DEFAULT '\\x00ff')
    PARTITION BY RANGE (at);
CREATE TABLE app.january PARTITION OF app.months FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00');
"""
UP = "CREATE TABLE app.vouchers (id int PRIMARY KEY); ALTER TABLE app.orders ADD voucher int, ADD code text;"
DOWN = "ALTER TABLE app.orders DROP COLUMN voucher, DROP COLUMN code; DROP TABLE app.vouchers;"
FORGETS = "ALTER TABLE app.orders DROP COLUMN voucher; DROP TABLE app.vouchers;"


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Engine:
    (tmp_path / "migrations").mkdir()
    made = Engine(database, tmp_path / "migrations")
    made.script(SHOP + WRITTEN)
    return made


@pytest.fixture
def backup_dir(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def back_up(engine: Engine, backup_dir: Path, version: str = "0001", **options: t.Any) -> Path:
    request = BackupRequest(
        engine.settings,
        str(backup_dir),
        kind="before_migration",
        version=version,
        bin_dir=str(engine.database.server.bin_dir),
        **options,
    )
    return backup_dir / take_backup(request).id


def roll_back(engine: Engine, backup_dir: Path, down: str, **options: t.Any) -> Execution:
    """The DOWN as migration 0001, compared with what is in the folder."""
    drift = DriftOptions(str(backup_dir), options.pop("key", ""), options.pop("on_drift", "warn"))
    return engine.rollback(down, drift=drift, **options)


def schema_check(done: Execution) -> tuple[str, str]:
    (check,) = (check for check in done.checks if check.name.startswith("schema as before migration"))
    return check.status, check.actual


def is_compared(done: Execution) -> bool:
    return done.schema_drift is not None


@pytest.mark.parametrize("content", [False, True])
def test_a_down_that_takes_back_everything_passes_in_any_time_zone(
    engine: Engine, backup_dir: Path, content: bool
) -> None:
    taken = back_up(engine, backup_dir, content=content)
    engine.script(UP)
    engine.script(f"ALTER DATABASE {engine.database.name} SET timezone = 'Asia/Tokyo'")
    engine.script(f"ALTER DATABASE {engine.database.name} SET intervalstyle = 'iso_8601'")
    done = roll_back(engine, backup_dir, DOWN, on_drift=REFUSE)
    assert schema_check(done) == ("passed", "no difference")
    assert done.schema_drift is not None
    assert (done.schema_drift["backup"], done.schema_drift["extra"]) == (taken.name, [])
    assert done.warnings == ()


@pytest.mark.parametrize("preview", [True, False])
def test_what_the_down_forgot_is_named(engine: Engine, backup_dir: Path, preview: bool) -> None:
    taken = back_up(engine, backup_dir)
    engine.script(UP)
    done = roll_back(engine, backup_dir, FORGETS, preview=preview)
    assert done.committed is not preview
    assert schema_check(done) == ("information", "extra: table column app.orders.code")
    (warning,) = done.warnings
    for part in (taken.name, "table column app.orders.code", "rollback_schema_drift"):
        assert part in warning


def test_with_refuse_nothing_is_committed(engine: Engine, backup_dir: Path) -> None:
    taken = back_up(engine, backup_dir)
    engine.script(UP)
    before = engine.state()
    with pytest.raises(FailedUnchanged, match=r"app\.orders\.code.*rollback_schema_drift: warn") as caught:
        roll_back(engine, backup_dir, FORGETS, on_drift=REFUSE)
    assert engine.state() == before
    assert f"schema as before migration 0001 (backup {taken.name})" in str(caught.value)
    assert caught.value.details["schema_drift"]["extra"] == ["table column app.orders.code"]


def test_what_somebody_changed_meanwhile_is_told_apart(engine: Engine, backup_dir: Path) -> None:
    back_up(engine, backup_dir)
    engine.script(UP)
    engine.script(
        "CREATE TABLE app.by_hand (id serial PRIMARY KEY); DROP VIEW app.order_report; GRANT SELECT ON app.lines TO PUBLIC;"
        "ALTER TABLE app.customers ALTER name SET NOT NULL; ALTER TABLE app.customers DROP CONSTRAINT customers_pkey CASCADE"
    )
    done = roll_back(engine, backup_dir, DOWN)
    assert done.schema_drift is not None
    assert {"table app.by_hand", "sequence app.by_hand_id_seq"} <= set(done.schema_drift["extra"])
    assert {"view app.order_report", "index app.customers_pkey"} <= set(done.schema_drift["missing"])
    assert {"table app.lines", "table column app.customers.name"} <= set(done.schema_drift["different"])
    _status, actual = schema_check(done)
    # From PostgreSQL 18 on, NOT NULL is a constraint with a name.
    assert re.search(
        r"extra: table app\.by_hand(, table constraint customers_name_not_null on app\.customers)?; missing: ", actual
    )


def test_of_many_differences_twenty_are_shown_and_all_are_kept(engine: Engine, backup_dir: Path) -> None:
    back_up(engine, backup_dir)
    engine.script(UP + "".join(f"CREATE TABLE app.t{number} (id int PRIMARY KEY);" for number in range(30)))
    done = roll_back(engine, backup_dir, DOWN)
    _status, actual = schema_check(done)
    assert actual.count("table app.t") == 20
    assert "and 10 more" in actual
    assert done.schema_drift is not None
    # Table, primary key, index.
    assert len(done.schema_drift["extra"]) >= 90


def test_of_several_migrations_the_oldest_ones_backup_counts(engine: Engine, backup_dir: Path) -> None:
    oldest = back_up(engine, backup_dir, "0001")
    engine.script("CREATE TABLE app.first (id int)")
    back_up(engine, backup_dir, "0002")
    engine.script("CREATE TABLE app.second (id int)")
    engine.migration("0001", "DROP TABLE app.first;")
    engine.migration("0002", "DROP TABLE app.second;")
    done = engine.execute(None, to_version="0", drift=DriftOptions(str(backup_dir), "", REFUSE))
    assert schema_check(done)[0] == "passed"
    assert done.schema_drift is not None
    assert done.schema_drift["backup"] == oldest.name


def test_the_newest_of_two_counts(engine: Engine, backup_dir: Path) -> None:
    back_up(engine, backup_dir)
    engine.script("CREATE TABLE app.other (id int)")
    newest = back_up(engine, backup_dir)
    engine.script(UP)
    done = roll_back(engine, backup_dir, DOWN, on_drift=REFUSE)
    assert done.schema_drift is not None
    assert done.schema_drift["backup"] == newest.name


# --- backups that do not count ----------------------------------------------------------------------------------------


def test_without_a_backup_of_that_version_nothing_is_compared(engine: Engine, backup_dir: Path) -> None:
    done = roll_back(engine, backup_dir, "DROP TABLE app.lines;", on_drift=REFUSE)
    assert not is_compared(done)
    back_up(engine, backup_dir, "0009")
    done = roll_back(engine, backup_dir, "DROP TABLE app.january;", on_drift=REFUSE)
    assert not is_compared(done)
    assert engine.plan(drift=DriftOptions(str(backup_dir))).warnings == ()


def _touch_schema(taken: Path) -> None:
    path = taken / "schema.txt"
    path.write_bytes(path.read_bytes().replace(b"customers", b"customerz"))


def _link_schema(taken: Path) -> None:
    (taken / "schema.txt").rename(taken.parent / "elsewhere")
    (taken / "schema.txt").symlink_to(taken.parent / "elsewhere")


def _of_another_cluster(taken: Path) -> None:
    _change_manifest(taken, system_identifier="42")


def _taken_when_applied(taken: Path) -> None:
    _change_manifest(taken, applied=True)


def _change_manifest(taken: Path, **changes: t.Any) -> None:
    path = taken / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_touch_schema, "checksum differ"),
        (_link_schema, "cannot be read"),
        (_of_another_cluster, "another cluster"),
        (_taken_when_applied, "was applied already"),
    ],
)
def test_a_backup_that_is_none_gives_way_with_the_reason(
    engine: Engine, backup_dir: Path, spoil: t.Callable[[Path], None], reason: str
) -> None:
    spoil(back_up(engine, backup_dir))
    engine.script(UP)
    engine.migration("0001", FORGETS)
    planned = engine.plan(drift=DriftOptions(str(backup_dir), "", REFUSE))
    assert planned.schema is None
    assert any(reason in warning and "is not compared" in warning for warning in planned.warnings)
    assert not is_compared(roll_back(engine, backup_dir, FORGETS, on_drift=REFUSE))


def test_the_next_one_is_taken_where_the_newest_is_damaged(engine: Engine, backup_dir: Path) -> None:
    older = back_up(engine, backup_dir)
    newer = back_up(engine, backup_dir)
    _touch_schema(newer)
    engine.script(UP)
    engine.migration("0001", DOWN)
    planned = engine.plan(drift=DriftOptions(str(backup_dir)))
    assert planned.schema is not None
    assert planned.schema.backup == older.name
    assert any(newer.name in warning and older.name in warning for warning in planned.warnings)


def test_with_a_key_only_a_signed_backup_counts(engine: Engine, backup_dir: Path) -> None:
    signed = back_up(engine, backup_dir, key="of the backups")
    back_up(engine, backup_dir)
    engine.script(UP)
    done = roll_back(engine, backup_dir, DOWN, key="of the backups", on_drift=REFUSE)
    assert done.schema_drift is not None
    assert done.schema_drift["backup"] == signed.name


def test_only_one_file_of_the_backup_is_read(engine: Engine, backup_dir: Path) -> None:
    """The archive may be terabytes, and what is wrong with it is no matter here."""
    taken = back_up(engine, backup_dir)
    for path in (taken / "dump").iterdir():
        path.unlink()
    engine.script(UP)
    assert is_compared(roll_back(engine, backup_dir, DOWN))


def test_a_folder_that_others_may_write_to_is_a_warning(engine: Engine, backup_dir: Path) -> None:
    back_up(engine, backup_dir)
    backup_dir.chmod(0o777)
    engine.script(UP)
    engine.migration("0001", DOWN)
    planned = engine.plan(drift=DriftOptions(str(backup_dir)))
    assert planned.schema is None
    assert any("written by every user" in warning for warning in planned.warnings)


def test_a_trial_before_the_stop_compares_too(engine: Engine, backup_dir: Path) -> None:
    back_up(engine, backup_dir)
    engine.script(UP)
    engine.migration("0001", f"DELETE FROM app.lines WHERE false; {FORGETS}")
    request = engine.request(drift=DriftOptions(str(backup_dir), "", REFUSE))
    limits = dataclasses.replace(request.limits, max_rows_lost=1000)
    with pytest.raises(Exception, match=r"Nothing was stopped") as caught:
        engine.plan(drift=request.drift, limits=limits)
    assert "app.orders.code" in str(caught.value)
