# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who keeps a session from a lock, noticed while it waits: afterwards nobody can tell."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from .connection import connect
from .server import blockers, describe_session

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.errors

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .connection import ConnectionSettings
    from .errors import RollbackError

_POLL_SECONDS = 0.1


class Watch:
    """Looks at one session on a connection of its own, which it opens only when that session takes its time."""

    def __init__(self, settings: ConnectionSettings, pid: int) -> None:
        self._settings = settings
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: list[dict[str, t.Any]] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def forget(self) -> None:
        """What was seen so far belongs to a wait that ended well."""
        self.seen = []

    def describe(self) -> str:
        """Who was in the way, and how to end it, as sentences."""
        if not self.seen:
            return "Who held it could not be seen any more."
        who = "; ".join(describe_session(item) for item in self.seen)
        ends = ", ".join(item["end"] for item in self.seen)
        return f"It is held by {who}. To end that session: {ends}."

    @contextlib.contextmanager
    def lock_errors(self, kind: type[RollbackError], what: str) -> Iterator[None]:
        """Turn a lock timeout of the watched session into one of our errors, with the names of who was in the way.

        :param what: the first sentence of its message, without the full stop.
        """
        try:
            yield
        except psycopg2.errors.LockNotAvailable as err:
            raise kind(
                f"{what}. {self.describe()} Or raise rollback_lock_timeout. Then run again.", blockers=self.seen
            ) from err

    def _look(self) -> None:
        if self._stop.wait(_POLL_SECONDS):
            return
        # Without this evidence a lock timeout is still reported, only without names.
        with contextlib.suppress(Exception):
            connection = connect(self._settings, application_name="cypher.rollback watch", statement_timeout="2s")
            connection.autocommit = True
            with contextlib.closing(connection), connection.cursor() as cursor:
                while True:
                    self.seen = blockers(cursor, self._pid) or self.seen
                    if self._stop.wait(_POLL_SECONDS):
                        return
