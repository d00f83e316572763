# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a line of a log says: when it was written, how bad it is, and which lines belong together."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
import typing as t

from .application import without_passwords

if t.TYPE_CHECKING:
    import zoneinfo
    from collections.abc import Mapping

CLASSES = ("critical", "error", "warning")

#: Characters of a line in which its time and its level are looked for.
HEAD = 160

#: Characters of an entry that are read, and of a line that is quoted.
ENTRY_LIMIT = 16384
QUOTE_LIMIT = 300

_LEVELS = {
    **dict.fromkeys(("fatal", "panic", "dpanic", "emerg", "emergency", "alert", "crit", "critical"), "critical"),
    **dict.fromkeys(("error", "err", "severe"), "error"),
    **dict.fromkeys(("warn", "warning"), "warning"),
    **dict.fromkeys(("notice", "info", "information", "informational", "debug", "trace", "verbose"), "harmless"),
}
_LEVEL_WORDS = "|".join(sorted(_LEVELS, key=len, reverse=True))
_LEVEL_PATTERNS = (
    re.compile(rf"(?i)\b(?:level|lvl|severity|loglevel|levelname)\s*[=:]\s*[\"']?({_LEVEL_WORDS})\b"),
    re.compile(rf"(?i)\[(?:\w+:)?\s*({_LEVEL_WORDS})\s*\]"),
    re.compile(rf"(?<![\w/.-])({_LEVEL_WORDS.upper()})(?![\w/-]|\.\w)"),
    re.compile(rf"(?i)^({_LEVEL_WORDS})\s*:\s"),
)
#: The further lines of a message of PostgreSQL, and its own word for a note.
_POSTGRESQL_NOTE = re.compile(r"\b(?:LOG|DETAIL|HINT|STATEMENT|CONTEXT|QUERY|LOCATION):  ")
_JSON_LEVELS = ("level", "severity", "levelname", "lvl", "log.level", "loglevel")
_JSON_TIMES = ("time", "timestamp", "ts", "@timestamp")

#: Where no level is given: words, as words and neither in a path nor in a longer name.
_DEFAULTS = {
    "critical": re.compile(
        r"(?<![\w/.-])(?:(?i:fatal|panic)|CRITICAL|(?i:critical)(?=\s*:))(?![\w/-]|\.\w)"
        r"|(?i:\bout of memory\b)|\bOOM\b|OutOfMemory"
    ),
    "error": re.compile(
        r"(?<![\w/.-])(?i:errors?|exceptions?)(?![\w/-]|\.\w)|\b[A-Z]\w*(?:Error|Exception)\b(?!\.\w)|\bTraceback\b"
    ),
    "warning": re.compile(r"(?<![\w/.-])(?i:warn|warnings?)(?![\w/-]|\.\w)"),
}
_NO_MEMORY = re.compile(r"(?i:\bout of memory\b)|\bOOM\b|OutOfMemory")
_PROBLEM_WORDS = r"(?:errors?|exceptions?|warnings?|warn|fatals?|panics?|criticals?)"
#: What any level or word of a problem has in it. Most lines of most logs have none of it, and need no second look.
_NOTEWORTHY = (
    "err",
    "exce",
    "warn",
    "fatal",
    "panic",
    "crit",
    "memory",
    "oom",
    "traceback",
    "severe",
    "emerg",
    "alert",
)
#: What speaks of no problem: "0 errors", "no warnings", "errors: 0", "error=none", '"error": null'.
_NO_PROBLEM = re.compile(
    rf"(?i)\b(?:0|no|zero|without(?:\s+any)?)\s+(?:\w+\s+)?{_PROBLEM_WORDS}\b"
    rf"|\b{_PROBLEM_WORDS}[\"']?\s*[=:]\s*"
    r"(?:none\b|null\b|nil\b|false\b|<nil>|\"\"|''|\[\]|\{\}|0(?=\s*(?:[,;|)\]}]|$)|\s+\w+\s*[=:]))"
)

_DATE = r"(\d{4})[-/](\d\d)[-/](\d\d)"
_CLOCK = r"(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
_ISO = re.compile(rf"{_DATE}[T ]{_CLOCK} ?(Z\b|UTC\b|GMT\b|[+-]\d\d(?::?\d\d)?(?!\d))?")
_ACCESS = re.compile(r"\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\]")
_SYSLOG = re.compile(r"^(?:<\d{1,3}>)?([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)\b")
_EPOCH = re.compile(r"^\[?(\d{10})(\d{3})?(?:\.(\d{1,9}))?\b(?![-:/])")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_MORE = re.compile(r"^(?:\s|Caused by: |Suppressed: |\.\.\. \d+ more|During handling of|The above exception)|^$")
_THROWN = re.compile(r"^(?:Traceback \(most recent call last\)|Exception in thread|[\w.$]+(?:Exception|Error)\b)")

