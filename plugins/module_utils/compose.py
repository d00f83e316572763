# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Compose on the application's host, asked for what is known of a project."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import typing as t

from .application import without_passwords
from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT_SECONDS = 60

_CONFIG_HASH = re.compile(r"com\.docker\.compose\.config-hash=([0-9a-f]+)")


class ComposeRefused(Refused):
    """Docker, or the project, is not such that the application could be stopped and started."""


@dataclasses.dataclass(frozen=True)
class Container:
    """A container of a service.

    :param state: Docker's word, such as ``running``, ``exited``, ``paused``, ``restarting`` or ``dead``.
    :param health: ``healthy``, ``unhealthy``, ``starting``, or empty where nothing asks.
    :param config_hash: of the definition that it was made from.
    """

    id: str
    name: str
    state: str
    health: str
    exit_code: int
    image: str
    config_hash: str


@dataclasses.dataclass(frozen=True)
class Compose:
    """The project in one folder.

    :param folder: ``rollback_project_dir``.
    """

    folder: str

    def config(self, variables: Mapping[str, str] | None = None) -> dict[str, dict[str, t.Any]]:
        """The services as the files define them, by name. The engine is not needed for that.

        :param variables: go before those of the project's ``.env``.
        :raises ComposeRefused: the project cannot be read.
        """
        text = self._project("config", "--format", "json", variables=variables)
        services: dict[str, dict[str, t.Any]] = json.loads(text).get("services") or {}
        return services

    def hashes(self) -> dict[str, str]:
        """Hash of the definition of each service."""
        lines = self._project("config", "--hash", "*").splitlines()
        return dict(line.split(None, 1) for line in lines if len(line.split()) == 2)

    def containers(self) -> dict[str, list[Container]]:
        """The containers of each service, those that do not run included.

        :raises ComposeRefused: the engine does not answer.
        """
        done = self._run("ps", "--all", "--format", "json")
        if done.returncode:
            raise ComposeRefused(
                f"Docker's engine cannot be asked on this host: {_said(done)}. Start it, or let the user that this runs as reach it "
                "(ansible_become, or the group docker)."
            )
        found: dict[str, list[Container]] = {}
        for entry in entries(done.stdout):
            found.setdefault(str(entry.get("Service")), []).append(_container(entry))
        return found

    def has_image(self, image: str) -> bool:
        """Whether an image is on this host."""
        return self._docker(["docker", "image", "inspect", "--format", "{{.Id}}", image]).returncode == 0

    def _project(self, *words: str, variables: Mapping[str, str] | None = None) -> str:
        done = self._run(*words, variables=variables)
        if done.returncode:
            raise ComposeRefused(
                f"Docker Compose cannot read the project in {self.folder} (rollback_project_dir): {_said(done)}. "
                "Correct rollback_project_dir or the compose file, or set rollback_app_driver to what runs the application."
            )
        return done.stdout

    def _run(self, *words: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        if not os.path.isdir(self.folder):
            raise ComposeRefused(f"rollback_project_dir {self.folder!r} is no folder on this host. Correct it.")
        return self._docker(["docker", "compose", *words], variables)

    def _docker(self, argv: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv,
                cwd=self.folder,
                # The compose file may take values from the environment, as it does where Ansible starts the services.
                env={**os.environ, **(variables or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except FileNotFoundError as err:
            raise ComposeRefused(
                "There is no docker command on this host. Install Docker with its plugin Compose, or set rollback_app_driver to what "
                "runs the application."
            ) from err
        except subprocess.TimeoutExpired as err:
            raise ComposeRefused(
                f"Docker gave no answer to {' '.join(argv[:3])!r} within {LIMIT_SECONDS} s. Look at its engine: docker info"
            ) from err


def entries(text: str) -> list[dict[str, t.Any]]:
    """What ``docker compose ps --format json`` lists: a line each, from older versions one list."""
    found: list[dict[str, t.Any]] = []
    for line in text.splitlines():
        if line.startswith(("{", "[")):
            value = json.loads(line)
            found.extend(value if isinstance(value, list) else [value])
    return found


def _container(entry: Mapping[str, t.Any]) -> Container:
    labels = _CONFIG_HASH.search(str(entry.get("Labels") or ""))
    return Container(
        id=str(entry.get("ID") or ""),
        name=str(entry.get("Name") or ""),
        state=str(entry.get("State") or "").lower(),
        health=str(entry.get("Health") or ""),
        exit_code=int(entry.get("ExitCode") or 0),
        image=str(entry.get("Image") or ""),
        config_hash=labels[1] if labels else "",
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    told = [line for line in lines if "level=warning" not in line] or lines
    return without_passwords(" ".join(told[-3:])).rstrip(".") or f"exit code {done.returncode}"
