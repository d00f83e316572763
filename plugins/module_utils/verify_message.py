# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told after a verification by itself."""

from __future__ import annotations

import typing as t

from .outcome import Facts, facts, failed_checks, verification_of
from .phrases import capital, count, database, join, lines, playbook, sentence, without_outcome
from .visible import visible


def sentences() -> dict[str, t.Callable[[Facts], str]]:
    """What is said by outcome."""
    return {"verified": _verified, "needs_attention": _needs_attention, "refused": _refused}


def next_commands(outcome: str, run: Facts) -> list[str]:
    """How urgent it is, and the same verification once more."""
    return [playbook(run, "assess"), playbook(run, "verify")] if outcome == "needs_attention" else []


def _checks(run: Facts) -> list[Facts]:
    return list(verification_of(run).get("checks") or [])


def _verified(run: Facts) -> str:
    checks = _checks(run)
    passed = [check for check in checks if check.get("status") == "passed"]
    return join(
        f"{capital(_name(run))} is verified: {count(len(passed), 'check')} passed, none failed, "
        f"{len(checks) - len(passed)} only report. Nothing was changed.",
        _not_checked(checks),
    )


def _not_checked(checks: t.Sequence[Facts]) -> str:
    missed = [visible(check.get("name")) for check in checks if str(check.get("actual")).startswith("not checked")]
    return f"NOT checked: {', '.join(missed)}; the table says why." if missed else ""


def _needs_attention(run: Facts) -> str:
    checks = _checks(run)
    failed = [f"{visible(check.get('name'))} ({visible(check.get('actual'))})" for check in failed_checks(checks)]
    return lines(
        f"The verification of {_name(run)} failed: {'; '.join(failed)}. Nothing was changed.",
        _not_checked(checks),
        f"How urgent that is: {playbook(run, 'assess')}",
        f"Once it is put right: {playbook(run, 'verify')}",
    )


def _refused(run: Facts) -> str:
    said = sentence(without_outcome(facts(run, "rollback_failure").get("message")))
    said = said or "The verification ended without a result; look at the task that failed."
    return said if "othing was" in said else join(said, "Nothing was stopped or changed.")


def _name(run: Facts) -> str:
    return database({**run, "target": facts(facts(run, "verify_result"), "target") or facts(run, "target")})
