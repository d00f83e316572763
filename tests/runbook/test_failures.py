# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens when something breaks in the middle of a run: the state of database and application, and the message."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import stat
import threading
import typing as t
from pathlib import Path

import pytest
import yaml

from tests.support.runbook import REPOSITORY, Application, Project, Run, git, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

ENDLESS = "DROP TABLE IF EXISTS b2b.campaigns CASCADE;\nSELECT pg_sleep(60);"


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    project = Project(tmp_path, database)
    project.migrate("0003", orders=20)
    return project


@pytest.fixture
def application(project: Project) -> Iterator[Application]:
    with Application(project, "0003") as running:
        yield running


def add_campaigns(project: Project, down: str) -> None:
    """Migration 0007, applied, with a DOWN of the test's own."""
    up = "CREATE TABLE b2b.campaigns (id int PRIMARY KEY, name text); INSERT INTO b2b.campaigns VALUES (1, 'autumn')"
    project.write_migration("0007-campaigns.sql", down, up)
    project.database.execute(up)


def assert_unchanged(project: Project, application: Application, run: Run, before: str, ignored: str = "\0") -> None:
    """The database is as before, the application runs as before, and nobody was told otherwise."""
    assert run.returncode != 0
    assert run.outcome == "failed_unchanged", run.output
    assert run.message.splitlines()[-1] == "failed_unchanged"
    assert lines_of(project.dump(), ignored) == lines_of(before, ignored)
    assert application.running
    assert application.health() == 200
    assert not list(project.backups.glob(".partial*"))


def lines_of(dump: str, ignored: str) -> list[str]:
    """The lines of a dump without those that begin with something."""
    return [line for line in dump.splitlines() if not line.startswith(ignored)]


def run_in_thread(project: Project, *arguments: str) -> tuple[threading.Thread, list[Run]]:
    """A run that goes on while the test does something to it."""
    ended: list[Run] = []
    thread = threading.Thread(target=lambda: ended.append(project.run(*arguments)))
    thread.start()
    return thread, ended


def sleeping_backend(project: Project) -> int | None:
    """The backend that executes the endless statement."""
    rows = project.database.server.execute(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' "
        f"AND datname = '{project.database.name}' AND pid <> pg_backend_pid()"
    )
    return rows[0][0] if rows else None


def test_an_error_in_the_middle(project: Project, application: Application) -> None:
    add_campaigns(project, "DROP TABLE b2b.campaigns;\nDROP TABLE b2b.no_such_table;\nSELECT 1;")
    before = project.dump()
    run = project.run("-e", "version=0007")
    assert_unchanged(project, application, run, before)
    assert "no_such_table" in run.message
    assert re.search(r"0007-campaigns\.sql line 6", " ".join(run.message.split())), run.message


def test_a_statement_timeout(project: Project, application: Application) -> None:
    project.settings |= {"rollback_statement_timeout": "500ms"}
    add_campaigns(project, ENDLESS)
    before = project.dump()
    run = project.run("-e", "version=0007")
    assert_unchanged(project, application, run, before)
    assert "rollback_statement_timeout" in run.message


def test_a_lock_that_another_session_holds(project: Project, application: Application) -> None:
    project.settings |= {"rollback_lock_timeout": "1s"}
    add_campaigns(project, "DROP TABLE b2b.campaigns;")
    before = project.dump()
    holder = project.database.connect(application_name="nightly export")
    with contextlib.closing(holder), holder.cursor() as cursor:
        cursor.execute("SELECT name FROM b2b.campaigns")
        run = project.run("-e", "version=0007")
    assert_unchanged(project, application, run, before)
    words = " ".join(run.message.split())
    for expected in (
        str(holder.info.backend_pid),
        "nightly export",
        "postgres",
        "SELECT name FROM b2b.campaigns",
        "since 20",
    ):
        assert expected in words, run.message


def test_the_backend_is_killed_in_the_middle(project: Project, application: Application) -> None:
    add_campaigns(project, ENDLESS)
    before = project.dump()
    thread, ended = run_in_thread(project, "-e", "version=0007")
    pid = wait_until(lambda: sleeping_backend(project))
    project.database.execute(f"SELECT pg_terminate_backend({pid})")
    thread.join()
    assert_unchanged(project, application, ended[0], before)


def test_the_server_is_stopped_in_the_middle(project: Project, application: Application) -> None:
    add_campaigns(project, ENDLESS)
    before = project.dump()
    thread, ended = run_in_thread(project, "-e", "version=0007")
    wait_until(lambda: sleeping_backend(project))
    project.database.server.stop("immediate")
    project.database.server.start()
    thread.join()
    # A crash may skip values of a sequence, whoever was at work: they are logged in advance, 32 at a time.
    assert_unchanged(project, application, ended[0], before, ignored="SELECT pg_catalog.setval(")


