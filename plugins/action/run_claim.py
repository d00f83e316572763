# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the claim who runs the playbook, and ask this host whether another claim's process still lives."""

from __future__ import annotations

from ansible_collections.cypher.rollback.plugins.modules import run_claim
from ansible_collections.cypher.rollback.plugins.plugin_utils.claiming import ClaimingAction


class ActionModule(ClaimingAction):
    """See plugins/modules/run_claim.py for the options."""

    module = run_claim
