#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
short_description: Check out another release of the application, or ask whether that would work
version_added: 1.0.0
author:
  - the cypher.rollback authors (@cypher-rollback)
description:
  - Changes the git checkout of an application to a tag, branch or commit that is already in it. Nothing is fetched.
  - Local changes in tracked files are refused or stashed, untracked files in the way are refused. Other untracked files are left alone.
  - Submodules that are checked out follow the release, from the commits that are on the host already.
  - Where the change fails, the code goes back to where it was before. The checkout's own hooks are not run.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
requirements:
  - git on the host that runs the module
options:
  state:
    description:
      - V(checked_out) changes to the release.
      - V(resolved) only tells which commit it is and whether the change would work.
    type: str
    default: checked_out
    choices: [checked_out, resolved]
  project_dir:
    description:
      - Folder of the checkout, or a folder in it.
    type: path
    required: true
  ref:
    description:
      - Tag, branch or commit. HEAD is detached at its commit.
    type: str
    required: true
  branch:
    description:
      - Be on this branch, provided that it names the commit of O(ref). For the way back.
    type: str
    default: ""
  local_changes:
    description:
      - What to do with tracked files that were changed by hand. V(stash) keeps them in a stash of git. Changes inside a submodule are always refused.
    type: str
    default: refuse
    choices: [refuse, stash]
  submodules:
    description:
      - Whether the submodules follow. One that is not checked out on this host stays so.
    type: bool
    default: true
  unstash:
    description:
      - Commit of a stash that is brought back after the change, for the way back. An empty string brings none back.
    type: str
    default: ""
seealso:
  - module: ansible.builtin.git
"""

EXAMPLES = r"""
- name: Ask before anything is stopped
  cypher.rollback.app_release:
    state: resolved
    project_dir: /opt/shop
    ref: v1.4.2

- name: Change to the previous release
  cypher.rollback.app_release:
    project_dir: /opt/shop
    ref: v1.4.2
  register: release

- name: Change back, to the branch as it was
  cypher.rollback.app_release:
    project_dir: /opt/shop
    ref: "{{ release.previous_commit }}"
    branch: "{{ release.previous_branch }}"
    unstash: "{{ release.stash }}"
"""

RETURN = r"""
ref:
  description: The ref that was asked for.
  returned: success
  type: str
  sample: v1.4.2
commit:
  description: Its commit.
  returned: success
  type: str
  sample: 3f786850e387550fdab836ed7e6dc881de23001b
previous_commit:
  description: The commit that was checked out before.
  returned: success
  type: str
  sample: 89e6c98d92887913cadf06b2adb97f26cde4849b
previous_branch:
  description: The branch that was checked out before; an empty string when HEAD was detached.
  returned: success
  type: str
  sample: main
branch:
  description: The branch that is checked out now; an empty string when HEAD is detached.
  returned: success
  type: str
  sample: ""
stashed:
  description: Files with local changes that were stashed, or would be.
  returned: success
  type: list
  elements: str
  sample: [config/shop.ini]
stash:
  description: Commit of the stash that holds them; an empty string when there is none.
  returned: success
  type: str
  sample: 5d41402abc4b2a76b9719d911017c592a3b1c2d4
unstashed:
  description: Whether the stash of O(unstash) was brought back.
  returned: success
  type: bool
  sample: false
submodules:
  description: Submodules that were changed.
  returned: success
  type: list
  elements: str
  sample: [lib]
outcome:
  description: What the failure means for a rollback.
  returned: on failure
  type: str
  sample: refused
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.cypher.rollback.plugins.module_utils.release import change_release


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "state": {"type": "str", "default": "checked_out", "choices": ["checked_out", "resolved"]},
            "project_dir": {"type": "path", "required": True},
            "ref": {"type": "str", "required": True},
            "branch": {"type": "str", "default": ""},
            "local_changes": {"type": "str", "default": "refuse", "choices": ["refuse", "stash"]},
            "submodules": {"type": "bool", "default": True},
            "unstash": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    asked_only = params["state"] == "resolved"
    try:
        result = change_release(
            params["project_dir"],
            params["ref"],
            params["branch"],
            make_change=not (asked_only or module.check_mode),
            local_changes=params["local_changes"],
            submodules=params["submodules"],
            unstash=params["unstash"],
        )
    except RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, **err.details)
    diff = {"before": f"{result['previous_commit']}\n", "after": f"{result['commit']}\n"}
    module.exit_json(**{**result, "changed": result["changed"] and not asked_only}, diff=diff)


if __name__ == "__main__":
    main()
