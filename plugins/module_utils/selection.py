# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup to go back to: the newest valid one, why not those that are newer, and what that costs.

The newest is the last in the cluster's own history (its LSN); neither a clock nor the date of a file has a say. A
backup that was named is never replaced by another one.
"""

from __future__ import annotations

import dataclasses
import typing as t

from . import backup_levels as levels
from .backup_catalog import PREFIX, Entry, find, inspect, list_backups, moment, printable, span, time_in_name
from .errors import Refused

if t.TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from .server import Target

BEFORE_MIGRATION = "before_migration"


class NoValidBackup(Refused):
    """There is no backup to go back to, or the one that was named is none."""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A backup that was passed over."""

    id: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """For the report."""
        return {"id": printable(self.id), "reason": printable(self.reason)}


@dataclasses.dataclass(frozen=True)
class Gap:
    """The time that is lost because newer backups cannot be used.

    :param since: when the chosen backup was taken, UTC; ``until``: the newest one that was passed over.
    """

    since: str
    until: str
    seconds: float
    text: str

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The backup to go back to.

    :param skipped: what could have been meant and was passed over, newest first.
    :param gap: ``None``: nothing newer was passed over.
    """

    entry: Entry
    skipped: tuple[Skipped, ...] = ()
    gap: Gap | None = None


def choose(
    backup_dir: str,
    target: Target,
    *,
    kinds: Sequence[str] = (BEFORE_MIGRATION,),
    named: str = "",
    version: str = "",
    key: str = "",
    means: levels.Means | None = None,
    prove: Callable[[Entry], Entry] | None = None,
) -> Choice:
    """The named backup, or the newest valid one of this database. What is chosen has passed the level ``checksum``.

    :param target: the database to go back with; its system identifier and name must be the backup's.
    :param kinds: kinds that come into question; one that was named may be of any.
    :param version: only backups before this migration; empty, before any.
    :param means: the server, to see whether the database of a clone is still there.
    :param prove: what a backup that was not named has to pass instead of the level ``checksum``; gives it with ``valid``.
    :raises NoValidBackup: with the reason of each that was passed over.
    :raises CatalogRefused: the folder cannot be relied on, or there is no backup of that name.
    """
    if named:
        return _the_named(find(backup_dir, named, key), target, key, means)
    wanted = _Wanted(target, tuple(kinds), version)
    entries = list_backups(backup_dir, key)
    skipped = [(entry, reason) for entry in entries if (reason := wanted.unfit(entry) or wanted.other(entry))]
    passed = {entry.id for entry, _reason in skipped}
    for entry in entries:
        if entry.id in passed:
            continue
        proven = prove(entry) if prove else inspect(entry.path, key, levels.CHECKSUM, means)
        if proven.valid:
            asked = [(other, why) for other, why in skipped if wanted.is_asked(other, proven)]
            return Choice(proven, tuple(Skipped(other.id, why) for other, why in asked), wanted.gap(proven, asked))
        skipped.append((entry, proven.reason))
    raise _none_valid(backup_dir, wanted, skipped)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is looked for."""

    target: Target
    kinds: tuple[str, ...] = ()
    version: str = ""

    def unfit(self, entry: Entry) -> str:
        """Why it cannot be gone back to, as far as its manifest tells."""
        if entry.manifest is None:
            return entry.reason
        if entry.system_identifier != self.target.system_identifier:
            return (
                f"It is of another cluster: its system identifier is {entry.system_identifier[:40]}, this one's is "
                f"{self.target.system_identifier}."
            )
        if entry.database != self.target.database:
            return f"It is of the database {entry.database!r}, not of {self.target.database!r}."
        if entry.kind == BEFORE_MIGRATION and entry.manifest.applied:
            return f"It was taken after the migration: {entry.version} was applied already when it was taken."
        return ""

    def other(self, entry: Entry) -> str:
        """Why it is not one of those that are looked for."""
        named = "It is taken where the extra variable backup names it."
        if entry.kind not in self.kinds:
            return f"It is of the kind {entry.kind}, and {' or '.join(self.kinds)} is looked for. {named}"
        if self.version and entry.version != self.version:
            return f"It was taken for {entry.version}, and one for {self.version} is looked for. {named}"
        return ""

    def is_here(self, entry: Entry) -> bool:
        """Whether it is of this very database."""
        return (entry.system_identifier, entry.database) == (self.target.system_identifier, self.target.database)

    def is_asked(self, entry: Entry, chosen: Entry) -> bool:
        """Whether somebody would ask why it was not chosen: all but older ones of the same database."""
        return entry.manifest is None or not self.is_here(entry) or entry.order > chosen.order

    def time_lost(self, entry: Entry) -> dt.datetime | None:
        """When a backup was taken that could have been chosen were it whole; by its name, where nothing else tells."""
        if entry.manifest is None:
            of_kind = any(entry.id.startswith(f"{PREFIX}{kind}_") for kind in self.kinds)
            return time_in_name(entry.id) if of_kind else None
        return None if not self.is_here(entry) or self.other(entry) else moment(entry.created_at)

    def gap(self, chosen: Entry, skipped: Sequence[tuple[Entry, str]]) -> Gap | None:
        """From the chosen backup to the newest one that was passed over."""
        since = moment(chosen.created_at)
        times = [
            (time, entry.id) for entry, _why in skipped if (time := self.time_lost(entry)) and since and time > since
        ]
        if not since or not times:
            return None
        until, newest = max(times)
        seconds = (until - since).total_seconds()
        text = (
            f"{chosen.id} is {span(seconds)} older than {printable(newest)}, the newest one that was passed over: what was "
            "written in between is lost, too."
        )
        return Gap(chosen.created_at, until.isoformat(timespec="milliseconds").replace("+00:00", "Z"), seconds, text)


def _the_named(entry: Entry, target: Target, key: str, means: levels.Means | None) -> Choice:
    reason = _Wanted(target).unfit(entry)
    if not reason:
        entry = inspect(entry.path, key, levels.CHECKSUM, means)
        reason = "" if entry.valid else entry.reason
    if reason:
        raise NoValidBackup(
            f"The backup {printable(entry.id)} was named and cannot be used: {reason} No other one is taken in its place. "
            "Name another one with the extra variable backup, or leave that out to have the newest valid one.",
            skipped=[Skipped(entry.id, reason).to_dict()],
        )
    return Choice(entry)


def _none_valid(backup_dir: str, wanted: _Wanted, skipped: Sequence[tuple[Entry, str]]) -> NoValidBackup:
    of = f" for {wanted.version}" if wanted.version else ""
    reasons = [Skipped(entry.id, why).to_dict() for entry, why in skipped]
    shown = "; ".join(f"{each['id']}: {each['reason']}" for each in reasons[:5])
    more = f" And {len(reasons) - 5} more." if len(reasons) > 5 else ""
    found = f"What is there was passed over: {shown}{more}" if reasons else "The folder has no backup at all."
    return NoValidBackup(
        f"There is no valid backup of the kind {' or '.join(wanted.kinds)}{of} of {wanted.target.database} in {backup_dir}. "
        f"{found} Name another backup with the extra variable backup, or correct rollback_backup_dir.",
        skipped=reasons,
    )
