# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client programs that are only in the database's container: backup, read back, restore, and nothing left inside."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shlex
import signal
import stat
import subprocess
import sys
import textwrap
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    backup_levels,
    exec_session,
    manifest,
    readiness,
    restore,
)
from ansible_collections.cypher.rollback.plugins.module_utils.client_programs import (
    ExecTools,
    Wanted,
    _Call,
    _Executed,
    find_programs,
    run_program,
)
from ansible_collections.cypher.rollback.plugins.module_utils.compose import Compose
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings, client_environment
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.exec_place import ExecPlace
from ansible_collections.cypher.rollback.plugins.module_utils.exec_session import Session
from ansible_collections.cypher.rollback.plugins.module_utils.pg_tools import ToolFailed
from ansible_collections.cypher.rollback.plugins.module_utils.table_restore import TableRestoreRequest, restore_tables

from tests.support.compose_project import LIMIT_SECONDS, POSTGRES_IMAGE, PULL_POLICY, engine_problem
from tests.support.runbook import wait_until

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


class Lone:
    """A project with nothing but a database, in a folder that a link leads to, started by a person who went there by the link."""

    def __init__(self, folder: Path) -> None:
        release = folder / f"release{secrets.token_hex(4)}"
        release.mkdir()
        self.link = folder / f"current{secrets.token_hex(4)}"
        self.link.symlink_to(release.name)
        self.place = ExecPlace(IN_DATABASE, chdir=str(self.link))
        environment = {"POSTGRES_PASSWORD": secrets.token_hex(8)}
        db = {"image": POSTGRES_IMAGE, "pull_policy": PULL_POLICY, "environment": environment}
        (release / "compose.yaml").write_text(json.dumps({"services": {"db": db}}), encoding="utf-8")

    def compose(self, *words: str) -> str:
        argv = ["sh", "-c", 'cd "$0" && docker compose "$@"', str(self.link), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True)
        return done.stdout

    def inside(self, text: str) -> str:
        return self.compose("exec", "-T", "db", "sh", "-c", text).strip()

    def folders(self) -> list[str]:
        return self.inside("ls -d /tmp/cypher-rollback-* 2>/dev/null || true").split()


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lone]:
    problem = engine_problem()
    if problem:
        pytest.skip(problem)
    project = Lone(tmp_path_factory.mktemp("lone"))
    try:
        project.compose("up", "--detach", "--wait")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "1")


def test_a_link_to_the_folder_leads_to_the_project_of_whoever_went_into_it(lone: Lone) -> None:
    [container] = Compose(str(lone.link)).containers()["db"]
    with Session(lone.place) as session:
        assert container.id.startswith(session.run("hostname").strip())
    with ExecTools(lone.place) as tools:
        assert "PostgreSQL" in tools.start(["psql", "--version"], {}).wait()


#: What is wrong in .env, or in the file beside it; where the message says that it is.
BROKEN = {
    "A='S3cr3t\nB=S3cr3t\n": ".env: line 3:",
    'A="S3cr3t\nB=S3cr3t\n': ".env: line 3:",
    "A=MII\nS3cr3t/S3cr3t==\n": ".env: line 2:",
    "S3cr3t!x=5\nB=S3cr3t\n": ".env: line 1:",
    "A=S3cr3t${S3cr3t\n": ".env: Invalid template:",
    "A=x${S3cr3t?S3cr3t}\n": ".env: required variable",
    "IN_FILE=${S3cr3t": "services.db.environment.P.",
    "IN_FILE=${S3cr3t?S3cr3t}": "services.db.environment.P:",
    "A=S3cr3t\nIN_FILE=${X:?$A}": "services.db.environment.P:",
    "IN_FILE=*S3cr3t": "unknown anchor",
    "A=S3cr3t\nPORT=S3cr3t\n": "Invalid hostPort:",
    "A=S3cr3t\nSCALE=S3cr3t\n": "services.db.scale:",
    # It is a warning, and then there is no such container.
    "A=S3cr3t\nIN_FILE=pa$S3cr3t": "is not running",
}


