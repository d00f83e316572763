# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages to real receivers: HTTP, mail and commands, first one by one and then from a runbook."""

from __future__ import annotations

import json
import socket
import sys
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.notification_delivery import notify

from tests.support.postgres_server import free_port
from tests.support.receivers import PASSWORD, USER, HttpReceiver, MailServer, make_certificate
from tests.support.runbook import Project

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database

HERE = ("127.0.0.1", 0)
SECRETS = ("us3r", "pa55word", "t0ken", "s3cret", "h3ader", PASSWORD)
REPORT = {
    "outcome": "rolled_back",
    "runbook": "rollback",
    "run_id": "r1",
    "message": "Migration 0003 is rolled back.\nrolled_back",
    "committed": True,
    "target": {"host": "db1", "port": 5432, "database": "shop"},
    "plan": {"versions": ["0003"]},
}
CONTACTS = [
    {"role": "dba_lead", "name": "Ana", "email": "ana@example.com"},
    {"role": "product_owner", "name": "Dan", "email": "dan@example.com"},
]


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with HttpReceiver() as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def mail_channel(server: MailServer, **more: t.Any) -> dict[str, t.Any]:
    return {
        "type": "email", "name": "mail", "host": "127.0.0.1", "port": server.port, "from": "rollback@example.com",
        "to": ["team@example.com"], **more,
    }  # fmt: skip


def told(channels: list[dict[str, t.Any]], timeout: float = 5, **more: t.Any) -> dict[str, tuple[str, str]]:
    """Status and message by name."""
    notes = notify(channels, CONTACTS, REPORT, timeout=timeout, **more)
    assert not any(secret in json.dumps(notes) for secret in SECRETS)
    return {note["name"]: (note["status"], note["message"]) for note in notes}


def test_one_dead_channel_delays_nobody_and_the_deadline_is_for_all(receiver: HttpReceiver) -> None:
    kinds = ("hang", "drip", "error", "moved", "ok", "flaky")
    channels = [{"type": "webhook", "name": kind, "url": receiver.url(kind)} for kind in kinds]
    channels.append({"type": "webhook", "name": "nobody", "url": f"http://us3r:pa55word@127.0.0.1:{free_port()}/t0ken"})
    channels.append({"type": "command", "name": "sleeper", "command": "sleep 60 & sleep 60"})
    begun = time.monotonic()
    notes = told(channels, timeout=1.5)
    assert time.monotonic() - begun < 2.5
    late = ("failed", "gave no answer within 1.5 s")
    assert {name: note for name, note in notes.items() if name != "nobody"} == {
        "hang": late,
        "drip": late,
        "error": ("failed", "answered 500"),
        "moved": ("failed", "answered 302, a redirect, which is not followed"),
        "ok": ("sent", "answered 200"),
        "flaky": ("sent", "answered 200"),
        "sleeper": ("failed", "the command did not end within 1.5 s, and was ended"),
    }
    assert notes["nobody"][0] == "failed"
    assert "Connection refused" in notes["nobody"][1]
    assert {kind: len(receiver.bodies(kind)) for kind in ("ok", "flaky", "moved")} == {
        "ok": 1,
        "flaky": 2,
        "moved": 1,
    }


def test_a_webhook_gets_the_report_and_the_credentials_of_its_address(receiver: HttpReceiver) -> None:
    told([{"type": "webhook", "name": "ops", "url": receiver.url("ok"), "headers": {"X-Auth": "h3ader"}}])
    [(_kind, headers, body)] = receiver.received
    assert body == {**REPORT, "event": "end"}
    assert (headers["Content-Type"], headers["X-Auth"]) == ("application/json", "h3ader")
    assert headers["Authorization"] == "Basic dXMzcjpwYTU1d29yZA=="


