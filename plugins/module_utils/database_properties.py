# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a database as a whole and is in no dump of it: owner, privileges, settings, comment, limits, locale."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing as t

from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import psycopg2.extensions

    Cursor = psycopg2.extensions.cursor

with contextlib.suppress(ImportError):
    import psycopg2
    from psycopg2.sql import SQL, Composable, Identifier, Literal

#: Stands for everybody among grantees. No role can have this name in lower case.
PUBLIC = "public"
#: Role of the settings that a database has for all roles.
ALL_ROLES = ""

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}

#: A list of names each of which is quoted by itself (GUC_LIST_QUOTE in the server's source; pg_dump has the same list).
_LISTS = frozenset(
    (
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    )
)
_LIST_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)')

#: Fixed when a database is created; :func:`apply_properties` leaves them alone.
FIXED = ("encoding", "collate", "ctype", "locale_provider", "locale", "icu_rules", "collation_version", "tablespace")


@dataclasses.dataclass(frozen=True, order=True)
class Grant:
    """One privilege of one role, as ``aclexplode`` gives it; ``grantee`` is a role's name or :data:`PUBLIC`."""

    grantee: str
    privilege: str
    grantable: bool
    grantor: str


@dataclasses.dataclass(frozen=True, order=True)
class RoleSettings:
    """``ALTER DATABASE … SET`` where ``role`` is empty, otherwise ``ALTER ROLE … IN DATABASE … SET``; raw ``name=value``."""

    role: str
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Properties:
    """A database's own properties.

    :param locale: of the ICU or builtin provider; empty for libc.
    :param collation_version: what the database was built with; empty before PostgreSQL 15, and where there is none.
    :param acl: the privileges in force, those that PostgreSQL gives by default included.
    :param connection_limit: -1: no limit.
    :param security_labels: label by provider.
    """

    encoding: str
    collate: str
    ctype: str
    owner: str
    locale_provider: str = "libc"
    locale: str = ""
    icu_rules: str = ""
    collation_version: str = ""
    tablespace: str = "pg_default"
    acl: tuple[Grant, ...] = ()
    settings: tuple[RoleSettings, ...] = ()
    connection_limit: int = -1
    comment: str = ""
    is_template: bool = False
    allow_connections: bool = True
    security_labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, t.Any]:
        """For the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, t.Any]) -> Properties:
        """Properties from a manifest; fields of a newer release are ignored.

        :raises Refused: where the content is not what :meth:`to_dict` gave.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            values = {name: value for name, value in content.items() if name in known}
            values["acl"] = tuple(Grant(**grant) for grant in values.get("acl", ()))
            values["settings"] = tuple(
                RoleSettings(each["role"], tuple(each["settings"])) for each in values.get("settings", ())
            )
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as err:
            raise Refused(
                f"The properties of the database in the manifest cannot be read: {err}. Choose another backup with "
                "the extra variable backup."
            ) from err

    def roles(self) -> set[str]:
        """Every role that is named here."""
        named = {self.owner, *(each.role for each in self.settings)}
        named.update(name for grant in self.acl for name in (grant.grantee, grant.grantor))
        return named - {PUBLIC, ALL_ROLES}


# Columns that some major versions do not have are taken from the row as JSON.
_DATABASE = """
SELECT d.oid::pg_catalog.int8, pg_catalog.pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text,
       pg_catalog.pg_get_userbyid(d.datdba)::text, s.spcname::text, d.datconnlimit, d.datistemplate, d.datallowconn,
       pg_catalog.shobj_description(d.oid, 'pg_database'), pg_catalog.to_jsonb(d.*) ->> 'datlocprovider',
       coalesce(pg_catalog.to_jsonb(d.*) ->> 'datlocale', pg_catalog.to_jsonb(d.*) ->> 'daticulocale'),
       pg_catalog.to_jsonb(d.*) ->> 'daticurules', pg_catalog.to_jsonb(d.*) ->> 'datcollversion'
  FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace s ON s.oid = d.dattablespace WHERE d.datname = %s
"""
_ACL = """
SELECT CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END, a.privilege_type,
       a.is_grantable, pg_catalog.pg_get_userbyid(a.grantor)::text
  FROM pg_catalog.pg_database d, pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
 WHERE d.oid = %s
"""
_SETTINGS = """
SELECT coalesce(r.rolname::text, ''), s.setconfig FROM pg_catalog.pg_db_role_setting s
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = %s AND (s.setrole = 0 OR r.oid IS NOT NULL)
"""
_LABELS = """
SELECT provider, label FROM pg_catalog.pg_shseclabel
 WHERE classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND objoid = %s ORDER BY provider
"""


