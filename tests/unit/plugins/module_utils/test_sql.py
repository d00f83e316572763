# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripts as statements: what they drop, and what is refused."""

from __future__ import annotations

import time

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import sql
from ansible_collections.cypher.rollback.plugins.module_utils.sql import DownRefused, NamedObject, parse_script


def _one(text: str) -> sql.Statement:
    (statement,) = parse_script(text, "0003-orders.sql")
    return statement


@pytest.mark.parametrize(
    ("text", "kind", "drop"),
    [
        ("DROP TABLE b2b.Orders", "DROP TABLE", NamedObject("table", "orders", "b2b")),
        ("DROP TABLE orders", "DROP TABLE", NamedObject("table", "orders")),
        ("DROP TABLE erp.b2b.orders", "DROP TABLE", NamedObject("table", "orders", "b2b")),
        ("DROP VIEW s.v", "DROP VIEW", NamedObject("view", "v", "s")),
        ("DROP MATERIALIZED VIEW s.v", "DROP MATERIALIZED VIEW", NamedObject("materialized view", "v", "s")),
        ("DROP INDEX idx_x", "DROP INDEX", NamedObject("index", "idx_x")),
        ("DROP SEQUENCE s.q", "DROP SEQUENCE", NamedObject("sequence", "q", "s")),
        ("DROP FOREIGN TABLE s.f", "DROP FOREIGN TABLE", NamedObject("foreign table", "f", "s")),
        ("DROP TYPE b2b_status", "DROP TYPE", NamedObject("type", "b2b_status")),
        ("DROP DOMAIN s.d", "DROP DOMAIN", NamedObject("domain", "d", "s")),
        ("DROP SCHEMA b2b", "DROP SCHEMA", NamedObject("schema", "b2b")),
        ("DROP ROLE b2b_app", "DROP ROLE", NamedObject("role", "b2b_app")),
        ("DROP USER b2b_app", "DROP ROLE", NamedObject("role", "b2b_app")),
        ("DROP EXTENSION pgcrypto", "DROP EXTENSION", NamedObject("extension", "pgcrypto")),
        ("DROP TRIGGER t ON b2b.x", "DROP TRIGGER", NamedObject("trigger", "t", relation=("b2b", "x"))),
        ("DROP RULE r ON x", "DROP RULE", NamedObject("rule", "r", relation=(None, "x"))),
        ("DROP POLICY p ON b2b.x", "DROP POLICY", NamedObject("policy", "p", relation=("b2b", "x"))),
        ("DROP EVENT TRIGGER e", "DROP EVENT TRIGGER", NamedObject("event trigger", "e")),
        ("DROP COLLATION s.c", "DROP COLLATION", NamedObject("collation", "c", "s")),
        ("DROP CONVERSION c", "DROP CONVERSION", NamedObject("conversion", "c")),
        ("DROP PUBLICATION p", "DROP PUBLICATION", NamedObject("publication", "p")),
        ("DROP STATISTICS s.x", "DROP STATISTICS", NamedObject("statistics object", "x", "s")),
        ("DROP LANGUAGE l", "DROP LANGUAGE", NamedObject("language", "l")),
        ("DROP ACCESS METHOD m", "DROP ACCESS METHOD", NamedObject("access method", "m")),
        ("DROP SERVER s", "DROP SERVER", NamedObject("server", "s")),
        ("DROP FOREIGN DATA WRAPPER w", "DROP FOREIGN DATA WRAPPER", NamedObject("foreign-data wrapper", "w")),
        ("DROP USER MAPPING FOR u SERVER s", "DROP USER MAPPING", NamedObject("user mapping", "u on server s")),
        (
            "DROP TEXT SEARCH CONFIGURATION s.c",
            "DROP TEXT SEARCH CONFIGURATION",
            NamedObject("text search configuration", "c", "s"),
        ),
        ("DROP OPERATOR CLASS s.o USING btree", "DROP OPERATOR CLASS", NamedObject("operator class", "o", "s")),
        ("DROP OPERATOR FAMILY o USING btree", "DROP OPERATOR FAMILY", NamedObject("operator family", "o")),
        ("DROP OPERATOR s.+ (int, NONE)", "DROP OPERATOR", NamedObject("operator", "+", "s", "integer, NONE")),
        ("DROP CAST (int AS s.t)", "DROP CAST", NamedObject("cast", "(integer AS s.t)")),
        ("DROP TRANSFORM FOR s.t LANGUAGE l", "DROP TRANSFORM", NamedObject("transform", "for s.t language l")),
        ("DROP FUNCTION f", "DROP FUNCTION", NamedObject("function", "f")),
        ("DROP FUNCTION b2b.f()", "DROP FUNCTION", NamedObject("function", "f", "b2b", "")),
        ("DROP PROCEDURE p(UUID)", "DROP PROCEDURE", NamedObject("procedure", "p", None, "uuid")),
        ("DROP ROUTINE r(int)", "DROP ROUTINE", NamedObject("routine", "r", None, "integer")),
        ("DROP AGGREGATE s.a(*)", "DROP AGGREGATE", NamedObject("aggregate", "a", "s", "")),
        (
            "ALTER TABLE b2b.orders DROP COLUMN IF EXISTS new_column",
            "ALTER TABLE",
            NamedObject("table column", "new_column", relation=("b2b", "orders")),
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT c",
            "ALTER TABLE",
            NamedObject("table constraint", "c", relation=(None, "orders")),
        ),
        (
            "ALTER FOREIGN TABLE f DROP COLUMN c",
            "ALTER FOREIGN TABLE",
            NamedObject("foreign table column", "c", relation=(None, "f")),
        ),
        (
            "ALTER TYPE s.t DROP ATTRIBUTE a",
            "ALTER TYPE",
            NamedObject("composite type column", "a", relation=("s", "t")),
        ),
        (
            "ALTER DOMAIN s.d DROP CONSTRAINT c",
            "ALTER DOMAIN",
            NamedObject("domain constraint", "c", relation=("s", "d")),
        ),
    ],
)
def test_each_kind_of_drop(text: str, kind: str, drop: NamedObject) -> None:
    statement = _one(text)
    assert (statement.kind, statement.drops, statement.only_drops) == (kind, (drop,), True)
    assert statement.retryable
    assert statement.if_exists == ("IF EXISTS" in text)
    cascading = _one(text + " CASCADE") if statement.kind not in ("DROP ROLE", "DROP USER MAPPING") else None
    assert cascading is None or (cascading.cascade and not cascading.retryable and cascading.only_drops)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("UUID[], VARCHAR, INTEGER", "uuid[], character varying, integer"),
        ("IN a uuid, OUT b int, INOUT c text, VARIADIC d numeric(3,2)[]", "uuid, text, numeric[]"),
        ("timestamptz, timestamp(3) with time zone, interval day", "timestamptz, timestamp with time zone, interval"),
        ('"char", char, "My Type"[][], b2b.t.c%TYPE', '"char", character, "My Type"[][], b2b.t.c%TYPE'),
        ("b2b.status, float, bigint, boolean", "b2b.status, double precision, bigint, boolean"),
    ],
)
def test_arguments_are_the_input_types(arguments: str, expected: str) -> None:
    assert _one(f"DROP FUNCTION f({arguments})").drops[0].arguments == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("DROP INDEX idx_x", "index idx_x"),
        ("DROP FUNCTION b2b.f(uuid)", "function b2b.f(uuid)"),
        ("DROP FUNCTION b2b.f", "function b2b.f"),
        ("DROP TRIGGER t ON b2b.x", "trigger t on b2b.x"),
        ("ALTER TABLE b2b.x DROP COLUMN c", "table column b2b.x.c"),
        ('DROP TABLE "Ünï"."a""b"', 'table "Ünï"."a""b"'),
        ('DROP TABLE "user"', 'table "user"'),
        ("DROP OPERATOR s.+ (int, int)", "operator s.+(integer, integer)"),
    ],
)
def test_an_object_reads_as_sql(text: str, shown: str) -> None:
    drop = _one(text).drops[0]
    assert str(drop) == shown
    assert drop.to_dict()["identity"] == shown.removeprefix(f"{drop.type} ")


