# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the guides, as they stand there, for the tests that run them.

A command is a ``.. code-block:: bash`` whose line before is the comment ``.. run: <name>``.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "docsite" / "rst"

_BLOCK = re.compile(r"(?:^\.\. run: (\w+)\n\n?)?^\.\. code-block:: bash\n\n((?:[ ]+\S[^\n]*\n|\n)+)", re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """Name and text of every bash block of a guide; the name is empty where no mark stands before it.

    :param page: name of the guide without its ending, such as ``guide_awx``.
    """
    text = (GUIDES / f"{page}.rst").read_text(encoding="utf-8") + "\n"
    return [(name, textwrap.dedent(body).strip() + "\n") for name, body in _BLOCK.findall(text)]


def command(page: str, name: str) -> str:
    """The shell text of one marked block.

    :raises KeyError: the guide has no such mark.
    """
    return {mark: body for mark, body in blocks(page) if mark}[name]
