# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All backups of a folder verified in one go, and what of that somebody has to be told about."""

from __future__ import annotations

import dataclasses
import typing as t

from . import backup_levels as levels
from .backup_catalog import PREFIX, Entry, find, inspect, list_backups, moment, printable, span, time_in_name
from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Sequence

#: What an emergency restores from, so that the lack of one is a problem.
NEEDED_KIND = "before_migration"


class SurveyRefused(Refused):
    """What was asked for cannot be verified."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """Which backups are meant, and how far they are to be proven.

    :param backup: only this one; empty: all.
    :param database: only those of this database, and what has no readable manifest; empty: of any.
    :param system_identifier: the same for a cluster.
    """

    backup_dir: str
    level: str = levels.CHECKSUM
    backup: str = ""
    database: str = ""
    system_identifier: str = ""
    key: str = dataclasses.field(default="", repr=False)
    means: levels.Means = dataclasses.field(default_factory=levels.Means)


def survey(wanted: Survey) -> list[Entry]:
    """The backups, newest first, each verified.

    A restore takes as long as the emergency itself: of all backups only the newest of each kind is restored, the others are
    read. One that is named is always verified as far as was asked.

    :raises Refused: the folder cannot be relied on, or has no backup of that name, or no server was named to restore on.
    """
    if wanted.level == levels.RESTORE and wanted.means.settings is None:
        raise SurveyRefused(
            "A backup is verified by a restore on a server, and none was named. Give login_db and the other login options, "
            "or the level read."
        )
    if wanted.backup:
        entry = find(wanted.backup_dir, wanted.backup, wanted.key)
        return [inspect(entry.path, wanted.key, wanted.level, wanted.means)]
    found: list[Entry] = []
    groups: set[tuple[str, str, str]] = set()
    for entry in list_backups(wanted.backup_dir, wanted.key):
        if not is_meant(entry, wanted.database, wanted.system_identifier):
            continue
        level = levels.READ if wanted.level == levels.RESTORE and entry.group in groups else wanted.level
        found.append(inspect(entry.path, wanted.key, level, wanted.means))
        groups.add(entry.group)
    return found


def is_meant(entry: Entry, database: str, system_identifier: str) -> bool:
    """Whether it is of this database and cluster, as far as that can be known."""
    if entry.manifest is None:
        return True
    return database in ("", entry.database) and system_identifier in ("", entry.system_identifier)


def problems(entries: Sequence[Entry], wanted: Survey) -> list[str]:
    """What must not be passed over, a sentence or two each; empty where an emergency has what it needs.

    That is: one that was named is not valid; the newest of a kind is not valid, or cannot even be read; there is no valid
    backup from before a migration.
    """
    if wanted.backup:
        return [
            f"The backup {printable(entry.id)} is not valid: {_why(entry)}"
            for entry in entries
            if not _good(entry, wanted)
        ]
    of = f" of {wanted.database}" if wanted.database else ""
    found = _of_newest(entries, wanted)
    if not any(entry.kind == NEEDED_KIND and _good(entry, wanted) for entry in entries):
        found.append(
            f"There is no valid {NEEDED_KIND} backup{of} in {wanted.backup_dir}, so an emergency rollback has nothing to "
            "restore. Take one before the next migration with playbooks/backup.yml -e version=<migration>."
        )
    return found


def _good(entry: Entry, wanted: Survey) -> bool:
    return entry.valid is True or (entry.valid is None and wanted.level == levels.MANIFEST)


def _why(entry: Entry) -> str:
    return printable(entry.reason) or "it was not verified."


def _of_newest(entries: Sequence[Entry], wanted: Survey) -> list[str]:
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        if entry.manifest is not None:
            groups.setdefault(entry.group, []).append(entry)
    bad = [_newest_is_bad(group, wanted) for group in groups.values() if not _good(group[0], wanted)]
    return bad + [
        f"{printable(entry.id)}, by its name newer than any valid one of its kind, is not valid: {_why(entry)}"
        for entry in entries
        if entry.manifest is None and _may_be_newest(entry, entries, wanted)
    ]


def _newest_is_bad(group: Sequence[Entry], wanted: Survey) -> str:
    newest = group[0]
    said = f"The newest {printable(newest.kind)} backup, {newest.id}, is not valid: {_why(newest)}"
    good = next((entry for entry in group if _good(entry, wanted)), None)
    if good is None:
        return said
    older = (newest.age_seconds or 0) - (good.age_seconds or 0)
    return f"{said} The newest valid one is {good.id}, {span(older)} older."


def _may_be_newest(entry: Entry, entries: Sequence[Entry], wanted: Survey) -> bool:
    time = time_in_name(entry.id)
    if time is None:
        return False
    same = [
        moment(other.created_at)
        for other in entries
        if _good(other, wanted) and entry.id.startswith(f"{PREFIX}{other.kind}_")
    ]
    return all(time > other for other in same if other)
