# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queries of smoke tests. Apart from the other tests, so that those need no database driver."""

from __future__ import annotations

import functools
import typing as t

from .connection import HAS_PSYCOPG2, ConnectionSettings, connect

if t.TYPE_CHECKING:
    from .smoke import DatabaseAsker

if HAS_PSYCOPG2:
    import psycopg2


def first_row(settings: ConnectionSettings, query: str, limit: float) -> t.Sequence[t.Any] | None:
    """The first row of a query, run in a read-only transaction of a connection of its own.

    :param limit: seconds that the query may take.
    :raises CannotConnect: when the server lets nobody in.
    :raises ValueError: when the query fails, with the server's words.
    """
    connection = connect(
        settings, application_name="cypher.rollback smoke_test", statement_timeout=f"{int(limit * 1000)}ms"
    )
    try:
        connection.set_session(readonly=True)
        with connection.cursor() as cursor:
            cursor.execute(query)
            row: tuple[t.Any, ...] | None = cursor.fetchone() if cursor.description else None
        return row
    except psycopg2.Error as err:
        raise ValueError(f"the query failed: {err}") from err
    finally:
        connection.close()


def asker(settings: ConnectionSettings) -> DatabaseAsker:
    """How a database is asked."""
    return functools.partial(first_row, settings)
