# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's client programs inside a container."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that run client programs."""

    DOCUMENTATION = r"""
options:
  client_exec:
    description:
      - Command that runs the client programs elsewhere, such as C([docker, compose, exec, -T, db]). It has to hand on standard
        input and output. With C(docker exec), that needs C(-i).
      - Empty, they are on the host that runs the module. Otherwise O(bin_dir) is a folder inside; empty, the PATH there.
      - Files come and go through standard input and output, so that those of a backup belong to the user that the module runs as.
        A password is written to a private file there. Nothing is left inside, also after a failure.
        What a container keeps because it was stopped or restarted meanwhile is removed then, or by the next run.
      - Inside, C(sh), C(env), C(tar), C(mktemp), C(df), C(grep) and C(tr) are needed.
    type: list
    elements: str
    default: []
  client_exec_host:
    description:
      - Host of the server, or folder of its socket, as it is reached from there.
    type: str
    default: localhost
  client_exec_port:
    description:
      - Port of the server, as it is reached from there.
    type: int
    default: 5432
  client_exec_dir:
    description:
      - Folder there for working files. It has to have room for the whole archive.
    type: str
    default: /tmp
  client_exec_chdir:
    description:
      - Folder of this host in which O(client_exec) is run. Empty, any.
    type: str
    default: ""
"""
