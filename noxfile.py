# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One session a combination of versions, as ``make matrix`` runs them all; ``.venv/bin/nox --list`` names them."""

from __future__ import annotations

import pathlib
import sys

import nox

REPOSITORY = pathlib.Path(__file__).resolve().parent
# nox runs this file from another place.
sys.path.insert(0, str(REPOSITORY))

from tests.support import matrix  # noqa: E402 - it is found only now
from tests.support.gates import memory_folder  # noqa: E402 - it is found only now

COMBINATIONS = matrix.combinations()

nox.needs_version = ">=2025.2.9"
nox.options.envdir = ".cache/nox"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = True


@nox.session
@nox.parametrize(
    ("python", "core", "postgresql"),
    [(item.python, item.core, item.postgresql) for item in COMBINATIONS],
    ids=[item.name for item in COMBINATIONS],
)
def run(session: nox.Session, core: str, postgresql: int) -> None:
    """The tests of one combination, in an environment that holds its ansible-core."""
    combination = matrix.Combination(str(session.python), core, postgresql)
    session.install(
        f"ansible-core{core}", "--requirement=requirements.txt", "--requirement=tests/requirements-matrix.txt"
    )
    python = pathlib.Path(session.bin) / "python"
    matrix.link_collections(python)
    junit = matrix.RESULTS / f"{combination.name}.xml"
    junit.unlink(missing_ok=True)
    memory = memory_folder()
    # The engine's own tests ask no server: once is enough for an environment.
    only = [] if combination.postgresql == COMBINATIONS[0].postgresql else ["--server-only"]
    session.run(
        *("python", "-m", "pytest", "--numprocesses=2", "--dist=worksteal", f"--pg-major={postgresql}", *only),
        *(f"--junitxml={junit}", f"--override-ini=cache_dir=.cache/pytest-{combination.name}", *matrix.TESTS),
        env={"TMPDIR": str(memory)} if memory else {},
        success_codes=[0, 1],
    )
    failed = matrix.note_result(combination, python, junit)
    if failed:
        session.error(f"{failed} tests failed")
