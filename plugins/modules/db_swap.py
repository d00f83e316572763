#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchange the live database and another one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_swap
short_description: Exchange the live database and another one
version_added: 1.0.0
description:
  - Gives another database of the server the name of the live one, and keeps the live one under a dated name, by two renames in
    one transaction. Owner, privileges, settings, connection limit and comment are put on the new one in the same transaction
    and compared before it commits.
  - Other sessions of both databases are ended. Until the commit, new ones wait. They are kept out by the lock of the
    transaction and by nothing else, so whatever dies in between, the server lets them into the database as it was.
  - The replaced database keeps all that it was, and takes connections, so that people can look at it. The application, which
    knows the live name, does not get there. Its comment says what it is, and from that O(back) knows it.
  - The live database may be missing. Then there is one rename, and nothing is kept.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
    details: Checks names, privileges, roles, prepared transactions and sessions, and changes nothing.
  diff_mode:
    support: full
    details: Which database has which name, before and after.
  idempotent:
    support: none
    details: Every run exchanges. A run with O(back) after another one undoes it.
  platform:
    platforms: posix
    support: full
options:
  incoming:
    description:
      - Database that takes the live name.
      - Exactly one of O(incoming) and O(back) is needed.
    type: str
    default: ""
  back:
    description:
      - Exchange back, with the database that was replaced last and is still there.
    type: bool
    default: false
  kept:
    description:
      - Name for the replaced database, 63 bytes at the most. Empty, the live name with C(_replaced_) and the UTC time.
    type: str
    default: ""
  maintenance_db:
    description:
      - Database of the same server to be connected to meanwhile.
    type: str
    default: postgres
  timeout:
    description:
      - Seconds in which the other sessions must be gone. Otherwise nothing is exchanged.
    type: float
    default: 30
  properties:
    description:
      - Properties of the database as a whole, as the manifest of a backup has them.
      - Empty, those of the replaced database. A database that was kept brings its own.
    type: dict
    default: {}
  backup_id:
    description:
      - The backup that O(incoming) was restored from, for the comment of the replaced one.
    type: str
    default: ""
  stage:
    description:
      - Stage of the run that this is, for a run that goes on where this one died at the COMMIT.
    type: str
    choices: [swap, swap_back]
    default: swap
  run_id:
    description:
      - Name of the run, for that comment, and shown to others in C(pg_stat_activity).
    type: str
    default: ""
  run_dir:
    description:
      - Folder of the runs. A file in it lets a later run say what became of one that was killed.
      - With O(run_id), other runs see that this one is at work for as long as the module runs.
    type: path
seealso:
  - module: cypher.rollback.db_backup
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Make a restored database the live one
  cypher.rollback.db_swap:
    login_db: cypher_erp
    incoming: cypher_erp_restore_5f0c
    backup_id: backup_before_migration_0007_20260213_101500
  register: swap

- name: Go back to the database that was replaced last
  cypher.rollback.db_swap:
    login_db: cypher_erp
    back: true
"""

RETURN = r"""
swapped:
  description: Whether the databases were exchanged. V(false) in check mode.
  returned: success
  type: bool
  sample: true
live:
  description: Name of the live database.
  returned: success
  type: str
  sample: cypher_erp
incoming:
  description: Name that the live database had before.
  returned: success
  type: str
  sample: cypher_erp_restore_5f0c
kept:
  description: Name of the replaced database. Empty where there was none.
  returned: success
  type: str
  sample: cypher_erp_replaced_20260213_101730
message:
  description: One sentence that says what would be exchanged.
  returned: in check mode
  type: str
  sample: Would put cypher_erp_restore_5f0c in the place of cypher_erp.
ended:
  description: Sessions that were ended, in check mode those that would be.
  returned: success
  type: list
  elements: dict
  sample: [{"pid": 4711, "user": "erp", "application": "reports", "database": "cypher_erp"}]
changes:
  description: Properties of the live database that would be others than now.
  returned: in check mode
  type: list
  elements: str
  sample: ["connection limit is 17, and -1 there."]
xid:
  description: The transaction, for C(pg_xact_status).
  returned: when the databases were exchanged
  type: str
  sample: "7421"
seconds:
  description: Duration of all of it.
  returned: when the databases were exchanged
  type: float
  sample: 0.06
