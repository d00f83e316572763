# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL text as tokens and statements, read by PostgreSQL's own parser (pglast).

Offsets are in characters, as pglast gives them, never in bytes.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import re
import traceback
import typing as t

from .errors import Refused

try:
    from pglast import parse_sql
    from pglast.keywords import COL_NAME_KEYWORDS, RESERVED_KEYWORDS, TYPE_FUNC_NAME_KEYWORDS
    from pglast.parser import ParseError, scan

    HAS_PGLAST = True
    PGLAST_IMPORT_ERROR: str | None = None
    # As quote_ident does: all keywords but the unreserved ones.
    _QUOTED_KEYWORDS = frozenset(COL_NAME_KEYWORDS | RESERVED_KEYWORDS | TYPE_FUNC_NAME_KEYWORDS)
except ImportError:  # the caller says so with missing_required_lib()
    HAS_PGLAST = False
    PGLAST_IMPORT_ERROR = traceback.format_exc()

# A server ends a line comment at either character, so both count as ends of a line.
_LINE_END = re.compile(r"\r\n|\n|\r")
_EXCERPT = 160


class DownRefused(Refused):
    """A DOWN that cannot be run as it is written; details hold ``file``, ``line`` and ``source`` (the line's text)."""


class DownSyntaxError(DownRefused):
    """A text that is no SQL."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A piece of SQL and the place it has in a file.

    :param first_line: line of the file in which the text begins, from 1.
    """

    text: str
    file: str
    first_line: int = 1

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _LINE_END.finditer(self.text))]

    def line_at(self, offset: int) -> int:
        """The line of the file (from 1) in which the character at this offset stands."""
        return bisect.bisect_right(self._starts, offset) - 1 + self.first_line

    def line_text(self, line: int) -> str:
        """The text of this line of the file, without its end."""
        index = line - self.first_line
        start = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self._starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")

    def next_line(self, offset: int) -> int:
        """The offset at which the line behind the one of this offset begins, or the end of the text."""
        index = bisect.bisect_right(self._starts, offset)
        return self._starts[index] if index < len(self._starts) else len(self.text)

    def starts_line(self, offset: int) -> bool:
        """Whether only blanks stand before this offset in its line."""
        start = self._starts[bisect.bisect_right(self._starts, offset) - 1]
        return not self.text[start:offset].strip()

    def refusal(self, offset: int, problem: str, remedy: str) -> DownRefused:
        """The error that names file and line of this offset, and shows the line."""
        line = self.line_at(offset)
        source = self.line_text(line).strip()
        shown = source if len(source) <= _EXCERPT else source[:_EXCERPT] + "…"
        message = f"{self.file}, line {line}: {problem}. {remedy} The line reads: {shown}"
        return DownRefused(message, file=self.file, line=line, source=shown)


@dataclasses.dataclass(frozen=True)
class NamedObject:
    """An object that a statement drops, as the statement names it.

    :param type: as ``pg_identify_object`` spells it (a domain is its ``type`` there, and ``domain`` here).
    :param name: without quotes, folded as PostgreSQL does.
    :param schema: None when the statement does not say.
    :param arguments: types of a routine's input arguments as SQL; None when no list was given.
    :param relation: schema and name of what a trigger, rule, policy, column or constraint belongs to.
    """

    type: str
    name: str
    schema: str | None = None
    arguments: str | None = None
    relation: tuple[str | None, str] | None = None

    @property
    def identity(self) -> str:
        """The name as SQL, in the forms of ``pg_identify_object``."""
        own = self.name if self.type in _VERBATIM else _quoted(self.name)
        name = own if self.schema is None else f"{_quoted(self.schema)}.{own}"
        if self.relation is not None:
            relation = _qualified(*self.relation)
            return f"{relation}.{name}" if self.type.endswith("column") else f"{name} on {relation}"
        return name if self.arguments is None else f"{name}({self.arguments})"

    def __str__(self) -> str:
        return f"{self.type} {self.identity}"

    def to_dict(self) -> dict[str, t.Any]:
        """JSON-able form, for results and reports."""
        return {**dataclasses.asdict(self), "identity": self.identity}