def test_a_deferred_constraint(project: Project, application: Application) -> None:
    add_campaigns(
        project,
        "ALTER TABLE b2b.order_items ADD CONSTRAINT later FOREIGN KEY (id) REFERENCES b2b.orders DEFERRABLE INITIALLY DEFERRED NOT VALID;\n"
        "INSERT INTO b2b.checked_later VALUES (99);\nDROP TABLE b2b.campaigns;",
    )
    project.database.execute(
        "CREATE TABLE b2b.checked_later (id int REFERENCES b2b.campaigns DEFERRABLE INITIALLY DEFERRED)"
    )
    path = project.migrations / "0007-campaigns.sql"
    path.write_text(
        "-- DOWN (Rollback)\nDELETE FROM b2b.campaigns;\nINSERT INTO b2b.checked_later VALUES (99);\n", encoding="utf-8"
    )
    before = project.dump()
    run = project.run("-e", "version=0007")
    assert_unchanged(project, application, run, before)
    assert "checked_later" in run.message


def test_two_runs_at_once(project: Project, application: Application) -> None:
    add_campaigns(project, ENDLESS)
    before = project.dump()
    thread, ended = run_in_thread(project, "-e", "version=0007", "-e", "rollback_run_id=first")
    pid = wait_until(lambda: sleeping_backend(project))
    second = project.run("-e", "version=0007", "-e", "rollback_run_id=second")
    assert second.returncode != 0
    assert second.outcome == "refused", second.output
    assert "first" in second.message
    assert not application.running
    project.database.execute(f"SELECT pg_terminate_backend({pid})")
    thread.join()
    assert ended[0].outcome == "failed_unchanged", ended[0].output
    assert project.dump() == before


def test_a_run_that_was_killed_can_be_run_again(project: Project, application: Application) -> None:
    add_campaigns(project, ENDLESS)
    killed = project.start("-e", "version=0007")
    wait_until(lambda: sleeping_backend(project))
    tree = children(killed.pid)
    for pid in [killed.pid, *tree]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    killed.communicate()
    wait_until(lambda: sleeping_backend(project) is None)
    other = project.run("-e", "to_version=0002")
    assert other.outcome == "refused", other.output
    assert "The application is stopped on cypher1. The DOWN was not committed." in " ".join(other.message.split())
    assert not application.running
    project.write_migration("0007-campaigns.sql", "DROP TABLE IF EXISTS b2b.campaigns CASCADE;")
    run = project.run("-e", "version=0007")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert "This run begins anew in its place, and starts the application on cypher1 at its end." in " ".join(
        run.output.split()
    )
    assert application.running
    assert not list(project.backups.glob(".partial*"))


