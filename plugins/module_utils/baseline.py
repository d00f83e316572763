# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the critical queries take before a migration, to compare with later."""

from __future__ import annotations

import contextlib
import statistics
import time
import typing as t

from .connection import connect

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg2.extensions

    from .readiness import BackupRequest

with contextlib.suppress(ImportError):
    import psycopg2

#: The first one fills the caches and does not count.
RUNS = 5
#: Longest that one run of a query may take.
STATEMENT_TIMEOUT = "30s"


def measure(request: BackupRequest) -> tuple[dict[str, t.Any], ...]:
    """Run each query once and then five times in read-only transactions; one that cannot run is recorded with its error.

    :return: ``name``, ``query``, ``seconds`` of each run, ``median`` (``None`` without a run) and ``error`` of each query.
    :raises CannotConnect: the server lets nobody in.
    """
    if not request.queries:
        return ()
    connection = connect(
        request.settings,
        application_name="cypher.rollback baseline",
        lock_timeout=request.lock_timeout,
        statement_timeout=STATEMENT_TIMEOUT,
        search_path=request.search_path,
    )
    with contextlib.closing(connection):
        connection.set_session(readonly=True)
        return tuple(_measured(connection, query) for query in request.queries)


def _measured(connection: psycopg2.extensions.connection, query: Mapping[str, str]) -> dict[str, t.Any]:
    seconds: list[float] = []
    error = ""
    try:
        timed(connection, query["query"])
        seconds.extend(round(timed(connection, query["query"]), 6) for _run in range(RUNS))
    except psycopg2.Error as err:
        error = " ".join(str(err).split())
    median = round(statistics.median(seconds), 6) if seconds and not error else None
    return {"name": query["name"], "query": query["query"], "seconds": seconds, "median": median, "error": error}


def timed(connection: psycopg2.extensions.connection, query: str) -> float:
    """Seconds that a query and its rows took; its transaction is undone.

    :raises psycopg2.Error: when it cannot run.
    """
    started = time.monotonic()
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            if cursor.description:
                cursor.fetchall()
        return time.monotonic() - started
    finally:
        if not connection.closed:
            connection.rollback()
