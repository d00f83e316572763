# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be known of an application in Docker Compose before it is stopped."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .compose import COMPOSE_UP, ENVIRONMENT_FILE, Compose, ComposeRefused, services_of

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .compose import Container

#: Last part of the name of an image that is PostgreSQL, whoever built it.
_DATABASE_IMAGE = re.compile(r"(?:^|/)(?:postgres|postgresql|postgis|timescaledb|timescaledb-ha|pgvector)(?:[:@]|$)")
#: The oldest Docker Compose that the start can use.
_OLDEST = (2, 18)
_LOCAL = ("localhost", "127.0.0.1", "::1", "")


@dataclasses.dataclass(frozen=True)
class _Known:
    """What Docker says of the project.

    :param elsewhere: by service, the projects of another name that were made from this folder, and whether one runs.
    """

    name: str
    defined: Mapping[str, Mapping[str, t.Any]]
    containers: Mapping[str, Sequence[Container]]
    elsewhere: Mapping[str, Mapping[str, bool]]


@dataclasses.dataclass(frozen=True)
class Question:
    """Which project, and where the database of the run is.

    :param services: ``rollback_app_services``.
    :param database_exec: the command that reaches into the database's container; may be empty.
    :param makes_anew: whether the start may make containers anew, as it does with previous code.
    """

    project_dir: str
    services: Sequence[str]
    database_host: str = ""
    database_port: int = 0
    database_exec: Sequence[str] = ()
    makes_anew: bool = True


def look(question: Question) -> dict[str, t.Any]:
    """The services with their containers, and what is worth a warning. Only reads.

    :returns: ``services`` (by name, the ``containers`` of each and whether it ``changed``) and ``warnings``.
    :raises ComposeRefused: naming everything that is in the way.
    """
    compose = Compose(question.project_dir)
    whole, hashes = compose.whole(), compose.hashes()
    containers, one_offs = compose.containers_and_one_offs()
    project = str(whole.get("name") or "")
    known = _Known(project, services_of(whole), containers, compose.elsewhere(project))
    overridden = list(_overridden(compose, whole))
    problems = [
        *_project_problems(compose, whole),
        *(overridden if question.makes_anew else ()),
        *(problem for name in question.services for problem in _problems(question, name, known)),
        *(problem for name in question.services for problem in _one_off_problems(name, one_offs.get(name, ()))),
    ]
    if problems:
        raise ComposeRefused(" ".join(problems), problems=problems)
    found = {name: containers[name] for name in question.services}
    return {
        "services": {
            name: {
                "containers": [dataclasses.asdict(one) for one in of_service],
                "changed": _is_changed(of_service, hashes.get(name, "")),
            }
            for name, of_service in found.items()
        },
        "warnings": [
            *(() if question.makes_anew else overridden),
            *(text for name in question.services for text in _warnings(name, found[name], hashes.get(name, ""))),
            *(text for name in question.services for text in _beside_warnings(question, name, known)),
        ],
    }


def _project_problems(compose: Compose, whole: Mapping[str, t.Any]) -> Iterator[str]:
    version = compose.version()
    if version and version < _OLDEST:
        yield f"Docker Compose is {'.'.join(map(str, version))}, and has to be {'.'.join(map(str, _OLDEST))} or newer. Update it."
    if not compose.is_the_same_inside(whole):
        yield (
            f"docker compose takes another project in {compose.folder} than docker compose --project-directory {compose.folder}, as the "
            "start calls it, and would make other containers. Set rollback_project_dir to the folder that holds the compose file, with its .env "
            "beside it; where that cannot be, set rollback_app_driver to command."
        )


def _overridden(compose: Compose, whole: Mapping[str, t.Any]) -> Iterator[str]:
    """What a container that is made anew would get instead of its own; those that are only started again keep what they have."""
    names = compose.overridden(whole)
    if names:
        yield (
            f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} another value in the environment of this run than in "
            f"{compose.folder}/{ENVIRONMENT_FILE}, and Docker Compose would make containers with that of the run. For the run: "
            f"unset {' '.join(names)}. What the rollback itself takes from there can be set as rollback_db_* in the inventory instead."
        )


def _one_off_problems(name: str, one_offs: Sequence[Container]) -> Iterator[str]:
    for container in one_offs:
        if container.state in COMPOSE_UP:
            yield (
                f"{container.name} was made by docker compose run {name} and {'is paused' if container.state == 'paused' else 'runs'}: "
                f"it would go on, and could write, while {name} is stopped. Let it end, or: docker stop {container.name}."
            )


