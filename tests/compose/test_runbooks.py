# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runbooks on a project of Docker Compose, by the commands of its guide, with client programs in the container alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import typing as t

import pytest
import yaml

from tests.support.compose_project import LIMIT_SECONDS
from tests.support.documentation import GUIDES, command
from tests.support.runbook import git
from tests.support.settings_table import settings

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.compose_project import ComposeProject

GUIDE = "guide_docker_compose"
BESIDE = ("db", "mail", "setup")
IMAGE = {"rollback_image_variable": "APP_TAG", "rollback_previous_image": "0003"}


def looks(project: ComposeProject) -> dict[str, tuple[str, str, str]]:
    """Id, image and time of the last start of every service's container."""
    return {
        name: (found["Id"], found["Config"]["Image"].partition(":")[2], found["State"]["StartedAt"])
        for name, found in project.containers().items()
    }


def beside(project: ComposeProject) -> dict[str, tuple[str, str, str]]:
    """What no run may touch: the database, another service, and one that ran once."""
    return {name: look for name, look in looks(project).items() if name in BESIDE}


@pytest.fixture
def checkout(project: ComposeProject) -> Iterator[ComposeProject]:
    """The project as a checkout of the newer release, with a tag on the one before; ``.env`` is no part of it."""
    release = project.project / "release.txt"
    git(project.project, "init", "--quiet", "--initial-branch=main")
    (project.project / ".git" / "info" / "exclude").write_text(".env\n", encoding="utf-8")
    for number in ("0003", "0004"):
        release.write_text(f"{number}\n", encoding="utf-8")
        git(project.project, "add", "--all")
        git(project.project, "commit", "--quiet", "--message", number)
        git(project.project, "tag", f"v{number}")
    yield project
    shutil.rmtree(project.project / ".git")


