#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a verified backup of a database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_backup
short_description: Take a verified backup of a PostgreSQL database
version_added: 1.0.0
description:
  - Writes a directory-format dump, the cluster's roles and a manifest into a private folder, proves them, and publishes the
    folder by one rename. Whatever fails, nothing half-written is left.
  - The dump and exact row counts of every table come from one snapshot. Every file is synced, read back, hashed, and its rows
    are compared with the counted ones; C(pg_restore) reads the whole archive.
  - Refuses what cannot work before anything is written. Among it client programs of another major version, a folder that others
    can write to, too little space, tables that the role cannot read, and row security that would hide rows.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.client_exec
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
    details: Checks everything that can be known before a backup, and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Every run takes another backup, except where O(confirm) finds the one that it names to be of the database as it is.
  platform:
    platforms: posix
    support: full
options:
  backup_dir:
    description:
      - Folder of all backups, an absolute path. It is made, private, where it is missing.
      - It must belong to root or to the user that the module runs as, must not be a symbolic link, and must not be
        writable by every user.
    type: path
    required: true
  kind:
    description:
      - What the backup is for; becomes part of its name.
    type: str
    default: before_rollback
    choices: [before_rollback, before_migration]
  version:
    description:
      - The migration that is about to be rolled back or applied; becomes part of the backup's name.
    type: str
    required: true
  provider:
    description:
      - How the backup is made. V(dump), pg_dump's directory format. V(clone), a copy of the database on its own server, while
        nobody is connected to it.
    type: str
    default: dump
    choices: [dump, clone]
  key:
    description:
      - Key that signs the manifest. Whoever gives the same key later trusts no other manifest. Empty, it is not signed.
      - An early backup is confirmed with the key that it was taken with.
    type: str
    default: ""
  content:
    description:
      - Also record a hash of every table and of the large objects, as they are in the dump's snapshot. What is restored from
        the backup has the same hashes.
      - Reads all data once more, with one process of the server. Not set, that is done for O(kind=before_migration).
    type: bool
  compress:
    description:
      - Compress with the best method that the client programs have, at the level that costs least time. C(zstd) from PostgreSQL
        16 on where they were built with it, else C(gzip).
      - Not set, that is done for O(kind=before_migration). Before a rollback the application stands still meanwhile.
    type: bool
  queries:
    description:
      - Queries whose times the manifest records. Each runs three times, in read-only transactions of at most 30 seconds.
      - One that cannot run is recorded with its error, and is no failure.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the query.
        type: str
        required: true
      query:
        description: A query that only reads.
        type: str
        required: true
  migrations_dir:
    description:
      - Folder of the migrations. Where it has O(version), the manifest records whether that is applied already, and the
        backup's name has the version as the file has it.
      - Not set, or no such folder, that is not known.
    type: path
  ledger_table:
    description:
      - Table of the applied migrations. Empty, the objects tell that the migration's DOWN names.
    type: str
    default: ""
  ledger_column:
    description: Column of O(ledger_table) with the versions.
    type: str
    default: version
  search_path:
    description: Schemas in which migrations and O(queries) name objects without one.
    type: list
    elements: str
    default: []
  maintenance_db:
    description: Database of the same server to be connected to while O(provider=clone) copies the one to back up.
    type: str
    default: postgres
  server_free_bytes:
    description:
      - Bytes that the server's file system has free, where this host cannot see it, for O(provider=clone). Not set, not known.
    type: int
  bin_dir:
    description:
      - Folder of C(pg_dump), C(pg_restore), C(psql) and C(pg_dumpall). Their major version must be the server's.
      - Empty, the newest installed of the server's major version, in E(PATH) and the places where packages put them.
    type: str
    default: ""
  jobs:
    description:
      - Workers of C(pg_dump). V(0), as many as the host has processors, four at the most, and one for a small database.
    type: int
    default: 0
  require_patched:
    description:
      - Refuse client programs with a known vulnerability, instead of warning.
    type: bool
    default: false
  lock_timeout:
    description:
      - How long to wait for a table that another session has locked, a PostgreSQL duration. V(0) waits for ever.
    type: str
    default: 5s
  run_id:
    description:
      - Name of the run that the backup belongs to, for its manifest.
    type: str
    default: ""
  run_dir:
    description:
      - Folder of the runs. With O(run_id), other runs see that this one is at work for as long as the module runs.
    type: path
  early:
    description:
      - Take the backup while the application is still running, and record in its manifest what proves later that the
        database still holds exactly the same, for O(confirm).
      - A failure is a refusal then, because nothing was stopped.
    type: bool
    default: false
  confirm:
    description:
      - Folder of a backup that was taken with O(early), by the same run. Where every table, sequence, large object and
        definition is as it is in that backup, that backup is the result, and nothing is written.
      - Otherwise another backup is taken, and takes the place of that one.
      - Empty, a backup is taken.
    type: path
