# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a DOWN leads back to the schema that the backup before its migration recorded.

Only the migrations above that one can have made objects since, and they are taken back before it, so that the comparison is
exact: what differs, the DOWN forgot, or somebody changed beside the migrations.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import typing as t

from .backup_catalog import CatalogRefused
from .catalog import SCHEMA_FILE, lines_by_object, portable_text
from .checks import FAILED, INFORMATION, PASSED, Check
from .selection import BEFORE_MIGRATION, NoValidBackup, choose

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .backup_catalog import Entry
    from .catalog import Catalog, CatalogObject
    from .server import Target

WARN, REFUSE = "warn", "refuse"
SHOWN = 20
NOT_COMPARED = "The schema after the DOWN is not compared with one of before."

_Key = tuple[str, str]


class _NotProven(Exception):
    """The recorded schema is not what the manifest says; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class DriftOptions:
    """Where to look for the schema of before, and what a difference means.

    :param backup_dir: folder of the backups; empty, nothing is compared.
    :param key: where given, only a backup with this signature counts.
    :param on_drift: ``warn`` or ``refuse``.
    """

    backup_dir: str = ""
    key: str = dataclasses.field(default="", repr=False)
    on_drift: str = WARN


NO_COMPARISON = DriftOptions()


@dataclasses.dataclass(frozen=True)
class RecordedSchema:
    """The schema before a migration, as a backup has it.

    :param lines: of ``schema.txt``, by type and identity.
    :param on_drift: ``warn`` or ``refuse``.
    """

    backup: str
    version: str
    created_at: str
    lines: Mapping[_Key, str]
    on_drift: str = WARN


@dataclasses.dataclass(frozen=True)
class Drift:
    """What differs from the recorded schema, each as type and identity.

    :param parts: of ``extra``, what is only a part of another one there: indexes and sequences of a table.
    """

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    parts: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.different)

    def describe(self) -> str:
        """The differences, of each sort the first ones, :data:`SHOWN` in all."""
        room, said = SHOWN, []
        extra = [item for item in self.extra if item not in self.parts]
        for sort, items in (("extra", extra), ("missing", self.missing), ("different", self.different)):
            if items:
                shown = items[:room]
                more = f" and {len(items) - len(shown)} more" if len(items) > len(shown) else ""
                said.append(f"{sort}: {', '.join(shown)}{more}" if shown else f"{sort}: {len(items)}")
                room -= len(shown)
        return "; ".join(said)


def drift_argument_spec() -> dict[str, dict[str, t.Any]]:
    """Options of the modules that compare with the schema before a migration."""
    return {
        "schema_backup_dir": {"type": "path"},
        "backup_key": {"type": "str", "default": "", "no_log": True},
        "schema_drift": {"type": "str", "default": WARN, "choices": [WARN, REFUSE]},
    }


def drift_options(params: Mapping[str, t.Any]) -> DriftOptions:
    """What a module's parameters say."""
    return DriftOptions(params["schema_backup_dir"] or "", params["backup_key"], params["schema_drift"])


def recorded_schema(
    options: DriftOptions, target: Target, version: str
) -> tuple[RecordedSchema | None, tuple[str, ...]]:
    """The schema of the newest ``before_migration`` backup of a version, and warnings. Reads only.

    Of the backup only the manifest and the one file are read: an archive may be large, and is of no matter here.

    :param version: the oldest one of the plan.
    :returns: ``None`` where there is no such backup.
    """
    if not options.backup_dir:
        return None, ()
    texts: dict[str, str] = {}

    def prove(entry: Entry) -> Entry:
        try:
            texts[entry.id] = _proven_text(entry)
        except _NotProven as reason:
            return dataclasses.replace(entry, valid=False, reason=str(reason))
        return dataclasses.replace(entry, valid=True)

    try:
        choice = choose(options.backup_dir, target, version=version, key=options.key, prove=prove)
    except NoValidBackup as err:
        return None, tuple(_passed_over(err.details["skipped"], version, NOT_COMPARED))
    except CatalogRefused as err:
        return None, (f"{err} {NOT_COMPARED}",)
    entry = choice.entry
    recorded = RecordedSchema(entry.id, version, entry.created_at, lines_by_object(texts[entry.id]), options.on_drift)
    skipped = [item.to_dict() for item in choice.skipped]
    return recorded, tuple(_passed_over(skipped, version, f"The schema is compared with that of {entry.id}."))


def _passed_over(skipped: Iterable[Mapping[str, str]], version: str, then: str) -> Iterable[str]:
    """Of what was passed over, the backups that are called after this migration."""
    for item in skipped:
        if item["id"].startswith(f"backup_{BEFORE_MIGRATION}_{version}_"):
            yield f"{item['id']} has no schema to compare with: {item['reason']} {then}"


