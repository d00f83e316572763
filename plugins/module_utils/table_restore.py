# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts single tables back to what a backup has, in one transaction, and leaves what others wrote since.

The rows of the backup are read first, while everybody works on. Then the tables are locked against writers, compared, put
back by one statement, and compared again; only then the transaction commits, or, for a preview, never does. Because it is
one statement, foreign keys are checked when all tables have their rows, whatever their order and whether or not the keys
are deferrable; deleting comes before updating and that before inserting, so that unique values are free again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
import time
import typing as t

from . import clone
from . import manifest as manifests
from .client_programs import Wanted, find_programs, start_programs
from .commit import settle
from .comparison import compare_with_manifest
from .connection import connect, optional_limits
from .dump import ARCHIVE
from .errors import FailedUnchanged, OutcomeUnknown, RollbackError
from .execute import LOCK_KEY, PREVIEW_LOCK_TIMEOUT, refuse_other_run
from .live_table import LiveTable, TablesRefused, foreign_keys, read_table, resolve_tables
from .pg_tools import interruptible
from .publication import share_lock
from .row_difference import Difference, SideTable
from .row_source import ArchiveRows, CloneRows
from .rows import sequences_advanced
from .server import inspect_target
from .watch import Watch

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.errorcodes
    import psycopg2.errors
    import psycopg2.extensions

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .connection import ConnectionSettings
    from .exec_place import ExecPlace
    from .live_table import Column, ForeignKey
    from .manifest import Manifest
    from .row_source import RowSource, TableName
    from .server import Target

EXTRA_ROWS = ("keep", "delete")

_DURATION = re.compile(r"\d+(\.\d+)?\s*(us|ms|s|min|h|d)?")

# As pg_dump reads and pg_restore writes; the search path stays that of the run, which functions in constraints may need.
_SETTINGS = (
    "SET LOCAL row_security = off; SET LOCAL extra_float_digits = 3; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'; "
    "SET LOCAL xmloption = 'content'; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL work_mem = '64MB'; "
    "SET LOCAL temp_buffers = '64MB'"
)

_UNCHANGED = "The transaction was undone: the database is as it was."


@dataclasses.dataclass(frozen=True)
class TableRestoreRequest:
    """Which tables to put back, and from where.

    :param path: folder of the backup.
    :param tables: names as in SQL, with or without their schema.
    :param key: of the manifests; empty: not signed.
    :param place: where the client programs are; ``None``: on this host.
    :param extra_rows: ``keep`` or ``delete`` rows that are not in the backup.
    :param lock_timeout: PostgreSQL duration to wait for the tables' locks.
    :param preview: do everything, and end in ROLLBACK.
    :param maintenance_db: database to be connected to while a backup that is a copy is looked at.
    :param before_commit: is told what was done, just before the COMMIT; why it could not note that, or nothing.
    """

    settings: ConnectionSettings
    path: str
    tables: Sequence[str]
    key: str = ""
    bin_dir: str = ""
    place: ExecPlace | None = None
    extra_rows: str = "keep"
    lock_timeout: str = "5s"
    statement_timeout: str = "0"
    search_path: Sequence[str] = ("public",)
    run_id: str = ""
    preview: bool = False
    require_patched: bool = False
    maintenance_db: str = "postgres"
    before_commit: Callable[[TablesRestored], str] | None = None


@dataclasses.dataclass(frozen=True)
class RestoredTable:
    """What differed in one table, and what was done.

    :param key: columns by which rows were told apart; empty: they were compared as wholes.
    :param columns: columns that differed in changed rows, with the number of these rows.
    :param samples: keys of some rows, by ``missing``, ``extra`` and ``changed``.
    :param sequences: sequences of the table that were behind, with their next value now.
    """

    identity: str
    key: tuple[str, ...]
    backup_rows: int
    live_rows: int
    missing: int
    extra: int
    changed: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    columns: dict[str, int] = dataclasses.field(default_factory=dict)
    samples: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=dict)
    sequences: dict[str, int] = dataclasses.field(default_factory=dict)

    def describe(self) -> str:
        """One clause for the operator."""
        return f"{self.identity} ({self.inserted} inserted, {self.updated} set back, {self.deleted} deleted, {self.extra - self.deleted} kept)"

    def announce(self) -> str:
        """What a preview found, for whoever is asked whether to go on."""
        names = ", ".join(self.columns)
        changed = (
            f"{self.changed:,} changed ({names}) are set back" if names else f"{self.changed:,} changed are set back"
        )
        gone = f", {self.deleted:,} of them go" if self.deleted else ""
        return f"{self.identity}: {changed}, {self.missing:,} missing come back, {self.extra:,} were added since{gone or ' and stay'}"


