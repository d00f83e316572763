# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The property of the emergency: backup, any damage, restore and exchange give the database that was backed up.

Exchanging back gives the damaged one, as it was. What is damaged, and in which order, comes from the seed in the test's name.
"""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import random
import secrets
import typing as t

import psycopg2
import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import backup, manifest, readiness, restore, swap
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.database_properties import read_properties
from psycopg2 import sql

from tests.support import everything

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.postgres_server import PostgresServer

#: Damages of one run that changed something, each of another kind.
AT_LEAST = 6

_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_TABLE = "format('%I.%I', n.nspname, c.relname)"
_RELATIONS = f"FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}"
_TABLES = f"{_RELATIONS} AND c.relkind IN ('r', 'p')"
_COLUMNS = _TABLES.replace(
    "WHERE", "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT attisdropped WHERE"
)
_MATVIEWS = f"{_RELATIONS} AND c.relkind = 'm'"
_VALUE = (
    "CASE WHEN atttypid IN ('text'::regtype, 'varchar'::regtype) THEN format('%I || ''!''', attname) "
    "ELSE format('%I + 1', attname) END"
)
_NOT_ITS_OWN = "attgenerated = '' AND attidentity <> 'a'"
_NO_CHECKS = "SET session_replication_role = replica; "


class Damage(t.NamedTuple):
    """What is done to a database.

    :param statements: a query for statements that could do it; those that fail are passed over.
    :param most: how many of them are picked; 0: all.
    """

    statements: str
    most: int = 0


def _each(template: str, source: str, *arguments: str) -> str:
    listed = ", ".join(arguments or (_TABLE,))
    literal = template.replace("'", "''")
    return f"SELECT pg_catalog.format('{literal}', {listed}) {source}"


DAMAGES: dict[str, Damage] = {
    "drop tables": Damage(_each("DROP TABLE %s CASCADE", _TABLES), 3),
    "truncate tables": Damage(_each("TRUNCATE %s CASCADE", _TABLES), 4),
    "update everything": Damage(
        _each(
            _NO_CHECKS + "UPDATE %s SET %I = %s",
            f"{_COLUMNS} AND {_NOT_ITS_OWN} AND atttypid::regtype::text IN ('text', 'character varying', 'integer', 'numeric')",
            *(_TABLE, "attname", _VALUE),
        )
    ),
    "delete rows": Damage(
        _each(_NO_CHECKS + "DELETE FROM ONLY %1$s WHERE ctid IN (SELECT ctid FROM ONLY %1$s LIMIT 10)", _TABLES), 6
    ),
    "copy rows": Damage(_each(_NO_CHECKS + "INSERT INTO %1$s SELECT * FROM %1$s LIMIT 3", _TABLES)),
    "rename tables": Damage(_each("ALTER TABLE %s RENAME TO %I", _TABLES, _TABLE, "'damaged ' || c.oid"), 3),
    "rename columns": Damage(
        _each("ALTER TABLE %s RENAME COLUMN %I TO %I", _COLUMNS, _TABLE, "attname", "'d ' || attname"), 7
    ),
    "retype columns": Damage(
        _each("ALTER TABLE %s ALTER %I TYPE text USING %I::text", _COLUMNS, _TABLE, "attname", "attname"), 7
    ),
    "drop columns": Damage(_each("ALTER TABLE %s DROP %I CASCADE", _COLUMNS, _TABLE, "attname"), 4),
    "drop defaults": Damage(
        _each("ALTER TABLE %s ALTER %I DROP DEFAULT", f"{_COLUMNS} AND atthasdef", _TABLE, "attname")
    ),
    "drop constraints": Damage(
        _each(
            "ALTER TABLE %s DROP CONSTRAINT %I CASCADE",
            _TABLES.replace("WHERE", "JOIN pg_constraint k ON k.conrelid = c.oid WHERE"),
            *(_TABLE, "conname"),
        ),
        5,
    ),
    "drop indexes": Damage(_each("DROP INDEX %s CASCADE", f"{_RELATIONS} AND c.relkind IN ('i', 'I')"), 5),
    "drop views": Damage(_each("DROP VIEW %s CASCADE", f"{_RELATIONS} AND c.relkind = 'v'"), 2),
    "drop materialized views": Damage(_each("DROP MATERIALIZED VIEW %s CASCADE", _MATVIEWS), 2),
    "refresh": Damage(_each("UPDATE base SET a = a + 1; REFRESH MATERIALIZED VIEW %s", _MATVIEWS)),
    "drop types": Damage(
        _each(
            "DROP TYPE %s CASCADE",
            f"FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace WHERE {_OURS} AND typtype IN ('e', 'r')",
            "format('%I.%I', n.nspname, typname)",
        ),
        1,
    ),
    "drop functions": Damage(
        _each(
            "DROP ROUTINE %s CASCADE",
            f"FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_OURS}",
            "p.oid::regprocedure",
        ),
        4,
    ),
    "drop a schema": Damage(
        _each("DROP SCHEMA %I CASCADE", f"FROM pg_namespace n WHERE {_OURS}", "n.nspname"),
        1,
    ),
    "drop extensions": Damage(_each("DROP EXTENSION %I CASCADE", "FROM pg_extension", "extname"), 2),
    "move sequences": Damage(_each("ALTER SEQUENCE %s INCREMENT 2 RESTART", f"{_RELATIONS} AND c.relkind = 'S'")),
    "detach partitions": Damage(
        _each(
            "ALTER TABLE %s DETACH PARTITION %s",
            _TABLES.replace("WHERE", "JOIN pg_inherits i ON i.inhrelid = c.oid WHERE") + " AND c.relispartition",
            *("inhparent::regclass", _TABLE),
        ),
        2,
    ),
    "disable triggers": Damage(_each("ALTER TABLE %s DISABLE TRIGGER ALL", f"{_TABLES} AND c.relhastriggers")),
    "disable row security": Damage(
        _each("ALTER TABLE %s DISABLE ROW LEVEL SECURITY", f"{_TABLES} AND c.relrowsecurity")
    ),
    "enable row security": Damage(_each("ALTER TABLE %s ENABLE ROW LEVEL SECURITY", _TABLES), 5),
    "drop policies": Damage(
        _each(
            "DROP POLICY %I ON %s",
            _TABLES.replace("WHERE", "JOIN pg_policy p ON p.polrelid = c.oid WHERE"),
            *("polname", _TABLE),
        )
    ),
    "drop event triggers": Damage(_each("DROP EVENT TRIGGER %I", "FROM pg_event_trigger", "evtname"), 1),
    "unlink large objects": Damage(_each("SELECT lo_unlink(%s)", "FROM pg_largeobject_metadata", "oid"), 2),
    "add large objects": Damage("SELECT 'SELECT lo_from_bytea(0, ''damage'')'"),
    "grant": Damage(_each("GRANT ALL ON %s TO PUBLIC, {reader}", _TABLES)),
    "revoke": Damage(_each("REVOKE ALL ON %s FROM PUBLIC, {reader}", _TABLES)),
    "change owners": Damage(_each("ALTER TABLE %s OWNER TO {reader}", _TABLES), 4),
    "drop owned": Damage("SELECT 'DROP OWNED BY {reader} CASCADE'"),
    "comment": Damage(_each("COMMENT ON TABLE %s IS 'damaged'", _TABLES), 5),
    "store otherwise": Damage(_each("ALTER TABLE %s SET UNLOGGED, SET (fillfactor = 55)", _TABLES), 5),
    "add objects": Damage(
        "VALUES ('CREATE SCHEMA \"dam % age\" CREATE TABLE t (a int PRIMARY KEY, b text) CREATE VIEW v AS SELECT b FROM t'), "
        "('CREATE TYPE damaged AS ENUM (''x'')'), ('CREATE TABLE IF NOT EXISTS more AS SELECT 1 AS one'), "
        "('CREATE FUNCTION damage() RETURNS int LANGUAGE sql AS ''SELECT 1''')"
    ),
    "settings of the database": Damage(
        "VALUES ('ALTER DATABASE {d} RESET ALL'), ('ALTER DATABASE {d} SET work_mem TO ''3MB'''), "
        "('ALTER ROLE {owner} IN DATABASE {d} SET lock_timeout TO ''7s''')"
    ),
    "owner of the database": Damage("SELECT 'ALTER DATABASE {d} OWNER TO {reader}'"),
    "connections of the database": Damage("SELECT 'ALTER DATABASE {d} CONNECTION LIMIT 3'"),
    "comment on the database": Damage("SELECT 'COMMENT ON DATABASE {d} IS ''damaged'''"),
    "privileges on the database": Damage(
        "VALUES ('REVOKE ALL ON DATABASE {d} FROM {reader} CASCADE'), ('GRANT ALL ON DATABASE {d} TO PUBLIC')"
    ),
}


def do_damage(made: everything.Everything, dbname: str, seed: int) -> dict[str, int]:
    """Damage a database; how many statements did so, by the name of the damage."""
    chosen = random.Random(seed)  # noqa: S311 - the same damages for the same seed
    done: dict[str, int] = {}
    for name in chosen.sample(sorted(DAMAGES), len(DAMAGES)):
        # A session of its own, because a damage may change the settings of the database.
        with contextlib.closing(made.server.connect(dbname, autocommit=True)) as session, session.cursor() as cursor:
            cursor.execute("SET search_path = pg_catalog")
            cursor.execute(DAMAGES[name].statements)
            statements = sorted(text for (text,) in cursor.fetchall())
            picked = chosen.sample(statements, min(DAMAGES[name].most or len(statements), len(statements)))
            cursor.execute("SET search_path = public")
            effects = [_run(cursor, _filled_in(made, session, dbname, text)) for text in picked]
        if any(effects):
            done[name] = sum(effects)
        if len(done) == AT_LEAST:
            break
    return done


def _filled_in(
    made: everything.Everything, session: psycopg2.extensions.connection, dbname: str, statement: str
) -> str:
    names = {"{d}": dbname, "{owner}": made.owner, "{reader}": made.reader}
    for placeholder, name in names.items():
        statement = statement.replace(placeholder, sql.Identifier(name).as_string(session))
    return statement


def _run(cursor: psycopg2.extensions.cursor, statement: str) -> bool:
    """Whether it could be done; an earlier damage may have taken its object."""
    try:
        cursor.execute(statement)
    except psycopg2.Error:
        return False
    return cursor.rowcount != 0


@dataclasses.dataclass(frozen=True)
class State:
    """All that is compared of a database."""

    dump: str
    content: dict[str, t.Any]
    properties: dict[str, t.Any]


def state_of(made: everything.Everything, dbname: str) -> State:
    with contextlib.closing(made.server.connect("postgres")) as session, session.cursor() as cursor:
        properties = read_properties(cursor, dbname).to_dict()
    return State(made.dump(dbname), everything.content_of(made.server, dbname), properties)


def assert_equal(found: State, wanted: State) -> None:
    assert everything.differing_lines(wanted.dump, found.dump) == []
    assert found.content == wanted.content
    assert found.properties == wanted.properties


@dataclasses.dataclass(frozen=True)
class Subject:
    """A database with what is known of it, and a copy to make it from again."""

    made: everything.Everything
    settings: ConnectionSettings
    copy: str
    state: State
    folder: pathlib.Path

    @property
    def live(self) -> str:
        return self.settings.dbname

    def others(self) -> list[str]:
        """Every database that was made here."""
        rows = self.made.server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'pro perty%'")
        return [name for (name,) in rows]

    def make_again(self) -> None:
        """As it was when it was made, and nothing beside it but its copy."""
        for name in self.others():
            if name != self.copy:
                self.made.server.drop_database(name)
        self.made.server.create_database(self.live, template=self.copy)
        self.made.set_properties(self.live)

    def take(self, provider: str) -> str:
        """A backup; its folder."""
        request = readiness.BackupRequest(
            self.settings,
            str(self.folder),
            version="0007",
            kind="before_migration",
            bin_dir=str(self.made.server.bin_dir),
            provider=provider,
            content=True,
        )
        return str(backup.take_backup(request).path)


@pytest.fixture(scope="module")
def roles(server: PostgresServer) -> Iterator[everything.Everything]:
    with everything.everything(server) as made:
        yield made


@pytest.fixture(scope="module")
def subject(
    request: pytest.FixtureRequest, roles: everything.Everything, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    """One of the databases, under a name that needs care."""
    server, kind = roles.server, str(request.param)
    live = f'pro perty "{kind}" %s {secrets.token_hex(3)}'
    copy = f"{live} copy"
    try:
        server.create_database(live)
        roles.fill(live, kind)
        settings = ConnectionSettings(**server.connection_arguments(live))
        found = Subject(roles, settings, copy, state_of(roles, live), tmp_path_factory.mktemp("backups"))
        server.create_database(copy, template=live)
        yield found
    finally:
        for (name,) in server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'pro perty%'"):
            server.drop_database(name)


CASES = [
    *(
        (kind, "dump", seed)
        for kind, seeds in zip(everything.KINDS, ((11, 12), (21, 22), (31, 32)), strict=True)
        for seed in seeds
    ),
    (everything.SHAPES, "clone", 23),
]


@pytest.mark.parametrize(
    ("subject", "provider", "seed"),
    CASES,
    ids=[f"{kind}-{provider}-seed{seed}" for kind, provider, seed in CASES],
    indirect=["subject"],
    scope="module",
)
def test_whatever_was_damaged_is_as_it_was_and_the_damaged_one_is_kept(
    subject: Subject, provider: str, seed: int, tmp_path: pathlib.Path
) -> None:
    subject.make_again()
    path = subject.take(provider)
    done = do_damage(subject.made, subject.live, seed)
    print("damages:", done)
    assert len(done) == AT_LEAST
    damaged = state_of(subject.made, subject.live)
    assert damaged != subject.state

    bin_dir = str(subject.made.server.bin_dir)
    restored = restore.restore_beside(restore.RestoreRequest(subject.settings, path, bin_dir=bin_dir, jobs=2))
    exchange = swap.SwapRequest(
        subject.settings,
        restored.database,
        properties=manifest.load(path).properties,
        state_dir=str(tmp_path),
        backup_id=manifest.load(path).id,
    )
    exchanged = swap.swap(exchange)
    assert_equal(state_of(subject.made, subject.live), subject.state)

    back = swap.swap(dataclasses.replace(exchange, incoming=exchanged.kept, properties={}, backup_id=""))
    assert_equal(state_of(subject.made, subject.live), damaged)
    assert state_of(subject.made, back.kept).content == subject.state.content
