# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database's objects as data, and the difference between two moments.

One snapshot serves the preview, the proof of what a DOWN removed, and the verification. Every object has the identity
that ``pg_identify_object`` gives it, its definition, its owner and privileges, and the object that it is a part of.
Members of extensions are left out: they come and go with the extension.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Address = tuple[str, int]

#: A column's address begins with this, and its bare name follows.
COLUMN = "pg_attribute:"

_NOT_SYSTEM = r"n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"

#: Definitions name what they refer to and hold no oids: they are the same in a restored database. Lists have an order of
#: their own, and privileges that nobody touched are those that PostgreSQL gives, because a dump has neither.


def _acl(column: str, kind: str, owner: str) -> str:
    """Privileges in force; ``kind`` as acldefault() has it."""
    return (
        "' acl ' || coalesce((SELECT pg_catalog.string_agg(i::text, ',' ORDER BY i::text COLLATE pg_catalog.\"C\") "
        f"FROM pg_catalog.unnest(coalesce({column}, pg_catalog.acldefault('{kind}', {owner}))) i), '')"
    )


def _sorted(column: str) -> str:
    return (
        "(SELECT pg_catalog.string_agg(i::text, ',' ORDER BY i::text COLLATE pg_catalog.\"C\") "
        f"FROM pg_catalog.unnest({column}) i)"
    )


def _owner(column: str) -> str:
    return f"'owner ' || pg_catalog.pg_get_userbyid({column})"


def _identity(catalog: str, column: str) -> str:
    """Full name of the object that a column refers to; empty for none."""
    return f"coalesce((pg_catalog.pg_identify_object('pg_catalog.{catalog}'::pg_catalog.regclass, {column}, 0)).identity, '')"


def _type(column: str) -> str:
    return f"pg_catalog.format_type({column}, NULL)"


_AGGREGATE = f"""(SELECT pg_catalog.concat_ws(' ', g.aggkind, g.aggnumdirectargs, g.aggtransfn::text, g.aggfinalfn::text, g.aggcombinefn::text,
    g.aggserialfn::text, g.aggdeserialfn::text, g.aggmtransfn::text, g.aggminvtransfn::text, g.aggmfinalfn::text, g.aggfinalextra,
    g.aggmfinalextra, g.aggfinalmodify, g.aggmfinalmodify, {_identity("pg_operator", "g.aggsortop")}, {_type("g.aggtranstype")},
    g.aggtransspace, {_type("g.aggmtranstype")}, g.aggmtransspace, g.agginitval, g.aggminitval)
    FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = p.oid)"""
_SEQUENCE = f"""(SELECT pg_catalog.concat_ws(' ', {_type("q.seqtypid")}, 'start', q.seqstart, 'increment', q.seqincrement, 'min', q.seqmin,
    'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle) FROM pg_catalog.pg_sequence q WHERE q.seqrelid = c.oid)"""
_FOREIGN_TABLE = f"""(SELECT {_identity("pg_foreign_server", "e.ftserver")} || ' ' || coalesce({_sorted("e.ftoptions")}, '')
    FROM pg_catalog.pg_foreign_table e WHERE e.ftrelid = c.oid)"""
_CATALOGS_OF_SCHEMAS: tuple[tuple[str, str, str, str], ...] = (
    (
        "pg_operator", "oprname", "oprnamespace",
        f"""{_owner("q.oprowner")}, q.oprcode::text, {_type("q.oprresult")}, 'commutator', {_identity("pg_operator", "q.oprcom")}, 'negator',
        {_identity("pg_operator", "q.oprnegate")}, q.oprrest::text, q.oprjoin::text, 'merges', q.oprcanmerge, 'hashes', q.oprcanhash""",
    ),
    (
        "pg_opclass", "opcname", "opcnamespace",
        f"""{_owner("q.opcowner")}, {_identity("pg_opfamily", "q.opcfamily")}, {_type("q.opcintype")}, 'default', q.opcdefault,
        {_type("nullif(q.opckeytype, 0)")}""",
    ),
    ("pg_opfamily", "opfname", "opfnamespace", f"{_owner('q.opfowner')}, {_identity('pg_am', 'q.opfmethod')}"),
    (
        "pg_collation", "collname", "collnamespace",
        f"""{_owner("q.collowner")},
        (pg_catalog.to_jsonb(q.*) - '{{oid,collname,collnamespace,collowner,collversion}}'::text[])::text""",
    ),
    (
        "pg_conversion", "conname", "connamespace",
        f"{_owner('q.conowner')}, q.conforencoding, q.contoencoding, q.conproc::text, 'default', q.condefault",
    ),
    ("pg_ts_config", "cfgname", "cfgnamespace", f"{_owner('q.cfgowner')}, {_identity('pg_ts_parser', 'q.cfgparser')}"),
    (
        "pg_ts_dict", "dictname", "dictnamespace",
        f"{_owner('q.dictowner')}, {_identity('pg_ts_template', 'q.dicttemplate')}, q.dictinitoption",
    ),
    (
        "pg_ts_parser", "prsname", "prsnamespace",
        "q.prsstart::text, q.prstoken::text, q.prsend::text, q.prsheadline::text, q.prslextype::text",
    ),
    ("pg_ts_template", "tmplname", "tmplnamespace", "q.tmplinit::text, q.tmpllexize::text"),
)  # fmt: skip

