#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
short_description: Prove that an application works
version_added: 1.0.0
author:
  - the cypher.rollback authors (@cypher-rollback)
description:
  - Runs all smoke tests of a host, and those that fail again and again, until each has passed once or the time is up.
  - It fails when a test did not pass. The result of every test is returned either way.
extends_documentation_fragment:
  - cypher.rollback.postgres
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: none
    details: The module is skipped, because nobody knows what a command does.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: As far as the module is concerned. What a command of a test does is the operator's matter.
  platform:
    platforms: posix
    support: full
requirements:
  - psycopg2 >= 2.9 on the host that runs the module, for tests with a query
options:
  tests:
    description:
      - The tests. Each has exactly one of O(tests[].url), O(tests[].command) and O(tests[].query).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the test in the report.
        type: str
        required: true
      url:
        description:
          - Address that must answer, V(http) or V(https). Certificates are checked. Proxies are not used for the host itself.
          - Redirects are followed, unless O(tests[].status) has one.
        type: str
      status:
        description: HTTP status that it must answer with, a number or a list of numbers. Default, 200.
        type: raw
      contains:
        description: Text that the first four megabytes of the answer must contain.
        type: str
      command:
        description: Command that must exit 0. A string is run by C(/bin/sh -c), a list as it is.
        type: raw
      query:
        description: SQL query, run in a read-only transaction, whose first value must equal O(tests[].expect).
        type: str
      expect:
        description: First value of the first row. Numbers are compared as numbers, everything else as text. Null is null.
        type: raw
      successes:
        description: Times in a row that the test must pass. Default, O(successes).
        type: int
  successes:
    description:
      - Times in a row that each test must pass, so that an application that comes and goes does not pass by luck.
    type: int
    default: 1
  timeout:
    description:
      - Seconds in which all tests must have passed. One try takes 10 seconds at the most.
    type: float
    default: 30
  interval:
    description:
      - Seconds between two tries.
    type: float
    default: 0.5
  chdir:
    description:
      - Folder in which commands run. Default, the module's own.
    type: path
  login_db:
    description:
      - Name of the database. Required for tests with a query.
    type: str
    default: ""
    required: false
"""

EXAMPLES = r"""
- name: Prove that the shop works
  cypher.rollback.smoke_test:
    tests:
      - name: health
        url: http://127.0.0.1:8000/health
        contains: '"database": "up"'
      - name: queue is empty
        command: test ! -s /var/spool/shop/failed
    timeout: 30

- name: Prove that the catalog is there
  cypher.rollback.smoke_test:
    tests:
      - name: products
        query: SELECT count(*) > 0 FROM b2b.products
        expect: true
    login_db: cypher_erp
"""

RETURN = r"""
passed:
  description: Whether every test passed.
  returned: always
  type: bool
  sample: true
tests:
  description: How each test ended.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the test.
      returned: always
      type: str
      sample: health
    kind:
      description: V(url), V(command) or V(query).
      returned: always
      type: str
      sample: url
    status:
      description: V(passed) or V(failed).
      returned: always
      type: str
      sample: passed
    message:
      description: What its last try said; an empty string when it passed.
      returned: always
      type: str
      sample: ""
    attempts:
      description: How often it was tried.
      returned: always
      type: int
      sample: 3
    seconds:
      description: Seconds from the beginning of all tests to its last try.
      returned: always
      type: float
      sample: 1.04
    in_a_row:
      description: Times that it passed in a row at the end.
      returned: always
      type: int
      sample: 1
outcome:
  description: What the failure means for a rollback.
  returned: on failure
  type: str
  sample: needs_attention
"""

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import http_request, smoke, smoke_query
from ansible_collections.cypher.rollback.plugins.module_utils.connection import (
    HAS_PSYCOPG2,
    login_argument_spec,
    settings_from,
)
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError


def ask(url: str, limit: float, follow: bool) -> tuple[int, str]:
    """One request.

    :raises RollbackError: when there was no answer.
    """
    return http_request.fetch(url, limit, follow=follow)


def test_argument_spec() -> dict[str, t.Any]:
    """The keys of a test."""
    return {
        "name": {"type": "str", "required": True},
        "url": {"type": "str"},
        "status": {"type": "raw"},
        "contains": {"type": "str"},
        "command": {"type": "raw"},
        "query": {"type": "str"},
        "expect": {"type": "raw"},
        "successes": {"type": "int"},
    }


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    spec = login_argument_spec()
    spec["login_db"] = {"type": "str", "default": ""}
    module = make_module(
        argument_spec={
            "tests": {"type": "list", "elements": "dict", "required": True, "options": test_argument_spec()},
            "timeout": {"type": "float", "default": 30},
            "interval": {"type": "float", "default": 0.5},
            "successes": {"type": "int", "default": 1},
            "chdir": {"type": "path"},
            **spec,
        },
        supports_check_mode=False,
    )
    params = module.params
    results: list[smoke.SmokeResult] = []
    try:
        tests = [smoke.SmokeTest.parse(test) for test in params["tests"]]
        if any(test.kind == "query" for test in tests) and not HAS_PSYCOPG2:
            module.fail_json(msg=missing_required_lib("psycopg2"), passed=False, tests=[])
        database = smoke_query.asker(settings_from(params)) if params["login_db"] else None
        tester = smoke.SmokeTester(ask, database, params["chdir"] or "", params["successes"])
        results = tester.run(tests, params["timeout"], params["interval"])
        smoke.judge(results)
    except RollbackError as err:
        found = [dataclasses.asdict(result) for result in results]
        module.fail_json(msg=str(err), outcome=err.outcome, passed=False, tests=found)
    module.exit_json(changed=False, passed=True, tests=[dataclasses.asdict(result) for result in results])


if __name__ == "__main__":
    main()
