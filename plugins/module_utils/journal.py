# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's folder on the database host: its journal, written line by line, and the files published in it."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import re
import secrets
import typing as t

from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

JOURNAL = "journal.jsonl"
REPORT = "report.json"

#: Folder of the stages' results.
RESULTS = "stages"

#: Statuses of a stage; the first one opens it, the others close it.
STATUSES = ("started", "finished", "failed", "skipped")

#: One argument of a command line holds 128 KiB on Linux, and a journal is for reading.
LONGEST_TEXT = 2000

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_FACT = re.compile(r"[a-z][a-z0-9_]{0,63}")

Stage = dict[str, t.Any]


class RunFolderRefused(Refused):
    """The run's folder cannot be used."""


def utc_now() -> str:
    """UTC time with milliseconds, as every time in journal and report: ``2026-11-22T15:21:40.123Z``."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def seconds_between(started_at: str | None, finished_at: str | None) -> float | None:
    """Seconds from one such time to another, never below 0 (clocks are set back); ``None`` where one is missing."""
    if not started_at or not finished_at:
        return None
    begin, end = (dt.datetime.fromisoformat(moment) for moment in (started_at, finished_at))
    return round(max(0.0, (end - begin).total_seconds()), 3)


def nameless_run() -> str:
    """A name for a run that ended before it had one."""
    return f"{utc_now()[:19].replace('-', '').replace(':', '')}Z-{secrets.token_hex(3)}"


def run_folder(run_dir: str, run_id: str) -> str:
    """Path of the run's folder.

    :raises RunFolderRefused: when the run's name could lead out of the folder of runs.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise RunFolderRefused(
            f"The run's name {run_id!r} cannot name a folder. Set rollback_run_id to letters, digits, dots, dashes and "
            "underscores (128 at the most), or leave it empty."
        )
    return os.path.join(run_dir, run_id)


def make_run_folder(run_dir: str, run_id: str) -> str:
    """Make the folder of runs and the run's own, 0700 whatever the umask, and answer the latter's path.

    :raises RunFolderRefused: when it cannot be made, or is a link or another user's.
    """
    folder = run_folder(run_dir, run_id)
    try:
        _make_private(run_dir)
        _make_private(folder)
        status = os.lstat(folder)
        if os.path.islink(folder) or status.st_uid != os.geteuid():
            raise PermissionError(f"{folder} is a symbolic link or belongs to another user")
        os.chmod(folder, 0o700)
    except OSError as err:
        raise RunFolderRefused(
            f"The run's folder {folder} cannot be made: {err.strerror or err}. "
            "Set rollback_run_dir to a folder on the database host in which the connecting user may write."
        ) from err
    return folder


def _make_private(folder: str) -> None:
    if os.path.isdir(folder):
        return
    _make_private(os.path.dirname(os.path.abspath(folder)))
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        # A default ACL or a set-group-ID parent may have widened it.
        os.chmod(folder, 0o700)


def journal_line(run_id: str, event: str, at: str, **fields: t.Any) -> str:
    """One event as one line of JSON in ASCII, so that no name in it can end the line or move a terminal's cursor."""
    record = {"at": at, "run_id": run_id, "event": event, **{name: _shortened(value) for name, value in fields.items()}}
    return json.dumps(record, default=str)


def _shortened(value: t.Any) -> t.Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:LONGEST_TEXT] + "…"
    return value


def append(folder: str, line: str) -> None:
    """Append one line to the run's journal and have it on the disk before this returns.

    :raises OSError: when it cannot be written.
    """
    descriptor = os.open(os.path.join(folder, JOURNAL), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, line.encode("utf-8") + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: str) -> list[dict[str, t.Any]]:
    """The journal's events, oldest first. A line torn by a crash is left out; a missing journal is empty."""
    events = []
    with (
        contextlib.suppress(FileNotFoundError),
        open(os.path.join(folder, JOURNAL), encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict)]


