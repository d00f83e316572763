# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which migrations there are, which one is meant, and what its DOWN is."""

from __future__ import annotations

import codecs
import hashlib
import os
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import migrations
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.migrations import (
    DownScript,
    Migration,
    find_migrations,
    read_down,
    resolve_version,
)
from ansible_collections.cypher.rollback.plugins.module_utils.sql import DownRefused

if t.TYPE_CHECKING:
    from pathlib import Path

NAME = "0003-orders.sql"
UP = "CREATE TABLE orders (id int);\n"


def _write(folder: Path, content: str | bytes, name: str = NAME) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _down(folder: Path, *, accept_commented: bool = False) -> DownScript:
    (migration,) = find_migrations(str(folder))
    return read_down(migration, accept_commented=accept_commented)


def _texts(script: DownScript) -> list[str]:
    return [statement.text for statement in script.statements]


def _refusal(folder: Path, *, accept_commented: bool = False) -> str:
    with pytest.raises(Refused) as caught:
        _down(folder, accept_commented=accept_commented)
    return str(caught.value)


# --- the folder ---------------------------------------------------------------------------------------------------


def test_migrations_are_sorted_as_numbers(tmp_path: Path) -> None:
    for name in ("0002-b.sql", "10-j.sql", "9-i.sql", "0001-a.sql", "README.md", "0002-down.sql", "0011_k.down.sql"):
        _write(tmp_path, "", name)
    found = find_migrations(str(tmp_path))
    assert [(migration.version, migration.name) for migration in found] == [
        ("0001", "a"),
        ("0002", "b"),
        ("9", "i"),
        ("10", "j"),
        ("0011", "k"),
    ]
    assert found[1] == Migration("0002", "b", str(tmp_path / "0002-b.sql"), str(tmp_path / "0002-down.sql"))
    assert (found[4].path, found[4].down_path) == (None, str(tmp_path / "0011_k.down.sql"))


def test_a_folder_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    _write(tmp_path / "release", UP)
    (tmp_path / "current").symlink_to("release")
    assert [migration.version for migration in find_migrations(str(tmp_path / "current"))] == ["0003"]


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), (NAME, "Not a directory")])
def test_a_folder_that_is_none(tmp_path: Path, name: str, reason: str) -> None:
    _write(tmp_path, UP)
    with pytest.raises(Refused) as caught:
        find_migrations(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert reason in str(caught.value)
    assert "rollback_migrations_dir" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("0003-a.sql", "0003-b.sql", "Two migration files have the version 0003"),
        ("0003-a.sql", "0003_a.sql", "Two migration files have the version 0003"),
        ("0003-a.down.sql", "0003-down.sql", "Two DOWN files have the version 0003"),
    ],
)
def test_two_files_with_one_version(tmp_path: Path, first: str, second: str, what: str) -> None:
    _write(tmp_path, UP, first)
    _write(tmp_path, UP, second)
    with pytest.raises(Refused, match=what) as caught:
        find_migrations(str(tmp_path))
    assert f"{first} and {second} in {tmp_path}" in str(caught.value)
    assert "Rename or remove one" in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    outside = _write(tmp_path, UP, "secret.sql")
    (folder / NAME).symlink_to(outside)
    with pytest.raises(Refused) as caught:
        find_migrations(str(folder))
    assert f"{folder / NAME} is a link to {outside}, outside of the migrations folder" in str(caught.value)


