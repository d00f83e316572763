# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server says of a transaction whose client nobody can ask any more."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils import execute, planning, resume
from ansible_collections.cypher.rollback.plugins.module_utils.commit import sessions_of_run, transaction_status
from ansible_collections.cypher.rollback.plugins.module_utils.connection import ConnectionSettings

from tests.support.engine import SHOP, Engine
from tests.support.runbook import wait_until

if t.TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Database


def test_committed_aborted_and_in_progress(database: Database) -> None:
    settings = ConnectionSettings(**database.connection_arguments())
    said = []
    for end in ("COMMIT", "ROLLBACK"):
        with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN; CREATE TABLE made (id int); SELECT pg_current_xact_id()::text")
            xid = cursor.fetchall()[0][0]
            said.append(transaction_status(settings, xid))
            cursor.execute(end)
            said.append(transaction_status(settings, xid))
        database.execute("DROP TABLE IF EXISTS made")
    assert said == ["in progress", "committed", "in progress", "aborted"]


def test_sessions_of_a_run_whose_name_is_long(database: Database) -> None:
    settings = ConnectionSettings(**database.connection_arguments())
    run_id = "20261122T152140Z-" + "0003-" * 10 + "5f2c"
    with contextlib.closing(database.connect(application_name=f"cypher.rollback {run_id}")) as connection:
        assert sessions_of_run(settings, run_id) == [connection.info.backend_pid]
        assert sessions_of_run(settings, "another") == []
    wait_until(lambda: sessions_of_run(settings, run_id) == [])


def test_a_process_that_is_killed_just_before_its_commit_has_noted_what_to_ask(
    database: Database, tmp_path: Path
) -> None:
    engine = Engine(database, tmp_path)
    engine.script(SHOP)
    engine.migration("0001", "DROP TABLE app.lines;")
    request = engine.request("0001")
    planned = planning.plan_rollback(request)

    def die(done: execute.Execution) -> str:
        resume.note_commit(str(tmp_path), "rollback", done.xid, {"committed": done.committed})
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    order = execute.Order(engine.settings, planned.plan, request.search_path, request.limits, before_commit=die)
    child = os.fork()
    if child == 0:
        try:
            execute.execute_plan(order, planning.ledger_maker(request, planning.read_migrations(request)))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    noted = json.loads((tmp_path / "commit.json").read_text(encoding="utf-8"))
    assert (noted["stage"], noted["result"]) == ("rollback", {"committed": True})
    assert wait_until(lambda: transaction_status(engine.settings, noted["xid"]) == "aborted")
    assert database.execute("SELECT count(*) FROM app.lines") == [(200,)]
