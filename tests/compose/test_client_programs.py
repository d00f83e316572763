# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client programs that are only in the database's container: backup, read back, restore, and nothing left inside."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import textwrap
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import backup, backup_levels, manifest, readiness, restore
from ansible_collections.cypher.rollback.plugins.module_utils.client_programs import Wanted, find_programs
from ansible_collections.cypher.rollback.plugins.module_utils.compose import Compose
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.errors import FailedUnchanged, Refused
from ansible_collections.cypher.rollback.plugins.module_utils.exec_place import ExecPlace
from ansible_collections.cypher.rollback.plugins.module_utils.exec_session import Session
from ansible_collections.cypher.rollback.plugins.module_utils.table_restore import TableRestoreRequest, restore_tables

from tests.support.runbook import wait_until

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.support.compose_project import ComposeProject

IN_DATABASE = ("docker", "compose", "exec", "-T", "db")


def place_of(project: ComposeProject, *argv: str, **others: t.Any) -> ExecPlace:
    return ExecPlace(argv or IN_DATABASE, chdir=str(project.project), **others)


def settings_of(project: ComposeProject) -> ConnectionSettings:
    values = project.values
    return ConnectionSettings(
        "127.0.0.1", int(values["ERP_DB_PORT"]), values["ERP_DB_NAME"], "postgres", values["ERP_DB_PASSWORD"]
    )


def request_of(project: ComposeProject, folder: Path, **others: t.Any) -> readiness.BackupRequest:
    wanted = {"version": "0004", "place": place_of(project), "content": True, "bin_dir": "", **others}
    return readiness.BackupRequest(settings=settings_of(project), backup_dir=str(folder), **wanted)


def left_inside(project: ComposeProject) -> list[str]:
    """Working folders, and programs of ours, that are still in the container."""
    folders = project.compose("exec", "-T", "db", "sh", "-c", "ls /tmp | grep cypher || true").split()
    programs = project.compose(
        "exec", "-T", "db", "sh", "-c", "cat /proc/[0-9]*/comm | grep -E 'pg_(dump|restore)' || true"
    )
    return [*folders, *programs.split()]


def test_a_backup_is_taken_read_back_and_restored(project: ComposeProject, tmp_path: Path) -> None:
    # What every command line was, and what it read, is kept, as any user of the host could see it.
    seen = tmp_path / "seen"
    recorder = tmp_path / "recorder"
    recorder.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexec "$@"\n', encoding="utf-8")
    recorder.chmod(0o755)
    place = place_of(project, str(recorder), *IN_DATABASE)

    taken = backup.take_backup(request_of(project, tmp_path / "backups", place=place, jobs=2, compress=True))

    assert taken.verified
    assert any(taken.tables.values())
    written = [path for path in (tmp_path / "backups").rglob("*") if taken.id in str(path)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o700, 0o600}
    assert {path.stat().st_uid for path in written} == {os.geteuid()}
    described = manifest.load(taken.path)
    assert described.tools["bin_dir"] == shlex.join(place.argv)
    assert left_inside(project) == []
    assert "pg_dump" in seen.read_text(encoding="utf-8")
    assert "--jobs=2" in seen.read_text(encoding="utf-8")
    assert project.values["ERP_DB_PASSWORD"] not in seen.read_text(encoding="utf-8")

    means = backup_levels.Means(settings_of(project), place=place_of(project))
    assert backup_levels.prove(taken.path, described, "restore", means) == backup_levels.Proof(True, "restore")
    assert left_inside(project) == []

    project.execute("DELETE FROM b2b.order_items_snapshot; UPDATE b2b.products SET list_price = 0")
    tables = ["b2b.products", "b2b.order_items_snapshot"]
    done = restore_tables(TableRestoreRequest(settings_of(project), taken.path, tables, place=place_of(project)))
    assert done.committed
    assert sum(table.inserted + table.updated for table in done.tables) > 0
    assert project.execute("SELECT count(*) FROM b2b.products WHERE list_price = 0") == [(0,)]
    assert left_inside(project) == []

    beside = restore.restore_beside(
        restore.RestoreRequest(settings_of(project), taken.path, place=place_of(project), jobs=2)
    )
    found = project.execute("SELECT count(*) FROM b2b.orders", beside.database)
    assert found == project.execute("SELECT count(*) FROM b2b.orders")
    project.execute(f'DROP DATABASE "{beside.database}"', "postgres")
    assert left_inside(project) == []


