#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the DOWN scripts of a rollback and check all that can be known before anything is stopped."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_plan_info
short_description: Plan a rollback and refuse what cannot work
version_added: 1.0.0
description:
  - Finds the DOWN of each migration to roll back, parses it with PostgreSQL's own parser, and finds out what is applied.
  - Refuses, with one sentence that says what to change, whatever can be known before anything is stopped. Among them a
    later migration that is applied, a DOWN that cannot run in one transaction, a standby, a connection pooler, a missing
    privilege, an object of the same name in another schema, and what a backup would need.
  - Reads only.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.client_exec
  - cypher.rollback.postgres
  - cypher.rollback.plan
  - cypher.rollback.checks
attributes:
  check_mode:
    support: full
    details:
      - Reads only, so it does the same. Where a backup or a report cannot be made, that is RV(would_refuse) rather than a refusal, as
        what the DOWN would do can be shown all the same.
  diff_mode:
    support: N/A
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  backup_dir:
    description:
      - Also check that a backup can be made there. Empty, this is not checked.
    type: path
  provider:
    description:
      - How that backup will be made. V(clone) needs more, such as the right to create databases and room on the server. That
        somebody is connected is a warning only, because the application is stopped first.
    type: str
    default: dump
    choices: [dump, clone]
  maintenance_db:
    description:
      - Database of the same server to be connected to while a clone is made.
    type: str
    default: postgres
  server_free_bytes:
    description:
      - Bytes that the server's file system has free, where this host cannot see it. For V(clone) alone.
    type: int
  bin_dir:
    description:
      - Folder of pg_dump. Empty, the newest installed of the server's major version.
    type: str
    default: ""
  require_patched:
    description:
      - Refuse client programs below the fixes of the known CVEs, instead of warning.
    type: bool
    default: false
  run_dir:
    description:
      - Folder of the runs. A version whose file is gone is looked up in the reports of earlier runs.
      - Also check that a report can be written there.
    type: path
seealso:
  - module: cypher.rollback.db_rollback
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: See what taking back 0003 means
  cypher.rollback.migration_plan_info:
    login_db: cypher_erp
    project_dir: /srv/cypher-erp
    version: "0003"
  register: plan

- name: See what depends on a table
  cypher.rollback.migration_plan_info:
    login_db: cypher_erp
    object:
      table: b2b.new_table
      cascade: true
"""

RETURN = r"""
outcome:
  description: V(planned), or V(nothing_to_do) when no such migration is applied, or there is no such object.
  returned: success
  type: str
  sample: planned
message:
  description: One sentence with the evidence.
  returned: success
  type: str
  sample: "To roll back, newest first: 0003 (14 of the 14 objects that its DOWN names are there)."
target:
  description: The database that was asked.
  returned: success
  type: dict
  sample: {"host": "db1", "port": 5432, "database": "cypher_erp", "server_version": "15.18", "system_identifier": "7312345678901234567"}
plan:
  description:
    - Versions newest first, number of statements, scripts with file, line and checksum, and the state of each version.
    - With O(object), a label in place of the version, and in C(object) its identity, the statement, what goes with it, what
      goes only by CASCADE, and whether the application goes on meanwhile, with the reason.
  returned: success
  type: dict
  sample: {"versions": ["0003"], "statements": 14, "digest": "0e1f…", "scripts": [], "states": {}}
sessions:
  description: Other sessions of the database.
  returned: success
  type: list
  elements: dict
rows_estimate:
  description: Rows of the tables that go for certain; exact where O(max_rows_lost) is set, otherwise the planner's estimate.
  returned: success
  type: int
  sample: 12000
database_bytes:
  description: Size of the database, indexes included. V(0) where there is nothing to do, or O(backup_dir) is empty.
  returned: success
  type: int
  sample: 104857600
schema_backup:
  description: The backup with whose schema the database is compared after the DOWN. Empty, there is none.
  returned: success
  type: str
  sample: backup_before_migration_0003_20260101_020000
would_refuse:
  description: In check mode, why the rollback itself would be refused, one entry a reason. Otherwise it fails with that.
  returned: success
  type: list
  elements: str
  sample: []
warnings:
  description: What to know and what does not prevent the rollback.
  returned: success
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    checks,
    connection,
    errors,
    exec_place,
    planning,
    readiness,
    sql,
    wanted_checks,
)


def check_run_dir(run_dir):
    """Refuse a folder for the runs in which no report could be written."""
    existing = os.path.abspath(run_dir)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
        raise errors.Refused(
            f"No report can be written to {run_dir}: {existing} is not a folder that this user may write to. "
            "Nothing was stopped. Set rollback_run_dir, or make that folder."
        )


def check_backup(params, version, concurrently=False):
    """Size of the database, and what is to be said about a backup of it. A clone needs that nobody is connected."""
    if not params["backup_dir"]:
        return 0, []
    request = readiness.BackupRequest(
        settings=connection.settings_from(params),
        backup_dir=params["backup_dir"],
        version=version,
        bin_dir=params["bin_dir"],
        place=exec_place.place_from(params),
        require_patched=params["require_patched"],
        provider="dump" if concurrently else params["provider"],
        maintenance_db=params["maintenance_db"],
        server_free_bytes=params["server_free_bytes"],
    )
    ready = backup.check_ready(request)
    return ready.database_bytes, list(ready.warnings)


def check_folders(params, planned):
    """Size of the database, and what is to be said about the folders and programs that the rollback needs."""
    if params["run_dir"]:
        check_run_dir(params["run_dir"])
    if not planned.plan.scripts:
        return 0, []
    wanted = planned.plan.object
    return check_backup(params, planned.plan.versions[-1], bool(wanted and wanted.concurrently))


def plan(params, check_mode):
    """All that the module returns."""
    wanted_checks.refuse_malformed(checks.wanted_checks(params))
    planned = planning.plan_rollback(planning.plan_request(params))
    database_bytes, warnings, would_refuse = 0, [], []
    try:
        database_bytes, warnings = check_folders(params, planned)
    except errors.Refused as err:
        if not check_mode:
            raise
        would_refuse.append(str(err))
    return {
        "outcome": "planned" if planned.plan.scripts else "nothing_to_do",
        "message": planned.plan.message,
        "target": planned.target.to_dict(),
        "plan": planned.plan.to_dict(),
        "sessions": list(planned.sessions),
        "rows_estimate": planned.rows_estimate,
        "database_bytes": database_bytes,
        "schema_backup": planned.schema.backup if planned.schema else "",
        "would_refuse": would_refuse,
        "plan_warnings": [*planned.warnings, *warnings],
    }


def main(make_module=AnsibleModule):
    """Ask, and answer."""
    argument_spec = {
        **connection.login_argument_spec(),
        **planning.plan_argument_spec(),
        **checks.checks_argument_spec(),
        "backup_dir": {"type": "path"},
        "provider": {"type": "str", "default": "dump", "choices": list(backup.PROVIDERS)},
        "maintenance_db": {"type": "str", "default": "postgres"},
        "server_free_bytes": {"type": "int"},
        "bin_dir": {"type": "str", "default": ""},
        **exec_place.exec_argument_spec(),
        "require_patched": {"type": "bool", "default": False},
        "run_dir": {"type": "path"},
    }
    module = make_module(argument_spec=argument_spec, supports_check_mode=True)
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2-binary"))
    if not sql.HAS_PGLAST:
        module.fail_json(msg=missing_required_lib("pglast"), exception=sql.PGLAST_IMPORT_ERROR)
    try:
        result = plan(module.params, module.check_mode)
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in result.pop("plan_warnings"):
        module.warn(warning)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
