# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup says that its database held, compared with what is restored from it; compressed archives."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    archive_stream,
    backup,
    catalog,
    content,
    manifest,
    readiness,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings, client_environment
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged

from tests.support.backups import SCHEMA, wrapped_programs

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg2.extensions

    from tests.conftest import Database

#: A label that was added later has an oid out of order.
ENUM = ("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')", "ALTER TYPE mood ADD VALUE 'so so' BEFORE 'happy'")

#: Everything whose bytes, order or text another database can have in another way.
RICH = r"""
CREATE TYPE pair AS (m mood, price money, ts timestamptz);
CREATE DOMAIN code AS varchar(8) CHECK (VALUE <> '');
CREATE DOMAIN feeling AS mood;
CREATE TABLE everything (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, ms mood[], p pair, ps pair[], c code, f feeling,
    b bytea, f4 float4, f8 float8, n numeric, ts timestamptz, t time, tz timetz, i interval, d date, j json, jb jsonb,
    price money, x tsvector, a inet, bits bit varying, r tstzrange, o oid, k regclass, u uuid,
    g text GENERATED ALWAYS AS (repeat('Ț', int4(f8 IS NULL))) STORED, status varchar(20) DEFAULT 'new',
    CONSTRAINT known CHECK (status IN ('new', 'paid', 'it''s ]) gone')));
INSERT INTO everything (m, ms, p, ps, c, f, b, f4, f8, n, ts, t, tz, i, d, j, jb, price, x, a, bits, r, o, k, u)
SELECT m, ARRAY[m, NULL], ROW(m, 1.5, now())::pair, ARRAY[ROW(m, -1, '2026-01-01 00:00:00.1+02')::pair], 'a' || i, m, decode(md5(i::text), 'hex'),
       i / 3.0, i / 3.0::float8 * 1e-300, (i || '.' || repeat('0', i))::numeric, now() - i * interval '1 day', '12:00', '12:00+02',
       interval '1 mon -1 day 24 hours', 'infinity', '{"b": 1, "a":  1}', '{"b": 1, "a": 1}', i * 1.01, 'b:2 a:1', '10.0.0.1/8', B'101',
       tstzrange(now(), NULL), 4294967295, 'everything', gen_random_uuid()
  FROM generate_series(1, 40) i, LATERAL (SELECT (ARRAY['sad', 'ok', 'so so', 'happy'])[1 + i % 4]::mood) z(m);
INSERT INTO everything (f4, f8, n) VALUES ('-0', 'NaN', 'NaN'), ('Infinity', '-0', '-1.10'), (NULL, NULL, NULL);
CREATE TABLE base (z int, a mood);
CREATE TABLE heir (b text, a mood, z int);
ALTER TABLE heir INHERIT base;
INSERT INTO heir VALUES ('x', 'ok', 1), (NULL, NULL, NULL);
CREATE TABLE dropped (one int, two mood, three text);
ALTER TABLE dropped DROP COLUMN one;
INSERT INTO dropped VALUES ('happy', E'a\tb\\');
CREATE TABLE measured (at date, m mood, v numeric(12, 4)) PARTITION BY RANGE (at);
CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM ('2026-01-01') TO ('2026-02-01') PARTITION BY LIST (m);
CREATE TABLE measured_1_sad PARTITION OF measured_1 FOR VALUES IN ('sad');
CREATE TABLE measured_1_rest PARTITION OF measured_1 DEFAULT;
CREATE TABLE measured_2 (v numeric(12, 4), m mood, at date NOT NULL);
ALTER TABLE measured ATTACH PARTITION measured_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO measured VALUES ('2026-01-05', 'sad', 1), ('2026-01-06', 'ok', 1.5), ('2026-02-07', 'happy', 2);
CREATE INDEX ON measured (m);
CREATE SEQUENCE "odd 'name'; \ %s" START 7;
SELECT nextval('"odd ''name''; \ %s"'), setval('everything_id_seq', 4000, false);
SELECT lo_from_bytea(0, decode(repeat('00ff', 3000000), 'hex'));
CREATE VIEW seen WITH (security_barrier) AS SELECT id, status FROM everything WHERE status IN ('new', 'paid');
CREATE FUNCTION addup(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2 -- ; COPY x FROM stdin;';
CREATE AGGREGATE total (int) (SFUNC = addup, STYPE = int, INITCOND = '0', SORTOP = >);
CREATE OPERATOR +@ (FUNCTION = addup, LEFTARG = int, RIGHTARG = int, COMMUTATOR = +@);
CREATE OPERATOR FAMILY fam USING btree;
CREATE OPERATOR CLASS reversed FOR TYPE int USING btree FAMILY fam AS OPERATOR 1 >, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
CREATE COLLATION plain (provider = libc, locale = 'C');
CREATE CONVERSION latin FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
CREATE TEXT SEARCH DICTIONARY dict (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION conf (COPY = simple);
CREATE STATISTICS stats ON m, status FROM everything;
CREATE PUBLICATION pub FOR TABLE everything WITH (publish = 'insert');
CREATE FOREIGN DATA WRAPPER fdw OPTIONS (b '1', a '2');
CREATE SERVER srv TYPE 'x' FOREIGN DATA WRAPPER fdw OPTIONS (z '1', y '2');
CREATE FOREIGN TABLE far (a int OPTIONS (q '1')) SERVER srv OPTIONS (z '1', y '2');
CREATE USER MAPPING FOR CURRENT_USER SERVER srv;
CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER ev ON ddl_command_end WHEN TAG IN ('DROP TABLE', 'CREATE TABLE') EXECUTE FUNCTION noted();
CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = 'a b', pg_catalog AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE UPDATE OF m ON measured FOR EACH ROW WHEN (OLD.m IS DISTINCT FROM NEW.m) EXECUTE FUNCTION kept();
CREATE RULE ru AS ON DELETE TO dropped DO INSTEAD NOTHING;
CREATE CAST (pair AS text) WITH INOUT AS ASSIGNMENT;
ALTER TABLE everything ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON everything FOR UPDATE TO "role %s", PUBLIC USING (id > 0) WITH CHECK (id < 10);
CREATE POLICY yours ON everything TO "role %s", pg_read_all_data USING (status IN ('new', 'paid'));
GRANT SELECT (m, status), UPDATE (m) ON everything TO "role %s";
GRANT INSERT, SELECT ON base TO "role %s" WITH GRANT OPTION;
GRANT ALL ON base TO pg_read_all_data;
REVOKE INSERT ON base FROM pg_read_all_data;
GRANT SELECT ON heir TO pg_read_all_data;
REVOKE SELECT ON heir FROM pg_read_all_data;
REVOKE ALL ON FUNCTION addup FROM PUBLIC;
REVOKE ALL ON FUNCTION kept FROM PUBLIC;
GRANT EXECUTE ON FUNCTION kept TO PUBLIC;
GRANT USAGE ON SCHEMA public TO "role %s";
ALTER DEFAULT PRIVILEGES FOR ROLE "role %s" GRANT SELECT ON TABLES TO pg_read_all_data, PUBLIC;
ALTER TABLE dropped OWNER TO "role %s";
"""

