# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server has what a backup needs to be restored: cluster, room, connections, locale, extensions, roles, privileges."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from . import clone, server_space
from .client_programs import Wanted, find_programs
from .cluster_roles import described_roles, missing_roles
from .database_properties import Properties, read_properties
from .readiness import megabytes, named, refuse_full_place
from .restore_request import ANOTHER, CannotRestore, RestoreReadiness
from .server import inspect_target

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg2.extensions

    from .manifest import Manifest
    from .restore_request import RestoreRequest

#: Below this a second worker costs more than it saves.
ONE_JOB_BELOW_BYTES = 64 * 1024 * 1024
MOST_JOBS = 4
#: The one that holds the lock and creates the database, the comparison, and pg_restore itself beside its workers.
CONNECTIONS_BESIDE_WORKERS = 3
SPACE_FLOOR_BYTES = 32 * 1024 * 1024
#: Size of a restored database by that of an archive without compression, where the manifest does not tell the database's.
BYTES_BY_ARCHIVE = 2
BYTES_BY_COMPRESSED_ARCHIVE = 10


def check_server(
    request: RestoreRequest,
    manifest: Manifest,
    connection: psycopg2.extensions.connection,
    cursor: psycopg2.extensions.cursor,
) -> RestoreReadiness:
    """Refuse what the server cannot do. Only reads.

    :param connection: to the maintenance database.
    :raises Refused: with what is missing and the setting or command that resolves it.
    """
    found = inspect_target(connection, dataclasses.replace(request.settings, dbname=request.maintenance_db))
    target = dataclasses.replace(found, database=request.settings.dbname)
    if manifest.system_identifier != target.system_identifier:
        raise CannotRestore(
            f"The backup {manifest.id} is of the cluster {manifest.system_identifier}, and this is {target.system_identifier}. "
            f"Correct rollback_db_host and rollback_db_port. Or: {ANOTHER}"
        )
    facts = _Facts.read(cursor, request.settings.dbname)
    properties, warnings = _properties(cursor, request, manifest, facts)
    estimated, free = _check_space(cursor, request, manifest, facts)
    needs = _Needs(request, manifest, facts, properties)
    tools, jobs = None, 1
    versions: dict[str, str] = {}
    if manifest.provider == clone.PROVIDER:
        clone.find(cursor, manifest)
    else:
        wanted = Wanted(target.server_major, request.bin_dir, request.place, request.require_patched)
        tools = find_programs(wanted, request.settings, target.system_identifier, request.maintenance_db)
        refuse_full_place(tools, sum(entry.bytes for entry in manifest.files))
        jobs, job_warnings = _jobs(request, estimated, facts)
        warnings += [*tools.warnings, *job_warnings, *_check_locale(cursor, needs)]
        versions = _check_extensions(cursor, manifest)
    missing = _check_roles(cursor, needs)
    _check_privileges(cursor, needs, missing)
    warnings += _roles_warnings(manifest, missing)
    if free is None:
        warnings.append(server_space.NOT_KNOWN)
    return RestoreReadiness(
        tools,
        jobs,
        manifest,
        target,
        estimated,
        free,
        properties,
        tuple(missing),
        versions,
        facts.superuser,
        tuple(warnings),
    )


