# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of a verification as a table for a console: what failed first, then what passed, then what is only reported."""

from __future__ import annotations

import textwrap
import typing as t

from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TITLES = (("failed", "FAILED"), ("passed", "passed"), ("information", "info"))
_NAME = 40


def verification_table(checks: Sequence[Mapping[str, t.Any]], width: int) -> list[str]:
    """Lines of at most ``width`` columns."""
    lines: list[str] = []
    for status, title in _TITLES:
        for check in checks:
            if check.get("status") == status:
                lines += _lines(check, title, width)
    return lines


def _lines(check: Mapping[str, t.Any], title: str, width: int) -> Iterator[str]:
    name, expected, actual = (" ".join(visible(check.get(key)).split()) for key in ("name", "expected", "actual"))
    head = f"  {title:<6}  {name:<{_NAME}}"
    if title == "FAILED":
        yield head.rstrip()
        for word, text in (("expected", expected), ("actual", actual)):
            yield from _wrapped(text, f"{'':10}{word:<10}", width)
    elif len(head) > _NAME + 10:
        yield head
        yield from _wrapped(actual, f"{'':{_NAME + 12}}", width)
    else:
        yield from _wrapped(actual, f"{head}  ", width)


def _wrapped(text: str, first: str, width: int) -> list[str]:
    rest = " " * len(first)
    return textwrap.wrap(text or "-", width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
