# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchanges the live database and another one by two renames in one transaction. Exchanging back is the same.

Nothing outlives the transaction, so nothing has to be put right after it. ``ALTER DATABASE … RENAME`` takes the lock that
every new session of the database has to pass, superusers' included, and then waits five seconds for those that are there
to end (``CountOtherDBBackends`` in the server's source; measured on 15 and 18). That lock is the fence: whoever connects
waits behind it. When this process, its connection, its machine or the server dies, the server undoes the transaction and
lets everybody in again, where ``ALLOW_CONNECTIONS false`` would stay and need somebody to take it back. A client that
waited is told once that the database "seems to have just been dropped or renamed", and finds the new one at its next try.

The replaced database keeps all that it was and takes connections, so that people can look at it and take rows out of it.
The application cannot get there by accident: it would have to know a name that is new.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from .commit import settle
from .database_properties import apply_properties, differences, read_properties
from .errors import FailedUnchanged, OutcomeUnknown, Refused
from .eviction import Eviction
from .kept import Kept, Mark, kept_databases
from .server import inspect_target
from .swap_file import SwapFile
from .swap_readiness import SwapPlan, SwapReadiness, SwapRequest, check_swap, make_plan, session

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.extensions
    from psycopg2.sql import SQL, Identifier, Literal

if t.TYPE_CHECKING:
    from .connection import ConnectionSettings
    from .database_properties import Cursor

__all__ = ["SwapReadiness", "SwapRequest", "Swapped", "check_swap", "heal", "newest_kept", "swap"]

#: First half of the advisory lock's key pair, "swap" in ASCII; the second is a hash of the live database's name.
LOCK_KEY = 0x73776170

#: A killed process's session is gone within the five seconds of a rename, even on PostgreSQL 13.
LOCK_SECONDS = 7.0
_POLL_SECONDS = 0.05

#: Somebody is in the database still, holds its lock, or our own limit ended the wait: another try may succeed.
_IN_USE = ("55006", "55P03", "57014", "40P01")

#: PostgreSQL duration for what waits for nobody.
_REST = "10s"


@dataclasses.dataclass(frozen=True)
class Swapped:
    """An exchange that was committed.

    :param kept: name of the replaced database; empty where there was no live one.
    :param ended: sessions that were ended.
    :param seconds: all of it; ``fenced`` is the part in which nobody could connect.
    :param xid: the transaction, for ``pg_xact_status``.
    """

    live: str
    kept: str
    incoming: str
    ended: tuple[dict[str, t.Any], ...]
    seconds: float
    fenced: float
    xid: str
    warnings: tuple[str, ...] = ()


def swap(request: SwapRequest) -> Swapped:
    """Give ``request.incoming`` the live name, and keep the live database under another.

    :raises FailedUnchanged: nothing was exchanged, and every database is as it was.
    :raises OutcomeUnknown: the answer to COMMIT was lost and the server cannot be asked.
    """
    started = time.monotonic()
    try:
        with session(request) as connection, _alone(connection, request.live) as cursor:
            swap_file = _swap_file(connection, request)
            healed = _heal(cursor, swap_file)
            plan = make_plan(cursor, request)
            done = _Swap(request, plan, connection, swap_file).run()
    except Refused as err:
        raise FailedUnchanged(str(err), **err.details) from err
    warnings = (*healed, *plan.warnings, *done.warnings)
    return dataclasses.replace(done, seconds=round(time.monotonic() - started, 3), warnings=warnings)


def newest_kept(request: SwapRequest) -> Kept:
    """The database that was replaced last under the live name, for exchanging back.

    :raises Refused: there is none.
    """
    with session(request) as connection, connection.cursor() as cursor:
        found = kept_databases(cursor, request.live)
    if not found:
        raise Refused(
            f"No database that once was {request.live} is kept on this server. Nothing was changed. "
            "Restore a backup instead (emergency_rollback.yml)."
        )
    return found[0]


def heal(settings: ConnectionSettings, maintenance_db: str, state_dir: str) -> list[str]:
    """What became of an exchange whose process was killed, as sentences, and its file is gone. The server needs no healing.

    :param settings: ``dbname`` is the live database's name.
    :raises Refused: another exchange is at work, or the server cannot be asked.
    """
    request = SwapRequest(settings, "", maintenance_db=maintenance_db, state_dir=state_dir)
    with session(request) as connection, _alone(connection, request.live) as cursor:
        return _heal(cursor, _swap_file(connection, request))


def _swap_file(connection: psycopg2.extensions.connection, request: SwapRequest) -> SwapFile:
    target = inspect_target(connection, request.there)
    return SwapFile(request.state_dir, target.system_identifier, request.live)


def _heal(cursor: Cursor, swap_file: SwapFile) -> list[str]:
    left = swap_file.read()
    if left is None:
        return []
    said = _became(cursor, swap_file.live, left) if left else "An exchange was killed before it changed anything."
    swap_file.remove()
    return [said]


def _became(cursor: Cursor, live: str, left: dict[str, t.Any]) -> str:
    names = _names(cursor, [left["incoming_oid"]])
    which = f"The exchange that run {left.get('run_id') or '(without a name)'} began at {left.get('at')} was killed or lost its connection"
    if names.get(left["incoming_oid"]) == live:
        kept = f"; the replaced one is {left['kept']}" if left.get("kept") else ""
        return f"{which} after its COMMIT: {live} is what was {left.get('incoming')}{kept}."
    return f"{which} before its COMMIT: it changed nothing."


def _names(cursor: Cursor, oids: list[int]) -> dict[int, str]:
    cursor.execute(
        "SELECT oid::pg_catalog.int8, datname::pg_catalog.text FROM pg_catalog.pg_database WHERE oid = ANY(%s::pg_catalog.oid[])",
        (oids,),
    )
    return dict(cursor.fetchall())


@contextlib.contextmanager
def _alone(connection: psycopg2.extensions.connection, live: str) -> t.Iterator[Cursor]:
    """Only one exchange of a database at a time. The lock ends with the session, however that ends.

    :raises Refused: naming who holds it.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_catalog.pg_try_advisory_lock(%s, pg_catalog.hashtext(%s))", (LOCK_KEY, live))
            if cursor.fetchall()[0][0]:
                break
            if time.monotonic() >= deadline:
                raise Refused(_held(cursor, live))
            time.sleep(_POLL_SECONDS)
        yield cursor


def _held(cursor: Cursor, live: str) -> str:
    cursor.execute(
        "SELECT a.pid, a.application_name FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = "
        "'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = %s AND l.objid = (pg_catalog.hashtext(%s)::pg_catalog.int8 & 4294967295)::pg_catalog.oid",
        (LOCK_KEY, live),
    )
    row = cursor.fetchone() or (0, "a session that has just ended")
    return (
        f"{live} is being exchanged by {row[1]} (pid {row[0]}). Nothing was changed here. Wait for it to end; when you are sure that "
        f"it is dead: SELECT pg_terminate_backend({row[0]}). Then run again."
    )


class _Swap:
    """One exchange, from its file to its COMMIT."""

    def __init__(
        self,
        request: SwapRequest,
        plan: SwapPlan,
        connection: psycopg2.extensions.connection,
        swap_file: SwapFile,
    ) -> None:
        self._request = request
        self._plan = plan
        self._connection = connection
        self._file = swap_file
        self._deadline = time.monotonic() + max(1.0, request.timeout)
        self._began = 0.0
        self._trouble = ""

    def run(self) -> Swapped:
        """The exchange. Its file stays only where what became of it is not known."""
        request, plan = self._request, self._plan
        self._file.write(self._facts())
        known = True
        try:
            xid, ended = self._exchange()
        except OutcomeUnknown:
            known = False
            raise
        finally:
            if known:
                self._file.remove()
        fenced = round(time.monotonic() - self._began, 3)
        warnings = (self._trouble,) if self._trouble else ()
        return Swapped(request.live, plan.kept, request.incoming, tuple(ended), 0.0, fenced, xid, warnings)

    def _facts(self) -> dict[str, t.Any]:
        request, plan = self._request, self._plan
        return {
            "run_id": request.run_id, "backup_id": request.backup_id, "at": f"{plan.now:%Y-%m-%dT%H:%M:%SZ}", "live": request.live,
            "incoming": request.incoming, "kept": plan.kept, "live_oid": plan.live_oid, "incoming_oid": plan.incoming_oid,
        }  # fmt: skip

    def _exchange(self) -> tuple[str, list[dict[str, t.Any]]]:
        """The transaction, tried until the databases are free or the time is over."""
        self._connection.autocommit = False
        waiting = self._connection.get_backend_pid()
        with Eviction(self._request.there, self._plan.oids, waiting) as eviction:
            while True:
                self._began = time.monotonic()
                try:
                    with self._connection.cursor() as cursor:
                        xid = self._prepare(cursor)
                        break
                except psycopg2.Error as err:
                    if err.pgcode not in _IN_USE:
                        raise self._failed(err) from err
                    if time.monotonic() >= self._deadline - _POLL_SECONDS:
                        eviction.stop()
                        raise self._missed(eviction) from err
                    self._connection.rollback()
            ended = eviction.ended
            if self._request.before_commit:
                self._trouble = self._request.before_commit(xid, self._plan.kept, tuple(ended))
            self._commit(xid)
        return xid, ended

    def _prepare(self, cursor: Cursor) -> str:
        """Everything up to the COMMIT."""
        request, plan = self._request, self._plan
        left = max(1, int((self._deadline - time.monotonic()) * 1000))
        cursor.execute("SET LOCAL statement_timeout = %s", (f"{left}ms",))
        cursor.execute("SELECT pg_catalog.pg_current_xact_id()::text")
        xid = str(cursor.fetchall()[0][0])
        if plan.kept:
            _rename(cursor, request.live, plan.kept)
        _rename(cursor, request.incoming, request.live)
        cursor.execute(SQL("SET LOCAL statement_timeout = {}").format(Literal(_REST)))
        if plan.kept:
            self._say_what_it_is(cursor, xid)
        if plan.wanted is not None:
            apply_properties(cursor, request.live, plan.wanted)
        self._prove(cursor)
        # An answer that the server could still forget would be a wrong one.
        cursor.execute(
            "SELECT pg_catalog.set_config('synchronous_commit', 'local', true) "
            "WHERE pg_catalog.current_setting('synchronous_commit') = 'off'"
        )
        return xid

    def _say_what_it_is(self, cursor: Cursor, xid: str) -> None:
        request, plan = self._request, self._plan
        mark = Mark(
            oid=plan.live_oid or 0,
            was=request.live,
            replaced_by=request.backup_id or request.incoming,
            run_id=request.run_id,
            at=f"{plan.now:%Y-%m-%dT%H:%M:%SZ}",
            xid=int(xid),
            comment=plan.kept_comment,
        )
        cursor.execute(SQL("COMMENT ON DATABASE {} IS {}").format(Identifier(plan.kept), Literal(mark.text())))

    def _prove(self, cursor: Cursor) -> None:
        """Names and properties are as they shall be, seen inside the transaction.

        :raises FailedUnchanged: they are not, and it was undone.
        """
        request, plan = self._request, self._plan
        wanted = {plan.incoming_oid: request.live, **({plan.live_oid: plan.kept} if plan.kept else {})}
        wrong = []
        if _names(cursor, plan.oids) != wanted:
            wrong.append("another run renamed or made databases of these names meanwhile")
        elif plan.wanted is not None:
            wrong += differences(read_properties(cursor, request.live), plan.wanted)
        if wrong:
            self._connection.rollback()
            raise FailedUnchanged(
                f"The databases were not exchanged, because {request.live} would not be as it has to: {' '.join(wrong)} "
                "Every database is as it was. Set rollback_db_user to a superuser, or correct what is named, then run again.",
                differences=wrong,
            )

    def _commit(self, xid: str) -> None:
        try:
            self._connection.commit()
        except psycopg2.Error as err:
            if err.pgcode is not None and not self._connection.closed:
                raise self._failed(err) from err
            self._settle(xid, err)

    def _settle(self, xid: str, lost: psycopg2.Error) -> None:
        """The answer to COMMIT was lost: ask."""
        request, plan = self._request, self._plan
        try:
            settle(request.there, xid, lost)
        except FailedUnchanged as err:
            raise FailedUnchanged(f"{err} {request.live} and {request.incoming} were not exchanged.", xid=xid) from err
        except OutcomeUnknown as err:
            oids = ", ".join(map(str, plan.oids))
            query = f"SELECT oid, datname FROM pg_database WHERE oid IN ({oids})"
            replaced = f", and the replaced one is {plan.kept}" if plan.kept else ""
            raise OutcomeUnknown(
                f"The connection was lost at COMMIT ({' '.join(str(lost).split())}) and the server does not answer, so whether {request.live} was "
                f"exchanged is not known. When the server answers again, ask it in database {request.maintenance_db}: {query}. "
                f"Where {plan.incoming_oid} is named {request.live}, it was{replaced}; otherwise nothing was changed. No connection is refused either way.",
                xid=xid,
                query=query,
            ) from err

    def _failed(self, err: psycopg2.Error) -> FailedUnchanged:
        said = " ".join(str(err).split()) or type(err).__name__
        lost = "" if err.pgcode else "The connection was lost before COMMIT, so the server undid the exchange. "
        with contextlib.suppress(psycopg2.Error):
            self._connection.rollback()
        return FailedUnchanged(
            f"{self._request.live} and {self._request.incoming} were not exchanged: {said}. {lost}Every database is as it was and takes connections. "
            "Correct what is named, then run again.",
            sqlstate=err.pgcode,
        )

    def _missed(self, eviction: Eviction) -> FailedUnchanged:
        with contextlib.suppress(psycopg2.Error):
            self._connection.rollback()
        who = eviction.describe() or "nobody that this role can see"
        return FailedUnchanged(
            f"The sessions of {self._request.live} and {self._request.incoming} were not all gone within {self._request.timeout:g} s "
            f"(rollback_swap_timeout). Still there: {who}. Ended: {len(eviction.ended)}. Every database is as it was and takes connections. "
            "End what is named, or raise rollback_swap_timeout, then run again.",
            sessions=[*eviction.present, *eviction.blocking],
            ended=len(eviction.ended),
        )


def _rename(cursor: Cursor, name: str, to: str) -> None:
    cursor.execute(SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(name), Identifier(to)))
