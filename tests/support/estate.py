# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cypher ERP on several hosts: those of the databases and those of the application, each reached over SSH."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import typing as t

from tests.support.documentation import command
from tests.support.runbook import Project, Run
from tests.support.tcp_proxy import TcpProxy

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.conftest import Database
    from tests.support.ssh_hosts import SshHost, SshHosts

APP_PORT = 8080


class Estate(Project):
    """A checkout that all hosts have at the same place, and an inventory of several databases and applications."""

    #: A run over three databases sends every module three times.
    limit_seconds = 600

    def __init__(
        self, folder: Path, databases: Mapping[str, Database], hosts: SshHosts, apps: list[str], **settings: t.Any
    ) -> None:
        """:param databases: by the name of their hosts; the first one is the project's.

        :param apps: names of the hosts of the application; the n-th database has the n-th of them, a single one has all.
        """
        super().__init__(folder, next(iter(databases.values())), **settings)
        self.databases = dict(databases)
        self.hosts = hosts
        self.apps = apps
        for name in ("ansible_connection", "ansible_python_interpreter", "rollback_db_host", "rollback_db_port"):
            del self.settings[name]
        self.settings |= {
            "rollback_backup_dir": f"{self.backups}/{{{{ inventory_hostname }}}}",
            "rollback_app_driver": "command",
            "rollback_app_timeout": 10,
            "rollback_smoke_timeout": 5,
            **settings,
        }
        (self.project / "release.txt").write_text("0002\n", encoding="utf-8")
        self.database_vars: dict[str, dict[str, t.Any]] = {name: {} for name in databases}
        self.app_vars: dict[str, dict[str, t.Any]] = {name: {} for name in apps}

    @contextlib.contextmanager
    def running(self) -> Iterator[Estate]:
        """The databases at 0003, each with its application, for the time of the block."""
        server = self.database.server
        with TcpProxy(server.host, server.port, listen=self.hosts.gateway) as relay:
            self.settings |= {"rollback_db_host": relay.host, "rollback_db_port": relay.port}
            for number, (name, database) in enumerate(self.databases.items()):
                self.database = database
                self.migrate("0003")
                own = self.apps if len(self.databases) == 1 else [self.apps[number]]
                self.database_vars[name] |= {"rollback_db_name": database.name, "rollback_app_hosts": own}
                for app in own:
                    self.app_vars[app] = {**self._commands(app, database), **self.app_vars[app]}
                    self.app(app, "start")
            try:
                yield self
            finally:
                for app in self.apps:
                    self.hosts[app].reconnect()
                    self.app(app, "stop", check=False)
                for name in self.databases:
                    self.hosts[name].reconnect()

    def _commands(self, app: str, database: Database) -> dict[str, t.Any]:
        arguments = database.connection_arguments()
        passfile = self.folder / "app.pgpass"
        passfile.touch(mode=0o600)
        passfile.write_text(f"*:*:*:*:{arguments['password']}\n", encoding="utf-8")
        environment = {
            "DB_HOST": self.settings["rollback_db_host"],
            "DB_PORT": self.settings["rollback_db_port"],
            "DB_NAME": database.name,
            "DB_USER": arguments["user"],
            "PGPASSFILE": passfile,
            "APP_PORT": APP_PORT,
            "PYTHON": sys.executable,
        }
        files = ["--pid-file", str(self.pid_file(app))]
        prefix = ["env", *(f"{name}={value}" for name, value in environment.items()), str(self.project / "appctl")]
        return {
            "rollback_app_start_command": [*prefix, "start", *files, "--log", str(self.folder / f"{app}.log")],
            "rollback_app_stop_command": [*prefix, "stop", *files],
            "rollback_app_status_command": [*prefix, "status", *files],
            "rollback_smoke_tests": [
                {"name": f"health of {app}", "url": f"http://127.0.0.1:{APP_PORT}/health", "status": 200}
            ],
        }

    def pid_file(self, app: str) -> Path:
        """File with the process of the application."""
        return self.folder / f"{app}.pid"

    def app(self, app: str, action: str, check: bool = True) -> bool:
        """Start, stop or ask the application of a host, on it and past SSH; whether that went well."""
        host = self.hosts[app]
        commands = self._commands(app, next(iter(self.databases.values())))
        own = {**commands, **self.app_vars[app]}
        words = own[f"rollback_app_{action}_command"]
        words = words if isinstance(words, list) else commands[f"rollback_app_{action}_command"]
        return host.run(*[str(word) for word in words], check=check).returncode == 0

    def processes(self) -> dict[str, str]:
        """The process of the application on each host; empty where none runs."""
        found = {}
        for app in self.apps:
            runs = self.app(app, "status", check=False)
            found[app] = self.pid_file(app).read_text(encoding="ascii").strip() if runs else ""
        return found

    def inventory(self) -> Path:
        """The hosts, each with the variables with which it is reached."""
        path = self.folder / "hosts.json"
        databases = {name: {**self.hosts.variables(name), **self.database_vars[name]} for name in self.databases}
        apps = {name: {**self.hosts.variables(name), **self.app_vars[name]} for name in self.apps}
        groups = {"erp_db": {"hosts": databases}, "erp_app": {"hosts": apps}}
        path.write_text(json.dumps({"all": {"vars": self.settings, "children": groups}}), encoding="utf-8")
        return path

    def follow(self, name: str) -> Run:
        """Run a command of the guide as a person who has its inventory; where several reports are written, see ``reports``."""
        self.inventory().rename(self.folder / "hosts.yml")
        path = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}"
        done = subprocess.run(
            ["sh", "-e", "-c", command("guide_several_hosts", name)],
            cwd=self.folder,
            env={**self.environment(), "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.limit_seconds,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr, None, self.folder)

    def run_folders(self) -> list[Path]:
        """Folders of the runs of all databases so far."""
        return sorted(item for item in self.backups.glob("*/runs/*") if item.is_dir())

    def reports(self, host: str) -> list[dict[str, t.Any]]:
        """Reports of one database, oldest first."""
        return [json.loads(path.read_text()) for path in sorted((self.backups / host / "runs").glob("*/report.json"))]

    def host(self, name: str) -> SshHost:
        """One of the hosts."""
        return self.hosts[name]

    def has_orders(self, host: str) -> bool:
        """Whether the table that migration 0003 made is there."""
        return bool(self.databases[host].execute("SELECT to_regclass('b2b.orders') IS NOT NULL")[0][0])
