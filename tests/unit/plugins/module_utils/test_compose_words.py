# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is passed on of what Docker Compose 2.26 says of a project that it cannot read, and of what programs say in it."""

from __future__ import annotations

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.compose_words import compose_words

WARNING = 'time="2026-11-26T19:26:55Z" level=warning msg="The \\"S3cr3t\\" variable is not set. Defaulting to a blank string."\n'


@pytest.mark.parametrize(
    ("said", "passed_on"),
    [
        (
            "failed to read /p/.env: line 4: unterminated quoted value 'S3cr3t\n",
            "failed to read /p/.env: line 4: unterminated quoted value ***",
        ),
        # Older ones print all that follows.
        (
            'failed to read /p/.env: line 1: unterminated quoted value "S3cr3t\nA=S3cr3t\nB=S3cr3t\nC=1\n',
            "failed to read /p/.env: line 1: unterminated quoted value ***",
        ),
        (
            'failed to read /p/.env: line 2: unexpected character "!" in variable name "S3cr3t!x=5"\n',
            "failed to read /p/.env: line 2: unexpected character ***",
        ),
        (
            'line 2: unexpected character "\\n" in variable name near "S3cr3t\\nB=S3cr3t\\n"\n',
            "line 2: unexpected character ***",
        ),
        (
            'failed to read /p/.env: Invalid template: "S3cr3t${foo"\n',
            "failed to read /p/.env: Invalid template: ***",
        ),
        (
            "failed to read /p/.env: required variable S3cr3t is missing a value: S3cr3t\n",
            "failed to read /p/.env: required variable ***",
        ),
        (
            f"{WARNING}invalid interpolation format for services.db.environment.P.\nYou may need to escape any $ with another $.\nS3cr3t\n",
            "invalid interpolation format for services.db.environment.P. You may need to escape any $ with another $. ***",
        ),
        (
            "error while interpolating services.db.environment.P: required variable X is missing a value: S3cr3t\n",
            "error while interpolating services.db.environment.P: required variable ***",
        ),
        (
            'error while interpolating services.db.scale: failed to cast to expected type: strconv.Atoi: parsing "S3cr3t": invalid syntax\n',
            "error while interpolating services.db.scale: failed to cast to expected type: ***",
        ),
        ("Invalid containerPort: S3cr3t\n", "Invalid containerPort: ***"),
        ("invalid spec: S3cr3t:: empty section between colons\n", "invalid spec: ***"),
        ("confusing device mapping, please use long syntax: S3cr3t::::\n", "confusing device mapping ***"),
        (
            "decoding failed due to the following error(s):\n\nerror decoding 'services[db].mem_limit': invalid size: 'S3cr3t'\n",
            "decoding failed due to the following error(s): error decoding 'services[db].mem_limit': ***",
        ),
        (
            "decoding failed due to the following error(s):\n\n'services[db].scale' expected type 'uint16', value: 'S3cr3t'\n",
            "decoding failed due to the following error(s): 'services[db].scale' expected type 'uint16', ***",
        ),
        (
            "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `S3cr3t` into cli.named\n",
            "yaml: unmarshal errors: line 1: cannot unmarshal ***",
        ),
        ("yaml: cannot decode !!str `S3cr3t` as a !!int\n", "yaml: cannot decode ***"),
        ("yaml: unknown anchor 'S3cr3t' referenced\n", "yaml: unknown anchor ***"),
        (
            'yaml: unmarshal errors:\n  line 6: mapping key "S3cr3t" already defined at line 5\n',
            "yaml: unmarshal errors: line 6: mapping key ***",
        ),
        (
            'service "db" refers to undefined volume S3cr3t: invalid compose project\n',
            'service "db" refers to undefined volume ***',
        ),
        (
            'service "db" depends on undefined service "S3cr3t": invalid compose project\n',
            'service "db" depends on undefined service ***',
        ),
        (
            'COMPOSE_PARALLEL_LIMIT must be an integer (found: "S3cr3t")\n',
            "COMPOSE_PARALLEL_LIMIT must be an integer ***",
        ),
        (WARNING, ""),
        (f'{WARNING}service "db" is not running\n', 'service "db" is not running'),
    ],
)
def test_what_is_quoted_of_the_projects_files_is_withheld(said: str, passed_on: str) -> None:
    assert compose_words(said) == passed_on


@pytest.mark.parametrize(
    "said",
    [
        "yaml: line 5: mapping values are not allowed in this context",
        "validating /p/compose.yaml: services.db Additional property imgae is not allowed",
        "env file /p/web.env not found: stat /p/web.env: no such file or directory",
        "no configuration file provided: not found",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        'psql: error: FATAL: database "x" does not exist',
        'pg_restore: error: could not execute query: ERROR: invalid input syntax for type integer: "x"',
    ],
)
def test_what_quotes_nothing_is_told_as_it_is(said: str) -> None:
    assert compose_words(said) == said


def test_the_last_lines_are_told_without_passwords() -> None:
    assert compose_words("one\n\n two\t2\nthree\nfour://u:S3cr3t@h\n") == "two 2 three four://u:***@h"
    assert compose_words("one\ntwo\n", 1) == "two"
