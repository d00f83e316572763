# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module of this name, in this process where it is to run on this host anyway."""

from __future__ import annotations

from ansible_collections.cypher.rollback.plugins.modules import app_image
from ansible_collections.cypher.rollback.plugins.plugin_utils.in_process import EngineAction


class ActionModule(EngineAction):
    """See plugins/modules/app_image.py for the options."""

    module = app_image
