# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checklists before and after a rollback: what a program can check is checked, the rest a person has to say.

The items are those of the sections 3.1 and 3.3 of the source document, in its order and its words.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .answers import yes_or_no
from .errors import Refused

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Item = dict[str, t.Any]

#: Section 3.1.
BEFORE = {
    "problem_confirmed": {"ro": "Probleme confirmate", "en": "The problem is confirmed"},
    "impact_assessed": {"ro": "Impact evaluat", "en": "Its impact is assessed"},
    "rollback_planned": {"ro": "Rollback planificat", "en": "The rollback is planned"},
    "backup_available": {"ro": "Backup verificat disponibil", "en": "A verified backup is available"},
    "team_notified": {"ro": "Echipa notificată", "en": "The team is notified"},
    "downtime_estimated": {"ro": "Timp de stoppage estimat", "en": "The time of the stop is estimated"},
    "stakeholders_notified": {"ro": "Stakeholder-i notificați", "en": "The stakeholders are notified"},
}
#: Section 3.3.
AFTER = {
    "database_verified": {
        "ro": "DB verificat la starea anterioară",
        "en": "The database is verified at its earlier state",
    },
    "application_works": {"ro": "Aplicația pornită funcțională", "en": "The application is started and works"},
    "smoke_tests_passed": {"ro": "Smoke tests trecute", "en": "The smoke tests passed"},
    "logs_clean": {"ro": "Logs verificate (fără erori)", "en": "The logs are verified (without errors)"},
    "performance_normal": {"ro": "Performanță la nivelul normal", "en": "Performance is at its normal level"},
    "team_notified": {"ro": "Echipa notificată", "en": "The team is notified"},
    "post_mortem_scheduled": {"ro": "Post-mortem programat", "en": "The post-mortem is scheduled"},
}
LISTS = {"before": BEFORE, "after": AFTER}
KEYS = tuple(dict.fromkeys([*BEFORE, *AFTER]))

#: An item of which nobody has to be told.
FINE = ("passed", "confirmed", "not_applicable")


class WrongAnswer(Refused):
    """The answers that were given beforehand cannot be understood."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a program found out about one item.

    :param status: ``passed``, ``failed``, ``unknown`` (could not be found out), ``not_applicable``, or ``open`` where only
        a person can say it.
    :param evidence: one sentence; of an open item, what is known.
    """

    status: str
    evidence: str = ""


#: What only a person can say, and nothing is known about.
A_PERSONS = Finding("open", "Only a person can say this.")


@dataclasses.dataclass(frozen=True)
class Answers:
    """What people said.

    :param given: item by item, of both lists.
    :param all_hold: whatever is open and was not answered holds (``checklist_confirmed``).
    :param by: who said it.
    :param at: when, UTC.
    """

    given: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    all_hold: bool = False
    by: str = ""
    at: str = ""


def parse_answers(given: object) -> dict[str, bool]:
    """The extra variable ``checklist``: a dictionary, or ``problem_confirmed=yes,stakeholders_notified=no``.

    :raises WrongAnswer: for a key that no list has, or a value that is neither yes nor no.
    """
    pairs = _pairs(given)
    unknown = [key for key, _value in pairs if key not in KEYS]
    if unknown:
        raise WrongAnswer(
            f"The extra variable checklist names {', '.join(repr(key[:60]) for key in unknown)}, and the items of the "
            f"checklists are: {', '.join(KEYS)}."
        )
    answers = {key: yes_or_no(value) for key, value in pairs}
    wrong = [key for key, answer in answers.items() if answer is None]
    if wrong:
        raise WrongAnswer(
            f"The extra variable checklist has another value than yes, no, true or false for {', '.join(wrong)}."
        )
    return {key: bool(answer) for key, answer in answers.items()}


def _pairs(given: object) -> list[tuple[str, object]]:
    if given is None or given == "":
        return []
    if isinstance(given, dict):
        return [(str(key), value) for key, value in given.items()]
    if not isinstance(given, str):
        raise WrongAnswer(
            "The extra variable checklist is neither a dictionary nor a text such as "
            "problem_confirmed=yes,stakeholders_notified=no."
        )
    parts = [part.partition("=") for part in given.split(",") if part.strip()]
    return [(key.strip(), value) for key, _mark, value in parts]