TAKEN = "before_migration"


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    name = f"role {database.name}"
    database.execute(f'CREATE ROLE "{name}"')
    yield name
    database.execute(f'REASSIGN OWNED BY "{name}" TO CURRENT_USER; DROP OWNED BY "{name}"')
    database.execute(f'DROP ROLE "{name}"')


@pytest.fixture
def request_for(database: Database, tmp_path: pathlib.Path) -> readiness.BackupRequest:
    return readiness.BackupRequest(
        ConnectionSettings(**database.connection_arguments()),
        str(tmp_path / "backups"),
        kind=TAKEN,
        version="0007",
        bin_dir=str(database.server.bin_dir),
        content=True,
        compress=True,
    )


def pg_restore(request: readiness.BackupRequest, path: str, name: str) -> None:
    with client_environment(request.settings, dbname=name) as env:
        argv = [f"{request.bin_dir}/pg_restore", "--exit-on-error", f"--dbname={name}", f"{path}/dump"]
        subprocess.run(argv, env=env, check=True)


@contextlib.contextmanager
def restored(
    database: Database, request: readiness.BackupRequest, path: str
) -> Iterator[psycopg2.extensions.connection]:
    """The backup in a database of its own, in which other objects have used up oids before."""
    name = f"{database.name}_restored"
    database.server.create_database(name)
    try:
        filler = "".join(f"CREATE TABLE filler_{number} (a int); DROP TABLE filler_{number};" for number in range(5))
        database.server.execute(filler, name)
        pg_restore(request, path, name)
        with contextlib.closing(database.server.connect(name)) as connection:
            yield connection
    finally:
        database.server.drop_database(name)


