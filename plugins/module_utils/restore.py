# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup restored into a database beside the live one, and compared with its manifest. The live one is not touched."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import queue
import time
import typing as t

from . import clone
from .archive_restore import ArchiveRestore, session
from .cluster_roles import create_roles, described_roles, drop_roles
from .comparison import compare_with_manifest, definition_remarks, not_compared
from .connection import connect
from .database_properties import FIXED, apply_properties, differences, read_properties
from .errors import RollbackError
from .new_database import NewDatabase, RestoreFailed, drop_leftovers
from .pg_tools import ToolFailed, interruptible
from .publication import phase, share_lock
from .readiness import named
from .restorable import check_locked, check_restorable
from .restore_request import RestoreReadiness, RestoreRequest, maintenance_connection

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg2.extensions

    from .manifest import Manifest

with contextlib.suppress(ImportError):
    import psycopg2

__all__ = [
    "RestoreFailed",
    "RestoreReadiness",
    "RestoreRequest",
    "Restored",
    "check_restorable",
    "compare_with_manifest",
    "drop_leftovers",
    "restore_beside",
    "verify_by_restore",
]

#: Properties that the exchange gives the restored database, not the restore: who may connect, and what tells it is ours.
LEFT_TO_THE_SWAP = ("comment", "allow_connections", "is_template")
UNCHANGED = "The live database is as it was."

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 ORDER BY c.relpages DESC, c.oid
"""


@dataclasses.dataclass(frozen=True)
class Restored:
    """A database that holds what the backup holds.

    :param database: its name.
    :param tables: rows by quoted name, as compared with the manifest.
    :param phases: seconds by phase; analyze and compare run at the same time.
    :param roles: roles of the cluster that were created for it.
    :param left_overs: databases of earlier runs that were dropped.
    """

    database: str
    oid: int
    tables: dict[str, int]
    seconds: float
    phases: dict[str, float]
    warnings: tuple[str, ...]
    provider: str
    roles: tuple[str, ...] = ()
    left_overs: tuple[str, ...] = ()


class NotEqual(RestoreFailed):
    """The restored database differs from the manifest; ``details["problems"]`` says in what."""


def restore_beside(request: RestoreRequest) -> Restored:
    """Restore a backup into a new database, compare it with the manifest, and give it the database's properties.

    On any failure, and when asked to end, the new database is dropped, or named in the message with the command that drops
    it; of a process that is killed, the next run drops it.

    :raises Refused: what :func:`check_restorable` refuses.
    :raises FailedUnchanged: it could not be restored or is not equal; the live database is as it was.
    """
    started = time.monotonic()
    seconds: dict[str, float] = {}
    with interruptible("The restore"), share_lock(request.path), failures():
        left_overs = drop_leftovers(request)
        with phase(seconds, "check"):
            ready = check_locked(request)
        if ready.manifest.provider == clone.PROVIDER:
            name, oid, roles, warnings = _open_clone(request, ready, seconds)
        else:
            name, oid, roles, warnings = _restore(request, ready, seconds)
    return Restored(
        database=name,
        oid=oid,
        tables=ready.manifest.rows,
        seconds=round(time.monotonic() - started, 3),
        phases=seconds,
        warnings=(*ready.warnings, *not_compared(ready.manifest), *warnings),
        provider=ready.manifest.provider,
        roles=roles,
        left_overs=tuple(left_overs),
    )


def verify_by_restore(request: RestoreRequest) -> list[str]:
    """Restore a backup into a scratch database, compare, drop it. What is wrong, a sentence each; empty: nothing.

    :raises Refused: it could not be tried, for example for lack of space.
    :raises FailedUnchanged: it could not be tried to its end, or the scratch database is still there.
    """
    scratch = dataclasses.replace(request, purpose="verify")
    with interruptible("The verification"), share_lock(request.path), failures():
        drop_leftovers(scratch)
        ready = check_locked(scratch)
        if ready.manifest.provider == clone.PROVIDER:
            return _clone_problems(scratch, ready)
        try:
            with NewDatabase(scratch, ready) as new:
                ArchiveRestore(scratch, ready, new.name).run()
                with session(scratch, ready, new.name) as connection:
                    return compare_with_manifest(connection, ready.manifest, scratch.path)
        except ToolFailed as err:
            return [f"It cannot be restored: {err}"]


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Errors of programs, of the driver and of the system, as what they mean for the run."""
    try:
        yield
    except ToolFailed as err:
        raise RestoreFailed(f"The restore failed: {err} {UNCHANGED}", **err.details) from err
    except psycopg2.Error as err:
        raise RestoreFailed(
            f"The restore failed: {' '.join(str(err).split()).rstrip('.')}. {UNCHANGED}", sqlstate=err.pgcode
        ) from err
    except OSError as err:
        where = f" ({err.filename})" if err.filename else ""
        raise RestoreFailed(f"The restore failed: {err.strerror or err}{where}. {UNCHANGED}") from err


