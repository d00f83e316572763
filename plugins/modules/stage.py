#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stage
short_description: Note the beginning or end of a stage of a run
version_added: 1.0.0
description:
  - Adds to the list of the run's stages, and appends a line to the run's journal on the task's host at once.
  - A stage that begins ends the one before it. Times are those of the controller, in UTC.
  - A journal that cannot be written is a warning, once, and never ends the run.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
    details: Keeps the list of stages and writes no journal.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: A stage that has begun is not begun again.
  platform:
    platforms: posix
    support: full
options:
  name:
    description:
      - Name of the stage.
      - Empty, the stage that has begun, or the last one. So a rescue needs not know which one failed.
    type: str
    default: ""
  status:
    description:
      - What happens to it. V(noted) leaves it as it is, and only keeps O(result).
    type: str
    choices: [started, finished, failed, skipped, noted]
    default: started
  run_dir:
    description: Folder of the runs on the task's host.
    type: path
    default: ""
  run_id:
    description: Name of the run. Empty, no journal is written.
    type: str
    default: ""
  message:
    description: A sentence for the journal.
    type: str
    default: ""
  result:
    description:
      - What the stage found or did. Kept in the run's folder, 0600, so that a run whose controller died can be resumed.
      - With O(status=noted), what must be known of the state before the stage acts.
    type: raw
  fact:
    description: Name of the fact that a resumed run finds O(result) in. Default, the stage's name and C(_result).
    type: str
    default: ""
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Begin the backup
  cypher.rollback.stage:
    name: backup
    run_dir: /var/backups/cypher-erp/runs
    run_id: 20261122T152140Z-0003-5f2c

- name: End it, and keep what it found
  cypher.rollback.stage:
    name: backup
    status: finished
    result: "{{ backup_result }}"
    run_dir: /var/backups/cypher-erp/runs
    run_id: 20261122T152140Z-0003-5f2c
"""

RETURN = r"""
stage:
  description: Name of the stage that was meant.
  type: str
  returned: always
  sample: backup
stages:
  description: The stages of this run so far. Later tasks find them as C(ansible_facts.rollback_stages).
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Name of the stage.
      type: str
    status:
      description: How far it is.
      type: str
    started_at:
      description: UTC time of its beginning.
      type: str
    finished_at:
      description: UTC time of its end.
      type: str
    seconds:
      description: How long it took.
      type: float
"""
