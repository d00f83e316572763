# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report and its message: every key always, every outcome's sentences."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.report import compose
from ansible_collections.cypher.rollback.plugins.module_utils.summary import WIDTH, summary

PLANNED = {
    "outcome": "planned",
    "target": {"host": "db1", "port": 5432, "database": "cypher_erp", "server_version": "15.3", "system_identifier": "77"},
    "plan": {"versions": ["0003"], "statements": 4, "scripts": [{"version": "0003", "file": "0003-cart.sql"}]},
}  # fmt: skip
STOPPED = {"hosts": {"app1": {"was_running": True, "stopped": True}}}
STARTED = {"hosts": {"app1": {"started": True}}}
BACKUP = {"backup": {"id": "b1", "path": "/backups/b1", "kind": "dump", "bytes": 1234, "verified": True, "tables": 3}}
DROPPED = [
    {"type": "table", "identity": "b2b.orders", "cascaded": False, "rows": 1000, "part_of": ""},
    {"type": "index", "identity": "b2b.orders_pkey", "cascaded": False, "rows": None, "part_of": "b2b.orders"},
    {"type": "view", "identity": "b2b.open_orders", "cascaded": True, "rows": None, "part_of": ""},
]
EFFECT: dict[str, t.Any] = {
    "dropped": DROPPED,
    "skipped": [{"type": "index", "identity": "idx_x", "elsewhere": ["erp.idx_x"]}],
    "left_over": [{"type": "function", "identity": "b2b.f()", "named": "f"}],
    "rows_lost": 1000,
}
ROLLED_BACK: dict[str, t.Any] = {
    "committed": True,
    "xid": "812",
    "effect": EFFECT,
    "statements": [{"version": "0003", "line": 7, "kind": "DROP TABLE", "seconds": 0.2, "number": 1}],
    "locks": [{"relation": "b2b.orders", "mode": "AccessExclusiveLock"}],
    "sessions": [{"pid": 9, "user": "erp", "application": "psql", "since": "15:00", "query": "SELECT\x1b[2J 1"}],
}
VERIFIED = {
    "verification": {"passed": True, "checks": [{"name": "gone", "status": "passed", "expected": "0", "actual": "0"}]}
}
SMOKE = {"passed": True, "tests": [{"name": "health", "host": "app1", "status": "passed", "message": ""}]}


def stage(name: str, begin: int, end: int, status: str = "finished") -> dict[str, t.Any]:
    times = [f"2026-11-22T15:00:{second:02}.000Z" for second in (begin, end)]
    return {
        "name": name,
        "status": status,
        "started_at": times[0],
        "finished_at": times[1],
        "seconds": end - begin,
        "session": "x",
    }


STAGES = [
    stage("plan", 0, 1),
    stage("stop", 1, 2),
    stage("rollback", 2, 4),
    stage("restart", 4, 5),
    stage("smoke_test", 5, 7),
    stage("notify", 7, 9),
]
BASE = {"run_id": "r1", "run_dir": "/runs", "version": "0003", "host": "db1", "stages": STAGES, "plan_result": PLANNED}
UNTIL_ROLLBACK = {**BASE, "stop_result": STOPPED, "backup_result": BACKUP}
WHOLE: dict[str, t.Any] = {
    **UNTIL_ROLLBACK,
    "rollback_result": ROLLED_BACK,
    "verify_result": VERIFIED,
    "restart_result": STARTED,
    "smoke_test_result": SMOKE,
}

REQUIRED = {
    "": {"run_id", "runbook", "outcome", "message", "target", "plan", "backup", "effect", "verification", "stages", "downtime_seconds"},
    "target": {"host", "port", "database", "server_version", "system_identifier"},
    "plan": {"versions", "statements"},
    "backup": {"id", "path", "kind", "bytes", "verified"},
    "effect": {"dropped", "skipped", "left_over", "rows_lost"},
    "verification": {"passed", "checks"},
}  # fmt: skip


def failed(stage_name: str, message: str = "It broke.", **more: t.Any) -> dict[str, t.Any]:
    return {"rollback_failure": {"stage": stage_name, "message": message, **more}}


@pytest.mark.parametrize("run", [{}, {"plan_result": None, "stages": None}, BASE, WHOLE, {**WHOLE, "check_mode": True}])
def test_every_key_of_the_contract_is_there_whatever_is_missing(run: dict[str, t.Any]) -> None:
    report = compose(run)
    for part, keys in REQUIRED.items():
        assert keys <= set(report[part] if part else report)
    assert json.loads(json.dumps(report)) == report
    assert report["message"].rpartition("\n")[2] == report["outcome"]
    assert "None" not in report["message"]
    assert summary(report)


