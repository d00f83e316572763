# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's client programs: which ones fit the server, and how they are run and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import typing as t

from .errors import FailedUnchanged, Refused

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .exec_place import ExecPlace

PROGRAMS = ("pg_dump", "pg_restore", "psql", "pg_dumpall")

#: Where distributions and source builds put the programs, next to PATH.
INSTALL_DIRS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")

#: Debian's wrapper picks a version by the cluster that it knows, not by the server that we talk to.
_WRAPPERS = {"pg_wrapper"}

#: First minor with the fix, by major: what an older client is exposed to while it dumps or restores.
FIXED_IN: tuple[tuple[str, str, dict[int, int]], ...] = (
    (
        "CVE-2026-116314",
        "a crafted archive runs code as the user of pg_restore",
        {18: 7, 17: 12, 16: 16, 15: 20, 14: 25},
    ),
    ("CVE-2026-18408", "a plain dump can run psql meta-commands", {18: 6, 17: 11, 16: 15, 15: 19, 14: 24}),
    ("CVE-2026-6477", "a hostile server overwrites memory of pg_dump", {18: 4, 17: 10, 16: 14, 15: 18, 14: 23}),
    ("CVE-2025-8714", "a dump can run psql meta-commands", {17: 6, 16: 10, 15: 14, 14: 19, 13: 22}),
)

VERSION_SECONDS = 20
STOP_SECONDS = 5.0
ERROR_LINES = 5
#: Enough for a long line as a whole: its beginning tells whether its end may be shown.
ERROR_BYTES = 1 << 20

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")


class ToolsDoNotFit(Refused):
    """No installed set of client programs has the server's major version."""


class ToolFailed(FailedUnchanged):
    """A client program ended with an error; the message holds its own last lines."""


class Interrupted(FailedUnchanged):
    """The process was asked to end while it waited for a client program."""


@dataclasses.dataclass(frozen=True)
class PgTools:
    """One folder with client programs of one version.

    :param place: where that folder is; ``None``: on this host. An empty ``bin_dir`` is the place's own PATH.
    :param free_bytes: room for working files at the place.
    """

    bin_dir: str
    version: tuple[int, int]
    version_text: str
    warnings: tuple[str, ...] = ()
    place: ExecPlace | None = None
    free_bytes: int = 0

    @property
    def where(self) -> str:
        """Where they are, in a message."""
        return " ".join(filter(None, [self.place.command, self.bin_dir])) if self.place else self.bin_dir

    @property
    def pg_dump(self) -> str:
        """Path of pg_dump."""
        return os.path.join(self.bin_dir, "pg_dump")

    @property
    def pg_restore(self) -> str:
        """Path of pg_restore."""
        return os.path.join(self.bin_dir, "pg_restore")

    @property
    def psql(self) -> str:
        """Path of psql."""
        return os.path.join(self.bin_dir, "psql")

    @property
    def pg_dumpall(self) -> str:
        """Path of pg_dumpall."""
        return os.path.join(self.bin_dir, "pg_dumpall")


def find_tools(server_major: int, bin_dir: str = "", *, require_patched: bool = False) -> PgTools:
    """Client programs of the server's own major version, the newest minor of those installed.

    A newer pg_restore fails on an older server (measured: 17 into 15), and an older pg_dump refuses a newer server.

    :param bin_dir: the only folder to look in; empty: PATH and the usual places.
    :param require_patched: refuse programs with a known vulnerability instead of warning.
    :raises ToolsDoNotFit: naming what was found.
    """
    folders = [os.path.abspath(os.path.expanduser(bin_dir))] if bin_dir else _candidate_folders()
    found = _versions(folders)
    where = f"in {bin_dir}" if bin_dir else "in PATH and the usual places"
    return fitting(found, server_major, where, require_patched=require_patched)


