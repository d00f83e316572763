# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification: checks with a name, what was expected, what is, and whether that passes.

The same checks run inside the transaction, before it commits, and once more from a fresh session afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import math
import typing as t

from .budget import Budget, NotChecked, lost
from .effect import is_there

# Without it the module says so.
with contextlib.suppress(ImportError):
    import psycopg2

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from .catalog import Address, Catalog, Cursor
    from .effect import Effect
    from .names import Resolution

PASSED = "passed"
FAILED = "failed"
INFORMATION = "information"


@dataclasses.dataclass(frozen=True)
class Check:
    """One verified statement. Status ``information`` is reported and never fails.

    :param details: all of what ``actual`` has only the first of, or counts.
    """

    name: str
    status: str
    expected: str
    actual: str
    details: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class WantedCheck:
    """A check of the operator's own: the first value of the query's first row equals ``expect``."""

    name: str
    query: str
    expect: t.Any


def checks_argument_spec() -> dict[str, dict[str, t.Any]]:
    """The option of the modules that run the operator's own checks."""
    check = {
        "name": {"type": "str", "required": True},
        "query": {"type": "str", "required": True},
        "expect": {"type": "raw", "required": True},
    }
    return {"verify_checks": {"type": "list", "elements": "dict", "default": [], "options": check}}


def wanted_checks(params: Mapping[str, t.Any]) -> list[WantedCheck]:
    """The operator's own checks, from a module's parameters.

    In ansible-playbook's own process a text may be of a subclass of ``str``, which the parser does not take.
    """
    return [WantedCheck(str(item["name"]), str(item["query"]), item["expect"]) for item in params["verify_checks"]]


def failed_checks(checks: Sequence[Check]) -> list[str]:
    """Each failed check as a clause."""
    return [
        f"{check.name}: expected {check.expected}, found {check.actual}" for check in checks if check.status == FAILED
    ]


def _check(name: str, expected: str, actual: str, passed: bool) -> Check:
    return Check(name, PASSED if passed else FAILED, expected, actual)


def is_all_right(name: str, expected: str) -> Check:
    """A check that found what it expects."""
    return Check(name, PASSED, expected, expected)


def some(items: Sequence[str], limit: int = 10) -> str:
    """The first of several names, and how many more there are."""
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
    checks = [_check("objects named by the DOWN are gone", none, some(left) or none, not left)]
    if only_drops:
        touched = [
            f"{item.table}: {item.updated} updated, {item.deleted} deleted"
            for item in effect.row_changes
            if item.updated or item.deleted
        ]
        checks.append(
            _check(
                "rows of the tables that stay are unchanged",
                "no row changed",
                some(touched) or "no row changed",
                not touched,
            )
        )
    checks.extend(structure_checks(cursor, lambda item: is_there(before, item.address)))
    checks.extend(operator_checks(cursor, wanted))
    return tuple(checks)


@dataclasses.dataclass(frozen=True)
class Invalid:
    """A constraint or an index that is not valid.

    :param kind: ``constraints`` or ``indexes``.
    """

    kind: str
    identity: str
    address: Address


def invalid_objects(cursor: Cursor) -> list[Invalid]:
    """Constraints that were added NOT VALID, and indexes that a failed CREATE INDEX CONCURRENTLY left.

    A constraint that is not enforced (PostgreSQL 18) is not meant to be valid.
    """
    cursor.execute(
        "SELECT 'constraints', i.identity, 'pg_constraint', k.oid::pg_catalog.int8 FROM pg_catalog.pg_constraint k "
        "CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0) i "
        "WHERE NOT k.convalidated AND coalesce((pg_catalog.to_jsonb(k.*) ->> 'conenforced')::bool, true) "
        "UNION ALL SELECT 'indexes', i.identity, 'pg_class', x.indexrelid::pg_catalog.int8 FROM pg_catalog.pg_index x "
        "CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, x.indexrelid, 0) i "
        "WHERE NOT x.indisvalid ORDER BY 2"
    )
    return [Invalid(kind, identity, (catalog, oid)) for kind, identity, catalog, oid in cursor.fetchall()]


def structure_checks(cursor: Cursor, is_old: t.Callable[[Invalid], bool]) -> Iterator[Check]:
    """Constraints and indexes that are not valid; those that are old do not fail."""
    found = invalid_objects(cursor)
    for kind in ("constraints", "indexes"):
        new = [item.identity for item in found if item.kind == kind and not is_old(item)]
        old = [item.identity for item in found if item.kind == kind and is_old(item)]
        if old and not new:
            yield Check(f"{kind} are valid", INFORMATION, "none invalid", f"invalid already before: {some(old)}")
        else:
            yield _check(f"{kind} are valid", "none invalid", some(new) or "none invalid", not new)


