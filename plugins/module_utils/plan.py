# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which DOWN scripts run, newest first."""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

from . import ledger as ledgers
from .errors import Refused
from .migrations import read_down, resolve_version

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .ledger import Ledger, VersionState
    from .migrations import DownScript, Migration
    from .sql import Statement

_THERE = frozenset({ledgers.APPLIED, ledgers.PARTLY})


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the operator asked for.

    :param version: one migration, as text or number.
    :param to_version: the newest migration that stays.
    :param command: how a playbook of this collection is started here, for messages.
    """

    version: object = None
    to_version: object = None
    command: str = "ansible-playbook cypher.rollback"
    accept_commented: bool = False


@dataclasses.dataclass(frozen=True)
class ObjectPlan:
    """The one object that is taken back without a migration.

    :param kind: ``column``, ``table`` or ``index``.
    :param identity: its full name as SQL.
    :param relation: full name of its table, or of the table itself.
    :param oid: of the table or index; of a column, of its table.
    :param column: its bare name; empty for other kinds.
    :param holds_values: the column has values that would be lost; those of a generated one are computed.
    :param asked: the options that name exactly this object and this way once more.
    :param concurrently: the index is dropped outside of a transaction, while the application runs.
    :param why: the reason for that, or against it, as a sentence.
    :param parts: what goes by itself.
    :param cascaded: what goes only by CASCADE.
    :param migrations: versions whose DOWN names it.
    """

    kind: str
    identity: str
    relation: str
    oid: int
    statement: str
    asked: Mapping[str, t.Any]
    column: str = ""
    holds_values: bool = True
    concurrently: bool = False
    why: str = ""
    parts: tuple[str, ...] = ()
    cascaded: tuple[str, ...] = ()
    migrations: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return {**dataclasses.asdict(self), "asked": dict(self.asked)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The DOWN scripts of one run, newest first; none where there is nothing to do.

    :param object: where no migration, but one object is taken back.
    """

    migrations: tuple[Migration, ...]
    scripts: tuple[DownScript, ...]
    states: tuple[VersionState, ...]
    message: str
    warnings: tuple[str, ...] = ()
    object: ObjectPlan | None = None

    @property
    def versions(self) -> list[str]:
        """Newest first."""
        return [script.version for script in self.scripts]

    @property
    def statements(self) -> list[Statement]:
        """Of all scripts, in the order in which they run."""
        return [statement for script in self.scripts for statement in script.statements]

    @property
    def digest(self) -> str:
        """The same for the same files and versions: what was planned is what runs."""
        return hashlib.sha256("\n".join(f"{item.version} {item.sha256}" for item in self.scripts).encode()).hexdigest()

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return {
            "versions": self.versions,
            "statements": len(self.statements),
            "digest": self.digest,
            "scripts": [
                {"version": item.version, "name": item.name, "file": item.file, "line": item.line, "sha256": item.sha256,
                 "statements": len(item.statements), "notes": list(item.notes)}
                for item in self.scripts
            ],
            "states": {item.version: item.to_dict() for item in self.states},
            "object": self.object.to_dict() if self.object else None,
        }  # fmt: skip


class Scripts:
    """Reads each DOWN once; what is wrong with one that is not to run does not matter."""

    def __init__(self, accept_commented: bool) -> None:
        self._accept_commented = accept_commented
        self._read: dict[str, DownScript | None] = {}

    def wanted(self, migration: Migration) -> DownScript:
        """:raises Refused: when the DOWN cannot run."""
        script = self._read.get(migration.version)
        return script or read_down(migration, accept_commented=self._accept_commented)

    def readable(self, migration: Migration) -> DownScript | None:
        """The DOWN, or ``None`` when it could not run."""
        if migration.version not in self._read:
            try:
                self._read[migration.version] = self.wanted(migration)
            except Refused:
                self._read[migration.version] = None
        return self._read[migration.version]