@dataclasses.dataclass(frozen=True)
class TablesRestored:
    """What became of the tables.

    :param differ: whether anything had to be done; otherwise nothing was written.
    :param xid: of the transaction, empty where it did not commit.
    """

    tables: tuple[RestoredTable, ...]
    committed: bool = False
    differ: bool = False
    xid: str = ""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def describe(self) -> str:
        """One sentence for the operator."""
        if not self.differ:
            return f"Nothing to do: {', '.join(table.identity for table in self.tables)} hold what the backup holds."
        done = "Put back" if self.committed else "Would put back"
        return f"{done} {'; '.join(table.describe() for table in self.tables)} in {self.seconds:.1f} s."


def restore_tables(request: TableRestoreRequest) -> TablesRestored:
    """Put the tables back, or preview it.

    :raises Refused: it cannot be done this way; the message says what to do instead.
    :raises FailedUnchanged: the transaction did not commit; everything is as before.
    :raises OutcomeUnknown: the answer to COMMIT was lost and the server cannot be asked.
    """
    _check_request(request)
    with share_lock(request.path):
        manifest = manifests.load(request.path, request.key)
        connection = connect(
            request.settings,
            application_name=f"cypher.rollback {request.run_id}".strip(),
            lock_timeout=PREVIEW_LOCK_TIMEOUT if request.preview else request.lock_timeout,
            statement_timeout=request.statement_timeout,
            search_path=request.search_path,
        )
        with contextlib.closing(connection), Watch(request.settings, connection.get_backend_pid()) as watch:
            return _Transaction(request, manifest, connection, watch).run()


def _check_request(request: TableRestoreRequest) -> None:
    if request.extra_rows not in EXTRA_ROWS:
        raise TablesRefused(f"rollback_extra_rows is {request.extra_rows!r}; give one of {', '.join(EXTRA_ROWS)}.")
    for setting in ("lock_timeout", "statement_timeout"):
        value = getattr(request, setting)
        if not _DURATION.fullmatch(value):
            raise TablesRefused(f"rollback_{setting} is {value!r}; give a duration such as 5s.")
    if not os.path.isdir(request.path):
        raise TablesRefused(
            f"There is no backup {request.path}. Name one with the extra variable backup; playbooks/backups.yml lists them."
        )


