# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a backup, through ansible-playbook: the database, the application, the question, and what is said."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.backup import take_backup
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings
from ansible_collections.cypher.rollback.plugins.module_utils.phrases import restart_command
from ansible_collections.cypher.rollback.plugins.module_utils.readiness import BackupRequest

from tests.support.runbook import LIMIT_SECONDS, REPOSITORY, Application, Project, Run, git, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database

CORRUPT = """
UPDATE b2b.orders SET notes = 'corrupted';
DELETE FROM b2b.order_items;
CREATE TABLE b2b.left_by_a_bad_migration (id int);
"""
YES = ("-e", "confirm=yes")


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Iterator[Project]:
    project = Project(tmp_path, database)
    project.migrate("0003", orders=20)
    yield project
    for name in others(project):
        database.server.drop_database(name)


@pytest.fixture
def application(project: Project) -> Iterator[Application]:
    with Application(project, "0003") as running:
        yield running


def dump(project: Project) -> str:
    """The dump, however the server spells the cast of a list.

    What it parses again when it restores ``x IN ('a', 'b')`` on a varchar, it spells otherwise (measured on 15 and 18).
    """
    whole = re.sub(r"\(ARRAY\[([^\]]*)\]\)::text\[\]", r"ARRAY[\1]", project.dump())
    return re.sub(r"\(('(?:[^']|'')*'::character varying)\)::text", r"\1", whole)


def others(project: Project) -> list[str]:
    """Databases beside the live one: kept ones, and restored ones."""
    rows = project.database.server.execute(
        f"SELECT datname FROM pg_database WHERE datname LIKE '{project.database.name}%' AND datname <> '{project.database.name}' ORDER BY 1"
    )
    return [name for (name,) in rows]


def take(project: Project, version: str = "0003", kind: str = "before_migration", **options: t.Any) -> Path:
    """A backup of the database as it is; its folder."""
    arguments = project.database.connection_arguments()
    request = BackupRequest(
        ConnectionSettings(**arguments),
        str(project.backups),
        kind=kind,
        version=version,
        bin_dir=str(project.database.server.bin_dir),
        **{"content": True, **options},
    )
    return project.backups / os.path.basename(take_backup(request).path)


def emergency(project: Project, *arguments: str, playbook: str = "emergency_rollback") -> Run:
    return project.run(*arguments, playbook=playbook)


def restore_of(run: Run) -> dict[str, t.Any]:
    """What the report says about the restore."""
    assert run.report is not None, run.output
    restore: dict[str, t.Any] = run.report["restore"]
    return restore


def assert_refused(project: Project, application: Application, run: Run, before: str) -> None:
    """Nothing was stopped or changed."""
    assert run.returncode != 0
    assert run.outcome == "refused", run.output
    assert "othing was stopped" in run.message
    assert dump(project) == before
    assert others(project) == []
    assert application.running
    assert run.stage("stop") is None


def test_a_corrupted_database_is_gone_back_from(project: Project, application: Application) -> None:
    before = dump(project)
    backup = take(project)
    project.database.execute(CORRUPT)
    corrupted = dump(project)
    assert corrupted != before
    pid = (project.folder / "app.pid").read_text(encoding="ascii")
    run = emergency(project, *YES)
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert dump(project) == before
    assert application.health() == 200
    assert (project.folder / "app.pid").read_text(encoding="ascii") != pid
    report = run.report
    assert report is not None
    assert [stage["name"] for stage in report["stages"]] == [
        "plan", "confirm", "preflight", "stop", "restore", "swap", "previous_code", "restart", "smoke_test", "closing_checklist", "notify",
    ] or [stage["name"] for stage in report["stages"]] == [
        "plan", "confirm", "stop", "restore", "swap", "previous_code", "restart", "smoke_test", "closing_checklist", "notify",
    ]  # fmt: skip
    assert report["downtime_seconds"] > 0
    assert report["backup"]["id"] == backup.name
    assert restore_of(run)["compared"] is True
    (kept,) = others(project)
    assert report["swap"]["kept"] == kept
    assert kept in restore_of(run)["window"]["text"]
    assert f"cypher.rollback.swap_back -e database={kept}" in run.message
    assert run.message.splitlines()[-1] == "restored"