@dataclasses.dataclass(frozen=True)
class Statement:
    """One statement of a script.

    :param number: its place in the script, from 1.
    :param text: the exact characters of the source, without the semicolon.
    :param line: line of the file in which its first token stands.
    :param kind: the command, such as ``DROP TABLE``.
    :param cascade: whether any part of it says CASCADE.
    :param if_exists: whether any part of it says IF EXISTS.
    :param retryable: it may fail only because something still depends on what it drops.
    :param only_drops: it changes no row but by dropping what it names.
    """

    number: int
    text: str
    file: str
    line: int
    kind: str
    drops: tuple[NamedObject, ...]
    cascade: bool
    if_exists: bool
    retryable: bool
    only_drops: bool

    def to_dict(self) -> dict[str, t.Any]:
        """JSON-able form, for results and reports."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "drops": [drop.to_dict() for drop in self.drops]}


@dataclasses.dataclass(frozen=True)
class Comment:
    """A line comment that stands alone in its line, outside of parentheses.

    :param start: offset of its first dash; :param end: offset behind its last character.
    """

    start: int
    end: int
    text: str


@dataclasses.dataclass(frozen=True)
class PsqlPart:
    r"""What psql would take for itself: a ``command``, or the ``copy data`` behind a COPY … FROM STDIN.

    :param start: offset of the command, or of the COPY; :param end: offset behind the part.
    :param masked_from: from here to the end the text is no SQL.
    :param terminated: False for copy data without the line ``\.`` that ends it.
    """

    kind: str
    start: int
    end: int
    masked_from: int
    terminated: bool = True


# --- tokens -------------------------------------------------------------------------------------------------------

_COMMENTS = ("SQL_COMMENT", "C_COMMENT")
_PSQL_CANDIDATE = re.compile(r"^[ \t]*(?P<command>\\[A-Za-z!?])|\bFROM\s+STDIN\b", re.IGNORECASE | re.MULTILINE)
_PSQL_COPY_STDIN = re.compile(r"\\copy\b.*\bfrom\s+stdin\b", re.IGNORECASE)
_COPY_END = re.compile(r"^\\\.[ \t]*\r?$", re.MULTILINE)
# In characters: what is lexed at once, and what is not worth skipping.
_PIECE = 1 << 18
_NEAR = 1 << 12
_ATTEMPTS = 4
_NOT_BLANK = re.compile(r"[^\r\n]")


def mask_psql(text: str) -> tuple[str, tuple[PsqlPart, ...]]:
    """Blank out what is for psql and not for the server, so that the rest can be lexed; offsets stay as they are.

    Lines of COPY data and arguments of psql commands may hold any quote. Each candidate counts only where the text
    before it lexes to its very place, so one inside a string, a body or a comment is left alone.
    """
    parts: list[PsqlPart] = []
    safe = position = 0
    while (match := _PSQL_CANDIDATE.search(text, position)) is not None:
        safe = _advance(text, safe, match.start())
        part = _psql_command(text, safe, match) if match["command"] else _copy_data(text, safe, match.end())
        position = match.end()
        if part is not None:
            parts.append(part)
            safe = position = part.end
    return _blank(text, parts), tuple(parts)


def _blank(text: str, parts: t.Sequence[PsqlPart]) -> str:
    pieces, position = [], 0
    for part in parts:
        pieces += [text[position : part.masked_from], _NOT_BLANK.sub(" ", text[part.masked_from : part.end])]
        position = part.end
    return "".join([*pieces, text[position:]])


def _tokens_before(text: str, start: int, end: int) -> list[t.Any] | None:
    """The tokens of this range, or None where its end stands inside a literal or a comment."""
    try:
        tokens: list[t.Any] = scan(text[start:end])
    except ParseError:
        return None
    if tokens and tokens[-1].name == "SQL_COMMENT" and tokens[-1].end == end - start - 1:
        return None
    return tokens


def _boundary(text: str, start: int, end: int) -> tuple[int, list[t.Any]] | None:
    """The end of a statement shortly before this end, and the tokens up to it; None if the last semicolons are none."""
    for _attempt in range(_ATTEMPTS):
        end = text.rfind(";", start, end)
        if end < 0:
            return None
        tokens = _tokens_before(text, start, end + 1)
        if tokens and tokens[-1].name == "ASCII_59":
            return end + 1, tokens
    return None


def _advance(text: str, start: int, limit: int) -> int:
    """A later end of a statement from which lexing may begin, so that no stretch is read again for each candidate."""
    while limit - start > _NEAR:
        found = _boundary(text, start, min(limit, start + _PIECE))
        if found is None:
            break
        start = found[0]
    return start


def _pieces(text: str) -> t.Iterator[tuple[int, list[t.Any]]]:
    """The tokens piece by piece, each with the offset that its own offsets count from.

    A token is an object of 100 bytes: a migration with 10 MB of INSERTs would take 1 GB at once.

    :raises ParseError: with an offset that counts from the start of the text.
    """
    start, size = 0, _PIECE
    while start < len(text):
        found = _boundary(text, start, start + size) if start + size < len(text) else (len(text), None)
        if found is None:
            size *= 4
            continue
        end, tokens = found
        yield start, _scan_from(text, start) if tokens is None else tokens
        start, size = end, _PIECE


def _scan_from(text: str, start: int) -> list[t.Any]:
    try:
        tokens: list[t.Any] = scan(text[start:])
    except ParseError as error:
        words, offset = error.args
        raise ParseError(words, None if offset is None else offset + start) from error
    return tokens


def _psql_command(text: str, safe: int, match: re.Match[str]) -> PsqlPart | None:
    start = match.start("command")
    if _tokens_before(text, safe, start) is None:
        return None
    newline = text.find("\n", start)
    end = len(text) if newline < 0 else newline
    if _PSQL_COPY_STDIN.match(text, start, end):
        data_end, terminated = _end_of_copy_data(text, end)
        return PsqlPart("command", start, data_end, start, terminated)
    return PsqlPart("command", start, end, start)


def _copy_data(text: str, safe: int, after_stdin: int) -> PsqlPart | None:
    tokens = _tokens_before(text, safe, after_stdin)
    if not tokens or tokens[-1].name != "STDIN":
        return None
    first = len(tokens)
    while first and tokens[first - 1].name != "ASCII_59":
        first -= 1
    start = next((token for token in tokens[first:] if token.name not in _COMMENTS), None)
    if start is None or start.name != "COPY":
        return None
    newline = text.find("\n", _semicolon(text, safe, after_stdin))
    if newline < 0:
        return None
    end, terminated = _end_of_copy_data(text, newline)
    return PsqlPart("copy data", safe + start.start, end, newline + 1, terminated)


def _semicolon(text: str, safe: int, position: int) -> int:
    """Offset of the semicolon that ends the statement, past those inside the literals of its options."""
    while (position := text.find(";", position)) >= 0:
        tokens = _tokens_before(text, safe, position + 1)
        if tokens and tokens[-1].name == "ASCII_59":
            return position
        position += 1
    return len(text)


def _end_of_copy_data(text: str, newline: int) -> tuple[int, bool]:
    match = _COPY_END.search(text, min(newline + 1, len(text)))
    return (match.end(), True) if match else (len(text), False)


_NESTING = {"ASCII_40": 1, "ASCII_41": -1, "ASCII_59": 0}


def standing_comments(source: Source) -> list[Comment]:
    """The line comments of a script that stand alone in their line and not between parentheses.

    :raises DownRefused: the text does not lex, such as a quote that is never closed.
    """
    comments, depth = [], 0
    try:
        for base, tokens in _pieces(source.text):
            for token in tokens:
                if token.name in _NESTING:
                    depth = 0 if token.name == "ASCII_59" else depth + _NESTING[token.name]
                elif token.name == "SQL_COMMENT" and depth <= 0 and source.starts_line(base + token.start):
                    start, end = base + token.start, base + token.end + 1
                    comments.append(Comment(start, end, source.text[start:end].rstrip("\r\n")))
    except ParseError as error:
        raise _syntax_error(source, error) from error
    return comments


def comment_spans(source: Source) -> list[tuple[int, int]]:
    """Start and end offsets of every comment of a script, of both kinds.

    :raises DownRefused: the text does not lex.
    """
    return [(token.start, token.end + 1) for token in _scan(source) if token.name in _COMMENTS]


def has_statements(source: Source) -> bool:
    """Whether anything but comments and semicolons is in a script.

    :raises DownRefused: the text does not lex.
    """
    return any(token.name not in (*_COMMENTS, "ASCII_59") for token in _scan(source))


def _scan(source: Source) -> list[t.Any]:
    try:
        tokens: list[t.Any] = scan(source.text)
    except ParseError as error:
        raise _syntax_error(source, error) from error
    return tokens


def _syntax_error(source: Source, error: Exception) -> DownSyntaxError:
    words = str(error.args[0])
    offset = error.args[1] if len(error.args) > 1 and error.args[1] is not None else len(source.text.rstrip())
    if words.endswith('at or near ":"'):
        remedy = "psql variables such as :'x' are not replaced here: write the value itself."
    elif words.startswith("unterminated"):
        remedy, words = "Close what is opened in this line.", words.partition(" at or near ")[0]
    else:
        remedy = "Correct the statement: it is read by PostgreSQL's own parser, and nothing was run."
    refusal = source.refusal(offset, words, remedy)
    return DownSyntaxError(str(refusal), **refusal.details)


# --- statements ---------------------------------------------------------------------------------------------------


def parse_script(text: str, file: str, first_line: int = 1) -> list[Statement]:
    """The statements of a DOWN, each with what it drops.

    :param file: named in messages and statements.
    :param first_line: line of the file in which the text begins, from 1.
    :raises DownRefused: the text cannot run inside one transaction of the driver, or is no SQL.
    """
    source = Source(text, file, first_line)
    _refuse_psql(source)
    tokens = _scan(source)
    _refuse_backslash(source, tokens)
    try:
        parsed = parse_sql(text)
    except ParseError as error:
        raise _syntax_error(source, error) from error
    code = [token for token in tokens if token.name not in _COMMENTS]
    statements = []
    for number, (raw, own) in enumerate(zip(parsed, _shares(parsed, code), strict=True), start=1):
        _refuse_statement(source, raw.stmt, own)
        statements.append(_statement(source, number, raw.stmt, own[0].start, own[-1].end + 1))
    return statements


def _shares(parsed: t.Sequence[t.Any], code: t.Sequence[t.Any]) -> t.Iterator[list[t.Any]]:
    """The tokens of each statement, without its semicolon."""
    starts = [token.start for token in code]
    for raw in parsed:
        first = bisect.bisect_left(starts, raw.stmt_location)
        # A length of 0 says that the statement runs to the end of the text.
        stop = bisect.bisect_left(starts, raw.stmt_location + raw.stmt_len) if raw.stmt_len else len(code)
        yield list(code[first:stop])


def _statement(source: Source, number: int, node: t.Any, start: int, end: int) -> Statement:
    effect = _effect(node)
    return Statement(
        number=number,
        text=source.text[start:end],
        file=source.file,
        line=source.line_at(start),
        kind=_kind(node),
        drops=effect.drops,
        cascade=effect.cascade,
        if_exists=effect.if_exists,
        retryable=effect.only_drops and not effect.cascade,
        only_drops=effect.only_drops,
    )


# --- what a statement drops ---------------------------------------------------------------------------------------

_OBJECT_TYPES = {
    "ACCESS_METHOD": "access method",
    "FDW": "foreign-data wrapper",
    "FOREIGN_SERVER": "server",
    "MATVIEW": "materialized view",
    "OPCLASS": "operator class",
    "OPFAMILY": "operator family",
    "STATISTIC_EXT": "statistics object",
    "TSCONFIGURATION": "text search configuration",
    "TSDICTIONARY": "text search dictionary",
    "TSPARSER": "text search parser",
    "TSTEMPLATE": "text search template",
}
_ON_RELATION = ("trigger", "rule", "policy")
_VERBATIM = ("cast", "transform", "operator", "user mapping")


@dataclasses.dataclass(frozen=True)
class _Effect:
    drops: tuple[NamedObject, ...] = ()
    cascade: bool = False
    if_exists: bool = False
    only_drops: bool = False


def _object_type(value: t.Any) -> str:
    name: str = value.name.removeprefix("OBJECT_")
    return _OBJECT_TYPES.get(name, name.lower().replace("_", " "))


def _effect(node: t.Any) -> _Effect:
    effect = _EFFECTS.get(type(node).__name__)
    return effect(node) if effect is not None else _Effect()


def _drop_effect(node: t.Any) -> _Effect:
    type_ = _object_type(node.removeType)
    drops = tuple(_dropped(type_, item) for item in node.objects)
    return _Effect(drops, _cascades(node), bool(node.missing_ok), True)


def _drop_role_effect(node: t.Any) -> _Effect:
    drops = tuple(NamedObject("role", _role(role)) for role in node.roles)
    return _Effect(drops, False, bool(node.missing_ok), True)


def _drop_user_mapping_effect(node: t.Any) -> _Effect:
    name = f"{_role(node.user)} on server {node.servername}"
    return _Effect((NamedObject("user mapping", name),), False, bool(node.missing_ok), True)


def _alter_table_effect(node: t.Any) -> _Effect:
    owner = "composite type" if node.objtype.name == "OBJECT_TYPE" else _object_type(node.objtype)
    relation = (node.relation.schemaname, node.relation.relname)
    drops = []
    for command in node.cmds:
        if command.subtype.name == "AT_DropColumn":
            drops.append(NamedObject(f"{owner} column", command.name, relation=relation))
        elif command.subtype.name == "AT_DropConstraint":
            drops.append(NamedObject("table constraint", command.name, relation=relation))
    cascade = any(_cascades(command) for command in node.cmds)
    if_exists = bool(node.missing_ok) or any(command.missing_ok for command in node.cmds)
    return _Effect(tuple(drops), cascade, if_exists, len(drops) == len(node.cmds))


def _alter_domain_effect(node: t.Any) -> _Effect:
    if node.subtype != "X":
        return _Effect()
    domain = _schema_and_name(_strings(node.typeName))
    drop = NamedObject("domain constraint", node.name, relation=domain)
    return _Effect((drop,), _cascades(node), bool(node.missing_ok), True)


_EFFECTS: dict[str, t.Callable[[t.Any], _Effect]] = {
    "AlterDomainStmt": _alter_domain_effect,
    "AlterTableStmt": _alter_table_effect,
    "DropOwnedStmt": lambda node: _Effect(cascade=_cascades(node)),
    "DropRoleStmt": _drop_role_effect,
    "DropStmt": _drop_effect,
    "DropUserMappingStmt": _drop_user_mapping_effect,
    "TruncateStmt": lambda node: _Effect(cascade=_cascades(node)),
}


def _cascades(node: t.Any) -> bool:
    return bool(node.behavior.name == "DROP_CASCADE")


def _role(role: t.Any) -> str:
    name: str = role.rolename or role.roletype.name.removeprefix("ROLESPEC_").lower()
    return name


def _dropped(type_: str, item: t.Any) -> NamedObject:
    if type_ == "cast":
        return NamedObject(type_, f"({_type_sql(item[0])} AS {_type_sql(item[1])})")
    if type_ == "transform":
        return NamedObject(type_, f"for {_type_sql(item[0])} language {item[1].sval}")
    if hasattr(item, "objname"):
        return _dropped_routine(type_, item)
    names = _strings(item)
    if type_ in _ON_RELATION:
        return NamedObject(type_, names[-1], relation=_schema_and_name(names[:-1]))
    if type_ in ("operator class", "operator family"):
        names = names[1:]
    schema, name = _schema_and_name(names)
    return NamedObject(type_, name, schema)


def _dropped_routine(type_: str, item: t.Any) -> NamedObject:
    schema, name = _schema_and_name(_strings(item.objname))
    arguments = None
    if not item.args_unspecified:
        # objargs holds input arguments only, which is how PostgreSQL tells routines apart.
        arguments = ", ".join("NONE" if argument is None else _type_sql(argument) for argument in item.objargs or ())
    return NamedObject(type_, name, schema, arguments)


def _strings(item: t.Any) -> list[str]:
    """The parts of a name, whichever node holds them: String, TypeName or a list of String."""
    if hasattr(item, "sval"):
        return [item.sval]
    return [part.sval for part in (item.names if hasattr(item, "names") else item)]


def _schema_and_name(names: t.Sequence[str]) -> tuple[str | None, str]:
    return (names[-2] if len(names) > 1 else None), names[-1]


# What the grammar makes of the SQL standard's type names, turned back.
_GRAMMAR_TYPES = {
    "bit": "bit",
    "bool": "boolean",
    "bpchar": "character",
    "float4": "real",
    "float8": "double precision",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "interval": "interval",
    "json": "json",
    "numeric": "numeric",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "timetz": "time with time zone",
    "varbit": "bit varying",
    "varchar": "character varying",
}


def _type_sql(node: t.Any) -> str:
    """A type as SQL, without lengths and precisions: they are no part of a routine's identity."""
    names = _strings(node)
    if len(names) == 2 and names[0] == "pg_catalog" and names[1] in _GRAMMAR_TYPES:
        name = _GRAMMAR_TYPES[names[1]]
    else:
        name = ".".join(_quoted(part) for part in names)
    return name + ("%TYPE" if node.pct_type else "") + "[]" * len(node.arrayBounds or ())


