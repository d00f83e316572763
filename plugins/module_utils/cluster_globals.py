# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles, memberships and tablespaces of the cluster beside a backup."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .pg_tools import ToolFailed

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .pg_tools import Tools
    from .publication import PartialFolder

GLOBALS_FILE = "globals.sql"


class Globals:
    """What pg_dumpall writes of the cluster itself, without passwords, as far as the privileges allow.

    :param dbname: the database that pg_dumpall connects to.
    """

    def __init__(
        self, tools: Tools, pg_dumpall: str, env: Mapping[str, str], partial: PartialFolder, dbname: str
    ) -> None:
        self._tools = tools
        self._env = env
        self._file = os.path.join(partial.path, GLOBALS_FILE)
        self._command = [
            pg_dumpall,
            "--no-role-passwords",
            "--no-password",
            "--no-sync",
            f"--database={dbname}",
            f"--file={self._file}",
        ]
        self._first = tools.start([*self._command, "--globals-only"], env, [partial.lock])

    def finish(self) -> tuple[str, str]:
        """What could be had, ``globals``, ``roles`` or ``none``, and a warning where that is not all."""
        try:
            self._first.wait()
        except ToolFailed as err:
            reason = str(err)
        else:
            return "globals", ""
        try:
            self._tools.start([*self._command, "--roles-only"], self._env).wait()
        except ToolFailed as err:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file)
            return "none", f"The backup has no roles of the cluster: {err}"
        return "roles", f"The backup has the roles of the cluster and not its tablespaces: {reason}"
