# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every gate of this collection, or those named, and end with a table of what passed, failed and was skipped, and why.

    python -m tests.run_gates lint|test [--only NAME]...

``ANSIBLE_TEST`` in the environment names another command for ansible-test, where that needs a wrapper.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

import yaml

from tests.support.postgres_server import find_installation, find_installations, free_port

if t.TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
BIN = REPOSITORY / ".venv" / "bin"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

#: What ansible-test and antsibull-docs must not see of the checkout.
NOT_IN_THE_COPY = (".git", ".venv", ".ansible", ".cache", "__pycache__", "*.tar.gz", ".*_cache")

COVERAGE = ("--cov", "--cov-report=term")

#: What a dead process, a full disk or a folder's age leads to does not depend on the server's major version.
SAME_ON_EVERY_MAJOR = (
    "test_backup_catalog",
    "test_checklist_evidence",
    "test_commit",
    "test_fault_cases_backup",
    "test_query_timing",
    "test_restore_killed",
    "test_retention",
)

#: What reads the catalogs and the archives of a major, for those between the default one and the newest.
OF_EVERY_MAJOR = ("test_backup", "test_catalog", "test_cypher_erp", "test_execute", "test_restore", "test_verify")

#: Tests wait for servers more than they compute. Each process has a server of its own, and every test a database.
PARALLEL = ("--numprocesses=3", "--dist=worksteal")


@dataclasses.dataclass(frozen=True)
class Gate:
    """One check. ``commands`` run in ``folder`` until one fails; with ``skipped`` none does, and that is the reason."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    folder: pathlib.Path = REPOSITORY
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    skipped: str = ""
    hint: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a gate went: ``passed``, ``failed`` or ``skipped``, and in how many seconds."""

    name: str
    status: str
    seconds: float
    note: str


