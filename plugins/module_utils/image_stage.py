# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stage previous_code did with the images of the application, beside its code."""

from __future__ import annotations

import typing as t

from .git import one_line
from .lost_host import is_lost
from .release import with_hosts

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Answer = Mapping[str, t.Any]

_NO_CODE: dict[str, t.Any] = {
    **dict.fromkeys(("ref", "commit", "previous_commit", "previous_branch", "stash", "message"), ""),
    "changed": False,
    "failed": False,
    "lost": False,
}


def image_plan(plan: Mapping[str, t.Any], answers: Sequence[Answer]) -> dict[str, t.Any]:
    """Which release each host would have, with the images."""
    planned = dict(plan)
    for answer in answers:
        if answer.get("skipped") or "image" not in answer:
            continue
        host = str(answer[answer["ansible_loop_var"]])
        before = dict(planned.get(host) or {})
        instead = (
            f"instead of {answer['previous_image']}"
            if answer["image"] != answer["previous_image"]
            else "which it is already"
        )
        services = ", ".join(answer["images"])
        said = (
            f"{host}: {answer['variable']} will be {answer['image']}, {instead}; {services} will be made anew from it."
        )
        message = " ".join(filter(None, [before.get("message"), said]))
        planned[host] = {**before, **_image_of(answer), "message": message}
    return planned


def _image_of(answer: Answer) -> dict[str, t.Any]:
    return {name: answer[name] for name in ("variable", "image", "previous_image", "images")}


def note_image(result: Mapping[str, t.Any], host: str, answer: Answer, before: Answer) -> dict[str, t.Any]:
    """The stage's result with the image of one more host.

    :param answer: what the task of that host registered.
    :param before: what there was when a run began that died and that this one goes on with: ``previous_image``.
    """
    code = result["hosts"].get(host) or _NO_CODE
    record = _record(answer)
    was = before.get("previous_image")
    if not record["failed"] and was and was != record["image"]:
        record.update(previous_image=was, changed=True)
    together = {
        **code,
        **record,
        "changed": code["changed"] or record["changed"],
        "failed": code["failed"] or record["failed"],
        # One that was lost before its image was to change stays that, whatever was heard of it since.
        "lost": code.get("lost", False) or record["lost"],
        "message": " ".join(filter(None, [code["message"], record["message"]])),
    }
    return with_hosts(result, {**result["hosts"], host: together})


def note_image_undo(result: Mapping[str, t.Any], answers: Sequence[Answer]) -> dict[str, t.Any]:
    """The stage's result after the way back."""
    for answer in answers:
        if answer.get("skipped"):
            continue
        host, record = str(answer[answer["ansible_loop_var"]]), _record(answer)
        before = result["hosts"][host]
        if record["failed"]:
            noted = {**before, "failed": True, "message": record["message"]}
        else:
            message = f"{record['variable']} is {record['image']} again."
            said = " ".join(filter(None, [before["message"] if before.get("undone") else "", message]))
            noted = {**before, **record, "changed": False, "undone": True, "message": said}
        result = with_hosts(result, {**result["hosts"], host: noted})
    return dict(result)


def _record(answer: Answer) -> dict[str, t.Any]:
    if "image" not in answer:
        said = one_line(str(answer.get("msg") or "The module gave no answer."))
        lost = is_lost(answer)
        said = f"the host cannot be reached: {said}" if lost else said
        return {"changed": False, "failed": True, "lost": lost, "message": said}
    told = f"{answer['variable']} is {answer['image']}"
    return {
        **_image_of(answer),
        "stale": list(answer["stale"]),
        "changed": answer["changed"],
        "failed": False,
        "lost": False,
        "message": told + ("." if answer["changed"] else ", as before."),
    }
