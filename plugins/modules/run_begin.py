#!/usr/bin/python
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Begin a run, or go on with one whose controller died."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_begin
short_description: Begin a run, or go on with one whose controller died
version_added: 1.0.0
description:
  - Writes what a run was asked for as the first line of its journal.
  - Where an earlier run on the same database died after it had begun to stop the application and the database is certainly as it was,
    the same command takes its place, says what state things are in, and starts again at its end what that run stopped.
  - Where the database may have been changed, or something else is asked for, a new run is refused, with the state of things, the command
    that goes on with the dead run, and the one that gives it up.
  - With O(resume), gives the results of the stages that this run finished, so that they are not done again, and takes its claim over. Where
    it died at a COMMIT, the server is asked what became of that.
  - A run is never resumed while its controller or one of its processes may still be at work.
  - Writes only into the folder of runs, so it does not count as a change.
extends_documentation_fragment:
  - cypher.rollback.attributes
  - cypher.rollback.postgres
attributes:
  check_mode:
    support: full
    details: Says what it would do, and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: N/A
  platform:
    platforms: posix
    support: full
options:
  run_dir:
    description: Folder of the runs on the database host.
    type: path
    required: true
  run_id:
    description: Name of this run. With O(resume) it is not used.
    type: str
    required: true
  runbook:
    description: The runbook that runs.
    type: str
    default: rollback
  resume:
    description: Name of the run to go on with. Empty, a new one begins.
    type: str
    default: ""
  abandon:
    description: Name of a run that died and is given up.
    type: str
    default: ""
  asked:
    description: Extra variables of the run. A resumed run gets them back.
    type: dict
    default: {}
  settings:
    description: Settings that have to be the same when the run is resumed.
    type: dict
    default: {}
  command:
    description: How the playbooks are started, without a playbook's name, for messages.
    type: str
    default: ansible-playbook cypher.rollback
  maintenance_db:
    description: Database that is asked where the run's own cannot be reached.
    type: str
    default: postgres
  wait:
    description: Seconds to wait for what still works for the dead run.
    type: float
    default: 30
  ttl:
    description: Seconds without a sign of life after which a run whose controller cannot be asked counts as dead.
    type: int
    default: 900
  controller:
    description:
      - The process that runs the playbook.
      - Filled in by the action plugin of this name.
    type: dict
  dead_holder:
    description:
      - The controller process that its own host knows to be gone.
      - Filled in by the action plugin of this name.
    type: dict
author:
  - the cypher.rollback authors (@cypher-rollback)
"""

EXAMPLES = r"""
- name: Go on with a run that died
  cypher.rollback.run_begin:
    run_dir: /var/backups/cypher-erp/runs
    run_id: ""
    resume: 20261122T152140Z-0003-5f2c
    login_host: localhost
    login_db: cypher_erp
    login_user: postgres
"""

RETURN = r"""
run_id:
  description: Name of the run.
  type: str
  returned: success
run_dir:
  description: Folder of the runs.
  type: str
  returned: success
asked:
  description: Extra variables with which the run was begun.
  type: dict
  returned: success
facts:
  description: Results of the stages, by the name of their fact.
  type: dict
  returned: success
stages:
  description: Stages of the run so far.
  type: list
  elements: dict
  returned: success
finished:
  description: Names of the stages that need not be done again.
  type: list
  elements: str
  returned: success
recovered:
  description: Of these, what was done on the way back from a failure.
  type: list
  elements: str
  returned: success
resumed:
  description: When, by whom and after which stage the run was gone on with.
  type: list
  elements: dict
  returned: success
message:
  description: What state things were in; empty for a new run.
  type: str
  returned: success
details:
  description: Evidence; C(held_by) is the claim of a run that may be at work.
  type: dict
  returned: on failure
outcome:
  description: V(refused), or V(unknown) where the server does not know what became of a COMMIT.
  type: str
  returned: on failure
  sample: refused
