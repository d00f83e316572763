# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dead run left: how far it came, what is said of it, and when it may be gone on with."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import journal, resume
from ansible_collections.cypher.rollback.plugins.module_utils.errors import OutcomeUnknown

TARGET = {"host": "db1", "port": "5432", "db": "cypher_erp"}
WANTED: dict[str, t.Any] = {
    "runbook": "rollback",
    "target": TARGET,
    "asked": {},
    "settings": {"rollback_previous_ref": ["v2"]},
}
COMMAND = "ansible-playbook -i hosts cypher.rollback"


class Run:
    """A run's folder, written as the runbook writes it."""

    def __init__(self, runs: pathlib.Path, run_id: str = "r1", **begun: t.Any) -> None:
        self.run_id = run_id
        self.folder = journal.make_run_folder(str(runs), run_id)
        self._second = 0
        record = {
            "runbook": "rollback", "asked": {"version": "0003", "tables": ""}, "target": TARGET, "settings": WANTED["settings"],
            "controller": {"user": "ana", "host": "ctl1"}, **begun,
        }  # fmt: skip
        self.event("begun", **record)

    def event(self, event: str, **fields: t.Any) -> None:
        self._second += 1
        at = f"2026-11-22T03:00:{self._second:02}.000Z"
        journal.append(self.folder, journal.journal_line(self.run_id, event, at, **fields))

    def begin(self, stage: str) -> Run:
        self.event("stage", stage=stage, status="started")
        return self

    def end(self, stage: str, result: t.Any = None, status: str = "finished", fact: str = "") -> Run:
        fact = fact or f"{stage}_result"
        journal.write_result(self.folder, fact, journal.result_text(stage, status, result or {}))
        self.event("stage", stage=stage, status=status, fact=fact)
        return self

    def note(self, stage: str, fact: str, value: t.Any) -> Run:
        journal.write_result(self.folder, fact, journal.result_text(stage, "noted", value))
        return self

    def stopped(self) -> Run:
        self.begin("plan").end("plan", {"plan": {"versions": ["0003"]}}).begin("stop").note(
            "stop", "stop_ran_before", ["app1"]
        )
        return self.end("stop", {"to_restart": ["app1"], "hosts": {}})

    def left(self) -> resume.Left:
        return resume.read_run(self.folder)


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    return Run(tmp_path / "runs")


def test_results_come_back_with_the_stages_that_finished(run: Run) -> None:
    left = run.stopped().begin("backup").left()
    assert left.facts["stop_result"]["to_restart"] == ["app1"]
    assert (left.finished, left.open, left.has_acted) == (["plan", "stop"], "backup", True)
    assert {"plan", "preflight", "checklist", "early_backup"} <= set(left.done)
    assert left.stages[0]["started_at"] == "2026-11-22T03:00:02.000Z"


def test_a_result_whose_stage_did_not_end_is_not_trusted(run: Run) -> None:
    run.stopped().begin("backup")
    journal.write_result(
        run.folder, "backup_result", journal.result_text("backup", "finished", {"backup": {"id": "b"}})
    )
    left = run.left()
    assert "backup_result" not in left.facts
    assert "backup" not in left.done


def test_what_ran_before_a_stop_that_did_not_end_has_to_run_again(run: Run) -> None:
    run.begin("plan").end("plan").begin("stop").note("stop", "stop_ran_before", ["app1/web", "app2"])
    left = run.left()
    assert left.facts["stop_result"]["to_restart"] == ["app1/web", "app2"]
    assert "stop" not in left.done
    assert "The application was just being stopped on app1, app2." in resume.describe(left)


def test_a_result_of_any_size_is_private_and_whole(run: Run) -> None:
    umask = os.umask(0)
    try:
        run.begin("plan").end("plan", {"lines": ["x" * 1000] * 1000, "invocation": {"module_args": {}}})
    finally:
        os.umask(umask)
    left = run.left()
    assert len(left.facts["plan_result"]["lines"]) == 1000
    assert "invocation" not in left.facts["plan_result"]
    [path] = pathlib.Path(run.folder, "stages").iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("fact", ["", "../x", "a/b", "A", "x" * 65])
def test_a_result_stays_in_its_folder(run: Run, fact: str) -> None:
    with pytest.raises(journal.RunFolderRefused, match="cannot be the name of a stage's result"):
        journal.result_file(run.folder, fact)


