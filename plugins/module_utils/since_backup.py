# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of the rows since the newest backup.

While the application runs, row counts differ from those of any backup, so a difference is information. What fails is a table
of ``rollback_critical_tables`` that the backup has rows of and that is empty now, or gone although no run dropped it.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .backup_catalog import list_backups, moment, span
from .budget import NotChecked
from .checks import FAILED, INFORMATION, Check, some
from .errors import Refused
from .history import newest_reports
from .rows import may_read_all

if t.TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from .backup_catalog import Entry
    from .budget import Budget
    from .catalog import Catalog, Cursor
    from .server import Target

NAME = "row counts since the newest backup"


@dataclasses.dataclass(frozen=True)
class Known:
    """Backups and runs of a database, as far as their files tell.

    :param newest: the newest backup whose manifest can be relied on; ``None``: there is none.
    :param baseline: the newest one that recorded times of queries.
    :param problem: why the backups could not be looked at.
    :param runs: identity of what rollbacks dropped, to the run and when it ended.
    """

    newest: Entry | None = None
    baseline: Entry | None = None
    problem: str = ""
    runs: Mapping[str, tuple[str, dt.datetime | None]] = dataclasses.field(default_factory=dict)

    def dropped_since(self, entry: Entry) -> dict[str, str]:
        """What runs dropped that ended after a backup was taken, and which."""
        taken = moment(entry.created_at)
        return {
            name: run for name, (run, ended) in self.runs.items() if taken is None or ended is None or ended >= taken
        }


def known_of(target: Target, backup_dir: str, key: str, run_dir: str) -> Known:
    """What the folders of backups and runs hold. Manifests and reports are read, archives are not."""
    problem = ""
    entries: list[Entry] = []
    if backup_dir:
        try:
            entries = [entry for entry in list_backups(backup_dir, key) if _is_of(entry, target)]
        except Refused as err:
            problem = str(err)
    timed = next((entry for entry in entries if entry.manifest and entry.manifest.baseline), None)
    return Known(entries[0] if entries else None, timed, problem, _dropped_by_runs(run_dir, target))


def _is_of(entry: Entry, target: Target) -> bool:
    here = (entry.system_identifier, entry.database) == (target.system_identifier, target.database)
    return here and entry.manifest is not None and entry.valid is not False


def _dropped_by_runs(run_dir: str, target: Target) -> dict[str, tuple[str, dt.datetime | None]]:
    found: dict[str, tuple[str, dt.datetime | None]] = {}
    if run_dir:
        for report in reversed(newest_reports(run_dir, target.system_identifier, target.database)):
            if report.get("committed") or report.get("outcome") == "rolled_back":
                ended = moment(str(report.get("finished_at") or ""))
                for item in (report.get("effect") or {}).get("dropped") or []:
                    found[str(item.get("identity"))] = (f"run {report.get('run_id')}", ended)
    return found


@dataclasses.dataclass(frozen=True)
class _Compared:
    """Rows by table.

    :param before: of the backup.
    :param now: ``None`` for a table that is gone.
    :param missed: why others could not be counted.
    """

    before: Mapping[str, int]
    now: Mapping[str, int | None]
    missed: Mapping[str, str]


def row_checks(
    cursor: Cursor, budget: Budget, catalog: Catalog, known: Known, critical: Mapping[str, Sequence[str]]
) -> Iterator[Check]:
    """Row counts against the newest backup.

    :param critical: names of tables that matter most, and the identities that each can mean, the first one first.
    """
    entry = known.newest
    if entry is None or entry.manifest is None:
        why = known.problem or "there is no backup of this database whose manifest can be relied on"
        yield Check(NAME, INFORMATION, "reported", f"not checked: {why}")
        return
    wanted = {name for names in critical.values() for name in names}
    compared = _counted(cursor, budget, catalog, _compared_with(entry.manifest.rows, catalog, wanted))
    dropped = known.dropped_since(entry)
    yield from _critical(compared, critical, dropped, entry.id)
    yield _summary(compared, dropped, entry)


def _compared_with(rows: Mapping[str, int], catalog: Catalog, critical: Collection[str]) -> dict[str, int]:
    """The rows of a partitioned table are those of its partitions, which are compared themselves."""
    parents = {item.identity for item in catalog if item.kind == "p"}
    return {name: number for name, number in rows.items() if name not in parents or name in critical}


def _counted(cursor: Cursor, budget: Budget, catalog: Catalog, before: Mapping[str, int]) -> _Compared:
    """Count, small tables first."""
    there = {item.identity: item for item in catalog if item.catalog == "pg_class" and item.kind in ("r", "p")}
    now: dict[str, int | None] = {name: None for name in before if name not in there}
    missed = {}
    for name in sorted(there.keys() & before.keys(), key=lambda each: (before[each], each)):
        try:
            if not may_read_all(cursor, there[name].oid):
                raise NotChecked("this role may not read all its rows")
            only = "" if there[name].kind == "p" else "ONLY "
            now[name] = int(budget.ask(cursor, f"SELECT pg_catalog.count(*) FROM {only}{name}")[0][0])
        except NotChecked as why:
            missed[name] = str(why)
    return _Compared(before, now, missed)


def _critical(
    compared: _Compared, critical: Mapping[str, Sequence[str]], dropped: Mapping[str, str], backup: str
) -> Iterator[Check]:
    for asked, names in critical.items():
        name = next((each for each in names if each in compared.before), "")
        if name not in compared.now or name in dropped:
            continue
        rows, title = compared.now[name], f"rows of critical table {asked}"
        expected = f"some of the {compared.before[name]} rows that {backup} has"
        if rows is None:
            told = "gone, and no run of this collection dropped it; if so meant, correct rollback_critical_tables"
            yield Check(title, FAILED, expected, told)
        elif compared.before[name] and not rows:
            yield Check(title, FAILED, expected, "empty")


def _summary(compared: _Compared, dropped: Mapping[str, str], entry: Entry) -> Check:
    sorts: dict[str, list[str]] = {"equal": [], "fell": [], "gone": [], "grew": [], "dropped by rollbacks": []}
    for name, rows in sorted(compared.now.items()):
        before = compared.before[name]
        sort = "dropped by rollbacks" if name in dropped else "gone"
        if rows is not None:
            sort = "equal" if rows == before else "grew" if rows > before else "fell"
        became = f"now {rows}" if rows is not None else f"gone, {dropped[name]}" if name in dropped else "gone"
        sorts[sort].append(f"{name}: {before}, {became}")
    said = [f"{len(names)} {sort}" for sort, names in sorts.items() if names]
    said += [f"{len(compared.missed)} not checked"] if compared.missed else []
    lines = [line for sort, names in sorts.items() if sort != "equal" for line in names]
    shown = [line for sort in ("fell", "gone", "grew") for line in sorts[sort]]
    lines += [f"{name}: not checked: {why}" for name, why in sorted(compared.missed.items())]
    age = f", {span(entry.age_seconds)} old" if entry.age_seconds is not None else ""
    actual = f"{', '.join(said) or 'no table'}{f' ({some(shown, 3)})' if shown else ''}"
    return Check(NAME, INFORMATION, f"those of {entry.id}{age}", f"{entry.id}{age}: {actual}", tuple(lines))