# Each part gives: catalog, oid, bare name, definition, relkind, number of the file.
_PARTS: tuple[str, ...] = (
    rf"""SELECT 'pg_namespace', n.oid, n.nspname::text, {_owner("n.nspowner")} || {_acl("n.nspacl", "n", "n.nspowner")},
           NULL::"char", NULL::oid
        FROM pg_catalog.pg_namespace n WHERE {{not_system}}""",
    rf"""SELECT 'pg_class', c.oid, c.relname::text,
           {_owner("c.relowner")}
           || CASE WHEN c.relkind IN ('i', 'I', 'c') THEN '' WHEN c.relkind = 'S' THEN {_acl("c.relacl", "s", "c.relowner")}
                   ELSE {_acl("c.relacl", "r", "c.relowner")} END
           || ' options ' || coalesce({_sorted("c.reloptions")}, '') || ' persistence ' || c.relpersistence::text
           || ' rls ' || c.relrowsecurity || c.relforcerowsecurity
           || CASE WHEN c.relkind IN ('i', 'I') THEN ' index ' || pg_catalog.pg_get_indexdef(c.oid)
                   || coalesce((SELECT ' valid ' || x.indisvalid FROM pg_catalog.pg_index x WHERE x.indexrelid = c.oid), '')
                   WHEN c.relkind IN ('v', 'm') THEN ' query ' || pg_catalog.pg_get_viewdef(c.oid)
                   WHEN c.relkind = 'p' THEN ' partitioned ' || pg_catalog.pg_get_partkeydef(c.oid) ELSE '' END
           || coalesce(' bound ' || pg_catalog.pg_get_expr(c.relpartbound, c.oid), '')
           || coalesce((SELECT ' inherits ' || pg_catalog.string_agg(h.inhparent::pg_catalog.regclass::text, ',' ORDER BY h.inhseqno)
                        FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid), '')
           || coalesce(' sequence ' || {_SEQUENCE}, '') || coalesce(' foreign ' || {_FOREIGN_TABLE}, ''),
           c.relkind, pg_catalog.pg_relation_filenode(c.oid)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE {{not_system}} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I', 'c')""",
    rf"""SELECT 'pg_proc', p.oid, p.proname::text,
           {_owner("p.proowner")} || {_acl("p.proacl", "f", "p.proowner")} || ' '
           || CASE WHEN p.prokind = 'a' THEN pg_catalog.pg_get_function_arguments(p.oid) || coalesce(' ' || {_AGGREGATE}, '')
                   ELSE pg_catalog.pg_get_functiondef(p.oid) END,
           NULL, NULL
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE {{not_system}}""",
    rf"""SELECT 'pg_type', y.oid, y.typname::text,
           {_owner("y.typowner")} || {_acl("y.typacl", "T", "y.typowner")}
           || coalesce((SELECT ' labels ' || pg_catalog.string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder)
                        FROM pg_catalog.pg_enum e WHERE e.enumtypid = y.oid), '')
           || CASE WHEN y.typtype = 'd' THEN ' domain ' || pg_catalog.format_type(y.typbasetype, y.typtypmod) || ' ' || y.typnotnull
                   || coalesce(y.typdefault, '') ELSE '' END,
           NULL, NULL
        FROM pg_catalog.pg_type y JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
        WHERE {{not_system}} AND (y.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = y.typrelid AND c.relkind = 'c'))
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = y.oid)""",
    r"""SELECT 'pg_constraint', k.oid, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid) || ' validated ' || k.convalidated, NULL, NULL
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace WHERE {not_system}""",
    r"""SELECT 'pg_trigger', g.oid, g.tgname::text, pg_catalog.pg_get_triggerdef(g.oid) || ' enabled ' || g.tgenabled::text, NULL, NULL
        FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {not_system} AND NOT g.tgisinternal""",
    r"""SELECT 'pg_policy', o.oid, o.polname::text, o.polcmd::text || ' ' || o.polpermissive || ' to '
           || (SELECT pg_catalog.string_agg(r.name, ',' ORDER BY r.name COLLATE pg_catalog."C")
                 FROM (SELECT CASE i WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(i)::text END
                         FROM pg_catalog.unnest(o.polroles) i) r(name))
           || coalesce(' using ' || pg_catalog.pg_get_expr(o.polqual, o.polrelid), '')
           || coalesce(' check ' || pg_catalog.pg_get_expr(o.polwithcheck, o.polrelid), ''), NULL, NULL
        FROM pg_catalog.pg_policy o JOIN pg_catalog.pg_class c ON c.oid = o.polrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {not_system}""",
    r"""SELECT 'pg_rewrite', w.oid, w.rulename::text, pg_catalog.pg_get_ruledef(w.oid), NULL, NULL
        FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {not_system} AND w.rulename <> '_RETURN'""",
    r"""SELECT 'pg_statistic_ext', s.oid, s.stxname::text, pg_catalog.pg_get_statisticsobjdef(s.oid), NULL, NULL
        FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE {not_system}""",
    rf"""SELECT 'pg_default_acl', a.oid, ''::text, {_sorted("a.defaclacl")}, NULL, NULL FROM pg_catalog.pg_default_acl a""",
    rf"""SELECT 'pg_foreign_server', f.oid, f.srvname::text,
           pg_catalog.concat_ws(' ', {_owner("f.srvowner")} || {_acl("f.srvacl", "S", "f.srvowner")},
               {_identity("pg_foreign_data_wrapper", "f.srvfdw")}, f.srvtype, f.srvversion, 'options', {_sorted("f.srvoptions")}),
           NULL, NULL FROM pg_catalog.pg_foreign_server f""",
    rf"""SELECT 'pg_foreign_data_wrapper', f.oid, f.fdwname::text,
           pg_catalog.concat_ws(' ', {_owner("f.fdwowner")} || {_acl("f.fdwacl", "F", "f.fdwowner")}, f.fdwhandler::pg_catalog.regproc::text,
               f.fdwvalidator::pg_catalog.regproc::text, 'options', {_sorted("f.fdwoptions")}),
           NULL, NULL FROM pg_catalog.pg_foreign_data_wrapper f""",
    r"""SELECT 'pg_user_mapping', m.umid, m.usename::text, m.usename::text, NULL, NULL FROM pg_catalog.pg_user_mappings m""",
    # Nobody can give an extension another owner, and a restored one belongs to whoever restored it.
    r"""SELECT 'pg_extension', x.oid, x.extname::text,
           'schema ' || n.nspname || ' version ' || x.extversion, NULL, NULL
        FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace""",
    rf"""SELECT 'pg_event_trigger', v.oid, v.evtname::text,
           {_owner("v.evtowner")} || ' ' || v.evtevent::text || ' ' || v.evtfoid::pg_catalog.regproc::text || ' '
           || coalesce({_sorted("v.evttags")}, '') || ' enabled ' || v.evtenabled::text, NULL, NULL FROM pg_catalog.pg_event_trigger v""",
    rf"""SELECT 'pg_publication', b.oid, b.pubname::text,
           {_owner("b.pubowner")} || ' ' || (pg_catalog.to_jsonb(b.*) - '{{oid,pubname,pubowner}}'::text[])::text, NULL, NULL
        FROM pg_catalog.pg_publication b""",
    r"""SELECT 'pg_publication_rel', b.oid, ''::text, ''::text, NULL, NULL FROM pg_catalog.pg_publication_rel b""",
    r"""SELECT 'pg_transform', f.oid, ''::text, ''::text, NULL, NULL FROM pg_catalog.pg_transform f""",
    r"""SELECT 'pg_am', m.oid, m.amname::text, m.amname::text, NULL, NULL FROM pg_catalog.pg_am m WHERE m.oid >= 16384""",
    r"""SELECT 'pg_language', l.oid, l.lanname::text, l.lanname, NULL, NULL FROM pg_catalog.pg_language l WHERE l.oid >= 16384""",
    r"""SELECT 'pg_cast', k.oid, ''::text, k.castcontext::text || k.castmethod::text, NULL, NULL FROM pg_catalog.pg_cast k WHERE k.oid >= 16384""",
    *(
        rf"""SELECT '{catalog}', q.oid, q.{name}::text, pg_catalog.concat_ws(' ', {definition}), NULL, NULL
        FROM pg_catalog.{catalog} q JOIN pg_catalog.pg_namespace n ON n.oid = q.{schema} WHERE {{not_system}}"""
        for catalog, name, schema, definition in _CATALOGS_OF_SCHEMAS
    ),
    r"""SELECT 'pg_authid', r.oid, r.rolname::text, pg_catalog.concat_ws(' ', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
           r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolconfig::text,
           (SELECT pg_catalog.string_agg(DISTINCT g.rolname::text, ',') FROM pg_catalog.pg_auth_members m
              JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)),
           NULL, NULL
        FROM pg_catalog.pg_roles r WHERE r.oid >= 16384""",
)

