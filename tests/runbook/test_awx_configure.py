# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The templates of AWX, made by the real modules of awx.awx on a controller in memory."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

from tests.support.awx_server import ENCRYPTED, TOKEN, AwxServer, Item, Write
from tests.support.documentation import command
from tests.support.runbook import REPOSITORY

if t.TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = REPOSITORY / "extensions" / "awx" / "project"
PASSWORD, KEY, CHAT_TOKEN, HOOK_PASSWORD = "db-pa55word", "k3y-of-the-backups", "xoxb-chat-t0ken", "h00k-pa55word"
SETTINGS: Item = {
    "awx_templates_inventory": "production",
    "awx_templates_project_url": "https://git.example.com/cypher/awx.git",
    "awx_templates_notifications": [
        {
            "name": "operations",
            "type": "webhook",
            "configuration": {"url": "https://hooks.example.com/1", "headers": {}, "password": HOOK_PASSWORD},
            "events": ["started", "success", "error", "approval"],
        },
        {
            "name": "chat",
            "type": "slack",
            "configuration": {"channels": ["#shop"], "token": CHAT_TOKEN},
            "messages": {"error": {"message": "A rollback needs attention"}},
        },
    ],
}
needs_awx = pytest.mark.skipif(
    importlib.util.find_spec("ansible_collections.awx.awx.plugins.modules") is None
    if importlib.util.find_spec("ansible_collections.awx")
    else True,
    reason="the package ansible has no awx.awx for this Python",
)


@dataclasses.dataclass
class Done:
    """How awx_configure.yml ended, and what it wrote."""

    returncode: int
    output: str
    writes: list[Write]


class Operator:
    """Somebody with a token, a file of settings and the guide."""

    def __init__(self, folder: Path, awx: AwxServer, **settings: t.Any) -> None:
        self.folder = folder
        self.awx = awx
        (folder / "awx.yml").write_text(yaml.safe_dump({**SETTINGS, **settings}), encoding="utf-8")
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_NOCOLOR": "1",
            "CONTROLLER_HOST": awx.url,
            "CONTROLLER_OAUTH_TOKEN": TOKEN,
        }
        for name, secret in (("ROLLBACK_DB_PASSWORD_FILE", PASSWORD), ("ROLLBACK_BACKUP_KEY_FILE", KEY)):
            path = folder / name.lower()
            path.write_text(f"{secret}\n", encoding="utf-8")
            self.environment[name] = str(path)

    def configure(self, name: str = "configure", **environment: str) -> Done:
        """Run a command of the guide."""
        before = len(self.awx.writes)
        done = subprocess.run(
            ["bash", "-e", "-c", command("guide_awx", name)],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout + done.stderr, self.awx.writes[before:])


def controller() -> AwxServer:
    """A controller with what an administrator made."""
    server = AwxServer([path.name for path in PROJECT.glob("*.yml")])
    organization = server.add("organizations", {"name": "Default"})
    server.add("inventories", {"name": "production", "organization": organization["id"]})
    return server


@pytest.fixture(scope="module")
def awx() -> Iterator[AwxServer]:
    with controller() as running:
        yield running


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, awx: AwxServer) -> Operator:
    return Operator(tmp_path_factory.mktemp("operator"), awx)


@pytest.fixture(scope="module")
def made(operator: Operator) -> Done:
    """The first run, on a controller that has none of it; before it, the check."""
    checked = operator.configure("check")
    assert (checked.returncode, checked.writes) == (0, []), checked.output
    assert "would be made" in checked.output
    done = operator.configure()
    assert done.returncode == 0, done.output
    return done


def named(awx: AwxServer, kind: str) -> dict[str, Item]:
    return {item["name"] if "name" in item else item["identifier"]: item for item in awx.objects[kind].values()}


@needs_awx
@pytest.mark.usefixtures("made")
def test_the_job_templates_run_the_runbooks(awx: AwxServer) -> None:
    jobs = named(awx, "job_templates")
    assert {name.removeprefix("Rollback: "): (job["playbook"], job["job_type"]) for name, job in jobs.items()} == {
        "take back a migration": ("rollback.yml", "run"),
        "preview": ("rollback.yml", "check"),
        "emergency": ("emergency_rollback.yml", "run"),
        "back up before a migration": ("backup.yml", "run"),
        "verify a database": ("verify.yml", "run"),
        "assess": ("assess.yml", "run"),
        "look at the backups": ("backups.yml", "run"),
        "start the application": ("restart.yml", "run"),
        "undo a rollback": ("undo_rollback.yml", "run"),
        "swap back": ("swap_back.yml", "run"),
    }
    (credential,) = awx.objects["credentials"]
    for job in jobs.values():
        assert awx.associated["job_templates", job["id"], "credentials"] == [credential]
        assert (job["survey_enabled"], job["allow_simultaneous"], job["ask_variables_on_launch"]) == (
            True,
            False,
            False,
        )
        assert job["become_enabled"] is False
    asked = awx.surveys["job_templates", jobs["Rollback: emergency"]["id"]]["spec"]
    assert asked[0]["variable"] == "confirm"
    assert (asked[0]["required"], asked[0]["default"], asked[0]["choices"]) == (True, "no", ["no", "yes"])


