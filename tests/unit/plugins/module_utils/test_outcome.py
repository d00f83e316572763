# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome: every combination of what matters."""

from __future__ import annotations

import dataclasses
import itertools
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.outcome import State, decide, state_of

STAGES = (None, "", "plan", "claim", "stop", "backup", "rollback", "verify", "restart", "smoke_test", "something")
CHOICES: dict[str, tuple[t.Any, ...]] = {
    "kind": ("rollback", "restore", "backup"),
    "check_mode": (False, True),
    "nothing_to_do": (False, True),
    "failed_stage": STAGES,
    "failed_outcome": ("", "refused", "failed_unchanged", "needs_attention", "unknown"),
    "committed": (False, True),
    "proven": (False, True),
    "stopped": (False, True),
    "running_again": (False, True),
}
STATES = [State(**dict(zip(CHOICES, values, strict=True))) for values in itertools.product(*CHOICES.values())]
REAL = [state for state in STATES if not state.check_mode]


def outcomes(states: t.Iterable[State]) -> set[str]:
    return {decide(state) for state in states}


def test_check_mode_is_planned_refused_or_nothing_to_do() -> None:
    preview = [state for state in STATES if state.check_mode]
    assert outcomes(state for state in preview if state.failed) == {"refused"}
    assert outcomes(state for state in preview if not state.failed and state.nothing_to_do) == {"nothing_to_do"}
    assert outcomes(state for state in preview if not state.failed and not state.nothing_to_do) == {"planned"}


def test_a_failure_never_ends_well() -> None:
    bad = {"refused", "failed_unchanged", "needs_attention", "unknown"}
    assert outcomes(state for state in STATES if state.failed) == bad


def test_rolled_back_needs_commit_proof_and_a_running_application() -> None:
    for outcome, kind in (("rolled_back", "rollback"), ("restored", "restore"), ("backed_up", "backup")):
        good = [state for state in REAL if decide(state) == outcome]
        assert good
        for state in good:
            assert state.kind == kind
            assert state.committed or kind == "backup"
            assert state.proven
            assert state.running_again or not state.stopped
            assert not state.failed


def test_after_a_commit_nothing_is_called_unchanged_or_refused() -> None:
    committed = [state for state in REAL if state.committed and (state.failed or not state.nothing_to_do)]
    assert outcomes(committed) == {"rolled_back", "restored", "backed_up", "needs_attention"}


def test_a_stopped_application_is_never_hidden_by_unchanged() -> None:
    down = [
        state for state in REAL if state.stopped and not state.running_again and state.failed and not state.committed
    ]
    assert outcomes(down) == {"needs_attention", "unknown"}


def test_refused_means_that_nothing_was_stopped() -> None:
    assert all(not state.stopped for state in REAL if decide(state) == "refused")


def test_unknown_is_kept_whatever_else_is_known() -> None:
    lost = [state for state in REAL if state.failed and state.failed_outcome == "unknown" and not state.committed]
    assert outcomes(lost) == {"unknown"}


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (State(), "refused"),
        (State(failed_stage="plan", failed_outcome="refused"), "refused"),
        (State(failed_stage="claim"), "refused"),
        (State(failed_stage="plan", nothing_to_do=True), "refused"),
        (State(failed_stage="stop", stopped=True), "failed_unchanged"),
        (State(failed_stage="stop"), "failed_unchanged"),
        (State(failed_stage="backup", failed_outcome="refused"), "refused"),
        (State(failed_stage="backup", failed_outcome="refused", stopped=True), "failed_unchanged"),
        (State(failed_stage="rollback", failed_outcome="refused"), "failed_unchanged"),
        (State(failed_stage="rollback", stopped=True, running_again=False), "needs_attention"),
        (State(failed_stage="smoke_test", committed=True, proven=True), "needs_attention"),
        (State(committed=True, proven=False), "needs_attention"),
        (State(committed=True, proven=True, stopped=True), "rolled_back"),
        (State(nothing_to_do=True), "nothing_to_do"),
        (State(kind="restore", committed=True, proven=True, stopped=True), "restored"),
        (State(kind="restore", already=True, proven=True, stopped=True), "restored"),
        (State(kind="restore", failed_stage="smoke_test", proven=True, stopped=True), "failed_unchanged"),
        (State(kind="restore", failed_stage="confirm"), "refused"),
        (State(kind="restore", failed_stage="restore", failed_outcome="failed_unchanged", stopped=True), "failed_unchanged"),
        (State(kind="restore", failed_stage="swap", failed_outcome="unknown", stopped=True), "unknown"),
        (State(kind="backup", proven=True), "backed_up"),
        (State(kind="backup", failed_stage="backup", failed_outcome="refused"), "refused"),
        (State(stopped=True, running_again=False), "needs_attention"),
    ],
    ids=lambda value: str({key: entry for key, entry in dataclasses.asdict(value).items() if entry}) if isinstance(value, State) else value,
)  # fmt: skip
def test_by_name(state: State, outcome: str) -> None:
    assert decide(state) == outcome