_OBJECTS = """
WITH object(catalog, oid, name, definition, kind, file) AS ({parts})
SELECT o.catalog, o.oid, o.name, i.type, i.identity, i.schema, o.definition, o.kind, o.file::bigint
FROM object o
CROSS JOIN LATERAL pg_catalog.pg_identify_object(('pg_catalog.' || o.catalog)::pg_catalog.regclass, o.oid, 0) i
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = o.oid AND d.deptype = 'e'
                  AND d.classid = ('pg_catalog.' || o.catalog)::pg_catalog.regclass)
  AND i.identity IS NOT NULL
"""

_COLUMNS = """
SELECT a.attrelid, a.attnum, pg_catalog.quote_ident(a.attname), pg_catalog.concat_ws(' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attnotnull THEN 'NOT NULL' END,
       'DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'identity ' || nullif(a.attidentity::text, ''),
       'generated ' || nullif(a.attgenerated::text, ''), 'acl ' || {acl})
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'c') AND {not_system}
ORDER BY a.attrelid, a.attnum
""".replace("{acl}", _sorted("a.attacl"))

# 'a' and 'i': PostgreSQL drops the one with the other, without CASCADE; 'P' and 'S' say the same of partitions.
_OWNERS = """
SELECT d.classid::pg_catalog.regclass::text, d.objid, d.refclassid::pg_catalog.regclass::text, d.refobjid, d.refobjsubid
FROM pg_catalog.pg_depend d
WHERE d.deptype IN ('a', 'i', 'P', 'S') AND d.objsubid = 0 AND d.objid >= 16384
  AND (d.classid, d.objid) <> (d.refclassid, d.refobjid)
"""