@needs_awx
@pytest.mark.usefixtures("made")
def test_the_standard_workflow_waits_for_an_approval_between_preview_and_rollback(awx: AwxServer) -> None:
    assert steps(awx, "Rollback: preview, approval, rollback") == [
        ("preview", "Rollback: preview"),
        ("approval", "Rollback: approve the rollback"),
        ("rollback", "Rollback: take back a migration"),
    ]
    assert steps(awx, "Rollback: emergency, verification") == [
        ("emergency", "Rollback: emergency"),
        ("verify", "Rollback: verify a database"),
    ]
    (approval,) = awx.objects["workflow_approval_templates"].values()
    assert approval["timeout"] == 3600


def steps(awx: AwxServer, workflow: str) -> list[tuple[str, str]]:
    """The steps of a workflow in their order, each only after the success of the one before."""
    number = named(awx, "workflow_job_templates")[workflow]["id"]
    nodes = {
        node["id"]: node
        for node in awx.objects["workflow_job_template_nodes"].values()
        if node["workflow_job_template"] == number
    }
    links = {one: awx.associated.get(("workflow_job_template_nodes", one, "success_nodes"), []) for one in nodes}
    (first,) = set(nodes) - {after for following in links.values() for after in following}
    templates = {item["id"]: item["name"] for item in awx.unified()}
    found, at = [], [first]
    while at:
        (now,) = at
        found.append((nodes[now]["identifier"], templates[nodes[now]["unified_job_template"]]))
        at = links[now]
    return found


@needs_awx
@pytest.mark.usefixtures("made")
def test_the_credential_gives_files_and_shows_no_secret(awx: AwxServer, made: Done) -> None:
    (kind,) = awx.objects["credential_types"].values()
    assert kind["injectors"]["file"] == {
        "template.db_password": "{{ db_password }}",
        "template.backup_key": "{{ backup_key }}",
    }
    assert kind["injectors"]["env"] == {
        "ROLLBACK_DB_PASSWORD_FILE": "{{ tower.filename.db_password }}",
        "ROLLBACK_BACKUP_KEY_FILE": "{{ tower.filename.backup_key }}",
    }
    assert "extra_vars" not in kind["injectors"]
    (credential,) = awx.objects["credentials"].values()
    assert credential["inputs"] == {"db_password": ENCRYPTED, "backup_key": ENCRYPTED}
    assert awx.secrets["credentials", credential["id"]] == {"db_password": PASSWORD, "backup_key": KEY}
    for secret in (PASSWORD, KEY, CHAT_TOKEN, HOOK_PASSWORD, TOKEN):
        assert secret not in made.output


@needs_awx
@pytest.mark.usefixtures("made")
def test_the_notifications_are_told_of_what_acts(awx: AwxServer) -> None:
    told = {name: item["id"] for name, item in named(awx, "notification_templates").items()}
    jobs, flows = named(awx, "job_templates"), named(awx, "workflow_job_templates")

    def of(kind: str, item: Item, event: str) -> set[int]:
        return set(awx.associated.get((kind, item["id"], f"notification_templates_{event}"), []))

    for name, job in jobs.items():
        acts = not name.endswith(("preview", "assess"))
        assert of("job_templates", job, "error") == (set(told.values()) if acts else set()), name
        assert of("job_templates", job, "success") == ({told["operations"]} if acts else set()), name
    standard = flows["Rollback: preview, approval, rollback"]
    assert of("workflow_job_templates", standard, "approvals") == set(told.values())
    assert of("workflow_job_templates", flows["Rollback: emergency, verification"], "approvals") == set()


@needs_awx
@pytest.mark.usefixtures("made")
def test_the_backups_are_verified_by_a_schedule(awx: AwxServer) -> None:
    backups = named(awx, "job_templates")["Rollback: look at the backups"]["id"]
    schedules = named(awx, "schedules")
    assert {one["unified_job_template"] for one in schedules.values()} == {backups}
    assert sorted(one["extra_data"]["verify"] for one in schedules.values()) == ["read", "restore"]


