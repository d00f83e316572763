# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs gates, which are lists of commands, in lanes side by side, and says how each of them went.

The gates of one lane run one after another, in their order; lanes run at the same time. Where there are several lanes, what a
gate writes is kept in ``<logs>/<gate>.log`` while it runs, and shown whole when it ends, so that no two outputs are mixed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


#: Linux's file system in memory: tests with servers need a third less of the processor there, where a new database is cheap.
MEMORY = pathlib.Path("/dev/shm")  # noqa: S108 - what is made there is a private folder

#: What all servers, backups and copies of a run need at once is about 2 GiB.
MEMORY_BYTES = 8 * 2**30


def memory_folder() -> pathlib.Path | None:
    """Where temporary files are in memory, if there is such a place, large enough and for programs, too."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    fits = found.f_bavail * found.f_frsize >= MEMORY_BYTES and not found.f_flag & os.ST_NOEXEC
    return MEMORY if fits and os.access(MEMORY, os.W_OK) else None


@dataclasses.dataclass(frozen=True)
class Gate:
    """One check. ``commands`` run in ``folder`` until one fails; with ``skipped`` none does, and that is the reason.

    ``remark`` stands in the table also where the gate passes: what of it could not be run on this machine.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    folder: pathlib.Path
    lane: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    skipped: str = ""
    hint: str = ""
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a gate went: ``passed``, ``failed`` or ``skipped``, in how many seconds, with how many of a processor."""

    name: str
    status: str
    seconds: float
    cpu_seconds: float
    note: str


class Runner:
    """Runs gates. One at a time is shown as it goes; several are shown whole, each when it ends.

    :param logs: folder for the output of gates that run at the same time; it stays there afterwards.
    :param environment: the environment of a gate's commands.
    """

    def __init__(self, logs: pathlib.Path, environment: Callable[[Gate], dict[str, str]]) -> None:
        self._logs = logs
        self._environment = environment
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = False

    def run(self, gates: Sequence[Gate]) -> list[Result]:
        """Run the gates, each lane in a thread of its own; their results in the order of ``gates``.

        Where this is interrupted, what runs is ended and what it wrote until then is shown.
        """
        lanes: dict[str, list[Gate]] = {}
        for gate in gates:
            lanes.setdefault(gate.lane, []).append(gate)
        if len(lanes) < 2:
            return [self._run_gate(gate, None) for gate in gates]
        self._logs.mkdir(parents=True, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
            futures = [pool.submit(self._run_lane, lane) for lane in lanes.values()]
            try:
                results = {result.name: result for future in futures for result in future.result()}
            except BaseException:
                self._stop()
                raise
        return [results[gate.name] for gate in gates]

    def _run_lane(self, gates: Iterable[Gate]) -> list[Result]:
        return [self._run_gate(gate, self._logs / f"{gate.name}.log") for gate in gates if not self._stopping]

    def _run_gate(self, gate: Gate, log: pathlib.Path | None) -> Result:
        if gate.skipped:
            self._show(f"\n=== {gate.name}\nskipped: {gate.skipped}")
            return Result(gate.name, "skipped", 0.0, 0.0, gate.skipped)
        self._show(f"\n=== {gate.name}" if log is None else f"--- {gate.name} begins; its output until it ends: {log}")
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            output = None if log is None else stack.enter_context(log.open("wb"))
            failure, cpu_seconds = self._run_commands(gate, output)
        result = self._result(gate, failure, time.monotonic() - started, cpu_seconds)
        if log is not None:
            self._show_whole(gate, log, f"{result.status} in {result.seconds:.0f} s")
        if failure and gate.hint:
            self._show(gate.hint)
        return result

    def _run_commands(self, gate: Gate, output: t.IO[bytes] | None) -> tuple[str, float]:
        """Run the commands until one fails; how that was, or nothing, and the processor's seconds of all."""
        cpu_seconds = 0.0
        for command in gate.commands:
            try:
                code, seconds = self._run_command(gate, command, output)
            except OSError as err:
                return f"not started: {err}", cpu_seconds
            cpu_seconds += seconds
            if code:
                return f"exit code {code}: {shlex.join(command)[:100]}", cpu_seconds
        return "", cpu_seconds

    def _run_command(self, gate: Gate, command: Sequence[str], output: t.IO[bytes] | None) -> tuple[int, float]:
        with self._start(gate, command, output) as process:
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_utime + usage.ru_stime

    def _start(self, gate: Gate, command: Sequence[str], output: t.IO[bytes] | None) -> subprocess.Popen[bytes]:
        """Start a command; gates that run side by side cannot share a terminal, and get none, as on a build server.

        :raises OSError: there is no such program, or an interruption lets nothing more begin.
        """
        with self._lock:
            if self._stopping:
                raise InterruptedError("interrupted")
            process = self._running[gate.name] = subprocess.Popen(
                command,
                cwd=gate.folder,
                env=self._environment(gate),
                stdin=None if output is None else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return process

    @staticmethod
    def _result(gate: Gate, failure: str, seconds: float, cpu_seconds: float) -> Result:
        if failure:
            return Result(gate.name, "failed", seconds, cpu_seconds, failure)
        return Result(gate.name, "passed", seconds, cpu_seconds, gate.remark)

    def _stop(self) -> None:
        """End what runs; its lane then shows what it wrote, and begins nothing more."""
        with self._lock:
            self._stopping = True
            for process in self._running.values():
                if process.returncode is None:
                    process.terminate()

    def _show(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

    def _show_whole(self, gate: Gate, log: pathlib.Path, ending: str) -> None:
        with self._lock:
            print(f"\n=== {gate.name}", flush=True)
            sys.stdout.write(log.read_text(encoding="utf-8", errors="replace"))
            print(f"=== {gate.name}: {ending}", flush=True)


def print_table(results: Iterable[Result]) -> None:
    """One line a gate."""
    print(f"\n{'gate':<20} {'result':<8} {'seconds':>8} {'cpu':>8}  note")
    for result in results:
        times = f"{result.seconds:>8.1f} {result.cpu_seconds:>8.1f}"
        print(f"{result.name:<20} {result.status:<8} {times}  {result.note}", flush=True)
