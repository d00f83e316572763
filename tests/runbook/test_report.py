# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run begins and ends, through ansible-playbook: stages, claim, notifications, report."""

from __future__ import annotations

import contextlib
import html
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import typing as t

import pytest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

ANSIBLE_PLAYBOOK = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))

PLAYBOOK = """
- hosts: erp_db
  gather_facts: false
  module_defaults:
    cypher.rollback.stage: &run {run_dir: "{{ rollback_run_dir }}", run_id: "{{ rollback_run_id }}"}
    cypher.rollback.run_claim: *run
  vars:
    planned:
      outcome: planned
      target: {host: db1, port: 5432, database: cypher_erp, server_version: "15.3", system_identifier: "77"}
      plan: {versions: ["0003"], statements: 4, scripts: []}
    app1: {was_running: true, stopped: true}
  tasks:
    - block:
        - cypher.rollback.stage: {name: plan}
        - set_fact: {plan_result: "{{ planned }}"}
        - cypher.rollback.run_claim: {system_identifier: "77", database: cypher_erp, abandon: "{{ abandon | default('') }}"}
        - cypher.rollback.stage: {name: stop}
        - set_fact: {stop_result: {hosts: {app1: "{{ app1 }}"}}}
          when: not ansible_check_mode
        - cypher.rollback.stage: {name: backup}
        - command: {argv: "{{ work }}"}
        - set_fact:
            rollback_result: {committed: "{{ not ansible_check_mode }}"}
            verify_result: {verification: {passed: true, checks: []}}
            restart_result: {hosts: {app1: {started: true}}}
      rescue:
        - cypher.rollback.stage: {status: failed}
          register: failed_stage
        - set_fact: {rollback_failure: {stage: "{{ failed_stage.stage }}", message: "{{ ansible_failed_result.msg }}"}}
        - cypher.rollback.stage: {name: restart}
        - set_fact: {restart_result: {hosts: {app1: {started: true}}}}
      always:
        - include_role: {name: cypher.rollback.notify}
        - fail: {msg: "{{ notify_result.message }}"}
          when: notify_result.report.outcome not in ['rolled_back', 'nothing_to_do', 'planned']
"""

INVENTORY = f"""
all:
  children:
    erp_db:
      hosts:
        db1: {{ansible_connection: local, ansible_python_interpreter: {json.dumps(sys.executable)}}}
"""


