# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages stop and restart make of the answers of their drivers' tasks."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.app_stage import (
    not_down,
    note,
    refusals,
    services_up,
    units_of,
)
from ansible_collections.cypher.rollback.plugins.module_utils.compose_start import without_health_check

BLANK: dict[str, t.Any] = {"hosts": {}, "changed": False, "failed": False, "message": "", "to_restart": []}
STOPPED = {"was_running": True, "running": False, "attempted": True, "changed": True, "message": "Stopped."}
REFUSES = {"was_running": True, "running": True, "attempted": True, "changed": False, "message": "Still runs."}


def command(acted: t.Any, **more: t.Any) -> dict[str, t.Any]:
    return {"driver": "command", "acted": acted, **more}


def loop(**units: t.Any) -> dict[str, t.Any]:
    return {"results": [{"ansible_loop_var": "unit", "unit": name, **one} for name, one in units.items()]}


def active(state: str, **more: t.Any) -> dict[str, t.Any]:
    return {"status": {"ActiveState": state}, "changed": False, **more}


def systemd(acted: dict[str, t.Any], after: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    return {
        "driver": "systemd",
        "services": list(acted),
        "acted": loop(**acted),
        "after": loop(**{name: active(state) for name, state in after.items()}),
        **more,
    }


def containers(*entries: tuple[str, str], **more: t.Any) -> dict[str, t.Any]:
    lines = [json.dumps({"Service": name, "State": state, "Name": f"shop-{name}-1", **more}) for name, state in entries]
    return {"rc": 0, "stdout_lines": lines}


def compose(before: t.Any, acted: t.Any, after: t.Any, stage: str = "stop", **more: t.Any) -> dict[str, t.Any]:
    def said(running: t.Any) -> dict[str, t.Any]:
        return containers(*((name, "running") for name in running)) if isinstance(running, list) else running

    return {
        "driver": "docker_compose",
        "stage": stage,
        "services": ["web", "worker"],
        "before": said(before),
        "acted": acted,
        "after": said(after),
        **more,
    }


def test_a_stopped_host_is_to_be_restarted() -> None:
    result = note(BLANK, "stop", "app1", command(STOPPED))
    assert result["to_restart"] == ["app1"]
    assert (result["changed"], result["failed"]) == (True, False)
    host = result["hosts"]["app1"]
    assert (host["was_running"], host["running"], host["stopped"], host["changed"]) == (True, False, True, True)


def test_a_host_that_was_down_is_not_to_be_restarted() -> None:
    was_down = {
        "was_running": False,
        "running": False,
        "attempted": False,
        "changed": False,
        "message": "Was not running.",
    }
    result = note(BLANK, "stop", "app1", command(was_down))
    assert (result["to_restart"], result["changed"], result["failed"]) == ([], False, False)
    assert result["hosts"]["app1"]["stopped"] is False


def test_after_a_failure_the_result_tells_of_every_host() -> None:
    result = note(BLANK, "stop", "app1", command(STOPPED))
    result = note(result, "stop", "app2", command(REFUSES))
    result = note(result, "stop", "app3", command({"skipped": True}, not_tried=True))
    assert result["failed"]
    assert result["message"] == "app2: Still runs."
    # The second may still go down, after it was told to.
    assert result["to_restart"] == ["app1", "app2"]
    assert [one["stopped"] for one in result["hosts"].values()] == [True, False, False]
    assert result["hosts"]["app3"]["message"].startswith("Not tried")


@pytest.mark.parametrize(
    ("acted", "said"),
    [
        ({"unreachable": True, "msg": "no route to host"}, "the host cannot be reached: no route to host"),
        ({"msg": "MODULE FAILURE", "exception": "…"}, "MODULE FAILURE"),
        ({"was_running": None, "running": None, "attempted": False, "changed": False, "message": "127"}, "127"),
        ({}, "gave no answer"),
    ],
)
def test_a_host_of_which_nobody_knows_is_a_failure(acted: dict[str, t.Any], said: str) -> None:
    for stage in ("stop", "restart"):
        result = note(BLANK, stage, "app1", command(acted))
        assert result["failed"]
        assert said in result["message"]
        assert result["hosts"]["app1"]["was_running"] is None
        assert result.get("to_restart", []) == []


def test_check_mode_announces_and_stops_nothing() -> None:
    announced = {**STOPPED, "attempted": False, "message": "Would be stopped."}
    result = note(BLANK, "stop", "app1", command(announced, check_mode=True))
    assert (result["changed"], result["failed"], result["to_restart"]) == (True, False, [])
    assert result["hosts"]["app1"]["stopped"] is False


def test_the_driver_none_says_so() -> None:
    result = note(BLANK, "stop", "app1", {"driver": "none"})
    assert (result["changed"], result["failed"], result["to_restart"]) == (False, False, [])
    assert result["message"] == "app1: rollback_app_driver is none, so nothing was stopped."


def test_systemd_units_that_were_running_are_to_be_restarted_and_no_others() -> None:
    acted = {"web": active("active", changed=True), "worker": active("inactive")}
    result = note(BLANK, "stop", "app1", systemd(acted, {"web": "inactive", "worker": "inactive"}))
    assert result["to_restart"] == ["app1/web"]
    assert result["failed"] is False
    assert result["hosts"]["app1"]["services"] == ["web"]
    assert result["message"] == "app1: web stopped. worker did not run."


@pytest.mark.parametrize(
    ("acted", "after", "said"),
    [
        (active("active", changed=True), "active", "systemd says that it is active"),
        (active("active", changed=True), "deactivating", "deactivating"),
        ({"msg": "Unable to stop service web: denied"}, "active", "denied"),
        ({"msg": "Could not find the requested service web: host"}, "inactive", "Could not find"),
        ({"unreachable": True, "msg": "no route"}, "", "no route"),
        ({"changed": False, "status": {}}, "", "in no state it knows"),
    ],
)
def test_a_systemd_unit_that_is_not_proven_down_is_a_failure(acted: t.Any, after: str, said: str) -> None:
    result = note(BLANK, "stop", "app1", systemd({"web": acted}, {"web": after}))
    assert result["failed"]
    assert said in result["message"]
    assert result["message"].startswith(("app1: web did not stop: ", "app1: web is not proven to be down: "))


def test_a_systemd_unit_that_refused_but_is_down_is_down() -> None:
    evidence = systemd({"web": {"msg": "Unable to stop service web: late"}}, {"web": "failed"})
    result = note(BLANK, "stop", "app1", evidence)
    assert (result["failed"], result["to_restart"]) == (False, ["app1/web"])


def test_systemd_in_check_mode() -> None:
    acted = {"web": active("active", changed=True)}
    result = note(BLANK, "stop", "app1", systemd(acted, {"web": "active"}, check_mode=True))
    assert (result["changed"], result["failed"]) == (True, False)
    assert result["message"] == "app1: web would be stopped."


def test_systemd_units_that_start() -> None:
    acted = {"web": active("inactive", changed=True), "worker": active("active")}
    result = note(BLANK, "restart", "app1", systemd(acted, {"web": "active", "worker": "active"}))
    assert (result["changed"], result["failed"]) == (True, False)
    assert result["hosts"]["app1"]["started"] is True
    assert result["message"] == "app1: web started. worker ran already."
    result = note(BLANK, "restart", "app1", systemd(acted, {"web": "activating", "worker": "active"}))
    assert result["message"] == "app1: web is not proven to run: systemd says that it is activating."


def test_compose_services_that_ran_are_stopped_and_to_be_restarted() -> None:
    evidence = compose(["web", "db"], {"changed": True}, ["db"])
    result = note(BLANK, "stop", "app1", evidence)
    assert (result["failed"], result["changed"], result["to_restart"]) == (False, True, ["app1/web"])
    assert result["message"] == "app1: web stopped. worker did not run."


def test_compose_services_that_did_not_run_are_left_alone() -> None:
    result = note(BLANK, "stop", "app1", compose(["db"], {"skipped": True}, {"skipped": True}))
    assert (result["failed"], result["changed"], result["to_restart"]) == (False, False, [])


@pytest.mark.parametrize(
    ("before", "acted", "after", "said"),
    [
        ({"rc": 1, "stderr": "Cannot connect to the Docker daemon", "msg": ""}, {"skipped": True}, {}, "Docker daemon"),
        ({"rc": 2, "msg": "No such file or directory: docker"}, {"skipped": True}, {}, "No such file"),
        (["web"], {"msg": "General error: boom"}, ["web"], "boom"),
        (["web"], {"changed": True}, ["web"], "web did not stop: Docker Compose says that it runs"),
        (["web"], {"changed": True}, {"unreachable": True, "msg": "gone"}, "gone"),
    ],
)
def test_compose_services_that_are_not_proven_down_are_a_failure(
    before: t.Any, acted: t.Any, after: t.Any, said: str
) -> None:
    result = note(BLANK, "stop", "app1", compose(before, acted, after))
    assert result["failed"]
    assert said in result["message"]


def test_compose_services_that_start() -> None:
    result = note(BLANK, "restart", "app1", compose(["db"], {"changed": True}, ["db", "web", "worker"], "restart"))
    assert (result["failed"], result["changed"]) == (False, True)
    result = note(BLANK, "restart", "app1", compose(["db"], {"msg": "unhealthy"}, ["db", "web"], "restart"))
    assert result["failed"]
    assert result["message"].endswith("worker does not run: unhealthy")


def test_a_compose_service_that_runs_but_did_not_get_healthy_is_a_failure() -> None:
    evidence = compose(["db"], {"msg": "container web is unhealthy"}, ["db", "web", "worker"], "restart")
    result = note(BLANK, "restart", "app1", evidence)
    assert result["failed"]
    assert "unhealthy" in result["message"]


def restarted(seen: str, seen_again: str, acted: t.Any = None, **container: t.Any) -> dict[str, t.Any]:
    """The restart of a service without a health check whose container was looked at twice."""
    after = containers(("web", "running"), ID="0a", **container)
    evidence = compose([], acted or {"changed": True}, after, "restart", services=["web"])
    looks = {"seen": {"rc": 0, "stdout_lines": [seen]}, "seen_again": {"rc": 0, "stdout_lines": [seen_again]}}
    return note(BLANK, "restart", "app1", {**evidence, **looks})


@pytest.mark.parametrize("health", ["starting", "unhealthy"])
def test_a_compose_service_whose_health_check_did_not_pass_is_not_proven_to_run(health: str) -> None:
    # Docker Compose can end well in the very moment in which its time is up.
    after = containers(("web", "running"), ("worker", "running"), Health=health)
    result = note(BLANK, "restart", "app1", compose([], {"changed": True}, after, "restart", services=["web"]))
    assert (result["failed"], result["changed"], result["hosts"]["app1"]["running"]) == (True, False, None)
    assert result["message"] == (
        f"app1: web is not proven to run: shop-web-1 runs, and its health check says {health}. "
        "Its log: docker logs --tail 50 shop-web-1"
    )
    said = note(BLANK, "restart", "app1", compose([], {"msg": "late"}, after, "restart", services=["web"]))
    assert said["message"].startswith(
        "app1: web is not proven to run: late. shop-web-1 runs, and its health check says"
    )
    # One container of several is enough, and what is not the service's own says nothing.
    after["stdout_lines"] += containers(("web", "running"), Health="healthy")["stdout_lines"]
    assert note(BLANK, "restart", "app1", compose([], {}, after, "restart", services=["web"]))["failed"]
    beside = containers(("web", "running"), Health=health, Labels="com.docker.compose.oneoff=True")
    beside["stdout_lines"] += containers(("web", "running"), Health="healthy")["stdout_lines"]
    assert not note(BLANK, "restart", "app1", compose([], {}, beside, "restart", services=["web"]))["failed"]


def test_a_health_check_is_asked_of_nothing_that_is_only_previewed_or_stopped() -> None:
    ill = containers(("web", "running"), Health="unhealthy")
    previewed = compose(ill, {"changed": False}, ill, "restart", services=["web"], check_mode=True)
    assert not note(BLANK, "restart", "app1", previewed)["failed"]
    assert note(BLANK, "stop", "app1", compose(ill, {"changed": True}, [], services=["web"]))["to_restart"] == [
        "app1/web"
    ]


@pytest.mark.parametrize(
    ("seen", "seen_again", "said"),
    [
        ("0a 0 10:00 running", "0a 1 10:02 running", "shop-web-1 keeps restarting"),
        ("0a 0 10:00 running", "0a 0 10:02 running", "shop-web-1 keeps restarting"),
        ("0a 3 10:00 running", "0a 3 10:00 restarting", "shop-web-1 keeps restarting"),
        ("0a 0 10:00 running", "0a 0 10:00 exited", "shop-web-1 ended within seconds"),
    ],
)
def test_a_compose_service_that_does_not_stay_up_does_not_run(seen: str, seen_again: str, said: str) -> None:
    result = restarted(seen, seen_again)
    assert (result["failed"], result["changed"], result["hosts"]["app1"]["running"]) == (True, False, False)
    assert result["message"].startswith(f"app1: web does not run: {said}")
    assert result["message"].endswith("Its log: docker logs --tail 50 shop-web-1")


def test_a_compose_service_that_stays_up_runs() -> None:
    result = restarted("0a 3 10:00 running", "0a 3 10:00 running")
    assert (result["failed"], result["message"]) == (False, "app1: web started.")
    # Where a health check says that it is well, that is the proof.
    assert not restarted("0a 0 10:00 running", "0a 1 10:02 running", Health="healthy")["failed"]


def test_a_compose_service_that_could_not_be_looked_at_again_is_not_proven_to_run() -> None:
    after = containers(("web", "running"), ID="0a")
    one = {"rc": 0, "stdout_lines": ["0a 0 10:00 running"]}
    gone = {"rc": 1, "stdout_lines": [], "stderr": "Error: No such container: 0a", "msg": "non-zero return code"}
    lost = {"unreachable": True, "msg": "no route"}
    for looks, said in (
        ({"seen": one, "seen_again": gone}, "No such container"),
        ({"seen": gone, "seen_again": gone}, "No such container"),
        ({"seen": one, "seen_again": lost}, "the host cannot be reached: no route"),
    ):
        evidence = compose([], {"changed": True}, after, "restart", services=["web"])
        result = note(BLANK, "restart", "app1", {**evidence, **looks})
        assert (result["failed"], result["hosts"]["app1"]["running"]) == (True, None)
        assert said in result["message"]
        assert result["hosts"]["app1"]["lost"] is (looks["seen_again"] is lost)


def test_a_compose_service_that_docker_restarts_when_it_is_asked_does_not_run_and_its_log_is_named() -> None:
    after = containers(("web", "restarting"))
    result = note(BLANK, "restart", "app1", compose([], {"changed": True}, after, "restart", services=["web"]))
    assert result["message"] == (
        "app1: web does not run: shop-web-1 keeps restarting. Its log: docker logs --tail 50 shop-web-1"
    )


def test_a_container_that_ends_again_and_again_is_told_beside_what_docker_compose_said() -> None:
    result = restarted("0a 0 10:00 running", "0a 1 10:02 running", {"msg": "container shop-web-1 exited (3)."})
    assert result["hosts"]["app1"]["running"] is False
    assert (
        "web does not run: container shop-web-1 exited (3). shop-web-1 keeps restarting. Its log:" in result["message"]
    )


def test_only_the_application_s_containers_that_run_without_a_health_check_are_watched() -> None:
    entries = [
        {"Service": "web", "State": "running", "Health": "", "ID": "0a"},
        {"Service": "web", "State": "running", "Health": "", "ID": "0b", "Labels": "com.docker.compose.oneoff=True"},
        {"Service": "worker", "State": "running", "Health": "healthy", "ID": "0c"},
        {"Service": "mail", "State": "running", "ID": "0d"},
        {"Service": "worker", "State": "exited", "Health": "", "ID": "0e"},
    ]
    answer = {"rc": 0, "stdout_lines": [json.dumps(entry) for entry in entries]}
    assert without_health_check(answer, ["web", "worker"]) == ["0a"]
    assert without_health_check({"unreachable": True, "msg": "gone"}, ["web"]) == []


def test_the_units_of_the_command_driver_have_no_name() -> None:
    assert list(units_of(command(STOPPED))) == [""]


def listed(**services: tuple[str, int]) -> dict[str, t.Any]:
    entries = ({"Service": name, "State": state, "ExitCode": code} for name, (state, code) in services.items())
    return {"rc": 0, "stdout_lines": [json.dumps(entry) for entry in entries]}


def test_a_compose_service_that_had_to_be_killed_is_a_warning() -> None:
    after = listed(db=("running", 0), web=("exited", 0), worker=("exited", 137), old=("exited", 137))
    result = note(BLANK, "stop", "app1", compose(["web", "worker", "db"], {"changed": True}, after))
    assert (result["failed"], result["to_restart"]) == (False, ["app1/web", "app1/worker"])
    [warning] = result["warnings"]
    assert warning.startswith("app1: worker did not end by itself")
    assert "rollback_app_timeout" in warning


def test_a_compose_service_that_is_up_again_in_any_way_is_a_failure() -> None:
    for state in ("running", "restarting", "paused"):
        result = note(BLANK, "stop", "app1", compose(["web"], {"changed": True}, listed(web=(state, 0))))
        assert result["failed"], state


def test_every_host_that_says_something_against_it_is_named() -> None:
    answers = [
        {"ansible_loop_var": "host", "host": "app1", "services": {}},
        {"ansible_loop_var": "host", "host": "app2", "msg": "No engine.", "outcome": "refused"},
        {"ansible_loop_var": "host", "host": "app3", "unreachable": True, "msg": "timed out"},
        {"ansible_loop_var": "host", "host": "app4", "skipped": True},
    ]
    assert refusals(answers) == ["app2: No engine.", "app3: the host cannot be reached: timed out"]


def test_a_compose_service_of_which_one_container_runs_is_to_stop_and_is_not_started() -> None:
    half = containers(("web", "running"), ("web", "exited"), ("worker", "running"), ExitCode=1)
    down = containers(("web", "exited"), ("web", "exited"), ("worker", "exited"))
    assert services_up(half, "stop") == {"web", "worker"}
    assert note(BLANK, "stop", "app1", compose(half, {"changed": True}, half))["failed"]
    started = note(BLANK, "restart", "app1", compose(down, {"changed": True}, half, "restart"))
    assert started["failed"]
    assert started["message"] == (
        "app1: web does not run: shop-web-1 has exited (exit code 1). Its log: docker logs --tail 50 shop-web-1"
    )
    assert services_up(containers(("web", "restarting")), "restart") == set()


def test_what_runs_beside_a_service_is_none_of_its_containers() -> None:
    for more in ({"Labels": "a=b,com.docker.compose.oneoff=True"}, {"Name": "shop-web-run-0123456789ab"}):
        beside = containers(("web", "running"), ("worker", "exited"), **more)
        assert services_up(beside, "stop") == set(), more
        assert not note(BLANK, "stop", "app1", compose(["web"], {"changed": True}, beside))["failed"], more
    own = containers(("web", "running"), Labels="com.docker.compose.oneoff=False", Name="shop-run-web-run-1")
    assert services_up(own, "stop") == {"web"}


def test_the_stop_of_compose_services_is_announced_in_check_mode_and_attempts_nothing() -> None:
    before = containers(("web", "running"), ("worker", "exited"))
    skipped = {"skipped": True, "msg": "Command would have run if not in check mode"}
    result = note(BLANK, "stop", "app1", compose(before, skipped, {"skipped": True}, check_mode=True))
    assert (result["failed"], result["changed"], result["to_restart"]) == (False, True, [])
    assert result["message"] == "app1: web would be stopped. worker did not run."


def test_a_stop_that_docker_compose_refused_is_told_in_its_own_words() -> None:
    refused = {"rc": 1, "msg": "non-zero return code", "stderr": "Container shop-web-1  Stopping\nno such disk\n"}
    result = note(BLANK, "stop", "app1", compose(["web"], refused, ["web"]))
    assert result["message"].endswith("web did not stop: Container shop-web-1 Stopping no such disk")


@pytest.mark.parametrize(
    "refused",
    [
        {
            "rc": 1,
            "msg": "non-zero return code",
            "stderr": "failed to read /srv/.env: line 4: unterminated quoted value 'S3cr3t\n",
        },
        {"failed": True, "msg": "General error: Invalid hostPort: S3cr3t"},
        {"failed": True, "msg": "required variable A is missing a value: S3cr3t"},
    ],
)
def test_what_docker_compose_quotes_of_the_projects_files_is_not_told(refused: dict[str, t.Any]) -> None:
    for asked in (compose(refused, refused, refused), compose(["web"], refused, ["web"], "restart")):
        message = note(BLANK, asked["stage"], "app1", asked)["message"]
        assert "S3cr3t" not in message
        assert "***" in message


def test_a_service_that_the_release_does_not_have_is_a_warning_and_keeps_no_other_down() -> None:
    evidence = compose([], {"changed": True}, ["web"], "restart", services=["web"], left_out=["worker"])
    result = note({**BLANK, "warnings": ["Before."]}, "restart", "app1", evidence)
    assert (result["failed"], result["message"]) == (False, "app1: web started.")
    assert result["warnings"][0] == "Before."
    assert result["warnings"][1].startswith("app1: worker was not started, because the compose file")
    nothing = note(BLANK, "restart", "app1", compose([], {"skipped": True}, [], "restart", services=[]))
    assert (nothing["failed"], nothing["message"]) == (False, "app1: Nothing was to be started.")


RUNS = {"was_running": True, "running": True, "attempted": False, "changed": False, "message": "Running."}


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        ({"driver": "command", "found": {"was_running": False}}, []),
        ({"driver": "command", "found": {"was_running": True}}, ["The application runs again on app1."]),
        (
            {"driver": "command", "found": {"failed": True, "msg": "No such command: 'appctl'."}},
            ["Whether the application is still down on app1 is not known: No such command: 'appctl'."],
        ),
        ({"driver": "command", "found": {"unreachable": True, "msg": "timed out"}}, []),
        ({"driver": "systemd", "services": ["web", "worker"], "found": {"rc": 3, "stdout_lines": ["inactive", "failed"]}}, []),
        (
            {"driver": "systemd", "services": ["web", "worker"], "found": {"rc": 3, "stdout_lines": ["inactive", "activating"]}},
            ["The application runs again on app1 (worker)."],
        ),
        (
            {"driver": "systemd", "services": ["web"], "found": {"rc": 1, "stdout_lines": [], "stderr": "Failed to connect to bus"}},
            ["Whether the application is still down on app1 is not known: Failed to connect to bus."],
        ),
        (
            {"driver": "docker_compose", "services": ["web", "worker"], "found": containers(("web", "exited"), ("db", "running"))},
            [],
        ),
        (
            {"driver": "docker_compose", "services": ["web", "worker"], "found": containers(("web", "running"), ("worker", "restarting"))},
            ["The application runs again on app1 (web, worker)."],
        ),
        (
            {"driver": "docker_compose", "services": ["web"], "found": {"rc": 1, "stdout_lines": [], "stderr": "Is the docker daemon running"}},
            ["Whether the application is still down on app1 is not known: Is the docker daemon running."],
        ),
    ],
)  # fmt: skip
def test_what_is_not_down_any_more_before_the_down(evidence: dict[str, t.Any], said: list[str]) -> None:
    assert not_down("app1", evidence) == said


@pytest.mark.parametrize(("stopped", "count"), [(["app1"], 1), ([], 0), (["app2"], 0)])
def test_what_the_run_stopped_and_somebody_else_started_is_a_warning(stopped: list[str], count: int) -> None:
    result = note(BLANK, "restart", "app1", command(RUNS, stopped=stopped))
    assert [warning.partition(" although")[0] for warning in result["warnings"]] == [
        "app1: the application ran already when it was to be started,"
    ] * count
