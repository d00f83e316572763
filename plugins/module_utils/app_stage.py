# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages stop and restart did, host by host, from the answers of the drivers' tasks."""

from __future__ import annotations

import dataclasses
import typing as t

from .application import without_passwords
from .compose import COMPOSE_UP
from .compose_start import doubts, last_words, own_entries, own_message
from .lost_host import answered, is_lost, trouble

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .compose_start import Doubt

    Answer = Mapping[str, t.Any]
    Evidence = Mapping[str, t.Any]

#: Exit code of a process that SIGKILL ended.
KILLED = 137

#: Systemd's ActiveState. What is on its way up or down is neither.
UP = ("active", "reloading", "refreshing")
DOWN = ("inactive", "failed")


@dataclasses.dataclass(frozen=True)
class Found:
    """One unit of the application, before and after. ``None`` stands for: nobody could tell.

    :param attempted: it was told to stop, or to start.
    :param lost: its host answers no more.
    """

    was_running: bool | None
    running: bool | None
    attempted: bool
    message: str = ""
    lost: bool = False


def note(result: Mapping[str, t.Any], stage: str, host: str, evidence: Evidence) -> dict[str, t.Any]:
    """The stage's result with what was done on one more host.

    :param stage: ``stop`` or ``restart``.
    :param evidence: ``driver``, ``check_mode``, ``services``, and the registered answers that its driver needs:
        ``acted`` (all), ``before``, ``seen`` and ``seen_again`` (docker_compose), ``after`` (docker_compose, systemd), ``found``, the
        answer to the question before the stop (command, systemd), ``left_out``, services that the present release does not have, and
        ``stopped``, what the run itself had stopped. With ``lost``, a sentence, its host was given up by an earlier stage.
    """
    record = _record(stage, {**evidence, "host": host})
    hosts = {**result["hosts"], host: record}
    failed = [f"{name}: {one['message']}" for name, one in hosts.items() if one["failed"]]
    noted = {
        "hosts": hosts,
        "changed": any(one["changed"] for one in hosts.values()),
        "failed": bool(failed),
        "message": " ".join(failed or [f"{name}: {one['message']}" for name, one in hosts.items()]),
    }
    warnings = [
        *_kill_warnings(host, {**evidence, "stage": stage}),
        *_left_out_warnings(host, evidence),
        *_ran_already_warnings(host, {**evidence, "stage": stage, "host": host}),
    ]
    noted["warnings"] = [*(result.get("warnings") or []), *warnings]
    if stage == "stop":
        noted["to_restart"] = list(
            dict.fromkeys([*result["to_restart"], *_to_restart(host, {**evidence, "host": host})])
        )
    return noted


def _record(stage: str, evidence: Evidence) -> dict[str, t.Any]:
    driver = evidence["driver"]
    verb = "stopped" if stage == "stop" else "started"
    blank = {"driver": driver, "was_running": None, "running": None, verb: False, "changed": False, "failed": False}
    if driver == "none":
        return {**blank, "message": f"rollback_app_driver is none, so nothing was {verb}.", "services": []}
    if evidence.get("not_tried"):
        return {**blank, "message": "Not tried, because another host did not stop.", "services": []}
    if evidence.get("lost"):
        return {**blank, "failed": True, "lost": True, "message": evidence["lost"], "services": []}
    units = _as_before(evidence)
    wanted = stage != "stop"
    check_mode = bool(evidence.get("check_mode"))
    done = [name for name, unit in units.items() if unit.attempted and unit.running is wanted]
    return {
        **blank,
        "was_running": _any(unit.was_running for unit in units.values()),
        "running": _all(unit.running for unit in units.values()),
        verb: bool(done) and not check_mode,
        "changed": bool(done),
        "failed": any(unit.running is not wanted for unit in units.values()),
        "lost": any(unit.lost and unit.running is not wanted for unit in units.values()),
        "message": _message(units, verb, wanted=wanted, check_mode=check_mode),
        "services": [name for name in done if name],
    }


def _any(values: t.Iterable[bool | None]) -> bool | None:
    """Whether one of them; unknown where that hangs on an unknown one."""
    known = list(values)
    return True if True in known else (None if None in known or not known else False)


def _all(values: t.Iterable[bool | None]) -> bool | None:
    known = list(values)
    return False if False in known else (None if None in known or not known else True)