def test_what_fails_inside_leaves_nothing_and_says_why(project: ComposeProject, tmp_path: Path) -> None:
    taken = backup.take_backup(request_of(project, tmp_path))
    with open(f"{taken.path}/dump/toc.dat", "r+b") as file:
        file.write(b"XXXXX")
    # pg_restore is asked although its manifest is wrong, because it is its words that count here.
    described = dataclasses.replace(manifest.load(taken.path), files=())
    means = backup_levels.Means(place=place_of(project))
    proof = backup_levels._read_archive(taken.path, described, means)
    assert proof.valid is False
    assert "pg_restore failed with exit code 1" in proof.reason
    assert left_inside(project) == []


KILLED = """
    import sys, time
    from ansible_collections.cypher.rollback.plugins.module_utils.client_programs import ExecTools
    from ansible_collections.cypher.rollback.plugins.module_utils.exec_place import ExecPlace

    tools = ExecTools(ExecPlace(("docker", "compose", "exec", "-T", "db"), chdir=sys.argv[1]))
    tools.start(["pg_dump", "--format=directory", "--file=" + sys.argv[2]], {"PGDATABASE": "cypher_erp", "PGUSER": "postgres"})
    time.sleep(60)
"""


def test_nothing_is_left_where_the_process_is_killed(project: ComposeProject, tmp_path: Path) -> None:
    with project.connect() as holder, holder.cursor() as cursor:
        # pg_dump waits for it.
        cursor.execute("LOCK TABLE b2b.orders IN ACCESS EXCLUSIVE MODE")
        argv = [sys.executable, "-c", textwrap.dedent(KILLED), str(project.project), str(tmp_path / "dump")]
        with subprocess.Popen(argv) as process:
            wait_until(lambda: "pg_dump" in left_inside(project), 20)
            process.send_signal(signal.SIGKILL)
        wait_until(lambda: left_inside(project) == [], 20)


RESTARTED = """#!/bin/sh
case "$*" in *pg_dump*--file*) (sleep 1; docker restart --time 1 {identity}) >/dev/null 2>&1 & ;; esac
exec "$@"
"""


