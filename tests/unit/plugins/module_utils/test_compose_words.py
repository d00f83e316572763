# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that Docker Compose quotes of a project's files are not repeated; the sentences are those of version 2.26."""

from __future__ import annotations

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.compose_words import HIDDEN, last_lines

UNSET = (
    'time="2026-11-26T18:53:26Z" level=warning msg="The \\"{}\\" variable is not set. Defaulting to a blank string."'
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'failed to read /srv/app/.env: line 4: unterminated quoted value "S3cr3t',
            f"failed to read /srv/app/.env: line 4: unterminated quoted value {HIDDEN}",
        ),
        (
            'failed to read /srv/app/.env: Invalid template: "${S3cr3t"',
            f"failed to read /srv/app/.env: Invalid template: {HIDDEN}",
        ),
        (
            'line 2: unexpected character "$" in variable name near "S3cr3t$\\nOTHER=1"',
            f'line 2: unexpected character "$" in variable name near {HIDDEN}',
        ),
        (
            "invalid interpolation format for services.web.environment.A.\nYou may need to escape any $ with another $.\n${S3cr3t\nS3cr3t",
            f"invalid interpolation format for services.web.environment.A. You may need to escape any $ with another $. {HIDDEN}",
        ),
        (f"{UNSET.format('S3cr3t')}\nno such service: web", "no such service: web"),
        (UNSET.format("S3cr3t"), UNSET.format("S3cr3t").replace('\\"S3cr3t\\', f'\\"{HIDDEN}')),
        (UNSET.format("ERP_DB_PORT"), UNSET.format("ERP_DB_PORT")),
        ("postgresql://erp:S3cr3t@db/erp cannot be reached", "postgresql://erp:***@db/erp cannot be reached"),
        ("one\n\n two\nthree\nfour\n", "two three four"),
        ("", ""),
    ],
)
def test_a_value_that_is_quoted_is_not_repeated(said: str, told: str) -> None:
    assert last_lines(said) == told
    assert "S3cr3t" not in last_lines(said)
