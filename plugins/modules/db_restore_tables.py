#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put single tables back to what a backup has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_restore_tables
short_description: Put single tables of a PostgreSQL database back to what a backup has
version_added: 1.0.0
description:
  - Reads the rows of these tables out of a backup of M(cypher.rollback.db_backup), compares them with the live ones, and puts
    back what is missing or changed, in one transaction. Rows that were added since stay, or are deleted, as O(extra_rows) says.
  - Triggers and rules of the tables stay silent meanwhile and are afterwards as they were. Foreign keys hold, or the run is
    refused and names the tables to add to O(tables). No other table is changed.
  - Before it commits, every row of the backup is compared once more with the table. On any doubt it does not commit, and the
    database is as it was.
  - The manifest, its signature and the checksum of every file are verified before C(pg_restore) touches the archive.
  - Writers are kept out of the tables from the comparison to the end, and not while the backup is read.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.client_exec
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
    details: Does everything in a transaction that ends in C(ROLLBACK), under a lock timeout of one second.
  diff_mode:
    support: full
    details: Rows of each table, and how many are missing, extra and changed, before and after.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  path:
    description:
      - Folder of the backup.
    type: path
    required: true
  tables:
    description:
      - The tables, named as in SQL, with their schema or without. A partitioned table stands for all its partitions.
    type: list
    elements: str
    required: true
  extra_rows:
    description:
      - What to do with rows that are not in the backup.
    type: str
    default: keep
    choices: [keep, delete]
  search_path:
    description:
      - Schemas in which names without one are looked up.
    type: list
    elements: str
    default: [public]
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
  require_patched:
    description:
      - Refuse client programs with a known vulnerability, instead of warning.
    type: bool
    default: false
  maintenance_db:
    description:
      - Database of the same server to be connected to while a backup that is a copy on the server is looked at.
    type: str
    default: postgres
  lock_timeout:
    description:
      - How long to wait for the locks of the tables, a PostgreSQL duration.
    type: str
    default: 5s
  statement_timeout:
    description:
      - How long one statement may take, a PostgreSQL duration. V(0) sets no limit.
    type: str
    default: "0"
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
  - module: cypher.rollback.db_backup
  - module: cypher.rollback.db_restore
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Put orders back that a backfill corrupted, and keep those that came since
  cypher.rollback.db_restore_tables:
    login_db: cypher_erp
    path: /var/backups/cypher-erp/backup_before_migration_0007_20260213_101500
    tables: [b2b.orders, b2b.order_items]

- name: See what differs
  cypher.rollback.db_restore_tables:
    login_db: cypher_erp
    path: /var/backups/cypher-erp/backup_before_migration_0007_20260213_101500
    tables: [b2b.orders]
  check_mode: true
"""

RETURN = r"""
tables:
  description: What differed in each table, and what was done or, in check mode, would be.
  returned: success
  type: list
  elements: dict
  contains:
    identity:
      description: The table.
      type: str
      returned: always
      sample: b2b.orders
    key:
      description: Columns by which rows were told apart. Empty, there is no key, and rows were compared as wholes.
      type: list
      elements: str
      returned: always
      sample: [id]
    backup_rows:
      description: Rows in the backup.
      type: int
      returned: always
      sample: 1000
    live_rows:
      description: Rows in the table before.
      type: int
      returned: always
      sample: 1004
    missing:
      description: Rows that only the backup has.
      type: int
      returned: always
      sample: 0
    extra:
      description: Rows that only the table has.
      type: int
      returned: always
      sample: 4
    changed:
      description: Rows that both have and that differ.
      type: int
      returned: always
      sample: 998
    inserted:
      description: Missing rows that were inserted.
      type: int
      returned: always
      sample: 0
    updated:
      description: Changed rows that were set back.
      type: int
      returned: always
      sample: 998
    deleted:
      description: Extra rows that were deleted.
      type: int
      returned: always
      sample: 0
    columns:
      description: Columns that differed in changed rows, with the number of these rows.
      type: dict
      returned: always
      sample: {"subtotal": 998}
    samples:
      description: Keys of up to five rows each, C(missing), C(extra) and C(changed).
      type: dict
      returned: always
      sample: {"missing": [], "extra": [{"id": "1004"}], "changed": [{"id": "1"}, {"id": "2"}]}
    sequences:
      description: Sequences of the table that were behind its rows, with the value that they go on from now.
      type: dict
      returned: always
      sample: {}
committed:
  description: Whether the transaction was committed. Not where nothing differed.
  returned: success
  type: bool
  sample: true