class _Transaction:
    """One run: what is refused beforehand, and the one transaction."""

    def __init__(
        self,
        request: TableRestoreRequest,
        manifest: Manifest,
        connection: psycopg2.extensions.connection,
        watch: Watch,
    ) -> None:
        self._request = request
        self._manifest = manifest
        self._connection = connection
        self._cursor = connection.cursor()
        self._watch = watch
        self._doing = "while the tables were looked up"
        self._foreign_keys: list[ForeignKey] = []
        self._listed: set[str] = set()
        self._superuser = False
        self._warnings: list[str] = []

    def run(self) -> TablesRestored:
        """Everything from the first look to COMMIT or ROLLBACK."""
        started = time.monotonic()
        try:
            self._settle_limits()
            target = inspect_target(self._connection, self._request.settings)
            self._refuse_other_database(target)
            self._look()
            self._connection.rollback()
            self._refuse_damaged()
            with interruptible("Restoring tables"), contextlib.ExitStack() as stack:
                xid, done = self._put_back(self._source(stack, target))
            if done.differ:
                self._note(dataclasses.replace(done, committed=True, xid=xid, seconds=time.monotonic() - started))
                done = dataclasses.replace(done, **self._end(xid))
            return dataclasses.replace(done, seconds=time.monotonic() - started, warnings=tuple(self._warnings))
        except psycopg2.Error as err:
            raise self._failure(err) from err
        finally:
            if not self._connection.closed:
                with contextlib.suppress(psycopg2.Error):
                    self._connection.rollback()

    # --- beforehand ----------------------------------------------------------------------------------------------------

    def _settle_limits(self) -> None:
        limits = optional_limits(self._connection)
        if limits:
            self._cursor.execute(limits)
            self._connection.commit()

    def _refuse_other_database(self, target: Target) -> None:
        manifest = self._manifest
        if manifest.system_identifier != target.system_identifier or manifest.database != target.database:
            raise TablesRefused(
                f"The backup {manifest.id} is of the database {manifest.database} in the cluster {manifest.system_identifier}, and this is "
                f"{target.database} in {target.system_identifier}. Nothing was changed. Choose another one with the extra variable backup, "
                "or correct rollback_db_host and rollback_db_name."
            )

    def _look(self) -> tuple[list[TableName], list[LiveTable]]:
        """Which tables are meant, and what they are now; definitions are read as pg_dump reads them, without a search path."""
        request = self._request
        names = resolve_tables(self._cursor, request.tables, self._manifest.tables, request.search_path)
        self._cursor.execute("SELECT pg_catalog.current_setting('search_path')")
        ((path,),) = self._cursor.fetchall()
        self._cursor.execute("SELECT pg_catalog.set_config('search_path', '', true)")
        user = request.settings.user or "the current user"
        tables = [read_table(self._cursor, name, user, self._manifest.id) for name in names]
        self._cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (path,))
        _refuse_twice(tables)
        return names, tables

    def _refuse_damaged(self) -> None:
        """Every file is as it was written; only then a PostgreSQL program may read them."""
        problems = manifests.verify(self._request.path, self._manifest)
        if problems:
            raise TablesRefused(
                f"The backup {self._manifest.id} is damaged: {problems[0]} Nothing was changed. "
                "Choose another one with the extra variable backup.",
                problems=problems,
            )

    def _source(self, stack: contextlib.ExitStack, target: Target) -> RowSource:
        request = self._request
        if self._manifest.provider == clone.PROVIDER:
            return self._clone(stack)
        found = find_programs(Wanted(target.server_major, request.bin_dir, request.place, request.require_patched))
        self._warnings.extend(found.warnings)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cypher-rollback-"))
        tools = stack.enter_context(start_programs(found))
        encoding = self._connection.get_parameter_status("server_encoding") or "UTF8"
        return ArchiveRows(found.pg_restore, os.path.join(request.path, ARCHIVE), encoding, tools, folder)

    def _clone(self, stack: contextlib.ExitStack) -> CloneRows:
        """The copy lets us in for the moment that it takes to connect."""
        settings = self._request.settings
        problems = clone.problems(settings, self._manifest, self._request.maintenance_db, compare=compare_with_manifest)
        if problems:
            raise TablesRefused(
                f"{problems[0]} Nothing was changed. Choose another one with the extra variable backup.",
                problems=problems,
            )
        with contextlib.closing(connect(settings, application_name="cypher.rollback rows")) as beside:
            beside.autocommit = True
            before = clone.open_for_restore(beside, self._manifest)
            try:
                rows = CloneRows(settings, before.name)
                stack.callback(rows.close)
            finally:
                if not before.open:
                    clone.close_again(beside, self._manifest)
        return rows

    # --- the transaction -----------------------------------------------------------------------------------------------

    def _put_back(self, source: RowSource) -> tuple[str, TablesRestored]:
        """Everything but the end of the transaction, which no signal may interrupt."""
        xid = self._begin()
        sides = self._load(source)
        self._lock(sides)
        self._doing = "while the rows were compared"
        before = [side.compare() for side in sides]
        reports = [_report(side, difference) for side, difference in zip(sides, before, strict=True)]
        if not any(dataclasses.astuple(difference) != (0, 0, 0) for difference in self._to_do(before)):
            return xid, TablesRestored(tuple(reports))
        self._refuse_what_cannot_be_written(sides, before, reports)
        reports = self._apply(sides, before, reports)
        self._prove(sides, before)
        reports = [
            dataclasses.replace(report, sequences=self._advance_sequences(side))
            for side, report in zip(sides, reports, strict=True)
        ]
        self._switch_back(sides)
        return xid, TablesRestored(tuple(reports), differ=True)

    def _to_do(self, differences: Sequence[Difference]) -> Iterator[Difference]:
        """Without the rows that stay."""
        for difference in differences:
            keep = self._request.extra_rows == "keep"
            yield dataclasses.replace(difference, extra=0) if keep else difference

    def _begin(self) -> str:
        self._connection.set_session(isolation_level="READ COMMITTED")
        self._cursor.execute(_SETTINGS)
        self._cursor.execute(
            "SELECT pg_catalog.pg_try_advisory_xact_lock(%s, d.oid::pg_catalog.int8::pg_catalog.bit(32)::pg_catalog.int4), "
            "pg_catalog.pg_current_xact_id()::text, r.rolsuper, pg_catalog.current_setting('track_counts') "
            "FROM pg_catalog.pg_database d, pg_catalog.pg_roles r WHERE d.datname = pg_catalog.current_database() AND r.rolname = current_user",
            (LOCK_KEY,),
        )
        locked, xid, self._superuser, counted = self._cursor.fetchall()[0]
        if not locked:
            refuse_other_run(self._cursor)
            raise TablesRefused(
                "Another run was changing this database and has just ended. Nothing was changed. Run again."
            )
        if counted != "on" and not self._superuser:
            raise TablesRefused(
                "The server does not count the rows that a transaction changes (track_counts is off), so nobody could tell what foreign keys "
                "do to other tables. Nothing was changed. Turn it on, or set rollback_db_user to a superuser."
            )
        if self._superuser:
            self._cursor.execute("SET LOCAL track_counts = on")
        self._quiet(True)
        return str(xid)

    def _quiet(self, quiet: bool) -> None:
        """Our own tables are nothing for the event triggers of the database; only a superuser can tell them so."""
        if self._superuser:
            self._cursor.execute(f"SET LOCAL session_replication_role = {'replica' if quiet else 'origin'}")

    def _load(self, source: RowSource) -> list[SideTable]:
        """Read the backup; nobody is kept from anything but changing the tables' definitions."""
        self._doing = "while the backup was read"
        _names, tables = self._look()
        self._lock_tables(tables, "ACCESS SHARE")
        sides = [SideTable(self._cursor, table, number) for number, table in enumerate(tables, 1)]
        for side in sides:
            side.load(source)
            recorded = self._manifest.rows[side.live.table.identity]
            if side.backup_rows != recorded:
                raise FailedUnchanged(
                    f"The backup's manifest says that {side.live.table.identity} has {recorded} rows, and {side.backup_rows} came out of it. "
                    f"{_UNCHANGED} Choose another one with the extra variable backup."
                )
        return sides

    def _lock(self, sides: Sequence[SideTable]) -> None:
        """Keep writers out from here to the end, and see what the tables are now."""
        self._doing = "while the tables were locked"
        self._watch.forget()
        self._lock_tables([side.live for side in sides], "SHARE ROW EXCLUSIVE")
        _names, tables = self._look()
        for side, now in zip(sides, tables, strict=True):
            if (now.oid, now.columns, now.key) != (side.live.oid, side.live.columns, side.live.key):
                raise FailedUnchanged(
                    f"The definition of {now.table.identity} changed while the backup was read. {_UNCHANGED} Run again."
                )
            side.live = now
        self._foreign_keys = foreign_keys(self._cursor, tables)
        self._listed = {side.live.table.identity for side in sides}

    def _lock_tables(self, tables: Sequence[LiveTable], mode: str) -> None:
        self._cursor.execute(f"LOCK TABLE {', '.join(table.only for table in tables)} IN {mode} MODE")

    # --- what cannot be done -------------------------------------------------------------------------------------------

    def _refuse_what_cannot_be_written(
        self, sides: Sequence[SideTable], differences: Sequence[Difference], reports: Sequence[RestoredTable]
    ) -> None:
        details = {"tables": [dataclasses.asdict(report) for report in reports]}
        for side, difference, report in zip(sides, differences, reports, strict=True):
            identity = side.live.table.identity
            lacking = side.columns_without_value() if difference.missing else []
            if lacking:
                raise TablesRefused(
                    f"{difference.missing} rows are missing in {identity}, and its columns {', '.join(lacking)}, which the backup has not, "
                    f"are NOT NULL and have no default. {_UNCHANGED} Give them a default, then run again.",
                    **details,
                )
            fixed = [column.name for column in side.columns if column.identity == "a" and column.name in report.columns]
            if fixed:
                raise TablesRefused(
                    f"The column {fixed[0]} of {identity} differs and is GENERATED ALWAYS AS IDENTITY, which no UPDATE may set. {_UNCHANGED} "
                    f"For this run: ALTER TABLE {identity} ALTER COLUMN {fixed[0]} SET GENERATED BY DEFAULT, and back afterwards.",
                    **details,
                )
            if not side.key and difference.missing and difference.extra and self._request.extra_rows == "keep":
                raise TablesRefused(
                    f"{identity} has no key that tells its rows apart: {difference.missing} rows are only in the backup and {difference.extra} "
                    f"only in the table, and which of these were added and which are the missing ones, changed, cannot be told. {_UNCHANGED} "
                    "Set rollback_extra_rows to delete to make the table what it was in the backup.",
                    **details,
                )

    # --- putting back --------------------------------------------------------------------------------------------------

    def _apply(
        self, sides: Sequence[SideTable], before: Sequence[Difference], reports: Sequence[RestoredTable]
    ) -> list[RestoredTable]:
        """One statement for all tables; the order of its counts is the order in which it runs its parts."""
        self._doing = "while the rows were put back"
        for side in sides:
            for switch in side.live.switches:
                self._cursor.execute(switch.off())
        self._quiet(False)
        parts = list(_parts(sides, self._to_do(before)))
        bodies = ", ".join(f"cypher_rollback_{number} AS ({body})" for number, (_side, _what, body) in enumerate(parts))
        counts = ", ".join(
            f"(SELECT pg_catalog.count(*) FROM cypher_rollback_{number})" for number in range(len(parts))
        )
        self._cursor.execute(f"WITH {bodies} SELECT {counts}")
        numbers = self._cursor.fetchall()[0]
        self._doing = "when its deferred constraints were checked"
        self._cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        self._quiet(True)
        done: dict[int, dict[str, t.Any]] = {}
        for (side_number, what, _body), number in zip(parts, numbers, strict=True):
            done.setdefault(side_number, {})[what] = number
        return [dataclasses.replace(report, **done.get(number, {})) for number, report in enumerate(reports)]

    def _prove(self, sides: Sequence[SideTable], before: Sequence[Difference]) -> None:
        """Every row of the backup is there, rows that stay are all there, and no other table was touched."""
        self._doing = "while the result was proven"
        self._refuse_other_changes([oid for side in sides for oid in side.live.members])
        for side, was in zip(sides, before, strict=True):
            expected = Difference(0, was.extra if self._request.extra_rows == "keep" else 0, 0)
            now = side.compare()
            if now != expected:
                raise FailedUnchanged(
                    f"{side.live.table.identity} is not what it should be after it was put back: {now.missing} rows are missing, {now.changed} "
                    f"differ, and {now.extra} are there beside those of the backup, {expected.extra} should be. {_UNCHANGED} "
                    "Foreign keys of other tables may have changed them; or restore the whole database with playbooks/emergency_rollback.yml."
                )

    def _refuse_other_changes(self, members: Sequence[int]) -> None:
        self._cursor.execute(
            "SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname), s.n_tup_ins, s.n_tup_upd, s.n_tup_del "
            "FROM pg_catalog.pg_stat_xact_all_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' "
            "AND s.relid <> ALL(%s::pg_catalog.oid[]) ORDER BY 1",
            (list(members),),
        )
        changes = self._cursor.fetchall()
        if changes:
            told = ", ".join(
                f"{name} ({ins} inserted, {upd} updated, {gone} deleted)" for name, ins, upd, gone in changes
            )
            tables = [name for name, *_counts in changes]
            raise TablesRefused(
                f"Putting the rows back would change other tables by their foreign keys: {told}. {_UNCHANGED} "
                f"Add {', '.join(tables)} to the extra variable tables, or set rollback_extra_rows to keep.",
                tables=tables,
            )

    def _advance_sequences(self, side: SideTable) -> dict[str, int]:
        """Sequences that give values which the table has by now get past them; ALTER SEQUENCE is undone with the rest."""
        self._doing = "while the sequences were advanced"
        numeric = {column.quoted for column in side.live.columns if column.type in ("smallint", "integer", "bigint")}
        advanced = {}
        for column, sequence in side.live.sequences:
            if column not in numeric:
                continue
            self._cursor.execute(
                f"SELECT CASE WHEN p.seqincrement > 0 THEN x.high ELSE x.low END + p.seqincrement FROM {sequence} q, pg_catalog.pg_sequence p, "
                f"(SELECT pg_catalog.max({column})::pg_catalog.int8, pg_catalog.min({column})::pg_catalog.int8 FROM {side.live.only}) AS x (high, low) "
                f"WHERE p.seqrelid = pg_catalog.to_regclass(%s) AND CASE WHEN p.seqincrement > 0 THEN x.high > q.last_value OR x.high = q.last_value "
                "AND NOT q.is_called ELSE x.low < q.last_value OR x.low = q.last_value AND NOT q.is_called END "
                "AND CASE WHEN p.seqincrement > 0 THEN x.high <= p.seqmax - p.seqincrement ELSE x.low >= p.seqmin - p.seqincrement END",
                (sequence,),
            )
            row = self._cursor.fetchone()
            if row is not None:
                self._cursor.execute(f"ALTER SEQUENCE {sequence} RESTART WITH {int(row[0])}")
                advanced[sequence] = int(row[0])
        return advanced

    def _switch_back(self, sides: Sequence[SideTable]) -> None:
        self._doing = "while the triggers were put back"
        for side in sides:
            for switch in side.live.switches:
                self._cursor.execute(switch.back())
        _names, tables = self._look()
        for side, now in zip(sides, tables, strict=True):
            if now != side.live:
                raise FailedUnchanged(f"The triggers of {now.table.identity} are not what they were. {_UNCHANGED}")

    def _note(self, done: TablesRestored) -> None:
        if self._request.before_commit and not self._request.preview:
            self._warnings.extend(filter(None, (self._request.before_commit(done),)))

    def _end(self, xid: str) -> dict[str, t.Any]:
        if self._request.preview:
            self._warnings.extend(_traces(self._cursor))
            self._connection.rollback()
            return {}
        self._doing = "at COMMIT"
        try:
            self._connection.commit()
        except psycopg2.Error as err:
            if err.pgcode is not None and not self._connection.closed:
                raise
            _settle(self._request.settings, xid, err)
        return {"committed": True, "xid": xid}

    # --- what went wrong -----------------------------------------------------------------------------------------------

    def _failure(self, err: psycopg2.Error) -> RollbackError:
        if not self._connection.closed:
            with contextlib.suppress(psycopg2.Error):
                self._connection.rollback()
        said = " ".join(str(err).split()) or type(err).__name__
        details = {"sqlstate": err.pgcode}
        if err.pgcode == psycopg2.errorcodes.LOCK_NOT_AVAILABLE:
            limit = PREVIEW_LOCK_TIMEOUT if self._request.preview else self._request.lock_timeout
            return FailedUnchanged(
                f"The tables could not be locked within {limit}. {_UNCHANGED} {self._watch.describe()} "
                "Or raise rollback_lock_timeout. Then run again.",
                blockers=self._watch.seen,
                **details,
            )
        if err.pgcode == psycopg2.errorcodes.FOREIGN_KEY_VIOLATION:
            return self._foreign_key_failure(err, said)
        if err.pgcode in _CONFLICTS:
            name = err.diag.constraint_name
            return TablesRefused(
                f"The rows of the backup do not go together with rows that are there now: {said} {_UNCHANGED} "
                f"The constraint {name} of {err.diag.schema_name}.{err.diag.table_name} decides. Change the rows that are in the way"
                f"{', or set rollback_extra_rows to delete' if self._request.extra_rows == 'keep' else ''}.",
                constraint=name,
                **details,
            )
        advice = _ADVICE.get(err.pgcode or "", "")
        return FailedUnchanged(f"The server failed {self._doing}: {said}. {_UNCHANGED} {advice}".rstrip(), **details)

    def _foreign_key_failure(self, err: psycopg2.Error, said: str) -> RollbackError:
        name = err.diag.constraint_name
        keys = [key for key in self._foreign_keys if key.name == name]
        missing = sorted({table for key in keys for table in (key.child, key.parent)} - self._listed)
        remedy = (
            f"Add {', '.join(missing)} to the extra variable tables"
            if missing
            else "Restore the whole database with playbooks/emergency_rollback.yml"
        )
        if self._request.extra_rows == "delete":
            remedy += ", or set rollback_extra_rows to keep"
        return TablesRefused(
            f"The foreign key {name} would not hold: {said} {_UNCHANGED} {remedy}.",
            constraint=name,
            tables=missing,
            sqlstate=err.pgcode,
        )