def test_one_statement_may_drop_several_objects() -> None:
    statement = _one("DROP TABLE IF EXISTS a, s.b CASCADE")
    assert [str(drop) for drop in statement.drops] == ["table a", "table s.b"]
    assert (statement.cascade, statement.if_exists, statement.retryable) == (True, True, False)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ALTER TABLE t ADD COLUMN x int, DROP COLUMN y", "ALTER TABLE"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "ALTER TABLE"),
        ("ALTER INDEX i RENAME TO j", "ALTER INDEX"),
        ("DELETE FROM t", "DELETE"),
        ("UPDATE t SET a = 1", "UPDATE"),
        ("INSERT INTO t VALUES (1)", "INSERT"),
        ("TRUNCATE t", "TRUNCATE"),
        ("DO $$ BEGIN END $$", "DO"),
        ("CREATE INDEX i ON t (a)", "CREATE INDEX"),
        ("CREATE OR REPLACE FUNCTION f(int) RETURNS int RETURN $1 + 1", "CREATE FUNCTION"),
        ("CREATE TABLE t (a int)", "CREATE TABLE"),
        ("CREATE TYPE t AS ENUM ('a')", "CREATE TYPE"),
        ("REVOKE SELECT ON t FROM x", "REVOKE"),
        ("GRANT a TO b", "GRANT"),
        ("DROP OWNED BY x", "DROP OWNED"),
        ("REASSIGN OWNED BY x TO y", "REASSIGN OWNED"),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA s REVOKE SELECT ON TABLES FROM x", "ALTER DEFAULT PRIVILEGES"),
        ("COMMENT ON TABLE t IS 'x; y'", "COMMENT"),
        ("SET search_path = b2b", "SET"),
        ("CALL p(1)", "CALL"),
        ("ANALYZE t", "ANALYZE"),
        ("LISTEN x", "LISTEN"),
        ("CHECKPOINT", "CHECKPOINT"),
        ("COPY t FROM '/srv/rows.csv'", "COPY"),
        ("PREPARE p AS SELECT $1", "PREPARE"),
    ],
)
def test_what_does_more_than_drop(text: str, kind: str) -> None:
    statement = _one(text)
    assert (statement.kind, statement.only_drops, statement.retryable) == (kind, False, False)


