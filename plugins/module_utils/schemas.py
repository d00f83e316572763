# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which schemas there are, which have to be, and what is in them."""

from __future__ import annotations

import typing as t

from .catalog import bare_name
from .checks import FAILED, INFORMATION, Check, is_all_right, some

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .catalog import Catalog


def schema_checks(
    catalog: Catalog, required: Sequence[str], gone: Mapping[str, str], *, after_rollback: bool
) -> Iterator[Check]:
    """Whether the required schemas are there.

    :param gone: identities that rollbacks dropped, and which run did.
    :param after_rollback: straight after a rollback, a schema that it did not drop was missing before, and does not fail.
    """
    there = {item.name for item in catalog if item.catalog == "pg_namespace"}
    dropped = {bare_name(identity): run for identity, run in gone.items()}
    missing = [name for name in required if name not in there and name not in dropped]
    explained = [f"{name} (dropped by {dropped[name]})" for name in required if name not in there and name in dropped]
    expected = f"{', '.join(name for name in required if name not in dropped or name in there) or 'none'}"
    if missing:
        told = f"missing: {some(missing)}"
        advice = (
            "; the rollback did not drop it" if after_rollback else "; if so meant, correct rollback_required_schemas"
        )
        yield Check("required schemas", INFORMATION if after_rollback else FAILED, expected, told + advice)
    elif explained:
        yield Check("required schemas", INFORMATION, expected, f"missing: {some(explained)}")
    elif required:
        yield is_all_right("required schemas", expected)


def table_checks(catalog: Catalog) -> Iterator[Check]:
    """How many tables each schema has, and which. Partitions count with their table."""
    inside: dict[str, list[str]] = {item.identity: [] for item in catalog if item.catalog == "pg_namespace"}
    for item in catalog:
        if item.catalog == "pg_class" and item.kind in ("r", "p", "f") and not _is_partition(item.owners):
            inside.setdefault(item.schema or "", []).append(item.identity)
    counts = [f"{schema} {len(names)}" for schema, names in sorted(inside.items())]
    names = tuple(sorted(name for names in inside.values() for name in names))
    yield Check("tables of each schema", INFORMATION, "reported", some(counts, 20) or "no table", names)


def _is_partition(owners: Sequence[tuple[str, int, int]]) -> bool:
    return any(catalog == "pg_class" for catalog, _oid, _column in owners)