def test_a_whole_run() -> None:
    report = compose(WHOLE)
    assert report["outcome"] == "rolled_back"
    assert report["downtime_seconds"] == 6.0
    assert report["stages"][0] == {key: value for key, value in STAGES[0].items() if key != "session"}
    assert report["effect"] == EFFECT
    assert report["report_path"] == "/runs/r1/report.json"


MESSAGES: list[tuple[dict[str, t.Any], str, list[str]]] = [
    (
        WHOLE,
        "rolled_back",
        [
            "Migration 0003 of database cypher_erp is rolled back and verified",
            "runs again on app1",
            "/backups/b1",
            "rollback_previous_ref",
        ],
    ),
    ({}, "refused", ["Nothing was stopped or changed."]),
    (
        {**BASE, **failed("plan", "Migration 0004 is applied. Nothing was stopped.")},
        "refused",
        ["Migration 0004 is applied. Nothing was stopped.\nrefused"],
    ),
    (
        {**BASE, "check_mode": True, "rollback_result": {**ROLLED_BACK, "committed": False}},
        "planned",
        ["Nothing was stopped, written or sent.", "ansible-playbook cypher.rollback.rollback -e version=0003"],
    ),
    (
        {**BASE, "plan_result": {"outcome": "nothing_to_do", "message": "Migration 0003 is not applied"}},
        "nothing_to_do",
        ["Migration 0003 is not applied.", "Nothing was stopped, changed or backed up."],
    ),
    (
        {**UNTIL_ROLLBACK, **failed("rollback"), "restart_result": STARTED},
        "failed_unchanged",
        ["Stage rollback failed: It broke.", "is as it was before the run", "runs again on app1"],
    ),
    (
        {**UNTIL_ROLLBACK, **failed("backup"), "restart_result": {"message": "Port 80 is taken"}},
        "needs_attention",
        [
            "Stage backup failed",
            "is as it was",
            "does not run on app1",
            "Port 80 is taken.",
            "Start it: ansible-playbook cypher.rollback.restart -e restart_code=leave",
        ],
    ),
    (
        {**WHOLE, **failed("restart", "No such unit"), "restart_result": {}},
        "needs_attention",
        [
            "Migration 0003 of database cypher_erp WAS rolled back and committed",
            "Stage restart failed: No such unit.",
            "does not run on app1",
            "ansible-playbook cypher.rollback.restart",
            "restore the backup /backups/b1",
            "ansible-playbook cypher.rollback.undo_rollback -e run=r1",
        ],
    ),
    (
        {**WHOLE, **failed("smoke_test")},
        "needs_attention",
        ["WAS rolled back", "was started again on app1", "The code was left as it is."],
    ),
    ({**WHOLE, "verify_result": {}}, "needs_attention", ["Nothing verified it"]),
    (
        {
            **WHOLE,
            "verify_result": {"verification": {"passed": False, "checks": [{"name": "orphans", "status": "failed"}]}},
        },
        "needs_attention",
        ["The verification failed: orphans."],
    ),
    (
        {**UNTIL_ROLLBACK, **failed("rollback", "Lost.", outcome="unknown", details={"xid": "812"})},
        "unknown",
        [
            "SELECT pg_xact_status('812');",
            "nothing was restarted",
            "stands still on app1",
            "If committed: check out the release that fits, then ansible-playbook cypher.rollback.restart\n",
            "If aborted, the database is unchanged: ansible-playbook cypher.rollback.restart -e restart_code=leave\n",
            "/backups/b1",
        ],
    ),
]


@pytest.mark.parametrize(("run", "outcome", "parts"), MESSAGES)
def test_the_message_says_what_happened_what_state_and_what_next(
    run: dict[str, t.Any], outcome: str, parts: list[str]
) -> None:
    report = compose(run)
    assert report["outcome"] == outcome
    for part in parts:
        assert part in report["message"]
    # Several migrations are a plural.
    plan = {**PLANNED, "plan": {"versions": ["0006", "0005"], "statements": 9}}
    plural = compose({**run, "plan_result": plan}) if run.get("plan_result") is PLANNED else report
    assert "0005 of database cypher_erp is " not in plural["message"]
    assert "0005 of database cypher_erp WAS " not in plural["message"]


