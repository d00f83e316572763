# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence for the checklists from the database's host: earlier runs, backups, and the times of the critical queries."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from . import manifest as manifests
from .backup_catalog import Entry, list_backups, moment
from .checklist_findings import performance_normal
from .errors import Refused, RollbackError
from .history import newest_reports
from .log_evidence import collect_logs
from .query_timing import TimingRequest, time_queries
from .selection import BEFORE_MIGRATION
from .severity import findings, thresholds_from

if t.TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from .checklist import Finding
    from .connection import ConnectionSettings

#: Earlier runs from which the time of the stop is estimated.
RUNS = 10
#: Seconds of a log that are read where nobody knows when the application was started.
LOG_WINDOW = 300.0


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the evidence is.

    :param backup_dir: empty, no backup is looked for.
    :param key: signs the manifests; empty, they are not signed.
    """

    run_dir: str
    backup_dir: str
    system_identifier: str
    database: str
    key: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True)
class Assessment:
    """A severity that was assessed not long ago.

    :param severity: as in the report of that run.
    """

    severity: Mapping[str, t.Any]
    run_id: str
    age_seconds: float


@dataclasses.dataclass(frozen=True)
class Earlier:
    """What earlier runs on a database tell.

    :param downtimes: seconds that the application was down, newest run first.
    """

    assessment: Assessment | None
    downtimes: tuple[float, ...]


def earlier_runs(place: Place, hours: float, now: dt.datetime, runbook: str = "rollback") -> Earlier:
    """The newest assessment, and how long the application was down in the newest runs of a runbook.

    :param hours: an older assessment does not count.
    """
    reports = newest_reports(place.run_dir, place.system_identifier, place.database)
    downtimes = [
        float(report["downtime_seconds"])
        for report in reports
        if isinstance(report.get("downtime_seconds"), (int, float))
        and report.get("runbook") == runbook
        and report.get("outcome") in ("rolled_back", "restored")
    ]
    return Earlier(_assessment(reports, hours, now), tuple(downtimes[:RUNS]))


def _assessment(reports: Iterable[Mapping[str, t.Any]], hours: float, now: dt.datetime) -> Assessment | None:
    for report in reports:
        severity = report.get("severity") or {}
        finished = moment(str(severity.get("assessed_at") or report.get("finished_at") or ""))
        if report.get("runbook") != "assess" or not severity.get("level") or finished is None:
            continue
        age = (now - finished).total_seconds()
        if age <= hours * 3600:
            return Assessment(severity, str(report.get("run_id") or ""), max(0.0, age))
    return None


def newest_backup(place: Place) -> tuple[dict[str, t.Any] | None, str]:
    """The newest before_migration backup of this database whose files are there, and why its folder cannot be relied on."""
    if not place.backup_dir:
        return None, ""
    try:
        found = next((entry for entry in list_backups(place.backup_dir, place.key) if _fits(entry, place)), None)
    except Refused as err:
        return None, str(err)
    return (found.to_dict() if found else None), ""


def _fits(entry: Entry, place: Place) -> bool:
    manifest = entry.manifest
    return (
        manifest is not None
        and entry.kind == BEFORE_MIGRATION
        and (entry.system_identifier, entry.database) == (place.system_identifier, place.database)
        and all(_has_size(os.path.join(entry.path, file.path), file.bytes) for file in manifest.files)
    )


def _has_size(path: str, size: int) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_size == size
    except OSError:
        return False


@dataclasses.dataclass(frozen=True)
class Timed:
    """How the critical queries are timed.

    :param backup: id of the backup with their times from before; empty, the newest before_migration one.
    :param thresholds: ``rollback_severity_thresholds``.
    """

    settings: ConnectionSettings
    queries: Sequence[Mapping[str, str]]
    backup: str = ""
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    search_path: Sequence[str] = ()
    runs: int = 5
    timeout: float = 10.0


def performance(place: Place, timed: Timed) -> Finding:
    """Item performance_normal: the critical queries now, against their times before the migration."""
    if not timed.queries:
        return performance_normal([], "No query was timed; set rollback_critical_queries.")
    before, problem = baseline(place, timed.backup)
    if not before:
        return performance_normal([], problem)
    request = TimingRequest(
        timed.settings,
        timed.queries,
        before,
        search_path=timed.search_path,
        runs=timed.runs,
        timeout=timed.timeout,
    )
    try:
        measured = {"queries": time_queries(request)}
        return performance_normal(findings(measured, thresholds_from(timed.thresholds)))
    except RollbackError as err:
        return performance_normal([], str(err))


def baseline(place: Place, backup: str) -> tuple[tuple[Mapping[str, t.Any], ...], str]:
    """The times of the critical queries that a backup recorded, and why there are none.

    :param backup: id of the backup; empty, the newest before_migration one.
    """
    entry, problem = newest_backup(place)
    if not backup and entry is None:
        return (), problem or "There is no backup from before a migration with a baseline of the critical queries."
    name = backup or str(entry and entry["id"])
    try:
        found = manifests.load(os.path.join(place.backup_dir, name), place.key).baseline
    except Refused as err:
        return (), str(err)
    return found, "" if found else f"The backup {name} recorded no baseline of the critical queries."


def logs_since(sources: Sequence[Mapping[str, t.Any]], since: str) -> list[dict[str, t.Any]]:
    """What is in the logs of this host since a time.

    :param since: UTC; empty or not a time, the last five minutes.
    :raises Refused: a source is set wrongly.
    """
    return [_reported(log) for log in collect_logs(sources, LOG_WINDOW, 0.0, since=moment(since))]


def _reported(log: Mapping[str, t.Any]) -> dict[str, t.Any]:
    keys = ("name", "type", "window_seconds", "errors", "warnings", "critical", "known", "lines", "problem")
    return {key: log.get(key) for key in keys}