def test_a_run_on_its_way_back(run: Run) -> None:
    run.stopped().begin("rollback").end("rollback", {"message": "division by zero"}, "failed", "rollback_failure")
    left = run.begin("restart").end("restart").left()
    assert left.failure == {"message": "division by zero"}
    assert left.recovered == ["restart"]
    assert "It was on its way back" in resume.describe(left)


# --- what is said ------------------------------------------------------------------------------------------------------


def refusal(left: resume.Left, ask: t.Any = None) -> str:
    with pytest.raises(resume.RunDied) as refused:
        resume.refuse_beginning(left, COMMAND, ask)
    assert refused.value.details == {"died": "r1"}
    return str(refused.value)


def test_the_next_start_says_what_state_things_are_in(run: Run) -> None:
    assert refusal(run.stopped().begin("backup").left()) == (
        "Run r1 (rollback version=0003, begun at 2026-11-22T03:00:01.000Z by ana on ctl1) died in the stage backup. "
        "The application is stopped on app1. The database is as it was. Its last finished stage is stop. Nothing was done by this run. "
        "To begin anew, with everything as it is now, add -e abandon=r1 to the command of now."
        "\nTo go on with it: ansible-playbook -i hosts cypher.rollback.rollback -e resume=r1"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("committed", "The DOWN was committed."),
        ("aborted", "The DOWN was not committed."),
        ("in progress", "The DOWN is still at work."),
        (None, "Whether the DOWN was committed is not known here: SELECT pg_xact_status('777')."),
    ],
)
def test_a_run_that_died_at_its_commit(run: Run, status: str | None, said: str) -> None:
    run.stopped().begin("rollback")
    assert "The DOWN was not committed." in refusal(run.left())
    assert resume.note_commit(run.folder, "rollback", "777", {"committed": True}) == ""
    asked = []

    def ask(xid: str) -> str | None:
        asked.append(xid)
        return status

    assert said in refusal(run.left(), ask)
    assert asked == ["777"]


@pytest.mark.parametrize(
    ("status", "unchanged"), [("committed", False), ("aborted", True), ("in progress", False), (None, False)]
)
def test_whether_the_database_is_certainly_as_it_was(run: Run, status: str | None, unchanged: bool) -> None:
    assert resume.is_unchanged(run.stopped().begin("backup").left())
    assert resume.is_unchanged(run.begin("rollback").left())
    resume.note_commit(run.folder, "rollback", "777", {"committed": True})
    assert resume.is_unchanged(run.left(), lambda _xid: status) is unchanged
    assert not resume.is_unchanged(run.left())
    assert not resume.is_unchanged(run.end("rollback", {"committed": True}).left(), lambda _xid: "aborted")


def test_the_same_command_takes_the_place_of_a_dead_run(run: Run) -> None:
    left = run.stopped().begin("backup").left()
    asked = {"version": "0003", "to_version": "", "run_id": "other"}
    assert resume.is_same(left, "rollback", asked)
    assert not resume.is_same(left, "rollback", {"version": "0002"})
    assert not resume.is_same(left, "undo_rollback", asked)
    assert resume.is_same(left, "emergency_rollback", {"backup": "b1"})
    said = resume.in_its_place(left, COMMAND)
    assert "The application is stopped on app1. The database is as it was." in said
    assert "This run begins anew in its place, and starts the application on app1 at its end." in said
    assert "cypher.rollback.rollback -e resume=<run id>" in said


def test_a_run_that_died_before_its_own_stop_hands_on_what_another_had_stopped(run: Run) -> None:
    run.begin("plan")
    assert not run.left().has_acted
    run.note("stop", "stop_ran_before", ["app1"])
    left = run.left()
    assert (left.has_acted, left.has_stopped, resume.ran_before(left)) == (True, False, ["app1"])
    assert "plan" not in left.done
    assert "The application is stopped on app1, by a run before it." in resume.describe(left)


def test_a_finished_exchange_is_said_to_be_one(run: Run) -> None:
    run.stopped().begin("swap").end("swap", {"swapped": True}).begin("restart")
    said = refusal(run.left())
    assert (
        "died in the stage restart. The application was stopped on app1, and was just being started. The exchange of the databases was committed."
        in said
    )


def test_a_run_that_stopped_nothing_or_ended_or_was_given_up_is_in_nobodys_way(run: Run) -> None:
    resume.refuse_beginning(run.begin("plan").left(), COMMAND)
    run.stopped()
    refusal(run.left())
    run.event("abandoned", by="r2")
    resume.refuse_beginning(run.left(), COMMAND)


# --- a COMMIT whose answer nobody heard -------------------------------------------------------------------------------