class Cursor(t.Protocol):
    """What is needed of a database cursor, as DB-API 2.0 (PEP 249) has it."""

    def execute(self, operation: str, parameters: t.Any = ..., /) -> object:
        """Run one statement."""

    def fetchone(self) -> tuple[t.Any, ...] | None:
        """The next row."""

    def fetchall(self) -> list[tuple[t.Any, ...]]:
        """All rows that are left."""


@dataclasses.dataclass(frozen=True)
class CatalogObject:
    """One object of the database.

    :param catalog: the system catalog that holds it, such as ``pg_class``.
    :param name: its bare name, not quoted.
    :param identity: its full name, quoted where PostgreSQL would.
    :param schema: its schema, quoted where PostgreSQL would.
    :param columns: by number, quoted name and definition of each column of a table.
    :param kind: ``relkind`` of a relation, else ``None``.
    :param file: number of the relation's file: TRUNCATE and rewrites change it.
    :param owners: what it is a part of, as (catalog, oid, column number or 0).
    """

    catalog: str
    oid: int
    name: str
    type: str
    identity: str
    schema: str | None
    definition: str
    kind: str | None = None
    file: int | None = None
    columns: Mapping[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    owners: tuple[tuple[str, int, int], ...] = ()

    @property
    def address(self) -> Address:
        """What stays the same when it is renamed, and differs when it is made again."""
        return (self.catalog, self.oid)


@dataclasses.dataclass(frozen=True)
class Catalog:
    """All objects of a database at one moment."""

    objects: Mapping[Address, CatalogObject]

    def __iter__(self) -> t.Iterator[CatalogObject]:
        return iter(self.objects.values())

    def get(self, address: Address) -> CatalogObject | None:
        """The object at an address, if it is there."""
        return self.objects.get(address)

    def tables(self) -> list[CatalogObject]:
        """Relations that hold rows of their own: tables, partitions, not their partitioned parents."""
        return [item for item in self if item.catalog == "pg_class" and item.kind == "r"]


#: PostgreSQL writes names in definitions as short as the search path allows, and constants (bounds of partitions, defaults)
#: in the session's time zone and styles. With these a definition is the same in every session, before and after a schema of
#: the path went.
_WRITING = {
    "search_path": "",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
}
_WRITTEN = "SELECT " + ", ".join(f"pg_catalog.current_setting('{name}')" for name in _WRITING)
_WRITE = "SELECT " + ", ".join(f"pg_catalog.set_config('{name}', %s, true)" for name in _WRITING)


def snapshot(cursor: Cursor) -> Catalog:
    """Read all objects of the connected database, also within a transaction that changed them."""
    cursor.execute(_WRITTEN)
    settings = cursor.fetchall()[0]
    cursor.execute(_WRITE, tuple(_WRITING.values()))
    catalog = _read(cursor)
    cursor.execute(_WRITE, settings)
    return catalog


def _read(cursor: Cursor) -> Catalog:
    parts = " UNION ALL ".join(part.replace("{not_system}", _NOT_SYSTEM) for part in _PARTS)
    cursor.execute(_OBJECTS.replace("{parts}", parts))
    rows = cursor.fetchall()
    columns: dict[int, dict[int, tuple[str, str]]] = {}
    cursor.execute(_COLUMNS.replace("{not_system}", _NOT_SYSTEM))
    for relation, number, name, definition in cursor.fetchall():
        columns.setdefault(relation, {})[number] = (name, definition)
    owners: dict[Address, list[tuple[str, int, int]]] = {}
    cursor.execute(_OWNERS)
    for catalog, oid, owner_catalog, owner, column in cursor.fetchall():
        owners.setdefault((catalog, oid), []).append((owner_catalog, owner, column))
    objects = {}
    for catalog, oid, name, type_name, identity, schema, definition, kind, file in rows:
        item = CatalogObject(
            catalog, oid, name, type_name, identity, schema, definition or "", kind, file,
            columns.get(oid, {}) if catalog == "pg_class" else {}, tuple(owners.get((catalog, oid), ())),
        )  # fmt: skip
        objects[item.address] = item
    return Catalog(objects)


@dataclasses.dataclass(frozen=True)
class Gone:
    """An object that is there before and not after.

    :param address: of a column, ``pg_attribute:`` with its bare name, and the table's oid.
    :param owner: address of the object that took it along as its part (a table's index, a schema's default privileges).
    :param part_of: that object's identity, or empty.
    """

    type: str
    identity: str
    address: Address
    kind: str | None
    owner: Address | None = None
    part_of: str = ""


@dataclasses.dataclass(frozen=True)
class Change:
    """An object that stayed and is not what it was."""

    type: str
    identity: str
    before: str
    after: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """What happened between two snapshots of one database."""

    gone: tuple[Gone, ...]
    added: tuple[CatalogObject, ...]
    changed: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.gone or self.added or self.changed)