def _quoted(name: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) and name not in _QUOTED_KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def _qualified(schema: str | None, name: str) -> str:
    return _quoted(name) if schema is None else f"{_quoted(schema)}.{_quoted(name)}"


# --- what a statement is ------------------------------------------------------------------------------------------

_KINDS = {
    "AlterEnumStmt": "ALTER TYPE",
    "AlterFdwStmt": "ALTER FOREIGN DATA WRAPPER",
    "AlterSeqStmt": "ALTER SEQUENCE",
    "CheckPointStmt": "CHECKPOINT",
    "CompositeTypeStmt": "CREATE TYPE",
    "CreateAmStmt": "CREATE ACCESS METHOD",
    "CreateEnumStmt": "CREATE TYPE",
    "CreateEventTrigStmt": "CREATE EVENT TRIGGER",
    "CreateFdwStmt": "CREATE FOREIGN DATA WRAPPER",
    "CreateRangeStmt": "CREATE TYPE",
    "CreateSeqStmt": "CREATE SEQUENCE",
    "CreateStatsStmt": "CREATE STATISTICS",
    "CreateStmt": "CREATE TABLE",
    "CreateTableAsStmt": "CREATE TABLE AS",
    "CreateTrigStmt": "CREATE TRIGGER",
    "IndexStmt": "CREATE INDEX",
    "RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW",
    "RuleStmt": "CREATE RULE",
    "VacuumStmt": "ANALYZE",
    "ViewStmt": "CREATE VIEW",
}
_KIND_BY_NODE: dict[str, t.Callable[[t.Any], str]] = {
    "AlterFunctionStmt": lambda node: f"ALTER {_command_word(node.objtype)}",
    "AlterObjectSchemaStmt": lambda node: f"ALTER {_command_word(node.objectType)}",
    "AlterOwnerStmt": lambda node: f"ALTER {_command_word(node.objectType)}",
    "AlterTableStmt": lambda node: f"ALTER {_command_word(node.objtype)}",
    "CreateFunctionStmt": lambda node: "CREATE PROCEDURE" if node.is_procedure else "CREATE FUNCTION",
    "DefineStmt": lambda node: f"CREATE {_command_word(node.kind)}",
    "DropStmt": lambda node: f"DROP {_command_word(node.removeType)}",
    "GrantRoleStmt": lambda node: "GRANT" if node.is_grant else "REVOKE",
    "GrantStmt": lambda node: "GRANT" if node.is_grant else "REVOKE",
    "RenameStmt": lambda node: f"ALTER {_renamed(node)}",
    "VariableSetStmt": lambda node: "RESET" if node.kind.name.startswith("VAR_RESET") else "SET",
}


