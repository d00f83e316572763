#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_compose_info
short_description: Ask Docker Compose whether an application can be stopped and started
version_added: 1.0.0
author:
  - the cypher.rollback authors (@cypher-rollback)
description:
  - Reads the project, asks the engine for its containers, and refuses what would only show once the application is stopped.
  - Refused are a project that cannot be read, an engine that does not answer, services that the project does not have, the
    service of the database itself, services without a container, since none is made or pulled by a rollback, services with more
    or fewer containers than the compose file wants, and containers that are paused or dead.
  - A service without a container that has one in a project of another name, made from the same folder, is refused with that name. Where
    it has one in both, the other is a warning while it runs.
  - Refused is a container of C(docker compose run) that runs, since neither a stop nor a start of its service reaches it. One that
    has ended is left out of the result.
  - Refused are a project that C(docker compose) takes for another one in its folder than the start does, and a Docker Compose that is
    too old.
  - Variables of C(.env) that have another value in the environment, where that changes the project, are refused with O(makes_anew), and
    otherwise a warning.
  - A container that was made from another definition than the present one is a warning, and so is one that does not run.
extends_documentation_fragment:
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: Changes nothing.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
requirements:
  - Docker with its plugin Compose, 2.18 or newer, on the host that runs the module
options:
  project_dir:
    description:
      - Folder of the project, with its compose file.
    type: path
    required: true
  services:
    description:
      - The application's services.
    type: list
    elements: str
    required: true
  database_host:
    description:
      - Host of the database, to tell which service it is.
    type: str
    default: ""
  database_port:
    description:
      - Its port.
    type: int
    default: 0
  database_exec:
    description:
      - Command that runs a program in the database's container. A service that it names is the database's.
    type: list
    elements: str
    default: []
  makes_anew:
    description:
      - Whether the start may make containers anew, as it does with previous code.
    type: bool
    default: true
seealso:
  - module: community.docker.docker_compose_v2
"""

EXAMPLES = r"""
- name: Ask before anything is stopped
  cypher.rollback.app_compose_info:
    project_dir: /opt/shop
    services: [web, worker]
    database_host: localhost
    database_port: 5432
"""

RETURN = r"""
services:
  description:
    - By name, the C(containers) of each service, with C(id), C(name), C(state), C(health), C(exit_code), C(image) and
      C(config_hash), and whether its definition C(changed) since they were made.
  returned: success
  type: dict
  sample: {"web": {"changed": false, "containers": [{"name": "shop-web-1", "state": "running", "health": "healthy"}]}}
compose_warnings:
  description: What is worth knowing before the application is stopped.
  returned: success
  type: list
  elements: str
  sample: []
outcome:
  description: What the failure means for a rollback.
  returned: on failure
  type: str
  sample: refused
details:
  description: The V(problems), one sentence each, where there are several.
  returned: on failure
  type: dict
  sample: {}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils.compose_info import Question, look
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "project_dir": {"type": "path", "required": True},
            "services": {"type": "list", "elements": "str", "required": True},
            "database_host": {"type": "str", "default": ""},
            "database_port": {"type": "int", "default": 0},
            "database_exec": {"type": "list", "elements": "str", "default": []},
            "makes_anew": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        found = look(Question(**module.params))
    except RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    for warning in found["warnings"]:
        module.warn(warning)
    module.exit_json(changed=False, services=found["services"], compose_warnings=found["warnings"])


if __name__ == "__main__":
    main()
