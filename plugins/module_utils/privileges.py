# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the connected role may do what a DOWN asks, found before anything is stopped."""

from __future__ import annotations

import typing as t

from .catalog import COLUMN
from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalog import Address, Cursor
    from .names import Resolution

# PostgreSQL's rule, from the manual pages of the DROP commands: the owner, the owner of the schema, or a superuser.
_OWNERS = {
    "pg_class": ("relowner", "relnamespace"),
    "pg_proc": ("proowner", "pronamespace"),
    "pg_type": ("typowner", "typnamespace"),
    "pg_namespace": ("nspowner", None),
    "pg_extension": ("extowner", None),
    "pg_event_trigger": ("evtowner", None),
    "pg_publication": ("pubowner", None),
    "pg_foreign_server": ("srvowner", None),
    "pg_foreign_data_wrapper": ("fdwowner", None),
    "pg_language": ("lanowner", None),
    "pg_collation": ("collowner", "collnamespace"),
    "pg_conversion": ("conowner", "connamespace"),
    "pg_statistic_ext": ("stxowner", "stxnamespace"),
    "pg_opclass": ("opcowner", "opcnamespace"),
    "pg_opfamily": ("opfowner", "opfnamespace"),
    "pg_ts_config": ("cfgowner", "cfgnamespace"),
    "pg_ts_dict": ("dictowner", "dictnamespace"),
}
# These belong to whoever owns the relation.
_RELATIONS = {"pg_trigger": "tgrelid", "pg_policy": "polrelid", "pg_rewrite": "ev_class", "pg_constraint": "conrelid"}


def refuse_missing(cursor: Cursor, resolved: Sequence[Resolution], *, revokes: bool = False) -> None:
    """Refuse a plan that the role may not carry out.

    :param revokes: the DOWN takes privileges away itself, so what the cluster grants to a role now does not count.
    :raises Refused: naming the object, its owner, and what to change.
    """
    cursor.execute(
        "SELECT rolsuper, rolcreaterole, rolname::text FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    superuser, createrole, user = cursor.fetchall()[0]
    found = [item.target.address for item in resolved if item.target]
    roles = [oid for catalog, oid in found if catalog == "pg_authid"]
    if roles:
        _refuse_role_in_use(cursor, roles, revokes)
    if superuser:
        return
    if roles:
        _refuse_role(cursor, str(user), bool(createrole), roles)
    _refuse_not_owner(cursor, str(user), found)
    _refuse_not_owner_of_relation(cursor, str(user), found)


def _refuse_role(cursor: Cursor, user: str, createrole: bool, roles: Sequence[int]) -> None:
    """DROP ROLE needs CREATEROLE and, from PostgreSQL 16 on, the ADMIN OPTION on that role; for a superuser, a superuser."""
    cursor.execute(
        "SELECT rolname::text, pg_catalog.quote_ident(rolname), rolsuper, "
        "pg_catalog.current_setting('server_version_num')::int < 160000 OR pg_catalog.pg_has_role(oid, 'USAGE WITH ADMIN OPTION') "
        "FROM pg_catalog.pg_roles WHERE oid = ANY(%s::pg_catalog.oid[]) ORDER BY rolname",
        (list(roles),),
    )
    for name, quoted, is_superuser, has_admin in cursor.fetchall():
        if is_superuser:
            lack, remedy = "it is a superuser", "Set rollback_db_user to a superuser"
        elif not createrole:
            lack, remedy = (
                f"{user} lacks CREATEROLE",
                f"Set rollback_db_user to a role that has it, or run: ALTER ROLE {user} CREATEROLE",
            )
        elif not has_admin:
            lack, remedy = f"{user} lacks the ADMIN OPTION on it", f"Run: GRANT {quoted} TO {user} WITH ADMIN OPTION"
        else:
            continue
        raise Refused(
            f"The role {user} may not drop the role {name}: {lack}. Nothing was stopped or changed. {remedy}", role=name
        )


def _refuse_not_owner(cursor: Cursor, user: str, found: Sequence[Address]) -> None:
    for catalog, (owner, schema) in _OWNERS.items():
        oids = [oid for held_in, oid in found if held_in == catalog]
        if not oids:
            continue
        of_schema = f"OR pg_catalog.pg_has_role((SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.oid = o.{schema}), 'USAGE')"
        cursor.execute(
            f"SELECT i.type, i.identity, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(o.{owner})) FROM pg_catalog.{catalog} o "
            f"CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.{catalog}'::pg_catalog.regclass, o.oid, 0) i "
            f"WHERE o.oid = ANY(%s::pg_catalog.oid[]) AND NOT (pg_catalog.pg_has_role(o.{owner}, 'USAGE') {of_schema if schema else ''}) LIMIT 1",
            (oids,),
        )
        _refuse_first(cursor, user)


def _refuse_not_owner_of_relation(cursor: Cursor, user: str, found: Sequence[Address]) -> None:
    relations = {oid for catalog, oid in found if catalog.startswith(COLUMN)}
    for catalog, relation in _RELATIONS.items():
        oids = [oid for held_in, oid in found if held_in == catalog]
        if oids:
            cursor.execute(
                f"SELECT {relation}::pg_catalog.int8 FROM pg_catalog.{catalog} WHERE oid = ANY(%s::pg_catalog.oid[])",
                (oids,),
            )
            relations.update(row[0] for row in cursor.fetchall())
    if relations:
        cursor.execute(
            "SELECT i.type, i.identity, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) FROM pg_catalog.pg_class c "
            "CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) i "
            "WHERE c.oid = ANY(%s::pg_catalog.oid[]) AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') LIMIT 1",
            (list(relations),),
        )
        _refuse_first(cursor, user, "parts of the ")


def _refuse_first(cursor: Cursor, user: str, what: str = "the ") -> None:
    row = cursor.fetchone()
    if row is not None:
        raise Refused(
            f"The role {user} may not drop {what}{row[0]} {row[1]}: it belongs to {row[2]}. Nothing was stopped or changed. "
            f"Set rollback_db_user to {row[2]}, or run: GRANT {row[2]} TO {user}",
            object=f"{row[0]} {row[1]}",
            owner=row[2],
        )


def _refuse_role_in_use(cursor: Cursor, roles: Sequence[int], revokes: bool) -> None:
    cursor.execute(
        "SELECT r.rolname::text, pg_catalog.quote_ident(r.rolname), "
        "pg_catalog.string_agg(DISTINCT 'database ' || d.datname::text, ', '), "
        "pg_catalog.string_agg(DISTINCT CASE WHEN s.dbid = 0 THEN pg_catalog.pg_describe_object(s.classid, s.objid, 0) END, ', ') "
        "FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid "
        "LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid "
        "WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = ANY(%s::pg_catalog.oid[]) "
        "AND s.classid <> 'pg_catalog.pg_auth_members'::pg_catalog.regclass AND (s.dbid <> 0 OR NOT %s) "
        "AND s.dbid <> (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) GROUP BY 1, 2 ORDER BY 1 LIMIT 1",
        (list(roles), revokes),
    )
    row = cursor.fetchone()
    if row is None:
        return
    name, quoted, databases, shared = row
    where = "There" if databases else "In this database"
    raise Refused(
        f"The role {name} cannot be dropped: it still owns something or has privileges in {databases or shared}. Nothing was stopped "
        f"or changed. {where}, take that away first, for example with: DROP OWNED BY {quoted} (it drops what the role owns there)",
        role=name,
    )
