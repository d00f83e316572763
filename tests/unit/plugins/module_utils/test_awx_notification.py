# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a notification template a controller is sent, where it shows neither secrets nor what was left out as it was."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils.awx_notification import to_send

CONFIGURATION = {"url": "https://hooks.example.com", "headers": {}, "password": "s3cret"}
MESSAGES = {"error": {"message": "bad"}}
SHOWN: dict[str, t.Any] = {
    "name": "ops",
    "notification_configuration": {**CONFIGURATION, "password": "$encrypted$", "http_method": "POST"},
    "messages": {"started": None, "success": None, "error": {"message": "bad"}, "workflow_approval": None},
}
WANTED = {"name": "ops", "type": "webhook", "configuration": CONFIGURATION, "messages": MESSAGES}


def test_a_new_one_is_sent_whole() -> None:
    assert to_send(WANTED, [], False) == {"notification_configuration": CONFIGURATION, "messages": MESSAGES}
    assert to_send(WANTED, [{**SHOWN, "name": "other"}], False) == to_send(WANTED, [], False)


def test_what_is_there_is_not_sent_again() -> None:
    assert to_send(WANTED, [SHOWN], False) == {}


def test_a_secret_is_sent_again_where_that_is_asked_for() -> None:
    assert to_send(WANTED, [SHOWN], True) == {"notification_configuration": CONFIGURATION}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"configuration": {**CONFIGURATION, "url": "https://elsewhere.example.com"}}, ["notification_configuration"]),
        ({"configuration": {**CONFIGURATION, "headers": {"X-Team": "shop"}}}, ["notification_configuration"]),
        ({"messages": {"error": {"message": "worse"}}}, ["messages"]),
        ({"messages": None}, []),
    ],
)
def test_a_part_that_differs_is_sent(change: dict[str, t.Any], parts: list[str]) -> None:
    assert list(to_send({**WANTED, **change}, [SHOWN], False)) == parts


def test_a_header_that_was_taken_out_of_the_settings_is_taken_out_of_the_controller() -> None:
    shown = {**CONFIGURATION, "password": "$encrypted$", "headers": {"Authorization": "$encrypted$"}}
    parts = to_send(WANTED, [{**SHOWN, "notification_configuration": shown}], False)
    assert parts == {"notification_configuration": CONFIGURATION}


def test_what_the_controller_keeps_of_older_messages_is_no_difference() -> None:
    messages = {**SHOWN["messages"], "error": {"message": "bad", "body": "of before"}}
    assert to_send(WANTED, [{**SHOWN, "messages": messages}], False) == {}
