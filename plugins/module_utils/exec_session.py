# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A working folder inside a container, of which nothing is left, whatever becomes of this process.

A killed ``docker compose exec`` leaves its program running inside (measured). So one more program waits there until its
standard input ends, which it does when this process ends in any way. It then ends the programs of its folder and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import subprocess
import tarfile
import tempfile
import time
import typing as t

from .application import in_folder
from .compose_words import compose_words
from .errors import Refused
from .pg_tools import ERROR_BYTES, ERROR_LINES, ToolFailed

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .exec_place import ExecPlace

OPEN_SECONDS = 60
CLOSE_SECONDS = 30
#: How long a container that was stopped is tried again, for the case that it is on its way up.
CLEAR_SECONDS = 5.0
#: A container that is stopped ends its server first, and then what else runs in it.
ENDING_SECONDS = 2.0
BLOCK_BYTES = 1 << 16

#: Name of the variable that every program of a session has in its environment.
MARK = "CYPHER_ROLLBACK_DIR"
GREETING = "cypher.rollback"
#: File in the folder that says who holds it.
HOLDER = "holder"

#: The container has no other language than that of its shell. What varies is an argument, never part of the text.
_CLEAR = f"""
clear_folder() {{
    for e in /proc/[0-9]*/environ; do
        p=${{e#/proc/}}
        {{ tr '\\0' '\\n' <"$e" | grep -qxF "{MARK}=$1" && kill "${{p%/environ}}"; }} 2>/dev/null
    done
    for n in 1 2 3 4 5; do
        rm -rf "$1" 2>/dev/null && return 0
        sleep 1
    done
    return 1
}}
"""
#: A container that is stopped ends its holder with everything else, and keeps its files. So the holder leaves who it is: its
#: process with its start (the 22nd word of proc(5)'s stat, of which the second may hold blanks), and the host, because a
#: folder may be shared. What belongs to one of this host that is no more is removed.
HOLD = f"""
umask 077
trap "" HUP INT TERM PIPE
{_CLEAR}
started() {{
    {{ IFS= read -r stat <"/proc/$1/stat"; }} 2>/dev/null || return 1
    set -- ${{stat##*) }}
    echo "${{20}}"
}}
IFS= read -r word && [ "$word" = {GREETING} ] || exit 9
IFS= read -r line
{{ IFS= read -r host </proc/sys/kernel/hostname; }} 2>/dev/null
for h in "$1"/cypher-rollback-*/{HOLDER}; do
    d=${{h%/*}}
    [ -O "$d" ] && [ ! -L "$d" ] && {{ read -r pid start name <"$h"; }} 2>/dev/null || continue
    [ "$name" != "$host" ] || [ "$(started "$pid")" = "$start" ] || clear_folder "$d"
done
d=$(mktemp -d "$1/cypher-rollback-XXXXXX") || exit 1
echo "$$ $(started "$$") $host" >"$d/{HOLDER}"
[ -z "$line" ] || printf '%s\\n' "$line" >"$d/passfile"
echo "$d"
cat >/dev/null
clear_folder "$d"
"""
CLEAR = f"""
{_CLEAR}
clear_folder "$1"
"""
#: Docker hands on each write for itself, so small ones are slow (measured: 4 kB 40 MB/s, 64 kB 80 MB/s).
#: The exit code of a pipe is that of its end, so the beginning leaves a mark. What was fetched is removed.
FETCH = f"""
{{ tar -c -f - -C "$1" . && : >"$1.whole"; }} | dd ibs={BLOCK_BYTES} obs={BLOCK_BYTES} 2>/dev/null
[ -e "$1.whole" ] && rm -rf "$1"
"""


class PlaceRefused(Refused):
    """Nothing can be run at the place."""


