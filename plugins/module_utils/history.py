# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier runs did, from the reports that they left."""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from .journal import REPORT

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .catalog import Catalog
    from .server import Target


def rollback_of(run_dir: str, version: object, target: Target) -> dict[str, t.Any] | None:
    """The report of the newest run that rolled a version back on this database; ``None`` when there is none."""
    found = [report for report in _reports(run_dir) if _is_rollback_of(report, version, target)]
    return max(found, key=lambda report: str(report.get("finished_at")), default=None)


def committed_rollback(run_dir: str, target: Target, run_id: str = "") -> dict[str, t.Any] | None:
    """The report of the newest run, or of the one that is named, whose DOWN was committed on this database; ``None``: none."""
    found = [
        report
        for report in _reports(run_dir)
        if _is_of(report, target)
        and report.get("runbook") in ("rollback", "rollback_object")
        and (report.get("outcome") == "rolled_back" or report.get("committed"))
        and (report.get("backup") or {}).get("id")
        and run_id in ("", report.get("run_id"))
    ]
    return max(found, key=lambda report: str(report.get("finished_at")), default=None)


def newest_reports(run_dir: str, system_identifier: str, database: str, at_most: int = 50) -> list[dict[str, t.Any]]:
    """The reports of the newest runs on a database, the newest first by when it was written.

    :param at_most: reports that are read, so that years of runs cost no more than a few.
    """
    found: list[tuple[float, str]] = []
    with contextlib.suppress(OSError):
        for name in os.listdir(run_dir):
            with contextlib.suppress(OSError):
                found.append((os.stat(os.path.join(run_dir, name, REPORT)).st_mtime, name))
    reports = [_read(run_dir, name) for _time, name in sorted(found, reverse=True)[:at_most]]
    wanted = (system_identifier, database)
    return [
        report
        for report in reports
        if report
        and ((report.get("target") or {}).get("system_identifier"), (report.get("target") or {}).get("database"))
        == wanted
    ]


def _read(run_dir: str, name: str) -> dict[str, t.Any]:
    with (
        contextlib.suppress(OSError, ValueError),
        open(os.path.join(run_dir, name, REPORT), encoding="utf-8") as file,
    ):
        report = json.load(file)
        return report if isinstance(report, dict) else {}
    return {}


def _is_of(report: dict[str, t.Any], target: Target) -> bool:
    where = report.get("target") or {}
    return (where.get("system_identifier"), where.get("database")) == (target.system_identifier, target.database)


def _reports(run_dir: str) -> Iterator[dict[str, t.Any]]:
    with contextlib.suppress(OSError):
        for name in os.listdir(run_dir):
            # A folder that is no run, or whose run died, has no report to learn from.
            with (
                contextlib.suppress(OSError, ValueError),
                open(os.path.join(run_dir, name, REPORT), encoding="utf-8") as file,
            ):
                report = json.load(file)
                if isinstance(report, dict):
                    yield report


def _is_rollback_of(report: dict[str, t.Any], version: object, target: Target) -> bool:
    versions = [str(item) for item in (report.get("plan") or {}).get("versions") or []]
    wanted = str(version)
    return (
        report.get("outcome") == "rolled_back"
        and _is_of(report, target)
        and any(
            item == wanted or (item.isdecimal() and wanted.isdecimal() and int(item) == int(wanted))
            for item in versions
        )
    )


def is_still_gone(report: dict[str, t.Any], catalog: Catalog) -> bool:
    """Whether nothing of what that run removed by name is there again."""
    there = {(item.type, item.identity) for item in catalog}
    dropped = (report.get("effect") or {}).get("dropped") or []
    named = [
        (item.get("type"), item.get("identity"))
        for item in dropped
        if not item.get("cascaded") and not item.get("part_of")
    ]
    return bool(named) and not there.intersection(named)
