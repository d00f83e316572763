# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Smoke tests with a query, on a real server."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.connection import settings_from
from ansible_collections.cypher.rollback.plugins.module_utils.smoke import SmokeResult, SmokeTest, SmokeTester
from ansible_collections.cypher.rollback.plugins.module_utils.smoke_query import asker

if t.TYPE_CHECKING:
    from tests.conftest import Database


def tried(database: Database, query: str, expect: t.Any, timeout: float = 0.0, **login: t.Any) -> SmokeResult:
    blank: dict[str, t.Any] = {"login_password": "", "ssl_mode": "prefer", "ca_cert": None, "connect_params": {}}
    tester = SmokeTester(ask_database=asker(settings_from({**blank, **database.login(), **login})))
    test = SmokeTest.parse({"name": "it", "query": query, "expect": expect})
    (result,) = tester.run([test], timeout=timeout, interval=0.05)
    return result


@pytest.mark.parametrize(
    ("query", "expect"),
    [
        ("SELECT count(*) FROM generate_series(1, 3)", "3"),
        ("SELECT 1 < 2", True),
        ("SELECT 1 < 2", "t"),
        ("SELECT '0003', 'more'", "0003"),
        ("SELECT 2.50", 2.5),
        ("SELECT NULL", None),
        ("SELECT 'a' WHERE 'x' LIKE '%x%'", "a"),
    ],
)
def test_the_first_value_is_compared(database: Database, query: str, expect: t.Any) -> None:
    result = tried(database, query, expect)
    assert (result.status, result.message) == ("passed", "")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1", "the query gave 1, expected 'x'"),
        ("SELECT 1 WHERE false", "the query gave no row, expected 'x'"),
        ("SELECT * FROM b2b.products", 'relation "b2b.products" does not exist'),
        ("CREATE TABLE made (id int)", "cannot execute CREATE TABLE in a read-only transaction"),
        ("SELECT pg_sleep(600)", "canceling statement due to statement timeout"),
    ],
)
def test_what_was_wrong_is_said(database: Database, query: str, said: str) -> None:
    result = tried(database, query, "x")
    assert result.status == "failed"
    assert said in result.message


def test_a_server_that_lets_nobody_in_is_a_failed_try(database: Database) -> None:
    result = tried(database, "SELECT 1", 1, login_db="no_such_database")
    assert result.status == "failed"
    assert 'database "no_such_database" does not exist' in result.message


def test_a_query_is_tried_until_it_is_true(database: Database) -> None:
    later = "SELECT random() < 0.3"
    result = tried(database, later, True, timeout=20)
    assert result.status == "passed"
