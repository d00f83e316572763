# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true before two databases are exchanged, and what the one that becomes live has to look like."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import typing as t

from .connection import CannotConnect, connect, optional_limits
from .database_properties import FIXED, Properties, differences, read_properties
from .errors import Refused
from .eviction import sessions_of
from .kept import LONGEST_NAME, fits, kept_name, read_mark
from .server import inspect_target
from .swap_obstacles import (
    Database,
    quoted,
    refuse_missing_privileges,
    refuse_missing_roles,
    refuse_prepared,
    refuse_untouchable,
)

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2
    import psycopg2.errors
    import psycopg2.extensions

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .connection import ConnectionSettings
    from .database_properties import Cursor

#: Databases of every cluster that others are made from.
_TEMPLATES = ("template0", "template1")

#: The server ends our transaction when nothing is heard of us, for example when the network between is cut.
_SILENCE = "SET idle_in_transaction_session_timeout = '30s'"


@dataclasses.dataclass(frozen=True)
class SwapRequest:
    """All that an exchange needs to know.

    :param settings: how the server is reached; ``dbname`` is the live database's name.
    :param incoming: database that gets the live name. Empty only for a check before there is one.
    :param kept: name for the one that is replaced; empty, ``<live>_replaced_<UTC>``.
    :param maintenance_db: database to be connected to meanwhile.
    :param timeout: seconds in which other sessions must be gone.
    :param properties: of the database as a whole, as in a manifest. Empty: those of the live one, and where ``incoming``
        is a database that was kept, its own.
    :param state_dir: folder for the file of the exchange; empty, none is written.
    :param backup_id: what ``incoming`` was restored from, for the comment of the kept one.
    :param before_commit: is told the transaction, the kept name and the ended sessions, just before the COMMIT; why it could
        not note that, or nothing.
    """

    settings: ConnectionSettings
    incoming: str
    kept: str = ""
    maintenance_db: str = "postgres"
    timeout: float = 30.0
    properties: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    run_id: str = ""
    state_dir: str = ""
    backup_id: str = ""
    before_commit: Callable[[str, str, tuple[dict[str, t.Any], ...]], str] | None = None

    @property
    def live(self) -> str:
        """Name of the live database."""
        return self.settings.dbname

    @property
    def there(self) -> ConnectionSettings:
        """How the maintenance database is reached."""
        return dataclasses.replace(self.settings, dbname=self.maintenance_db)


@dataclasses.dataclass(frozen=True)
class SwapPlan:
    """What an exchange will do.

    :param live_oid: ``None`` where there is no live database.
    :param incoming_oid: ``None`` where there is none yet.
    :param kept: name for the replaced one; empty where there is none to replace.
    :param wanted: properties of the live database afterwards; ``None`` without ``incoming``.
    :param changes: properties that differ from those of the live database now, as sentences.
    """

    live_oid: int | None
    incoming_oid: int | None
    kept: str
    kept_comment: str
    wanted: Properties | None
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    now: dt.datetime

    @property
    def oids(self) -> list[int]:
        """Those that are there."""
        return [oid for oid in (self.live_oid, self.incoming_oid) if oid is not None]


@dataclasses.dataclass(frozen=True)
class SwapReadiness:
    """What :func:`check_swap` found.

    :param kept: name that the replaced database would get; empty where there is none.
    :param sessions: that would be ended.
    """

    live: str
    kept: str
    system_identifier: str
    sessions: tuple[dict[str, t.Any], ...]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]


def check_swap(request: SwapRequest) -> SwapReadiness:
    """Whether the databases can be exchanged. Nothing is changed.

    :raises Refused: naming what is in the way, and the setting or command that clears it.
    """
    with session(request) as connection:
        target = inspect_target(connection, request.there)
        connection.set_session(readonly=True, autocommit=True)
        with connection.cursor() as cursor:
            plan = make_plan(cursor, request)
            present = sessions_of(cursor, plan.oids)
            refuse_untouchable(cursor, present)
    return SwapReadiness(request.live, plan.kept, target.system_identifier, tuple(present), plan.changes, plan.warnings)


@contextlib.contextmanager
def session(request: SwapRequest) -> Iterator[psycopg2.extensions.connection]:
    """A connection to the maintenance database, in autocommit, with limits that the server keeps without us.

    :raises Refused: that database cannot be connected to, is the live one, or the server failed.
    """
    _refuse_names(request)
    try:
        connection = connect(
            request.there,
            application_name=f"cypher.rollback swap {request.run_id}".strip(),
            statement_timeout="30s",
        )
    except CannotConnect as err:
        raise Refused(f"{err} That database is rollback_maintenance_db. Nothing was changed.") from err
    with contextlib.closing(connection):
        try:
            connection.autocommit = True
            _limit(connection)
            yield connection
        except psycopg2.Error as err:
            said = " ".join(str(err).split()) or type(err).__name__
            raise Refused(
                f"The server failed before the databases were exchanged: {said}. Nothing was changed. Run again.",
                sqlstate=err.pgcode,
            ) from err


def _limit(connection: psycopg2.extensions.connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_SILENCE)
    # With autocommit, trying them is setting them.
    optional_limits(connection)


def _refuse_names(request: SwapRequest) -> None:
    live, incoming = request.live, request.incoming
    if live == request.maintenance_db:
        raise Refused(
            f"{live} is the live database and the one to be connected to while it is renamed. Nothing was changed. "
            "Set rollback_maintenance_db to another database of this server."
        )
    if live in _TEMPLATES:
        raise Refused(f"{live} is a template of the server. Nothing was changed. Set rollback_db_name to the database.")
    if incoming in (live, request.maintenance_db, *_TEMPLATES):
        raise Refused(f"{incoming} cannot take the place of {live}. Nothing was changed. Name a restored database.")
    for name in filter(None, (live, incoming, request.kept)):
        if not fits(name):
            raise Refused(
                f"No database can be named {name!r}: the server takes {LONGEST_NAME} bytes. Nothing was changed. "
                "Give a shorter name."
            )


