#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the DOWN scripts of a rollback in one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_rollback
short_description: Run the DOWN of one or more migrations in one transaction
version_added: 1.0.0
description:
  - Runs the DOWN scripts, newest first, statement by statement, in one transaction.
  - Before it commits, it compares the catalog with what it was, counts the rows that go, and checks that nothing that the
    DOWN names is left. On any doubt it does not commit, and the database is as it was.
  - In check mode it does all of that on the real database, under a lock timeout of one second, and never commits.
  - With O(object) it takes back one object instead, in the same way. An index whose O(object.index_drop=concurrently) is
    dropped outside of a transaction, while others use its table, and proven afterwards. Whoever works on the table is waited
    for up to O(lock_timeout) before it begins. Where it cannot reach its end, the index is left invalid, and running again goes on.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.postgres
  - cypher.rollback.checks
  - cypher.rollback.plan
attributes:
  check_mode:
    support: full
    details: Runs the DOWN in a transaction that ends in C(ROLLBACK).
  diff_mode:
    support: full
    details: The objects of the database before and after, and the rows of tables that go.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  digest:
    description:
      - The plan's digest as M(cypher.rollback.migration_plan_info) returned it. A plan that differs by now is not run.
    type: str
    default: ""
  row_counts:
    description:
      - Rows of each table in the backup that was just made, by identity. Without it, or empty, all tables are counted first.
    type: dict
  run_id:
    description:
      - Name of the run, shown to others in C(pg_stat_activity).
    type: str
    default: ""
  run_dir:
    description:
      - Folder of the runs. With O(run_id), other runs see that this one is at work for as long as the module runs.
    type: path
seealso:
  - module: cypher.rollback.migration_plan_info
  - module: cypher.rollback.db_backup
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Take back 0003
  cypher.rollback.db_rollback:
    login_db: cypher_erp
    project_dir: /srv/cypher-erp
    version: "0003"

- name: Take back a column
  cypher.rollback.db_rollback:
    login_db: cypher_erp
    object:
      column: b2b.orders.new_column
"""

RETURN = r"""
committed:
  description: Whether the transaction was committed.
  returned: success
  type: bool
  sample: true
xid:
  description: The transaction, for C(pg_xact_status).
  returned: success
  type: str
  sample: "7421"
effect:
  description: What was dropped (by name or by CASCADE), skipped, left over, changed, and the rows lost.
  returned: success
  type: dict
  sample: {"dropped": [{"type": "table", "identity": "b2b.carts", "cascaded": false, "rows": 12, "part_of": ""}], "rows_lost": 12}
verification:
  description: The checks that passed before the commit.
  returned: success
  type: dict
  sample: {"passed": true, "checks": []}
statements:
  description: Each statement with its time in seconds.
  returned: success
  type: list
  elements: dict
locks:
  description: Locks on relations that the transaction held.
  returned: success
  type: list
  elements: dict
sessions:
  description: Other sessions of the database at the beginning.
  returned: success
  type: list
  elements: dict
seconds:
  description: Duration of the transaction.
  returned: success
  type: float
  sample: 0.08
schema_drift:
  description:
    - The backup whose schema was compared with, and all that is missing, extra or defined in another way.
    - Empty where there was none to compare with.
  returned: success
  type: dict
  sample: {"backup": "backup_before_migration_0003_20260101_020000", "version": "0003", "created_at": "2026-01-01T02:00:00.000Z",
    "missing": [], "extra": ["table column b2b.carts.note"], "different": []}
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    checks,
    concurrent_drop,
    connection,
    errors,
    execute,
    journal,
    planning,
    resume,
    sql,
)


def run(params, preview):
    """Plan once more, because something may have happened since, and run it."""
    request = planning.plan_request(params)
    migrations = planning.read_migrations(request)
    planned = planning.plan_rollback(
        dataclasses.replace(request, limits=dataclasses.replace(request.limits, max_rows_lost=None))
    )
    if not planned.plan.scripts:
        return concurrent_drop.gone_already(request, params["digest"]), planned
    if params["digest"] and params["digest"] != planned.plan.digest:
        raise errors.FailedUnchanged(
            f"The plan is not the one that was checked: now it is {', '.join(planned.plan.versions)}. A migration file or the database "
            "changed since. Nothing was changed here. Look at it with --check, then run again."
        )
    order = execute.Order(
        settings=request.settings,
        plan=planned.plan,
        search_path=request.search_path,
        limits=request.limits,
        checks=checks.wanted_checks(params),
        row_counts=params["row_counts"] or None,
        run_id=params["run_id"],
        preview=preview,
        accept_left_over=request.left_over == "accept",
        schema=planned.schema,
        before_commit=lambda done: note_commit(params, done, planned),
    )
    if planned.plan.object and planned.plan.object.concurrently and not preview:
        return concurrent_drop.drop_concurrently(order), planned
    return execute.execute_plan(order, planning.ledger_maker(request, migrations)), planned


def note_commit(params, done, planned):
    """What a run needs that goes on where this process dies at the COMMIT."""
    if not params["run_dir"] or not params["run_id"]:
        return ""
    result = {**result_of(done, planned), "warnings": list(done.warnings), "failed": False}
    return resume.note_commit(journal.run_folder(params["run_dir"], params["run_id"]), "rollback", done.xid, result)


def result_of(done, planned):
    """What the module returns."""
    if done is None:
        return {"changed": False, "committed": False, "message": planned.plan.message}
    effect = done.effect.to_dict()
    return {
        "changed": any(effect[key] for key in ("dropped", "changed", "added", "row_changes", "touched")),
        "committed": done.committed,
        "xid": done.xid,
        "effect": effect,
        "verification": {"passed": True, "checks": [dataclasses.asdict(check) for check in done.checks]},
        "statements": [dataclasses.asdict(item) for item in done.statements],
        "locks": list(done.locks),
        "sessions": list(done.sessions),
        "seconds": round(done.seconds, 3),
        "schema_drift": done.schema_drift,
        "diff": diff_of(effect),
    }


def diff_of(effect):
    """Objects before and after, as a diff shows them."""
    gone = [
        f"{item['type']} {item['identity']}"
        + (f" ({item['rows']} rows)" if item["rows"] is not None else "")
        + (" [only by CASCADE]" if item["cascaded"] else "")
        for item in effect["dropped"]
        if not item["part_of"]
    ]
    before = [*gone, *(f"{item['type']} {item['before']}" for item in effect["changed"])]
    after = [f"{item['type']} {item['after']}" for item in effect["changed"]]
    after.extend(f"{item['type']} {item['identity']}" for item in effect["added"])
    return {"before": "".join(f"{line}\n" for line in before), "after": "".join(f"{line}\n" for line in after)}


def main(make_module=AnsibleModule):
    """Run, and tell."""
    argument_spec = {
        **connection.login_argument_spec(),
        **planning.plan_argument_spec(),
        "digest": {"type": "str", "default": ""},
        "row_counts": {"type": "dict"},
        **checks.checks_argument_spec(),
        "run_id": {"type": "str", "default": ""},
        "run_dir": {"type": "path"},
    }
    module = make_module(argument_spec=argument_spec, supports_check_mode=True)
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2-binary"))
    if not sql.HAS_PGLAST:
        module.fail_json(msg=missing_required_lib("pglast"), exception=sql.PGLAST_IMPORT_ERROR)
    try:
        with journal.run_at_work(module.params["run_dir"], module.params["run_id"]):
            done, planned = run(module.params, module.check_mode)
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    result, warnings = result_of(done, planned), (done.warnings if done else ())
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
