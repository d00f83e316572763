# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a host that answers no more, and in which words that is said."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Answer = Mapping[str, t.Any]

#: Modules whose work on the database may be done although nobody heard of it.
MAY_HAVE_COMMITTED = ("db_rollback", "db_restore_tables", "db_swap")


def is_lost(answer: Answer) -> bool:
    """Whether a task has no answer because its host could not be reached, or did not answer in the task's time."""
    return bool(answer.get("unreachable") or answer.get("timedout"))


def answered(answer: Answer) -> bool:
    """Whether a question was asked, and the host answered it."""
    return bool(answer) and not answer.get("skipped") and not is_lost(answer)


def trouble(answer: Answer) -> str:
    """Why a task gave no answer; an empty string when it did."""
    said = str(answer.get("msg") or answer.get("stderr") or "no reason was given").strip()
    if is_lost(answer):
        return f"the host cannot be reached: {said}"
    return said if answer.get("failed") or answer.get("rc") or answer.get("exception") else ""


def application_problems(answers: t.Iterable[Answer]) -> list[str]:
    """The application's hosts that cannot be reached, before anything is stopped, a sentence each.

    :param answers: the results of a loop over the hosts that were asked.
    """
    lost = {str(answer[answer["ansible_loop_var"]]): trouble(answer) for answer in answers if is_lost(answer)}
    return [
        f"{host}: {' '.join(said.split()).rstrip('.')}. Its application could not be stopped. Have it answer, or leave it out "
        "of rollback_app_hosts where nothing of the application runs on it."
        for host, said in lost.items()
    ]


def database_host(module: str, host: str, said: str) -> dict[str, t.Any]:
    """The result of a module whose host, that of the database, was lost: a failure of its stage, which is recovered from.

    Ansible would drop the host from the play and so leave the application stopped.

    :param module: name of the module without that of the collection.
    :param said: what the connection said.
    """
    told = (
        "Whether it did its work on the database is not known."
        if module in MAY_HAVE_COMMITTED
        else "The live database was not changed by it."
    )
    return {
        "changed": False,
        "failed": True,
        "lost": True,
        "outcome": "unknown" if module in MAY_HAVE_COMMITTED else "",
        "details": {"lost": True},
        "msg": f"The database's host {host} cannot be reached while {module} works there: {' '.join(said.split()).rstrip('.')}. {told}",
    }
