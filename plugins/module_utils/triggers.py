# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Triggers that do not fire. Those of a foreign key belong to the server, and are what keeps orphans out."""

from __future__ import annotations

import dataclasses
import typing as t

from .checks import FAILED, INFORMATION, Check, is_all_right, some

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from .catalog import Cursor

#: 'R' fires for replication only. Of a foreign key its own name is told; its triggers have only numbers.
_DISABLED = """
SELECT DISTINCT i.identity, k.oid IS NOT NULL
FROM pg_catalog.pg_trigger g
JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
LEFT JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint AND k.contype = 'f' AND g.tgisinternal
CROSS JOIN LATERAL pg_catalog.pg_identify_object(
    CASE WHEN k.oid IS NULL THEN 'pg_catalog.pg_trigger'::pg_catalog.regclass ELSE 'pg_catalog.pg_constraint'::pg_catalog.regclass END,
    coalesce(k.oid, g.oid), 0) i
WHERE c.relpersistence <> 't' AND (g.tgenabled = 'D' OR g.tgenabled = 'R' AND g.tgisinternal)
ORDER BY 1
"""

_ENABLE = "ALTER TABLE ... ENABLE TRIGGER ALL, and put right what was written meanwhile"


@dataclasses.dataclass(frozen=True)
class Disabled:
    """A trigger that does not fire.

    :param identity: of the trigger; of a foreign key's, that of the foreign key.
    :param internal: it is a foreign key's.
    """

    identity: str
    internal: bool


def disabled_triggers(cursor: Cursor) -> list[Disabled]:
    """All of the database, of partitions too."""
    cursor.execute(_DISABLED)
    return [Disabled(*row) for row in cursor.fetchall()]


def trigger_checks(cursor: Cursor, before: Collection[str] | None) -> Iterator[Check]:
    """Triggers of foreign keys and of users.

    :param before: identities of what was disabled before a rollback; what it disabled itself fails. ``None``: the database is
        verified by itself; then a foreign key that is disabled fails, and a user's trigger that is does not: somebody may have
        wanted that.
    """
    found = disabled_triggers(cursor)
    for internal, name in ((True, "foreign keys are enforced"), (False, "triggers are enabled")):
        those = [item.identity for item in found if item.internal is internal]
        new = [item for item in those if item not in before] if before is not None else those if internal else []
        if new:
            by = "the rollback disabled them: write ENABLE TRIGGER into the DOWN" if before is not None else _ENABLE
            yield Check(name, FAILED, "none disabled", f"{some(new)} ({by})", tuple(those))
        elif those:
            already = "disabled already before: " if before is not None else "disabled: "
            yield Check(name, INFORMATION, "none disabled", already + some(those), tuple(those))
        else:
            yield is_all_right(name, "none disabled")
