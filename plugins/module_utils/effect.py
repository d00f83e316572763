# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DOWN really did, proven from the catalog before and after."""

from __future__ import annotations

import dataclasses
import typing as t

from .catalog import COLUMN, bare_name, compare

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .catalog import Address, Catalog, CatalogObject, Difference, Gone
    from .names import Resolution


@dataclasses.dataclass(frozen=True)
class Dropped:
    """An object that is gone.

    :param cascaded: no statement names it, it went along by CASCADE.
    :param part_of: what it was a part of, for example the table of an index; empty for what a statement names.
    :param rows: rows that went with it; ``None`` for what has no rows.
    """

    type: str
    identity: str
    cascaded: bool
    rows: int | None
    part_of: str = ""


@dataclasses.dataclass(frozen=True)
class RowChange:
    """Rows of a surviving table that the DOWN itself changed."""

    table: str
    inserted: int
    updated: int
    deleted: int


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a plan removed, skipped and left.

    :param skipped: names that IF EXISTS passed over, with the places where such a name exists.
    :param left_over: what the DOWN names and is still there.
    :param rows_lost: rows of dropped tables, and rows deleted from surviving ones.
    :param touched: tables with rows that the transaction changed, the ledger included.
    :param invalid: indexes and constraints that are not valid, and were not before, and triggers that were disabled before.
    :param uncounted: tables that are gone and whose rows the role may not count.
    """

    dropped: tuple[Dropped, ...]
    skipped: tuple[dict[str, t.Any], ...]
    left_over: tuple[dict[str, t.Any], ...]
    changed: tuple[dict[str, str], ...]
    added: tuple[dict[str, str], ...]
    row_changes: tuple[RowChange, ...]
    rows_lost: int
    touched: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return dataclasses.asdict(self)


def prove_effect(
    before: Catalog,
    after: Catalog,
    resolved: Sequence[Resolution],
    rows: Mapping[str, int],
    row_changes: Sequence[RowChange],
    *,
    nameless: frozenset[str] = frozenset(),
    values: Mapping[Address, int] | None = None,
) -> Effect:
    """Draw the effect from two snapshots.

    :param resolved: what the names of the DOWN meant before it ran.
    :param rows: row counts before, by identity of the table.
    :param nameless: types of objects that the DOWN drops and whose names cannot be looked up.
    :param values: of columns that are taken back by themselves, the values that are not NULL: they count as rows lost.
    """
    difference = compare(before, after)
    values = values or {}
    dropped = [
        dataclasses.replace(item, rows=values.get(gone.address, item.rows))
        for item, gone in zip(_dropped(difference, resolved, rows, before, nameless), difference.gone, strict=True)
    ]
    lost = sum(
        item.rows or 0
        for item, gone in zip(dropped, difference.gone, strict=True)
        if gone.kind == "r" or gone.address in values
    )
    return Effect(
        tuple(sorted(dropped, key=lambda item: (item.cascaded, bool(item.part_of), item.type, item.identity))),
        _skipped(resolved),
        _left_over(resolved, after),
        tuple(
            {"type": item.type, "identity": item.identity, "before": item.before, "after": item.after}
            for item in difference.changed
        ),
        tuple({"type": item.type, "identity": item.identity} for item in difference.added),
        tuple(row_changes),
        lost + sum(item.deleted for item in row_changes),
        uncounted=tuple(item.identity for item in difference.gone if item.kind == "r" and item.identity not in rows),
    )


def _dropped(
    difference: Difference,
    resolved: Sequence[Resolution],
    rows: Mapping[str, int],
    before: Catalog,
    nameless: frozenset[str],
) -> list[Dropped]:
    named = {item.target.address for item in resolved if item.target}
    gone = {item.address: item for item in difference.gone}

    def is_named(item: Gone) -> bool:
        # What has no name that could be looked up (an operator, a cast) goes only when a statement says so, or by CASCADE.
        return item.address in named or item.type in nameless

    def cascaded(item: Gone) -> bool:
        seen = set()
        while not is_named(item):
            if item.owner is None or item.owner in seen or item.owner not in gone:
                return True
            seen.add(item.owner)
            item = gone[item.owner]
        return False

    return [
        Dropped(
            item.type,
            item.identity,
            cascaded(item),
            _rows_of(item, before, rows),
            "" if is_named(item) else item.part_of,
        )
        for item in difference.gone
    ]


def _rows_of(item: Gone, before: Catalog, rows: Mapping[str, int]) -> int | None:
    if item.kind in ("r", "p"):
        return _rows_below(before.objects[item.address], before, rows)
    if item.type == "table column":
        return _rows_below(before.objects["pg_class", item.address[1]], before, rows)
    return None


def _rows_below(table: CatalogObject, before: Catalog, rows: Mapping[str, int]) -> int | None:
    """Rows of a table, or of all partitions of a partitioned one; ``None`` where one of them could not be counted."""
    counts = [rows.get(leaf.identity) for leaf in (leaves(before, table) if table.kind == "p" else [table])]
    return None if None in counts else sum(count or 0 for count in counts)


def leaves(catalog: Catalog, parent: CatalogObject) -> list[CatalogObject]:
    """Partitions with rows of their own below a partitioned table, at any depth."""
    children = [item for item in catalog if ("pg_class", parent.oid, 0) in item.owners and item.kind in ("r", "p")]
    found = []
    for child in children:
        found.extend([child] if child.kind == "r" else leaves(catalog, child))
    return found


def _skipped(resolved: Sequence[Resolution]) -> tuple[dict[str, t.Any], ...]:
    return tuple(
        {
            "type": item.named.type,
            "identity": item.named.identity,
            "elsewhere": [place.identity for place in item.elsewhere],
        }
        for item in resolved
        if item.target is None and item.if_exists
    )


def _left_over(resolved: Sequence[Resolution], after: Catalog) -> tuple[dict[str, t.Any], ...]:
    found: dict[tuple[str, str], dict[str, t.Any]] = {}
    for item in resolved:
        places = [*([item.target] if item.target else []), *item.elsewhere]
        for place in places:
            if is_there(after, place.address):
                found[item.named.type, place.identity] = {
                    "type": item.named.type, "identity": place.identity, "named": item.named.identity,
                }  # fmt: skip
    return tuple(found.values())


def is_there(catalog: Catalog, address: tuple[str, int]) -> bool:
    """Whether an object, or a column of a table, is in a snapshot."""
    kind, oid = address
    if not kind.startswith(COLUMN):
        return address in catalog.objects
    table = catalog.get(("pg_class", oid))
    column = kind.removeprefix(COLUMN)
    return table is not None and any(bare_name(name) == column for name, _definition in table.columns.values())