def _message(units: Mapping[str, Found], verb: str, *, wanted: bool, check_mode: bool) -> str:
    bad = {name: unit for name, unit in units.items() if unit.running is not wanted}
    if bad:
        return " ".join(_sentence(name, unit, wanted=wanted) for name, unit in bad.items())
    if "" in units:
        return units[""].message
    done = [name for name, unit in units.items() if unit.attempted]
    rest = [name for name in units if name not in done]
    parts = [f"{', '.join(done)} {'would be ' if check_mode else ''}{verb}."] if done else []
    parts += [f"{', '.join(rest)} {'ran already' if wanted else 'did not run'}."] if rest else []
    return " ".join(parts) or f"Nothing was to be {verb}."


def _sentence(name: str, unit: Found, *, wanted: bool) -> str:
    said = _one_line(unit.message)
    if not name:
        return said
    unknown = "is not proven to run" if wanted else "is not proven to be down"
    known = "does not run" if wanted else "did not stop"
    what = unknown if unit.running is None else known
    return f"{name} {what}: {said}" if said else f"{name} {what}."


def _to_restart(host: str, evidence: Evidence) -> list[str]:
    """What the failure path starts again: all that ran and was told to stop, even where it did not obey.

    The latter may still go down; starting what runs changes nothing.
    """
    if evidence["driver"] == "none" or any(evidence.get(name) for name in ("not_tried", "check_mode", "lost")):
        return []
    units = _as_before(evidence).items()
    return [_named(host, name) for name, unit in units if unit.was_running and unit.attempted]


def _as_before(evidence: Evidence) -> dict[str, Found]:
    """The units; what ran when a run that died began to stop it counts as stopped by the one that goes on with it."""
    before = evidence.get("ran_before") or ()
    return {
        name: dataclasses.replace(unit, was_running=True, attempted=True)
        if unit.running is False and _named(evidence["host"], name) in before
        else unit
        for name, unit in units_of(evidence).items()
    }


def _named(host: str, unit: str) -> str:
    return f"{host}/{unit}" if unit else host


def ran_before(host: str, evidence: Evidence) -> list[str]:
    """What of a host's application runs, before it is stopped: ``host`` or ``host/unit``. Unknown counts as running.

    :param evidence: ``driver``, ``services`` and ``found``, the answer of the driver's question.
    """
    found = evidence.get("found") or {}
    if evidence["driver"] == "command":
        return [host] if found.get("was_running") is not False else []
    services = list(evidence.get("services") or [])
    if evidence["driver"] == "docker_compose":
        running = services_up(found, "stop")
        return [_named(host, name) for name in services if running is None or name in running]
    # One word a unit, see systemctl(1), is-active; what is on its way down ran.
    states = dict(zip(services, found.get("stdout_lines") or [], strict=False))
    return [_named(host, name) for name in services if states.get(name, "") not in ("inactive", "failed", "unknown")]


def not_down(host: str, evidence: Evidence) -> list[str]:
    """What of a host's application runs although it was stopped, or is not known to be down, one sentence each.

    A host that answers no more keeps nothing from going on: its application was proven to be down.

    :param evidence: as of :func:`ran_before`.
    """
    found = evidence.get("found") or {}
    entries = [] if is_lost(found) else ran_before(host, evidence)
    if not entries:
        return []
    if not _tells(evidence, found):
        return [f"Whether the application is still down on {host} is not known: {_why_unknown(found)}"]
    units = ", ".join(entry.partition("/")[2] for entry in entries if "/" in entry)
    return [f"The application runs again on {host}{f' ({units})' if units else ''}."]


def unknown(host: str, evidence: Evidence) -> list[str]:
    """Why nobody can tell whether a host's application runs, one sentence; empty where somebody can.

    :param evidence: as of :func:`ran_before`.
    """
    found = evidence.get("found") or {}
    if _tells(evidence, found) and not is_lost(found):
        return []
    setting = "rollback_app_status_command" if evidence["driver"] == "command" else "rollback_app_driver"
    remedy = f"Correct {setting}, or how Ansible reaches that host (user, ansible_become and its password, ansible_python_interpreter)."
    return [f"Whether the application runs on {host} is not known: {_why_unknown(found)} {remedy}"]


def _why_unknown(found: Answer) -> str:
    said = _one_line(last_words(found) or str(found.get("message") or "") or "the question had no answer")
    said = said.removeprefix("Nobody can tell whether the application runs: ")
    return said if said[-1:] in (".", "!", "?") else f"{said}."


