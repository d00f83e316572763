# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that runs the playbook: what tells it from every other, and whether it still lives."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Mapping


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return text.readline().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def process_started(pid: int) -> str:
    """Start of a process in clock ticks since boot, which tells it from a later one with its number.

    Empty where it is not known. Field 22 of ``/proc/<pid>/stat``, see proc(5); the second
    field may itself hold blanks and brackets.
    """
    fields = _first_line(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _user() -> str:
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())


def own_session() -> str:
    """What tells this ansible-playbook process from every other on its host."""
    return f"{os.getppid()}-{process_started(os.getppid())}"


def controller_facts(task_vars: Mapping[str, t.Any]) -> dict[str, str]:
    """Who runs the playbook. For action plugins: their worker is a child of the ansible-playbook process."""
    pid = os.getppid()
    return {
        "host": socket.gethostname(),
        "boot_id": _first_line("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _link("/proc/self/ns/pid"),
        "pid": str(pid),
        "started": process_started(pid),
        "user": str(task_vars.get("awx_user_name") or _user()),
        "job": str(task_vars.get("awx_job_id") or ""),
    }


def is_dead(holder: Mapping[str, t.Any], own: Mapping[str, str]) -> bool:
    """Whether the process that holds a claim is certainly gone; false wherever that cannot be known from here.

    :param own: this controller; process numbers mean something only on the same boot and in the same namespace.
    """
    here = all(own.get(key) and holder.get(key) == own[key] for key in ("host", "boot_id", "pid_namespace"))
    if not here or not str(holder.get("pid", "")).isdecimal():
        return False
    pid = int(holder["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return bool(holder.get("started")) and process_started(pid) != holder["started"]
