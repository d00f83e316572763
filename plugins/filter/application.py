# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the settings of the application's hosts, which are judged before anything is stopped."""

from __future__ import annotations

import importlib.util
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.cypher.rollback.plugins.module_utils.app_stage import (
    acted_on,
    not_down,
    note,
    ran_before,
    refusals,
    services_up,
    unknown,
)
from ansible_collections.cypher.rollback.plugins.module_utils.application import driver_problems
from ansible_collections.cypher.rollback.plugins.module_utils.compose_start import without_health_check
from ansible_collections.cypher.rollback.plugins.module_utils.image_stage import image_plan, note_image, note_image_undo
from ansible_collections.cypher.rollback.plugins.module_utils.lost_host import application_problems
from ansible_collections.cypher.rollback.plugins.module_utils.release import (
    as_before,
    note_checkout,
    note_undo,
    release_plan,
    release_problems,
)
from ansible_collections.cypher.rollback.plugins.module_utils.smoke import smoke_test_problems, stage_result


def _of_host(host: str, hostvars: t.Any, name: str, default: t.Any) -> t.Any:
    """A setting of an application host, or the play's own value."""
    if host not in hostvars:
        raise AnsibleFilterError(f"rollback_app_hosts names {host}, which is not in the inventory.")
    return hostvars[host].get(name, default)


def _has_docker_collection() -> bool:
    try:
        return importlib.util.find_spec("ansible_collections.community.docker.plugins.modules") is not None
    except ModuleNotFoundError:
        return False


def app_problems(hosts: t.Any, hostvars: t.Any, defaults: t.Mapping[str, t.Any]) -> list[str]:
    """What is missing in the settings of each host's driver, one sentence each; an empty list when nothing is."""
    problems = []
    for host in hosts:
        settings = {name: _of_host(host, hostvars, name, default) for name, default in defaults.items()}
        found = driver_problems(settings)
        # Ansible would end the whole play at the task, without a report.
        if settings["rollback_app_driver"] == "docker_compose" and not _has_docker_collection():
            found.append("The driver docker_compose needs it: ansible-galaxy collection install community.docker.")
        problems += [f"{host}: {problem}" for problem in found]
    return problems


def smoke_problems(hosts: t.Any, hostvars: t.Any, default: t.Any) -> list[str]:
    """What is wrong with the smoke tests of each host, each sentence once; an empty list when nothing is."""
    lists = [_of_host(host, hostvars, "rollback_smoke_tests", default) for host in hosts] or [default]
    return list(dict.fromkeys(problem for tests in lists for problem in smoke_test_problems(tests)))


def smoke_queries(hosts: t.Any, hostvars: t.Any, default: t.Any) -> list[t.Any]:
    """The query tests of the play and of every host of the application, each once: all of them ask the same database."""
    lists = [default, *(_of_host(host, hostvars, "rollback_smoke_tests", []) for host in hosts)]
    queries = [test for tests in lists for test in tests if test.get("query")]
    return [test for number, test in enumerate(queries) if test not in queries[:number]]


def note_app_stage(result: t.Any, stage: str, host: str, evidence: t.Any) -> dict[str, t.Any]:
    """The result of the stage stop or restart, with what was done on one more host."""
    return note(result, stage, host, {**evidence, "stage": stage})


def app_ran_before(host: str, evidence: t.Any) -> list[str]:
    """What of a host's application runs, before it is stopped."""
    return ran_before(host, evidence)


def app_not_down(host: str, evidence: t.Any) -> list[str]:
    """What of a host's application is not down any more, one sentence each; an empty list when all of it is."""
    return not_down(host, evidence)


def app_unknown(host: str, evidence: t.Any) -> list[str]:
    """Why nobody can tell whether a host's application runs, one sentence; an empty list where somebody can."""
    return unknown(host, evidence)


def compose_services(before: t.Any, stage: str, services: t.Any) -> list[str]:
    """The services that are to be stopped or started: those of the setting that are not yet as wanted."""
    running = services_up(before, stage)
    return acted_on({"stage": stage, "services": services}, running) if running is not None else []


def compose_without_health_check(after: t.Any, services: t.Any) -> list[str]:
    """The containers of the services that run, and that nothing asks for their health."""
    return without_health_check(after, services)


def compose_problems(answers: t.Any) -> list[str]:
    """Why the application of a host cannot be stopped and started, one entry a host."""
    return refusals(answers)


def services_to_start(services: t.Any, host: str, only: t.Any) -> list[str]:
    """The units of a host that restart_only names, as ``host`` or ``host/unit``; ``all`` names every one."""
    return [name for name in services if {"all", host, f"{host}/{name}"} & set(only)]


def smoke_result(answers: t.Any, database_host: str) -> dict[str, t.Any]:
    """The result of the stage smoke_test, from the answers of its tasks."""
    return stage_result(answers, database_host)


def note_release(result: t.Any, host: str, answer: t.Any, before: t.Any = None) -> dict[str, t.Any]:
    """The result of the stage previous_code, with what was done on one more host."""
    return note_checkout(result, host, as_before(answer, (before or {}).get(host) or {}))


def note_release_undo(result: t.Any, answers: t.Any) -> dict[str, t.Any]:
    """The result of the stage previous_code after the way back."""
    return note_undo(result, answers)


def plan_of_images(plan: t.Any, answers: t.Any) -> dict[str, t.Any]:
    """Which release each host would have, with its images."""
    return image_plan(plan, answers)


def note_image_of_host(result: t.Any, host: str, answer: t.Any, before: t.Any = None) -> dict[str, t.Any]:
    """The result of the stage previous_code, with the image of one more host."""
    return note_image(result, host, answer, (before or {}).get(host) or {})


def note_undo_of_images(result: t.Any, answers: t.Any) -> dict[str, t.Any]:
    """The result of the stage previous_code, after the images went back."""
    return note_image_undo(result, answers)


def lost_hosts(answers: t.Any) -> list[str]:
    """The hosts that cannot be reached, one sentence a host."""
    return application_problems(answers)


def problems_of_releases(answers: t.Any) -> list[str]:
    """Why a release cannot be checked out, one sentence a host."""
    return release_problems(answers)


def plan_of_releases(answers: t.Any) -> dict[str, dict[str, t.Any]]:
    """Which release each host would have, and which it has now."""
    return release_plan(answers)


class FilterModule:
    """The filters of the application's stages."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {
            "app_not_down": app_not_down,
            "app_problems": app_problems,
            "app_ran_before": app_ran_before,
            "app_unknown": app_unknown,
            "compose_problems": compose_problems,
            "compose_services": compose_services,
            "compose_without_health_check": compose_without_health_check,
            "image_plan": plan_of_images,
            "lost_hosts": lost_hosts,
            "note_app_stage": note_app_stage,
            "note_image": note_image_of_host,
            "note_image_undo": note_undo_of_images,
            "note_release": note_release,
            "note_undo": note_release_undo,
            "release_plan": plan_of_releases,
            "release_problems": problems_of_releases,
            "services_to_start": services_to_start,
            "smoke_problems": smoke_problems,
            "smoke_queries": smoke_queries,
            "smoke_result": smoke_result,
        }
