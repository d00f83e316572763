# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which DOWN scripts run, newest first, for every state of what is applied."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.ledger import (
    ABSENT,
    APPLIED,
    PARTLY,
    UNKNOWN,
    VersionState,
)
from ansible_collections.cypher.rollback.plugins.module_utils.migrations import DownScript, Migration, find_migrations
from ansible_collections.cypher.rollback.plugins.module_utils.plan import Plan, Wanted, make_plan

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Ledger:
    """A ledger that says what the test says."""

    def __init__(self, states: dict[str, str], unknown: Sequence[str] = (), unfit: str = "") -> None:
        self._states = states
        self._unknown = list(unknown)
        self._unfit = unfit
        self.readable: dict[str, bool] = {}

    def state(self, migration: Migration, script: DownScript | None) -> VersionState:
        self.readable[migration.version] = script is not None
        return VersionState(migration.version, self._states[migration.version], "objects", ("table x",), ("table y",))

    def unknown_versions(self) -> list[str]:
        return self._unknown

    def refuse_unfit(self, chosen: Sequence[Migration]) -> None:
        if self._unfit in [item.version for item in chosen]:
            raise Refused(f"unfit {self._unfit}")

    def forget(self, cursor: t.Any, migration: Migration) -> None:
        raise AssertionError(cursor, migration)


@pytest.fixture
def migrations(tmp_path: Path) -> list[Migration]:
    for number in range(1, 5):
        (tmp_path / f"000{number}-step.sql").write_text(
            f"SELECT 1;\n-- DOWN\nDROP TABLE t{number};\n", encoding="utf-8"
        )
    return find_migrations(str(tmp_path))


def plan(
    migrations: list[Migration], states: str, version: object = None, to_version: object = None, **ledger: t.Any
) -> Plan:
    """:param states: a letter a migration: a(pplied), - (absent), p(artly), ? (nothing tells)."""
    letters = {"a": APPLIED, "-": ABSENT, "p": PARTLY, "?": UNKNOWN}
    said = {item.version: letters[letter] for item, letter in zip(migrations, states, strict=True)}
    return make_plan(Wanted(version, to_version), migrations, Ledger(said, **ledger))


@pytest.mark.parametrize(
    ("states", "version", "versions"),
    [
        ("aaaa", "0004", ["0004"]),
        ("aaa-", "0003", ["0003"]),
        ("aaa-", 3, ["0003"]),
        ("aaa-", "0004", []),
        ("a-a-", "0003", ["0003"]),
        ("aap-", "0003", ["0003"]),
        ("aaa?", "0003", ["0003"]),
        ("aaa?", "0004", ["0004"]),
        ("----", "0001", []),
    ],
)
def test_one_version(migrations: list[Migration], states: str, version: object, versions: list[str]) -> None:
    assert plan(migrations, states, version).versions == versions


@pytest.mark.parametrize(
    ("states", "to_version", "versions"),
    [
        ("aaaa", "0002", ["0004", "0003"]),
        ("aaaa", "0", ["0004", "0003", "0002", "0001"]),
        ("aaaa", "0000", ["0004", "0003", "0002", "0001"]),
        ("aaaa", 0, ["0004", "0003", "0002", "0001"]),
        ("aaaa", "0004", []),
        ("aaa-", "0001", ["0003", "0002"]),
        ("a-a-", "0001", ["0003"]),
        ("a?a-", "0001", ["0003", "0002"]),
        ("a?--", "0001", []),
        ("aap?", "0002", ["0003"]),
    ],
)
def test_all_above_a_version(migrations: list[Migration], states: str, to_version: object, versions: list[str]) -> None:
    assert plan(migrations, states, None, to_version).versions == versions


def test_a_later_one_that_is_applied_is_refused_with_the_command(migrations: list[Migration]) -> None:
    with pytest.raises(Refused, match=r"0003, 0004 are applied on top of it \(0004: .* -e to_version=0001$") as caught:
        plan(migrations, "aapa", "0002")
    assert caught.value.details == {"later": ["0003", "0004"]}
    with pytest.raises(Refused, match=r"0002 is applied on top of it .* -e to_version=0$"):
        plan(migrations, "aa--", "0001")


@pytest.mark.parametrize(("version", "to_version"), [("0003", "0002"), (3, 0)])
def test_both_are_refused(migrations: list[Migration], version: object, to_version: object) -> None:
    with pytest.raises(Refused, match="Both version and to_version"):
        plan(migrations, "aaaa", version, to_version)


def test_a_record_without_file_is_refused_only_where_something_is_to_run(migrations: list[Migration]) -> None:
    many = [f"9{number:03}" for number in range(12)]
    with pytest.raises(Refused, match=r"names 9000, .*9007 and 4 more as applied"):
        plan(migrations, "aaaa", "0004", unknown=many)
    with pytest.raises(Refused, match="names 9000"):
        plan(migrations, "aaaa", None, "0001", unknown=many)
    assert plan(migrations, "aaa-", "0004", unknown=many).versions == []


def test_an_unfit_record_is_refused_only_where_it_is_to_go(migrations: list[Migration]) -> None:
    with pytest.raises(Refused, match="unfit 0004"):
        plan(migrations, "aaaa", "0004", unfit="0004")
    assert plan(migrations, "aaa-", "0003", unfit="0004").versions == ["0003"]


def test_warnings_say_what_is_uncertain(migrations: list[Migration]) -> None:
    assert plan(migrations, "aap-", "0003").warnings == ("0003 is partly applied: missing table y.",)
    (warning,) = plan(migrations, "aaa?", "0004").warnings
    assert "It is taken as applied" in warning


def test_a_down_that_cannot_run_is_read_and_refused_only_where_it_is_to_run(migrations: list[Migration]) -> None:
    assert migrations[1].path is not None
    with open(migrations[1].path, "w", encoding="utf-8") as file:
        file.write("-- DOWN\nVACUUM;\n")
    assert plan(migrations, "aaa-", "0003").versions == ["0003"]
    with pytest.raises(Refused, match="VACUUM"):
        plan(migrations, "aaa-", None, "0001")


def test_the_plan_is_data_for_the_report(migrations: list[Migration]) -> None:
    made = plan(migrations, "aaaa", None, "0002")
    found = json.loads(json.dumps(made.to_dict()))
    assert found["versions"] == ["0004", "0003"]
    assert found["statements"] == 2
    assert found["digest"] == made.digest
    assert [(item["version"], item["line"], item["statements"]) for item in found["scripts"]] == [
        ("0004", 3, 1),
        ("0003", 3, 1),
    ]
    assert found["states"]["0001"] == {
        "state": APPLIED,
        "source": "objects",
        "present": ["table x"],
        "missing": ["table y"],
    }
    assert made.digest != plan(migrations, "aaaa", "0004").digest