# --- by pg_restore ----------------------------------------------------------------------------------------------------

_Outcome = tuple[str, int, tuple[str, ...], list[str]]


def _restore(request: RestoreRequest, ready: RestoreReadiness, seconds: dict[str, float]) -> _Outcome:
    with contextlib.ExitStack() as stack:
        with phase(seconds, "create"):
            # Roles first, so that they are dropped after the database that refers to them.
            roles = stack.enter_context(_missing_roles(request, ready))
            new = stack.enter_context(NewDatabase(request, ready))
        with phase(seconds, "restore"):
            ArchiveRestore(request, ready, new.name).run()
        warnings = _prove(request, ready, new.name, seconds)
        with phase(seconds, "properties"):
            warnings += _subscription_warnings(request, ready, new.name)
            with new.cursor() as cursor:
                warnings += _give_properties(ready, cursor, new.name)
        oid = new.keep()
        roles.keep()
    return new.name, oid, ready.missing_roles, warnings


class _Roles:
    """Roles that were created; dropped again unless kept."""

    def __init__(self) -> None:
        self.kept = False

    def keep(self) -> None:
        """The restore went well: they stay."""
        self.kept = True


@contextlib.contextmanager
def _missing_roles(request: RestoreRequest, ready: RestoreReadiness) -> Iterator[_Roles]:
    roles = [described_roles(ready.manifest)[name] for name in ready.missing_roles]
    state = _Roles()
    if roles:
        with contextlib.closing(_maintenance(request)) as connection:
            with connection, connection.cursor() as cursor:
                create_roles(cursor, roles)
    try:
        yield state
    except BaseException as err:
        left = _drop_roles(request, ready) if roles and not state.kept else []
        if left:
            raise RestoreFailed(
                f"{err} The roles {named(left)} were created for it and could not be dropped.", roles=left
            ) from err
        raise


