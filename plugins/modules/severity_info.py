#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge how bad it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: severity_info
short_description: Judge how bad it is after a migration, from evidence
version_added: 1.0.0
description:
  - Measures critical queries, rows of critical tables, logs, health endpoints and Prometheus, and gives the level of section 2 of the
    rollback playbook, V(Critical), V(High), V(Medium) or V(Low), with what to do and until when.
  - Each trigger line of that section is a rule with a name. The highest level of which a rule fired counts. A rule whose measurement is
    inconclusive counts as if it had fired, because unsure means the higher one, and RV(severity.inconclusive) says so.
  - What is not set is not measured, does not raise the level, and is named. Where nothing was measured that could say that it is well,
    the level is V(Critical) and inconclusive.
  - A database that does not answer is evidence, not an error.
  - Changes nothing. Queries run in read-only transactions.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  login_db:
    description:
      - Name of the database. Empty, no database is asked.
    type: str
    default: ""
    required: false
  measure_only:
    description:
      - Measure logs, health endpoints and Prometheus from this host and return RV(evidence), without a verdict and without the database.
    type: bool
    default: false
  evidence:
    description:
      - What other hosts returned as RV(evidence). An entry with C(problem) instead is a host that could not be asked, which is inconclusive.
    type: list
    elements: dict
    default: []
  host:
    description:
      - Name of this host in the evidence.
    type: str
    default: ""
  version:
    description:
      - The migration in question. Its own baseline is taken where there is one. Empty, the newest one that is applied.
    type: raw
  backup_dir:
    description:
      - Folder of the backups. The manifest of the newest one from before a migration has the baseline of queries and rows. Empty, none.
    type: path
  backup_key:
    description:
      - Key that signs the manifests. Where it is given, only backups with its signature count.
    type: str
    default: ""
  system_identifier:
    description:
      - System identifier that the cluster must have. Empty, any.
    type: str
    default: ""
  search_path:
    description:
      - Schemas in which unqualified names are resolved.
    type: list
    elements: str
    default: [b2b, erp, shared, public]
  queries:
    description:
      - Critical queries, the ones whose times the backup recorded.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the query.
        type: str
        required: true
      query:
        description: A query that only reads.
        type: str
        required: true
  runs:
    description:
      - Runs of each query that count. One more before them does not.
    type: int
    default: 5
  query_timeout:
    description:
      - Seconds after which a query counts as timed out.
    type: float
    default: 10
  critical_tables:
    description:
      - Tables that must not lose rows.
    type: list
    elements: str
    default: []
  log_sources:
    description:
      - Logs in which errors and warnings are counted, as in the setting C(rollback_log_sources).
    type: list
    elements: dict
    default: []
  log_window:
    description:
      - Seconds of a log that count as now.
    type: float
    default: 300
  log_baseline_window:
    description:
      - Seconds of a log before them, to compare with.
    type: float
    default: 3600
  health_checks:
    description:
      - What must work, as in the setting C(rollback_health_checks).
    type: list
    elements: dict
    default: []
  health_samples:
    description:
      - Times that each of them is asked.
    type: int
    default: 3
  health_interval:
    description:
      - Seconds between two of these.
    type: float
    default: 1
  health_timeout:
    description:
      - Seconds in which it must answer, and Prometheus, too.
    type: float
    default: 5
  prometheus_url:
    description:
      - Address of a Prometheus server. Empty, none is asked.
    type: str
    default: ""
  prometheus_headers:
    description:
      - Further HTTP headers for it.
    type: dict
    default: {}
  prometheus_queries:
    description:
      - Queries, as in the setting C(rollback_prometheus_queries).
    type: list
    elements: dict
    default: []
  thresholds:
    description:
      - Limits over the default ones, as in the setting C(rollback_severity_thresholds).
    type: dict
    default: {}
  migrations_dir:
    description:
      - Folder of the migrations, to know which one is the newest that is applied. Not given, the one that the baseline was taken for.
    type: path
  ledger_table:
    description:
      - Table in which the migration tool records what is applied. Empty, the objects that each DOWN names tell.
    type: str
    default: ""
  ledger_column:
    description:
      - Column of O(ledger_table) that holds the version.
    type: str
    default: version
  inventory:
    description:
      - Inventories with which the playbooks are started here, for RV(severity.next_command).
    type: list
    elements: str
    default: []
  only_host:
    description:
      - The host that RV(severity.next_command) is narrowed to. Empty, not narrowed.
    type: str
    default: ""
