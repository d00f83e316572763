# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the page of the settings from the argument specs: python -m tests.support.settings_table."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
PAGE = REPOSITORY / "docs" / "docsite" / "rst" / "reference_settings.rst"
SPECS = REPOSITORY / "roles" / "settings" / "meta" / "argument_specs.yml"

#: Headings of the page, each with the setting that it begins with, in the order of the argument specs.
SECTIONS = (
    ("The database", "rollback_db_host"),
    ("The migrations", "rollback_project_dir"),
    ("What a DOWN may do", "rollback_schema_drift"),
    ("Backups and runs", "rollback_backup_dir"),
    ("Restoring", "rollback_maintenance_db"),
    ("The application", "rollback_hosts"),
    ("The previous code", "rollback_previous_ref"),
    ("Smoke tests", "rollback_smoke_tests"),
    ("Verification", "rollback_verify_checks"),
    ("Single objects", "rollback_index_drop"),
    ("Severity", "rollback_severity_thresholds"),
    ("Who is told, and the checklists", "rollback_contacts"),
)

_HEAD = """\
..
  Copyright (c) 2026, the cypher.rollback authors
  GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
  SPDX-License-Identifier: GPL-3.0-or-later
  Written by "python -m tests.support.settings_table" from roles/settings/meta/argument_specs.yml.

.. _ansible_collections.cypher.rollback.docsite.reference_settings:

Settings
========

Set them in the inventory. Those of the application are read on each host of the group ``erp_app``, all others on the host of the
group ``erp_db``.

.. contents::
   :local:
   :depth: 1
"""

_MARKUP = re.compile(r"([COVE])\(([^()]*)\)|`([^`]*)`")
_PLAIN = re.compile(r"([\\*|_])")


def settings() -> dict[str, dict[str, t.Any]]:
    """The settings by name, as the argument specs have them."""
    options: dict[str, dict[str, t.Any]] = yaml.safe_load(SPECS.read_text(encoding="utf-8"))["argument_specs"]["main"][
        "options"
    ]
    return options


def settings_page() -> str:
    """The page as reStructuredText: a table a section, a row a setting."""
    first = {name: title for title, name in SECTIONS}
    lines = [_HEAD.rstrip()]
    for name, option in settings().items():
        if name in first:
            lines += ["", first[name], "-" * len(first[name]), "", _table_head()]
        lines += [f"   * - ``{name}``", f"     - {_default(option)}".rstrip(), f"     - {_meaning(option)}"]
    return "\n".join(lines) + "\n"


def _table_head() -> str:
    head = [".. list-table::", "   :header-rows: 1", "   :widths: 30 15 55", "", "   * - setting"]
    return "\n".join([*head, "     - default", "     - meaning"])


def _default(option: dict[str, t.Any]) -> str:
    default = option.get("default")
    if default in (None, "", [], {}):
        return ""
    return f"``{default}``" if isinstance(default, str) else f"``{json.dumps(default)}``"


def _meaning(option: dict[str, t.Any]) -> str:
    description = option["description"]
    text = description if isinstance(description, str) else " ".join(description)
    parts = [f"C({name})" for name in option.get("options", {})]
    text = f"{text} Keys: {', '.join(parts)}." if parts else text
    choices = [f"V({choice})" for choice in option.get("choices", [])]
    return _as_rst(f"{text} One of {', '.join(choices)}." if choices else text)


def _as_rst(text: str) -> str:
    """Ansible's markup as literals, and what reStructuredText would take for markup escaped."""
    done, at = "", 0
    for found in _MARKUP.finditer(text):
        done += _PLAIN.sub(r"\\\1", text[at : found.start()])
        at = found.end()
        literal = found[2] if found[2] is not None else found[3]
        done += f"``{literal}``" + ("\\ " if text[at : at + 1].isalnum() else "")
    return done + _PLAIN.sub(r"\\\1", text[at:])


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
