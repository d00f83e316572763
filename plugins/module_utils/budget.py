# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A time limit for several queries together: each gets what the others left of it."""

from __future__ import annotations

import contextlib
import time
import typing as t

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.errors

if t.TYPE_CHECKING:
    from .catalog import Cursor

_LEAST_SECONDS = 0.005
#: What the server takes as a duration.
_MOST_MILLISECONDS = 2**31 - 1


class NotChecked(Exception):
    """A query gave no answer, which says nothing about the database. The text is the reason."""


class Budget:
    """Seconds for queries that read whole tables.

    :param seconds: for all of them together.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def part(self, seconds: float) -> Budget:
        """A limit of its own, which ends no later than this one."""
        made = Budget(seconds)
        made._end = min(made._end, self._end)
        made._seconds = self._seconds if made._end == self._end else seconds
        return made

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self._end - time.monotonic() < _LEAST_SECONDS

    def ask(self, cursor: Cursor, query: str, parameters: t.Any = None) -> list[tuple[t.Any, ...]]:
        """The rows of a query that runs no longer than what is left. The transaction goes on as it was.

        :raises NotChecked: time ran out, a table was locked, or the server refused the query.
        :raises psycopg2.Error: the connection is lost.
        """
        if self.over:
            raise NotChecked(f"not reached within {self._seconds:g} s")
        left = self._end - time.monotonic()
        milliseconds = int(min(left * 1000, _MOST_MILLISECONDS))
        cursor.execute(f"SAVEPOINT budget; SET LOCAL statement_timeout = {milliseconds}")
        try:
            cursor.execute(query, parameters)
            return cursor.fetchall()
        except psycopg2.errors.QueryCanceled as err:
            raise NotChecked(f"not finished within {self._seconds:g} s") from err
        except psycopg2.errors.LockNotAvailable as err:
            raise NotChecked("locked by another session") from err
        except psycopg2.Error as err:
            if lost(err):
                raise
            raise NotChecked(" ".join(str(err).split())) from err
        finally:
            cursor.execute("ROLLBACK TO SAVEPOINT budget; RELEASE SAVEPOINT budget")


def lost(err: psycopg2.Error) -> bool:
    """Whether an error is that of the connection, and so says nothing about the database."""
    return err.pgcode is None or err.pgcode.startswith("57P")
