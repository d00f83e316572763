# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The migrations of a folder, the one that a user means, and its DOWN."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import os
import re
import stat
import typing as t

from . import conventions, sql
from .errors import Refused

MAX_BYTES = 64 * 1024 * 1024
"""A migration file above this size is refused, in bytes: it holds data, and reading it would delay an emergency."""

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_NUMBER_LIMIT = 10**128
_DIGITS = re.compile(r"[0-9]+")


class NoSuchMigration(Refused):
    """The folder has no migration of the version that was asked for."""


@dataclasses.dataclass(frozen=True)
class Migration:
    """One migration of a folder.

    :param version: as its file name has it, leading zeros included.
    :param path: the migration file; None where only a separate DOWN file is there.
    :param down_path: the separate DOWN file, if there is one.
    """

    version: str
    name: str
    path: str | None
    down_path: str | None


@dataclasses.dataclass(frozen=True)
class DownScript:
    """The DOWN of a migration, ready to run.

    :param file: path of the file that holds it.
    :param line: line of that file in which the DOWN begins, from 1.
    :param text: the DOWN, without its marker.
    :param sha256: of all bytes of the file.
    :param notes: what an operator should know about it, one sentence each.
    """

    version: str
    name: str
    file: str
    line: int
    text: str
    sha256: str
    statements: tuple[sql.Statement, ...]
    notes: tuple[str, ...]


# --- the folder ---------------------------------------------------------------------------------------------------


def find_migrations(folder: str) -> list[Migration]:
    """The migrations of a folder, lowest version first; versions compare as numbers where they are numbers.

    :raises Refused: no such folder, two files for one version, a link that leaves the folder, or no regular file.
    """
    root = os.path.realpath(folder)
    try:
        entries = sorted(os.listdir(root))
    except OSError as error:
        raise Refused(
            f"The migrations folder {folder} cannot be read: {error.strerror}. "
            "Set rollback_migrations_dir (and rollback_project_dir) to the folder that holds the migration files.",
            folder=folder,
        ) from error
    ups: dict[str, tuple[str, str]] = {}
    downs: dict[str, tuple[str, str]] = {}
    for entry in entries:
        found = conventions.read_file_name(entry)
        if found is None:
            continue
        path = os.path.join(root, entry)
        _require_inside(path)
        files = downs if found.is_down else ups
        if found.version in files:
            raise _two_files(found, files[found.version][1], path)
        files[found.version] = (found.name, path)
    versions = sorted({*ups, *downs}, key=_sort_key)
    return [_migration(version, ups.get(version), downs.get(version)) for version in versions]


def _migration(version: str, up: tuple[str, str] | None, down: tuple[str, str] | None) -> Migration:
    name = up[0] if up is not None else down[0] if down is not None else ""
    return Migration(version, name, up[1] if up else None, down[1] if down else None)


def _two_files(found: conventions.FileName, first: str, second: str) -> Refused:
    names = f"{os.path.basename(first)} and {os.path.basename(second)}"
    what = "DOWN files" if found.is_down else "migration files"
    return Refused(
        f"Two {what} have the version {found.version}: {names} in {os.path.dirname(first)}. Rename or remove one; "
        f"a separate DOWN is named {found.version}-down.sql or {found.version}-name.down.sql.",
        version=found.version,
        files=[first, second],
    )


def _require_inside(path: str) -> None:
    """Refuse a path that is no regular file of its own folder once links are followed."""
    root = os.path.realpath(os.path.dirname(path))
    real = os.path.realpath(path)
    if os.path.commonpath([root, real]) != root:
        raise Refused(
            f"{path} is a link to {real}, outside of the migrations folder, and is not followed. "
            "Put the file itself into the folder.",
            file=path,
        )
    try:
        mode = os.stat(real).st_mode
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        raise Refused(f"{path} has a migration's name but is no regular file. Rename or remove it.", file=path)


def _unreadable(path: str, error: OSError) -> Refused:
    return Refused(
        f"{path} cannot be read: {error.strerror}. Repair it or its permissions for the user of this run.", file=path
    )


def _sort_key(version: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"([0-9]+)", version)
    return [(0, int(part), "") if _DIGITS.fullmatch(part) else (1, 0, part) for part in parts if part], version


# --- the version that a user means --------------------------------------------------------------------------------