xid:
  description: The transaction, for C(pg_xact_status); empty where it was not committed.
  returned: success
  type: str
  sample: "7421"
restore_warnings:
  description: What to know and what does not prevent it.
  returned: success
  type: list
  elements: str
  sample: []
lines:
  description: What differs, and what becomes of it, one line a table, for whoever is asked whether to go on.
  returned: success
  type: list
  elements: str
  sample: ["b2b.orders: 50 changed (total) are set back, 0 missing come back, 2 were added since and stay"]
message:
  description: One sentence that says what was done, or would be.
  returned: success
  type: str
  sample: "Put back b2b.orders (0 inserted, 998 set back, 0 deleted, 4 kept) in 0.3 s."
seconds:
  description: Duration.
  returned: success
  type: float
  sample: 0.3
outcome:
  description: What a failure means for the run, V(refused), V(failed_unchanged) or V(unknown).
  returned: failure
  type: str
  sample: refused
details:
  description: Evidence of a failure, such as the constraint, the tables to add, or who held a lock.
  returned: failure
  type: dict
  sample: {"constraint": "orders_customer_id_fkey", "tables": ["b2b.customers"]}
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    connection,
    errors,
    exec_place,
    journal,
    resume,
    table_restore,
)

OPTIONS = (
    "path",
    "tables",
    "extra_rows",
    "search_path",
    "key",
    "bin_dir",
    "require_patched",
    "maintenance_db",
    "lock_timeout",
    "statement_timeout",
    "run_id",
)


def request_from(params, preview):
    """What the options ask for."""
    return table_restore.TableRestoreRequest(
        settings=connection.settings_from(params),
        place=exec_place.place_from(params),
        preview=preview,
        before_commit=lambda done: note_commit(params, done),
        **{name: params[name] for name in OPTIONS},
    )


def note_commit(params, done):
    """What a run needs that goes on where this process dies at the COMMIT."""
    if not params["run_dir"] or not params["run_id"]:
        return ""
    result = {**result_of(done), "warnings": list(done.warnings), "failed": False}
    folder = journal.run_folder(params["run_dir"], params["run_id"])
    return resume.note_commit(folder, "restore_tables", done.xid, result)


def result_of(done):
    """What the module returns."""
    return {
        "changed": done.differ,
        "tables": [{**dataclasses.asdict(table), "key": list(table.key)} for table in done.tables],
        "committed": done.committed,
        "xid": done.xid,
        "restore_warnings": list(done.warnings),
        "message": done.describe(),
        "lines": [table.announce() for table in done.tables],
        "seconds": round(done.seconds, 3),
        "diff": diff_of(done.tables),
    }


def diff_of(tables):
    """Rows before and after, as a diff shows them."""
    before = [
        f"{table.identity}: {table.live_rows} rows; of the backup's {table.backup_rows}, {table.missing} missing, "
        f"{table.changed} changed; {table.extra} extra\n"
        for table in tables
    ]
    after = [
        f"{table.identity}: {table.live_rows + table.inserted - table.deleted} rows; of the backup's {table.backup_rows}, "
        f"{table.missing - table.inserted} missing, {table.changed - table.updated} changed; {table.extra - table.deleted} extra\n"
        for table in tables
    ]
    return {"before": "".join(before), "after": "".join(after)}


def main(make_module=AnsibleModule):
    module = make_module(
        argument_spec={
            **connection.login_argument_spec(),
            "path": {"type": "path", "required": True},
            "tables": {"type": "list", "elements": "str", "required": True},
            "extra_rows": {"type": "str", "default": "keep", "choices": list(table_restore.EXTRA_ROWS)},
            "search_path": {"type": "list", "elements": "str", "default": ["public"]},
            "key": {"type": "str", "default": "", "no_log": True},
            "bin_dir": {"type": "str", "default": ""},
            **exec_place.exec_argument_spec(),
            "require_patched": {"type": "bool", "default": False},
            "maintenance_db": {"type": "str", "default": "postgres"},
            "lock_timeout": {"type": "str", "default": "5s"},
            "statement_timeout": {"type": "str", "default": "0"},
            "run_id": {"type": "str", "default": ""},
            "run_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"), outcome="refused", details={})
    try:
        with journal.run_at_work(module.params["run_dir"], module.params["run_id"]):
            done = table_restore.restore_tables(request_from(module.params, module.check_mode))
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in done.warnings:
        module.warn(warning)
    module.exit_json(**result_of(done))


if __name__ == "__main__":
    main()
