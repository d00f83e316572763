# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of backups, and the server that clones and restores need."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that look through the backups of a folder.

    To be listed before the fragment ``postgres``, whose ``login_db`` is required: the first one listed has the last word.
    """

    DOCUMENTATION = r"""
options:
  login_db:
    description:
      - Name of the database whose server has the clones, and on which backups are restored to verify them.
      - Empty, no server is asked for anything. Backups of the kind clone can be neither verified nor removed then.
    type: str
    required: false
    default: ""
  backup_dir:
    description:
      - Folder of all backups, an absolute path.
      - It must belong to root or to the user that the module runs as, must not be a symbolic link, and must not be
        writable by every user. The same goes for each backup in it.
    type: path
    required: true
  database:
    description:
      - Only backups of this database, and what cannot be told to be of any. Empty, of every database.
    type: str
    default: ""
  key:
    description:
      - Key that signs the manifests. Where it is given, only backups with its signature are valid.
    type: str
    default: ""
  maintenance_db:
    description:
      - Database of the same server to be connected to while others are created and dropped.
    type: str
    default: postgres
"""
