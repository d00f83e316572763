# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Note the beginning or end of a stage, in this process: a module would cost ten times as much."""

from __future__ import annotations

import os
import secrets
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
    append,
    journal_line,
    make_run_folder,
    open_stage,
    result_file,
    result_text,
    run_folder,
    utc_now,
    write_result,
)
from ansible_collections.cypher.rollback.plugins.module_utils.report import plain
from ansible_collections.cypher.rollback.plugins.plugin_utils.controller import own_session

#: Printf is built into every shell and writes the line at once; sync with a file is fsync.
_APPEND = "umask 077; mkdir -p {folder} && {keep}printf '%s\\n' {lines} >> {journal} && {{ sync {journal} 2>/dev/null || :; }}"
#: The result comes on standard input: an argument would be in the list of processes, and holds 128 KiB at the most.
_KEEP = "mkdir -p {results} && cat > {temporary} && {{ sync {temporary} 2>/dev/null || :; }} && mv -f {temporary} {path} && "

_ARGUMENTS = {
    "name": {"type": "str", "default": ""},
    "status": {"type": "str", "choices": [*STATUSES, "noted"], "default": "started"},
    "run_dir": {"type": "path", "default": ""},
    "run_id": {"type": "str", "default": ""},
    "message": {"type": "str", "default": ""},
    "result": {"type": "raw"},
    "fact": {"type": "str", "default": ""},
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
        session = own_session()
        stages = _of_this_run(variables, session, args)
        name = args["name"] or open_stage(stages) or (stages[-1]["name"] if stages else "")
        if not name and args["status"] not in ("failed", "noted"):
            raise AnsibleError("No stage has begun, so none can be meant. Give the stage's name.")
        noted, changed = (
            (stages, []) if not name or args["status"] == "noted" else advance(stages, name, args["status"], utc_now())
        )
        marks = {"run_id": args["run_id"], "session": session}
        if changed and args["message"]:
            changed[-1]["message"] = args["message"]
        trouble = self._write(args, name, changed)
        if trouble and not any(stage.get("unwritten") for stage in noted):
            display.warning(
                f"The journal of run {args['run_id']} cannot be written: {trouble}. The run goes on without it."
            )
        for stage in changed:
            stage.update(marks, **({"unwritten": trouble} if trouble else {}))
        result.update(changed=False, stage=name, stages=noted, ansible_facts={"rollback_stages": noted})
        return result

    def _write(self, args: dict[str, t.Any], name: str, changed: list[dict[str, t.Any]]) -> str:
        """Write to the run's folder on the task's host; the reason where that was not possible."""
        kept = args["result"] is not None
        if not (changed or kept) or not args["run_id"] or not args["run_dir"] or self._task.check_mode:
            return ""
        fact = (args["fact"] or f"{name}_result") if kept else ""
        lines = [_line(args["run_id"], stage, fact if stage is changed[-1] else "") for stage in changed]
        text = result_text(name, args["status"], _of_stage(plain(args["result"]), args, name)) if kept else ""
        try:
            if self._connection.transport == "local" and not self._connection.become:
                return _write_here(args, lines, fact, text)
            return self._write_there(args, lines, fact, text)
        except (AnsibleError, Refused, OSError) as err:
            return " ".join(str(err).split())

    def _write_there(self, args: dict[str, t.Any], lines: list[str], fact: str, text: str) -> str:
        folder = run_folder(args["run_dir"], args["run_id"])
        keep = ""
        if fact:
            path = result_file(folder, fact)
            names = {"results": os.path.dirname(path), "temporary": f"{path}.{secrets.token_hex(8)}", "path": path}
            keep = _KEEP.format(**{name: shlex.quote(value) for name, value in names.items()})
        command = _APPEND.format(
            folder=shlex.quote(folder),
            keep=keep,
            lines=" ".join(shlex.quote(line) for line in lines),
            journal=shlex.quote(os.path.join(folder, JOURNAL)),
        )
        if not lines:
            command = command.partition(" && printf")[0]
        done = self._low_level_execute_command(
            command, in_data=text.encode("utf-8", "backslashreplace") if fact else None, executable="/bin/sh"
        )
        said = " ".join((done["stderr"] or done["stdout"]).split())
        return "" if done["rc"] == 0 else said or f"exit code {done['rc']}"


def _write_here(args: dict[str, t.Any], lines: list[str], fact: str, text: str) -> str:
    """The same without a shell, where the task's host is this one."""
    folder = make_run_folder(args["run_dir"], args["run_id"])
    if fact:
        write_result(folder, fact, text)
    if lines:
        append(folder, "\n".join(lines))
    return ""


def _of_stage(result: t.Any, args: dict[str, t.Any], name: str) -> t.Any:
    """The first error of a run names its stage."""
    return {**result, "stage": name} if args["fact"] == "rollback_failure" else result


def _line(run_id: str, stage: dict[str, t.Any], fact: str) -> str:
    at = stage["finished_at"] or stage["started_at"]
    fields = {"stage": stage["name"], "status": stage["status"]}
    if stage["seconds"] is not None:
        fields["seconds"] = stage["seconds"]
    if stage.get("message"):
        fields["message"] = stage["message"]
    if fact:
        fields["fact"] = fact
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
