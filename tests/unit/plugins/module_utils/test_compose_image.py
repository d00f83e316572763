# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line of a project's .env that names its image, and every byte beside it; what the stage notes of it."""

from __future__ import annotations

import contextlib
import os
import typing as t
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import compose_image
from ansible_collections.cypher.rollback.plugins.module_utils.compose import ComposeRefused, entries
from ansible_collections.cypher.rollback.plugins.module_utils.compose_image import (
    ImageWanted,
    change_image,
    find_line,
    with_value,
)
from ansible_collections.cypher.rollback.plugins.module_utils.image_stage import (
    image_plan,
    note_image,
    note_image_undo,
)
from ansible_collections.cypher.rollback.plugins.module_utils.release import note_checkout

if t.TYPE_CHECKING:
    from pathlib import Path

ANSWER: dict[str, t.Any] = {
    "ansible_loop_var": "host",
    "host": "app1",
    "variable": "TAG",
    "image": "v1",
    "previous_image": "v2",
    "images": {"web": {"before": "shop:v2", "after": "shop:v1"}},
    "stale": ["web"],
    "changed": True,
}


@pytest.mark.parametrize(
    ("text", "value", "changed"),
    [
        ("TAG=v2", "v2", "TAG=new"),
        ("A=1\nTAG=v2\nTAGS=v2\n# TAG=v0\n", "v2", "A=1\nTAG=new\nTAGS=v2\n# TAG=v0\n"),
        ("  export TAG = v2  # the shop\r\nB=2\r\n", "v2", "  export TAG = new  # the shop\r\nB=2\r\n"),
        ("TAG='v2' # quoted\n", "v2", "TAG='new' # quoted\n"),
        ('TAG="v2"\n', "v2", 'TAG="new"\n'),
        ("TAG=\nB=2\n", "", "TAG=new\nB=2\n"),
        ("TAG=registry:5000/shop@sha256:ab#c\n", "registry:5000/shop@sha256:ab#c", "TAG=new\n"),
        ("B='ä'\nTAG=v2\n", "v2", "B='ä'\nTAG=new\n"),
    ],
)
def test_only_the_value_on_that_line_changes(text: str, value: str, changed: str) -> None:
    line = find_line(text, "TAG")
    assert line.value == value
    assert with_value(text, line, "new") == changed


@pytest.mark.parametrize("text", ["", "TAGS=v2\n", "#TAG=v2\n", "TAG=v1\nTAG=v2\n"])
def test_a_variable_that_is_not_defined_once_is_refused(text: str) -> None:
    with pytest.raises(ComposeRefused, match="rollback_image_variable"):
        find_line(text, "TAG")


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("", "v1", "rollback_image_variable"),
        ("A-B", "v1", "rollback_image_variable"),
        ("TAG", "v1\nX=1", "rollback_previous_image"),
        ("TAG", "${X}", "rollback_previous_image"),
        ("PATH", "v1", "PATH"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_asked(variable: str, value: str, named: str) -> None:
    with pytest.raises(ComposeRefused, match=named):
        change_image(ImageWanted("/nowhere", variable, value, ["web"]))


@pytest.mark.parametrize("present", ["", "'' # none", "${BASE}", "${BASE:-v2}", "-v2"])
def test_a_value_that_could_not_be_put_back_is_refused_with_nothing_changed(tmp_path: Path, present: str) -> None:
    file = tmp_path / ".env"
    file.write_text(f"BASE=v2\nTAG={present}\n", encoding="utf-8")
    with pytest.raises(ComposeRefused, match="could not be put back"):
        change_image(ImageWanted(str(tmp_path), "TAG", "v1", ["web"]))
    assert file.read_text(encoding="utf-8") == f"BASE=v2\nTAG={present}\n"


@pytest.mark.parametrize(
    ("user", "groups", "refused"),
    [(0, [0], False), (1000, [1000, 33], False), (1000, [1000], True), (1001, [33], True)],
)
def test_a_file_whose_owner_could_not_be_kept_is_refused_before_anything_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, groups: list[int], refused: bool
) -> None:
    # Writable for all of them, as a file with mode 0666 in such a folder is.
    facts = {"st_uid": 1000, "st_gid": 33}
    answers = {
        "stat": SimpleNamespace(**facts),
        "access": True,
        "geteuid": user,
        "getegid": groups[0],
        "getgroups": groups,
    }
    fake = {name: Mock(return_value=answer) for name, answer in answers.items()}
    monkeypatch.setattr(compose_image, "os", SimpleNamespace(path=os.path, W_OK=os.W_OK, X_OK=os.X_OK, **fake))
    with pytest.raises(ComposeRefused, match="1000:33") if refused else contextlib.nullcontext():
        compose_image._refuse_unwritable(str(tmp_path / ".env"))