#: How a stack trace of Python begins, whose end is the next line that is not indented.
_TRACE = "Traceback (most recent call last)"

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_URL_USER = re.compile(r"(://)[^/\s:@]+@")
_NAMED_SECRET = re.compile(
    r"(?i)([\w-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key)[\w-]*[\"']?\s*[=:]\s*)"
    r"(\"[^\"]*\"?|'[^']*'?|[^\s,;&\"'}]+)"
)
_AUTHORIZATION = re.compile(
    r"(?i)\b(authorization[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic)\s+)?|bearer\s+)[\w.~+/=-]{4,}"
)


class LineTimes:
    """Finds the times of the lines of one log.

    :param now: a time of year without a year is the last such one before it.
    :param zone: zone of times that name none; ``None`` is that of this host.
    """

    def __init__(self, now: dt.datetime, zone: zoneinfo.ZoneInfo | None = None) -> None:
        self.now = now
        self.zone = zone
        #: Whether the last time that was found named no zone.
        self.zoneless = False

    def find(self, line: str) -> dt.datetime | None:
        """When the line was written, or nothing where it does not say so."""
        if not line or line[0] in " \t":
            return None
        try:
            if line[0] == "{":
                return self._of_json(line)
            return self._of_text(line[:HEAD])
        except (ValueError, OverflowError, OSError):
            return None

    def _of_text(self, head: str) -> dt.datetime | None:
        if match := _ISO.search(head):
            year, month, day, hour, minute, second, fraction, zone = match.groups()
            micro = int((fraction or "0").ljust(6, "0")[:6])
            moment = dt.datetime(
                int(year), int(month), int(day), int(hour), int(minute), min(int(second), 59), micro, dt.UTC
            )
            return self._in_zone(moment, zone)
        if match := _ACCESS.search(head):
            access_day, name, access_year, hour, minute, second, offset = match.groups()
            moment = dt.datetime(
                int(access_year),
                _MONTHS.index(name) + 1,
                int(access_day),
                int(hour),
                int(minute),
                min(int(second), 59),
                tzinfo=dt.UTC,
            )
            return self._in_zone(moment, offset)
        if match := _SYSLOG.search(head):
            name, syslog_day, hour, minute, second = match.groups()
            return self._in_year(_MONTHS.index(name) + 1, int(syslog_day), int(hour), int(minute), int(second))
        if match := _EPOCH.search(head):
            seconds, thousandths, fraction = match.groups()
            return self._of_epoch(float(f"{seconds}.{thousandths or fraction or 0}"))
        return None

    def _of_epoch(self, number: float) -> dt.datetime:
        """Seconds, or what it must be where that would be far in the future: milli-, micro- or nanoseconds."""
        while number > 1e11:
            number /= 1000
        self.zoneless = False
        return dt.datetime.fromtimestamp(number, dt.UTC)

    def _of_json(self, line: str) -> dt.datetime | None:
        record = json_record(line)
        for key in _JSON_TIMES:
            value = record.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return self._of_epoch(float(value))
            if isinstance(value, str) and value:
                return self._of_text(value[:HEAD])
        return None

    def _in_zone(self, moment: dt.datetime, zone: str | None) -> dt.datetime:
        self.zoneless = zone is None
        if zone is None:
            # Without any, astimezone takes the time as one of this host.
            return moment.replace(tzinfo=self.zone).astimezone(dt.UTC)
        offset = 0
        if zone[0] in "+-":
            digits = zone[1:].replace(":", "").ljust(4, "0")
            offset = (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if zone[0] == "-" else 1)
        return moment - dt.timedelta(minutes=offset)

    def _in_year(self, month: int, day: int, hour: int, minute: int, second: int) -> dt.datetime:
        for year in (self.now.year + 1, self.now.year, self.now.year - 1):
            try:
                moment = dt.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=dt.UTC)
            except ValueError:
                continue
            found = self._in_zone(moment, None)
            if found <= self.now + dt.timedelta(days=1):
                return found
        raise ValueError("no such day")


