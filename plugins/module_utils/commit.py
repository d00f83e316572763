# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a transaction when the answer to its COMMIT was lost."""

from __future__ import annotations

import contextlib
import time
import typing as t

from .connection import connect
from .errors import FailedUnchanged, OutcomeUnknown, Refused

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2

if t.TYPE_CHECKING:
    from .connection import ConnectionSettings

COMMIT_ANSWER_SECONDS = 30.0
_PAUSE_SECONDS = 0.5


def settle(settings: ConnectionSettings, xid: str, lost: Exception) -> None:
    """Ask the server; it returns when the transaction was committed.

    ``pg_xact_status`` was made for this question (PostgreSQL's manual, table of transaction ID functions).

    :param xid: from ``pg_current_xact_id()``, inside the transaction.
    :param lost: the error of the connection.
    :raises FailedUnchanged: it was rolled back.
    :raises OutcomeUnknown: the server does not say, or not in time.
    """
    said = " ".join(str(lost).split())
    answer = "the server could not be asked"
    deadline = time.monotonic() + COMMIT_ANSWER_SECONDS
    while True:
        status = _transaction_status(settings, xid)
        if status == "committed":
            return
        if status == "aborted":
            raise FailedUnchanged(
                f"The connection was lost at COMMIT ({said}); the server says that transaction {xid} was rolled back. "
                "The database is as it was.",
                xid=xid,
            )
        answer = f"the server only says that it is {status}" if status else answer
        if time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_SECONDS)
    raise OutcomeUnknown(
        f"The connection was lost at COMMIT ({said}), and for {COMMIT_ANSWER_SECONDS:.0f} s {answer}. Whether the DOWN happened is not "
        f"known, so nothing was restarted. When the server answers again, ask it: SELECT pg_xact_status('{xid}'). "
        "If it says committed, run the verification and start the application of the previous release; if aborted, start the application as it was.",
        xid=xid,
    )


def _transaction_status(settings: ConnectionSettings, xid: str) -> str | None:
    try:
        return transaction_status(settings, xid)
    except (psycopg2.Error, Refused):
        return None


def transaction_status(settings: ConnectionSettings, xid: str) -> str | None:
    """What the server says of a transaction: ``committed``, ``aborted``, ``in progress``, or ``None``: it does not know any more.

    :raises psycopg2.Error: it cannot be asked.
    """
    connection = connect(settings, application_name="cypher.rollback status", statement_timeout="5s")
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_xact_status(%s::pg_catalog.xid8)", (xid,))
        status = cursor.fetchall()[0][0]
        return None if status is None else str(status)


def sessions_of_run(settings: ConnectionSettings, run_id: str) -> list[int]:
    """Process numbers of the server's sessions in which that run's statements are, whether or not their client still lives.

    :raises psycopg2.Error: the server cannot be asked.
    """
    connection = connect(settings, application_name="cypher.rollback status", statement_timeout="5s")
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_catalog.pg_stat_activity WHERE application_name = pg_catalog.left(%s, 63) ORDER BY pid",
            (f"cypher.rollback {run_id}",),
        )
        return [int(row[0]) for row in cursor.fetchall()]