def test_mail_goes_over_starttls_with_a_login_each_reader_their_text(certificate: tuple[Path, Path]) -> None:
    with MailServer(certificate, auth=True) as server:
        channel = mail_channel(
            server, ca_cert=str(certificate[0]), username=USER, password=PASSWORD, roles=["dba_lead", "product_owner"]
        )
        notes = notify([channel], CONTACTS, REPORT, page="<html></html>")
    assert [(note["audience"], note["status"], note["message"], note["recipients"]) for note in notes] == [
        ("technical", "sent", "taken by the mail server for 2 recipients", ["dba_lead"]),
        ("stakeholder", "sent", "taken by the mail server for 1 recipient", ["product_owner"]),
    ]
    letters = {tuple(recipients): letter for recipients, letter in server.letters}
    technical = letters["team@example.com", "ana@example.com"]
    assert technical["Subject"] == "ROLLED BACK: migration 0003 of database shop"
    assert [part.get_filename() for part in technical.iter_attachments()] == ["report.html"]
    plain = letters["dan@example.com",]
    assert plain["Subject"] == "The service was not interrupted"
    assert "shop" not in plain.get_content()
    assert set(server.logins) == {USER}


def test_what_a_mail_server_refuses_is_told_without_the_password(certificate: tuple[Path, Path]) -> None:
    secure: dict[str, t.Any] = {"ca_cert": str(certificate[0])}
    with MailServer(certificate, auth=True) as closed, MailServer() as plain, socket.create_server(HERE) as silent:
        notes = told(
            [
                mail_channel(closed, name="wrong password", **secure, username=USER, password="pa55word"),
                mail_channel(closed, name="unknown certificate", username=USER, password=PASSWORD),
                mail_channel(closed, name="no file", ca_cert="/nowhere.pem"),
                mail_channel(plain, name="no starttls", **secure, username=USER, password=PASSWORD),
                mail_channel(plain, name="no login there", tls="none", username=USER, password=PASSWORD),
                mail_channel(plain, name="one refused", tls="none", to=["refused@example.com", "team@example.com"]),
                mail_channel(plain, name="all refused", tls="none", to=["refused@example.com"]),
                mail_channel(plain, name="nobody there", tls="none", port=free_port()),
                mail_channel(plain, name="silent", tls="none", port=silent.getsockname()[1]),
            ],
            timeout=1.5,
        )
    assert {name for name, (status, _message) in notes.items() if status == "sent"} == set()
    said = {name: message for name, (_status, message) in notes.items()}
    assert said["wrong password"].startswith("the mail server answered 535")
    assert said["unknown certificate"].startswith("its certificate is not valid: self")
    assert said["no file"] == "its ca_cert cannot be read: No such file or directory"
    assert said["no starttls"] == (
        "the mail server cannot do what is needed, and nothing was sent: STARTTLS extension not supported by server."
    )
    assert said["no login there"].startswith(
        "the mail server cannot do what is needed, and nothing was sent: SMTP AUTH"
    )
    assert said["one refused"] == "the mail server refused 1 of 2 recipients: refused@example.com (550)"
    assert said["all refused"] == "the mail server refused every recipient: refused@example.com (550)"
    assert "Connection refused" in said["nobody there"]
    assert said["silent"] == "gave no answer within 1.5 s"
    assert closed.letters == []
    assert [recipients for recipients, _letter in plain.letters] == [["team@example.com"]]


def test_a_command_gets_the_report_on_its_input_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    script = "import json, os, sys; json.dump([json.load(sys.stdin), dict(os.environ)], open(sys.argv[1], 'w'))"
    taken = [tmp_path / "technical.json", tmp_path / "plain.json"]
    notes = told(
        [
            {"type": "command", "name": "list", "command": [sys.executable, "-c", script, str(taken[0])]},
            {
                "type": "command", "name": "plain", "audience": "stakeholder",
                "command": [sys.executable, "-c", script, str(taken[1])],
            },
            {"type": "command", "name": "shell", "command": "echo broken; exit 3"},
            {"type": "command", "name": "missing", "command": ["/nowhere/program"]},
        ]
    )  # fmt: skip
    ended = ("sent", "the command ended with exit code 0")
    assert (notes["list"], notes["plain"]) == (ended, ended)
    assert notes["shell"] == ("failed", "the command ended with exit code 3, saying: broken")
    assert notes["missing"][1].startswith("the command cannot be run: [Errno 2] No such file or directory")
    (report, environment), (plain, bare) = (json.loads(path.read_text()) for path in taken)
    assert report == {**REPORT, "event": "end"}
    told_it = {name: environment[f"ROLLBACK_{name}"] for name in ("EVENT", "OUTCOME", "RUN_ID", "RUNBOOK", "AUDIENCE")}
    assert list(told_it.values()) == ["end", "rolled_back", "r1", "rollback", "technical"]
    assert "PGPASSWORD" not in environment
    assert set(plain) == {"event", "title", "text"}
    assert {name for name in bare if name.startswith("ROLLBACK_")} == {
        "ROLLBACK_EVENT", "ROLLBACK_AUDIENCE", "ROLLBACK_TITLE", "ROLLBACK_TEXT", "ROLLBACK_SEVERITY",
    }  # fmt: skip