seealso:
  - module: cypher.rollback.db_rollback
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Back up before 0003 is rolled back
  cypher.rollback.db_backup:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    version: "0003"
  register: backup

- name: Back up before 0007 is applied, with programs of your own and nothing vulnerable
  cypher.rollback.db_backup:
    login_host: db1.example.com
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    kind: before_migration
    version: "0007"
    bin_dir: /opt/postgresql/15/bin
    require_patched: true

- name: Back up before a migration, signed, with the times of a query
  cypher.rollback.db_backup:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    kind: before_migration
    version: "0007"
    key: "{{ vault_backup_key }}"
    migrations_dir: /opt/cypher-erp/migrations
    search_path: [b2b, erp, shared, public]
    queries:
      - name: newest orders
        query: SELECT * FROM b2b.orders ORDER BY created_at DESC LIMIT 100

- name: Back up while the application runs
  cypher.rollback.db_backup:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    version: "0003"
    early: true
  register: early

- name: Once it has stopped, prove that nothing was written since, or back up again
  cypher.rollback.db_backup:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    version: "0003"
    confirm: "{{ early.backup.path }}"
"""

RETURN = r"""
backup:
  description: The published backup. Not there in check mode.
  returned: when a backup was taken or confirmed
  type: dict
  contains:
    id:
      description: Name of the backup's folder.
      type: str
      returned: always
      sample: backup_before_rollback_0003_20260213_101500
    path:
      description: The backup's folder.
      type: str
      returned: always
      sample: /var/backups/cypher-erp/backup_before_rollback_0003_20260213_101500
    kind:
      description: What it is for.
      type: str
      returned: always
      sample: before_rollback
    bytes:
      description: Size of all its files.
      type: int
      returned: always
      sample: 73400320
    verified:
      description: Whether it was read back and found whole. Always V(true), what is not is not published.
      type: bool
      returned: always
      sample: true
    tables:
      description: Rows of every table in the dump's snapshot, by quoted name. A partitioned table has those of its partitions.
      type: dict
      returned: always
      sample: {"b2b.orders": 1000, "b2b.order_items": 3000}
    version:
      description: The migration, as its file has it where O(migrations_dir) has one.
      type: str
      returned: always
      sample: "0007"
    provider:
      description: How it was made.
      type: str
      returned: always
      sample: dump
    compression:
      description: Method and level, or V(none).
      type: str
      returned: always
      sample: gzip:1
    applied:
      description: Whether the migration was applied already. Null, not known.
      type: bool
      returned: always
      sample: false
    baseline:
      description: Times of O(queries), C(name), C(query), C(seconds), C(median), C(error) each.
      type: list
      elements: dict
      returned: always
      sample: [{"name": "newest orders", "query": "SELECT 1", "seconds": [0.003, 0.002, 0.002], "median": 0.002, "error": ""}]
    phases:
      description: Seconds by phase. Phases overlap.
      type: dict
      returned: always
      sample: {"check": 0.03, "dump": 0.3, "read": 0.05, "publish": 0.002}
confirmed:
  description: Whether the backup is that of O(confirm), proven to hold the database as it is.
  returned: when a backup was taken or confirmed
  type: bool
  sample: false
confirmed_at:
  description: UTC time of that proof.
  returned: when a backup was confirmed
  type: str
  sample: "2026-02-13T10:15:12.720Z"
stale:
  description: Why the backup of O(confirm) was of no use. What is first found to differ, not all that does.
  returned: when O(confirm) was given and another backup was taken
  type: list
  elements: str
  sample: ["b2b.orders had 1000 rows and has 1001"]
estimate:
  description: What was known beforehand.
  returned: in check mode
  type: dict
  contains:
    database_bytes:
      description: Size of the database, indexes included.
      type: int
      returned: always
      sample: 104857600
    estimated_bytes:
      description: Room that the backup may need.
      type: int
      returned: always
      sample: 121634816
    free_bytes:
      description: Room in the file system of O(backup_dir). With O(provider=clone), room on the server; null, not known.
      type: int
      returned: always
      sample: 80530636800
    jobs:
      description: Workers that C(pg_dump) would have.
      type: int
      returned: always
      sample: 2
    tools:
      description: Version and folder of the client programs.
      type: dict
      returned: always
      sample: {"version": "15.18", "bin_dir": "/usr/lib/postgresql/15/bin"}
message:
  description: One sentence that says what was done, or would be.
  returned: success
  type: str
  sample: "Backup backup_before_rollback_0003_20260213_101500 taken and verified: 28 tables, 70 MB in 0.6 s."
started_at:
  description: UTC time.
  returned: when a backup was taken or confirmed
  type: str
  sample: "2026-02-13T10:15:00.120Z"
finished_at:
  description: UTC time.
  returned: when a backup was taken or confirmed
  type: str
  sample: "2026-02-13T10:15:00.720Z"
seconds:
  description: Duration.
  returned: when a backup was taken or confirmed
  type: float
  sample: 0.6
