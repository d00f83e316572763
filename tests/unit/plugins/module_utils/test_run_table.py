# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of the databases of one run."""

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.run_table import LONGEST_WORD, run_table


def result(outcome: str, message: str = "It is done.", **report: t.Any) -> dict[str, t.Any]:
    return {"report": {"outcome": outcome, **report}, "message": f"{message}\n{outcome}"}


RESULTS = {
    "db1": result(
        "rolled_back",
        target={"database": "shop"},
        started_at="2026-11-26T01:00:00.000Z",
        finished_at="2026-11-26T01:00:12.340Z",
        effect={"rows_lost": 1234},
        run_id="run-1",
        next_commands=["ansible-playbook never_shown"],
    ),
    "database-2": result("refused", "No room.\nSet this.", run_id="run-2", next_commands=["ansible-playbook again"]),
    "db3": result("not_started", "Not started."),
    "db4": result("not_started", "Not started."),
}


def test_each_database_has_a_line_with_what_came_of_it() -> None:
    head, columns, *rows = run_table(RESULTS)
    assert head == "1 of 4 databases ended well."
    assert columns.split() == ["host", "database", "outcome", "seconds", "rows", "lost", "run"]
    assert rows[0].split() == ["db1", "shop", "rolled_back", "12.3", "1,234", "run-1"]
    assert rows[1].split() == ["database-2", "-", "refused", "-", "-", "run-2"]
    assert rows[2].split() == ["db3", "-", "not_started", "-", "-", "-"]
    assert rows[0].index("shop") == rows[1].index("-", 12) == columns.index("database")


def test_below_it_stands_what_to_do_and_the_same_is_said_once() -> None:
    below = run_table(RESULTS)[6:]
    assert below == ["database-2: No room. Set this.", "    ansible-playbook again", "db3, db4: Not started."]


def test_a_long_message_is_in_the_report_and_not_in_the_table() -> None:
    (line,) = run_table({"db1": result("unknown", "word " * 1000)})[3:]
    assert len(line) == len("db1: ") + LONGEST_WORD


def test_a_restore_loses_a_time_and_not_a_number_of_rows() -> None:
    row = run_table({"db1": result("restored", restore={"backup": "b"}, effect={"rows_lost": 0}, run_id="r")})[2]
    assert row.split() == ["db1", "-", "restored", "-", "-", "r"]