def test_the_standard_runbook_goes_back_to_the_image_and_the_checkout_of_the_release(checkout: ComposeProject) -> None:
    project = checkout
    project.reset("0004")
    project.settings |= {**IMAGE, "rollback_previous_ref": "v0003"}
    before, file = looks(project), project.environment_file.read_bytes()

    preview = project.run(command(GUIDE, "preview"))
    assert preview.returncode == 0, preview.output
    assert preview.report is None
    assert "APP_TAG will be 0003, instead of 0004" in " ".join(preview.output.split())
    assert looks(project) == before
    assert project.environment_file.read_bytes() == file

    run = project.run(command(GUIDE, "rollback"))
    assert (run.returncode, run.outcome) == (0, "rolled_back"), run.output
    assert run.report is not None
    assert beside(project) == {name: before[name] for name in BESIDE}
    after = looks(project)
    assert (after["app"][1], after["worker"]) == ("0003", before["worker"])
    assert project.environment_file.read_bytes() == file.replace(b"APP_TAG=0004", b"APP_TAG=0003")
    assert project.environment_file.stat().st_mode & 0o777 == 0o600
    assert git(project.project, "rev-parse", "HEAD") == git(project.project, "rev-parse", "v0003^{commit}")
    assert project.health()["release"] == "0003"
    manifest = json.loads((project.backups / run.report["backup"]["id"] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["tools"]["bin_dir"] == "docker compose exec -T db"
    assert project.compose("exec", "-T", "db", "ls", "/tmp").split() == []  # noqa: S108 - inside of the container
    assert project.values["ERP_DB_PASSWORD"] not in run.output

    undone = project.run(command(GUIDE, "undo"))
    assert (undone.returncode, undone.outcome) == (0, "restored"), undone.output
    assert project.environment_file.read_bytes() == file
    assert git(project.project, "symbolic-ref", "--short", "HEAD") == "main"
    assert looks(project)["app"][1] == "0004"
    assert project.health()["release"] == "0004"
    assert beside(project) == {name: before[name] for name in BESIDE}


def test_the_emergency_runbook_leaves_every_container_what_it_is_and_a_wrong_image_is_exchanged_back(
    project: ComposeProject,
) -> None:
    project.reset("0003")
    before = looks(project)
    backed_up = project.run(command(GUIDE, "backup"))
    assert (backed_up.returncode, backed_up.outcome) == (0, "backed_up"), backed_up.output
    project.migrate("0004", first="0004")
    project.execute("UPDATE b2b.products SET list_price = 0; DROP TABLE b2b.carts CASCADE")

    run = project.run(command(GUIDE, "emergency"))
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert project.execute(
        "SELECT to_regclass('b2b.credit_ledger') IS NULL, min(list_price) > 0 FROM b2b.products"
    ) == [(True, True)]
    assert beside(project) == {name: before[name] for name in BESIDE}
    after = looks(project)
    assert after["app"][:2] == before["app"][:2]
    assert after["app"] != before["app"]
    assert after["worker"] == before["worker"]
    assert project.health()["release"] == "0003"
    assert project.compose("exec", "-T", "db", "ls", "/tmp").split() == []  # noqa: S108 - inside of the container
    rows_put_back(project)
    exchanged_back(project)


def rows_put_back(project: ComposeProject) -> None:
    """A table alone is put back from the same backup, whose archive is read inside the container."""
    orders = "SELECT o::text FROM b2b.orders AS o ORDER BY o.id"
    before = project.execute(orders)
    project.execute("UPDATE b2b.orders SET notes = 'damaged'")
    run = project.run(f"{command(GUIDE, 'emergency').rstrip()} -e tables=b2b.orders")
    assert (run.returncode, run.outcome) == (0, "restored"), run.output
    assert run.report is not None
    assert [(table["identity"], table["changed"]) for table in run.report["restore"]["put_back"]["tables"]] == [
        ("b2b.orders", len(before))
    ]
    assert project.execute(orders) == before
    assert project.compose("exec", "-T", "db", "ls", "/tmp").split() == []  # noqa: S108 - inside of the container


def exchanged_back(project: ComposeProject) -> None:
    """The same migration once more, and an emergency with a release that needs more than the restored database has."""
    project.migrate("0004", first="0004")
    project.use_image("0004")
    project.start()
    project.settings |= {**IMAGE, "rollback_previous_image": "0005", "rollback_swap_back_on_failure": True}
    file, before = project.environment_file.read_bytes(), looks(project)
    subprocess.run(["docker", "tag", "cypher-erp-test:0004", "cypher-erp-test:0005"], check=True)
    try:
        run = project.run(command(GUIDE, "emergency"))
    finally:
        subprocess.run(["docker", "rmi", "cypher-erp-test:0005"], check=True, capture_output=True)
    assert run.outcome == "failed_unchanged", run.output
    assert project.environment_file.read_bytes() == file, run.output
    assert looks(project)["app"][1] == "0004"
    assert project.health()["release"] == "0004"
    assert beside(project) == {name: before[name] for name in BESIDE}


def test_an_application_that_never_gets_healthy_needs_attention_until_it_has_its_image(project: ComposeProject) -> None:
    project.reset("0004")
    run = project.run(command(GUIDE, "rollback"))
    assert run.outcome == "needs_attention", run.output
    assert "app is not proven to run" in run.message
    before = looks(project)
    assert before["app"][1] == "0004"
    # No run changed the image: the one that goes on may.
    project.settings |= IMAGE
    restarted = project.run(command(GUIDE, "restart"))
    assert restarted.returncode == 0, restarted.output
    assert project.health()["release"] == "0003"
    assert beside(project) == {name: before[name] for name in BESIDE}


def test_an_application_that_does_not_stay_down_is_left_running(project: ComposeProject) -> None:
    project.reset("0004")
    project.settings |= {"rollback_app_services": ["app", "worker"], "rollback_app_timeout": 10}
    before = looks(project)
    app = before["app"][0]

    def start_again() -> None:
        subprocess.run(["docker", "wait", app], check=True, capture_output=True, timeout=LIMIT_SECONDS)
        subprocess.run(["docker", "start", app], check=True, capture_output=True)

    thread = threading.Thread(target=start_again)
    thread.start()
    run = project.run(command(GUIDE, "rollback"))
    thread.join()
    assert run.outcome == "failed_unchanged", run.output
    assert "app did not stop" in run.message
    assert run.report is not None
    assert any("worker did not end by itself" in warning for warning in run.report["warnings"]), run.report["warnings"]
    assert project.health()["release"] == "0004"
    assert {name: look[:2] for name, look in looks(project).items()} == {
        name: look[:2] for name, look in before.items()
    }
    assert project.containers()["worker"]["State"]["Running"]


def test_the_guides_settings_exist() -> None:
    text = (GUIDES / f"{GUIDE}.rst").read_text(encoding="utf-8")
    (block,) = re.findall(r"\.\. code-block:: yaml\n\n((?:    .*\n)+)", text)
    names = re.findall(r"^ +(rollback_\w+):", block, re.MULTILINE)
    assert "rollback_pg_exec" in names
    assert set(names) <= set(settings())
    assert set(yaml.safe_load(block)) == {"erp_db", "erp_app", "all"}
