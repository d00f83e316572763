# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one object that an operator wants to take back, as named on the command line."""

from __future__ import annotations

import dataclasses
import re
import string
import typing as t

from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Mapping

COLUMN = "column"
TABLE = "table"
INDEX = "index"
KINDS = (COLUMN, TABLE, INDEX)

AUTO = "auto"
CONCURRENTLY = "concurrently"
TRANSACTION = "transaction"

#: Longest identifier in bytes; PostgreSQL cuts what is longer (NAMEDATALEN is 64).
MAX_BYTES = 63

_FORMS = {
    COLUMN: "schema.table.column or table.column",
    TABLE: "schema.table or table",
    INDEX: "schema.index or index",
}
_PARTS = {COLUMN: (2, 3), TABLE: (1, 2), INDEX: (1, 2)}
_PART = re.compile(r'"(?P<quoted>(?:[^"\x00]|"")+)"|(?P<plain>[A-Za-z_\u0080-\U0010ffff][\w$]*)')
_FOLDED = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclasses.dataclass(frozen=True)
class WantedObject:
    """What the operator asked for.

    :param kind: ``column``, ``table`` or ``index``.
    :param given: the name as given.
    :param parts: its identifiers, folded as PostgreSQL does, outermost first.
    :param cascade: whether what depends on it may go with it.
    :param index_drop: ``auto``, ``concurrently`` or ``transaction``.
    """

    kind: str
    given: str
    parts: tuple[str, ...]
    cascade: bool = False
    index_drop: str = AUTO

    @property
    def argument(self) -> str:
        """As it stands on a command line, for messages."""
        return f"-e {self.kind}={self.given}"

    @property
    def relation(self) -> tuple[str | None, str]:
        """Schema, where one is given, and name of the table or index; of a column, of its table."""
        names = self.parts[:-1] if self.kind == COLUMN else self.parts
        return (names[0] if len(names) == 2 else None, names[-1])

    @property
    def column(self) -> str:
        """Name of the column; empty for other kinds."""
        return self.parts[-1] if self.kind == COLUMN else ""


def object_argument_spec() -> dict[str, dict[str, t.Any]]:
    """The option of the modules that take back one object instead of a migration."""
    options: dict[str, dict[str, t.Any]] = {
        **{kind: {"type": "str", "default": ""} for kind in KINDS},
        "cascade": {"type": "bool", "default": False},
        "index_drop": {"type": "str", "default": AUTO, "choices": [AUTO, CONCURRENTLY, TRANSACTION]},
    }
    return {"object": {"type": "dict", "options": options}}


def wanted_object(params: Mapping[str, t.Any]) -> WantedObject | None:
    """The object that a module's parameters name; ``None`` where they are about a migration.

    :raises Refused: for none or several, a migration beside it, or a name that is none.
    """
    asked = params.get("object")
    if asked is None:
        return None
    given = [kind for kind in KINDS if asked.get(kind)]
    if len(given) != 1 or params.get("version") or params.get("to_version"):
        also = [name for name in ("version", "to_version") if params.get(name)]
        named = ", ".join([*given, *also]) or "none of them"
        raise Refused(
            f"Give exactly one of column, table and index; given {'was' if len(given + also) < 2 else 'were'} {named}. "
            "Nothing was stopped or changed. For example: -e column=b2b.orders.new_column. A migration is taken back by rollback.yml."
        )
    kind = given[0]
    name = str(asked[kind]).strip()
    return WantedObject(kind, name, split_name(kind, name), bool(asked.get("cascade")), asked.get("index_drop") or AUTO)


def split_name(kind: str, name: str) -> tuple[str, ...]:
    """The identifiers of a name.

    :raises Refused: it is no name of such an object.
    """
    parts, position = [], 0
    while True:
        match = _PART.match(name, position)
        if match is None:
            raise _no_name(kind, name)
        plain = match["plain"]
        parts.append(plain.translate(_FOLDED) if plain else match["quoted"].replace('""', '"'))
        position = match.end()
        if position == len(name):
            break
        if name[position] != ".":
            raise _no_name(kind, name)
        position += 1
    if len(parts) not in _PARTS[kind] or any(len(part.encode()) > MAX_BYTES for part in parts):
        raise _no_name(kind, name)
    return tuple(parts)


def _no_name(kind: str, name: str) -> Refused:
    shown = repr(name if len(name) <= 200 else name[:200] + "…")
    return Refused(
        f"{kind} is {shown}, which names no {kind}. Give {_FORMS[kind]}, each at most {MAX_BYTES} bytes. Nothing was stopped or changed. "
        "A name with capitals, blanks or dots stands in double quotes, which arrive when the variable is given as JSON: "
        f"""-e '{{"{kind}": "b2b.\\"My {kind}\\"{".id" if kind == COLUMN else ""}"}}'"""
    )


def label(kind: str, *names: str) -> str:
    """A name for files and runs, where a migration would have its version: letters, digits, ``_`` and ``-``."""
    return "-".join(re.sub(r"[^0-9A-Za-z_]+", "_", part) for part in (kind, *names))[:100]
