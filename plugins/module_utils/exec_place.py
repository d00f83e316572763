# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where PostgreSQL's client programs are, when they are not on this host: in a container, behind a command."""

from __future__ import annotations

import dataclasses
import typing as t

from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class ExecPlace:
    """A command that runs another one elsewhere, with its standard input and output.

    :param argv: such as ``docker compose exec -T db``.
    :param host: the server, as it is reached from there: a name or the folder of its socket.
    :param port: its port there.
    :param folder: where working files may be there.
    :param chdir: folder of this host in which ``argv`` is run; empty: any.
    """

    argv: tuple[str, ...]
    host: str = "localhost"
    port: int = 5432
    folder: str = "/tmp"  # noqa: S108 - in a folder of its own that mktemp makes there
    chdir: str = ""

    @property
    def command(self) -> str:
        """The command in a message."""
        return " ".join(self.argv)


def exec_argument_spec() -> dict[str, dict[str, t.Any]]:
    """The options of every module that runs client programs."""
    return {
        "client_exec": {"type": "list", "elements": "str", "default": []},
        "client_exec_host": {"type": "str", "default": "localhost"},
        "client_exec_port": {"type": "int", "default": 5432},
        "client_exec_dir": {"type": "str", "default": "/tmp"},  # noqa: S108 - see above
        "client_exec_chdir": {"type": "str", "default": ""},
    }


def place_from(params: Mapping[str, t.Any]) -> ExecPlace | None:
    """The place of a module's parameters; ``None``: this host.

    :raises Refused: a value means nothing.
    """
    argv = tuple(params.get("client_exec") or ())
    if not argv:
        return None
    if not all(argv):
        raise Refused(
            f"rollback_pg_exec has an empty word: {list(argv)}. Give a list such as [docker, compose, exec, -T, db]."
        )
    if not params["client_exec_dir"].startswith("/"):
        raise Refused(
            f"rollback_pg_exec_dir is {params['client_exec_dir']!r}; give an absolute path inside the container."
        )
    return ExecPlace(
        argv,
        params["client_exec_host"] or "localhost",
        params["client_exec_port"],
        params["client_exec_dir"].rstrip("/") or "/",
        params["client_exec_chdir"] or "",
    )
