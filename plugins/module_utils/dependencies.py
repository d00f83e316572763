# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database needs of the server and cluster that it is restored to: extensions and roles."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from .catalog import Cursor

_EXTENSIONS = """
SELECT x.extname::text, x.extversion, n.nspname::text
  FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace ORDER BY 1
"""

#: Roles that own something in the database, are granted something there or are named in a policy; owner, grantees and
#: settings of the database itself; and the bootstrap superuser (oid 10), whose dependencies PostgreSQL does not record.
_ROLES = """
WITH own(oid) AS (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
needed(oid) AS (
    SELECT s.refobjid FROM pg_catalog.pg_shdepend s, own
     WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
       AND (s.dbid = own.oid OR s.dbid = 0 AND s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objid = own.oid)
    UNION SELECT s.setrole FROM pg_catalog.pg_db_role_setting s, own WHERE s.setdatabase = own.oid
    UNION SELECT 10::pg_catalog.oid),
membership(member, options) AS (
    SELECT m.member, pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('role', g.rolname, 'admin', pg_catalog.bool_or(m.admin_option),
               'inherit', pg_catalog.bool_or((pg_catalog.to_jsonb(m.*) ->> 'inherit_option')::bool),
               'set', pg_catalog.bool_or((pg_catalog.to_jsonb(m.*) ->> 'set_option')::bool)))
      FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid GROUP BY m.member, g.rolname)
SELECT r.rolname::text, pg_catalog.to_jsonb(r.*) - '{oid,rolname,rolpassword,rolconfig}'::text[], coalesce(r.rolconfig, '{}'),
       coalesce((SELECT pg_catalog.jsonb_agg(m.options ORDER BY m.options ->> 'role') FROM membership m WHERE m.member = r.oid), '[]')
  FROM pg_catalog.pg_roles r JOIN needed ON needed.oid = r.oid ORDER BY 1
"""


def read_extensions(cursor: Cursor) -> dict[str, dict[str, str]]:
    """``version`` and ``schema`` of each extension, by name."""
    cursor.execute(_EXTENSIONS)
    return {name: {"version": version, "schema": schema} for name, version, schema in cursor.fetchall()}


def read_roles(cursor: Cursor) -> dict[str, dict[str, t.Any]]:
    """Every role that something in the connected database refers to, by name, without passwords.

    Each has the attributes of ``pg_roles`` (``rolsuper``, ``rolcanlogin`` and so on), its own settings as ``config`` and
    the roles that it is a direct member of as ``memberships``: ``role``, ``admin`` and, from PostgreSQL 16 on, ``inherit``
    and ``set``.
    """
    cursor.execute(_ROLES)
    return {
        name: {**attributes, "config": list(config), "memberships": list(memberships)}
        for name, attributes, config, memberships in cursor.fetchall()
    }
