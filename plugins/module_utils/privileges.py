# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the connected role may do what a DOWN asks, found before anything is stopped."""

from __future__ import annotations

import typing as t

from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .ledger import Cursor
    from .names import Resolution

# PostgreSQL's rule, from the manual pages of the DROP commands: the owner, the owner of the schema, or a superuser.
_OWNERS = {
    "pg_class": ("relowner", "relnamespace"),
    "pg_proc": ("proowner", "pronamespace"),
    "pg_type": ("typowner", "typnamespace"),
    "pg_namespace": ("nspowner", None),
    "pg_extension": ("extowner", None),
}


def refuse_missing(cursor: Cursor, resolved: Sequence[Resolution]) -> None:
    """Refuse a plan that the role may not carry out.

    :raises Refused: naming the object, its owner, and what to change.
    """
    cursor.execute("SELECT rolsuper, rolcreaterole, rolname::text FROM pg_catalog.pg_roles WHERE rolname = current_user")
    superuser, createrole, user = cursor.fetchall()[0]
    targets = [item for item in resolved if item.target]
    _refuse_role_in_use(cursor, [item.target.address[1] for item in targets if item.named.type == "role" and item.target])
    if superuser:
        return
    if not createrole and any(item.named.type == "role" for item in targets):
        role = next(item.named.name for item in targets if item.named.type == "role")
        raise Refused(
            f"The role {user} may not drop the role {role}: it lacks CREATEROLE. Nothing was stopped. "
            f"Set rollback_db_user to a role that has it, or run: ALTER ROLE {user} CREATEROLE"
        )
    _refuse_not_owner(cursor, str(user), targets)


def _refuse_not_owner(cursor: Cursor, user: str, targets: Sequence[Resolution]) -> None:
    for catalog, (owner, schema) in _OWNERS.items():
        oids = [item.target.address[1] for item in targets if item.target and _catalog(item) == catalog]
        if not oids:
            continue
        of_schema = f"OR pg_catalog.pg_has_role((SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.oid = o.{schema}), 'USAGE')" if schema else ""
        cursor.execute(
            f"SELECT i.type, i.identity, pg_catalog.pg_get_userbyid(o.{owner}) FROM pg_catalog.{catalog} o "
            f"CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.{catalog}'::pg_catalog.regclass, o.oid, 0) i "
            f"WHERE o.oid = ANY(%s::pg_catalog.oid[]) AND NOT (pg_catalog.pg_has_role(o.{owner}, 'USAGE') {of_schema}) LIMIT 1",
            (oids,),
        )
        row = cursor.fetchone()
        if row is not None:
            raise Refused(
                f"The role {user} may not drop the {row[0]} {row[1]}: it belongs to {row[2]}. Nothing was stopped. "
                f"Set rollback_db_user to {row[2]}, or run: GRANT {row[2]} TO {user}"
            )


def _catalog(item: Resolution) -> str:
    assert item.target is not None
    catalog = item.target.address[0]
    return "pg_class" if catalog.startswith("pg_attribute:") else catalog


def _refuse_role_in_use(cursor: Cursor, roles: Sequence[int]) -> None:
    if not roles:
        return
    cursor.execute(
        "SELECT r.rolname::text, pg_catalog.string_agg(DISTINCT coalesce(d.datname::text, 'the cluster itself'), ', ') "
        "FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid "
        "LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid "
        "WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = ANY(%s::pg_catalog.oid[]) "
        "AND s.classid <> 'pg_catalog.pg_auth_members'::pg_catalog.regclass AND s.dbid <> (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) GROUP BY 1 LIMIT 1",
        (list(roles),),
    )
    row = cursor.fetchone()
    if row is not None:
        raise Refused(
            f"The role {row[0]} cannot be dropped: it still has privileges or objects in {row[1]}. Nothing was stopped. "
            f"There, run: DROP OWNED BY {row[0]}"
        )
