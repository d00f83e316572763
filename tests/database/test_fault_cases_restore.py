# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbered fault cases of the emergency restore, against a real server. Where the test of a case is elsewhere:

48  test_emergency::test_a_truncated_newest_backup_is_passed_over_and_said,
    test_backup_catalog::test_a_truncated_newer_one_is_passed_over_and_never_where_it_was_named (with the time between them)
50  test_emergency::test_without_a_valid_backup_nothing_is_stopped
52  test_restore::test_pg_restore_failing, ::test_sigkill_leaves_what_the_next_run_drops,
    ::test_a_server_that_goes_down_leaves_a_database_that_is_named; the full disk is here
53  test_restore_killed::test_killed_at_ten_random_moments_and_run_again,
    test_emergency::test_a_run_that_is_killed_in_the_restore_can_be_run_again; the crash of the server is here
54  test_swap::test_killed_between_the_renames_and_the_commit_it_leaves_nothing, ::test_killed_at_ten_random_moments...,
    ::test_a_server_that_stops_in_the_middle_has_everything_when_it_is_back
55  test_swap::test_clients_that_keep_reconnecting_do_not_keep_it_from_ending,
    ::test_sessions_that_the_role_cannot_end_are_named_and_everybody_is_let_in_again (the deadline)
56  test_restore::test_missing_roles_are_refused_or_created_without_passwords
57  test_restore::test_an_extension_that_the_server_cannot_install
58  test_restore_property, with every property changed; test_swap::test_the_live_database_has_the_properties_of_the_manifest
59  test_restore::test_what_differs_from_the_manifest_is_dropped; that there is nothing to exchange then is here
60  test_emergency::test_an_unhealthy_application_is_swapped_back_where_that_is_set, and
    ::test_an_unhealthy_application_is_left_with_the_two_commands
61  test_backup_catalog::test_nothing_reads_an_archive_whose_checksum_or_signature_is_wrong (verification); the restore is here
64  test_fault_cases_backup; 66 there, and test_retention::test_the_last_valid_one_survives_damaged_newer_ones

68 is each of these files on every major version (``--pg-major all``); here, that the outcome is the same on each.
Distributions and versions of Ansible are for the matrix that runs them.
"""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import threading
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    manifest,
    pg_tools,
    readiness,
    restore,
    restore_plan,
    retention,
    selection,
    swap,
)
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.server import Target, inspect_target

from tests.support.backups import small_device, wait_for, wrapped_programs
from tests.support.postgres_server import UNPRIVILEGED, PostgresServer, find_installations

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

KEY = "a key from the vault"

SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, note text);
INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 500) i;
CREATE SEQUENCE numbers;
SELECT nextval('numbers'), lo_from_bytea(0, 'abc');
"""


@dataclasses.dataclass(frozen=True)
class Shop:
    """A live database and the folder of its backups."""

    server: PostgresServer
    live: str
    backups: pathlib.Path

    @property
    def settings(self) -> ConnectionSettings:
        return ConnectionSettings(**self.server.connection_arguments(self.live))

    def take(self, **changes: t.Any) -> str:
        """A backup; its folder."""
        fields: dict[str, t.Any] = {
            "settings": self.settings,
            "kind": "before_migration",
            "version": "0007",
            "bin_dir": str(self.server.bin_dir),
            "content": True,
        }
        return str(
            backup.take_backup(readiness.BackupRequest(backup_dir=str(self.backups), **{**fields, **changes})).path
        )

    def request(self, path: str, **changes: t.Any) -> restore.RestoreRequest:
        fields: dict[str, t.Any] = {"bin_dir": str(self.server.bin_dir), "run_id": "run-1"}
        return restore.RestoreRequest(self.settings, path, **{**fields, **changes})

    def trapped(self, path: str, folder: pathlib.Path, **changes: t.Any) -> tuple[restore.RestoreRequest, pathlib.Path]:
        """A request whose programs leave a file when one of them is asked for more than its version."""
        called = folder / "called"
        script = f'touch {called}; exec "$REAL" "$@"'
        programs = wrapped_programs(folder / "bin", str(self.server.bin_dir), pg_restore=script, pg_dump=script)
        return self.request(path, bin_dir=programs, **changes), called

    def exchange(self, incoming: str, path: str) -> swap.Swapped:
        properties = manifest.load(path).properties
        return swap.swap(swap.SwapRequest(self.settings, incoming, properties=properties, run_id="run-1"))

    def choose(self, **options: t.Any) -> selection.Choice:
        return selection.choose(str(self.backups), self.target, **options)

    @property
    def target(self) -> Target:
        with contextlib.closing(self.server.connect(self.live)) as connection:
            return inspect_target(connection, self.settings)

    def others(self) -> list[str]:
        """Databases beside the live one."""
        names = [name for (name,) in self.server.execute("SELECT datname FROM pg_database ORDER BY 1")]
        stem = self.live.encode()[:24].decode(errors="ignore")
        return [name for name in names if name.startswith(stem) and name != self.live]

    def rows(self, database: str = "") -> list[tuple[t.Any, ...]]:
        return self.server.execute("SELECT count(*), min(note) FROM orders", database or self.live)


