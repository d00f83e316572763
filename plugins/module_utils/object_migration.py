# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A column, table or index to be taken back without a migration, as a DOWN of one statement that runs like any other."""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

from . import ledger as ledgers
from .dependents import dependents
from .errors import Refused
from .index_use import use_of
from .ledger import VersionState
from .migrations import DownScript, Migration, read_down
from .object_lookup import NOTHING_DONE, locate
from .plan import ObjectPlan, Plan
from .sql import parse_script
from .wanted_object import COLUMN, CONCURRENTLY, INDEX, TABLE, TRANSACTION, label

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .catalog import Cursor
    from .dependents import Dependents
    from .names import Names
    from .object_lookup import Located
    from .wanted_object import WantedObject

#: Longest list of names in one sentence.
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What PostgreSQL knows about an object beyond its name; an empty value for what does not hold.

    :param keyed: the column is in the key of the partitioned table.
    :param table: full name of an index's table.
    """

    extension: str
    inherited_from: str
    typed: bool
    keyed: bool
    generated: bool
    constraint: str
    parent_index: str
    table: str
    table_oid: int
    unique: bool
    valid: bool
    replica_identity: bool
    partition_of: str
    ledger: bool


_FACTS = """
SELECT coalesce((SELECT pg_catalog.quote_ident(x.extname) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e' LIMIT 1), ''),
  CASE WHEN coalesce(a.attinhcount, 0) > 0 THEN coalesce({inherited}, '') ELSE '' END,
  c.reloftype <> 0 AND a.attnum IS NOT NULL,
  EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
          AND d.objsubid = a.attnum AND d.refobjid = c.oid AND d.refobjsubid = 0 AND d.deptype = 'i'),
  coalesce(a.attgenerated <> '', false),
  coalesce((SELECT pg_catalog.quote_ident(k.conname) FROM pg_catalog.pg_constraint k
            WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x') LIMIT 1), ''),
  CASE WHEN c.relkind IN ('i', 'I') THEN coalesce({parents}, '') ELSE '' END,
  coalesce((SELECT pg_catalog.format('%%I.%%I', n.nspname, h.relname) FROM pg_catalog.pg_class h
            JOIN pg_catalog.pg_namespace n ON n.oid = h.relnamespace WHERE h.oid = x.indrelid), ''),
  coalesce(x.indrelid, 0)::pg_catalog.int8, coalesce(x.indisunique, false), coalesce(x.indisvalid, true), coalesce(x.indisreplident, false),
  CASE WHEN c.relispartition AND c.relkind IN ('r', 'p') AND a.attnum IS NULL THEN coalesce({parents}, '') ELSE '' END,
  %(ledger)s <> '' AND c.oid = pg_catalog.to_regclass(nullif(%(ledger)s, ''))
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = nullif(%(column)s, 0)
LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid WHERE c.oid = %(oid)s
"""
_PARENTS = (
    "(SELECT pg_catalog.string_agg(pg_catalog.format('%%I.%%I', n.nspname, p.relname), ', ' ORDER BY h.inhseqno) "
    "FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class p ON p.oid = h.inhparent "
    "JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace WHERE h.inhrelid = c.oid{having})"
)
_HAVING = " AND EXISTS (SELECT FROM pg_catalog.pg_attribute b WHERE b.attrelid = p.oid AND b.attname = a.attname AND NOT b.attisdropped)"


def plan_object(
    cursor: Cursor, wanted: WantedObject, search_path: Sequence[str], ledger_table: str, database: str
) -> Plan:
    """The plan that takes one object back; without a script where there is no such object. Reads only.

    :param ledger_table: ``rollback_ledger_table``, which is not taken back.
    :param database: its name, for messages.
    :raises Refused: with what to change.
    """
    located = locate(cursor, wanted, search_path)
    if located is None:
        return Plan(
            (),
            (),
            (),
            f"There is no {wanted.kind} {wanted.given} in database {database}: there is nothing to take back.",
        )
    facts = _facts(cursor, located, ledger_table)
    for refusal in (_refusal_of_any, _REFUSALS[wanted.kind]):
        said = refusal(located, facts)
        if said:
            raise Refused(f"{said[0]} {NOTHING_DONE} {said[1]}", object=f"{wanted.kind} {located.full_name}")
    hanging = dependents(cursor, located.oid, located.column)
    _refuse_cascade(wanted, located, hanging)
    return _plan(wanted, located, facts, hanging, _way(cursor, wanted, located, facts, hanging))


def _facts(cursor: Cursor, located: Located, ledger_table: str) -> _Facts:
    query = _FACTS.replace("{inherited}", _PARENTS.replace("{having}", _HAVING)).replace(
        "{parents}", _PARENTS.replace("{having}", "")
    )
    cursor.execute(query, {"oid": located.oid, "column": located.column, "ledger": ledger_table})
    return _Facts(*cursor.fetchall()[0])


def _refusal_of_any(located: Located, facts: _Facts) -> tuple[str, str] | None:
    if facts.extension:
        return (
            f"{located.identity} belongs to the extension {facts.extension}.",
            f"Only the extension itself can be taken back, in psql: DROP EXTENSION {facts.extension}",
        )
    return None


def _refusal_of_column(located: Located, facts: _Facts) -> tuple[str, str] | None:
    name = located.full_name
    if facts.inherited_from:
        parent = facts.inherited_from.partition(", ")[0]
        return (
            f"The column {name} is inherited from {facts.inherited_from}.",
            f"Take it back there: -e column={parent}.{located.column_name}",
        )
    if facts.typed:
        return (
            f"{located.identity} is a table of a composite type, from which no column can be dropped.",
            "Change the type, or take the whole table back with -e table.",
        )
    if facts.keyed:
        return (
            f"The column {name} is part of the partition key of {located.identity}, and PostgreSQL does not drop it.",
            f"Take the whole table back with -e table={located.identity}, or restore a backup with emergency_rollback.yml.",
        )
    return _refusal_of_ledger(located, facts)


def _refusal_of_table(located: Located, facts: _Facts) -> tuple[str, str] | None:
    return _refusal_of_ledger(located, facts)


def _refusal_of_ledger(located: Located, facts: _Facts) -> tuple[str, str] | None:
    if facts.ledger:
        return (
            f"{located.identity} is the ledger of the migrations (rollback_ledger_table).",
            "Without it nobody knows what is applied. Correct the name, or that setting.",
        )
    return None


def _refusal_of_index(located: Located, facts: _Facts) -> tuple[str, str] | None:
    if facts.constraint:
        return (
            f"The index {located.identity} enforces the constraint {facts.constraint} of {facts.table}, and goes only with it.",
            f"Write a migration whose DOWN says ALTER TABLE {facts.table} DROP CONSTRAINT {facts.constraint}, and run rollback.yml.",
        )
    if facts.parent_index:
        return (
            f"The index {located.identity} is the part of {facts.parent_index} that belongs to the partition {facts.table}.",
            f"Take the whole index back: -e index={facts.parent_index}",
        )
    return None


_REFUSALS: Mapping[str, t.Callable[[Located, _Facts], tuple[str, str] | None]] = {
    COLUMN: _refusal_of_column,
    TABLE: _refusal_of_table,
    INDEX: _refusal_of_index,
}


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _refuse_cascade(wanted: WantedObject, located: Located, hanging: Dependents) -> None:
    if hanging.cascaded and not wanted.cascade:
        raise Refused(
            f"On the {wanted.kind} {located.full_name} depends what would not go by itself: {_some(hanging.cascaded)}. {NOTHING_DONE} "
            "Take that back first, or look at it with -e cascade=yes --check and then run with -e cascade=yes, which drops it, too.",
            dependents=list(hanging.cascaded),
        )


def _way(
    cursor: Cursor, wanted: WantedObject, located: Located, facts: _Facts, hanging: Dependents
) -> tuple[bool, str]:
    """Whether an index is dropped concurrently, and why."""
    if wanted.kind != INDEX:
        return False, ""
    obstacle = ""
    if located.kind == "I":
        obstacle = f"{located.identity} is the index of a partitioned table"
    elif hanging.cascaded:
        obstacle = f"CASCADE is needed for {_some(hanging.cascaded)}"
    if wanted.index_drop == TRANSACTION:
        return False, "rollback_index_drop is transaction."
    if obstacle and wanted.index_drop == CONCURRENTLY:
        raise Refused(
            f"PostgreSQL cannot drop this index concurrently: {obstacle}. {NOTHING_DONE} Set rollback_index_drop: transaction (or auto)."
        )
    if obstacle:
        return False, f"PostgreSQL cannot drop it concurrently: {obstacle}."
    if wanted.index_drop == CONCURRENTLY:
        return True, "rollback_index_drop is concurrently."
    use = use_of(cursor, facts.table_oid)
    return (True, f"{use[:1].upper()}{use[1:]}.") if use else (False, "Nobody was seen to use its table.")


def _plan(wanted: WantedObject, located: Located, facts: _Facts, hanging: Dependents, way: tuple[bool, str]) -> Plan:
    concurrently, why = way
    cascade = wanted.cascade and bool(hanging.cascaded)
    statement = _statement(wanted, located, cascade)
    about = ObjectPlan(
        kind=wanted.kind,
        identity=located.full_name,
        relation=facts.table or located.identity,
        oid=located.oid,
        statement=concurrent_statement(located.identity) if concurrently else statement,
        asked=_asked(wanted, located, concurrently),
        column=located.column_bare if located.column else "",
        holds_values=not facts.generated,
        concurrently=concurrently,
        why=why,
        parts=hanging.parts,
        cascaded=hanging.cascaded if cascade else (),
    )
    script = _script(wanted, located, statement, concurrently)
    state = VersionState(script.version, ledgers.APPLIED, "objects", (f"{wanted.kind} {located.full_name}",))
    migration = Migration(script.version, script.name, None, None)
    return Plan((migration,), (script,), (state,), _message(about), tuple(_warnings(about, facts)), about)


def _statement(wanted: WantedObject, located: Located, cascade: bool) -> str:
    end = " CASCADE" if cascade else ""
    if wanted.kind == COLUMN:
        return f"ALTER TABLE {located.identity} DROP COLUMN {located.column_name}{end}"
    return f"DROP {wanted.kind.upper()} {located.identity}{end}"


def concurrent_statement(identity: str) -> str:
    """How PostgreSQL drops an index while its table is used; not within a transaction.

    :param identity: full name as SQL.
    """
    return f"DROP INDEX CONCURRENTLY {identity}"


def _asked(wanted: WantedObject, located: Located, concurrently: bool) -> dict[str, t.Any]:
    return {
        wanted.kind: located.full_name,
        "cascade": wanted.cascade,
        "index_drop": CONCURRENTLY if concurrently else TRANSACTION,
    }


def _script(wanted: WantedObject, located: Located, statement: str, concurrently: bool) -> DownScript:
    place = f"-e {wanted.kind}={located.full_name}"
    names = [located.schema, located.name, *([located.column_bare] if located.column else [])]
    text = f"{statement};"
    digest = hashlib.sha256(f"{text} {located.oid} {concurrently}".encode()).hexdigest()
    return DownScript(
        label(wanted.kind, *names), located.full_name, place, 1, text, digest, tuple(parse_script(text, place)), ()
    )


def _message(about: ObjectPlan) -> str:
    parts = f" With it {'go' if len(about.parts) > 1 else 'goes'} {_some(about.parts)}." if about.parts else ""
    cascaded = f" CASCADE also drops {_some(about.cascaded)}." if about.cascaded else ""
    return (
        f"To take back the {about.kind} {about.identity}: {about.statement}.{parts}{cascaded}{_way_in_words(about)} "
        "No migration is marked as taken back."
    )


def _way_in_words(about: ObjectPlan) -> str:
    if about.kind != INDEX:
        return ""
    if not about.concurrently:
        return f" It is dropped in a transaction, with the application stopped: {about.why}"
    return (
        f" The application is NOT stopped, and the index is dropped concurrently, beside whoever uses its table: {about.why} "
        "A preview drops it in a transaction that is undone, which needs a short lock on the table."
    )


def _warnings(about: ObjectPlan, facts: _Facts) -> Iterator[str]:
    if facts.partition_of:
        yield f"{about.identity} is a partition of {facts.partition_of}: its rows go from there."
    if facts.unique:
        yield f"{about.identity} is a unique index: without it {facts.table} takes duplicates."
    if facts.replica_identity:
        yield f"{about.identity} is the replica identity of {facts.table}: without it PostgreSQL refuses UPDATE and DELETE where that table is published."
    if not facts.valid:
        yield f"{about.identity} is not valid, and a backup leaves such an index out: undoing this run does not bring it back."
    if not about.holds_values and about.kind == COLUMN:
        yield f"{about.identity} is generated: its values are computed from others, and none counts as lost."


def made_by(plan: Plan, migrations: Sequence[Migration], names: Names) -> Plan:
    """The plan with the migrations that name its object in their DOWN, so that somebody can correct the tool's ledger."""
    if plan.object is None:
        return plan
    targets = {item.target.address for item in names.resolve_scripts(plan.scripts) if item.target}
    found = []
    for migration in migrations:
        try:
            resolved = names.resolve_scripts([read_down(migration)])
        except Refused:
            continue
        if any(item.target and item.target.address in targets for item in resolved):
            found.append(migration.version)
    if not found:
        return plan
    about = dataclasses.replace(plan.object, migrations=tuple(found))
    said = f"The DOWN of {_some(found)} names it, and the ledger is not touched."
    return dataclasses.replace(plan, object=about, message=f"{plan.message} {said}")