def draw(phase: str, findings: Mapping[str, Finding], answers: Answers) -> list[Item]:
    """The list with what was found and what was said.

    :param phase: ``before`` or ``after``.
    :param findings: by item; one without any is a person's.
    """
    items = []
    for key, text in LISTS[phase].items():
        finding = findings.get(key, A_PERSONS)
        how = "person" if finding.status == "open" else "program"
        item = {"key": key, "text": dict(text), "how": how, "status": finding.status, "evidence": finding.evidence}
        items.append({**item, "by": "", "at": answers.at})
    return answered(items, answers)


def answered(items: Iterable[Mapping[str, t.Any]], answers: Answers) -> list[Item]:
    """The items with what people said. Who says no is believed, whatever a program found; a yes closes what is open."""
    return [_answered(dict(item), answers) for item in items]


def _answered(item: Item, answers: Answers) -> Item:
    answer = answers.given.get(item["key"])
    if answer is None and answers.all_hold and item["status"] == "open":
        answer = True
    if answer is None or (answer and item["status"] not in ("open", "unknown")):
        return item
    word = "confirmed" if answer else "denied"
    who = answers.by or "Somebody"
    known = "" if item["evidence"] in ("", A_PERSONS.evidence) else f" {item['evidence']}"
    said = f"{who} answered {'yes' if answer else 'no'}.{known}"
    return {**item, "how": "person", "status": word, "evidence": said, "by": answers.by, "at": answers.at}


def questions(items: Iterable[Mapping[str, t.Any]]) -> list[dict[str, str]]:
    """What a person is still to be asked: ``key`` and ``prompt`` of each open item."""
    return [
        {
            "key": item["key"],
            "prompt": f"{item['text']['en']} ({item['text']['ro']})? {item['evidence']}\n(yes/no)",
        }
        for item in items
        if item["status"] == "open"
    ]


def problems(items: Iterable[Mapping[str, t.Any]]) -> list[str]:
    """What speaks against going on, a sentence or two each: what failed, and what was answered with no."""
    return [
        f"{item['text']['en']} ({item['key']}): {'no' if item['status'] == 'denied' else 'failed'}. {item['evidence']}"
        for item in items
        if item["status"] in ("failed", "denied")
    ]


def refusal(items: Sequence[Mapping[str, t.Any]], command: str) -> str:
    """Why the run does not begin where the checklist is a condition; empty where nothing is in the way.

    :param command: the command that starts the run as it was started.
    """
    against = problems(items)
    still = [item for item in items if item["status"] == "open"]
    if not against and not still:
        return ""
    said = ["rollback_require_checklist is set, and not every item of the checklist holds. Nothing was stopped."]
    said += against
    if still:
        said.append(f"Open: {'; '.join(_open(item) for item in still)}.")
    if against:
        said.append("Put that right, then run again.")
        return " ".join(said)
    keys = ",".join(f"{item['key']}=yes" for item in still)
    said.append(
        f"Answer them at a terminal, or one by one with -e checklist={keys}, or, where all of them hold: {command}"
    )
    return " ".join(said) + " -e checklist_confirmed=yes"


def _open(item: Mapping[str, t.Any]) -> str:
    known = item["evidence"].rstrip(".")
    return f"{item['key']} ({item['text']['en']}{'' if item['evidence'] == A_PERSONS.evidence else ': ' + known})"


def shortfall(items: Sequence[Mapping[str, t.Any]]) -> str:
    """Why a run that did its work needs a person where the checklist is a condition; empty where it does not.

    Only what a program found wrong counts: an answer can be given later, and stops nobody.
    """
    failed = [item for item in items if item["status"] == "failed"]
    if not failed:
        return ""
    return (
        "rollback_require_checklist is set, and not every item of the checklist after the rollback holds. "
        f"{' '.join(problems(failed))} The database is as the run was to leave it, and nothing was stopped because of this."
    )


def count(items: Iterable[Mapping[str, t.Any]]) -> dict[str, int]:
    """Items by status."""
    found: dict[str, int] = {}
    for item in items:
        found[item["status"]] = found.get(item["status"], 0) + 1
    return found
