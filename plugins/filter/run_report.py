# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that draw a run's report."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.cypher.rollback.plugins.module_utils.report import compose


def compose_report(run: t.Any) -> dict[str, t.Any]:
    """The report of a run, from its facts."""
    if not hasattr(run, "items"):
        raise AnsibleFilterError("cypher.rollback.compose_report needs a dictionary with the facts of a run.")
    return compose(run)


class FilterModule:
    """The collection's filters."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {"compose_report": compose_report}
