# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application that is stopped and started by its operator's own commands, with a status command as the proof."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import subprocess
import tempfile
import time
import typing as t

from .errors import FailedUnchanged, NeedsAttention, Refused

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: A question is answered only by this many equal answers in a row, so that a status that flaps proves nothing.
CONFIRMATIONS = 2

#: Seconds between two questions: the first pause, how it grows, and the longest one.
FIRST_PAUSE = 0.1
PAUSE_GROWTH = 1.5
LONGEST_PAUSE = 1.0

#: Seconds after which one status command counts as hanging.
STATUS_LIMIT = 10.0

#: Seconds that the application gets to go down after its stop command has failed.
FAILED_STOP_GRACE = 2.0

#: Seconds between SIGTERM and SIGKILL for a command that overran its time.
KILL_GRACE = 1.0

#: From this exit code on, a status command says nothing about the application: it could not be run (126, 127), was
#: killed by a signal (128 and more), or is an ssh that did not get through (255).
FIRST_MEANINGLESS_EXIT_CODE = 126

DRIVERS = ("docker_compose", "systemd", "command", "none")
WITHOUT_SERVICES = ("command", "none")
COMMAND_SETTINGS = ("rollback_app_status_command", "rollback_app_stop_command", "rollback_app_start_command")

TAIL_LINES = 5
TAIL_BYTES = 4096

#: The play's own secrets, which no command of the application needs.
SECRET_VARIABLES = ("PGPASSWORD", "DB_PASSWORD")

_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_NAMED_PASSWORD = re.compile(r"(?i)(passw(?:or)?d\s*[=:]\s*)\S+")
_CONTROL_CHARACTERS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f]")


class CannotRun(FailedUnchanged):
    """A command could not even be started."""


class CannotTell(FailedUnchanged):
    """The status command gave no answer, so nobody knows whether the application runs."""


class StillRuns(FailedUnchanged):
    """The application did not stop."""


class DoesNotRun(NeedsAttention):
    """The application did not start."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of the operator's own.

    :param setting: the setting it comes from, for messages.
    :param words: a string goes through ``/bin/sh -c``, because it is the operator's own shell line; a list is run as
        it is.
    """

    setting: str
    words: str | Sequence[str]

    @classmethod
    def parse(cls, setting: str, value: object) -> Command:
        """:raises Refused: when the value is neither a non-empty string nor a non-empty list of words."""
        if isinstance(value, str) and value.strip():
            return cls(setting, value)
        if isinstance(value, (list, tuple)) and value and all(isinstance(word, (str, int, float)) for word in value):
            return cls(setting, [str(word) for word in value])
        raise Refused(
            f"{setting} is missing or no command. Give a shell line, or a list of words that is run without a shell."
        )

    def argv(self) -> list[str]:
        """The words to execute."""
        return ["/bin/sh", "-c", self.words] if isinstance(self.words, str) else list(self.words)


def driver_problems(settings: Mapping[str, t.Any]) -> list[str]:
    """What a host's driver lacks, one sentence each; an empty list when nothing.

    :param settings: ``rollback_app_driver`` and the settings of the drivers.
    """
    driver = settings["rollback_app_driver"]
    if driver not in DRIVERS:
        return [f"rollback_app_driver {driver!r} is none of {', '.join(DRIVERS)}."]
    try:
        timely = float(settings["rollback_app_timeout"]) > 0
    except (TypeError, ValueError):
        timely = False
    problems = [] if timely else ["rollback_app_timeout must be a number of seconds above 0."]
    if driver == "command":
        return problems + [problem for name in COMMAND_SETTINGS for problem in _command_problems(name, settings[name])]
    services = settings["rollback_app_services"]
    named = isinstance(services, (list, tuple)) and services and all(services)
    if driver in WITHOUT_SERVICES or named:
        return problems
    return [
        *problems,
        f"rollback_app_services is empty, and the driver {driver} stops nothing that is not named in it.",
    ]


def _command_problems(name: str, value: object) -> list[str]:
    try:
        Command.parse(name, value)
    except Refused as err:
        return [str(err)]
    return []


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a command ended. ``exit_code`` is ``None`` when it was ended because its time was up."""

    exit_code: int | None
    output: str

    def describe(self) -> str:
        """The ending in a message, with the last lines of the output."""
        ending = "did not end in time" if self.exit_code is None else f"ended with exit code {self.exit_code}"
        return f"{ending}, saying: {self.output}" if self.output else f"{ending} and said nothing"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one status command said. ``running`` is ``None`` when it could not say; ``reason`` then tells why."""

    running: bool | None
    reason: str = ""


@dataclasses.dataclass
class Outcome:
    """What was found and done. ``output_file`` is set while a process of the application still writes to it."""

    was_running: bool
    running: bool
    changed: bool
    message: str
    output_file: str = ""


