# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One project of Docker Compose for all tests that need one; without an engine they are skipped with a sentence."""

from __future__ import annotations

import typing as t

import pytest

from tests.support.compose_project import ComposeProject, build_image, engine_problem

if t.TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    """The session's project, up at release 0004."""
    problem = engine_problem()
    if problem:
        pytest.skip(problem)
    project = ComposeProject(tmp_path_factory.mktemp("compose"))
    try:
        build_image("0003")
        project.create("0004")
        project.start_database("0004")
        project.start()
        yield project
    finally:
        project.destroy()


@pytest.fixture
def project(started: ComposeProject, monkeypatch: pytest.MonkeyPatch) -> ComposeProject:
    """The session's project, without the settings of other tests."""
    monkeypatch.setattr(started, "settings", {})
    return started
