# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How migration files are named and how their DOWN is marked: a table, one entry a convention."""

from __future__ import annotations

import dataclasses
import re

# What people draw around a marker: dashes, equals signs, boxes.
_DECORATION = "-=#*~_ \t\u2013\u2014\u2500\u2501\u2550"


@dataclasses.dataclass(frozen=True)
class FileName:
    """What a file's name says.

    :param version: the migration's version as written, leading zeros included.
    :param name: the rest, without separators and suffix; may be empty.
    :param is_down: the file holds a DOWN only.
    """

    version: str
    name: str
    is_down: bool


@dataclasses.dataclass(frozen=True)
class Convention:
    """One way to name files and to mark sections.

    :param migration: pattern of a migration's file name, with groups ``version`` and ``name``.
    :param down_file: pattern of the name of a file that holds a DOWN only; tried before ``migration``.
    :param down_marker: pattern of a line comment's text, decoration stripped, that begins the DOWN.
    :param up_marker: the same for the UP, which ends a DOWN.
    :param example: the marker as the convention's own document writes it, for messages.
    """

    key: str
    migration: re.Pattern[str]
    down_file: re.Pattern[str]
    down_marker: re.Pattern[str]
    up_marker: re.Pattern[str]
    example: str

    def file_name(self, file: str) -> FileName | None:
        """What this file name says in this convention; None where it is none of its migrations."""
        for pattern, is_down in ((self.down_file, True), (self.migration, False)):
            match = pattern.fullmatch(file)
            if match is not None:
                return FileName(match["version"], match["name"] or "", is_down)
        return None

    def marker(self, comment: str) -> str | None:
        """``down`` or ``up`` where this line comment, dashes included, is a marker; otherwise None.

        Text behind the marker makes it prose: ``-- DOWN (rollback): see footer`` marks nothing.
        """
        text = " ".join(comment.strip(_DECORATION).rstrip(":").strip(_DECORATION).split())
        if self.down_marker.fullmatch(text):
            return "down"
        return "up" if self.up_marker.fullmatch(text) else None


# The source document: `migrations/{version}-down.sql` (3.2), `${MIGRATION_VERSION}-*.sql` and its marker (4.1).
DOCUMENT = Convention(
    key="document",
    migration=re.compile(r"(?P<version>[0-9]+)(?:[-_](?P<name>.+?))?(?:\.up)?\.sql", re.IGNORECASE),
    down_file=re.compile(r"(?P<version>[0-9]+)(?:[-_]down|(?:[-_](?P<name>.+?))?\.down)\.sql", re.IGNORECASE),
    down_marker=re.compile(r"down(?: migration| script| section)?(?: ?\( ?rollback ?\))?", re.IGNORECASE),
    up_marker=re.compile(
        r"up(?: migration| script| section)?(?: ?\( ?(?:apply|migrate|migration|forward) ?\))?", re.IGNORECASE
    ),
    example="-- DOWN (Rollback)",
)

CONVENTIONS: tuple[Convention, ...] = (DOCUMENT,)


def read_file_name(file: str) -> FileName | None:
    """What a file name says in the first convention that knows it; None for a file that is no migration."""
    for convention in CONVENTIONS:
        found = convention.file_name(file)
        if found is not None:
            return found
    return None


def read_marker(comment: str) -> str | None:
    """``down`` or ``up`` where this line comment is a marker of any convention; otherwise None."""
    for convention in CONVENTIONS:
        marker = convention.marker(comment)
        if marker is not None:
            return marker
    return None
