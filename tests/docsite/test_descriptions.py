# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-doc shows: each module, filter and role in full, with examples that Ansible could run."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t

import pytest
import yaml

from tests.support.artifact import program
from tests.support.settings_table import REPOSITORY, settings

if t.TYPE_CHECKING:
    from collections.abc import Iterator

COLLECTION = "cypher.rollback."
MODULES = sorted(path.stem for path in (REPOSITORY / "plugins" / "modules").glob("*.py"))
FILTERS = sorted(path.stem for path in (REPOSITORY / "plugins" / "filter").glob("*.yml"))
ROLES = sorted(path.parent.parent.name for path in REPOSITORY.glob("roles/*/tasks/main.yml"))
#: Keys of a result that mean something to Ansible itself: a module that uses them for another thing changes what a play does.
MEANT_BY_ANSIBLE = {"ansible_facts", "exception", "failed", "invocation", "rc", "results", "skipped", "unreachable"}
KEYWORDS = {
    "become", "become_user", "changed_when", "check_mode", "delegate_to", "environment", "failed_when", "loop", "name", "no_log", "register",
    "tags", "vars", "when",
}  # fmt: skip


@pytest.fixture(scope="module")
def described() -> dict[str, dict[str, t.Any]]:
    """All that ansible-doc knows of the collection, by the kind of plugin and the name."""
    command = [program("ansible-doc"), "--metadata-dump", "--no-fail-on-errors", "cypher.rollback"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    everything = json.loads(done.stdout)["all"]
    return {
        kind: {name.removeprefix(COLLECTION): entry for name, entry in everything[kind].items()}
        for kind in ("module", "filter", "role")
    }


def options_of(options: dict[str, t.Any], path: str) -> Iterator[tuple[str, dict[str, t.Any]]]:
    """Options with their suboptions, by path."""
    for name, option in options.items():
        yield f"{path}.{name}", option
        yield from options_of(option.get("suboptions") or option.get("options") or {}, f"{path}.{name}")


def said(description: t.Any) -> bool:
    """Whether there is a sentence."""
    lines = [description] if isinstance(description, str) else list(description or [])
    return bool(lines) and all(re.fullmatch(r"[A-Z0-9`(].*[.:\]]", line.strip(), re.DOTALL) for line in lines)


def test_everything_is_there(described: dict[str, dict[str, t.Any]]) -> None:
    assert sorted(described["module"]) == MODULES
    assert sorted(described["filter"]) == FILTERS
    assert sorted(described["role"]) == ROLES
    for kind in described.values():
        assert [name for name, entry in kind.items() if "error" in entry] == []


def test_every_option_and_every_returned_key_is_described(described: dict[str, dict[str, t.Any]]) -> None:
    silent = []
    for kind in ("module", "filter"):
        for name, entry in described[kind].items():
            silent += [
                path for path, option in options_of(entry["doc"]["options"], name) if not said(option["description"])
            ]
            assert said(entry["doc"]["description"]), name
            assert entry["return"] or kind == "module", name
            for key, value in (entry["return"] or {}).items():
                silent += [] if said(value["description"]) and value.get("type") else [f"{name} returns {key}"]
    for name, entry in described["role"].items():
        for point in entry["entry_points"].values():
            assert said(point["description"]), name
            silent += [
                path for path, option in options_of(point.get("options") or {}, name) if not said(option["description"])
            ]
    assert silent == []


def test_no_module_returns_what_ansible_takes_for_its_own(described: dict[str, dict[str, t.Any]]) -> None:
    found = {(name, key) for name, entry in described["module"].items() for key in entry["return"] or {}}
    assert [(name, key) for name, key in sorted(found) if key in MEANT_BY_ANSIBLE] == []


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_tasks_that_it_would_take(
    described: dict[str, dict[str, t.Any]], name: str
) -> None:
    entry = described["module"][name]
    tasks = yaml.safe_load(entry["examples"])
    assert tasks
    used = set()
    for task in tasks:
        assert task["name"]
        (action,) = set(task) - KEYWORDS
        assert action.count(".") == 2, f"{action} is no full name"
        used.add(action)
        if action == f"{COLLECTION}{name}":
            allowed = set(entry["doc"]["options"]) | {
                alias for option in entry["doc"]["options"].values() for alias in option.get("aliases", [])
            }
            assert set(task[action] or {}) - allowed == set()
            required = {key for key, option in entry["doc"]["options"].items() if option.get("required")}
            assert required - set(task[action] or {}) == set()
    assert f"{COLLECTION}{name}" in used


@pytest.mark.parametrize("name", FILTERS)
def test_the_examples_of_a_filter_use_its_full_name(described: dict[str, dict[str, t.Any]], name: str) -> None:
    examples = described["filter"][name]["examples"]
    assert yaml.safe_load(examples)
    assert f"{COLLECTION}{name}" in examples


@pytest.mark.parametrize("name", ROLES)
def test_the_argument_specs_of_a_role_are_its_defaults(name: str) -> None:
    """Each default has its description, and a default of the specs is the one that the role has."""
    role = REPOSITORY / "roles" / name
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text(encoding="utf-8")) or {}
    described = {key: option for point in specs.values() for key, option in (point.get("options") or {}).items()}
    assert set(defaults) - set(described) == set()
    without = {key for key, option in described.items() if not option.get("required")} - set(defaults) - set(settings())
    # What only a play can know: it has no value of its own.
    assert {key for key in without if described[key].get("default") is not None} == set()
    different = {
        key: (option["default"], defaults[key])
        for key, option in described.items()
        if key in defaults and option.get("default") is not None and option["default"] != defaults[key]
    }
    assert different == {}
    entries = {path.stem for path in (role / "tasks").glob("*.yml")}
    assert set(specs) - entries == set()
