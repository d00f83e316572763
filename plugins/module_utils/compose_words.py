# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Docker Compose says when it fails, without the values that it quotes of a project's files.

It quotes what it cannot read, and that may be half a password: ``unterminated quoted value "S3cr3t``, ``Invalid template:
"${S3cr3t"`` (measured with 2.26). File and line stay.
"""

from __future__ import annotations

import re

from .application import without_passwords

LAST_LINES = 3
HIDDEN = "(a value that is not shown)"

#: After these words comes a value, to the end of the line. The second is of its parser of ``.env``, dotenv.
_QUOTES_AFTER = re.compile(
    r"(unterminated quoted value|unexpected character .* in variable name near|invalid template:|invalid hostport:) .*",
    re.IGNORECASE,
)
#: What follows this line is the value itself, on as many lines as it has.
_VALUE_BELOW = re.compile(r"you may need to escape any \$", re.IGNORECASE)
#: A ``$`` in a password makes its rest the name of a variable; by custom, those of a project are in capitals.
_UNSET = re.compile(r'(The \\?")(?![A-Z_][A-Z0-9_]*\\?")[^"]*(")')


def last_lines(text: str) -> str:
    """The last lines of its standard error, on one line; those that warn only where there are no others."""
    lines = [line.strip() for line in without_values(text).splitlines() if line.strip()]
    told = [line for line in lines if "level=warning" not in line] or lines
    return " ".join(told[-LAST_LINES:])


def without_values(text: str) -> str:
    """The text, its lines as they are, without values and passwords."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(_UNSET.sub(rf"\1{HIDDEN}\2", _QUOTES_AFTER.sub(rf"\1 {HIDDEN}", line)))
        if _VALUE_BELOW.search(line):
            lines.append(HIDDEN)
            break
    return without_passwords("\n".join(lines))