@needs_awx
@pytest.mark.usefixtures("made")
def test_a_second_run_mends_what_somebody_changed_and_writes_nothing_else(operator: Operator, awx: AwxServer) -> None:
    preview = named(awx, "job_templates")["Rollback: preview"]
    described, preview["description"] = preview["description"], "Changed by hand"
    nodes = {node["identifier"]: node for node in awx.objects["workflow_job_template_nodes"].values()}
    past_the_approval = [nodes["rollback"]["id"]]
    awx.associated["workflow_job_template_nodes", nodes["preview"]["id"], "always_nodes"] = past_the_approval
    again = operator.configure(ROLLBACK_BACKUP_KEY_FILE="")
    assert again.returncode == 0, again.output
    assert [(write.method, write.path) for write in again.writes] == [
        ("PATCH", preview["url"]),
        ("POST", f"{nodes['preview']['url']}always_nodes/"),
    ]
    assert preview["description"] == described
    assert past_the_approval == []
    assert "changed=2" in again.output


@needs_awx
@pytest.mark.usefixtures("made")
def test_a_new_secret_is_sent_alone_and_a_notification_that_is_refused_says_why(awx: AwxServer, tmp_path: Path) -> None:
    (credential,) = awx.objects["credentials"].values()
    secrets = awx.secrets["credentials", credential["id"]]
    wrong = {"name": "third", "type": "webhook", "configuration": {"url": "https://x", "password": HOOK_PASSWORD}}
    settings = {"awx_templates_update_secrets": True, "awx_templates_notifications": [wrong]}
    operator = Operator(tmp_path, awx, **settings)
    (tmp_path / "rollback_db_password_file").write_text("n3w-pa55word\n", encoding="utf-8")
    done = operator.configure(ROLLBACK_BACKUP_KEY_FILE="")
    assert [write.path for write in done.writes] == [credential["url"], "/api/v2/notification_templates/"]
    assert awx.secrets["credentials", credential["id"]] == {"db_password": "n3w-pa55word", "backup_key": KEY}
    assert credential["inputs"] == {"db_password": ENCRYPTED, "backup_key": ENCRYPTED}
    assert done.returncode != 0
    assert "Missing required fields for Notification Configuration: ['headers']" in " ".join(done.output.split())
    assert not [secret for secret in (HOOK_PASSWORD, "n3w-pa55word", KEY) if secret in done.output]
    awx.secrets["credentials", credential["id"]] = secrets


@needs_awx
def test_a_token_that_the_controller_does_not_take_is_said_in_one_sentence(operator: Operator) -> None:
    refused = operator.configure(CONTROLLER_OAUTH_TOKEN="wr0ng")
    assert refused.returncode != 0
    assert refused.writes == []
    said = " ".join(refused.output.split())
    assert "could not be configured: Invalid authentication credentials for /api/v2/organizations/ (HTTP 401)." in said
    assert "CONTROLLER_HOST and CONTROLLER_OAUTH_TOKEN say which controller is meant" in said
    assert "wr0ng" not in said


@needs_awx
def test_an_inventory_that_is_not_there_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with controller() as server:
        refused = Operator(tmp_path, server, awx_templates_inventory="prod").configure()
    assert refused.returncode != 0
    assert refused.writes == []
    assert "There is no inventory prod in the organization Default." in " ".join(refused.output.split())


@needs_awx
def test_a_name_that_another_organization_has_too_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with controller() as server:
        other = server.add("organizations", {"name": "Other"})
        kind = server.add("credential_types", {"name": "another", "inputs": {"fields": []}})
        server.add("inventories", {"name": "production", "organization": other["id"]})
        server.add(
            "credentials", {"name": "cypher.rollback", "organization": other["id"], "credential_type": kind["id"]}
        )
        webhook = {"url": "https://hooks.example.com/2", "headers": {}}
        server.add(
            "notification_templates",
            {
                "name": "chat",
                "organization": other["id"],
                "notification_type": "webhook",
                "notification_configuration": webhook,
            },
        )
        refused = Operator(tmp_path, server).configure()
    assert refused.returncode != 0
    assert refused.writes == []
    said = " ".join(refused.output.split())
    assert "Several organizations have an inventory production." in said
    assert "There is another credential cypher.rollback, of another type or organization." in said
    assert "Another organization has a notification chat." in said


def test_without_the_collection_of_the_controller_one_sentence_says_how_to_have_it(tmp_path: Path) -> None:
    (tmp_path / "ansible_collections" / "cypher").mkdir(parents=True)
    (tmp_path / "ansible_collections" / "cypher" / "rollback").symlink_to(REPOSITORY, target_is_directory=True)
    with controller() as server:
        alone = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}
        refused = Operator(tmp_path, server).configure(**alone)
    assert refused.returncode != 0
    assert refused.writes == []
    said = " ".join(refused.output.split())
    assert "awx.awx, which talks to the controller, is not installed. Nothing was changed." in said
    assert "ansible-galaxy collection install awx.awx" in said
