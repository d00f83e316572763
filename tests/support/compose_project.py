# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cypher ERP and its PostgreSQL as one project of Docker Compose, on a real engine.

``python -m tests.support.compose_project --up FOLDER`` and ``--down FOLDER`` do it for a scenario of molecule.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import typing as t
import urllib.request
from pathlib import Path

import psycopg2
import psycopg2.extensions

from tests.cypher_erp import data, migrate
from tests.support.postgres_server import free_port
from tests.support.runbook import Run

REPOSITORY = Path(__file__).resolve().parents[2]
CYPHER_ERP = REPOSITORY / "tests" / "cypher_erp"
FILES = REPOSITORY / "tests" / "compose" / "project"
APP_IMAGE = "cypher-erp-test"
POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE", "postgres:15")
PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.11-slim")
PULL_POLICY = os.environ.get("PULL_POLICY", "missing")
#: Python of PYTHON_IMAGE, which psycopg2 has to fit.
IMAGE_PYTHON = (3, 11)
LIMIT_SECONDS = 600


def engine_problem() -> str:
    """Why there is no Docker Compose to test with, in a sentence; empty where there is one."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30, check=False)
        compose = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "There is no docker command that answers, so nothing of Docker Compose was tested."
    if done.returncode or "Cannot connect" in done.stdout + done.stderr:
        return "No Docker engine is up, so nothing of Docker Compose was tested."
    return "" if compose.returncode == 0 else "Docker has no Compose, so nothing of it was tested."


def build_image(release: str) -> str:
    """The application's image of one release, built where it is missing; its tag."""
    name = f"{APP_IMAGE}:{release}"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0:
        return release
    with tempfile.TemporaryDirectory(prefix="cypher-image-") as folder:
        context = Path(folder)
        shutil.copy(FILES / "Dockerfile", context)
        shutil.copy(CYPHER_ERP / "app.py", context)
        _psycopg2(context / "site")
        arguments = [f"--build-arg=PYTHON_IMAGE={PYTHON_IMAGE}", f"--build-arg=RELEASE={release}", f"--tag={name}"]
        subprocess.run(
            ["docker", "build", "--quiet", *arguments, str(context)],
            check=True,
            capture_output=True,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            timeout=LIMIT_SECONDS,
        )
    return release


def _psycopg2(site: Path) -> None:
    if sys.version_info[:2] != IMAGE_PYTHON:
        version = ".".join(map(str, IMAGE_PYTHON))
        wanted = [f"--target={site}", f"--python-version={version}", "--only-binary=:all:", "--no-deps"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted, "psycopg2-binary"], check=True)
        return
    installed = Path(psycopg2.__file__).parent
    site.mkdir()
    shutil.copytree(installed, site / installed.name)
    shutil.copytree(installed.parent / "psycopg2_binary.libs", site / "psycopg2_binary.libs")


