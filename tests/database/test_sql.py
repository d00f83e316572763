# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a statement names, against what the server says that it dropped."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.sql import parse_script

if t.TYPE_CHECKING:
    from tests.conftest import Database

# Records what PostgreSQL drops because the statement names it, spelled as pg_identify_object does.
RECORDER = """
CREATE TABLE public.gone (object oid, type text, identity text);
CREATE FUNCTION public.record() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO public.gone SELECT objid, object_type, object_identity
  FROM pg_event_trigger_dropped_objects() WHERE original;
END $$;
CREATE EVENT TRIGGER record ON sql_drop EXECUTE FUNCTION public.record();
CREATE SCHEMA s;
CREATE TYPE s.t AS (a int, b int);
CREATE TYPE s.t2 AS (a int);
CREATE TABLE s.x (a int, b int CONSTRAINT c CHECK (b > 0));
"""

_LOOKUPS = {"operator": "to_regoperator"}


@pytest.mark.parametrize(
    ("create", "drop"),
    [
        ("CREATE TABLE s.y ()", "DROP TABLE s.Y"),
        ("CREATE TABLE s.y (a int) PARTITION BY LIST (a)", "DROP TABLE s.y"),
        ('CREATE TABLE s."Țară ""x""" ()', 'DROP TABLE s."Țară ""x"""'),
        ('CREATE TABLE s."user" ()', 'DROP TABLE s."user"'),
        ("CREATE VIEW s.v AS SELECT 1", "DROP VIEW s.v"),
        ("CREATE MATERIALIZED VIEW s.v AS SELECT 1", "DROP MATERIALIZED VIEW s.v"),
        ("CREATE INDEX i ON s.x (a)", "DROP INDEX s.i"),
        ("CREATE SEQUENCE s.q", "DROP SEQUENCE s.q"),
        ("CREATE TYPE s.e AS ENUM ('a')", "DROP TYPE s.e"),
        ("CREATE SCHEMA s2", "DROP SCHEMA s2"),
        ("CREATE RULE r AS ON INSERT TO s.x DO NOTHING", "DROP RULE r ON s.x"),
        ("CREATE POLICY p ON s.x", "DROP POLICY p ON s.x"),
        (
            "CREATE TRIGGER t BEFORE UPDATE ON s.x FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "DROP TRIGGER t ON s.x",
        ),
        ('CREATE COLLATION s.c FROM "C"', "DROP COLLATION s.c"),
        ("CREATE STATISTICS s.st ON a, b FROM s.x", "DROP STATISTICS s.st"),
        ("CREATE PUBLICATION p", "DROP PUBLICATION p"),
        ("CREATE FOREIGN DATA WRAPPER w", "DROP FOREIGN DATA WRAPPER w"),
        ("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER sv FOREIGN DATA WRAPPER w", "DROP SERVER sv"),
        ("CREATE TEXT SEARCH CONFIGURATION s.ts (COPY = simple)", "DROP TEXT SEARCH CONFIGURATION s.ts"),
        (
            "CREATE FUNCTION s.f(uuid[], varchar(3), OUT int, VARIADIC numeric(3,1)[]) LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION s.f(UUID[], IN VARCHAR, OUT int, VARIADIC numeric(5)[])",
        ),
        (
            "CREATE FUNCTION s.f(\"char\", char, s.t) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            'DROP FUNCTION s.f("char", char, s.t)',
        ),
        ("CREATE PROCEDURE s.p(int, bool) LANGUAGE sql AS 'SELECT 1'", "DROP PROCEDURE s.p(int, bool)"),
        ("CREATE AGGREGATE s.a(int) (SFUNC = int4pl, STYPE = int)", "DROP AGGREGATE s.a(int)"),
        ("CREATE OPERATOR s.=== (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)", "DROP OPERATOR s.=== (int, int)"),
        ("CREATE CAST (s.t AS s.t2) WITH INOUT", "DROP CAST (s.t AS s.t2)"),
        ("SELECT 1", "ALTER TABLE s.x DROP COLUMN a"),
        ("SELECT 1", "ALTER TABLE s.x DROP CONSTRAINT c"),
        ("SELECT 1", "ALTER TYPE s.t DROP ATTRIBUTE a"),
        ("CREATE DOMAIN s.d AS int CONSTRAINT c CHECK (VALUE > 0)", "ALTER DOMAIN s.d DROP CONSTRAINT c"),
    ],
)
def test_what_a_statement_names_is_what_the_server_drops(database: Database, create: str, drop: str) -> None:
    (statement,) = parse_script(drop, "f.sql")
    (named,) = statement.drops
    # Types of arguments stay as they are written, so a routine with a list of them is looked up by the server.
    lookup = None if named.arguments is None else _LOOKUPS.get(named.type, "to_regprocedure")
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"{RECORDER}; {create}")
        if lookup is not None:
            cursor.execute(f"SELECT {lookup}(%s)::oid", (named.identity,))
            expected: list[tuple[t.Any, ...]] = [(*(cursor.fetchone() or ()), named.type)]
        else:
            expected = [(named.type, named.identity)]
        cursor.execute(statement.text)
        cursor.execute(f"SELECT {'object, type' if lookup else 'type, identity'} FROM public.gone")
        assert cursor.fetchall() == expected


def test_a_function_without_a_list_is_named_alone(database: Database) -> None:
    (statement,) = parse_script("DROP FUNCTION s.f", "f.sql")
    assert statement.drops[0].identity == "s.f"
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"{RECORDER}; CREATE FUNCTION s.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
        cursor.execute("SELECT to_regproc('s.f')::oid")
        expected = cursor.fetchall()
        cursor.execute(statement.text)
        cursor.execute("SELECT object FROM public.gone")
        assert cursor.fetchall() == expected
