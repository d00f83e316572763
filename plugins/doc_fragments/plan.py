# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module finds the DOWN scripts and what is applied."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that make a plan."""

    DOCUMENTATION = r"""
options:
  version:
    description:
      - The migration to roll back, a string such as V("0003"). A number is taken when exactly one migration matches.
      - Exactly one of O(version), O(to_version) and O(object) is needed.
    type: raw
  to_version:
    description:
      - The newest migration that stays. Every applied one above it is rolled back, newest first, in one transaction.
      - V("0") keeps none.
    type: raw
  object:
    description:
      - One object that is taken back without a migration. No ledger is touched.
      - A name has its schema, or is looked up in O(search_path). One that fits several objects, that is in no schema of
        O(search_path), or that differs in capitals, is refused. Identifiers that PostgreSQL would quote stand in double quotes.
      - Exactly one of O(object.column), O(object.table) and O(object.index) is needed.
    type: dict
    suboptions:
      column:
        description:
          - C(schema.table.column) or C(table.column). Its indexes and constraints go with it. Its values that are not NULL count
            as rows lost.
        type: str
        default: ""
      table:
        description:
          - C(schema.table) or C(table).
        type: str
        default: ""
      index:
        description:
          - C(schema.index) or C(index). One that enforces a constraint is refused.
        type: str
        default: ""
      cascade:
        description:
          - Drop what depends on it, too. Otherwise it is refused where anything does.
        type: bool
        default: false
      index_drop:
        description:
          - V(transaction), in one transaction like everything else. V(concurrently), while others use the table.
            V(auto), concurrently where another session holds a lock on the table, or reads or writes it within a second.
        type: str
        default: auto
        choices: [auto, concurrently, transaction]
  project_dir:
    description:
      - Checkout of the application.
    type: path
    default: .
  migrations_dir:
    description:
      - Folder of the migrations, relative to O(project_dir).
    type: str
    default: migrations
  search_path:
    description:
      - Schemas in which unqualified names of a DOWN are resolved, in this order.
    type: list
    elements: str
    default: [b2b, erp, shared, public]
  commented_down:
    description:
      - What to do with a DOWN whose statements are all commented out.
    type: str
    default: refuse
    choices: [refuse, accept]
  left_over:
    description:
      - What to do when an object of the same kind and name is in another schema than the one that a DOWN drops it from.
    type: str
    default: refuse
    choices: [refuse, accept]
  ledger_table:
    description:
      - Table in which the migration tool records what is applied. Its row is deleted in the same transaction.
      - Empty, what is applied is inferred from the objects that each DOWN names.
    type: str
    default: ""
  ledger_column:
    description:
      - Column of O(ledger_table) that holds the version.
    type: str
    default: version
  lock_timeout:
    description:
      - How long a statement waits for a lock, as a PostgreSQL duration.
    type: str
    default: 5s
  statement_timeout:
    description:
      - How long one statement may run, as a PostgreSQL duration. V(0), without limit.
    type: str
    default: "0"
  max_rows_lost:
    description:
      - Refuse a DOWN that destroys more rows. Empty, no limit.
    type: raw
  system_identifier:
    description:
      - System identifier of the cluster that is meant. Another one is refused. Empty, any.
    type: str
    default: ""
  command:
    description:
      - How playbooks of the collection are started, for messages that name one.
    type: str
    default: ansible-playbook cypher.rollback
  schema_backup_dir:
    description:
      - Folder of the backups. Where it has a valid C(before_migration) backup of the oldest migration of the plan, made of
        this database before that migration was applied, the schema after the DOWN is compared with the one recorded there,
        inside the transaction. Empty, or without such a backup, nothing is compared.
      - Of the backup only its manifest and its C(schema.txt) are read, and proven by signature and checksum.
    type: path
  backup_key:
    description:
      - Key that signs the manifests of backups. With it, only a backup that has its signature counts.
    type: str
    default: ""
  schema_drift:
    description:
      - What a difference from that schema means. V(warn), the differences are named, and the rollback goes on.
        V(refuse), nothing is committed.
    type: str
    default: warn
    choices: [warn, refuse]
requirements:
  - pglast >= 7 on the host that runs the module
"""
