#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checklist_info
short_description: Check the checklist before or after a rollback
version_added: 1.0.0
author:
  - the cypher.rollback authors (@cypher-rollback)
description:
  - Checks what a program can check of the checklist, with a sentence of evidence for each item, and notes what people answered.
  - What only a person can say, and what could not be found out, stays open.
  - Reads only, and decides nothing. Who runs it reads RV(problems).
extends_documentation_fragment:
  - cypher.rollback.postgres
  - cypher.rollback.attributes
attributes:
  check_mode:
    support: full
    details: Reads only, so it does the same.
  diff_mode:
    support: N/A
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  phase:
    description:
      - V(before) and V(after) are the two lists. They belong on the host of the database, with its folders of runs and backups.
      - V(logs) counts the errors in the logs of this host, for O(logs) of the phase V(after).
    type: str
    required: true
    choices: [before, after, logs]
  answers:
    description:
      - What people answered, by item. A dictionary, or a text such as V(problem_confirmed=yes,stakeholders_notified=no).
      - Each value is V(yes), V(no), V(true) or V(false).
      - An item that no list has is refused in the phase V(before) and a warning in the phase V(after).
    type: raw
  confirmed:
    description: Everything that is open in the phase V(before) holds.
    type: bool
    default: false
  by:
    description: Who answered.
    type: str
    default: ""
  severity:
    description:
      - For the phase V(before), the severity that a person gave, V(Critical), V(High), V(Medium) or V(Low). Empty, none was given.
      - For the phase V(after), that of the run.
    type: str
    default: ""
  assessment_hours:
    description: Hours for which an assessment counts.
    type: float
    default: 24
  run_dir:
    description: Folder of the runs, with the reports of earlier ones.
    type: path
    default: ""
  backup_dir:
    description: Folder of the backups.
    type: path
    default: ""
  backup_key:
    description: Signs the manifests of the backups. Empty, they are not signed.
    type: str
    default: ""
  system_identifier:
    description: System identifier of the cluster.
    type: str
    default: ""
  plan:
    description:
      - For the phase V(before), of the result of M(cypher.rollback.migration_plan_info) the keys C(outcome), C(message),
        C(database_bytes), C(versions), C(statements) and C(object).
    type: dict
    default: {}
  runbook:
    description: For the phase V(before), the runbook of this run. How long it stops the application is told from its earlier runs.
    type: str
    default: rollback
  stops:
    description: For the phase V(before), whether this run stops the application.
    type: bool
    default: true
  told:
    description:
      - Channels that tell each audience, by the keys C(technical) and C(stakeholder). Each has C(name), C(events) and
        C(severities).
    type: dict
    default: {}
  contacts:
    description: People to be told, as words. Keys C(technical) and C(stakeholder).
    type: dict
    default: {}
  results:
    description:
      - For the phase V(after), results of the stages by their names, such as C(verify), C(restart) and C(smoke_test).
    type: dict
    default: {}
  notifications:
    description: For the phase V(after), what became of the notifications so far.
    type: list
    elements: dict
    default: []
  log_sources:
    description: For the phase V(logs), the logs of this host, as the setting C(rollback_log_sources).
    type: list
    elements: dict
    default: []
  since:
    description: For the phase V(logs), the UTC time from which on lines count. Empty, the last five minutes.
    type: str
    default: ""
  logs:
    description: For the phase V(after), RV(logs) of the hosts of the application.
    type: list
    elements: dict
    default: []
  baseline_backup:
    description:
      - For the phase V(after), the backup whose times of the critical queries count as normal.
      - Empty, the newest C(before_migration) one of this database.
    type: str
    default: ""
  queries:
    description: For the phase V(after), the critical queries, as the setting C(rollback_critical_queries).
    type: list
    elements: dict
    default: []
  runs:
    description: Times that each of them is run.
    type: int
    default: 5
  query_timeout:
    description: Seconds after which a run of a query is given up.
    type: float
    default: 10
  thresholds:
    description: Limits of what counts as slower, as the setting C(rollback_severity_thresholds).
    type: dict
    default: {}
  search_path:
    description: Schemas in which unqualified names of the queries are resolved.
    type: list
    elements: str
    default: []
  login_db:
    description:
      - Name of the database.
    type: str
    default: ""
    required: false
