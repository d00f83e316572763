# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real processes: applications that obey, that do not, and that say neither."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import stat
import sys
import textwrap
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import application
from ansible_collections.cypher.rollback.plugins.module_utils.application import (
    Application,
    Command,
    Outcome,
    run_to_end,
)
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused, RollbackError

if t.TYPE_CHECKING:
    from collections.abc import Iterator

# "kill -0" succeeds for a process that has ended and was not waited for; its command line is then empty.
STATUS = 'test -n "$(tr -d "\\0" <"/proc/$(cat pid)/cmdline")"'
STOP = 'kill "$(cat pid)"'
DAEMON = "sleep 600 >/dev/null 2>&1 & echo $! >pid"


def alive(pid: int) -> bool:
    try:
        return bool(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


class Shop:
    """An application in a folder of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        (folder / "pid").write_text("0\n")

    def application(self, status: t.Any = STATUS, timeout: float = 5.0) -> Application:
        return Application(Command("the status command", status), str(self.folder), timeout)

    def start(self, command: t.Any = DAEMON, timeout: float = 5.0, status: t.Any = STATUS) -> Outcome:
        return self.application(status, timeout).start(Command("the start command", command))

    def stop(self, command: t.Any = STOP, timeout: float = 5.0, status: t.Any = STATUS) -> Outcome:
        return self.application(status, timeout).stop(Command("the stop command", command))

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    @property
    def runs(self) -> bool:
        return self.pid > 0 and alive(self.pid)

    def script(self, text: str) -> str:
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(text))
        return str(path)


@pytest.fixture
def shop(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shop = Shop(tmp_path)
    yield shop
    if shop.runs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(shop.pid, signal.SIGKILL)


def outputs(shop: Shop) -> list[pathlib.Path]:
    return list(shop.folder.glob("cypher-rollback-*"))


def test_starts_and_stops_with_proof_and_is_idempotent(shop: Shop) -> None:
    started = shop.start()
    assert (started.was_running, started.running, started.changed) == (False, True, True)
    assert shop.runs
    again = shop.start()
    assert (again.was_running, again.running, again.changed) == (True, True, False)
    stopped = shop.stop()
    assert (stopped.was_running, stopped.running, stopped.changed) == (True, False, True)
    assert not shop.runs
    again = shop.stop()
    assert (again.was_running, again.running, again.changed) == (False, False, False)
    assert outputs(shop) == []


def test_check_mode_only_asks(shop: Shop) -> None:
    would_start = shop.application().start(Command("start", DAEMON), check_mode=True)
    assert (would_start.was_running, would_start.running, would_start.changed) == (False, True, True)
    assert not shop.runs
    shop.start()
    would_stop = shop.application().stop(Command("stop", STOP), check_mode=True)
    assert (would_stop.was_running, would_stop.running, would_stop.changed) == (True, False, True)
    assert shop.runs


def test_a_start_command_in_the_foreground_is_left_running_with_its_output_in_a_named_private_file(shop: Shop) -> None:
    started = shop.start("echo $$ >pid; echo here; exec sleep 600")
    assert started.running
    assert shop.runs
    assert os.getsid(shop.pid) != os.getsid(0)
    output = pathlib.Path(started.output_file)
    assert output.read_text() == "here\n"
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert started.output_file in started.message


def test_a_daemon_that_keeps_its_output_open_does_not_hold_us(shop: Shop) -> None:
    begun = time.monotonic()
    started = shop.start("sleep 600 & echo $! >pid")
    assert started.running
    assert time.monotonic() - begun < 4
    assert outputs(shop) == [pathlib.Path(started.output_file)]


def test_a_daemon_whose_output_goes_elsewhere_leaves_no_file(shop: Shop) -> None:
    assert shop.start().output_file == ""
    assert outputs(shop) == []


def test_a_process_that_ignores_sigterm_is_an_error_that_says_it_still_runs(shop: Shop) -> None:
    script = shop.script("""
        import os, pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path("pid.new").write_text(str(os.getpid()))
        os.rename("pid.new", "pid")
        time.sleep(600)
    """)
    shop.start([sys.executable, script])
    with pytest.raises(
        application.StillRuns, match=r"still runs after 1\.\d s .* nothing in the database was changed"
    ) as err:
        shop.stop(timeout=1.0)
    assert err.value.details == {"was_running": True, "running": True, "attempted": True}
    assert err.value.outcome == "failed_unchanged"
    assert shop.runs


def test_a_stop_command_that_ends_well_without_stopping_is_no_proof(shop: Shop) -> None:
    shop.start()
    with pytest.raises(application.StillRuns, match="ended with exit code 0 and said nothing"):
        shop.stop("true", timeout=1.0)


def test_a_stop_command_that_fails_is_reported_soon_with_its_last_lines(shop: Shop) -> None:
    shop.start()
    begun = time.monotonic()
    with pytest.raises(application.StillRuns, match="exit code 3, saying: 4 / 5 / 6 / 7 / no right to do that"):
        shop.stop("seq 7; echo; echo no right to do that >&2; exit 3", timeout=30)
    assert time.monotonic() - begun < 10


def test_a_stop_command_that_fails_although_the_application_is_down_is_noted(shop: Shop) -> None:
    shop.start()
    stopped = shop.stop(f"{STOP}; exit 3")
    assert stopped.changed
    assert "exit code 3" in stopped.message


def test_a_stop_command_that_hangs_is_ended_with_its_children(shop: Shop) -> None:
    shop.start()
    with pytest.raises(application.StillRuns, match="did not end in time"):
        shop.stop("echo $$ >hanging; sleep 600; true", timeout=1.0)
    assert not alive(int((shop.folder / "hanging").read_text()))


def test_an_application_that_needs_a_while_to_stop_is_waited_for(shop: Shop) -> None:
    shop.start()
    stopped = shop.stop(f"(sleep 1; {STOP}) >/dev/null 2>&1 &")
    assert not stopped.running
    assert not shop.runs


def test_a_start_that_never_becomes_healthy_says_what_the_commands_said(shop: Shop) -> None:
    with pytest.raises(
        application.DoesNotRun, match=r"does not run 1\.\d s after .* saying: no table b2b\.products"
    ) as err:
        shop.start("echo $$ >pid; echo no table b2b.products; exec sleep 600", timeout=1.0, status="exit 1")
    assert err.value.outcome == "needs_attention"
    assert err.value.details["attempted"] is True
    assert f"process {shop.pid}" in str(err.value)
    assert shop.runs


def test_a_start_command_that_fails_is_not_waited_for(shop: Shop) -> None:
    begun = time.monotonic()
    with pytest.raises(application.DoesNotRun, match="exit code 4, saying: port taken"):
        shop.start("echo port taken; exit 4", timeout=30)
    assert time.monotonic() - begun < 5
    assert outputs(shop) == []


def test_a_status_that_flaps_proves_neither_stop_nor_start(shop: Shop) -> None:
    flapping = "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) >count; exit $((n % 2))"
    with pytest.raises(application.StillRuns, match="changed its answer before"):
        shop.stop("true", timeout=1.0, status=flapping)
    (shop.folder / "count").write_text("1")
    with pytest.raises(application.DoesNotRun, match="changed its answer before"):
        shop.start("true", timeout=1.0, status=flapping)


def test_one_wrong_answer_does_not_make_a_running_application_stopped(shop: Shop) -> None:
    shop.start()
    once = f"test -e asked || {{ touch asked; exit 1; }}; {STATUS}"
    assert shop.stop(status=once).changed
    assert not shop.runs


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("no-such-program-here --alive", "127"),
        ("exit 255", "255"),
        ("kill -KILL $$", "exit code -9"),
        (["no-such-program-here"], "No such file"),
    ],
)
def test_a_status_command_that_cannot_answer_is_not_taken_for_a_stopped_application(
    shop: Shop, status: t.Any, why: str
) -> None:
    with pytest.raises(application.CannotTell, match=why) as err:
        shop.stop("touch ran", status=status, timeout=3.0)
    assert err.value.details == {}
    assert not (shop.folder / "ran").exists()


def test_a_status_command_that_hangs_is_ended_and_is_no_answer(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "STATUS_LIMIT", 0.5)
    with pytest.raises(application.CannotTell, match="did not end in time"):
        shop.stop("touch ran", status="sleep 600", timeout=2.0)
    assert not (shop.folder / "ran").exists()


def test_a_string_is_a_shell_line_and_a_list_is_not(shop: Shop) -> None:
    shop.start("for word in a 'b c'; do echo \"<$word>\" >>words; done && " + DAEMON)
    assert (shop.folder / "words").read_text() == "<a>\n<b c>\n"
    stopped = shop.stop([sys.executable, "-c", "import os; os.kill(int(open('pid').read()), 15)"])
    assert stopped.changed
    with pytest.raises(application.DoesNotRun, match=r"\$\(touch shell\)"):
        shop.start(["sh", "-c", 'echo "$1"; exit 1', "sh", "$(touch shell)"])
    assert not (shop.folder / "shell").exists()


def test_a_command_is_in_the_folder_by_the_name_that_it_was_given(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "current").symlink_to("release")
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path)
    for command in ("pwd", ["printenv", "PWD"]):
        for folder in (str(tmp_path / "current"), "current"):
            finished = run_to_end(Command.parse("rollback_stop_command", command), folder, 5)
            assert finished.output == str(tmp_path / "current")


def test_a_missing_program_or_folder_is_named(shop: Shop) -> None:
    with pytest.raises(application.DoesNotRun, match=r"the start command cannot be run in .*: .*no-such-program"):
        shop.start(["no-such-program-here"])
    shop.start()
    with pytest.raises(application.CannotRun, match="still runs and nothing in the database was changed") as err:
        shop.stop(["no-such-program-here"])
    assert err.value.details == {"was_running": True, "running": True}
    nowhere = Application(Command("status", STATUS), str(shop.folder / "gone"))
    with pytest.raises(application.CannotTell, match="gone"):
        nowhere.is_running()


def test_commands_do_not_get_the_database_password(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    monkeypatch.setenv("SHOP_MODE", "live")
    shop.start("env >environment; " + DAEMON)
    environment = (shop.folder / "environment").read_text()
    assert "hunter2" not in environment
    assert "SHOP_MODE=live" in environment
    assert b"hunter2" not in pathlib.Path(f"/proc/{shop.pid}/environ").read_bytes()


def test_passwords_and_control_characters_of_the_output_are_not_passed_on(shop: Shop) -> None:
    said = "printf '\\033[31mpostgresql://shop:hunter2@db/erp password=hunter2\\033[0m\\a\\n'; exit 1"
    with pytest.raises(application.DoesNotRun) as err:
        shop.start(said)
    assert "hunter2" not in str(err.value)
    assert "postgresql://shop:***@db/erp password=***" in str(err.value)
    assert str(err.value).isprintable()


def test_output_of_many_megabytes_is_cut(shop: Shop) -> None:
    with pytest.raises(application.DoesNotRun) as err:
        shop.start("head -c 20000000 /dev/zero | tr '\\0' x; exit 1")
    assert len(str(err.value)) < 6000


@pytest.mark.parametrize("value", ["", "  ", None, [], {}, 5, True, [["a"]]])
def test_what_is_no_command_is_refused_by_the_name_of_its_setting(value: object) -> None:
    with pytest.raises(Refused, match="rollback_app_status_command is missing or no command"):
        Command.parse("rollback_app_status_command", value)


def settings(**given: t.Any) -> dict[str, t.Any]:
    defaults = {
        "rollback_app_driver": "command",
        "rollback_app_services": [],
        "rollback_app_status_command": "status",
        "rollback_app_stop_command": "stop",
        "rollback_app_start_command": ["start", 1],
        "rollback_app_timeout": 60,
    }
    return {**defaults, **given}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"rollback_app_status_command": ""}, "rollback_app_status_command"),
        ({"rollback_app_stop_command": None}, "rollback_app_stop_command"),
        ({"rollback_app_start_command": []}, "rollback_app_start_command"),
        ({"rollback_app_timeout": "soon"}, "rollback_app_timeout"),
        ({"rollback_app_timeout": 0}, "rollback_app_timeout"),
        ({"rollback_app_driver": "docker"}, "rollback_app_driver"),
        ({"rollback_app_driver": "docker_compose"}, "rollback_app_services"),
        ({"rollback_app_driver": "systemd", "rollback_app_services": [""]}, "rollback_app_services"),
        ({"rollback_app_driver": "systemd", "rollback_app_services": "shop"}, "rollback_app_services"),
    ],
)
def test_what_a_driver_lacks_is_named(given: dict[str, t.Any], named: str) -> None:
    (problem,) = application.driver_problems(settings(**given))
    assert named in problem


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"rollback_app_timeout": "2.5"},
        {"rollback_app_driver": "none", "rollback_app_status_command": ""},
        {"rollback_app_driver": "systemd", "rollback_app_services": ["shop.service"]},
        {"rollback_app_driver": "docker_compose", "rollback_app_services": ["web"]},
    ],
)
def test_a_driver_that_has_what_it_needs_has_no_problem(given: dict[str, t.Any]) -> None:
    assert application.driver_problems(settings(**given)) == []


def test_every_error_says_what_state_the_run_is_in() -> None:
    for error in (application.CannotRun, application.CannotTell, application.StillRuns, application.DoesNotRun):
        assert issubclass(error, RollbackError)
        assert error.outcome in ("failed_unchanged", "needs_attention")
