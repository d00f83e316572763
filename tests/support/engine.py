# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine on a database of a test: migrations written by the test, planned and executed without Ansible."""

# Ansible's name of the collection leads mypy past its types, which it checks by themselves.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils import catalog, connection, execute, planning
from ansible_collections.cypher.rollback.plugins.module_utils.plan import Wanted

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import psycopg2.extensions
    from ansible_collections.cypher.rollback.plugins.module_utils.checks import WantedCheck
    from ansible_collections.cypher.rollback.plugins.module_utils.execute import Execution

    from tests.conftest import Database

SEARCH_PATH = ("app", "public")

#: A table that stays, one that goes, one that refers to it, and a view on it.
SHOP = """
CREATE SCHEMA app;
CREATE TABLE app.customers (id int PRIMARY KEY, name text);
CREATE TABLE app.orders (id int PRIMARY KEY, customer_id int REFERENCES app.customers, note text);
CREATE TABLE app.lines (id int PRIMARY KEY, order_id int CONSTRAINT of_order REFERENCES app.orders);
CREATE VIEW app.order_report AS SELECT id, note FROM app.orders;
CREATE SEQUENCE app.numbers;
INSERT INTO app.customers SELECT n, 'customer ' || n FROM generate_series(1, 10) n;
INSERT INTO app.orders SELECT n, 1 + n % 10, 'order' FROM generate_series(1, 50) n;
INSERT INTO app.lines SELECT n, 1 + n % 50 FROM generate_series(1, 200) n;
"""


class Engine:
    """One database and one folder of migrations."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.settings = connection.ConnectionSettings(**database.connection_arguments())

    @property
    def server_version(self) -> int:
        """As libpq counts: 150004 for 15.4."""
        with contextlib.closing(self.database.connect()) as session:
            return int(session.server_version)

    def script(self, text: str) -> None:
        """Run SQL as the superuser, in one transaction."""
        with contextlib.closing(self.database.connect()) as session:
            with session, session.cursor() as cursor:
                cursor.execute(text)

    def migration(self, version: str, down: str) -> None:
        """Write a migration with this DOWN."""
        (self.folder / f"{version}-step.sql").write_text(f"SELECT 'up';\n-- DOWN\n{down}\n", encoding="utf-8")

    def request(self, version: object = "0001", **changes: t.Any) -> planning.PlanRequest:
        """What the plan is made from; ``to_version`` instead of ``version`` where that is ``None``."""
        wanted = Wanted(version, changes.pop("to_version", None))
        fields: dict[str, t.Any] = {
            "settings": self.settings,
            "migrations_dir": str(self.folder),
            "search_path": SEARCH_PATH,
            "wanted": wanted,
            "limits": execute.Limits(),
        }
        return planning.PlanRequest(**{**fields, **changes})

    def plan(self, version: object = "0001", **changes: t.Any) -> planning.Planned:
        """Plan, as the module does."""
        return planning.plan_rollback(self.request(version, **changes))

    def execute(
        self,
        version: object = "0001",
        *,
        preview: bool = False,
        checks: Sequence[WantedCheck] = (),
        row_counts: dict[str, int] | None = None,
        run_id: str = "",
        through: dict[str, t.Any] | None = None,
        **changes: t.Any,
    ) -> Execution:
        """Plan and execute.

        :param through: settings of the connection for the execution alone, such as a proxy's port.
        """
        request = self.request(version, **changes)
        # The limit is tested where the transaction holds it too, which is behind the plan's own refusal.
        planned = planning.plan_rollback(
            dataclasses.replace(request, limits=dataclasses.replace(request.limits, max_rows_lost=None))
        )
        assert planned.plan.scripts, planned.plan.message
        order = execute.Order(
            dataclasses.replace(request.settings, **(through or {})),
            planned.plan,
            request.search_path,
            request.limits,
            checks,
            row_counts,
            run_id,
            preview,
            request.left_over == "accept",
            planned.schema,
        )
        return execute.execute_plan(order, planning.ledger_maker(request, planning.read_migrations(request)))

    def rollback(self, down: str, **changes: t.Any) -> Execution:
        """Execute this DOWN as the one migration."""
        self.migration("0001", down)
        return self.execute(**changes)

    def state(self) -> str:
        """All objects, and a checksum of the rows of each table: equal before and after where nothing happened."""
        with contextlib.closing(self.database.connect()) as session, session.cursor() as cursor:
            found = catalog.snapshot(cursor)
            lines = [catalog.as_text(found)]
            for table in sorted(found.tables(), key=lambda item: item.identity):
                cursor.execute(f"SELECT count(*), sum(hashtextextended(x::text, 0)) FROM ONLY {table.identity} x")
                lines.append(f"{table.identity} {cursor.fetchall()[0]}\n")
            return "".join(lines)

    def dump(self) -> str:
        """The database as pg_dump writes it, without the key that it makes up for each file."""
        with connection.client_environment(self.settings) as environment:
            text = subprocess.run(
                [self.database.server.bin_dir / "pg_dump"],
                env=environment,
                cwd="/",
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", text)

    def session(self, application: str = "somebody") -> psycopg2.extensions.connection:
        """Another session; the caller closes it."""
        return self.database.connect(application_name=application)


def dropped(done: Execution, **wanted: t.Any) -> set[str]:
    """Type and identity of what is gone, of those objects whose fields are as wanted."""
    return {
        f"{item.type} {item.identity}"
        for item in done.effect.dropped
        if all(getattr(item, name) == value for name, value in wanted.items())
    }
