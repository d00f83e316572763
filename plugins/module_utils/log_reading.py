# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the lines of a log, from a time on, whoever keeps it: a file, Docker or the journal."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import threading
import typing as t

from .application import command_environment, without_passwords
from .errors import RollbackError

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .log_lines import LineTimes

#: Bytes that are read of a file and its predecessor, from the end.
FILE_LIMIT = 64 << 20
#: Bytes of the end of a file without times that count as now.
TIMELESS_LIMIT = 1 << 20
LINE_LIMIT = 65536
QUOTED_ERROR = 300
_BLOCK = 1 << 20

#: Priorities of syslog that raise a line of the journal; 5 to 7 do not lower it, as what a service prints has 6.
_PRIORITIES = {0: "critical", 1: "critical", 2: "critical", 3: "error", 4: "warning"}

#: What journalctl says when it may not see everything.
_NOT_EVERYTHING = ("not seeing messages", "insufficient permissions", "no journal files were", "permission denied")


class CannotRead(RollbackError):
    """The log cannot be read; the message says why and what helps."""


class Line(t.NamedTuple):
    """A line of a log. ``level`` is what the log itself knows of it, see :func:`.log_lines.level_of`."""

    text: str
    at: dt.datetime | None
    level: str = ""


class Reading:
    """A log as it is read.

    ``begins`` is when the log begins if later than asked for, ``cut_at`` from when on it was read if it was too long,
    ``timeless`` whether its lines have no times, and ``problem`` what is to be said of what was read.
    """

    def __init__(self) -> None:
        self.begins: dt.datetime | None = None
        self.cut_at: dt.datetime | None = None
        self.timeless = False
        self.problem = ""