seealso:
  - plugin: cypher.rollback.checklist_answered
    plugin_type: filter
"""

EXAMPLES = r"""
- name: See what is still open before a rollback
  cypher.rollback.checklist_info:
    phase: before
    run_dir: /var/backups/cypher-erp/runs
    backup_dir: /var/backups/cypher-erp
    login_db: cypher_erp
    system_identifier: "7312345678901234567"
    plan: {outcome: planned, versions: ["0003"], statements: 14, database_bytes: 104857600}
    answers: problem_confirmed=yes,stakeholders_notified=yes
    by: ana
"""

RETURN = r"""
items:
  description: The list, in its order. Not in the phase V(logs).
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: Name of the item.
      returned: always
      type: str
      sample: team_notified
    text:
      description: The item in English (C(en)) and Romanian (C(ro)).
      returned: always
      type: dict
      sample: {"en": "The team is notified", "ro": "Echipa notificată"}
    how:
      description: Who has the say, a V(program) or a V(person).
      returned: always
      type: str
      sample: program
    status:
      description:
        - V(passed), V(failed), V(unknown) or V(not_applicable) where a program looked.
        - V(confirmed), V(denied) or V(open) where a person has the say.
      returned: always
      type: str
      sample: passed
    evidence:
      description: One sentence.
      returned: always
      type: str
      sample: Told by this run as it begins, by dba chat.
    by:
      description: Who answered.
      returned: always
      type: str
      sample: ana
    at:
      description: UTC time of the answer or the check.
      returned: always
      type: str
      sample: "2026-11-22T15:21:40.123Z"
severity:
  description: The severity that was given, or that of the newest recent assessment; empty where there is none.
  returned: success
  type: dict
problems:
  description: What speaks against going on, a sentence or two each.
  returned: success
  type: list
  elements: str
  sample: []
logs:
  description: What was counted in each log.
  returned: success
  type: list
  elements: dict
