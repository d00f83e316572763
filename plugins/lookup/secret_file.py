# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup of a secret in a file that an environment variable names, as a credential of AWX gives it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret_file
author:
  - the cypher.rollback authors (@cypher-rollback)
version_added: 1.0.0
short_description: Read a secret from the file that an environment variable names
description:
  - Reads a text file on the host that runs ansible-playbook. Its path is in an environment variable, as a credential of AWX, a
    container's secret or a service manager gives it.
  - Where the variable is not set, or the file is empty, the result is an empty text.
  - A line break at the end does not belong to the secret.
options:
  _terms:
    description: Name of one environment variable.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Verify a database with the password in a file
  ansible.builtin.include_role:
    name: cypher.rollback.verify
  vars:
    rollback_db_password: "{{ lookup('cypher.rollback.secret_file', 'ROLLBACK_DB_PASSWORD_FILE') }}"
"""

RETURN = r"""
_raw:
  description: The secret, or an empty text.
  type: list
  elements: str
"""

import os
import typing as t
from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def read_secret(name: str) -> str:
    """The secret in the file that an environment variable names; empty without the variable.

    :raises AnsibleLookupError: the file cannot be read, or is no text.
    """
    path = os.environ.get(name, "").strip()
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8"
        raise AnsibleLookupError(
            f"The environment variable {name} names the file {path}, which cannot be read: {reason}. Nothing was stopped. "
            f"Correct {name}, or unset it."
        ) from err


class LookupModule(LookupBase):
    """A secret in a file."""

    def run(self, terms: list[str], variables: t.Any = None, **kwargs: t.Any) -> list[str]:
        """One secret for each name."""
        self.set_options(var_options=variables, direct=kwargs)
        return [read_secret(name) for name in terms]
