# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Channels, whom they are for, and what is said in them."""

from __future__ import annotations

import email
import email.policy
import json
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.notification import (
    Channel,
    Message,
    Occasion,
    chosen,
    contacts_of,
    notify_problems,
)
from ansible_collections.cypher.rollback.plugins.module_utils.notification_delivery import notify, without_secrets
from ansible_collections.cypher.rollback.plugins.module_utils.notification_payload import (
    CUT,
    TEAMS_BYTES,
    data,
    mail,
    slack,
    teams,
    variables,
)
from ansible_collections.cypher.rollback.plugins.module_utils.notification_text import Text, duration, event_of, moment
from ansible_collections.cypher.rollback.plugins.module_utils.report import compose
from ansible_collections.cypher.rollback.plugins.module_utils.summary import summary

CONTACTS = [
    {"role": "dba_lead", "name": "Ana Ionescu", "email": "ana@example.com", "phone": "+40 721"},
    {"role": "devops_lead", "name": "Mihai", "email": "", "phone": "+40 722"},
    {"role": "product_owner", "name": "Dan Popa", "email": "dan@example.com"},
]

#: What a database, a program or an error may have said; none of it is for stakeholders.
HOSTILE = {
    "object": 'b2b."<script>orders</script>"',
    "path": "/var/backups/cypher-erp/backup_x",
    "host": "db1.internal.example.com",
    "sql": "DROP TABLE b2b.orders CASCADE",
    "error": 'FATAL: password authentication failed for user "postgres"',
    "database": "cypher_erp_secretname",
    "version": "0003",
    "app": "app1.internal.example.com",
    "run": "20261122T152140Z-0003-5f2c",
    "evidence": "40 s by the copy of /dev/sda1",
    "log": "Traceback (most recent call last)",
}


def stage(name: str, begin: int, end: int, status: str = "finished") -> dict[str, t.Any]:
    at = [f"2026-11-22T15:{minute:02}:00.000Z" for minute in (begin, end)]
    return {"name": name, "status": status, "started_at": at[0], "finished_at": at[1], "seconds": (end - begin) * 60.0}


