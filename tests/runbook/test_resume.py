# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run whose controller was killed: what the next start says, and how it goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.backup import take_backup
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.readiness import BackupRequest

from tests.conftest import Database
from tests.support.runbook import LIMIT_SECONDS, REPOSITORY, Application, Project, Run, git, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres_server import PostgresServer

CALLBACKS = REPOSITORY / "tests" / "support" / "callbacks"

#: In their order. After the last one the report is written and the run has ended.
STAGES = (
    "plan", "checklist", "stop", "backup", "rollback", "verify", "previous_code", "restart", "smoke_test", "closing_checklist", "notify",
)  # fmt: skip

#: Ends nowhere but in the resumed run, or differs between any two runs.
CHANGING = {
    "run_id", "seconds", "started_at", "finished_at", "downtime_seconds", "phases", "id", "path", "xid", "bytes", "sessions",
    "output_file", "resumed", "tries", "swap_back_command",
}  # fmt: skip


def lasting(value: t.Any) -> t.Any:
    """A report without times, names of runs and what else no two runs have in common."""
    if isinstance(value, dict):
        return {key: lasting(entry) for key, entry in value.items() if key not in CHANGING}
    if isinstance(value, list):
        return [lasting(entry) for entry in value]
    if isinstance(value, str):
        value = re.sub(
            r" It writes to \S+: redirect the output in rollback_app_start_command\.| rollback_app_start_command is still at .*",
            "",
            value,
        )
        return re.sub(
            r"\d{8}T?_?\d{6}Z?(-[\w-]+)?|test_\w+|/tmp/[^ '\"]*|/\S*/pytest-of-[^ '\"]*|pid \d+|:\d{4,5}\b|[0-9.]+ (s|ms|seconds|kB|MB)\b|[0-9,]+ bytes"
            r"|\d{4}-\d\d-\d\dT[0-9:.]+Z|\b\d\d:\d\d(:\d\d)?( UTC)?",
            "…", value,
        )  # fmt: skip
    return value


def flat(value: t.Any, path: str = "") -> Iterator[str]:
    """A report as lines, which pytest can compare for a reader."""
    if isinstance(value, (dict, list)) and value:
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(entry, f"{path}/{key}")
    else:
        yield f"{path}: {value!r}"


def prepared(folder: Path, database: Database) -> tuple[Project, Application]:
    """A project in git whose release 0003 runs, and the one before it is tagged."""
    project = Project(folder, database)
    application = Application(project, "0002")
    git(project.project, "init", "--quiet", "--initial-branch=main")
    git(project.project, "add", "--all")
    git(project.project, "commit", "--quiet", "-m", "0002")
    git(project.project, "tag", "v2")
    application.release_file.write_text("0003\n", encoding="utf-8")
    git(project.project, "commit", "--quiet", "--all", "-m", "0003")
    project.settings["rollback_previous_ref"] = "v2"
    return project, application