WHOLE = [(500, "order 1")]
DAMAGE = "DELETE FROM orders WHERE id > 10; UPDATE orders SET note = 'damaged'"
DAMAGED = [(10, "damaged")]


@pytest.fixture
def shop(database: Database, tmp_path: pathlib.Path) -> Iterator[Shop]:
    database.execute(SCHEMA)
    found = Shop(database.server, database.name, tmp_path / "backups")
    yield found
    if not found.server.running:
        found.server.start()
    for name in found.others():
        found.server.drop_database(name)


def refused_everywhere(request: restore.RestoreRequest, words: str) -> None:
    """By the check, by the restore, and by the verification."""
    for attempt in (restore.check_restorable, restore.restore_beside, restore.verify_by_restore):
        with pytest.raises(Refused, match=words):
            attempt(request)


def edit(path: str, **changes: t.Any) -> None:
    """Change a manifest and nothing else, as somebody would who has no key."""
    file = pathlib.Path(path, manifest.NAME)
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


# --- which backup -----------------------------------------------------------------------------------------------------


def test_case_49_the_newest_backup_was_taken_after_the_migration(shop: Shop, tmp_path: pathlib.Path) -> None:
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    up = "CREATE TABLE campaigns (id int)"
    (migrations / "0007-campaigns.sql").write_text(f"{up};\n-- DOWN\nDROP TABLE campaigns;\n", "utf-8")
    options = {"migrations_dir": str(migrations), "search_path": ("public",)}
    before = shop.take(**options)
    shop.server.execute(up, shop.live)
    after = shop.take(**options)
    assert (manifest.load(before).applied, manifest.load(after).applied) == (False, True)
    choice = shop.choose()
    assert choice.entry.id == os.path.basename(before)
    ((skipped, reason),) = [(each.id, each.reason) for each in choice.skipped]
    assert skipped == os.path.basename(after)
    assert "taken after the migration" in reason
    with pytest.raises(selection.NoValidBackup, match="No other one is taken in its place"):
        shop.choose(named=skipped)


def test_case_51_backups_of_another_cluster_and_database_in_the_folder(shop: Shop) -> None:
    own = shop.take()
    with PostgresServer(shop.server.original_bin_dir) as elsewhere:
        elsewhere.create_database(shop.live)
        elsewhere.execute(SCHEMA, shop.live)
        foreign = Shop(elsewhere, shop.live, shop.backups).take(version="0008")
    beside = f"{shop.live}_other"
    shop.server.create_database(beside, template=shop.live)
    other = Shop(shop.server, beside, shop.backups).take(version="0009")
    choice = shop.choose()
    assert choice.entry.id == os.path.basename(own)
    reasons = {each.id: each.reason for each in choice.skipped}
    assert "of another cluster" in reasons[os.path.basename(foreign)]
    assert "of the database" in reasons[os.path.basename(other)]
    for path in (foreign, other):
        with pytest.raises(selection.NoValidBackup, match="No other one is taken in its place"):
            shop.choose(named=os.path.basename(path))
    refused_everywhere(shop.request(foreign), "of the cluster")
    refused_everywhere(shop.request(other), "of the database")


