# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run ended, decided from what its stages left behind."""

from __future__ import annotations

import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Stages that change neither a database nor an application. A failure in one of them is a refusal.
BEFORE = ("", "plan", "claim", "confirm", "checklist", "preflight", "early_backup", "assess")

#: Stages that come when nothing of the database has changed yet, but an application may have been stopped.
UNTIL_ROLLBACK = ("stop", "backup", "restore")

#: Outcomes with which ansible-playbook exits 0.
GOOD = (
    "rolled_back",
    "restored",
    "backed_up",
    "assessed",
    "verified",
    "backups_valid",
    "restarted",
    "nothing_to_do",
    "planned",
)

#: Runbooks that put a backup, or a database that was kept, in the place of the live one.
RESTORING = ("emergency_rollback", "undo_rollback", "swap_back")

Facts = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class State:
    """What matters for the outcome.

    :param kind: what the run is for: ``rollback``, ``restore``, ``backup``, ``assess`` or ``verify``.
    :param failed_stage: name of the stage that failed; ``None`` when none did.
    :param failed_outcome: outcome that the failing error names itself; empty when it names none.
    :param committed: the DOWN was committed, or another database has the live one's name and was not exchanged back.
    :param already: nothing had to be put back: the tables are as in the backup.
    :param proven: what ran after the commit says that it succeeded; of a backup, that it was published.
    :param stopped: an application was really stopped.
    :param running_again: every application that was stopped runs again.
    """

    kind: str = "rollback"
    check_mode: bool = False
    nothing_to_do: bool = False
    failed_stage: str | None = None
    failed_outcome: str = ""
    committed: bool = False
    already: bool = False
    proven: bool = False
    stopped: bool = False
    running_again: bool = True

    @property
    def failed(self) -> bool:
        """Whether a stage failed."""
        return self.failed_stage is not None


#: The first rule that holds decides.
RULES: tuple[tuple[str, Callable[[State], bool]], ...] = (
    ("verified", lambda state: state.kind == "verify" and _well(state)),
    ("needs_attention", lambda state: state.kind == "verify" and state.failed_outcome == "needs_attention"),
    ("refused", lambda state: state.kind == "verify"),
    ("refused", lambda state: state.check_mode and state.failed),
    ("nothing_to_do", lambda state: state.nothing_to_do and not state.failed),
    ("planned", lambda state: state.check_mode),
    ("rolled_back", lambda state: state.kind == "rollback" and state.committed and _well(state)),
    ("restored", lambda state: state.kind == "restore" and (state.committed or state.already) and _well(state)),
    ("backed_up", lambda state: state.kind == "backup" and _well(state)),
    ("assessed", lambda state: state.kind == "assess" and _well(state)),
    ("needs_attention", lambda state: state.committed),
    ("unknown", lambda state: state.failed_outcome == "unknown"),
    ("needs_attention", lambda state: not _up(state)),
    ("failed_unchanged", lambda state: state.stopped),
    ("refused", lambda state: (state.failed_stage or "") in BEFORE),
    ("refused", lambda state: state.failed_outcome == "refused" and state.failed_stage in UNTIL_ROLLBACK),
    ("failed_unchanged", lambda _: True),
)


def _well(state: State) -> bool:
    return state.proven and not state.failed and _up(state)


def _up(state: State) -> bool:
    return not state.stopped or state.running_again


def decide(state: State) -> str:
    """The outcome, one of the contract's words."""
    return next(outcome for outcome, holds in RULES if holds(state))


def state_of(run: Facts) -> State:
    """The state that a run's facts describe; any of them may be missing."""
    failure = facts(run, "rollback_failure")
    stopped = stopped_hosts(run)
    return State(
        kind=kind_of(run),
        check_mode=bool(run.get("check_mode")),
        nothing_to_do=plan_of(run).get("outcome") == "nothing_to_do",
        failed_stage=str(failure.get("stage") or "") if failure else None,
        failed_outcome=str(failure.get("outcome") or ""),
        committed=is_committed(run),
        already=facts(run, "restore_tables_result").get("committed") is False,
        proven=is_proven(run),
        stopped=bool(stopped),
        running_again=not still_down(run),
    )


def kind_of(run: Facts) -> str:
    """What a run is for, by its runbook's name."""
    runbook = str(run.get("runbook") or "")
    return "restore" if runbook in RESTORING else runbook if runbook in ("backup", "assess", "verify") else "rollback"


def plan_of(run: Facts) -> dict[str, t.Any]:
    """The result of the stage plan, whichever role left it."""
    return facts(run, "restore_plan_result") or facts(run, "plan_result")


def facts(run: Facts, name: str) -> dict[str, t.Any]:
    """One stage's result; empty when that stage left none."""
    value = run.get(name)
    return dict(value) if value and hasattr(value, "items") else {}


