# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts for people next to a run's ``report.json``."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .journal import publish

if t.TYPE_CHECKING:
    from collections.abc import Mapping


def write_pages(report_path: str, pages: Mapping[str, str]) -> dict[str, str]:
    """Write each text under its name, 0600 and whole; nothing that is there is replaced.

    :param report_path: the report that they belong to. They get its number: ``report-2.html`` goes with ``report-2.json``.
    :param pages: texts by the names of their files, which are plain names.
    :returns: paths by name.
    :raises OSError: when one cannot be written.
    """
    folder, report = os.path.split(report_path)
    number = os.path.splitext(report)[0].rpartition("-")[2]
    first = int(number) if number.isdecimal() else 1
    return {name: _write(folder, os.path.basename(name), text, first) for name, text in pages.items()}


def _write(folder: str, name: str, text: str, first: int) -> str:
    stem, ending = os.path.splitext(name)
    for number in range(first, first + 1000):
        path = os.path.join(folder, f"{stem}-{number}{ending}" if number > 1 else name)
        with contextlib.suppress(FileExistsError):
            publish(path, text)
            return path
    raise FileExistsError(f"{folder} holds 1000 of {name} already")
