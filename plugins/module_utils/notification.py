# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told what, and through which channel: ``rollback_notify`` and ``rollback_contacts`` as data.

Nothing is sent here; see notification_delivery.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t
from email import policy

from .application import Command
from .errors import Refused
from .notification_text import LEVELS, Contact, Text, plain_words, severity_level, technical_words
from .visible import visible

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from email.headerregistry import Address

EVENTS = ("start", "end", "failure")
AUDIENCES = ("technical", "stakeholder")
TLS = ("none", "starttls", "ssl")

#: Ports that mail servers listen on for each kind of encryption (RFC 6409, RFC 8314).
MAIL_PORTS = {"none": 25, "starttls": 587, "ssl": 465}

_COMMON = ("type", "name", "events", "severities", "audience", "roles")
_ADDRESS = ("url", "headers", "ca_cert")
_MAIL = ("host", "port", "tls", "username", "password", "from", "to", "ca_cert")

#: Kinds of channels, each with its own keys.
TYPES: dict[str, tuple[str, ...]] = {
    "webhook": _ADDRESS,
    "slack": _ADDRESS,
    "teams": _ADDRESS,
    "email": _MAIL,
    "command": ("command",),
}

#: Names of this host, where a password may travel unencrypted.
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")


def words_of(value: t.Any) -> list[str]:
    """A list of words, also where a setting is one word or several with commas."""
    parts = value if isinstance(value, (list, tuple)) else str(value or "").split(",")
    return [word for word in (str(part).strip() for part in parts) if word]


def addresses_of(value: t.Any) -> list[str]:
    """The bare mail addresses of a setting.

    :raises ValueError: for one that is none.
    """
    return [_address(text) for text in words_of(value)]


def _address(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", text):
        raise ValueError(f"{visible(text)!r} holds control characters")
    try:
        parsed: tuple[Address, ...] = policy.default.header_factory("to", text).addresses
    except (ValueError, IndexError):
        parsed = ()
    if len(parsed) != 1 or not parsed[0].username or not parsed[0].domain or " " in parsed[0].addr_spec:
        raise ValueError(f"{visible(text)!r} is no mail address")
    return parsed[0].addr_spec


def contacts_of(value: t.Any) -> list[Contact]:
    """The people of ``rollback_contacts``; entries without a role are left out."""
    entries = [entry for entry in value or [] if hasattr(entry, "get")] if isinstance(value, (list, tuple)) else []
    return [Contact.parse(entry) for entry in entries if entry.get("role")]


@dataclasses.dataclass(frozen=True)
class Channel:
    """One channel of ``rollback_notify``.

    :param severities: levels at which it is told; empty, at all of them.
    :param roles: roles of the contacts that it is for.
    :param settings: the keys of its type.
    """

    kind: str
    name: str
    events: tuple[str, ...] = EVENTS
    severities: tuple[str, ...] = ()
    audience: str = "technical"
    roles: tuple[str, ...] = ()
    settings: Mapping[str, t.Any] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, given: t.Any, contacts: Sequence[Contact], number: int = 1) -> Channel:
        """A channel from the setting.

        :param number: its place in the list, to name it by where it has no name.
        :raises Refused: with a sentence for everything that is wrong with it.
        """
        problems = channel_problems(given, contacts, number)
        if problems:
            raise Refused(" ".join(problems))
        kind = str(given["type"])
        return cls(
            kind=kind,
            name=channel_name(given),
            events=tuple(words_of(given.get("events"))) or EVENTS,
            severities=tuple(word.capitalize() for word in words_of(given.get("severities"))),
            audience=str(given.get("audience") or "technical"),
            roles=tuple(words_of(given.get("roles"))),
            settings={key: given[key] for key in TYPES[kind] if given.get(key) not in (None, "")},
        )

    def is_told(self, level: str) -> bool:
        """Whether it is told of a run of this severity. An unknown one may be the highest."""
        return not self.severities or not level or level in self.severities

    def people(self, contacts: Sequence[Contact]) -> list[Contact]:
        """The contacts of its roles."""
        return [contact for contact in contacts if contact.role in self.roles]

    def audience_of(self, contact: Contact) -> str:
        """Which text a person gets: a stakeholder never the technical one."""
        return "stakeholder" if "stakeholder" in (self.audience, contact.audience) else "technical"


def channel_name(given: Mapping[str, t.Any]) -> str:
    """The name in the report. An address may carry a token, so none of it but the host is ever repeated."""
    address = re.search(r"://(?:[^/@]*@)?([^/?#]+)", str(given.get("url") or ""))
    return visible(given.get("name") or (address and address[1]) or given.get("type") or "webhook")


