# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases that were replaced and kept: their names, and the comment that says what each of them is."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Collection

    from .catalog import Cursor

#: Bytes of a name (NAMEDATALEN - 1 in the server's source). The server cuts longer ones without an error.
LONGEST_NAME = 63

#: How the comment of a kept database begins; its last line is the same and more as JSON.
MARK = "cypher.rollback: replaced by "


@dataclasses.dataclass(frozen=True)
class Mark:
    """What the comment of a kept database says.

    :param oid: of the database itself, so that the comment of a copy of it does not count.
    :param was: name that it had.
    :param replaced_by: the backup, or the database, that took its place.
    :param at: UTC time as in ``2026-02-13T10:15:12Z``.
    :param xid: the transaction that replaced it: their order holds even when the clock was set back.
    :param comment: the comment that it had.
    """

    oid: int
    was: str
    replaced_by: str
    run_id: str
    at: str
    xid: int
    comment: str

    def text(self) -> str:
        """The comment: a sentence for people, and a line of ASCII from which all of it can be read again."""
        run = f" in run {self.run_id}" if self.run_id else ""
        return f"{MARK}{self.replaced_by}{run} at {self.at}; was {self.was}\n{json.dumps(dataclasses.asdict(self))}"


def read_mark(comment: str | None, oid: int) -> Mark | None:
    """What a database's comment says about it; ``None`` where it is no mark of ours, or another database's."""
    if not comment or not comment.startswith(MARK):
        return None
    with contextlib.suppress(ValueError, TypeError):
        said = json.loads(comment.rpartition("\n")[2])
        mark = Mark(**{field.name: field_type(said[field.name]) for field, field_type in _FIELDS if field.name in said})
        return mark if mark.oid == oid else None
    return None


_FIELDS: list[tuple[dataclasses.Field[t.Any], t.Callable[[t.Any], t.Any]]] = [
    (field, int if field.name in ("oid", "xid") else str) for field in dataclasses.fields(Mark)
]


@dataclasses.dataclass(frozen=True)
class Kept:
    """A database that was replaced.

    :param replaced_at: UTC time.
    :param backup_id: the backup, or the database, that took its place.
    :param bytes: size; ``None`` where the role may not ask for it.
    """

    name: str
    replaced_at: str
    backup_id: str
    run_id: str
    bytes: int | None
    oid: int

    def to_dict(self) -> dict[str, t.Any]:
        """For a module's result."""
        return dataclasses.asdict(self)


def kept_databases(cursor: Cursor, live: str) -> list[Kept]:
    """Databases that once were ``live`` and were replaced, the one that was replaced last first.

    They are known by their comments, never by their names alone.
    """
    cursor.execute(
        "SELECT d.oid::pg_catalog.int8, d.datname::pg_catalog.text, pg_catalog.shobj_description(d.oid, 'pg_database'), "
        "CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') "
        "THEN pg_catalog.pg_database_size(d.oid) END FROM pg_catalog.pg_database d WHERE d.datname <> %s",
        (live,),
    )
    found = []
    for oid, name, comment, size in cursor.fetchall():
        mark = read_mark(comment, oid)
        if mark is not None and mark.was == live:
            kept = Kept(name, mark.at, mark.replaced_by, mark.run_id, None if size is None else int(size), oid)
            found.append((mark.xid, oid, kept))
    return [kept for _xid, _oid, kept in sorted(found, key=lambda item: item[:2], reverse=True)]


def kept_name(live: str, taken: Collection[str], now: dt.datetime) -> str:
    """Name for a database that is replaced: ``<live>_replaced_<UTC>``, shortened at the end of ``live`` where it must be.

    :param taken: names that are not free; a number is added until the name is.
    """
    suffix = f"_replaced_{now.astimezone(dt.UTC):%Y%m%d_%H%M%S}"
    number = 1
    while True:
        name = _with_suffix(live, suffix if number == 1 else f"{suffix}_{number}")
        if name not in taken:
            return name
        number += 1


def _with_suffix(name: str, suffix: str) -> str:
    # A character of several bytes is left out as a whole.
    return name.encode()[: LONGEST_NAME - len(suffix)].decode(errors="ignore") + suffix


def fits(name: str) -> bool:
    """Whether a name can be a database's."""
    return bool(name) and "\0" not in name and len(name.encode(errors="surrogatepass")) <= LONGEST_NAME