def _tells(evidence: Evidence, found: Answer) -> bool:
    """Whether the answer says of each unit that it runs, or that it does not."""
    if evidence["driver"] == "command":
        return found.get("was_running") is not None
    if evidence["driver"] == "docker_compose":
        return services_up(found, "stop") is not None
    return len(found.get("stdout_lines") or []) == len(evidence["services"])


def _one_line(said: str) -> str:
    return without_passwords(" ".join(said.split()))


def refusals(answers: Sequence[Answer]) -> list[str]:
    """What the hosts that were asked said against it, one entry a host; an empty list when nothing.

    :param answers: of modules that have a message only where they fail.
    """
    asked = {str(answer[answer["ansible_loop_var"]]): answer for answer in answers if not answer.get("skipped")}
    said = {host: trouble(answer) or str(answer.get("msg") or "") for host, answer in asked.items()}
    return [f"{host}: {text}" for host, text in said.items() if text]


def units_of(evidence: Evidence) -> dict[str, Found]:
    """The state of each unit, by name; the driver ``command`` has one without a name."""
    readers = {"command": _command_units, "systemd": _systemd_units, "docker_compose": _compose_units}
    return readers[evidence["driver"]](evidence)


def _lost_at_work(evidence: Evidence, acted: Answer, unit: str = "") -> Found | None:
    """A unit that ran, and whose host was lost after it was asked: it may have been stopped, so it is to run again."""
    if not is_lost(acted) or not answered(evidence.get("found") or {}):
        return None
    if _named(evidence["host"], unit) not in ran_before(evidence["host"], evidence):
        return None
    return Found(True, None, True, f"Whether it was stopped is not known: {trouble(acted)}", lost=True)


def _command_units(evidence: Evidence) -> dict[str, Found]:
    acted = evidence["acted"]
    if "was_running" not in acted:
        said = trouble(acted) or str(acted.get("msg") or "The module gave no answer.")
        unknown = Found(None, None, False, f"Nobody can tell whether the application runs: {said}", is_lost(acted))
        return {"": _lost_at_work(evidence, acted) or unknown}
    # In check mode nothing is attempted; what the module announces takes its place.
    attempted = bool(acted["attempted"] or (evidence.get("check_mode") and acted["changed"]))
    return {"": Found(acted["was_running"], acted["running"], attempted, acted["message"])}


def _systemd_units(evidence: Evidence) -> dict[str, Found]:
    acted = _by_unit(evidence["acted"])
    after = _by_unit(evidence["after"])
    return {
        name: _lost_at_work(evidence, acted.get(name, {}), name)
        or _systemd_unit(evidence, acted.get(name, {}), after.get(name, {}))
        for name in evidence["services"]
    }


def _by_unit(answers: Answer) -> dict[str, Answer]:
    return {str(answer[answer["ansible_loop_var"]]): answer for answer in answers.get("results") or []}


def _systemd_unit(evidence: Evidence, acted: Answer, after: Answer) -> Found:
    before = _active_state(acted)
    running = _is_up(_active_state(after))
    refused = str(acted.get("msg") or "").startswith(("Unable to stop", "Unable to start"))
    attempted = bool(acted.get("changed")) or refused
    if acted.get("msg") and not refused:
        # For instance a unit that does not exist, which systemd calls inactive.
        running = None
    if refused:
        # The module acts only on a unit that is in the other state.
        was_running: bool | None = str(acted["msg"]).startswith("Unable to stop")
    else:
        was_running = True if before in ("activating", "deactivating") else _is_up(before)
    if evidence.get("check_mode") and attempted:
        return Found(was_running, not was_running, True)
    state = _active_state(after)
    said = trouble(acted) or str(acted.get("msg") or "") or trouble(after) or str(after.get("msg") or "")
    said = said or f"systemd says that it is {state or 'in no state it knows'}."
    return Found(was_running, running, attempted, said, is_lost(acted) or is_lost(after))


def _active_state(answer: Answer) -> str:
    status: Mapping[str, t.Any] = answer.get("status") or {}
    return str(status.get("ActiveState") or "")


def _is_up(state: str) -> bool | None:
    return True if state in UP else (False if state in DOWN else None)