@contextlib.contextmanager
def _undone(cursor: Cursor) -> Iterator[None]:
    """Whatever a query does or breaks, the transaction goes on as it was."""
    cursor.execute("SAVEPOINT verify_check")
    try:
        yield
    finally:
        cursor.execute("ROLLBACK TO SAVEPOINT verify_check; RELEASE SAVEPOINT verify_check")


def _first_value(cursor: Cursor, query: str, parameters: t.Any = None) -> tuple[t.Any, ...] | None:
    with _undone(cursor):
        cursor.execute(query, parameters)
        return cursor.fetchone()


def operator_checks(cursor: Cursor, wanted: Sequence[WantedCheck]) -> Iterator[Check]:
    """The operator's own checks, each under a savepoint: one that fails does not stop the next.

    :raises psycopg2.Error: where the connection is lost, which says nothing about the database.
    """
    for check in wanted:
        try:
            row = _first_value(cursor, check.query)
        except psycopg2.Error as err:
            if lost(err) and not isinstance(err, psycopg2.ProgrammingError):
                raise
            yield Check(check.name, FAILED, as_text(check.expect), f"an error: {' '.join(str(err).split())}")
            continue
        actual = "no row" if row is None else as_text(row[0])
        yield _check(check.name, as_text(check.expect), actual, row is not None and equals(row[0], check.expect))


def equals(actual: object, expected: object) -> bool:
    """Compare a value of the database with one of an inventory, where everything may have become a string."""
    number = _number(expected)
    return as_text(actual) == as_text(expected) or (number is not None and _number(actual) == number)


def as_text(value: object) -> str:
    """A value as PostgreSQL would print it."""
    if value is None:
        return ""
    if isinstance(value, bool) or str(value).lower() in ("true", "false"):
        return "t" if str(value).lower() == "true" else "f"
    return str(value)


def _number(value: object) -> decimal.Decimal | None:
    if isinstance(value, bool):
        return None
    try:
        return decimal.Decimal(str(value))
    except decimal.InvalidOperation:
        return None


def gone_check(dropped: Sequence[Mapping[str, t.Any]], catalog: Catalog) -> Check:
    """What a committed DOWN removed is not there, seen from another session."""
    there = {(item.type, item.identity) for item in catalog}
    back = [f"{item['type']} {item['identity']}" for item in dropped if (item["type"], item["identity"]) in there]
    none = f"0 of {len(dropped)} there"
    return _check("dropped objects are gone", none, some(back) or none, not back)


def compare_rows(
    expected: Mapping[str, int], actual: Mapping[str, int], ignored: Collection[str], there: Collection[str]
) -> Check:
    """Row counts now against those of the backup, for the tables that stay.

    :param ignored: tables that the rollback dropped, or whose rows it changed.
    :param there: all tables of the database; one that is there and was not counted could not be read.
    """
    compared = [name for name in sorted(expected) if name not in ignored]
    different = [
        f"{name}: {actual.get(name, 'not to be counted by this role' if name in there else 'missing')} instead of {expected[name]}"
        for name in compared
        if actual.get(name) != expected[name]
    ]
    equal = f"{len(compared)} tables equal"
    return _check("row counts equal the backup's", equal, some(different) or equal, not different)


def critical_tables(
    cursor: Cursor,
    names: Sequence[str],
    gone: Collection[str],
    counted: Mapping[str, int] | None = None,
    budget: Budget | None = None,
) -> Iterator[Check]:
    """Presence and row counts of the tables that matter most; one that the DOWN drops is expected to be absent.

    :param counted: rows of plain tables that are known already.
    """
    limit = budget or Budget(math.inf)
    for name in names:
        title = f"critical table {name}"
        try:
            found = (_first_value(cursor, "SELECT pg_catalog.to_regclass(%s)::text", (name,)) or (None,))[0]
            if found is None:
                dropped = name in gone
                told = "absent, a rollback dropped it" if dropped else "reported"
                yield Check(title, PASSED if dropped else INFORMATION, told, told if dropped else "absent")
                continue
            known = (counted or {}).get(found)
            rows = limit.ask(cursor, f"SELECT pg_catalog.count(*) FROM {found}")[0][0] if known is None else known
            yield Check(title, INFORMATION, "reported", f"{rows} rows")
        except NotChecked as why:
            yield Check(title, INFORMATION, "reported", f"not checked: {why}")
        except psycopg2.Error as err:
            if lost(err):
                raise
            yield Check(title, FAILED, "reported", f"an error: {' '.join(str(err).split())}")
