# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application's stages through ansible-playbook: real processes, two hosts, and what is known after a failure."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import typing as t

import pytest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

ANSIBLE_PLAYBOOK = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
LIMIT_SECONDS = 120

# A process that has ended and was not waited for has an empty command line.
STATUS = (
    "test -s {{ inventory_hostname }}.pid && "
    'test -n "$(tr -d "\\0" <"/proc/$(cat {{ inventory_hostname }}.pid)/cmdline" 2>/dev/null)"'
)
STOP = "kill $(cat {{ inventory_hostname }}.pid)"
START = "sleep 600 >/dev/null 2>&1 & echo $! >{{ inventory_hostname }}.pid"

PLAYBOOK = """
- hosts: erp_db
  gather_facts: false
  tasks:
    - block:
        {tasks}
      rescue:
        - set_fact: {{failure: "{{{{ ansible_failed_result.msg }}}}"}}
        {rescue}
      always:
        - debug:
            msg: "FACTS {{{{ found | to_json | b64encode }}}}"
          vars:
            found:
              failure: "{{{{ failure | default('') }}}}"
              stop: "{{{{ stop_result | default({{}}) }}}}"
              restart: "{{{{ restart_result | default({{}}) }}}}"
              smoke_test: "{{{{ smoke_test_result | default({{}}) }}}}"
              previous_code: "{{{{ previous_code_result | default({{}}) }}}}"
"""


def role(name: str, tasks_from: str = "main", **variables: t.Any) -> dict[str, t.Any]:
    task = {"include_role": {"name": f"cypher.rollback.{name}", "tasks_from": tasks_from}}
    return {**task, "vars": variables} if variables else task