def test_text_number_and_line_are_exact() -> None:
    text = (
        "\n-- é 😀\r\n  DROP VIEW v -- trailing\n;;\n/* a /* nested */ b */ DO $a$ BEGIN EXECUTE $b$ x -- ; $b$; END $a$;"
        "\nUPDATE t SET a = '100 % ; 😀\r\n%s' WHERE b LIKE '%'\n  -- the end"
    )
    statements = parse_script(text, "f.sql", first_line=11)
    assert [(statement.number, statement.line, statement.text) for statement in statements] == [
        (1, 13, "DROP VIEW v"),
        (2, 15, "DO $a$ BEGIN EXECUTE $b$ x -- ; $b$; END $a$"),
        (3, 16, "UPDATE t SET a = '100 % ; 😀\r\n%s' WHERE b LIKE '%'"),
    ]
    assert {statement.file for statement in statements} == {"f.sql"}


@pytest.mark.parametrize("text", ["", "\n", ";;", "-- only a comment", "/* only */"])
def test_nothing_is_no_statement(text: str) -> None:
    assert parse_script(text, "f.sql") == []


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("BEGIN", "BEGIN controls the transaction", "Remove it"),
        ("START TRANSACTION", "START TRANSACTION controls the transaction", "Remove it"),
        ("COMMIT", "COMMIT controls the transaction", "Remove it"),
        ("END", "COMMIT controls the transaction", "Remove it"),
        ("ROLLBACK", "ROLLBACK controls the transaction", "Remove it"),
        ("ABORT", "ROLLBACK controls the transaction", "Remove it"),
        ("SAVEPOINT a", "SAVEPOINT controls the transaction", "Remove it"),
        ("RELEASE a", "RELEASE SAVEPOINT controls the transaction", "Remove it"),
        ("ROLLBACK TO a", "ROLLBACK TO controls the transaction", "Remove it"),
        ("PREPARE TRANSACTION 'a'", "PREPARE TRANSACTION controls the transaction", "Remove it"),
        ("COMMIT PREPARED 'a'", "COMMIT PREPARED controls the transaction", "Remove it"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION changes the transaction", "Remove it"),
        ("\\i other.sql", "\\i is a psql command", "Write the SQL itself"),
        ("  \\! rm -rf it's", "\\! is a psql command", "Write the SQL itself"),
        ("\\copy t from 'x'", "\\copy is a psql command", "Write the SQL itself"),
        ("\\restrict abc", "\\restrict is a psql command", "remove it"),
        ("SELECT 'DROP TABLE t' \\gexec", "\\gexec is a psql command", "Write the SQL itself"),
        ("COPY t FROM STDIN;\n1\tit's\n\\.\n", "COPY … FROM STDIN takes its rows from psql", "INSERT"),
        ("COPY t (a) FROM stdin WITH (DELIMITER ';');\n1;\"\n\\.\n", "COPY … FROM STDIN", "INSERT"),
        ("COPY t TO STDOUT", "COPY … TO STDOUT sends rows to psql", "Remove it"),
        ("COPY t FROM PROGRAM 'curl x'", "COPY … PROGRAM runs a command", "out of the DOWN"),
        ("COPY t TO PROGRAM 'gzip'", "COPY … PROGRAM runs a command", "out of the DOWN"),
        ("COPY t TO '/tmp/x.csv'", "COPY … TO a file writes on the database's host", "Copy the rows into a table"),
        ("DROP INDEX CONCURRENTLY i", "DROP INDEX CONCURRENTLY cannot run inside a transaction", "Leave out"),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "CREATE INDEX CONCURRENTLY cannot run", "Leave out"),
        ("REINDEX TABLE CONCURRENTLY t", "REINDEX CONCURRENTLY cannot run", "Leave out"),
        ("REINDEX (CONCURRENTLY) INDEX i", "REINDEX CONCURRENTLY cannot run", "Leave out"),
        ("REINDEX DATABASE d", "REINDEX DATABASE cannot run", "by hand"),
        ("REINDEX SCHEMA s", "REINDEX SCHEMA cannot run", "by hand"),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY", "DETACH PARTITION … CONCURRENTLY cannot run", "Leave out"),
        ("VACUUM t", "VACUUM cannot run", "by hand"),
        ("CREATE DATABASE d", "CREATE DATABASE cannot run", "by hand"),
        ("DROP DATABASE d", "DROP DATABASE cannot run", "by hand"),
        ("ALTER DATABASE d SET TABLESPACE x", "ALTER DATABASE … SET TABLESPACE cannot run", "by hand"),
        ("CREATE TABLESPACE x LOCATION '/x'", "CREATE TABLESPACE cannot run", "by hand"),
        ("DROP TABLESPACE x", "DROP TABLESPACE cannot run", "by hand"),
        ("ALTER SYSTEM SET work_mem = '1MB'", "ALTER SYSTEM cannot run", "by hand"),
        ("CLUSTER", "CLUSTER without a table cannot run", "by hand"),
        ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "CREATE SUBSCRIPTION", "by hand"),
        ("DROP SUBSCRIPTION s", "DROP SUBSCRIPTION", "by hand"),
        ("ALTER SUBSCRIPTION s REFRESH PUBLICATION", "ALTER SUBSCRIPTION with a refresh cannot run", "by hand"),
        ("DISCARD ALL", "DISCARD ALL cannot run", "Remove it"),
        ("DELETE FROM t WHERE a = $1", "$1 is a parameter without a value", "Write the value"),
        ("DELETE FROM t WHERE a = :'x'", 'syntax error at or near ":"', "psql variables"),
        ('DROP TABLE :"x"', 'syntax error at or near ":"', "psql variables"),
        ("DROP TABEL t", 'syntax error at or near "TABEL"', "Correct the statement"),
        ("DROP", "syntax error at end of input", "Correct the statement"),
        ("SELECT 'it''s", "unterminated quoted string", "Close what is opened"),
        ("DO $x$ BEGIN END $y$", "unterminated dollar-quoted string", "Close what is opened"),
        ("/* a /* b */", "unterminated /* comment", "Close what is opened"),
        ("DROP TABLE t\0", "a NUL byte", "Remove it"),
    ],
)
def test_what_cannot_run_is_refused_with_its_line(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(DownRefused) as caught:
        parse_script("DROP TABLE é;\r\n-- 😀 \\i in a comment\n" + text, "migrations/0003-orders.sql", first_line=40)
    message = str(caught.value)
    line = text.split("\n", 1)[0].strip()
    assert message.startswith(f"migrations/0003-orders.sql, line 42: {problem}")
    assert remedy in message
    assert message.endswith(f"The line reads: {line}")
    assert caught.value.details == {"file": "migrations/0003-orders.sql", "line": 42, "source": line}
    assert caught.value.outcome == "refused"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'COMMIT; \\i x', E'a\\'b', \"\\!\", $$ $1 \\copy FROM STDIN; $$",
        "DO $$ BEGIN\n\\i x\nCOPY t FROM STDIN;\nEND $$",
        "SELECT 'a\n\\i x\n'",
        "/*\n\\i x\nCOPY t FROM STDIN;\n*/ SELECT 1",
        "-- COPY t FROM STDIN;\nSELECT 1",
        "SELECT a[1:b] FROM t",
        "SELECT 1 FROM stdin",
        "CLUSTER t",
        "DISCARD TEMP",
        "REINDEX TABLE t",
        "ALTER SUBSCRIPTION s DISABLE",
    ],
)
def test_what_only_looks_forbidden_is_taken(text: str) -> None:
    assert text.endswith(_one(text).text)


