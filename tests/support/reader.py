# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who reads README.md and the guides, and pastes their commands into a shell."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
import time
import typing as t
from pathlib import Path

import yaml

from tests.support.documentation import GUIDES, command
from tests.support.runbook import LIMIT_SECONDS, Project, Run
from tests.support.settings_table import README, REPOSITORY, settings

CALLBACKS = REPOSITORY / "tests" / "support" / "callbacks"
#: What Ansible puts into any result.
OF_ANY_TASK = {
    "ansible_facts", "attempts", "censored", "changed", "deprecations", "diff", "failed", "failed_when_result", "invocation", "msg", "results",
    "warnings",
}  # fmt: skip

TEXT = README.read_text(encoding="utf-8")
#: The commands of README.md by their marks.
RUN_BLOCKS: dict[str, str] = dict(re.findall(r"<!-- run: (\w+) -->\n```bash\n(.*?)```", TEXT, re.DOTALL))


def shell(block: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a block as a person who pastes it into a shell."""
    return subprocess.run(
        ["sh", "-e"], input=block, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def at_terminal(block: str, folder: Path, environment: dict[str, str], answer: str) -> tuple[int, str]:
    """Run a block in a terminal of its own, in which somebody answers once asked; exit code and output."""
    terminal, its_end = pty.openpty()
    # A session of its own whose terminal this is: whoever is not in the foreground of one is not asked.
    session = ["setsid", "--ctty", "--wait", "sh", "-e", "-c", block]
    with subprocess.Popen(
        session, cwd=folder, env=environment, stdin=its_end, stdout=its_end, stderr=its_end
    ) as process:
        os.close(its_end)
        output, asked, deadline = b"", False, time.monotonic() + LIMIT_SECONDS
        with contextlib.suppress(OSError):  # the other end is closed
            while time.monotonic() < deadline:
                if select.select([terminal], [], [], 0.5)[0]:
                    output += os.read(terminal, 65536)
                    continue
                # What is typed before the question is read is thrown away, so it is typed until the run goes on.
                _before, question, after = output.partition(b"Are you sure? (yes/no)")
                asked = bool(question)
                if asked and b"TASK [" not in after:
                    os.write(terminal, f"{answer}\r".encode())
        os.close(terminal)
    assert asked, output.decode(errors="replace")
    return process.returncode, output.decode(errors="replace")


def readme_yaml() -> list[dict[str, t.Any]]:
    """The examples of README.md: the inventory of a first preview, and what is added before the run."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def guide_yaml(page: str) -> list[dict[str, t.Any]]:
    """The YAML examples of a guide, in their order."""
    text = (GUIDES / f"{page}.rst").read_text(encoding="utf-8") + "\n"
    found = re.findall(r"^\.\. code-block:: yaml\n\n((?:[ ]+\S[^\n]*\n|\n)+)", text, re.MULTILINE)
    return [yaml.safe_load(textwrap.dedent(block)) for block in found]


@functools.cache
def documented(module: str) -> frozenset[str]:
    """The keys that a module's RETURN describes."""
    source = (REPOSITORY / "plugins" / "modules" / f"{module}.py").read_text(encoding="utf-8")
    (text,) = re.findall(r'^RETURN = r"""(.*?)"""', source, re.MULTILINE | re.DOTALL)
    return frozenset(yaml.safe_load(text) or {})


def undocumented(noted: Path) -> set[tuple[str, str]]:
    """Module and key of what was returned and is in no documentation; the file is that of the callback."""
    lines = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    answers = [json.loads(line) for line in lines]
    return {
        (answer["module"], key)
        for answer in answers
        for key in answer["keys"]
        if not key.startswith("_ansible_") and key not in documented(answer["module"]) | OF_ANY_TASK
    }


class Reader:
    """The person, in a folder with an inventory of their own, after ``make setup`` and README's line that activates it."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder = folder
        self.project = project
        bin_dir = str(Path(sys.executable).parent)
        self.environment = {
            name: value for name, value in project.environment().items() if not name.startswith("ANSIBLE_")
        } | {
            "PATH": os.pathsep.join([bin_dir, os.environ["PATH"]]),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "kill_after,returned_keys",
            "KILL_AFTER": "",
            "RETURNED_KEYS": str(folder / "returned.jsonl"),
        }
        self.write_inventory()

    def write_inventory(self) -> None:
        """README's examples, with the values of this database and application."""
        first, application = readme_yaml()
        values = first["all"]["vars"] | application["all"]["vars"]
        assert set(values) <= set(settings())
        inventory = {**first, **application, "all": {"vars": values | self.project.settings}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    def follow(self, name: str, answer: str = "") -> Run:
        """Run a block of README.md, and answer the question that it asks."""
        return self.paste(RUN_BLOCKS[name], answer)

    def follow_guide(self, page: str, name: str, **variables: str) -> Run:
        """Run a block of a guide, with shell variables that the reader knows."""
        return self.paste(command(page, name), **variables)

    def paste(self, block: str, answer: str = "", **variables: str) -> Run:
        """Run a block; the report is that of the run that it began, if it left one."""
        before = set(self.project.run_folders())
        environment = {**self.environment, **variables}
        if answer:
            code, output = at_terminal(block, self.folder, environment, answer)
        else:
            done = shell(block, self.folder, environment)
            code, output = done.returncode, done.stdout + done.stderr
        new = [folder for folder in self.project.run_folders() if folder not in before]
        report = new[0] / "report.json" if new else None
        found = json.loads(report.read_text(encoding="utf-8")) if report and report.exists() else None
        silent = undocumented(Path(self.environment["RETURNED_KEYS"]))
        assert not silent, f"returned, and in no RETURN: {silent}"
        return Run(code, output, found, new[0] if new else self.folder)

    def succeed(self, name: str, outcome: str, answer: str = "") -> Run:
        """The same with a block of README.md that ends well and says how."""
        run = self.follow(name, answer)
        assert (run.returncode, run.outcome) == (0, outcome), run.output
        return run
