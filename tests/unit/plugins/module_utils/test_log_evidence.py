# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors and warnings in logs, from real files and from programs that print what docker and journalctl print."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import log_reading
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.log_evidence import collect_logs, log_source_problems
from ansible_collections.cypher.rollback.plugins.module_utils.log_lines import LineTimes, without_secrets

NOW = dt.datetime(2026, 11, 22, 21, 0, 0, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(seconds: float, text: str) -> str:
    """A line of so many seconds ago."""
    return f"{(NOW - dt.timedelta(seconds=seconds)).isoformat()} {text}"


def write(path: Path, *lines: str) -> Path:
    """A log whose last write was now."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    return path


def collect(path: Path, **source: t.Any) -> dict[str, t.Any]:
    """The evidence of one file, of the last 300 seconds and the 3600 before."""
    (found,) = collect_logs([{"name": "shop", "type": "file", "path": str(path), **source}], 300, 3600, now=NOW)
    return found


def counts(tmp_path: Path, *lines: str, **source: t.Any) -> tuple[int, int, int, int]:
    """Critical, errors, warnings and known of lines of a minute ago; a line that begins with ``+`` has no time."""
    texts = [line[1:] if line.startswith("+") else at(60, line) for line in lines]
    found = collect(write(tmp_path / "lines.log", *texts), **source)
    assert found["problem"] == ""
    return found["critical"], found["errors"], found["warnings"], found["known"]


CRITICAL, ERROR, WARNING, NOTHING = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("FATAL: the data directory is gone", CRITICAL),
        ("panic: runtime error: index out of range", CRITICAL),
        ("[main] CRITICAL shop.orders - cannot write", CRITICAL),
        ("kernel: Out of memory: Killed process 1234 (node)", CRITICAL),
        ("worker was killed (OOM)", CRITICAL),
        ("ERROR java.lang.OutOfMemoryError: Java heap space", CRITICAL),
        ("[emerg] 1#0: bind() failed", CRITICAL),
        ('ERROR:  relation "b2b.orders" does not exist', ERROR),
        ("[error] 123#0: *1 upstream timed out", ERROR),
        ("[proxy_http:error] [pid 1] no answer from the backend", ERROR),
        ("level=error msg=refused", ERROR),
        ("TypeError: x is not a function", ERROR),
        ("Unhandled exception in the cart", ERROR),
        ("shop.cart: 3 errors occurred", ERROR),
        ("WARN 1 --- [main] c.e.Shop : slow", WARNING),
        ("[warn] 1#0: the cache is full", WARNING),
        ("warning: no price for product 7", WARNING),
        ("INFO import finished: 0 errors, 0 warnings", NOTHING),
        ("import finished: 0 errors, 2 products", NOTHING),
        ("import finished with no errors", NOTHING),
        ("done errors=0 warnings=0 rows=12", NOTHING),
        ("done errors: 0, warnings: 0", NOTHING),
        ("answered error=none status=200", NOTHING),
        ("answered error=null", NOTHING),
        ("INFO ErrorHandler is registered for error", NOTHING),
        ("DEBUG retrying after Exception", NOTHING),
        ("opened /var/log/error.log and errors-2026.txt", NOTHING),
        ("error_count 7 in the last hour", NOTHING),
        ("the operation was non-fatal", NOTHING),
        ("STATEMENT:  SELECT 'ERROR'", NOTHING),
        ("LOG:  checkpoint complete: 0 errors", NOTHING),
    ],
)
def test_a_line_is_of_the_class_that_it_says(tmp_path: Path, line: str, expected: tuple[int, ...]) -> None:
    assert counts(tmp_path, line) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"level": "error", "msg": "x"}, ERROR),
        ({"severity": "CRITICAL", "msg": "x"}, CRITICAL),
        ({"level": 50, "msg": "pino's error"}, ERROR),
        ({"level": 60, "msg": "pino's fatal"}, CRITICAL),
        ({"level": 30, "msg": "the word error"}, NOTHING),
        ({"log": {"level": "warn"}, "msg": "x"}, WARNING),
        ({"level": "info", "msg": "FATAL is only a word here"}, NOTHING),
        ({"msg": "FATAL without a level"}, CRITICAL),
        ({"msg": "fine", "error": None, "errors": []}, NOTHING),
    ],
)
@pytest.mark.parametrize("key", ["time", "timestamp", "ts", "@timestamp"])
def test_json_lines_say_their_level(
    tmp_path: Path, key: str, record: dict[str, t.Any], expected: tuple[int, ...]
) -> None:
    moment = NOW - dt.timedelta(seconds=60)
    value: object = moment.timestamp() * 1000 if key == "ts" else moment.isoformat()
    found = collect(write(tmp_path / "json.log", json.dumps({key: value, **record})))
    assert (found["critical"], found["errors"], found["warnings"], found["known"]) == expected


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22T21:00:01Z ERROR x",
        "2026-11-22T21:00:01.123456789Z ERROR x",
        "2026-11-22 21:00:01 ERROR x",
        "2026-11-22 21:00:01,123 ERROR x",
        "2026-11-22 21:00:01.123 UTC [77] ERROR:  x",
        "2026-11-22T23:00:01+02:00 ERROR x",
        "2026-11-22 16:00:01 -0500 ERROR x",
        "[2026-11-22 21:00:01 +0000] [7] [ERROR] x",
        "ERROR 2026-11-22 21:00:01,123 x",
        "2026/11/22 21:00:01 [error] 7#7: x",
        "Nov 22 21:00:01 host shop[7]: x",
        '10.0.0.1 - - [22/Nov/2026:21:00:01 +0000] "GET / HTTP/1.1" 500 0',
        "1795381201 x",
        "1795381201.123 x",
        "1795381201123 x",
        "time=2026-11-22T21:00:01Z level=error msg=x",
        '{"ts": 1795381201.5, "level": "error"}',
    ],
)
def test_times_are_understood(line: str) -> None:
    found = LineTimes(NOW + dt.timedelta(hours=1)).find(line)
    assert found is not None
    assert found.replace(microsecond=0) == NOW + dt.timedelta(seconds=1)


@pytest.mark.parametrize("line", ["", "no time", "  2026-11-22 21:00:01 indented", "2026-13-45 21:00:01 x", "{broken"])
def test_what_is_no_time_is_none(line: str) -> None:
    assert LineTimes(NOW).find(line) is None


def test_a_time_without_a_year_is_the_last_such_one() -> None:
    january = dt.datetime(2027, 1, 1, 0, 5, tzinfo=dt.UTC)
    assert LineTimes(january).find("Dec 31 23:59:00 host x") == dt.datetime(2026, 12, 31, 23, 59, tzinfo=dt.UTC)
    assert LineTimes(january).find("Jan  1 00:04:00 host x") == dt.datetime(2027, 1, 1, 0, 4, tzinfo=dt.UTC)


def test_now_is_compared_with_before(tmp_path: Path) -> None:
    path = write(
        tmp_path / "shop.log",
        at(5000, "INFO began"),
        at(4500, "ERROR too long ago"),
        *[at(3800 - 10 * number, "ERROR before") for number in range(6)],
        at(400, "WARN before"),
        at(290, "ERROR now 1"),
        at(200, "WARN now"),
        at(10, "ERROR now 2"),
    )
    found = collect(path)
    assert {key: found[key] for key in ("window_seconds", "errors", "errors_per_minute", "warnings_per_minute")} == {
        "window_seconds": 300,
        "errors": 2,
        "errors_per_minute": 0.4,
        "warnings_per_minute": 0.2,
    }
    assert (found["baseline_window_seconds"], found["baseline_errors"], found["baseline_errors_per_minute"]) == (
        3600,
        6,
        0.1,
    )
    assert (found["baseline_warnings"], found["critical"], found["problem"]) == (1, 0, "")
    assert [line.split(" ", 1)[1] for line in found["lines"]] == ["ERROR now 1", "WARN now", "ERROR now 2"]


def test_a_log_that_begins_later_has_a_shorter_baseline(tmp_path: Path) -> None:
    found = collect(write(tmp_path / "shop.log", at(900, "INFO began"), at(600, "ERROR"), at(10, "ERROR")))
    assert (found["window_seconds"], found["baseline_window_seconds"]) == (300, 600)
    assert (found["errors_per_minute"], found["baseline_errors_per_minute"]) == (0.2, 0.1)


def test_a_log_that_begins_within_the_window_has_no_baseline(tmp_path: Path) -> None:
    found = collect(write(tmp_path / "shop.log", at(20, "ERROR")))
    assert (found["errors"], found["baseline_window_seconds"], found["baseline_errors"]) == (1, 0, None)
    assert found["baseline_errors_per_minute"] is None


def test_since_the_restart_instead_of_the_window(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.log", at(500, "INFO"), at(120, "ERROR old"), at(60, "ERROR new"))
    source = {"name": "shop", "type": "file", "path": str(path)}
    (found,) = collect_logs([source], 300, 0, now=NOW, since=NOW - dt.timedelta(seconds=90))
    assert (found["errors"], found["window_seconds"], found["baseline_errors"]) == (1, 90, None)


def test_the_rotated_predecessor_is_read_where_the_window_reaches_it(tmp_path: Path) -> None:
    write(tmp_path / "shop.log.1", at(4000, "INFO"), at(600, "ERROR before"), at(200, "ERROR now 1"))
    found = collect(write(tmp_path / "shop.log", at(100, "ERROR now 2")))
    assert (found["errors"], found["baseline_errors"], found["baseline_window_seconds"]) == (2, 1, 3600)


def test_the_predecessor_of_an_empty_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "shop.log.1", at(4000, "INFO"), at(200, "ERROR now"))
    found = collect(write(tmp_path / "shop.log"))
    assert (found["errors"], found["problem"]) == (1, "")


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reading, "_BLOCK", 4096)
    monkeypatch.setattr(log_reading.FileLog.__init__, "__defaults__", (16384,))
    lines = [at(7200 - number, "ERROR " + "x" * 60) for number in range(7200)]
    found = collect(write(tmp_path / "shop.log", *lines))
    assert found["window_seconds"] == pytest.approx(16384 / len(lines[0]), abs=3)
    assert found["errors_per_minute"] == pytest.approx(60, rel=0.05)
    assert (found["baseline_window_seconds"], found["baseline_errors"]) == (0, None)


def test_a_file_without_times_counts_as_now_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.log", "ERROR one", "fine", "ERROR two")
    found = collect(path)
    assert (found["errors"], found["baseline_errors"], found["baseline_window_seconds"]) == (2, None, 0)
    assert found["problem"] == (
        f"No line of {path} has a time that is understood, so that its last 25 bytes count as now and there is nothing to "
        "compare them with. Let the application write times, such as 2026-11-22T21:00:01Z."
    )


def test_times_of_another_zone_are_told(tmp_path: Path) -> None:
    line = (NOW - dt.timedelta(hours=2, seconds=10)).strftime("%Y-%m-%d %H:%M:%S ERROR x")
    path = write(tmp_path / "shop.log", line, line)
    assert collect(path)["problem"] == (
        f"The last line of {path} seems to be of 2026-11-22 18:59:50 UTC, 120 minutes before the file was written, so that "
        "its times are probably of another zone. Name it as timezone of this source in rollback_log_sources."
    )
    found = collect(path, timezone="Etc/GMT+2")
    assert (found["errors"], found["problem"]) == (2, "")


PYTHON_TRACE = [
    "Traceback (most recent call last):",
    '+  File "shop.py", line 1, in <module>',
    "+    raise ValueError",
    "+ValueError: no price",
]


def test_a_stack_trace_counts_once(tmp_path: Path) -> None:
    assert counts(tmp_path, *PYTHON_TRACE) == ERROR
    assert counts(tmp_path, "ERROR cannot order", "+" + PYTHON_TRACE[0], *PYTHON_TRACE[1:]) == ERROR
    assert (
        counts(
            tmp_path,
            "ERROR [main] c.e.Shop : cannot order",
            "+java.lang.IllegalStateException: no price",
            "+\tat c.e.Shop.order(Shop.java:1)",
            "+Caused by: java.io.IOException: gone",
            "+\tat c.e.Shop.read(Shop.java:2)",
            "+\t... 12 more",
        )
        == ERROR
    )


def test_what_somebody_else_printed_after_a_harmless_line_counts(tmp_path: Path) -> None:
    assert counts(tmp_path, "INFO started", "+" + PYTHON_TRACE[0], *PYTHON_TRACE[1:]) == ERROR
    assert counts(tmp_path, "INFO started", "+ERROR printed without a time") == ERROR


def test_a_stack_trace_is_quoted_with_its_last_line(tmp_path: Path) -> None:
    found = collect(write(tmp_path / "shop.log", at(60, PYTHON_TRACE[0]), *(line[1:] for line in PYTHON_TRACE[1:])))
    assert found["lines"] == [f"{at(60, PYTHON_TRACE[0])} … ValueError: no price"]


def test_own_patterns_replace_those_of_their_class(tmp_path: Path) -> None:
    own = {"error": ["^.*E! "], "warning": []}
    assert counts(tmp_path, "E! broken", "ERROR not ours", "WARN not ours", "FATAL still", **own) == (1, 1, 0, 0)


def test_known_problems_win_over_everything(tmp_path: Path) -> None:
    assert counts(tmp_path, "FATAL licence expired", "ERROR x", known=["licence"]) == (0, 1, 0, 1)


def test_the_last_offending_lines_are_kept_short_and_the_bad_ones_first(tmp_path: Path) -> None:
    lines = [at(200 - number, f"WARN {number}") for number in range(30)]
    lines += [at(100 - number, f"ERROR {number} " + "x" * 500) for number in range(15)]
    found = collect(write(tmp_path / "shop.log", *lines))
    assert (found["warnings"], found["errors"], len(found["lines"])) == (30, 15, 20)
    assert [line.split()[1] for line in found["lines"]] == ["WARN"] * 5 + ["ERROR"] * 15
    assert max(map(len, found["lines"])) == 300


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://shop:hunter2@db/erp", "hunter2"),
        ("https://hunter2@git.example.com/x", "hunter2"),
        ("password=hunter2 user=shop", "hunter2"),
        ('{"password": "hunter2 and more", "user": "shop"}', "hunter2 and more"),
        ("DB_PASSWORD: 'hunter2'", "hunter2"),
        ("api_key=hunter2&x=1", "hunter2"),
        ("access-token: hunter2", "hunter2"),
        ("Authorization: Bearer hunter2.abc", "hunter2"),
        ("client_secret = hunter2", "hunter2"),
    ],
)
def test_secrets_are_not_quoted(tmp_path: Path, text: str, hidden: str) -> None:
    assert hidden not in without_secrets(text)
    found = collect(write(tmp_path / "shop.log", at(1, f"ERROR {text}")))
    assert "***" in found["lines"][0]
    assert hidden not in found["lines"][0]


def test_control_characters_are_not_quoted(tmp_path: Path) -> None:
    found = collect(write(tmp_path / "shop.log", at(1, "\x1b[31mERROR\x1b[0m bad\x07 line")))
    assert found["lines"][0].endswith("ERROR bad line")


def test_what_cannot_be_read_is_a_problem_and_never_zero(tmp_path: Path) -> None:
    found = collect(tmp_path / "missing.log")
    assert found["problem"] == (
        f"{tmp_path}/missing.log cannot be read: there is no such file. Correct the path in rollback_log_sources."
    )
    for key in ("critical", "errors", "warnings", "known", "errors_per_minute", "baseline_errors"):
        assert found[key] is None, key
    assert "it is no file" in collect(tmp_path)["problem"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.log", at(1, "ERROR"))
    path.chmod(0)
    assert collect(path)["problem"] == (
        f"{path} cannot be read: Permission denied. Correct the path in rollback_log_sources, or let the user of this host "
        "read it."
    )


def test_a_log_that_takes_too_long_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.log", *[at(10, "ERROR x") for _number in range(600)])
    source = {"name": "shop", "type": "file", "path": str(path)}
    (found,) = collect_logs([source], 300, 3600, now=NOW, timeout=0)
    assert found["problem"] == "The log is too long to be read within 0 seconds; shorten rollback_log_window."
    assert found["errors"] is None


def test_what_is_written_wrongly_is_said_beforehand() -> None:
    sources: list[t.Any] = [
        {"name": "a", "type": "file", "path": "/x", "error": ["(unclosed"]},
        {"name": "b", "type": "docker"},
        {"name": "c", "type": "syslog"},
        {"type": "file", "path": "/x"},
        {"name": "d", "type": "docker", "container": "--details"},
        {"name": "e", "type": "file", "path": "/x", "timezone": "Europe/Atlantis"},
        "f",
    ]
    assert log_source_problems(sources) == [
        (
            "rollback_log_sources: '(unclosed' under error of a is no regular expression: missing ), unterminated subpattern at "
            "position 0. Correct it, or escape what is meant literally."
        ),
        "rollback_log_sources: b is of the type docker and needs container.",
        "rollback_log_sources: c has the type 'syslog'; use docker, journald or file.",
        "rollback_log_sources: entry 4 has no name.",
        "rollback_log_sources: container of d begins with a dash, which no container does.",
        "rollback_log_sources: e has the timezone 'Europe/Atlantis', which this host does not know.",
        "rollback_log_sources: entry 7 is no dictionary.",
    ]
    assert log_source_problems("x") == ["rollback_log_sources must be a list."]
    with pytest.raises(Refused, match="is no regular expression"):
        collect_logs(sources[:1], 300, 3600)


# --- Programs that print what the real ones print --------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[str, str], Path]:
    """Puts a shell script of a name first on the PATH; it notes its arguments in ``<name>.args``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.args\n{body}\n', encoding="utf-8")
        path.chmod(0o755)
        return tmp_path / f"{name}.args"

    return put


Program = t.Callable[[str, str], Path]


def docker(limit: float = 20, window: float = 300) -> dict[str, t.Any]:
    """The evidence of a container."""
    source = {"name": "api", "type": "docker", "container": "erp-api"}
    (found,) = collect_logs([source], window, 3600, now=NOW, timeout=limit)
    return found


def stamp(seconds: float) -> str:
    """A time as Docker writes it."""
    return (NOW - dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"


def test_the_log_of_a_container(program: Program) -> None:
    arguments = program(
        "docker",
        f"""case "$1" in
container) echo {stamp(90000)} ;;
logs) echo "{stamp(600)} ERROR before"
  echo "{stamp(60)} ERROR on stderr" >&2
  echo "{stamp(60)} Traceback (most recent call last):"
  echo "{stamp(60)}   File x"
  echo "{stamp(60)} ValueError: y"
  echo "{stamp(50)} " ;;
esac""",
    )
    found = docker()
    assert (found["errors"], found["baseline_errors"], found["baseline_window_seconds"]) == (1, 1, 3600)
    assert (found["lines"], found["problem"]) == (["ERROR on stderr"], "")
    assert arguments.read_text().splitlines() == [
        "container inspect --format {{.Created}} erp-api",
        f"logs --since {NOW.timestamp() - 3900:.6f} --timestamps erp-api",
    ]


def test_a_container_that_is_new_has_a_shorter_baseline(program: Program) -> None:
    program("docker", f'[ "$1" = container ] && echo {stamp(900)} || echo "{stamp(600)} ERROR before"')
    found = docker()
    assert (found["baseline_window_seconds"], found["baseline_errors_per_minute"]) == (pytest.approx(600, abs=1), 0.1)
    program("docker", f'[ "$1" = container ] && echo {stamp(20)} || echo "{stamp(10)} ERROR now"')
    found = docker()
    assert (found["errors"], found["baseline_errors"], found["baseline_window_seconds"]) == (1, None, 0)


def test_a_container_that_is_not_there_is_a_problem(program: Program) -> None:
    program("docker", 'echo "Error response from daemon: No such container: erp-api" >&2; exit 1')
    found = docker()
    assert found["problem"] == (
        "The container erp-api cannot be asked (Error response from daemon: No such container: erp-api). Correct container "
        "in rollback_log_sources, or let the user of this host use Docker."
    )
    assert found["errors"] is None


def test_a_logging_driver_that_cannot_be_read_is_a_problem(program: Program) -> None:
    said = "Error response from daemon: configured logging driver does not support reading"
    program("docker", f'[ "$1" = container ] && echo {stamp(900)} && exit; echo "{said}" >&2; exit 1')
    found = docker()
    assert found["problem"] == f"docker logs erp-api ended with exit code 1 ({said})."
    assert found["errors"] is None


def test_no_docker_at_all_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert docker()["problem"] == "docker cannot be run on this host: No such file or directory."


def test_a_command_that_hangs_is_ended(program: Program) -> None:
    program("docker", "sleep 60 & sleep 60")
    began = time.monotonic()
    found = docker(limit=0.3)
    assert time.monotonic() - began < 10
    assert (found["problem"], found["errors"]) == ("docker did not give the log to its end in time.", None)


def entry(seconds: float, message: object, priority: int = 6) -> str:
    """An entry as journalctl --output=json prints it."""
    micros = int((NOW - dt.timedelta(seconds=seconds)).timestamp() * 1e6)
    fields = {"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": str(micros), "__MONOTONIC_TIMESTAMP": "5", "_BOOT_ID": "b"}
    return json.dumps({**fields, "PRIORITY": str(priority), "MESSAGE": message})


def journald() -> dict[str, t.Any]:
    """The evidence of a unit."""
    (found,) = collect_logs([{"name": "api", "type": "journald", "unit": "erp.service"}], 300, 3600, now=NOW)
    return found


def test_the_journal_of_a_unit(program: Program, tmp_path: Path) -> None:
    lines = [
        entry(600, "ERROR before"),
        entry(100, "ERROR printed with priority info"),
        entry(90, "said by the priority alone", 3),
        entry(80, "systemd: Failed with result 'core-dump'.", 4),
        entry(70, "the machine is lost", 2),
        entry(60, list(b"ERROR not UTF-8: \xff")),
        entry(50, "INFO fine"),
        entry(40, None),
        "-- broken --",
    ]
    (tmp_path / "journal.json").write_text("".join(f"{line}\n" for line in lines))
    arguments = program("journalctl", f"cat {tmp_path}/journal.json")
    found = journald()
    assert (found["critical"], found["errors"], found["warnings"], found["baseline_errors"]) == (1, 3, 1, 1)
    assert found["lines"][-1] == "ERROR not UTF-8: \ufffd"
    assert arguments.read_text() == (
        f"--unit=erp.service --since=@{NOW.timestamp() - 3900:.6f} --output=json --output-fields=MESSAGE,PRIORITY --all "
        "--no-pager\n"
    )


def test_a_quiet_unit_has_no_errors_and_an_unknown_one_is_a_problem(program: Program) -> None:
    program("journalctl", f"case \"$*\" in *--lines=1*) echo '{entry(90000, 'Started.')}' ;; esac")
    assert (journald()["errors"], journald()["problem"]) == (0, "")
    program("journalctl", "true")
    found = journald()
    assert found["problem"] == (
        "The journal has nothing of the unit erp.service. Correct unit in rollback_log_sources, or use the type that its log "
        "really has."
    )
    assert found["errors"] is None


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Hint: You are currently not seeing messages from other users and the system.", 0),
        ("No journal files were opened due to insufficient permissions.", 1),
        ("No journal files were found.", 0),
    ],
)
def test_a_journal_that_is_not_shown_in_full_is_a_problem(program: Program, said: str, code: int) -> None:
    program("journalctl", f"echo '{said}' >&2; exit {code}")
    found = journald()
    assert found["problem"] == (
        f"The journal of erp.service cannot be read ({said}). Let the user of this host read it, such as by the group "
        "systemd-journal."
    )
    assert found["errors"] is None


def _docker_works() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(not _docker_works(), reason="no container engine answers")
def test_a_container_that_never_was_on_a_real_engine() -> None:
    source = {"name": "x", "type": "docker", "container": "cypher-rollback-never-was"}
    (found,) = collect_logs([source], 300, 3600)
    assert "No such container" in found["problem"]
    assert found["errors"] is None


def test_a_log_without_times_and_without_any_problem_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("started\nlistening on 8000\n")
    (clean,) = collect_logs([{"name": "shop", "type": "file", "path": str(path)}], 300, 3600)
    assert (clean["critical"], clean["errors"], clean["problem"]) == (0, 0, "")
    path.write_text("started\nERROR no table\n")
    (dirty,) = collect_logs([{"name": "shop", "type": "file", "path": str(path)}], 300, 3600)
    assert dirty["errors"] == 1
    assert "No line of" in dirty["problem"]