STAGES = [
    stage("plan", 0, 1),
    stage("stop", 1, 2),
    stage("rollback", 2, 3),
    stage("restart", 3, 4),
    stage("smoke_test", 4, 8),
]
PLANNED: dict[str, t.Any] = {
    "outcome": "planned",
    "message": HOSTILE["sql"],
    "target": {"host": HOSTILE["host"], "port": 5432, "database": HOSTILE["database"], "server_version": "15.3"},
    "plan": {
        "versions": [HOSTILE["version"]],
        "statements": 1,
        "scripts": [{"file": HOSTILE["path"]}],
        "states": {"0002": {"present": ["table b2b.stays"]}, "0003": {"present": [HOSTILE["object"]]}},
    },
    "rows_estimate": 1200,
}
SEVERITY = {
    "level": "High",
    "action": "roll back",
    "deadline": "within one hour",
    "findings": [{"text": HOSTILE["error"]}],
}
STOPPED = {"hosts": {HOSTILE["app"]: {"was_running": True, "stopped": True, "message": HOSTILE["path"]}}}
STARTED = {"hosts": {HOSTILE["app"]: {"started": True, "running": True}}}
BACKUP: dict[str, t.Any] = {
    "backup": {"id": "backup_x", "path": HOSTILE["path"], "kind": "dump", "bytes": 1, "verified": True}
}
EFFECT = {"dropped": [{"type": "table", "identity": HOSTILE["object"], "rows": 1200}], "rows_lost": 1200}
ROLLED_BACK = {"committed": True, "effect": EFFECT, "verification": {"passed": True, "checks": []}}
SMOKE = {"passed": True, "tests": [{"name": HOSTILE["host"], "status": "passed", "message": ""}]}
ESTIMATE = {"key": "downtime_estimated", "status": "passed", "evidence": HOSTILE["evidence"]}
BEGUN = {
    "run_id": HOSTILE["run"],
    "run_dir": "/var/backups/cypher-erp/runs",
    "host": HOSTILE["host"],
    "person": "ion",
    "stages": STAGES[:1],
    "plan_result": PLANNED,
    "checklist_result": {"items": [ESTIMATE], "severity": SEVERITY},
    "closing_checklist_result": {"logs": [{"lines": [HOSTILE["log"]]}]},
    "contacts": CONTACTS,
}
WHOLE: dict[str, t.Any] = {
    **BEGUN,
    "stages": STAGES,
    "stop_result": STOPPED,
    "backup_result": BACKUP,
    "rollback_result": ROLLED_BACK,
    "restart_result": STARTED,
    "smoke_test_result": SMOKE,
}
FAILURE = {"stage": "rollback", "message": HOSTILE["error"], "details": {"line": HOSTILE["sql"]}}
DOWN = {"restart_result": {"hosts": {HOSTILE["app"]: {"started": False, "running": False, "failed": True}}}}
UNCHANGED = {**WHOLE, "rollback_result": {}, "smoke_test_result": {}, "rollback_failure": FAILURE}
RESTORED = {
    **WHOLE,
    "runbook": "emergency_rollback",
    "plan_result": {},
    "restore_plan_result": {
        **PLANNED,
        "plan": {},
        "backup": BACKUP["backup"],
        "why": HOSTILE["path"],
        "window": {
            "from": "2026-11-22T14:00:00Z",
            "text": f"Everything since then is lost; it stays in {HOSTILE['database']}.",
        },
    },
    "restore_result": {"compared": True},
    "swap_result": {"swapped": True, "kept": HOSTILE["database"]},
}
RUNS: dict[str, dict[str, t.Any]] = {
    "rolled_back": WHOLE,
    "restored": RESTORED,
    "refused": {**BEGUN, "rollback_failure": {**FAILURE, "stage": "plan"}},
    "failed_unchanged": UNCHANGED,
    "needs_attention": {**WHOLE, **DOWN, "rollback_failure": {**FAILURE, "stage": "restart"}},
    "unknown": {**UNCHANGED, "restart_result": {}, "rollback_failure": {**FAILURE, "outcome": "unknown"}},
    "nothing_to_do": {**BEGUN, "plan_result": {**PLANNED, "outcome": "nothing_to_do"}},
    "backed_up": {**BEGUN, "runbook": "backup", "backup_result": BACKUP},
}


def webhook(**more: t.Any) -> dict[str, t.Any]:
    return {"type": "webhook", "name": "ops", "url": "https://hooks.example.com/T0KEN", **more}


def mail_channel(**more: t.Any) -> dict[str, t.Any]:
    return {"type": "email", "name": "leads", "from": "rollback@example.com", "to": ["team@example.com"], **more}


def message_of(run: dict[str, t.Any], event: str = "", **channel: t.Any) -> Message:
    report = compose(run)
    [message], notes = chosen([webhook(**channel)], Occasion(event or event_of(report), report, contacts_of(CONTACTS)))
    assert notes == []
    return message


def text_of(run: dict[str, t.Any], event: str = "", **channel: t.Any) -> str:
    text = message_of(run, event, **channel).text
    return f"{text.title}\n{text.body()}"