_FACTS = """
SELECT r.rolname::text, r.rolsuper, r.rolcreatedb, r.rolcreaterole,
       pg_catalog.current_setting('max_connections')::int
           - CASE WHEN r.rolsuper THEN 0 ELSE pg_catalog.current_setting('superuser_reserved_connections')::int END
           - (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'),
       CASE WHEN r.rolsuper THEN NULL ELSE nullif(r.rolconnlimit, -1)
           - (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid) END,
       (SELECT setting::bigint * 1048576 FROM pg_catalog.pg_settings WHERE name = 'max_wal_size'),
       (SELECT oid FROM pg_catalog.pg_database WHERE datname = %s),
       (SELECT CASE WHEN pg_catalog.has_database_privilege(oid, 'CONNECT') THEN pg_catalog.pg_database_size(oid) END
          FROM pg_catalog.pg_database WHERE datname = %s)
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""


@dataclasses.dataclass(frozen=True)
class _Facts:
    """The role and the server."""

    user: str
    superuser: bool
    createdb: bool
    createrole: bool
    free_slots: int
    free_slots_of_role: int | None
    max_wal_bytes: int
    live_oid: int | None
    live_bytes: int | None

    @classmethod
    def read(cls, cursor: psycopg2.extensions.cursor, live: str) -> _Facts:
        cursor.execute(_FACTS, (live, live))
        return cls(*cursor.fetchall()[0])


@dataclasses.dataclass(frozen=True)
class _Needs:
    """What has to be there, and what is."""

    request: RestoreRequest
    manifest: Manifest
    facts: _Facts
    properties: Properties | None


def _properties(
    cursor: psycopg2.extensions.cursor, request: RestoreRequest, manifest: Manifest, facts: _Facts
) -> tuple[Properties | None, list[str]]:
    """What the restored database gets, and a warning where the backup does not tell."""
    if manifest.properties:
        return Properties.from_dict(manifest.properties), []
    live = request.settings.dbname
    if facts.live_oid is not None:
        warning = f"The backup {manifest.id} does not record the database's owner, privileges and settings: those that {live} has now are taken."
        return read_properties(cursor, live), [warning]
    return None, [
        (
            f"The backup {manifest.id} does not record the database's owner, privileges and settings, and {live} is gone: "
            f"the restored database belongs to {facts.user} and has the server's defaults."
        )
    ]


def _check_space(
    cursor: psycopg2.extensions.cursor, request: RestoreRequest, manifest: Manifest, facts: _Facts
) -> tuple[int, int | None]:
    """Room for the new database and for the log of writing it, which the server recycles beyond max_wal_size."""
    free = server_space.free_bytes(cursor, request.settings, request.server_free_bytes)
    if manifest.provider == clone.PROVIDER:
        return 0, free
    factor = BYTES_BY_ARCHIVE if manifest.compression == "none" else BYTES_BY_COMPRESSED_ARCHIVE
    size = manifest.database_bytes or max(manifest.bytes * factor, facts.live_bytes or 0)
    estimated = size + min(size, facts.max_wal_bytes) + SPACE_FLOOR_BYTES
    if free is not None and free < estimated:
        raise CannotRestore(
            f"Restoring {manifest.id} beside the present database may need {megabytes(estimated)} on the server, and "
            f"{megabytes(free)} are free. Make room there; where the number is wrong, correct rollback_server_free_bytes.",
            estimated_bytes=estimated,
            free_bytes=free,
        )
    return estimated, free


def _jobs(request: RestoreRequest, estimated: int, facts: _Facts) -> tuple[int, list[str]]:
    """Workers of pg_restore, fewer where the server has no connections left for them."""
    wanted = request.jobs or (1 if estimated < ONE_JOB_BELOW_BYTES else min(len(os.sched_getaffinity(0)), MOST_JOBS))
    limits = [facts.free_slots, facts.free_slots_of_role]
    free = min(limit for limit in limits if limit is not None)
    room = free - CONNECTIONS_BESIDE_WORKERS
    if room < 1:
        raise CannotRestore(
            f"The server has {max(free, 0)} free connections, a restore needs {CONNECTIONS_BESIDE_WORKERS + 1}. "
            "End some sessions, or raise max_connections or the role's connection limit."
        )
    if wanted > room:
        return room, [f"The server has {free} free connections: pg_restore runs with {room} jobs instead of {wanted}."]
    return wanted, []


_LOCALE_KNOWN = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datcollate = %(name)s OR datctype = %(name)s)
    OR EXISTS (SELECT FROM pg_catalog.pg_collation WHERE %(name)s IN (collname, collcollate, collctype))
    OR %(name)s IN ('C', 'POSIX')
"""


def _check_locale(cursor: psycopg2.extensions.cursor, needs: _Needs) -> list[str]:
    """Encoding, provider and tablespace of the database have to be there; a locale that is not listed is a warning."""
    wanted, warnings = needs.properties, []
    if wanted is None:
        return []
    cursor.execute("SELECT pg_catalog.pg_char_to_encoding(%s) >= 0", (wanted.encoding,))
    if not cursor.fetchall()[0][0]:
        raise CannotRestore(f"The server has no encoding {wanted.encoding}, which {needs.manifest.id} needs. {ANOTHER}")
    if wanted.locale_provider == "icu":
        cursor.execute("SELECT EXISTS (SELECT FROM pg_catalog.pg_collation WHERE collprovider = 'i')")
        if not cursor.fetchall()[0][0]:
            raise CannotRestore(f"The server is built without ICU, which {needs.manifest.id} needs. {ANOTHER}")
    for name in sorted({wanted.collate, wanted.ctype}):
        cursor.execute(_LOCALE_KNOWN, {"name": name})
        if not cursor.fetchall()[0][0]:
            warnings.append(
                f"The server lists no locale {name}, which the database had. Where its operating system has none either, "
                "the restore fails with nothing changed: install it there."
            )
    _check_tablespace(cursor, wanted.tablespace, needs.facts.user)
    return warnings


