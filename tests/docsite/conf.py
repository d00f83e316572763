# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings for the documentation site; tests/docs.py builds it."""

from __future__ import annotations

import typing as t

from docutils import nodes

if t.TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx

project = "cypher.rollback"
copyright = "the cypher.rollback authors"  # noqa: A001 - the name is Sphinx's
title = "cypher.rollback: rollback runbooks for PostgreSQL migrations"
html_title = html_short_title = project

extensions = ["sphinx_antsibull_ext"]
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
default_role = "any"
nitpicky = True

html_theme = "furo"
html_use_smartypants = True
html_use_modindex = False
html_use_index = False
html_copy_source = False
html_show_sphinx = False

ANSIBLE = "https://docs.ansible.com/ansible/latest"
#: Labels of Ansible's own documentation that pages of modules name. They are not looked up: a build needs no network.
THEIR_LABELS = {
    "action_plugins": f"{ANSIBLE}/plugins/action.html#action-plugins",
    "ansible_configuration_settings": f"{ANSIBLE}/reference_appendices/config.html#ansible-configuration-settings",
    "common_return_values": f"{ANSIBLE}/reference_appendices/common_return_values.html#common-return-values",
}
THEIR_COLLECTIONS = ("ansible.builtin", "ansible.posix", "awx.awx", "community.docker", "community.postgresql")


def address_elsewhere(label: str) -> str | None:
    """Where Ansible's documentation has a label; None for one of this collection, which must be here."""
    for collection in THEIR_COLLECTIONS:
        prefix = f"ansible_collections.{collection}."
        if label.startswith(prefix):
            return f"{ANSIBLE}/collections/{collection.replace('.', '/')}/{label.removeprefix(prefix)}.html"
    return THEIR_LABELS.get(label)


def resolve(_app: Sphinx, _env: object, node: pending_xref, content: nodes.TextElement) -> nodes.reference | None:
    """A link to Ansible's documentation for what Sphinx does not find here."""
    address = address_elsewhere(node.get("reftarget", ""))
    return None if address is None else nodes.reference("", "", content, internal=False, refuri=address)


def leave_out_contents(_app: Sphinx, page: nodes.document) -> None:
    """The theme has the contents of a page at its side, and shows an error where they are in the text as well."""
    for topic in list(page.findall(nodes.topic)):
        if "contents" in topic["classes"]:
            topic.parent.remove(topic)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", leave_out_contents)
    app.connect("missing-reference", resolve)
