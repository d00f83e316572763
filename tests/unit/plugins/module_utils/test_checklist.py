# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checklists: each item from each kind of evidence, the answers, and what is said about them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import checklist
from ansible_collections.cypher.rollback.plugins.module_utils import checklist_findings as findings
from ansible_collections.cypher.rollback.plugins.module_utils.checklist import Answers, Finding
from ansible_collections.cypher.rollback.plugins.module_utils.report import compose
from ansible_collections.cypher.rollback.plugins.module_utils.summary import summary

NOW = "2026-11-22T15:21:40.123Z"
PASSED = Finding("passed", "It is so.")


def before(answers: Answers | None = None, **found: Finding) -> dict[str, dict[str, t.Any]]:
    """The first list by item, where everything that a program can check has passed, unless said otherwise."""
    automatic = dict.fromkeys(checklist.BEFORE, PASSED) | {"problem_confirmed": checklist.A_PERSONS}
    items = checklist.draw("before", {**automatic, **found}, answers or Answers(at=NOW))
    return {item["key"]: item for item in items}


# --- the lists --------------------------------------------------------------------------------------------------------


def test_the_lists_are_the_documents() -> None:
    assert [text["ro"] for text in checklist.BEFORE.values()] == [
        "Probleme confirmate", "Impact evaluat", "Rollback planificat", "Backup verificat disponibil", "Echipa notificată",
        "Timp de stoppage estimat", "Stakeholder-i notificați",
    ]  # fmt: skip
    assert [text["ro"] for text in checklist.AFTER.values()] == [
        "DB verificat la starea anterioară", "Aplicația pornită funcțională", "Smoke tests trecute", "Logs verificate (fără erori)",
        "Performanță la nivelul normal", "Echipa notificată", "Post-mortem programat",
    ]  # fmt: skip
    assert all(text["en"] for items in checklist.LISTS.values() for text in items.values())


def test_an_item_of_the_report() -> None:
    assert before()["rollback_planned"] == {
        "key": "rollback_planned",
        "text": {"ro": "Rollback planificat", "en": "The rollback is planned"},
        "how": "program",
        "status": "passed",
        "evidence": "It is so.",
        "by": "",
        "at": NOW,
    }
    assert before()["problem_confirmed"] == {
        "key": "problem_confirmed",
        "text": {"ro": "Probleme confirmate", "en": "The problem is confirmed"},
        "how": "person",
        "status": "open",
        "evidence": "Only a person can say this.",
        "by": "",
        "at": NOW,
    }


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "problem_confirmed=yes,stakeholders_notified=no",
        " problem_confirmed = TRUE , stakeholders_notified = False ",
        {"problem_confirmed": True, "stakeholders_notified": False},
        {"problem_confirmed": "yes", "stakeholders_notified": "no"},
    ],
)
def test_answers_as_they_are_given(given: object) -> None:
    assert checklist.parse_answers(given) == {"problem_confirmed": True, "stakeholders_notified": False}


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_no_answers(nothing: object) -> None:
    assert checklist.parse_answers(nothing) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "team_notifed=yes",
            (
                "The extra variable checklist names 'team_notifed', and the items of the checklists are: problem_confirmed, "
                "impact_assessed, rollback_planned, backup_available, team_notified, downtime_estimated, stakeholders_notified, "
                "database_verified, application_works, smoke_tests_passed, logs_clean, performance_normal, post_mortem_scheduled."
            ),
        ),
        (
            "team_notified=maybe,logs_clean",
            "The extra variable checklist has another value than yes, no, true or false for team_notified, logs_clean.",
        ),
        (
            ["team_notified"],
            (
                "The extra variable checklist is neither a dictionary nor a text such as "
                "problem_confirmed=yes,stakeholders_notified=no."
            ),
        ),
    ],
)
def test_answers_that_cannot_be_understood(given: object, said: str) -> None:
    with pytest.raises(checklist.WrongAnswer) as raised:
        checklist.parse_answers(given)
    assert str(raised.value) == said
    assert raised.value.outcome == "refused"


