# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL servers of our own for the tests, the bench and the demo: on a free port, in a temporary folder.

    python -m tests.support.postgres_server --list
    python -m tests.support.postgres_server [--major N] [--database NAME] -- COMMAND...
    python -m tests.support.postgres_server --background FOLDER --port N [--major N] [--database NAME]
    python -m tests.support.postgres_server --stop FOLDER

The second form runs a command with ``DB_HOST``, ``DB_PORT``, ``DB_USER``, ``DB_NAME``, ``DB_PASSWORD`` and
``PG_BIN_DIR`` set to a server that lives as long as the command. The third one leaves a server running, with its password
in ``FOLDER/passfile`` and its programs in ``FOLDER/bin``, until the fourth one stops it.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import functools
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t

import psycopg2
import psycopg2.extensions
import psycopg2.sql

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent

#: Where distributions put servers. The wheels of ``make setup-postgres`` come after them.
SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
WHEEL_FOLDERS = ".venv/postgres/*/*/pginstall/bin"

SUPERUSER = "postgres"

#: PostgreSQL does not run as root: "nobody", in its own group and no other.
UNPRIVILEGED = 65534

START_TIMEOUT_SECONDS = 30
STOP_TIMEOUT_SECONDS = 60

#: A backend writes its socket's path into 107 bytes; ".s.PGSQL.65535" and a slash take 15 of them.
SOCKET_FOLDER_LIMIT = 92

STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

#: Speed for data that nobody wants to keep. ``durable=True`` leaves them out.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class ServerError(RuntimeError):
    """The server did not do what it was told; the message ends with its log."""


class Installation(t.NamedTuple):
    """A set of server and client programs of one major version."""

    major: int
    bin_dir: pathlib.Path


@functools.cache
def find_installations() -> tuple[Installation, ...]:
    """Installations with server and client programs, oldest major first; one a major, the system's before a wheel."""
    found: dict[int, Installation] = {}
    for folder in _candidate_folders():
        if all((folder / program).exists() for program in ("initdb", "postgres", "pg_dump", "pg_restore", "psql")):
            major = _major_version(folder)
            if major:
                found.setdefault(major, Installation(major, folder))
    return tuple(found[major] for major in sorted(found))


def find_installation(major: int | None = None) -> Installation:
    """The installation of ``major``; without one, 15 where it is there, otherwise the newest.

    :raises ServerError: where there is none, naming the command that gets one.
    """
    installations = {installation.major: installation for installation in find_installations()}
    if not installations:
        raise ServerError("no PostgreSQL server programs found: run make setup-postgres, or install PostgreSQL.")
    if major is None:
        return installations.get(15) or installations[max(installations)]
    if major not in installations:
        raise ServerError(
            f"no PostgreSQL {major} here, only {sorted(installations)}: run make setup-postgres, or install it."
        )
    return installations[major]


def _candidate_folders() -> Iterable[pathlib.Path]:
    root = pathlib.Path("/")
    for pattern in SYSTEM_FOLDERS:
        yield from sorted(root.glob(pattern.lstrip("/")))
    on_path = shutil.which("postgres")
    if on_path:
        yield pathlib.Path(on_path).resolve().parent
    yield from sorted(REPOSITORY.glob(WHEEL_FOLDERS))


def _major_version(bin_dir: pathlib.Path) -> int | None:
    try:
        answer = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer)
    return int(match.group(1)) if match else None


