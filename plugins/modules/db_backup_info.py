#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List and verify backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_backup_info
short_description: List and verify the backups of a folder
version_added: 1.0.0
description:
  - Lists what M(cypher.rollback.db_backup) has left in a folder, newest first, and verifies it as far as O(level) says.
  - Everything that looks like a backup is listed. What is not valid comes with the reason, among it symbolic links, folders of
    other users, folders without a manifest, and manifests that somebody changed.
  - No program reads an archive before its checksums and, with O(key), the signature of its manifest have been found right.
  - Newest is what is last in the history of its cluster. No clock has a say.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.backups
  - cypher.rollback.client_exec
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
    details: Does the same, except that instead of restoring a backup, it is read.
  diff_mode:
    support: N/A
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  backup:
    description:
      - Only the backup of this id, verified as far as O(level) says, and in detail. Empty, all.
    type: str
    default: ""
  level:
    description:
      - How far backups are verified. Each level includes those before it.
      - V(manifest), the manifest alone, and its signature where O(key) is given.
      - V(checksum), the size and SHA-256 of every file. Of a clone also that its database is there and closed since.
      - V(read), C(pg_restore) reads the whole archive.
      - V(restore), the backup is restored into a scratch database, compared with the manifest, and dropped again. Without
        O(backup), that is done with the newest backup of each kind of each database; the others are read.
    type: str
    default: checksum
    choices: [manifest, checksum, read, restore]
  system_identifier:
    description:
      - Only backups of the cluster with this system identifier. Empty, of every cluster.
    type: str
    default: ""
  bin_dir:
    description:
      - Folder of the PostgreSQL client programs. Empty, the newest installed of the backup's major version.
    type: str
    default: ""
  jobs:
    description:
      - Workers of C(pg_restore). V(0), as many as the host has processors, four at the most.
    type: int
    default: 0
  require_patched:
    description:
      - Do not use client programs with a known vulnerability.
    type: bool
    default: false
  server_free_bytes:
    description:
      - Bytes that the server's file system has free, where this host cannot see it. Empty, not known.
    type: raw
seealso:
  - module: cypher.rollback.db_backup
  - module: cypher.rollback.db_backup_expire
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: List the backups, with every checksum verified
  cypher.rollback.db_backup_info:
    backup_dir: /var/backups/cypher-erp
  register: found

- name: Show them
  ansible.builtin.debug:
    msg: "{{ found.table | join('\n') }}"

- name: Restore one to see that it can be
  cypher.rollback.db_backup_info:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    backup: backup_before_migration_0007_20260213_101500
    level: restore

- name: Alert when an emergency rollback has nothing to go back to
  cypher.rollback.db_backup_info:
    backup_dir: /var/backups/cypher-erp
    database: cypher_erp
    key: "{{ vault_backup_key }}"
  register: found
  failed_when: found.problems | length > 0
"""

RETURN = r"""
backups:
  description: The backups, newest first. What has no readable manifest comes last.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Name of the backup's folder.
      type: str
      returned: always
      sample: backup_before_migration_0007_20260213_101500
    path:
      description: The backup's folder.
      type: str
      returned: always
      sample: /var/backups/cypher-erp/backup_before_migration_0007_20260213_101500
    valid:
      description: Whether it can be relied on. V(none), nothing is known to be wrong, and it was not verified or could not be.
      type: bool
      returned: always
      sample: true
    reason:
      description: Why it is not valid, or could not be verified. Empty, nothing is wrong.
      type: str
      returned: always
      sample: ""
    level:
      description: The highest level of verification that it passed. Empty, none.
      type: str
      returned: always
      sample: checksum
    in_use:
      description: Whether somebody on this host reads, writes or removes it.
      type: bool
      returned: always
      sample: false
    kind:
      description: What it was taken for. This and all that follows is empty where there is no readable manifest.
      type: str
      returned: always
      sample: before_migration
    provider:
      description: How it was made, V(dump) or V(clone).
      type: str
      returned: always
      sample: dump
    version:
      description: The migration that it was taken before.
      type: str
      returned: always
      sample: "0007"
    database:
      description: Name of the database.
      type: str
      returned: always
      sample: cypher_erp
    system_identifier:
      description: System identifier of the database's cluster.
      type: str
      returned: always
      sample: "7312345678901234567"
    created_at:
      description: UTC time.
      type: str
      returned: always
      sample: "2026-02-13T10:15:00.120Z"
    age_seconds:
      description: Time since then.
      type: float
      returned: always
      sample: 86400.0
    lsn:
      description: Where in the history of its cluster it stands, as a number.
      type: int
      returned: always
      sample: 23574232
    bytes:
      description: Size of all its files. Of a clone, that of the database.
      type: int
      returned: always
      sample: 73400320
    seconds:
      description: How long it took. V(none), not known.
      type: float
      returned: always
      sample: 0.6
