#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find what is to be gone back to and check all that can be known before anything is stopped."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_plan_info
short_description: Plan the restore of a backup and refuse what cannot work
version_added: 1.0.0
description:
  - Chooses the backup that takes the place of the live database, or the kept database that is swapped back, and says why that one and what
    was passed over.
  - Says what will be lost, what the run will do, how long it takes about, and how to go back afterwards.
  - Refuses, with one sentence that says what to change, whatever can be known before anything is stopped. Among it missing roles,
    privileges, client programs and disk space.
  - Works when the live database is missing or accepts no connections. Reads only.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.client_exec
  - cypher.rollback.postgres
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
  purpose:
    description:
      - V(emergency) takes the newest valid backup that was made before a migration.
      - V(undo) takes the backup that a rollback made before it changed anything.
      - V(swap_back) takes a database that was kept when it was replaced.
    type: str
    choices: [emergency, undo, swap_back]
    default: emergency
  backup_dir:
    description: Folder of all backups, an absolute path.
    type: path
    required: true
  backup:
    description:
      - Id of the backup to take. It is never replaced by another one.
      - Empty, as O(purpose) says.
    type: str
    default: ""
  version:
    description: With O(purpose=emergency), only backups that were made before this migration. Empty, before any.
    type: raw
  run:
    description: With O(purpose=undo), the run whose rollback is undone. Empty, the newest one.
    type: str
    default: ""
  database:
    description: With O(purpose=swap_back), the kept database. Empty, the one that was replaced last.
    type: str
    default: ""
  tables:
    description:
      - Put only these tables back, a list or a text with commas. Each with its schema, quoted as SQL has it.
      - Empty, the whole database.
    type: raw
  key:
    description: Key that signs manifests. With it, a backup without its signature is not valid.
    type: str
    default: ""
  bin_dir:
    description: Folder of pg_restore. Empty, the newest installed of the server's major version.
    type: str
    default: ""
  jobs:
    description: Workers of pg_restore. V(0), as many as the host has processors, four at the most, and one for a small database.
    type: int
    default: 0
  require_patched:
    description: Refuse client programs below the fixes of the known CVEs, instead of warning.
    type: bool
    default: false
  maintenance_db:
    description: Database of the same server to be connected to while others are created and renamed.
    type: str
    default: postgres
  missing_roles:
    description: Refuse roles that the backup needs and the server has no more, or create them.
    type: str
    choices: [refuse, create]
    default: refuse
  server_free_bytes:
    description: Bytes that the server's file system has free, where this host cannot see it. Empty, not known.
    type: raw
  swap_timeout:
    description: Seconds in which other sessions of the database must be gone.
    type: float
    default: 30
  run_dir:
    description: Folder of the runs, whose reports say what a rollback did.
    type: path
  run_id:
    description: Name of this run.
    type: str
    default: ""
  system_identifier:
    description: Refuse any other cluster than this one. Empty, any.
    type: str
    default: ""
  critical_tables:
    description: Tables whose rows now and then are told.
    type: list
    elements: str
    default: []
  command:
    description: How the playbooks are started here, for messages that name a command.
    type: str
    default: ansible-playbook cypher.rollback
seealso:
  - module: cypher.rollback.db_restore
  - module: cypher.rollback.db_swap
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: See what an emergency rollback means
  cypher.rollback.restore_plan_info:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
  register: plan

- name: Show it
  ansible.builtin.debug:
    var: plan.lines
"""

RETURN = r"""
outcome:
  description: V(planned).
  returned: success
  type: str
  sample: planned
message:
  description: One sentence.
  returned: success
  type: str
  sample: backup_before_migration_0007_20261122_031005 can be restored.
purpose:
  description: What was asked for, as O(purpose).
  returned: success
  type: str
  sample: emergency
target:
  description: The database that is replaced.
  returned: success
  type: dict
  sample: {"host": "db1", "port": 5432, "database": "cypher_erp", "server_version": "15.18", "system_identifier": "7312345678901234567"}
exists:
  description: Whether there is a database of that name. An emergency may make it anew.
  returned: success
  type: bool
  sample: true
database_bytes:
  description: Size of the live database in bytes. V(0) where it is not known.
  returned: success
  type: int
  sample: 73400320
backup:
  description: The backup that is restored. Empty with O(purpose=swap_back).
  returned: success
  type: dict
  sample: {"id": "backup_before_migration_0007_20261122_031005", "kind": "before_migration", "verified": true}
why:
  description: Why that one.
  returned: success
  type: str
  sample: It is the newest valid backup before a migration.
passed_over:
  description: Backups that were passed over, each with its C(id) and the C(reason).
  returned: success
  type: list
  elements: dict
gap:
  description: The time that is lost because newer backups cannot be used.
  returned: success
  type: dict
