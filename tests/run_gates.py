# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every gate of this collection, or those named, and end with a table of what passed, failed and was skipped, and why.

    python -m tests.run_gates lint|test [--only NAME]...

Gates run in lanes, side by side; several at once are shown whole when they end, and ``.cache/gates/NAME.log`` is what one wrote.
``ANSIBLE_TEST`` in the environment names another command for ansible-test, where that needs a wrapper.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

import yaml

from tests.support.gates import Gate, Runner, memory_folder, print_table
from tests.support.postgres_server import exit_on_sigterm, find_installation, find_installations, free_port

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
BIN = REPOSITORY / ".venv" / "bin"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

#: What ansible-test and antsibull-docs must not see of the checkout.
NOT_IN_THE_COPY = (".git", "build", "dist", ".venv", ".ansible", ".cache", "__pycache__", "*.tar.gz", ".*_cache")

#: Of the tests, ansible-test runs and looks at those that it can run, beside all that users get. ruff looks at the others, too.
TESTS_IN_THE_COPY = ("unit", "conftest.py", "config.yml", "__init__.py")

COVERAGE = ("--cov", "--cov-report=term")

#: What reads the catalogs and the archives of a major, each kind once: ``restore_everything`` takes a dump of all that a database
#: may hold through backup and restore. What a dead process, a full disk, a folder's age or a large number leads to is the same.
OF_EVERY_MAJOR = (
    "catalog",
    "clone",
    "cypher_erp",
    "database_properties",
    "execute",
    "object_migration",
    "restore_everything",
    "swap",
    "table_restore",
    "verify",
)
SAME_ON_EVERY_MAJOR = ("killed", "million", "five_thousand", "running_out")

#: The runbooks on a project of Docker Compose.
COMPOSE_RUNBOOKS = "tests/compose/test_runbooks.py"

#: Tests wait for servers more than they compute. Each process has a server of its own, and every test a database.
PARALLEL = ("--numprocesses=3", "--dist=worksteal")

#: What tells why a scenario that includes this file cannot be run here, as the scenario itself asks; silent where it can.
NEEDS = {
    "needs_docker.yml": ("tests.support.compose_project", "--problem"),
    "needs_hosts.yml": ("tests.support.ssh_hosts", "--missing"),
}

#: Lanes run side by side, and take about as long as each other. Two for what computes on one processor, apart by what they write:
#: the checkout, the scenarios included, or its copy; one for the tests, which have several processes; one for tests that mostly
#: wait, for hosts that are cut off and services that start.
CHECKOUT, COPY, TESTS, WAITING = "checkout", "copy", "tests", "waiting"


