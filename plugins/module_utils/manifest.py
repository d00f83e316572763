# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a backup: what is in it, of which database, and how to tell that it is still whole."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import re
import stat
import typing as t

from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME = "manifest.json"
#: Held (flock) by whoever writes the backup, and by whoever reads it.
LOCK_NAME = "lock"
FORMAT = 1
ALGORITHM = "hmac-sha256"
CHUNK_BYTES = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REQUIRED: dict[str, type] = {
    "id": str,
    "kind": str,
    "version": str,
    "database": str,
    "system_identifier": str,
    "server_version": str,
    "created_at": str,
    "files": list,
    "tables": dict,
}
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "provider": (str,),
    "snapshot": (dict,),
    "compression": (str,),
    "large_objects": (int,),
    "warnings": (list,),
    "seconds": (dict,),
    "proof": (dict,),
    "database_bytes": (int,),
    "content": (dict,),
    "properties": (dict,),
    "extensions": (dict,),
    "roles": (dict,),
    "applied": (bool, type(None)),
    "baseline": (list,),
    "clone": (dict,),
    "signature": (dict,),
}


class ManifestInvalid(Refused):
    """The manifest is missing, unreadable or not of the promised shape."""


@dataclasses.dataclass(frozen=True)
class BackupFile:
    """One file of a backup; ``path`` is relative to the backup's folder."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything that is recorded about a backup.

    :param tables: quoted identity (``format('%I.%I')``) to facts about the table: ``rows``, and ``hash`` where its content
        was hashed.
    :param snapshot: where in the server's history the backup stands: ``lsn``, ``xmin``, ``xmax``, ``taken_at``.
    :param globals_scope: ``globals``, ``roles`` or ``none``: the cluster's own objects beside the dump.
    :param seconds: how long it took, by phase.
    :param proof: of an early backup: what it takes to prove that the database still holds the same.
    :param database_bytes: size of the database, indexes included.
    :param content: where the content was hashed: ``seed``, ``sequences`` (last value, and whether it was handed out) and
        ``large_objects`` (number of pieces, and their sum).
    :param properties: of the database as a whole, as ``database_properties.Properties.to_dict`` gives them.
    :param extensions: name to ``version`` and ``schema``.
    :param roles: every role that something in the database refers to: name to its attributes, ``memberships``, ``config``.
    :param applied: whether ``version`` was applied when the backup was taken; ``None``: not known.
    :param baseline: seconds of the critical queries: ``name``, ``query``, ``seconds``, ``median``, ``error``.
    :param clone: of a clone: its ``database`` and ``oid``.
    :param signature: ``algorithm`` and ``value``; empty: not signed.
    """

    id: str
    kind: str
    version: str
    database: str
    system_identifier: str
    server_version: str
    created_at: str
    files: tuple[BackupFile, ...]
    tables: Mapping[str, Mapping[str, t.Any]]
    provider: str = "dump"
    snapshot: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    tools: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    jobs: int = 1
    compression: str = "none"
    globals_scope: str = "none"
    large_objects: int = 0
    run_id: str = ""
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    proof: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    database_bytes: int = 0
    content: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    properties: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    extensions: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    roles: Mapping[str, Mapping[str, t.Any]] = dataclasses.field(default_factory=dict)
    applied: bool | None = None
    baseline: tuple[Mapping[str, t.Any], ...] = ()
    clone: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    signature: Mapping[str, str] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(entry.bytes for entry in self.files)

    @property
    def rows(self) -> dict[str, int]:
        """Rows by table."""
        return {name: int(facts["rows"]) for name, facts in self.tables.items()}


def write(folder: str, manifest: Manifest, key: str = "") -> str:
    """Write the manifest into the folder, private and synced, and give its path.

    :param key: signs it; empty: it is not signed, whatever ``manifest.signature`` holds.
    :raises OSError: no space, no permission, or there is one already.
    """
    path = os.path.join(folder, NAME)
    content = {**dataclasses.asdict(manifest), "signature": {}}
    if key:
        # What is signed is what a reader will parse: tuples are lists there.
        content["signature"] = {"algorithm": ALGORITHM, "value": _signature(json.loads(json.dumps(content)), key)}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        # surrogateescape cannot occur in UTF-8 from the server; a lone surrogate must not cost the backup all the same.
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    return path


def _signature(content: Mapping[str, t.Any], key: str) -> str:
    """HMAC over the canonical JSON of everything but the signature, facts of a later release included."""
    signed = {name: value for name, value in content.items() if name != "signature"}
    canonical = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key.encode("utf-8", "surrogateescape"), canonical.encode("ascii"), hashlib.sha256).hexdigest()


def load(folder: str, key: str = "") -> Manifest:
    """The manifest of a backup, its shape checked; whether the files are whole is :func:`verify`'s matter.

    :param key: refuses a manifest that is not signed with it; empty: signatures are not looked at.
    :raises ManifestInvalid: with what is wrong.
    """
    path = os.path.join(folder, NAME)
    content = _read(path)
    problem = "" if isinstance(content, dict) else "it is not an object"
    if problem or (problem := _shape_problem(content)):
        raise ManifestInvalid(f"{path} is not a manifest of this collection: {problem}. {_NOT_A_BACKUP}")
    if key:
        _check_signature(path, content, key)
    return _from_json(content)


def _read(path: str) -> t.Any:
    try:
        # Without O_NONBLOCK a named pipe would keep us waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return json.loads(file.read().decode("utf-8"))
    except OSError as err:
        raise ManifestInvalid(f"{path} cannot be read: {err.strerror}. {_NOT_A_BACKUP}") from err
    except (ValueError, RecursionError) as err:
        raise ManifestInvalid(f"{path} is not a manifest: {err}. {_NOT_A_BACKUP}") from err


