#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify a database, after a rollback or by itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_verify
short_description: Verify a database with checks that pass or fail
version_added: 1.0.0
description:
  - Checks, from a fresh session and in one read-only snapshot, that what a rollback removed is gone, that the tables that
    stay have the rows that the backup has, that constraints and indexes are valid, and your own checks.
  - Without O(effect) it verifies the database by itself.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.postgres
  - cypher.rollback.checks
attributes:
  check_mode:
    support: full
    details: Reads only, so it does the same.
  diff_mode:
    support: N/A
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  search_path:
    description:
      - Schemas in which unqualified names of checks and tables are resolved.
    type: list
    elements: str
    default: [b2b, erp, shared, public]
  effect:
    description:
      - The effect that M(cypher.rollback.db_rollback) returned.
    type: dict
  row_counts:
    description:
      - Rows of each table in the backup, by identity.
    type: dict
  critical_tables:
    description:
      - Tables whose presence and row counts are reported.
    type: list
    elements: str
    default: []
  lock_timeout:
    description:
      - How long a query waits for a lock, as a PostgreSQL duration.
    type: str
    default: 5s
  statement_timeout:
    description:
      - How long one query may run, as a PostgreSQL duration. V(0), without limit.
    type: str
    default: "0"
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Verify the database by itself
  cypher.rollback.db_verify:
    login_db: cypher_erp
    critical_tables: [b2b.products, b2b.customers]
    verify_checks:
      - name: no order without customer
        query: SELECT count(*) FROM b2b.orders WHERE customer_id IS NULL
        expect: 0
"""

RETURN = r"""
verification:
  description: Whether all passed, and each check with name, status, expected and actual.
  returned: always
  type: dict
  sample: {"passed": true, "checks": [{"name": "indexes are valid", "status": "passed", "expected": "none invalid", "actual": "none invalid"}]}
target:
  description: The database that was asked.
  returned: always
  type: dict
  sample: {"host": "db1", "port": 5432, "database": "cypher_erp", "server_version": "15.18", "system_identifier": "7312345678901234567"}
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import checks, connection, errors, verify


def verify_request(params):
    """The request that the parameters make."""
    effect = params["effect"] or {}
    return verify.VerifyRequest(
        settings=connection.settings_from(params),
        search_path=params["search_path"],
        critical_tables=params["critical_tables"],
        checks=checks.wanted_checks(params),
        dropped=effect.get("dropped"),
        added=effect.get("added", ()),
        row_counts=params["row_counts"] or None,
        changed_tables=effect.get("touched", ()),
        invalid=effect.get("invalid", ()),
        lock_timeout=params["lock_timeout"],
        statement_timeout=params["statement_timeout"],
    )


def main(make_module=AnsibleModule):
    """Verify, and tell."""
    argument_spec = {
        **connection.login_argument_spec(),
        "search_path": {"type": "list", "elements": "str", "default": ["b2b", "erp", "shared", "public"]},
        "effect": {"type": "dict"},
        "row_counts": {"type": "dict"},
        "critical_tables": {"type": "list", "elements": "str", "default": []},
        **checks.checks_argument_spec(),
        "lock_timeout": {"type": "str", "default": "5s"},
        "statement_timeout": {"type": "str", "default": "0"},
    }
    module = make_module(argument_spec=argument_spec, supports_check_mode=True)
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2-binary"))
    try:
        target, done = verify.verify_database(verify_request(module.params))
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    failed = checks.failed_checks(done)
    verification = {"passed": not failed, "checks": [dataclasses.asdict(item) for item in done]}
    if failed:
        module.fail_json(
            msg=f"The verification failed: {'; '.join(failed)}.",
            verification=verification,
            details={"verification": verification},
        )
    module.exit_json(changed=False, verification=verification, target=target.to_dict())


if __name__ == "__main__":
    main()
