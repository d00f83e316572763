# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module reaches the PostgreSQL server."""

from __future__ import annotations


class ModuleDocFragment:
    """Options named as in community.postgresql, so that one module_defaults block serves both."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Host or socket directory of the server. Empty, libpq's default socket.
    type: str
    default: ""
  login_port:
    description:
      - Port of the PostgreSQL server itself, not of a connection pooler.
    type: int
    default: 5432
  login_db:
    description:
      - Name of the database.
    type: str
    required: true
  login_user:
    description:
      - Role to connect as.
    type: str
    default: postgres
  login_password:
    description:
      - Password of the role. Empty, libpq's own rules apply (passfile, peer, certificate).
    type: str
    default: ""
  ssl_mode:
    description:
      - TLS mode of the connection.
    type: str
    default: prefer
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
  ca_cert:
    description:
      - File with the certificate authority of the server.
    type: path
  connect_params:
    description:
      - Further libpq connection parameters.
    type: dict
    default: {}
requirements:
  - psycopg2 >= 2.9 on the host that runs the module
"""
