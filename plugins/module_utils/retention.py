# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups may go, and their removal.

Only what has our manifest is ever removed. Among the backups of one kind of one database only those count as kept whose
checksums are right now, so that damaged newer ones cannot push out the last good one, which always stays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from . import backup_levels as levels
from . import clone
from .backup_catalog import Entry, inspect, list_backups, newest_first, printable, span
from .errors import FailedUnchanged, Refused, RollbackError
from .publication import remove_published, share_lock, take_lock
from .server import inspect_target

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DAY_SECONDS = 86400.0

IN_USE = "In use: somebody reads or writes it."
#: Neither removed by us nor kept.
GONE = "Somebody else removed it."


class RetentionRefused(Refused):
    """No limit was given, or one that means nothing."""


class NotRemoved(FailedUnchanged):
    """A backup that may go could not be removed. It is whole, or gone from the catalog."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """What is kept. A backup goes where every limit that is given lets it go.

    :param keep: newest valid backups of each kind of each database; ``None``: no limit.
    :param keep_days: days since it was taken; ``None``: no limit.
    """

    keep: int | None = None
    keep_days: float | None = None


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of one backup, and why."""

    entry: Entry
    removed: bool
    reason: str

    def to_dict(self) -> dict[str, t.Any]:
        """For a result."""
        return {**self.entry.to_dict(), "reason": printable(self.reason)}


@dataclasses.dataclass(frozen=True)
class Expired:
    """What was removed, or would be, and what stays; without backups of other databases, where one was named."""

    removed: tuple[Decision, ...]
    kept: tuple[Decision, ...]

    @property
    def bytes(self) -> int:
        """Size of what goes."""
        return sum(decision.entry.bytes for decision in self.removed)


def policy_from(keep: t.Any, keep_days: t.Any) -> Policy:
    """Limits from settings, of which empty ones are none.

    :raises RetentionRefused: where there is none at all, or one is not a number.
    """
    policy = Policy(_count(keep), _days(keep_days))
    if policy == Policy():
        raise RetentionRefused(
            "Nothing says which backups may go. Set rollback_backup_keep to the number of the newest backups of each kind "
            "to keep, or rollback_backup_keep_days to the days for which to keep them."
        )
    return policy


def expire(
    backup_dir: str,
    policy: Policy,
    *,
    key: str = "",
    means: levels.Means | None = None,
    database: str = "",
    check_mode: bool = False,
) -> Expired:
    """Remove the backups that the policy does not keep.

    :param key: where given, only what has its signature is ours: the rest is neither counted nor removed.
    :param means: the server of the clones; without it no clone is counted or removed.
    :param database: only backups of this database; empty: of any.
    :raises CatalogRefused: the folder cannot be relied on.
    :raises NotRemoved: one could not be removed; ``details`` has what was removed before.
    """
    entries = list_backups(backup_dir, key)
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    kept = [
        Decision(entry, False, f"Not ours to remove: {entry.reason}") for entry in entries if entry.manifest is None
    ]
    for entry in entries:
        if entry.manifest is not None and (not database or entry.database == database):
            groups.setdefault(entry.group, []).append(entry)
    removed: list[Decision] = []
    for group in groups.values():
        decisions, newest_valid = _decide(newest_first(group), policy, key, means)
        stay = [decision for decision in decisions if not decision.removed]
        goes = [decision for decision in decisions if decision.removed]
        if not check_mode:
            goes, failed = _remove(backup_dir, goes, newest_valid, means, removed)
            stay += failed
        removed += goes
        kept += stay
    return Expired(tuple(removed), tuple(kept))


# --- which ------------------------------------------------------------------------------------------------------------


def _count(value: t.Any) -> int | None:
    if value is None or value == "":
        return None
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise RetentionRefused(
            f"rollback_backup_keep is {value!r}; give a number of at least 1, because the last valid backup always stays."
        )
    return int(text)


