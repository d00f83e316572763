# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a restored database holds what the manifest of its backup says."""

from __future__ import annotations

import os
import typing as t

from . import catalog
from . import content as contents

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg2.extensions

    from .catalog import Cursor
    from .content import Table
    from .manifest import Manifest

OBJECTS_SHOWN = 5

#: Partitioned tables have no rows of their own; members of extensions are the extension's matter.
_PARTITIONED = """
SELECT format('%I.%I', n.nspname, c.relname), array(SELECT t.relid::bigint FROM pg_partition_tree(c.oid) t WHERE t.isleaf)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p'
"""
_OF_EXTENSIONS = "SELECT objid::bigint FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e'"


def compare_with_manifest(
    connection: psycopg2.extensions.connection, manifest: Manifest, folder: str = ""
) -> list[str]:
    """What differs from the manifest, a sentence each; empty where everything is as it was.

    Rows of every table, their hashes where the backup has them, sequences, large objects, and whether every object is
    there. What a materialised view holds is no matter: a restore refreshes it. Settings of the session are changed.

    :param connection: to the restored database; one without other transactions under way.
    :param folder: the backup's folder; objects are compared with the ``schema.txt`` there, where it is.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute(contents.SETTINGS)
        found = _row_problems(cursor, manifest, connection.server_version)
        found += _sequence_problems(cursor, manifest)
        found += _large_object_problems(cursor, manifest)
        found += _definition_problems(cursor, manifest, folder)
    return found


def not_compared(manifest: Manifest) -> list[str]:
    """What the backup has no record of, so that a comparison says nothing about it; a sentence, if any."""
    missing = []
    if not any("hash" in facts for facts in manifest.tables.values()):
        missing.append("the content of rows (they were counted)")
    if "sequences" not in manifest.content:
        missing.append("sequences")
    if "large_objects" not in manifest.content:
        missing.append("the content of large objects (they were counted)")
    if not _has_schema(manifest):
        missing.append("definitions")
    if not missing:
        return []
    return [
        f"The backup {manifest.id} has no record of {', '.join(missing)}, so the restored ones were not compared with it."
    ]


def _row_problems(cursor: psycopg2.extensions.cursor, manifest: Manifest, server_version: int) -> list[str]:
    tables = contents.read_tables(cursor)
    recorded = manifest.tables
    hashed = [table for table in tables if "hash" in recorded.get(table.identity, {}) and "seed" in manifest.content]
    counted = [table for table in tables if table not in hashed]
    sums = contents.read_rows(cursor, hashed, int(manifest.content["seed"]), server_version) if hashed else {}
    rows = {oid: number for oid, (number, _total) in sums.items()} | _count(cursor, counted)
    found = [
        f"The rows of {table.identity} are as many as in the backup, {rows[table.oid]}, and have another content."
        for table in hashed
        if rows[table.oid] == recorded[table.identity]["rows"]
        and str(sums[table.oid][1]) != str(recorded[table.identity]["hash"])
    ]
    present = {table.identity: rows[table.oid] for table in tables} | _partitioned(cursor, rows)
    for name, facts in recorded.items():
        if name not in present:
            found.append(f"{name} is in the backup and not in the restored database.")
        elif present[name] != facts["rows"]:
            found.append(f"{name} has {facts['rows']} rows in the backup and {present[name]} in the restored database.")
    cursor.execute(_OF_EXTENSIONS)
    members = {oid for (oid,) in cursor.fetchall()}
    found += [
        f"{table.identity} is in the restored database and not in the backup."
        for table in tables
        if table.identity not in recorded and table.oid not in members
    ]
    return sorted(found)


def _count(cursor: Cursor, tables: Sequence[Table]) -> dict[int, int]:
    rows: dict[int, int] = {}
    for batch in contents.in_batches(tables):
        cursor.execute(
            " UNION ALL ".join(f"SELECT {table.oid}::bigint, count(*) FROM ONLY {table.identity}" for table in batch)
        )
        rows.update(dict(t.cast("list[tuple[int, int]]", cursor.fetchall())))
    return rows


def _partitioned(cursor: Cursor, rows: Mapping[int, int]) -> dict[str, int]:
    cursor.execute(_PARTITIONED)
    return {name: sum(rows.get(leaf, 0) for leaf in leaves) for name, leaves in cursor.fetchall()}


def _sequence_problems(cursor: Cursor, manifest: Manifest) -> list[str]:
    if "sequences" not in manifest.content:
        return []
    recorded = {name: (int(last), bool(called)) for name, (last, called) in manifest.content["sequences"].items()}
    present = contents.read_sequences(cursor)
    return [
        f"The sequence {name} stands at {_stands(recorded.get(name))} in the backup and at {_stands(present.get(name))} in the restored database."
        for name in contents.differences(recorded, present)
    ]


def _stands(sequence: tuple[int, bool] | None) -> str:
    if sequence is None:
        return "nothing (there is none)"
    last, called = sequence
    return f"{last}{'' if called else ', not yet handed out'}"


def _large_object_problems(cursor: Cursor, manifest: Manifest) -> list[str]:
    cursor.execute("SELECT count(*) FROM pg_largeobject_metadata")
    ((number,),) = cursor.fetchall()
    if number != manifest.large_objects:
        return [f"The backup has {manifest.large_objects} large objects and the restored database {number}."]
    if "large_objects" not in manifest.content or "seed" not in manifest.content:
        return []
    pieces, total = contents.read_large_objects(cursor, int(manifest.content["seed"]))
    if [pieces, str(total)] == [int(manifest.content["large_objects"][0]), str(manifest.content["large_objects"][1])]:
        return []
    return ["The large objects are as many as in the backup and have another content."]


# --- definitions ------------------------------------------------------------------------------------------------------


def definition_remarks(connection: psycopg2.extensions.connection, manifest: Manifest, folder: str) -> list[str]:
    """Objects that are there and that PostgreSQL describes in other words than in the backup; one sentence, if any.

    That is no fault by itself: it may write an expression in another way once it was read from a dump.
    """
    with connection.cursor() as cursor:
        recorded, present = _definitions(cursor, manifest, folder)
    changed = sorted(key for key in recorded.keys() & present.keys() if recorded[key] != present[key])
    if not changed:
        return []
    return [
        (
            f"{len(changed)} objects are described in other words than in the backup {manifest.id}: {_shown(changed)} Compare them "
            f"with {os.path.join(folder, catalog.SCHEMA_FILE)} where that is unexpected."
        )
    ]


def _definition_problems(cursor: psycopg2.extensions.cursor, manifest: Manifest, folder: str) -> list[str]:
    recorded, present = _definitions(cursor, manifest, folder)
    lost, added = sorted(recorded.keys() - present.keys()), sorted(present.keys() - recorded.keys())
    found = []
    if lost:
        found.append(f"{len(lost)} objects of the backup are not in the restored database: {_shown(lost)}")
    if added:
        found.append(f"{len(added)} objects of the restored database are not in the backup: {_shown(added)}")
    return found


_Key = tuple[str, str]


def _definitions(
    cursor: psycopg2.extensions.cursor, manifest: Manifest, folder: str
) -> tuple[dict[_Key, str], dict[_Key, str]]:
    """Line of each object by type and identity, of the backup and of the database; nothing where the backup has none."""
    if not folder or not _has_schema(manifest):
        return {}, {}
    with open(os.path.join(folder, catalog.SCHEMA_FILE), encoding="utf-8") as file:
        recorded = file.read()
    return catalog.lines_by_object(recorded), catalog.lines_by_object(catalog.schema_text(cursor))


def _has_schema(manifest: Manifest) -> bool:
    return any(entry.path == catalog.SCHEMA_FILE for entry in manifest.files)


def _shown(objects: Sequence[_Key]) -> str:
    more = f" and {len(objects) - OBJECTS_SHOWN} more" if len(objects) > OBJECTS_SHOWN else ""
    return ", ".join(f"{kind} {identity}" for kind, identity in objects[:OBJECTS_SHOWN]) + more + "."