#: unique_violation, exclusion_violation
_CONFLICTS = ("23505", "23P01")
_ADVICE = {
    "40P01": "Another session held what this one waited for and the other way round: end it, or run again.",
    "42501": "Set rollback_db_user to the tables' owner.",
    "57014": "Raise rollback_statement_timeout, then run again.",
    "23514": "A constraint or partition that the backup's rows fit into may have changed since: compare it with the backup's schema.",
    "53100": "Make room in the server's file system, then run again.",
}


def _refuse_twice(tables: Sequence[LiveTable]) -> None:
    seen: dict[int, str] = {}
    for table in tables:
        for oid in table.members:
            if oid in seen:
                raise TablesRefused(
                    f"{table.table.identity} and {seen[oid]} are parts of one table. Nothing was changed. Name one of them."
                )
            seen[oid] = table.table.identity


def _traces(cursor: psycopg2.extensions.cursor) -> Iterator[str]:
    """What a preview leaves although it is undone."""
    advanced = sequences_advanced(cursor)
    if advanced:
        yield (
            f"Defaults of columns that the backup has not took values from {', '.join(advanced)}, and PostgreSQL does not take those back: "
            "after this preview they go on from a later value."
        )


def _report(side: SideTable, difference: Difference) -> RestoredTable:
    return RestoredTable(
        identity=side.live.table.identity,
        key=side.key,
        backup_rows=side.backup_rows,
        live_rows=side.backup_rows - difference.missing + difference.extra,
        missing=difference.missing,
        extra=difference.extra,
        changed=difference.changed,
        columns=side.changed_columns() if difference.changed else {},
        samples=side.samples() if difference != Difference(0, 0, 0) else {},
    )