@pytest.mark.parametrize(
    ("channel", "problem"),
    [
        ("ops", "channel 1 must be a dictionary with a type"),
        ({}, "channel 1 has no type; the types are webhook, slack, teams, email, command"),
        ({"type": "slak", "name": "ops"}, "channel 'ops' has the type 'slak'; the types are webhook, slack,"),
        (webhook(url=""), "channel 'ops' (webhook) has no url"),
        (webhook(type="slack", url="hooks.example.com/T0KEN"), "(slack) has a url that is no http or https address"),
        (webhook(type="teams", headers=["X"]), "(teams) has headers that are no dictionary"),
        (webhook(headers={"X": "T0KEN\r\nY: 1"}), "has a header with a line break in it"),
        (webhook(events=["begin"]), "has begin in events, which knows start, end, failure"),
        (webhook(severities=["Critcal"]), "has Critcal in severities, which knows Critical, High, Medium, Low"),
        (webhook(audience="boss"), "has boss in audience, which knows technical, stakeholder"),
        (webhook(roles=["dba"]), "is for the role dba, and rollback_contacts has dba_lead, devops_lead, product_owner"),
        (webhook(uri="https://T0KEN"), "has no key 'uri'; its keys are type, name, events"),
        (mail_channel(**{"from": ""}), "channel 'leads' (email) has no from, the address that it is sent by"),
        (mail_channel(to=[]), "has no recipients: set to, or roles whose contacts in rollback_contacts have an email"),
        (mail_channel(to=[], roles=["devops_lead"]), "has no recipients: set to, or roles"),
        (mail_channel(to=["nobody"]), "has a wrong to: 'nobody' is no mail address"),
        (
            mail_channel(to=["a@b.example\nBcc: c@d.example"]),
            "has a wrong to: 'a@b.example\\\\nBcc: c@d.example' holds control",
        ),
        (mail_channel(tls="tls"), "has tls in tls, which knows none, starttls, ssl"),
        (mail_channel(port="smtp"), "has a port that is no number from 1 to 65535"),
        (
            mail_channel(tls="none", host="mail.example.com", password="T0KEN"),
            "would send its password unencrypted: set tls to starttls or ssl",
        ),
        ({"type": "command", "command": []}, "(command) has no command: give a shell line, or a list of words"),
    ],
)
def test_a_wrong_channel_is_named_with_what_is_wrong_and_without_its_secrets(channel: t.Any, problem: str) -> None:
    [said] = notify_problems([channel], CONTACTS)
    assert said.startswith("rollback_notify: channel ")
    assert problem in said
    assert "T0KEN" not in said
    # Where nobody looked beforehand, as in backup.yml, it is a note of the report.
    [note] = notify([channel], CONTACTS, compose(WHOLE))
    assert (note["status"], note["message"]) == ("failed", said)


def test_a_setting_that_is_no_list_is_told() -> None:
    assert notify_problems("slack", []) == ["rollback_notify must be a list of channels."]
    assert notify_problems([webhook()], "Ana") == [
        "rollback_contacts must be a list, for the channels of rollback_notify too."
    ]
    wrong = [{"role": "dba_lead", "email": "ana at example"}]
    assert (
        "is for dba_lead, whose email is wrong in rollback_contacts"
        in notify_problems([mail_channel(roles=["dba_lead"])], wrong)[0]
    )


def test_good_channels_have_no_problem() -> None:
    channels = [
        webhook(headers={"X-Auth": "1"}, events="start,end", severities=["critical"], audience="stakeholder"),
        mail_channel(roles=["dba_lead", "devops_lead"], tls="ssl", username="u", password="p", port=465),
        {"type": "command", "command": "logger -t rollback"},
    ]
    assert notify_problems(channels, CONTACTS) == []
    assert "T0KEN" not in repr(Channel.parse(channels[0], []))


def told(channel: dict[str, t.Any], event: str, severity: str = "") -> bool:
    report = {"outcome": "rolled_back", "severity": {"level": severity}}
    return bool(chosen([channel], Occasion(event, report, []))[0])


def test_a_channel_is_told_of_its_events_and_levels_and_of_what_nobody_knows() -> None:
    assert all(told(webhook(), event) for event in ("start", "end", "failure"))
    assert [told(webhook(events=["failure"]), event) for event in ("start", "end", "failure")] == [False, False, True]
    critical = webhook(severities=["critical", "High"])
    assert [told(critical, "end", level) for level in ("Critical", "High", "Medium", "Low", "", "?")] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    [note] = chosen([critical], Occasion("end", {"severity": {"level": "Low"}}, []))[1]
    assert (note["status"], note["message"]) == ("skipped", "it is told of Critical, High, and this is Low")


def test_a_stakeholder_gets_the_plain_text_by_mail_even_where_others_get_the_technical_one() -> None:
    occasion = Occasion("end", compose(WHOLE), contacts_of(CONTACTS))
    technical, plain = chosen([mail_channel(roles=["dba_lead", "product_owner"])], occasion)[0]
    assert (technical.audience, technical.addresses) == ("technical", ("team@example.com", "ana@example.com"))
    assert (plain.audience, plain.addresses, plain.roles) == ("stakeholder", ("dan@example.com",), ("product_owner",))
    assert HOSTILE["database"] in technical.text.title
    assert plain.text.title == "The service works again"