def without_passwords(text: str) -> str:
    """The text with passwords in addresses and ``password=`` pairs blanked: a failing application prints its settings."""
    return _NAMED_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))


class _Output:
    """A private file for a command's output. Not a pipe: a daemon that keeps its output open would never let us go."""

    def __init__(self) -> None:
        self.descriptor, self.path = tempfile.mkstemp(prefix="cypher-rollback-")
        # The lock belongs to the open file, which the command's processes share: it goes when the last one closes it.
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def tail(self) -> str:
        """The last lines on one line, without control characters and passwords."""
        size = os.fstat(self.descriptor).st_size
        data = os.pread(self.descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
        text = _CONTROL_CHARACTERS.sub(" ", data.decode("utf-8", "replace"))
        lines = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
        return without_passwords(" / ".join(lines[-TAIL_LINES:]))

    def release(self) -> str:
        """Remove the file, unless a process still writes to it: then keep it, so that the disk does not fill unseen.

        :returns: the path of a file that was kept, or an empty string.
        """
        os.close(self.descriptor)
        with open(self.path, "rb") as again:
            try:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return self.path
        os.unlink(self.path)
        return ""


def command_environment() -> dict[str, str]:
    """The environment of the operator's commands: ours, without the database password."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}


def in_folder(environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """The environment as a shell has it after ``cd`` into the folder; empty: as it is.

    Docker Compose names a project after the folder in ``PWD``, where that is the working folder by a symbolic link, and otherwise
    after the one that the link leads to (measured with 2.26). Without it a link would lead to another project than a person's.
    """
    return {**environment, "PWD": os.path.abspath(folder)} if folder else dict(environment)


def _spawn(command: Command, chdir: str, output: _Output) -> subprocess.Popen[bytes]:
    try:
        # Its own session: neither the end of the SSH connection nor a signal to this process reaches the application.
        return subprocess.Popen(
            command.argv(),
            cwd=chdir or None,
            env=in_folder(command_environment(), chdir),
            stdin=subprocess.DEVNULL,
            stdout=output.descriptor,
            stderr=output.descriptor,
            start_new_session=True,
        )
    except (OSError, ValueError) as err:
        raise CannotRun(f"{command.setting} cannot be run in {chdir or os.getcwd()}: {err}") from err


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_GRACE)
            return


def run_to_end(command: Command, chdir: str, limit: float) -> Finished:
    """Run a command for at most ``limit`` seconds and end it, with what it started, when its time is up.

    :raises CannotRun: when it cannot be started.
    """
    output = _Output()
    try:
        process = _spawn(command, chdir, output)
        try:
            exit_code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            _end(process)
            exit_code = None
        return Finished(exit_code, output.tail())
    finally:
        output.release()


class Application:
    """One application on one host.

    :param chdir: folder in which the commands run; empty, the current one.
    :param timeout: seconds in which the application must have stopped, or started.
    """

    def __init__(self, status: Command, chdir: str = "", timeout: float = 60.0) -> None:
        self.status = status
        self.chdir = chdir
        self.timeout = timeout

    def ask(self, limit: float = STATUS_LIMIT) -> Answer:
        """Whether it runs, by one status command of at most ``limit`` seconds."""
        try:
            finished = run_to_end(self.status, self.chdir, max(0.5, min(limit, STATUS_LIMIT, self.timeout)))
        except CannotRun as err:
            return Answer(None, str(err))
        code = finished.exit_code
        reason = f"{self.status.setting} {finished.describe()}"
        if code is None or code < 0 or code >= FIRST_MEANINGLESS_EXIT_CODE:
            return Answer(None, reason)
        return Answer(code == 0, reason)

    def is_running(self, act_on: bool | None = None) -> bool:
        """Whether it runs, by two answers in a row that agree.

        :param act_on: the answer that needs no second one, because the command that follows makes up for a wrong one.
        :raises CannotTell: when the status command gives no answer, or never the same one twice.
        """
        deadline = time.monotonic() + self.timeout
        answer = self.ask()
        while answer.running is None or answer.running is not act_on:
            previous = answer
            time.sleep(FIRST_PAUSE)
            answer = self.ask()
            if answer.running is previous.running or time.monotonic() >= deadline:
                break
        if answer.running is None or (answer.running is not act_on and answer.running is not previous.running):
            raise CannotTell(
                f"Nobody can tell whether the application runs: {answer.reason}. Nothing was done to it. "
                f"{self.status.setting} must exit 0 while the application runs and 1 while it does not."
            )
        return answer.running

    def _wait_until(self, wanted: bool, deadline: float, hopeless: Callable[[], bool]) -> Answer:
        """Ask until the wanted answer came twice in a row, the deadline passed, or there is no hope.

        :param hopeless: asked before each question, so that the answer is the younger of the two.
        """
        agreeing, flaps, pause = 0, False, FIRST_PAUSE
        while True:
            lost = hopeless()
            answer = self.ask(deadline - time.monotonic())
            if answer.running is wanted:
                agreeing += 1
                if agreeing == CONFIRMATIONS:
                    return answer
                time.sleep(FIRST_PAUSE)
                continue
            flaps = flaps or agreeing > 0
            agreeing = 0
            left = deadline - time.monotonic()
            if lost or left <= 0:
                return Answer(None, f"{answer.reason}, and changed its answer before") if flaps else answer
            time.sleep(min(pause, left))
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)

    def stop(self, command: Command, *, check_mode: bool = False) -> Outcome:
        """Stop it and prove it by the status command.

        :raises CannotTell: before anything was done.
        :raises CannotRun: before anything was done.
        :raises StillRuns: when it was not proven to be down within the timeout.
        """
        if not self.is_running(act_on=True):
            return Outcome(False, False, False, "The application was not running.")
        if check_mode:
            return Outcome(True, False, True, "The application would be stopped.")
        start = time.monotonic()
        finished = self._run_stop(command)
        deadline = start + self.timeout
        if finished.exit_code not in (0, None):
            deadline = min(deadline, time.monotonic() + FAILED_STOP_GRACE)
        answer = self._wait_until(False, deadline, lambda: False)
        seconds = time.monotonic() - start
        if answer.running is not False:
            raise StillRuns(
                self._still_runs(command, finished, answer, seconds), was_running=True, running=True, attempted=True
            )
        note = "" if finished.exit_code == 0 else f" {command.setting} {finished.describe()}."
        return Outcome(True, False, True, f"The application stopped after {seconds:.1f} s.{note}")

    def _run_stop(self, command: Command) -> Finished:
        try:
            return run_to_end(command, self.chdir, self.timeout)
        except FailedUnchanged as err:
            message = f"{err}. The application still runs and nothing in the database was changed."
            raise CannotRun(message, was_running=True, running=True) from err

    def _still_runs(self, command: Command, finished: Finished, answer: Answer, seconds: float) -> str:
        state = "still runs" if answer.running else "was not proven to be down"
        return (
            f"The application {state} after {seconds:.1f} s ({answer.reason}); nothing in the database was changed. "
            f"{command.setting} {finished.describe()}. "
            f"Stop it by hand, correct the command, or raise rollback_app_timeout ({self.timeout:g} s)."
        )

    def start(self, command: Command, *, check_mode: bool = False) -> Outcome:
        """Start it and prove it by the status command. A start command that stays in the foreground is left running.

        :raises CannotTell: before anything was done.
        :raises DoesNotRun: when it was not proven to run within the timeout.
        """
        if self.is_running(act_on=False):
            return Outcome(True, True, False, "The application was already running.")
        if check_mode:
            return Outcome(False, True, True, "The application would be started.")
        start = time.monotonic()
        output = _Output()
        try:
            process = self._spawn_start(command, output)
            answer = self._wait_until(True, start + self.timeout, lambda: process.poll() not in (None, 0))
            ending = _describe_start(command, process, output)
        finally:
            output_file = output.release()
        seconds = time.monotonic() - start
        if answer.running is not True:
            message = self._does_not_run(answer, seconds, ending, output_file)
            raise DoesNotRun(message, was_running=False, running=False, attempted=True, output_file=output_file)
        note = f" It writes to {output_file}: redirect the output in {command.setting}." if output_file else ""
        note += f" {ending}." if process.returncode else ""
        return Outcome(False, True, True, f"The application runs after {seconds:.1f} s.{note}", output_file)

    def _spawn_start(self, command: Command, output: _Output) -> subprocess.Popen[bytes]:
        try:
            return _spawn(command, self.chdir, output)
        except FailedUnchanged as err:
            raise DoesNotRun(f"{err}. The application does not run.", was_running=False, running=False) from err

    def _does_not_run(self, answer: Answer, seconds: float, ending: str, output_file: str) -> str:
        where = f" Its output is in {output_file}." if output_file else ""
        return (
            f"The application does not run {seconds:.1f} s after its start ({answer.reason}). {ending}.{where} "
            f"Start it by hand; if it only needs longer, raise rollback_app_timeout ({self.timeout:g} s)."
        )


def _describe_start(command: Command, process: subprocess.Popen[bytes], output: _Output) -> str:
    if process.poll() is None:
        return f"{command.setting} is still at work as process {process.pid}, saying: {output.tail() or 'nothing'}"
    return f"{command.setting} {Finished(process.returncode, output.tail()).describe()}"