def json_record(line: str) -> dict[str, t.Any]:
    """The object of a JSON line; an empty one where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def level_of(line: str) -> str:
    """The level that the line itself gives: a class, ``harmless``, or an empty string where it gives none."""
    if line.startswith("{") and (record := json_record(line)):
        return _json_level(record)
    low = line.lower()
    if not any(part in low for part in _NOTEWORTHY):
        return "harmless"
    head = line[:HEAD]
    if _POSTGRESQL_NOTE.search(head):
        return "harmless"
    # The words without a value ("error=none") are no level either.
    head = _NO_PROBLEM.sub("", head)
    for pattern in _LEVEL_PATTERNS:
        if match := pattern.search(head):
            return _LEVELS[match.group(1).lower()]
    return ""


def _json_level(record: Mapping[str, t.Any]) -> str:
    log = record.get("log")
    nested = log.get("level") if isinstance(log, dict) else None
    for value in [*(record.get(key) for key in _JSON_LEVELS), nested]:
        if isinstance(value, str):
            return _LEVELS.get(value.strip().lower(), "")
        if isinstance(value, int) and not isinstance(value, bool) and value >= 10:
            # The numbers of bunyan and pino: 30 is info, 40 a warning, 50 an error, 60 fatal.
            return "critical" if value >= 60 else "error" if value >= 50 else "warning" if value >= 40 else "harmless"
    return ""


@dataclasses.dataclass
class Entry:
    """A line with those that belong to it, such as a stack trace.

    :param at: when it was written, ``None`` where that is not known.
    :param level: the level that it gives itself, see :func:`level_of`.
    """

    text: str
    at: dt.datetime | None
    level: str
    in_trace: bool = False
    traced: bool = False

    def takes(self, line: str) -> bool:
        """Whether the line belongs to this entry; if so it was added."""
        if not self._belongs(line):
            return False
        if len(self.text) < ENTRY_LIMIT:
            self.text = f"{self.text}\n{line}"[:ENTRY_LIMIT]
        return True

    def _belongs(self, line: str) -> bool:
        if line.startswith(_TRACE):
            # One after "INFO starting" was printed by somebody else; one after "ERROR" is what the error is about.
            joins = self.in_trace or (self.level in ("critical", "error") and not self.traced)
            self.in_trace = self.traced = joins
            return joins
        if _MORE.match(line):
            self.traced = self.traced or line.strip().startswith(("at ", "File "))
            return True
        if self.in_trace and not line.startswith("{") and not _ISO.match(line):
            # The last line of Python's, which names the exception.
            self.in_trace = False
            return True
        return bool(_THROWN.match(line)) and self.level in ("critical", "error") and not self.traced


def without_colours(line: str) -> str:
    """The line as it would be written into a file and not to a terminal."""
    return _COLOUR.sub("", line) if "\x1b" in line else line


def begin_entry(line: str, at: dt.datetime | None) -> Entry:
    """An entry of its first line."""
    line = line[:ENTRY_LIMIT]
    return Entry(line, at, level_of(line), in_trace=_TRACE in line)


class Judge:
    """Says of an entry which class it is of.

    :param patterns: regular expressions by class and for ``known``; a class without any has the built-in rules.
    """

    def __init__(self, patterns: Mapping[str, tuple[re.Pattern[str], ...] | None]) -> None:
        self.patterns = patterns

    def __call__(self, entry: Entry) -> str:
        """``known``, ``critical``, ``error``, ``warning``, or an empty string for a line that is no problem."""
        if any(pattern.search(entry.text) for pattern in self.patterns.get("known") or ()):
            return "known"
        default = default_class(entry)
        for name in CLASSES:
            patterns = self.patterns.get(name)
            if default == name if patterns is None else any(pattern.search(entry.text) for pattern in patterns):
                return name
        return ""


def default_class(entry: Entry) -> str:
    """The class by the built-in rules: by the level that the entry gives itself, else by its words."""
    if entry.level == "harmless":
        return ""
    if entry.level:
        return "critical" if _NO_MEMORY.search(entry.text) else entry.level
    text = _NO_PROBLEM.sub("", entry.text)
    return next((name for name in CLASSES if _DEFAULTS[name].search(text)), "")


def quoted(text: str) -> str:
    """The first line of an entry for a report: without control characters and secrets, and not too long.

    The line that names the exception is added to a Python stack trace, whose first line says nothing.
    """
    lines = [line for line in text.split("\n") if line.strip()] or [""]
    shown = lines[0]
    if len(lines) > 1 and _TRACE in shown:
        shown = f"{shown} … {lines[-1]}"
    shown = " ".join(_CONTROL.sub(" ", shown[: QUOTE_LIMIT * 8]).split())
    return without_secrets(shown)[:QUOTE_LIMIT]


def without_secrets(text: str) -> str:
    """The text with passwords, tokens and keys blanked, in addresses, pairs and headers."""
    text = _URL_USER.sub(r"\1***@", without_passwords(text))
    return _AUTHORIZATION.sub(r"\1***", _NAMED_SECRET.sub(r"\1***", text))
