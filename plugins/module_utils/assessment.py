# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The assessment of a database and its application: gathers the evidence and has it judged. Changes nothing.

A source that does not answer is evidence, never the end of the assessment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import typing as t

from . import ledger as ledgers
from . import sql
from .backup_catalog import CatalogRefused
from .catalog import snapshot
from .connection import CannotConnect, connect, server_errors
from .errors import Refused, RollbackError
from .health_evidence import collect_health
from .ledger import InferredLedger, TableLedger
from .log_evidence import collect_logs
from .migrations import find_migrations, resolve_version
from .names import Names
from .plan import Scripts
from .prometheus_evidence import collect_prometheus
from .query_timing import TimingRequest, time_queries
from .row_fall import measure_rows
from .selection import NoValidBackup, choose
from .server import inspect_target
from .severity import thresholds_from, verdict

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .backup_catalog import Entry
    from .connection import ConnectionSettings
    from .ledger import Ledger
    from .manifest import Manifest
    from .migrations import Migration
    from .server import Target

with contextlib.suppress(ImportError):
    import psycopg2

Measured = dict[str, t.Any]

#: The server answers and does not let this role in: whether it works for the application, nobody can say from here.
_SHUT_OUT = re.compile(
    r"authentication failed|no pg_hba\.conf entry|no password supplied|permission denied|certificate|"
    r"role \"[^\"]*\" does not exist|not permitted to log in|pooler|invalid (value|connection option|port|sslmode)",
    re.IGNORECASE,
)
#: What libpq and our own message add to the reason.
_ADVICE = re.compile(r"\s*Is the server running (on that host|locally).*$|\.? Check rollback_db_host,.*$", re.DOTALL)
_SILENT = "the database does not answer"


@dataclasses.dataclass(frozen=True)
class HostSources:
    """What can be asked from one host, beside the database."""

    host: str = ""
    log_sources: Sequence[Mapping[str, t.Any]] = ()
    log_window: float = 300
    log_baseline_window: float = 3600
    health_checks: Sequence[Mapping[str, t.Any]] = ()
    health_samples: int = 3
    health_interval: float = 1
    health_timeout: float = 5
    prometheus_url: str = ""
    prometheus_headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    prometheus_queries: Sequence[Mapping[str, t.Any]] = ()


@dataclasses.dataclass(frozen=True)
class AssessRequest:
    """What is assessed.

    :param settings: the database; ``None``: none is asked.
    :param backup_dir: folder of the backups whose newest manifest of before a migration is the baseline; empty: none.
    :param version: the migration in question; empty: the newest one that is applied.
    :param evidence: what this module measured on other hosts, each with ``host``, or with ``problem`` where it could not.
    :param migrations_dir: to know which migration is the newest that is applied; empty: that of the baseline.
    """

    settings: ConnectionSettings | None
    sources: HostSources
    thresholds: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    queries: Sequence[Mapping[str, str]] = ()
    critical_tables: Sequence[str] = ()
    search_path: Sequence[str] = ()
    runs: int = 5
    query_timeout: float = 10
    backup_dir: str = ""
    backup_key: str = dataclasses.field(default="", repr=False)
    system_identifier: str = ""
    version: str = ""
    evidence: Sequence[Mapping[str, t.Any]] = ()
    migrations_dir: str = ""
    ledger_table: str = ""
    ledger_column: str = "version"


def measure_host(sources: HostSources) -> Measured:
    """The evidence of one host: its logs, what answers from there, and Prometheus."""
    logs = collect_logs(sources.log_sources, sources.log_window, sources.log_baseline_window)
    health = (
        collect_health(sources.health_checks, sources.health_samples, sources.health_interval, sources.health_timeout)
        if sources.health_checks
        else []
    )
    prometheus = (
        collect_prometheus(
            sources.prometheus_url, sources.prometheus_headers, sources.prometheus_queries, sources.health_timeout
        )
        if sources.prometheus_url
        else []
    )
    own = {"host": sources.host} if sources.host else {}
    return {
        "logs": [{**entry, **own} for entry in logs],
        "health": [{**entry, **own} for entry in health],
        "prometheus": list(prometheus),
    }