# --- failing in the middle --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_a_small_disk(shop: Shop, megabytes: int) -> Iterator[pathlib.Path]:
    """A server of its own, whose database lies in a tablespace on a small file system."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(small_device(shop.server.folder / "small", megabytes))
        # The file system is in use for as long as the server is.
        stack.callback(shop.server.stop, "immediate")
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
        shop.server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        shop.server.execute(f"CREATE DATABASE {shop.live} TABLESPACE small")
        yield folder


def test_case_52_the_servers_disk_gets_full(tmp_path: pathlib.Path, server: PostgresServer) -> None:
    with PostgresServer(server.original_bin_dir) as own:
        shop = Shop(own, "shop", tmp_path / "backups")
        with on_a_small_disk(shop, 128) as folder:
            own.execute(SCHEMA, "shop")
            own.execute("CREATE TABLE big AS SELECT md5(i::text) FROM generate_series(1, 60000) i", "shop")
            path = shop.take()
            own.execute(DAMAGE, "shop")
            # A database that is new itself has pages without room on the disk, and dropping another one writes them.
            own.execute("CHECKPOINT")
            script = f'head -c 200m /dev/zero > {folder}/filler 2>/dev/null; exec "$REAL" "$@"'
            programs = wrapped_programs(tmp_path / "bin", str(own.bin_dir), pg_restore=script)
            with pytest.raises(FailedUnchanged, match=r"No space left on device.*The live database is as it was"):
                restore.restore_beside(shop.request(path, bin_dir=programs))
            assert shop.others() == []
            assert shop.rows() == DAMAGED
            refused_everywhere(shop.request(path), r"may need \d+ MB on the server, and")
            (folder / "filler").unlink()
            done = shop.exchange(restore.restore_beside(shop.request(path)).database, path)
            assert (shop.rows(), shop.rows(done.kept)) == (WHOLE, DAMAGED)


@pytest.mark.parametrize("run_id", ["run-1", "run-2"])
def test_case_53_the_server_goes_down_between_restore_and_exchange(
    tmp_path: pathlib.Path, server: PostgresServer, run_id: str
) -> None:
    """What said that it is complete is so after a crash, too; a run of its own starts over."""
    with PostgresServer(server.original_bin_dir, durable=True) as own:
        shop = Shop(own, "shop", tmp_path / "backups")
        own.create_database("shop")
        own.execute(SCHEMA, "shop")
        path = shop.take()
        own.execute(DAMAGE, "shop")
        restored = restore.restore_beside(shop.request(path)).database
        own.kill()
        own.start()
        assert (shop.rows(), shop.rows(restored)) == (DAMAGED, WHOLE)
        if run_id != "run-1":
            again = restore.restore_beside(shop.request(path, run_id=run_id))
            assert again.left_overs == (restored,)
            restored = again.database
        done = shop.exchange(restored, path)
        assert (shop.rows(), shop.others()) == (WHOLE, [done.kept])


def test_case_59_rows_that_differ_from_the_manifest_leave_nothing_to_exchange(shop: Shop) -> None:
    path = shop.take()
    tables = json.loads(pathlib.Path(path, manifest.NAME).read_text("utf-8"))["tables"]
    shop.server.execute(DAMAGE, shop.live)
    for wrong, words in (
        ({"rows": 501}, "has 501 rows in the backup and 500"),
        ({"hash": "1"}, "have another content"),
    ):
        edit(path, tables={**tables, "public.orders": {**tables["public.orders"], **wrong}})
        with pytest.raises(FailedUnchanged, match=words):
            restore.restore_beside(shop.request(path))
        assert shop.others() == []
    assert shop.rows() == DAMAGED


# --- tampering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["manifest", "archive", "archive and its checksum", "an unsigned one in its place"])
def test_case_61_nothing_opens_what_the_key_does_not_prove(shop: Shop, tmp_path: pathlib.Path, what: str) -> None:
    path = shop.take(key=KEY)
    shop.server.execute("CREATE FUNCTION crafted() RETURNS int LANGUAGE sql AS 'SELECT 1'", shop.live)
    crafted = shop.take(version="0008")
    if what == "manifest":
        edit(path, version="0001")
    elif what == "an unsigned one in its place":
        os.rename(path, f"{path}.away")
        os.rename(crafted, path)
        edit(path, id=os.path.basename(path))
    else:
        os.rename(os.path.join(path, "dump"), tmp_path / "away")
        os.rename(os.path.join(crafted, "dump"), os.path.join(path, "dump"))
        files = json.loads(pathlib.Path(crafted, manifest.NAME).read_text("utf-8"))["files"]
        if what == "archive and its checksum":
            edit(path, files=files)
    request, called = shop.trapped(path, tmp_path, key=KEY)
    refused_everywhere(request, "rollback_backup_key|is not as it was written|manifest")
    with pytest.raises(selection.NoValidBackup, match=os.path.basename(path)):
        shop.choose(named=os.path.basename(path), key=KEY)
    assert not called.exists()
    assert shop.others() == []


HOSTILE_PATHS = ("../../x", "/etc/passwd", "..", ".", "a/../../x", "dump/../../../etc/passwd", "x\\..\\y", "a\nb")


@pytest.mark.parametrize("name", HOSTILE_PATHS)
def test_case_62_paths_that_lead_out_of_the_folder(shop: Shop, tmp_path: pathlib.Path, name: str) -> None:
    """As a backup's name, as a version, and as the name of a file in a manifest."""
    shop = dataclasses.replace(shop, backups=tmp_path / "deep" / "backups")
    path = shop.take()
    # What the traversal is after: a whole backup of this very database, in another folder.
    os.rename(shop.take(version="0008"), tmp_path / "x")
    asked = restore_plan.RestorePlanRequest(
        shop.settings, str(shop.backups), backup=name, bin_dir=str(shop.server.bin_dir), run_dir=str(tmp_path / "runs")
    )
    with pytest.raises(Refused, match="There is no backup"):
        restore_plan.plan_restore(asked)
    with pytest.raises(Refused, match="version"):
        shop.take(version=name)
    content = json.loads(pathlib.Path(path, manifest.NAME).read_text("utf-8"))
    request, called = shop.trapped(path, tmp_path)
    if name != "a\nb":
        edit(path, files=[*content["files"], {**content["files"][0], "path": name}])
        refused_everywhere(request, "leads out of the backup's folder")
    edit(path, id=name)
    refused_everywhere(request, "manifest|its name")
    assert not called.exists()
    assert [entry.name for entry in shop.backups.iterdir()] == [os.path.basename(path)]


