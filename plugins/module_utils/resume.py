# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run left in its folder: how far it came, what its stages found, and whether it can be gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import typing as t

from .errors import OutcomeUnknown, Refused
from .journal import RESULTS, Stage, advance, append, journal_line, open_stage, read, replace, utc_now, write_result
from .journal import result_text as _result_text

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Ask: t.TypeAlias = "Callable[[str], str | None]"

#: Runbooks that can be resumed; of the others nothing is lost by beginning anew.
RESUMABLE = ("rollback", "rollback_object", "emergency_rollback", "undo_rollback", "swap_back")

#: What is not done any more when the stop has begun.
BEFORE_STOP = ("plan", "preflight", "confirm", "checklist", "notify_start", "early_backup")

#: The result that each stage leaves, where it is not called after it.
FACT_OF = {"early_backup": "backup_early_result"}

#: Stages that end with a COMMIT, and what that did.
COMMITTING = {
    "rollback": "the DOWN",
    "restore_tables": "putting the tables back",
    "swap": "the exchange of the databases",
    "swap_back": "the way back of the databases",
}

_COMMIT = "commit.json"


class RunDied(Refused):
    """An earlier run on the database died when it had begun to act. ``details["died"]`` is its name."""


class NotResumable(Refused):
    """The run that was named cannot be gone on with."""


@dataclasses.dataclass(frozen=True)
class Left:
    """A run as its folder shows it.

    :param begun: the journal's first event: ``at``, ``runbook``, ``asked``, ``settings``, ``target`` and ``controller``.
    :param facts: results of stages by the fact's name, as far as they can be trusted.
    :param outcome: how it ended; empty where it did not.
    :param abandoned_by: run that was begun in its place; empty where none was.
    :param resumed: times at which it was gone on with: ``at``, ``by`` and ``after``.
    :param missing: results that the journal names and nobody can read.
    """

    folder: str
    begun: Mapping[str, t.Any]
    stages: tuple[Stage, ...] = ()
    facts: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    outcome: str = ""
    abandoned_by: str = ""
    resumed: tuple[dict[str, t.Any], ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return os.path.basename(self.folder)

    @property
    def runbook(self) -> str:
        """The runbook that ran."""
        return str(self.begun.get("runbook") or "rollback")

    @property
    def failure(self) -> dict[str, t.Any]:
        """The first error, of a run that was on its way back when it died."""
        return dict(self.facts.get("rollback_failure") or {})

    @property
    def open(self) -> str:
        """The stage that had begun and not ended."""
        return open_stage(self.stages) or ""

    @property
    def finished(self) -> list[str]:
        """Stages that need not be done again."""
        return [str(stage["name"]) for stage in self.stages if stage["status"] == "finished"]

    @property
    def done(self) -> list[str]:
        """These, and what is no stage of its own or comes before the stop: once that has begun, it is over."""
        told = ["notify_start"] if self.facts.get("notify_start_result") else []
        return [*self.finished, *told, *(BEFORE_STOP if self.has_stopped else ())]

    @property
    def recovered(self) -> list[str]:
        """Of these, what was done on the way back from a failure."""
        failed = [number for number, stage in enumerate(self.stages) if stage["status"] == "failed"]
        after = self.stages[failed[0] + 1 :] if failed and self.failure else ()
        return [str(stage["name"]) for stage in after if stage["status"] == "finished"]

    @property
    def has_stopped(self) -> bool:
        """Whether it had begun to stop the application, with which a run that leaves nothing behind ends."""
        return any(stage["name"] == "stop" for stage in self.stages)

    @property
    def has_acted(self) -> bool:
        """Whether it left anything behind: an application that it stopped, or that it found stopped by another dead run."""
        return self.has_stopped or bool(self.facts.get("stop_ran_before"))


def read_run(folder: str) -> Left:
    """What a run left. A run without a journal, or from before there were results, has an empty ``begun``."""
    stages: list[Stage] = []
    begun: dict[str, t.Any] = {}
    outcome = abandoned_by = ""
    resumed, named = [], {}
    for event in read(folder):
        kind = event.get("event")
        if kind == "begun" and not begun:
            begun = event
        elif kind == "stage":
            stages, _changed = advance(stages, str(event.get("stage")), str(event.get("status")), str(event.get("at")))
            if event.get("fact"):
                named[str(event["fact"])] = str(event.get("stage"))
        elif kind == "resumed":
            resumed.append({key: event.get(key) for key in ("at", "by", "after")})
        elif kind == "abandoned":
            abandoned_by = str(event.get("by"))
        elif kind == "finished":
            outcome = str(event.get("outcome") or "finished")
    left = Left(folder, begun, tuple(stages), {}, outcome, abandoned_by, tuple(resumed))
    facts = _facts(left)
    if left.open == "stop" and "stop_result" not in facts:
        # What the dead run may have stopped has to be started again, also where the resumed one fails before it stops anything.
        facts["stop_result"] = {"hosts": {}, "to_restart": list(facts.get("stop_ran_before") or [])}
    return dataclasses.replace(left, facts=facts, missing=tuple(sorted(set(named) - set(facts))))


def _facts(left: Left) -> dict[str, t.Any]:
    """A result counts where its stage ended as the result says. What was noted before a stage acted always counts."""
    facts = {}
    ended = {(stage["name"], stage["status"]) for stage in left.stages}
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(os.path.join(left.folder, RESULTS))):
            kept = _kept(os.path.join(left.folder, RESULTS, name)) if name.endswith(".json") else {}
            if kept and (kept["status"] == "noted" or (kept["stage"], kept["status"]) in ended):
                facts[name.removesuffix(".json")] = kept["value"]
    return facts