def test_a_link_that_appears_after_the_listing_is_refused_too(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    path = _write(folder, UP)
    (migration,) = find_migrations(str(folder))
    path.unlink()
    path.symlink_to(_write(tmp_path, "-- DOWN\nDROP TABLE a;", "secret.sql"))
    with pytest.raises(Refused, match="outside of the migrations folder"):
        read_down(migration)


def test_a_broken_link_and_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("nowhere.sql")
    with pytest.raises(Refused, match="cannot be read: No such file or directory"):
        find_migrations(str(tmp_path))
    (tmp_path / NAME).unlink()
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(Refused, match="is no regular file"):
        find_migrations(str(tmp_path))


# --- the version --------------------------------------------------------------------------------------------------


def _named(*versions: str) -> list[Migration]:
    return [Migration(version, "", f"/m/{version}-x.sql", None) for version in versions]


SIX = _named("0001", "0002", "0003", "0004", "0005", "0006")
TEN = [*SIX, *_named("0007", "0008", "0009", "0010")]


@pytest.mark.parametrize(
    ("raw", "among", "expected"),
    [
        ("0003", SIX, "0003"),
        ("3", SIX, "0003"),
        ("03", SIX, "0003"),
        (3, SIX, "0003"),
        ("0010", TEN, "0010"),
        ("8", TEN, "0008"),
        (9, TEN, "0009"),
        (20260213120000, _named("20260213120000"), "20260213120000"),
        ("3", _named("3", "0003"), "3"),
        ("v1.2_a-b", _named("v1.2_a-b"), "v1.2_a-b"),
    ],
)
def test_a_version_resolves(raw: object, among: list[Migration], expected: str) -> None:
    assert resolve_version(raw, among).version == expected


@pytest.mark.parametrize(
    ("raw", "among", "message"),
    [
        ("../../etc/passwd", SIX, "version '../../etc/passwd' is no version of a migration"),
        ("0003; DROP", SIX, "version '0003; DROP' is no version of a migration"),
        ("*", SIX, "version '\\*' is no version of a migration"),
        ("0003-*", SIX, "version '0003-\\*' is no version"),
        ("a..b", SIX, "version 'a..b' is no version"),
        ("0003\n", SIX, "version '0003\\\\n' is no version"),
        ("0003\n0004", SIX, "version '0003\\\\n0004' is no version"),
        ("-0003", SIX, "version '-0003' is no version"),
        ("٣", SIX, "version '٣' is no version"),
        ("", SIX, "version is empty.*-e version=0003"),
        ("  ", SIX, "version is empty"),
        (["0003"], SIX, "version must be one version such as '0003', not \\['0003'\\]"),
        ({"a": 1}, SIX, "version must be one version such as '0003', not {'a': 1}"),
        (None, SIX, "version must be one version such as '0003', not None"),
        (True, SIX, "version must be one version such as '0003', not True"),
        (3.0, SIX, "version must be one version such as '0003', not 3.0"),
        ("3" * 200, SIX, "version '3{39}… \\(202 characters\\) is no version"),
        (-3, SIX, "the number is below zero"),
        pytest.param(10**5000, SIX, "the number is too large", id="too-large-to-print"),
        ("9", SIX, "No migration has the version '9'. The folder holds 0001, 0002, 0003, 0004, 0005, 0006"),
        (9, SIX, "No migration has the version 9. The folder holds 0001"),
        ("0003a", TEN, "The nearest are 0003 and 0004, of 10 migrations from 0001 to 0010"),
        (11, TEN, "The nearest is 0010, of 10 migrations"),
        ("0003", [], "The migrations folder holds none at all: see rollback_project_dir"),
        ("3", _named("03", "0003"), "version '3' fits two or more migrations: '03' and '0003'. Give one"),
        (3, _named("3", "0003"), "version 3 fits two or more migrations: '3' and '0003'"),
    ],
)
def test_a_version_that_is_none_is_refused_in_a_sentence(raw: object, among: list[Migration], message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        resolve_version(raw, among)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("among", [TEN, _named("0007", "0010")])
def test_an_integer_that_yaml_may_have_made_from_an_octal_is_refused(among: list[Migration]) -> None:
    with pytest.raises(Refused) as caught:
        resolve_version(8, among)  # what YAML 1.1 makes of 0010
    message = str(caught.value)
    assert "YAML makes 8 out of an unquoted 010" in message
    assert "'0010'" in message
    assert ("'0008'" in message) == (among is TEN)
    assert "Quote the version, such as version: '0010'" in message


# --- the DOWN: where it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden",
    [
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$\n-- DOWN (Rollback)\nBEGIN END $$;\n",
        "DO $a$ BEGIN EXECUTE $b$\n-- DOWN (Rollback)\n$b$; END $a$;\n",
        "INSERT INTO notes VALUES ('\n-- DOWN (Rollback)\n');\n",
        "INSERT INTO notes VALUES (E'it\\'s\n-- DOWN (Rollback)\n');\n",
        'COMMENT ON TABLE orders IS NULL; ALTER TABLE orders ADD "a\n-- DOWN (Rollback)\n" int;\n',
        "/* see\n-- DOWN (Rollback)\n*/\n",
        "/* outer /* inner */\n-- DOWN (Rollback)\n*/\n",
        "CREATE TABLE t (\n-- DOWN\n down int);\n",
        "-- DOWN (rollback): see footer\n",
        "SELECT 1; -- DOWN\n",
        "COPY t FROM stdin;\nit's\n-- DOWN (Rollback)\n$$ \"\n\\.\n",
        "COPY t FROM STDIN WITH (DELIMITER ';', NULL 'x');\n-- DOWN (Rollback)\n\\.\r\n",
        "\\echo it's \" $$ /* here\n",
        "\\copy t from stdin\n-- DOWN\n\\.\n",
        "-- COPY t FROM STDIN;\n",
        "this is no ( SQL ] at all ;\n",
        "SELECT 1 WHERE a LIKE '%s' AND b = $1;\n",
    ],
)
def test_what_is_no_marker_is_passed_over(tmp_path: Path, hidden: str) -> None:
    _write(tmp_path, UP + hidden + "-- DOWN (Rollback)\nDROP TABLE orders;\n")
    script = _down(tmp_path)
    assert _texts(script) == ["DROP TABLE orders"]
    assert script.line == 3 + hidden.count("\n")
    assert script.statements[0].line == script.line


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("SELECT $$\n-- DOWN (Rollback)\nDROP TABLE orders; $$;\n", "Line 3 has the marker inside a string, a body"),
        (
            "/*\n-- DOWN (Rollback)\nDROP TABLE orders;\n*/\n",
            "Line 3 has the marker inside a string, a body, a comment",
        ),
        (
            "-- DOWN (rollback): see footer\n",
            "Line 2 is no marker because of the text behind it: -- DOWN (rollback): see",
        ),
    ],
)
def test_no_marker_but_something_like_one(tmp_path: Path, hidden: str, said: str) -> None:
    path = _write(tmp_path, UP + hidden)
    message = _refusal(tmp_path)
    assert message.startswith(f"{path} has no DOWN")
    assert said in message