def main() -> int:
    """Run the gates; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("level", choices=["lint", "test"])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this gate; may be repeated")
    options = parser.parse_args()
    (REPOSITORY / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rollback-gates-") as folder:
        copy = copy_collection(pathlib.Path(folder))
        gates = lint_gates(copy) + (test_gates(copy, pathlib.Path(folder)) if options.level == "test" else [])
        unknown = set(options.only) - {gate.name for gate in gates}
        if unknown:
            parser.error(f"no such gate: {', '.join(sorted(unknown))}; there are {', '.join(g.name for g in gates)}")
        results = [run(gate) for gate in gates if not options.only or gate.name in options.only]
    print_table(results)
    return int(any(result.status == "failed" for result in results))


def copy_collection(folder: pathlib.Path) -> pathlib.Path:
    """A copy at ``ansible_collections/cypher/rollback``: ansible-test works nowhere else."""
    copy = folder / "ansible_collections" / "cypher" / "rollback"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(*NOT_IN_THE_COPY), symlinks=True)
    return copy


def lint_gates(copy: pathlib.Path) -> list[Gate]:
    """Style, types and metadata."""
    docs = ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", ".")
    return [
        Gate("ruff-format", (("ruff", "format", "--check", "."),)),
        Gate("ruff-check", (("ruff", "check", "."),)),
        Gate("mypy", (("mypy",),)),
        Gate("yamllint", (("yamllint", "--strict", "."),)),
        Gate("ansible-lint", (("ansible-lint", "--offline", "--profile", "production"),)),
        Gate("antsibull-docs", (docs,), folder=copy),
        Gate("antsibull-changelog", (("antsibull-changelog", "lint"),), folder=copy),
    ]


def test_gates(copy: pathlib.Path, scratch: pathlib.Path) -> list[Gate]:
    """What runs the collection: ansible-test, the built artifact, pytest and molecule."""
    return [
        build_gate(scratch),
        Gate(
            "sanity",
            ((*ansible_test(), "sanity", "--local", "--python", PYTHON_VERSION, "--color", "no"),),
            folder=copy,
            hint="Where it could not download get-pip, name a wrapper that brings one in ANSIBLE_TEST.",
        ),
        Gate(
            "units",
            ((*ansible_test(), "units", "--local", "--python", PYTHON_VERSION, "--color", "no"),),
            folder=copy,
            skipped="" if has_tests("unit") else "tests/unit holds no tests",
        ),
        pytest_gate(),
        majors_gate(),
        molecule_gate(),
    ]


def ansible_test() -> list[str]:
    """The command for ansible-test; a path in ``ANSIBLE_TEST`` is relative to the repository."""
    command = shlex.split(os.environ.get("ANSIBLE_TEST", "ansible-test"))
    if "/" in command[0]:
        command[0] = str((REPOSITORY / command[0]).resolve())
    return command


def build_gate(scratch: pathlib.Path) -> Gate:
    """Build the artifact, install it away from the checkout, and let Ansible read its playbooks from there."""
    tree = scratch / "installed"
    galaxy_yml = yaml.safe_load((REPOSITORY / "galaxy.yml").read_text(encoding="utf-8"))
    artifact = scratch / "cypher-rollback-{version}.tar.gz".format_map(galaxy_yml)
    playbooks = sorted(path.stem for path in (REPOSITORY / "playbooks").glob("*.yml"))
    galaxy = ("ansible-galaxy", "collection")
    return Gate(
        "build",
        (
            (*galaxy, "build", "--force", "--output-path", str(scratch)),
            (*galaxy, "install", "--offline", "--no-deps", "--force", "--collections-path", str(tree), str(artifact)),
            *(("ansible-playbook", "--syntax-check", f"cypher.rollback.{name}") for name in playbooks),
        ),
        environment={"ANSIBLE_COLLECTIONS_PATH": str(tree), "ANSIBLE_LOCALHOST_WARNING": "false"},
    )


def has_tests(*folders: str) -> list[str]:
    """Those of the folders under ``tests`` that hold tests."""
    return [f"tests/{name}" for name in folders if any((REPOSITORY / "tests" / name).rglob("test_*.py"))]


def pytest_gate() -> Gate:
    """Every test, on the default server, with coverage of the plugins."""
    folders = has_tests("unit", "page", "database", "runbook", "compose", "hosts", "docsite")
    return Gate("pytest", (("pytest", *PARALLEL, *COVERAGE, *folders),))


def majors_gate() -> Gate:
    """The tests of the database, and the runbook over the six migrations, once more on the newest major, and some on the others.

    What breaks around the database in a runbook's run is the same on every major.
    """
    default = find_installation().major if find_installations() else None
    others = sorted(installation.major for installation in find_installations() if installation.major != default)
    ignored = [f"--ignore=tests/database/{name}.py" for name in SAME_ON_EVERY_MAJOR]
    files = [*ignored, *has_tests("database"), "tests/runbook/test_rollback.py"]
    some = [f"tests/database/{name}.py" for name in OF_EVERY_MAJOR]
    chosen = [(major, some if major != others[-1] else files) for major in others]
    return Gate(
        "pytest-majors",
        tuple(("pytest", *PARALLEL, "--server-only", f"--pg-major={major}", *tests) for major, tests in chosen),
        skipped="" if others else "only one PostgreSQL major is installed",
    )


def molecule_gate() -> Gate:
    """Every scenario, with a server of its own."""
    scenarios = sorted(path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml"))
    return Gate(
        "molecule",
        (("python", "-m", "tests.support.postgres_server", "--", "molecule", "test", "--all"),),
        environment={"MOLECULE_GLOB": "molecule/*/molecule.yml", "APP_PORT": str(free_port())},
        skipped="" if scenarios else "molecule/ holds no scenarios",
    )


def run(gate: Gate) -> Result:
    """Run one gate, its output shown as it comes."""
    print(f"\n=== {gate.name}", flush=True)
    if gate.skipped:
        print(f"skipped: {gate.skipped}", flush=True)
        return Result(gate.name, "skipped", 0.0, gate.skipped)
    started = time.monotonic()
    failed = first_failure(gate)
    seconds = time.monotonic() - started
    if failed is None:
        return Result(gate.name, "passed", seconds, "")
    command, code = failed
    if gate.hint:
        print(gate.hint, flush=True)
    return Result(gate.name, "failed", seconds, f"exit code {code}: {shlex.join(command)[:100]}")


def first_failure(gate: Gate) -> tuple[tuple[str, ...], int] | None:
    """Run the gate's commands; the one that failed, with its exit code."""
    for command in gate.commands:
        code = subprocess.run(command, cwd=gate.folder, env=environment(gate), check=False).returncode
        if code:
            return command, code
    return None


def environment(gate: Gate) -> dict[str, str]:
    """The tools of ``.venv`` first, and no Ansible setting of the person who runs this."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    return {**inherited, "PATH": path, "VIRTUAL_ENV": str(BIN.parent), "NO_COLOR": "1", **gate.environment}


def print_table(results: Iterable[Result]) -> None:
    """One line a gate."""
    print(f"\n{'gate':<20} {'result':<8} {'seconds':>8}  note")
    for result in results:
        print(f"{result.name:<20} {result.status:<8} {result.seconds:>8.1f}  {result.note}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