@pytest.mark.parametrize("event", ["start", ""])
@pytest.mark.parametrize("outcome", RUNS)
def test_stakeholders_read_no_technical_detail(outcome: str, event: str) -> None:
    report = compose(RUNS[outcome])
    assert report["outcome"] == outcome
    message = message_of(RUNS[outcome], event, audience="stakeholder", roles=["product_owner"])
    forms = (
        message.text.title,
        message.text.body(),
        json.dumps([data(message), slack(message), teams(message), variables(message)]),
    )
    for form in forms:
        for words in (
            (*HOSTILE.values(), "migration", "script", "DROP", "backup_", "/", "rollback.yml")
            if form is not forms[2]
            else HOSTILE.values()
        ):
            assert words not in form
    assert "Questions: Ana Ionescu (dba lead), +40 721, ana@example.com; Mihai" in message.text.body()
    assert "For: Dan Popa" in message.text.body()


@pytest.mark.parametrize(
    ("outcome", "title", "sentences"),
    [
        (
            "rolled_back",
            "The service works again",
            [
                "The latest change to the service was taken back.",
                "from 2026-11-22 15:01 UTC for 7 minutes. It works again.",
            ],
        ),
        (
            "restored",
            "The service works again",
            ["put back to an earlier state.", "What was entered or changed after 2026-11-22 14:00 UTC may be missing."],
        ),
        (
            "refused",
            "The service was not interrupted",
            ["Taking back the latest change to the service was not begun. Nothing was changed."],
        ),
        (
            "failed_unchanged",
            "The service works again",
            ["did not succeed. The data are as they were before.", "It works again."],
        ),
        (
            "needs_attention",
            "The service is not available",
            ["took effect, but something after that did not go", "since 2026-11-22 15:01 UTC, and does not work yet."],
        ),
        (
            "unknown",
            "The service is not available",
            ["it is not known yet whether it took effect.", "does not work yet."],
        ),
        ("nothing_to_do", "The service was not interrupted", ["There was nothing to take back. Nothing was changed."]),
        ("backed_up", "The service was not interrupted", ["A backup of the service's data was made."]),
    ],
)
def test_stakeholders_read_what_happened_since_when_and_whether_it_works(
    outcome: str, title: str, sentences: list[str]
) -> None:
    text = text_of(RUNS[outcome], audience="stakeholder")
    assert text.startswith(f"{title}\n")
    for sentence in sentences:
        assert sentence in text


def test_an_application_that_was_not_running_was_not_interrupted() -> None:
    stopped = {"hosts": {"app1": {"was_running": False, "stopped": False}}}
    text = text_of({**WHOLE, "stop_result": stopped, "restart_result": {}}, audience="stakeholder")
    assert "The service was not interrupted by it." in text


def test_stakeholders_hear_what_a_verification_found() -> None:
    for outcome, sentence in (
        ("verified", "The data of the service were examined, and found to be in order."),
        ("needs_attention", "examined, and something was found that has to be looked at."),
        ("refused", "Examining the data of the service was not begun. Nothing was changed."),
    ):
        report = {**compose(BEGUN), "runbook": "verify", "outcome": outcome}
        [message] = chosen([webhook(audience="stakeholder")], Occasion(event_of(report), report, []))[0]
        assert sentence in message.text.body()


def test_a_report_of_another_shape_is_a_failed_note() -> None:
    [note] = notify(
        [webhook()], CONTACTS, {"outcome": "rolled_back", "effect": {"rows_lost": "many"}, "committed": True}
    )
    assert note["status"] == "failed"
    assert note["message"].startswith("no text could be made for it: ValueError")


def test_stakeholders_hear_how_bad_an_assessment_found_it() -> None:
    report = {**compose(BEGUN), "runbook": "assess", "outcome": "assessed"}
    [message] = chosen([webhook(audience="stakeholder")], Occasion("end", report, []))[0]
    assert "The state of the service was looked at. It was judged as High." in message.text.body()