def resolve_version(raw: object, migrations: t.Sequence[Migration]) -> Migration:
    """The migration that a user means by ``version``.

    A string is taken as written first; digits that fit none so are compared as a number. An integer is a number, but
    YAML 1.1 reads an unquoted 0010 as octal 8, so one that fits another migration as octal digits is refused.

    :raises Refused: it is no version, or fits no migration, or two.
    """
    if isinstance(raw, int) and not isinstance(raw, bool):
        return _by_integer(raw, migrations)
    if not isinstance(raw, str):
        raise Refused(f"version must be one version such as '0003', not {_shown(raw)}. Quote it where YAML reads it.")
    if not raw.strip():
        raise Refused("version is empty. Give the version of the migration to roll back, such as -e version=0003.")
    if not _VERSION.fullmatch(raw) or ".." in raw:
        raise Refused(
            f"version {_shown(raw)} is no version of a migration: one has letters, digits, '.', '_' and '-' only, "
            "at most 128 of them. Give it as its file name has it, such as -e version=0003."
        )
    exact = [migration for migration in migrations if migration.version == raw]
    if exact:
        return exact[0]
    found = _by_number(int(raw), migrations) if _DIGITS.fullmatch(raw) else []
    return _the_one(raw, found, migrations)


def _by_integer(number: int, migrations: t.Sequence[Migration]) -> Migration:
    if not 0 <= number < _NUMBER_LIMIT:
        raise Refused(
            f"version is no version of a migration: the number is {'below zero' if number < 0 else 'too large'}."
        )
    found = _by_number(number, migrations)
    octal = int(f"{number:o}")
    meant = _by_number(octal, migrations) if octal != number else []
    if meant:
        written = _listed(meant[0].version)
        candidates = " or ".join(_listed(migration.version) for migration in [*meant, *found])
        raise Refused(
            f"version {number} came as a number, and YAML makes {number} out of an unquoted 0{octal}: it may mean "
            f"{candidates}. Quote the version, such as version: {written}.",
            candidates=[migration.version for migration in [*meant, *found]],
        )
    return _the_one(number, found, migrations)


def _by_number(number: int, migrations: t.Sequence[Migration]) -> list[Migration]:
    return [
        migration
        for migration in migrations
        if _DIGITS.fullmatch(migration.version) and int(migration.version) == number
    ]


def _the_one(raw: str | int, found: t.Sequence[Migration], migrations: t.Sequence[Migration]) -> Migration:
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(_listed(migration.version) for migration in found)
        raise Refused(
            f"version {_shown(raw)} fits two or more migrations: {names}. Give one of them exactly, in quotes.",
            candidates=[migration.version for migration in found],
        )
    raise NoSuchMigration(
        f"No migration has the version {_shown(raw)}. {_choice(raw, migrations)}",
        candidates=[migration.version for migration in migrations],
    )


def _choice(raw: str | int, migrations: t.Sequence[Migration]) -> str:
    """What there is to choose from: all of a few, or the ends and the neighbours."""
    if not migrations:
        return "The migrations folder holds none at all: see rollback_project_dir and rollback_migrations_dir."
    versions = [migration.version for migration in migrations]
    if len(versions) > 8:
        place = bisect.bisect_left([_sort_key(version) for version in versions], _sort_key(str(raw)))
        near = versions[max(place - 1, 0) : place + 1]
        nearest = f"nearest are {near[0]} and {near[1]}" if len(near) == 2 else f"nearest is {near[0]}"
        return f"The {nearest}, of {len(versions)} migrations from {versions[0]} to {versions[-1]}."
    return f"The folder holds {', '.join(versions)}."


def _shown(raw: object) -> str:
    text = repr(str(raw)) if isinstance(raw, str) else repr(raw)
    return text if len(text) <= 40 else f"{text[:40]}… ({len(text)} characters)"


def _listed(version: str) -> str:
    return f"'{version}'"


# --- the DOWN -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Section:
    """A DOWN inside a text: offsets of its first character and behind its last, and the line of its marker."""

    start: int
    end: int
    marker_line: int


def read_down(migration: Migration, *, accept_commented: bool = False) -> DownScript:
    """The DOWN of a migration: its marked section, or its separate file.

    :param accept_commented: take a DOWN that is commented out as a whole (``rollback_commented_down: accept``).
    :raises Refused: the file cannot be read, or holds no DOWN, or two.
    :raises DownRefused: the DOWN cannot be run as it is written.
    """
    if migration.down_path is not None:
        _require_no_section(migration, migration.down_path)
        source, digest = _read(migration.down_path)
        section = _whole_file(source)
    elif migration.path is not None:
        source, digest = _read(migration.path)
        section = _section(source) or _no_down(migration, source)
    else:
        raise Refused(f"Migration {migration.version} has no file.", version=migration.version)
    text, statements, notes = _body(source, section, accept_commented)
    line = source.line_at(section.start)
    return DownScript(migration.version, migration.name, source.file, line, text, digest, statements, notes)


def _require_no_section(migration: Migration, down_path: str) -> None:
    if migration.path is None:
        return
    source, _digest = _read(migration.path)
    section = _section(source)
    if section is not None:
        raise Refused(
            f"Migration {migration.version} has two DOWNs: a section in {source.file}, line {section.marker_line}, "
            f"and the file {down_path}. Remove one of them.",
            files=[source.file, down_path],
            line=section.marker_line,
        )


