# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of runs with every outcome, composed as the runbooks compose theirs from facts such as their stages leave."""

# The collection cannot be found by its full name by mypy, which sees it as plugins.*
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import typing as t

from ansible_collections.cypher.rollback.plugins.module_utils.report import compose

TARGET = {
    "host": "db1.example.com",
    "port": 5432,
    "database": "cypher_erp",
    "server_version": "17.6",
    "system_identifier": "7711118549125561504",
}
PLAN = {
    "outcome": "planned",
    "target": TARGET,
    "plan": {
        "versions": ["0003"],
        "statements": 14,
        "scripts": [{"version": "0003", "file": "migrations/0003-cart-orders-snapshots.sql", "statements": 14}],
    },
    "warnings": ["The newest before_migration backup is 26 hours old."],
}
STOPPED = {"hosts": {"app1": {"was_running": True, "stopped": True, "message": "The application stopped after 0.4 s."}}}
STARTED = {"hosts": {"app1": {"started": True, "running": True, "message": "The application runs after 0.3 s."}}}
BACKUP = {
    "backup": {
        "id": "backup_before_rollback_0003_20261122_215818",
        "path": "/var/backups/cypher-erp/backup_before_rollback_0003_20261122_215818",
        "kind": "before_rollback",
        "bytes": 73400320,
        "verified": True,
        "created_at": "2026-11-22T21:58:18Z",
    }
}
TABLES = (
    "orders",
    "order_items",
    "order_items_snapshot",
    "order_shipments",
    "quotes",
    "quote_items",
    "carts",
    "cart_items",
)
DROPPED = [
    *({"type": "table", "identity": f"b2b.{name}", "cascaded": False, "rows": 18400 // (place + 1), "part_of": ""}
      for place, name in enumerate(TABLES)),
    *({"type": "type", "identity": f"b2b.b2b_{name}_status", "cascaded": False, "rows": None, "part_of": ""}
      for name in ("cart", "quote", "order", "payment", "shipping")),
    {"type": "view", "identity": "erp.open_orders", "cascaded": True, "rows": None, "part_of": ""},
    *({"type": "index", "identity": f"b2b.{name}_{kind}", "cascaded": False, "rows": None, "part_of": f"b2b.{name}"}
      for name in TABLES for kind in ("pkey", "created_idx", "customer_idx")),
]  # fmt: skip
EFFECT = {
    "dropped": DROPPED,
    "skipped": [{"type": "index", "identity": "idx_orders_date_range", "elsewhere": ["erp.idx_orders_date_range"]}],
    "left_over": [{"type": "function", "identity": "b2b.order_total(uuid)", "named": "order_total"}],
    "row_changes": [{"table": "b2b.customers", "inserted": 0, "updated": 0, "deleted": 12}],
    "rows_lost": 49988,
}
ROLLED_BACK = {
    "committed": True,
    "xid": "812",
    "effect": EFFECT,
    "statements": [
        {"version": "0003", "number": place + 1, "line": 164 + place, "kind": "DROP TABLE", "seconds": 0.0011 * (place + 1)}
        for place in range(14)
    ],
    "locks": [
        {"relation": "b2b.customers", "mode": "AccessExclusiveLock"},
        {"relation": "b2b.orders", "mode": "AccessExclusiveLock"},
    ],
    "sessions": [
        {"pid": 19633, "user": "erp", "application": "report", "since": "2026-11-22T21:40:00Z", "state": "idle in transaction",
         "query": "SELECT count(*)\nFROM b2b.orders"},
    ],
}  # fmt: skip
ORPHANS = {
    "name": "orders without a customer",
    "status": "failed",
    "expected": "0",
    "actual": "3",
    "details": [f"b2b.orders {number}" for number in range(60)],
}
CHECKS = [
    {"name": "dropped objects are gone", "status": "passed", "expected": "0 of 38 there", "actual": "0 of 38 there"},
    {"name": "row counts equal the backup's", "status": "passed", "expected": "11 tables equal", "actual": "11 tables equal"},
    {"name": "no orphans", "status": "passed", "expected": "0", "actual": "0"},
    {"name": "indexes are used", "status": "information", "expected": "", "actual": "31 of 40"},
]  # fmt: skip
VERIFIED = {"verification": {"passed": True, "checks": CHECKS}}
SMOKE = {
    "passed": True,
    "tests": [
        {
            "name": "health",
            "kind": "url",
            "host": "app1",
            "status": "passed",
            "message": "",
            "seconds": 0.046,
            "attempts": 2,
        },
        {
            "name": "customers can be read",
            "kind": "query",
            "host": "db1",
            "status": "passed",
            "seconds": 0.004,
            "attempts": 1,
        },
    ],
}
SEVERITY = {
    "level": "Critical",
    "action": "roll back now",
    "deadline": "now",
    "backup": "backup_before_migration_0003_20261121_200000",
    "not_measured": ["no Prometheus is set"],
    "decided_by": ["query_slower_critical", "p0_down"],
    "inconclusive": False,
    "assessed_at": "2026-11-22T21:55:02Z",
    "given_by": "",
    "findings": [
        {"rule": "query_slower_critical", "section": "2.1", "level": "Critical", "status": "fired", "source": "queries",
         "text": "The query orders_by_customer takes 212 % longer than before the migration."},
        {"rule": "p0_down", "section": "2.1", "level": "Critical", "status": "fired", "source": "health", "text": "checkout is down."},
        {"rule": "log_errors", "section": "2.2", "level": "High", "status": "inconclusive", "source": "logs", "text": "The log has 2 lines."},
        {"rule": "rows_lost", "section": "2.1", "level": "Critical", "status": "clear", "source": "rows", "text": "No table has fewer rows."},
    ],
    "measurements": {
        "queries": [
            {"name": "orders_by_customer", "baseline_ms": 4.1, "now_ms": 12.8, "spread_ms": 0.9, "runs": 5, "change_percent": 212.2, "timed_out": False},
            {"name": "stock", "baseline_ms": 1.0, "now_ms": 1.02, "spread_ms": 0.1, "runs": 5, "change_percent": 2.0, "timed_out": False},
        ],
        "logs": [{"name": "app", "host": "app1", "critical": 0, "errors": 41, "warnings": 9, "baseline_errors": 2, "baseline_warnings": 8}],
        "health": [{"name": "checkout", "priority": "P0", "status": "down", "failures": 3, "samples": 3, "message": "answered 500"}],
        "rows": [{"table": "b2b.orders", "baseline_rows": 18400, "rows": 18390, "missing": False, "estimated": False}],
        "prometheus": [{"name": "p95", "value": 1.9, "baseline_value": 0.4, "change_percent": 375}],
    },
    "next_command": "ansible-playbook cypher.rollback.rollback -e version=0003",
}  # fmt: skip
BEFORE = [
    {"key": "confirmed", "text": {"en": "Problems confirmed", "ro": "Probleme confirmate"}, "how": "person", "status": "confirmed",
     "evidence": "Orders fail since the deployment.", "by": "Ana Pop", "at": "2026-11-22T21:56:10Z"},
    {"key": "backup", "text": {"en": "Backup verified and available", "ro": "Backup verificat disponibil"}, "how": "program",
     "status": "passed", "evidence": "Read back 26 hours ago.", "by": "", "at": "2026-11-22T21:56:11Z"},
    {"key": "stakeholders", "text": {"en": "Stakeholders told", "ro": "Stakeholder-i notificați"}, "how": "person",
     "status": "unknown", "evidence": "", "by": "", "at": ""},
]  # fmt: skip
AFTER = [
    {"key": "logs", "text": {"en": "Logs without errors", "ro": "Logs verificate (fără erori)"}, "how": "program", "status": "failed",
     "evidence": "3 errors since the start.", "by": "", "at": "2026-11-22T21:58:30Z"},
]  # fmt: skip
LOGS = [
    {"host": "app1", "name": "app", "type": "docker", "window_seconds": 12, "critical": 0, "errors": 3, "warnings": 1,
     "lines": ["21:58:29 ERROR cart service not found", "21:58:29 ERROR retry 1 of 3"]},
]  # fmt: skip
CONTACTS = [
    {"role": "dba_lead", "name": "Ion Marin", "email": "ion.marin@example.com", "phone": "+40 721 000 001", "audience": "technical"},
    {"role": "engineering_lead", "name": "Ana Pop", "email": "ana.pop@example.com", "phone": "+40 721 000 002", "audience": "technical"},
    {"role": "product_owner", "name": "Dana Ilie", "email": "dana.ilie@example.com", "phone": "", "audience": "stakeholders"},
]  # fmt: skip
NOTIFICATIONS = [
    {"name": "#erp-incidents", "type": "slack", "event": "start", "audience": "technical", "status": "sent", "message": "answered 200",
     "at": "2026-11-22T21:58:16Z", "recipients": ["dba_lead", "engineering_lead"]},
    {"name": "stakeholders", "type": "email", "event": "end", "audience": "stakeholders", "status": "failed",
     "message": "Connection refused", "at": "2026-11-22T21:58:31Z", "recipients": ["product_owner"]},
]  # fmt: skip

#: Names and lengths of the stages of a whole run, in milliseconds.
LENGTHS = (("plan", 890), ("checklist", 1400), ("stop", 700), ("backup", 430), ("rollback", 310), ("verify", 210),
           ("previous_code", 190), ("restart", 790), ("smoke_test", 560), ("closing_checklist", 240), ("notify", 60))  # fmt: skip


def stages(*lengths: tuple[str, int], failed: str = "", until: str = "") -> list[dict[str, t.Any]]:
    """Stages one after the other, from 21:58:16 on."""
    found, begun = [], 16000
    for name, milliseconds in lengths or LENGTHS:
        moments = [f"2026-11-22T21:58:{at // 1000:02}.{at % 1000:03}Z" for at in (begun, begun + milliseconds)]
        state = "failed" if name == failed else "finished"
        found.append(
            {
                "name": name,
                "status": state,
                "started_at": moments[0],
                "finished_at": moments[1],
                "seconds": milliseconds / 1000,
            }
        )
        begun += milliseconds
        if name == until:
            break
    return found


RUN: dict[str, t.Any] = {
    "run_id": "20261122T215816Z-0003-b4ccc8",
    "runbook": "rollback",
    "run_dir": "/var/backups/cypher-erp/runs",
    "host": "db1",
    "version": "0003",
    "inventory": ["inventories/production"],
    "person": "Ana Pop",
    "contacts": CONTACTS,
    "plan_result": PLAN,
    "stages": stages(),
    "checklist_result": {"items": BEFORE, "severity": SEVERITY},
}
WHOLE = {
    **RUN,
    "stop_result": STOPPED,
    "backup_result": BACKUP,
    "rollback_result": ROLLED_BACK,
    "verify_result": VERIFIED,
    "restart_result": STARTED,
    "smoke_test_result": SMOKE,
    "previous_code_result": {"message": "app1: the code is at v1.2.0 (1a2b3c4d5e6f)"},
    "closing_checklist_result": {"items": AFTER, "logs": LOGS},
    "notifications": NOTIFICATIONS,
}
RESTORE_PLAN = {
    "outcome": "planned",
    "target": TARGET,
    "backup": {
        "id": "backup_before_migration_0003_20261121_200000",
        "path": "/var/backups/cypher-erp/backup_before_migration_0003_20261121_200000",
        "kind": "before_migration",
        "bytes": 73400320,
        "verified": True,
        "created_at": "2026-11-21T20:00:00Z",
    },
    "why": "It is the newest valid backup before a migration.",
    "passed_over": [
        {"id": "backup_before_migration_0004_20261122_090000", "reason": "dump/1.dat has 3 bytes, 9 were written."}
    ],
    "window": {
        "from": "2026-11-21T20:00:00Z",
        "to": "2026-11-22T21:58:16Z",
        "seconds": 93496,
        "text": "Everything written since 2026-11-21 20:00:00 UTC (26 hours) is lost from the live database; "
        "it stays in cypher_erp_replaced_20261122.",
    },
    "lines": ["EMERGENCY ROLLBACK"],
}
RESTORED = {
    **RUN,
    "runbook": "emergency_rollback",
    "version": "",
    "plan_result": None,
    "restore_plan_result": RESTORE_PLAN,
    "stages": stages(("plan", 900), ("confirm", 2100), ("stop", 700), ("backup", 500), ("restore", 6400), ("swap", 120),
                     ("restart", 800), ("smoke_test", 600), ("notify", 60)),
    "stop_result": STOPPED,
    "backup_result": {"backup": {**BACKUP["backup"], "id": "backup_before_rollback_emergency"}},
    "restore_result": {
        "compared": True,
        "restored": {"database": "erp_restore_1", "tables": {f"b2b.{name}": 18000 for name in TABLES}, "provider": "dump"},
    },
    "swap_result": {"swapped": True, "live": "cypher_erp", "kept": "cypher_erp_replaced_20261122"},
    "restart_result": STARTED,
    "smoke_test_result": SMOKE,
}  # fmt: skip


def failure(stage: str, message: str, **more: t.Any) -> dict[str, t.Any]:
    """What the rescue of a runbook leaves."""
    return {"rollback_failure": {"stage": stage, "message": message, **more}}


FACTS: dict[str, dict[str, t.Any]] = {
    "rolled_back": WHOLE,
    "restored": RESTORED,
    "failed_unchanged": {
        **RUN,
        **failure("rollback", "Line 170 of 0003: relation \"b2b.quotes\" is locked by process 19633 (report). It was undone: the database is as it was.",
                  details={"effect": EFFECT}),
        "stages": [*stages(until="rollback", failed="rollback"), {**stages()[7], "name": "restart"}],
        "stop_result": STOPPED,
        "backup_result": BACKUP,
        "restart_result": STARTED,
    },
    "needs_attention": {
        **WHOLE,
        **failure("restart", "Container erp-web exited with code 1: port 8080 is taken."),
        "stages": [*stages(until="restart", failed="restart"), {**stages()[-1]}],
        "verify_result": {
            "verification": {
                "passed": False,
                "checks": [*CHECKS, ORPHANS],
            }
        },
        "restart_result": {"hosts": {"app1": {"failed": True, "running": False, "message": "port 8080 is taken"}}},
        "smoke_test_result": {},
        "closing_checklist_result": {},
        "resumed": [{"at": "2026-11-22T21:58:19.600Z", "by": "Ion Marin", "after": "backup"}],
    },
    "unknown": {
        **RUN,
        **failure("rollback", "The connection was lost while the answer to COMMIT was awaited.", outcome="unknown", details={"xid": "812"}),
        "stages": stages(until="rollback", failed="rollback"),
        "stop_result": STOPPED,
        "backup_result": BACKUP,
    },
    "refused": {
        **RUN,
        **failure("plan", "Migration 0004 is applied and needs 0003. Set to_version to roll both back: "
                  "ansible-playbook cypher.rollback.rollback -e to_version=0002"),
        "stages": stages(until="plan", failed="plan"),
        "plan_result": {},
        "target": TARGET,
        "checklist_result": {},
    },
    "planned": {**RUN, "check_mode": True, "rollback_result": {**ROLLED_BACK, "committed": False}, "stages": stages(until="plan")},
    "assessed": {**RUN, "runbook": "assess", "assess_result": {"severity": SEVERITY}, "stages": stages(("assess", 4200)), "plan_result": {}, "target": TARGET},
    "backed_up": {**RUN, "runbook": "backup", "backup_result": BACKUP, "stages": stages(("backup", 900)), "plan_result": {}, "target": TARGET},
    "nothing_to_do": {**RUN, "plan_result": {**PLAN, "outcome": "nothing_to_do", "message": "Migration 0003 is not applied"}, "stages": stages(until="plan")},
}  # fmt: skip


def report(outcome: str, **changes: t.Any) -> dict[str, t.Any]:
    """The report of a run with this outcome.

    :param changes: of the facts.
    """
    composed: dict[str, t.Any] = compose({**FACTS[outcome], **changes})
    assert composed["outcome"] == outcome or changes, composed["message"]
    return composed


#: Names that a page or a Markdown file could take for something else.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)",
    "</style><script>alert(4)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "a\u202egnp.exe\u202c",
    "two\nlines\r\x1b[2J",
    "| pipe | `tick` **bold** [link](javascript:alert(5)) <b>",
    "x" * 2000,
    "&lt;b&gt;",
)


def hostile(value: t.Any, bad: str) -> t.Any:
    """A report in which every text but the times, statuses and kinds holds a hostile name."""
    if isinstance(value, dict):
        kept = (
            "at",
            "started_at",
            "finished_at",
            "assessed_at",
            "status",
            "runbook",
            "outcome",
            "check_mode",
            "created_at",
        )
        # The lines of a message are lines; a name in it has been made visible.
        found = {key: entry if key in kept else hostile(entry, bad) for key, entry in value.items()}
        return {**found, **{key: hostile(value[key], bad.replace("\n", " ")) for key in ("message",) if key in value}}
    if isinstance(value, list):
        return [hostile(entry, bad) for entry in value]
    return f"{value} {bad}" if isinstance(value, str) else value