window:
  description: What was written since and will not be in the live database any more, with C(from), C(to), C(seconds) and C(text).
  returned: success
  type: dict
rows:
  description: Rows of the critical tables C(now) and C(then). C(now) is null where the live database did not answer in time.
  returned: success
  type: list
  elements: dict
estimate:
  description: About how many C(seconds) the restore takes, and how many C(bytes) on the server.
  returned: success
  type: dict
kept:
  description: Name under which the replaced database is kept. Empty where there is none.
  returned: success
  type: str
  sample: cypher_erp_replaced_20261122_052419
earlier_kept:
  description: Databases that were replaced before and are still kept, the newest first, with C(name) and when and by what they were replaced.
  returned: success
  type: list
  elements: dict
sessions:
  description: Sessions of the live database that would be ended before the exchange. Empty where only tables are put back.
  returned: success
  type: list
  elements: dict
changes:
  description: Properties of the live database that would be others than now.
  returned: success
  type: list
  elements: str
  sample: ["connection limit is 17, and -1 there."]
incoming:
  description: The kept database that is swapped back.
  returned: with O(purpose=swap_back)
  type: dict
missing_roles:
  description: Roles that the backup needs and the server has no more, which the restore creates with O(missing_roles=create).
  returned: success
  type: list
  elements: str
releases:
  description: With O(purpose=undo), what was checked out on each host of the application before the rollback, C(ref), C(branch) and C(stash).
  returned: success
  type: dict
tables:
  description: Tables that are put back. Empty, all of the database.
  returned: success
  type: list
  elements: str
properties:
  description: Owner, privileges and settings that the live database gets.
  returned: success
  type: dict
command:
  description: The command that starts what is planned.
  returned: success
  type: str
  sample: ansible-playbook cypher.rollback.emergency_rollback
lines:
  description: All of it for the operator, line by line.
  returned: success
  type: list
  elements: str
warnings:
  description: What to know and what does not prevent the restore.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    connection,
    errors,
    exec_place,
    restore_plan,
)


def table_names(value):
    """The tables of a list, or of a text with commas."""
    parts = value if isinstance(value, (list, tuple)) else str(value or "").split(",")
    return tuple(name for name in (str(part).strip() for part in parts) if name)


def free_bytes(value):
    """A number of bytes, or None where none is given."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not str(value).isdecimal():
        raise errors.Refused(
            f"rollback_server_free_bytes is {value!r}. Nothing was stopped or changed. "
            "Give a whole number of bytes, or leave it empty where it is not known."
        )
    return int(str(value))


def request_from(params):
    """What the parameters ask for."""
    same = ("backup_dir", "purpose", "backup", "run", "bin_dir", "jobs", "require_patched", "maintenance_db", "missing_roles",
            "run_id", "system_identifier", "command")  # fmt: skip
    return restore_plan.RestorePlanRequest(
        settings=connection.settings_from(params),
        version="" if params["version"] is None else str(params["version"]),
        kept=params["database"],
        tables=table_names(params["tables"]),
        place=exec_place.place_from(params),
        key=params["key"],
        server_free_bytes=free_bytes(params["server_free_bytes"]),
        timeout=params["swap_timeout"],
        run_dir=params["run_dir"] or "",
        critical_tables=tuple(params["critical_tables"]),
        **{name: params[name] for name in same},
    )


def main(make_module=AnsibleModule):
    """Ask, and answer."""
    argument_spec = {
        **connection.login_argument_spec(),
        "purpose": {"type": "str", "choices": list(restore_plan.PURPOSES), "default": "emergency"},
        "backup_dir": {"type": "path", "required": True},
        "backup": {"type": "str", "default": ""},
        "version": {"type": "raw"},
        "run": {"type": "str", "default": ""},
        "database": {"type": "str", "default": ""},
        "tables": {"type": "raw"},
        "key": {"type": "str", "default": "", "no_log": True},
        "bin_dir": {"type": "str", "default": ""},
        **exec_place.exec_argument_spec(),
        "jobs": {"type": "int", "default": 0},
        "require_patched": {"type": "bool", "default": False},
        "maintenance_db": {"type": "str", "default": "postgres"},
        "missing_roles": {"type": "str", "choices": ["refuse", "create"], "default": "refuse"},
        "server_free_bytes": {"type": "raw"},
        "swap_timeout": {"type": "float", "default": 30.0},
        "run_dir": {"type": "path"},
        "run_id": {"type": "str", "default": ""},
        "system_identifier": {"type": "str", "default": ""},
        "critical_tables": {"type": "list", "elements": "str", "default": []},
        "command": {"type": "str", "default": "ansible-playbook cypher.rollback"},
    }
    module = make_module(argument_spec=argument_spec, supports_check_mode=True)
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2-binary"))
    try:
        result = restore_plan.plan_restore(request_from(module.params))
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in result.pop("restore_warnings"):
        module.warn(warning)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