def test_stakeholders_hear_of_a_start_and_of_tests_that_failed() -> None:
    start = text_of(BEGUN, "start", audience="stakeholder")
    assert (
        "The service may be unavailable for a while\nSince 2026-11-22 15:00 UTC the latest change to the service is being taken back."
        in start
    )
    failed = {**WHOLE, "smoke_test_result": {"passed": False, "tests": [], "message": HOSTILE["error"]}}
    text = text_of(failed, audience="stakeholder")
    assert "It runs again, but not every test of it passed." in text
    report = {**compose(BEGUN), "contacts": []}
    [message] = chosen([webhook(audience="stakeholder")], Occasion("start", report, []))[0]
    assert "Questions: the team that runs the service." in message.text.body()


def test_the_start_says_who_does_what_and_what_will_be_lost() -> None:
    report = {**compose(BEGUN), "rows_estimate": PLANNED["rows_estimate"]}
    [message] = chosen([webhook(roles=["dba_lead"])], Occasion("start", report, contacts_of(CONTACTS)))[0]
    text = f"{message.text.title}\n{message.text.body()}"
    for words in (
        f"STARTED: rollback, migration 0003 of database {HOSTILE['database']}",
        f"ion started the runbook rollback at 2026-11-22 15:00 UTC, run {HOSTILE['run']}.",
        f"Migration 0003 of database {HOSTILE['database']} on {HOSTILE['host']}:5432, PostgreSQL 15.3.",
        "Severity: High, roll back, within one hour.",
        "About 1,200 rows will be lost.",
        f"1 object will be dropped or changed:\n  {HOSTILE['object']}",
        f"Estimated stop: {HOSTILE['evidence']}",
        "For: Ana Ionescu (dba lead), +40 721, ana@example.com",
    ):
        assert words in text
    assert "b2b.stays" not in text
    assert "it stays in" in text_of(RESTORED, "start")
    unknown = {**BEGUN, "checklist_result": {"items": [{**ESTIMATE, "status": "open"}]}}
    assert "Estimated stop" not in text_of(unknown, "start")
    assert (data(message)["event"], data(message)["outcome"]) == ("start", "started")
    assert data(message)["plan"]["versions"] == ["0003"]


def test_a_failure_says_what_to_do_next_and_whom_to_call() -> None:
    report = compose(RUNS["needs_attention"])
    text = text_of(RUNS["needs_attention"])
    for words in (
        f"NEEDS ATTENTION: migration 0003 of database {HOSTILE['database']}",
        "Stage restart failed: FATAL: password authentication failed",
        f"Next:\n  {report['next_commands'][0]}",
        f"Backup: {HOSTILE['path']}",
        f"Report: /var/backups/cypher-erp/runs/{HOSTILE['run']}/report.json on {HOSTILE['host']}",
        "To call:\n  Ana Ionescu (dba lead), +40 721, ana@example.com\n  Mihai (devops lead), +40 722",
        "The application was stopped for ",
        "1,200 rows went with what was dropped.",
    ):
        assert words in text
    assert "To call:" not in text_of(WHOLE)
    shown = summary(report)
    assert (
        "TO CALL\n  dba lead: Ana Ionescu, +40 721\n  devops lead: Mihai, +40 722\n  product owner: Dan Popa, -"
        in shown
    )
    assert "TO CALL" not in summary(compose(WHOLE))
    assert "TO CALL" not in summary(compose(RUNS["refused"]))


def long_message(line: str, count: int, kind: str) -> Message:
    channel = Channel(kind, "long")
    return Message(channel, "end", "technical", Text("t" * 500, (line,) * count, "bad"))


def test_slack_texts_are_escaped_and_within_its_limits() -> None:
    payload = slack(long_message("<!channel> & <http://evil|here>", 5000, "slack"))
    [attachment] = payload["attachments"]
    header, *sections = attachment["blocks"]
    assert attachment["color"] == "#c62828"
    assert len(header["text"]["text"]) == 150
    assert sections[0]["text"]["text"].startswith("&lt;!channel&gt; &amp; &lt;http://evil|here&gt;\n")
    assert all(0 < len(section["text"]["text"]) <= 3000 for section in sections)
    assert (len(sections), sections[-1]["text"]["text"]) == (8, CUT)
    endless = slack(long_message("&" * 10_000, 3, "slack"))["attachments"][0]["blocks"][1:]
    assert all(len(block["text"]["text"]) <= 3000 and not block["text"]["text"].endswith("&am") for block in endless)
    assert slack(message_of(WHOLE))["attachments"][0]["color"] == "#2e7d32"