def _check_tablespace(cursor: psycopg2.extensions.cursor, name: str, user: str) -> None:
    """The default one needs no privilege."""
    if name == "pg_default":
        return
    cursor.execute(
        "SELECT pg_catalog.has_tablespace_privilege(oid, 'CREATE') FROM pg_catalog.pg_tablespace WHERE spcname = %s",
        (name,),
    )
    row = cursor.fetchone()
    if row is None:
        raise CannotRestore(
            f"The server has no tablespace {name}, in which the database was. "
            f"Create it on the server: CREATE TABLESPACE {name} LOCATION '<folder of the server>'."
        )
    if not row[0]:
        raise CannotRestore(
            f"The role {user} may not use the tablespace {name}, in which the database was. Run "
            f"GRANT CREATE ON TABLESPACE {name} TO {user} as a superuser, or set rollback_db_user to a superuser."
        )


_EXTENSIONS = """
SELECT a.name::text, a.default_version,
       (SELECT pg_catalog.array_agg(v.version) FROM pg_catalog.pg_available_extension_versions v WHERE v.name = a.name)
  FROM pg_catalog.pg_available_extensions a WHERE a.name = ANY (%s)
"""


def _check_extensions(cursor: psycopg2.extensions.cursor, manifest: Manifest) -> dict[str, str]:
    """Every extension can be installed in its version; those for which that is not the default version."""
    wanted = {name: str(facts.get("version", "")) for name, facts in manifest.extensions.items()}
    cursor.execute(_EXTENSIONS, (list(wanted),))
    available = {name: (default, versions or []) for name, default, versions in cursor.fetchall()}
    lacking = [
        f"{name} {version}".strip()
        for name, version in sorted(wanted.items())
        if name not in available or (version and version not in available[name][1])
    ]
    if lacking:
        offered = [f"{name} {', '.join(sorted(available[name][1]))}" for name in sorted(available) if name in wanted]
        has = f" Of these names it offers: {'; '.join(offered)}." if offered else ""
        raise CannotRestore(
            f"The backup {manifest.id} needs extensions that the server cannot install: {named(lacking)}.{has} "
            "Install their packages, in these versions, on the server.",
            extensions=lacking,
        )
    return {name: version for name, version in wanted.items() if version and version != available[name][0]}


def _check_roles(cursor: psycopg2.extensions.cursor, needs: _Needs) -> list[str]:
    """Roles that are missing and may be created; otherwise a refusal that names them."""
    wanted = set(needs.manifest.roles) | (needs.properties.roles() if needs.properties else set())
    missing = missing_roles(cursor, wanted)
    if not missing:
        return []
    if needs.request.missing_roles != "create" or needs.request.purpose == "verify":
        raise CannotRestore(
            f"The backup {needs.manifest.id} needs roles that the server does not have: {named(missing)}. Create them, or have "
            "them made again from the backup, without passwords: -e missing_roles=create",
            roles=missing,
        )
    unknown = [name for name in missing if name not in described_roles(needs.manifest)]
    if unknown:
        raise CannotRestore(
            f"The roles {named(unknown)} are missing and {needs.manifest.id} does not tell what they were. "
            "Create them: CREATE ROLE <name>.",
            roles=unknown,
        )
    return missing


def _check_privileges(cursor: psycopg2.extensions.cursor, needs: _Needs, missing: Sequence[str]) -> None:
    """A superuser may do everything; otherwise PostgreSQL asks for CREATEDB and membership in every owner's role."""
    facts, user = needs.facts, needs.facts.user
    if facts.superuser:
        return
    if not facts.createdb:
        raise CannotRestore(
            f"The role {user} may not create databases. Run ALTER ROLE {user} CREATEDB as a superuser, or set "
            "rollback_db_user to a superuser."
        )
    if missing and not facts.createrole:
        raise CannotRestore(
            f"The role {user} may not create the missing roles {named(missing)}. Run ALTER ROLE {user} CREATEROLE as a "
            "superuser, or set rollback_db_user to a superuser.",
            roles=list(missing),
        )
    owners = sorted({needs.properties.owner} if needs.properties else set())
    cursor.execute(
        "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY (%s) AND NOT pg_catalog.pg_has_role(oid, 'MEMBER') ORDER BY 1",
        (owners,),
    )
    foreign = [name for (name,) in cursor.fetchall()]
    if foreign:
        raise CannotRestore(
            f"The role {user} may not give the restored database to {named(foreign)}, which owned it. Run "
            f"GRANT {foreign[0]} TO {user} as a superuser, or set rollback_db_user to a superuser.",
            roles=foreign,
        )


def _roles_warnings(manifest: Manifest, missing: Sequence[str]) -> list[str]:
    if not manifest.roles:
        return [f"The backup {manifest.id} does not record which roles it needs, so that was not checked."]
    logins = [name for name in missing if described_roles(manifest)[name].login]
    if not logins:
        return []
    return [
        (
            f"The roles {named(logins)} are made again without a password and cannot log in with one until you give it: "
            "ALTER ROLE <name> PASSWORD ..."
        )
    ]
