# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verification by itself says, on the console and in its report."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.checks import Check
from ansible_collections.cypher.rollback.plugins.module_utils.outcome import GOOD
from ansible_collections.cypher.rollback.plugins.module_utils.report import compose
from ansible_collections.cypher.rollback.plugins.module_utils.rolled_back import RolledBack, rolled_back
from ansible_collections.cypher.rollback.plugins.module_utils.summary import summary
from ansible_collections.cypher.rollback.plugins.module_utils.verification_table import verification_table
from ansible_collections.cypher.rollback.plugins.modules.db_verify import warnings_of

CHECKS = [
    {"name": "indexes are valid", "status": "passed", "expected": "none invalid", "actual": "none invalid"},
    {"name": "server version", "status": "information", "expected": "reported", "actual": "PostgreSQL 15.4"},
    {
        "name": "foreign keys that were not read",
        "status": "information",
        "expected": "all read",
        "actual": "not checked: of_order",
    },
]
ORPHANS = {
    "name": "orphans under of_order",
    "status": "failed",
    "expected": "0 orphans",
    "actual": "3 rows, such as (7)",
}
TARGET = {"host": "db1", "port": 5432, "database": "cypher_erp", "server_version": "15.4", "system_identifier": "7312"}
RUN: dict[str, t.Any] = {
    "run_id": "r1",
    "runbook": "verify",
    "target": {"host": "db1", "port": 5432, "database": "cypher_erp"},
}


def verified(*more: dict[str, str]) -> dict[str, t.Any]:
    """A run whose checks were made."""
    verification = {"passed": not more, "checks": [*CHECKS, *more]}
    failure = {
        "stage": "verify",
        "message": "failed",
        "outcome": "needs_attention",
        "details": {"verification": verification},
    }
    return {
        **RUN,
        "verify_result": {"target": TARGET, "verification": verification},
        "rollback_failure": failure if more else {},
    }


@pytest.mark.parametrize("check_mode", [False, True])
def test_where_nothing_failed_it_is_verified(check_mode: bool) -> None:
    report = compose({**verified(), "check_mode": check_mode})
    assert report["outcome"] == "verified"
    assert report["outcome"] in GOOD
    assert report["target"] == TARGET
    assert report["message"] == (
        "Database cypher_erp is verified: 1 check passed, none failed, 2 only report. Nothing was changed. "
        "NOT checked: foreign keys that were not read; the table says why.\nverified"
    )
    assert report["next_commands"] == []


def test_where_one_failed_somebody_has_to_look() -> None:
    report = compose(verified(ORPHANS))
    assert report["outcome"] == "needs_attention"
    assert report["message"].startswith(
        "The verification of database cypher_erp failed: orphans under of_order (3 rows, such as (7)). Nothing was changed.\n"
    )
    assert "How urgent that is: ansible-playbook cypher.rollback.assess\n" in report["message"]
    assert "Once it is put right: ansible-playbook cypher.rollback.verify\n" in report["message"]
    assert len(report["next_commands"]) == 2


@pytest.mark.parametrize("outcome", ["refused", "unknown", "failed_unchanged", ""])
def test_where_the_server_could_not_be_asked_it_is_refused(outcome: str) -> None:
    failure = {"stage": "verify", "message": "Cannot connect to database cypher_erp", "outcome": outcome, "details": {}}
    report = compose({**RUN, "rollback_failure": failure})
    assert report["outcome"] == "refused"
    assert report["message"] == "Cannot connect to database cypher_erp. Nothing was stopped or changed.\nrefused"
    assert compose({**RUN, "rollback_failure": {"stage": ""}})["message"].startswith(
        "The verification ended without a result"
    )


def test_every_check_is_in_the_table_what_failed_first() -> None:
    text = summary(compose(verified(ORPHANS)))
    assert text.index("  FAILED  orphans under of_order") < text.index("  passed  indexes are valid")
    assert text.index("  passed  indexes are valid") < text.index("  info    server version")
    assert "          expected  0 orphans\n          actual    3 rows, such as (7)" in text


def test_the_table_stays_within_its_width_and_names_are_harmless() -> None:
    hostile = {"status": "information", "name": "n\x1b[31m" + "o" * 60, "expected": "e", "actual": "word " * 60}
    lines = verification_table([hostile, {**hostile, "status": "failed"}, {**hostile, "actual": ""}], 96)
    assert "\x1b" not in "".join(lines)
    assert all(len(line) <= 96 for line in lines)


def test_what_a_rollback_can_have_changed() -> None:
    known = rolled_back([{"type": "table", "identity": "s.part"}], ["s.a"], ["k on s.a"])
    assert known == RolledBack(frozenset({"s.a"}), frozenset({"k on s.a"}), frozenset({"s.part"}), dropped_tables=True)
    assert known.may_have_changed(["s.b", "s.a"])
    assert not known.may_have_changed(["s.b"])
    assert known.may_have_changed(["s.b"], partitioned=True)


def test_what_is_older_than_a_rollback_and_wrong_is_a_warning() -> None:
    old = Check("orphans under k", "information", "0 orphans", "3 rows; older than the rollback")
    unread = Check("foreign keys that were not read", "information", "all read", "not checked: k")
    rest = [
        Check("critical table t", "information", "reported", "3 rows"),
        Check("orphans under l", "failed", "0", "1"),
    ]
    assert warnings_of([old, unread, *rest]) == [
        "orphans under k: 3 rows; older than the rollback.",
        "foreign keys that were not read: not checked: k.",
    ]
