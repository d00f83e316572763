#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: notification
short_description: Tell people and programs that a run begins or how it ended
version_added: 1.0.0
author:
  - the cypher.rollback authors (@cypher-rollback)
description:
  - Sends a message to every channel that is to be told, all side by side, and returns what became of each.
  - A channel that does not answer changes nothing. The module does not fail because of one, and takes no longer than O(timeout).
  - It always runs in the process of C(ansible-playbook), on the controller, whatever host the task is for.
  - Give the task C(no_log=true), since addresses of channels are secrets. They are in no result.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
    details: Sends nothing. Every channel that would have been told is returned as V(skipped).
  diff_mode:
    support: none
  idempotent:
    support: none
    details: What is sent twice arrives twice. The host is changed by neither.
  platform:
    platforms: posix
    support: full
options:
  event:
    description:
      - What there is to tell. V(outcome) is C(end) for a good outcome of the report, and C(failure) for any other.
    type: str
    choices: [start, outcome]
    default: outcome
  report:
    description: The report, as the filter P(cypher.rollback.compose_report#filter) draws it.
    type: dict
    required: true
  channels:
    description:
      - The channels, as in C(rollback_notify); its documentation in the role C(settings) has their keys.
    type: list
    elements: dict
    required: true
  contacts:
    description: The people, as in C(rollback_contacts). Default, those of the report.
    type: list
    elements: dict
  timeout:
    description: Seconds in which all channels must have answered.
    type: float
    default: 10
  page:
    description:
      - The run's page as HTML, attached to mails for those who run the system.
      - Filled in by the action plugin of this name, from the report. Empty, nothing is attached.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Tell how the run ended
  cypher.rollback.notification:
    report: "{{ run | cypher.rollback.compose_report }}"
    channels:
      - type: slack
        name: operations
        url: "{{ vault_slack_url }}"
      - type: email
        events: [failure]
        severities: [Critical, High]
        roles: [dba_lead, product_owner]
        host: mail.example.com
        from: rollback@example.com
    contacts: "{{ rollback_contacts }}"
  no_log: true
  register: told
"""

RETURN = r"""
deliveries:
  description: What became of each message.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the channel; where it has none, the host of its address or its type.
      returned: always
      type: str
      sample: operations
    type:
      description: Kind of channel.
      returned: always
      type: str
      sample: slack
    event:
      description: V(start), V(end) or V(failure).
      returned: always
      type: str
      sample: end
    audience:
      description: Whom the text is for, V(technical) or V(stakeholder).
      returned: always
      type: str
      sample: technical
    status:
      description: V(sent), V(failed) or V(skipped).
      returned: always
      type: str
      sample: sent
    message:
      description: What the channel answered, or why nothing was sent, without secrets.
      returned: always
      type: str
      sample: answered 200
    recipients:
      description: Roles of the contacts that it was for.
      returned: always
      type: list
      elements: str
      sample: [dba_lead]
    at:
      description: When that was, UTC.
      returned: always
      type: str
      sample: "2026-11-22T15:21:40.123Z"
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils.notification_delivery import notify


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "event": {"type": "str", "choices": ["start", "outcome"], "default": "outcome"},
            "report": {"type": "dict", "required": True},
            "channels": {"type": "list", "elements": "dict", "required": True},
            "contacts": {"type": "list", "elements": "dict"},
            "timeout": {"type": "float", "default": 10},
            "page": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    contacts = params["report"].get("contacts") if params["contacts"] is None else params["contacts"]
    deliveries = notify(
        params["channels"],
        contacts,
        params["report"],
        event="start" if params["event"] == "start" else "",
        timeout=params["timeout"],
        page=params["page"],
        send=not module.check_mode,
    )
    module.exit_json(changed=False, deliveries=deliveries)


if __name__ == "__main__":
    main()