def _check_signature(path: str, content: Mapping[str, t.Any], key: str) -> None:
    signature = content.get("signature", {})
    value = signature.get("value")
    if not signature:
        problem = "is not signed"
    elif signature.get("algorithm") != ALGORITHM or not isinstance(value, str):
        problem = f"is not signed in a way that this release knows ({ALGORITHM})"
    elif not hmac.compare_digest(value.encode("utf-8", "replace"), _signature(content, key).encode("ascii")):
        problem = "has a wrong signature: it was changed after the backup was taken, or signed with another key"
    else:
        return
    raise ManifestInvalid(f"{path} {problem}, and rollback_backup_key is set. {_NOT_A_BACKUP}")


_NOT_A_BACKUP = "This folder does not count as a backup; name another one with the extra variable backup."


def _from_json(content: Mapping[str, t.Any]) -> Manifest:
    known = {field.name for field in dataclasses.fields(Manifest)}
    values = {name: value for name, value in content.items() if name in known}
    values["files"] = tuple(
        BackupFile(**{key: entry[key] for key in ("path", "bytes", "sha256")}) for entry in content["files"]
    )
    values["warnings"] = tuple(content.get("warnings", ()))
    values["baseline"] = tuple(content.get("baseline", ()))
    return Manifest(**values)


def _shape_problem(content: Mapping[str, t.Any]) -> str:
    for name, kind in _REQUIRED.items():
        if not isinstance(content.get(name), kind):
            return f"{name} is missing or not a {kind.__name__}"
    if content.get("format", FORMAT) != FORMAT:
        return f"its format is {content['format']!r}, this release reads {FORMAT}"
    for name, kinds in _OPTIONAL.items():
        if name in content and not isinstance(content[name], kinds):
            return f"{name} is not a {kinds[0].__name__}"
    for name, facts in content["tables"].items():
        if not isinstance(facts, dict) or not _is_count(facts.get("rows")):
            return f"the rows of table {name} are not a number"
    return next((problem for problem in map(_file_problem, content["files"]) if problem), "")


def _file_problem(entry: t.Any) -> str:
    if not isinstance(entry, dict):
        return "an entry of files is not an object"
    path, size, digest = entry.get("path"), entry.get("bytes"), entry.get("sha256")
    if not isinstance(path, str) or not is_inside(path):
        return f"the file name {path!r} leads out of the backup's folder"
    if not _is_count(size) or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        return f"the size or checksum of {path!r} is missing"
    return ""


def _is_count(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_inside(path: str) -> bool:
    """Whether a relative path stays in its folder: no absolute path, no parent, no empty part."""
    parts = path.split("/")
    return "\0" not in path and "\\" not in path and all(part not in ("", ".", "..") for part in parts)


def stamp_of(path: str) -> list[int]:
    """Inode, size, and times of the last change of content and of anything: who changes a file changes these.

    :raises OSError: there is no such file.
    """
    facts = os.lstat(path)
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def verify_stamps(folder: str, manifest: Manifest, stamps: Mapping[str, t.Any]) -> list[str]:
    """What is wrong with the files of a backup that was proven a moment ago; a file whose stamp differs is read again."""
    touched = []
    for entry in manifest.files:
        try:
            if stamp_of(os.path.join(folder, entry.path)) != stamps.get(entry.path):
                touched.append(entry)
        except OSError:
            touched.append(entry)
    problems = [problem for entry in touched for problem in _problems_of(folder, entry)]
    listed = {entry.path for entry in manifest.files} | {NAME, LOCK_NAME}
    problems.extend(f"{path} is not in the manifest." for path in files_below(folder) if path not in listed)
    return problems


def verify(folder: str, manifest: Manifest) -> list[str]:
    """What is wrong with the files of a backup, a sentence each; empty where all are as they were written."""
    problems = [problem for entry in manifest.files for problem in _problems_of(folder, entry)]
    if os.path.basename(os.path.abspath(folder)) != manifest.id:
        problems.append(f"The folder {folder} holds the manifest of {manifest.id}.")
    listed = {entry.path for entry in manifest.files} | {NAME, LOCK_NAME}
    problems.extend(f"{path} is not in the manifest." for path in files_below(folder) if path not in listed)
    return problems


def _problems_of(folder: str, entry: BackupFile) -> Iterator[str]:
    path = os.path.join(folder, entry.path)
    if os.path.realpath(path) != os.path.join(os.path.realpath(folder), entry.path):
        yield f"{entry.path} is a symbolic link, or lies behind one."
        return
    try:
        # Without O_NONBLOCK a named pipe would keep us waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as err:
        yield f"{entry.path} cannot be read: {err.strerror}."
        return
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            yield f"{entry.path} is not an ordinary file."
        elif facts.st_uid not in (0, os.geteuid()):
            # Whoever owns it may change it after its checksum was found right.
            yield f"{entry.path} belongs to the user with id {facts.st_uid}, neither to root nor to the user that this runs as."
        elif facts.st_size != entry.bytes:
            yield f"{entry.path} has {facts.st_size} bytes, {entry.bytes} were written."
        elif digest_of(descriptor) != entry.sha256:
            yield f"{entry.path} has the right size and a wrong checksum: its content changed after it was written."
    finally:
        os.close(descriptor)


def digest_of(descriptor: int) -> str:
    """SHA-256 of what is left to read, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def files_below(folder: str) -> list[str]:
    """Every file below a folder, sorted, as relative paths with slashes."""
    found: list[str] = []
    for parent, _folders, names in os.walk(folder):
        prefix = os.path.relpath(parent, folder)
        found.extend(name if prefix == "." else f"{prefix}/{name}" for name in names)
    return sorted(found)
