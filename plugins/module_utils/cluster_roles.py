# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles that a backup needs and the server has no more: made again from the manifest, without passwords."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .database_properties import assignment

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psycopg2.extensions

    from .manifest import Manifest

with contextlib.suppress(ImportError):
    from psycopg2.sql import SQL, Composable, Identifier, Literal

#: Attribute of pg_roles and what CREATE ROLE calls it.
_FLAGS = {
    "rolsuper": "SUPERUSER",
    "rolinherit": "INHERIT",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolcanlogin": "LOGIN",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}


@dataclasses.dataclass(frozen=True)
class Membership:
    """``GRANT role TO`` the one that has this; ``inherit`` and ``set`` exist from PostgreSQL 16 on."""

    role: str
    admin: bool = False
    inherit: bool | None = None
    set: bool | None = None


@dataclasses.dataclass(frozen=True)
class DescribedRole:
    """A role as the manifest has it.

    :param flags: by column of pg_roles.
    :param config: raw ``name=value``, for all databases.
    """

    name: str
    flags: Mapping[str, bool]
    connection_limit: int = -1
    valid_until: str = ""
    memberships: tuple[Membership, ...] = ()
    config: tuple[str, ...] = ()

    @property
    def login(self) -> bool:
        """Whether it may log in, for which it most likely had a password."""
        return bool(self.flags.get("rolcanlogin"))


def described_roles(manifest: Manifest) -> dict[str, DescribedRole]:
    """The roles of a manifest by name."""
    return {name: _described(name, facts) for name, facts in manifest.roles.items()}


def _described(name: str, facts: Mapping[str, t.Any]) -> DescribedRole:
    return DescribedRole(
        name,
        {flag: bool(facts[flag]) for flag in _FLAGS if flag in facts},
        int(facts.get("rolconnlimit", -1)),
        str(facts.get("rolvaliduntil") or ""),
        tuple(
            Membership(each) if isinstance(each, str) else _membership(each) for each in facts.get("memberships") or ()
        ),
        tuple(facts.get("config") or ()),
    )


def _membership(facts: Mapping[str, t.Any]) -> Membership:
    return Membership(str(facts["role"]), bool(facts.get("admin")), facts.get("inherit"), facts.get("set"))


def missing_roles(cursor: psycopg2.extensions.cursor, wanted: Iterable[str]) -> list[str]:
    """Those names that no role of the cluster has."""
    cursor.execute("SELECT rolname::text FROM pg_catalog.pg_roles")
    return sorted(set(wanted) - {name for (name,) in cursor.fetchall()})


def create_roles(cursor: psycopg2.extensions.cursor, roles: Sequence[DescribedRole]) -> None:
    """Create roles with their attributes, memberships and settings; best inside one transaction.

    :raises psycopg2.Error: the privileges do not allow it.
    """
    for role in roles:
        cursor.execute(_create(role))
    cursor.execute("SELECT rolname::text FROM pg_catalog.pg_roles")
    existing = {name for (name,) in cursor.fetchall()}
    cursor.execute("SELECT pg_catalog.current_setting('server_version_num')::int >= 160000")
    with_options = bool(cursor.fetchall()[0][0])
    for role in roles:
        for membership in role.memberships:
            if membership.role in existing:
                cursor.execute(_grant(role, membership, with_options))
        for setting in role.config:
            cursor.execute(SQL("ALTER ROLE {} ").format(Identifier(role.name)) + assignment(setting))


def drop_roles(cursor: psycopg2.extensions.cursor, roles: Sequence[DescribedRole]) -> list[str]:
    """Take back what :func:`create_roles` did; the roles that could not be dropped."""
    left = []
    for role in roles:
        try:
            cursor.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(role.name)))
        except Exception:  # noqa: BLE001 - whatever the reason, the role is named to the operator
            left.append(role.name)
    return left


def _create(role: DescribedRole) -> Composable:
    words = [
        keyword if role.flags.get(flag) else f"NO{keyword}" for flag, keyword in _FLAGS.items() if flag in role.flags
    ]
    parts: list[Composable] = [
        SQL("CREATE ROLE {} WITH CONNECTION LIMIT {}").format(Identifier(role.name), Literal(role.connection_limit))
    ]
    parts.append(SQL(" ".join(words)))
    if role.valid_until:
        parts.append(SQL("VALID UNTIL {}").format(Literal(role.valid_until)))
    return SQL(" ").join(parts)


def _grant(role: DescribedRole, membership: Membership, with_options: bool) -> Composable:
    options: list[str] = []
    if with_options:
        values = {"ADMIN": membership.admin, "INHERIT": membership.inherit, "SET": membership.set}
        options = [f"{name} {str(value).upper()}" for name, value in values.items() if value is not None]
    elif membership.admin:
        options = ["ADMIN OPTION"]
    statement = SQL("GRANT {} TO {}").format(Identifier(membership.role), Identifier(role.name))
    return statement + SQL(f" WITH {', '.join(options)}") if options else statement
