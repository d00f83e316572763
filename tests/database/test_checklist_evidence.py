# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence for the checklists from reports, real backups and real queries."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.backup import take_backup
from ansible_collections.cypher.rollback.plugins.module_utils.checklist_evidence import (
    Place,
    Timed,
    baseline,
    earlier_runs,
    logs_since,
    newest_backup,
    performance,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.readiness import BackupRequest

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
QUICK = {"name": "quick", "query": "SELECT count(*) FROM generate_series(1, 2000)"}
#: Long enough that what a busy machine adds to it stays far below the limit of 20 %.
SLOW = {"name": "slow", "query": "SELECT pg_sleep(CASE WHEN EXISTS (SELECT FROM late) THEN 1.2 ELSE 0.35 END)"}


def write(place: Place, run_id: str, mtime: float, **changes: t.Any) -> None:
    report = {
        "run_id": run_id,
        "runbook": "rollback",
        "outcome": "rolled_back",
        "downtime_seconds": 4.0,
        "target": {"system_identifier": place.system_identifier, "database": place.database},
        **changes,
    }
    folder = os.path.join(place.run_dir, run_id)
    os.makedirs(folder)
    path = os.path.join(folder, "report.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file)
    os.utime(path, (mtime, mtime))


def test_earlier_runs_on_this_database(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "runs"), "", "77", "shop")
    assert earlier_runs(place, 24, NOW).downtimes == ()
    for number in range(12):
        write(place, f"run{number}", number, downtime_seconds=number)
    write(place, "other database", 20, target={"system_identifier": "77", "database": "other"})
    write(place, "other cluster", 21, target={"system_identifier": "78", "database": "shop"})
    write(place, "failed", 22, outcome="failed_unchanged")
    write(place, "emergency", 23, runbook="emergency_rollback", outcome="restored", downtime_seconds=90)
    write(place, "nothing stopped", 24, downtime_seconds=None)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "report.json").write_text("{", encoding="utf-8")
    (tmp_path / "runs" / "died").mkdir()
    found = earlier_runs(place, 24, NOW)
    assert found.downtimes == tuple(float(number) for number in range(11, 1, -1))
    assert found.assessment is None
    assert earlier_runs(place, 24, NOW, "emergency_rollback").downtimes == (90.0,)


def test_the_newest_assessment_that_still_counts(tmp_path: Path) -> None:
    place = Place(str(tmp_path), "", "77", "shop")
    kinds = {"runbook": "assess", "outcome": "assessed", "downtime_seconds": None}
    write(place, "old", 1, **kinds, severity={"level": "Low", "assessed_at": "2026-11-21T11:59:00.000Z"})
    assert earlier_runs(place, 24, NOW).assessment is None
    write(place, "first", 2, **kinds, severity={"level": "High", "assessed_at": "2026-11-22T09:00:00.000Z"})
    write(place, "second", 3, **kinds, severity={"level": "Medium", "assessed_at": "2026-11-22T11:58:00.000Z"})
    # A rollback carries the assessment that led to it, and is none itself.
    write(place, "rollback", 4, severity={"level": "Critical", "assessed_at": "2026-11-22T11:59:00.000Z"})
    write(place, "without a verdict", 5, **kinds, severity=None)
    found = earlier_runs(place, 24, NOW).assessment
    assert found is not None
    assert (found.severity["level"], found.run_id, found.age_seconds) == ("Medium", "second", 120.0)


@pytest.fixture
def place(tmp_path: Path, database: Database) -> Place:
    """A database with a backup from before a migration."""
    database.execute("CREATE TABLE late (id int)")
    request = BackupRequest(
        ConnectionSettings(**database.connection_arguments()),
        str(tmp_path / "backups"),
        kind="before_migration",
        version="0003",
        bin_dir=str(database.server.bin_dir),
        queries=(QUICK, SLOW),
    )
    take_backup(request)
    ((identifier,),) = database.execute("SELECT system_identifier::text FROM pg_control_system()")
    return Place(str(tmp_path / "runs"), str(tmp_path / "backups"), identifier, database.name)


def test_the_newest_backup_from_before_a_migration(place: Place) -> None:
    found, problem = newest_backup(place)
    assert problem == ""
    assert found is not None
    assert found["id"].startswith("backup_before_migration_0003_")
    assert newest_backup(dataclasses.replace(place, database="other")) == (None, "")
    assert newest_backup(dataclasses.replace(place, backup_dir="")) == (None, "")
    manifest = os.path.join(found["path"], "manifest.json")
    with open(manifest, encoding="utf-8") as file:
        first = json.load(file)["files"][0]["path"]
    os.truncate(os.path.join(found["path"], first), 1)
    assert newest_backup(place) == (None, "")
    os.chmod(place.backup_dir, 0o777)  # noqa: S103  what is refused here
    assert newest_backup(place)[0] is None
    assert "cannot be relied on" in newest_backup(place)[1]


def test_performance_against_the_baseline_of_the_backup(place: Place, database: Database) -> None:
    timed = Timed(ConnectionSettings(**database.connection_arguments()), (SLOW,))
    usual = performance(place, timed)
    # By how much it differs, a busy machine decides.
    assert usual.status == "passed", usual
    database.execute("INSERT INTO late VALUES (1)")
    late = performance(place, timed)
    assert late.status == "failed", late
    assert "slow" in late.evidence
    late = performance(place, dataclasses.replace(timed, timeout=0.75))
    assert late.status == "failed", late
    assert "did not end within 750 ms, baseline" in late.evidence


def test_performance_that_cannot_be_compared(place: Place, database: Database) -> None:
    settings = ConnectionSettings(**database.connection_arguments())
    timed = Timed(settings, (QUICK,))
    assert performance(place, dataclasses.replace(timed, queries=())).evidence == (
        "No query was timed; set rollback_critical_queries."
    )
    elsewhere = dataclasses.replace(place, database="other")
    assert performance(elsewhere, timed).evidence == (
        "There is no backup from before a migration with a baseline of the critical queries."
    )
    nobody = dataclasses.replace(settings, port=1)
    finding = performance(place, dataclasses.replace(timed, settings=nobody))
    assert finding.status == "unknown"
    assert "connect" in finding.evidence
    gone, problem = baseline(place, "backup_before_migration_gone")
    assert gone == ()
    assert problem


def test_logs_since_the_restart(tmp_path: Path) -> None:
    path = tmp_path / "shop.log"
    now = dt.datetime.now(dt.UTC)
    times = [now - dt.timedelta(seconds=seconds) for seconds in (60, 20, 10)]
    lines = [
        f"{time:%Y-%m-%dT%H:%M:%SZ} {text}"
        for time, text in zip(times, ("ERROR old", "ERROR new", "WARNING w"), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (log,) = logs_since([{"name": "shop", "type": "file", "path": str(path)}], f"{times[1]:%Y-%m-%dT%H:%M:%SZ}")
    assert (log["errors"], log["warnings"], log["critical"], log["problem"]) == (1, 1, 0, "")
    assert "baseline_errors" not in log
    assert any("ERROR new" in line for line in log["lines"])
