# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notes what the modules of the collection return, for the comparison with what their documentation says."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: returned_keys
type: aggregate
short_description: note what modules return
description: RETURNED_KEYS names the file, which gets one line a result.
"""


class CallbackModule(CallbackBase):
    """Looks at every result that is no failure."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "returned_keys"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """Note the module and the keys."""
        self._note(result)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        """A result that Ansible takes for a skipped task: only one that is none has more than the reason."""
        if "skip_reason" not in result._result:
            self._note(result)

    def _note(self, result: t.Any) -> None:
        action = str(result._task.action)
        if action.startswith("cypher.rollback."):
            line = json.dumps({"module": action.rpartition(".")[2], "keys": sorted(result._result)})
            with Path(os.environ["RETURNED_KEYS"]).open("a", encoding="utf-8") as noted:
                noted.write(f"{line}\n")
