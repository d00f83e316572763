# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are made once for all tests of a process, and databases for those that need several."""

from __future__ import annotations

import secrets
import typing as t

import pytest

from tests.conftest import Database
from tests.support.ssh_hosts import SshHosts, missing

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHosts]:
    """Three hosts of databases and three of the application."""
    reason = missing()
    if reason:
        pytest.skip(f"several hosts over SSH cannot be had here: {reason}")
    names = [f"{kind}{number}" for kind in ("db", "app") for number in (1, 2, 3)]
    with SshHosts(tmp_path_factory.mktemp("network") / "hosts", names) as running:
        yield running


@pytest.fixture
def databases(server: PostgresServer) -> Iterator[dict[str, Database]]:
    """Three empty databases, by the names of their hosts."""
    found = {f"db{number}": Database(server, f"test_{secrets.token_hex(6)}") for number in (1, 2, 3)}
    for database in found.values():
        server.create_database(database.name)
    yield found
    for database in found.values():
        server.drop_database(database.name)