def test_what_a_dead_run_stopped_is_started_again_where_the_next_one_is_refused(
    project: Project, application: Application
) -> None:
    add_campaigns(project, ENDLESS)
    killed = project.start("-e", "version=0007")
    wait_until(lambda: sleeping_backend(project))
    for pid in [killed.pid, *children(killed.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    killed.communicate()
    wait_until(lambda: sleeping_backend(project) is None)
    assert not application.running
    project.settings["rollback_smoke_tests"] = [{"name": "nothing to do"}]
    run = project.run("-e", "version=0007")
    assert run.outcome == "failed_unchanged", run.output
    assert "rollback_smoke_tests: 'nothing to do' needs exactly one of url, command and query" in run.message
    assert application.running


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found.extend([int(child), *children(int(child))])
    return found


def fake_tools(project: Project, folder: Path, names: list[str], script: str) -> None:
    """A folder of client programs in which some are replaced by a script."""
    folder.mkdir()
    for tool in ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
        (folder / tool).symlink_to(project.database.server.bin_dir / tool)
    for name in names:
        (folder / name).unlink()
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(stat.S_IRWXU)
    project.settings["rollback_pg_bin_dir"] = str(folder)


def test_pg_dump_is_killed(project: Project, application: Application, tmp_path: Path) -> None:
    real = project.database.server.bin_dir / "pg_dump"
    fake_tools(project, tmp_path / "bin", ["pg_dump"], f'case "$*" in *--version*) exec {real} "$@";; esac\nkill -9 $$')
    before = project.dump()
    run = project.run("-e", "version=0003")
    assert_unchanged(project, application, run, before)
    assert run.stage("rollback") is None
    assert project.published() == []


def test_a_time_limit_of_ansible_cfg_does_not_part_the_run_from_its_down(
    project: Project, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_TASK_TIMEOUT", "12")
    project.write_migration("0007-campaigns.sql", "SELECT pg_sleep(13);\nDROP TABLE b2b.campaigns;")
    project.database.execute("CREATE TABLE b2b.campaigns (id int PRIMARY KEY)")
    run = project.run("-e", "version=0007")
    assert run.outcome == "rolled_back", run.output
    assert application.running


def test_no_down_where_somebody_starts_the_application_during_the_backup(
    project: Project, application: Application, tmp_path: Path
) -> None:
    real, start = project.database.server.bin_dir / "pg_dump", shlex.join(application.commands["start"])
    script = f'case "$*" in *--version*) ;; *) {start} </dev/null >/dev/null 2>&1;; esac\nexec {real} "$@"'
    fake_tools(project, tmp_path / "bin", ["pg_dump"], script)
    before = project.dump()
    run = project.run("-e", "version=0003")
    assert_unchanged(project, application, run, before)
    assert run.stage("rollback") is None
    assert "The application runs again on " in run.message
    assert "Find who starts it (a colleague, a supervisor, a timer) and end that." in run.message


def test_a_run_killed_during_the_backup_leaves_no_password(
    project: Project, application: Application, tmp_path: Path
) -> None:
    real, seen = project.database.server.bin_dir / "pg_dump", tmp_path / "passfile-name"
    script = f'case "$*" in *--version*) exec {real} "$@";; esac\nprintf %s "$PGPASSFILE" >{seen}\nexec sleep 60'
    fake_tools(project, tmp_path / "bin", ["pg_dump"], script)
    killed = project.start("-e", "version=0003")
    wait_until(lambda: seen.exists() and seen.read_text(encoding="utf-8"))
    for pid in [killed.pid, *children(killed.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    killed.communicate()
    passfile = Path(seen.read_text(encoding="utf-8"))
    assert project.backups in passfile.parents
    project.settings["rollback_pg_bin_dir"] = str(project.database.server.bin_dir)
    application.release_file.write_text("0002\n", encoding="utf-8")
    [folder] = project.run_folders()
    run = project.run("-e", "version=0003", "-e", f"abandon={folder.name}")
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert not passfile.exists()
    assert not list(project.backups.rglob("passfile"))


def test_pg_dump_is_older_than_the_server(project: Project, application: Application, tmp_path: Path) -> None:
    fake_tools(project, tmp_path / "bin", ["pg_dump", "pg_restore"], 'echo "${0##*/} (PostgreSQL) 9.6.24"')
    before = project.dump()
    run = project.run("-e", "version=0003")
    assert run.returncode != 0
    assert run.outcome == "refused", run.output
    assert "9.6" in run.message
    assert "rollback_pg_bin_dir" in run.message
    assert application.running
    assert (project.dump(), project.published()) == (before, [])


def test_the_backup_folder_cannot_be_used(project: Project, application: Application) -> None:
    elsewhere = project.folder / "elsewhere"
    elsewhere.mkdir()
    project.backups.symlink_to(elsewhere)
    before = project.dump()
    run = project.run("-e", "version=0003")
    assert run.returncode != 0
    assert "rollback_backup_dir" in run.output
    assert "refused" in run.output
    assert application.running
    assert project.dump() == before
    assert not list(elsewhere.glob("backup_*"))
    preview = project.run("-e", "version=0003", "--check")
    assert preview.returncode == 0, preview.output
    assert "As things are now, the rollback itself would be refused: " in " ".join(preview.output.split())


def test_an_application_that_does_not_stop(project: Project, application: Application) -> None:
    project.settings |= {"rollback_app_stop_command": "true", "rollback_app_timeout": 1}
    before = project.dump()
    run = project.run("-e", "version=0003")
    assert_unchanged(project, application, run, before)
    assert run.stage("rollback") is None
    assert run.stage("backup") is None


def test_an_application_that_does_not_start_again(project: Project, application: Application) -> None:
    project.settings |= {"rollback_app_start_command": "echo no such release >&2; exit 7", "rollback_app_timeout": 3}
    run = project.run("-e", "version=0003")
    assert run.returncode != 0
    assert run.outcome == "needs_attention", run.output
    assert "rolled back" in run.message
    assert "cypher.rollback.restart" in run.message
    assert "no such release" in run.output
    assert not application.running
    assert project.database.execute("SELECT to_regclass('b2b.orders')") == [(None,)]


def tag(project: Project, *releases: str) -> None:
    """Releases of the code, each a commit with a tag; the last one is checked out."""
    for number, release in enumerate(releases):
        (project.project / "code.txt").write_text(release, encoding="utf-8")
        for words in ([["init", "-q", "-b", "main"]] if not number else []) + [
            ["add", "-A"], ["commit", "-q", "-m", release], ["tag", release]
        ]:  # fmt: skip
            git(project.project, *words)


def note_what_compose_would_build(project: Project, application: Application) -> Path:
    """The start notes in a file whether the driver docker_compose would build here."""
    tasks = yaml.safe_load((REPOSITORY / "roles/restart/tasks/docker_compose.yml").read_text(encoding="utf-8"))
    (rules,) = [task["vars"] for task in tasks if "community.docker.docker_compose_v2" in task]
    names = ("restart_release", "restart_new_checkout")
    project.settings |= {name: rules[name].replace("restart_host", "inventory_hostname") for name in names}
    noted = project.folder / "build.txt"
    script = f'echo "{{{{ restart_new_checkout }}}}" >{noted}; exec "$@"'
    project.settings["rollback_app_start_command"] = ["sh", "-c", script, "sh", *application.commands["start"]]
    return noted


def test_a_smoke_test_that_fails(project: Project, application: Application) -> None:
    tag(project, "before", "now")
    project.settings |= {"rollback_smoke_timeout": 1, "rollback_previous_ref": "before"}
    built = note_what_compose_would_build(project, application)
    run = project.run("-e", "version=0003")
    assert built.read_text(encoding="utf-8") == "True\n"
    assert run.returncode != 0
    assert run.outcome == "needs_attention", run.output
    assert "rolled back" in run.message
    assert application.running
    assert project.database.execute("SELECT to_regclass('b2b.orders')") == [(None,)]
    application.release_file.write_text("0002\n", encoding="utf-8")
    application.__exit__()
    built.unlink()
    again = project.run(playbook="restart")
    assert again.returncode == 0, again.output
    assert application.health() == 200
    # The checkout is there already, but nobody knows whether its images were built.
    assert built.read_text(encoding="utf-8") == "True\n"


def test_an_application_that_cannot_start_after_a_failed_down(project: Project, application: Application) -> None:
    start = project.settings["rollback_app_start_command"]
    project.settings |= {"rollback_app_start_command": "exit 7", "rollback_app_timeout": 3}
    add_campaigns(project, "SELECT 1 / 0;\nDROP TABLE b2b.campaigns;")
    tag(project, "before", "now")
    project.settings["rollback_previous_ref"] = "before"
    before = project.dump()
    run = project.run("-e", "version=0007")
    assert run.returncode != 0
    assert run.outcome == "needs_attention", run.output
    assert "division by zero" in run.message
    assert project.dump() == before
    assert not application.running
    # The database is that of the present code, and the command of the message leaves it there.
    project.settings["rollback_app_start_command"] = start
    assert run.report is not None
    arguments = shlex.split(run.report["next_commands"][0])
    again = project.run(*arguments[arguments.index("cypher.rollback.restart") + 1 :], playbook="restart")
    assert again.returncode == 0, again.output
    assert application.health() == 200
    assert (project.project / "code.txt").read_text(encoding="utf-8") == "now"


def test_an_ordinary_owner_can_do_it(project: Project, application: Application) -> None:
    server, name = project.database.server, project.database.name
    server.execute(f"CREATE ROLE owner_{name} LOGIN PASSWORD 'plain words'")
    try:
        for schema in ("b2b", "erp", "shared"):
            project.database.execute(f"ALTER SCHEMA {schema} OWNER TO owner_{name}")
        project.database.execute(
            "DO $$ DECLARE r record; BEGIN FOR r IN SELECT oid::regclass AS n FROM pg_class WHERE relkind IN ('r', 'p', 'v') "
            f"AND relnamespace IN ('b2b'::regnamespace, 'erp'::regnamespace, 'shared'::regnamespace) LOOP "
            f"EXECUTE format('ALTER TABLE %s OWNER TO owner_{name}', r.n); "
            "END LOOP; END $$"
        )
        project.settings |= {"rollback_db_user": f"owner_{name}", "rollback_db_password": "plain words"}
        refused = project.run("-e", "version=0003")
        assert refused.outcome == "refused", refused.output
        assert "b2b_" in refused.message
        assert f"GRANT postgres TO owner_{name}" in " ".join(refused.message.split())
        assert application.running
        for (type_name,) in project.database.execute(
            "SELECT typname FROM pg_type WHERE typname LIKE 'b2b\\_%' AND typtype = 'e'"
        ):
            project.database.execute(f"ALTER TYPE public.{type_name} OWNER TO owner_{name}")
        application.release_file.write_text("0002\n", encoding="utf-8")
        run = project.run("-e", "version=0003")
        assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    finally:
        project.database.execute(f"DROP OWNED BY owner_{name} CASCADE")
        project.database.execute(f"REASSIGN OWNED BY owner_{name} TO postgres")
        server.execute(f"DROP ROLE owner_{name}")


def test_a_read_only_server(project: Project, application: Application) -> None:
    project.database.execute(f'ALTER DATABASE "{project.database.name}" SET default_transaction_read_only = on')
    run = project.run("-e", "version=0003")
    assert run.outcome == "refused", run.output
    assert "read-only" in run.message
    assert application.running