class Runbook:
    """A database host, application hosts and the play over them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.hosts: dict[str, dict[str, t.Any]] = {"app1": {}}
        self.all: dict[str, t.Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        self.app: dict[str, t.Any] = {
            "rollback_app_driver": "command",
            "rollback_project_dir": str(folder),
            "rollback_app_status_command": STATUS,
            "rollback_app_stop_command": STOP,
            "rollback_app_start_command": START,
            "rollback_app_timeout": 3,
        }
        self.environment: dict[str, str] = {}
        self.output = ""

    def inventory(self) -> pathlib.Path:
        path = self.folder / "hosts.json"
        self.all["rollback_app_hosts"] = list(self.hosts)
        children = {"erp_db": {"hosts": {"db1": {}}}, "erp_app": {"hosts": self.hosts, "vars": self.app}}
        path.write_text(json.dumps({"all": {"vars": self.all, "children": children}}))
        return path

    def run(self, *tasks: dict[str, t.Any], rescue: t.Any = (), arguments: t.Sequence[str] = ()) -> dict[str, t.Any]:
        lines = [f"- {json.dumps(task)}" for task in tasks]
        rescue_lines = [f"- {json.dumps(task)}" for task in rescue]
        playbook = self.folder / "play.yml"
        indent = "\n        "
        playbook.write_text(PLAYBOOK.format(tasks=indent.join(lines), rescue=indent.join(rescue_lines)))
        done = subprocess.run(
            [ANSIBLE_PLAYBOOK, "-i", self.inventory(), playbook, *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **self.environment},
        )
        self.output = done.stdout + done.stderr
        found = re.search(r"FACTS ([A-Za-z0-9+/=]+)", self.output)
        assert found, self.output
        return t.cast("dict[str, t.Any]", json.loads(base64.b64decode(found[1])))

    def pid(self, host: str) -> int:
        path = self.folder / f"{host}.pid"
        return int(path.read_text()) if path.exists() else 0

    def runs(self, host: str) -> bool:
        try:
            return self.pid(host) > 0 and bool(pathlib.Path(f"/proc/{self.pid(host)}/cmdline").read_bytes())
        except OSError:
            return False

    def start(self, *hosts: str) -> None:
        for host in hosts:
            command = ["/bin/sh", "-c", START.replace("{{ inventory_hostname }}", host)]
            subprocess.run(command, cwd=self.folder, check=True)


@pytest.fixture
def runbook(tmp_path: pathlib.Path) -> Iterator[Runbook]:
    runbook = Runbook(tmp_path)
    yield runbook
    for host in runbook.hosts:
        if runbook.runs(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(runbook.pid(host), signal.SIGKILL)


@contextlib.contextmanager
def web(*answers: tuple[int, str]) -> Iterator[str]:
    """A web application that gives one answer after the other, and the last one for ever."""
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_arguments: t.Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/health"
        finally:
            server.shutdown()
            thread.join()


def test_stops_and_starts_what_the_hosts_own_settings_say(runbook: Runbook) -> None:
    runbook.hosts = {"app1": {}, "app2": {"rollback_app_driver": "none"}}
    runbook.start("app1")
    found = runbook.run(role("stop", "preflight"), role("stop"))
    assert found["failure"] == ""
    assert found["stop"]["hosts"]["app1"]["stopped"] is True
    assert found["stop"]["to_restart"] == ["app1"]
    assert "rollback_app_driver is none" in found["stop"]["hosts"]["app2"]["message"]
    assert not runbook.runs("app1")
    found = runbook.run(role("restart"), role("restart"))
    assert found["restart"]["hosts"]["app1"]["running"] is True
    assert found["restart"]["changed"] is False
    assert runbook.runs("app1")


def test_check_mode_stops_and_starts_nothing(runbook: Runbook) -> None:
    runbook.start("app1")
    found = runbook.run(role("stop"), arguments=["--check"])
    assert (found["stop"]["changed"], found["stop"]["to_restart"]) == (True, [])
    assert found["stop"]["hosts"]["app1"]["stopped"] is False
    assert runbook.runs("app1")


def test_where_the_second_host_does_not_stop_the_first_one_runs_again_and_the_third_was_never_touched(
    runbook: Runbook,
) -> None:
    runbook.hosts = {"app1": {}, "app2": {"rollback_app_stop_command": "echo no right; exit 1"}, "app3": {}}
    runbook.start("app1", "app2", "app3")
    before = runbook.pid("app1"), runbook.pid("app2"), runbook.pid("app3")
    found = runbook.run(role("stop"), rescue=[role("restart", restart_only="{{ stop_result.to_restart }}")])
    assert re.match(r"app2: The application still runs .* exit code 1, saying: no right", found["failure"])
    assert [host["stopped"] for host in found["stop"]["hosts"].values()] == [True, False, False]
    assert [host["changed"] for host in found["restart"]["hosts"].values()] == [True, False]
    assert all(runbook.runs(host) for host in runbook.hosts)
    assert runbook.pid("app1") != before[0]
    assert (runbook.pid("app2"), runbook.pid("app3")) == before[1:]


def test_the_failure_path_starts_nothing_that_was_down_before(runbook: Runbook) -> None:
    runbook.hosts = {"app1": {}, "app2": {}}
    runbook.start("app1")
    found = runbook.run(
        role("stop"),
        {"fail": {"msg": "the backup failed"}},
        rescue=[role("restart", restart_only="{{ stop_result.to_restart }}")],
    )
    assert list(found["restart"]["hosts"]) == ["app1"]
    assert runbook.runs("app1")
    assert not runbook.runs("app2")


def test_a_host_that_does_not_start_keeps_no_other_from_starting(runbook: Runbook) -> None:
    runbook.hosts = {"app1": {"rollback_app_start_command": "echo port taken; exit 1"}, "app2": {}}
    found = runbook.run(role("restart"))
    assert "app1: The application does not run" in found["failure"]
    assert "port taken" in found["failure"]
    assert found["restart"]["hosts"]["app1"]["failed"] is True
    assert found["restart"]["hosts"]["app2"]["started"] is True
    assert runbook.runs("app2")


def test_an_unreachable_host_fails_the_stage_by_name_and_leaves_the_play_alive(runbook: Runbook) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        unreachable = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": taken.getsockname()[1]}
        runbook.hosts = {"app1": {}, "app2": {**unreachable, "rollback_previous_ref": "v1"}}
        runbook.app["rollback_smoke_tests"] = [{"name": "it", "command": "true"}]
        runbook.start("app1")
        found = runbook.run(
            role("stop"),
            rescue=[
                role("restart", restart_only="{{ stop_result.to_restart }}"),
                {"block": [role("smoke_test")], "rescue": [role("previous_code", "preflight")]},
            ],
        )
    assert found["failure"].startswith("app2: Nobody can tell whether the application runs: the host cannot be reached")
    assert found["restart"]["hosts"]["app1"]["started"] is True
    assert runbook.runs("app1")
    assert found["smoke_test"]["passed"] is False
    assert "app2" in found["smoke_test"]["message"]
    assert re.search(r"app2: the host cannot be reached.* Nothing was stopped", runbook.output)


def test_without_application_hosts_the_stages_do_nothing_and_say_so(runbook: Runbook) -> None:
    runbook.hosts = {}
    everything = [role(name, "preflight") for name in ("stop", "smoke_test", "previous_code")]
    found = runbook.run(*everything, *(role(name) for name in ("stop", "previous_code", "restart", "smoke_test")))
    assert found["failure"] == ""
    assert "nothing was stopped" in found["stop"]["message"]
    assert found["restart"]["message"] == "Nothing was to be started."
    assert found["previous_code"]["skipped"] is True
    assert found["smoke_test"]["passed"] is None


def test_missing_settings_are_refused_for_every_host_before_anything_is_stopped(runbook: Runbook) -> None:
    runbook.hosts = {
        "app1": {"rollback_app_status_command": ""},
        "app2": {"rollback_app_driver": "systemd"},
        "app3": {"rollback_app_driver": "docker_compose", "rollback_app_services": []},
        "app4": {},
        "app5": {"rollback_app_driver": "podman"},
    }
    found = runbook.run(role("stop", "preflight"))
    for part in (
        "app1: rollback_app_status_command is missing",
        "app2: rollback_app_services is empty",
        "app3: rollback_app_services is empty",
        "app5: rollback_app_driver 'podman' is none of",
        "Nothing was stopped.",
    ):
        assert part in found["failure"]
    assert "app4" not in found["failure"]


def test_a_host_of_which_nobody_can_tell_is_refused_before_the_first_one_is_stopped(runbook: Runbook) -> None:
    # As sudo says it without a terminal.
    sudo = runbook.folder / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    sudo.chmod(0o755)
    runbook.hosts = {
        "app1": {},
        "app2": {"rollback_app_status_command": ["no-such-program"]},
        "app3": {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": str(sudo)},
        "app4": {"ansible_python_interpreter": "/no/python"},
        "app5": {"rollback_app_driver": "systemd", "rollback_app_services": ["web"]},
    }
    runbook.environment = {"PATH": f"{pathlib.Path(sys.executable).parent}"}
    runbook.start("app1")
    before = runbook.pid("app1")
    found = runbook.run(role("stop", "preflight"), role("stop"))
    for host in ("app2", "app3", "app4", "app5"):
        assert f"Whether the application runs on {host} is not known: " in found["failure"], runbook.output
    assert "on app1" not in found["failure"]
    assert "no-such-program" in found["failure"]
    assert "sudo" in found["failure"], found["failure"]
    assert found["stop"] == {}
    assert runbook.pid("app1") == before


def test_extra_vars_and_the_plays_own_values_count_for_a_host_without_its_own(runbook: Runbook) -> None:
    runbook.start("app1")
    runbook.all["rollback_app_start_command"] = runbook.app.pop("rollback_app_start_command")
    found = runbook.run(role("stop", "preflight"), role("stop"), arguments=["-e", "rollback_app_driver=none"])
    assert found["stop"]["hosts"]["app1"]["driver"] == "none"
    assert runbook.runs("app1")


def test_a_url_passes_at_the_third_try_and_a_proxy_is_not_asked_for_this_host(runbook: Runbook) -> None:
    with web((503, "warming up"), (200, "no tables"), (200, '{"database": "up"}')) as url:
        runbook.environment = {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
        runbook.app["rollback_smoke_interval"] = 0.1
        runbook.app["rollback_smoke_tests"] = [
            {"name": "health", "url": url, "contains": '"database": "up"'},
            {"name": "files", "command": "test -e hosts.json"},
        ]
        found = runbook.run(role("smoke_test", "preflight"), role("smoke_test"))
    assert found["failure"] == ""
    assert found["smoke_test"]["passed"] is True
    assert [(test["name"], test["host"], test["attempts"]) for test in found["smoke_test"]["tests"]] == [
        ("health", "app1", 3),
        ("files", "app1", 1),
    ]


def test_smoke_tests_that_fail_say_which_where_and_why(runbook: Runbook) -> None:
    with web((302, "")) as url:
        runbook.hosts = {
            "app1": {},
            "app2": {"rollback_smoke_tests": [{"name": "fine", "url": url, "status": [301, 302]}]},
        }
        runbook.app["rollback_smoke_timeout"] = 0.3
        runbook.app["rollback_smoke_tests"] = [
            {"name": "health", "url": url, "status": 200},
            {"name": "nobody", "url": "http://127.0.0.1:1/"},
            {"name": "said", "command": "echo b2b.products is gone; exit 1"},
        ]
        found = runbook.run(role("smoke_test"))
    assert found["failure"].startswith("3 of 4 smoke tests failed: health on app1")
    for part in ("nobody on app1", "refused", "said on app1", "b2b.products is gone"):
        assert part in found["failure"]
    assert [test["status"] for test in found["smoke_test"]["tests"]] == ["failed", "failed", "failed", "passed"]


def test_smoke_tests_without_application_hosts_run_on_the_database_host(runbook: Runbook) -> None:
    runbook.hosts = {}
    runbook.all["rollback_smoke_tests"] = [{"name": "here", "command": "true"}]
    found = runbook.run(role("smoke_test"))
    assert [test["host"] for test in found["smoke_test"]["tests"]] == ["db1"]


def test_wrong_smoke_tests_are_refused_before_anything_is_stopped(runbook: Runbook) -> None:
    runbook.app["rollback_smoke_tests"] = [{"name": "both", "url": "http://a/", "command": "true"}, {"name": "none"}]
    found = runbook.run(role("smoke_test", "preflight"))
    assert "'both' needs exactly one of url, command and query" in found["failure"]
    assert "'none' needs exactly one" in found["failure"]
    assert "Nothing was stopped." in found["failure"]


def make_checkout(folder: pathlib.Path) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    steps = (["init", "-q", "-b", "main"], ["add", "app.py"], ["commit", "-q", "-m", "x"], ["tag", "v1"])
    folder.mkdir()
    (folder / "app.py").write_text("1\n")
    for step in (*steps, ["commit", "-q", "--allow-empty", "-m", "y"]):
        subprocess.run(["git", "-C", str(folder), *identity, *step], check=True)


def head(folder: pathlib.Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--abbrev-ref", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_previous_release_and_the_way_back(runbook: Runbook, tmp_path: pathlib.Path) -> None:
    make_checkout(tmp_path / "one")
    make_checkout(tmp_path / "two")
    runbook.app["rollback_previous_ref"] = "v1"
    runbook.hosts = {
        "app1": {"rollback_project_dir": str(tmp_path / "one"), "rollback_local_changes": "stash"},
        "app2": {"rollback_project_dir": str(tmp_path / "two")},
        "app3": {"rollback_previous_ref": ""},
    }
    found = runbook.run(role("previous_code", "preflight"), role("previous_code"))
    assert found["failure"] == ""
    assert [host["changed"] for host in found["previous_code"]["hosts"].values()] == [True, True]
    assert (head(tmp_path / "one"), head(tmp_path / "two")) == ("HEAD", "HEAD")
    subprocess.run(["git", "-C", tmp_path / "one", "checkout", "-q", "main"], check=True)
    assert "app1: the code will be v1 (" in runbook.output
    (tmp_path / "one" / "app.py").write_text("put aside\n")
    (tmp_path / "two" / "app.py").write_text("hotfix\n")
    subprocess.run(["git", "-C", tmp_path / "two", "checkout", "-q", "main"], check=True)
    found = runbook.run(role("previous_code"), rescue=[role("previous_code", "undo")])
    assert "app2: The checkout" in found["failure"]
    assert "local changes in app.py" in found["failure"]
    assert (head(tmp_path / "one"), head(tmp_path / "two")) == ("main", "main")
    assert found["previous_code"]["hosts"]["app1"]["changed"] is False
    assert (tmp_path / "one" / "app.py").read_text() == "put aside\n"


def test_a_release_that_cannot_be_checked_out_is_refused_before_anything_is_stopped(
    runbook: Runbook, tmp_path: pathlib.Path
) -> None:
    make_checkout(tmp_path / "one")
    runbook.app.update(rollback_previous_ref="v9", rollback_project_dir=str(tmp_path / "one"))
    found = runbook.run(role("previous_code", "preflight"))
    assert "app1: rollback_previous_ref 'v9' names no commit" in found["failure"]
    assert "Nothing was stopped." in found["failure"]
    assert head(tmp_path / "one") == "main"


SYSTEMCTL = """#!/bin/sh
# Units are files with their state: "systemctl <verb> 'unit'" as ansible.builtin.systemd_service calls it.
cd "$UNITS" || exit 4
echo "$*" >>calls
case $1 in
  show) test -e "$2" && echo "LoadState=loaded" || echo "LoadState=not-found"
        echo "ActiveState=$(cat "$2" 2>/dev/null || echo inactive)" ;;
  stop) case $2 in stubborn*) echo denied >&2; exit 1 ;; socket*) ;; *) echo inactive >"$2" ;; esac ;;
  start) echo active >"$2" ;;
  is-active) shift 2; for unit in "$@"; do cat "$unit" 2>/dev/null || echo inactive; done ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def units(runbook: Runbook, tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "units"
    folder.mkdir()
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    runbook.environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "UNITS": str(folder)}
    runbook.app = {"rollback_app_driver": "systemd"}
    return folder