def test_no_marker_at_all(tmp_path: Path) -> None:
    path = _write(tmp_path, UP)
    message = _refusal(tmp_path)
    assert message.startswith(f"{path} has no DOWN: no line of it is a marker such as '-- DOWN (Rollback)'")
    assert "0003-down.sql" in message
    assert "restore a backup" in message


@pytest.mark.parametrize(
    "text",
    [
        UP.replace("\n", "\r\n") + "-- DOWN (Rollback)\r\nDROP TABLE a;\r\nDROP TABLE b;\r\n",
        codecs.BOM_UTF8.decode() + UP + "-- DOWN (Rollback)\nDROP TABLE a;\nDROP TABLE b;\n",
        UP + "-- down (rollback):\nDROP TABLE a;\nDROP TABLE b",
        UP + "  --- DOWN (Rollback) ---\nDROP TABLE a;\nDROP TABLE b; -- the last\n",
    ],
)
def test_the_forms_of_a_file(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, text)
    script = _down(tmp_path)
    assert (script.version, script.name, script.file, script.line) == ("0003", "orders", str(path), 3)
    assert [(statement.line, statement.text) for statement in script.statements] == [
        (3, "DROP TABLE a"),
        (4, "DROP TABLE b"),
    ]
    assert script.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert script.notes == ()


def test_a_byte_order_mark_right_before_the_marker(tmp_path: Path) -> None:
    _write(tmp_path, codecs.BOM_UTF8 + b"-- DOWN\r\nDROP TABLE a;\r\n")
    assert _texts(_down(tmp_path)) == ["DROP TABLE a"]


