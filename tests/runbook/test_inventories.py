# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories name settings that exist, with values that a run would take."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.cypher.rollback.plugins.module_utils.health_evidence import health_check_problems
from ansible_collections.cypher.rollback.plugins.module_utils.log_evidence import log_source_problems
from ansible_collections.cypher.rollback.plugins.module_utils.notification import notify_problems
from ansible_collections.cypher.rollback.plugins.module_utils.smoke import smoke_test_problems

from tests.support.settings_table import REPOSITORY, settings

if t.TYPE_CHECKING:
    from pathlib import Path

INVENTORIES = sorted(path for path in (REPOSITORY / "inventories").iterdir() if path.is_dir())


def variables(inventory: Path) -> dict[str, t.Any]:
    """All group variables of an inventory, whatever the group."""
    found: dict[str, t.Any] = {}
    for path in sorted(inventory.rglob("group_vars/*/*.yml")):
        text = path.read_text(encoding="utf-8").replace("{{ vault_rollback_webhook_url }}", "https://example.com/hook")
        found |= yaml.safe_load(text) or {}
    return found


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_an_example_inventory_would_be_taken(inventory: Path) -> None:
    found = variables(inventory)
    assert found
    assert {name for name in found if name.startswith("rollback_")} - set(settings()) == set()
    contacts = found.get("rollback_contacts", [])
    problems = notify_problems(found.get("rollback_notify", []), contacts)
    problems += log_source_problems(found.get("rollback_log_sources", []))
    problems += health_check_problems(found.get("rollback_health_checks", []))
    problems += smoke_test_problems(found.get("rollback_smoke_tests", []))
    assert problems == []


def test_the_production_example_knows_the_roles_of_the_playbook() -> None:
    found = variables(REPOSITORY / "inventories" / "production")
    roles = {contact["role"] for contact in found["rollback_contacts"]}
    assert roles == {"dba_lead", "engineering_lead", "devops_lead", "product_owner"}
    assert found["rollback_require_checklist"] is True
