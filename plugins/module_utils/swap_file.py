# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of a swap that is under way: a later run reads from it what became of one that was killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import typing as t
import urllib.parse

from .errors import Refused
from .publication import make_folder, sync_folder

if t.TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class SwapFile:
    """The file of one database; without a folder there is none.

    :param folder: folder of the runs.
    """

    folder: str
    system_identifier: str
    live: str

    @property
    def path(self) -> str:
        """Where it is."""
        target = f"{self.system_identifier}-{urllib.parse.quote(self.live, safe='')}"
        return os.path.join(self.folder, f".swap-{target}.json")

    def write(self, content: Mapping[str, t.Any]) -> None:
        """Have it on the disk before this returns.

        :raises Refused: when it cannot be written, or is there already.
        """
        if not self.folder:
            return
        try:
            make_folder(self.folder)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as swap_file:
                os.fchmod(swap_file.fileno(), 0o600)
                swap_file.write(json.dumps(content) + "\n")
                swap_file.flush()
                os.fsync(swap_file.fileno())
            sync_folder(self.folder)
        except OSError as err:
            raise Refused(
                f"The file {self.path} cannot be written: {err.strerror or err}. Nothing was changed. "
                "Set rollback_run_dir to a folder on the database host in which the connecting user may write."
            ) from err

    def read(self) -> dict[str, t.Any] | None:
        """What a swap left; ``None`` where there is no file, empty where it was killed while it wrote it."""
        if not self.folder or not os.path.lexists(self.path):
            return None
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, encoding="utf-8", errors="replace") as swap_file:
                content = json.load(swap_file)
            return {**content, "live_oid": content["live_oid"], "incoming_oid": int(content["incoming_oid"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def remove(self) -> None:
        """The swap is over. A file that stays is no harm: the next run reads in the catalog what became of it."""
        if self.folder:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
                sync_folder(self.folder)
