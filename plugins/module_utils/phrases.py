# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the messages of all runbooks are made of."""

from __future__ import annotations

import json
import re
import shlex
import typing as t

from . import object_message
from .outcome import (
    Facts,
    facts,
    failed_checks,
    hosts_of,
    is_committed,
    needs_previous_code,
    plan_of,
    still_down,
    stopped_hosts,
    verification_of,
)
from .visible import visible


def restart_command(run: Facts, *, changed: bool | None = None) -> str:
    """Starts the application with the code that fits the database, and runs the smoke tests.

    :param changed: whether the database is the one that this run was to leave; not given, as far as is known.
    """
    return playbook(run, "restart", **_code(run, changed=is_committed(run) if changed is None else changed))


def _code(run: Facts, *, changed: bool) -> dict[str, t.Any]:
    """The extra variables without which the restart would have the previous release on whatever database is there."""
    if changed and needs_previous_code(run) and not object_message.is_index(run):
        return {}
    releases = facts(plan_of(run), "releases") if changed else _releases_before(run)
    return {"previous_code_releases": releases} if releases else {"restart_code": "leave"}


#: Of a host's code, once it is given back and while it is not: an extra variable's key, and where its value is.
_GIVEN_BACK = (("ref", "commit"), ("image", "image"))
_CHANGED = (("ref", "previous_commit"), ("branch", "previous_branch"), ("stash", "stash"), ("image", "previous_image"))


def _releases_before(run: Facts) -> dict[str, t.Any]:
    """The release that each host had before this run changed it. Its services may not have been made from it again."""
    found = {}
    for name, host in hosts_of(facts(run, "previous_code_result")).items():
        keys = _GIVEN_BACK if host.get("undone") and not host.get("failed") else _CHANGED if host.get("changed") else ()
        found[name] = {key: host[of] for key, of in keys if host.get(of)}
    return {name: release for name, release in found.items() if release}


def playbook(run: Facts, name: str, /, **extra: t.Any) -> str:
    """The command that starts a playbook of the collection as this run was started.

    :param extra: extra variables; those without a value are left out.
    """
    inventory = [f"-i {shlex.quote(visible(source))}" for source in run.get("inventory") or []]
    # The setting narrows the application's hosts as well, and without them it would run on.
    own = ",".join(dict.fromkeys([str(run.get("host") or ""), *map(str, run.get("app_hosts") or [])]))
    narrowed = [f"-e {shlex.quote('rollback_hosts=' + own)}"] if run.get("one_of_many") and run.get("host") else []
    given = [f"-e {shlex.quote(_given(key, value))}" for key, value in extra.items() if value not in (None, "")]
    return " ".join(["ansible-playbook", *inventory, f"cypher.rollback.{name}", *given, *narrowed])


def _given(key: str, value: t.Any) -> str:
    """An extra variable; as JSON where ansible-playbook would split a value at its blanks or take its quotes away."""
    if hasattr(value, "items"):
        return json.dumps({key: value}, ensure_ascii=False)
    text = str(value)
    return json.dumps({key: text}, ensure_ascii=False) if re.search(r"""[\s"'\\]""", text) else f"{key}={text}"


#: What our own refusals end with, after a colon.
_ENDS_WITH_COMMAND = re.compile(r": (ansible-playbook|SELECT|GRANT|ALTER|DROP|REASSIGN) [^\n]*$")


def sentence(text: t.Any) -> str:
    """Text as a sentence that others can follow: one final stop, no control characters.

    A text that ends with a command is left as it is: a stop would be copied along with the command.
    """
    shown = visible(str(text or "").strip(), keep="\n")
    if not shown or shown[-1] in ".!?:" or _ENDS_WITH_COMMAND.search(shown):
        return shown
    return shown + "."


def database(run: Facts) -> str:
    """The database, as words."""
    target = facts(plan_of(run), "target") or facts(run, "target")
    return f"database {visible(target['database'])}" if target.get("database") else "the database"


def first_error(run: Facts) -> str:
    """What went wrong, as a sentence."""
    failure = facts(run, "rollback_failure")
    if failure:
        stage = f"Stage {visible(failure['stage'])} failed: " if failure.get("stage") else ""
        return stage + (sentence(without_outcome(failure.get("message"))) or "it gave no reason.")
    failed = failed_checks(verification_of(run).get("checks") or [])
    if failed:
        return f"The verification failed: {', '.join(visible(check.get('name')) for check in failed)}."
    if facts(run, "smoke_test_result").get("passed") is False:
        return sentence(facts(run, "smoke_test_result").get("message") or "The smoke tests failed")
    if (
        facts(facts(run, "plan_result"), "plan")
        and not verification_of(run)
        and facts(run, "rollback_result").get("committed")
    ):
        return "Nothing verified it: the stage verify left no result."
    return "" if still_down(run) else "The run ended before its last stage."


def without_outcome(message: t.Any) -> str:
    """An error's text without the outcome that its last line may name."""
    return re.sub(r"\n(refused|failed_unchanged|needs_attention|unknown)\s*\Z", "", str(message or ""))


def capital(text: str) -> str:
    """Text with a capital first letter."""
    return text[:1].upper() + text[1:]


def join(*sentences: str) -> str:
    """Sentences one after the other; empty ones are left out. What follows a command begins a new line."""
    joined = ""
    for part in filter(None, sentences):
        joined += ("\n" if _ENDS_WITH_COMMAND.search(joined) else " ") * bool(joined) + part
    return joined


def lines(*sentences: str) -> str:
    """Sentences, a line each; empty ones are left out."""
    return "\n".join(part for part in sentences if part)


def application_state(run: Facts) -> str:
    """Whether the application runs."""
    stopped = stopped_hosts(run)
    if still_down(run):
        return join(f"{capital(down(run))}.", why_down(run))
    return f"The application was started again on {hosts(stopped)}." if stopped else "No application was stopped."


def down(run: Facts) -> str:
    """Where the application does not run, where that is not known, and where it runs again, as the end of a sentence."""
    started = hosts_of(facts(run, "restart_result"))
    names = still_down(run)
    lost = [name for name in names if started.get(name, {}).get("lost")]
    known = [name for name in names if name not in lost]
    up = [name for name, host in started.items() if name not in names and host.get("running")]
    parts = [f"the application does not run on {hosts(known)}"] if known else []
    parts += [f"whether the application runs on {hosts(lost)} is not known"] if lost else []
    parts += [f"it runs again on {hosts(up)}"] if up else []
    return "; ".join(parts)


def why_down(run: Facts) -> str:
    """Why it does not run, where the first error does not say so already."""
    said = sentence(facts(run, "restart_result").get("message"))
    first = facts(run, "rollback_failure")
    return "" if first.get("stage") == "restart" else said


def hosts(names: t.Sequence[str]) -> str:
    """Names of hosts, as words."""
    return ", ".join(visible(name) for name in names)


def count(number: int, noun: str) -> str:
    """A number of things, as words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