def compare(before: Catalog, after: Catalog) -> Difference:
    """What went, came and changed. Columns of tables that stayed are objects of their own here."""
    gone_columns = dict(_gone_columns(before, after))
    gone = [_gone(item, before, after, gone_columns) for item in before if item.address not in after.objects]
    gone.extend(gone_columns.values())
    added = [item for item in after if item.address not in before.objects]
    changed = list(_changes(before, after))
    return Difference(
        tuple(sorted(gone, key=_order)), tuple(sorted(added, key=_order)), tuple(sorted(changed, key=_order))
    )


def _order(item: Gone | CatalogObject | Change) -> tuple[str, str]:
    return (item.type, item.identity)


def _gone_columns(before: Catalog, after: Catalog) -> Iterable[tuple[tuple[int, int], Gone]]:
    for item in before:
        now = after.get(item.address)
        if now is None:
            continue
        for number, (name, _definition) in item.columns.items():
            if number not in now.columns:
                identity = f"{item.identity}.{name}"
                yield (
                    (item.oid, number),
                    Gone("table column", identity, column_address(item.oid, bare_name(name)), None),
                )


def _gone(item: CatalogObject, before: Catalog, after: Catalog, columns: Mapping[tuple[int, int], Gone]) -> Gone:
    for catalog, oid, column in item.owners:
        owner = before.get((catalog, oid))
        if owner is not None and owner.address not in after.objects:
            return Gone(item.type, item.identity, item.address, item.kind, owner.address, owner.identity)
        if (oid, column) in columns:
            held_by = columns[oid, column]
            return Gone(item.type, item.identity, item.address, item.kind, held_by.address, held_by.identity)
    return Gone(item.type, item.identity, item.address, item.kind)


