# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"
"""What tests of backups do to them: client programs that misbehave, roles, small file systems, processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import pg_tools

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from ansible_collections.cypher.rollback.plugins.module_utils.readiness import BackupRequest

    from tests.conftest import Database

#: Everything that makes a data file or a name special.
SCHEMA = """
CREATE SCHEMA b2b;
CREATE TABLE b2b.orders (id int PRIMARY KEY, note text);
INSERT INTO b2b.orders SELECT i, 'order ' || i FROM generate_series(1, 5000) i;
CREATE TABLE b2b.empty (a int);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE only_generated (a int GENERATED ALWAYS AS (1) STORED);
INSERT INTO only_generated DEFAULT VALUES;
CREATE TABLE "we ird""na'me %s ; 1; 0 2 TABLE DATA \\
nl ț" (t text);
INSERT INTO "we ird""na'me %s ; 1; 0 2 TABLE DATA \\
nl ț" VALUES (E'a\\nb\\\\.'), (E'\\\\.'), (NULL), (''), (E'\\\\.\\n\\n\\n');
CREATE UNLOGGED TABLE unlogged (a int);
INSERT INTO unlogged VALUES (1);
CREATE TABLE parent (a int) PARTITION BY LIST (a);
CREATE TABLE child PARTITION OF parent FOR VALUES IN (1, 2) PARTITION BY LIST (a);
CREATE TABLE leaf PARTITION OF child FOR VALUES IN (1);
CREATE TABLE leaf_2 PARTITION OF child FOR VALUES IN (2);
INSERT INTO parent VALUES (1), (1), (2);
CREATE TABLE inherits () INHERITS (b2b.empty);
INSERT INTO inherits VALUES (7);
CREATE SEQUENCE numbers;
CREATE MATERIALIZED VIEW matview AS SELECT count(*) FROM b2b.orders;
SELECT lo_from_bytea(0, '\\x0102030a0a'), lo_from_bytea(0, '');
"""

ROWS = {
    "b2b.orders": 5000,
    "b2b.empty": 0,
    "public.no_columns": 2,
    "public.only_generated": 1,
    'public."we ird""na\'me %s ; 1; 0 2 TABLE DATA \\\nnl ț"': 5,
    "public.unlogged": 1,
    "public.parent": 3,
    "public.child": 3,
    "public.leaf": 2,
    "public.leaf_2": 1,
    "public.inherits": 1,
}


def leaves_nothing(folder: pathlib.Path) -> bool:
    """Whether there is nothing in a folder of backups."""
    return not folder.exists() or not list(folder.iterdir())


def wrapped_programs(folder: pathlib.Path, bin_dir: str, **scripts: str) -> str:
    """Programs of which some are shell scripts around the real one, ``$REAL``; the archive's folder is ``$ARCHIVE``."""
    folder.mkdir()
    for program in pg_tools.PROGRAMS:
        real = os.path.join(bin_dir, program)
        if program not in scripts:
            (folder / program).symlink_to(real)
            continue
        lines = [
            "#!/bin/sh",
            f"REAL={shlex.quote(real)}",
            'case "$*" in *--version*) exec "$REAL" "$@";; esac',
            'for word in "$@"; do case "$word" in --file=*) ARCHIVE=${word#--file=};; esac; done',
            scripts[program],
        ]
        (folder / program).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / program).chmod(0o755)
    return str(folder)


def with_pg_dump(request: BackupRequest, tmp_path: pathlib.Path, script: str) -> BackupRequest:
    """The same request with a script around pg_dump."""
    programs = wrapped_programs(tmp_path / "bin", request.bin_dir, pg_dump=script)
    return dataclasses.replace(request, bin_dir=programs)


@contextlib.contextmanager
def plain_role(database: Database, request: BackupRequest, options: str = "") -> Iterator[BackupRequest]:
    """The same request by an ordinary role that may read everything."""
    name = f"plain_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' {options}")
    database.execute(f"GRANT USAGE ON SCHEMA b2b TO {name}")
    database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA b2b, public TO {name}")
    database.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA b2b, public TO {name}")
    database.execute(
        f"DO $$DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP "
        f"EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO {name}', o); END LOOP; END$$"
    )
    try:
        yield dataclasses.replace(request, settings=dataclasses.replace(request.settings, user=name, password="secret"))
    finally:
        database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@contextlib.contextmanager
def small_device(folder: pathlib.Path, megabytes: int) -> Iterator[pathlib.Path]:
    """A file system of so many megabytes."""
    folder.mkdir()
    options = f"size={megabytes}m,mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


TAKE = """
import json, sys
from ansible_collections.cypher.rollback.plugins.module_utils import backup, readiness
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
values = json.load(sys.stdin)
backup.take_backup(readiness.BackupRequest(ConnectionSettings(**values.pop("settings")), **values))
"""


@contextlib.contextmanager
def background_backup(
    request: BackupRequest, tmp_path: pathlib.Path, before: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A backup in a process of its own.

    :param before: Python that runs in that process first.
    """
    values = tmp_path / "request.json"
    values.write_text(json.dumps(dataclasses.asdict(request)), "utf-8")
    with values.open("rb") as stdin:
        process = subprocess.Popen([sys.executable, "-c", before + TAKE], stdin=stdin, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        # It holds the password.
        values.unlink()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
