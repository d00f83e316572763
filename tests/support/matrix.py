# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions that the collection is run on, and the table of them in README.md: ``make matrix``.

    python -m tests.support.matrix run     every combination, each in an environment of its own (noxfile.py), then the table
    python -m tests.support.matrix table   README's table from tests/matrix.json

Each ansible-core runs on the lowest and on the highest Python that it can have, each PostgreSQL with what ``make setup`` installs
on the lowest Python. What really ran comes from the environments themselves: their packages, and the server's answer.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t
import xml.etree.ElementTree as ET

import yaml

from tests.support.postgres_server import exit_on_sigterm, find_installation, find_installations

if t.TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
MATRIX = REPOSITORY / "tests" / "matrix.json"
RESULTS = REPOSITORY / ".cache" / "matrix"

#: The lowest and the highest Python that a minor version of ansible-core runs playbooks on, of those that the collection knows.
CORE_PYTHONS = {
    "2.18": ("3.11", "3.13"),
    "2.19": ("3.11", "3.13"),
    "2.20": ("3.12", "3.13"),
    "2.21": ("3.12", "3.13"),
}

#: What every combination runs: the engine's own tests, and each runbook once, on a real server.
TESTS = (
    "tests/unit",
    "tests/runbook/test_rollback.py::test_application_and_backup_around_a_rollback",
    "tests/runbook/test_rollback.py::test_the_preview_announces_what_the_run_removes_and_leaves_no_trace",
    "tests/runbook/test_rollback.py::test_a_version_that_is_none_touches_nothing",
    "tests/runbook/test_backup.py::test_a_deployment_takes_its_backup_while_the_application_runs",
    "tests/runbook/test_emergency.py::test_a_corrupted_database_is_gone_back_from",
    "tests/runbook/test_emergency.py::test_a_rollback_is_undone",
    "tests/runbook/test_module_defaults.py",
    "tests/runbook/test_verify.py",
)

_PLACE = re.compile(r"(<!-- versions:[^\n]*-->\n).*?(<!-- end of versions -->)", re.DOTALL)

_ASK = """
import importlib.metadata, json, platform
found = {name: importlib.metadata.version(name) for name in ("ansible-core", "pglast")}
print(json.dumps({"python": platform.python_version(), **found}))
"""


@dataclasses.dataclass(frozen=True)
class Combination:
    """What is to be run together. ``core`` is what pip is asked for, such as ``==2.18.0``."""

    python: str
    core: str
    postgresql: int

    @property
    def name(self) -> str:
        """A name for its environment and its files."""
        core = self.core.removeprefix("==") if self.core.startswith("==") else self.core[2:].removesuffix(".0")
        return f"core{core}-python{self.python}-postgresql{self.postgresql}"


