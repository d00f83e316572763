# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's client programs, on this host or inside the database's container, started in one way.

Whoever starts them names files and folders of this host. Inside a container they are brought there first, and what
pg_dump wrote is brought back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .application import in_folder
from .compose_words import compose_lines
from .connection import PASSFILE_PREFIX, client_environment
from .exec_session import PlaceRefused, Session
from .pg_tools import PROGRAMS, PgTools, RunningTool, ToolFailed, Tools, find_tools, fitting, parse_version

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .connection import ConnectionSettings
    from .exec_place import ExecPlace

_ASK = 'df -P -k "$1" | tail -n 1; shift; for p in "$@"; do "$p" --version || exit 1; done'
_SAME_CLUSTER = "SELECT system_identifier FROM pg_catalog.pg_control_system()"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which programs.

    :param bin_dir: the only folder to look in, on this host or inside.
    :param place: ``None``: on this host.
    """

    server_major: int
    bin_dir: str = ""
    place: ExecPlace | None = None
    require_patched: bool = False


def find_programs(
    wanted: Wanted, settings: ConnectionSettings | None = None, system_identifier: str = "", dbname: str | None = None
) -> PgTools:
    """Client programs of the server's own major version.

    :param settings: the server; with them, programs inside a container have to reach this same cluster.
    :param system_identifier: that of the cluster.
    :raises Refused: there are none that fit, or they reach another cluster.
    """
    if wanted.place is None:
        return find_tools(wanted.server_major, wanted.bin_dir, require_patched=wanted.require_patched)
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(client_environment(settings, dbname)) if settings else {}
        session = stack.enter_context(Session(wanted.place, _passfile_line(env)))
        tools = _ask(session, wanted)
        if settings:
            _refuse_other_cluster(session, env, tools, system_identifier)
    return fitting([tools], wanted.server_major, f"by {wanted.place.command!r}", require_patched=wanted.require_patched)


def _ask(session: Session, wanted: Wanted) -> PgTools:
    programs = [os.path.join(wanted.bin_dir, program) for program in PROGRAMS]
    try:
        room, *answers = session.run("sh", "-c", _ASK, "sh", session.folder, *programs).splitlines()
    except ToolFailed as err:
        raise PlaceRefused(
            f"The command {session.place.command!r} (rollback_pg_exec) has no complete set of {', '.join(PROGRAMS)}: {err} "
            "Name their folder inside the container with rollback_pg_bin_dir, or correct rollback_pg_exec."
        ) from err
    versions = {answer.partition(" ")[2] for answer in answers}
    version = parse_version(versions.pop()) if len(versions) == 1 else None
    if version is None:
        raise PlaceRefused(
            f"The client programs by {session.place.command!r} (rollback_pg_exec) are not of one version: {', '.join(answers)}. "
            "Name the folder inside the container that has those of one with rollback_pg_bin_dir."
        )
    text = answers[0].partition("(PostgreSQL) ")[2]
    return PgTools(wanted.bin_dir, version, text, place=session.place, free_bytes=int(room.split()[3]) * 1024)


def _refuse_other_cluster(session: Session, env: Mapping[str, str], tools: PgTools, system_identifier: str) -> None:
    place = session.place
    where = f"{place.host}:{place.port} inside the container (rollback_pg_exec_host, rollback_pg_exec_port)"
    try:
        found = session.run(tools.psql, "-XAtqw", "-c", _SAME_CLUSTER, env=env).strip()
    except ToolFailed as err:
        raise PlaceRefused(f"The client programs do not reach the database at {where}: {err}") from err
    if found != str(system_identifier):
        raise PlaceRefused(
            f"The client programs reach the cluster {found} at {where}, and the database is one of the cluster "
            f"{system_identifier}. Correct rollback_pg_exec, or rollback_db_host and rollback_db_port."
        )


def _passfile_line(env: Mapping[str, str]) -> str:
    """The password file's line that holds for every server; those of the operator's own files name this host's servers."""
    with contextlib.suppress(OSError, KeyError), open(env["PGPASSFILE"], encoding="utf-8") as file:
        line = file.readline().rstrip("\n")
        return line if line.startswith(PASSFILE_PREFIX) else ""
    return ""