def test_carriage_returns_stay_inside_literals_only(tmp_path: Path) -> None:
    _write(tmp_path, "-- DOWN\r\nUPDATE a SET b = 'x\r\n100 %';\r\nDO $$\r\nBEGIN\r\nEND $$;\r\n")
    assert _texts(_down(tmp_path)) == ["UPDATE a SET b = 'x\r\n100 %'", "DO $$\r\nBEGIN\r\nEND $$"]


def test_banner_lines_around_the_marker(tmp_path: Path) -> None:
    banner = "-- " + "=" * 60 + "\n"
    _write(tmp_path, banner + "-- UP\n" + banner + UP + banner + "-- DOWN (Rollback)\n" + banner + "DROP TABLE a;\n")
    script = _down(tmp_path)
    assert (script.line, script.statements[0].line, _texts(script)) == (7, 8, ["DROP TABLE a"])


def test_an_up_after_the_down_ends_it(tmp_path: Path) -> None:
    _write(tmp_path, "-- DOWN (Rollback)\nDROP TABLE a;\n-- UP (Apply)\nCREATE TABLE a (b int);\n")
    script = _down(tmp_path)
    assert _texts(script) == ["DROP TABLE a"]
    assert "CREATE" not in script.text


def test_two_markers(tmp_path: Path) -> None:
    path = _write(tmp_path, UP + "-- DOWN\nDROP TABLE a;\n\n-- DOWN (Rollback)\nDROP TABLE b;\n")
    message = _refusal(tmp_path)
    assert message.startswith(f"{path}, line 5: a second DOWN marker; the first is in line 2")
    assert "Leave one of them" in message


@pytest.mark.parametrize("name", ["0003-down.sql", "0003-orders.down.sql", "0003_orders.down.sql"])
@pytest.mark.parametrize("head", ["", "-- DOWN (Rollback)\n", "/* by hand */\n-- DOWN\n"])
def test_a_separate_file(tmp_path: Path, name: str, head: str) -> None:
    _write(tmp_path, UP)
    path = _write(tmp_path, head + "DROP TABLE a;\n", name)
    script = _down(tmp_path)
    assert (script.file, script.name, script.line) == (str(path), "orders", 1 + head.count("\n"))
    assert _texts(script) == ["DROP TABLE a"]


def test_a_separate_file_alone(tmp_path: Path) -> None:
    _write(tmp_path, "DROP TABLE a;\n", "0003-down.sql")
    assert _texts(_down(tmp_path)) == ["DROP TABLE a"]


def test_a_section_and_a_separate_file(tmp_path: Path) -> None:
    path = _write(tmp_path, UP + "-- DOWN\nDROP TABLE a;\n")
    other = _write(tmp_path, "DROP TABLE a;\n", "0003-down.sql")
    message = _refusal(tmp_path)
    assert f"has two DOWNs: a section in {path}, line 2, and the file {other}" in message
    assert "Remove one of them" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DROP TABLE a;\n-- UP\nCREATE TABLE a ();\n", "line 2: an UP marker in a file that is a DOWN by its name"),
        ("DROP TABLE a;\n-- DOWN\nDROP TABLE b;\n", "line 2: statements stand before this marker"),
        ("\\i a.sql\n-- DOWN\nDROP TABLE b;\n", "line 2: statements stand before this marker"),
        ("-- DOWN\nDROP TABLE b;\n-- DOWN\n", "line 3: a second DOWN marker; the first is in line 1"),
        ("", "line 1: the DOWN is empty, so it would undo nothing"),
        ("DROP TABLE a;\nCOMMIT;\n", "line 2: COMMIT controls the transaction"),
    ],
)
def test_a_separate_file_that_is_not_clear(tmp_path: Path, text: str, said: str) -> None:
    _write(tmp_path, UP)
    path = _write(tmp_path, text, "0003-down.sql")
    assert _refusal(tmp_path).startswith(f"{path}, {said}")