def test_a_yes_closes_what_is_open_with_name_and_time() -> None:
    open_one = Finding("open", "No channel tells them.")
    found = before(Answers({"team_notified": True}, by="ana", at=NOW), team_notified=open_one)["team_notified"]
    assert (found["status"], found["how"], found["by"], found["at"]) == ("confirmed", "person", "ana", NOW)
    assert found["evidence"] == "ana answered yes. No channel tells them."


def test_a_yes_does_not_make_good_what_failed() -> None:
    failed = Finding("failed", "The folder is gone.")
    found = before(Answers({"backup_available": True}, by="ana", at=NOW), backup_available=failed)["backup_available"]
    assert (found["status"], found["evidence"], found["by"]) == ("failed", "The folder is gone.", "")


def test_a_no_counts_whatever_a_program_found() -> None:
    found = before(Answers({"rollback_planned": False}, by="ana", at=NOW))["rollback_planned"]
    assert (found["status"], found["how"], found["evidence"]) == ("denied", "person", "ana answered no. It is so.")


def test_all_at_once_leaves_a_single_no_standing() -> None:
    open_one = Finding("open", "Nobody is told.")
    items = before(
        Answers({"team_notified": False}, all_hold=True, by="ana", at=NOW),
        team_notified=open_one,
        stakeholders_notified=open_one,
    )
    assert items["problem_confirmed"]["status"] == "confirmed"
    assert items["problem_confirmed"]["evidence"] == "ana answered yes."
    assert items["stakeholders_notified"]["status"] == "confirmed"
    assert items["team_notified"]["status"] == "denied"
    assert items["rollback_planned"]["status"] == "passed"


def test_only_what_is_open_is_asked() -> None:
    items = before(downtime_estimated=Finding("open", "No earlier run."), team_notified=Finding("unknown", "?"))
    assert checklist.questions(items.values()) == [
        {
            "key": "problem_confirmed",
            "prompt": "The problem is confirmed (Probleme confirmate)? Only a person can say this.\n(yes/no)",
        },
        {
            "key": "downtime_estimated",
            "prompt": "The time of the stop is estimated (Timp de stoppage estimat)? No earlier run.\n(yes/no)",
        },
    ]


# --- what it means ----------------------------------------------------------------------------------------------------


def refusal(items: dict[str, dict[str, t.Any]]) -> str:
    return checklist.refusal(list(items.values()), "ansible-playbook -i hosts cypher.rollback.rollback -e version=0003")


def test_a_list_that_holds_refuses_nothing() -> None:
    assert refusal(before(Answers(all_hold=True, by="ana", at=NOW))) == ""


def test_a_list_with_open_items_names_them_and_the_command() -> None:
    assert refusal(before(team_notified=Finding("open", "No channel tells them."))) == (
        "rollback_require_checklist is set, and not every item of the checklist holds. Nothing was stopped. "
        "Open: problem_confirmed (The problem is confirmed); team_notified (The team is notified: No channel tells them). "
        "Answer them at a terminal, or one by one with -e checklist=problem_confirmed=yes,team_notified=yes, or, where all of "
        "them hold: ansible-playbook -i hosts cypher.rollback.rollback -e version=0003 -e checklist_confirmed=yes"
    )


def test_a_list_with_a_no_and_a_failure_does_not_offer_to_confirm_it_away() -> None:
    answers = Answers({"problem_confirmed": False}, by="ana", at=NOW)
    assert refusal(before(answers, backup_available=Finding("failed", "The folder is gone."))) == (
        "rollback_require_checklist is set, and not every item of the checklist holds. Nothing was stopped. "
        "The problem is confirmed (problem_confirmed): no. ana answered no. "
        "A verified backup is available (backup_available): failed. The folder is gone. Put that right, then run again."
    )