@pytest.mark.parametrize(
    "what", ["folder is a link", "folder of another user", "file is a link", "file of another user"]
)
def test_case_63_links_and_what_belongs_to_another_user(shop: Shop, tmp_path: pathlib.Path, what: str) -> None:
    older, newer = shop.take(), shop.take(version="0008")
    victim = pathlib.Path(newer)
    if what.startswith("file"):
        victim = max((victim / "dump").iterdir(), key=lambda file: file.stat().st_size)
    if what.endswith("link"):
        away = tmp_path / "away"
        os.rename(victim, away)
        victim.symlink_to(away)
    elif os.geteuid() == 0:
        os.chown(victim, UNPRIVILEGED, UNPRIVILEGED)
    else:
        pytest.skip("only root can give a file away")
    request, called = shop.trapped(newer, tmp_path)
    refused_everywhere(request, "link|belongs to")
    choice = shop.choose()
    assert choice.entry.id == os.path.basename(older)
    assert [each.id for each in choice.skipped] == [os.path.basename(newer)]
    with pytest.raises(Refused, match=r"link|belongs to"):
        shop.choose(named=os.path.basename(newer))
    assert not called.exists()


# --- others at work ---------------------------------------------------------------------------------------------------


def test_case_65_retention_runs_while_a_restore_reads(shop: Shop, tmp_path: pathlib.Path) -> None:
    path, newest = shop.take(), shop.take()
    reading, go_on = tmp_path / "reading", tmp_path / "go_on"
    script = f'touch {reading}; while [ ! -e {go_on} ]; do sleep 0.02; done; exec "$REAL" "$@"'
    programs = wrapped_programs(tmp_path / "bin", str(shop.server.bin_dir), pg_restore=script)
    restored: list[restore.Restored] = []
    thread = threading.Thread(
        target=lambda: restored.append(restore.restore_beside(shop.request(path, bin_dir=programs)))
    )
    thread.start()
    try:
        wait_for(reading.exists)
        done = retention.expire(str(shop.backups), retention.Policy(1))
        assert (done.removed, os.path.isdir(path)) == ((), True)
        assert retention.IN_USE in [decision.reason for decision in done.kept]
    finally:
        go_on.touch()
        thread.join(60)
    assert shop.rows(restored[0].database) == WHOLE
    done = retention.expire(str(shop.backups), retention.Policy(1))
    assert [decision.entry.path for decision in done.removed] == [path]
    assert os.path.isdir(newest)


