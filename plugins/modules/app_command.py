#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_command
short_description: Stop or start an application by its operator's own commands, with proof
version_added: 1.0.0
author:
  - the cypher.rollback authors (@cypher-rollback)
description:
  - Stops or starts an application that is operated by commands of its own, and proves by its status command that it did.
  - An answer of the status command counts when it comes twice in a row, so that a status that flaps proves nothing.
  - Commands run in a session of their own, without input, and without E(PGPASSWORD) and E(DB_PASSWORD) in their environment.
  - Their output goes to a private temporary file, of which messages show the last lines. The file is removed, unless a
    process of the application still writes to it.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
    details: Only the status command is run.
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  state:
    description:
      - V(stopped) runs O(stop_command) when the application runs, and waits until it does not.
      - V(started) runs O(start_command) when the application does not run, and waits until it does. A start command that
        stays in the foreground is left running.
      - V(queried) only tells whether it runs.
    type: str
    required: true
    choices: [stopped, started, queried]
  status_command:
    description:
      - Exits 0 while the application runs, and with a number from 1 to 125 while it does not. Anything else is no answer.
      - A string is run by C(/bin/sh -c), a list as it is. The same holds for the other commands.
    type: raw
    required: true
  stop_command:
    description:
      - Stops the application. Required with O(state=stopped).
    type: raw
  start_command:
    description:
      - Starts the application. Required with O(state=started).
    type: raw
  chdir:
    description:
      - Folder in which the commands run. Default, the module's own.
    type: path
  timeout:
    description:
      - Seconds in which the application must have stopped, or started. The stop command itself is ended then.
    type: float
    default: 60
seealso:
  - module: ansible.builtin.systemd_service
  - module: community.docker.docker_compose_v2
"""

EXAMPLES = r"""
- name: Stop the shop and prove it
  cypher.rollback.app_command:
    state: stopped
    status_command: curl -sf -m 5 http://127.0.0.1:8000/alive >/dev/null
    stop_command: [/opt/shop/bin/shop, stop]
    timeout: 30

- name: Start it again
  cypher.rollback.app_command:
    state: started
    status_command: curl -sf -m 5 http://127.0.0.1:8000/alive >/dev/null
    start_command: ./bin/shop serve >>/var/log/shop.log 2>&1 &
    chdir: /opt/shop
"""

RETURN = r"""
was_running:
  description: Whether the application ran before. V(none) when nobody could tell.
  returned: always
  type: bool
  sample: true
running:
  description: Whether it runs now, by its status command; in check mode, whether it would. V(none) when nobody could tell.
  returned: always
  type: bool
  sample: false
attempted:
  description: Whether the stop or start command was run.
  returned: always
  type: bool
  sample: true
message:
  description: What was found and done, in a sentence.
  returned: always
  type: str
  sample: The application stopped after 0.4 s.
output_file:
  description: File that a process of the application still writes to; an empty string when there is none.
  returned: always
  type: str
  sample: ""
outcome:
  description: What the failure means for a rollback.
  returned: on failure
  type: str
  sample: failed_unchanged
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils.application import Application, Command, Outcome
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Find, act, prove."""
    state = params["state"]
    status = Command.parse("rollback_app_status_command", params["status_command"])
    application = Application(status, params["chdir"] or "", params["timeout"])
    if state == "stopped":
        command = Command.parse("rollback_app_stop_command", params["stop_command"])
        return application.stop(command, check_mode=check_mode)
    if state == "started":
        command = Command.parse("rollback_app_start_command", params["start_command"])
        return application.start(command, check_mode=check_mode)
    running = application.is_running()
    return Outcome(running, running, False, f"The application {'runs' if running else 'does not run'}.")


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["stopped", "started", "queried"]},
            "status_command": {"type": "raw", "required": True},
            "stop_command": {"type": "raw"},
            "start_command": {"type": "raw"},
            "chdir": {"type": "path"},
            "timeout": {"type": "float", "default": 60},
        },
        required_if=[("state", "stopped", ["stop_command"]), ("state", "started", ["start_command"])],
        supports_check_mode=True,
    )
    try:
        found = run(module.params, module.check_mode)
    except RollbackError as err:
        unknown = {"was_running": None, "running": None, "attempted": False, "output_file": ""}
        facts = {**unknown, **err.details}
        module.fail_json(msg=str(err), message=str(err), outcome=err.outcome, changed=False, **facts)
    module.exit_json(
        changed=found.changed,
        was_running=found.was_running,
        running=found.running,
        attempted=found.changed and not module.check_mode,
        message=found.message,
        output_file=found.output_file,
    )


if __name__ == "__main__":
    main()
