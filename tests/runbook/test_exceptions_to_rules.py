# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a checker is told to overlook has its reason beside it."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
import typing as t
from pathlib import Path

import pytest

from tests.run_gates import NOT_IN_THE_COPY
from tests.support.runbook import REPOSITORY

#: A mark for ruff or ansible-lint, mypy, pylint, yamllint, coverage or bandit.
MARK = re.compile(r"#\s*(?:noqa|type:\s*ignore|pylint:\s*disable|yamllint\s+disable|pragma:\s*no\s*cover|nosec)\b")
#: The same with the rules that it names, and what comes after them on its line.
NAMED = re.compile(
    r"#\s*(?:noqa:\s*[\w\-\[\]]+(?:,\s*[\w\-\[\]]+)*|type:\s*ignore\[[\w\-,\s]+\]|pylint:\s*disable=[\w\-,]+"
    r"|yamllint\s+disable(?:-line)?\s+rule:[\w\-]+|pragma:\s*no\s*cover|nosec\s+\w+)(?P<rest>[^\n]*)"
)
WORDS = re.compile(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}")


def lines_without_reason(text: str) -> list[str]:
    """Lines with a mark that names no rule, or is not followed by words."""
    found = []
    for line in text.splitlines():
        named = NAMED.search(line)
        if MARK.search(line) and not (named and WORDS.search(named["rest"])):
            found.append(line.strip())
    return found


def entries_without_comment(text: str) -> list[str]:
    """Entries of an ignore file with a comment neither on their line nor on the one above."""
    lines = ["", *text.splitlines()]
    pairs = [(above, line) for above, line in itertools.pairwise(lines) if line.strip()]
    return [
        line for above, line in pairs if not line.startswith("#") and " #" not in line and not above.startswith("#")
    ]


def sources() -> t.Iterator[Path]:
    """Every text file that is written by hand and checked by something."""
    for folder, folders, files in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if not any(fnmatch.fnmatch(name, hidden) for hidden in NOT_IN_THE_COPY)]
        for name in files:
            if name.endswith((".py", ".yml", ".yaml", ".toml", ".cfg")):
                yield Path(folder, name)


def test_what_is_overlooked_on_a_line_has_its_reason_there() -> None:
    found = {
        str(path.relative_to(REPOSITORY)): lines
        for path in sources()
        if path != Path(__file__) and (lines := lines_without_reason(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_the_marks_are_looked_for_where_they_are() -> None:
    files = list(sources())
    assert len([path for path in files if "plugins/module_utils" in str(path)]) > 50
    assert sum(len(MARK.findall(path.read_text(encoding="utf-8"))) for path in files) > 30


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("x = 1  # noqa: S310", False),
        ("x = 1  # noqa", False),
        ("x = 1  # noqa - nobody knows which rule", False),
        ("x = 1  # noqa: S310 - the scheme is checked", True),
        ("x = 1  # noqa: A002 (the name of the base class)", True),
        ("x = 1  # type: ignore[arg-type]", False),
        ("x = 1  # type: ignore", False),
        ("x = 1  # type: ignore[attr-defined,no-any-return]  # a pipe has it", True),
        ("x = 1  # pylint: disable=broad-except", False),
        ("x = 1  # pylint: disable=broad-except  # whatever comes is shown", True),
        ("x: 1  # yamllint disable-line rule:line-length", False),
        ("- name: x  # noqa: no-changed-when - it only asks", True),
        ("- name: x  # noqa: no-changed-when", False),
        ("x = 1  # nothing to do with it", True),
    ],
)
def test_a_reason_is_told_from_none(line: str, good: bool) -> None:
    assert (lines_without_reason(line) == []) is good


def test_entries_of_ignore_files_have_their_reasons() -> None:
    files = [REPOSITORY / ".ansible-lint-ignore", *(REPOSITORY / "tests").rglob("ignore-*.txt")]
    found = {path.name: entries_without_comment(path.read_text(encoding="utf-8")) for path in files if path.exists()}
    assert not {name: entries for name, entries in found.items() if entries}
    assert entries_without_comment("a.yml rule\n") == ["a.yml rule"]
    assert entries_without_comment("# why\na.yml rule\n\nb.yml rule # why\n") == []


def test_rules_that_are_off_for_the_whole_project_have_their_reasons() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    ignored = re.search(r"^ignore = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert ignored
    assert [line for line in ignored[1].splitlines() if "#" not in line] == []
    per_file = re.search(r"^\[tool\.ruff\.lint\.per-file-ignores\]\n(.*?)^\[", text, re.DOTALL | re.MULTILINE)
    overrides = re.findall(r"^\[\[tool\.mypy\.overrides\]\]\n([^\n]*)", text, re.MULTILINE)
    assert per_file
    assert per_file[1].startswith("#")
    assert overrides
    assert all(line.startswith("#") for line in overrides)