def start_programs(tools: PgTools) -> Tools:
    """What starts these programs; whatever still runs when its block is left is ended."""
    return ExecTools(tools.place) if tools.place else Tools()


def run_program(tools: PgTools, argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Run one of these programs to its end; its standard output.

    :raises ToolFailed: with the program's own last lines.
    """
    with start_programs(tools) as started:
        return started.start(argv, env).wait()


class ExecTools(Tools):
    """Starts client programs inside a container."""

    def __init__(self, place: ExecPlace) -> None:
        super().__init__()
        self._place = place
        self._sessions: dict[str, Session] = {}

    def start(self, argv: Sequence[str], env: Mapping[str, str], keep_open: Sequence[int] = ()) -> RunningTool:
        """See :class:`Tools`; paths are those of this host.

        :raises ToolFailed: the program cannot be started, or its files cannot be brought there.
        """
        line = _passfile_line(env)
        if line not in self._sessions:
            self._sessions[line] = Session(self._place, line)
        session = self._sessions[line]
        call = _inside(session, argv)
        try:
            tool = _Executed(session, call, env, keep_open)
        except OSError as err:
            program = self._place.argv[0]
            raise ToolFailed(f"{program} cannot be started: {err.strerror}.", program=program) from err
        finally:
            if call.output is not None:
                os.close(call.output)
        self._started.append(tool)
        return tool

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        for session in self._sessions.values():
            session.__exit__(*exc)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A client program's words with paths that are valid there.

    :param output: open file of this host for its standard output, where that is a file.
    :param after: what is to be done once it ended well.
    """

    words: Sequence[str]
    output: int | None
    after: Callable[[], None]


class _Executed(RunningTool):
    """A program inside a container, by the command that runs it there."""

    def __init__(self, session: Session, call: _Call, env: Mapping[str, str], keep_open: Sequence[int]) -> None:
        super().__init__(
            session.argv(*session.environment(env), *call.words),
            in_folder(os.environ, session.place.chdir),
            keep_open,
            name=os.path.basename(call.words[0]),
            chdir=session.place.chdir,
            output=call.output,
        )
        self._session = session
        self._after = call.after

    def wait(self) -> str:
        """See :class:`RunningTool`; what it wrote is on this host then."""
        try:
            said = super().wait()
        except ToolFailed as err:
            stopped = self._session.stopped(" ".join(err.details["stderr"]), err.details["return_code"])
            raise ToolFailed(f"{err} {stopped}".rstrip(), **err.details) from None
        self._after()
        return said

    def _lines_of(self, said: str) -> Sequence[str]:
        return compose_lines(said)


def _inside(session: Session, argv: Sequence[str]) -> _Call:
    program = os.path.basename(argv[0])
    words: list[str] = [argv[0]]
    output: int | None = None
    after: Callable[[], None] = _nothing
    for word in argv[1:]:
        option, _equals, path = word.partition("=")
        if program == "pg_dump" and option == "--file":
            inside, after = _dump_folder(session, path)
            words.append(f"--file={inside}")
        elif program == "pg_dumpall" and option == "--file":
            output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        elif program == "pg_restore" and option == "--use-list":
            words.append(f"--use-list={session.stage(path)}")
        elif program == "pg_restore" and word.startswith("/"):
            words.append(session.stage(word))
        else:
            words.append(word)
    return _Call(words, output, after)


def _dump_folder(session: Session, path: str) -> tuple[str, Callable[[], None]]:
    """Where pg_dump writes, and how that comes here; a folder that cannot be made here cannot be made there either."""
    if not os.path.isdir(os.path.dirname(path)):
        return f"{session.folder}/nowhere/{os.path.basename(path)}", _nothing
    inside = session.new_path(os.path.basename(path))
    return inside, lambda: session.fetch(inside, path)


def _nothing() -> None:
    return None