def notify_problems(channels: t.Any, contacts: t.Any) -> list[str]:
    """What is wrong with ``rollback_notify``, a sentence each; an empty list when nothing is."""
    if not isinstance(channels, (list, tuple)):
        return ["rollback_notify must be a list of channels."]
    if not isinstance(contacts or [], (list, tuple)):
        return ["rollback_contacts must be a list, for the channels of rollback_notify too."]
    people = contacts_of(contacts)
    found = [channel_problems(channel, people, number) for number, channel in enumerate(channels, 1)]
    return [problem for problems in found for problem in problems]


def channel_problems(given: t.Any, contacts: Sequence[Contact], number: int = 1) -> list[str]:
    """What is wrong with one channel. Each sentence names the setting and the channel, and holds no secret."""
    if not hasattr(given, "items"):
        return [f"rollback_notify: channel {number} must be a dictionary with a type."]
    label = f"channel {visible(given['name'])!r}" if given.get("name") else f"channel {number}"
    kind = str(given.get("type") or "")
    if kind not in TYPES:
        return [
            f"rollback_notify: {label} has the type {visible(kind)!r}; the types are {', '.join(TYPES)}."
            if kind
            else f"rollback_notify: {label} has no type; the types are {', '.join(TYPES)}."
        ]
    said = [*_common_problems(given, contacts), *_PROBLEMS.get(kind, _address_problems)(given, contacts)]
    return [f"rollback_notify: {label} ({kind}) {problem}." for problem in said]


def _common_problems(given: Mapping[str, t.Any], contacts: Sequence[Contact]) -> list[str]:
    kind = str(given["type"])
    known = (*_COMMON, *TYPES[kind])
    foreign = [str(key) for key, value in given.items() if key not in known and value not in (None, "", [], {})]
    problems = [f"has no key {visible(key)!r}; its keys are {', '.join(known)}" for key in foreign]
    problems += _unknown(given, "events", EVENTS)
    problems += _unknown(
        {"severities": [word.capitalize() for word in words_of(given.get("severities"))]}, "severities", LEVELS
    )
    problems += _unknown(given, "audience", AUDIENCES)
    roles = list(dict.fromkeys(contact.role for contact in contacts))
    missing = [visible(role) for role in words_of(given.get("roles")) if role not in roles]
    if missing:
        has = ", ".join(map(visible, roles)) or "nobody"
        problems.append(f"is for the role {' and '.join(missing)}, and rollback_contacts has {has}")
    return problems


def _unknown(given: Mapping[str, t.Any], key: str, known: Sequence[str]) -> list[str]:
    wrong = [visible(word) for word in words_of(given.get(key)) if word not in known]
    return [f"has {', '.join(wrong)} in {key}, which knows {', '.join(known)}"] if wrong else []


def _address_problems(given: Mapping[str, t.Any], _contacts: Sequence[Contact]) -> list[str]:
    url, headers = str(given.get("url") or ""), given.get("headers") or {}
    problems = []
    if not url:
        problems.append("has no url")
    elif not re.match(r"https?://[^/\s]+[^\s]*\Z", url):
        problems.append("has a url that is no http or https address")
    if not hasattr(headers, "items"):
        problems.append("has headers that are no dictionary")
    elif any(re.search(r"[\r\n]", f"{key}{value}") for key, value in headers.items()):
        problems.append("has a header with a line break in it")
    return problems


def _mail_problems(given: Mapping[str, t.Any], contacts: Sequence[Contact]) -> list[str]:
    problems = _unknown(given, "tls", TLS)
    tls = str(given.get("tls") or "starttls")
    if not given.get("from"):
        problems.append("has no from, the address that it is sent by")
    for key in ("from", "to"):
        try:
            addresses_of(given.get(key))
        except ValueError as err:
            problems.append(f"has a wrong {key}: {err}")
    port = str(given.get("port") or MAIL_PORTS.get(tls, 25))
    if not port.isdecimal() or not 0 < int(port) < 65536:
        problems.append("has a port that is no number from 1 to 65535")
    if given.get("password") and tls == "none" and str(given.get("host") or "localhost") not in _OWN_NAMES:
        problems.append("would send its password unencrypted: set tls to starttls or ssl")
    return problems + _recipient_problems(given, contacts)