def test_a_truncated_newest_backup_is_passed_over_and_said(project: Project, application: Application) -> None:
    before = dump(project)
    older = take(project)
    project.database.execute("UPDATE b2b.orders SET notes = 'later'")
    newer = take(project, version="0004")
    largest = max((newer / "dump").iterdir(), key=lambda item: item.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    run = emergency(project, *YES)
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert dump(project) == before
    assert run.report is not None
    assert run.report["backup"]["id"] == older.name
    assert [entry["id"] for entry in restore_of(run)["passed_over"]] == [newer.name]
    assert newer.name in run.output
    assert application.health() == 200


def test_a_named_backup_is_never_replaced_by_another(project: Project, application: Application) -> None:
    take(project)
    broken = take(project, version="0004")
    (broken / "manifest.json").write_text("{}", encoding="utf-8")
    before = dump(project)
    run = emergency(project, "-e", f"backup={broken.name}", *YES)
    assert_refused(project, application, run, before)
    assert broken.name in run.message


def test_without_a_valid_backup_nothing_is_stopped(project: Project, application: Application) -> None:
    shutil.rmtree(take(project) / "dump")
    before = dump(project)
    run = emergency(project, *YES)
    assert_refused(project, application, run, before)
    assert "no valid backup" in run.message


def test_without_a_terminal_and_an_answer_it_is_refused(project: Project, application: Application) -> None:
    take(project)
    before = dump(project)
    run = emergency(project)
    assert_refused(project, application, run, before)
    assert "-e confirm=yes" in run.message


def test_an_answer_beforehand_may_be_a_boolean_and_missing_roles_are_made_where_that_is_asked_for(
    project: Project,
) -> None:
    role = f"reader_of_{project.database.name}"
    project.database.execute(f"CREATE ROLE {role}; GRANT SELECT ON b2b.orders TO {role}")
    take(project)
    project.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    run = emergency(project, "-e", '{"confirm": true, "missing_roles": "create"}')
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert project.database.execute(f"SELECT has_table_privilege('{role}', 'b2b.orders', 'SELECT')") == [(True,)]
    project.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def at_terminal(project: Project, answer: str, *arguments: str) -> Run:
    """A run at a terminal of its own, with somebody who types an answer once asked."""
    before = set(project.run_folders())
    command = project.command("emergency_rollback", *arguments)
    terminal, its_end = pty.openpty()
    # A session of its own whose terminal this is: whoever is not in the foreground of one is not asked.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command],
        cwd=REPOSITORY,
        env=project.environment(),
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    output, deadline, asked = b"", time.monotonic() + 60, False
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                output += os.read(terminal, 65536)
            _question, asked_for, after = output.partition(b"Are you sure? (yes/no)")
            asked = bool(asked_for)
            # What is typed before the question reads it is thrown away, so it is typed until the run goes on.
            if asked and b"TASK [" not in after:
                os.write(terminal, answer.encode() + b"\r")
    os.close(terminal)
    if not asked or b"PLAY RECAP" not in output:
        # Who waits at a question for ever must not outlive the test.
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=False)
    assert asked, output.decode(errors="replace")
    code = process.wait(LIMIT_SECONDS)
    (folder,) = [folder for folder in project.run_folders() if folder not in before]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Run(code, output.decode(errors="replace"), report, folder)


def test_yes_typed_at_a_terminal(project: Project, application: Application) -> None:
    before = dump(project)
    backup = take(project)
    project.database.execute(CORRUPT)
    run = at_terminal(project, "yes")
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    question = " ".join(run.output.partition("Are you sure?")[0].split())
    for part in (
        backup.name,
        project.database.name,
        "is lost from the live database",
        "Cluster",
        "stop the application",
    ):
        assert part in question, run.output
    assert dump(project) == before
    assert application.health() == 200


