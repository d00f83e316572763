# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that draw pages about runs."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain
from ansible_collections.cypher.rollback.plugins.plugin_utils import page


def history_page(runs: t.Any) -> str:
    """Past runs as a page."""
    found = plain(runs)
    if not isinstance(found, list) or not all(isinstance(run, dict) for run in found):
        raise AnsibleFilterError(
            "cypher.rollback.history_page needs a list of runs, as the module cypher.rollback.run_history_info returns it."
        )
    return page.history_page(found)


class FilterModule:
    """The collection's filters."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {"history_page": history_page}
