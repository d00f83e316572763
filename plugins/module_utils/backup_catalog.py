# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backups of a folder: which there are, of what, how old, and whether each can be relied on.

What is in the folder may come from anybody who could ever write there. A folder counts only where it is private to us,
its manifest is ours, and its name is the one in the manifest; everything else is shown with the reason, and never
followed or removed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
import re
import stat
import typing as t

from . import backup_levels as levels
from . import manifest as manifests
from .errors import Refused
from .publication import PARTIAL_PREFIX, share_lock

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: What every backup of this collection and of the source document's scripts is called.
PREFIX = "backup_"
LOCKS = "/proc/locks"

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,254}")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
#: "7: FLOCK  ADVISORY  READ 4711 fe:00:2148597 0 EOF": the third part of the file's number is the inode.
_FLOCK = re.compile(r"FLOCK\s+\S+\s+\S+\s+-?\d+\s+[0-9a-f]+:[0-9a-f]+:(\d+)\s")
_TIME_IN_NAME = re.compile(r"_(\d{8}_\d{6})(?:_\d+)?$")
#: Where a manifest has no ``total``: phases that follow each other; the others run beside them.
_PHASES = ("check", "dump", "copy", "read", "compare", "count_wait", "globals_wait")


class CatalogRefused(Refused):
    """The folder of backups cannot be read, or somebody else may exchange what is in it."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of one backup, or of something that looks like one.

    :param lsn: where in the history of its cluster it stands, as a number; 0: not known.
    :param bytes: size of its files; of a clone, that of the database.
    :param seconds: how long it took; ``None``: not known.
    :param age_seconds: by ``created_at``; ``None``: not known.
    :param valid: ``None``: nothing is known to be wrong, and it was not verified, or could not be.
    :param reason: why it is not valid, or could not be verified.
    :param level: the highest level of verification that it passed; empty: none.
    :param in_use: somebody reads, writes or removes it at this moment.
    """

    id: str
    path: str
    kind: str = ""
    provider: str = ""
    version: str = ""
    database: str = ""
    system_identifier: str = ""
    created_at: str = ""
    lsn: int = 0
    bytes: int = 0
    seconds: float | None = None
    age_seconds: float | None = None
    valid: bool | None = False
    reason: str = ""
    level: str = ""
    in_use: bool = False
    manifest: manifests.Manifest | None = dataclasses.field(default=None, repr=False)

    @property
    def group(self) -> tuple[str, str, str]:
        """Cluster, database and kind: among these one backup takes the place of another."""
        return self.system_identifier, self.database, self.kind

    @property
    def order(self) -> tuple[int, str, str]:
        """Newest is what is last in the cluster's own history; a clock that was moved back has no say."""
        return self.lsn, self.created_at, self.id

    def to_dict(self) -> dict[str, t.Any]:
        """For a result: everything but the manifest, every text printable."""
        values = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "manifest"
        }
        return {name: printable(value) for name, value in values.items()}