def _kept(path: str) -> dict[str, t.Any]:
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        return {"stage": str(kept["stage"]), "status": str(kept["status"]), "value": kept["value"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# --- a COMMIT whose answer nobody heard -------------------------------------------------------------------------------


def note_commit(folder: str, stage: str, xid: str, result: Mapping[str, t.Any]) -> str:
    """Note a transaction and what it did, just before its COMMIT; the reason where that was not possible.

    Of a run that dies now, this and the server's memory of the transaction tell what became of it.
    """
    try:
        replace(os.path.join(folder, _COMMIT), json.dumps({"stage": stage, "xid": xid, "result": result}, default=str))
    except OSError as err:
        return (
            f"The transaction {xid} could not be noted in {folder}: {err.strerror or err}. The run goes on without it."
        )
    return ""


def noted_commit(left: Left) -> dict[str, t.Any]:
    """The transaction of the stage that was at work when the run died; empty where it had not come to its COMMIT."""
    with contextlib.suppress(OSError, ValueError), open(os.path.join(left.folder, _COMMIT), encoding="utf-8") as file:
        noted = json.load(file)
        if isinstance(noted, dict) and noted.get("stage") == left.open and noted.get("xid"):
            return noted
    return {}


def settle_commit(left: Left, ask: Ask) -> Left:
    """Where the run died at a COMMIT: what became of it. A committed stage has finished, with the result that it noted.

    :param ask: the server's word on a transaction, as of ``pg_xact_status``; ``None`` where it does not know.
    :raises NotResumable: the transaction is still open.
    :raises OutcomeUnknown: the server does not know.
    """
    noted = noted_commit(left)
    if not noted:
        return left
    xid, stage = str(noted["xid"]), left.open
    status = ask(xid)
    if status == "aborted":
        return left
    if status == "committed":
        return _finished(left, stage, noted.get("result") or {})
    if status == "in progress":
        raise NotResumable(
            f"Run {left.run_id} died at the COMMIT of {COMMITTING[stage]}, and the server still works on that transaction ({xid}). "
            "Wait for it to end, then resume again."
        )
    raise OutcomeUnknown(
        f"Run {left.run_id} died at the COMMIT of {COMMITTING[stage]}, and the server does not know any more what became of transaction "
        f"{xid}, so nothing was done. Look at the database: where it was committed, start the application of the previous release "
        f"(restart.yml); where it was not, begin anew with -e abandon={left.run_id}.",
        xid=xid,
    )


def _finished(left: Left, stage: str, result: dict[str, t.Any]) -> Left:
    """The stage finished after all: in the journal too, so that it is not asked again."""
    fact, value = FACT_OF.get(stage, f"{stage}_result"), result
    if stage == "swap_back":
        fact = "swap_result"
        value = {**(left.facts.get(fact) or {}), "swapped_back": True, "kept": result.get("kept")}
    stages, _changed = advance(left.stages, stage, "finished", utc_now())
    return dataclasses.replace(left, stages=tuple(stages), facts={**left.facts, fact: value})


def keep_settled(before: Left, after: Left) -> None:
    """Write down what was learned of a COMMIT.

    :raises OSError: when it cannot be written.
    """
    for fact, value in after.facts.items():
        if before.facts.get(fact) != value:
            write_result(after.folder, fact, _result_text(before.open, "finished", value))
    if before.open and not after.open:
        ended = after.stages[-1]
        append(
            after.folder,
            journal_line(
                after.run_id, "stage", ended["finished_at"],
                stage=ended["name"], status="finished", seconds=ended["seconds"], message="committed, as the server says",
            ),
        )  # fmt: skip


# --- what to say about it ---------------------------------------------------------------------------------------------


def describe(left: Left, ask: Ask | None = None) -> str:
    """What state things are in, in sentences, for whoever finds them at night."""
    begun = left.begun
    controller = begun.get("controller") or {}
    who = f", begun at {begun.get('at')} by {controller.get('user') or 'somebody'} on {controller.get('host') or 'some host'}"
    died = (
        f"in the stage {left.open}"
        if left.open
        else f"after the stage {left.finished[-1]}"
        if left.finished
        else "at once"
    )
    parts = [f"Run {left.run_id} ({left.runbook}{_of(begun)}{who if begun else ''}) died {died}."]
    if left.failure:
        parts.append(
            f"It was on its way back, because the stage {left.failure.get('stage')} had failed: {left.failure.get('message')}"
        )
    return " ".join([*parts, _application(left), _database(left, ask), _last(left)])


def _of(begun: Mapping[str, t.Any]) -> str:
    asked = {name: value for name, value in (begun.get("asked") or {}).items() if value and name != "run_id"}
    return "".join(f" {name}={value}" for name, value in asked.items())


def _last(left: Left) -> str:
    return f"Its last finished stage is {left.finished[-1]}." if left.finished else "It finished no stage."


def _application(left: Left) -> str:
    names = [str(stage["name"]) for stage in left.stages]
    hosts = _hosts(ran_before(left))
    where = f" on {', '.join(hosts)}" if hosts else ""
    if "stop" not in names:
        return (
            f"The application is stopped{where}, by a run before it." if hosts else "The application was not stopped."
        )
    if not hosts and "stop_result" in left.facts and left.open != "stop":
        return "No application was stopped."
    if "restart" in left.finished:
        return f"The application was started again{where}."
    if left.open == "restart":
        return f"The application was stopped{where}, and was just being started."
    return f"The application {'was just being stopped' if left.open == 'stop' else 'is stopped'}{where}."


def _stopped(left: Left) -> list[str]:
    return [str(entry) for entry in (left.facts.get("stop_result") or {}).get("to_restart") or []]


def _hosts(entries: list[str]) -> list[str]:
    return list(dict.fromkeys(entry.partition("/")[0] for entry in entries))


def _database(left: Left, ask: Ask | None) -> str:
    begun = [str(stage["name"]) for stage in left.stages if stage["name"] in COMMITTING]
    if not begun:
        return "The database is as it was."
    stage = begun[-1]
    what = COMMITTING[stage][0].upper() + COMMITTING[stage][1:]
    if left.failure.get("stage") == stage:
        return f"{what} failed."
    noted = noted_commit(left)
    if stage in left.finished:
        return f"{what} was committed."
    if not noted:
        return f"{what} was not committed."
    status = _answer(ask, str(noted["xid"]))
    told = {"committed": "was committed", "aborted": "was not committed", "in progress": "is still at work"}.get(
        status or ""
    )
    return (
        f"{what} {told}." if told
        else f"Whether {COMMITTING[stage]} was committed is not known here: SELECT pg_xact_status('{noted['xid']}')."
    )  # fmt: skip


def _answer(ask: Ask | None, xid: str) -> str | None:
    try:
        return ask(xid) if ask else None
    except Refused:
        return None


def ran_before(left: Left) -> list[str]:
    """What of the application ran before the run stopped it, as ``host`` or ``host/unit``."""
    return list(dict.fromkeys([*map(str, left.facts.get("stop_ran_before") or []), *_stopped(left)]))


def left_stopped(left: Left, command: str) -> str:
    """What becomes of an application whose code may not fit what a run that is given up made of the database."""
    return (
        f"Run {left.run_id} may have changed the database, and it had stopped the application on {', '.join(_hosts(ran_before(left)))}. That "
        f"is started only where this run ends well. Otherwise, once its code fits the database: {command}.restart"
    )


def is_unchanged(left: Left, ask: Ask | None = None) -> bool:
    """Whether the database is certainly as it was before the run.

    :param ask: see :func:`settle_commit`; without it, a COMMIT that nobody heard the answer of is not certain.
    """
    if any(stage in COMMITTING for stage in left.finished):
        return False
    noted = noted_commit(left)
    return not noted or _answer(ask, str(noted["xid"])) == "aborted"


def is_same(left: Left, runbook: str, asked: Mapping[str, t.Any]) -> bool:
    """Whether a command asks for what the run was to do. An emergency takes the place of any other run."""
    if runbook == "emergency_rollback" != left.runbook:
        return True
    was, now = (
        {name: str(value) for name, value in given.items() if str(value or "") and name != "run_id"}
        for given in (left.begun.get("asked") or {}, asked)
    )
    return runbook == left.runbook and was == now


def in_its_place(left: Left, command: str, ask: Ask | None = None) -> str:
    """What to say where the same command begins anew, because nothing but the application was changed."""
    where = _hosts(ran_before(left))
    starts = f", and starts the application on {', '.join(where)} at its end" if where else ""
    return (
        f"{describe(left, ask)} This run begins anew in its place{starts}. "
        f"(To go on with a dead run instead of beginning anew: {command}.{left.runbook} -e resume=<run id>)"
    )


def refuse_beginning(left: Left, command: str, ask: Ask | None = None) -> None:
    """Refuse a new run where an earlier one died after it had begun to act.

    :param command: how the playbooks are started, without a playbook's name.
    :raises RunDied: with the state of things, the command that goes on, and how to begin anew.
    """
    if not left.has_acted or left.outcome or left.abandoned_by:
        return
    anew = f"To begin anew, with everything as it is now, add -e abandon={left.run_id} to the command of now."
    go_on = f"\nTo go on with it: {command}.{left.runbook} -e resume={left.run_id}" if left.begun else ""
    raise RunDied(f"{describe(left, ask)} Nothing was done by this run. {anew}{go_on}", died=left.run_id)


def refuse_resuming(left: Left, wanted: Mapping[str, t.Any], others: list[str]) -> None:
    """Refuse to go on with a run that is not there, has ended, or is another one than is wanted.

    :param wanted: ``runbook``, ``target``, ``asked`` and ``settings`` of the command that resumes.
    :param others: names of the runs that could be gone on with.
    :raises NotResumable: naming what to do instead.
    """
    named = f"Run {left.run_id}"
    instead = f" Those that can be resumed: {', '.join(others)}." if others else " There is none that could be resumed."
    if not os.path.isdir(left.folder):
        raise NotResumable(f"There is no run {left.run_id} in {os.path.dirname(left.folder)}.{instead}")
    if left.outcome:
        raise NotResumable(
            f"{named} has ended as {left.outcome}, so there is nothing to go on with. Its report is in {left.folder}.{instead}"
        )
    if left.abandoned_by:
        raise NotResumable(f"{named} was given up when run {left.abandoned_by} was begun in its place.{instead}")
    if not left.begun or left.missing:
        lacks = f"the results {', '.join(left.missing)}" if left.missing else "its beginning"
        raise NotResumable(
            f"{named} cannot be resumed, because its folder {left.folder} lacks {lacks}. {describe(left)} "
            f"To begin anew, with everything as it is now: -e abandon={left.run_id}."
        )
    _refuse_other(left, wanted, named)


def _refuse_other(left: Left, wanted: Mapping[str, t.Any], named: str) -> None:
    begun = left.begun
    if left.runbook not in RESUMABLE:
        raise NotResumable(f"{named} is of the runbook {left.runbook}, which is not resumed: run it again.")
    if left.runbook != wanted["runbook"]:
        raise NotResumable(
            f"{named} is of the runbook {left.runbook}, not of {wanted['runbook']}. Resume it with {left.runbook}.yml."
        )
    for which, now in (("target", wanted["target"]), ("settings", wanted["settings"]), ("asked", wanted["asked"])):
        was = begun.get(which) or {}
        for name, value in now.items():
            given = str(value) != "" if which == "asked" else True
            if given and _differs(was.get(name), value):
                raise NotResumable(
                    f"{named} was begun with {name} {_shown(was.get(name))}, and now it is {_shown(value)}. Nothing was done. "
                    + (
                        "Leave it out: the run knows it."
                        if which == "asked"
                        else "Set it as it was, then resume again."
                    )
                )


def _differs(was: t.Any, now: t.Any) -> bool:
    return json.dumps(was, sort_keys=True, default=str) != json.dumps(now, sort_keys=True, default=str) and str(
        was
    ) != str(now)


def _shown(value: t.Any) -> str:
    return json.dumps(value, default=str) if value not in (None, "") else "not set"


def resumable(run_dir: str) -> list[str]:
    """Names of the runs that could be gone on with, newest first."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(run_dir):
            left = read_run(os.path.join(run_dir, name)) if not name.startswith(".") else None
            if (
                left
                and left.begun
                and left.stages
                and not (left.outcome or left.abandoned_by)
                and left.runbook in RESUMABLE
            ):
                found.append((str(left.begun.get("at")), name))
    return [name for _at, name in sorted(found, reverse=True)]
