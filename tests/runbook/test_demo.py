# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo, as make starts it: it ends well, and leaves no process behind, whole or interrupted."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests.support.runbook import REPOSITORY, wait_until

LIMIT_SECONDS = 180


def processes_with(variable: str) -> list[int]:
    """Processes that have this in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable in (folder / "environ").read_bytes().decode(errors="replace").split("\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture
def demo() -> t.Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo, running, and what marks all of its processes."""
    mark = f"DEMO_TEST={secrets.token_hex(8)}"
    # A shell starts what runs in its background with SIGINT ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, _equals, value = mark.partition("=")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cypher_erp.demo"],
        cwd=REPOSITORY,
        env={**os.environ, name: value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process, mark
        process.kill()


def test_the_demo_ends_well_and_leaves_nothing_running(demo: tuple[subprocess.Popen[str], str]) -> None:
    process, mark = demo
    output, _errors = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, output
    assert "b2b.orders is gone" in output
    assert "as release 0002" in output
    kept = Path(output.split("all output")[1].split()[0])
    assert "every product costs 0.00 now" in output
    assert "every price is what it was" in output
    assert "the ruined database is kept as cypher_erp_replaced_" in output
    logs = {"preview.log", "rollback.log", "backup.log", "emergency.log", "shop.log"}
    assert {*logs, "backups"} <= {item.name for item in kept.iterdir()}
    assert wait_until(lambda: not processes_with(mark), 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_running(
    demo: tuple[subprocess.Popen[str], str], number: signal.Signals
) -> None:
    process, mark = demo
    assert process.stdout is not None
    seen = next((line for line in process.stdout if line.startswith("2. The preview")), None)
    assert seen
    wait_until(lambda: len(processes_with(mark)) > 3, 20)
    # As a terminal does: to the whole group.
    os.killpg(process.pid, number)
    output, _errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert wait_until(lambda: not processes_with(mark), 10)