class PostgresServer:
    """One server in a temporary folder, with the superuser ``postgres`` and a random password. Use it in a ``with``.

    It is gone when this process is: after an ordinary end by ``close``, after SIGKILL by the kernel (Linux), which then
    leaves the folder behind.

    :param bin_dir: programs to run; the default is what :func:`find_installation` finds.
    :param settings: lines for ``postgresql.conf``, name to value; values are quoted here.
    :param auth: ``scram-sha-256`` or ``trust``, for every connection.
    :param durable: ``False`` switches fsync off, which tests that kill processes (not machines) may do.
    :param port: the only port that will do; 0, any that is free.
    """

    host = "127.0.0.1"
    user = SUPERUSER

    def __init__(
        self,
        bin_dir: str | os.PathLike[str] | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
        auth: str = "scram-sha-256",
        durable: bool = False,
        port: int = 0,
    ) -> None:
        self.original_bin_dir = pathlib.Path(bin_dir) if bin_dir else find_installation().bin_dir
        self.bin_dir = self.original_bin_dir
        self.settings: dict[str, str | int] = {**({} if durable else NOT_DURABLE), **(settings or {})}
        self.auth = auth
        self.password = secrets.token_urlsafe(16)
        self.port = self._wanted_port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: pathlib.Path | None = None

    def __enter__(self) -> PostgresServer:
        self.initialise()
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def folder(self) -> pathlib.Path:
        """The server's temporary folder; only the server's user (and root) may enter it."""
        if self._folder is None:
            raise ServerError("the server is not initialised")
        return self._folder

    @property
    def data_dir(self) -> pathlib.Path:
        """The server's data directory."""
        return self.folder / "data"

    @property
    def socket_dir(self) -> pathlib.Path:
        """Where the server's Unix socket is; also a value for ``login_host``."""
        return self.folder / "socket"

    @property
    def log_file(self) -> pathlib.Path:
        """What the server wrote since it was initialised."""
        return self.folder / "server.log"

    @property
    def running(self) -> bool:
        """Whether the postmaster is alive."""
        return self._process is not None and self._process.poll() is None

    def initialise(self) -> None:
        """Make the data directory, about a second."""
        self._folder = _make_folder()
        atexit.register(self.close)
        self.bin_dir = self._readable_programs()
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password + "\n", encoding="utf-8")
        self.socket_dir.mkdir(mode=0o700)
        self.log_file.touch(mode=0o600)
        self._give_away(self.folder, self.socket_dir, password_file, self.log_file)
        self._run_program(
            "initdb",
            *("--pgdata", str(self.data_dir), "--username", SUPERUSER, "--pwfile", str(password_file)),
            *("--auth", self.auth, "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        )
        password_file.unlink()

    def start(self) -> None:
        """Start the server, and return when it takes connections.

        :raises ServerError: where it stops or does not answer in time.
        """
        if self.running:
            return
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        self.port = self.port or free_port()
        while not self._start_once(deadline):
            # After a kill, the old server's processes may hold its shared memory for a moment.
            if time.monotonic() > deadline:
                raise ServerError(f"the server does not start\n{self.log_tail()}")
            time.sleep(0.1)

    def _start_once(self, deadline: float) -> bool:
        self._write_settings()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [self.bin_dir / "postgres", "-D", self.data_dir],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_clean_environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock and no memory taken
                **_server_user(),
            )
        while self.running and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.02)
        if self.running:
            self.kill()
            raise ServerError(f"the server does not answer\n{self.log_tail()}")
        if "could not bind" in self.log_tail() and not self._wanted_port:
            self.port = free_port()
        elif "shared memory block" not in self.log_tail() and "lock file" not in self.log_tail():
            raise ServerError(f"the server stopped at once\n{self.log_tail()}")
        return False

    def stop(self, mode: str = "fast") -> None:
        """Stop the server in ``smart``, ``fast`` or ``immediate`` mode, and wait for it.

        :raises ServerError: where it is still there after a minute.
        """
        if not self.running or self._process is None:
            return
        self._process.send_signal(STOP_SIGNALS[mode])
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerError(f"the server does not stop in mode {mode}\n{self.log_tail()}") from None

    def kill(self) -> None:
        """Kill the postmaster and all its processes at once, as when the machine goes down."""
        if not self.running or self._process is None:
            return
        processes = [self._process.pid, *_children(self._process.pid)]
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def restart(self, mode: str = "fast") -> None:
        """Stop and start on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder. May be called again."""
        atexit.unregister(self.close)
        if self.running:
            try:
                self.stop("immediate")
            except ServerError:
                self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def log_tail(self, lines: int = 30) -> str:
        """The end of the server's log."""
        return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def connection_arguments(self, dbname: str = "postgres") -> dict[str, t.Any]:
        """host, port, dbname, user and password, as psycopg2 and the engine's ConnectionSettings call them."""
        return {"host": self.host, "port": self.port, "dbname": dbname, "user": self.user, "password": self.password}

    def login(self, dbname: str = "postgres") -> dict[str, t.Any]:
        """The same as options of the modules."""
        arguments = self.connection_arguments(dbname)
        return {"login_db": arguments.pop("dbname"), **{f"login_{name}": value for name, value in arguments.items()}}

    def environment(self, dbname: str = "postgres") -> dict[str, str]:
        """Our environment with the variables that the document's own scripts read, and the password."""
        return {
            **_clean_environment(),
            "DB_HOST": self.host,
            "DB_PORT": str(self.port),
            "DB_NAME": dbname,
            "DB_USER": self.user,
            "DB_PASSWORD": self.password,
            "PG_BIN_DIR": str(self.bin_dir),
        }

    def connect(
        self, dbname: str = "postgres", *, autocommit: bool = False, **arguments: t.Any
    ) -> psycopg2.extensions.connection:
        """A connection as the superuser, or with other psycopg2 ``arguments``. The caller closes it."""
        connection: psycopg2.extensions.connection = psycopg2.connect(
            **{**self.connection_arguments(dbname), **arguments}
        )
        connection.autocommit = autocommit
        return connection

    def execute(self, statement: str | psycopg2.sql.Composable, dbname: str = "postgres") -> list[tuple[t.Any, ...]]:
        """Run one statement outside a transaction as the superuser; its rows, if it has any."""
        with contextlib.closing(self.connect(dbname, autocommit=True)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, owner: str | None = None, template: str | None = None) -> None:
        """Create a database, empty or as a copy of ``template``."""
        statement = psycopg2.sql.SQL("CREATE DATABASE {}").format(psycopg2.sql.Identifier(name))
        for option, value in (("OWNER", owner), ("TEMPLATE", template)):
            if value is not None:
                statement += psycopg2.sql.SQL(f" {option} {{}}").format(psycopg2.sql.Identifier(value))
        self.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database with whoever is connected to it. One that is not there is no error."""
        self.execute(psycopg2.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(psycopg2.sql.Identifier(name)))

    def _answers(self) -> bool:
        try:
            self.connect(connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        # Somebody else's server on this port would not know the password, unless it trusts everybody.
        return self.running

    def _write_settings(self) -> None:
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": str(self.socket_dir),
            "log_line_prefix": "%m [%p] %q%u@%d ",
            **self.settings,
        }
        lines = ["# Written at each start by tests/support/postgres_server.py"]
        lines += [f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]
        path = self.data_dir / "postgresql.auto.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._give_away(path)

    def _run_program(self, name: str, *arguments: str) -> None:
        command = [str(self.bin_dir / name), *arguments]
        outcome = subprocess.run(
            command, capture_output=True, text=True, cwd="/", env=_clean_environment(), check=False, **_server_user()
        )
        if outcome.returncode:
            raise ServerError(f"{name} failed with exit code {outcome.returncode}\n{outcome.stdout}{outcome.stderr}")

    def _readable_programs(self) -> pathlib.Path:
        """The programs, or a copy of the whole installation where the server's user may not read it (a 0700 home)."""
        try:
            self._run_program("postgres", "--version")
        except (PermissionError, ServerError):
            if not _is_root():
                raise
            target = self.folder / "programs"
            shutil.copytree(self.original_bin_dir.parent.parent, target, symlinks=True)
            self._give_away(target, *target.rglob("*"))
            return target / self.original_bin_dir.parent.name / self.original_bin_dir.name
        return self.bin_dir

    @staticmethod
    def _give_away(*paths: pathlib.Path) -> None:
        if _is_root():
            for path in paths:
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)