def make_plan(wanted: Wanted, migrations: Sequence[Migration], ledger: Ledger) -> Plan:
    """Decide what runs.

    :param migrations: oldest first.
    :raises Refused: for a version that is not there, a later migration that is applied, a DOWN that cannot run.
    """
    scripts = Scripts(wanted.accept_commented)
    states = {item.version: ledger.state(item, scripts.readable(item)) for item in migrations}
    chosen = _choose(wanted, migrations, states, ledger)
    relevant = tuple(states[item.version] for item in migrations)
    if not chosen:
        return Plan((), (), relevant, _nothing(wanted, migrations, states))
    read = tuple(scripts.wanted(item) for item in chosen)
    ledger.refuse_unfit(chosen)
    listed = ", ".join(f"{item.version} ({states[item.version].evidence()})" for item in chosen)
    return Plan(
        tuple(chosen), read, relevant, f"To roll back, newest first: {listed}.", tuple(_warnings(chosen, states))
    )


def _choose(
    wanted: Wanted, migrations: Sequence[Migration], states: dict[str, VersionState], ledger: Ledger
) -> list[Migration]:
    has_version, has_target = not _is_empty(wanted.version), not _is_empty(wanted.to_version)
    if has_version and has_target:
        raise Refused(
            "Both version and to_version were given. Give version to roll back one migration, to_version to keep one and roll back all above."
        )
    if has_target:
        return _all_above(wanted, migrations, states, ledger)
    return _single(wanted, migrations, states, ledger)


def _is_empty(value: object) -> bool:
    return value is None or value == ""


def _single(
    wanted: Wanted, migrations: Sequence[Migration], states: dict[str, VersionState], ledger: Ledger
) -> list[Migration]:
    migration = resolve_version(wanted.version, migrations)
    state = states[migration.version]
    if state.state == ledgers.ABSENT:
        return []
    position = list(migrations).index(migration)
    later = [item for item in migrations[position + 1 :] if states[item.version].state in _THERE]
    if later:
        previous = migrations[position - 1].version if position else "0"
        newest = later[-1]
        raise Refused(
            f"{migration.version} cannot be rolled back alone: {_list(item.version for item in later)} "
            f"{'is' if len(later) == 1 else 'are'} applied on top of it ({newest.version}: {states[newest.version].evidence()}). "
            f"Nothing was stopped or changed. To roll back all of them in one transaction, newest first: "
            f"{wanted.command}.rollback -e to_version={previous}",
            later=[item.version for item in later],
        )
    _refuse_unknown(ledger)
    return [migration]


def _all_above(
    wanted: Wanted, migrations: Sequence[Migration], states: dict[str, VersionState], ledger: Ledger
) -> list[Migration]:
    below_all = str(wanted.to_version).isdecimal() and int(str(wanted.to_version)) == 0
    keep = None if below_all else resolve_version(wanted.to_version, migrations)
    above = list(migrations)[list(migrations).index(keep) + 1 if keep else 0 :]
    there = [position for position, item in enumerate(above) if states[item.version].state in _THERE]
    if not there:
        return []
    _refuse_unknown(ledger)
    # What nothing tells of lies below one that is applied, so it was applied before it.
    highest = there[-1]
    return [item for item in reversed(above[: highest + 1]) if states[item.version].state != ledgers.ABSENT]


def _refuse_unknown(ledger: Ledger) -> None:
    unknown = ledger.unknown_versions()
    if unknown:
        raise Refused(
            f"The ledger names {_list(unknown)} as applied, and the migrations folder has no file for "
            f"{'it' if len(unknown) == 1 else 'them'}: whether something newer depends on this migration cannot be known. "
            "Nothing was stopped or changed. Put the missing files into rollback_migrations_dir."
        )


def _nothing(wanted: Wanted, migrations: Sequence[Migration], states: dict[str, VersionState]) -> str:
    if _is_empty(wanted.to_version):
        migration = resolve_version(wanted.version, migrations)
        return f"Migration {migration.version} is not applied ({states[migration.version].evidence()})."
    return f"No migration above {wanted.to_version} is applied."


def _warnings(chosen: Sequence[Migration], states: dict[str, VersionState]) -> t.Iterator[str]:
    for item in chosen:
        state = states[item.version]
        if state.state == ledgers.PARTLY:
            yield f"{item.version} is partly applied: missing {_list(state.missing)}."
        elif state.state == ledgers.UNKNOWN:
            yield (
                f"Whether {item.version} is applied cannot be seen: {state.evidence()}. It is taken as applied. "
                "A ledger would tell: rollback_ledger_table."
            )


def _list(items: t.Iterable[str], limit: int = 8) -> str:
    listed = list(items)
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
