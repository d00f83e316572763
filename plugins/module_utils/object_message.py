# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator is told where a column, a table or an index was taken back, and not a migration."""

from __future__ import annotations

import typing as t

from .outcome import Facts, facts
from .visible import visible

_KINDS = ("column", "table", "index")
_YES = ("yes", "true", "1", "on", "y", "t")


def _planned(run: Facts) -> dict[str, t.Any]:
    return facts(facts(facts(run, "plan_result"), "plan"), "object")


def asked(run: Facts) -> dict[str, t.Any]:
    """The extra variables that name the object, for the command that does it once more; none where a migration is meant."""
    if run.get("runbook") != "rollback_object":
        return {}
    given, exact = facts(run, "asked"), facts(_planned(run), "asked")
    names = {kind: exact.get(kind) or given.get(kind) for kind in _KINDS}
    return {**names, "cascade": "yes" if str(exact.get("cascade", given.get("cascade"))).lower() in _YES else ""}


def named(run: Facts) -> str:
    """The object as words; empty where a migration is meant."""
    names = asked(run)
    found = [f"{kind} {visible(names[kind])}" for kind in _KINDS if names.get(kind)]
    return found[0] if found else "the object" if names else ""


def is_index(run: Facts) -> bool:
    """Whether it is an index, which no code has to fit."""
    return bool(asked(run).get("index"))


def ledger(run: Facts) -> str:
    """That no migration is marked, and which ones name the object; empty where a migration is meant."""
    about = _planned(run)
    if not about:
        return ""
    versions = ", ".join(visible(version) for version in about.get("migrations") or [])
    which = f" (the DOWN of {versions} names it)" if versions else ""
    return f"No migration is marked as taken back{which}: the migration tool may still believe that the one behind it is applied."


def previewed(run: Facts) -> str:
    """What the preview did; empty where a migration is meant."""
    about = _planned(run)
    if not about:
        return ""
    done = "it was dropped there in a transaction that was undone."
    if about.get("concurrently"):
        return f"{done} For real the application is NOT stopped, and the index is dropped concurrently."
    return done


def half_dropped(run: Facts) -> str:
    """The index that a concurrent drop left invalid; empty otherwise."""
    return str(facts(facts(run, "rollback_failure"), "details").get("half_dropped") or "")


def ran_on(run: Facts) -> str:
    """What the application did meanwhile."""
    return "The application was not stopped." if _planned(run).get("concurrently") else ""