def sums(connection: psycopg2.extensions.connection, seed: int) -> dict[str, content.Sum]:
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute(content.SETTINGS)
        tables = content.read_tables(cursor)
        found = content.read_rows(cursor, tables, seed, connection.server_version)
        return {table.identity: found[table.oid] for table in tables}


def test_what_is_restored_has_the_recorded_content(
    database: Database, role: str, request_for: readiness.BackupRequest
) -> None:
    for statement in ENUM:
        database.execute(statement)
    database.execute("SET lc_monetary = 'C';" + SCHEMA + RICH.replace("role %s", role))
    database.execute(f"ALTER DATABASE {database.name} SET bytea_output = 'escape'")
    database.execute(f"ALTER DATABASE {database.name} SET intervalstyle = 'iso_8601'")
    path = backup.take_backup(request_for).path
    taken = manifest.load(path)
    assert manifest.verify(path, taken) == []
    assert taken.proof == {}
    seed = taken.content["seed"]
    recorded = {name: (facts["rows"], facts["hash"]) for name, facts in taken.tables.items()}
    parents = {
        name for name in recorded if name in ("public.measured", "public.measured_1", "public.parent", "public.child")
    }
    assert recorded["public.measured"][0] == 3
    parts = ("measured_1_sad", "measured_1_rest", "measured_2")
    assert int(recorded["public.measured"][1]) == sum(int(recorded[f"public.{part}"][1]) for part in parts)
    with restored(database, request_for, path) as connection:
        now = sums(connection, seed)
        assert {name: now.get(name) for name in recorded if name not in parents} == {
            name: each for name, each in recorded.items() if name not in parents
        }
        with connection.cursor() as cursor:
            sequences = {name: list(value) for name, value in content.read_sequences(cursor).items()}
            assert sequences == taken.content["sequences"]
            assert sequences["public.\"odd 'name'; \\ %s\""] == [7, True]
            assert list(content.read_large_objects(cursor, seed)) == taken.content["large_objects"]
            cursor.execute("SET search_path = pg_catalog")
            after = catalog.schema_text(cursor)
        assert after.splitlines() == pathlib.Path(path, "schema.txt").read_text("utf-8").splitlines()
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE public.everything SET m = 'so so' WHERE m = 'ok'; UPDATE public.heir SET z = 2 WHERE z = 1"
            )
        changed = sums(connection, seed)
        assert {name for name in now if now[name] != changed[name]} == {"public.everything", "public.heir"}


def test_hash_and_count_come_from_the_dumps_snapshot(
    database: Database, request_for: readiness.BackupRequest, tmp_path: pathlib.Path
) -> None:
    database.execute(
        "CREATE TABLE written (id serial, note text); INSERT INTO written (note) SELECT 'a' FROM generate_series(1, 3000)"
    )
    login = database.server.login(database.name)
    psql = f"PGPASSWORD='{login.get('login_password') or ''}' psql -qh {login['login_host']} -p {login['login_port']} -U {login['login_user']} {database.name}"
    write = "UPDATE written SET note = 'b'; INSERT INTO written (note) VALUES ('c'); DELETE FROM written WHERE id = 5"
    programs = wrapped_programs(
        tmp_path / "bin",
        request_for.bin_dir,
        pg_dump=f'case "$*" in *nowhere*) exec "$REAL" "$@";; esac\n{psql} -c "{write}" || exit 9\nexec "$REAL" "$@"',
    )
    path = backup.take_backup(dataclasses.replace(request_for, bin_dir=programs)).path
    taken = manifest.load(path)
    assert database.execute("SELECT count(*), min(note) FROM written")[0] == (3000, "b")
    assert taken.tables["public.written"]["rows"] == 3000
    with restored(database, request_for, path) as connection:
        facts = taken.tables["public.written"]
        assert sums(connection, taken.content["seed"])["public.written"] == (facts["rows"], facts["hash"])
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM public.written WHERE note = 'a'")
            assert cursor.fetchall() == [(3000,)]
            # A sequence knows no snapshot: what the dump wrote is what was recorded.
            assert {name: list(value) for name, value in content.read_sequences(cursor).items()} == taken.content[
                "sequences"
            ]
            assert taken.content["sequences"]["public.written_id_seq"] == [3001, True]