@contextlib.contextmanager
def at_work(folder: str) -> Iterator[None]:
    """Say that a process works for this run. The kernel takes the sign away when the process ends, however it ends.

    A controller may die while its module still runs the DOWN, and a long DOWN writes no journal: without this sign a
    second run could take the claim in the middle of it. Where the journal cannot be opened, nothing is said.
    """
    try:
        descriptor = os.open(os.path.join(folder, JOURNAL), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def run_at_work(run_dir: str | None, run_id: str) -> contextlib.AbstractContextManager[None]:
    """:func:`at_work` for a run that has a folder; a run without one has no claim to protect.

    :raises RunFolderRefused: when the run's name could lead out of the folder of runs.
    """
    folder = run_folder(run_dir, run_id) if run_dir and run_id else ""
    return at_work(folder) if os.path.isdir(folder) else contextlib.nullcontext()


def is_at_work(folder: str) -> bool:
    """Whether a process on this host works for the run of this folder."""
    try:
        descriptor = os.open(os.path.join(folder, JOURNAL), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def publish(path: str, text: str) -> None:
    """Put a whole file under its name, 0600 whatever the umask, or nothing; an existing file is never replaced.

    :raises FileExistsError: when the name is taken.
    :raises OSError: when it cannot be written.
    """
    temporary = _written_beside(path, text)
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
    _sync_folder(os.path.dirname(path))


def replace(path: str, text: str) -> None:
    """Put a whole file under its name, 0600 whatever the umask, in the place of an older one; on the disk before this returns.

    :raises OSError: when it cannot be written; an older one is then as it was.
    """
    temporary = _written_beside(path, text)
    try:
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    _sync_folder(os.path.dirname(path))


def _written_beside(path: str, text: str) -> str:
    """A new file beside a path, with all of the text on the disk; nothing where that fails."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as whole:
            os.fchmod(whole.fileno(), 0o600)
            whole.write(text)
            whole.flush()
            os.fsync(whole.fileno())
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_report(folder: str, report: Mapping[str, t.Any]) -> str:
    """Write ``report.json`` and answer its path; where one is there already, ``report-2.json`` and so on.

    :raises OSError: when it cannot be written.
    """
    text = json.dumps(report, indent=2, default=str) + "\n"
    stem, ending = os.path.splitext(REPORT)
    for name in (REPORT, *(f"{stem}-{number}{ending}" for number in range(2, 1000))):
        path = os.path.join(folder, name)
        with contextlib.suppress(FileExistsError):
            publish(path, text)
            return path
    raise FileExistsError(f"{folder} holds 999 reports already")


def result_file(folder: str, fact: str) -> str:
    """File in which a stage's result waits for a run that resumes this one.

    :raises RunFolderRefused: when the fact's name could lead out of the run's folder.
    """
    if not _FACT.fullmatch(fact):
        raise RunFolderRefused(f"{fact!r} cannot be the name of a stage's result: letters, digits and underscores.")
    return os.path.join(folder, RESULTS, f"{fact}.json")


def write_result(folder: str, fact: str, text: str) -> None:
    """Keep a stage's result in the run's folder.

    :param text: as :func:`result_text` gives it.
    :raises OSError: when it cannot be written.
    """
    path = result_file(folder, fact)
    _make_private(os.path.dirname(path))
    replace(path, text)


def result_text(stage: str, status: str, value: t.Any) -> str:
    """A stage's result as it is kept. How its module was called is left out: it may be long, and nobody asks for it."""
    kept = {name: entry for name, entry in value.items() if name != "invocation"} if hasattr(value, "items") else value
    return json.dumps({"stage": stage, "status": status, "value": kept}, default=str) + "\n"


def open_stage(stages: Sequence[Stage]) -> str | None:
    """Name of the stage that has begun and not ended."""
    return next((stage["name"] for stage in reversed(stages) if stage["status"] == "started"), None)


def advance(stages: Sequence[Stage], name: str, status: str, at: str) -> tuple[list[Stage], list[Stage]]:
    """What a stage's new status makes of the list of stages.

    A stage that begins ends the one before it. One that fails takes an open stage of another name with it, because that
    one cannot have finished.

    :param at: UTC time of the change.
    :returns: the new list, and the stages in it that changed, in the order in which they did.
    """
    noted = [dict(stage) for stage in stages]
    current = next((stage for stage in reversed(noted) if stage["status"] == "started"), None)
    changed: list[Stage] = []
    if current is not None and current["name"] != name:
        changed.append(_ended(current, "failed" if status == "failed" else "finished", at))
        current = None
    if current is not None:
        return noted, changed if status == "started" else [*changed, _ended(current, status, at)]
    last = noted[-1] if noted else None
    if status != "started" and last is not None and last["name"] == name and last["status"] != "skipped":
        last["status"] = status
        return noted, [*changed, last]
    begun: Stage = {"name": name, "status": "started", "started_at": at, "finished_at": None, "seconds": None}
    noted.append(begun if status == "started" else _ended(begun, status, at))
    return noted, [*changed, begun]


def _ended(stage: Stage, status: str, at: str) -> Stage:
    stage.update(status=status, finished_at=at, seconds=seconds_between(stage["started_at"], at))
    return stage