RESTORE_PLAN = {
    "outcome": "planned",
    "target": PLANNED["target"],
    "backup": {"id": "b7", "path": "/backups/b7", "kind": "before_migration", "bytes": 9, "verified": True},
    "why": "It is the newest valid backup before a migration.",
    "passed_over": [{"id": "b8", "reason": "dump/1.dat has 3 bytes, 9 were written."}],
    "window": {"from": "a", "to": "b", "seconds": 60, "text": "Everything written since noon is lost from the live database; it stays in erp_replaced."},
    "incoming": None,
    "lines": ["EMERGENCY ROLLBACK", "Backup b7"],
}  # fmt: skip
RESTORING = {
    **BASE,
    "runbook": "emergency_rollback",
    "plan_result": None,
    "version": "",
    "restore_plan_result": RESTORE_PLAN,
    "stop_result": STOPPED,
}
COPIED: dict[str, t.Any] = {
    **RESTORING,
    "restore_result": {"compared": True, "restored": {"database": "erp_restore_1", "tables": {"b2b.orders": 5}, "provider": "dump"}},
}  # fmt: skip
SWAPPED: dict[str, t.Any] = {**COPIED, "swap_result": {"swapped": True, "live": "cypher_erp", "kept": "erp_replaced"}}
RESTORED = {**SWAPPED, "restart_result": STARTED, "smoke_test_result": SMOKE}
SWAP_BACK = "ansible-playbook cypher.rollback.swap_back -e database=erp_replaced"

START = "ansible-playbook cypher.rollback.restart"