def test_a_committed_stage_is_not_done_again(run: Run) -> None:
    run.stopped().begin("rollback")
    resume.note_commit(run.folder, "rollback", "777", {"committed": True, "effect": {}})
    before = run.left()
    settled = resume.settle_commit(before, lambda _xid: "committed")
    assert settled.facts["rollback_result"] == {"committed": True, "effect": {}}
    assert settled.finished[-1] == "rollback"
    resume.keep_settled(before, settled)
    again = run.left()
    assert (again.finished[-1], again.facts["rollback_result"]["committed"], again.open) == ("rollback", True, "")


def test_an_undone_one_is_done_again_and_an_open_one_is_waited_for(run: Run) -> None:
    run.stopped().begin("rollback")
    assert resume.settle_commit(run.left(), lambda _xid: pytest.fail("nothing to ask")).open == "rollback"
    resume.note_commit(run.folder, "rollback", "777", {})
    assert resume.settle_commit(run.left(), lambda _xid: "aborted").open == "rollback"
    with pytest.raises(resume.NotResumable, match=r"still works on that transaction \(777\)"):
        resume.settle_commit(run.left(), lambda _xid: "in progress")
    with pytest.raises(OutcomeUnknown, match=r"does not know any more what became of transaction 777.*-e abandon=r1"):
        resume.settle_commit(run.left(), lambda _xid: None)


def test_the_transaction_of_another_stage_says_nothing(run: Run) -> None:
    run.stopped().begin("swap")
    resume.note_commit(run.folder, "swap", "777", {"swapped": True, "kept": "old"})
    run.end("swap", {"swapped": True, "kept": "old"}).begin("swap_back")
    assert resume.noted_commit(run.left()) == {}
    resume.note_commit(run.folder, "swap_back", "778", {"kept": "new"})
    settled = resume.settle_commit(run.left(), lambda _xid: "committed")
    assert settled.facts["swap_result"] == {"swapped": True, "swapped_back": True, "kept": "new"}


# --- whether it may be gone on with -----------------------------------------------------------------------------------


def not_resumable(left: resume.Left, **wanted: t.Any) -> str:
    with pytest.raises(resume.NotResumable) as refused:
        resume.refuse_resuming(left, {**WANTED, **wanted}, resume.resumable(os.path.dirname(left.folder)))
    return str(refused.value)


def test_the_run_that_is_meant_is_gone_on_with(run: Run) -> None:
    run.stopped()
    for asked in ({}, {"version": ""}, {"version": "0003"}):
        resume.refuse_resuming(run.left(), {**WANTED, "asked": asked}, [])


def test_another_run_than_the_one_that_is_meant_is_refused(run: Run) -> None:
    left = run.stopped().left()
    assert not_resumable(left, asked={"version": "0002"}) == (
        'Run r1 was begun with version "0003", and now it is "0002". Nothing was done. Leave it out: the run knows it.'
    )
    assert not_resumable(left, target={**TARGET, "db": "other"}).startswith(
        'Run r1 was begun with db "cypher_erp", and now it is "other".'
    )
    assert not_resumable(left, settings={"rollback_previous_ref": [""]}).endswith(
        "Set it as it was, then resume again."
    )
    assert (
        not_resumable(left, runbook="swap_back")
        == "Run r1 is of the runbook rollback, not of swap_back. Resume it with rollback.yml."
    )


def test_a_run_that_is_not_there_or_has_ended_names_those_that_are(run: Run) -> None:
    runs = os.path.dirname(run.folder)
    assert (
        not_resumable(resume.read_run(os.path.join(runs, "r9")))
        == f"There is no run r9 in {runs}. There is none that could be resumed."
    )
    run.stopped()
    assert (
        not_resumable(resume.read_run(os.path.join(runs, "r9")))
        == f"There is no run r9 in {runs}. Those that can be resumed: r1."
    )
    run.event("finished", outcome="rolled_back")
    assert "Run r1 has ended as rolled_back, so there is nothing to go on with." in not_resumable(run.left())


def test_a_folder_that_lacks_something_is_not_guessed_at(run: Run) -> None:
    run.stopped()
    pathlib.Path(run.folder, "stages", "stop_result.json").write_text('{"stage": "st', encoding="utf-8")
    said = not_resumable(run.left())
    assert f"Run r1 cannot be resumed, because its folder {run.folder} lacks the results stop_result." in said
    assert said.endswith("To begin anew, with everything as it is now: -e abandon=r1.")
    path = pathlib.Path(run.folder, "journal.jsonl")
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[1:]), encoding="utf-8")
    assert "lacks" in not_resumable(run.left())
