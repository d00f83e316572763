#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the report of a run and end it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_report
short_description: Write the report of a run, show its summary, and give back its claim
version_added: 1.0.0
description:
  - Writes C(report.json) into the run's folder, whole or not at all, notes the end of the run in its
    journal, and gives back its claim.
  - Next to it, C(report.html), one page that loads nothing, and C(post-mortem.md), filled in with everything that the run
    knows. Where these cannot be drawn or written, a warning says so, and the report is there all the same.
  - Shows a summary on the console. A report that is there already is never replaced, the new one gets a number then.
  - Does not fail because of the run's outcome. Writing the report does not count as a change.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
    details: Shows the summary and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: N/A
  platform:
    platforms: posix
    support: full
options:
  report:
    description: The report, as the filter P(cypher.rollback.compose_report#filter) draws it.
    type: dict
    required: true
  run_dir:
    description: Folder of the runs on the database host.
    type: path
    required: true
  run_id:
    description: Name of this run. Empty, as in a run that ended before it had one, a name is made up.
    type: str
    required: true
  languages:
    description: Languages of the questions in the post-mortem.
    type: list
    elements: str
    choices: [ro, en]
    default: [ro, en]
  pages:
    description:
      - Texts for people that are written next to the report, by the names of their files.
      - Filled in by the action plugin of this name, which draws them.
    type: dict
    default: {}
  controller:
    description:
      - The process that runs the playbook.
      - Filled in by the action plugin of this name.
    type: dict
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Write the report
  cypher.rollback.run_report:
    report: "{{ run | cypher.rollback.compose_report }}"
    run_dir: /var/backups/cypher-erp/runs
    run_id: 20261122T152140Z-0003-5f2c
"""

RETURN = r"""
path:
  description: The report's file.
  type: str
  returned: outside check mode
  sample: /var/backups/cypher-erp/runs/20261122T152140Z-0003-5f2c/report.json
pages:
  description: Paths of the texts for people, by the names of their files.
  type: dict
  returned: outside check mode
  sample: {"report.html": "/var/backups/cypher-erp/runs/20261122T152140Z-0003-5f2c/report.html"}
run_id:
  description: Name of the run.
  type: str
  returned: always
summary:
  description: The summary that was shown, line by line.
  type: list
  elements: str
  returned: always
outcome:
  description: How the run ended.
  type: str
  returned: success
  sample: rolled_back
released:
  description: Whether the run held a claim, which it has given back.
  type: bool
  returned: outside check mode
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils.claims import Claims
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.cypher.rollback.plugins.module_utils.journal import (
    append,
    journal_line,
    make_run_folder,
    utc_now,
    write_report,
)
from ansible_collections.cypher.rollback.plugins.module_utils.run_pages import write_pages


def release(params: dict[str, t.Any]) -> bool:
    """Give back the claim of this run, if it holds one."""
    target = params["report"].get("target") or {}
    claimed = f"{target.get('system_identifier')}-{target.get('database')}"
    return Claims(params["run_dir"], claimed).release(
        {"run_id": params["run_id"], "controller": params["controller"] or {}}
    )


def write(params: dict[str, t.Any]) -> str:
    """Write the report and the journal's last line; the report's path."""
    folder = make_run_folder(params["run_dir"], params["run_id"])
    path = write_report(folder, params["report"])
    append(
        folder,
        journal_line(params["run_id"], "finished", utc_now(), outcome=params["report"].get("outcome"), report=path),
    )
    return path


def written_pages(module: t.Any, path: str) -> dict[str, str]:
    """Write the pages; without them, the report is worth as much."""
    try:
        return write_pages(path, module.params["pages"])
    except OSError as err:
        module.warn(f"The page and the post-mortem of the run could not be written: {err}. The report is {path}.")
        return {}


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "report": {"type": "dict", "required": True},
            "run_dir": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "languages": {
                "type": "list",
                "elements": "str",
                "choices": ["ro", "en"],
                "default": ["ro", "en"],
            },
            "pages": {"type": "dict", "default": {}},
            "controller": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    params, outcome = module.params, module.params["report"].get("outcome")
    if module.check_mode:
        module.exit_json(changed=False, outcome=outcome)
    trouble = path = ""
    pages: dict[str, str] = {}
    try:
        path = write(params)
        pages = written_pages(module, path)
    except (OSError, RollbackError) as err:
        trouble = f"The report of run {params['run_id']} could not be written: {str(err).rstrip('.')}. The run itself ended as {outcome}."
    try:
        released = release(params)
    except RollbackError as err:
        trouble, released = trouble or str(err), False
    if trouble:
        module.fail_json(msg=trouble, outcome=outcome, released=released)
    module.exit_json(changed=False, path=path, pages=pages, outcome=outcome, released=released)


if __name__ == "__main__":
    main()