def five_channels(receiver: HttpReceiver, server: MailServer, folder: Path, ca_cert: Path) -> list[dict[str, t.Any]]:
    return [
        {"type": "webhook", "name": "ops", "url": receiver.url("ok"), "headers": {"X-Auth": "h3ader"}},
        {"type": "slack", "url": receiver.url("slack"), "roles": ["dba_lead"]},
        {"type": "teams", "name": "boss", "url": receiver.url("teams"), "audience": "stakeholder"},
        mail_channel(server, roles=["product_owner"], ca_cert=str(ca_cert), username=USER, password=PASSWORD),
        {"type": "command", "name": "journal", "command": f"cat >> {folder}/events; echo >> {folder}/events"},
    ]


def test_a_run_tells_its_start_and_its_end_through_all_channels(
    tmp_path: Path, database: Database, receiver: HttpReceiver, certificate: tuple[Path, Path]
) -> None:
    with MailServer(certificate, auth=True) as server:
        channels = five_channels(receiver, server, tmp_path, certificate[0])
        project = Project(tmp_path, database, rollback_notify=channels, rollback_contacts=CONTACTS)
        project.migrate("0003")
        run = project.run("-e", "version=0003", "-vvv")
    assert run.outcome == "rolled_back", run.output
    assert run.report is not None
    for secret in SECRETS:
        assert secret not in run.output
        assert secret not in json.dumps(run.report)
    port = receiver.server_address[1]
    told_names = ["boss", "journal", "mail", "mail", "ops", f"127.0.0.1:{port}"]
    for event in ("start", "end"):
        notes = [note for note in run.report["notifications"] if note["event"] == event]
        assert sorted(note["name"] for note in notes) == sorted(told_names)
        assert {note["status"] for note in notes} == {"sent"}, notes
    start, end = receiver.bodies("ok")
    assert (start["event"], start["outcome"], start["run_id"]) == ("start", "started", run.report["run_id"])
    assert (end["event"], end["outcome"], end["message"]) == ("end", "rolled_back", run.message)
    began = json.dumps(receiver.bodies("slack")[0])
    assert "will be dropped or changed" in began
    assert "b2b.orders" in began
    assert "For: Ana (dba lead)" in began
    assert all(word not in json.dumps(receiver.bodies("teams")) for word in (database.name, "0003", "b2b"))
    assert len(server.letters) == 4
    pages = [part.get_content() for _to, letter in server.letters for part in letter.iter_attachments()]
    assert [run.report["run_id"] in page for page in pages] == [True]
    events = [json.loads(line)["event"] for line in (tmp_path / "events").read_text().splitlines()]
    assert events == ["start", "end"]
    # Before the application is stopped, and told in the order of the run.
    stop = run.stage("stop")
    assert stop is not None
    assert all(note["at"] <= stop["started_at"] for note in run.report["notifications"] if note["event"] == "start")


def test_a_refused_run_tells_only_its_failure_and_wrong_channels_refuse_it(
    tmp_path: Path, database: Database, receiver: HttpReceiver
) -> None:
    channels = [
        {"type": "slack", "name": "ops", "url": receiver.url("slack"), "roles": ["dba_leed"]},
        {"type": "webhook", "name": "status", "url": receiver.url("ok"), "audience": "stakeholder"},
    ]
    project = Project(tmp_path, database, rollback_notify=channels, rollback_contacts=CONTACTS)
    project.migrate("0003")
    run = project.run("-e", "version=0003")
    assert run.outcome == "refused", run.output
    said = "rollback_notify: channel 'ops' (slack) is for the role dba_leed, and rollback_contacts has dba_lead, product_owner."
    assert said in run.message
    assert "Nothing was stopped." in run.message
    assert run.report is not None
    assert [(note["name"], note["event"], note["status"]) for note in run.report["notifications"]] == [
        ("ops", "failure", "failed"),
        ("status", "failure", "sent"),
    ]
    [body] = receiver.bodies("ok")
    assert "was not begun. Nothing was changed." in body["text"]