def hosts(**entries: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"hosts": entries}


STOPPED = hosts(app1={"was_running": True, "stopped": True})
STARTED = hosts(app1={"started": True})
VERIFIED = {"verification": {"passed": True, "checks": []}}


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({}, State()),
        ({"plan_result": None, "rollback_failure": ""}, State()),
        ({"stop_result": STOPPED}, State(stopped=True, running_again=False)),
        ({"stop_result": STOPPED, "restart_result": STARTED}, State(stopped=True)),
        ({"stop_result": {"to_restart": ["app1/web", "app1/worker"]}, "restart_result": STARTED}, State(stopped=True)),
        (
            {"stop_result": STOPPED, "restart_result": hosts(app1={"started": True, "running": False})},
            State(stopped=True, running_again=False),
        ),
        (
            {"stop_result": STOPPED, "restart_result": hosts(app1={"started": False, "running": True})},
            State(stopped=True),
        ),
        (
            {"rollback_failure": {"stage": "restart", "outcome": "needs_attention"}},
            State(failed_stage="restart", failed_outcome="needs_attention"),
        ),
        ({"stop_result": {"to_restart": ["app1"]}}, State(stopped=True, running_again=False)),
        (
            {"stop_result": STOPPED, "restart_result": hosts(app1={"started": True, "failed": True})},
            State(stopped=True, running_again=False),
        ),
        (
            {"stop_result": STOPPED, "restart_result": {"hosts": [{"host": "app1", "running": True}]}},
            State(stopped=True),
        ),
        ({"rollback_result": {"committed": True}}, State(committed=True)),
        ({"rollback_result": {"committed": True}, "verify_result": VERIFIED}, State(committed=True, proven=True)),
        ({"rollback_result": {"committed": True, **VERIFIED}}, State(committed=True, proven=True)),
        (
            {"rollback_result": {"committed": True}, "verify_result": VERIFIED, "smoke_test_result": {"passed": False}},
            State(committed=True),
        ),
        ({"rollback_failure": {"message": "x"}}, State(failed_stage="")),
        (
            {"runbook": "emergency_rollback", "swap_result": {"swapped": True}, "restore_result": {"compared": True}},
            State(kind="restore", committed=True, proven=True),
        ),
        (
            {"runbook": "emergency_rollback", "swap_result": {"swapped": True, "swapped_back": True}},
            State(kind="restore", proven=True),
        ),
        (
            {"runbook": "swap_back", "rollback_failure": {"stage": "swap", "outcome": "unknown"}},
            State(kind="restore", failed_stage="swap", failed_outcome="unknown", proven=True),
        ),
        (
            {"runbook": "undo_rollback", "restore_tables_result": {"committed": False}},
            State(kind="restore", already=True, proven=True),
        ),
        (
            {"runbook": "backup", "backup_result": {"backup": {"path": "/backups/b1"}}},
            State(kind="backup", proven=True),
        ),
        (
            {"rollback_failure": {"stage": "rollback", "outcome": "needs_attention"}},
            State(failed_stage="rollback", failed_outcome="needs_attention", committed=True),
        ),
        (
            {"rollback_failure": {"stage": "verify", "details": {"committed": True}}},
            State(failed_stage="verify", committed=True),
        ),
    ],
)
def test_the_state_is_read_from_whatever_facts_there_are(run: dict[str, t.Any], expected: State) -> None:
    assert state_of(run) == expected
