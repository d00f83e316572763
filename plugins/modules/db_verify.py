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
    stay have the rows that the backup has, that constraints and indexes are valid, that foreign keys and triggers are enabled,
    that there are no orphans under any foreign key, that sequences are ahead of their columns, and your own checks.
  - With O(depth=full) also what is in each schema, what became of the rows since the newest backup, the plans of the critical
    queries and their times against the baseline, the use of indexes, and the statistics of tables.
  - Without O(effect) it verifies the database by itself. With it, what is older than that rollback is reported and does not fail.
  - What could not be read, or not in time, is reported as not checked, and never as passed.
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
      - Tables whose presence and row counts are reported. With O(depth=full), one fails that the newest backup has rows of and that
        is empty now, or gone although no run dropped it.
    type: list
    elements: str
    default: []
  required_schemas:
    description:
      - Schemas that must be there, unless a rollback dropped them. Straight after a rollback that did not drop it, a missing one is
        reported and does not fail.
    type: list
    elements: str
    default: []
  verify_seconds:
    description:
      - Seconds for all checks together that read whole tables, except the comparison with O(row_counts).
    type: float
    default: 60
  depth:
    description:
      - V(proof), what a rollback has to show while the application stands still.
      - V(full), everything.
    type: str
    default: full
    choices: [proof, full]
  critical_queries:
    description:
      - Queries whose plans are reported, and whose times are compared with the baseline of the newest backup that has one. More
        than 50 percent slower fails, unless that is within the noise.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the query, as in the baseline.
        type: str
        required: true
      query:
        description: The query.
        type: str
        required: true
  backup_dir:
    description:
      - Folder of the backups, whose newest one of this database is compared with. Manifests are read, archives are not. Empty, none is.
    type: path
  backup_key:
    description:
      - Only manifests with this signature count.
    type: str
    default: ""
  run_dir:
    description:
      - Folder of the runs, whose reports tell which tables and schemas were dropped on purpose.
    type: path
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
    required_schemas: [b2b, erp, shared]
    backup_dir: /var/backups/cypher-erp
    run_dir: /var/backups/cypher-erp/runs
    verify_checks:
      - name: no order without customer
        query: SELECT count(*) FROM b2b.orders WHERE customer_id IS NULL
        expect: 0
"""

RETURN = r"""
verification:
  description: Whether none failed, and each check with name, status, expected, actual and details.
  returned: always
  type: dict
  sample: {"passed": true, "checks": [{"name": "indexes are valid", "status": "passed", "expected": "none invalid", "actual": "none invalid", "details": []}]}
outcome:
  description: What a failure means for the run. V(needs_attention) where a check failed.
  returned: failure
  type: str
  sample: needs_attention
details:
  description: Evidence of a failure.
  returned: failure
  type: dict
  sample: {}
target:
  description: The database that was asked.
  returned: always
  type: dict
  sample: {"host": "db1", "port": 5432, "database": "cypher_erp", "server_version": "15.18", "system_identifier": "7312345678901234567"}
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    checks,
    connection,
    errors,
    sql,
    verify,
    wanted_checks,
)

QUERY = {"name": {"type": "str", "required": True}, "query": {"type": "str", "required": True}}


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
        required_schemas=params["required_schemas"],
        seconds=params["verify_seconds"],
        depth=params["depth"],
        queries=params["critical_queries"],
        backup_dir=params["backup_dir"] or "",
        key=params["backup_key"],
        run_dir=params["run_dir"] or "",
    )


def warnings_of(done):
    """What is wrong and older than the rollback, or was not read: nobody looks at checks that did not fail."""
    told = ("orphans under ", "sequence ", "foreign keys are enforced", "foreign keys that were not read")
    return [
        f"{item.name}: {item.actual}."
        for item in done
        if item.status == checks.INFORMATION and item.name.startswith(told)
    ]


def main(make_module=AnsibleModule):
    """Verify, and tell."""
    argument_spec = {
        **connection.login_argument_spec(),
        "search_path": {"type": "list", "elements": "str", "default": ["b2b", "erp", "shared", "public"]},
        "effect": {"type": "dict"},
        "row_counts": {"type": "dict"},
        "critical_tables": {"type": "list", "elements": "str", "default": []},
        **checks.checks_argument_spec(),
        "required_schemas": {"type": "list", "elements": "str", "default": []},
        "verify_seconds": {"type": "float", "default": 60},
        "depth": {"type": "str", "default": "full", "choices": ["proof", "full"]},
        "critical_queries": {"type": "list", "elements": "dict", "default": [], "options": QUERY},
        "backup_dir": {"type": "path"},
        "backup_key": {"type": "str", "default": "", "no_log": True},
        "run_dir": {"type": "path"},
        "lock_timeout": {"type": "str", "default": "5s"},
        "statement_timeout": {"type": "str", "default": "0"},
    }
    module = make_module(argument_spec=argument_spec, supports_check_mode=True)
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2-binary"))
    try:
        request = verify_request(module.params)
        if sql.HAS_PGLAST:
            wanted_checks.refuse_malformed(request.checks)
        target, done = verify.verify_database(request)
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in warnings_of(done) if module.params["effect"] else ():
        module.warn(warning)
    failed = checks.failed_checks(done)
    verification = {"passed": not failed, "checks": [dataclasses.asdict(item) for item in done]}
    if failed:
        module.fail_json(
            msg=f"The verification failed: {'; '.join(failed)}.",
            outcome="needs_attention",
            target=target.to_dict(),
            verification=verification,
            details={"verification": verification},
        )
    module.exit_json(changed=False, verification=verification, target=target.to_dict())


if __name__ == "__main__":
    main()