# --- the DOWN: what is in it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "line 2: the DOWN is empty, so it would undo nothing. Write the statements"),
        ("\n \r\n\n", "line 2: the DOWN is empty"),
        (";\n", "line 3: the DOWN is empty"),
        ("-- UP\nDROP TABLE a;", "line 2: the DOWN is empty"),
        ("-- none\n", "line 3: the DOWN is only comments, so it would undo nothing. Write the statements"),
        ("\n\n/* cannot be undone */\n", "line 5: the DOWN is only comments"),
        ("-- ======\n-- ------\n", "line 3: the DOWN is only comments"),
        ("-- To go back:\n-- DROP TABLE a;\n", "no SQL either, because of line 3). Write"),
        ("-- DROP TABLE a;\n", "line 3: the DOWN in line 3 is commented out as a whole"),
        ("\n-- ====\n-- DROP TABLE a;\n-- DROP TABLE b;\n", "line 4: the DOWN in lines 4 to 6 is commented out"),
        ("/*\n * DROP TABLE a;\n */\n", "line 3: the DOWN in lines 3 to 5 is commented out"),
        ("-- BEGIN;\n-- DROP TABLE a;\n-- COMMIT;\n", "line 3: the DOWN in lines 3 to 5 is commented out"),
        ("DROP TABLE a;\nBEGIN;\n", "line 4: BEGIN controls the transaction"),
        ("DROP TABLE a;\nCOMMIT;\n", "line 4: COMMIT controls the transaction"),
        ("DROP TABLE a;\nROLLBACK;\n", "line 4: ROLLBACK controls the transaction"),
        ("\\i down/0003.sql\n", "line 3: \\i is a psql command"),
        ("DROP TABLE a;\n\\! echo it's\n", "line 4: \\! is a psql command"),
        ("\\copy a to 'a.csv'\nDROP TABLE a;\n", "line 3: \\copy is a psql command"),
        ("COPY a FROM STDIN;\n1\tit's\n\\.\n", "line 3: COPY … FROM STDIN takes its rows from psql"),
        ("COPY a FROM STDIN;\n1\tit's\n", "line 3: COPY … FROM STDIN takes its rows from psql"),
        ("DROP INDEX CONCURRENTLY i;\n", "line 3: DROP INDEX CONCURRENTLY cannot run inside a transaction"),
        ("VACUUM a;\n", "line 3: VACUUM cannot run inside a transaction"),
        ("DROP TABLE a;\n\nDROP TABEL b;\n", 'line 5: syntax error at or near "TABEL"'),
        ("DROP TABLE a\n", ""),
        ("DELETE FROM a WHERE b = $1;\n", "line 3: $1 is a parameter without a value"),
        ("DROP TABLE a;\nSELECT 'x;\n", "line 4: unterminated quoted string"),
    ],
)
def test_a_down_that_cannot_be_run(tmp_path: Path, body: str, said: str) -> None:
    path = _write(tmp_path, UP + "-- DOWN (Rollback)\n" + body)
    if not said:
        assert _texts(_down(tmp_path)) == ["DROP TABLE a"]
        return
    message = _refusal(tmp_path)
    assert message.startswith(f"{path}, line ")
    assert said in message
    assert "The line reads: " in message
    assert ("rollback_commented_down: accept" in message) == ("commented out" in message)


