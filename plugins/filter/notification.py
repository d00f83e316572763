# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the channels that are told of a run."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.notification import notify_problems
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain


def problems_of_channels(channels: t.Any, contacts: t.Any) -> list[str]:
    """What is wrong with ``rollback_notify``, a sentence each; an empty list when nothing is."""
    return notify_problems(plain(channels), plain(contacts))


class FilterModule:
    """The collection's filters."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {"notify_problems": problems_of_channels}