def test_after_the_rollback_only_what_a_program_found_wrong_needs_a_person() -> None:
    unknown = dict.fromkeys(checklist.AFTER, Finding("unknown", "?"))
    items = checklist.draw("after", unknown, Answers({"post_mortem_scheduled": False}, by="ana", at=NOW))
    assert checklist.shortfall(items) == ""
    assert checklist.problems(items) == ["The post-mortem is scheduled (post_mortem_scheduled): no. ana answered no. ?"]
    items = checklist.draw("after", {**unknown, "logs_clean": Finding("failed", "2 errors in app.")}, Answers(at=NOW))
    assert checklist.shortfall(items) == (
        "rollback_require_checklist is set, and not every item of the checklist after the rollback holds. "
        "The logs are verified (without errors) (logs_clean): failed. 2 errors in app. "
        "The database is as the run was to leave it, and nothing was stopped because of this."
    )


# --- evidence before --------------------------------------------------------------------------------------------------

ASSESSED = {"level": "High", "decided_by": ["frequent_unexpected_errors", "many_warnings"], "inconclusive": False}


@pytest.mark.parametrize(
    ("given", "assessment", "status", "said"),
    [
        ("High", None, "open", "The severity was given as High."),
        ("", ASSESSED, "passed", "Assessed as High 12 min ago because of frequent_unexpected_errors, many_warnings."),
        (
            "",
            {"level": "Critical", "inconclusive": True},
            "passed",
            "Assessed as Critical 12 min ago, not for certain.",
        ),
        (
            "",
            None,
            "open",
            (
                "No assessment of this database in the last 24 hours; playbooks/assess.yml makes one, -e severity=High gives the "
                "level by hand."
            ),
        ),
    ],
)
def test_impact_assessed(given: str, assessment: dict[str, t.Any] | None, status: str, said: str) -> None:
    assert findings.impact(given, assessment, 720, 24) == Finding(status, said)


def test_a_given_level() -> None:
    assert findings.given_level("") == ""
    assert findings.given_level(" high ") == "High"
    with pytest.raises(findings.WrongSeverity) as raised:
        findings.given_level("urgent")
    assert str(raised.value) == (
        "The extra variable severity is 'urgent', and the levels are Critical, High, Medium, Low. Give one of these, or leave "
        "it out and run playbooks/assess.yml first."
    )
    severity = findings.given_severity("High", "ana", NOW)
    assert (severity["level"], severity["given_by"], severity["assessed_at"]) == ("High", "ana", NOW)
    assert severity["action"] == "Roll back within one hour"
    assert findings.given_severity("", "ana", NOW) == {}


@pytest.mark.parametrize(
    ("plan", "status", "said"),
    [
        (
            {"outcome": "planned", "versions": ["0003"], "statements": 14},
            "passed",
            "The plan takes back migration 0003, in 14 statements.",
        ),
        (
            {"outcome": "planned", "versions": ["0004", "0003"], "statements": 20},
            "passed",
            "The plan takes back the migrations 0004, 0003, newest first, in 20 statements.",
        ),
        (
            {"outcome": "planned", "object": {"kind": "index", "identity": "b2b.idx_x"}, "statements": 1},
            "passed",
            "The plan takes back the index b2b.idx_x, in 1 statement.",
        ),
        ({}, "failed", "There is no plan: the stage plan left no result"),
        (
            {"outcome": "nothing_to_do", "message": "0003 is not applied."},
            "failed",
            "There is no plan: 0003 is not applied.",
        ),
    ],
)
def test_rollback_planned(plan: dict[str, t.Any], status: str, said: str) -> None:
    assert findings.planned(plan) == Finding(status, said)


OWN = "Before the DOWN runs, this run takes a backup, reads it back, and does not go on without it"


@pytest.mark.parametrize(
    ("entry", "problem", "size", "status", "said"),
    [
        (None, "", 0, "passed", f"{OWN}. There is no backup from before the migration."),
        (
            {"id": "backup_before_migration_0003_20260101_020000", "age_seconds": 7500},
            "",
            1048576,
            "passed",
            (
                f"{OWN}; the room for it was checked (1,048,576 bytes of database). From before the migration there is "
                "backup_before_migration_0003_20260101_020000, 2 h 5 min old; only its manifest was read now, "
                "playbooks/backups.yml verifies it."
            ),
        ),
        (None, "The folder cannot be read.", 5, "failed", "The folder cannot be read."),
    ],
)
def test_backup_available(entry: dict[str, t.Any] | None, problem: str, size: int, status: str, said: str) -> None:
    assert findings.backup(entry, problem, size) == Finding(status, said)


