# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own checks."""

from __future__ import annotations


class ModuleDocFragment:
    """One option of the modules that verify something."""

    DOCUMENTATION = r"""
options:
  verify_checks:
    description:
      - Checks of your own, each one query. After a rollback they have to pass before the transaction commits. One that
        cannot be parsed is refused before anything is stopped.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the check.
        type: str
        required: true
      query:
        description: Query whose first value of the first row is compared.
        type: str
        required: true
      expect:
        description: What it must equal.
        type: raw
        required: true
"""