def fitting(found: Sequence[PgTools], server_major: int, where: str, *, require_patched: bool = False) -> PgTools:
    """The newest programs of the server's major version among those that were found.

    :param where: where they were looked for, in the message.
    :raises ToolsDoNotFit: naming what was found.
    """
    usable = [tools for tools in found if tools.version[0] == server_major]
    if not usable:
        raise ToolsDoNotFit(_does_not_fit(server_major, where, found), found=[tools.version_text for tools in found])
    # max() keeps the first of equals, so the search order decides between two of one version.
    best = max(usable, key=lambda tools: tools.version)
    warnings = known_vulnerabilities(best.version, best.where)
    if warnings and require_patched:
        raise ToolsDoNotFit(
            f"{warnings[0]} Install a newer minor version, name one with rollback_pg_bin_dir, "
            "or unset rollback_require_patched_client.",
            vulnerabilities=list(warnings),
        )
    return dataclasses.replace(best, warnings=warnings)


def known_vulnerabilities(version: tuple[int, int], bin_dir: str) -> tuple[str, ...]:
    """One sentence for all known vulnerabilities of these programs; empty where none is known."""
    major, minor = version
    open_ones = [(name, effect, fixed[major]) for name, effect, fixed in FIXED_IN if minor < fixed.get(major, 0)]
    if not open_ones:
        return ()
    what = "; ".join(f"{name}: {effect}, fixed in {major}.{fixed}" for name, effect, fixed in open_ones)
    return (f"The PostgreSQL client programs {major}.{minor} in {bin_dir} have known vulnerabilities ({what}).",)


def _candidate_folders() -> list[str]:
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)]
    for pattern in INSTALL_DIRS:
        folders.extend(sorted(glob.glob(pattern)))
    chosen: dict[str, None] = {}
    for folder in folders:
        real = os.path.realpath(os.path.join(folder, "pg_dump"))
        if os.path.basename(real) not in _WRAPPERS and _is_complete(folder):
            chosen.setdefault(os.path.dirname(real) if _is_complete(os.path.dirname(real)) else folder)
    return list(chosen)


def _is_complete(folder: str) -> bool:
    return all(os.access(os.path.join(folder, program), os.X_OK) for program in PROGRAMS)


def _versions(folders: Sequence[str]) -> list[PgTools]:
    """All asked at the same time: each answer costs a program start."""
    asked = [(folder, _ask_version(folder)) for folder in folders if _is_complete(folder)]
    found = []
    for folder, processes in asked:
        answers = {_answer(process) for process in processes}
        text = answers.pop() if len(answers) == 1 else ""
        version = parse_version(text)
        if version:
            found.append(PgTools(folder, version, text.partition("(PostgreSQL) ")[2]))
    return found


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor in what a client program says of itself."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _ask_version(folder: str) -> list[subprocess.Popen[str]]:
    processes = []
    for program in ("pg_dump", "pg_restore"):
        with contextlib.suppress(OSError):
            argv = [os.path.join(folder, program), "--version"]
            processes.append(
                subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            )
    return processes