class Session(contextlib.AbstractContextManager["Session"]):
    """A private folder at a place.

    :param passfile: the line of a password file; empty: the programs have no password.
    """

    def __init__(self, place: ExecPlace, passfile: str = "") -> None:
        """:raises PlaceRefused: nothing can be run there."""
        self.place = place
        self._has_passfile = bool(passfile)
        self._number = 0
        self._staged: dict[str, str] = {}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        try:
            self._holder = self._open(passfile)
        except BaseException:
            self._stderr.close()
            raise

    def _open(self, passfile: str) -> subprocess.Popen[bytes]:
        try:
            holder = subprocess.Popen(  # pylint: disable=consider-using-with  # it ends with the session
                self.argv("sh", "-c", HOLD, "sh", self.place.folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                **self._manner(),
            )
        except OSError as err:
            raise PlaceRefused(self._refusal(f"it cannot be started: {err.strerror}")) from err
        with contextlib.suppress(BrokenPipeError):
            t.cast("t.IO[bytes]", holder.stdin).write(f"{GREETING}\n{passfile}\n".encode())
            t.cast("t.IO[bytes]", holder.stdin).flush()
        self.folder = self._answer(holder)
        return holder

    def _answer(self, holder: subprocess.Popen[bytes]) -> str:
        output = t.cast("t.IO[bytes]", holder.stdout)
        ready, _none, _no_error = select.select([output], [], [], OPEN_SECONDS)
        folder = output.readline().decode("utf-8", "replace").strip() if ready else ""
        if folder.startswith(f"{self.place.folder.rstrip('/')}/cypher-rollback-"):
            return folder
        _end(holder, 1)
        if not ready:
            raise PlaceRefused(self._refusal(f"it gave no answer within {OPEN_SECONDS} s"))
        if holder.returncode == 9:
            raise PlaceRefused(self._refusal("it does not hand on its standard input, as docker exec does with -i"))
        said = _last_words(self._stderr)
        raise PlaceRefused(self._refusal(said or f"it failed with exit code {holder.returncode}"))

    def _refusal(self, reason: str) -> str:
        return (
            f"PostgreSQL's client programs are to be run by {self.place.command!r} (rollback_pg_exec), and {reason.rstrip('.')}. "
            "Start the database's container, or correct rollback_pg_exec, rollback_pg_exec_dir and rollback_project_dir."
        )

    def argv(self, *words: str) -> list[str]:
        """A command line that runs the words there."""
        return [*self.place.argv, *words]

    def _manner(self) -> dict[str, t.Any]:
        return {
            "cwd": self.place.chdir or None,
            "env": in_folder(os.environ, self.place.chdir),
            "start_new_session": True,
        }

    def environment(self, env: Mapping[str, str]) -> list[str]:
        """Words before a program's own, so that it has the variables that mean something there, none of them secret."""
        mode = env.get("PGSSLMODE", "")
        chosen = {name: env[name] for name in _VARIABLES if name in env}
        if mode.startswith("verify-"):
            # The certificate is for the name that others use, and its authority is a file of this host.
            chosen["PGSSLMODE"] = "require"
        chosen |= {MARK: self.folder, "PGHOST": self.place.host, "PGPORT": str(self.place.port)}
        if self._has_passfile:
            chosen["PGPASSFILE"] = f"{self.folder}/passfile"
        unset = _OVERRIDING if self._has_passfile else _OVERRIDING[:-1]
        removed = (word for name in unset for word in ("-u", name))
        return ["env", *removed, *(f"{name}={value}" for name, value in chosen.items())]

    def new_path(self, name: str) -> str:
        """A path inside that nothing has yet."""
        self._number += 1
        return f"{self.folder}/{self._number}-{name}"

    def stage(self, path: str) -> str:
        """The path inside of a file or folder of this host, brought there once."""
        if path not in self._staged:
            inside = self.new_path(os.path.basename(path))
            self._send(path, os.path.basename(inside))
            self._staged[path] = inside
        return self._staged[path]

    def _send(self, path: str, name: str) -> None:
        argv = self.argv("tar", "-x", "-o", "-f", "-", "-C", self.folder)
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, **self._manner()
            ) as sending:
                stream = t.cast("t.IO[bytes]", sending.stdin)
                with contextlib.suppress(BrokenPipeError):
                    with tarfile.open(fileobj=stream, mode="w|", bufsize=BLOCK_BYTES) as archive:
                        archive.add(path, name, filter=_plain)
                    stream.close()
            if sending.returncode:
                raise self._failed(f"{path} cannot be brought into the container", errors, sending.returncode)

    def fetch(self, inside: str, path: str) -> None:
        """Bring a folder's files to this host, readable by their owner alone, and remove it there."""
        os.mkdir(path, 0o700)
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                self.argv("sh", "-c", FETCH, "sh", inside),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                **self._manner(),
            ) as fetching:
                try:
                    _unpack(t.cast("t.IO[bytes]", fetching.stdout), path)
                except (tarfile.TarError, OSError) as err:
                    _end(fetching, 1)
                    raise self._failed(
                        f"{inside} cannot be brought to this host", errors, fetching.returncode, err
                    ) from err
            if fetching.returncode:
                raise self._failed(f"{inside} cannot be brought to this host", errors, fetching.returncode)

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        """Run something short there; its standard output.

        :raises ToolFailed: with its own words.
        """
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            self.argv(*self.environment(env or {}), *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **self._manner(),
        )
        if done.returncode:
            said = compose_words(done.stderr.decode("utf-8", "replace"), ERROR_LINES) or f"exit code {done.returncode}"
            message = f"{words[0]} by {self.place.command!r} failed: {said.rstrip('.')}. {self.stopped(said, done.returncode)}"
            raise ToolFailed(message.rstrip(), program=words[0], stderr=[said])
        return done.stdout.decode("utf-8", "replace")

    def _failed(self, what: str, errors: t.IO[bytes], return_code: int, cause: Exception | None = None) -> ToolFailed:
        said = _last_words(errors)
        if getattr(cause, "errno", None) == errno.ENOSPC:
            advice = "Make room on this host."
        elif _NO_ROOM in said:
            advice = f"Make room in rollback_pg_exec_dir ({self.place.folder}) inside the container, or set that to another folder of it."
        else:
            look = f"Look at rollback_pg_exec_dir ({self.place.folder}) inside the container."
            advice = self.stopped(said, return_code) or look
        reason = "; ".join(filter(None, [str(cause or ""), said])) or f"exit code {return_code}"
        return ToolFailed(
            f"{what} by {self.place.command!r}: {reason.rstrip('.')}. {advice}", program="tar", stderr=[said]
        )

    def stopped(self, said: str, return_code: int) -> str:
        """That the container was stopped, as sentences for the message of what failed in it; empty where it was not.

        :param said: the failed program's own words.
        :param return_code: of the command that ran it there.
        """
        likely = return_code == _KILLED or _ENDING.search(said)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(ENDING_SECONDS if likely else 0)
        if self._holder.returncode is None:
            return ""
        return (
            "The container was stopped or restarted meanwhile. Have it running, and run this again. What is left in it, in "
            f"{self.folder}, is removed now or by the next run."
        )

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):
            t.cast("t.IO[bytes]", self._holder.stdin).close()
        _end(self._holder, CLOSE_SECONDS)
        self._stderr.close()
        if self._holder.returncode:
            self._clear()

    def _clear(self) -> None:
        """Remove the folder in place of a holder that could not; where the container stays down, the next session does."""
        deadline = time.monotonic() + CLEAR_SECONDS
        while True:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                argv = self.argv("sh", "-c", CLEAR, "sh", self.folder)
                nothing = subprocess.DEVNULL
                done: subprocess.CompletedProcess[bytes] = subprocess.run(
                    argv,
                    stdin=nothing,
                    stdout=nothing,
                    stderr=nothing,
                    timeout=CLOSE_SECONDS,
                    check=False,
                    **self._manner(),
                )
                if done.returncode == 0:
                    return
            if time.monotonic() >= deadline:
                return
            time.sleep(0.5)


