# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Note the beginning or end of a stage, in this process: a module would cost ten times as much."""

from __future__ import annotations

import os
import shlex
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.journal import (
    JOURNAL,
    STATUSES,
    advance,
    journal_line,
    open_stage,
    run_folder,
    utc_now,
)
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import process_started

#: Printf is built into every shell and writes the line at once; sync with a file is fsync.
_APPEND = (
    "umask 077; mkdir -p {folder} && printf '%s\\n' {lines} >> {journal} && {{ sync {journal} 2>/dev/null || :; }}"
)

_ARGUMENTS = {
    "name": {"type": "str", "default": ""},
    "status": {"type": "str", "choices": list(STATUSES), "default": "started"},
    "run_dir": {"type": "path", "default": ""},
    "run_id": {"type": "str", "default": ""},
    "message": {"type": "str", "default": ""},
}

display = Display()


class ActionModule(ActionBase):
    """See plugins/modules/stage.py for the options."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Add to the list of stages, and to the journal on the task's host."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(argument_spec=_ARGUMENTS)[1]
        variables = task_vars or {}
        session = f"{os.getppid()}-{process_started(os.getppid())}"
        stages = _of_this_run(variables, session, args)
        name = args["name"] or open_stage(stages) or (stages[-1]["name"] if stages else "")
        if not name:
            raise AnsibleError("No stage has begun, so none can be meant. Give the stage's name.")
        noted, changed = advance(stages, name, args["status"], utc_now())
        marks = {"run_id": args["run_id"], "session": session}
        if changed and args["message"]:
            changed[-1]["message"] = args["message"]
        trouble = self._write(args, changed)
        if trouble and not any(stage.get("unwritten") for stage in noted):
            display.warning(
                f"The journal of run {args['run_id']} cannot be written: {trouble}. The run goes on without it."
            )
        for stage in changed:
            stage.update(marks, **({"unwritten": trouble} if trouble else {}))
        result.update(changed=False, stage=name, stages=noted, ansible_facts={"rollback_stages": noted})
        return result

    def _write(self, args: dict[str, t.Any], changed: list[dict[str, t.Any]]) -> str:
        """Append to the journal on the task's host; the reason where that was not possible."""
        if not changed or not args["run_id"] or not args["run_dir"] or self._task.check_mode:
            return ""
        lines = [_line(args["run_id"], stage) for stage in changed]
        try:
            folder = run_folder(args["run_dir"], args["run_id"])
            command = _APPEND.format(
                folder=shlex.quote(folder),
                lines=" ".join(shlex.quote(line) for line in lines),
                journal=shlex.quote(os.path.join(folder, JOURNAL)),
            )
            done = self._low_level_execute_command(command, executable="/bin/sh")
        except (AnsibleError, Refused, OSError) as err:
            return " ".join(str(err).split())
        return (
            "" if done["rc"] == 0 else " ".join((done["stderr"] or done["stdout"]).split()) or f"exit code {done['rc']}"
        )


def _line(run_id: str, stage: dict[str, t.Any]) -> str:
    at = stage["finished_at"] or stage["started_at"]
    fields = {"stage": stage["name"], "status": stage["status"]}
    if stage["seconds"] is not None:
        fields["seconds"] = stage["seconds"]
    if stage.get("message"):
        fields["message"] = stage["message"]
    return journal_line(run_id, "stage", at, **fields)


def _of_this_run(variables: dict[str, t.Any], session: str, args: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """The stages noted so far, without those that a fact cache or an earlier run in the same process has left."""
    facts = variables.get("ansible_facts") or {}
    stages = [dict(stage) for stage in facts.get("rollback_stages") or []]
    own = [stage for stage in stages if stage.get("session") == session and stage.get("run_id") in ("", args["run_id"])]
    begins_anew = (
        bool(own) and args["status"] == "started" and args["name"] == own[0]["name"] and own[0]["status"] != "started"
    )
    return [] if begins_anew else own