CHANNELS = [
    {"type": "webhook", "name": "chat", "url": "https://chat.example/secret-token"},
    {"type": "slack", "name": "late", "url": "https://chat.example/x", "events": ["end", "failure"]},
    {
        "type": "webhook",
        "name": "managers",
        "url": "https://m.example/",
        "audience": "stakeholder",
        "severities": ["Critical"],
    },
    {"type": "email", "name": "mail", "from": "erp@example.com", "roles": ["product_owner", "dba_lead"]},
    {"type": "pigeon", "name": "wrong"},
]
CONTACTS = [
    {"role": "dba_lead", "name": "Ana", "email": "ana@example.com"},
    {"role": "product_owner", "name": "Ion", "email": "ion@example.com"},
    {"role": "devops_lead"},
]


def test_who_is_told() -> None:
    told = findings.telling(CHANNELS, CONTACTS)
    names = {audience: [one["name"] for one in channels] for audience, channels in told["channels"].items()}
    assert names == {"technical": ["chat", "late", "mail"], "stakeholder": ["managers", "mail"]}
    assert told["contacts"] == {"technical": ["dba_lead Ana", "devops_lead"], "stakeholder": ["product_owner Ion"]}
    assert "secret-token" not in str(told)
    assert findings.telling("x", None) == {
        "channels": {"technical": [], "stakeholder": []},
        "contacts": {"technical": [], "stakeholder": []},
    }
    technical, stakeholder = told["channels"]["technical"], told["channels"]["stakeholder"]
    assert findings.told_of("start", "", technical) == ["chat", "mail"]
    assert findings.told_of("end", "Low", technical) == ["chat", "late", "mail"]
    assert findings.told_of("start", "", stakeholder) == ["managers", "mail"]
    assert findings.told_of("start", "Low", stakeholder) == ["mail"]


@pytest.mark.parametrize(
    ("channels", "contacts", "status", "said"),
    [
        (["chat", "mail"], [], "passed", "Told by this run as it begins, by chat, mail."),
        ([], [], "open", "No channel of rollback_notify tells a technical audience that the run begins."),
        (
            [],
            ["dba_lead Ana"],
            "open",
            "No channel of rollback_notify tells a technical audience that the run begins. To be told: dba_lead Ana.",
        ),
    ],
)
def test_team_and_stakeholders_notified(channels: list[str], contacts: list[str], status: str, said: str) -> None:
    assert findings.audience_told("technical", channels, contacts) == Finding(status, said)


@pytest.mark.parametrize(
    ("earlier", "size", "status", "said"),
    [
        ([], 0, "open", "No earlier run on this database stopped its application."),
        (
            [],
            5000,
            "open",
            "No earlier run on this database stopped its application; the database has 5,000 bytes now.",
        ),
        ([4.25], 5000, "passed", "About 4.2 s, from 1 earlier run; the database has 5,000 bytes now."),
        ([90.0, 4.0, 12.4], 0, "passed", "About 12 s, from 3 earlier runs (4.0 to 90 s)."),
    ],
)
def test_downtime_estimated(earlier: list[float], size: int, status: str, said: str) -> None:
    assert findings.downtime(earlier, size) == Finding(status, said)


def test_a_run_that_stops_nothing() -> None:
    said = "This run does not stop the application."
    assert findings.downtime([4.0], 5, stops=False) == Finding("not_applicable", said)
    assert findings.logs_clean([log(errors=1, host="")], "the change").evidence == "Since the change: 1 error in app."


# --- evidence after ---------------------------------------------------------------------------------------------------

CHECKS = [
    {"name": "gone", "status": "passed"},
    {"name": "orphans", "status": "failed"},
    {"name": "rows", "status": "information"},
]