def _is_root() -> bool:
    return os.geteuid() == 0


def _server_user() -> dict[str, t.Any]:
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []} if _is_root() else {}


def _clean_environment() -> dict[str, str]:
    """Without the settings of another server that this machine may have in its environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PG") and name not in ("LANG", "LANGUAGE")
    }


def _make_folder() -> pathlib.Path:
    """A new private folder whose path is short enough for a socket."""
    parents = (None, "/tmp")  # noqa: S108 - mkdtemp makes the folder private
    for parent in parents:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="rollback-pg-", dir=parent))
        reachable = not _is_root() or all(ancestor.stat().st_mode & 0o001 for ancestor in folder.parents)
        if reachable and len(str(folder / "socket")) <= SOCKET_FOLDER_LIMIT:
            return folder
        folder.rmdir()
    raise ServerError(
        "no folder for a server: TMPDIR is too long a path, or not to be entered by other users, and so is /tmp."
    )


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((PostgresServer.host, 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    """The processes that ``pid`` started; on systems without /proc none, they then end by themselves soon."""
    try:
        return [
            int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return []


def _die_with_parent() -> None:
    """In the child, before exec: ask Linux to end the server at once when the process that started it is gone."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        _LIBC.prctl(pr_set_pdeathsig, signal.SIGQUIT)


