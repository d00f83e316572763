#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_image
short_description: Have a project of Docker Compose use another image of the application
version_added: 1.0.0
author:
  - the cypher.rollback authors (@cypher-rollback)
description:
  - Changes the variable in the project's C(.env) that names the application's image, or its tag. Every other byte of that file
    stays, and so do its owner and mode. It is replaced by one rename.
  - Refuses an image that is not on the host. Nothing is pulled, and no container is touched. Those that are to be made anew are
    named in the result.
  - Refuses a present value that is empty or made of another variable, which could not be put back, and a file that the user may
    write but not replace with owner and group kept.
  - Where the project does not follow the changed file, the file is put back as it was.
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
  - Docker with its plugin Compose, 2.18 or newer, on the host that runs the module
options:
  state:
    description:
      - V(changed) changes the variable.
      - V(asked) only tells what it is and whether the change would work.
    type: str
    default: changed
    choices: [changed, asked]
  project_dir:
    description:
      - Folder of the project, with its compose file and C(.env).
    type: path
    required: true
  variable:
    description:
      - Name of the variable, which has to be defined once in C(.env).
    type: str
    required: true
  image:
    description:
      - Its value, a tag or a whole name of an image, as the compose file uses it.
    type: str
    required: true
  services:
    description:
      - The application's services. At least one has to take its image from the variable.
    type: list
    elements: str
    required: true
seealso:
  - module: cypher.rollback.app_release
  - module: community.docker.docker_compose_v2
"""

EXAMPLES = r"""
- name: Ask before anything is stopped
  cypher.rollback.app_image:
    state: asked
    project_dir: /opt/shop
    variable: SHOP_TAG
    image: v1.4.2
    services: [web, worker]

- name: Use the previous image
  cypher.rollback.app_image:
    project_dir: /opt/shop
    variable: SHOP_TAG
    image: v1.4.2
    services: [web, worker]
"""

RETURN = r"""
variable:
  description: Name of the variable.
  returned: success
  type: str
  sample: SHOP_TAG
image:
  description: The value that was asked for.
  returned: success
  type: str
  sample: v1.4.2
previous_image:
  description: The value that it had before.
  returned: success
  type: str
  sample: v1.5.0
images:
  description: The image of each service C(before) and C(after).
  returned: success
  type: dict
  sample: {"web": {"before": "shop:v1.5.0", "after": "shop:v1.4.2"}}
stale:
  description: Services whose containers have another image than the one that was asked for.
  returned: success
  type: list
  elements: str
  sample: [web]
outcome:
  description: What the failure means for a rollback.
  returned: on failure
  type: str
  sample: refused
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils.compose_image import ImageWanted, change_image
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            "state": {"type": "str", "default": "changed", "choices": ["changed", "asked"]},
            "project_dir": {"type": "path", "required": True},
            "variable": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "services": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = ImageWanted(params["project_dir"], params["variable"], params["image"], params["services"])
    make_change = params["state"] == "changed" and not module.check_mode
    try:
        result = change_image(wanted, make_change=make_change)
    except RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, **err.details)
    diff = {
        "before": f"{result['variable']}={result['previous_image']}\n",
        "after": f"{result['variable']}={result['image']}\n",
    }
    module.exit_json(**{**result, "changed": result["changed"] and params["state"] == "changed"}, diff=diff)


if __name__ == "__main__":
    main()
