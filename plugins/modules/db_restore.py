#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a backup into a database beside the live one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_restore
short_description: Restore a backup into a new PostgreSQL database beside the live one
version_added: 1.0.0
description:
  - Restores a backup of M(cypher.rollback.db_backup) into a new database on the same server, never over the live one, which
    M(cypher.rollback.db_swap) exchanges afterwards.
  - The manifest, its signature and the checksum of every file are verified before C(pg_restore) touches the archive. C(pg_restore)
    stops at the first error. Every table's rows, their hashes where the backup has them, sequences, large objects and the
    presence of every object are then compared with the manifest, and owner, privileges, settings and connection limit of the
    database are put on the new one.
  - Refuses what cannot work before anything is written. Among it missing roles, extensions, tablespaces and privileges, too
    little space on the server, and a backup of another cluster or database.
  - Whatever fails, the live database is as it was, and the new one is dropped, or named with the command that drops it. What a
    killed run left is dropped by the next one.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.client_exec
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
    details: Checks everything that can be known before a restore, and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Every run restores into another new database, and drops one that an earlier run left.
  platform:
    platforms: posix
    support: full
options:
  path:
    description:
      - Folder of the backup.
    type: path
    required: true
  key:
    description:
      - Key that signs manifests. Set, a backup without its signature is refused. Empty, signatures are not asked for.
    type: str
    default: ""
  bin_dir:
    description:
      - Folder of C(pg_dump), C(pg_restore), C(psql) and C(pg_dumpall). Their major version must be the server's.
      - Empty, the newest installed of the server's major version, in E(PATH) and the places where packages put them.
    type: str
    default: ""
  jobs:
    description:
      - Workers of C(pg_restore). V(0), as many as the host has processors, four at the most, and one for a small database.
    type: int
    default: 0
  require_patched:
    description:
      - Refuse client programs with a known vulnerability, instead of warning.
    type: bool
    default: false
  maintenance_db:
    description:
      - Database of the same server to be connected to while others are created and dropped.
    type: str
    default: postgres
  missing_roles:
    description:
      - What to do with roles that the backup needs and the server has no more.
      - V(create) makes them again from the manifest, with attributes, memberships and settings, without passwords.
    type: str
    default: refuse
    choices: [refuse, create]
  server_free_bytes:
    description:
      - Bytes that the server's file system has free, where this host cannot see it. Not set, it is a warning that it is not known.
    type: int
  run_id:
    description:
      - Name of the run that the restore belongs to, for the new database's comment.
    type: str
    default: ""
  run_dir:
    description:
      - Folder of the runs. With O(run_id), other runs see that this one is at work for as long as the module runs.
    type: path
seealso:
  - module: cypher.rollback.db_backup
  - module: cypher.rollback.db_swap
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Restore a backup beside the live database
  cypher.rollback.db_restore:
    login_db: cypher_erp
    path: /var/backups/cypher-erp/backup_before_migration_0007_20260213_101500
    key: "{{ vault_backup_key }}"
  register: restored

- name: See what a restore would need
  cypher.rollback.db_restore:
    login_db: cypher_erp
    path: /var/backups/cypher-erp/backup_before_migration_0007_20260213_101500
  check_mode: true
"""

RETURN = r"""
restored:
  description: The new database. Not there in check mode.
  returned: when a backup was restored
  type: dict
  contains:
    database:
      description: Its name.
      type: str
      returned: always
      sample: cypher_erp_restore_9f3a01bc
    oid:
      description: Its oid.
      type: int
      returned: always
      sample: 24703
    provider:
      description: How the backup was made, V(dump) or V(clone). A clone itself becomes the restored database.
      type: str
      returned: always
      sample: dump
    tables:
      description: Rows of every table, as compared with the manifest, by quoted name.
      type: dict
      returned: always
      sample: {"b2b.orders": 1000, "b2b.order_items": 3000}
    roles:
      description: Roles that were made again, without passwords.
      type: list
      elements: str
      returned: always
      sample: []
    left_overs:
      description: Databases of earlier runs that were dropped.
      type: list
      elements: str
      returned: always
      sample: []
    phases:
      description: Seconds by phase. The comparison and the collection of statistics overlap.
      type: dict
      returned: always
      sample: {"check": 0.1, "create": 0.2, "restore": 1.6, "compare": 0.2, "analyze_wait": 0.1, "properties": 0.03}