def test_no_typed_at_a_terminal(project: Project, application: Application) -> None:
    take(project)
    before = dump(project)
    run = at_terminal(project, "no")
    assert_refused(project, application, run, before)
    assert "Aborted" in run.message


def test_check_mode_says_everything_and_touches_nothing(project: Project, application: Application) -> None:
    backup = take(project)
    project.database.execute(CORRUPT)
    before = dump(project)
    files = sorted(project.folder.rglob("*"))
    run = emergency(project, "--check")
    assert run.returncode == 0, run.output
    assert run.report is None
    assert dump(project) == before
    assert others(project) == []
    assert [path for path in sorted(project.folder.rglob("*")) if path.name != "hosts.json"] == [
        path for path in files if path.name != "hosts.json"
    ]
    assert application.running
    for part in (backup.name, "is lost from the live database", "restore the backup into a new database", "PLANNED"):
        assert part in run.output
    assert "Aborted" not in run.output


def test_only_some_tables_are_put_back(project: Project, application: Application) -> None:
    backup = take(project)
    project.database.execute("CREATE TABLE b2b.written_since (id int); UPDATE b2b.orders SET notes = 'corrupted'")
    run = emergency(project, "-e", "tables=b2b.orders", *YES)
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert project.database.execute("SELECT count(*) FROM b2b.orders WHERE notes = 'corrupted'") == [(0,)]
    assert project.database.execute("SELECT count(*) FROM b2b.written_since") == [(0,)]
    assert others(project) == []
    saved = restore_of(run)["state_before"]["id"]
    assert saved.startswith("backup_before_rollback_0003_")
    assert run.report is not None
    assert run.report["backup"]["id"] == backup.name
    assert application.health() == 200
    again = emergency(project, "-e", '{"tables": ["b2b.orders"]}')
    assert (again.returncode, again.outcome) == (0, "nothing_to_do"), again.output
    assert again.stage("stop") is None


def test_what_differs_in_the_tables_is_shown_before_anybody_is_asked(
    project: Project, application: Application
) -> None:
    take(project)
    project.database.execute("UPDATE b2b.orders SET notes = 'corrupted'; DELETE FROM b2b.cart_items")
    before = dump(project)
    run = emergency(project, "--check", "-e", "tables=orders,b2b.cart_items")
    assert run.returncode == 0, run.output
    assert "are set back, 0 missing come back, 0 were added since and stay" in run.output
    assert "changed (notes" in run.output
    assert "b2b.cart_items: 0 changed are set back, 10 missing come back" in run.output
    assert dump(project) == before
    refused = emergency(project, "-e", "tables=b2b.orders,b2b.cart_items")
    assert_refused(project, application, refused, before)


def test_tables_that_cannot_be_put_back_are_refused_before_the_stop(project: Project, application: Application) -> None:
    take(project)
    project.database.execute("TRUNCATE b2b.orders CASCADE; DELETE FROM b2b.order_items")
    project.database.execute("DROP TABLE b2b.order_items CASCADE")
    before = dump(project)
    run = emergency(project, "-e", "tables=b2b.order_items", *YES)
    assert_refused(project, application, run, before)
    assert "b2b.order_items" in run.message
    unknown = emergency(project, "-e", "tables=b2b.nothing", *YES)
    assert_refused(project, application, unknown, before)
    assert "b2b.nothing" in unknown.message


def test_a_busy_table_is_no_reason_not_to_ask(project: Project, application: Application) -> None:
    take(project)
    project.database.execute("UPDATE b2b.orders SET notes = 'corrupted'")
    with contextlib.closing(project.database.connect()) as writer, writer.cursor() as cursor:
        cursor.execute("UPDATE b2b.orders SET notes = 'busy'")
        run = emergency(project, "--check", "-e", "tables=b2b.orders")
    assert run.returncode == 0, run.output
    assert "What differs cannot be seen while the application runs" in run.output
    assert application.running


