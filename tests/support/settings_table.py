# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the settings table of README.md from the argument specs: python -m tests.support.settings_table."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
SPECS = REPOSITORY / "roles" / "settings" / "meta" / "argument_specs.yml"

_PLACE = re.compile(r"(<!-- settings:[^\n]*-->\n).*?(<!-- end of settings -->)", re.DOTALL)
_MARKUP = re.compile(r"[COVE]\(([^()]*)\)")


def settings() -> dict[str, dict[str, t.Any]]:
    """The settings by name, as the argument specs have them."""
    options: dict[str, dict[str, t.Any]] = yaml.safe_load(SPECS.read_text(encoding="utf-8"))["argument_specs"]["main"][
        "options"
    ]
    return options


def settings_table() -> str:
    """A Markdown table, one line a setting."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {_default(option)} | {_meaning(option)} |" for name, option in settings().items()]
    return "\n".join(lines) + "\n"


def _default(option: dict[str, t.Any]) -> str:
    default = option.get("default")
    if default in (None, "", [], {}):
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _meaning(option: dict[str, t.Any]) -> str:
    description = option["description"]
    text = description if isinstance(description, str) else " ".join(description)
    parts = [f"`{name}`" for name in option.get("options", {})]
    text = f"{text} Keys: {', '.join(parts)}." if parts else text
    choices = [f"`{choice}`" for choice in option.get("choices", [])]
    text = f"{text} One of {', '.join(choices)}." if choices else text
    return _MARKUP.sub(r"`\1`", text).replace("|", "\\|")


def with_table(readme: str) -> str:
    """README's text with the table in its place."""
    return _PLACE.sub(lambda found: found[1] + settings_table() + found[2], readme)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