_COMMAND_WORDS = {
    "ATTRIBUTE": "TYPE",
    "DOMCONSTRAINT": "DOMAIN",
    "FDW": "FOREIGN DATA WRAPPER",
    "STATISTIC_EXT": "STATISTICS",
    "TABCONSTRAINT": "TABLE",
}


def _command_word(value: t.Any) -> str:
    return _COMMAND_WORDS.get(value.name.removeprefix("OBJECT_")) or _object_type(value).upper()


def _renamed(node: t.Any) -> str:
    return _command_word(node.relationType if node.renameType.name == "OBJECT_COLUMN" else node.renameType)


def _kind(node: t.Any) -> str:
    name = type(node).__name__
    if name in _KIND_BY_NODE:
        return _KIND_BY_NODE[name](node)
    # The other nodes are named after their command: CreateSchemaStmt, AlterDefaultPrivilegesStmt, DeleteStmt.
    return _KINDS.get(name) or re.sub(r"(?<!^)(?=[A-Z])", " ", name.removesuffix("Stmt")).upper()


# --- what cannot run ----------------------------------------------------------------------------------------------

_Finding = tuple[str, str]  # problem and remedy


def _refuse_psql(source: Source) -> None:
    if "\0" in source.text:
        raise source.refusal(source.text.index("\0"), "a NUL byte, which SQL cannot hold", "Remove it.")
    parts = mask_psql(source.text)[1]
    if not parts:
        return
    part = parts[0]
    if part.kind == "copy data":
        raise source.refusal(part.start, *_COPY_STDIN)
    raise source.refusal(part.start, *_psql_command_finding(source.text[part.start :]))


