# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules sent to their host and modules run in ansible-playbook's own process do the same, and neither shows the password."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
import typing as t
from pathlib import Path

import pytest

from tests.support.runbook import Application, Project, Run

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Database

CHANGING = {
    "at",
    "run_id",
    "seconds",
    "started_at",
    "finished_at",
    "downtime_seconds",
    "phases",
    "id",
    "path",
    "xid",
    "bytes",
    "sessions",
    "output_file",
}

#: The status command may say that the application runs before its start command has ended.
STILL_STARTING = re.compile(
    r" It writes to \S+: redirect the output in rollback_app_start_command\.| rollback_app_start_command is still at .*"
)


def lasting(value: t.Any) -> t.Any:
    """A report without what differs from run to run."""
    if isinstance(value, dict):
        return {key: lasting(entry) for key, entry in value.items() if key not in CHANGING}
    if isinstance(value, list):
        return [lasting(entry) for entry in value]
    return (
        re.sub(
            r"\d{8}T?_?\d{6}Z?(-\w+)*|test_\w+|/tmp/[^ '\"]*|/\S*/pytest-of-[^ '\"]*|pid \d+|[0-9.,]+ (s|ms|bytes)\b|:\d{4,5}\b",
            "…",
            STILL_STARTING.sub("", value),
        )
        if isinstance(value, str)
        else value
    )


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    project = Project(tmp_path, database)
    project.migrate("0003", orders=20)
    return project


def both_ways(project: Project, *arguments: str) -> tuple[Run, Run]:
    """A refused or undone run, once each way."""
    here = project.run(*arguments)
    forget_runs(project)
    project.settings["rollback_in_process"] = False
    return here, project.run(*arguments)


def forget_runs(project: Project) -> None:
    """A run with others before it can say how long it will take."""
    shutil.rmtree(project.backups / "runs", ignore_errors=True)


@contextlib.contextmanager
def command_lines_with(secret: str) -> Iterator[list[str]]:
    """Arguments of any process on this machine that had a text in them during the block."""
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for item in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    text = item.read_bytes().decode(errors="replace")
                    if secret in text:
                        seen.append(text)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def files_with(secret: str, project: Project) -> list[Path]:
    """Files below a project's folder that hold a text, but for those that the test itself wrote."""
    mine = {project.folder / "hosts.json", project.folder / "app.pgpass"}
    files = [path for path in project.folder.rglob("*") if path.is_file() and path not in mine]
    assert len(files) > 20
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_a_rollback_reports_the_same_and_the_password_is_nowhere(project: Project) -> None:
    secret = project.database.connection_arguments()["password"]
    reports = []
    for in_process in (True, False):
        with Application(project, "0003") as application:
            application.release_file.write_text("0002\n", encoding="utf-8")
            project.settings["rollback_in_process"] = in_process
            with command_lines_with(secret) as seen:
                run = project.run("-e", "version=0003", "-vvv")
            assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
        assert secret not in run.output
        assert (seen, files_with(secret, project)) == ([], [])
        # Ansible names the file of a module that it packs.
        assert bool(re.search(r"Using module file \S+/app_command\.py", run.output)) is not in_process
        reports.append(lasting(run.report))
        forget_runs(project)
        project.database.execute("DROP SCHEMA b2b CASCADE")
        project.database.execute("DROP SCHEMA erp CASCADE")
        project.database.execute("DROP SCHEMA shared CASCADE")
        project.database.execute("DROP SCHEMA public CASCADE")
        project.database.execute("CREATE SCHEMA public")
        project.migrate("0003", orders=20)
    assert reports[0] == reports[1]


def test_an_error_reports_the_same(project: Project) -> None:
    project.write_migration("0007-campaigns.sql", "DROP TABLE b2b.campaigns;\nSELECT 1 / 0;")
    project.database.execute("CREATE TABLE b2b.campaigns (id int)")
    here, there = both_ways(project, "-e", "version=0007")
    assert (here.outcome, there.outcome) == ("failed_unchanged", "failed_unchanged"), there.output
    assert lasting(here.report) == lasting(there.report)


def test_bad_arguments_are_refused_the_same(project: Project) -> None:
    here, there = both_ways(project, "-e", "version=0003", "-e", '{"rollback_db_port": "many"}')
    assert here.returncode == there.returncode != 0
    for run in (here, there):
        assert "rollback_db_port" in run.output
        assert "Traceback" not in run.output
