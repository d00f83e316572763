# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DOWN really did, proven from the catalog before and after."""

from __future__ import annotations

import dataclasses
import typing as t

from .catalog import compare

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .catalog import Catalog, CatalogObject, Difference, Gone
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
    :param touched: tables with rows that the transaction changed, the ledger included.
    :param rows_lost: rows of dropped tables, and rows deleted from surviving ones.
    """

    dropped: tuple[Dropped, ...]
    skipped: tuple[dict[str, t.Any], ...]
    left_over: tuple[dict[str, t.Any], ...]
    changed: tuple[dict[str, str], ...]
    added: tuple[dict[str, str], ...]
    row_changes: tuple[RowChange, ...]
    rows_lost: int
    touched: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, t.Any]:
        """For the report."""
        return dataclasses.asdict(self)


def prove_effect(
    before: Catalog,
    after: Catalog,
    resolved: Sequence[Resolution],
    rows: Mapping[str, int],
    row_changes: Sequence[RowChange],
) -> Effect:
    """Draw the effect from two snapshots.

    :param resolved: what the names of the DOWN meant before it ran.
    :param rows: row counts before, by identity of the table.
    """
    difference = compare(before, after)
    dropped = _dropped(difference, resolved, rows, before)
    lost = sum(item.rows or 0 for item, gone in zip(dropped, difference.gone, strict=True) if gone.kind == "r")
    return Effect(
        tuple(sorted(dropped, key=lambda item: (item.cascaded, bool(item.part_of), item.type, item.identity))),
        _skipped(resolved),
        _left_over(resolved, after),
        tuple({"type": item.type, "identity": item.identity, "before": item.before, "after": item.after} for item in difference.changed),
        tuple({"type": item.type, "identity": item.identity} for item in difference.added),
        tuple(row_changes),
        lost + sum(item.deleted for item in row_changes),
    )


def _dropped(
    difference: Difference, resolved: Sequence[Resolution], rows: Mapping[str, int], before: Catalog
) -> list[Dropped]:
    named = {item.target.address for item in resolved if item.target and not item.target.address[0].startswith("pg_attribute:")}
    named_columns = {item.target.identity for item in resolved if item.target and item.target.address[0].startswith("pg_attribute:")}
    by_identity = {item.identity: item for item in difference.gone}

    def is_named(item: Gone) -> bool:
        return item.address in named or (item.type == "table column" and item.identity.replace('"', "") in named_columns)

    def cascaded(item: Gone, depth: int = 0) -> bool:
        if is_named(item):
            return False
        owner = by_identity.get(item.part_of)
        return True if owner is None or owner is item or depth > 20 else cascaded(owner, depth + 1)

    return [
        Dropped(item.type, item.identity, cascaded(item), _rows_of(item, before, rows), "" if is_named(item) else item.part_of)
        for item in difference.gone
    ]


def _rows_of(item: Gone, before: Catalog, rows: Mapping[str, int]) -> int | None:
    if item.kind == "r":
        return rows.get(item.identity)
    if item.kind == "p":
        return sum(rows.get(leaf.identity, 0) for leaf in leaves(before, before.objects[item.address]))
    if item.type == "table column":
        return rows.get(before.objects["pg_class", item.address[1]].identity)
    return None


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
        if item.target is None
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
    if not kind.startswith("pg_attribute:"):
        return address in catalog.objects
    table = catalog.get(("pg_class", oid))
    column = kind.removeprefix("pg_attribute:")
    return table is not None and any(name.strip('"') == column for name, _definition in table.columns.values())
