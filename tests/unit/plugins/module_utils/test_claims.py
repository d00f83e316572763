# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The claim: one holder, named to others, taken over only when certainly dead or long silent."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import claims, journal

CONTROLLER = {
    "host": "ctl1", "boot_id": "b1", "pid_namespace": "pid:[1]", "pid": "77", "started": "1000", "user": "ana", "job": "42"
}  # fmt: skip


def claim(run_id: str, **controller: str) -> dict[str, t.Any]:
    return {"run_id": run_id, "runbook": "rollback", "controller": {**CONTROLLER, **controller}}


@pytest.fixture
def held(tmp_path: pathlib.Path) -> claims.Claims:
    for run_id in ("r1", "r2"):
        journal.append(
            journal.make_run_folder(str(tmp_path), run_id),
            journal.journal_line(run_id, "stage", "T", stage="stop", status="started"),
        )
    found = claims.Claims(str(tmp_path), "77-cypher_erp")
    assert found.take(claim("r1")) == (True, None)
    return found


def age(held: claims.Claims, seconds: float) -> None:
    then = time.time() - seconds
    for path in (held.path, os.path.join(held.run_dir, "r1", journal.JOURNAL)):
        os.utime(path, (then, then))


def test_a_second_run_is_told_who_the_first_is(held: claims.Claims) -> None:
    with pytest.raises(claims.ClaimHeld) as refused:
        held.take(claim("r2", pid="78"))
    for fact in ("r1", "ana", "ctl1", "process 77", "job 42", "Nothing was stopped", f"rm {held.path}"):
        assert fact in str(refused.value)
    assert refused.value.outcome == "refused"
    assert refused.value.details["held_by"]["run_id"] == "r1"


def test_check_mode_refuses_as_well_and_writes_nothing(held: claims.Claims) -> None:
    before = sorted(os.listdir(held.run_dir))
    with pytest.raises(claims.ClaimHeld):
        held.check(claim("r2", pid="78"))
    assert claims.Claims(held.run_dir, "77-other").check(claim("r2")) is None
    assert sorted(os.listdir(held.run_dir)) == before


def test_the_same_run_may_ask_again_but_not_another_with_its_name(held: claims.Claims) -> None:
    assert held.take(claim("r1")) == (False, None)
    with pytest.raises(claims.ClaimHeld):
        held.take(claim("r1", pid="78"))


def test_another_database_is_another_claim(held: claims.Claims) -> None:
    other = claims.Claims(held.run_dir, "77-../../etc/passwd \n")
    assert other.take(claim("r2", pid="78"))[0]
    assert os.path.dirname(other.path) == held.run_dir


def test_only_the_holder_gives_it_back(held: claims.Claims) -> None:
    assert not held.release(claim("r2"))
    assert not held.release(claim("r1", pid="78"))
    assert held.release(claim("r1"))
    assert not held.release(claim("r1"))
    assert held.take(claim("r2")) == (True, None)


def test_silence_makes_it_stale_and_a_line_in_the_journal_does_not(held: claims.Claims) -> None:
    age(held, 1000)
    journal.append(os.path.join(held.run_dir, "r1"), "{}")
    with pytest.raises(claims.ClaimHeld):
        held.take(claim("r2", host="ctl2"))
    age(held, 1000)
    new, stale = held.take(claim("r2", host="ctl2"))
    assert new
    assert stale is not None
    assert stale["run_id"] == "r1"
    assert "stage stop started" in claims.last_words(held.folder_of(stale))


def test_a_dead_process_loses_it_at_once_and_only_that_process(held: claims.Claims) -> None:
    with pytest.raises(claims.ClaimHeld):
        held.take(claim("r2", pid="78"), dead={**CONTROLLER, "started": "999"})
    assert held.take(claim("r2", pid="78"), dead=CONTROLLER)[0]


def test_neither_death_nor_silence_counts_while_a_module_works(held: claims.Claims) -> None:
    age(held, 10_000)
    with journal.at_work(os.path.join(held.run_dir, "r1")):
        age(held, 10_000)
        with pytest.raises(claims.ClaimHeld, match="at work on the database host"):
            held.take(claim("r2", pid="78"), dead=CONTROLLER)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"other": 1}', "\x00"])
def test_a_claim_that_cannot_be_read_is_no_free_claim(held: claims.Claims, content: str) -> None:
    pathlib.Path(held.path).write_text(content)
    with pytest.raises(claims.ClaimImpossible, match="rm /"):
        held.take(claim("r2"))


def test_of_many_processes_in_the_same_moment_one_wins(tmp_path: pathlib.Path) -> None:
    program = (
        "import sys\n"
        "from ansible_collections.cypher.rollback.plugins.module_utils import claims\n"
        "held = claims.Claims(sys.argv[1], '77-db')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    held.take({'run_id': sys.argv[2], 'controller': {'pid': sys.argv[2]}}); print('won')\n"
        "except claims.ClaimHeld as err:\n    print(err.details['held_by']['run_id'])\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"r{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(6)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert answers.count("won") == 1
    assert set(answers) == {"won", f"r{answers.index('won')}"}
