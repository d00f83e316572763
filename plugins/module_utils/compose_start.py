# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what Docker Compose started runs: its health check passed, or, without one, it is up unchanged seconds later."""

from __future__ import annotations

import dataclasses
import typing as t

from .compose import entries, is_one_off
from .compose_words import compose_words
from .lost_host import is_lost, trouble

if t.TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    Answer = Mapping[str, t.Any]

#: What a health check says until it passed, and when it does no more: https://docs.docker.com/reference/dockerfile/#healthcheck
NOT_HEALTHY = ("starting", "unhealthy")
#: Docker's words where nothing asks.
NOT_ASKED = ("", "none")


@dataclasses.dataclass(frozen=True)
class Doubt:
    """Why a service is not taken to run.

    :param running: ``False`` where it does not, ``None`` where nobody can tell.
    """

    running: bool | None
    why: str


def own_entries(answer: Answer) -> list[dict[str, t.Any]]:
    """The services' own containers, from ``docker compose ps``: those of ``docker compose run`` are neither stopped nor started."""
    return [entry for entry in entries("\n".join(answer.get("stdout_lines") or [])) if not is_one_off(entry)]


def last_words(answer: Answer) -> str:
    """Why a command gave no answer, in its own last words; an empty string when it did."""
    said = trouble(answer)
    if not said or is_lost(answer):
        return said
    return compose_words(str(answer.get("stderr") or "")) or own_message(answer) or "no reason was given"


def own_message(answer: Answer) -> str:
    """The message of the module that ran it, without what it quotes."""
    return compose_words(str(answer.get("msg") or ""))


def without_health_check(after: Answer, services: Collection[str]) -> list[str]:
    """Ids of the services' containers that run, and that nothing asks for their health.

    :param after: the answer of ``docker compose ps`` after the start.
    """
    return [
        str(entry.get("ID")) for entry in own_entries(after) if entry.get("Service") in services and _is_unasked(entry)
    ]


def doubts(after: Answer, seen: Answer, seen_again: Answer) -> dict[str, Doubt]:
    """What speaks against services that were started, by name; of several containers, what is known goes first.

    Docker Compose can end well although a health check did not pass, where its time is up between two questions, and it waits
    for nothing of a container without one.

    :param after: the answer of ``docker compose ps`` after the start.
    :param seen: lines of id, count of restarts, time of the start and state, of the containers without a health check; empty or
        skipped where there are none.
    :param seen_again: the same, some seconds later.
    """
    found: dict[str, Doubt] = {}
    for entry in own_entries(after):
        service, doubt = str(entry.get("Service")), _doubt(entry, seen, seen_again)
        if doubt and (service not in found or found[service].running is None):
            found[service] = doubt
    return found


def _is_unasked(entry: Mapping[str, t.Any]) -> bool:
    return str(entry.get("State")).lower() == "running" and str(entry.get("Health") or "") in NOT_ASKED


def _doubt(entry: Mapping[str, t.Any], seen: Answer, seen_again: Answer) -> Doubt | None:
    doubt = _at_first(entry)
    if doubt or not seen or seen.get("skipped") or not _is_unasked(entry):
        return doubt
    return _at_last(entry, seen, seen_again)


def _at_first(entry: Mapping[str, t.Any]) -> Doubt | None:
    name, state, health = str(entry.get("Name")), str(entry.get("State")).lower(), str(entry.get("Health") or "")
    if state == "restarting":
        return Doubt(False, f"{name} keeps restarting. {_log(name)}")
    if state == "exited":
        return Doubt(False, f"{name} has exited (exit code {entry.get('ExitCode')}). {_log(name)}")
    if state == "running" and health in NOT_HEALTHY:
        return Doubt(None, f"{name} runs, and its health check says {health}. {_log(name)}")
    return None


def _at_last(entry: Mapping[str, t.Any], seen: Answer, seen_again: Answer) -> Doubt | None:
    name = str(entry.get("Name"))
    first, second = (_look(answer, str(entry.get("ID"))) for answer in (seen, seen_again))
    if not first or not second:
        said = last_words(seen) or last_words(seen_again) or "Docker did not list it"
        return Doubt(None, f"Whether {name} stayed up is not known: {said.rstrip('.')}. {_log(name)}")
    if second[-1] not in ("running", "restarting"):
        return Doubt(False, f"{name} ended within seconds of the start, and is {second[-1]}. {_log(name)}")
    return Doubt(False, f"{name} keeps restarting. {_log(name)}") if second != first else None


def _log(name: str) -> str:
    return f"Its log: docker logs --tail 50 {name}"


def _look(answer: Answer, container: str) -> Sequence[str]:
    """What a container was seen as; empty where it was not. ``docker compose ps`` shortens the ids."""
    lines = [line.split() for line in answer.get("stdout_lines") or []]
    return next((line for line in lines if line and line[0].startswith(container)), [])
