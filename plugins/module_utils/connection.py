# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a server is reached: by the driver, and by the PostgreSQL client programs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import typing as t

from .errors import Refused, RollbackError

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

try:
    import psycopg2
    import psycopg2.errors
    import psycopg2.extensions

    HAS_PSYCOPG2 = True
except ImportError:
    HAS_PSYCOPG2 = False

#: Whole text of a setting goes into ``options=-c name=value``: libpq splits it at blanks and backslashes.
_OPTIONS_ESCAPES = str.maketrans({"\\": "\\\\", " ": "\\ "})

CONNECT_TIMEOUT_SECONDS = 10

#: Of a line in a password file: any host, port, database and user.
PASSFILE_PREFIX = "*:*:*:*:"

#: A server that went away without a word (its machine, its network) is noticed after a minute, not after two hours.
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}


class CannotConnect(Refused):
    """The server did not let us in, or did not answer."""


@dataclasses.dataclass(frozen=True)
class ConnectionSettings:
    """Where the database is. An empty value leaves the matter to libpq's own rules (passfile, peer, service)."""

    host: str = ""
    port: int = 5432
    dbname: str = ""
    user: str = ""
    password: str = dataclasses.field(default="", repr=False)
    sslmode: str = "prefer"
    ca_cert: str = ""
    connect_params: Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    def describe(self) -> str:
        """The target in a message, never with a password."""
        return f"database {self.dbname} on {self.host or 'the local socket'}:{self.port} as {self.user or 'the current user'}"


def login_argument_spec() -> dict[str, dict[str, t.Any]]:
    """The options that every database module shares, named as in community.postgresql."""
    return {
        "login_host": {"type": "str", "default": ""},
        "login_port": {"type": "int", "default": 5432},
        "login_db": {"type": "str", "required": True},
        "login_user": {"type": "str", "default": "postgres"},
        "login_password": {"type": "str", "default": "", "no_log": True},
        "ssl_mode": {
            "type": "str",
            "default": "prefer",
            "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
        },
        "ca_cert": {"type": "path"},
        "connect_params": {"type": "dict", "default": {}},
    }


def settings_from(params: Mapping[str, t.Any]) -> ConnectionSettings:
    """Connection settings from a module's parameters."""
    return ConnectionSettings(
        host=params["login_host"] or "",
        port=params["login_port"],
        dbname=params["login_db"],
        user=params["login_user"] or "",
        password=params["login_password"] or "",
        sslmode=params["ssl_mode"],
        ca_cert=params["ca_cert"] or "",
        connect_params=params["connect_params"] or {},
    )


def _server_options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value.translate(_OPTIONS_ESCAPES)}" for name, value in settings.items())


def _quoted_path(schemas: Sequence[str]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in schemas)


def _libpq_arguments(settings: ConnectionSettings, dbname: str | None) -> dict[str, t.Any]:
    arguments: dict[str, t.Any] = {
        "host": settings.host,
        "port": settings.port,
        "dbname": dbname or settings.dbname,
        "user": settings.user,
        "password": settings.password,
        "sslmode": settings.sslmode,
        "sslrootcert": settings.ca_cert,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        **KEEPALIVES,
    }
    arguments.update(settings.connect_params)
    return {name: value for name, value in arguments.items() if value not in ("", None)}


def connect(
    settings: ConnectionSettings,
    *,
    application_name: str = "cypher.rollback",
    lock_timeout: str | None = None,
    statement_timeout: str | None = None,
    search_path: Sequence[str] = (),
    dbname: str | None = None,
) -> psycopg2.extensions.connection:
    """Open a connection whose limits hold from its first moment.

    The limits are start-up options, so that a ``RESET`` or ``SET LOCAL`` inside a DOWN does not lose them for good
    (measured: a value from ``SET`` is lost by ``RESET``, one from the start packet survives).

    :param lock_timeout: a PostgreSQL duration such as ``5s``; ``None`` leaves the server's default.
    :param search_path: schemas in which unqualified names are resolved.
    :param dbname: another database of the same server.
    :raises CannotConnect: with libpq's own words, on one line.
    """
    limits = {"client_encoding": "UTF8"}
    if lock_timeout is not None:
        limits["lock_timeout"] = lock_timeout
    if statement_timeout is not None:
        limits["statement_timeout"] = statement_timeout
    if search_path:
        limits["search_path"] = _quoted_path(search_path)
    arguments = _libpq_arguments(settings, dbname)
    given = str(arguments.pop("options", ""))
    options = " ".join(part for part in (given, _server_options(limits)) if part)
    try:
        connection: psycopg2.extensions.connection = psycopg2.connect(
            application_name=application_name, options=options, **arguments
        )
    except psycopg2.Error as err:
        raise CannotConnect(_connect_message(settings, err)) from err
    connection.set_client_encoding("UTF8")
    return connection