def _read(path: str) -> tuple[sql.Source, str]:
    """The text of a file and the checksum of its bytes."""
    _require_inside(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > MAX_BYTES:
        raise Refused(
            f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB, which no migration is. Move its data out, or its "
            "DOWN into a file of its own.",
            file=path,
        )
    return sql.Source(_decoded(path, data), path), hashlib.sha256(data).hexdigest()


def _decoded(path: str, data: bytes) -> str:
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        hint = " It looks like UTF-16." if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        problem = f"byte {data[error.start]:#04x} at offset {error.start} is not UTF-8"
        raise _bad_byte(path, data, error.start, problem, hint) from error
    if "\0" in text:
        offset = data.index(0)
        raise _bad_byte(path, data, offset, f"a NUL byte at offset {offset}, which SQL cannot hold", "")
    return text


def _bad_byte(path: str, data: bytes, offset: int, problem: str, hint: str) -> Refused:
    line = len(re.findall(rb"\r\n|\n|\r", data[:offset])) + 1
    message = f"{path}, line {line}: {problem}.{hint} Save the file as UTF-8, so that its DOWN is read as it was meant."
    return Refused(message, file=path, line=line, offset=offset)


@dataclasses.dataclass(frozen=True)
class _Markers:
    """Offsets of the DOWN and of the UP markers of a file, and what of it is for psql."""

    downs: tuple[int, ...] = ()
    ups: tuple[int, ...] = ()
    parts: tuple[sql.PsqlPart, ...] = ()


def _markers(source: sql.Source) -> _Markers:
    """The markers of a file. Only one with a line like a marker needs lexing.

    :raises DownRefused: it does not lex, or has two DOWN markers.
    """
    if not any(conventions.read_marker(line.strip()) for line in _comment_lines(source.text)):
        return _Markers()
    masked, parts = sql.mask_psql(source.text)
    found: dict[str | None, list[int]] = {"down": [], "up": [], None: []}
    for comment in sql.standing_comments(dataclasses.replace(source, text=masked)):
        found[conventions.read_marker(comment.text)].append(comment.start)
    downs = found["down"]
    if len(downs) > 1:
        problem = f"a second DOWN marker; the first is in line {source.line_at(downs[0])}"
        raise source.refusal(downs[1], problem, "Leave one of them, so that it is clear what is run.")
    return _Markers(tuple(downs), tuple(found["up"]), parts)


def _section(source: sql.Source) -> _Section | None:
    """The marked DOWN of a migration file, which ends at an UP marker or with the file; None without a marker."""
    markers = _markers(source)
    if not markers.downs:
        if markers.parts and not markers.parts[-1].terminated:
            problem = "the rows of this COPY are not ended by a line '\\.', so all behind it is data, a DOWN included"
            raise source.refusal(markers.parts[-1].start, problem, "End them with that line.")
        return None
    start = source.next_line(markers.downs[0])
    end = min((up for up in markers.ups if up >= start), default=len(source.text))
    return _Section(start, end, source.line_at(markers.downs[0]))


def _whole_file(source: sql.Source) -> _Section:
    """The DOWN of a file that holds nothing else; a DOWN marker may head it, and an UP has no place in it."""
    markers = _markers(source)
    if markers.ups:
        problem = "an UP marker in a file that is a DOWN by its name"
        raise source.refusal(markers.ups[0], problem, "Move the UP into the migration file, or remove the marker.")
    if not markers.downs:
        return _Section(0, len(source.text), 1)
    before = sql.Source(source.text[: markers.downs[0]], source.file)
    if sql.mask_psql(before.text)[1] or sql.has_statements(before):
        problem = "statements stand before this marker, in a file that is a DOWN by its name"
        raise source.refusal(markers.downs[0], problem, "Remove the marker to run them too, or remove them.")
    return _Section(source.next_line(markers.downs[0]), len(source.text), source.line_at(markers.downs[0]))


def _comment_lines(text: str) -> list[str]:
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.lstrip().startswith("--")]


def _no_down(migration: Migration, source: sql.Source) -> t.NoReturn:
    seen = ""
    for number, line in enumerate(re.split(r"\r\n|\n|\r", source.text), start=1):
        if line.lstrip().startswith("--") and conventions.read_marker(line.strip()) == "down":
            seen = f" Line {number} has the marker inside a string, a body, a comment or parentheses, where it is none."
        elif re.match(r"[\s\-=#*]*--[\s\-=#*]*down\b", line, re.IGNORECASE):
            seen = f" Line {number} is no marker because of the text behind it: {line.strip()[:120]}"
    example = conventions.DOCUMENT.example
    raise Refused(
        f"{source.file} has no DOWN: no line of it is a marker such as '{example}', and there is no file "
        f"{migration.version}-down.sql beside it.{seen} Write the DOWN, or restore a backup instead.",
        file=source.file,
        version=migration.version,
    )