@pytest.mark.parametrize(
    ("results", "status", "said"),
    [
        (
            {"verify": {"verification": {"passed": True, "checks": CHECKS[:1]}}},
            "passed",
            "1 check of the verification passed.",
        ),
        (
            {"verify": {"verification": {"passed": False, "checks": CHECKS}}},
            "failed",
            "The verification failed: orphans.",
        ),
        ({"verify": {"verification": {"passed": False}}}, "failed", "The verification failed: it names no check."),
        (
            {"restore": {"compared": True}},
            "passed",
            "The restored database was compared with the backup's manifest before it was put in place.",
        ),
        (
            {"restore": {"compared": False}},
            "failed",
            "The restored database was not compared with the backup's manifest.",
        ),
        (
            {"restore_tables": {"committed": True, "message": "2 tables are as in the backup."}},
            "passed",
            "2 tables are as in the backup.",
        ),
        ({"restore_tables": {"committed": False}}, "passed", "The tables hold what the backup holds."),
        ({"restore": {"compared": None}}, "unknown", "Nothing verified the database: no stage left a result."),
    ],
)
def test_database_verified(results: dict[str, t.Any], status: str, said: str) -> None:
    assert findings.database_verified(results) == Finding(status, said)


@pytest.mark.parametrize(
    ("hosts", "status", "said"),
    [
        ({"app1": {"driver": "command", "running": True}}, "passed", "It runs on app1."),
        ({"app1": {"running": True}, "app2": {"running": False}}, "failed", "The application does not run on app2."),
        ({"app1": {"running": None, "failed": True}}, "failed", "The application does not run on app1."),
        (
            {"app1": {"driver": "command", "running": None}},
            "unknown",
            "Whether the application runs on app1 could not be asked.",
        ),
        ({"app1": {"driver": "none", "running": None}}, "not_applicable", "This run has no application to start."),
        ({}, "not_applicable", "This run has no application to start."),
    ],
)
def test_application_works(hosts: dict[str, t.Any], status: str, said: str) -> None:
    assert findings.application_works({"restart": {"hosts": hosts}}) == Finding(status, said)


@pytest.mark.parametrize(
    ("smoke", "status", "said"),
    [
        ({"passed": True, "message": "3 smoke tests passed."}, "passed", "3 smoke tests passed."),
        ({"passed": False, "message": "1 of 3 smoke tests failed: x."}, "failed", "1 of 3 smoke tests failed: x."),
        ({"passed": None}, "unknown", "No smoke test was run; set rollback_smoke_tests."),
        ({}, "unknown", "No smoke test was run; set rollback_smoke_tests."),
    ],
)
def test_smoke_tests_passed(smoke: dict[str, t.Any], status: str, said: str) -> None:
    assert findings.smoke_tests({"smoke_test": smoke}) == Finding(status, said)


def log(**changes: t.Any) -> dict[str, t.Any]:
    return {
        "name": "app", "host": "app1", "window_seconds": 12.4, "errors": 0, "critical": 0, "warnings": 0, "lines": [],
        "problem": "", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("logs", "status", "said"),
    [
        ([], "unknown", "No log was read; set rollback_log_sources."),
        ([log()], "passed", "No error in 1 log in the 12 s since the restart."),
        ([log(warnings=1), log(warnings=2)], "passed", "No error in 2 logs in the 12 s since the restart, 3 warnings."),
        (
            [log(errors=1, critical=1, lines=["first", "FATAL: no table"]), log(host="")],
            "failed",
            "Since the restart: 2 errors in app on app1, the last one: FATAL: no table.",
        ),
        ([log(errors=1, host="")], "failed", "Since the restart: 1 error in app."),
        (
            [log(), log(errors=None, critical=None, warnings=None, problem="no such file.")],
            "unknown",
            "Could not be read: app on app1 (no such file).",
        ),
        (
            [{**findings.unread("no route"), "host": "app2"}],
            "unknown",
            "Could not be read: all logs on app2 (no route).",
        ),
    ],
)
def test_logs_clean(logs: list[dict[str, t.Any]], status: str, said: str) -> None:
    assert findings.logs_clean(logs) == Finding(status, said)


