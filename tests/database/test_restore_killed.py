# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup, restore and exchange, killed at any moment: the live database is there, the catalog is whole, a second run succeeds."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import signal
import subprocess
import sys
import threading
import time
import typing as t

import psycopg2
import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import backup_catalog

from tests.support.backups import wait_for, wrapped_programs
from tests.support.postgres_server import REPOSITORY

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.conftest import Database
    from tests.support.postgres_server import PostgresServer

SEED = 20260213
MOMENTS = 10

#: The longest that nobody can connect: a process was killed in its exchange, and the server has to notice.
LONGEST_SECONDS = 10.0
#: What a client may be told while databases are exchanged, and finds gone at its next try. One that is ended before it
#: was let in is told nothing.
PASSING = (
    "terminating connection due to administrator command",
    "just been dropped or renamed",
    "server closed the connection unexpectedly",
)

SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, note text);
INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 20000) i;
CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders);
INSERT INTO lines SELECT i, i FROM generate_series(1, 20000) i;
CREATE INDEX ON lines (order_id);
CREATE SEQUENCE numbers;
SELECT nextval('numbers'), lo_from_bytea(0, '\\x010203');
"""

#: One run of it for each line that is read.
SEQUENCE = """
import json, sys
from ansible_collections.cypher.rollback.plugins.module_utils import backup, manifest, readiness, restore, swap
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
given = json.loads(sys.stdin.readline())
settings, bin_dir = ConnectionSettings(**given["settings"]), given["bin_dir"]
print("ready", flush=True)
for run_id in sys.stdin:
    run_id = run_id.strip()
    taken = backup.take_backup(readiness.BackupRequest(
        settings, given["backups"], kind="before_migration", version="0007", bin_dir=bin_dir, content=True, run_id=run_id,
        provider=given["provider"]))
    restored = restore.restore_beside(restore.RestoreRequest(settings, taken.path, bin_dir=bin_dir, run_id=run_id))
    done = swap.swap(swap.SwapRequest(
        settings, restored.database, properties=manifest.load(taken.path).properties, run_id=run_id,
        state_dir=given["runs"], backup_id=taken.id))
    print(done.kept, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Scene:
    """A live database, and the folders of its backups and runs."""

    database: Database
    folder: pathlib.Path
    provider: str = "dump"
    bin_dir: str = ""

    @property
    def server(self) -> PostgresServer:
        return self.database.server

    @property
    def backups(self) -> pathlib.Path:
        return self.folder / "backups"

    @contextlib.contextmanager
    def process(self) -> Iterator[Process]:
        """A process that waits to be told to run."""
        given = {
            "settings": self.database.connection_arguments(),
            "bin_dir": self.bin_dir or str(self.server.bin_dir),
            "backups": str(self.backups),
            "runs": str(self.folder / "runs"),
            "provider": self.provider,
        }
        running = subprocess.Popen(
            [sys.executable, "-c", SEQUENCE],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process = Process(running)
        try:
            process.tell(json.dumps(given))
            assert process.hears() == "ready"
            yield process
        finally:
            running.kill()
            running.communicate()

    def others(self) -> list[str]:
        """Databases beside the live one."""
        rows = self.server.execute(
            f"SELECT datname FROM pg_database WHERE datname LIKE '{self.database.name}\\_%' ORDER BY 1"
        )
        return [name for (name,) in rows]

    def assert_only_whole_backups(self) -> None:
        """What the catalog shows is valid, whoever was killed."""
        # A clone that took the live name is a backup no more, and rightly said to be none; its files are whole.
        level = "checksum" if self.provider == "dump" else "manifest"
        for entry in backup_catalog.list_backups(str(self.backups)) if self.backups.exists() else []:
            assert backup_catalog.inspect(entry.path, level=level).reason == ""

    def crashes(self) -> int:
        """How often a process of the server was ended by a signal, which ends all connections."""
        return self.server.log_file.read_text(encoding="utf-8", errors="replace").count("was terminated by signal")

    def assert_nothing_left(self) -> None:
        """No folder in the making, no file of an exchange, and no databases but replaced ones and published clones."""
        assert [path.name for path in self.backups.iterdir() if path.name.startswith(".")] == []
        assert [path.name for path in (self.folder / "runs").iterdir()] == []
        clones = {
            entry.manifest.clone.get("database")
            for entry in backup_catalog.list_backups(str(self.backups))
            if entry.manifest is not None
        }
        assert [name for name in self.others() if "_replaced_" not in name and name not in clones] == []

    def content(self) -> list[tuple[t.Any, ...]]:
        """Rows of both tables."""
        return self.database.execute("SELECT (SELECT count(*) FROM orders), (SELECT sum(order_id) FROM lines)")


@dataclasses.dataclass(frozen=True)
class Process:
    """The one that is killed."""

    running: subprocess.Popen[str]

    def tell(self, line: str) -> None:
        assert self.running.stdin is not None
        self.running.stdin.write(line + "\n")
        self.running.stdin.flush()

    def hears(self) -> str:
        """The next line that it writes."""
        assert self.running.stdout is not None
        line = self.running.stdout.readline().rstrip("\n")
        assert line, self.running.communicate()[1]
        return line


class Watch(threading.Thread):
    """Connects to the live database and looks for its name, all the time."""

    def __init__(self, server: PostgresServer, name: str, connects: bool) -> None:
        super().__init__(daemon=True)
        self.server, self.name_of_it, self.connects = server, name, connects
        self.over = threading.Event()
        self.wrong: list[str] = []
        self.connected = 0
        self.longest = 0.0

    def run(self) -> None:
        last = time.monotonic()
        with contextlib.closing(self.server.connect(autocommit=True)) as session, session.cursor() as cursor:
            while not self.over.wait(0.02):
                cursor.execute("SELECT count(*) FROM pg_database WHERE datname = %s", (self.name_of_it,))
                if cursor.fetchall() != [(1,)]:
                    self.wrong.append("no database of this name")
                if self.connects and self._connect():
                    self.connected += 1
                    self.longest = max(self.longest, time.monotonic() - last)
                    last = time.monotonic()

    def _connect(self) -> bool:
        try:
            with contextlib.closing(self.server.connect(self.name_of_it)) as session, session.cursor() as cursor:
                cursor.execute("SELECT 1 FROM orders LIMIT 1")
                return cursor.fetchall() == [(1,)]
        except psycopg2.OperationalError as err:
            if not any(text in str(err) for text in PASSING):
                self.wrong.append(str(err))
        return False


@contextlib.contextmanager
def watched(scene: Scene) -> Iterator[None]:
    """Nobody ever finds the live database missing or closed."""
    # A clone is made only while nobody is connected.
    watch = Watch(scene.server, scene.database.name, connects=scene.provider == "dump")
    watch.start()
    try:
        yield
    finally:
        watch.over.set()
        watch.join(30)
    assert not watch.is_alive()
    assert watch.wrong == []
    assert watch.longest < LONGEST_SECONDS
    assert watch.connected or scene.provider != "dump"


@pytest.fixture(params=["dump", "clone"])
def scene(request: pytest.FixtureRequest, database: Database, tmp_path: pathlib.Path) -> Iterator[Scene]:
    database.execute(SCHEMA)
    found = Scene(database, tmp_path, request.param)
    yield found
    for name in found.others():
        database.server.drop_database(name)


def spread(seconds: float, number: int) -> list[float]:
    """Random moments, one in each equal part of a duration."""
    chosen = random.Random(SEED)  # noqa: S311 - the same moments each time
    return [(part + chosen.random()) / number * seconds for part in range(number)]


def test_killed_at_ten_random_moments_and_run_again(scene: Scene) -> None:
    number = MOMENTS if scene.provider == "dump" else MOMENTS // 3
    before, crashes = scene.content(), scene.crashes()
    with contextlib.ExitStack() as stack:
        stack.enter_context(watched(scene))
        again = stack.enter_context(scene.process())
        again.tell("undisturbed")
        began = time.monotonic()
        again.hears()
        whole = time.monotonic() - began
        scene.assert_nothing_left()
        for moment in spread(whole, number):
            with scene.process() as process:
                process.tell(f"killed-{moment:.3f}")
                time.sleep(moment)
                process.running.send_signal(signal.SIGKILL)
                process.running.wait()
                # At once: what the server does for the dead one is not waited for.
                scene.assert_only_whole_backups()
                again.tell(f"again-{moment:.3f}")
                again.hears()
            scene.assert_nothing_left()
            scene.assert_only_whole_backups()
            assert scene.content() == before
            for name in [name for name in scene.others() if "_replaced_" in name]:
                scene.server.drop_database(name)
    assert scene.crashes() == crashes
    print(f"a run of {whole:.2f} s, killed {number} times")


def test_a_pg_dump_that_goes_on_for_a_dead_run_leaves_no_folder(database: Database, tmp_path: pathlib.Path) -> None:
    """Its folder is locked when the next backup begins, and free before that ends."""
    database.execute(SCHEMA)
    begun, go_on = tmp_path / "begun", tmp_path / "go_on"
    script = f'if mkdir {begun} 2>/dev/null; then while [ ! -e {go_on} ]; do sleep 0.02; done; else touch {go_on}; sleep 0.5; fi; exec "$REAL" "$@"'
    programs = wrapped_programs(tmp_path / "bin", str(database.server.bin_dir), pg_dump=script)
    scene = Scene(database, tmp_path, bin_dir=programs)
    with scene.process() as process:
        process.tell("killed")
        wait_for(begun.exists)
    assert [path.name for path in scene.backups.iterdir() if path.name.startswith(".partial-")]
    with scene.process() as process:
        process.tell("again")
        process.hears()
    scene.assert_nothing_left()
    for name in scene.others():
        database.server.drop_database(name)
