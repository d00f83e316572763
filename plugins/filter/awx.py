# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role awx_templates."""

from __future__ import annotations

import importlib.util
import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.awx_notification import to_send
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain


def missing_collections(names: t.Any) -> list[str]:
    """Those of the collections that are not installed."""
    return [name for name in names if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"ansible_collections.{name}") is not None
    except ModuleNotFoundError:
        return False


def awx_notification(wanted: t.Any, existing: t.Any, update_secrets: bool = False) -> dict[str, t.Any]:
    """The parts of a notification template that the controller has not as they are wanted."""
    return to_send(plain(wanted), plain(existing), update_secrets)


class FilterModule:
    """The filters of the templates of AWX."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {"awx_notification": awx_notification, "missing_collections": missing_collections}