def evidence_of_hosts(results: Iterable[Mapping[str, t.Any]]) -> list[Measured]:
    """The option ``evidence`` from the results of a loop over hosts; those that had nothing to look at are left out."""
    found: list[Measured] = []
    for result in results:
        host = str(result.get("__assess_host") or result.get("item") or "")
        if result.get("evidence"):
            found.append(dict(result["evidence"]))
        elif result.get("unreachable"):
            found.append({"host": host, "problem": f"the host cannot be reached: {_one_line(result.get('msg'))}"})
        elif not result.get("skipped"):
            found.append({"host": host, "problem": _one_line(result.get("msg")) or "the host gave no answer"})
    return found


def _one_line(text: t.Any) -> str:
    return " ".join(str(text or "").split()).removeprefix("Task failed: ").rstrip(".")


def assess(request: AssessRequest) -> dict[str, t.Any]:
    """Gather the evidence, and judge it.

    :returns: the verdict of :func:`severity.verdict` with ``version``, ``backup`` (the one with the baseline) and
        ``database_down``.
    :raises Refused: for thresholds that are none, and a server that is not the one meant.
    """
    limits = thresholds_from(request.thresholds)
    request = dataclasses.replace(request, version=_as_in_file(request))
    measured = _merged([measure_host(request.sources), *request.evidence])
    measured["unset"] = _unset(request)
    about: Measured = {"version": request.version, "backup": ""}
    if request.settings is not None:
        try:
            about = _measure_database(request, request.settings, measured)
        except CannotConnect as err:
            _note_down(measured, str(err))
    down = bool((measured.get("database") or {}).get("problem"))
    return {**verdict(measured, limits), **about, "database_down": down}


def _unset(request: AssessRequest) -> dict[str, str]:
    why = {"prometheus": "no rollback_prometheus_queries"} if request.sources.prometheus_url else {}
    return (
        why
        if request.settings is not None
        else {**why, "queries": "no database was asked", "rows": "no database was asked"}
    )


def _note_down(measured: Measured, said: str) -> None:
    """A database that cannot be reached is evidence; what should have been read from it was not measured."""
    reason = _ADVICE.sub("", said).rstrip(".")
    reason = reason[:1].lower() + reason[1:]
    shut_out = _SHUT_OUT.search(reason) is not None
    problem = "Nobody can say from here whether the database works" if shut_out else "The database does not answer"
    measured["database"] = {"problem": f"{problem}: {reason}.", "certain": not shut_out}
    for source in ("queries", "rows"):
        if not measured.get(source):
            measured["unset"][source] = _SILENT


def _merged(parts: Iterable[Mapping[str, t.Any]]) -> Measured:
    """The evidence of all hosts as one; a host that could not be asked is a log and a health check without an answer."""
    merged: Measured = {"queries": [], "rows": [], "logs": [], "health": [], "prometheus": []}
    for part in parts:
        for source, found in merged.items():
            found.extend(dict(entry) for entry in part.get(source) or [])
        if part.get("problem"):
            host, said = str(part.get("host") or ""), str(part["problem"])
            merged["logs"].append({"host": host, "name": "", "type": "", "problem": said})
            merged["health"].append(
                {"host": host, "name": "of this host", "priority": "P0", "status": "inconclusive", "message": said}
            )
    return merged