def rule(name: str, status: str, text: str = "", source: str = "queries") -> dict[str, str]:
    return {"rule": name, "status": status, "text": text, "source": source}


CLEAR = [
    rule("performance_degraded_critical", "clear", "None."),
    rule("performance_degraded_high", "clear", "None."),
    rule("critical_query_timeout", "clear", "None."),
]


@pytest.mark.parametrize(
    ("found", "why_not", "status", "said"),
    [
        (CLEAR, "", "passed", "The critical queries take as long as before the migration."),
        (
            [*CLEAR, rule("performance_acceptable", "fired", "orders: 2 ms, as ever.")],
            "",
            "passed",
            "orders: 2 ms, as ever.",
        ),
        (
            [*CLEAR[1:], rule("performance_degraded_critical", "fired", "orders: 90 ms.")],
            "",
            "failed",
            "orders: 90 ms.",
        ),
        ([*CLEAR[:2], rule("critical_query_timeout", "fired", "orders timed out.")], "", "failed", "orders timed out."),
        (
            [CLEAR[0], rule("performance_degraded_high", "inconclusive", "orders: may be.")],
            "",
            "unknown",
            "orders: may be.",
        ),
        (
            [rule("performance_degraded_high", "not_measured"), CLEAR[2]],
            "",
            "unknown",
            "No critical query could be compared with its baseline.",
        ),
        (
            [rule("performance_degraded_high", "fired", source="prometheus")],
            "",
            "unknown",
            "No critical query could be compared with its baseline.",
        ),
        ([], "There is no baseline.", "unknown", "There is no baseline."),
    ],
)
def test_performance_normal(found: list[dict[str, str]], why_not: str, status: str, said: str) -> None:
    assert findings.performance_normal(found, why_not) == Finding(status, said)


SENT = {"name": "chat", "status": "sent", "audience": "technical"}


@pytest.mark.parametrize(
    ("notes", "channels", "status", "said"),
    [
        (
            [SENT],
            ["chat"],
            "passed",
            "Told as the run began, by chat. How it ended is told right after this list, by chat.",
        ),
        ([], ["late"], "passed", "How it ended is told right after this list, by late."),
        ([SENT], [], "passed", "Told as the run began, by chat."),
        ([SENT, {**SENT, "name": "mail", "status": "failed"}], ["chat"], "open", "Not delivered by mail."),
        (
            [{**SENT, "audience": "stakeholder"}],
            [],
            "open",
            "No channel of rollback_notify tells a technical audience how the run ended.",
        ),
    ],
)
def test_team_notified_after(notes: list[dict[str, str]], channels: list[str], status: str, said: str) -> None:
    assert findings.team_told(notes, channels) == Finding(status, said)


# --- the console ------------------------------------------------------------------------------------------------------


def console(**run: t.Any) -> str:
    answers = Answers({"team_notified": False}, by="ana", at=NOW)
    items = list(before(answers, backup_available=Finding("failed", "The folder is gone\x1b[2J.")).values())
    facts = {
        "run_id": "r1",
        "rollback_failure": {"stage": "checklist", "message": "no"},
        "checklist_result": {"items": items},
    }
    return summary({**compose({**facts, **run}), **run})


def test_the_console_shows_what_does_not_hold() -> None:
    text = console() + "\n"
    assert "CHECKLIST before the rollback  4 of 7 hold\n" in text
    assert "  open    The problem is confirmed: Only a person can say this.\n" in text
    assert "  NO      The team is notified: ana answered no. It is so.\n" in text
    assert "  NO      A verified backup is available: The folder is gone" in text
    assert "\x1b" not in text
    assert "The rollback is planned" not in text
    assert "CHECKLIST after" not in text


def test_a_preview_shows_all_of_it() -> None:
    assert "  yes     The rollback is planned: It is so.\n" in console(check_mode=True) + "\n"
