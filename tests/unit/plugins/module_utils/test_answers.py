# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command line, an inventory and a survey give for an answer."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import answers


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("Yes\r", True), ("y", True), ("da", True), ("nu", False), ("", None), ("?", None), ("1", None)],
)
def test_what_somebody_types(typed: str, answer: bool | None) -> None:
    assert answers.yes_or_no(typed) is answer


@pytest.mark.parametrize(
    ("value", "yes"),
    [
        ("yes", True),
        (" True ", True),
        (True, True),
        ("On", True),
        (1, True),
        ("off", False),
        ("0", False),
        ("no", False),
        (False, False),
        ("", False),
        (" ", False),
        (None, False),
    ],
)
def test_an_answer_that_is_no_yes_is_a_no(value: object, yes: bool) -> None:
    assert answers.is_yes(value) is yes


@pytest.mark.parametrize("value", ["maybe", "1x", 2])
def test_an_answer_that_is_neither_is_refused_by_name(value: object) -> None:
    with pytest.raises(answers.NeitherYesNorNo) as raised:
        answers.is_yes(value, "cascade")
    assert str(raised.value) == f"cascade is {str(value)!r}, which is neither yes nor no. Give cascade as yes or no."


@pytest.mark.parametrize(
    ("value", "default", "taken"),
    [
        ("0003", "", "0003"),
        (" 0003 ", "", "0003"),
        ("", "checksum", "checksum"),
        ("  ", "checksum", "checksum"),
        (None, "checksum", "checksum"),
        ("", None, ""),
        (0, "", 0),
        (3, "", 3),
        (["b2b.orders"], "", ["b2b.orders"]),
    ],
)
def test_what_was_left_empty_was_not_given(value: t.Any, default: t.Any, taken: t.Any) -> None:
    assert answers.given(value, default) == taken
