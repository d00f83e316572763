# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers for the tests: one a major version and session, a database a test.

``--pg-major 15 --pg-major 18`` or ``PG_MAJORS=15,18`` runs every test that uses ``server`` once on each of them;
``all`` stands for every installed major, and ``--server-only`` leaves out what uses no server.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import typing as t

import pytest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg2.extensions

    from tests.support.postgres_server import PostgresServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """The majors to run on."""
    parser.addoption(
        "--pg-major", action="append", default=[], help="PostgreSQL major to test on, or 'all'; may be repeated"
    )
    parser.addoption("--server-only", action="store_true", help="run only the tests that use the fixture 'server'")


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends the session in order, so that no server is left behind."""
    del config
    try:
        from tests.support.postgres_server import exit_on_sigterm
    except ImportError:  # under "ansible-test units", where tests.support is not on the path and nothing uses a server
        return
    exit_on_sigterm()


def _majors(config: pytest.Config) -> list[int | None]:
    wanted = config.getoption("--pg-major") or os.environ.get("PG_MAJORS", "").replace(",", " ").split()
    if wanted != ["all"]:
        return [int(major) for major in wanted] or [None]
    from tests.support.postgres_server import find_installations

    return [installation.major for installation in find_installations()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever uses ``server``, directly or not, on each wanted major."""
    if "server" in metafunc.fixturenames:
        majors = _majors(metafunc.config)
        metafunc.parametrize(
            "server", majors, indirect=True, scope="session", ids=[f"pg{major or ''}" for major in majors]
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is the same on every major."""
    if config.getoption("--server-only"):
        chosen = [item for item in items if "server" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """The session's server. A test that stops it starts it again before it ends."""
    from tests.support.postgres_server import PostgresServer, find_installation

    with PostgresServer(find_installation(request.param).bin_dir) as running:
        yield running


@dataclasses.dataclass(frozen=True)
class Database:
    """A database of one test."""

    server: PostgresServer
    name: str

    def connect(self, **arguments: t.Any) -> psycopg2.extensions.connection:
        """A connection as the superuser; the caller closes it."""
        return self.server.connect(self.name, **arguments)

    def execute(self, statement: str) -> list[tuple[t.Any, ...]]:
        """Run SQL outside a transaction as the superuser; the rows of its last statement."""
        return self.server.execute(statement, self.name)

    def login(self) -> dict[str, t.Any]:
        """Connection options of the modules."""
        return self.server.login(self.name)

    def connection_arguments(self) -> dict[str, t.Any]:
        """Arguments for psycopg2 and the engine's ConnectionSettings."""
        return self.server.connection_arguments(self.name)


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    """A fresh, empty database, dropped afterwards with whoever is connected to it."""
    name = f"test_{secrets.token_hex(6)}"
    server.create_database(name)
    yield Database(server, name)
    if not server.running:
        server.start()
    server.drop_database(name)


@pytest.fixture
def custom_stats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ansible-playbook say in one line what it leaves to a workflow: see ``Run.left``."""
    monkeypatch.setenv("ANSIBLE_SHOW_CUSTOM_STATS", "1")
    monkeypatch.setenv("ANSIBLE_CALLBACK_RESULT_FORMAT", "json")
