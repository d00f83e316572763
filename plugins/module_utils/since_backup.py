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

if t.TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

    from .backup_catalog import Entry
    from .budget import Budget
    from .catalog import Catalog, Cursor
    from .server import Target


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
        yield Check("row counts since the newest backup", INFORMATION, "reported", f"not checked: {why}")
        return
    compared = _counted(cursor, budget, catalog, entry.manifest.rows)
    yield from _critical(compared, critical, known.dropped_since(entry), entry.id)
    yield _summary(compared, entry)


def _counted(cursor: Cursor, budget: Budget, catalog: Catalog, before: Mapping[str, int]) -> _Compared:
    """Count, small tables first."""
    there = {table.identity: table for table in catalog.tables()}
    now: dict[str, int | None] = {name: None for name in before if name not in there}
    missed = {}
    for name in sorted(there.keys() & before.keys(), key=lambda each: (before[each], each)):
        try:
            if not _is_readable(cursor, there[name].oid):
                raise NotChecked("this role may not read all its rows")
            now[name] = int(budget.ask(cursor, f"SELECT pg_catalog.count(*) FROM ONLY {name}")[0][0])
        except NotChecked as why:
            missed[name] = str(why)
    return _Compared(before, now, missed)


def _is_readable(cursor: Cursor, oid: int) -> bool:
    cursor.execute(
        "SELECT pg_catalog.has_schema_privilege(relnamespace, 'USAGE') AND pg_catalog.has_table_privilege(oid, 'SELECT') "
        "AND NOT pg_catalog.row_security_active(oid) FROM pg_catalog.pg_class WHERE oid = %s",
        (oid,),
    )
    return bool(cursor.fetchall()[0][0])


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


def _summary(compared: _Compared, entry: Entry) -> Check:
    before, now, missed = compared.before, compared.now, compared.missed
    lines = []
    sorts = {"equal": 0, "grew": 0, "fell": 0, "gone": 0}
    for name, rows in sorted(now.items()):
        sort = (
            "gone" if rows is None else "equal" if rows == before[name] else "grew" if rows > before[name] else "fell"
        )
        sorts[sort] += 1
        if sort != "equal":
            lines.append(f"{name}: {before[name]}, now {'gone' if rows is None else rows}")
    said = [f"{number} {sort}" for sort, number in sorts.items() if number]
    said += [f"{len(missed)} not checked"] if missed else []
    lines += [f"{name}: not checked: {why}" for name, why in sorted(missed.items())]
    age = f", {span(entry.age_seconds)} old" if entry.age_seconds is not None else ""
    actual = f"{', '.join(said) or 'no table'}{f' ({some(lines, 3)})' if lines else ''}"
    return Check(f"row counts since {entry.id}{age}", INFORMATION, "reported", actual, tuple(lines))
