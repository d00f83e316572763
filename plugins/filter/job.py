# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the end of a job, over all of its databases."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.artifacts import ended, is_good, of_job, outcome_of
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain


def job_results(hosts: t.Any, hostvars: t.Any, check_mode: bool = False) -> dict[str, dict[str, t.Any]]:
    """How the run of each database ended, in the order of the run."""
    return ended({host: plain(hostvars[host].get("notify_result") or {}) for host in hosts}, check_mode)


def job_artifacts(results: t.Any, version: t.Any = "") -> dict[str, t.Any]:
    """What the job leaves to a workflow."""
    return of_job(plain(results), version)


def job_is_good(result: t.Any) -> bool:
    """Whether the run of a database ended well."""
    return is_good(outcome_of(plain(result)))


class FilterModule:
    """The filters of a job."""

    def filters(self) -> dict[str, t.Any]:
        """Name and function of each."""
        return {"job_artifacts": job_artifacts, "job_is_good": job_is_good, "job_results": job_results}
