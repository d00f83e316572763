# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which batches the databases of one run are taken, a canary first."""

from __future__ import annotations

import re
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETTING = "rollback_serial"

#: One database, and where that went well all others together.
DEFAULT = (1, "100%")

#: One after the other, because each run stops the application that another one is about to start.
ONE_BY_ONE = (1,)

_GROUP = "rollback_batches_"

#: The machine itself, or a folder with its socket there.
_LOCAL = re.compile(r"localhost$|127\.|::1$|/|$")

_PERCENT = re.compile(r"(100|[1-9]?[0-9])%")


def given(values: t.Iterable[t.Any]) -> list[t.Any]:
    """The values of rollback_serial, each once; the default where there is none.

    :param values: that of each database, ``None`` where it has none.
    """
    found: list[t.Any] = []
    for value in values:
        if value is not None and value not in found:
            found.append(value)
    return found or [list(DEFAULT)]


def sizes(value: t.Any) -> list[int | str] | None:
    """The sizes of the batches, as Ansible's ``serial`` takes them; ``None`` where the value names none.

    :param value: a number, a percentage, or a list of these. An extra variable is a text: ``1`` or ``1,25%,100%``.
    """
    entries = (
        value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]
    )
    found = [_size(entry) for entry in entries]
    return [size for size in found if size is not None] if found and None not in found else None


def _size(entry: t.Any) -> int | str | None:
    text = "" if isinstance(entry, bool) else str(entry).strip()
    if _PERCENT.fullmatch(text) and text != "0%":
        return text
    return int(text) if text.isascii() and text.isdecimal() and int(text) > 0 else None


def problems(values: Sequence[t.Any]) -> list[str]:
    """Why the databases have no order, a sentence each.

    :param values: as :func:`given` gives them.
    """
    if len(values) > 1:
        several = (
            f"The databases of this run have {len(values)} values of {SETTING}, and the order is one for all of them."
        )
        return [f"{several} Set {SETTING} in the variables of the group all, or as an extra variable."]
    if sizes(values[0]) is None:
        wrong = f"{SETTING} is {values[0]!r}, which names no batches."
        return [
            f'{wrong} Give numbers of databases or percentages, such as [1, "100%"] for a canary and then all others.'
        ]
    return []


def address(machine: str, settings: Mapping[str, t.Any]) -> str:
    """A database in words that are the same for two hosts of the inventory that mean the same one.

    :param machine: where ``localhost`` is.
    :param settings: ``rollback_db_host``, ``rollback_db_port`` and ``rollback_db_name``, with their defaults.
    """
    host = str(settings["rollback_db_host"])
    where = machine if _LOCAL.match(host) else host
    return f"{settings['rollback_db_name']} at {where}:{settings['rollback_db_port']}"


def the_same(addresses: Mapping[str, str]) -> list[str]:
    """Why hosts of the inventory that mean one database cannot be in one run, a sentence each.

    :param addresses: by host, as :func:`address` gives them.
    """
    hosts: dict[str, list[str]] = {}
    for host, database in addresses.items():
        hosts.setdefault(database, []).append(host)
    return [
        f"{' and '.join(names)} are one database, {database}: it would be taken back while an application of it runs that another of them "
        f"has. Leave one of them in the group erp_db, with all hosts of its application in rollback_app_hosts."
        for database, names in hosts.items()
        if len(names) > 1
    ]


def shared(applications: Mapping[str, Sequence[str]]) -> list[str]:
    """The application's hosts that more than one database has, in their order.

    :param applications: by database, the hosts of its application that a run stops.
    """
    seen: dict[str, int] = {}
    for hosts in applications.values():
        for host in dict.fromkeys(hosts):
            seen[host] = seen.get(host, 0) + 1
    return [host for host, count in seen.items() if count > 1]


def group_name(values: Sequence[t.Any], applications: Mapping[str, Sequence[str]]) -> str:
    """The name of a group of the inventory that holds the batches, where only such names can be read."""
    return _GROUP + "_".join(str(size).replace("%", "p") for size in serial(values, applications))


def of_groups(names: t.Iterable[str]) -> list[int | str]:
    """The batches that the newest such name holds; one batch of all without any."""
    found = [name.removeprefix(_GROUP).replace("p", "%") for name in names if name.startswith(_GROUP)]
    return [size for word in (found or ["100%"])[-1].split("_") if (size := _size(word)) is not None]


def serial(values: Sequence[t.Any], applications: Mapping[str, Sequence[str]]) -> list[int | str]:
    """What Ansible's ``serial`` gets. Values that name no batches give one batch, in which every database is refused."""
    if problems(values):
        return ["100%"]
    return list(ONE_BY_ONE) if shared(applications) else sizes(values[0]) or ["100%"]
