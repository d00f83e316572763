# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Smoke tests: the proof that the application works again."""

from __future__ import annotations

import dataclasses
import decimal
import time
import typing as t

from .application import CannotRun, Command, run_to_end, without_passwords
from .errors import NeedsAttention, Refused, RollbackError

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Seconds that one try of one test may take, so that a hanging one leaves time for the others.
TRY_LIMIT = 10.0

#: Seconds that every test gets at least once, however late it is.
SHORTEST_TRY = 1.0

KINDS = ("url", "command", "query")
_KEYS = {"url": {"status", "contains"}, "command": set(), "query": {"expect"}}
_TRUE = ("t", "true", "yes", "on")
_FALSE = ("f", "false", "no", "off")

#: Opens an address: url, seconds, whether redirects are followed; gives the status and the beginning of the body.
UrlOpener = t.Callable[[str, float, bool], tuple[int, str]]

#: Asks the database: query, seconds; gives the first row, or nothing.
DatabaseAsker: t.TypeAlias = "t.Callable[[str, float], t.Sequence[t.Any] | None]"


class SmokeTestsFailed(NeedsAttention):
    """At least one test did not pass within the time."""


@dataclasses.dataclass(frozen=True)
class SmokeTest:
    """One test of ``rollback_smoke_tests``.

    :param kind: ``url``, ``command`` or ``query``.
    :param target: the address, the command or the SQL query.
    :param successes: times in a row that it must pass; 0 for as many as the tests have in common.
    """

    name: str
    kind: str
    target: t.Any
    status: tuple[int, ...] = (200,)
    contains: str = ""
    expect: t.Any = None
    successes: int = 0

    @classmethod
    def parse(cls, given: Mapping[str, t.Any]) -> SmokeTest:
        """A test from the setting.

        :raises Refused: saying which test is wrong, and how.
        """
        # Ansible fills the keys of a module's suboptions that were not given with None.
        test = {key: value for key, value in given.items() if value is not None or key == "expect"}
        name = str(test.get("name") or "")
        if not name:
            raise Refused(f"rollback_smoke_tests: a test has no name: {without_passwords(str(dict(test)))}.")
        kinds = [kind for kind in KINDS if test.get(kind)]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none of them"
            raise Refused(
                f"rollback_smoke_tests: {name!r} needs exactly one of url, command and query, and has {found}."
            )
        return cls._of_kind(kinds[0], name, test)

    @classmethod
    def _of_kind(cls, kind: str, name: str, test: Mapping[str, t.Any]) -> SmokeTest:
        foreign = [
            key
            for key, value in test.items()
            if key not in {"name", "successes", *KINDS, *_KEYS[kind]} and value is not None
        ]
        if foreign:
            raise Refused(f"rollback_smoke_tests: {name!r} is a {kind} test, which has no {' and no '.join(foreign)}.")
        if kind == "query" and "expect" not in test:
            raise Refused(f"rollback_smoke_tests: {name!r} is a query test and needs expect.")
        if kind == "url" and not str(test["url"]).startswith(("http://", "https://")):
            raise Refused(f"rollback_smoke_tests: {name!r} has a url that is neither http nor https.")
        target = test[kind]
        if kind == "command":
            target = Command.parse(f"The command of smoke test {name!r}", target)
        return cls(
            name=name,
            kind=kind,
            target=target,
            status=_statuses(name, test.get("status", 200)),
            contains=str(test.get("contains", "")),
            expect=test.get("expect"),
            successes=_successes(name, test["successes"]) if "successes" in test else 0,
        )


def _statuses(name: str, value: object) -> tuple[int, ...]:
    values = value if isinstance(value, (list, tuple)) else [value]
    try:
        numbers = tuple(int(str(one)) for one in values)
    except ValueError:
        numbers = ()
    if not numbers or not all(100 <= number <= 599 for number in numbers):
        raise Refused(f"rollback_smoke_tests: status of {name!r} must be an HTTP status or a list of them.")
    return numbers


#: Times in a row that a test may be asked to pass.
MOST_SUCCESSES = 1000