def _connect_message(settings: ConnectionSettings, err: Exception) -> str:
    reason = " ".join(str(err).split())
    if "unsupported startup parameter" in reason:
        return (
            f"Cannot connect to {settings.describe()}: a connection pooler such as pgbouncer answers there ({reason}). "
            "Set rollback_db_host and rollback_db_port to the PostgreSQL server itself."
        )
    if "invalid value for parameter" in reason:
        return (
            f"Cannot connect to {settings.describe()}: {reason}. "
            "Correct rollback_lock_timeout or rollback_statement_timeout: a PostgreSQL duration such as 5s, 500ms or 2min."
        )
    return (
        f"Cannot connect to {settings.describe()}: {reason}. "
        "Check rollback_db_host, rollback_db_port, rollback_db_name, rollback_db_user and rollback_db_password."
    )


#: Measured: without the first one the backend of a killed client keeps its locks until its statement ends.
_OPTIONAL_LIMITS = ((140000, "SET client_connection_check_interval = '200ms'"), (170000, "SET transaction_timeout = 0"))


def optional_limits(connection: psycopg2.extensions.connection) -> str:
    """Statements that set the limits not every server has: by version, and the first also by its operating system.

    Each was tried. With autocommit they hold from here on, otherwise nothing of the try is left.
    """
    found = []
    for since, setting in _OPTIONAL_LIMITS:
        if connection.server_version < since:
            break
        with contextlib.suppress(psycopg2.errors.InvalidParameterValue):
            with connection.cursor() as cursor:
                cursor.execute(setting)
            found.append(setting)
        connection.rollback()
    return "; ".join(found)


@contextlib.contextmanager
def client_environment(
    settings: ConnectionSettings, dbname: str | None = None, folder: str | None = None
) -> Iterator[dict[str, str]]:
    """Environment for pg_dump, pg_restore and psql, with the password in a private passfile for as long as it is needed.

    Command lines are readable by every user of the host and PGPASSWORD is discouraged by PostgreSQL's manual, so neither is used.

    :param folder: private folder for the passfile, of which somebody takes care should this process be killed; ``None``: the
        system's own for temporary files.
    """
    names = {
        "host": "PGHOST",
        "port": "PGPORT",
        "dbname": "PGDATABASE",
        "user": "PGUSER",
        "sslmode": "PGSSLMODE",
        "sslrootcert": "PGSSLROOTCERT",
        "sslcert": "PGSSLCERT",
        "sslkey": "PGSSLKEY",
        "service": "PGSERVICE",
        "passfile": "PGPASSFILE",
        "options": "PGOPTIONS",
        "connect_timeout": "PGCONNECT_TIMEOUT",
    }
    inherited = {
        name: value for name, value in os.environ.items() if name != "PGPASSWORD" and not name.startswith("PGOPTIONS")
    }
    arguments = _libpq_arguments(settings, dbname)
    environment = {**inherited, "LC_ALL": "C.UTF-8", "PGAPPNAME": "cypher.rollback"}
    environment.update({names[key]: str(value) for key, value in arguments.items() if key in names})
    if not settings.password:
        yield environment
        return
    with tempfile.TemporaryDirectory(prefix="cypher-rollback-", dir=folder) as private:
        environment["PGPASSFILE"] = _write_passfile(private, settings.password)
        yield environment


def _write_passfile(folder: str, password: str) -> str:
    path = os.path.join(folder, "passfile")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as passfile:
        passfile.write(f"{PASSFILE_PREFIX}{escaped}\n")
    return path


@contextlib.contextmanager
def server_errors(kind: type[RollbackError], doing: str) -> Iterator[None]:
    """Turn an error of the server or the connection into one of ours.

    :param kind: class of the error to raise.
    :param doing: what was being done, as the object of "while".
    """
    try:
        yield
    except psycopg2.Error as err:
        said = " ".join(str(err).split()) or type(err).__name__
        raise kind(f"The server failed while {doing}: {said}", sqlstate=err.pgcode) from err