def _psql_command_finding(text: str) -> _Finding:
    match = re.match(r"\\\s*\S?[A-Za-z]*", text)
    command = match.group().strip() if match else "\\"
    problem = f"{command} is a psql command, and the DOWN is run through the driver, not through psql"
    return problem, "Write the SQL itself in its place, or remove it."


def _refuse_backslash(source: Source, tokens: t.Sequence[t.Any]) -> None:
    for token in tokens:
        if token.name == "ASCII_92":
            raise source.refusal(token.start, *_psql_command_finding(source.text[token.start :]))


_COPY_STDIN = (
    "COPY … FROM STDIN takes its rows from psql, and the DOWN is run through the driver, which has none",
    "Write the rows as INSERT statements.",
)
_COPY_STDOUT = (
    "COPY … TO STDOUT sends rows to psql, and the DOWN is run through the driver",
    "Remove it: the rows are in the backup that every rollback makes first.",
)
_COPY_PROGRAM = (
    "COPY … PROGRAM runs a command on the database's host, which no ROLLBACK takes back",
    "Move the command out of the DOWN.",
)
_COPY_FILE = (
    "COPY … TO a file writes on the database's host, which no ROLLBACK takes back and check mode could not undo",
    "Copy the rows into a table, or rely on the backup that every rollback makes first.",
)