#: Everything else, such as PGPASSFILE or PGSSLROOTCERT, names something of this host.
_VARIABLES = ("LC_ALL", "PGDATABASE", "PGUSER", "PGSSLMODE", "PGOPTIONS", "PGCONNECT_TIMEOUT", "PGAPPNAME")
#: What of the container's own environment libpq would take in place of what is given, or beside it. The password comes last: where
#: none is given, the container's own is one of the rules inside, which decide then.
_OVERRIDING = ("PGSERVICE", "PGHOSTADDR", "PGOPTIONS", "PGPASSWORD")
#: Exit code of a program that SIGKILL ended, as everything in a container that is stopped.
_KILLED = 137
_NO_ROOM = "No space left on device"
#: How programs and Docker tell that the server or the container goes away.
_ENDING = re.compile(r"(?i)connection|shutting down|not running|restarting|no such container")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o700 if entry.isdir() else 0o600
    return entry


def _unpack(stream: t.IO[bytes], path: str) -> None:
    """Only plain files are taken, under their bare names: the other end is not trusted with more."""
    with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES) as archive:
        for entry in archive:
            source = archive.extractfile(entry) if entry.isfile() else None
            if source is None:
                continue
            name = os.path.join(path, os.path.basename(entry.name))
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)


def _last_words(errors: t.IO[bytes]) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - ERROR_BYTES))
    return compose_words(errors.read().decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