"""

import contextlib
import dataclasses
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cypher.rollback.plugins.module_utils import claims, commit, connection, journal, resume
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused, RollbackError

PAUSE_SECONDS = 0.25


class Beginning:
    """One run, at its beginning."""

    def __init__(self, module: t.Any) -> None:
        """:param module: with the options above."""
        self.params: dict[str, t.Any] = module.params
        self.check_mode: bool = module.check_mode
        self.warn: t.Callable[[str], None] = module.warn
        self.target = {name: str(self.params[f"login_{name}"]) for name in ("host", "port", "db")}

    def run(self) -> dict[str, t.Any]:
        """Begin or resume; the module's result."""
        return self.resume() if self.params["resume"] else self.begin()

    # --- a new run

    def begin(self) -> dict[str, t.Any]:
        """Note what is asked, unless an earlier run left things halfway."""
        params = self.params
        before = self.abandon() if params["abandon"] else []
        held_by = self.judge_dead_runs(before)
        answer = {
            "run_id": params["run_id"], "run_dir": params["run_dir"], "asked": params["asked"], "facts": {"stop_ran_before": before} if before else {},
            "stages": [], "finished": [], "recovered": [], "resumed": [], "message": "",
        }  # fmt: skip
        if not self.check_mode:
            self.note_begun(before)
        return {**answer, "details": {"held_by": held_by}} if held_by else answer

    def judge_dead_runs(self, before: list[str]) -> dict[str, t.Any] | None:
        """Take the place of a dead run that changed no database, and refuse after one that did.

        :param before: what ran before the dead runs stopped it; is added to.
        :returns: the claim of a run of which this host cannot know whether it lives.
        """
        params = self.params
        for claim, held in claims.claims_in(params["run_dir"], params["ttl"]):
            left = resume.read_run(claim.folder_of(held))
            if (
                (left.begun.get("target") or {}) != self.target
                or not left.has_acted
                or left.run_id == params["abandon"]
            ):
                continue
            try:
                claim.check_stale(held, params["dead_holder"])
            except claims.ClaimHeld:
                return held
            self.judge(claim, left, before)
        return None

    def judge(self, claim: claims.Claims, left: resume.Left, before: list[str]) -> None:
        """Judge one dead run that has acted. A preview changes nothing, so it is only warned."""
        params = self.params
        if left.outcome or left.abandoned_by:
            return
        if not resume.is_same(left, params["runbook"], params["asked"]) or not resume.is_unchanged(left, self.ask):
            refuse_or_warn(left, params["command"], self.ask, self.warn if self.check_mode else None)
            return
        self.warn(resume.in_its_place(left, params["command"], self.ask))
        if not self.check_mode:
            self.wait_for_sessions(left)
            own = {"run_id": params["run_id"], "runbook": params["runbook"], "controller": params["controller"] or {}}
            claim.take(own, params["dead_holder"])
            self.note_abandoned(left)
            before += resume.ran_before(left)

    def note_abandoned(self, left: resume.Left) -> None:
        """Write into the dead run's journal which run has taken its place."""
        line = journal.journal_line(left.run_id, "abandoned", journal.utc_now(), by=self.params["run_id"])
        journal.append(left.folder, line)

    def abandon(self) -> list[str]:
        """Give a dead run up; what ran before it, because this run finds it stopped and has to start it again."""
        params = self.params
        left = resume.read_run(journal.run_folder(params["run_dir"], params["abandon"]))
        if not os.path.isdir(left.folder) or left.outcome:
            raise resume.NotResumable(
                f"Run {params['abandon']} cannot be given up: "
                + (f"it has ended as {left.outcome}." if left.outcome else f"there is none in {params['run_dir']}.")
                + " Leave abandon out."
            )
        self.refuse_living(left)
        if not self.check_mode and not left.abandoned_by:
            self.note_abandoned(left)
        before = resume.ran_before(left)
        if before and not resume.is_unchanged(left, self.ask):
            self.warn(resume.left_stopped(left, params["command"]))
            return []
        return before

    def note_begun(self, before: list[str]) -> None:
        """The run's first line. A folder that cannot be used is refused by the plan, with a report."""
        params = self.params
        begun = {name: params[name] for name in ("runbook", "asked", "settings", "controller")}
        with contextlib.suppress(RollbackError, OSError):
            folder = journal.make_run_folder(params["run_dir"], params["run_id"])
            line = journal.journal_line(params["run_id"], "begun", journal.utc_now(), **begun, target=self.target)
            journal.append(folder, line)
            if before:
                journal.write_result(folder, "stop_ran_before", journal.result_text("stop", "noted", before))

    # --- a run that died

    def resume(self) -> dict[str, t.Any]:
        """What the dead run left, settled, claimed and noted."""
        params = self.params
        folder = journal.run_folder(params["run_dir"], params["resume"])
        left = resume.read_run(folder)
        others = [name for name in resume.resumable(params["run_dir"]) if name != params["resume"]]
        wanted = {
            "runbook": params["runbook"],
            "target": self.target,
            "asked": params["asked"],
            "settings": params["settings"],
        }
        resume.refuse_resuming(left, wanted, others)
        self.refuse_living(left)
        self.wait_for_sessions(left)
        # What was still at work may have written since.
        left = resume.read_run(folder)
        settled = resume.settle_commit(left, self.ask)
        message = resume.describe(settled)
        at = {
            "at": journal.utc_now(),
            "by": (params["controller"] or {}).get("user") or "",
            "after": (settled.finished or [""])[-1],
        }
        if not self.check_mode:
            self.take_over(settled)
            resume.keep_settled(left, settled)
            journal.append(
                folder, journal.journal_line(left.run_id, "resumed", at["at"], by=at["by"], after=at["after"])
            )
        return {
            "run_id": left.run_id, "run_dir": params["run_dir"], "asked": left.begun.get("asked") or {}, "facts": settled.facts, "stages": list(settled.stages),
            "finished": settled.done, "recovered": settled.recovered, "resumed": [*settled.resumed, at], "message": message,
        }  # fmt: skip

    def refuse_living(self, left: resume.Left) -> None:
        """Refuse while anything may be at work for that run: its controller, or a module on this host."""
        params = self.params
        deadline = time.monotonic() + params["wait"]
        while journal.is_at_work(left.folder) and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        if journal.is_at_work(left.folder):
            raise claims.ClaimHeld(
                f"Run {left.run_id} is still at work: its controller may be gone, but one of its processes is not, and it did not end within "
                f"{params['wait']:g} s. Nothing was done. Wait for it to end, then run this again.",
                died=left.run_id,
            )
        for claim, held in claims.claims_in(params["run_dir"], params["ttl"]):
            if held["run_id"] == left.run_id:
                claim.check_stale(held, params["dead_holder"])

    def take_over(self, left: resume.Left) -> None:
        """The claim on the database, where the run had come so far as to know which one."""
        plan = left.facts.get("restore_plan_result") or left.facts.get("plan_result") or {}
        target = plan.get("target") or {}
        if target.get("system_identifier"):
            name = f"{target['system_identifier']}-{target.get('database')}"
            own = {"run_id": left.run_id, "runbook": left.runbook, "controller": self.params["controller"] or {}}
            claims.Claims(self.params["run_dir"], name, self.params["ttl"]).take(own, self.params["dead_holder"])

    # --- the server

    def wait_for_sessions(self, left: resume.Left) -> None:
        """A session whose client died goes on until its statement has ended.

        :raises NotResumable: it did not end in time.
        """
        if left.open not in resume.COMMITTING:
            return
        deadline = time.monotonic() + self.params["wait"]
        while True:
            pids = self.of_server(lambda settings: commit.sessions_of_run(settings, left.run_id))
            if not pids:
                return
            if time.monotonic() >= deadline:
                break
            time.sleep(PAUSE_SECONDS)
        ends = " ".join(f"SELECT pg_terminate_backend({pid});" for pid in pids)
        raise resume.NotResumable(
            f"The server still works on a statement of run {left.run_id}, whose client is gone (pid {', '.join(map(str, pids))}). Nothing was done. "
            f"Wait for it to end, or end it, which undoes its transaction: {ends} Then resume again."
        )

    def ask(self, xid: str) -> str | None:
        """What became of a transaction; one that is about to end is waited for."""
        deadline = time.monotonic() + self.params["wait"]
        while True:
            status = self.of_server(lambda settings: commit.transaction_status(settings, xid))
            if status != "in progress" or time.monotonic() >= deadline:
                return status
            time.sleep(PAUSE_SECONDS)

    def of_server(self, question: t.Callable[[connection.ConnectionSettings], t.Any]) -> t.Any:
        """The answer, from the run's database or, where that cannot be reached, from the one for maintenance.

        :raises Refused: neither can.
        """
        if not connection.HAS_PSYCOPG2:
            raise Refused(
                "psycopg2 is missing on the database host, so the server cannot be asked what became of the run."
            )
        settings = connection.settings_from(self.params)
        try:
            return question(settings)
        except (RollbackError, connection.psycopg2.Error):
            other = dataclasses.replace(settings, dbname=self.params["maintenance_db"])
        try:
            return question(other)
        except (RollbackError, connection.psycopg2.Error) as err:
            raise Refused(
                f"The server cannot be asked what became of the run: {' '.join(str(err).split())}. Nothing was done."
            ) from err


def refuse_or_warn(left: resume.Left, command: str, ask: t.Any, warn: t.Callable[[str], None] | None) -> None:
    """A preview changes nothing, so it is only warned."""
    try:
        resume.refuse_beginning(left, command, ask)
    except resume.RunDied as err:
        if warn is None:
            raise
        warn(str(err))


def main(make_module: t.Callable[..., t.Any] = AnsibleModule) -> None:
    """Run the module."""
    module = make_module(
        argument_spec={
            **connection.login_argument_spec(),
            "run_dir": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "runbook": {"type": "str", "default": "rollback"},
            "resume": {"type": "str", "default": ""},
            "abandon": {"type": "str", "default": ""},
            "asked": {"type": "dict", "default": {}},
            "settings": {"type": "dict", "default": {}},
            "command": {"type": "str", "default": "ansible-playbook cypher.rollback"},
            "maintenance_db": {"type": "str", "default": "postgres"},
            "wait": {"type": "float", "default": 30},
            "ttl": {"type": "int", "default": 900},
            "controller": {"type": "dict"},
            "dead_holder": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    try:
        answer = Beginning(module).run()
    except RollbackError as err:
        module.fail_json(msg=str(err), outcome=err.outcome, details=err.details)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
