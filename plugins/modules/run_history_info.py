#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List past runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_history_info
short_description: List the runs of a folder
version_added: 1.0.0
description:
  - Lists the runs of a folder from the reports that they left, newest first, and names those that left none or whose report
    cannot be read.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
    details: Only reads.
  diff_mode:
    support: N/A
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  run_dir:
    description: Folder of the runs on the database host. One that is not there has no runs.
    type: path
    required: true
  database:
    description: Only runs on the database of this name, and those of which it is not known. Empty, on every database.
    type: str
    default: ""
  limit:
    description: Runs that RV(table) shows. V(0), all.
    type: int
    default: 20
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: List the runs
  cypher.rollback.run_history_info:
    run_dir: /var/backups/cypher-erp/runs
  register: history

- name: Show them
  ansible.builtin.debug:
    msg: "{{ history.table | join('\n') }}"

- name: Write them as a page
  ansible.builtin.copy:
    content: "{{ history.runs | cypher.rollback.history_page }}"
    dest: /var/backups/cypher-erp/runs/index.html
    mode: "0600"
"""

RETURN = r"""
runs:
  description: The runs, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    run_id:
      description: Name of the run's folder.
      type: str
      returned: always
      sample: 20261122T152140Z-0003-5f2c
    status:
      description: V(finished), V(at_work), V(died) or V(unreadable).
      type: str
      returned: always
      sample: finished
    problem:
      description: Why it is not finished, and where it stands. Empty, it is.
      type: str
      returned: always
      sample: ""
    runbook:
      description: The runbook. This and all that follows is empty where no report says it.
      type: str
      returned: always
      sample: rollback
    outcome:
      description: How it ended.
      type: str
      returned: always
      sample: rolled_back
    versions:
      description: The migrations that it was about.
      type: list
      elements: str
      returned: always
      sample: ["0003"]
    database:
      description: Name of the database.
      type: str
      returned: always
      sample: cypher_erp
    host:
      description: The database host.
      type: str
      returned: always
      sample: db1
    person:
      description: Who ran it.
      type: str
      returned: always
      sample: Ana Pop
    started_at:
      description: UTC time.
      type: str
      returned: always
      sample: "2026-11-22T15:21:40.123Z"
    finished_at:
      description: UTC time.
      type: str
      returned: always
      sample: "2026-11-22T15:21:45.300Z"
    seconds:
      description: How long it took.
      type: float
      returned: always
      sample: 5.177
    downtime_seconds:
      description: How long the application was down. V(none), it was not stopped.
      type: float
      returned: always
      sample: 3.046
    rows_lost:
      description: Rows that a committed rollback removed.
      type: int
      returned: always
      sample: 410
    last_stage:
      description: The last stage that it noted.
      type: str
      returned: always
      sample: notify
    report:
      description: Path of the report, relative to O(run_dir).
      type: str
      returned: always
      sample: 20261122T152140Z-0003-5f2c/report.json
    page:
      description: Path of the page, relative to O(run_dir).
      type: str
      returned: always
      sample: 20261122T152140Z-0003-5f2c/report.html
table:
  description: The newest of them as lines for a console.
  returned: success
  type: list
  elements: str
  sample: ["RUNS  /var/backups/cypher-erp/runs  2 runs"]
exists:
  description: Whether the folder is there.
  returned: success
  type: bool
  sample: true
outcome:
  description: What a failure means.
  returned: failure
  type: str
  sample: refused
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils import past_runs
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "database": {"type": "str", "default": ""},
            "limit": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    run_dir = module.params["run_dir"]
    try:
        found = past_runs.runs(run_dir, module.params["database"])
    except RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome)
    table = past_runs.table(found, run_dir, max(0, module.params["limit"]))
    module.exit_json(changed=False, runs=found, table=table, exists=os.path.isdir(run_dir))


if __name__ == "__main__":
    main()
