# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File names and markers."""

from __future__ import annotations

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.conventions import (
    CONVENTIONS,
    DOCUMENT,
    FileName,
    read_file_name,
    read_marker,
)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("0003-cart-orders.sql", FileName("0003", "cart-orders", False)),
        ("0003_cart_orders.sql", FileName("0003", "cart_orders", False)),
        ("0003.sql", FileName("0003", "", False)),
        ("0003_orders.up.sql", FileName("0003", "orders", False)),
        ("20260213120000-orders.sql", FileName("20260213120000", "orders", False)),
        ("0003-orders-v1.2.sql", FileName("0003", "orders-v1.2", False)),
        ("0003-shutdown.sql", FileName("0003", "shutdown", False)),
        ("0003-scale-down.sql", FileName("0003", "scale-down", False)),
        ("0003-down.sql", FileName("0003", "", True)),
        ("0003_DOWN.SQL", FileName("0003", "", True)),
        ("0003-orders.down.sql", FileName("0003", "orders", True)),
        ("0003_orders.down.sql", FileName("0003", "orders", True)),
        ("0003.down.sql", FileName("0003", "", True)),
        ("README.md", None),
        ("seed.sql", None),
        (".0003-orders.sql", None),
        ("0003-orders.sql~", None),
        ("0003-orders.sql.bak", None),
        ("0003orders.sql", None),
    ],
)
def test_a_file_name_says_version_name_and_kind(file: str, expected: FileName | None) -> None:
    assert read_file_name(file) == expected


@pytest.mark.parametrize(
    "comment",
    [
        "-- DOWN (Rollback)",
        "-- DOWN",
        "--DOWN",
        "-- down (rollback):",
        "-- Down:",
        "-- DOWN  ( ROLLBACK )",
        "--- DOWN (Rollback) ---",
        "-- === DOWN (Rollback) ===",
        "-- *** DOWN ***",
        "-- ## Down (rollback): ##",
        "-- ━━ DOWN (Rollback) ━━",
        "-- Down Migration",
        "-- DOWN (Rollback) ",
    ],
)
def test_a_down_marker(comment: str) -> None:
    assert read_marker(comment) == "down"


@pytest.mark.parametrize("comment", ["-- UP", "-- UP (Apply)", "-- up migration", "-- === UP ===", "-- Up:"])
def test_an_up_marker(comment: str) -> None:
    assert read_marker(comment) == "up"


@pytest.mark.parametrize(
    "comment",
    [
        "-- DOWN (rollback): see footer",
        "-- DOWN is below",
        "-- down below",
        "-- DOWN (Rollback) of 0003",
        "-- DOWNLOAD",
        "-- shutdown",
        "-- UP to here",
        "-- ROLLBACK",
        "-- ====",
        "--",
    ],
)
def test_prose_is_no_marker(comment: str) -> None:
    assert read_marker(comment) is None


def test_the_source_documents_convention_comes_first() -> None:
    assert CONVENTIONS[0] is DOCUMENT
    assert read_marker(DOCUMENT.example) == "down"