def killed(project: Project, after: str, *arguments: str, playbook: str = "rollback") -> str:
    """Run until the controller kills itself, with whatever still runs below it; what it had said."""
    environment = {
        **project.environment(), "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS), "ANSIBLE_CALLBACKS_ENABLED": "kill_after", "KILL_AFTER": after,
    }  # fmt: skip
    done = subprocess.run(
        project.command(playbook, *arguments), cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    return done.stdout + done.stderr


def report_of(project: Project, run_id: str) -> dict[str, t.Any]:
    return t.cast(
        "dict[str, t.Any]", json.loads((project.backups / "runs" / run_id / "report.json").read_text(encoding="utf-8"))
    )


def end_state(project: Project, application: Application) -> tuple[str, int, str]:
    """Database, application and code."""
    return project.dump(), application.health(), git(project.project, "rev-parse", "HEAD^{tree}")


def resume(project: Project, *arguments: str, playbook: str = "rollback") -> Run:
    """Go on with the only run there is."""
    [folder] = project.run_folders()
    run = project.run("-e", f"resume={folder.name}", *arguments, playbook=playbook)
    report = folder / "report.json"
    return Run(
        run.returncode, run.output, json.loads(report.read_text(encoding="utf-8")) if report.exists() else None, folder
    )


@pytest.fixture(scope="module")
def filled(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Release 0003 with data, which has times in it: a dump of one copy is that of every other."""
    with made(server, "template0") as database:
        Project(tmp_path_factory.mktemp("filled"), database).migrate("0003", orders=20)
        yield database


@contextlib.contextmanager
def made(server: PostgresServer, template: str) -> Iterator[Database]:
    """A database from another one, dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield Database(server, name)
    finally:
        server.drop_database(name)


@pytest.fixture
def project(tmp_path: Path, server: PostgresServer, filled: Database) -> Iterator[Project]:
    with made(server, filled.name) as database:
        yield from running(*prepared(tmp_path, database))


def running(project: Project, application: Application) -> Iterator[Project]:
    """The project while its application runs, unless a test stops it."""
    with application:
        project.application = application  # type: ignore[attr-defined]  # the test's own mark
        yield project


@pytest.fixture
def application(project: Project) -> Application:
    return t.cast("Application", project.application)  # type: ignore[attr-defined]  # the test's own mark


@pytest.fixture(scope="module")
def undisturbed(
    server: PostgresServer, filled: Database, tmp_path_factory: pytest.TempPathFactory
) -> tuple[t.Any, dict[str, t.Any]]:
    """End state and report of a run that nobody killed."""
    with made(server, filled.name) as database:
        project, application = prepared(tmp_path_factory.mktemp("undisturbed"), database)
        return undisturbed_run(project, application)


def undisturbed_run(project: Project, application: Application) -> tuple[t.Any, dict[str, t.Any]]:
    with application:
        run = project.run("-e", "version=0003")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert run.report is not None
        return end_state(project, application), run.report


def assert_as_undisturbed(project: Project, application: Application, run: Run, undisturbed: t.Any) -> None:
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert end_state(project, application) == undisturbed[0]
    assert list(flat(lasting(run.report))) == list(flat(lasting(undisturbed[1])))
    assert not list((project.backups / "runs").glob(".claim-*"))
    assert len(project.published()) == 1


def test_killed_after_every_stage_and_resumed_each_time(
    project: Project, application: Application, undisturbed: t.Any
) -> None:
    killed(project, STAGES[0], "-e", "version=0003")
    [folder] = project.run_folders()
    for stage in STAGES[1:]:
        killed(project, stage, "-e", f"resume={folder.name}")
    # A survey of AWX sends what was left out as an empty text, which is above what the run remembers.
    run = resume(project, "-e", '{"version": "", "to_version": " ", "abandon": "", "rollback_hosts": ""}')
    assert_as_undisturbed(project, application, run, undisturbed)
    assert run.report is not None
    assert [entry["after"] for entry in run.report["resumed"]] == list(STAGES)
    assert all(entry["by"] for entry in run.report["resumed"])
    moments = [run.report["started_at"], *(entry["at"] for entry in run.report["resumed"])]
    assert moments == sorted(set(moments))
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    ended = [event["stage"] for event in events if event.get("status") == "finished"]
    assert [ended.count(stage) for stage in STAGES] == [1] * len(STAGES)
    for path in [*folder.glob("*.json*"), *folder.glob("stages/*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    refused = project.run("-e", f"resume={folder.name}")
    assert refused.returncode != 0
    assert "has ended as rolled_back, so there is nothing to go on with" in " ".join(refused.output.split())


def test_killed_between_the_commit_and_the_end_of_its_stage(
    project: Project, application: Application, undisturbed: t.Any
) -> None:
    killed(project, "task Run the DOWN in one transaction", "-e", "version=0003")
    [folder] = project.run_folders()
    again = project.run("-e", "version=0003")
    assert again.returncode != 0
    assert again.outcome == "refused", again.output
    said = " ".join(again.message.split())
    assert f"Run {folder.name} (rollback version=0003, begun at 20" in said
    assert (
        "died in the stage rollback. The application is stopped on cypher1. The DOWN was committed. Its last finished stage is backup."
        in said
    )
    assert f"cypher.rollback.rollback -e resume={folder.name}" in said
    assert f"-e abandon={folder.name}" in said
    assert not application.running
    run = project.run("-e", f"resume={folder.name}")
    run = Run(run.returncode, run.output, report_of(project, folder.name), folder)
    assert_as_undisturbed(project, application, run, undisturbed)


def test_killed_while_the_application_is_being_stopped(
    project: Project, application: Application, undisturbed: t.Any, tmp_path: Path
) -> None:
    begun = tmp_path / "stopping"
    project.settings["rollback_app_stop_command"] = f"{' '.join(application.commands['stop'])}; touch {begun}; sleep 60"
    run = project.start("-e", "version=0003")
    wait_until(begun.exists)
    kill_tree(run)
    assert not application.running
    project.settings["rollback_app_stop_command"] = application.commands["stop"]
    preview = project.run("-e", f"resume={project.run_folders()[0].name}", "--check")
    assert preview.returncode == 0, preview.output
    assert "The application was just being stopped on cypher1. The database is as it was." in " ".join(
        preview.output.split()
    )
    assert not application.running
    resumed = resume(project)
    assert resumed.report is not None
    stopped = resumed.report["application"]["stopped"]["cypher1"]
    assert (stopped["was_running"], stopped["stopped"]) == (True, True)
    # It tells what the dead run did: the resumed one found nothing to stop.
    resumed.report["application"]["stopped"] = undisturbed[1]["application"]["stopped"]
    assert_as_undisturbed(project, application, resumed, undisturbed)


def test_the_controller_alone_is_killed_and_the_down_goes_on(project: Project, application: Application) -> None:
    project.write_migration("0007-campaigns.sql", "DROP TABLE b2b.campaigns;\nSELECT pg_sleep(4);")
    project.database.execute("CREATE TABLE b2b.campaigns (id int PRIMARY KEY)")
    project.settings["rollback_previous_ref"] = ""
    run = project.start("-e", "version=0007")
    sleeping = (
        f"SELECT pid FROM pg_stat_activity WHERE datname = '{project.database.name}' AND query = 'SELECT pg_sleep(4)'"
    )
    wait_until(lambda: project.database.server.execute(sleeping))
    run.kill()
    run.communicate()
    resumed = resume(project)
    assert (resumed.returncode, resumed.outcome) == (0, "rolled_back"), resumed.output
    assert "The DOWN was committed. Its last finished stage is rollback." in " ".join(resumed.output.split())
    assert application.running
    assert project.database.execute("SELECT to_regclass('b2b.campaigns')") == [(None,)]


def test_what_was_stopped_runs_again_where_the_resumed_run_fails(project: Project, application: Application) -> None:
    killed(project, "backup", "-e", "version=0003")
    assert not application.running
    project.database.execute("CREATE VIEW public.late AS SELECT * FROM b2b.orders")
    down = project.migrations / next(path.name for path in project.migrations.glob("0003*"))
    down.write_text(down.read_text(encoding="utf-8") + "\nSELECT 1 / 0;\n", encoding="utf-8")
    before = project.dump()
    run = resume(project)
    assert run.returncode != 0
    assert run.outcome == "failed_unchanged", run.output
    assert application.running
    assert project.dump() == before


def test_no_down_where_the_application_was_started_between_the_dead_run_and_the_resumed_one(
    project: Project, application: Application
) -> None:
    killed(project, "backup", "-e", "version=0003")
    subprocess.run(application.commands["start"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    project.database.execute("CREATE TABLE public.written_since ()")
    before = project.dump()
    run = resume(project)
    assert (run.returncode, run.outcome) == (2, "failed_unchanged"), run.output
    assert project.dump() == before
    assert "The application runs again on " in run.message
    assert "nothing was changed in the database" in run.message
    assert run.report is not None
    assert run.report["failure"]["stage"] == "stop"
    assert application.running
    again = project.run("-e", "version=0003")
    assert (again.returncode, again.outcome) == (0, "rolled_back"), again.output


def test_an_application_that_somebody_started_after_the_down_runs_the_code_of_then(
    project: Project, application: Application
) -> None:
    killed(project, "rollback", "-e", "version=0003")
    subprocess.run(application.commands["start"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    run = resume(project)
    assert (run.returncode, run.outcome) == (2, "needs_attention"), run.output
    assert run.report is not None
    assert run.report["failure"]["stage"] == "smoke_test"
    assert [warning for warning in run.report["warnings"] if "ran already when it was to be started" in warning]


def test_a_run_that_died_on_its_way_back_goes_back(project: Project, application: Application) -> None:
    project.write_migration("0007-campaigns.sql", "SELECT 1 / 0;\nDROP TABLE b2b.campaigns;")
    project.database.execute("CREATE TABLE b2b.campaigns (id int PRIMARY KEY)")
    before = project.dump()
    killed(project, "task Keep the first error", "-e", "version=0007")
    assert not application.running
    run = resume(project)
    assert run.returncode != 0
    assert run.outcome == "failed_unchanged", run.output
    assert "division by zero" in run.message
    assert run.report is not None
    assert run.report["failure"]["stage"] == "rollback"
    assert application.running
    assert project.dump() == before


def test_a_dead_run_is_given_up(project: Project, application: Application) -> None:
    killed(project, "stop", "-e", "version=0003")
    [folder] = project.run_folders()
    unknown = project.run("-e", "resume=nonsense")
    assert f"There is no run nonsense in {folder.parent}. Those that can be resumed: {folder.name}." in " ".join(
        unknown.output.split()
    )
    other = project.run("-e", f"resume={folder.name}", "-e", "version=0002")
    assert f'Run {folder.name} was begun with version "0003", and now it is "0002".' in " ".join(other.output.split())
    project.settings["rollback_verify_checks"] = [{"name": "never", "query": "SELECT 1", "expect": 2}]
    run = project.run("-e", "version=0003", "-e", f"abandon={folder.name}")
    assert run.outcome == "failed_unchanged", run.output
    assert application.running, "what the dead run stopped is started again"
    refused = project.run("-e", f"resume={folder.name}")
    assert "was given up when run" in " ".join(refused.output.split())


def test_what_a_run_that_committed_had_stopped_is_not_started_by_one_that_fails_in_its_place(
    project: Project, application: Application
) -> None:
    killed(project, "rollback", "-e", "version=0003")
    [folder] = project.run_folders()
    project.settings["rollback_verify_checks"] = [{"name": "never", "query": "SELECT 1", "expect": 2}]
    run = project.run("-e", "version=0002", "-e", f"abandon={folder.name}")
    assert run.returncode != 0
    assert not application.running, "the code of 0003 may not fit the database without it"
    assert (
        f"Run {folder.name} may have changed the database, and it had stopped the application on cypher1."
        in " ".join(run.output.split())
    )


def test_an_emergency_that_was_killed_is_gone_on_with(project: Project, application: Application) -> None:
    project.settings["rollback_previous_ref"] = ""
    take_backup(
        BackupRequest(
            ConnectionSettings(**project.database.connection_arguments()), str(project.backups), kind="before_migration",
            version="0003", bin_dir=str(project.database.server.bin_dir), content=True,
        )
    )  # fmt: skip
    items = project.database.execute("SELECT * FROM b2b.order_items ORDER BY id")
    project.database.execute("DELETE FROM b2b.order_items; CREATE TABLE b2b.left_over (id int)")
    killed(project, "restore", "-e", "confirm=yes", playbook="emergency_rollback")
    [folder] = project.run_folders()
    assert not application.running
    other = project.run("-e", "version=0003", playbook="backup")
    assert other.outcome == "backed_up", "a backup is in nobody's way"
    killed(project, "task Exchange the databases", "-e", f"resume={folder.name}", playbook="emergency_rollback")
    refused = project.run("-e", "confirm=yes", playbook="emergency_rollback")
    said = " ".join(refused.message.split())
    assert (
        "died in the stage swap. The application is stopped on cypher1. The exchange of the databases was committed."
        in said
    )
    run = project.run("-e", f"resume={folder.name}", playbook="emergency_rollback")
    report = report_of(project, folder.name)
    assert (run.returncode, report["outcome"]) == (0, "restored"), run.output
    assert (application.health(), project.database.execute("SELECT * FROM b2b.order_items ORDER BY id")) == (200, items)
    assert project.database.execute("SELECT to_regclass('b2b.left_over')") == [(None,)]
    assert [stage["name"] for stage in report["stages"]].count("swap") == 1
    assert (report["swap"]["swapped"], report["restore"]["compared"]) == (True, True)
    kept = project.database.server.execute(
        f"SELECT datname FROM pg_database WHERE datname LIKE '{project.database.name}_%'"
    )
    assert kept == [(report["swap"]["kept"],)]
    project.database.server.drop_database(kept[0][0])


def kill_tree(run: subprocess.Popen[str]) -> None:
    """Kill a process and all below it."""
    for pid in [run.pid, *children(run.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.communicate()


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found.extend([int(child), *children(int(child))])
    return found
