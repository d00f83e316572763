# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own checks, read by PostgreSQL's parser before anything is stopped."""

from __future__ import annotations

import typing as t

from .errors import Refused
from .sql import parse_script

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from .checks import WantedCheck


def refuse_malformed(checks: Iterable[WantedCheck]) -> None:
    """Refuse what cannot be run as one query inside a transaction; nothing is asked of a server.

    :raises Refused: naming the check.
    """
    for check in checks:
        if not check.query.strip():
            raise _refused(check, "its query is empty")
        try:
            number = len(parse_script(check.query, "its query"))
        except Refused as err:
            raise _refused(check, str(err)) from err
        if number != 1:
            raise _refused(check, f"it has {number} statements, and a check is one query")


def _refused(check: WantedCheck, why: str) -> Refused:
    return Refused(
        f"The check {check.name!r} of rollback_verify_checks cannot be run: {why.rstrip('.')}. Nothing was stopped or changed. "
        "Correct it, then run again.",
        check=check.name,
    )