def _copy(node: t.Any) -> _Finding | None:
    if node.is_program:
        return _COPY_PROGRAM
    if node.filename is None:
        return _COPY_STDIN if node.is_from else _COPY_STDOUT
    return None if node.is_from else _COPY_FILE


def _outside(command: str, remedy: str) -> _Finding:
    return f"{command} cannot run inside a transaction, and the whole DOWN runs in one", remedy


_RUN_APART = "Take it out of the DOWN and run it by hand, before or after the rollback."
_WITHOUT_CONCURRENTLY = "Leave out CONCURRENTLY: the application is stopped meanwhile."


def _transaction(node: t.Any) -> _Finding:
    words = node.kind.name.removeprefix("TRANS_STMT_").replace("_", " ")
    words = {"START": "START TRANSACTION", "RELEASE": "RELEASE SAVEPOINT", "PREPARE": "PREPARE TRANSACTION"}.get(
        words, words
    )
    problem = f"{words} controls the transaction, which belongs to the rollback: the DOWN and its proof are one"
    return problem, "Remove it: the whole DOWN is committed or undone at once without it."


def _drop(node: t.Any) -> _Finding | None:
    return _outside("DROP INDEX CONCURRENTLY", _WITHOUT_CONCURRENTLY) if node.concurrent else None


