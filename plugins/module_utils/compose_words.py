# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Docker Compose says of its failure, without what it quotes of the project's files: those hold passwords."""

from __future__ import annotations

import re
import typing as t

from .application import without_passwords

if t.TYPE_CHECKING:
    from collections.abc import Sequence

WITHHELD = "***"
LAST_LINES = 3

#: What stands before text of the project's files in the messages of Docker Compose (compose-go's dotenv, template, loader and
#: types, and the YAML parser; tried with 2.26). File, line and the name of the setting stand before that, and are kept.
_BEFORE_QUOTED = re.compile(
    r"""
    unterminated\ quoted\ value
    | unexpected\ character (?=[^\n]*\ in\ variable\ name)
    | invalid\ template:
    | (?:need|try)\ to\ escape\ any\ \$\ with\ another\ \$\.?
    | required\ variable (?=\ .*\ missing\ a\ value)
    | failed\ to\ cast\ to\ expected\ type:
    | \berror\ decoding\ '[^'\n]*':
    | \bexpected\ type\ '\w+',
    | \bunknown\ anchor
    | \bcannot\ (?:decode|unmarshal)
    | \bmapping\ key
    | \bdepends\ on\ undefined\ service
    | \brefers\ to\ undefined\ \w+
    | \bmust\ be\ an\ integer
    | ^(?:general\ error:\ )? (?: invalid\b [^:"'`\n]* [:"'`] | confusing\ device\ mapping )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
#: A password with a dollar sign in it is quoted by a warning that a variable is not set.
_WARNING = re.compile(r"level=warning|^WARN\[")


def compose_lines(text: str) -> Sequence[str]:
    """The lines of what Docker Compose, or a program that it ran, said; none where those are but warnings."""
    text = "\n".join(line for line in text.splitlines() if not _WARNING.search(line))
    quoting = _BEFORE_QUOTED.search(text)
    # A value may go over many lines.
    told = f"{text[: quoting.end()]} {WITHHELD}" if quoting else text
    return [without_passwords(line.strip()) for line in told.splitlines() if line.strip()]


def compose_words(text: str, last: int = LAST_LINES) -> str:
    """The last of these lines in one; empty where there are none.

    :param text: everything that was said: the beginning tells what the end quotes.
    """
    return " ".join(" ".join(compose_lines(text)[-last:]).split())