seealso:
  - module: cypher.rollback.db_backup
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Judge how bad it is
  cypher.rollback.severity_info:
    login_db: cypher_erp
    backup_dir: /var/backups/cypher-erp
    queries:
      - name: the newest orders
        query: SELECT * FROM b2b.orders ORDER BY created_at DESC LIMIT 100
    critical_tables: [b2b.orders, b2b.customers]
    health_checks:
      - {name: shop, url: "http://127.0.0.1:8000/health", priority: P0}
  register: assessment

- name: Say what to do
  ansible.builtin.debug:
    msg: "{{ assessment.severity.level }}: {{ assessment.severity.action }}. {{ assessment.severity.text }}"

- name: Measure what a host of the application sees
  cypher.rollback.severity_info:
    measure_only: true
    host: "{{ inventory_hostname }}"
    log_sources:
      - {name: shop, type: journald, unit: shop.service}
  register: seen_from_here
"""

RETURN = r"""
severity:
  description: The verdict.
  returned: success, unless O(measure_only=true)
  type: dict
  contains:
    level:
      description: V(Critical), V(High), V(Medium) or V(Low).
      returned: always
      type: str
      sample: High
    action:
      description: What section 2 says to do.
      returned: always
      type: str
      sample: Roll back within one hour
    deadline:
      description: Until when.
      returned: always
      type: str
      sample: within one hour, by 2026-02-13 11:15 UTC
    decided_by:
      description: Names of the rules of that level that fired, or that may have.
      returned: always
      type: list
      elements: str
      sample: [performance_degraded_high]
    inconclusive:
      description: No rule of that level fired for certain.
      returned: always
      type: bool
      sample: false
    text:
      description: What decided it, in words.
      returned: always
      type: str
      sample: "orders: 13.1 ms (median of 5, spread 0.40 ms), baseline 10.0 ms, +31.0 % (+28.2 to +33.9 %)."
    assessed_at:
      description: UTC time.
      returned: always
      type: str
      sample: "2026-02-13T10:15:00.120Z"
    given_by:
      description: Empty. Who gave the level, where a person did.
      returned: always
      type: str
      sample: ""
    not_measured:
      description: What was not measured, each with the reason.
      returned: always
      type: list
      elements: str
      sample: ["logs (no rollback_log_sources)"]
    findings:
      description:
        - What each rule says, with C(rule), C(section), C(level), C(status) (V(fired), V(clear), V(inconclusive) or V(not_measured)),
          C(text), C(source), C(line) in Romanian and English, and C(evidence).
      returned: always
      type: list
      elements: dict
      sample: [{"rule": "data_loss", "section": "2.1", "level": "Critical", "status": "clear", "source": "rows"}]
    measurements:
      description: What was measured, lists by source, C(queries), C(rows), C(logs), C(health) and C(prometheus).
      returned: always
      type: dict
      sample: {"queries": [{"name": "orders", "baseline_ms": 10.0, "now_ms": 13.1, "change_percent": 31.0}]}
    thresholds:
      description: The limits that counted.
      returned: always
      type: dict
      sample: {"performance_critical_percent": 50}
    version:
      description: The migration in question. Empty, not known.
      returned: always
      type: str
      sample: "0007"
    backup:
      description: Id of the backup with the baseline. Empty, there is none.
      returned: always
      type: str
      sample: backup_before_migration_0007_20260213_091500
    database_down:
      description: The database did not answer, or did not let this role in.
      returned: always
      type: bool
      sample: false
    next_command:
      description: The command that comes next.
      returned: always
      type: str
      sample: ansible-playbook cypher.rollback.rollback -e version=0007 --check
