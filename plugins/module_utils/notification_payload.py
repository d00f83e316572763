# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A message in the form that each kind of channel takes."""

from __future__ import annotations

import email.utils
import json
import typing as t
from email.message import EmailMessage

from .notification import MAIL_PORTS, Message, addresses_of
from .notification_text import severity_level, started_report

#: Slack's limits: characters of a text object in a section and in a header, https://docs.slack.dev/reference/block-kit/blocks.
SLACK_SECTION = 3000
SLACK_HEADER = 150
#: Slack takes 50 blocks; who reads a message at night reads far fewer.
SLACK_SECTIONS = 8

#: Teams refuses messages of about 28 KB and more; what it counts is not said, so there is some room.
TEAMS_BYTES = 25_000
TEAMS_LINE = 1000

CUT = "… (the rest is in the report)"

_SLACK_COLOURS = {"news": "#1f6feb", "good": "#2e7d32", "warning": "#ef6c00", "bad": "#c62828"}
_TEAMS_STYLES = {"news": "accent", "good": "good", "warning": "warning", "bad": "attention"}


def data(message: Message) -> dict[str, t.Any]:
    """For programs: the report with the event; for stakeholders, only what their text says."""
    if message.audience == "stakeholder":
        return {"event": message.event, "title": message.text.title, "text": message.text.body()}
    report = dict(message.report)
    return started_report(report) if message.event == "start" else {**report, "event": message.event}


def slack(message: Message) -> dict[str, t.Any]:
    """For an incoming webhook: blocks in an attachment, which alone can have a colour, and a text for notifications."""
    sections = [
        {"type": "section", "text": {"type": "mrkdwn", "text": part, "verbatim": True}}
        for part in slack_parts(message.text.lines)
    ]
    header = {"type": "plain_text", "text": _shortened(message.text.title, SLACK_HEADER), "emoji": False}
    blocks = [{"type": "header", "text": header}, *sections]
    colour = _SLACK_COLOURS[message.text.tone]
    return {"text": slack_escaped(message.text.title), "attachments": [{"color": colour, "blocks": blocks}]}


def slack_escaped(text: str) -> str:
    """Slack's three control characters as entities, so that no name becomes a link or calls a whole channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack_parts(lines: t.Sequence[str]) -> list[str]:
    """The escaped lines in texts of at most 3000 characters; what is too much is said to be cut."""
    parts, part = [], ""
    for line in lines:
        # No line is cut within an entity: a shortened one leaves room for the longest of them.
        escaped = slack_escaped(_shortened(line, SLACK_SECTION // 5))
        if part and len(part) + 1 + len(escaped) > SLACK_SECTION:
            parts.append(part)
            part = escaped
        else:
            part = f"{part}\n{escaped}" if part else escaped
    if part:
        parts.append(part)
    return parts if len(parts) <= SLACK_SECTIONS else [*parts[: SLACK_SECTIONS - 1], CUT]


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def teams(message: Message) -> dict[str, t.Any]:
    """For a Workflows webhook ("when a Teams webhook request is received"): an Adaptive Card.

    Its texts are text runs, in which no Markdown is read, so that no name becomes a link.
    """
    lines = list(message.text.lines)
    while True:
        card = _card(message, lines)
        if len(json.dumps(card).encode()) <= TEAMS_BYTES:
            return card
        kept = lines[:-1] if lines[-1] == CUT else lines
        lines = [*kept[: len(kept) * 3 // 4], CUT]


def _card(message: Message, lines: t.Sequence[str]) -> dict[str, t.Any]:
    title = _run(_shortened(message.text.title, 300), weight="Bolder", size="Medium")
    texts = [_run(_shortened(line, TEAMS_LINE)) for line in lines if line]
    content = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": [
            {"type": "Container", "style": _TEAMS_STYLES[message.text.tone], "bleed": True, "items": [title]},
            *texts,
        ],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": content}]}


def _run(text: str, **style: str) -> dict[str, t.Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def mail(message: Message, page: str = "") -> EmailMessage:
    """A mail in plain text, with the run's page attached for those who run the system.

    :param page: HTML; empty, nothing is attached.
    """
    settings = message.channel.settings
    sender = addresses_of(settings["from"])[0]
    letter = EmailMessage()
    # Headers are folded and encoded by the library, which refuses line breaks; visible() left none in the title.
    letter["From"] = sender
    letter["To"] = ", ".join(message.addresses)
    letter["Subject"] = _shortened(message.text.title, 200)
    letter["Date"] = email.utils.localtime()
    letter["Message-ID"] = email.utils.make_msgid(domain=sender.rpartition("@")[2])
    # Nobody's holiday answer is wanted (RFC 3834).
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(f"{message.text.body()}\n")
    if page and message.audience == "technical":
        letter.add_attachment(page.encode(), maintype="text", subtype="html", filename="report.html")
    return letter


def mail_port(settings: t.Mapping[str, t.Any]) -> int:
    """The port set, or that of the kind of encryption."""
    return int(settings.get("port") or MAIL_PORTS[str(settings.get("tls") or "starttls")])


def variables(message: Message) -> dict[str, str]:
    """The environment of a command, besides its own."""
    report = message.report
    told = {
        "EVENT": message.event,
        "AUDIENCE": message.audience,
        "TITLE": message.text.title,
        "TEXT": message.text.body()[:60_000],
        "SEVERITY": severity_level(report),
    }
    if message.audience == "technical":
        outcome = "started" if message.event == "start" else str(report.get("outcome") or "")
        told |= {
            "OUTCOME": outcome,
            "RUN_ID": str(report.get("run_id") or ""),
            "RUNBOOK": str(report.get("runbook") or ""),
        }
    return {f"ROLLBACK_{name}": value.replace("\0", "") for name, value in told.items()}
