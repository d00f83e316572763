# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification: checks with a name, what was expected, what is, and whether that passes.

The same checks run inside the transaction, before it commits, and once more from a fresh session afterwards.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .effect import is_there

try:
    import psycopg2
except ImportError:  # the module says so
    pass

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .catalog import Catalog
    from .effect import Effect
    from .ledger import Cursor
    from .names import Resolution

PASSED = "passed"
FAILED = "failed"
INFORMATION = "information"


@dataclasses.dataclass(frozen=True)
class Check:
    """One verified statement. Status ``information`` is reported and never fails."""

    name: str
    status: str
    expected: str
    actual: str


@dataclasses.dataclass(frozen=True)
class WantedCheck:
    """A check of the operator's own: the first value of the query's first row equals ``expect``."""

    name: str
    query: str
    expect: t.Any


def failed_checks(checks: Sequence[Check]) -> list[str]:
    """Each failed check as a clause."""
    return [f"{check.name}: expected {check.expected}, found {check.actual}" for check in checks if check.status == FAILED]


def _check(name: str, expected: str, actual: str, passed: bool) -> Check:
    return Check(name, PASSED if passed else FAILED, expected, actual)


def _some(items: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def prove_plan(
    cursor: Cursor,
    effect: Effect,
    resolved: Sequence[Resolution],
    before: Catalog,
    *,
    only_drops: bool,
    wanted: Sequence[WantedCheck],
    accept_left_over: bool = False,
) -> tuple[Check, ...]:
    """The proof inside the transaction.

    :param only_drops: no statement may change rows other than by dropping what holds them.
    :param accept_left_over: objects of the same name in other schemas belong to something else.
    """
    there = sum(1 for item in resolved if item.target)
    meant = {item.target.identity for item in resolved if item.target}
    kept = [item for item in effect.left_over if not accept_left_over or item["identity"] in meant]
    left = [f"{item['type']} {item['identity']}" for item in kept]
    none = f"0 of {there} left"
    checks = [_check("objects named by the DOWN are gone", none, _some(left) or none, not left)]
    if only_drops:
        touched = [f"{item.table}: {item.updated} updated, {item.deleted} deleted" for item in effect.row_changes if item.updated or item.deleted]
        checks.append(_check("rows of the tables that stay are unchanged", "no row changed", _some(touched) or "no row changed", not touched))
    checks.extend(structure_checks(cursor, before))
    checks.extend(operator_checks(cursor, wanted))
    return tuple(checks)


def structure_checks(cursor: Cursor, before: Catalog | None = None) -> Iterator[Check]:
    """Constraints and indexes that are not valid; those that were not valid before do not fail."""
    cursor.execute(
        "SELECT k.conname || ' on ' || k.conrelid::pg_catalog.regclass::text, 'pg_constraint', k.oid::pg_catalog.int8 FROM pg_catalog.pg_constraint k "
        "WHERE NOT k.convalidated AND k.conrelid <> 0"
    )
    yield _invalid("constraints are valid", cursor.fetchall(), before)
    cursor.execute(
        "SELECT i.indexrelid::pg_catalog.regclass::text, 'pg_class', i.indexrelid::pg_catalog.int8 FROM pg_catalog.pg_index i "
        "WHERE NOT i.indisvalid"
    )
    yield _invalid("indexes are valid", cursor.fetchall(), before)


def _invalid(name: str, rows: Sequence[tuple[t.Any, ...]], before: Catalog | None) -> Check:
    def is_old(catalog: str, oid: int) -> bool:
        return before is None or is_there(before, (catalog, oid))

    new = [identity for identity, catalog, oid in rows if not is_old(catalog, oid)]
    old = [identity for identity, catalog, oid in rows if is_old(catalog, oid)]
    if old and not new:
        return Check(name, INFORMATION, "none invalid", f"invalid already before: {_some(old)}")
    return _check(name, "none invalid", _some(new) or "none invalid", not new)


def operator_checks(cursor: Cursor, wanted: Sequence[WantedCheck]) -> Iterator[Check]:
    """The operator's own checks, each under a savepoint: one that fails does not stop the next."""
    for check in wanted:
        cursor.execute("SAVEPOINT verify_check")
        try:
            cursor.execute(check.query)
            row = cursor.fetchone()
        except psycopg2.Error as err:
            cursor.execute("ROLLBACK TO SAVEPOINT verify_check")
            yield Check(check.name, FAILED, str(check.expect), f"an error: {' '.join(str(err).split())}")
            continue
        cursor.execute("ROLLBACK TO SAVEPOINT verify_check")
        actual = "no row" if row is None else as_text(row[0])
        yield _check(check.name, as_text(check.expect), actual, row is not None and equals(row[0], check.expect))


def equals(actual: object, expected: object) -> bool:
    """Compare a value of the database with one of an inventory, where everything may have become a string."""
    return as_text(actual) == as_text(expected) or _number(actual) == _number(expected) is not None


def as_text(value: object) -> str:
    """A value as PostgreSQL would print it."""
    if value is None:
        return ""
    if isinstance(value, bool) or str(value).lower() in ("true", "false"):
        return "t" if str(value).lower() == "true" else "f"
    return str(value)


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(str(value))
    except ValueError:
        return None


def gone_check(dropped: Sequence[Mapping[str, t.Any]], catalog: Catalog) -> Check:
    """What a committed DOWN removed is not there, seen from another session."""
    there = {(item.type, item.identity) for item in catalog}
    back = [f"{item['type']} {item['identity']}" for item in dropped if (item["type"], item["identity"]) in there]
    none = f"0 of {len(dropped)} there"
    return _check("dropped objects are gone", none, _some(back) or none, not back)


def compare_rows(expected: Mapping[str, int], actual: Mapping[str, int], ignored: set[str]) -> Check:
    """Row counts now against those of the backup, for the tables that stay."""
    different = [
        f"{name}: {actual[name]} instead of {count}"
        for name, count in sorted(expected.items())
        if name in actual and name not in ignored and actual[name] != count
    ]
    compared = sum(1 for name in expected if name in actual and name not in ignored)
    return _check("row counts equal the backup's", f"{compared} tables equal", _some(different) or f"{compared} tables equal", not different)


def critical_tables(cursor: Cursor, names: Sequence[str], gone: set[str]) -> Iterator[Check]:
    """Presence and row counts of the tables that matter most; one that the DOWN drops is expected to be absent."""
    for name in names:
        cursor.execute("SELECT pg_catalog.to_regclass(%s)::text", (name,))
        row = cursor.fetchone()
        if row is None or row[0] is None:
            expected = "absent, the DOWN drops it" if name in gone else "reported"
            yield Check(f"critical table {name}", PASSED if name in gone else INFORMATION, expected, "absent")
            continue
        cursor.execute(f"SELECT pg_catalog.count(*) FROM {row[0]}")
        count = cursor.fetchone()
        yield Check(f"critical table {name}", INFORMATION, "reported", f"{count[0] if count else 0} rows")
