# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a runbook of the collection through ansible-playbook, with a project, an application and an inventory of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import psycopg2

from tests.cypher_erp import data, migrate
from tests.support.postgres_server import free_port

if t.TYPE_CHECKING:
    from tests.conftest import Database

REPOSITORY = Path(__file__).resolve().parents[2]
CYPHER_ERP = REPOSITORY / "tests" / "cypher_erp"
ANSIBLE_PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))
LIMIT_SECONDS = 240


def git(checkout: Path, *words: str) -> str:
    """What git says in a checkout."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(checkout), *words]
    # One moment, so that the commits of two checkouts are the same ones.
    moment = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    done = subprocess.run(command, env={**os.environ, **moment}, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run of ansible-playbook ended."""

    returncode: int
    output: str
    report: dict[str, t.Any] | None
    folder: Path

    @property
    def outcome(self) -> str | None:
        """The outcome in the report; without one, none."""
        return None if self.report is None else str(self.report["outcome"])

    @property
    def message(self) -> str:
        """The message in the report."""
        assert self.report is not None, self.output
        return str(self.report["message"])

    @property
    def left(self) -> dict[str, t.Any]:
        """What it left to a workflow, where the fixture ``custom_stats`` has Ansible say it."""
        found = re.search(r"^\s*RUN: (\{.*\})$", self.output, re.MULTILINE)
        assert found, self.output
        return t.cast("dict[str, t.Any]", json.loads(found[1]))

    def stage(self, name: str) -> dict[str, t.Any] | None:
        """A stage of the report."""
        assert self.report is not None, self.output
        return next((stage for stage in self.report["stages"] if stage["name"] == name), None)