def _recipient_problems(given: Mapping[str, t.Any], contacts: Sequence[Contact]) -> list[str]:
    roles = words_of(given.get("roles"))
    people = [contact for contact in contacts if contact.role in roles]
    wrong = []
    for contact in people:
        try:
            addresses_of(contact.email)
        except ValueError as err:
            wrong.append(f"is for {visible(contact.role)}, whose email is wrong in rollback_contacts: {err}")
    if not wrong and not words_of(given.get("to")) and not any(contact.email for contact in people):
        wrong.append("has no recipients: set to, or roles whose contacts in rollback_contacts have an email")
    return wrong


def _command_problems(given: Mapping[str, t.Any], _contacts: Sequence[Contact]) -> list[str]:
    try:
        Command.parse("command", given.get("command"))
    except Refused:
        return ["has no command: give a shell line, or a list of words that is run without a shell"]
    return []


_PROBLEMS: dict[str, Callable[[Mapping[str, t.Any], Sequence[Contact]], list[str]]] = {
    "email": _mail_problems,
    "command": _command_problems,
}


@dataclasses.dataclass(frozen=True)
class Message:
    """What one channel is told for one audience.

    :param addresses: of an email, whom it goes to.
    :param report: the run as data, for channels that take data.
    """

    channel: Channel
    event: str
    audience: str
    text: Text
    roles: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    report: Mapping[str, t.Any] = dataclasses.field(default_factory=dict, repr=False)

    def note(self, status: str, message: str) -> dict[str, t.Any]:
        """The report's entry about it."""
        return note_of(self.channel, self.event, status, message, audience=self.audience, roles=self.roles)


def note_of(
    channel: Channel, event: str, status: str, message: str, *, audience: str = "", roles: Sequence[str] = ()
) -> dict[str, t.Any]:
    """An entry of the report's ``notifications``, without its time.

    :param status: ``sent``, ``failed`` or ``skipped``.
    """
    return {
        "name": channel.name,
        "type": channel.kind,
        "event": event,
        "audience": audience or channel.audience,
        "status": status,
        "message": visible(message),
        "recipients": list(roles),
    }


@dataclasses.dataclass(frozen=True)
class Occasion:
    """What there is to tell.

    :param event: ``start``, ``end`` or ``failure``.
    :param contacts: everybody of ``rollback_contacts``.
    """

    event: str
    report: Mapping[str, t.Any]
    contacts: Sequence[Contact]

    def text(self, audience: str, mentioned: Sequence[Contact] = ()) -> Text:
        """The words for an audience."""
        words = plain_words if audience == "stakeholder" else technical_words
        return words(self.report, self.event, self.contacts, mentioned)


def chosen(channels: Sequence[t.Any], occasion: Occasion) -> tuple[list[Message], list[dict[str, t.Any]]]:
    """What is to be sent, and a note for every channel that cannot be told, or is not told of this severity."""
    messages: list[Message] = []
    notes: list[dict[str, t.Any]] = []
    level = severity_level(occasion.report)
    for number, given in enumerate(channels, 1):
        try:
            channel = Channel.parse(given, occasion.contacts, number)
        except Refused as err:
            named = given if hasattr(given, "get") else {}
            broken = Channel(visible(named.get("type") or "webhook"), channel_name(named))
            notes.append(note_of(broken, occasion.event, "failed", str(err)))
            continue
        if occasion.event not in channel.events:
            continue
        if channel.is_told(level):
            try:
                messages += _messages(channel, occasion)
            # The others are to be told whatever is wrong with the words for this one.
            except Exception as err:  # noqa: BLE001 (a report of any shape may come in)
                said = f"no text could be made for it: {type(err).__name__} {err}"
                notes.append(note_of(channel, occasion.event, "failed", said))
        else:
            told = f"it is told of {', '.join(channel.severities)}, and this is {level}"
            notes.append(note_of(channel, occasion.event, "skipped", told))
    return messages, notes


def _messages(channel: Channel, occasion: Occasion) -> list[Message]:
    """One message, or for mail one for each audience among its recipients."""
    people = channel.people(occasion.contacts)
    if channel.kind != "email":
        text = occasion.text(channel.audience, people)
        roles = tuple(dict.fromkeys(contact.role for contact in people))
        return [Message(channel, occasion.event, channel.audience, text, roles, report=occasion.report)]
    messages = []
    for audience in AUDIENCES:
        readers = [contact for contact in people if contact.email and channel.audience_of(contact) == audience]
        own = addresses_of(channel.settings.get("to")) if audience == channel.audience else []
        written = tuple(dict.fromkeys([*own, *(_address(contact.email) for contact in readers)]))
        if written:
            roles = tuple(dict.fromkeys(contact.role for contact in readers))
            messages.append(Message(channel, occasion.event, audience, occasion.text(audience), roles, written))
    return messages