RESTORE_MESSAGES: list[tuple[dict[str, t.Any], str, list[str]]] = [
    (RESTORED, "restored", ["is restored from backup b7", "runs again on app1", "Everything written since noon", SWAP_BACK]),
    ({**RESTORING, "check_mode": True, "stop_result": None}, "planned", ["EMERGENCY ROLLBACK\nBackup b7", "To do it: ansible-playbook"]),
    ({**RESTORING, "stop_result": None, **failed("confirm", "Aborted.")}, "refused", ["Aborted.", "Nothing was stopped"]),
    (
        {**COPIED, **failed("swap", "Sessions stayed.", outcome="failed_unchanged"), "restart_result": STARTED},
        "failed_unchanged",
        ["Sessions stayed.", "is as it was before the run", "The restored database erp_restore_1 is still there"],
    ),
    (
        {**COPIED, **failed("smoke_test"), "restart_result": STARTED, "swap_result": {**SWAPPED["swap_result"], "swapped_back": True, "kept": "erp_2"}},
        "failed_unchanged",
        ["exchanged back", "the restored one is kept as erp_2", "runs again on app1"],
    ),
    (
        {**RESTORED, **failed("smoke_test")},
        "needs_attention",
        ["WAS restored from backup b7", "kept as erp_replaced", "cypher.rollback.restart", f"To go back instead: {SWAP_BACK}"],
    ),
    (
        {**COPIED, **failed("swap", "Lost.", outcome="unknown", details={"xid": "9"})},
        "unknown",
        ["nothing was started", "stands still on app1", "pg_xact_status('9')"],
    ),
    (
        {**RESTORED, **failed("smoke_test", "No table.\nLost.", outcome="unknown", details={"xid": "9"}), "restart_result": {}},
        "unknown",
        ["No table.\nLost.", "is not known, so nothing was started", "stands still on app1", "pg_xact_status('9')",
         f"release that fits: {START} -e restart_code=leave\n", f"To go on with it: {START}\n", f"To go back instead: {SWAP_BACK}\n"],
    ),
    (
        {**RESTORED, "swap_result": None, "restore_result": None, "asked": {"tables": ["b2b.orders"]},
         "restore_tables_result": {"committed": True, "tables": [{"identity": "b2b.orders", "changed": 3}]}},
        "restored",
        ["b2b.orders of database cypher_erp are put back from backup b7"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("run", "outcome", "parts"), RESTORE_MESSAGES)
def test_what_a_restoring_run_says(run: dict[str, t.Any], outcome: str, parts: list[str]) -> None:
    report = compose(run)
    assert report["outcome"] == outcome
    for part in parts:
        assert part in report["message"]
    assert json.loads(json.dumps(report)) == report
    assert report["backup"]["id"] == "b7"
    text = summary(report)
    assert "PASSED OVER" in text
    assert "b8: dump/1.dat has 3 bytes" in text


def test_the_commands_of_a_restoring_run() -> None:
    run = {
        **RESTORING,
        **failed("restore"),
        "restart_result": STARTED,
        "asked": {"backup": "b 7", "tables": ["a", "b"]},
    }
    assert compose(run)["next_commands"] == [
        'ansible-playbook cypher.rollback.emergency_rollback -e \'{"backup": "b 7"}\' -e tables=a,b'
    ]
    assert compose(RESTORED)["swap"]["swap_back_command"] == SWAP_BACK


def restart_of(run: dict[str, t.Any]) -> str:
    """The command that starts the application, as the message has it."""
    report = compose(run)
    (line,) = [line for line in report["message"].splitlines() if "cypher.rollback.restart" in line]
    assert report["next_commands"][0] == line.partition(": ")[2]
    return line.partition("cypher.rollback.restart")[2].strip()


RELEASES = {"app1": {"ref": "c0ffee", "branch": "main", "stash": "", "image": ""}}
GIVEN_BACK = {"commit": "c0ffee", "previous_commit": "beef", "changed": False, "undone": True}
NOT_GIVEN_BACK = {
    "commit": "beef",
    "previous_commit": "c0ffee",
    "previous_branch": "main",
    "changed": True,
    "failed": True,
}
EXCHANGED_BACK = {"swapped": True, "swapped_back": True, "kept": "erp_2"}
DOWN_AGAIN: dict[str, t.Any] = {**RESTORED, **failed("smoke_test"), "restart_result": {}}
UNDO_PLAN = {**RESTORE_PLAN, "releases": RELEASES}


@pytest.mark.parametrize(
    ("run", "code"),
    [
        ({**WHOLE, **failed("smoke_test")}, ""),
        ({**WHOLE, **failed("smoke_test"), "runbook": "rollback_object", "asked": {"column": "b2b.orders.x"}}, ""),
        ({**WHOLE, **failed("smoke_test"), "runbook": "rollback_object", "asked": {"index": "b2b.idx"}}, "-e restart_code=leave"),
        ({**UNTIL_ROLLBACK, **failed("backup")}, "-e restart_code=leave"),
        (DOWN_AGAIN, ""),
        ({**DOWN_AGAIN, "swap_result": None}, "-e restart_code=leave"),
        ({**DOWN_AGAIN, "swap_result": EXCHANGED_BACK}, "-e restart_code=leave"),
        (
            {**DOWN_AGAIN, "swap_result": EXCHANGED_BACK, "previous_code_result": {"hosts": {"app1": GIVEN_BACK, "app2": {}}}},
            """-e '{"previous_code_releases": {"app1": {"ref": "c0ffee"}}}'""",
        ),
        (
            {**DOWN_AGAIN, "swap_result": EXCHANGED_BACK, "previous_code_result": {"hosts": {"app1": NOT_GIVEN_BACK, "app2": {}}}},
            """-e '{"previous_code_releases": {"app1": {"ref": "c0ffee", "branch": "main"}}}'""",
        ),
        ({**DOWN_AGAIN, "swap_result": None, "restore_tables_result": {"committed": True, "tables": []}}, "-e restart_code=leave"),
        ({**DOWN_AGAIN, "runbook": "swap_back"}, "-e restart_code=leave"),
        ({**DOWN_AGAIN, "runbook": "undo_rollback"}, "-e restart_code=leave"),
        (
            {**DOWN_AGAIN, "runbook": "undo_rollback", "restore_plan_result": UNDO_PLAN},
            f"""-e '{json.dumps({"previous_code_releases": RELEASES})}'""",
        ),
        ({**DOWN_AGAIN, "runbook": "undo_rollback", "restore_plan_result": UNDO_PLAN, "swap_result": None}, "-e restart_code=leave"),
    ],
)  # fmt: skip
def test_the_previous_code_is_started_only_on_a_database_that_it_fits(run: dict[str, t.Any], code: str) -> None:
    assert restart_of(run) == code


def test_a_backup_alone() -> None:
    report = compose({**BASE, "runbook": "backup", "backup_result": BACKUP})
    assert report["outcome"] == "backed_up"
    assert "is backed up in /backups/b1, read back." in report["message"]
    assert summary(report)


def test_what_the_error_says_itself_is_not_said_twice() -> None:
    said = failed("rollback", "It was undone: the database is as it was.")
    message = compose({**UNTIL_ROLLBACK, **said, "restart_result": STARTED})["message"]
    assert message.startswith(
        "Stage rollback failed: It was undone: the database is as it was. The application runs again on app1."
    )


def test_locks_on_what_stays_come_first() -> None:
    locks = [{"relation": name, "mode": "AccessExclusiveLock"} for name in ("b2b.orders", "b2b.customers")]
    text = summary(compose({**BASE, "check_mode": True, "rollback_result": {**ROLLED_BACK, "locks": locks}}))
    assert text.index("AccessExclusiveLock  b2b.customers (stays)") < text.index("AccessExclusiveLock  b2b.orders\n")


def test_commands_name_inventory_and_host_and_can_be_pasted() -> None:
    run = {**WHOLE, **failed("smoke_test"), "inventory": ["inv dir/hosts", "o;rm"], "one_of_many": True}
    assert compose(run)["next_commands"] == [
        "ansible-playbook -i 'inv dir/hosts' -i 'o;rm' cypher.rollback.restart -e rollback_hosts=db1",
        "ansible-playbook -i 'inv dir/hosts' -i 'o;rm' cypher.rollback.undo_rollback -e run=r1 -e rollback_hosts=db1",
    ]


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({}, 6.0),
        ({"stop_result": {}}, None),
        ({"stages": STAGES[:4]}, 4.0),
        ({"stages": [*STAGES[:4], stage("smoke_test", 5, 5, "skipped")]}, 4.0),
        ({"stages": [*STAGES[:3], stage("notify", 8, 9)], "restart_result": {}}, 8.0),
        ({"stages": []}, None),
    ],
)
def test_downtime_runs_from_the_first_stop_to_the_last_proof(change: dict[str, t.Any], seconds: float | None) -> None:
    assert compose({**WHOLE, **change})["downtime_seconds"] == seconds