def _proven_text(entry: Entry) -> str:
    """The file's text, read once and proven by the manifest's checksum.

    :raises _NotProven: there is none, or another one than was written.
    """
    files = entry.manifest.files if entry.manifest else ()
    recorded = next((file for file in files if file.path == SCHEMA_FILE), None)
    if recorded is None:
        raise _NotProven(f"It has no {SCHEMA_FILE}.")
    try:
        # Without O_NONBLOCK a named pipe would keep us waiting for a writer.
        descriptor = os.open(os.path.join(entry.path, SCHEMA_FILE), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            content = file.read() if stat.S_ISREG(facts.st_mode) and facts.st_size == recorded.bytes else b""
    except OSError as err:
        raise _NotProven(f"Its {SCHEMA_FILE} cannot be read: {err.strerror}.") from err
    if hashlib.sha256(content).hexdigest() != recorded.sha256:
        raise _NotProven(f"Its {SCHEMA_FILE} is not the one that was written: size or checksum differ.")
    return content.decode("utf-8")


# --- the comparison ---------------------------------------------------------------------------------------------------


def compare_schema(recorded: RecordedSchema, now: Catalog) -> Drift:
    """What a catalog has otherwise than the backup; of a table that both have, column by column."""
    before, after = recorded.lines, lines_by_object(portable_text(now))
    missing, extra = _named(before.keys() - after.keys()), _named(after.keys() - before.keys())
    different: list[str] = []
    for key in before.keys() & after.keys():
        if before[key] != after[key]:
            lost, added, changed = _within(key, before[key], after[key])
            missing += lost
            extra += added
            different += changed
    return Drift(tuple(sorted(missing)), tuple(sorted(extra)), tuple(sorted(different)), _parts(now, extra))


def _named(keys: Iterable[_Key]) -> list[str]:
    return [f"{kind} {identity}" for kind, identity in keys]


def _within(key: _Key, before: str, after: str) -> tuple[list[str], list[str], list[str]]:
    """Columns that are missing, extra and different, and the object itself where it is defined in another way."""
    kind, identity = key
    definition, columns = _definition(before)
    definition_now, columns_now = _definition(after)
    title = f"{kind} column {identity}"
    changed = [f"{title}.{name}" for name in columns.keys() & columns_now.keys() if columns[name] != columns_now[name]]
    return (
        [f"{title}.{name}" for name in columns.keys() - columns_now.keys()],
        [f"{title}.{name}" for name in columns_now.keys() - columns.keys()],
        [*changed, *(_named([key]) if definition != definition_now else [])],
    )


def _definition(line: str) -> tuple[str, dict[str, str]]:
    _kind, _identity, definition, columns = json.loads(line)
    return str(definition), {str(name): str(text) for name, text in columns}


def _parts(now: Catalog, extra: Iterable[str]) -> frozenset[str]:
    """Of what is extra, that which goes with another one of them."""
    names = set(extra)
    found = set()
    for item in now:
        title = f"{item.type} {item.identity}"
        if title in names and any(
            _of_extra(now.get((catalog, oid)), column, names) for catalog, oid, column in item.owners
        ):
            found.add(title)
    return frozenset(found)


def _of_extra(owner: CatalogObject | None, column: int, names: set[str]) -> bool:
    if owner is None:
        return False
    of_column = column in owner.columns and f"{owner.type} column {owner.identity}.{owner.columns[column][0]}" in names
    return f"{owner.type} {owner.identity}" in names or of_column


def drift_check(recorded: RecordedSchema, drift: Drift) -> Check:
    """The comparison as a check: with ``warn`` it informs, with ``refuse`` it fails."""
    name = f"schema as before migration {recorded.version} (backup {recorded.backup})"
    if not drift:
        return Check(name, PASSED, "no difference", "no difference")
    if recorded.on_drift != REFUSE:
        return Check(name, INFORMATION, "no difference", drift.describe())
    advice = (
        "the DOWN left or lost that, or somebody changed the schema since the backup; correct the DOWN, or accept it with "
        "rollback_schema_drift: warn"
    )
    return Check(name, FAILED, "no difference", f"{drift.describe()} ({advice})")


def drift_warning(recorded: RecordedSchema, drift: Drift) -> str:
    """What the operator has to know where the rollback goes on."""
    return (
        f"After the DOWN the schema is not as before migration {recorded.version} (backup {recorded.backup}): {drift.describe()}. "
        "The DOWN left or lost that, or somebody changed the schema since the backup. Correct the DOWN, or change it by hand; "
        "rollback_schema_drift: refuse keeps such a rollback from being committed."
    )


def drift_facts(recorded: RecordedSchema, drift: Drift) -> dict[str, t.Any]:
    """Every difference, for the report."""
    return {
        "backup": recorded.backup,
        "version": recorded.version,
        "created_at": recorded.created_at,
        "missing": list(drift.missing),
        "extra": list(drift.extra),
        "different": list(drift.different),
    }