manifest:
  description: The whole manifest of the backup that O(backup) names.
  returned: when O(backup) is given and its manifest can be read
  type: dict
  sample: {"id": "backup_before_migration_0007_20260213_101500", "tables": {"b2b.orders": {"rows": 1000}}}
problems:
  description:
    - What must not be passed over, a sentence or two each. The backup that O(backup) names is not valid. Or the newest one of a
      kind is not; or no valid backup from before a migration is there.
  returned: success
  type: list
  elements: str
  sample: []
table:
  description: All that as lines for a console, or with O(backup) the one in detail.
  returned: success
  type: list
  elements: str
  sample: ["BACKUPS  /var/backups/cypher-erp  1 backup, verified: sizes and checksums"]
message:
  description: One sentence that says what was found.
  returned: success
  type: str
  sample: "3 backups in /var/backups/cypher-erp, 3 of them valid."
outcome:
  description: What a failure means for the run.
  returned: failure
  type: str
  sample: refused
details:
  description: Evidence of a failure.
  returned: failure
  type: dict
  sample: {}
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup_catalog,
    backup_levels,
    backup_survey,
    backup_table,
    connection,
    errors,
    exec_place,
)


def survey_from(params, level):
    """What the options ask for."""
    free = params["server_free_bytes"]
    means = backup_levels.Means(
        settings=connection.settings_from(params) if params["login_db"] else None,
        bin_dir=params["bin_dir"],
        place=exec_place.place_from(params),
        jobs=params["jobs"],
        maintenance_db=params["maintenance_db"],
        require_patched=params["require_patched"],
        server_free_bytes=int(free) if free not in (None, "") else None,
    )
    return backup_survey.Survey(
        backup_dir=params["backup_dir"],
        level=level,
        backup=params["backup"],
        database=params["database"],
        system_identifier=params["system_identifier"],
        key=params["key"],
        means=means,
    )


def found_by(wanted):
    """The result."""
    entries = backup_survey.survey(wanted)
    valid = sum(entry.valid is True for entry in entries)
    number = f"{len(entries)} backup{'' if len(entries) == 1 else 's'}"
    result = {
        "backups": [entry.to_dict() for entry in entries],
        "problems": backup_survey.problems(entries, wanted),
        "message": f"{number} in {wanted.backup_dir}, {valid} of them valid.",
    }
    if wanted.backup:
        result["table"] = [line for entry in entries for line in backup_table.detail(entry)]
        for entry in entries:
            if entry.manifest is not None:
                # The proof of an early backup is longer than all the rest, and of no use to anybody else.
                facts = dataclasses.replace(entry.manifest, proof={})
                result["manifest"] = backup_catalog.printable(dataclasses.asdict(facts))
    else:
        result["table"] = backup_table.table(entries, wanted.backup_dir, wanted.level, wanted.database)
    return result


def main(make_module=AnsibleModule):
    module = make_module(
        argument_spec={
            **connection.login_argument_spec(),
            "login_db": {"type": "str", "default": ""},
            "backup_dir": {"type": "path", "required": True},
            "backup": {"type": "str", "default": ""},
            "level": {"type": "str", "default": "checksum", "choices": ["manifest", "checksum", "read", "restore"]},
            "database": {"type": "str", "default": ""},
            "system_identifier": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "bin_dir": {"type": "str", "default": ""},
            **exec_place.exec_argument_spec(),
            "jobs": {"type": "int", "default": 0},
            "maintenance_db": {"type": "str", "default": "postgres"},
            "require_patched": {"type": "bool", "default": False},
            "server_free_bytes": {"type": "raw"},
        },
        supports_check_mode=True,
    )
    level = module.params["level"]
    if module.params["login_db"] and not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"), outcome="refused", details={})
    if level == backup_levels.RESTORE and module.check_mode:
        level = backup_levels.READ
        module.warn("Check mode: backups are read and not restored.")
    try:
        result = found_by(survey_from(module.params, level))
    except ValueError:
        module.fail_json(
            msg="rollback_server_free_bytes is not a number of bytes; correct it, or leave it empty.",
            outcome="refused",
            details={},
        )
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