class Runbook:
    """A folder with the playbook, and runs of it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        (folder / "inventory.yml").write_text(INVENTORY)
        (folder / "rollback.yml").write_text(PLAYBOOK)

    def start(
        self, *options: str, settings: dict[str, t.Any] | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Begin a run."""
        variables = {"rollback_run_dir": str(self.runs), "rollback_run_id": "r1", "work": ["true"], **(settings or {})}
        command = [ANSIBLE_PLAYBOOK, "-i", "inventory.yml", "rollback.yml", *options, "-e", json.dumps(variables)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0", **environment},
            umask=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *options: str, settings: dict[str, t.Any] | None = None, **environment: str) -> tuple[int, str]:
        """Run to the end: exit code and output."""
        with self.start(*options, settings=settings, **environment) as process:
            output = process.communicate(timeout=120)[0]
        return process.returncode, output

    def report(self, run_id: str = "r1") -> dict[str, t.Any]:
        """The report of a run."""
        report: dict[str, t.Any] = json.loads((self.runs / run_id / "report.json").read_text())
        return report

    def journal(self, run_id: str = "r1") -> list[str]:
        """The events of a run's journal, in a word or three each."""
        lines = (self.runs / run_id / "journal.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return [" ".join(filter(None, (event["event"], event.get("stage"), event.get("status")))) for event in events]

    def waiting_work(self) -> list[str]:
        """A command for a stage that says when it runs and ends when it is told to."""
        return ["sh", "-c", "touch at-work; while ! [ -e go-on ]; do sleep 0.05; done"]


def wait_for(path: pathlib.Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def runbook(tmp_path: pathlib.Path) -> Runbook:
    return Runbook(tmp_path)


class Receiver(http.server.ThreadingHTTPServer):
    """Webhooks: /ok takes a report, /error answers 500, /hang never answers, /drip answers a byte at a time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        self.received: list[tuple[str, dict[str, t.Any]]] = []
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        """Address of a hook, with a password and a token."""
        return f"http://us3r:pa55word@127.0.0.1:{self.server_address[1]}/{path}/t0ken?key=s3cret"


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = t.cast("Receiver", self.server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.path.split("/")[1]
        server.received.append((kind, body))
        if kind == "hang":
            server.closing.wait(60)
        elif kind == "drip":
            with contextlib.suppress(OSError):
                while not server.closing.wait(0.2):
                    self.wfile.write(b"H")
        else:
            self.send_response(204 if kind == "ok" else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 (the name of the base class)
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


def test_a_good_run_leaves_private_reports_a_journal_and_no_claim(runbook: Runbook) -> None:
    # Also where the module is sent over to a host of its own, and with everything shown that Ansible can show.
    settings = {"rollback_in_process": False, "rollback_post_mortem_languages": ["ro"]}
    code, output = runbook.run("-vvv", settings=settings)
    assert code == 0, output
    report = runbook.report()
    assert report["outcome"] == "rolled_back"
    assert [stage["name"] for stage in report["stages"]] == ["plan", "stop", "backup", "notify"]
    assert runbook.journal() == [
        "stage plan started", "claimed", "stage plan finished", "stage stop started", "stage stop finished",
        "stage backup started", "stage backup finished", "stage notify started", "stage notify finished", "finished",
    ]  # fmt: skip
    assert {path.name: path.stat().st_mode & 0o777 for path in (runbook.runs, *runbook.runs.rglob("*"))} == {
        "runs": 0o700, "r1": 0o700, "report.json": 0o600, "journal.jsonl": 0o600, ".claims.lock": 0o600,
        "report.html": 0o600, "post-mortem.md": 0o600, "stages": 0o700, "notify_sent.json": 0o600,
    }  # fmt: skip
    assert "ROLLED BACK   cypher_erp on db1:5432   run r1\n" in output
    page, post_mortem = ((runbook.runs / "r1" / name).read_text() for name in ("report.html", "post-mortem.md"))
    for name in ("report.json", "report.html", "post-mortem.md"):
        assert str(runbook.runs / "r1" / name) in output
    assert report["message"].split("\n")[0] in html.unescape(page)
    assert str(runbook.runs / "r1" / "report.json") in page
    assert post_mortem.startswith("# Post-Mortem: Rollback of Migration 0003\n")
    assert "1. **Ce s-a întâmplat?**\n" in post_mortem
    assert "What happened?" not in post_mortem
    # The texts are in their files; a console and its log are not the place for them.
    assert "<!DOCTYPE" not in output
    assert "# Post-Mortem" not in output


def test_channels_that_fail_are_reported_and_change_nothing_else(runbook: Runbook, receiver: Receiver) -> None:
    channels: list[dict[str, t.Any]] = [
        {"type": "webhook", "name": kind, "url": receiver.url(kind)} for kind in ("hang", "drip", "error")
    ]
    channels.append({"type": "webhook", "name": "nobody", "url": "http://us3r:pa55word@127.0.0.1:9/t0ken"})
    channels.append({"type": "webhook", "url": receiver.url("ok"), "headers": {"X-Auth": "h3ader"}})
    settings = {"rollback_notify": channels, "rollback_notify_timeout": 1, "work": ["false"]}
    code, output = runbook.run("-vvv", settings=settings)
    assert code == 2, output
    report = runbook.report()
    assert report["outcome"] == "failed_unchanged"
    assert {note["name"]: note["status"] for note in report["notifications"]} == {
        "hang": "failed", "drip": "failed", "error": "failed", "nobody": "failed",
        f"127.0.0.1:{receiver.server_address[1]}": "sent",
    }  # fmt: skip
    sent = next(body for kind, body in receiver.received if kind == "ok")
    assert {key: sent[key] for key in ("outcome", "run_id", "message")} == {
        key: report[key] for key in ("outcome", "run_id", "message")
    }
    assert "Notification error was not delivered: answered 500" in output
    for secret in ("us3r", "pa55word", "t0ken", "s3cret", "h3ader"):
        # The command line of this test holds them, in the output only Ansible's own echo of it could.
        assert secret not in output
        assert secret not in json.dumps(report)


def test_a_failing_stage_is_named_and_the_last_line_is_the_outcome(runbook: Runbook) -> None:
    code, output = runbook.run(settings={"work": ["false"]})
    assert code == 2
    report = runbook.report()
    assert report["failure"] == {"stage": "backup", "message": "non-zero return code"}
    assert report["message"].endswith("\nfailed_unchanged")
    assert [(stage["name"], stage["status"]) for stage in report["stages"]] == [
        ("plan", "finished"), ("stop", "finished"), ("backup", "failed"), ("restart", "finished"), ("notify", "finished"),
    ]  # fmt: skip
    assert report["downtime_seconds"] > 0
    assert "FAILED UNCHANGED" in output


def test_check_mode_writes_and_sends_nothing(runbook: Runbook, receiver: Receiver) -> None:
    settings = {"rollback_notify": [{"type": "webhook", "url": receiver.url("ok")}]}
    code, output = runbook.run("--check", settings=settings)
    assert code == 0, output
    assert not runbook.runs.exists()
    assert receiver.received == []
    assert "nothing was stopped, written or sent" in output
    assert "changed=0" in output


def test_a_second_run_is_refused_and_a_dead_first_one_is_taken_over(runbook: Runbook) -> None:
    with runbook.start(settings={"work": runbook.waiting_work()}) as first:
        wait_for(runbook.folder / "at-work", first)
        assert runbook.journal()[-1] == "stage backup started"

        code, output = runbook.run(settings={"rollback_run_id": "r2"})
        assert code == 2
        assert "Run r1 (rollback) works on this database" in output
        assert f"(process {first.pid})" in output
        second = runbook.report("r2")
        assert second["outcome"] == "refused"
        assert second["failure"]["stage"] == "plan"
        code, output = runbook.run("--check", settings={"rollback_run_id": "r3"})
        assert (code, "Run r1 (rollback) works on this database" in output) == (2, True)

        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        (runbook.folder / "go-on").touch()
    assert runbook.journal()[-1] == "stage backup started"
    assert list(runbook.runs.glob(".claim-*"))

    code, output = runbook.run(settings={"rollback_run_id": "r4"})
    assert code == 0, output
    assert "its journal ends with stage backup started" in " ".join(output.split())
    assert not list(runbook.runs.glob(".claim-*"))


def test_a_run_that_died_before_the_stop_is_warned_of_and_taken_over(runbook: Runbook) -> None:
    early = (runbook.folder / "rollback.yml").read_text()
    early = early.replace("cypher.rollback.stage: {name: stop}", 'command: {argv: "{{ work }}"}')
    (runbook.folder / "rollback.yml").write_text(early)
    with runbook.start(settings={"work": runbook.waiting_work()}) as first:
        wait_for(runbook.folder / "at-work", first)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        (runbook.folder / "go-on").touch()
    code, output = runbook.run(settings={"rollback_run_id": "r2"})
    assert code == 0, output
    assert "its journal ends with stage plan started" in " ".join(output.split())


def test_a_report_that_cannot_be_written_is_an_error_after_the_summary(runbook: Runbook) -> None:
    runbook.runs.write_text("in the way")
    code, output = runbook.run()
    assert code == 2
    assert output.count("The journal of run r1 cannot be written: ") == 1
    assert "REFUSED   cypher_erp" in output
    assert output.index("REFUSED   cypher_erp") < output.index("The report of run r1 could not be written")


def test_the_role_reports_a_run_that_left_nothing(runbook: Runbook) -> None:
    (runbook.folder / "rollback.yml").write_text(
        "- {hosts: erp_db, gather_facts: false, roles: [cypher.rollback.notify]}\n"
    )
    code, output = runbook.run(settings={"rollback_run_id": ""})
    assert code == 0, output
    [folder] = runbook.runs.iterdir()
    report = runbook.report(folder.name)
    assert (report["outcome"], report["run_id"]) == ("refused", folder.name)
    assert report["target"]["database"] == "cypher_erp"


def test_stages_of_an_earlier_run_are_not_taken_for_this_one(runbook: Runbook) -> None:
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(runbook.folder / "facts")}
    for run_id in ("r1", "r2"):
        assert runbook.run(settings={"rollback_run_id": run_id}, **cache)[0] == 0
        assert [stage["name"] for stage in runbook.report(run_id)["stages"]] == ["plan", "stop", "backup", "notify"]
    play = (runbook.folder / "rollback.yml").read_text()
    (runbook.folder / "rollback.yml").write_text(play + play.replace("&run", "&again").replace("*run", "*again"))
    assert runbook.run(settings={"rollback_run_id": "r3"}, **cache)[0] == 0
    second = json.loads((runbook.runs / "r3" / "report-2.json").read_text())
    assert [stage["name"] for stage in second["stages"]] == ["plan", "stop", "backup", "notify"]


JSON_CALLBACK = """
from ansible.plugins.callback import CallbackBase
DOCUMENTATION = "name: one_json\\ntype: stdout\\nshort_description: one document"
class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "stdout", "one_json"
    lines = []
    def v2_runner_on_ok(self, result):
        self.lines += result._result.get("summary", [])
    def v2_playbook_on_stats(self, stats):
        import json
        self._display.display(json.dumps(self.lines))
"""


def test_output_for_programs_stays_whole_and_holds_the_summary(runbook: Runbook) -> None:
    (runbook.folder / "one_json.py").write_text(JSON_CALLBACK)
    code, output = runbook.run(ANSIBLE_STDOUT_CALLBACK="one_json", ANSIBLE_CALLBACK_PLUGINS=str(runbook.folder))
    assert code == 0, output
    document = next(line for line in output.splitlines() if line.startswith("["))
    assert "ROLLED BACK   cypher_erp on db1:5432   run r1" in json.loads(document)
    assert "====" not in output.replace(document, "")


def test_past_runs_are_a_table_and_a_page_that_is_written_only_where_it_changes(runbook: Runbook) -> None:
    for run_id, outcome in (("r1", "rolled_back"), ("<b>", "needs_attention")):
        folder = runbook.runs / run_id
        folder.mkdir(parents=True)
        times = {"started_at": "2026-11-22T15:00:00.000Z", "finished_at": "2026-11-22T15:00:04.000Z"}
        report = {
            "runbook": "rollback",
            "outcome": outcome,
            "downtime_seconds": 2.5,
            "plan": {"versions": ["{{ 0003 }}"]},
            **times,
        }
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "report.html").write_text("")
    page = runbook.runs / "index.html"
    (runbook.folder / "rollback.yml").write_text("- import_playbook: cypher.rollback.history\n")
    code, output = runbook.run("--check")
    assert (code, page.exists()) == (0, False), output
    assert f"The page was not written in check mode: {page}" in output
    code, output = runbook.run("--diff", settings={"limit": 1})
    assert (code, "changed=1 " in output, page.stat().st_mode & 0o777) == (0, True, 0o600), output
    assert f"RUNS  {runbook.runs}  2 runs" in output
    assert "… and 1 older" in output
    assert f"The page: {page}" in output
    assert "<!DOCTYPE" not in output
    text = page.read_text()
    assert '<a href="r1/report.html">2026-11-22 15:00:00</a>' in text
    assert '<a href="%3Cb%3E/report.html">' in text
    assert "{{ 0003 }}" in text
    code, output = runbook.run()
    assert (code, "changed=0 " in output, page.read_text()) == (0, True, text), output
