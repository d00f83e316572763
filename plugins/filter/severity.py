# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the assessment."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.cypher.rollback.plugins.module_utils.assessment import evidence_of_hosts
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain


def host_evidence(results: t.Any) -> list[dict[str, t.Any]]:
    """What the hosts of the application saw, from the results of a task that ran on each of them."""
    if not isinstance(results, (list, tuple)):
        raise AnsibleFilterError("cypher.rollback.host_evidence needs the results of a task with a loop.")
    return evidence_of_hosts([plain(result) for result in results])


class FilterModule:
    """The collection's filters."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {"host_evidence": host_evidence}
