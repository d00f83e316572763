# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a role from exchanging databases: privileges, prepared transactions, sessions that it may not end."""

from __future__ import annotations

import dataclasses
import typing as t

from .errors import Refused
from .server import describe_session

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .database_properties import Cursor, Properties


@dataclasses.dataclass(frozen=True)
class Database:
    """A database of the server.

    :param owner: quoted, for a message.
    :param is_ours: whether the connected role may act for the owner.
    """

    oid: int
    name: str
    is_template: bool
    connectable: bool
    owner: str
    is_ours: bool
    comment: str | None


def refuse_missing_roles(cursor: Cursor, wanted: Properties) -> None:
    """Every role that the properties name has to be there, and the connected one must be able to give the database away."""
    names = sorted(wanted.roles())
    cursor.execute("SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)", (names,))
    missing = sorted(set(names) - {row[0] for row in cursor.fetchall()})
    if missing:
        raise Refused(
            f"The database's owner, privileges or settings name roles that the server does not have: {', '.join(missing)}. "
            "Nothing was changed. Create them (CREATE ROLE), or set rollback_missing_roles to create."
        )
    cursor.execute(
        "SELECT current_user::pg_catalog.text WHERE NOT pg_catalog.pg_has_role((SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s), 'MEMBER')",
        (wanted.owner,),
    )
    row = cursor.fetchone()
    if row is not None:
        raise Refused(
            f"The database shall belong to {wanted.owner}, and {row[0]} may not give it away: it is no member of that role. "
            f"Nothing was changed. Run: GRANT {quoted(wanted.owner)} TO {quoted(row[0])}, or set rollback_db_user to a superuser."
        )


def refuse_missing_privileges(cursor: Cursor, databases: Sequence[Database]) -> None:
    """ALTER DATABASE … RENAME takes the owner with CREATEDB, or a superuser (manual page of the command)."""
    cursor.execute(
        "SELECT rolsuper, rolcreatedb, pg_catalog.quote_ident(rolname) FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    superuser, createdb, user = cursor.fetchall()[0]
    if superuser:
        return
    if not createdb:
        raise Refused(
            f"The role {user} may not rename databases: it lacks CREATEDB. Nothing was changed. "
            f"Set rollback_db_user to a superuser, or run: ALTER ROLE {user} CREATEDB"
        )
    for database in databases:
        if not database.is_ours:
            raise Refused(
                f"The role {user} may not rename {database.name}: it belongs to {database.owner}. Nothing was changed. "
                f"Set rollback_db_user to {database.owner} or to a superuser, or run: GRANT {database.owner} TO {user}"
            )


def refuse_prepared(cursor: Cursor, databases: Sequence[Database]) -> None:
    """No database with a prepared transaction can be renamed, and none ends by itself."""
    cursor.execute(
        "SELECT database::pg_catalog.text, pg_catalog.quote_literal(gid), owner::pg_catalog.text FROM pg_catalog.pg_prepared_xacts "
        "WHERE database = ANY(%s) ORDER BY prepared",
        ([database.name for database in databases],),
    )
    rows = cursor.fetchall()
    if rows:
        which = "; ".join(f"{gid} of {owner} in {name}" for name, gid, owner in rows)
        gid = rows[0][1]
        raise Refused(
            f"A prepared transaction is in the way: {which}. Nothing was changed. In that database, run "
            f"COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid}, whichever its transaction manager says.",
            prepared=[{"database": name, "gid": gid, "owner": owner} for name, gid, owner in rows],
        )


def refuse_untouchable(cursor: Cursor, present: Sequence[dict[str, t.Any]]) -> None:
    """Sessions of others end only for their role's members and pg_signal_backend; a superuser's only for superusers."""
    cursor.execute(
        "SELECT a.pid, r.rolsuper FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid "
        "WHERE a.pid = ANY(%s) AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AND (r.rolsuper "
        "OR NOT (pg_catalog.pg_has_role(r.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')))",
        ([item["pid"] for item in present],),
    )
    out_of_reach = dict(cursor.fetchall())
    if not out_of_reach:
        return
    named = [item for item in present if item["pid"] in out_of_reach]
    remedy = (
        "End them, or set rollback_db_user to a superuser"
        if any(out_of_reach.values())
        else "End them, or run as a superuser: GRANT pg_signal_backend TO the role of rollback_db_user"
    )
    raise Refused(
        f"These sessions could not be ended by this role: {'; '.join(map(describe_session, named))}. Nothing was changed. {remedy}.",
        sessions=named,
    )


def quoted(name: str) -> str:
    """A name as a command that is shown has to write it."""
    return '"' + name.replace('"', '""') + '"'