def _parts(sides: Sequence[SideTable], to_do: Iterator[Difference]) -> Iterator[tuple[int, str, str]]:
    """Number of the table, what is counted, and the SQL, in the order in which they have to run."""
    work = list(enumerate(zip(sides, to_do, strict=True)))
    for number, (side, difference) in work:
        if difference.extra:
            yield number, "deleted", side.delete()
    for number, (side, difference) in work:
        if difference.changed:
            yield number, "updated", side.update(_written(side.columns))
    for number, (side, difference) in work:
        if difference.missing:
            yield number, "inserted", side.insert()


def _written(columns: Sequence[Column]) -> list[Column]:
    # Columns GENERATED ALWAYS AS IDENTITY do not differ, or the run was refused.
    return [column for column in columns if column.identity != "a"]


def _settle(settings: ConnectionSettings, xid: str, lost: Exception) -> None:
    try:
        settle(settings, xid, lost)
    except OutcomeUnknown as err:
        raise OutcomeUnknown(
            f"The connection was lost at COMMIT ({' '.join(str(lost).split())}), and the server does not say what became of it. Whether the "
            f"tables were put back is not known. When the server answers again, ask it: SELECT pg_xact_status('{xid}'). If it says aborted, "
            "run this again; if committed, the tables are as in the backup.",
            xid=xid,
        ) from err