def clock(moment: dt.datetime) -> str:
    """A time for a person, in UTC."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# --- Files -----------------------------------------------------------------------------------------------------------


class FileLog:
    """A log file, and its predecessor ``path.1`` where the time asked for reaches beyond its beginning.

    :param limit: bytes of both that are read.
    """

    def __init__(self, path: str, times: LineTimes, limit: int = FILE_LIMIT) -> None:
        self.path = path
        self.times = times
        self.left = limit
        self.limit = limit

    def read(self, start: dt.datetime, reading: Reading) -> Iterator[Line]:
        """The lines from ``start`` on, oldest first.

        :raises CannotRead: when the file is not there or not readable.
        """
        if not os.path.isfile(self.path):
            why = "it is no file" if os.path.exists(self.path) else "there is no such file"
            raise CannotRead(f"{self.path} cannot be read: {why}. Correct the path in rollback_log_sources.")
        offset, first = self._find(self.path, start)
        if first is None and os.path.getsize(self.path):
            yield from self._timeless(reading)
            return
        parts = [(self.path, offset)]
        if offset == 0 and (first is None or first > start):
            earlier = self._predecessor(start)
            if earlier:
                parts.insert(0, earlier[:2])
                first = earlier[2] or first
        if first is not None and first > start:
            reading.begins = first
            if parts[0][1] > 0:
                reading.cut_at = first
        self._look_at_zone(reading)
        for path, position in parts:
            yield from self._lines(path, position)

    def _predecessor(self, start: dt.datetime) -> tuple[str, int, dt.datetime | None] | None:
        path = f"{self.path}.1"
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            return None
        return (path, *self._find(path, start))

    def _find(self, path: str, start: dt.datetime) -> tuple[int, dt.datetime | None]:
        """Where to begin: the offset of a line before ``start`` as late as a block allows, and the first time after it."""
        try:
            with open(path, "rb") as file:
                offset = file.seek(0, os.SEEK_END)
                first = None
                while offset > 0 and self.left > 0:
                    step = min(_BLOCK, offset, self.left)
                    offset -= step
                    self.left -= step
                    found = self._first_time(file, offset, step)
                    first = found or first
                    if found is not None and found <= start:
                        break
                return offset, first
        except OSError as err:
            raise CannotRead(
                f"{path} cannot be read: {err.strerror or err}. Correct the path in rollback_log_sources, "
                f"or let the user of this host read it."
            ) from err

    def _first_time(self, file: t.BinaryIO, offset: int, length: int) -> dt.datetime | None:
        file.seek(offset)
        pieces = file.read(length).split(b"\n")
        for piece in pieces if offset == 0 else pieces[1:]:
            found = self.times.find(piece[:LINE_LIMIT].decode("utf-8", "replace"))
            if found is not None:
                return found
        return None

    def _timeless(self, reading: Reading) -> Iterator[Line]:
        size = os.path.getsize(self.path)
        offset = max(0, size - TIMELESS_LIMIT)
        reading.timeless = True
        reading.problem = (
            f"No line of {self.path} has a time that is understood, so that its last {size - offset} bytes count as now "
            f"and there is nothing to compare them with. Let the application write times, such as 2026-11-22T21:00:01Z."
        )
        for line in self._lines(self.path, offset):
            yield line._replace(at=None)

    def _lines(self, path: str, offset: int) -> Iterator[Line]:
        with open(path, "rb") as file:
            file.seek(offset)
            if offset:
                file.readline()
            for text in whole_lines(file):
                yield Line(text, self.times.find(text))

    def _look_at_zone(self, reading: Reading) -> None:
        """Times without a zone that are off by half hours from the time of the last write are those of another zone."""
        with contextlib.suppress(OSError), open(self.path, "rb") as file:
            written = os.fstat(file.fileno()).st_mtime
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LINE_LIMIT))
            found = [self.times.find(text) for text in file.read().decode("utf-8", "replace").split("\n")[1:]]
            last = max((moment for moment in found if moment), default=None)
            if last is None or not self.times.zoneless:
                return
            minutes = (written - last.timestamp()) / 60
            if abs(minutes) > 28 and abs(minutes - 30 * round(minutes / 30)) <= 2:
                reading.problem = (
                    f"The last line of {self.path} seems to be of {clock(last)}, {abs(minutes):.0f} minutes "
                    f"{'before' if minutes > 0 else 'after'} the file was written, so that its times are probably of "
                    f"another zone. Name it as timezone of this source in rollback_log_sources."
                )


def whole_lines(stream: t.IO[bytes]) -> Iterator[str]:
    """The lines of a stream; of one that is longer than ``LINE_LIMIT``, the beginning."""
    goes_on = False
    while raw := stream.readline(LINE_LIMIT):
        if not goes_on:
            yield raw.decode("utf-8", "replace").rstrip("\r\n")
        goes_on = not raw.endswith(b"\n")


# --- Commands --------------------------------------------------------------------------------------------------------


class _Run:
    """A command whose lines are read as they come, for at most so many seconds."""

    def __init__(self, argv: list[str], seconds: float, with_errors: bool) -> None:
        self.argv = argv
        self.late = False
        self.said = ""
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if with_errors else subprocess.PIPE,
                env={**command_environment(), "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
            )
        except OSError as err:
            raise CannotRead(f"{argv[0]} cannot be run on this host: {err.strerror or err}.") from err
        self.timer = threading.Timer(seconds, self._end)
        self.timer.daemon = True
        self.timer.start()
        self.listener: threading.Thread | None = None
        if self.process.stderr:
            self.listener = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
            self.listener.start()

    def _listen(self, stream: t.IO[bytes]) -> None:
        for text in whole_lines(stream):
            if len(self.said) < 2000:
                self.said = f"{self.said} {text}".strip()

    def _end(self) -> None:
        self.late = True
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def lines(self) -> Iterator[str]:
        """Its output, and its end.

        :raises CannotRead: when it took too long.
        """
        output = t.cast("t.IO[bytes]", self.process.stdout)
        try:
            yield from whole_lines(output)
            self.process.wait()
        finally:
            self.timer.cancel()
            if self.process.poll() is None:
                self.kill()
            self.process.wait()
            if self.listener:
                self.listener.join(1.0)
            output.close()
        if self.late:
            raise CannotRead(f"{self.argv[0]} did not give the log to its end in time.")


def _epoch(moment: dt.datetime) -> str:
    return f"{moment.timestamp():.6f}"


def _one_line(text: str) -> str:
    return without_passwords(" ".join(text.split()))[:QUOTED_ERROR] or "it said nothing"


class DockerLog:
    """The log of a container.

    :param seconds: for each command.
    """

    def __init__(self, container: str, times: LineTimes, seconds: float) -> None:
        self.container = container
        self.times = times
        self.seconds = seconds

    def read(self, start: dt.datetime, reading: Reading) -> Iterator[Line]:
        """The lines from ``start`` on.

        :raises CannotRead: when there is no Docker, no such container, or a logging driver that cannot be read.
        """
        created = self._created()
        if created is not None and created > start:
            reading.begins = created
        run = _Run(["docker", "logs", "--since", _epoch(start), "--timestamps", self.container], self.seconds, True)
        said = []
        for text in run.lines():
            stamp, _space, rest = text.partition(" ")
            at = self.times.find(stamp) if len(stamp) >= 20 else None
            if at is None:
                # Every line of the container has its time, so this one is Docker's.
                said.append(text)
                continue
            yield Line(rest, at)
        if run.process.returncode != 0:
            raise CannotRead(
                f"docker logs {self.container} ended with exit code {run.process.returncode} ("
                f"{_one_line(' '.join(said[-5:]))})."
            )

    def _created(self) -> dt.datetime | None:
        run = _Run(["docker", "container", "inspect", "--format", "{{.Created}}", self.container], self.seconds, False)
        found = list(run.lines())
        if run.process.returncode != 0:
            raise CannotRead(
                f"The container {self.container} cannot be asked ({_one_line(run.said)}). Correct container in "
                f"rollback_log_sources, or let the user of this host use Docker."
            )
        return self.times.find(found[0]) if found else None


class JournalLog:
    """The log of a unit in the journal of systemd.

    :param seconds: for each command.
    """

    def __init__(self, unit: str, seconds: float) -> None:
        self.unit = unit
        self.seconds = seconds

    def read(self, start: dt.datetime, _reading: Reading) -> Iterator[Line]:
        """The lines from ``start`` on.

        :raises CannotRead: when there is no journal, no permission, or nothing of such a unit at all.
        """
        found = False
        for line in self._ask([f"--since=@{_epoch(start)}"]):
            found = True
            yield line
        if not found and next(iter(list(self._ask(["--lines=1"]))), None) is None:
            raise CannotRead(
                f"The journal has nothing of the unit {self.unit}. Correct unit in rollback_log_sources, or use the type "
                f"that its log really has."
            )

    def _ask(self, which: list[str]) -> Iterator[Line]:
        fields = "--output-fields=MESSAGE,PRIORITY"
        argv = ["journalctl", f"--unit={self.unit}", *which, "--output=json", fields, "--all", "--no-pager"]
        run = _Run(argv, self.seconds, False)
        for text in run.lines():
            line = _journal_line(text)
            if line is not None:
                yield line
        if run.process.returncode != 0 or any(phrase in run.said.lower() for phrase in _NOT_EVERYTHING):
            raise CannotRead(
                f"The journal of {self.unit} cannot be read ({_one_line(run.said)}). Let the user of this host read it, "
                f"such as by the group systemd-journal."
            )


def _journal_line(text: str) -> Line | None:
    try:
        entry = json.loads(text)
        at = dt.datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, dt.UTC)
    except (ValueError, KeyError, TypeError):
        return None
    message = entry.get("MESSAGE")
    if isinstance(message, list):
        # What is not UTF-8 comes as a list of bytes; several messages of one entry as a list of texts.
        numbers = all(isinstance(one, int) for one in message)
        message = bytes(message).decode("utf-8", "replace") if numbers else "\n".join(str(one) for one in message)
    priority = entry.get("PRIORITY")
    level = _PRIORITIES.get(int(priority), "") if isinstance(priority, str) and priority.isdigit() else ""
    return Line(str(message or ""), at, level)


LogReader: t.TypeAlias = "FileLog | DockerLog | JournalLog"


def reader_of(source: Mapping[str, t.Any], times: LineTimes, seconds: float) -> LogReader:
    """What reads the source, by its type."""
    makers: dict[str, Callable[[], LogReader]] = {
        "file": lambda: FileLog(str(source["path"]), times),
        "docker": lambda: DockerLog(str(source["container"]), times, seconds),
        "journald": lambda: JournalLog(str(source["unit"]), seconds),
    }
    return makers[str(source["type"])]()
