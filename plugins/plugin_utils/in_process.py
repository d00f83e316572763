# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module of this collection in the process that would otherwise send it to this same host.

Packing a module, starting a Python and reading its libraries costs about half a second (measured), and every stage
between the stop and the start of the application pays it. Where the task's host is this one and its Python is ours, the
module's own ``main`` runs here instead, with the same arguments, checks and result. Everywhere else, with become, an
environment of its own or async, and with ``rollback_in_process: false``, the module goes the ordinary way.
"""

from __future__ import annotations

import os
import sys
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.cypher.rollback.plugins.module_utils.lost_host import database_host

if t.TYPE_CHECKING:
    import types


class Exit(SystemExit):
    """How a module ends: with its result."""

    def __init__(self, result: dict[str, t.Any]) -> None:
        super().__init__(0)
        self.result = result


class InProcessModule:
    """What our modules use of AnsibleModule, without a process of its own."""

    def __init__(
        self, arguments: dict[str, t.Any], check_mode: bool, argument_spec: dict[str, t.Any], **rules: t.Any
    ) -> None:
        """:param rules: the other arguments of AnsibleModule, such as ``required_if``."""
        self.check_mode = check_mode
        self._warnings: list[str] = []
        if not rules.pop("supports_check_mode", False) and check_mode:
            raise Exit({"skipped": True, "msg": "this module does not support check mode"})
        validated = ArgumentSpecValidator(argument_spec, **rules).validate(arguments)
        self.params: dict[str, t.Any] = validated.validated_parameters
        self._secrets: set[str] = set(getattr(validated, "_no_log_values", ()))
        if validated.error_messages:
            self.fail_json(msg="; ".join(validated.error_messages))

    def warn(self, warning: str) -> None:
        """Show a warning with the result."""
        self._warnings.append(warning)

    def exit_json(self, **result: t.Any) -> t.NoReturn:
        """End well."""
        self._end({"changed": False, **result})

    def fail_json(self, msg: str, **result: t.Any) -> t.NoReturn:
        """End with an error."""
        self._end({"changed": False, **result, "failed": True, "msg": msg})

    def _end(self, result: dict[str, t.Any]) -> t.NoReturn:
        if self._warnings:
            result["warnings"] = self._warnings
        raise Exit(remove_values(result, self._secrets))


class EngineAction(ActionBase):
    """An action that runs the module of its name, here or there."""

    _supports_check_mode = True
    #: The module's own file, imported.
    module: types.ModuleType

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module with the task's arguments."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        result.update(self.run_module(dict(self._task.args), task_vars or {}))
        return result

    def run_module(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """The module's result."""
        name = "cypher.rollback." + self.module.__name__.rpartition(".")[2]
        if not self.is_here(task_vars):
            return self._run_there(name, arguments, task_vars)

        def make(**rules: t.Any) -> InProcessModule:
            return InProcessModule(arguments, bool(self._task.check_mode), **rules)

        try:
            self.module.main(make)
        except Exit as end:
            return end.result
        raise AssertionError(f"{name} ended without a result")

    def _run_there(self, name: str, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """The module's result from the task's host. One that is lost fails the task, where it is that of the play.

        Ansible would drop the host, and with it everything that starts the application again and says what happened.
        """
        try:
            answer: dict[str, t.Any] = self._execute_module(
                module_name=name, module_args=arguments, task_vars=task_vars
            )
        except AnsibleConnectionFailure as err:
            if self._task.delegate_to:
                raise
            return database_host(name.rpartition(".")[2], str(task_vars.get("inventory_hostname")), str(err))
        return answer

    def is_here(self, task_vars: dict[str, t.Any]) -> bool:
        """Whether the module would run on this host, as this user, under this Python."""
        delegate = (task_vars.get("ansible_delegated_vars") or {}).get(self._task.delegate_to) or {}
        python = delegate.get("ansible_python_interpreter", task_vars.get("ansible_python_interpreter"))
        return (
            self._connection.transport == "local"
            and not self._connection.become
            and not any(self._task.environment or [])
            and not self._task.async_val
            and boolean(self._templar.template(task_vars.get("rollback_in_process", True)), strict=False)
            and _is_ours(str(self._templar.template(python)))
        )


def _is_ours(python: str) -> bool:
    """A path of our own environment; the files behind two environments' links may be the same."""
    return os.path.isabs(python) and os.path.dirname(python) == os.path.dirname(sys.executable)