@pytest.mark.parametrize(("broken", "where"), BROKEN.items())
def test_what_compose_quotes_of_a_project_that_it_cannot_read_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, where: str
) -> None:
    problem = engine_problem()
    if problem:
        pytest.skip(problem)
    monkeypatch.setattr(exec_session, "ENDING_SECONDS", 0)
    environment, _equals, value = broken.partition("IN_FILE=")
    (tmp_path / ".env").write_text(environment, encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(
        f"services:\n  db:\n    image: none\n    ports: ['${{PORT-1}}:1']\n    scale: ${{SCALE-1}}\n"
        f"    environment:\n      P: {value}\n",
        encoding="utf-8",
    )
    place = ExecPlace(IN_DATABASE, chdir=str(tmp_path))
    said = []
    with pytest.raises(Refused) as refused:
        Session(place)
    said.append(str(refused.value))
    if where != "is not running":
        with pytest.raises(Refused) as refused:
            Compose(str(tmp_path)).config()
        said.append(str(refused.value))
    # A file that breaks while a run is at work.
    with Session(ExecPlace(("env",), folder=str(tmp_path))) as session:
        session.place = place
        attempts: list[Callable[[], object]] = [
            lambda: session.run("true"),
            lambda: session.stage(__file__),
            lambda: session.fetch("/x", str(tmp_path / "y")),
            lambda: _Executed(session, _Call(["psql"], None, lambda: None), {}, ()).wait(),
        ]
        for failing in attempts:
            with pytest.raises(ToolFailed) as failed:
                failing()
            said.append(f"{failed.value} {failed.value.details}")
        session.place = ExecPlace(("env",), folder=str(tmp_path))
    assert [where in text for text in said] == [True] * len(said), said
    assert not [text for text in said if "S3cr3t" in text]


@pytest.mark.parametrize(
    "variable", ["PGPASSWORD=wrong", "PGSERVICE=none", "PGHOSTADDR=127.0.0.9", "PGOPTIONS=-c search_path=none"]
)
def test_no_variable_of_the_container_stands_before_what_is_given(project: ComposeProject, variable: str) -> None:
    place = place_of(project, "docker", "compose", "exec", "-T", "-e", variable, "db", host="db")
    [(identifier,)] = project.execute("SELECT system_identifier FROM pg_control_system()")
    tools = find_programs(Wanted(15, place=place), settings_of(project), str(identifier))
    asked = ["psql", "-XAtqw", "-c", "SHOW search_path"]
    with client_environment(settings_of(project)) as env:
        assert run_program(tools, asked, env) == '"$user", public\n'
    # Nobody else knows it then, and the server asks for it at this address.
    without = dataclasses.replace(settings_of(project), password="")
    with client_environment(without) as env, pytest.raises(ToolFailed, match="password") as failed:
        run_program(tools, asked, env)
    assert ("authentication failed" in str(failed.value)) is (variable == "PGPASSWORD=wrong")


MEANWHILE = "The container was stopped or restarted meanwhile"


def test_a_container_that_restarts_meanwhile_is_told_and_keeps_nothing(lone: Lone, tmp_path: Path) -> None:
    with ExecTools(lone.place) as tools:
        waiting = tools.start(["psql", "-c", "SELECT pg_sleep(60)"], {"PGUSER": "postgres"})
        wait_until(lambda: "pg_sleep" in lone.inside("cat /proc/[0-9]*/cmdline"), 20)
        assert len(lone.folders()) == 1
        lone.compose("restart", "db")
        with pytest.raises(ToolFailed, match=MEANWHILE):
            waiting.wait()
    assert lone.folders() == []

    with Session(lone.place, "*:*:*:*:secret") as session:
        session.run("sh", "-c", 'mkdir "$0/1-dump" && echo 1 >"$0/1-dump/1.dat"', session.folder)
        lone.compose("kill", "db")
        with pytest.raises(ToolFailed, match=MEANWHILE) as failed:
            session.fetch(f"{session.folder}/1-dump", str(tmp_path / "dump"))
        assert "room" not in str(failed.value)
        with pytest.raises(ToolFailed, match=MEANWHILE):
            session.stage(__file__)
        with pytest.raises(ToolFailed, match=MEANWHILE):
            session.run("true")
        lone.compose("up", "--detach", "--wait")
        assert lone.folders() == [session.folder]
    assert lone.folders() == []


def test_what_a_container_kept_over_its_restart_is_removed_by_the_next_one(lone: Lone) -> None:
    # As of a process that is killed while the container is down.
    session = Session(lone.place, "*:*:*:*:secret")
    lone.compose("restart", "db")
    session._holder.communicate()
    session._stderr.close()
    assert lone.folders() == [session.folder]
    with Session(lone.place) as first, Session(lone.place) as second:
        assert sorted(lone.folders()) == sorted([first.folder, second.folder])
    assert lone.folders() == []


def test_only_where_there_is_no_room_inside_is_that_said(lone: Lone, tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(100_000_000)
    # Docker gives it 64 MB.
    small = "/dev/shm"  # noqa: S108 - the one of the container
    with Session(dataclasses.replace(lone.place, folder=small)) as session:
        with pytest.raises(ToolFailed, match="Make room in rollback_pg_exec_dir"):
            session.stage(str(tmp_path / "big"))
        with pytest.raises(ToolFailed, match="Look at rollback_pg_exec_dir") as failed:
            session.fetch("/nowhere", str(tmp_path / "dump"))
    assert "room" not in str(failed.value)


def test_other_commands_than_compose_do_as_well(project: ComposeProject, tmp_path: Path) -> None:
    identity = project.containers()["db"]["Id"]
    place = place_of(project, "docker", "exec", "-i", identity, host="/var/run/postgresql", folder="/var")
    ready = backup.check_ready(request_of(project, tmp_path, place=place))
    assert ready.tools.version[0] == 15
    with Session(place, "*:*:*:*:it's \\: a $(password)") as session:
        assert session.run("cat", f"{session.folder}/passfile") == "*:*:*:*:it's \\: a $(password)\n"
        assert session.run("stat", "-c", "%a", session.folder, f"{session.folder}/passfile").split() == ["700", "600"]
