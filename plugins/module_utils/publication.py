# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that becomes a backup: private and locked while it is filled, published and removed by one rename."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import secrets
import shutil
import time
import typing as t

from . import manifest as manifests
from .errors import FailedUnchanged, Refused

if t.TYPE_CHECKING:
    from collections.abc import Iterator

PARTIAL_PREFIX = ".partial-"
#: Names a database that a backup made outside its folder. Without it nobody knew whose that is.
CLONE_FILE = "clone.json"

UNCHANGED = "The database is unchanged and no backup was published."


class BackupFailed(FailedUnchanged):
    """The backup could not be made or did not prove whole; nothing of it is left."""


def make_folder(path: str) -> None:
    """Make the folder and those above it, private whatever the umask."""
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path.rstrip("/")))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)


def remove_leftovers(backup_dir: str) -> list[str]:
    """Remove what runs that died have left, and give the names; those whose writer lives hold a lock and stay.

    A folder that names a clone stays until :func:`clone.drop_leftovers` has dropped that.
    """
    removed = []
    for entry in list(os.scandir(backup_dir)):
        if not entry.name.startswith(PARTIAL_PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        if os.path.lexists(os.path.join(entry.path, CLONE_FILE)):
            continue
        with contextlib.suppress(OSError):
            lock = take_lock(entry.path)
            try:
                shutil.rmtree(entry.path)
            finally:
                os.close(lock)
            removed.append(entry.name)
    return removed


@contextlib.contextmanager
def share_lock(folder: str) -> Iterator[None]:
    """Keep a backup from being removed for as long as the block lasts; any number of readers may do so at once.

    :raises Refused: somebody is removing it, or it is gone.
    """
    try:
        descriptor = _open_lock(folder, fcntl.LOCK_SH)
    except BlockingIOError as err:
        raise Refused(
            f"The backup {folder} is being written or removed by another run. Choose another one, or wait."
        ) from err
    except OSError as err:
        raise Refused(
            f"The backup {folder} cannot be locked for reading: {err.strerror or 'it was removed'}. Choose another one."
        ) from err
    try:
        yield
    finally:
        os.close(descriptor)


def take_lock(folder: str) -> int:
    """Descriptor of the folder's lock, held until it is closed by us and by every program that inherited it.

    :raises OSError: someone else holds it, or removed the folder in the meantime.
    """
    return _open_lock(folder, fcntl.LOCK_EX)


def _open_lock(folder: str, mode: int) -> int:
    descriptor = os.open(os.path.join(folder, manifests.LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        os.fchmod(descriptor, 0o600)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_published(backup_dir: str, path: str) -> bool:
    """Remove a backup that is in nobody's use. It first loses its name, so that no half of it is ever visible.

    :return: whether it is gone; not where somebody uses it, or where it does not lie in ``backup_dir``.
    """
    if os.path.dirname(os.path.abspath(path)) != os.path.abspath(backup_dir):
        return False
    with contextlib.suppress(OSError):
        lock = take_lock(path)
        try:
            hidden = os.path.join(backup_dir, f"{PARTIAL_PREFIX}{os.path.basename(path)}-{secrets.token_hex(4)}")
            os.rename(path, hidden)
            shutil.rmtree(hidden, ignore_errors=True)
        finally:
            os.close(lock)
        return True
    return False


class PartialFolder(contextlib.AbstractContextManager["PartialFolder"]):
    """A backup in the making: private, locked, and gone when the block is left without :meth:`publish`."""

    def __init__(self, backup_dir: str, name: str) -> None:
        self.backup_dir = backup_dir
        self.id = name
        self.path = ""
        self.lock = -1

    def __enter__(self) -> t.Self:
        # A run that cleans up may catch the folder before it is locked: then there is a next name.
        for _attempt in range(10):
            self.path = os.path.join(self.backup_dir, f"{PARTIAL_PREFIX}{self.id}-{secrets.token_hex(4)}")
            with contextlib.suppress(FileExistsError, FileNotFoundError, BlockingIOError):
                os.mkdir(self.path, 0o700)
                os.chmod(self.path, 0o700)
                self.lock = take_lock(self.path)
                return self
        raise BackupFailed(f"No folder for the backup can be made in {self.backup_dir}. {UNCHANGED}")

    def publish(self, manifest: manifests.Manifest, key: str = "") -> manifests.Manifest:
        """Write the manifest, sync, and give the folder its final name; the manifest is returned as it was written.

        :param key: signs it; empty: it is not signed.
        """
        name = manifest.id
        for number in range(2, 1000):
            manifests.write(self.path, manifest, key)
            sync_folder(self.path)
            final = os.path.join(self.backup_dir, manifest.id)
            try:
                # An existing backup is a folder that is not empty, and rename() never replaces one of those.
                os.rename(self.path, final)
            except OSError:
                if not os.path.lexists(final):
                    raise
                os.unlink(os.path.join(self.path, manifests.NAME))
                manifest = dataclasses.replace(manifest, id=f"{name}_{number}")
                continue
            self.path = ""
            sync_folder(self.backup_dir)
            return manifest
        raise BackupFailed(f"{self.backup_dir} already has a thousand backups named {name}. {UNCHANGED}")

    def __exit__(self, *_exc: object) -> None:
        if self.path:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def write_private(path: str, text: str) -> None:
    """Write a new file, private whatever the umask.

    :raises OSError: no space, no permission, or there is one already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text.encode("utf-8", "backslashreplace"))


def sync_folder(path: str) -> None:
    """Make names that were added to or changed in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note in ``seconds`` how long the block took."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = round(time.monotonic() - started, 3)