def _answer(process: subprocess.Popen[str]) -> str:
    try:
        answer, _none = process.communicate(timeout=VERSION_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ""
    # "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": without the program's own name the answers must agree.
    return answer.strip().partition(" ")[2]


def _does_not_fit(server_major: int, where: str, found: Sequence[PgTools]) -> str:
    if found:
        versions = ", ".join(f"{tools.version[0]}.{tools.version[1]} in {tools.where}" for tools in found)
        have = f"Found {where}: {versions}"
    else:
        have = f"Found none of {', '.join(PROGRAMS)} complete {where}"
    return (
        f"The server is PostgreSQL {server_major} and needs client programs of the same major version. {have}. "
        f"Install the client programs of PostgreSQL {server_major}, or set rollback_pg_bin_dir to their folder."
    )


class RunningTool:
    """A client program in a process group of its own, so that its workers end with it."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        keep_open: Sequence[int] = (),
        *,
        name: str = "",
        chdir: str = "",
        output: int | None = None,
    ) -> None:
        """:param output: an open file for its standard output, instead of :attr:`output`."""
        self.name = name or os.path.basename(argv[0])
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the program has ended
        self._process = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if output is None else output,
            stderr=self._stderr,
            cwd=chdir or None,
            start_new_session=True,
            pass_fds=tuple(keep_open),
            umask=0o077,
        )

    @property
    def pid(self) -> int:
        """Process id, which is the id of the group too."""
        return self._process.pid

    @property
    def output(self) -> t.IO[bytes]:
        """Its standard output, for whoever reads it to the end while the program runs, and only then waits."""
        return t.cast("t.IO[bytes]", self._process.stdout)

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def ended_within(self, seconds: float) -> bool:
        """Wait for the end of a program without output, which closing its output tells at once; whether it came."""
        if self._process.stdout:
            select.select([self._process.stdout], [], [], seconds)
        return not self.running()

    def wait(self) -> str:
        """Its standard output once it ended well.

        :raises ToolFailed: with the program's own last lines.
        """
        output, _none = self._process.communicate()
        if self._process.returncode == 0:
            self._stderr.close()
            return (output or b"").decode("utf-8", "replace")
        lines = self._last_lines()
        # A pg_dump that was killed leaves its workers behind, writing.
        self._signal_group(signal.SIGKILL)
        self._stderr.close()
        said = ": " + " ".join(lines) if lines else ""
        raise ToolFailed(
            f"{self.name} {_how_it_ended(self._process.returncode)}{said}".rstrip(".") + ".",
            program=self.name,
            return_code=self._process.returncode,
            stderr=lines,
        )

    def stop(self) -> None:
        """End the whole group, politely first; nothing happens when it ended before."""
        for sent, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            if not self.running():
                break
            self._signal_group(sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        if self._process.stdout:
            self._process.stdout.close()
        self._stderr.close()

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _last_lines(self) -> list[str]:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - ERROR_BYTES))
        return list(self._lines_of(self._stderr.read().decode("utf-8", "replace")))[-ERROR_LINES:]

    def _lines_of(self, said: str) -> Sequence[str]:
        return [line.strip() for line in said.splitlines() if line.strip()]


def _how_it_ended(return_code: int) -> str:
    if return_code < 0:
        return f"was killed by signal {signal.Signals(-return_code).name}"
    return f"failed with exit code {return_code}"


class Tools(contextlib.AbstractContextManager["Tools"]):
    """Starts client programs; whatever still runs when the block is left is ended."""

    def __init__(self) -> None:
        self._started: list[RunningTool] = []

    def start(self, argv: Sequence[str], env: Mapping[str, str], keep_open: Sequence[int] = ()) -> RunningTool:
        """Start a program and go on.

        :param keep_open: file descriptors that the program inherits, such as the one that holds a lock.
        :raises ToolFailed: where the program cannot be started at all.
        """
        try:
            tool = RunningTool(argv, env, keep_open)
        except OSError as err:
            raise ToolFailed(f"{argv[0]} cannot be started: {err.strerror}.", program=argv[0]) from err
        self._started.append(tool)
        return tool

    def __exit__(self, *_exc: object) -> None:
        for tool in self._started:
            tool.stop()


def run_tool(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a client program to its end, without a shell, and give its standard output.

    :raises ToolFailed: with the program's own last lines.
    """
    with Tools() as tools:
        return tools.start(argv, env).wait()


@contextlib.contextmanager
def interruptible(what: str) -> Iterator[None]:
    """Turn a request to end this process into :class:`Interrupted`, so that everything started is ended and removed.

    The second signal does not cut the cleaning up short. In a thread other than the main one nothing changes: Python
    gives signals to the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def interrupt(number: int, _frame: object) -> None:
        for other in signals:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(f"{what} was interrupted by signal {signal.Signals(number).name}. Nothing was changed.")

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