# --- names, versions, programs ----------------------------------------------------------------------------------------

#: Rows, the bytes of their text, the sequence, and the large objects.
STATE = """
SELECT (SELECT count(*) FROM orders)::int, (SELECT sum(length(o.id || note)) FROM orders o)::int,
       (SELECT last_value FROM numbers)::int, (SELECT count(*) FROM pg_largeobject_metadata)::int
"""

NAMES = ('it\'s "quoted" %s %(x)s \\', " new\nline\ttab ", "表" * 21, "x" * 61 + "ü", "-d host=nowhere; DROP")


@pytest.mark.parametrize("name", NAMES)
def test_case_67_any_name_through_backup_restore_and_exchange(
    server: PostgresServer, tmp_path: pathlib.Path, name: str
) -> None:
    shop = Shop(server, name, tmp_path / "backups")
    server.create_database(name)
    try:
        server.execute(SCHEMA, name)
        path = shop.take()
        server.execute(DAMAGE, name)
        assert shop.choose().entry.path == path
        done = shop.exchange(restore.restore_beside(shop.request(path)).database, path)
        assert (shop.rows(), shop.rows(done.kept), shop.others()) == (WHOLE, DAMAGED, [done.kept])
    finally:
        for other in (name, *shop.others()):
            server.drop_database(other)


def test_case_68_the_outcome_is_the_same_on_every_major(tmp_path: pathlib.Path) -> None:
    found: dict[int, t.Any] = {}
    for installation in find_installations():
        with PostgresServer(installation.bin_dir) as own:
            shop = Shop(own, "shop", tmp_path / str(installation.major))
            own.create_database("shop")
            own.execute(SCHEMA, "shop")
            path = shop.take()
            own.execute(f"{DAMAGE}; SELECT nextval('numbers'), lo_unlink(oid) FROM pg_largeobject_metadata", "shop")
            restored = restore.restore_beside(shop.request(path))
            done = shop.exchange(restored.database, path)
            states = [own.execute(STATE, name) for name in ("shop", done.kept)]
            found[installation.major] = (*states, restored.tables, len(shop.others()), sorted(os.listdir(path)))
    first = found[min(found)]
    assert (first[0], first[1], first[2]) == ([(500, 5784, 1, 1)], [(10, 81, 2, 0)], {"public.orders": 500})
    assert {major: outcome for major, outcome in found.items() if outcome != first} == {}


def test_case_69_programs_with_a_known_vulnerability(shop: Shop, tmp_path: pathlib.Path) -> None:
    path = shop.take()
    major = restore.check_restorable(shop.request(path)).target.server_major
    if major not in pg_tools.FIXED_IN[0][2]:
        pytest.skip(f"no vulnerability of PostgreSQL {major} is recorded")
    old = tmp_path / "old"
    old.mkdir()
    for program in pg_tools.PROGRAMS:
        real = shop.server.bin_dir / program
        says = f"{program} (PostgreSQL) {major}.0"
        script = f'#!/bin/sh\ncase "$*" in *--version*) echo "{says}";; *) exec {real} "$@";; esac\n'
        (old / program).write_text(script, "utf-8")
        (old / program).chmod(0o755)
    request = shop.request(path, bin_dir=str(old))
    refused_everywhere(
        dataclasses.replace(request, require_patched=True),
        r"CVE-2026-116314.*rollback_pg_bin_dir.*rollback_require_patched_client",
    )
    assert shop.others() == []
    restored = restore.restore_beside(request)
    assert any("CVE-2026-116314" in warning and f"{major}.0" in warning for warning in restored.warnings)