def _create_index(node: t.Any) -> _Finding | None:
    return _outside("CREATE INDEX CONCURRENTLY", _WITHOUT_CONCURRENTLY) if node.concurrent else None


def _reindex(node: t.Any) -> _Finding | None:
    kind = node.kind.name.removeprefix("REINDEX_OBJECT_")
    if kind in ("SCHEMA", "SYSTEM", "DATABASE"):
        return _outside(f"REINDEX {kind}", _RUN_APART)
    concurrent = any(option.defname == "concurrently" for option in node.params or ())
    return _outside("REINDEX CONCURRENTLY", _WITHOUT_CONCURRENTLY) if concurrent else None


def _alter_table(node: t.Any) -> _Finding | None:
    for command in node.cmds:
        if command.subtype.name == "AT_DetachPartition" and command.def_.concurrent:
            return _outside("DETACH PARTITION … CONCURRENTLY", _WITHOUT_CONCURRENTLY)
    return None


def _alter_database(node: t.Any) -> _Finding | None:
    if any(option.defname == "tablespace" for option in node.options or ()):
        return _outside("ALTER DATABASE … SET TABLESPACE", _RUN_APART)
    return None


def _alter_subscription(node: t.Any) -> _Finding | None:
    kind = node.kind.name.removeprefix("ALTER_SUBSCRIPTION_")
    if kind in ("REFRESH", "REFRESH_PUBLICATION", "SET_PUBLICATION", "ADD_PUBLICATION", "DROP_PUBLICATION"):
        return _outside("ALTER SUBSCRIPTION with a refresh", _RUN_APART)
    return None