def read_properties(cursor: Cursor, dbname: str) -> Properties:
    """The properties of a database of this cluster, which need not be the connected one.

    :raises Refused: there is no such database.
    """
    cursor.execute(_DATABASE, (dbname,))
    row = cursor.fetchone()
    if row is None:
        raise Refused(f"There is no database {dbname} on this server. Check rollback_db_name.")
    oid, encoding, collate, ctype, owner, tablespace, limit, template, allows, comment, *locale = row
    provider, name, rules, version = (value or "" for value in locale)
    cursor.execute(_ACL, (oid,))
    acl = tuple(sorted(Grant(*values) for values in cursor.fetchall()))
    cursor.execute(_SETTINGS, (oid,))
    settings = tuple(sorted(RoleSettings(role, tuple(values)) for role, values in cursor.fetchall()))
    cursor.execute(_LABELS, (oid,))
    return Properties(
        encoding=encoding,
        collate=collate,
        ctype=ctype,
        owner=owner,
        locale_provider=_PROVIDERS.get(provider or "c", provider),
        locale=name,
        icu_rules=rules,
        collation_version=version,
        tablespace=tablespace,
        acl=acl,
        settings=settings,
        connection_limit=limit,
        comment=comment or "",
        is_template=template,
        allow_connections=allows,
        security_labels=dict(cursor.fetchall()),
    )


def differences(first: Properties, second: Properties) -> list[str]:
    """One sentence for each property that differs, from the first to the second."""
    return [
        f"{name.replace('_', ' ')} is {_shown(getattr(first, name))}, and {_shown(getattr(second, name))} there."
        for name in (field.name for field in dataclasses.fields(Properties))
        if getattr(first, name) != getattr(second, name)
        and not (name == "collation_version" and not _both(first, second))
    ]


def _both(first: Properties, second: Properties) -> bool:
    """Whether both know the version of their collations: PostgreSQL records it from 15 on."""
    return bool(first.collation_version and second.collation_version)


def _shown(value: t.Any) -> str:
    if not isinstance(value, tuple):
        return repr(value)
    return "; ".join(map(_item_shown, value)) or "none"


def _item_shown(item: Grant | RoleSettings) -> str:
    if isinstance(item, RoleSettings):
        return f"{item.role or 'all roles'}: {', '.join(item.settings)}"
    return f"{item.privilege} to {item.grantee} by {item.grantor}{' with grant option' if item.grantable else ''}"


# --- putting them on a database ---------------------------------------------------------------------------------------


def apply_properties(cursor: Cursor, dbname: str, properties: Properties, without: Collection[str] = ()) -> list[str]:
    """Give a database the properties of another, except those that are fixed when it is created (:data:`FIXED`).

    Works inside a transaction and outside; only what differs is changed.

    :param without: names of fields to leave as they are, such as ``comment``.
    :return: names of the fields that were changed.
    :raises psycopg2.Error: the role lacks a privilege, or a role that is named does not exist.
    """
    changed = []
    for name, apply in _APPLY.items():
        # Read again each time: a new owner changes the privileges as well.
        current = read_properties(cursor, dbname)
        if name not in without and getattr(current, name) != getattr(properties, name):
            apply(cursor, Identifier(dbname), current, properties)
            changed.append(name)
    return changed


def _apply_owner(cursor: Cursor, database: Composable, current: Properties, wanted: Properties) -> None:
    del current
    cursor.execute(SQL("ALTER DATABASE {} OWNER TO {}").format(database, Identifier(wanted.owner)))


