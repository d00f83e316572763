# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for extra variables, which a survey gives as text, and an empty one where a question was left out."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.cypher.rollback.plugins.module_utils import answers


def is_yes(value: t.Any, name: str = "answer") -> bool:
    """Whether an answer is a yes; nothing is a no, and any other word an error that names the variable."""
    try:
        return answers.is_yes(value, name)
    except answers.NeitherYesNorNo as err:
        raise AnsibleFilterError(str(err)) from err


class FilterModule:
    """The filters of answers."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {"given": answers.given, "is_yes": is_yes}
