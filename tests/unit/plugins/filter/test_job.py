# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the databases, from the variables of their hosts."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.filter import job

GROUPS = {"all": ["db1", "db2", "app1"], "erp_db": ["db1", "db2"], "erp_app": ["app1"]}
APART = {"rollback_app_hosts": ["app1"]}, {"rollback_app_hosts": ["app2"]}


def order(db1: dict[str, t.Any], db2: dict[str, t.Any], **apps: dict[str, t.Any]) -> list[int | str]:
    hostvars = {"db1": db1, "db2": db2, "app1": {}, **apps}
    return job.job_serial({**GROUPS, job.job_batches(["db1", "db2"], hostvars, GROUPS): ["db1", "db2"]})


def test_databases_with_applications_of_their_own_are_taken_as_the_setting_says() -> None:
    assert order(*APART) == [1, "100%"]
    assert order({**APART[0], "rollback_serial": "2"}, {**APART[1], "rollback_serial": "2"}) == [2]


@pytest.mark.parametrize(
    ("db2", "app1", "expected"),
    [
        ({}, {}, [1]),
        ({"rollback_app_hosts": ["app2", "app1"]}, {}, [1]),
        ({"rollback_app_hosts": []}, {}, [1, "100%"]),
        ({}, {"rollback_app_driver": "none"}, [1, "100%"]),
        ({"rollback_app_driver": "none"}, {}, [1, "100%"]),
    ],
)
def test_two_runs_never_stop_and_start_the_same_application_at_once(
    db2: dict[str, t.Any], app1: dict[str, t.Any], expected: list[t.Any]
) -> None:
    assert order({}, db2, app1=app1) == expected


def test_two_orders_are_refused() -> None:
    hostvars = {"db1": {"rollback_serial": 1}, "db2": {"rollback_serial": 2}}
    assert len(job.job_order_problems(["db1", "db2"], hostvars)) == 1
    assert job.job_order_problems(["db1", "db2"], {"db1": {}, "db2": {}}) == []


@pytest.mark.parametrize(
    ("db1", "db2", "same"),
    [
        ({}, {}, False),
        ({"ansible_host": "10.0.0.1"}, {"ansible_host": "10.0.0.1"}, True),
        ({"ansible_connection": "local"}, {"ansible_connection": "local"}, True),
        ({"ansible_connection": "local", "rollback_db_name": "one"}, {"ansible_connection": "local"}, False),
        ({"rollback_db_host": "pg"}, {"rollback_db_host": "pg", "rollback_db_port": 5432}, True),
        ({"rollback_db_host": "pg"}, {"rollback_db_host": "pg", "rollback_db_port": "5433"}, False),
        ({"rollback_db_host": "/run/postgresql"}, {"rollback_db_host": "/run/postgresql"}, False),
    ],
)
def test_one_database_under_two_names_is_refused(db1: dict[str, t.Any], db2: dict[str, t.Any], same: bool) -> None:
    problems = job.job_order_problems(["db1", "db2"], {"db1": db1, "db2": db2})
    assert [problem.partition(",")[0] for problem in problems] == ["db1 and db2 are one database"] * same


def test_only_what_failed_before_this_batch_counts() -> None:
    def result(outcome: str) -> dict[str, t.Any]:
        return {"report": {"outcome": outcome}, "message": outcome}

    results = {"db1": result("rolled_back"), "db2": result("refused"), "db3": result("not_started"), "db4": {}}
    assert job.job_failed_before(results, ["db4"]) == ["db2"]
    assert job.job_failed_before(results, ["db2", "db3"]) == []


def test_a_database_without_a_result_is_told_from_one_with_a_result() -> None:
    hostvars = {"db1": {"notify_result": {"report": {"outcome": "planned"}, "message": "planned"}}, "db2": {}}
    results = job.job_results(["db1", "db2"], hostvars)
    assert [job.job_is_good(result) for result in results.values()] == [True, False]
    assert job.job_artifacts(results)["rollback_outcome"] == "unknown"
    assert job.job_table(results)[0] == "1 of 2 databases ended well."