def test_the_plan_names_the_image_beside_the_code() -> None:
    plan = image_plan({"app1": {"ref": "v1", "message": "app1: the code will be v1."}}, [ANSWER, {"skipped": True}])
    assert plan["app1"]["ref"] == "v1"
    assert plan["app1"]["message"].startswith("app1: the code will be v1. app1: TAG will be v1, instead of v2")
    assert "which it is already" in image_plan({}, [{**ANSWER, "previous_image": "v1"}])["app1"]["message"]


def test_the_image_is_noted_beside_the_code_and_taken_back() -> None:
    blank: dict[str, t.Any] = {"skipped": True, "hosts": {}, "changed": False, "failed": False, "message": ""}
    noted = note_image(blank, "app1", ANSWER, {})
    assert (noted["skipped"], noted["changed"], noted["failed"]) == (False, True, False)
    assert noted["hosts"]["app1"] | {"previous_image": "v2", "stale": ["web"]} == noted["hosts"]["app1"]
    # A run that goes on where another died finds the image changed already.
    resumed = note_image(blank, "app1", {**ANSWER, "previous_image": "v1", "changed": False}, {"previous_image": "v2"})
    assert (resumed["changed"], resumed["hosts"]["app1"]["previous_image"]) == (True, "v2")
    back = note_image_undo(noted, [{**ANSWER, "image": "v2", "previous_image": "v1", "stale": []}])
    assert (back["changed"], back["hosts"]["app1"]["undone"], back["hosts"]["app1"]["stale"]) == (False, True, [])
    assert back["message"] == "app1: TAG is v2 again."
    failed = note_image(blank, "app1", {"msg": "No\nroom.", "failed": True}, {})
    assert (failed["failed"], failed["message"]) == (True, "app1: No room.")
    assert note_image_undo(noted, [{"skipped": True}]) == noted
    assert note_image_undo(noted, [{**failed, "ansible_loop_var": "h", "h": "app1", "msg": "No."}])["failed"]


@pytest.mark.parametrize("lost", [{"unreachable": True}, {"timedout": {"period": 60}}])
def test_a_host_that_is_lost_while_its_image_changes_keeps_no_other_from_coming_back(lost: dict[str, t.Any]) -> None:
    blank: dict[str, t.Any] = {"skipped": True, "hosts": {}, "changed": False, "failed": False, "message": ""}
    noted = note_image(blank, "app1", {"msg": "no route", **lost}, {})
    noted = note_image(noted, "app2", ANSWER, {})
    assert (noted["failed"], noted["lost"], noted["changed"]) == (False, ["app1"], True)
    assert noted["message"] == "app1: the host cannot be reached: no route"
    refused = note_image(noted, "app3", {"msg": "No room.", "failed": True}, {})
    assert (refused["failed"], refused["lost"]) == (True, ["app1"])


def test_a_host_that_was_lost_at_its_checkout_stays_lost_whatever_its_image_says() -> None:
    blank: dict[str, t.Any] = {"skipped": True, "hosts": {}, "changed": False, "failed": False, "message": ""}
    code = note_checkout(blank, "app1", {"unreachable": True, "msg": "no route"})
    for answer in ({"unreachable": True, "msg": "no route"}, ANSWER):
        noted = note_image(code, "app1", answer, {})
        assert (noted["failed"], noted["lost"], noted["hosts"]["app1"]["failed"]) == (False, ["app1"], True), answer


def test_what_compose_lists_is_read_from_lines_and_from_one_list() -> None:
    assert entries('time="now" level=warning\n{"Service": "a"}\n{"Service": "b"}\n') == [
        {"Service": "a"},
        {"Service": "b"},
    ]
    assert entries('[{"Service": "a"}]\n') == [{"Service": "a"}]
    assert entries("") == []
