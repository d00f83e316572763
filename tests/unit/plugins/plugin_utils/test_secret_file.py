# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret in the file that an environment variable names."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.cypher.rollback.plugins.lookup.secret_file import read_secret

if t.TYPE_CHECKING:
    from pathlib import Path

NAME = "ROLLBACK_DB_PASSWORD_FILE"


@pytest.mark.parametrize(
    ("content", "secret"), [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), (" a b \r\n", " a b "), ("", "")]
)
def test_the_secret_is_the_text_without_the_last_line_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, secret: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes(content.encode())
    monkeypatch.setenv(NAME, str(path))
    assert read_secret(NAME) == secret


def test_without_the_variable_there_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert read_secret(NAME) == ""
    monkeypatch.setenv(NAME, "")
    assert read_secret(NAME) == ""


def test_a_file_that_cannot_be_read_is_named_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, str(tmp_path / "none"))
    with pytest.raises(
        AnsibleLookupError, match=f"{NAME} names the file {tmp_path}/none, which cannot be read: No such file"
    ):
        read_secret(NAME)
    (tmp_path / "none").write_bytes(b"\xff\xfe")
    with pytest.raises(AnsibleLookupError, match="it is not UTF-8") as raised:
        read_secret(NAME)
    assert "\\xff" not in str(raised.value)