def test_a_long_line_is_cut_in_the_message() -> None:
    with pytest.raises(DownRefused) as caught:
        parse_script("COMMIT; " + "-" * 5000, "f.sql")
    assert len(str(caught.value)) < 500


def test_five_thousand_statements_are_parsed_at_once() -> None:
    text = "".join(f"DROP FUNCTION IF EXISTS b2b.f_{number}(UUID[], VARCHAR) CASCADE;\n" for number in range(5000))
    started = time.process_time()
    statements = parse_script(text, "f.sql")
    assert time.process_time() - started < 3  # takes 0.6 s; of processor time, as other tests may run beside it
    assert len(statements) == 5000
    assert (statements[-1].number, statements[-1].line) == (5000, 5000)
    assert statements[-1].drops[0].identity == "b2b.f_4999(uuid[], character varying)"
    assert statements[0].to_dict()["drops"][0]["arguments"] == "uuid[], character varying"


def test_markers_behind_a_large_up_are_found_where_they_stand() -> None:
    # Several pieces, one of them ended inside a literal that is longer than a piece.
    up = "INSERT INTO t VALUES ('a; -- DOWN\n');\n" * 20000 + "SELECT $$" + ";\n-- DOWN\n" * 60000 + "$$;\n"
    source = sql.Source(up + "-- DOWN (Rollback)\nDROP TABLE t;\n", "f.sql")
    comments = sql.standing_comments(source)
    assert [(comment.start, comment.text) for comment in comments] == [(len(up), "-- DOWN (Rollback)")]


def test_an_error_behind_the_first_piece_keeps_its_line() -> None:
    with pytest.raises(DownRefused, match="line 40001: unterminated quoted string"):
        sql.standing_comments(sql.Source("INSERT INTO t VALUES ('a');\n" * 40000 + "SELECT 'x", "f.sql"))