def _successes(name: str, value: object) -> int:
    number = int(str(value)) if str(value).isdecimal() else 0
    if not 1 <= number <= MOST_SUCCESSES:
        raise Refused(
            f"rollback_smoke_tests: successes of {name!r} must be a number from 1 to {MOST_SUCCESSES}: how often in a row "
            "it must pass."
        )
    return number


def smoke_test_problems(tests: object) -> list[str]:
    """What is wrong with a value of ``rollback_smoke_tests``, one sentence a test; an empty list when nothing is."""
    if not isinstance(tests, (list, tuple)):
        return ["rollback_smoke_tests must be a list."]
    problems = []
    for test in tests:
        try:
            SmokeTest.parse(test if hasattr(test, "items") else {})
        except Refused as err:
            problems.append(str(err))
    return problems


@dataclasses.dataclass
class SmokeResult:
    """How a test ended. ``seconds`` run from the beginning of the tests to its last try."""

    name: str
    kind: str
    status: str = "failed"
    message: str = ""
    attempts: int = 0
    seconds: float = 0.0
    #: Times that it passed in a row, up to now.
    in_a_row: int = 0


def same_value(actual: object, expect: object) -> bool:
    """Whether a database value is the expected one, whatever type YAML made of the latter.

    Text is compared as text, so that ``0003`` is not ``3``; numbers as numbers, so that ``3.0`` is ``3``.
    """
    if actual is None or expect is None:
        return actual is expect or (actual is None and str(expect).lower() in ("", "null", "none"))
    if isinstance(actual, bool):
        return str(expect).lower() in ((*_TRUE, "1") if actual else (*_FALSE, "0"))
    if isinstance(expect, bool):
        return str(actual).lower() in (_TRUE if expect else _FALSE)
    if isinstance(actual, (int, float, decimal.Decimal)):
        try:
            return decimal.Decimal(str(actual)) == decimal.Decimal(str(expect).strip())
        except decimal.InvalidOperation:
            return False
    return str(actual) == str(expect)


class SmokeTester:
    """Runs tests until each has passed or the time is up.

    :param open_url: how an address is opened.
    :param ask_database: how a query is run.
    :param chdir: folder in which commands run.
    :param successes: times in a row that a test must pass that does not say so itself.
    """

    def __init__(
        self,
        open_url: UrlOpener | None = None,
        ask_database: DatabaseAsker | None = None,
        chdir: str = "",
        successes: int = 1,
    ) -> None:
        self.successes = successes
        self.open_url = open_url
        self.ask_database = ask_database
        self.chdir = chdir
        self.tries: dict[str, Callable[[SmokeTest, float], str]] = {
            "url": self.try_url,
            "command": self.try_command,
            "query": self.try_query,
        }

    def run(self, tests: Sequence[SmokeTest], timeout: float, interval: float) -> list[SmokeResult]:
        """Try every test that has not passed often enough in a row, again and again.

        :param timeout: seconds for all of them together; each is tried at least once.
        :param interval: seconds between two rounds.
        """
        start = time.monotonic()
        deadline = start + timeout
        results = [SmokeResult(test.name, test.kind) for test in tests]
        while True:
            pending = [(test, result) for test, result in zip(tests, results, strict=True) if result.status != "passed"]
            for test, result in pending:
                self._try(test, result, max(SHORTEST_TRY, min(TRY_LIMIT, deadline - time.monotonic())))
                result.seconds = round(time.monotonic() - start, 3)
            left = deadline - time.monotonic()
            if left <= 0 or all(result.status == "passed" for result in results):
                return results
            time.sleep(min(interval, left))

    def _try(self, test: SmokeTest, result: SmokeResult, limit: float) -> None:
        result.attempts += 1
        try:
            problem = self.tries[test.kind](test, limit)
        except (OSError, RollbackError, ValueError) as err:
            problem = " ".join(str(err).split())
        wanted = max(1, test.successes or self.successes)
        earlier = f" (after it had passed {result.in_a_row} of {wanted} times in a row)" if result.in_a_row else ""
        result.in_a_row = 0 if problem else result.in_a_row + 1
        result.status = "passed" if result.in_a_row >= wanted else "failed"
        result.message = without_passwords(problem) + earlier if problem else _not_yet(result, wanted)

    def try_url(self, test: SmokeTest, limit: float) -> str:
        """One request; what was wrong with the answer, or an empty string."""
        if self.open_url is None:
            return "no way to open an address was given"
        # Who expects a redirect wants to see it, and not where it leads.
        follow = not any(300 <= status < 400 for status in test.status)
        status, body = self.open_url(test.target, limit, follow)
        if status not in test.status:
            wanted = " or ".join(str(number) for number in test.status)
            return f"{test.target} answered with status {status} instead of {wanted}: {_beginning(body)}"
        if test.contains and test.contains not in body:
            return f"{test.target} answered without {test.contains!r}: {_beginning(body)}"
        return ""

    def try_command(self, test: SmokeTest, limit: float) -> str:
        """One run; how it ended when not with 0, or an empty string."""
        try:
            finished = run_to_end(test.target, self.chdir, limit)
        except CannotRun as err:
            return str(err)
        return "" if finished.exit_code == 0 else f"the command {finished.describe()}"

    def try_query(self, test: SmokeTest, limit: float) -> str:
        """One query in a read-only transaction; what was wrong with its first value, or an empty string."""
        if self.ask_database is None:
            return "no database was given"
        row = self.ask_database(test.target, limit)
        if row is None:
            return f"the query gave no row, expected {test.expect!r}"
        return "" if same_value(row[0], test.expect) else f"the query gave {row[0]!r}, expected {test.expect!r}"