def test_what_nobody_waits_for_is_compressed(database: Database, request_for: readiness.BackupRequest) -> None:
    database.execute(SCHEMA)
    taken = manifest.load(backup.take_backup(request_for).path)
    major = int(taken.server_version.partition(".")[0])
    suffix = {"gzip:1": ".gz", "zstd:1": ".zst"}[taken.compression]
    if major < 16:
        assert taken.compression == "gzip:1"
    assert any(entry.path.endswith(suffix) for entry in taken.files)
    assert taken.tables["b2b.orders"]["rows"] == 5000
    plain = manifest.load(backup.take_backup(dataclasses.replace(request_for, compress=False)).path)
    assert plain.compression == "none"
    assert taken.bytes < plain.bytes / 2


def test_a_build_without_zstd_takes_gzip(
    database: Database, request_for: readiness.BackupRequest, tmp_path: pathlib.Path
) -> None:
    database.execute(SCHEMA)
    lacks = 'case "$*" in *=zstd*) echo "pg_dump: error: this build does not support compression with ZSTD" >&2; exit 1;; esac\nexec "$REAL" "$@"'
    programs = wrapped_programs(tmp_path / "bin", request_for.bin_dir, pg_dump=lacks)
    path = backup.take_backup(dataclasses.replace(request_for, bin_dir=programs)).path
    assert manifest.load(path).compression == "gzip:1"


ALL_DATA = '"$REAL" "$@" || exit; FILE=$(ls -S "$ARCHIVE"/[0-9]*.dat* | head -1);'


@pytest.mark.parametrize(
    "damage",
    [
        f'{ALL_DATA} : > "$FILE"',
        f'{ALL_DATA} truncate -s -20 "$FILE"',
        # Data files of zstd have no checksum of their own; a damaged header is seen.
        f'{ALL_DATA} printf X | dd of="$FILE" bs=1 seek=0 conv=notrunc status=none',
        f'{ALL_DATA} rm "$FILE"',
        '"$REAL" "$@" || exit; for FILE in "$ARCHIVE"/blob_*.dat*; do : > "$FILE"; done',
    ],
)
def test_damage_to_a_compressed_archive_is_found(
    database: Database, request_for: readiness.BackupRequest, tmp_path: pathlib.Path, damage: str
) -> None:
    database.execute(SCHEMA)
    script = f'case "$*" in *nowhere*) exec "$REAL" "$@";; esac\n{damage}'
    programs = wrapped_programs(tmp_path / "bin", request_for.bin_dir, pg_dump=script)
    with pytest.raises(FailedUnchanged, match=r"is not whole|pg_restore failed"):
        backup.take_backup(dataclasses.replace(request_for, bin_dir=programs))
    assert os.listdir(request_for.backup_dir) == []


def pieces_of(text: bytes, size: int) -> io.BufferedReader:
    """The text in pieces, as a pipe may give it."""

    class Pieces(io.RawIOBase):
        def __init__(self) -> None:
            self._left = text

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: t.Any) -> int:
            piece, self._left = self._left[:size], self._left[size:]
            buffer[: len(piece)] = piece
            return len(piece)

    return t.cast("io.BufferedReader", Pieces())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
def test_rows_are_counted_wherever_the_stream_is_cut(size: int) -> None:
    text = (
        b"--\n-- it's; \"x\n--\n\n\\restrict abc'\n\nSET client_encoding = 'UTF8';\n"
        b'COPY public."a;\n""\'b" (t) FROM stdin;\na\nb\\\\.\n\\\\.\n\n\\.\n\n\n'
        b'COPY b.empty (a) FROM stdin;\n\\.\n\n\nCOPY b."none"  FROM stdin;\n\n\n\\.\n\n'
        b"SELECT pg_catalog.setval('b.\"x''\ny;\"', -7, true);\n"
        b"SELECT pg_catalog.lo_open('5', 131072);\nSELECT pg_catalog.lowrite(0, '\\x0102');\n"
        b"SELECT pg_catalog.lowrite(0, '\\x03');\nSELECT pg_catalog.lo_close(0);\n\n"
    )
    data = archive_stream.read_data(pieces_of(text, size))
    assert data.rows == [4, 0, 2]
    assert data.sequences == {'b."x\'\ny;"': (-7, True)}
    assert data.large_objects == {5: 3}
    for cut in (text.index(b"b\\\\."), text.index(b"\\.\n\n\nCOPY b.empty") + 1, text.index(b"-7")):
        with pytest.raises(archive_stream.StreamBroken):
            archive_stream.read_data(pieces_of(text[:cut], size))