def _compose_units(evidence: Evidence) -> dict[str, Found]:
    before, acted, after = (evidence.get(name) or {} for name in ("before", "acted", "after"))
    stage, check_mode = evidence["stage"], bool(evidence.get("check_mode"))
    told = not acted.get("skipped")
    were = services_up(before, stage)
    are = services_up(after, stage) if told else were
    answers = (before, acted, after) if told else (before,)
    said = next(filter(None, map(last_words, answers)), "") or (own_message(acted) if told else "")
    lost = any(is_lost(evidence.get(name) or {}) for name in ("before", "acted", "after", "seen", "seen_again"))
    doubted = _compose_doubts(evidence) if told else {}
    units = {}
    for name in evidence["services"]:
        was = None if were is None else name in were
        # In check mode a command is skipped; what it would do takes its place.
        attempted = (told or check_mode) and was is not None and name in acted_on(evidence, were or ())
        running = None if are is None else name in are
        if stage == "restart" and running and told and acted.get("msg"):
            # It runs, but Compose waited in vain for its health check.
            running = None
        if check_mode and attempted and not trouble(acted):
            running = not was
        doubt = doubted.get(name)
        if doubt and running is not False:
            running = doubt.running
        why = ". ".join(filter(None, (said.rstrip("."), doubt.why))) if doubt else said
        units[name] = Found(was, running, attempted, why or f"Docker Compose says that it {_word(running)}.", lost)
    return units


def _compose_doubts(evidence: Evidence) -> dict[str, Doubt]:
    """What speaks against services that were just started. A preview starts none, and a stop needs no proof that one is well."""
    if evidence["stage"] != "restart" or evidence.get("check_mode"):
        return {}
    return doubts(*(evidence.get(name) or {} for name in ("after", "seen", "seen_again")))


def acted_on(evidence: Evidence, running: Sequence[str] | set[str]) -> list[str]:
    """The services that the driver's task was given: those that are not yet as wanted."""
    wanted = evidence["stage"] == "restart"
    return [name for name in evidence["services"] if (name in running) is not wanted]


def services_up(answer: Answer, stage: str) -> set[str] | None:
    """The services that run, from ``docker compose ps --all --format json``; ``None`` where nobody can tell.

    :param stage: for ``stop`` a service runs where any of its containers does, for ``restart`` where every one does.
    """
    if trouble(answer) or "stdout_lines" not in answer:
        return None
    states: dict[str, list[str]] = {}
    for entry in own_entries(answer):
        states.setdefault(str(entry.get("Service")), []).append(str(entry.get("State")).lower())
    if stage == "restart":
        return {name for name, found in states.items() if set(found) == {"running"}}
    return {name for name, found in states.items() if set(found) & set(COMPOSE_UP)}


def _killed(evidence: Evidence) -> list[str]:
    """The services that were told to stop and did not end by themselves."""
    if evidence["driver"] != "docker_compose" or evidence["stage"] != "stop":
        return []
    units = units_of(evidence)
    listed = own_entries(evidence.get("after") or {})
    killed = {str(entry.get("Service")) for entry in listed if entry.get("ExitCode") == KILLED}
    return [name for name, unit in units.items() if unit.attempted and name in killed]


def _kill_warnings(host: str, evidence: Evidence) -> list[str]:
    return [
        f"{host}: {name} did not end by itself when it was told to stop, and Docker killed it (SIGKILL). What it was doing then was "
        "cut off. If it needs longer, raise rollback_app_timeout."
        for name in _killed(evidence)
    ]


def _left_out_warnings(host: str, evidence: Evidence) -> list[str]:
    return [
        f"{host}: {name} was not started, because the compose file that is checked out now has no such service. Its container is left "
        f"as it is. Where it is to run: docker start, with the name of the container; otherwise take {name} out of rollback_app_services."
        for name in evidence.get("left_out") or ()
    ]


def _ran_already_warnings(host: str, evidence: Evidence) -> list[str]:
    """What the run had stopped and somebody started before it did: with the code of then, which may be the bad release's."""
    stopped = evidence.get("stopped") or ()
    units = units_of(evidence) if stopped and not evidence.get("lost") else {}
    return [
        f"{host}: {name or 'the application'} ran already when it was to be started, although the run had stopped it. Unless it was "
        "started with the code that is there now, restart it."
        for name, unit in units.items()
        if unit.was_running and _named(host, name) in stopped
    ]


def _word(running: bool | None) -> str:
    return {True: "runs", False: "does not run", None: "is in no state it knows"}[running]
