# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the features of the application answer, asked several times."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import time
import typing as t

from .errors import Refused
from .http_request import NoAnswer, NotAsked, fetch, url_problem, without_credentials
from .log_lines import without_secrets

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRIORITIES = ("P0", "P1", "P2")

#: Checks that are asked at the same time, so that many that hang do not take many times as long.
_AT_ONCE = 8


@dataclasses.dataclass
class _Check:
    name: str
    url: str
    priority: str
    status: tuple[int, ...]
    contains: str
    passed: int = 0
    failed: int = 0
    not_asked: int = 0
    message: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)

    def ask(self, timeout: float) -> None:
        """One sample."""
        start = time.monotonic()
        try:
            problem = self._problem(timeout)
        except NotAsked as err:
            self.not_asked += 1
            self.message = self.message or str(err)
            return
        except NoAnswer as err:
            problem = str(err)
        self.seconds.append(round(time.monotonic() - start, 3))
        if problem:
            self.failed += 1
            self.message = problem
        else:
            self.passed += 1

    def _problem(self, timeout: float) -> str:
        follow = not any(300 <= status < 400 for status in self.status)
        status, body = fetch(self.url, timeout, follow=follow)
        shown = without_credentials(self.url)
        beginning = without_secrets(" ".join(body.split())[:200]) or "(empty)"
        if status == 407:
            raise NotAsked(f"{shown} cannot be asked: the proxy refused with status 407.")
        if status not in self.status:
            wanted = " or ".join(str(number) for number in self.status)
            return f"{shown} answered with status {status} instead of {wanted}: {beginning}"
        if self.contains and self.contains not in body:
            return f"{shown} answered without {self.contains!r}: {beginning}"
        return ""

    def verdict(self) -> str:
        """What the samples say together. One that could not be asked says nothing, and too many of them leave it open."""
        if self.passed + self.failed == 0 or self.not_asked * 2 > self.passed + self.failed + self.not_asked:
            return "inconclusive"
        if not self.failed:
            return "up"
        return "partly" if self.passed else "down"

    def result(self) -> dict[str, t.Any]:
        """What is reported."""
        samples = self.passed + self.failed + self.not_asked
        status = self.verdict()
        said = {
            "up": f"{self.name} answered as expected, {self.passed} of {samples} times.",
            "partly": f"{self.name} failed {self.failed} of {samples} times, the last time so: {self.message}",
            "down": f"{self.name} failed every time ({self.failed} of {samples}): {self.message}",
            "inconclusive": f"{self.name} could not be asked {self.not_asked} of {samples} times: {self.message}",
        }
        return {
            "name": self.name,
            "priority": self.priority,
            "url": without_credentials(self.url),
            "samples": samples,
            "failures": self.failed,
            "not_asked": self.not_asked,
            "status": status,
            "message": said[status],
            "seconds": self.seconds,
        }


def _statuses(value: object) -> tuple[int, ...]:
    """:raises ValueError: when it is neither a status nor a list of them."""
    values = value if isinstance(value, (list, tuple)) else [200 if value is None else value]
    numbers = tuple(int(str(one)) for one in values)
    if not numbers or not all(100 <= number <= 599 for number in numbers):
        raise ValueError
    return numbers


def health_check_problems(checks: object) -> list[str]:
    """What is wrong with a value of ``rollback_health_checks``, a sentence each; an empty list when nothing is."""
    if not isinstance(checks, (list, tuple)):
        return ["rollback_health_checks must be a list."]
    problems = []
    for number, check in enumerate(checks, 1):
        if not hasattr(check, "get"):
            problems.append(f"rollback_health_checks: entry {number} is no dictionary.")
            continue
        name = str(check.get("name") or "")
        if not name:
            problems.append(f"rollback_health_checks: entry {number} has no name.")
            name = f"entry {number}"
        if not check.get("url"):
            problems.append(f"rollback_health_checks: {name} has no url.")
        if str(check.get("priority") or "P0") not in PRIORITIES:
            problems.append(f"rollback_health_checks: {name} has the priority {check['priority']!r}; use P0, P1 or P2.")
        try:
            _statuses(check.get("status"))
        except ValueError:
            problems.append(f"rollback_health_checks: status of {name} must be an HTTP status or a list of them.")
    return problems


def collect_health(
    checks: Sequence[Mapping[str, t.Any]], samples: int = 3, interval: float = 1.0, timeout: float = 5.0
) -> list[dict[str, t.Any]]:
    """Ask every check several times.

    ``up``: every sample passed. ``down``: every one failed, by a wrong answer, none in time, a refused connection, or
    an expired certificate. ``partly``: some failed. ``inconclusive``: more than half could not be asked for a reason
    on our side: an address that is none, a name that this host cannot resolve, no network, a certificate that this
    host does not trust, a proxy that refuses. Fewer such samples than that are left out.

    :param checks: entries of ``rollback_health_checks``.
    :param interval: seconds between two samples of one check.
    :param timeout: seconds for one answer.
    :returns: one dictionary a check, in order: ``name``, ``priority``, ``url`` (without credentials), ``samples``,
        ``failures``, ``not_asked``, ``status``, ``message``, ``seconds`` of each answer.
    :raises Refused: when a check is written wrongly, see :func:`health_check_problems`.
    """
    problems = health_check_problems(checks)
    if problems:
        raise Refused(" ".join(problems))
    asked = [
        _Check(
            name=str(check["name"]),
            url=str(check["url"]),
            priority=str(check.get("priority") or "P0"),
            status=_statuses(check.get("status")),
            contains=str(check.get("contains") or ""),
        )
        for check in checks
    ]
    for number in range(max(1, int(samples)) if asked else 0):
        if number:
            time.sleep(interval)
        with concurrent.futures.ThreadPoolExecutor(min(_AT_ONCE, len(asked))) as pool:
            list(pool.map(lambda check: check.ask(timeout), asked))
        if all(url_problem(check.url) for check in asked):
            break
    return [check.result() for check in asked]
