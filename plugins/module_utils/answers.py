# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers as they come: typed on a command line, chosen in a survey, or set in an inventory.

A survey of AWX has no switch and sends every answer as text, and a question that was left out as an empty one.
"""

from __future__ import annotations

import typing as t

from .errors import Refused

#: Words of an answer, in English and in the source document's language.
YES = ("yes", "true", "y", "da")
NO = ("no", "false", "n", "nu")

#: What Ansible takes for a switch besides: https://docs.ansible.com/ansible/latest/reference_appendices/YAMLSyntax.html
ON = ("on", "1", "t")
OFF = ("off", "0", "f")


class NeitherYesNorNo(Refused):
    """An answer to a question of yes or no is something else."""


def yes_or_no(value: object) -> bool | None:
    """An answer as it is typed or set, ``None`` where it is neither a yes nor a no."""
    word = str(value).strip().lower()
    return True if word in YES else False if word in NO else None


def is_yes(value: object, name: str = "answer") -> bool:
    """Whether an answer is a yes, or switched on; none, and an empty one, is a no.

    :param name: of the extra variable or setting, for the refusal.
    :raises NeitherYesNorNo: for any other word.
    """
    if not given(value):
        return False
    word = str(value).strip().lower()
    answer = True if word in ON else False if word in OFF else yes_or_no(word)
    if answer is None:
        raise NeitherYesNorNo(f"{name} is {str(value)[:60]!r}, which is neither yes nor no. Give {name} as yes or no.")
    return answer


def given(value: t.Any, default: t.Any = "") -> t.Any:
    """An answer without the blanks around it; what was left empty is as if it had not been given.

    :param value: text; anything else is returned as it is, and ``None`` counts as empty.
    :param default: what stands for an answer that was not given; ``None`` is an empty text.
    """
    answer = value.strip() if isinstance(value, str) else value
    if answer is None or answer == "":
        return "" if default is None else default
    return answer
