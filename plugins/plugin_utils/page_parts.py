# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a page is made of, and how times, numbers and statuses are written on it.

A report may come from an older or a newer release, so every part of it is asked for with care: what is not there, or is
not of the shape that is expected, is left out.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import typing as t

#: Rows of a table from which on it is folded.
FOLDED_FROM = 20

_TONES = {
    "good": ("passed", "finished", "confirmed", "sent", "up", "clear", "running", "rolled_back", "restored", "backed_up"),
    "bad": ("failed", "denied", "down", "fired", "needs_attention", "died", "error"),
    "warn": ("open", "unknown", "partly", "inconclusive", "started", "failed_unchanged", "refused", "at work", "not checked", "warning"),
}  # fmt: skip
_TONE_OF = {status: tone for tone, statuses in _TONES.items() for status in statuses}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A value as it is shown.

    :param form: ``name`` for what comes from a database or is to be copied, ``number``, ``status``, or empty for words.
    :param tone: ``good``, ``bad``, ``warn`` or empty. It is never the only sign.
    :param below: a second, smaller line.
    :param language: of the second line.
    """

    text: str
    form: str = ""
    tone: str = ""
    below: str = ""
    language: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under heads; more than :data:`FOLDED_FROM` of them are folded."""

    title: str
    heads: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""
    tone: str = ""
    aside: bool = False

    @property
    def folded(self) -> bool:
        """Whether a reader asks for the rows."""
        return self.aside or len(self.rows) > FOLDED_FROM


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page; one without content is left out.

    :param notes: paragraphs, each with its tone.
    :param blocks: titles and preformatted texts.
    """

    key: str
    title: str
    notes: list[Cell] = dataclasses.field(default_factory=list)
    facts: list[tuple[str, Cell]] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)
    blocks: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.notes or self.facts or self.blocks or any(table.rows for table in self.tables))


def mapping(value: t.Any, *path: str) -> dict[str, t.Any]:
    """What is at a path, if it is a mapping; an empty one otherwise."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def entries(value: t.Any, *path: str) -> list[dict[str, t.Any]]:
    """What is at a path, if it is a list of mappings; other things in the list become mappings with a ``name``."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    found = value if isinstance(value, (list, tuple)) else []
    return [entry if isinstance(entry, dict) else {"name": entry} for entry in found]


def words(value: t.Any) -> Cell:
    """Plain text."""
    return Cell("" if value is None else str(value))


def name(value: t.Any, below: str = "") -> Cell:
    """A name, a path or a command."""
    return Cell("" if value is None else str(value), "name", below=below)


def number(value: t.Any, unit: str = "") -> Cell:
    """A number with separators of thousands; empty where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Cell("" if value is None else str(value), "number")
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")
    return Cell(f"{text} {unit}".rstrip(), "number")


def status(value: t.Any) -> Cell:
    """A status as a word with a sign and a tone."""
    text = str(value or "").replace("_", " ")
    return Cell(text, "status", _TONE_OF.get(str(value), _TONE_OF.get(text, "")))


def time_of(value: t.Any) -> dt.datetime | None:
    """A time of the report; ``None`` where it is none."""
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def moment(value: t.Any) -> str:
    """A time as words, in UTC."""
    found = time_of(value)
    return f"{found.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC" if found else str(value or "")


def clock(value: t.Any) -> str:
    """The time of day in UTC."""
    found = time_of(value)
    return f"{found.astimezone(dt.UTC):%H:%M:%S}" if found else str(value or "")


def duration(seconds: t.Any) -> str:
    """Seconds as words, from ``0.4 ms`` to ``2 h 5 min``; empty where there are none."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return ""
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def size(count: t.Any) -> str:
    """Bytes as words."""
    if isinstance(count, bool) or not isinstance(count, (int, float)):
        return ""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """A number of things, as words."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith(("x", "s")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def pairs(entry: t.Mapping[str, t.Any], *left_out: str) -> str:
    """The scalars of a mapping as words, for evidence whose keys are not known here."""
    shown = [
        f"{str(key).replace('_', ' ')} {value}"
        for key, value in entry.items()
        if key not in left_out and isinstance(value, (str, int, float)) and value != ""
    ]
    return ", ".join(shown)
