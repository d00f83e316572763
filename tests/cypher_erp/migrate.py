# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applies the UP sections of the Cypher ERP migrations, one transaction a migration."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import psycopg2

MIGRATIONS_DIR = Path(__file__).resolve().parent / "migrations"
DOWN_MARKER = "-- DOWN (Rollback)"

LEDGER_TABLE = """
CREATE TABLE IF NOT EXISTS public.schema_migrations (
    version text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


def migration_files(folder: str | os.PathLike[str] = MIGRATIONS_DIR) -> dict[str, Path]:
    """Return the migrations of a folder, version to file, oldest first."""
    return {path.name.split("-", 1)[0]: path for path in sorted(Path(folder).glob("[0-9]*-*.sql"))}


def split_migration(path: Path) -> tuple[str, str]:
    """Return the UP and the DOWN section of a migration file.

    The DOWN section starts with its marker line. Raises ValueError when the file has no marker line, or two.
    """
    text = path.read_text(encoding="utf-8")
    up, *downs = text.split("\n" + DOWN_MARKER + "\n")
    if len(downs) != 1:
        raise ValueError(f"{path} has {len(downs)} lines {DOWN_MARKER!r}, expected one")
    return up + "\n", DOWN_MARKER + "\n" + downs[0]


def apply(
    connection: Any,
    upto: str = "0006",
    first: str = "0001",
    folder: str | os.PathLike[str] = MIGRATIONS_DIR,
    ledger: bool = False,
) -> list[str]:
    """Apply the migrations from `first` to `upto`, both included, and return their versions.

    With `ledger`, each one is also written down in public.schema_migrations, in its own transaction. Raises
    psycopg2.Error when a migration fails; those before it stay applied.
    """
    chosen = {version: path for version, path in migration_files(folder).items() if first <= version <= upto}
    if upto not in chosen:
        raise ValueError(f"no migration {upto} from {first} on in {folder}")
    for version, path in chosen.items():
        # A psycopg2 connection as context manager is one transaction, autocommit or not.
        with connection, connection.cursor() as cursor:
            cursor.execute(split_migration(path)[0])
            if ledger:
                cursor.execute(LEDGER_TABLE)
                cursor.execute("INSERT INTO public.schema_migrations (version) VALUES (%s)", (version,))
    return list(chosen)


def connect_from_environment(application_name: str) -> Any:
    """Connect with DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD; without the last, libpq finds the password."""
    return psycopg2.connect(
        host=os.environ.get("DB_HOST", "localhost"),
        port=os.environ.get("DB_PORT", "5432"),
        dbname=os.environ.get("DB_NAME", "cypher_erp"),
        user=os.environ.get("DB_USER", "postgres"),
        password=os.environ.get("DB_PASSWORD"),
        application_name=application_name,
    )


def main() -> None:
    """Command line: python -m tests.cypher_erp.migrate --upto 0003."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upto", default="0006", help="last version to apply")
    parser.add_argument("--first", default="0001", help="first version to apply")
    parser.add_argument("--folder", default=MIGRATIONS_DIR, help="folder of the migrations")
    parser.add_argument("--ledger", action="store_true", help="keep public.schema_migrations")
    options = parser.parse_args()
    connection = connect_from_environment("cypher-erp migrate")
    try:
        print("applied", *apply(connection, options.upto, options.first, options.folder, options.ledger))
    finally:
        connection.close()


if __name__ == "__main__":
    main()