_LIBC = ctypes.CDLL(None, use_errno=True)


def exit_on_sigterm() -> None:
    """Make SIGTERM an ordinary end of this process, so that ``with`` blocks and atexit clean up.

    A second one must not interrupt that: a group that is ended often sends it from several sides.
    """

    def end(number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def start_in_background(folder: pathlib.Path, options: argparse.Namespace) -> int:
    """Start a process that holds a server, and return when the server takes connections; 1 where it does not start."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _holder(folder):
        print(f"a server of {folder} is running already")
        return 0
    wanted = [f"--hold={folder}", f"--port={options.port}", f"--database={options.database}"]
    wanted += [f"--major={options.major}"] if options.major else []
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.postgres_server", *wanted],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while process.poll() is None and not _holder(folder):
        time.sleep(0.05)
    if process.poll() is not None:
        print(log.read_text(encoding="utf-8", errors="replace"), file=sys.stderr)
        return 1
    print(f"PostgreSQL takes connections on port {options.port}")
    return 0


def hold(server: PostgresServer, database: str, folder: pathlib.Path) -> int:
    """Keep a server until SIGTERM, with what its users need in ``folder``; ``pid`` comes last, when all is there."""
    server.create_database(database)
    passfile, programs, pid = folder / "passfile", folder / "bin", folder / "pid"
    passfile.touch(mode=0o600)
    passfile.write_text(f"*:*:*:*:{server.password}\n", encoding="utf-8")
    programs.unlink(missing_ok=True)
    programs.symlink_to(server.bin_dir, target_is_directory=True)
    try:
        pid.write_text(f"{os.getpid()}\n", encoding="ascii")
        while server.running:
            time.sleep(0.2)
    finally:
        pid.unlink(missing_ok=True)
    return 1


def stop_in_background(folder: pathlib.Path) -> int:
    """End the process that holds the server of ``folder``, and with it the server; nothing to do where there is none."""
    holder = _holder(folder)
    if not holder:
        return 0
    os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while _holds(holder, folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return int(_holds(holder, folder))


def _holder(folder: pathlib.Path) -> int:
    """Process that holds the server of ``folder``; 0 where none does."""
    try:
        pid = int((folder / "pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    return pid if _holds(pid, folder) else 0


def _holds(pid: int, folder: pathlib.Path) -> bool:
    """Whether the process is the one: its number may be another one's by now."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return f"--hold={folder}".encode() in command.split(b"\0")


def main(arguments: Sequence[str] | None = None) -> int:
    """List the installations, or run a command with a server. The exit code is the command's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list what is installed; exit code 1 where nothing is")
    parser.add_argument("--major", type=int, help="major version of the server")
    parser.add_argument("--database", default="cypher_erp", help="a database to create")
    parser.add_argument("--background", type=pathlib.Path, metavar="FOLDER", help="leave a server running")
    parser.add_argument("--port", type=int, default=0, help="the port of that server")
    parser.add_argument("--stop", type=pathlib.Path, metavar="FOLDER", help="stop it")
    parser.add_argument("--hold", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*")
    options = parser.parse_args(arguments)
    if options.list:
        for installation in find_installations():
            print(f"PostgreSQL {installation.major}  {installation.bin_dir}")
        return 0 if find_installations() else 1
    if options.background:
        return start_in_background(options.background, options)
    if options.stop:
        return stop_in_background(options.stop)
    if not options.command and not options.hold:
        parser.error("give a command after --, or --list")
    exit_on_sigterm()
    with PostgresServer(find_installation(options.major).bin_dir, port=options.port) as server:
        if options.hold:
            return hold(server, options.database, options.hold)
        server.create_database(options.database)
        return subprocess.run(options.command, env=server.environment(options.database), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