compared:
  description: Whether the new database was compared with the manifest and found equal. Always V(true), what is not is dropped.
  returned: when a backup was restored
  type: bool
  sample: true
restore_warnings:
  description: What to know and what does not prevent the restore, such as what the backup has no record of.
  returned: success
  type: list
  elements: str
  sample: []
estimate:
  description: What was known beforehand.
  returned: in check mode
  type: dict
  contains:
    estimated_bytes:
      description: Room that the restored database and the log of writing it may need on the server.
      type: int
      returned: always
      sample: 243269632
    free_bytes:
      description: Room on the server; V(none) where it is not known.
      type: int
      returned: always
      sample: 80530636800
    jobs:
      description: Workers that C(pg_restore) would have.
      type: int
      returned: always
      sample: 2
    missing_roles:
      description: Roles that would be made again.
      type: list
      elements: str
      returned: always
      sample: []
message:
  description: One sentence that says what was done, or would be.
  returned: success
  type: str
  sample: "Backup backup_before_migration_0007_20260213_101500 is restored into cypher_erp_restore_9f3a01bc and equal to its manifest: 28 tables in 2.1 s."
seconds:
  description: Duration.
  returned: when a backup was restored
  type: float
  sample: 2.1
outcome:
  description: What a failure means for the run, V(refused) or V(failed_unchanged).
  returned: failure
  type: str
  sample: refused
details:
  description: Evidence of a failure, such as the roles that are missing or what differs from the manifest.
  returned: failure
  type: dict
  sample: {"roles": ["b2b_app"]}
"""

import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    connection,
    errors,
    exec_place,
    journal,
    restore,
)


def request_from(params):
    """What the options ask for."""
    names = (
        "path",
        "key",
        "bin_dir",
        "jobs",
        "require_patched",
        "maintenance_db",
        "missing_roles",
        "server_free_bytes",
    )
    return restore.RestoreRequest(
        settings=connection.settings_from(params),
        place=exec_place.place_from(params),
        run_id=params["run_id"],
        **{name: params[name] for name in names},
    )


def would_restore(request):
    """The result in check mode."""
    ready = restore.check_restorable(request)
    estimate = {name: getattr(ready, name) for name in ("estimated_bytes", "free_bytes", "jobs")}
    estimate["missing_roles"] = list(ready.missing_roles)
    message = f"Would restore {ready.manifest.id} into a new database beside {request.settings.dbname}, and compare it."
    return {"changed": True, "estimate": estimate, "message": message, "restore_warnings": list(ready.warnings)}


def restored(request):
    """The result of a restore."""
    done = restore.restore_beside(request)
    facts = {name: getattr(done, name) for name in ("database", "oid", "provider", "tables", "phases")}
    facts.update(roles=list(done.roles), left_overs=list(done.left_overs))
    message = (
        f"Backup {os.path.basename(request.path.rstrip('/'))} is restored into {done.database} and equal to its manifest: "
        f"{len(done.tables)} tables in {done.seconds:.1f} s."
    )
    return {
        "changed": True,
        "restored": facts,
        "compared": True,
        "seconds": done.seconds,
        "message": message,
        "restore_warnings": list(done.warnings),
    }


def main(make_module=AnsibleModule):
    module = make_module(
        argument_spec={
            **connection.login_argument_spec(),
            "path": {"type": "path", "required": True},
            "key": {"type": "str", "default": "", "no_log": True},
            "bin_dir": {"type": "str", "default": ""},
            **exec_place.exec_argument_spec(),
            "jobs": {"type": "int", "default": 0},
            "require_patched": {"type": "bool", "default": False},
            "maintenance_db": {"type": "str", "default": "postgres"},
            "missing_roles": {"type": "str", "default": "refuse", "choices": ["refuse", "create"]},
            "server_free_bytes": {"type": "int"},
            "run_id": {"type": "str", "default": ""},
            "run_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"), outcome="refused", details={})
    try:
        request = request_from(module.params)
        if module.check_mode:
            result = would_restore(request)
        else:
            with journal.run_at_work(module.params["run_dir"], module.params["run_id"]):
                result = restored(request)
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in result["restore_warnings"]:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