def hosts_of(result: Facts) -> dict[str, dict[str, t.Any]]:
    """What an application stage did, by host; its result may hold a mapping or a list."""
    hosts = result.get("hosts") or {}
    if hasattr(hosts, "items"):
        return {str(name): dict(entry or {}) for name, entry in hosts.items()}
    return {str(entry.get("host")): dict(entry) for entry in hosts}


def stopped_hosts(run: Facts) -> list[str]:
    """Hosts whose application this run stopped, or tried to stop and so must prove to run again."""
    stop = facts(run, "stop_result")
    stopped = [name for name, host in hosts_of(stop).items() if host.get("stopped")]
    # A host, or one unit of a host after a slash.
    told = [str(entry).partition("/")[0] for entry in stop.get("to_restart") or []]
    return list(dict.fromkeys([*stopped, *told]))


def failed_checks(checks: t.Iterable[Facts]) -> list[Facts]:
    """The checks or tests that failed; what is skipped or mere information is none of them."""
    return [check for check in checks if check.get("status") not in ("passed", "skipped", "information")]


def still_down(run: Facts) -> list[str]:
    """Hosts whose application was stopped, or was to be started, and does not run."""
    started = hosts_of(facts(run, "restart_result"))
    missing = [name for name in stopped_hosts(run) if not _runs(started.get(name, {}))]
    refused = [name for name, host in started.items() if host.get("failed") and not _runs(host)]
    return missing + [name for name in refused if name not in missing]


def _runs(host: Mapping[str, t.Any]) -> bool:
    running = host.get("running")
    return bool(host.get("started") if running is None else running) and not host.get("failed")


def is_committed(run: Facts) -> bool:
    """Whether the database is another one than before, by the stage's result or by the error that followed."""
    if kind_of(run) == "restore":
        return is_swapped(run) or _is_told(run, "restore_tables")
    return _is_told(run, "rollback")


def is_swapped(run: Facts) -> bool:
    """Whether the live name is known to belong to another database than before the run, and was not given back."""
    swap = facts(run, "swap_result")
    if swap.get("swapped_back") or is_way_back_unknown(run):
        return False
    failure = facts(run, "rollback_failure")
    told = failure.get("stage") == "swap" and (
        failure.get("outcome") == "needs_attention" or facts(failure, "details").get("swapped")
    )
    return bool(swap.get("swapped") or told)


def is_way_back_unknown(run: Facts) -> bool:
    """Whether the databases were exchanged, and nobody knows whether they were exchanged back."""
    swap = facts(run, "swap_result")
    lost = facts(run, "rollback_failure").get("outcome") == "unknown"
    return bool(swap.get("swapped")) and not swap.get("swapped_back") and lost


def needs_previous_code(run: Facts) -> bool:
    """Whether the database that this run leaves, once it did what it is for, is one that the previous release fits."""
    runbook = str(run.get("runbook") or "rollback")
    if runbook == "emergency_rollback":
        return not facts(run, "restore_tables_result") and not facts(run, "asked").get("tables")
    return runbook in ("rollback", "rollback_object")


def _is_told(run: Facts, stage: str) -> bool:
    """Whether a stage that changes the live database committed; where its result does not say, the error does."""
    failure = facts(run, "rollback_failure")
    committed = facts(run, f"{stage}_result").get("committed")
    if committed is None:
        committed = facts(failure, "details").get("committed")
    return bool(committed) or (failure.get("stage") == stage and failure.get("outcome") == "needs_attention")


def verification_of(run: Facts) -> dict[str, t.Any]:
    """The verification: that of its own stage, of the error that ended it, or of the rollback's transaction."""
    details = facts(facts(run, "rollback_failure"), "details")
    for source in (facts(run, "verify_result"), details, facts(run, "rollback_result")):
        if facts(source, "verification"):
            return facts(source, "verification")
    return {}


def is_proven(run: Facts) -> bool:
    """Whether the run's own proof is there, and nothing that ran after it says otherwise."""
    smoke = facts(run, "smoke_test_result").get("passed")
    return _PROOFS[kind_of(run)](run) and smoke is not False and not still_down(run)


#: A restored database is compared before it is exchanged, and is not exchanged where that fails.
_PROOFS: dict[str, Callable[[Facts], bool]] = {
    "rollback": lambda run: verification_of(run).get("passed") is True,
    "restore": lambda run: facts(run, "restore_result").get("compared") is not False,
    "verify": lambda run: verification_of(run).get("passed") is True,
    "backup": lambda run: bool(facts(facts(run, "backup_result"), "backup").get("path")),
    "assess": lambda run: bool(facts(facts(run, "assess_result"), "severity").get("level")),
}