"""

import datetime as dt
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cypher.rollback.plugins.module_utils import checklist, checklist_evidence, checklist_findings
from ansible_collections.cypher.rollback.plugins.module_utils.connection import (
    HAS_PSYCOPG2,
    login_argument_spec,
    settings_from,
)
from ansible_collections.cypher.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.cypher.rollback.plugins.module_utils.journal import utc_now

Params = dict[str, t.Any]


def place_of(params: Params) -> checklist_evidence.Place:
    """Where the evidence is."""
    return checklist_evidence.Place(
        params["run_dir"], params["backup_dir"], params["system_identifier"], params["login_db"], params["backup_key"]
    )


def before(params: Params) -> dict[str, t.Any]:
    """The list before anything is stopped.

    :raises Refused: an answer that cannot be understood.
    """
    given = checklist.parse_answers(params["answers"])
    level = checklist_findings.given_level(params["severity"])
    now = dt.datetime.now(dt.UTC)
    place, plan = place_of(params), params["plan"]
    runs = checklist_evidence.earlier_runs(place, params["assessment_hours"], now, params["runbook"])
    database_bytes = int(plan.get("database_bytes") or 0)
    assessed = runs.assessment
    severity = checklist_findings.given_severity(level, params["by"], utc_now())
    severity = severity or dict(assessed.severity if assessed else {})
    audience_level = str(severity.get("level") or "")
    findings = {
        "impact_assessed": checklist_findings.impact(
            level,
            assessed.severity if assessed else None,
            assessed.age_seconds if assessed else 0.0,
            params["assessment_hours"],
        ),
        "rollback_planned": checklist_findings.planned(plan),
        "backup_available": checklist_findings.backup(*checklist_evidence.newest_backup(place), database_bytes),
        "team_notified": told(params, "technical", audience_level),
        "downtime_estimated": checklist_findings.downtime(runs.downtimes, database_bytes, stops=params["stops"]),
        "stakeholders_notified": told(params, "stakeholder", audience_level),
    }
    if level:
        given = {"impact_assessed": True, **given}
    answers = checklist.Answers(given, params["confirmed"], params["by"], utc_now())
    items = checklist.draw("before", findings, answers)
    return {"items": items, "severity": severity, "problems": checklist.problems(items), "logs": []}


def told(params: Params, audience: str, level: str) -> checklist.Finding:
    """Whether this run itself tells an audience that it begins."""
    channels = checklist_findings.told_of("start", level, params["told"].get(audience) or [])
    return checklist_findings.audience_told(audience, channels, params["contacts"].get(audience) or [])


def after(params: Params, module: t.Any) -> dict[str, t.Any]:
    """The list when the application runs again. Nothing here fails the run."""
    try:
        given = checklist.parse_answers(params["answers"])
    except checklist.WrongAnswer as err:
        given = {}
        module.warn(str(err))
    results, logs = params["results"], params["logs"]
    findings = {
        "database_verified": checklist_findings.database_verified(results),
        "application_works": checklist_findings.application_works(results),
        "smoke_tests_passed": checklist_findings.smoke_tests(results),
        "logs_clean": checklist_findings.logs_clean(
            logs, "the restart" if (results.get("restart") or {}).get("hosts") else "the change"
        ),
        "performance_normal": performance(params),
        "team_notified": checklist_findings.team_told(
            params["notifications"],
            checklist_findings.told_of("end", params["severity"], params["told"].get("technical") or []),
        ),
    }
    items = checklist.draw("after", findings, checklist.Answers(given, by=params["by"], at=utc_now()))
    return {"items": items, "severity": {}, "problems": checklist.problems(items), "logs": logs}


def performance(params: Params) -> checklist.Finding:
    """Whether the critical queries take as long as before the migration."""
    if not HAS_PSYCOPG2:
        return checklist.Finding("unknown", missing_required_lib("psycopg2"))
    return checklist_evidence.performance(place_of(params), timed_of(params))


def timed_of(params: Params) -> checklist_evidence.Timed:
    """How the critical queries are timed."""
    return checklist_evidence.Timed(
        settings_from(params),
        params["queries"],
        params["baseline_backup"],
        params["thresholds"],
        params["search_path"],
        params["runs"],
        params["query_timeout"],
    )


def logs_of(params: Params) -> dict[str, t.Any]:
    """What the logs of this host say since a time."""
    found = checklist_evidence.logs_since(params["log_sources"], params["since"])
    return {"items": [], "severity": {}, "problems": [], "logs": found}


def argument_spec() -> dict[str, t.Any]:
    """The options."""
    dicts = {name: {"type": "dict", "default": {}} for name in ("plan", "told", "contacts", "results", "thresholds")}
    lists = {
        name: {"type": "list", "elements": "dict", "default": []}
        for name in ("notifications", "log_sources", "logs", "queries")
    }
    texts = {
        name: {"type": "str", "default": ""}
        for name in ("by", "severity", "system_identifier", "since", "baseline_backup")
    }
    login = login_argument_spec()
    login["login_db"] = {"type": "str", "default": ""}
    return {
        "phase": {"type": "str", "required": True, "choices": ["before", "after", "logs"]},
        "answers": {"type": "raw"},
        "confirmed": {"type": "bool", "default": False},
        "runbook": {"type": "str", "default": "rollback"},
        "stops": {"type": "bool", "default": True},
        "assessment_hours": {"type": "float", "default": 24},
        "run_dir": {"type": "path", "default": ""},
        "backup_dir": {"type": "path", "default": ""},
        "backup_key": {"type": "str", "default": "", "no_log": True},
        "runs": {"type": "int", "default": 5},
        "query_timeout": {"type": "float", "default": 10},
        "search_path": {"type": "list", "elements": "str", "default": []},
        **dicts,
        **lists,
        **texts,
        **login,
    }


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(argument_spec=argument_spec(), supports_check_mode=True)
    params = module.params
    try:
        if params["phase"] == "before":
            found = before(params)
        elif params["phase"] == "after":
            found = after(params, module)
        else:
            found = logs_of(params)
    except RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