@pytest.mark.parametrize(
    ("line", "count"), [("[click](http://evil) ăîș", 5000), ("ă" * 200_000, 1), ("ă" * 20_000, 90)]
)
def test_a_card_for_teams_reads_no_markdown_and_is_small_enough(line: str, count: int) -> None:
    payload = teams(long_message(line, count, "teams"))
    assert len(json.dumps(payload).encode()) <= TEAMS_BYTES
    [attachment] = payload["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["body"][0]["style"]) == ("AdaptiveCard", "attention")
    assert "TextBlock" not in {block["type"] for block in card["body"]}
    if count == 5000:
        assert card["body"][1]["inlines"] == [{"type": "TextRun", "text": line}]
        assert card["body"][-1]["inlines"][0]["text"] == CUT


def test_a_mail_is_text_in_utf8_with_the_page_for_those_who_run_the_system() -> None:
    text = Text("Întreruptă \\n Bcc: x@example.com " + "y" * 300, ("Comenzile ăîș", "", "Next"), "good")
    channel = Channel("email", "leads", settings={"from": "Rollback <rollback@example.com>"})
    message = Message(channel, "end", "technical", text, (), ("ana@example.com", "dan@example.com"))
    parsed = email.message_from_bytes(mail(message, "<html>ă</html>").as_bytes(), policy=email.policy.default)
    assert (parsed["From"], parsed["To"]) == ("rollback@example.com", "ana@example.com, dan@example.com")
    assert parsed["Subject"].startswith("Întreruptă")
    assert parsed["Bcc"] is None
    assert parsed["Message-ID"].endswith("@example.com>")
    assert parsed["Date"].datetime is not None
    body = parsed.get_body(("plain",))
    assert body is not None
    assert body.get_content() == "Comenzile ăîș\n\nNext\n"
    assert [part.get_filename() for part in parsed.iter_attachments()] == ["report.html"]
    plain = Message(channel, "end", "stakeholder", text, (), ("dan@example.com",))
    assert not mail(plain, "<html></html>").is_multipart()
    with pytest.raises(ValueError, match="linefeed or carriage"):
        mail(Message(channel, "end", "technical", Text("a\nBcc: x@example.com", ())))


def test_nothing_is_sent_in_check_mode() -> None:
    [note] = notify([webhook(roles=["dba_lead"])], CONTACTS, compose(WHOLE), send=False)
    assert note.pop("at").endswith("Z")
    assert note == {
        "name": "ops", "type": "webhook", "event": "end", "audience": "technical", "status": "skipped",
        "message": "nothing is sent in check mode", "recipients": ["dba_lead"],
    }  # fmt: skip


def test_no_part_of_an_address_but_its_host_is_repeated() -> None:
    settings = {
        "url": "https://u5er:pa55@hooks.example.com/services/T0KEN/abc?key=K3Y",
        "headers": {"X-Auth": "H3AD"},
        "username": "mailer",
        "password": "p4ssword",
    }
    said = without_secrets(
        f"{settings['url']} refused u5er pa55 K3Y H3AD T0KEN mailer p4ssword at hooks.example.com", settings
    )
    assert said == "*** refused *** *** *** *** *** *** *** at hooks.example.com"


def test_durations_and_moments_are_words() -> None:
    assert [duration(seconds) for seconds in (0.2, 1, 59.1, 119, 120, 121, 7199, 7200, None)] == [
        "1 second", "1 second", "60 seconds", "119 seconds", "2 minutes", "3 minutes", "120 minutes", "2 hours",
        "a time that is not known",
    ]  # fmt: skip
    assert moment("2026-11-22T15:21:40.123Z") == "2026-11-22 15:21 UTC"
    assert moment("DROP TABLE") == moment(None) == "a time that is not known"
