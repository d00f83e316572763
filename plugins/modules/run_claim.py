#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take or give back the claim on a database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_claim
short_description: Let one run at a time work on a database
version_added: 1.0.0
description:
  - Makes the run's folder and takes the claim on one database, in one step that two runs cannot both succeed in.
  - A second run is refused at once, and the message names the first.
  - A claim whose controller process is certainly gone is taken over, unless its run may have changed the database and was
    neither resumed nor given up. Then this one is refused, with the command that goes on with it.
  - Where it cannot be known whether the controller is gone, because the other run was started on another host, the claim goes
    stale when its run has written nothing for O(ttl) seconds.
  - A claim is never taken over while a module of its run is at work on the database host.
  - A claim lives as long as its run and is given back at its end, so it does not count as a change.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
    details: Is refused as in a real run, but makes no folder and takes no claim.
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  run_dir:
    description: Folder of the runs on the database host.
    type: path
    required: true
  run_id:
    description: Name of this run.
    type: str
    required: true
  system_identifier:
    description: System identifier of the cluster.
    type: str
    required: true
  database:
    description: Name of the database.
    type: str
    required: true
  runbook:
    description: The runbook that runs, for the message that others get.
    type: str
    default: rollback
  state:
    description:
      - V(present) takes the claim, V(absent) gives it back if it is this run's.
    type: str
    choices: [present, absent]
    default: present
  ttl:
    description: Seconds without a sign of life after which a claim from a controller that cannot be asked is stale.
    type: int
    default: 900
  abandon:
    description: Name of a run that died and is given up.
    type: str
    default: ""
  command:
    description: How the playbooks are started, without a playbook's name, for messages.
    type: str
    default: ansible-playbook cypher.rollback
  controller:
    description:
      - The process that runs the playbook.
      - Filled in by the action plugin of this name.
    type: dict
  dead_holder:
    description:
      - The controller process that its own host knows to be gone.
      - Filled in by the action plugin of this name.
    type: dict
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Claim the database
  cypher.rollback.run_claim:
    run_dir: /var/backups/cypher-erp/runs
    run_id: 20261122T152140Z-0003-5f2c
    system_identifier: "7412345678901234567"
    database: cypher_erp
"""

RETURN = r"""
folder:
  description: The run's folder.
  type: str
  returned: when O(state=present), outside check mode
claim:
  description: File of the claim.
  type: str
  returned: always
taken:
  description: Whether this task took the claim. V(false) when the run held it already, and in check mode.
  type: bool
  returned: when O(state=present)
released:
  description: Whether the run held the claim, which it has given back.
  type: bool
  returned: when O(state=absent)
taken_over:
  description: The stale claim that this one replaced.
  type: dict
  returned: when there was one
details:
  description: Evidence; C(held_by) is the claim of the other run.
  type: dict
  returned: on failure
outcome:
  description: The outcome that the failure means for the run.
  type: str
  returned: on failure
  sample: refused
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils.claims import Claims, last_words
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.cypher.rollback.plugins.module_utils.journal import (
    append,
    journal_line,
    make_run_folder,
    run_folder,
    utc_now,
)
from ansible_collections.cypher.rollback.plugins.module_utils.resume import is_unchanged, read_run, refuse_beginning


def take(module: t.Any, claims: Claims, own: dict[str, t.Any]) -> dict[str, t.Any]:
    """Take the claim; what to tell about it."""
    dead = module.params["dead_holder"]

    def judge(held: dict[str, t.Any]) -> None:
        left = read_run(claims.folder_of(held))
        if held["run_id"] not in (own["run_id"], module.params["abandon"]) and not is_unchanged(left):
            refuse_beginning(left, module.params["command"])

    if module.check_mode:
        run_folder(module.params["run_dir"], own["run_id"])
        return {"taken": False, "taken_over": claims.check(own, dead)}
    folder = make_run_folder(module.params["run_dir"], own["run_id"])
    new, stale = claims.take(own, dead, judge)
    if new:
        append(
            folder, journal_line(own["run_id"], "claimed", utc_now(), claim=claims.path, controller=own["controller"])
        )
    return {"taken": new, "folder": folder, "taken_over": stale}


def warn_of(module: t.Any, claims: Claims, stale: dict[str, t.Any]) -> None:
    """Say whose claim was taken over, and how far that run had come."""
    said = last_words(claims.folder_of(stale)) or "it left no journal"
    module.warn(
        f"Run {stale['run_id']} of {stale.get('started_at')} held the claim on this database and died: {said}. "
        f"Its folder is {claims.folder_of(stale)}. Look at what it left before you trust the application's state."
    )


def ended(claims: Claims, stale: dict[str, t.Any]) -> bool:
    """Whether that run had come to its end, and only not given its claim back."""
    return bool(read_run(claims.folder_of(stale)).outcome)


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "system_identifier": {"type": "str", "required": True},
            "database": {"type": "str", "required": True},
            "runbook": {"type": "str", "default": "rollback"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "ttl": {"type": "int", "default": 900},
            "abandon": {"type": "str", "default": ""},
            "command": {"type": "str", "default": "ansible-playbook cypher.rollback"},
            "controller": {"type": "dict"},
            "dead_holder": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    params = module.params
    claims = Claims(params["run_dir"], f"{params['system_identifier']}-{params['database']}", params["ttl"])
    own = {"run_id": params["run_id"], "runbook": params["runbook"], "controller": params["controller"] or {}}
    try:
        if params["state"] == "absent":
            released = not module.check_mode and claims.release(own)
            module.exit_json(changed=False, claim=claims.path, released=released)
        taken = take(module, claims, own)
    except RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, claim=claims.path, details=err.details)
    stale = taken["taken_over"]
    if stale and stale["run_id"] not in (own["run_id"], params["abandon"]) and not ended(claims, stale):
        warn_of(module, claims, stale)
    module.exit_json(
        changed=False, claim=claims.path, **{key: value for key, value in taken.items() if value is not None}
    )


if __name__ == "__main__":
    main()