def _set(node: t.Any) -> _Finding | None:
    if node.kind.name == "VAR_SET_MULTI" and node.name == "TRANSACTION":
        return "SET TRANSACTION changes the transaction, which belongs to the rollback", "Remove it."
    return None


_NEVER_INSIDE = {
    "AlterSystemStmt": "ALTER SYSTEM",
    "CreateSubscriptionStmt": "CREATE SUBSCRIPTION (where it has a replication slot)",
    "CreateTableSpaceStmt": "CREATE TABLESPACE",
    "CreatedbStmt": "CREATE DATABASE",
    "DropSubscriptionStmt": "DROP SUBSCRIPTION (where it has a replication slot)",
    "DropTableSpaceStmt": "DROP TABLESPACE",
    "DropdbStmt": "DROP DATABASE",
}
_FINDINGS: dict[str, t.Callable[[t.Any], _Finding | None]] = {
    "AlterDatabaseStmt": _alter_database,
    "AlterSubscriptionStmt": _alter_subscription,
    "AlterTableStmt": _alter_table,
    "ClusterStmt": lambda node: None if node.relation else _outside("CLUSTER without a table", _RUN_APART),
    "CopyStmt": _copy,
    "DiscardStmt": lambda node: _outside("DISCARD ALL", "Remove it.") if node.target.name == "DISCARD_ALL" else None,
    "DropStmt": _drop,
    "IndexStmt": _create_index,
    "ReindexStmt": _reindex,
    "TransactionStmt": _transaction,
    "VacuumStmt": lambda node: _outside("VACUUM", _RUN_APART) if node.is_vacuumcmd else None,
    "VariableSetStmt": _set,
}
_MAY_HOLD_PARAMETERS = ("PrepareStmt", "CreateFunctionStmt")


def _refuse_statement(source: Source, node: t.Any, tokens: t.Sequence[t.Any]) -> None:
    name = type(node).__name__
    finding = _FINDINGS[name](node) if name in _FINDINGS else None
    if name in _NEVER_INSIDE:
        finding = _outside(_NEVER_INSIDE[name], _RUN_APART)
    if finding is not None:
        raise source.refusal(tokens[0].start, *finding)
    if name in _MAY_HOLD_PARAMETERS:
        return
    for token in tokens:
        if token.name == "PARAM":
            parameter = source.text[token.start : token.end + 1]
            raise source.refusal(token.start, f"{parameter} is a parameter without a value", "Write the value itself.")
