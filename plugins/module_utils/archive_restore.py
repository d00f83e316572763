# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_restore of a backup's archive into an empty database."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
import typing as t

from .client_programs import start_programs
from .connection import ConnectionSettings, client_environment, connect
from .dump import ARCHIVE
from .restore_request import CannotRestore

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg2.extensions

    from .pg_tools import PgTools, Tools
    from .restore_request import RestoreReadiness, RestoreRequest

with contextlib.suppress(ImportError):
    from psycopg2.sql import SQL, Identifier, Literal

#: Index builds sort in this much memory, or in the eighth part of what the server says it has, shared by the workers.
MOST_WORK_MEMORY_BYTES = 256 * 1024 * 1024
#: Where event triggers can be turned off for a session; one on login would run at each of ours.
FIRST_WITH_EVENT_TRIGGERS_OFF = 17

_SCHEMA_ENTRY = re.compile(r"\d+; \d+ \d+ SCHEMA - ")
_MEMORY = """
SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')),
       pg_catalog.pg_size_bytes(pg_catalog.current_setting('effective_cache_size'))
"""


@dataclasses.dataclass(frozen=True)
class ArchiveRestore:
    """A restore of one archive into one database.

    :param dbname: the new, empty database.
    """

    request: RestoreRequest
    ready: RestoreReadiness
    dbname: str

    @property
    def archive(self) -> str:
        """Folder that pg_dump wrote."""
        return os.path.join(self.request.path, ARCHIVE)

    def run(self) -> None:
        """Run pg_restore to its end.

        :raises ToolFailed: with its own last lines.
        """
        with contextlib.ExitStack() as stack:
            settings = with_options(self.request.settings, self._options())
            env = stack.enter_context(client_environment(settings, self.dbname))
            programs, command = self._command()
            tools = stack.enter_context(start_programs(programs))
            if self.ready.extension_versions:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cypher-rollback-"))
                command.append(f"--use-list={self._extensions_first(tools, env, folder)}")
            tools.start([*command, f"--jobs={self.ready.jobs}", self.archive], env).wait()

    def _command(self) -> tuple[PgTools, list[str]]:
        if self.ready.tools is None:
            raise CannotRestore(f"The backup {self.ready.manifest.id} has no archive that pg_restore could read.")
        command = [
            self.ready.tools.pg_restore,
            "--exit-on-error",
            "--no-password",
            f"--dbname={_conninfo(self.dbname)}",
        ]
        # A subscription belongs to the cluster: a scratch database must not have a second one.
        return self.ready.tools, [*command, "--no-subscriptions"] if self.request.purpose == "verify" else command

    def _options(self) -> dict[str, str]:
        """Nothing waits for the disk until the end, and indexes are built in memory as far as there is room."""
        with session(self.request, self.ready, self.dbname) as connection, connection.cursor() as cursor:
            cursor.execute(_MEMORY)
            ((present, cache),) = cursor.fetchall()
        room = max(present, min(MOST_WORK_MEMORY_BYTES, cache // 8 // self.ready.jobs))
        return {
            "synchronous_commit": "off",
            "maintenance_work_mem": f"{room // 1024}kB",
            **session_options(self.ready),
        }

    def _extensions_first(self, tools: Tools, env: Mapping[str, str], folder: str) -> str:
        """Install extensions in the versions that the backup had, where the server's default is another.

        pg_restore creates them in the default version, unless they are there. They need their schemas, so these come first.

        :return: file with the list of what is left to restore.
        """
        _programs, command = self._command()
        lines = tools.start([command[0], "--list", self.archive], env).wait().splitlines()
        schemas, rest = os.path.join(folder, "schemas"), os.path.join(folder, "rest")
        for path, wanted in ((schemas, True), (rest, False)):
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines if bool(_SCHEMA_ENTRY.match(line)) is wanted)
        tools.start([*command, f"--use-list={schemas}", self.archive], env).wait()
        with session(self.request, self.ready, self.dbname) as connection, connection.cursor() as cursor:
            for name, version in self.ready.extension_versions.items():
                self._install(cursor, name, version)
        return rest

    def _install(self, cursor: psycopg2.extensions.cursor, name: str, version: str) -> None:
        schema = self.ready.manifest.extensions[name].get("schema", "")
        parts = [SQL("CREATE EXTENSION IF NOT EXISTS {}").format(Identifier(name))]
        if schema:
            parts.append(SQL("SCHEMA {}").format(Identifier(schema)))
        cursor.execute(SQL(" ").join([*parts, SQL("VERSION {} CASCADE").format(Literal(version))]))


def _conninfo(dbname: str) -> str:
    """As a connection string, because a bare name with an equals sign in it would be taken for one."""
    escaped = dbname.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def with_options(settings: ConnectionSettings, options: Mapping[str, str]) -> ConnectionSettings:
    """The settings with start-up options, which go before those of the role and of the database."""
    given = str(settings.connect_params.get("options", ""))
    added = " ".join(f"-c {name}={value}" for name, value in options.items())
    return dataclasses.replace(
        settings, connect_params={**settings.connect_params, "options": f"{given} {added}".strip()}
    )


def session_options(ready: RestoreReadiness) -> dict[str, str]:
    """What every session in the restored database needs, whatever the role's own settings are."""
    options = {"default_transaction_read_only": "off"}
    if ready.is_superuser and ready.target.server_major >= FIRST_WITH_EVENT_TRIGGERS_OFF:
        options["event_triggers"] = "off"
    return options


@contextlib.contextmanager
def session(request: RestoreRequest, ready: RestoreReadiness, dbname: str) -> Iterator[psycopg2.extensions.connection]:
    """A connection to the restored database, outside transactions and without limits."""
    connection = connect(
        with_options(request.settings, session_options(ready)),
        application_name="cypher.rollback restore",
        lock_timeout="0",
        statement_timeout="0",
        search_path=("pg_catalog",),
        dbname=dbname,
    )
    with contextlib.closing(connection):
        connection.autocommit = True
        yield connection