class ComposeProject:
    """A project folder with its containers, and an inventory that names them."""

    def __init__(self, folder: Path, **settings: t.Any) -> None:
        """:param settings: ``rollback_*`` settings over those of the project."""
        self.folder = folder
        self.project = folder / "project"
        self.backups = folder / "backups"
        self.environment_file = self.project / ".env"
        self.settings = settings

    @property
    def values(self) -> dict[str, str]:
        """What the project's ``.env`` says."""
        lines = self.environment_file.read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def create(self, tag: str) -> None:
        """Write the project, a copy of Cypher ERP with its migrations, and build the release's image."""
        shutil.copytree(CYPHER_ERP, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(FILES / "compose.yaml", self.project)
        values = {
            "COMPOSE_PROJECT_NAME": f"cypher{secrets.token_hex(4)}",
            "POSTGRES_IMAGE": POSTGRES_IMAGE,
            "PYTHON_IMAGE": PYTHON_IMAGE,
            "PULL_POLICY": PULL_POLICY,
            "APP_IMAGE": APP_IMAGE,
            "ERP_DB_PORT": str(free_port()),
            "ERP_DB_NAME": "cypher_erp",
            "ERP_DB_PASSWORD": secrets.token_hex(8),
            "ERP_APP_PORT": str(free_port()),
            "APP_TAG": build_image(tag),
        }
        lines = ["# Written for this machine.", *(f"{name}={value}" for name, value in values.items())]
        self.environment_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.environment_file.chmod(0o600)

    def compose(self, *words: str, check: bool = True) -> str:
        """Run ``docker compose`` in the project; its standard output."""
        done = subprocess.run(
            ["docker", "compose", *words],
            cwd=self.project,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def start_database(self, upto: str, orders: int = 50) -> None:
        """Start the database alone, migrate it, and load data."""
        self.compose("up", "--detach", "--wait", "db")
        self.create_database(upto, orders)

    def create_database(self, upto: str, orders: int = 50) -> None:
        """A migrated database with data."""
        self.execute(f'CREATE DATABASE "{self.values["ERP_DB_NAME"]}"', "postgres")
        self.migrate(upto)
        with contextlib.closing(self.connect()) as connection:
            data.load(connection, orders=orders, upto=upto)

    def migrate(self, upto: str, first: str = "0001") -> None:
        """Apply the migrations from one version up to another."""
        with contextlib.closing(self.connect()) as connection:
            migrate.apply(connection, upto=upto, first=first)

    def start(self) -> None:
        """Start all services and wait for the application."""
        self.compose("up", "--detach")
        self.compose("up", "--detach", "--wait", "--no-recreate", "app")

    def run(self, command: str) -> Run:
        """Run a shell text in a folder that holds ``hosts.yml``, as a person who pastes it, with no client programs in reach."""
        self.write_inventory(self.folder / "hosts.yml")
        before = set(self.run_folders())
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-e", "-c", command],
            cwd=self.folder,
            env={**os.environ, "PATH": path, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        new = [folder for folder in self.run_folders() if folder not in before]
        report = new[0] / "report.json" if new else None
        found = json.loads(report.read_text(encoding="utf-8")) if report and report.exists() else None
        return Run(done.returncode, done.stdout + done.stderr, found, new[0] if new else self.folder)

    def run_folders(self) -> list[Path]:
        """Folders of the runs so far, the oldest first."""
        return sorted((self.backups / "runs").glob("*T*"))

    def health(self) -> dict[str, t.Any]:
        """What the application says of itself; empty where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.values['ERP_APP_PORT']}/health", timeout=5) as answer:
                return dict(json.load(answer))
        except OSError:
            return {}

    def connect(self, dbname: str = "") -> psycopg2.extensions.connection:
        """A connection as the superuser; the caller closes it."""
        values = self.values
        return psycopg2.connect(
            host="127.0.0.1",
            port=values["ERP_DB_PORT"],
            dbname=dbname or values["ERP_DB_NAME"],
            user="postgres",
            password=values["ERP_DB_PASSWORD"],
        )

    def execute(self, statement: str, dbname: str = "") -> list[tuple[t.Any, ...]]:
        """Run SQL outside a transaction; the rows of its last statement."""
        with contextlib.closing(self.connect(dbname)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def containers(self) -> dict[str, dict[str, t.Any]]:
        """What the engine says of each service's container: ``Id``, ``State`` and so on."""
        ids = self.compose("ps", "--all", "--quiet").split()
        if not ids:
            return {}
        done = subprocess.run(["docker", "inspect", *ids], check=True, capture_output=True, text=True)
        return {found["Config"]["Labels"]["com.docker.compose.service"]: found for found in json.loads(done.stdout)}

    def looks(self) -> dict[str, dict[str, str]]:
        """Id, image and time of the last start of every service's container."""
        return {
            name: {"id": found["Id"], "image": found["Config"]["Image"], "started": found["State"]["StartedAt"]}
            for name, found in self.containers().items()
        }

    def reset(self, release: str) -> None:
        """A new database at a release with data, the application on it, and no other database."""
        self.compose("stop", "--timeout=1", "app", "worker")
        for (name,) in self.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'", "postgres"
        ):
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")
        self.create_database(release)
        self.use_image(release)
        self.start()

    def use_image(self, release: str) -> None:
        """Have the application's containers made from another release at their next start."""
        text = self.environment_file.read_text(encoding="utf-8")
        tag = self.values["APP_TAG"]
        self.environment_file.write_text(
            text.replace(f"APP_TAG={tag}\n", f"APP_TAG={build_image(release)}\n"), encoding="utf-8"
        )

    def write_inventory(self, path: Path) -> Path:
        """One host that is the database's and the application's."""
        values = self.values
        settings = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "rollback_db_host": "127.0.0.1",
            "rollback_db_port": int(values["ERP_DB_PORT"]),
            "rollback_db_name": values["ERP_DB_NAME"],
            "rollback_db_user": "postgres",
            "rollback_db_password": values["ERP_DB_PASSWORD"],
            "rollback_project_dir": str(self.project),
            "rollback_backup_dir": str(self.backups),
            "rollback_app_driver": "docker_compose",
            "rollback_app_services": ["app"],
            "rollback_app_timeout": 20,
            "rollback_pg_exec": ["docker", "compose", "exec", "-T", "db"],
            "rollback_smoke_tests": [{"name": "health", "url": f"http://127.0.0.1:{values['ERP_APP_PORT']}/health"}],
            **self.settings,
        }
        hosts: dict[str, t.Any] = {"cypher1": {}}
        groups = {"erp_db": {"hosts": hosts}, "erp_app": {"hosts": hosts}}
        path.write_text(json.dumps({"all": {"vars": settings, "children": groups}}), encoding="utf-8")
        path.chmod(0o600)
        return path

    def destroy(self) -> None:
        """Remove the containers, networks and volumes."""
        if self.environment_file.exists():
            self.compose("down", "--volumes", "--timeout=0", "--remove-orphans", check=False)


def main() -> None:
    """Have a project up, or remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--up", type=Path)
    parser.add_argument("--down", type=Path)
    parser.add_argument("--look", type=Path, help="print id, image and last start of every container")
    parser.add_argument("--problem", action="store_true", help="say why there is no engine to test with")
    parser.add_argument("--release", default="0003")
    parser.add_argument("--image", action="append", default=[], help="a further release whose image is built")
    arguments = parser.parse_args()
    if arguments.problem:
        print(engine_problem())
    elif arguments.down:
        ComposeProject(arguments.down).destroy()
    elif arguments.look:
        print(json.dumps(ComposeProject(arguments.look).looks()))
    else:
        for release in arguments.image:
            build_image(release)
        project = ComposeProject(arguments.up)
        project.create(arguments.release)
        project.start_database(arguments.release)
        project.start()
        project.write_inventory(project.folder / "hosts.yml")


if __name__ == "__main__":
    main()