fenced:
  description: Seconds in which nobody could connect to the live database.
  returned: when the databases were exchanged
  type: float
  sample: 0.02
outcome:
  description: V(refused), V(failed_unchanged) or V(unknown).
  returned: failure
  type: str
  sample: failed_unchanged
details:
  description: Evidence, such as the sessions that did not end.
  returned: failure
  type: dict
  sample: {"sessions": []}
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import (
    connection,
    errors,
    journal,
    resume,
    swap,
)


def request_from(params):
    """The request; with back, for the database that was replaced last."""
    request = swap.SwapRequest(
        settings=connection.settings_from(params),
        incoming=params["incoming"],
        kept=params["kept"],
        maintenance_db=params["maintenance_db"],
        timeout=params["timeout"],
        properties=params["properties"] or {},
        run_id=params["run_id"],
        state_dir=params["run_dir"] or "",
        backup_id=params["backup_id"],
    )
    if params["back"]:
        request = dataclasses.replace(request, incoming=swap.newest_kept(request).name)
    return dataclasses.replace(request, before_commit=lambda *done: note_commit(params, request, *done))


def note_commit(params, request, xid, kept, ended):
    """What a run needs that goes on where this process dies at the COMMIT."""
    if not params["run_dir"] or not params["run_id"]:
        return ""
    done = swap.Swapped(request.live, kept, request.incoming, ended, 0.0, 0.0, xid)
    folder = journal.run_folder(params["run_dir"], params["run_id"])
    return resume.note_commit(folder, params["stage"], xid, {**result_of(done)[0], "failed": False})


def would_swap(request):
    """The result of check mode."""
    ready = swap.check_swap(request)
    kept_as = f", and keep it as {ready.kept}" if ready.kept else ""
    return {
        "changed": True,
        "swapped": False,
        "live": ready.live,
        "incoming": request.incoming,
        "kept": ready.kept,
        "ended": list(ready.sessions),
        "changes": list(ready.changes),
        "message": f"Would put {request.incoming} in the place of {ready.live}{kept_as}. "
        f"{len(ready.sessions)} sessions would be ended.",
    }, ready.warnings


def do_swap(request):
    """The result of an exchange."""
    return result_of(swap.swap(request))


def result_of(done):
    """The result, and its warnings."""
    kept_as = f", which is kept as {done.kept}" if done.kept else ""
    result = dataclasses.asdict(done)
    warnings = result.pop("warnings")
    result.update(
        changed=True,
        swapped=True,
        ended=list(done.ended),
        message=f"{done.incoming} took the place of {done.live}{kept_as}. {len(done.ended)} sessions were ended.",
    )
    return result, warnings


def diff_of(result):
    """Names before and after."""
    live, incoming, replaced = result["live"], result["incoming"], result["kept"]
    before = f"{incoming}: the database that takes the place\n"
    after = f"{live}: the database that takes the place\n"
    if replaced:
        before += f"{live}: the database that is replaced\n"
        after += f"{replaced}: the database that is replaced\n"
    return {"before": before, "after": after}


def main(make_module=AnsibleModule):
    """Exchange, and tell."""
    module = make_module(
        argument_spec={
            **connection.login_argument_spec(),
            "incoming": {"type": "str", "default": ""},
            "back": {"type": "bool", "default": False},
            "kept": {"type": "str", "default": ""},
            "maintenance_db": {"type": "str", "default": "postgres"},
            "timeout": {"type": "float", "default": 30},
            "properties": {"type": "dict", "default": {}},
            "backup_id": {"type": "str", "default": ""},
            "stage": {"type": "str", "choices": ["swap", "swap_back"], "default": "swap"},
            "run_id": {"type": "str", "default": ""},
            "run_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if bool(params["incoming"]) == params["back"]:
        module.fail_json(msg="Give either incoming or back: true.", outcome="refused", details={})
    if not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"), outcome="refused", details={})
    try:
        if module.check_mode:
            result, warnings = would_swap(request_from(params))
        else:
            with journal.run_at_work(params["run_dir"], params["run_id"]):
                result, warnings = do_swap(request_from(params))
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result, diff=diff_of(result))


if __name__ == "__main__":
    main()