def _measure_database(request: AssessRequest, settings: ConnectionSettings, measured: Measured) -> Measured:
    """Times and rows, noted in ``measured``; the version in question and the backup with the baseline."""
    connection = connect(settings, application_name="cypher.rollback assess", search_path=request.search_path)
    with contextlib.closing(connection), server_errors(CannotConnect, "saying which one it is"):
        target = inspect_target(connection, settings, request.system_identifier)
    manifest, why = baseline(request, target)
    if request.queries:
        measured["queries"] = time_queries(
            TimingRequest(
                settings,
                request.queries,
                manifest.baseline if manifest else (),
                why or f"the backup {manifest.id if manifest else ''} has no baseline",
                request.search_path,
                request.runs,
                request.query_timeout,
            )
        )
    if request.critical_tables:
        measured["rows"] = _measured_rows(request, settings, manifest, why)
    measured["not_compared"] = why if request.queries or request.critical_tables else ""
    version = request.version or _newest_applied(request, settings) or (manifest.version if manifest else "")
    return {"version": version, "backup": manifest.id if manifest else ""}


def _measured_rows(
    request: AssessRequest, settings: ConnectionSettings, manifest: Manifest | None, why: str
) -> list[Measured]:
    try:
        rows = manifest.rows if manifest else None
        return measure_rows(settings, request.critical_tables, rows, request.search_path, why)
    except psycopg2.Error as err:
        raise CannotConnect(f"Connection to {settings.describe()} lost: {' '.join(str(err).split())}") from err


def baseline(request: AssessRequest, target: Target) -> tuple[Manifest | None, str]:
    """The manifest of the newest backup from before a migration, that of the version in question where there is one.

    Only the manifest is read, with its signature: an archive may be large, and is of no matter here.

    :returns: ``None`` with the reason, as a clause.
    """
    if not request.backup_dir:
        return None, "no backup_dir was given"

    def accept(entry: Entry) -> Entry:
        return dataclasses.replace(entry, valid=True)

    for version in dict.fromkeys((request.version, "")):
        try:
            choice = choose(request.backup_dir, target, version=version, key=request.backup_key, prove=accept)
        except NoValidBackup:
            continue
        except CatalogRefused as err:
            return None, str(err).rstrip(".")
        return choice.entry.manifest, ""
    return None, (
        f"{request.backup_dir} has no valid backup of {target.database} from before a migration; playbooks/backup.yml makes one "
        "before the next"
    )


# --- which migration --------------------------------------------------------------------------------------------------


def _as_in_file(request: AssessRequest) -> str:
    """The version as its file has it, ``0003`` for 3; as it was given where there is no such file."""
    if not request.version or not os.path.isdir(request.migrations_dir):
        return request.version
    try:
        return resolve_version(request.version, find_migrations(request.migrations_dir)).version
    except Refused:
        # The assessment does not depend on it; the runbook that does refuses it, in its own words.
        return request.version


def _newest_applied(request: AssessRequest, settings: ConnectionSettings) -> str:
    """The newest migration of which something is applied; empty where that is not known."""
    if not os.path.isdir(request.migrations_dir) or not (request.ledger_table or sql.HAS_PGLAST):
        return ""
    try:
        migrations = find_migrations(request.migrations_dir)
        connection = connect(settings, application_name="cypher.rollback assess", search_path=request.search_path)
        with contextlib.closing(connection), connection.cursor() as cursor:
            connection.set_session(readonly=True)
            return _newest(_ledger(request, cursor, migrations), migrations)
    except (RollbackError, psycopg2.Error):
        return ""


def _ledger(request: AssessRequest, cursor: t.Any, migrations: Sequence[Migration]) -> Ledger:
    if request.ledger_table:
        return TableLedger(cursor, request.ledger_table, request.ledger_column, migrations)
    return InferredLedger(Names(snapshot(cursor), cursor, request.search_path))


def _newest(ledger: Ledger, migrations: Sequence[Migration]) -> str:
    scripts = Scripts(accept_commented=True)
    for migration in reversed(migrations):
        if ledger.state(migration, scripts.readable(migration)).state in (ledgers.APPLIED, ledgers.PARTLY):
            return migration.version
    return ""
