# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One block of module defaults serves our modules and those of community.postgresql."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t

from tests.support.runbook import ANSIBLE_PLAYBOOK, REPOSITORY

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database


def test_the_action_group_extends_that_of_community_postgresql(tmp_path: Path, database: Database) -> None:
    database.execute("CREATE TABLE marker (name text)")
    login = {f"login_{name}": value for name, value in database.connection_arguments().items() if name != "dbname"}
    result = tmp_path / "result.json"
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "module_defaults": {"group/cypher.rollback.all": {**login, "login_db": database.name}},
        "tasks": [
            {"cypher.rollback.db_verify": {"critical_tables": ["public.marker"]}, "register": "ours"},
            {
                "community.postgresql.postgresql_query": {"query": "SELECT current_database() AS name"},
                "register": "theirs",
            },
            {
                "ansible.builtin.copy": {
                    "dest": str(result),
                    "mode": "0600",
                    "content": "{{ [ours.target.database, theirs.query_result[0].name] | to_json }}",
                }
            },
        ],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    done = subprocess.run(
        [ANSIBLE_PLAYBOOK, str(playbook)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(result.read_text(encoding="utf-8")) == [database.name, database.name]
