# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names from a database, made harmless for a terminal."""

from __future__ import annotations

import typing as t
import unicodedata


def visible(text: t.Any, keep: str = "") -> str:
    r"""Text in which every character that is not seen as itself is escaped, as ``\x1b`` or ``\u202e``.

    Control characters move cursors and end lines; format characters (Unicode category Cf) turn the writing around.

    :param keep: such characters that may stay.
    """
    return "".join(
        char if char in keep or _is_seen(char) else _escaped(char) for char in str(text if text is not None else "")
    )


def _is_seen(char: str) -> bool:
    category = unicodedata.category(char)
    return not (category.startswith("C") or category in ("Zl", "Zp"))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