def column_address(relation: int, name: str) -> Address:
    """The address of a column, by its bare name: a column has no oid."""
    return (f"{COLUMN}{name}", relation)


def bare_name(name: str) -> str:
    """The bare name of an identifier as PostgreSQL writes it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _changes(before: Catalog, after: Catalog) -> Iterable[Change]:
    for item in before:
        now = after.get(item.address)
        if now is None:
            continue
        if (item.identity, item.definition) != (now.identity, now.definition):
            yield Change(
                item.type, item.identity, f"{item.identity}: {item.definition}", f"{now.identity}: {now.definition}"
            )
        for number, (name, definition) in item.columns.items():
            current = now.columns.get(number)
            if current is not None and current != (name, definition):
                identity = f"{item.identity}.{name}"
                yield Change("table column", identity, f"{name} {definition}", " ".join(current))
        for number in now.columns.keys() - item.columns.keys():
            name, definition = now.columns[number]
            yield Change("table column", f"{now.identity}.{name}", "", f"{name} {definition}")


def as_text(catalog: Catalog) -> str:
    """The catalog as stable lines, for a diff or a file beside a backup."""
    lines = [json.dumps([item.type, item.identity, item.definition, sorted(item.columns.values())]) for item in catalog]
    return "\n".join(sorted(lines)) + "\n"


SCHEMA_FILE = "schema.txt"

#: 'a'::character varying and the like, one after the other.
_ELEMENT = r"'(?:[^']|'')*'::[a-z ]+"
_CAST_ARRAY = re.compile(rf"\(ARRAY\[({_ELEMENT}(?:, {_ELEMENT})*)\]\)::([a-z ]+)\[\]")


def schema_text(cursor: Cursor) -> str:
    """The definitions of the connected database as lines that are the same in a restored one; roles are the cluster's.

    A varchar column that is compared with a list is the one definition that PostgreSQL writes in another way after a
    restore: it casts the elements then, not the list.
    """
    return portable_text(snapshot(cursor))


def portable_text(catalog: Catalog) -> str:
    """What :func:`schema_text` gives, of a catalog that was read already."""
    own = {address: _normalised(item) for address, item in catalog.objects.items() if item.catalog != "pg_authid"}
    return as_text(Catalog(own))


def lines_by_object(text: str) -> dict[tuple[str, str], str]:
    """Lines of :func:`schema_text` by type and identity."""
    found = {}
    for line in text.splitlines():
        kind, identity, *_rest = json.loads(line)
        found[str(kind), str(identity)] = line
    return found


def _normalised(item: CatalogObject) -> CatalogObject:
    columns = {number: (name, _cast_elements(text)) for number, (name, text) in item.columns.items()}
    return dataclasses.replace(item, definition=_cast_elements(item.definition), columns=columns)


def _cast_elements(definition: str) -> str:
    return _CAST_ARRAY.sub(
        lambda match: "ARRAY[" + re.sub(_ELEMENT, lambda each: f"({each[0]})::{match[2]}", match[1]) + "]", definition
    )
