# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a database as a whole, read from one and put on another."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import database_properties as properties
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from psycopg2 import sql

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database
    from tests.support.postgres_server import PostgresServer

HOSTILE = 'It\'s a "100 %" name\\ with\nnewline, ümläut %s'


@pytest.fixture
def roles(server: PostgresServer) -> Iterator[list[str]]:
    """Three roles, two of them with names that need care; a test names them first, so that its databases go first."""
    suffix = secrets.token_hex(4)
    names = [f"plain_{suffix}", f'Own"er %s {suffix}', f"PUBLIC {suffix}"]
    for name in names:
        server.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
    yield names
    for name in names:
        server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def other(server: PostgresServer) -> Iterator[str]:
    """A second empty database with a name that needs care."""
    name = f"{HOSTILE[:40]} {secrets.token_hex(4)}"
    server.create_database(name)
    yield name
    server.drop_database(name)


def _run(database: Database, *statements: str, **names: str) -> None:
    identifiers = {key: sql.Identifier(value) for key, value in names.items()}
    for statement in statements:
        composed = sql.SQL(statement).format(d=sql.Identifier(database.name), **identifiers)
        database.server.execute(composed)


def _make_unusual(database: Database, roles: list[str]) -> None:
    plain, owner, upper = roles
    _run(
        database,
        "ALTER DATABASE {d} OWNER TO {owner}",
        "REVOKE ALL ON DATABASE {d} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {d} TO {upper} WITH GRANT OPTION",
        "SET ROLE {upper}; GRANT CONNECT ON DATABASE {d} TO {plain} WITH GRANT OPTION; RESET ROLE",
        "SET ROLE {plain}; GRANT CONNECT ON DATABASE {d} TO PUBLIC; RESET ROLE",
        "REVOKE TEMPORARY ON DATABASE {d} FROM {owner}",
        """ALTER DATABASE {d} SET search_path TO "$user", 'we,ird "x"', public, '' """,
        "ALTER DATABASE {d} SET datestyle TO 'ISO, DMY'",
        "ALTER DATABASE {d} SET app.title TO 'It''s = 100 % \\ \n done'",
        "ALTER ROLE {plain} IN DATABASE {d} SET work_mem TO '8MB'",
        "ALTER ROLE {upper} IN DATABASE {d} SET search_path TO ''",
        "ALTER ROLE {owner} IN DATABASE {d} SET temp_tablespaces TO ''",
        "ALTER DATABASE {d} WITH CONNECTION LIMIT 17",
        "ALTER DATABASE {d} WITH IS_TEMPLATE true",
        "COMMENT ON DATABASE {d} IS 'It''s 100 % \\ \n Ünïcode'",
        plain=plain,
        owner=owner,
        upper=upper,
    )


def _read(database: Database, name: str) -> properties.Properties:
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        return properties.read_properties(cursor, name)


def _apply(database: Database, name: str, wanted: properties.Properties, **arguments: t.Any) -> list[str]:
    with contextlib.closing(database.server.connect("postgres")) as connection:
        with connection, connection.cursor() as cursor:
            return list(properties.apply_properties(cursor, name, wanted, **arguments))


def test_every_property_goes_over_and_nothing_is_changed_twice(
    roles: list[str], database: Database, other: str
) -> None:
    _make_unusual(database, roles)
    wanted = _read(database, database.name)
    try:
        through_json = properties.Properties.from_dict(json.loads(json.dumps(wanted.to_dict())))
        assert through_json == wanted
        assert {*wanted.roles()} == {*roles}
        changed = _apply(database, other, through_json)
        assert changed == ["owner", "acl", "settings", "comment", "connection_limit", "is_template"]
        assert _read(database, other) == wanted
        assert _apply(database, other, through_json) == []
        raw = "SELECT datacl::text FROM pg_database WHERE datname IN (%s, %s)"
        with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(raw, (other, database.name))
            first, second = cursor.fetchall()
        assert sorted(first[0].split(",")) == sorted(second[0].split(","))
    finally:
        _run(database, "ALTER DATABASE {d} WITH IS_TEMPLATE false")
        back = dataclasses.replace(wanted, is_template=False)
        _apply(database, other, back)


def test_unusual_properties_are_taken_back(roles: list[str], database: Database, other: str) -> None:
    usual = _read(database, other)
    _make_unusual(database, roles)
    unusual = _read(database, database.name)
    assert len(properties.differences(usual, unusual)) == 6
    _apply(database, database.name, usual)
    assert _read(database, database.name) == usual
    assert properties.differences(usual, _read(database, database.name)) == []


def test_what_is_left_out_stays(roles: list[str], database: Database, other: str) -> None:
    _make_unusual(database, roles)
    wanted = _read(database, database.name)
    _apply(database, other, wanted, without=("comment", "owner", "acl", "is_template"))
    found = _read(database, other)
    assert (found.comment, found.owner, found.is_template) == ("", "postgres", False)
    assert (found.settings, found.connection_limit) == (wanted.settings, 17)
    _run(database, "ALTER DATABASE {d} WITH IS_TEMPLATE false")


def test_a_failure_in_a_transaction_leaves_the_session_as_it_was(
    roles: list[str], database: Database, other: str
) -> None:
    wanted = _read(database, database.name)
    broken = dataclasses.replace(
        wanted, acl=(*wanted.acl, properties.Grant("nobody is called so", "CONNECT", False, roles[0]))
    )
    with contextlib.closing(database.server.connect("postgres")) as connection, connection.cursor() as cursor:
        before = properties.read_properties(cursor, other)
        with pytest.raises(Exception, match=r"does not exist|permission denied"):
            properties.apply_properties(cursor, other, broken)
        connection.rollback()
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == ("postgres",)
        assert properties.read_properties(cursor, other) == before


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ('"$user", public', ["$user", "public"]),
        ('""', [""]),
        ("", [""]),
        ('"a,b", "it""s", c', ["a,b", 'it"s', "c"]),
        ('"", ""', ["", ""]),
    ],
)
def test_lists_as_the_server_keeps_them(value: str, items: list[str]) -> None:
    assert properties.split_list(value) == items


def test_content_that_no_release_wrote_is_refused() -> None:
    good = properties.Properties("UTF8", "C", "C", "postgres").to_dict()
    for broken in ({"acl": [{"grantee": "x"}]}, {"settings": [{"role": "x"}]}, {"acl": 5}):
        with pytest.raises(Refused, match="manifest"):
            properties.Properties.from_dict({**good, **broken})
    with pytest.raises(Refused, match="privilege"):
        properties._keyword("CONNECT ON DATABASE x TO y; DROP")
    assert properties.Properties.from_dict({**good, "of_a_newer_release": 1}).owner == "postgres"


def test_no_such_database(database: Database) -> None:
    with pytest.raises(Refused, match="There is no database"):
        _read(database, "nobody made this")