def lowest_core() -> str:
    """The lowest ansible-core of ``requires_ansible``."""
    runtime = yaml.safe_load((REPOSITORY / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    return str(runtime["requires_ansible"]).removeprefix(">=")


def combinations() -> list[Combination]:
    """Everything to be run here: the lowest ansible-core exactly, the newest of each minor version, and each PostgreSQL."""
    default = find_installation().major
    cores = {f"~={minor}.0": pythons for minor, pythons in CORE_PYTHONS.items() if not lowest_core().startswith(minor)}
    cores = {f"=={lowest_core()}": CORE_PYTHONS[lowest_core().rpartition(".")[0]], **cores}
    found = [Combination(python, core, default) for core, pythons in cores.items() for python in pythons]
    lowest_python = min(python for pythons in CORE_PYTHONS.values() for python in pythons)
    newest = max((minor for minor, pythons in CORE_PYTHONS.items() if lowest_python in pythons), key=_numbers)
    others = [installation.major for installation in find_installations() if installation.major != default]
    return found + [Combination(lowest_python, f"~={newest}.0", major) for major in others]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def link_collections(python: pathlib.Path) -> None:
    """Give an environment the collections of ``.venv``, this one included: they are the same for every Python."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    link = pathlib.Path(packages) / "ansible_collections"
    if not link.is_symlink():
        (source,) = (REPOSITORY / ".venv" / "lib").glob("python3.*/site-packages/ansible_collections")
        link.symlink_to(source, target_is_directory=True)


def note_result(combination: Combination, python: pathlib.Path, junit: pathlib.Path) -> int:
    """Keep how a combination went, with the versions that its environment and the server's programs say they have.

    :returns: how many of its tests failed.
    """
    versions = json.loads(subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True).stdout)
    postgres = find_installation(combination.postgresql).bin_dir / "postgres"
    answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout
    (suite,) = ET.parse(junit).getroot().iter("testsuite")  # noqa: S314 - pytest wrote it just now
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    result = {
        "ansible_core": versions["ansible-core"],
        "python": versions["python"],
        "postgresql": answer.split()[2],
        "pglast": versions["pglast"],
        "passed": count["tests"] - failed - count["skipped"],
        "failed": failed,
        "skipped": count["skipped"],
        "seconds": round(float(suite.attrib["time"])),
    }
    (RESULTS / f"{combination.name}.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    return failed


def collect() -> dict[str, t.Any]:
    """The run as data.

    :raises FileNotFoundError: a combination left no result.
    """
    results = [
        json.loads((RESULTS / f"{combination.name}.json").read_text(encoding="utf-8")) for combination in combinations()
    ]
    return {"date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}", "runs": results}


def versions_table(matrix: dict[str, t.Any]) -> str:
    """A Markdown table, one line a combination, with what was run and when."""
    lines = [
        f"Run on {matrix['date']}:",
        "",
        "| ansible-core | Python | PostgreSQL | pglast | tests |",
        "|---|---|---|---|---|",
        *(
            f"| {run['ansible_core']} | {run['python']} | {run['postgresql']} | {run['pglast']} | {_tests(run)} |"
            for run in matrix["runs"]
        ),
    ]
    return "\n".join(lines) + "\n"


def _tests(run: dict[str, t.Any]) -> str:
    return f"{run['passed']} passed" + (f", **{run['failed']} failed**" if run["failed"] else "")


def with_table(readme: str, matrix: dict[str, t.Any]) -> str:
    """README's text with the table in its place."""
    return _PLACE.sub(lambda found: f"{found[1]}{versions_table(matrix)}{found[2]}", readme)


def write_table() -> None:
    """Put the table of tests/matrix.json into README.md."""
    matrix = json.loads(MATRIX.read_text(encoding="utf-8"))
    README.write_text(with_table(README.read_text(encoding="utf-8"), matrix), encoding="utf-8")


def pythons_on_path() -> str:
    """PATH with the interpreters of pyenv, each under its own name: its shims find only those that are chosen."""
    folders: Iterable[pathlib.Path] = sorted((pathlib.Path.home() / ".pyenv" / "versions").glob("3.*/bin"))
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders)])


def run() -> int:
    """Run every combination; 1 where a test failed or a combination could not be run."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.json"):
        old.unlink()
    nox = [sys.executable, "-m", "nox", "--noxfile", str(REPOSITORY / "noxfile.py")]
    code = subprocess.run(nox, cwd=REPOSITORY, env={**os.environ, "PATH": pythons_on_path()}, check=False).returncode
    try:
        matrix = collect()
    except FileNotFoundError as err:
        print(
            f"matrix: {pathlib.Path(err.filename).stem} was not run, so {MATRIX.name} and README.md stay as they are."
        )
        return 1
    MATRIX.write_text(json.dumps(matrix, indent=2) + "\n", encoding="utf-8")
    write_table()
    print(versions_table(matrix))
    return int(code != 0)


def main() -> int:
    """Run the matrix, or write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    exit_on_sigterm()
    if parser.parse_args().what == "run":
        return run()
    write_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