def _not_yet(result: SmokeResult, wanted: int) -> str:
    if result.in_a_row >= wanted:
        return ""
    return (
        f"it passed {result.in_a_row} of {wanted} times in a row, and then the time was up: give it more "
        "(rollback_smoke_timeout), or ask for fewer (rollback_smoke_successes)"
    )


def _beginning(body: str) -> str:
    text = " ".join(body.split())
    return (text[:200] + " …" if len(text) > 200 else text) or "(empty)"


def judge(results: Sequence[SmokeResult]) -> None:
    """:raises SmokeTestsFailed: naming every test that did not pass, with what it said last."""
    failed = [result for result in results if result.status != "passed"]
    if failed:
        said = "; ".join(f"{result.name} ({result.attempts} tries): {result.message}" for result in failed)
        raise SmokeTestsFailed(f"{len(failed)} of {len(results)} smoke tests failed: {said}.")


def stage_result(answers: Sequence[Mapping[str, t.Any]], database_host: str) -> dict[str, t.Any]:
    """What the stage did, from the registered answers of its tasks.

    :param answers: each of a task or of a loop over hosts, skipped ones included.
    :param database_host: the host of answers that come from no loop.
    :returns: ``passed`` (``None`` when no test was run), ``tests``, ``skipped`` and ``message``.
    """
    tests: list[dict[str, t.Any]] = []
    for answer in answers:
        for one in answer.get("results", [answer]):
            loop_variable = one.get("ansible_loop_var")
            tests += _tests_of(one, str(one[loop_variable]) if loop_variable else database_host)
    if not tests:
        message = "No smoke test was run, because rollback_smoke_tests is empty or this is check mode."
        return {"passed": None, "skipped": True, "tests": [], "message": message}
    failed = [test for test in tests if test["status"] != "passed"]
    said = "; ".join(
        f"{test['name']} on {test['host']} ({test['attempts']} tries): {test['message']}" for test in failed
    )
    message = (
        f"{len(failed)} of {len(tests)} smoke tests failed: {said}." if failed else f"{len(tests)} smoke tests passed."
    )
    return {"passed": not failed, "skipped": False, "tests": tests, "message": message}


def _tests_of(answer: Mapping[str, t.Any], host: str) -> list[dict[str, t.Any]]:
    """The tests of one answer; an answer without any is a test that failed."""
    if answer.get("skipped"):
        return []
    if answer.get("tests"):
        return [{**test, "host": host} for test in answer["tests"]]
    said = without_passwords(" ".join(str(answer.get("msg") or "the module gave no answer").split()))
    if answer.get("unreachable"):
        said = f"the host cannot be reached: {said}"
    result = SmokeResult("all of this host", "none", message=said)
    return [{**dataclasses.asdict(result), "host": host}]