def test_systemd_units_stop_in_order_and_start_in_reverse(runbook: Runbook, units: pathlib.Path) -> None:
    for name, state in (("web", "active"), ("worker", "active"), ("cron", "inactive")):
        (units / name).write_text(f"{state}\n")
    runbook.app["rollback_app_services"] = ["web", "worker", "cron"]
    found = runbook.run(
        role("stop", "preflight"), role("stop"), role("restart", restart_only="{{ stop_result.to_restart }}")
    )
    assert found["failure"] == ""
    assert found["stop"]["to_restart"] == ["app1/web", "app1/worker"]
    assert found["stop"]["hosts"]["app1"]["services"] == ["web", "worker"]
    assert found["restart"]["hosts"]["app1"]["started"] is True
    calls = [call for call in (units / "calls").read_text().splitlines() if not call.startswith(("show", "is-active"))]
    assert calls == ["stop web", "stop worker", "start worker", "start web"]
    assert (units / "cron").read_text() == "inactive\n"


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("stubborn", "stubborn did not stop: Unable to stop service stubborn: denied"),
        ("socket", "socket did not stop: systemd says that it is active"),
        ("misspelt", "misspelt is not proven to be down: Could not find the requested service misspelt"),
    ],
)
def test_a_systemd_unit_that_is_not_down_fails_the_stage(
    runbook: Runbook, units: pathlib.Path, unit: str, said: str
) -> None:
    (units / "web").write_text("active\n")
    if unit != "misspelt":
        (units / unit).write_text("active\n")
    runbook.app["rollback_app_services"] = ["web", unit]
    found = runbook.run(role("stop"), rescue=[role("restart", restart_only="{{ stop_result.to_restart }}")])
    assert said in found["failure"]
    assert found["stop"]["hosts"]["app1"]["stopped"] is True
    assert (units / "web").read_text() == "active\n"
