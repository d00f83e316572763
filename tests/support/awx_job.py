# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a job as AWX does: ansible-runner on a private data folder of its layout (awx/main/tasks/jobs.py of AWX 24.6)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import typing as t
from pathlib import Path

import ansible_runner
import yaml

if t.TYPE_CHECKING:
    from tests.support.artifact import Artifact

Item = dict[str, t.Any]

#: Longer than any job here, shorter than somebody who waits for an answer.
LIMIT_SECONDS = 300


class _Unsafe(yaml.SafeDumper):
    """AWX marks every text of the extra variables, keys included, so that nothing in them is a template."""

    def represent_data(self, data: t.Any) -> yaml.Node:
        if isinstance(data, str):
            return self.represent_scalar("!unsafe", data)
        return super().represent_data(data)


@dataclasses.dataclass(frozen=True)
class Job:
    """How a job ended."""

    status: str
    folder: Path
    events: list[Item]
    stdout: str

    @property
    def artifacts(self) -> Item:
        """What set_stats left, as AWX reads it."""
        found: Item = {}
        for event in self.events:
            found.update(event.get("event_data", {}).get("artifact_data") or {})
        return found

    def everything(self) -> str:
        """All text of the job that a controller keeps: its events, its output and its command."""
        files = [path for path in (self.folder / "artifacts").rglob("*") if path.is_file()]
        assert len(files) > 10, files
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


class Controller:
    """Starts jobs of one inventory.

    :param inventory: as ``ansible-inventory --list`` would show it.
    :param secrets: content of the files that the credential gives, by environment variable.
    """

    def __init__(self, folder: Path, artifact: Artifact, inventory: Item, secrets: dict[str, str]) -> None:
        self.folder = folder
        self.artifact = artifact
        self.inventory = inventory
        self.secrets = secrets
        self._number = 40

    def launch(self, playbook: str, answers: Item, *, check: bool = False, verbosity: int = 0) -> Job:
        """Run a job to its end.

        :param answers: answers of the survey, and what a workflow adds.
        """
        self._number += 1
        folder = self.folder / f"awx_{self._number}_job"
        environment = self._write(folder, answers, check=check, verbosity=verbosity)
        runner = ansible_runner.run(
            private_data_dir=str(folder),
            ident=str(self._number),
            playbook=playbook,
            inventory=str(folder / "inventory" / "hosts"),
            envvars=environment,
            passwords={},
            settings={"job_timeout": LIMIT_SECONDS},
            suppress_env_files=True,
            quiet=True,
        )
        events = list(runner.events)
        return Job(runner.status, folder, events, "\n".join(str(event.get("stdout", "")) for event in events))

    def _write(self, folder: Path, answers: Item, *, check: bool, verbosity: int) -> dict[str, str]:
        """The private data folder; the environment that belongs to it."""
        for part in ("env", "inventory"):
            (folder / part).mkdir(parents=True, mode=0o700)
        shutil.copytree(self.artifact.installed / "extensions" / "awx" / "project", folder / "project")
        script = f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({json.dumps(self.inventory)!r})\n"
        _write_private(folder / "inventory" / "hosts", script, 0o700)
        given = {
            **answers,
            **{f"{prefix}_job_id": self._number for prefix in ("awx", "tower")},
            **{f"{prefix}_user_name": "dana" for prefix in ("awx", "tower")},
        }
        _write_private(folder / "env" / "extravars", yaml.dump(given, Dumper=_Unsafe, default_flow_style=False))
        options = [
            *(["--check", "--diff"] if check else []),
            "-u",
            "root",
            *([f"-{'v' * verbosity}"] if verbosity else []),
        ]
        _write_private(folder / "env" / "cmdline", " ".join(options))
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(self.artifact.tree),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
            "ANSIBLE_FORCE_COLOR": "True",
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
            "ANSIBLE_PARAMIKO_RECORD_HOST_KEYS": "False",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "AWX_HOST": "https://awx.example.com",
            "AWX_PRIVATE_DATA_DIR": str(folder),
            "JOB_ID": str(self._number),
            "MAX_EVENT_RES": "700000",
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHON": sys.executable,
        }
        for number, (variable, secret) in enumerate(self.secrets.items()):
            path = folder / "env" / f"tmp{number}"
            _write_private(path, secret)
            environment[variable] = str(path)
        return environment


def _write_private(path: Path, content: str, mode: int = 0o600) -> None:
    path.touch(mode=mode)
    path.write_text(content, encoding="utf-8")
