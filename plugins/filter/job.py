# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for a job over all of its databases: in which batches they are taken, and how it ends."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils import batches
from ansible_collections.cypher.rollback.plugins.module_utils.artifacts import (
    NOT_STARTED,
    ended,
    is_good,
    of_job,
    outcome_of,
)
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain
from ansible_collections.cypher.rollback.plugins.module_utils.run_table import run_table


def _applications(hosts: t.Any, hostvars: t.Any, groups: t.Any) -> dict[str, list[str]]:
    """The hosts that each database's run stops something on: its own rollback_app_hosts, or the group erp_app."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        own = hostvars[host].get("rollback_app_hosts") if host in hostvars else None
        named = list(own) if own is not None else list(groups.get("erp_app") or [])
        found[host] = [name for name in named if _driver(name, host, hostvars) != "none"]
    return found


def _driver(name: str, host: str, hostvars: t.Any) -> str:
    """How the application is stopped on one of its hosts; the database's host gives what that one leaves open."""
    values = [hostvars[one].get("rollback_app_driver") for one in (name, host) if one in hostvars]
    return next((str(value) for value in values if value), "docker_compose")


def _serials(hosts: t.Any, hostvars: t.Any) -> list[t.Any]:
    return batches.given(plain(hostvars[host].get(batches.SETTING)) for host in hosts if host in hostvars)


def job_batches(hosts: t.Any, hostvars: t.Any, groups: t.Any) -> str:
    """The batches of the databases, as the name of a group."""
    return batches.group_name(_serials(hosts, hostvars), _applications(hosts, hostvars, groups))


def job_serial(groups: t.Any) -> list[int | str]:
    """The batches of the databases, as ``serial`` takes them, from the names of the groups."""
    return batches.of_groups(list(groups))


#: Environment variable and last resort of each, as in the defaults of the role settings, which hostvars do not have.
_DEFAULTS = {
    "rollback_db_host": ("DB_HOST", "localhost"),
    "rollback_db_port": ("DB_PORT", "5432"),
    "rollback_db_name": ("DB_NAME", "cypher_erp"),
}


def _address(host: str, settings: t.Any) -> str:
    here = host == "localhost" or settings.get("ansible_connection") in ("local", "ansible.builtin.local")
    machine = "localhost" if here else str(settings.get("ansible_host") or host)
    values = {
        name: settings.get(name) or os.environ.get(variable) or last for name, (variable, last) in _DEFAULTS.items()
    }
    return batches.address(machine, values)


def job_order_problems(hosts: t.Any, hostvars: t.Any) -> list[str]:
    """Why the databases have no order, or are not several, a sentence each; empty when nothing is wrong."""
    known = {host: _address(host, hostvars[host]) for host in hosts if host in hostvars}
    return [*batches.problems(_serials(hosts, hostvars)), *batches.the_same(known)]


def job_results(hosts: t.Any, hostvars: t.Any, check_mode: bool = False) -> dict[str, dict[str, t.Any]]:
    """How the run of each database ended, in the order of the run."""
    return ended({host: plain(hostvars[host].get("notify_result") or {}) for host in hosts}, check_mode)


def job_failed_before(results: t.Any, batch: t.Any) -> list[str]:
    """The databases of the batches before this one whose run did not end well."""
    found = []
    for host, result in plain(results).items():
        if host in batch:
            break
        if not is_good(outcome_of(result)) and outcome_of(result) != NOT_STARTED:
            found.append(host)
    return found


def job_artifacts(results: t.Any, version: t.Any = "") -> dict[str, t.Any]:
    """What the job leaves to a workflow."""
    return of_job(plain(results), version)


def job_is_good(result: t.Any) -> bool:
    """Whether the run of a database ended well."""
    return is_good(outcome_of(plain(result)))


def job_table(results: t.Any) -> list[str]:
    """The databases of the job in a table, as lines of text."""
    return run_table(plain(results))


class FilterModule:
    """The filters of a job."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {
            "job_artifacts": job_artifacts,
            "job_batches": job_batches,
            "job_failed_before": job_failed_before,
            "job_is_good": job_is_good,
            "job_order_problems": job_order_problems,
            "job_results": job_results,
            "job_serial": job_serial,
            "job_table": job_table,
        }
