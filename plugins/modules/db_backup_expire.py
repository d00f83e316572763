#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove backups that need not be kept."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_backup_expire
short_description: Remove backups that need not be kept
version_added: 1.0.0
description:
  - Removes backups of M(cypher.rollback.db_backup) by their number and their age, for each kind of each database of each cluster.
  - Only what has the collection's manifest is ever removed. Symbolic links, folders of other users, folders without a manifest
    and manifests that somebody changed stay, and are returned with the reason.
  - Only backups count whose checksums are right now, so damaged newer ones do not push out good older ones. The newest valid
    one always stays, and so does one that somebody reads or writes.
  - A backup first loses its name, so that no half of one is ever visible. The database of a clone is dropped with it.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.backups
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
    details: Verifies the same backups and removes none.
  diff_mode:
    support: full
    details: Ids of the backups before and after.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  keep:
    description:
      - Number of the newest valid backups of each kind to keep, at least V(1). Empty, no limit.
      - Where O(keep_days) is given too, a backup goes only where both let it go. One of the two is needed.
    type: raw
  keep_days:
    description:
      - Days for which backups are kept. Empty, no limit.
    type: raw
seealso:
  - module: cypher.rollback.db_backup
  - module: cypher.rollback.db_backup_info
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Keep the seven newest backups of each kind, and all of the last 30 days
  cypher.rollback.db_backup_expire:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    keep: 7
    keep_days: 30
"""

RETURN = r"""
removed:
  description: Backups that were removed, or would be, with the reason. Fields as those of M(cypher.rollback.db_backup_info).
  returned: success
  type: list
  elements: dict
  sample: [{"id": "backup_before_migration_0003_20260113_101500", "bytes": 73400320, "reason": "Older than the 7 newest valid ones."}]
kept:
  description: Backups that stay, with the reason.
  returned: success
  type: list
  elements: dict
  sample: [{"id": "backup_before_migration_0007_20260213_101500", "bytes": 73400320, "reason": "Among the 7 newest valid ones."}]
bytes:
  description: Size of what was removed, or would be.
  returned: success
  type: int
  sample: 73400320
table:
  description: All that as lines for a console.
  returned: success
  type: list
  elements: str
  sample: ["REMOVED  1, 70 MB"]
message:
  description: One sentence that says what was done, or would be.
  returned: success
  type: str
  sample: "1 backup removed, 7 kept."
outcome:
  description: What a failure means for the run.
  returned: failure
  type: str
  sample: refused
details:
  description: Evidence of a failure, such as what was removed before it.
  returned: failure
  type: dict
  sample: {"removed": []}
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup_levels,
    backup_table,
    connection,
    errors,
    retention,
)


def expire(params, check_mode):
    """The result."""
    settings = connection.settings_from(params) if params["login_db"] else None
    done = retention.expire(
        params["backup_dir"],
        retention.policy_from(params["keep"], params["keep_days"]),
        key=params["key"],
        means=backup_levels.Means(settings=settings, maintenance_db=params["maintenance_db"]),
        database=params["database"],
        check_mode=check_mode,
    )
    removed, kept = len(done.removed), len(done.kept)
    would = "would be removed" if check_mode else "removed"
    after = [decision.to_dict()["id"] for decision in done.kept]
    before = [*after, *(decision.to_dict()["id"] for decision in done.removed)]
    return {
        "changed": bool(done.removed),
        "removed": [decision.to_dict() for decision in done.removed],
        "kept": [decision.to_dict() for decision in done.kept],
        "bytes": done.bytes,
        "table": backup_table.expiry(done.removed, done.kept, check_mode=check_mode),
        "message": f"{removed} backup{'' if removed == 1 else 's'} {would}, {kept} kept.",
        "diff": {
            "before": "".join(f"{name}\n" for name in sorted(before)),
            "after": "".join(f"{name}\n" for name in sorted(after)),
        },
    }


def main(make_module=AnsibleModule):
    module = make_module(
        argument_spec={
            **connection.login_argument_spec(),
            "login_db": {"type": "str", "default": ""},
            "backup_dir": {"type": "path", "required": True},
            "keep": {"type": "raw"},
            "keep_days": {"type": "raw"},
            "database": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "maintenance_db": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )
    if module.params["login_db"] and not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"), outcome="refused", details={})
    try:
        result = expire(module.params, module.check_mode)
    except errors.RollbackError as err:
        removed = err.details.get("removed")
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details, changed=bool(removed))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
