# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verification knows of the rollback before it, so that nothing that is older makes that rollback fail."""

from __future__ import annotations

import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclasses.dataclass(frozen=True)
class RolledBack:
    """A rollback that was committed.

    :param touched: tables with rows that it changed, by the exact counters of its transaction.
    :param invalid: constraints that were NOT VALID, indexes that were invalid and triggers that were disabled before it.
    :param dropped: identities of what it removed.
    :param dropped_tables: whether a table was among that.
    """

    touched: frozenset[str] = frozenset()
    invalid: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    dropped_tables: bool = False

    def may_have_changed(self, tables: Collection[str], *, partitioned: bool = False) -> bool:
        """Whether it can have changed rows of these tables.

        :param partitioned: they are partitions of one table, and a dropped partition is not among them any more.
        """
        return bool(self.touched.intersection(tables)) or (partitioned and self.dropped_tables)


def rolled_back(
    dropped: Collection[Mapping[str, t.Any]], touched: Collection[str], invalid: Collection[str]
) -> RolledBack:
    """What the effect of a rollback says, as the report has it."""
    return RolledBack(
        frozenset(touched),
        frozenset(invalid),
        frozenset(str(item["identity"]) for item in dropped),
        any(item["type"] == "table" for item in dropped),
    )