def _apply_acl(cursor: Cursor, database: Composable, current: Properties, wanted: Properties) -> None:
    for grantee in sorted({grant.grantee for grant in current.acl}):
        cursor.execute(SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE").format(database, _grantee(grantee)))
    for grant in _in_order(wanted):
        statement = SQL("GRANT {} ON DATABASE {} TO {}{}").format(
            SQL(_keyword(grant.privilege)),
            database,
            _grantee(grant.grantee),
            SQL(" WITH GRANT OPTION" if grant.grantable else ""),
        )
        with _as_grantor(cursor, grant.grantor, wanted.owner):
            cursor.execute(statement)


def _grantee(name: str) -> Composable:
    return SQL("PUBLIC") if name == PUBLIC else Identifier(name)


def _keyword(privilege: str) -> str:
    """:raises Refused: this is no name of a privilege, which is written into the statement as it is."""
    if not re.fullmatch(r"[A-Z]+(?: [A-Z]+)*", privilege):
        raise Refused(
            f"{privilege!r} is not a privilege on a database. Choose another backup with the extra variable backup."
        )
    return privilege


def _in_order(wanted: Properties) -> Iterator[Grant]:
    """Grants so that each grantor has its grant option before it grants; the owner needs none."""
    able = {wanted.owner}
    left = list(wanted.acl)
    while left:
        ready = [grant for grant in left if grant.grantor in able] or left
        yield from ready
        able.update(grant.grantee for grant in ready if grant.grantable)
        left = [grant for grant in left if grant not in ready]


@contextlib.contextmanager
def _as_grantor(cursor: Cursor, grantor: str, owner: str) -> Iterator[None]:
    """What the owner granted, whoever may act for the owner can grant; another grantor has to be that role."""
    if grantor == owner:
        yield
        return
    cursor.execute(SQL("SET ROLE {}").format(Identifier(grantor)))
    try:
        yield
    finally:
        # In a failed transaction this is refused, and the end of the transaction does the same.
        with contextlib.suppress(psycopg2.Error):
            cursor.execute("RESET ROLE")


def _apply_settings(cursor: Cursor, database: Composable, current: Properties, wanted: Properties) -> None:
    before = {each.role: each.settings for each in current.settings}
    after = {each.role: each.settings for each in wanted.settings}
    for role in sorted({*before, *after}):
        if before.get(role) == after.get(role):
            continue
        alter = SQL("ALTER DATABASE {} ").format(database)
        if role != ALL_ROLES:
            alter = SQL("ALTER ROLE {} IN DATABASE {} ").format(Identifier(role), database)
        if role in before:
            cursor.execute(alter + SQL("RESET ALL"))
        for setting in after.get(role, ()):
            cursor.execute(alter + assignment(setting))


def assignment(setting: str) -> Composable:
    """``SET name TO value`` from the catalog's ``name=value``.

    A list of names is given as a list, everything else as one string, as pg_dump's makeAlterConfigCommand does.
    """
    name, _equals, value = setting.partition("=")
    values = split_list(value) if name.lower() in _LISTS else [value]
    return SQL("SET {} TO {}").format(Identifier(name), SQL(", ").join(map(Literal, values)))


def split_list(value: str) -> list[str]:
    """The items of a list of names as the server keeps it; an empty list is one empty item."""
    items = []
    position = 0
    while position < len(value):
        match = _LIST_ITEM.match(value, position)
        if match is None or match.end() == position:
            raise Refused(
                f"{value!r} is not a list of names, as search_path is. Choose another backup with the extra variable backup."
            )
        quoted, bare = match.groups()
        items.append(bare.strip() if quoted is None else quoted.replace('""', '"'))
        position = match.end()
    return items or [""]


def _apply_labels(cursor: Cursor, database: Composable, current: Properties, wanted: Properties) -> None:
    for provider in sorted({*current.security_labels, *wanted.security_labels}):
        label = wanted.security_labels.get(provider)
        cursor.execute(
            SQL("SECURITY LABEL FOR {} ON DATABASE {} IS {}").format(Identifier(provider), database, Literal(label))
        )


def _apply_comment(cursor: Cursor, database: Composable, current: Properties, wanted: Properties) -> None:
    del current
    cursor.execute(SQL("COMMENT ON DATABASE {} IS {}").format(database, Literal(wanted.comment or None)))


def _option(keyword: str, field: str) -> t.Callable[[Cursor, Composable, Properties, Properties], None]:
    def apply(cursor: Cursor, database: Composable, current: Properties, wanted: Properties) -> None:
        del current
        value = SQL(str(getattr(wanted, field)).lower())
        cursor.execute(SQL("ALTER DATABASE {} WITH {} {}").format(database, SQL(keyword), value))

    return apply


#: In this order: who owns a database may change the rest, and who may connect comes last.
_APPLY: dict[str, t.Callable[[Cursor, Composable, Properties, Properties], None]] = {
    "owner": _apply_owner,
    "acl": _apply_acl,
    "settings": _apply_settings,
    "security_labels": _apply_labels,
    "comment": _apply_comment,
    "connection_limit": _option("CONNECTION LIMIT", "connection_limit"),
    "is_template": _option("IS_TEMPLATE", "is_template"),
    "allow_connections": _option("ALLOW_CONNECTIONS", "allow_connections"),
}