def _count_problems(question: Question, name: str, wanted: int, found: int) -> Iterator[str]:
    if found != wanted:
        yield (
            f"{name} has {found} container{'' if found == 1 else 's'}, and the compose file wants {wanted}: the start would "
            f"{'remove' if found > wanted else 'make'} {abs(found - wanted)}. Write deploy.replicas: {found} into the file, or have as "
            f"many as it says: docker compose --project-directory {question.project_dir} up --detach --no-deps --no-recreate {name}."
        )


def _replicas(service: Mapping[str, t.Any]) -> int:
    """How many containers of a service the file wants."""
    deployed = (service.get("deploy") or {}).get("replicas")
    values = [value for value in (service.get("scale"), deployed) if value is not None]
    return int(values[0]) if values else 1


def _problems(question: Question, name: str, known: _Known) -> Iterator[str]:
    if name not in known.defined:
        yield (
            f"rollback_app_services names {name}, and the project in {question.project_dir} has no such service. "
            f"It has {', '.join(sorted(known.defined)) or 'none'}; those of a profile only where COMPOSE_PROFILES in its .env names that."
        )
        return
    why = _why_database(question, name, known.defined[name])
    if why:
        yield f"{name} is the database ({why}), which is never stopped. Take it out of rollback_app_services."
        return
    containers = known.containers.get(name)
    if not containers:
        yield _without_container(question, name, known)
        return
    yield from _count_problems(question, name, _replicas(known.defined[name]), len(containers))
    for container in containers:
        if container.state == "paused":
            yield f"{container.name} is paused and cannot end by itself. Let it go on first: docker unpause {container.name}."
        elif container.state in ("dead", "removing"):
            yield f"{container.name} is {container.state} and cannot be started. Remove it and make it anew: docker rm {container.name}."


def _without_container(question: Question, name: str, known: _Known) -> str:
    """A service that runs in a project of another name is made no second time, beside which the DOWN would run."""
    others = known.elsewhere.get(name)
    if not others:
        return (
            f"{name} has no container in the Compose project {known.name}, and a rollback makes and pulls none. Make it: docker compose "
            f"--project-directory {question.project_dir} create {name}. Or take it out of rollback_app_services."
        )
    several, names = len(others) > 1, sorted(others, key=lambda project: (not others[project], project))
    return (
        f"{name} has no container in the Compose project {known.name}, and the project{'s' if several else ''} {' and '.join(names)}, "
        f"which {'were' if several else 'was'} made from the same folder {question.project_dir}, {'have' if several else 'has'} one"
        f"{' that runs: a rollback would not stop it' if any(others.values()) else ''}. Write COMPOSE_PROJECT_NAME={names[0]} into "
        f"{ENVIRONMENT_FILE} in that folder, or start it under the project's own name, {known.name}."
    )


def _beside_warnings(question: Question, name: str, known: _Known) -> Iterator[str]:
    for project in sorted(project for project, runs in known.elsewhere.get(name, {}).items() if runs):
        yield (
            f"{name} runs in the Compose project {project} as well, which was made from the same folder {question.project_dir}, and only "
            f"that of the project {known.name} is stopped. Where the other uses this database, stop it first: "
            f"docker compose -p {project} stop {name}."
        )


def _why_database(question: Question, name: str, service: Mapping[str, t.Any]) -> str:
    """Why a service is the database of the run; empty where it is not."""
    ports = service.get("ports") or []
    if question.database_host in _LOCAL and any(
        str(port.get("published")) == str(question.database_port) for port in ports
    ):
        return f"it publishes rollback_db_port {question.database_port}"
    if name in question.database_exec:
        return "rollback_pg_exec names it"
    if question.database_host == name:
        return "rollback_db_host names it"
    image = str(service.get("image") or "")
    return f"its image is {image}" if _DATABASE_IMAGE.search(image) else ""


def _is_changed(containers: Sequence[Container], present: str) -> bool:
    return any(one.config_hash and present and one.config_hash != present for one in containers)


def _warnings(name: str, containers: Sequence[Container], present: str) -> Iterator[str]:
    if _is_changed(containers, present):
        yield (
            f"The definition of {name} in the compose file, or what it takes from .env, was changed since its container was made. "
            "The start runs that container as it is; with previous code it is made anew, as the file is now."
        )
    for container in containers:
        if container.state == "restarting":
            yield f"{container.name} keeps ending and being restarted. Where that goes on, the start of the application fails."
        elif container.state in ("exited", "created"):
            yield (
                f"{container.name} does not run now (exit code {container.exit_code}), and the start waits until it does. "
                f"If {name} runs once and ends, take it out of rollback_app_services."
            )
        elif container.health == "unhealthy":
            yield f"{container.name} is unhealthy now. Where it still is after the start, the run says so and does not end well."
