# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a notification template a controller of AWX has to be sent.

The controller shows every secret as ``$encrypted$`` and adds what was left out, so that a plain comparison would find a
difference each time.
"""

from __future__ import annotations

import typing as t

#: What the controller shows for a secret.
ENCRYPTED = "$encrypted$"

_PARTS = {"notification_configuration": "configuration", "messages": "messages"}


def to_send(wanted: dict[str, t.Any], existing: t.Sequence[dict[str, t.Any]], update_secrets: bool) -> dict[str, t.Any]:
    """The parts of a notification template that differ from those of the controller.

    :param wanted: ``name``, ``type``, ``configuration`` and perhaps ``messages``.
    :param existing: the notification templates of the organization, as the controller shows them.
    :param update_secrets: a secret counts as a difference.
    :returns: ``notification_configuration`` and ``messages``, as far as each is to be sent.
    """
    found = next((item for item in existing if item.get("name") == wanted["name"]), None)
    parts = {}
    for part, key in _PARTS.items():
        value = wanted.get(key)
        if value and (found is None or not _holds(found.get(part), value, update_secrets)):
            parts[part] = value
    return parts


def _holds(shown: t.Any, value: t.Any, update_secrets: bool) -> bool:
    """Whether what the controller shows has everything of ``value``, and perhaps more."""
    if isinstance(value, dict):
        return isinstance(shown, dict) and all(_holds(shown.get(key), value[key], update_secrets) for key in value)
    if shown == ENCRYPTED:
        return not update_secrets
    return bool(shown == value)
