# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates in lanes: side by side, no failure and no output lost, and an honest table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from tests import run_gates
from tests.support.gates import Gate, Result, Runner, print_table
from tests.support.runbook import REPOSITORY, wait_until


def gate(name: str, lane: str, *programs: str, **options: t.Any) -> Gate:
    """A gate of Python programs."""
    return Gate(name, tuple((sys.executable, "-c", program) for program in programs), REPOSITORY, lane, **options)


def run(folder: Path, *gates: Gate) -> list[Result]:
    return Runner(folder / "logs", lambda gate: {**os.environ, **gate.environment}).run(gates)


def meets(mine: Path, other: Path) -> str:
    """A program that ends well only where the other one runs at the same time."""
    return (
        f"import pathlib, time; pathlib.Path({str(mine)!r}).touch(); end = time.monotonic() + 20\n"
        f"while not pathlib.Path({str(other)!r}).exists():\n    assert time.monotonic() < end; time.sleep(0.01)"
    )


def test_lanes_run_side_by_side_and_a_lane_in_its_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a, b, order = tmp_path / "a", tmp_path / "b", tmp_path / "order"
    results = run(
        tmp_path,
        gate("left", "one", meets(a, b), f"open({str(order)!r}, 'w').write('left')"),
        gate("right", "two", meets(b, a)),
        gate("after left", "one", f"assert open({str(order)!r}).read() == 'left'"),
    )
    assert [(result.name, result.status) for result in results] == [
        ("left", "passed"),
        ("right", "passed"),
        ("after left", "passed"),
    ], capfd.readouterr().out


def test_a_failure_in_any_lane_is_kept_and_the_other_gates_still_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = run(
        tmp_path,
        gate("good", "one", "print('fine')"),
        gate("bad", "two", "print('out'); raise SystemExit(3)", "print('never')", hint="Do this."),
        gate("next", "two", "print('all the same')"),
        Gate("missing", (("no-such-program-anywhere",),), REPOSITORY, "two"),
        gate("absent", "one", skipped="there is no such thing here"),
        gate("partly", "one", "pass", remark="without the half of it"),
    )
    shown = capfd.readouterr().out
    assert [result.status for result in results] == ["passed", "failed", "passed", "failed", "skipped", "passed"]
    assert results[1].note.startswith("exit code 3: ")
    assert "no-such-program-anywhere" in results[3].note
    assert [results[4].note, results[5].note] == ["there is no such thing here", "without the half of it"]
    assert "never" not in shown
    assert "Do this." in shown
    print_table(results)
    table = capfd.readouterr().out
    assert all(f"\n{result.name}" in table and result.note in table for result in results)


@pytest.mark.parametrize("lanes", [("one", "one"), ("one", "two")])
def test_output_is_whole_gate_by_gate(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], lanes: tuple[str, str]
) -> None:
    talks = "import sys\nfor n in range(300):\n    print('{0}', n, flush=True); print('{0} err', file=sys.stderr, flush=True)"
    run(tmp_path, gate("a", lanes[0], talks.format("aaa")), gate("b", lanes[1], talks.format("bbb")))
    output, errors = capfd.readouterr()
    said = [line.split()[0] for line in output.splitlines() if line[:3] in ("aaa", "bbb")]
    assert said == sorted(said) or said == sorted(said, reverse=True)
    every = output + errors
    assert every.count("aaa") == every.count("bbb") == 600


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    binary = gate("a", "one", "import sys; sys.stdout.buffer.write(b'before \\xff\\xfe after')")
    results = run(tmp_path, binary, gate("b", "two", "pass"))
    assert [result.status for result in results] == ["passed", "passed"]
    assert "after" in capfd.readouterr().out


def test_time_on_the_processor_counts_also_what_a_gate_starts(tmp_path: Path) -> None:
    works = "import time\nwhile time.process_time() < 0.5: pass"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {works!r}], check=True)"
    (working, waiting) = run(
        tmp_path, gate("works", "one", starts, starts), gate("waits", "two", "import time; time.sleep(1)")
    )
    assert working.cpu_seconds > 1
    assert waiting.cpu_seconds < 0.9 < waiting.seconds


def test_an_interruption_ends_what_runs_and_shows_what_it_wrote(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, sys
from tests import run_gates
from tests.support.gates import Gate, Runner
from tests.support.postgres_server import exit_on_sigterm
exit_on_sigterm()
waits = "import os, pathlib, time; print('so', 'far', flush=True); pathlib.Path('%s').write_text(str(os.getpid())); time.sleep(60)"
gates = [Gate(name, ((sys.executable, "-c", waits % ("{tmp_path}/" + name)),), pathlib.Path("."), name) for name in ("a", "b")]
gates.append(Gate("later", ((sys.executable, "-c", "open('{tmp_path}/later', 'w')"),), pathlib.Path("."), "a"))
Runner(pathlib.Path("{tmp_path}/logs"), lambda gate: dict(os.environ)).run(gates)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "ab"), 20)
        pids = [int((tmp_path / name).read_text(encoding="ascii")) for name in "ab"]
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, _errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - started < 20
    assert output.count("so far") == 2
    assert not (tmp_path / "later").exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_scenario_that_skips_itself_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "molecule" / "containers"
    folder.mkdir(parents=True)
    folder.joinpath("converge.yml").write_text("- import_tasks: ../shared/tasks/needs_docker.yml\n", encoding="utf-8")
    tmp_path.joinpath("no_engine.py").write_text("print('Docker does not answer.')\n", encoding="utf-8")
    tmp_path.joinpath("engine.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(run_gates, "REPOSITORY", tmp_path)
    monkeypatch.setattr(run_gates, "NEEDS", {"needs_docker.yml": ("no_engine", "--problem")})
    assert run_gates.why_skipped("containers") == "containers skipped: Docker does not answer."
    monkeypatch.setattr(run_gates, "NEEDS", {"needs_docker.yml": ("engine", "--problem")})
    assert run_gates.why_skipped("containers") == run_gates.why_skipped("none") == ""