def _days(value: t.Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        days = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        days = -1.0
    if not 0 <= days < 1e6:
        raise RetentionRefused(f"rollback_backup_keep_days is {value!r}; give a number of days, such as 30.")
    return days


def _decide(
    group: Sequence[Entry], policy: Policy, key: str, means: levels.Means | None
) -> tuple[list[Decision], Entry | None]:
    """For one kind of one database, newest first; and the newest valid one.

    Files are read only as far as something could go.
    """
    wanted = policy.keep or 1
    if len(group) <= wanted or not any(_is_old(entry, policy) for entry in group[wanted:]):
        return [Decision(entry, False, _why_kept(entry, policy, wanted)) for entry in group], None
    decisions: list[Decision] = []
    newest_valid: Entry | None = None
    valid = 0
    for entry in group:
        if valid < wanted:
            proven = inspect(entry.path, key, levels.CHECKSUM, means)
            valid += bool(proven.valid)
            newest_valid = newest_valid or (proven if proven.valid else None)
            decisions.append(Decision(proven, False, _why_needed(proven, wanted)))
        elif entry.in_use:
            decisions.append(Decision(entry, False, IN_USE))
        elif not _is_old(entry, policy):
            decisions.append(Decision(entry, False, _why_kept(entry, policy, wanted)))
        else:
            decisions.append(Decision(entry, True, _why_removed(entry, policy)))
    return decisions, newest_valid


def _is_old(entry: Entry, policy: Policy) -> bool:
    age = entry.age_seconds
    return policy.keep_days is None or (age is not None and age > policy.keep_days * DAY_SECONDS)


def _why_needed(entry: Entry, wanted: int) -> str:
    if entry.valid:
        return "The newest valid one." if wanted == 1 else f"Among the {wanted} newest valid ones."
    return f"Not counted, and newer than what is kept: {entry.reason}"


def _why_kept(entry: Entry, policy: Policy, wanted: int) -> str:
    if policy.keep_days is not None and not _is_old(entry, policy):
        return f"Younger than {policy.keep_days:g} days."
    return "The only one." if wanted == 1 else f"There are not more than {wanted}."


def _why_removed(entry: Entry, policy: Policy) -> str:
    reasons = []
    if policy.keep is not None:
        reasons.append(
            f"older than the {policy.keep} newest valid ones" if policy.keep > 1 else "older than the newest valid one"
        )
    if policy.keep_days is not None:
        reasons.append(f"{span(entry.age_seconds or 0)} old, and {policy.keep_days:g} days are kept")
    text = ", and ".join(reasons)
    return text[:1].upper() + text[1:] + "."


# --- removal ----------------------------------------------------------------------------------------------------------


def _remove(
    backup_dir: str,
    goes: Sequence[Decision],
    newest_valid: Entry | None,
    means: levels.Means | None,
    before: Iterable[Decision],
) -> tuple[list[Decision], list[Decision]]:
    """What is gone, and what stays after all. Meanwhile nobody else can remove the newest valid one."""
    gone: list[Decision] = []
    stays: list[Decision] = []
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(share_lock(newest_valid.path) if newest_valid else contextlib.nullcontext())
        except Refused as err:
            return [], [dataclasses.replace(each, removed=False, reason=f"Not now: {err}") for each in goes]
        # The oldest first: a run that is interrupted leaves the newer ones.
        for decision in reversed(goes):
            try:
                reason = _remove_one(backup_dir, decision.entry, means)
            except (RollbackError, OSError) as err:
                removed = [each.entry.id for each in (*before, *gone)]
                raise NotRemoved(
                    f"The backup {decision.entry.id} could not be removed: {err} Removed before: {', '.join(removed) or 'none'}.",
                    removed=removed,
                ) from err
            if reason == GONE:
                continue
            if reason:
                stays.append(dataclasses.replace(decision, removed=False, reason=reason))
            else:
                gone.append(decision)
    return gone[::-1], stays[::-1]


def _remove_one(backup_dir: str, entry: Entry, means: levels.Means | None) -> str:
    """Why it stays; empty where it is gone."""
    if entry.provider == levels.CLONE:
        reason = _drop_clone(entry, means)
        if reason:
            return reason
    if remove_published(backup_dir, entry.path):
        return ""
    return IN_USE if os.path.lexists(entry.path) else GONE


def _drop_clone(entry: Entry, means: levels.Means | None) -> str:
    """Drop the copy of a clone before its folder goes: a folder without one is a backup that is not valid, and a copy
    without a folder is room on the server that nobody knows of. Why it stays; empty where it is gone.
    """
    if means is None or means.settings is None or entry.manifest is None:
        return "It is a clone, and no server was named to drop its database on."
    settings = dataclasses.replace(means.settings, dbname=entry.database)
    try:
        lock = take_lock(entry.path)
    except OSError:
        return IN_USE
    try:
        clone.drop(settings, entry.manifest, means.maintenance_db)
    except clone.CloneUnusable as err:
        with clone.maintenance(settings, means.maintenance_db) as connection:
            elsewhere = inspect_target(connection, settings).system_identifier != entry.system_identifier
        # On its own server, the database has become the live one or that which a restore replaced: only the folder goes.
        return str(err) if elsewhere else ""
    except FailedUnchanged as err:
        return str(err)
    finally:
        os.close(lock)
    return ""
