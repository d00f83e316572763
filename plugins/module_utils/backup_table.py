# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backups of a folder as a table for a console, and one of them in detail."""

from __future__ import annotations

import textwrap
import typing as t

from .backup_catalog import Entry, span
from .readiness import megabytes
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .manifest import Manifest
    from .retention import Decision

WIDTH = 120
LONGEST_LIST = 50
_HEADS = ("ID", "KIND", "VERSION", "AGE", "SIZE", "TOOK", "PROVIDER", "VALID")
#: Numbers stand on the right.
_RIGHT = {"AGE", "SIZE", "TOOK"}
_LEVELS = {
    "manifest": "by their manifests alone",
    "checksum": "sizes and checksums",
    "read": "checksums, and read by pg_restore",
    "restore": "checksums, read by pg_restore, the newest of each kind restored and compared",
}


def table(entries: Sequence[Entry], backup_dir: str, level: str, database: str = "") -> list[str]:
    """Lines of at most 120 columns, except where an id is long: it must stay whole to be copied."""
    of = f" of {visible(database)}" if database else ""
    number = f"{len(entries)} backup{'' if len(entries) == 1 else 's'}{of}"
    head = _wrapped(f"BACKUPS  {visible(backup_dir)}  {number}, verified: {_LEVELS.get(level, level)}", "")
    if not entries:
        return [*head, "  There is none."]
    rows = [_cells(entry) for entry in entries]
    widths = [max(len(row[column]) for row in [_HEADS, *rows]) for column in range(len(_HEADS))]
    lines = [*head, _row(_HEADS, widths)]
    for entry, row in zip(entries, rows, strict=True):
        lines.append(_row(row, widths))
        lines += _wrapped(visible(entry.reason), "    ") if entry.reason else []
    return [*lines, f"{megabytes(sum(entry.bytes for entry in entries))} in all"]


def detail(entry: Entry) -> list[str]:
    """One backup, all that an operator may ask about it."""
    lines = [f"BACKUP  {visible(entry.id)}  {_validity(entry)}"]
    lines += _wrapped(visible(entry.reason), "  ") if entry.reason else []
    facts = [("path", entry.path)]
    if entry.manifest is not None:
        facts += _facts(entry, entry.manifest)
    width = max(len(name) for name, _value in facts)
    lines += [f"  {name:<{width}}  {visible(value)}" for name, value in facts]
    if entry.manifest is not None:
        lines += _listed(
            "WARNINGS", [line for text in entry.manifest.warnings for line in _wrapped(visible(text), "  ")]
        )
        rows = sorted(entry.manifest.rows.items())
        lines += _listed(f"ROWS OF {len(rows)} TABLES", [f"  {number:>14,}  {visible(name)}" for name, number in rows])
    return lines


def expiry(removed: Sequence[Decision], kept: Sequence[Decision], *, check_mode: bool) -> list[str]:
    """What retention did, or would do."""
    size = megabytes(sum(decision.entry.bytes for decision in removed))
    lines = [f"{'WOULD BE REMOVED' if check_mode else 'REMOVED'}  {len(removed)}, {size}"]
    for title, decisions in (("", removed), (f"KEPT  {len(kept)}", kept)):
        lines += [title] if title else []
        for decision in decisions:
            lines += _wrapped(f"{visible(decision.entry.id)}: {visible(decision.reason)}", "  ")
    return lines


def _facts(entry: Entry, manifest: Manifest) -> list[tuple[str, str]]:
    applied = {True: "was applied already", False: "was not applied yet", None: "not known whether it was applied"}
    roles = f", roles of the cluster: {manifest.globals_scope}"
    phases = ", ".join(f"{name} {seconds} s" for name, seconds in manifest.seconds.items() if name != "total")
    return [
        ("kind", f"{entry.kind} {entry.version} ({applied.get(manifest.applied, '?')})"),
        ("database", f"{entry.database} of cluster {entry.system_identifier}, PostgreSQL {manifest.server_version}"),
        (
            "taken",
            f"{entry.created_at}, {_age(entry)} ago, at {_fact(manifest.snapshot, 'lsn')} of the cluster's log",
        ),
        ("provider", f"{entry.provider}, compression {manifest.compression}{roles}"),
        (
            "size",
            f"{manifest.bytes:,} bytes in {len(manifest.files)} files, database {megabytes(manifest.database_bytes)}",
        ),
        ("took", f"{_took(entry)} ({phases})" if phases else _took(entry)),
        ("programs", f"{_fact(manifest.tools, 'version')} in {_fact(manifest.tools, 'bin_dir')}"),
        (
            "extensions",
            ", ".join(f"{name} {_fact(facts, 'version')}" for name, facts in manifest.extensions.items()) or "-",
        ),
        ("roles", ", ".join(manifest.roles) or "-"),
        ("signed", "yes" if manifest.signature else "no"),
        ("run", str(manifest.run_id) or "-"),
    ]


def _fact(facts: t.Any, name: str) -> str:
    """From a part of the manifest whose shape nobody has checked."""
    return str(facts.get(name, "?")) if isinstance(facts, dict) else "?"


def _cells(entry: Entry) -> tuple[str, ...]:
    known = entry.manifest is not None
    return (
        visible(entry.id),
        visible(entry.kind) or "?",
        visible(entry.version) or "?",
        _age(entry),
        megabytes(entry.bytes) if known else "?",
        _took(entry),
        visible(entry.provider) or "?",
        _validity(entry),
    )


def _validity(entry: Entry) -> str:
    word = {True: "yes", False: "NO", None: "?"}[entry.valid]
    return f"{word}, in use" if entry.in_use else word


def _age(entry: Entry) -> str:
    if entry.age_seconds is None:
        return "?"
    return f"-{span(entry.age_seconds)}" if entry.age_seconds <= -1 else span(entry.age_seconds)


def _took(entry: Entry) -> str:
    if entry.seconds is None:
        return "?"
    return f"{entry.seconds:.1f} s" if entry.seconds < 100 else span(entry.seconds)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        f"{cell:>{width}}" if head in _RIGHT else f"{cell:<{width}}"
        for head, cell, width in zip(_HEADS, cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _listed(title: str, lines: list[str]) -> list[str]:
    more = len(lines) - LONGEST_LIST
    shown = [*lines[:LONGEST_LIST], f"  … and {more} more (in the module's result)"] if more > 1 else lines
    return [title, *shown] if lines else []


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
