# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of kept databases fit and are free, and their comments say whose they are."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.kept import MARK, Mark, fits, kept_name, read_mark

NOW = dt.datetime(2026, 2, 13, 11, 15, 0, tzinfo=dt.timezone(dt.timedelta(hours=1)))

MARKED = Mark(
    oid=4711,
    was='new\nline "x" 100%',
    replaced_by="backup_before_migration_0007",
    run_id="r1",
    at="2026-02-13T10:15:00Z",
    xid=2**33,
    comment="the shop's\nown {}",
)


def test_the_name_is_the_live_one_and_the_utc_time() -> None:
    assert kept_name("erp", set(), NOW) == "erp_replaced_20260213_101500"


@pytest.mark.parametrize("live", ["x" * 63, "名" * 21, "é" * 31, "a" + "é" * 31, "😀" * 15, "e"])
def test_the_name_fits_and_no_character_is_cut(live: str) -> None:
    name = kept_name(live, set(), NOW)
    assert len(name.encode()) <= 63
    assert live.startswith(name.removesuffix("_replaced_20260213_101500"))
    assert fits(name)


def test_a_name_that_is_taken_gets_a_number() -> None:
    taken: set[str] = set()
    for _number in range(12):
        name = kept_name("y" * 63, taken, NOW)
        assert name not in taken
        assert len(name) <= 63
        taken.add(name)
    assert len(taken) == 12


def test_a_mark_is_read_as_it_was_written() -> None:
    assert read_mark(MARKED.text(), 4711) == MARKED
    assert MARKED.text().startswith(
        "cypher.rollback: replaced by backup_before_migration_0007 in run r1 at 2026-02-13T10:15:00Z; was "
    )


@pytest.mark.parametrize(
    "comment",
    [
        None,
        "",
        "the shop",
        MARK,
        f"{MARK}b at now; was erp",
        f"{MARK}b\n[1]",
        f"{MARK}b\nnull",
        f'{MARK}b\n{{"oid": 4711}}',
        f"{MARK}b\n{json.dumps({'oid': 'x'})}",
        "not ours\n" + MARKED.text().rpartition("\n")[2],
    ],
)
def test_what_is_no_mark_is_none(comment: str | None) -> None:
    assert read_mark(comment, 4711) is None


def test_the_mark_of_a_copy_does_not_count() -> None:
    assert read_mark(MARKED.text(), 4712) is None


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "名" * 22])
def test_what_cannot_be_a_name(name: str) -> None:
    assert not fits(name)