evidence:
  description: What this host measured, for O(evidence) of another one.
  returned: with O(measure_only=true)
  type: dict
  sample: {"host": "app1", "logs": [], "health": [], "prometheus": []}
outcome:
  description: What a failure means for the run.
  returned: failure
  type: str
  sample: refused
details:
  description: Evidence of a failure.
  returned: failure
  type: dict
  sample: {}
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import assess_message, assessment, connection, errors


def argument_spec():
    """The options."""
    query = {"name": {"type": "str", "required": True}, "query": {"type": "str", "required": True}}
    dicts = {"type": "list", "elements": "dict", "default": []}
    return {
        **connection.login_argument_spec(),
        "login_db": {"type": "str", "default": ""},
        "measure_only": {"type": "bool", "default": False},
        "evidence": dict(dicts),
        "host": {"type": "str", "default": ""},
        "version": {"type": "raw"},
        "backup_dir": {"type": "path"},
        "backup_key": {"type": "str", "default": "", "no_log": True},
        "system_identifier": {"type": "str", "default": ""},
        "search_path": {"type": "list", "elements": "str", "default": ["b2b", "erp", "shared", "public"]},
        "queries": {**dicts, "options": query},
        "runs": {"type": "int", "default": 5},
        "query_timeout": {"type": "float", "default": 10},
        "critical_tables": {"type": "list", "elements": "str", "default": []},
        "log_sources": dict(dicts),
        "log_window": {"type": "float", "default": 300},
        "log_baseline_window": {"type": "float", "default": 3600},
        "health_checks": dict(dicts),
        "health_samples": {"type": "int", "default": 3},
        "health_interval": {"type": "float", "default": 1},
        "health_timeout": {"type": "float", "default": 5},
        "prometheus_url": {"type": "str", "default": ""},
        "prometheus_headers": {"type": "dict", "default": {}, "no_log": True},
        "prometheus_queries": dict(dicts),
        "thresholds": {"type": "dict", "default": {}},
        "migrations_dir": {"type": "path"},
        "ledger_table": {"type": "str", "default": ""},
        "ledger_column": {"type": "str", "default": "version"},
        "inventory": {"type": "list", "elements": "str", "default": []},
        "only_host": {"type": "str", "default": ""},
    }


def sources_from(params):
    """What is asked from this host."""
    same = ("host", "log_sources", "log_window", "log_baseline_window", "health_checks", "health_samples", "health_interval",
            "health_timeout", "prometheus_url", "prometheus_headers", "prometheus_queries")  # fmt: skip
    return assessment.HostSources(**{name: params[name] for name in same})


def request_from(params):
    """What the parameters ask for."""
    if params["runs"] < 1 or params["query_timeout"] <= 0:
        raise errors.Refused(
            f"rollback_severity_runs is {params['runs']} and rollback_severity_query_timeout {params['query_timeout']:g}; "
            "give at least one run, and more than 0 seconds."
        )
    same = ("thresholds", "queries", "critical_tables", "search_path", "runs", "query_timeout", "backup_key", "system_identifier",
            "evidence", "ledger_table", "ledger_column")  # fmt: skip
    return assessment.AssessRequest(
        settings=connection.settings_from(params) if params["login_db"] else None,
        sources=sources_from(params),
        version="" if params["version"] is None else str(params["version"]),
        backup_dir=params["backup_dir"] or "",
        migrations_dir=params["migrations_dir"] or "",
        **{name: params[name] for name in same},
    )


def judged(params):
    """The verdict with the command that comes next."""
    severity = assessment.assess(request_from(params))
    run = {"inventory": params["inventory"], "host": params["only_host"], "one_of_many": bool(params["only_host"])}
    return {**severity, "next_command": assess_message.commands(severity, run)[0]}


def main(make_module=AnsibleModule):
    module = make_module(argument_spec=argument_spec(), supports_check_mode=True)
    params = module.params
    if params["login_db"] and not params["measure_only"] and not connection.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"), outcome="refused", details={})
    try:
        if params["measure_only"]:
            result = {"evidence": {"host": params["host"], **assessment.measure_host(sources_from(params))}}
        else:
            result = {"severity": judged(params)}
    except errors.RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