def _drop_roles(request: RestoreRequest, ready: RestoreReadiness) -> list[str]:
    roles = [described_roles(ready.manifest)[name] for name in ready.missing_roles]
    try:
        with contextlib.closing(_maintenance(request)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            return drop_roles(cursor, roles)
    except RollbackError:
        return list(ready.missing_roles)


def _maintenance(request: RestoreRequest) -> psycopg2.extensions.connection:
    """A connection to the maintenance database that works in transactions."""
    return connect(
        request.settings,
        application_name="cypher.rollback restore",
        search_path=("pg_catalog",),
        dbname=request.maintenance_db,
    )


# --- after it ---------------------------------------------------------------------------------------------------------


def _prove(request: RestoreRequest, ready: RestoreReadiness, dbname: str, seconds: dict[str, float]) -> list[str]:
    """Compare with the manifest, while the planner's statistics are collected; what is to be remarked.

    :raises NotEqual: naming what differs.
    """
    with contextlib.ExitStack() as stack:
        comparing, *analyzing = (
            stack.enter_context(session(request, ready, dbname)) for _number in range(ready.jobs + 1)
        )
        with concurrent.futures.ThreadPoolExecutor(ready.jobs, thread_name_prefix="analyze") as pool:
            analysis = _analyze(pool, comparing, analyzing)
            try:
                with phase(seconds, "compare"):
                    problems = compare_with_manifest(comparing, ready.manifest, request.path)
                    remarks = definition_remarks(comparing, ready.manifest, request.path)
                if problems:
                    raise not_equal(ready.manifest, problems)
                with phase(seconds, "analyze_wait"):
                    for part in analysis:
                        part.result()
                return remarks
            except BaseException:
                for connection in analyzing:
                    with contextlib.suppress(psycopg2.Error):
                        connection.cancel()
                raise


def not_equal(manifest: Manifest, problems: Sequence[str]) -> NotEqual:
    """The error that says in what a restored database differs."""
    return NotEqual(
        f"The restored database is not what the backup {manifest.id} holds: {' '.join(problems[:5])} {UNCHANGED}",
        problems=list(problems),
    )


def _analyze(
    pool: concurrent.futures.Executor,
    connection: psycopg2.extensions.connection,
    workers: Sequence[psycopg2.extensions.connection],
) -> list[concurrent.futures.Future[None]]:
    """Start collecting statistics, the largest tables first: a restored database has none."""
    tables: queue.SimpleQueue[str] = queue.SimpleQueue()
    with connection.cursor() as cursor:
        cursor.execute(_TABLES)
        for (name,) in cursor.fetchall():
            tables.put(name)
    return [pool.submit(_analyze_next, worker, tables) for worker in workers]


def _analyze_next(connection: psycopg2.extensions.connection, tables: queue.SimpleQueue[str]) -> None:
    with connection.cursor() as cursor:
        while True:
            try:
                name = tables.get_nowait()
            except queue.Empty:
                return
            cursor.execute(f"ANALYZE {name}")


def _give_properties(ready: RestoreReadiness, cursor: psycopg2.extensions.cursor, dbname: str) -> list[str]:
    """Owner, privileges and settings of the database; what is fixed at its creation and differs is a warning."""
    wanted = ready.properties
    if wanted is None:
        return []
    apply_properties(cursor, dbname, wanted, LEFT_TO_THE_SWAP)
    present = read_properties(cursor, dbname)
    left: dict[str, t.Any] = {name: getattr(present, name) for name in LEFT_TO_THE_SWAP}
    expected = dataclasses.replace(wanted, **left)
    found = differences(expected, present)
    lost = [each for each in found if not each.startswith(tuple(name.replace("_", " ") for name in FIXED))]
    if lost:
        raise RestoreFailed(
            f"The restored database did not take over the properties of the backup: {' '.join(lost)} {UNCHANGED}",
            problems=lost,
        )
    return [f"The restored database differs from the backup's in a property: {each}" for each in found]


def _subscription_warnings(request: RestoreRequest, ready: RestoreReadiness, dbname: str) -> list[str]:
    with session(request, ready, dbname) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT subname::text FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1"
        )
        names = [name for (name,) in cursor.fetchall()]
    if not names:
        return []
    return [
        (
            f"The subscriptions {named(names)} are restored disabled, and the replaced database still has them enabled. After the "
            "exchange, disable them there, and enable them in the live database with ALTER SUBSCRIPTION."
        )
    ]


# --- clones -----------------------------------------------------------------------------------------------------------


def _open_clone(request: RestoreRequest, ready: RestoreReadiness, seconds: dict[str, float]) -> _Outcome:
    """The clone itself becomes the restored database: made connectable, compared, given the properties."""
    with contextlib.closing(maintenance_connection(request)) as connection:
        with phase(seconds, "create"):
            found = clone.open_for_restore(connection, ready.manifest)
        try:
            with phase(seconds, "compare"), session(request, ready, found.name) as comparing:
                problems = compare_with_manifest(comparing, ready.manifest, request.path)
            if problems:
                raise not_equal(ready.manifest, problems)
            with phase(seconds, "properties"), connection.cursor() as cursor:
                warnings = _give_properties(ready, cursor, found.name)
        except BaseException:
            clone.close_again(connection, ready.manifest)
            raise
    return found.name, found.oid, (), warnings


def _clone_problems(request: RestoreRequest, ready: RestoreReadiness) -> list[str]:
    def compare(connection: psycopg2.extensions.connection, manifest: Manifest) -> list[str]:
        return compare_with_manifest(connection, manifest, request.path)

    return clone.problems(request.settings, ready.manifest, request.maintenance_db, compare)