outcome:
  description: What a failure means for the run, V(refused) or V(failed_unchanged).
  returned: failure
  type: str
  sample: refused
details:
  description: Evidence of a failure, such as the tables that cannot be read.
  returned: failure
  type: dict
  sample: {"tables": ["b2b.orders"]}
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup,
    connection,
    early,
    errors,
    exec_place,
    journal,
    readiness,
)


def request_from(params):
    """What the options ask for."""
    return readiness.BackupRequest(
        settings=connection.settings_from(params),
        backup_dir=params["backup_dir"],
        kind=params["kind"],
        version=params["version"],
        bin_dir=params["bin_dir"],
        place=exec_place.place_from(params),
        jobs=params["jobs"],
        require_patched=params["require_patched"],
        lock_timeout=params["lock_timeout"],
        run_id=params["run_id"],
        provider=params["provider"],
        key=params["key"],
        content=_or_before_migration(params, "content"),
        compress=_or_before_migration(params, "compress"),
        queries=tuple(params["queries"]),
        migrations_dir=params["migrations_dir"] or "",
        ledger_table=params["ledger_table"],
        ledger_column=params["ledger_column"],
        search_path=tuple(params["search_path"]),
        maintenance_db=params["maintenance_db"],
        server_free_bytes=params["server_free_bytes"],
    )


def _or_before_migration(params, name):
    return params["kind"] == "before_migration" if params[name] is None else params[name]


def would_take(request):
    """The result in check mode."""
    ready = backup.check_ready(request)
    judged = backup.judge_version(request)
    estimate = {name: getattr(ready, name) for name in ("database_bytes", "estimated_bytes", "free_bytes", "jobs")}
    estimate["tools"] = {"version": ready.tools.version_text, "bin_dir": ready.tools.where}
    message = f"Would take a verified backup of {request.settings.describe()} in {request.backup_dir}."
    return {"changed": True, "estimate": estimate, "message": message}, (*judged.warnings, *ready.warnings)


def take(request, params):
    """The result of a backup, taken or confirmed."""
    if params["confirm"]:
        taken = early.confirm_or_take(request, params["confirm"])
    else:
        taken = early.take_early(request) if params["early"] else backup.take_backup(request)
    confirmed = bool(taken.confirmed_at)
    result = {name: getattr(taken, name) for name in ("started_at", "finished_at", "seconds")}
    facts = (
        "id",
        "path",
        "kind",
        "bytes",
        "verified",
        "tables",
        "phases",
        "version",
        "provider",
        "compression",
        "applied",
    )
    result["backup"] = {name: getattr(taken, name) for name in facts}
    result["backup"]["baseline"] = list(taken.baseline)
    result.update(changed=not confirmed, confirmed=confirmed, message=taken.describe())
    if confirmed:
        result["confirmed_at"] = taken.confirmed_at
    if taken.stale:
        result["stale"] = list(taken.stale)
    return result, taken.warnings


def main(make_module=AnsibleModule):
    module = make_module(
        argument_spec={
            **connection.login_argument_spec(),
            "backup_dir": {"type": "path", "required": True},
            "kind": {"type": "str", "default": "before_rollback", "choices": ["before_rollback", "before_migration"]},
            "version": {"type": "str", "required": True},
            "provider": {"type": "str", "default": "dump", "choices": ["dump", "clone"]},
            "key": {"type": "str", "default": "", "no_log": True},
            "content": {"type": "bool"},
            "compress": {"type": "bool"},
            "queries": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "query": {"type": "str", "required": True}},
            },
            "migrations_dir": {"type": "path"},
            "ledger_table": {"type": "str", "default": ""},
            "ledger_column": {"type": "str", "default": "version"},
            "search_path": {"type": "list", "elements": "str", "default": []},
            "maintenance_db": {"type": "str", "default": "postgres"},
            "server_free_bytes": {"type": "int"},
            "bin_dir": {"type": "str", "default": ""},
            **exec_place.exec_argument_spec(),
            "jobs": {"type": "int", "default": 0},
            "require_patched": {"type": "bool", "default": False},
            "lock_timeout": {"type": "str", "default": "5s"},
            "run_id": {"type": "str", "default": ""},
            "run_dir": {"type": "path"},
            "early": {"type": "bool", "default": False},
            "confirm": {"type": "path"},
        },
        supports_check_mode=True,
    )
    if module.params["early"] and module.params["provider"] != "dump":
        module.fail_json(
            msg="A backup is taken early, while the application runs, with provider: dump only.",
            outcome="refused",
            details={},
        )
    if module.params["early"] and module.params["confirm"]:
        module.fail_json(
            msg="Give early: true before the stop and confirm after it, not both.", outcome="refused", details={}
        )
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"), outcome="refused", details={})
    try:
        request = request_from(module.params)
        if module.check_mode:
            result, warnings = would_take(request)
        else:
            with journal.run_at_work(module.params["run_dir"], module.params["run_id"]):
                result, warnings = take(request, module.params)
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