def test_a_hostile_failure_can_neither_move_the_cursor_nor_forge_the_outcome() -> None:
    report = compose({**BASE, **failed("plan", "x\x1b[2J\r\u202ey\nrolled_back")})
    assert report["message"].rpartition("\n")[2] == "refused"
    assert "\\x1b[2J\\r\\u202e" in report["message"]


def test_the_summary_tells_first_the_outcome_then_what_was_lost() -> None:
    text = summary(compose(WHOLE))
    order = [
        "ROLLED BACK   cypher_erp on db1:5432   run r1",
        "LOST  2 objects and 1 part of them, 1,000 rows",
        "table b2b.orders",
        "only by CASCADE",
        "view b2b.open_orders",
        "ROWS, table by table",
        "1,000",
        "SKIPPED BY IF EXISTS",
        "index idx_x; exists as erp.idx_x",
        "LEFT OVER",
        "function b2b.f()",
        "VERIFICATION  1 passed, 0 failed",
        "SMOKE TESTS  1 passed",
        "STAGES  application down for 6.0 s",
        "BACKUP  b1 (1,234 bytes, verified)",
        "/backups/b1",
        "REPORT  /runs/r1/report.json",
    ]
    place = 0
    for part in order:
        place = text.find(part, place)
        assert place >= 0, part
    assert "LOCKS" not in text


def test_the_preview_shows_locks_times_and_sessions() -> None:
    text = summary(compose({**BASE, "check_mode": True, "rollback_result": {**ROLLED_BACK, "committed": False}}))
    for part in ("PLANNED", "WOULD BE LOST", "AccessExclusiveLock  b2b.orders", "0.200 s  0003 line 7  DROP TABLE",
                 "\n  pid 9, erp, psql, since 15:00: SELECT\\x1b[2J 1", "nothing was stopped, written or sent"):  # fmt: skip
        assert part in text
    assert "REPORT" not in text


def test_failed_checks_are_shown_whole_and_information_is_no_failure() -> None:
    checks = [
        {"name": "a", "status": "passed", "expected": "1", "actual": "1"},
        {"name": "b", "status": "failed", "expected": "0 rows", "actual": "3 rows"},
        {"name": "c", "status": "information", "expected": "", "actual": "5"},
    ]
    text = summary(compose({**WHOLE, "verify_result": {"verification": {"passed": False, "checks": checks}}}))
    assert "VERIFICATION  1 passed, 1 failed" in text
    assert "FAILED  b" in text
    assert "expected 0 rows" in text
    assert "actual 3 rows" in text
    assert "FAILED  c" not in text


def test_long_lists_are_cut_and_hostile_names_are_harmless() -> None:
    dropped = [
        {"type": "table", "identity": f'b2b."t\n\x1b]0;{number}\u202e"', "cascaded": False, "rows": 1}
        for number in range(500)
    ]
    run = {**WHOLE, "rollback_result": {**ROLLED_BACK, "effect": {**EFFECT, "dropped": dropped, "rows_lost": 500}}}
    text = summary(compose(run))
    assert "… and 480 more (in the report)" in text
    assert all(char == "\n" or char.isprintable() for char in text)
    assert "\\n\\x1b]0;0\\u202e" in text
    assert len(text.split("\n")) < 100


def test_lines_stay_within_the_width_unless_they_are_to_be_copied() -> None:
    message = "A long reason that goes on. " * 30
    for more in ({}, failed("smoke_test", message), failed("rollback", message, outcome="unknown")):
        for line in summary(compose({**WHOLE, **more})).split("\n"):
            assert len(line) <= WIDTH or "ansible-playbook" in line