# --- its body -----------------------------------------------------------------------------------------------------

_Body = tuple[str, tuple[sql.Statement, ...], tuple[str, ...]]
_COMMENTED_STATEMENT = re.compile(
    r"^[ \t]*--+[ \t]*(?:DROP|ALTER|DELETE|TRUNCATE|UPDATE|INSERT|CREATE|REVOKE|GRANT)\b.*;", re.IGNORECASE
)
_NOT_LINE_END = re.compile(r"[^\r\n]")


def _body(source: sql.Source, section: _Section, accept_commented: bool) -> _Body:
    body = sql.Source(source.text[section.start : section.end], source.file, source.line_at(section.start))
    masked, parts = sql.mask_psql(body.text)
    if parts or sql.has_statements(dataclasses.replace(body, text=masked)):
        statements = tuple(sql.parse_script(body.text, body.file, body.first_line))
        return body.text, statements, _notes(body, statements)
    if not sql.comment_spans(body):
        raise _irreversible(source, section, "the DOWN is empty")
    return _commented_body(source, section, body, accept_commented)


def _commented_body(source: sql.Source, section: _Section, body: sql.Source, accept: bool) -> _Body:
    text = _uncommented(body)
    try:
        statements = tuple(sql.parse_script(text, body.file, body.first_line))
    except sql.DownSyntaxError as error:
        raise _irreversible(source, section, "the DOWN is only comments", _why_not_sql(body, error)) from error
    except sql.DownRefused:
        if accept:
            raise
        statements = ()
    else:
        if not statements:
            raise _irreversible(source, section, "the DOWN is only comments")
    lines = _lines(body)
    if not accept:
        problem = f"the DOWN in {lines} is commented out as a whole, so it would undo nothing"
        remedy = "Take the comment signs away, or set rollback_commented_down: accept to run what is in them."
        raise source.refusal(_shown_offset(source, section), problem, remedy)
    note = f"The DOWN in {lines} is commented out; it is run because rollback_commented_down is accept."
    return text, statements, (note, *_notes(sql.Source(text, body.file, body.first_line), statements))


def _lines(body: sql.Source) -> str:
    spans = sql.comment_spans(body)
    first, last = body.line_at(spans[0][0]), body.line_at(spans[-1][1] - 1)
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _shown_offset(source: sql.Source, section: _Section) -> int:
    """The first character of the DOWN that is no blank, or its marker's line where there is none."""
    text = source.text[section.start : section.end]
    return section.start + len(text) - len(text.lstrip()) if text.strip() else max(section.start - 1, 0)


def _irreversible(source: sql.Source, section: _Section, problem: str, why: str = "") -> sql.DownRefused:
    remedy = "Write the statements that undo the migration, or restore a backup instead."
    return source.refusal(_shown_offset(source, section), f"{problem}, so it would undo nothing{why}", remedy)


def _why_not_sql(body: sql.Source, error: sql.DownSyntaxError) -> str:
    """Why comments that seem to hold statements are not taken for a commented-out DOWN."""
    if not any(_COMMENTED_STATEMENT.match(line) for line in _comment_lines(body.text)):
        return ""
    return f" (with the comment signs taken away it is no SQL either, because of line {error.details['line']})"


def _uncommented(body: sql.Source) -> str:
    """The text with its comment signs blanked, so that every character keeps its place."""
    pieces, position = [], 0
    for start, end in sql.comment_spans(body):
        pieces += [body.text[position:start], _uncomment(body.text[start:end])]
        position = end
    return "".join([*pieces, body.text[position:]])


def _uncomment(comment: str) -> str:
    if comment.startswith("--"):
        if not re.search(r"\w", comment):
            return _NOT_LINE_END.sub(" ", comment)
        return re.sub(r"^--+", lambda match: " " * len(match.group()), comment)
    inner = "  " + comment[2:-2] + "  "
    return re.sub(r"(?m)^[ \t]*(?:\*+(?=\s|$)|[=#*]{2,}[ \t]*$)", lambda match: " " * len(match.group()), inner)


def _notes(body: sql.Source, statements: t.Sequence[sql.Statement]) -> tuple[str, ...]:
    notes = [
        f"Line {statement.line} calls a procedure: one that commits fails inside the rollback's transaction."
        for statement in statements
        if statement.kind == "CALL"
    ]
    commented = [
        body.line_at(comment.start)
        for comment in sql.standing_comments(body)
        if _COMMENTED_STATEMENT.match(comment.text)
    ]
    if commented:
        lines = ", ".join(str(line) for line in commented[:10]) + (" and more" if len(commented) > 10 else "")
        notes.append(f"Statements that are commented out are not run: line {lines}.")
    return tuple(notes)