def printable(value: t.Any) -> t.Any:
    """Without what names of files and JSON can have and no output can: lone surrogates, and numbers that are none."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {printable(name): printable(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def list_backups(backup_dir: str, key: str = "") -> list[Entry]:
    """Every backup of a folder by its manifest alone, newest first within each cluster; the files are not read.

    :param key: where given, a manifest without its signature is not valid.
    :raises CatalogRefused: the folder is not ours alone, or cannot be read.
    """
    root = backup_dir.rstrip("/") or "/"
    names = _names(root)
    now, locked = dt.datetime.now(dt.UTC), locked_inodes()
    return newest_first(_read(os.path.join(root, name), key, now, locked) for name in names)


def inspect(
    path: str, key: str = "", level: str = levels.MANIFEST, means: levels.Means | None = None, *, locked: bool = True
) -> Entry:
    """One backup, verified up to a level.

    :param level: one of :data:`backup_levels.LEVELS`; each includes those before it.
    :param means: what the levels ``read`` and ``restore``, and all of a clone, need.
    :param locked: take the readers' lock; not where the caller holds one.
    """
    path = path.rstrip("/")
    entry = read_entry(path, key)
    if entry.manifest is None or level == levels.MANIFEST:
        return entry
    if not locked:
        return _verified(entry, key, level, means)
    try:
        with share_lock(path):
            # Read again: until now it could have been exchanged. The lock that is seen there is ours.
            return dataclasses.replace(_verified(read_entry(path, key), key, level, means), in_use=entry.in_use)
    except Refused as err:
        return dataclasses.replace(entry, reason=str(err), in_use=True)


def read_entry(path: str, key: str = "") -> Entry:
    """One backup by its manifest alone."""
    return _read(path, key, dt.datetime.now(dt.UTC), locked_inodes())


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """By cluster, the one with the newest backup first; what has no readable manifest comes last, by name."""
    found = list(entries)
    known = [entry for entry in found if entry.manifest is not None]
    newest: dict[str, str] = {}
    for entry in known:
        newest[entry.system_identifier] = max(newest.get(entry.system_identifier, ""), entry.created_at)
    known.sort(key=lambda entry: (newest[entry.system_identifier], entry.system_identifier, entry.order), reverse=True)
    unknown = sorted((entry for entry in found if entry.manifest is None), key=lambda entry: entry.id, reverse=True)
    return [*known, *unknown]


def find(backup_dir: str, backup: str, key: str = "") -> Entry:
    """The backup of a name, by its manifest alone.

    :raises CatalogRefused: there is none of that name.
    """
    root = backup_dir.rstrip("/") or "/"
    names = _names(root)
    if backup not in names:
        known = sorted(name for name in names if _ID.fullmatch(name))[-5:]
        there = f"Among those there: {', '.join(known)}." if known else "There is none at all."
        raise CatalogRefused(
            f"There is no backup {backup[:140]!r} in {root}. {there} playbooks/backups.yml lists them; give one's id with "
            "the extra variable backup, or correct rollback_backup_dir."
        )
    return read_entry(os.path.join(root, backup), key)


def time_in_name(name: str) -> dt.datetime | None:
    """When a folder says that it was made. A hint for people, where the manifest cannot be read."""
    match = _TIME_IN_NAME.search(name)
    try:
        return dt.datetime.strptime(match[1], "%Y%m%d_%H%M%S").replace(tzinfo=dt.UTC) if match else None
    except ValueError:
        return None


def moment(text: str) -> dt.datetime | None:
    """A time of a manifest; ``None`` where it is none, or has no time zone."""
    try:
        found = dt.datetime.fromisoformat(text)
        return found.astimezone(dt.UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def span(seconds: float) -> str:
    """A length of time for people, in the two units that matter: ``3 h 12 min``."""
    whole = round(abs(seconds))
    for unit, length, part, part_length in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part_length
            return f"{whole // length} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


# --- one folder -------------------------------------------------------------------------------------------------------


def _names(root: str) -> list[str]:
    """What looks like a backup: by its name, or because it has a manifest."""
    if not os.path.lexists(root):
        return []
    problem = levels.distrust(root, folder=True)
    if problem:
        raise CatalogRefused(
            f"The backups in {root} cannot be relied on: {problem} Change that, or set rollback_backup_dir to another folder."
        )
    try:
        with os.scandir(root) as found:
            return [entry.name for entry in found if _looks_like_backup(entry)]
    except OSError as err:
        raise CatalogRefused(
            f"The folder {root} cannot be read: {err.strerror}. Run as its owner, or set rollback_backup_dir."
        ) from err


def _looks_like_backup(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith((".", PARTIAL_PREFIX)):
        return False
    if entry.name.startswith(PREFIX):
        return True
    return entry.is_dir(follow_symlinks=False) and os.path.lexists(os.path.join(entry.path, manifests.NAME))


def _read(path: str, key: str, now: dt.datetime, locked: Collection[int]) -> Entry:
    bare = Entry(os.path.basename(path), path)
    problem = _untrusted(path)
    if problem:
        return dataclasses.replace(bare, reason=problem)
    try:
        manifest = manifests.load(path, key)
    except Refused as err:
        return dataclasses.replace(bare, reason=str(err))
    problem = _contradiction(bare.id, manifest)
    if problem:
        return dataclasses.replace(bare, reason=problem)
    return _described(bare, manifest, now, locked)


def _described(bare: Entry, manifest: manifests.Manifest, now: dt.datetime, locked: Collection[int]) -> Entry:
    created = moment(manifest.created_at) or now
    return dataclasses.replace(
        bare,
        kind=manifest.kind,
        provider=manifest.provider,
        version=manifest.version,
        database=manifest.database,
        system_identifier=manifest.system_identifier,
        created_at=created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        lsn=_position(manifest.snapshot),
        bytes=manifest.database_bytes if manifest.provider == levels.CLONE else manifest.bytes,
        seconds=_duration(manifest.seconds),
        age_seconds=round((now - created).total_seconds(), 3),
        valid=None,
        level=levels.MANIFEST,
        in_use=_inode(os.path.join(bare.path, manifests.LOCK_NAME)) in locked,
        manifest=manifest,
    )


def _untrusted(path: str) -> str:
    problem = levels.distrust(path, folder=True)
    if problem:
        return problem
    manifest = os.path.join(path, manifests.NAME)
    try:
        os.lstat(manifest)
    except FileNotFoundError:
        return f"It has no {manifests.NAME}: it is no backup of this collection, or one that was never finished."
    except OSError as err:
        return f"Its {manifests.NAME} cannot be read: {err.strerror}."
    problem = levels.distrust(manifest, folder=False)
    return f"Its {manifests.NAME} cannot be relied on: {problem}" if problem else ""


def _contradiction(name: str, manifest: manifests.Manifest) -> str:
    """What the manifest says that cannot be; its shape was checked when it was loaded."""
    if manifest.id != name:
        return f"Its manifest is that of {manifest.id[:140]!r}: the folder was renamed, or the manifest copied."
    if not _ID.fullmatch(name):
        return "Its name is not one that a backup of this collection has."
    if moment(manifest.created_at) is None:
        return f"Its manifest says {manifest.created_at[:40]!r} where the time of the backup should be."
    if manifest.provider not in levels.PROVIDERS:
        return f"It was made by the provider {str(manifest.provider)[:40]!r}, which this release does not know."
    return ""


def _verified(entry: Entry, key: str, level: str, means: levels.Means | None) -> Entry:
    if entry.manifest is None:
        return entry
    proof = levels.prove(entry.path, entry.manifest, level, means or levels.Means(), key)
    return dataclasses.replace(entry, valid=proof.valid, reason=proof.reason, level=proof.level)


def _position(snapshot: t.Any) -> int:
    text = snapshot.get("lsn") if isinstance(snapshot, dict) else None
    match = _LSN.fullmatch(text) if isinstance(text, str) else None
    return (int(match[1], 16) << 32) + int(match[2], 16) if match else 0


def _duration(phases: t.Any) -> float | None:
    if not isinstance(phases, dict):
        return None
    names = ("total",) if isinstance(phases.get("total"), (int, float)) else _PHASES
    found = [phases[name] for name in names if isinstance(phases.get(name), (int, float))]
    total = sum(found)
    return round(total, 3) if found and math.isfinite(total) else None


# --- locks ------------------------------------------------------------------------------------------------------------


def locked_inodes() -> frozenset[int]:
    """Files that somebody on this host holds a lock on. To try the locks would make those fail who want them now.

    Locks of other containers and hosts are not seen; whoever removes a backup takes the lock itself.
    """
    try:
        with open(LOCKS, encoding="ascii", errors="replace") as file:
            return frozenset(int(match[1]) for match in _FLOCK.finditer(file.read()))
    except OSError:
        return frozenset()


def _inode(path: str) -> int:
    try:
        facts = os.lstat(path)
    except OSError:
        return -1
    return facts.st_ino if stat.S_ISREG(facts.st_mode) else -1
