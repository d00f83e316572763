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
        if value and (found is None or not _holds(found.get(part), value, update_secrets, key == "configuration")):
            parts[part] = value
    return parts


def _holds(shown: t.Any, value: t.Any, update_secrets: bool, exact_below: bool) -> bool:
    """Whether what the controller shows is this value, or has everything of it and what the controller added itself.

    :param exact_below: of a dictionary inside, such as the headers of a webhook, it would add nothing: what it has more was taken out
        of the settings since, or put in by hand.
    """
    if isinstance(value, dict):
        return isinstance(shown, dict) and all(
            _holds(shown.get(key), value[key], update_secrets, exact_below)
            and not (exact_below and _has_more(shown.get(key), value[key]))
            for key in value
        )
    if shown == ENCRYPTED:
        return not update_secrets
    return bool(shown == value)


def _has_more(shown: t.Any, value: t.Any) -> bool:
    return isinstance(shown, dict) and isinstance(value, dict) and bool(set(shown) - set(value))