def make_plan(cursor: Cursor, request: SwapRequest) -> SwapPlan:
    """What the exchange will do.

    :raises Refused: where it cannot be done.
    """
    found = _databases(cursor)
    live, incoming = found.get(request.live), found.get(request.incoming)
    if request.incoming and incoming is None:
        raise Refused(
            f"There is no database {request.incoming} to take the place of {request.live}. Nothing was changed."
        )
    both = [database for database in (live, incoming) if database is not None]
    if live is not None and live.is_template:
        raise Refused(
            f"{live.name} is a template. Nothing was changed. Set rollback_db_name to the live database, or run: "
            f"ALTER DATABASE {quoted(live.name)} IS_TEMPLATE false"
        )
    refuse_missing_privileges(cursor, both)
    refuse_prepared(cursor, both)
    now = dt.datetime.now(dt.UTC)
    wanted, changes, fixed = _wanted(cursor, request, live, incoming)
    return SwapPlan(
        live.oid if live else None,
        incoming.oid if incoming else None,
        _kept(request, set(found), now) if live else "",
        _own_comment(live) if live else "",
        wanted,
        changes,
        (*fixed, *(_left_behind(cursor, live) if live else ())),
        now,
    )


def _databases(cursor: Cursor) -> dict[str, Database]:
    cursor.execute(
        "SELECT oid::pg_catalog.int8, datname::pg_catalog.text, datistemplate, datallowconn, "
        "pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(datdba)), pg_catalog.pg_has_role(datdba, 'USAGE'), "
        "pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database"
    )
    return {row[1]: Database(*row) for row in cursor.fetchall()}


def _kept(request: SwapRequest, taken: set[str], now: dt.datetime) -> str:
    if request.kept in taken:
        raise Refused(
            f"There is a database {request.kept} already. Nothing was changed. Give the kept one another name."
        )
    return request.kept or kept_name(request.live, taken, now)


def _own_comment(database: Database) -> str:
    """The comment without what was written about the database when it was once kept."""
    mark = read_mark(database.comment, database.oid)
    return mark.comment if mark is not None else database.comment or ""


def _wanted(
    cursor: Cursor, request: SwapRequest, live: Database | None, incoming: Database | None
) -> tuple[Properties | None, tuple[str, ...], tuple[str, ...]]:
    """Properties that the live database shall have, how they differ from now, and what cannot be had."""
    if incoming is None:
        return None, (), ()
    its_own = read_properties(cursor, incoming.name)
    now = read_properties(cursor, live.name) if live else its_own
    given = _given(request, incoming, its_own, live, now)
    fixed = {name: getattr(its_own, name) for name in FIXED}
    wanted = dataclasses.replace(given, **fixed, is_template=False, allow_connections=True)
    refuse_missing_roles(cursor, wanted)
    recorded = dataclasses.replace(its_own, **_fixed(given))
    lost = tuple(f"Not as recorded, {incoming.name}: {line}" for line in differences(its_own, recorded))
    return wanted, tuple(differences(now, wanted)), lost


def _fixed(properties: Properties) -> dict[str, t.Any]:
    # Where a database lies, and the version of its collations, are new in a restored one, and are as good.
    return {name: getattr(properties, name) for name in FIXED if name not in ("tablespace", "collation_version")}


def _given(
    request: SwapRequest, incoming: Database, its_own: Properties, live: Database | None, now: Properties
) -> Properties:
    if request.properties:
        return Properties.from_dict(request.properties)
    mark = read_mark(incoming.comment, incoming.oid)
    if mark is not None and mark.was != request.live:
        raise Refused(
            f"{incoming.name} was kept when {mark.was} was replaced, not {request.live}. Nothing was changed. "
            "Correct rollback_db_name, or name another database."
        )
    if mark is not None:
        return dataclasses.replace(its_own, comment=mark.comment)
    if live is not None:
        return dataclasses.replace(now, comment=_own_comment(live))
    return dataclasses.replace(
        its_own, comment="" if its_own.comment.startswith("cypher.rollback: ") else its_own.comment
    )


def _left_behind(cursor: Cursor, live: Database) -> list[str]:
    """What stays with the replaced database although it is meant for the live one, and the like."""
    warnings = []
    cursor.execute(
        "SELECT slot_name::pg_catalog.text FROM pg_catalog.pg_replication_slots WHERE datoid = %s ORDER BY 1",
        (live.oid,),
    )
    slots = [row[0] for row in cursor.fetchall()]
    if slots:
        warnings.append(
            f"The logical replication slots {', '.join(slots)} stay with the replaced database: their consumers have to be set up again."
        )
    cursor.execute(
        "SELECT subname::pg_catalog.text FROM pg_catalog.pg_subscription WHERE subdbid = %s ORDER BY 1", (live.oid,)
    )
    subscriptions = [row[0] for row in cursor.fetchall()]
    if subscriptions:
        warnings.append(
            f"The subscriptions {', '.join(subscriptions)} stay with the replaced database and go on writing there: "
            "disable them there (ALTER SUBSCRIPTION … DISABLE) and set them up again in the live one."
        )
    if not live.connectable:
        warnings.append(f"{live.name} takes no connections now (ALLOW_CONNECTIONS false); what takes its place does.")
    return warnings