def test_nothing_is_left_where_the_container_is_restarted(project: ComposeProject, tmp_path: Path) -> None:
    recorder = tmp_path / "recorder"
    recorder.write_text(RESTARTED.format(identity=project.containers()["db"]["Id"]), encoding="utf-8")
    recorder.chmod(0o755)
    place = place_of(project, str(recorder), *IN_DATABASE)
    with Session(place, "*:*:*:*:one") as dead:
        project.compose("exec", "-T", "db", "sh", "-c", f"kill -9 $(cut -d ' ' -f 1 {dead.folder}/holder)")
        assert dead.has_ended()
        with Session(place) as other:
            assert left_inside(project) == [os.path.basename(other.folder)]
        with Session(place) as alive, Session(place):
            assert alive.run("ls", alive.folder) == "holder\n"
    with contextlib.closing(project.connect()) as holder, holder.cursor() as cursor:
        # pg_dump waits for it.
        cursor.execute("LOCK TABLE b2b.orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(FailedUnchanged, match="The container was stopped or restarted meanwhile"):
            backup.take_backup(request_of(project, tmp_path / "backups", place=place))
    wait_until(lambda: left_inside(project) == [], 20)
    project.start()


def test_a_password_of_the_container_is_not_in_the_way(project: ComposeProject, tmp_path: Path) -> None:
    place = place_of(project, "docker", "compose", "exec", "-T", "-e", "PGPASSWORD=wrong", "-e", "PGSERVICE=none", "db")
    assert backup.check_ready(request_of(project, tmp_path, place=place)).tools.version[0] == 15


def test_a_folder_that_is_a_link_is_the_project_of_whoever_works_in_it(project: ComposeProject, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "cypher-link"
    link.symlink_to(tmp_path / "real")
    service = {"image": project.values["POSTGRES_IMAGE"], "command": ["sleep", "600"], "pull_policy": "never"}
    (link / "compose.yaml").write_text(json.dumps({"services": {"db": service}}), encoding="utf-8")
    subprocess.run(["docker", "compose", "up", "--detach"], cwd=link, env={**os.environ, "PWD": str(link)}, check=True)
    try:
        with Session(ExecPlace(IN_DATABASE, chdir=str(link))) as session:
            assert session.run("echo", "here") == "here\n"
    finally:
        subprocess.run(["docker", "compose", "-p", "cypher-link", "down", "--timeout", "1"], check=True)


def test_a_secret_that_docker_compose_cannot_read_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        '{services: {db: {image: "local/db", environment: {A: "$A"}}}}', encoding="utf-8"
    )
    for broken in ('A="S3cr3t\n', "A=${S3cr3t\n"):
        (tmp_path / ".env").write_text(broken, encoding="utf-8")
        for ask in (lambda: Session(ExecPlace(IN_DATABASE, chdir=str(tmp_path))), Compose(str(tmp_path)).config):
            with pytest.raises(Refused, match=r"\.env: .*a value that is not shown") as refused:
                ask()
            assert "S3cr3t" not in str(refused.value)


def test_what_cannot_work_is_refused_by_the_name_of_its_setting(project: ComposeProject, tmp_path: Path) -> None:
    def refusal(**others: t.Any) -> str:
        with pytest.raises(Refused) as refused:
            backup.check_ready(request_of(project, tmp_path, **others))
        return str(refused.value)

    assert "rollback_pg_exec" in refusal(place=place_of(project, "docker", "compose", "exec", "-T", "nothing"))
    assert "cannot be started" in refusal(place=place_of(project, "/no/docker"))
    assert "rollback_project_dir" in refusal(place=dataclasses.replace(place_of(project), chdir="/nowhere"))
    assert "rollback_pg_exec_dir" in refusal(place=place_of(project, folder="/nowhere"))
    assert "rollback_pg_bin_dir" in refusal(place=place_of(project, "docker", "compose", "exec", "-T", "mail"))
    assert "rollback_pg_exec_port" in refusal(place=place_of(project, port=1))
    identity = project.containers()["db"]["Id"]
    assert "-i" in refusal(place=place_of(project, "docker", "exec", identity))
    with pytest.raises(Refused, match="PostgreSQL 14"):
        find_programs(Wanted(14, place=place_of(project)))
    with pytest.raises(Refused, match="reach the cluster"):
        find_programs(Wanted(15, place=place_of(project)), settings_of(project), "1")
    assert left_inside(project) == []


def test_other_commands_than_compose_do_as_well(project: ComposeProject, tmp_path: Path) -> None:
    identity = project.containers()["db"]["Id"]
    place = place_of(project, "docker", "exec", "-i", identity, host="/var/run/postgresql", folder="/var")
    ready = backup.check_ready(request_of(project, tmp_path, place=place))
    assert ready.tools.version[0] == 15
    with Session(place, "*:*:*:*:it's \\: a $(password)") as session:
        assert session.run("cat", f"{session.folder}/passfile") == "*:*:*:*:it's \\: a $(password)\n"
        assert session.run("stat", "-c", "%a", session.folder, f"{session.folder}/passfile").split() == ["700", "600"]