class Project:
    """A checkout of Cypher ERP on a database, its application, and an inventory that names both."""

    #: Seconds that one run may take.
    limit_seconds = LIMIT_SECONDS

    def __init__(self, folder: Path, database: Database, **settings: t.Any) -> None:
        """:param settings: ``rollback_*`` settings over those of the project."""
        self.folder = folder
        self.database = database
        self.project = folder / "project"
        self.backups = folder / "backups"
        self.migrations = self.project / "migrations"
        shutil.copytree(CYPHER_ERP, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        arguments = database.connection_arguments()
        self.settings: dict[str, t.Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "rollback_db_host": arguments["host"],
            "rollback_db_port": arguments["port"],
            "rollback_db_name": database.name,
            "rollback_db_user": arguments["user"],
            "rollback_db_password": arguments["password"],
            "rollback_pg_bin_dir": str(database.server.bin_dir),
            "rollback_project_dir": str(self.project),
            "rollback_backup_dir": str(self.backups),
            "rollback_app_driver": "none",
            **settings,
        }

    def migrate(self, upto: str, orders: int = 50, **options: t.Any) -> None:
        """Apply the migrations up to a version and load data."""
        with contextlib.closing(psycopg2.connect(**self.database.connection_arguments())) as connection:
            migrate.apply(connection, upto=upto, **options)
            data.load(connection, orders=orders, upto=upto)

    def write_migration(self, name: str, down: str | bytes, up: str = "SELECT 1;") -> Path:
        """Add a migration file, with the document's marker unless the DOWN is given as bytes."""
        path = self.migrations / name
        if isinstance(down, bytes):
            path.write_bytes(down)
        else:
            path.write_text(f"-- UP\n{up}\n\n-- DOWN (Rollback)\n{down}\n", encoding="utf-8")
        return path

    def inventory(self) -> Path:
        """One host that is the database's and the application's."""
        path = self.folder / "hosts.json"
        hosts: dict[str, t.Any] = {"cypher1": {}}
        groups = {"erp_db": {"hosts": hosts}, "erp_app": {"hosts": hosts}}
        path.write_text(json.dumps({"all": {"vars": self.settings, "children": groups}}), encoding="utf-8")
        return path

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command line of a run."""
        return [ANSIBLE_PLAYBOOK, "-i", str(self.inventory()), f"playbooks/{playbook}.yml", *arguments]

    def environment(self) -> dict[str, str]:
        """The environment of a run."""
        return {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "PYTHON": sys.executable}

    def run(self, *arguments: str, playbook: str = "rollback") -> Run:
        """Run a playbook to its end."""
        before = set(self.run_folders())
        done = subprocess.run(
            self.command(playbook, *arguments),
            cwd=REPOSITORY,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.limit_seconds,
            check=False,
        )
        new = [folder for folder in self.run_folders() if folder not in before]
        report = new[0] / "report.json" if new else None
        found = json.loads(report.read_text(encoding="utf-8")) if report and report.exists() else None
        return Run(done.returncode, done.stdout + done.stderr, found, new[0] if new else self.folder)

    def start(self, *arguments: str, playbook: str = "rollback") -> subprocess.Popen[str]:
        """Start a playbook and leave it to the test."""
        return subprocess.Popen(
            self.command(playbook, *arguments),
            cwd=REPOSITORY,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run_folders(self) -> list[Path]:
        """Folders of the runs so far."""
        runs = self.backups / "runs"
        return sorted(item for item in runs.iterdir() if item.is_dir()) if runs.is_dir() else []

    def published(self) -> list[Path]:
        """Backups that anybody can see."""
        return sorted(self.backups.glob("backup_*")) if self.backups.is_dir() else []

    def dump(self) -> str:
        """Schema and data as text, the same for the same database."""
        arguments = self.database.connection_arguments()
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
        done = subprocess.run(
            [str(self.database.server.bin_dir / "pg_dump"), "--no-password"],
            env={**os.environ, **{names[key]: str(value) for key, value in arguments.items()}},
            capture_output=True,
            text=True,
            check=True,
        )
        # Since the fix of CVE-2025-8714 a plain dump has a random key in it.
        return "\n".join(line for line in done.stdout.splitlines() if "restrict" not in line.split(" ")[0])


class Application:
    """The real web application of a project, started and stopped by the ``command`` driver."""

    def __init__(self, project: Project, release: str) -> None:
        """:param release: the release whose tables the health endpoint asks for."""
        self.project = project
        self.port = free_port()
        self.release_file = project.project / "release.txt"
        self.release_file.write_text(f"{release}\n", encoding="utf-8")
        arguments = project.database.connection_arguments()
        environment = {
            "DB_HOST": arguments["host"],
            "DB_PORT": arguments["port"],
            "DB_NAME": project.database.name,
            "DB_USER": arguments["user"],
            "PGPASSFILE": str(self._passfile(arguments["password"])),
            "APP_PORT": self.port,
            "PYTHON": sys.executable,
        }
        prefix = ["env", *(f"{name}={value}" for name, value in environment.items()), str(project.project / "appctl")]
        pid_file = ["--pid-file", str(project.folder / "app.pid")]
        self.commands = {
            "start": [*prefix, "start", *pid_file, "--log", str(project.folder / "app.log")],
            "stop": [*prefix, "stop", *pid_file],
            "status": [*prefix, "status", *pid_file],
        }
        project.settings |= {
            "rollback_app_driver": "command",
            "rollback_app_start_command": self.commands["start"],
            "rollback_app_stop_command": self.commands["stop"],
            "rollback_app_status_command": self.commands["status"],
            "rollback_smoke_tests": [{"name": "health", "url": f"http://127.0.0.1:{self.port}/health", "status": 200}],
            "rollback_smoke_timeout": 5,
        }

    def __enter__(self) -> Application:
        subprocess.run(self.commands["start"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        subprocess.run(self.commands["stop"], check=False, stdin=subprocess.DEVNULL, capture_output=True)

    def _passfile(self, password: str) -> Path:
        path = self.project.folder / "app.pgpass"
        path.touch(mode=0o600)
        path.write_text(f"*:*:*:*:{password}\n", encoding="utf-8")
        return path

    @property
    def running(self) -> bool:
        """What its status command says."""
        return subprocess.run(self.commands["status"], check=False, capture_output=True).returncode == 0

    def health(self) -> int:
        """HTTP status of the health endpoint; 0 when nobody answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as err:
            return int(err.code)
        except OSError:
            return 0


Answer = t.TypeVar("Answer")


def wait_until(condition: t.Callable[[], Answer], seconds: float = 60) -> Answer:
    """Poll until a condition holds; its answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"did not happen within {seconds} s")
