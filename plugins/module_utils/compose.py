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

from .compose_words import compose_words
from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

LIMIT_SECONDS = 60
#: The project's own file of variables.
ENVIRONMENT_FILE = ".env"
#: Docker's states of a container that runs, or would by itself again.
COMPOSE_UP = ("running", "restarting", "paused")

_CONFIG_HASH = re.compile(r"com\.docker\.compose\.config-hash=([0-9a-f]+)")
#: What Docker Compose writes on each container: https://docs.docker.com/reference/compose-file/services/#labels
_LABELLED = "\t".join(
    (
        '{{.Label "com.docker.compose.service"}}',
        '{{.Label "com.docker.compose.project"}}',
        '{{.Label "com.docker.compose.project.working_dir"}}',
        "{{.State}}",
    )
)
#: How ``docker compose run`` calls its containers, where it is not told otherwise.
_ONE_OFF_NAME = re.compile(r"[-_]run[-_][0-9a-f]{12}$")
_DEFINITION = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*[=:]", re.MULTILINE)
#: What finds the programs and the engine: without them the question could not be asked.
_NEEDED = ("PATH", "HOME")


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
    """The project in one folder, as ``docker compose --project-directory`` and so the start take it.

    :param folder: ``rollback_project_dir``.
    """

    folder: str

    def config(self, variables: Mapping[str, str] | None = None) -> dict[str, dict[str, t.Any]]:
        """The services as the files define them, by name. The engine is not needed for that.

        :param variables: go before those of the project's ``.env``.
        :raises ComposeRefused: the project cannot be read.
        """
        return services_of(self.whole(variables=variables))

    def whole(self, *, variables: Mapping[str, str] | None = None, without: Collection[str] = ()) -> dict[str, t.Any]:
        """The project as the files define it, its name and all paths included.

        :param without: variables of this process's environment that are left out.
        :raises ComposeRefused: the project cannot be read.
        """
        text = self._project("config", "--format", "json", variables=variables, without=without)
        return t.cast("dict[str, t.Any]", json.loads(text))

    def version(self) -> tuple[int, ...]:
        """The version of Docker Compose, such as ``(2, 26)``; empty where it is none that can be compared."""
        found = re.match(r"v?(\d+)\.(\d+)", self._docker(["docker", "compose", "version", "--short"]).stdout.strip())
        return tuple(int(number) for number in found.groups()) if found else ()

    def is_the_same_inside(self, present: Mapping[str, t.Any]) -> bool:
        """Whether ``docker compose``, called in the folder, takes the same project, paths and name included.

        :param present: the project, as :meth:`whole` gives it.
        """
        own = self._docker(["docker", "compose", "config", "--format", "json"], {"PWD": os.path.abspath(self.folder)})
        return own.returncode == 0 and json.loads(own.stdout) == present

    def overridden(self, present: Mapping[str, t.Any]) -> list[str]:
        """The variables of the project's ``.env`` in whose place the environment of this process has other values.

        Only those that change the project: Docker Compose prefers the environment to the file.

        :param present: the project, as :meth:`whole` gives it.
        """
        names = [name for name in self._defined() if name in os.environ and name not in _NEEDED]
        if not names or self.whole(without=names) == present:
            return []
        return [name for name in names if self.whole(without=[name]) != present] or names

    def _defined(self) -> list[str]:
        """Names of the variables that the project's ``.env`` defines; none where there is no such file."""
        try:
            with open(os.path.join(self.folder, ENVIRONMENT_FILE), encoding="utf-8", errors="replace") as file:
                return list(dict.fromkeys(_DEFINITION.findall(file.read())))
        except OSError:
            return []

    def hashes(self) -> dict[str, str]:
        """Hash of the definition of each service."""
        lines = self._project("config", "--hash", "*").splitlines()
        return dict(line.split(None, 1) for line in lines if len(line.split()) == 2)

    def containers(self) -> dict[str, list[Container]]:
        """The containers of each service, those that do not run included, those of ``docker compose run`` not.

        :raises ComposeRefused: the engine does not answer.
        """
        own, _one_offs = self.containers_and_one_offs()
        return own

    def containers_and_one_offs(self) -> tuple[dict[str, list[Container]], dict[str, list[Container]]]:
        """The containers of each service, and those of ``docker compose run``, which a stop and a start of it leave alone.

        :raises ComposeRefused: the engine does not answer.
        """
        listed = self._listed()
        own = _by_service(entry for entry in listed if not is_one_off(entry))
        return own, _by_service(entry for entry in listed if is_one_off(entry))

    def _listed(self) -> list[dict[str, t.Any]]:
        return entries(self._answer(self._run("ps", "--all", "--format", "json")))

    def elsewhere(self, own: str) -> dict[str, dict[str, bool]]:
        """By service, the projects of another name with containers made from this folder, and whether one of these is up.

        Docker Compose takes such a project, once started with ``-p``, for none of this folder's. Folders are compared by their
        real paths, because it writes down the one that it was told.

        :param own: name of this project.
        :raises ComposeRefused: the engine does not answer.
        """
        asked = ["docker", "ps", "--all", "--filter", "label=com.docker.compose.oneoff=False", "--format", _LABELLED]
        found: dict[str, dict[str, bool]] = {}
        for line in self._answer(self._docker(asked)).splitlines():
            service, project, folder, state = line.split("\t")
            if project != own and folder and os.path.realpath(folder) == os.path.realpath(self.folder):
                projects = found.setdefault(service, {})
                projects[project] = projects.get(project, False) or state.lower() in COMPOSE_UP
        return found

    def _answer(self, done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode:
            raise ComposeRefused(
                f"Docker's engine cannot be asked on this host: {_said(done)}. Start it, or let the user that this runs as reach it "
                "(ansible_become, or the group docker)."
            )
        return done.stdout

    def has_image(self, image: str) -> bool:
        """Whether an image is on this host."""
        return self._docker(["docker", "image", "inspect", "--format", "{{.Id}}", image]).returncode == 0

    def _project(self, *words: str, variables: Mapping[str, str] | None = None, without: Collection[str] = ()) -> str:
        done = self._run(*words, variables=variables, without=without)
        if done.returncode:
            raise ComposeRefused(
                f"Docker Compose cannot read the project in {self.folder} (rollback_project_dir): {_said(done)}. "
                "Correct rollback_project_dir or the compose file, or set rollback_app_driver to what runs the application."
            )
        return done.stdout

    def _run(
        self, *words: str, variables: Mapping[str, str] | None = None, without: Collection[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        if not os.path.isdir(self.folder):
            raise ComposeRefused(f"rollback_project_dir {self.folder!r} is no folder on this host. Correct it.")
        return self._docker(["docker", "compose", "--project-directory", self.folder, *words], variables, without)

    def _docker(
        self, argv: list[str], variables: Mapping[str, str] | None = None, without: Collection[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        # The compose file may take values from the environment, as it does where Ansible starts the services.
        environment = {name: value for name, value in os.environ.items() if name not in without}
        try:
            return subprocess.run(
                argv,
                cwd=self.folder,
                env={**environment, **(variables or {})},
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
                f"Docker gave no answer to {' '.join(argv)!r} within {LIMIT_SECONDS} s. Look at its engine: docker info"
            ) from err


def services_of(whole: Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """The services of a project, by name."""
    return dict(whole.get("services") or {})


def entries(text: str) -> list[dict[str, t.Any]]:
    """What ``docker compose ps --format json`` lists: a line each, from older versions one list."""
    found: list[dict[str, t.Any]] = []
    for line in text.splitlines():
        if line.startswith(("{", "[")):
            value = json.loads(line)
            found.extend(value if isinstance(value, list) else [value])
    return found


def is_one_off(entry: Mapping[str, t.Any]) -> bool:
    """Whether a container that is listed was made by ``docker compose run``, and is none of the service's own."""
    if entry.get("Labels"):
        return "com.docker.compose.oneoff=True" in str(entry["Labels"]).split(",")
    return bool(_ONE_OFF_NAME.search(str(entry.get("Name") or "")))


def _by_service(listed: Iterable[Mapping[str, t.Any]]) -> dict[str, list[Container]]:
    found: dict[str, list[Container]] = {}
    for entry in listed:
        found.setdefault(str(entry.get("Service")), []).append(_container(entry))
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
    return compose_words(done.stderr or done.stdout).rstrip(".") or f"exit code {done.returncode}"