@pytest.mark.parametrize(
    ("body", "statements"),
    [
        ("-- DROP TABLE a;\n-- DROP VIEW b;\n", [(3, "DROP TABLE a"), (4, "DROP VIEW b")]),
        ("-- =====\n--DROP TABLE a;\n-- -- DROP VIEW b;\n", [(4, "DROP TABLE a")]),
        ("/*\n * DROP TABLE a;\n * -- DROP VIEW b;\n */\n", [(4, "DROP TABLE a")]),
        ("/* DROP TABLE a; */ -- DROP VIEW b\n", [(3, "DROP TABLE a"), (3, "DROP VIEW b")]),
        ("-- UPDATE a SET b = '5 % -- é'\n--   WHERE c;\r\n", [(3, "UPDATE a SET b = '5 % -- é'\n     WHERE c")]),
        ("-- DROP TABLE a;\n-- UP\n-- CREATE TABLE a ();\n", [(3, "DROP TABLE a")]),
    ],
)
def test_a_commented_out_down_is_taken_where_the_user_says_so(
    tmp_path: Path, body: str, statements: list[tuple[int, str]]
) -> None:
    _write(tmp_path, UP + "-- DOWN (Rollback)\n" + body)
    assert "rollback_commented_down: accept" in _refusal(tmp_path)
    script = _down(tmp_path, accept_commented=True)
    assert [(statement.line, statement.text) for statement in script.statements] == statements
    assert "is commented out; it is run because rollback_commented_down is accept" in script.notes[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("-- BEGIN;\n-- DROP TABLE a;\n", "line 3: BEGIN controls the transaction"),
        ("-- nothing to do\n", "line 3: the DOWN is only comments"),
        ("-- DROP TABLE a;\n-- or so\n", "no SQL either, because of line 4)"),
        ("", "line 2: the DOWN is empty"),
    ],
)
def test_accepting_does_not_make_a_down_of_anything(tmp_path: Path, body: str, said: str) -> None:
    _write(tmp_path, UP + "-- DOWN (Rollback)\n" + body)
    assert said in _refusal(tmp_path, accept_commented=True)


def test_notes_say_what_is_left_out_and_what_may_fail(tmp_path: Path) -> None:
    _write(tmp_path, '-- DOWN\nCALL b2b.undo();\n-- careful\n-- DROP EXTENSION IF EXISTS "pgcrypto";\n')
    assert _down(tmp_path).notes == (
        "Line 2 calls a procedure: one that commits fails inside the rollback's transaction.",
        "Statements that are commented out are not run: line 4.",
    )


def test_an_up_that_does_not_lex_is_refused_with_its_line(tmp_path: Path) -> None:
    path = _write(tmp_path, UP + "INSERT INTO a VALUES ('it's');\n-- DOWN\nDROP TABLE a;\n")
    assert _refusal(tmp_path).startswith(f"{path}, line 2: unterminated quoted string. Close what is opened")


def test_copy_rows_without_an_end_hide_the_down(tmp_path: Path) -> None:
    path = _write(tmp_path, UP + "COPY a FROM STDIN;\n1\n-- DOWN\nDROP TABLE a;\n")
    assert _refusal(tmp_path).startswith(f"{path}, line 2: the rows of this COPY are not ended by a line '\\.'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (UP.encode() + b"-- caf\xe9\n-- DOWN\nDROP TABLE a;", "line 2: byte 0xe9 at offset 36 is not UTF-8"),
        (codecs.BOM_UTF8 + UP.encode() + b"\xff", "line 2: byte 0xff at offset 33 is not UTF-8"),
        ((UP + "-- DOWN\nDROP TABLE a;").encode("utf-16"), "line 1: byte 0xff at offset 0 is not UTF-8. It looks like"),
        (UP.encode() + b"-- DOWN\nDROP TABLE \0a;", "line 3: a NUL byte at offset 49"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes, said: str) -> None:
    path = _write(tmp_path, content)
    message = _refusal(tmp_path)
    assert message.startswith(f"{path}, {said}")
    assert "Save the file as UTF-8" in message


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "MAX_BYTES", 2 * 1024 * 1024)
    path = _write(tmp_path, b" " * (2 * 1024 * 1024 + 1))
    message = _refusal(tmp_path)
    assert message.startswith(f"{path} is larger than 2 MiB")


def test_a_down_that_names_objects_in_unicode(tmp_path: Path) -> None:
    _write(tmp_path, UP + '-- é 😀\n-- DOWN\nDROP TABLE "comenzi_ș".țară; DROP VIEW 注文;\n')
    script = _down(tmp_path)
    assert [str(statement.drops[0]) for statement in script.statements] == [
        'table "comenzi_ș"."țară"',
        'view "注文"',
    ]


def test_a_down_refused_carries_its_place_as_data(tmp_path: Path) -> None:
    path = _write(tmp_path, UP + "-- DOWN\nCOMMIT;\n")
    with pytest.raises(DownRefused) as caught:
        _down(tmp_path)
    assert caught.value.details == {"file": str(path), "line": 3, "source": "COMMIT;"}