def test_two_runbooks_in_one_process_are_two_runs(project: Project, tmp_path: Path) -> None:
    before = dump(project)
    both = tmp_path / "both.yml"
    folder = REPOSITORY / "playbooks"
    both.write_text(
        json.dumps(
            [
                {"import_playbook": str(folder / "backup.yml"), "vars": {"version": "0004"}},
                {"import_playbook": str(folder / "emergency_rollback.yml"), "vars": {"confirm": "yes"}},
            ]
        ),
        encoding="utf-8",
    )
    command = project.command("backup")
    command[command.index("playbooks/backup.yml")] = str(both)
    done = subprocess.run(
        command, cwd=REPOSITORY, env=project.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    reports = [json.loads((run / "report.json").read_text(encoding="utf-8")) for run in project.run_folders()]
    assert sorted(report["outcome"] for report in reports) == ["backed_up", "restored"]
    assert dump(project) == before


def break_after_restore(project: Project, application: Application) -> None:
    """The application asks for a table that only the present database has."""
    take(project)
    project.database.execute("CREATE TABLE b2b.campaigns (id int)")
    project.settings |= {
        "rollback_smoke_tests": [{"name": "campaigns", "query": "SELECT count(*) FROM b2b.campaigns", "expect": 0}],
        "rollback_smoke_timeout": 1,
    }
    del application


def test_an_unhealthy_application_is_left_with_the_two_commands(project: Project, application: Application) -> None:
    break_after_restore(project, application)
    run = emergency(project, *YES)
    assert run.returncode != 0
    assert run.outcome == "needs_attention", run.output
    (kept,) = others(project)
    assert "cypher.rollback.restart" in run.message
    assert f"cypher.rollback.swap_back -e database={kept}" in run.message
    back = emergency(project, "-e", f"database={kept}", *YES, playbook="swap_back")
    assert (back.returncode, back.outcome) == (0, "restored"), back.output
    assert project.database.execute("SELECT count(*) FROM b2b.campaigns") == [(0,)]
    assert len(others(project)) == 1


def test_an_unhealthy_application_is_swapped_back_where_that_is_set(project: Project, application: Application) -> None:
    break_after_restore(project, application)
    git(project.project, "init", "-q", "-b", "main")
    for release in ("before", "now"):
        (project.project / "code.txt").write_text(release, encoding="utf-8")
        git(project.project, "add", "-A")
        git(project.project, "commit", "-q", "-m", release)
        git(project.project, "tag", release)
    project.settings |= {"rollback_swap_back_on_failure": True, "rollback_previous_ref": "before"}
    before = dump(project)
    run = emergency(project, *YES)
    assert run.returncode != 0
    assert run.outcome == "failed_unchanged", run.output
    assert "exchanged back" in run.message
    # The code fits the database that is live again.
    assert (project.project / "code.txt").read_text(encoding="utf-8") == "now"
    assert git(project.project, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert dump(project) == before
    assert application.running
    assert application.health() == 200


def test_a_way_back_that_fails_is_said_and_the_application_runs_again(
    project: Project, application: Application
) -> None:
    break_after_restore(project, application)
    server, live = project.database.server, project.database.name
    # The smoke test fails, and whoever looks into it takes the replaced database away.
    drop = f"SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE datname LIKE '{live}_replaced%' \\gexec"
    arguments = project.database.connection_arguments()
    psql = [f"PGPASSWORD={arguments['password']}", str(server.bin_dir / "psql"), "-d", "postgres", "-h", str(arguments["host"]),
            "-p", str(arguments["port"]), "-U", str(arguments["user"])]  # fmt: skip
    ill = ["sh", "-c", 'echo "$0" | env "$@"; exit 1', drop, *psql]
    project.settings |= {
        "rollback_swap_back_on_failure": True,
        "rollback_smoke_tests": [{"name": "ill", "command": ill}],
    }
    pid = (project.folder / "app.pid").read_text(encoding="ascii")
    run = emergency(project, *YES)
    assert (run.returncode != 0, run.outcome) == (True, "needs_attention"), run.output
    assert run.stage("swap_back") is not None, run.output
    assert "Stage smoke_test failed" in run.message
    assert "Exchanging the databases back failed too: " in run.message
    assert "The application was started again on cypher1" in run.message
    assert run.message.splitlines()[-3].endswith("cypher.rollback.restart")
    assert application.running
    assert application.health() == 200
    assert (project.folder / "app.pid").read_text(encoding="ascii") != pid


def test_a_shortage_of_space_is_refused_with_numbers(project: Project, application: Application) -> None:
    take(project)
    before = dump(project)
    project.settings |= {"rollback_server_free_bytes": 1048576}
    run = emergency(project, *YES)
    assert_refused(project, application, run, before)
    assert "1.00 MB are free" in run.message
    assert "rollback_server_free_bytes" in run.message


def test_a_dropped_database_comes_back(project: Project, application: Application) -> None:
    before = dump(project)
    take(project)
    project.database.server.drop_database(project.database.name)
    run = emergency(project, *YES)
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert dump(project) == before
    assert others(project) == []
    assert application.health() == 200


def test_a_rollback_is_undone(project: Project) -> None:
    before = dump(project)
    rolled_back = project.run("-e", "to_version=0000")
    assert rolled_back.outcome == "rolled_back", rolled_back.output
    assert dump(project) != before
    run = emergency(project, *YES, playbook="undo_rollback")
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert dump(project) == before
    assert rolled_back.folder.name in restore_of(run)["why"]


def test_the_code_goes_forward_again_with_the_database(project: Project) -> None:
    release = project.project / "release.txt"
    git(project.project, "init", "-q", "-b", "main")
    for number in ("0002", "0003"):
        release.write_text(f"{number}\n", encoding="utf-8")
        git(project.project, "add", "-A")
        git(project.project, "commit", "-q", "-m", f"release {number}")
        git(project.project, "tag", f"v{number}")
    project.settings |= {"rollback_previous_ref": "v0002"}
    before = dump(project)
    rolled_back = project.run("-e", "version=0003")
    assert rolled_back.outcome == "rolled_back", rolled_back.output
    assert release.read_text(encoding="utf-8") == "0002\n"
    run = emergency(project, "-e", f"run={rolled_back.folder.name}", *YES, playbook="undo_rollback")
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert dump(project) == before
    assert release.read_text(encoding="utf-8") == "0003\n"
    assert git(project.project, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    # Had it not come up, the command of the message would start it with this code, whatever the previous release is.
    ill = {"stage": "smoke_test", "message": "It is ill."}
    facts = {"swap_result": {"swapped": True}, "restore_plan_result": {"releases": releases_of(rolled_back)}}
    line = restart_command({"runbook": "undo_rollback", "rollback_failure": ill, **facts})
    started = project.run(*shlex.split(line)[2:], playbook="restart")
    assert started.returncode == 0, started.output
    assert "v0002" not in started.output
    assert release.read_text(encoding="utf-8") == "0003\n"
    assert git(project.project, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def releases_of(run: Run) -> dict[str, dict[str, str]]:
    """What a rollback found checked out, as the plan of its undoing says it."""
    assert run.report is not None
    code = run.report["previous_code"]["hosts"]["cypher1"]
    return {"cypher1": {"ref": code["previous_commit"], "branch": code["previous_branch"], "stash": "", "image": ""}}


def test_nothing_to_undo(project: Project, application: Application) -> None:
    take(project)
    before = dump(project)
    run = emergency(project, *YES, playbook="undo_rollback")
    assert_refused(project, application, run, before)
    assert "run" in run.message


def test_a_run_that_is_killed_in_the_restore_can_be_run_again(project: Project, application: Application) -> None:
    before = dump(project)
    take(project)
    project.database.execute(CORRUPT)
    killed = subprocess.Popen(
        project.command("emergency_rollback", *YES),
        cwd=REPOSITORY,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wait_until(lambda: any("_restore_" in name for name in others(project)))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert project.database.execute("SELECT count(*) FROM b2b.left_by_a_bad_migration") == [(0,)]
    run = emergency(project, *YES)
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert dump(project) == before
    assert application.health() == 200
    assert [name for name in others(project) if "_restore_" in name] == []