def main() -> int:
    """Run the gates; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("level", choices=["lint", "test"])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this gate; may be repeated")
    options = parser.parse_args()
    exit_on_sigterm()
    (REPOSITORY / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rollback-gates-", dir=memory_folder()) as folder:
        scratch = pathlib.Path(folder)
        copy = copy_collection(scratch)
        gates = lint_gates(copy) + (test_gates(copy, scratch) if options.level == "test" else [])
        unknown = set(options.only) - {gate.name for gate in gates}
        if unknown:
            parser.error(f"no such gate: {', '.join(sorted(unknown))}; there are {', '.join(g.name for g in gates)}")
        inherited = environment(temporary_folder(scratch))
        runner = Runner(REPOSITORY / ".cache" / "gates", lambda gate: {**inherited, **gate.environment})
        results = runner.run([gate for gate in gates if not options.only or gate.name in options.only])
    print_table(results)
    return int(any(result.status == "failed" for result in results))


def copy_collection(folder: pathlib.Path) -> pathlib.Path:
    """A copy at ``ansible_collections/cypher/rollback``: ansible-test works nowhere else."""
    copy = folder / "ansible_collections" / "cypher" / "rollback"
    never = shutil.ignore_patterns(*NOT_IN_THE_COPY)

    def left_out(place: str, names: list[str]) -> set[str]:
        others = set(names) - set(TESTS_IN_THE_COPY) if pathlib.Path(place) == REPOSITORY / "tests" else set()
        return never(place, names) | others

    shutil.copytree(REPOSITORY, copy, ignore=left_out, symlinks=True)
    return copy


def lint_gates(copy: pathlib.Path) -> list[Gate]:
    """Style, types and metadata."""
    docs = ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--check-extra-docs-refs", ".")
    tools = {
        "ruff-format": ("ruff", "format", "--check", "."),
        "ruff-check": ("ruff", "check", "."),
        "mypy": ("mypy",),
        "yamllint": ("yamllint", "--strict", "."),
        "ansible-lint": ("ansible-lint", "--offline", "--profile", "production"),
    }
    return [
        *(Gate(name, (command,), REPOSITORY, CHECKOUT) for name, command in tools.items()),
        Gate("antsibull-docs", (docs,), copy, COPY),
        Gate("docs", (("python", "-m", "tests.docs"),), REPOSITORY, COPY),
        Gate("antsibull-changelog", (("antsibull-changelog", "lint"),), copy, COPY),
    ]


def test_gates(copy: pathlib.Path, scratch: pathlib.Path) -> list[Gate]:
    """What runs the collection: ansible-test, the built artifact, pytest and molecule."""
    options = ("--local", "--python", PYTHON_VERSION, "--color", "no")
    return [
        build_gate(scratch),
        Gate(
            "sanity",
            ((*ansible_test(), "sanity", *options),),
            copy,
            COPY,
            hint="Where it could not download get-pip, name a wrapper that brings one in ANSIBLE_TEST.",
        ),
        Gate(
            "units",
            ((*ansible_test(), "units", *options),),
            copy,
            COPY,
            skipped="" if has_tests("unit") else "tests/unit holds no tests",
        ),
        pytest_gate(),
        majors_gate(),
        waiting_gate("hosts", "tests/hosts"),
        waiting_gate("compose", COMPOSE_RUNBOOKS),
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
        REPOSITORY,
        CHECKOUT,
        environment={"ANSIBLE_COLLECTIONS_PATH": str(tree), "ANSIBLE_LOCALHOST_WARNING": "false"},
    )


def has_tests(*folders: str) -> list[str]:
    """Those of the folders under ``tests`` that hold tests."""
    return [f"tests/{name}" for name in folders if any((REPOSITORY / "tests" / name).rglob("test_*.py"))]


def pytest_gate() -> Gate:
    """Every test on the default server, with coverage of the plugins, but for those that have a gate of their own.

    The pure parts are here once more, after ``units``: they take seconds, and without them the coverage would be none.
    """
    folders = has_tests("unit", "page", "database", "runbook", "compose", "docsite")
    return Gate(
        "pytest", (("pytest", *PARALLEL, *COVERAGE, f"--ignore={COMPOSE_RUNBOOKS}", *folders),), REPOSITORY, TESTS
    )


def waiting_gate(name: str, tests: str) -> Gate:
    """Tests that mostly wait, for a host that does not answer or a container that does not start: they go beside everything."""
    return Gate(name, (("pytest", f"--override-ini=cache_dir=.cache/pytest-{name}", tests),), REPOSITORY, WAITING)


def majors_gate() -> Gate:
    """The tests of catalogs and archives, and the runbook over several migrations, once more on the newest major.

    What breaks around the database in a runbook's run is the same on every major. Those between are run by ``make matrix``.
    """
    default = find_installation().major if find_installations() else None
    newest = max((installation.major for installation in find_installations()), default=None)
    chosen = ("-k", " and ".join(f"not {word}" for word in SAME_ON_EVERY_MAJOR))
    runbook = "tests/runbook/test_rollback.py::test_several_versions_go_in_one_transaction"
    files = [*(f"tests/database/test_{name}.py" for name in OF_EVERY_MAJOR), runbook]
    return Gate(
        "pytest-majors",
        (("pytest", *PARALLEL, "--server-only", f"--pg-major={newest}", *chosen, *files),),
        REPOSITORY,
        TESTS,
        skipped="" if newest != default else "only one PostgreSQL major is installed",
    )


def molecule_gate() -> Gate:
    """Every scenario, with a server of its own."""
    scenarios = sorted(path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml"))
    return Gate(
        "molecule",
        (("python", "-m", "tests.support.postgres_server", "--", "molecule", "test", "--all"),),
        REPOSITORY,
        CHECKOUT,
        environment={"MOLECULE_GLOB": "molecule/*/molecule.yml", "APP_PORT": str(free_port())},
        skipped="" if scenarios else "molecule/ holds no scenarios",
        remark="; ".join(filter(None, map(why_skipped, scenarios))),
    )


def why_skipped(scenario: str) -> str:
    """The scenario and why it skips itself on this machine; nothing where it runs."""
    converge = REPOSITORY / "molecule" / scenario / "converge.yml"
    text = converge.read_text(encoding="utf-8") if converge.exists() else ""
    for needed, (module, option) in NEEDS.items():
        if needed in text:
            asked = subprocess.run(
                [sys.executable, "-m", module, option], cwd=REPOSITORY, capture_output=True, text=True, check=False
            )
            if asked.stdout.strip() or asked.returncode:
                return f"{scenario} skipped: {(asked.stdout or asked.stderr).strip()}"
    return ""


def temporary_folder(scratch: pathlib.Path) -> pathlib.Path:
    """Where the gates have their temporary files: servers run as another user, who may pass through to its own."""
    temporary = scratch / "tmp"
    for folder in (scratch, temporary):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
    return temporary


def environment(temporary: pathlib.Path) -> dict[str, str]:
    """The tools of ``.venv`` first, and no Ansible setting of the person who runs this."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    return {**inherited, "PATH": path, "VIRTUAL_ENV": str(BIN.parent), "NO_COLOR": "1", "TMPDIR": str(temporary)}


if __name__ == "__main__":
    sys.exit(main())
