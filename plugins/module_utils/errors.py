# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, named by the state it leaves things in."""

from __future__ import annotations

import typing as t


class RollbackError(Exception):
    """An error with a sentence for the operator and the outcome that it means for the run.

    :param message: what happened, what state things are in, what to do next.
    :param details: JSON-able evidence for the report, such as ``line``, ``file`` or ``blockers``.
    """

    outcome: t.ClassVar[str] = "failed_unchanged"

    def __init__(self, message: str, **details: t.Any) -> None:
        super().__init__(message)
        self.details: dict[str, t.Any] = details


class Refused(RollbackError):
    """Found before anything was stopped; the message says what to do."""

    outcome = "refused"


class FailedUnchanged(RollbackError):
    """The database is as it was before the run."""

    outcome = "failed_unchanged"


class NeedsAttention(RollbackError):
    """The database changed and something after that failed."""

    outcome = "needs_attention"


class OutcomeUnknown(RollbackError):
    """The server could not be asked whether the commit happened."""

    outcome = "unknown"
