# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends messages, all channels side by side, and says what became of each.

Why not community.general's slack and mail modules, or ansible.builtin.uri: each would be a task a channel, one after the
other, so that a dead channel delayed the others and the stop; here they share one deadline, whatever they do. The urllib
and smtplib of Python do the work, and no collection is needed for it.

Nothing that goes wrong here is an error of the run. Addresses, headers and passwords are in no message.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import smtplib
import ssl
import subprocess
import tempfile
import threading
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from .application import Command, command_environment, without_passwords
from .errors import Refused
from .http_request import basic_authorization, opener
from .journal import utc_now
from .notification import Message, Occasion, chosen, contacts_of
from .notification_payload import data, mail, mail_port, slack, teams, variables
from .notification_text import event_of

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Seconds between a connection that failed and the only other try.
RETRY_PAUSE = 0.5

#: Seconds that a channel ends before the common deadline, so that it can say itself what went wrong.
MARGIN = 0.2

#: Characters of what a server or command has said that are repeated.
LONGEST_ANSWER = 300


class NotDelivered(Exception):
    """A message that did not arrive; the text says why."""


class NoConnection(NotDelivered):
    """The server was not reached, so that another try sends nothing twice."""


class Deadline:
    """A moment until which everything must be over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then.

        :raises NotDelivered: when there are none.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise NotDelivered(f"gave no answer within {self.seconds:g} s")
        return left


def notify(
    channels: Sequence[t.Any],
    contacts: t.Any,
    report: Mapping[str, t.Any],
    *,
    event: str = "",
    timeout: float = 10.0,
    page: str = "",
    send: bool = True,
) -> list[dict[str, t.Any]]:
    """Tell every channel that is to be told.

    :param channels: as in ``rollback_notify``.
    :param contacts: as in ``rollback_contacts``.
    :param event: ``start``, or empty for how the run ended.
    :param timeout: seconds for all of them together.
    :param page: the run's page, attached to mails.
    :param send: false in check mode.
    :returns: a note for each: ``name``, ``type``, ``event``, ``audience``, ``status``, ``message``, ``recipients``, ``at``.
    """
    occasion = Occasion(event or event_of(report), report, contacts_of(contacts))
    messages, notes = chosen(channels, occasion)
    if send:
        notes += deliver(messages, timeout, page)
    else:
        notes += [message.note("skipped", "nothing is sent in check mode") for message in messages]
    return [{**note, "at": note.get("at") or utc_now()} for note in notes]


def deliver(messages: Sequence[Message], timeout: float, page: str = "") -> list[dict[str, t.Any]]:
    """Send all messages at once; a note for each, when the last has ended or the time is up.

    :param timeout: seconds for all of them together.
    """
    deadline = Deadline(timeout)
    notes: list[dict[str, t.Any] | None] = [None] * len(messages)

    def work(number: int) -> None:
        notes[number] = _noted(messages[number], deadline, page)

    # Daemons: a name server that does not answer can hold a thread for longer than anybody waits for it.
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(messages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline.at - time.monotonic()))
    late = f"gave no answer within {timeout:g} s"
    return [
        note or {**message.note("failed", late), "at": utc_now()} for note, message in zip(notes, messages, strict=True)
    ]


def _noted(message: Message, deadline: Deadline, page: str) -> dict[str, t.Any]:
    """Send one message, once more where there was no connection."""
    own = Deadline(max(0.05, deadline.at - time.monotonic() - MARGIN))
    own.seconds = deadline.seconds
    try:
        try:
            status, said = "sent", _send(message, own, page)
        except NoConnection:
            time.sleep(min(RETRY_PAUSE, own.left()))
            status, said = "sent", _send(message, own, page)
    except NotDelivered as err:
        status, said = "failed", str(err)
    # A thread must not end with a traceback on the operator's screen, and with it the address.
    except Exception as err:  # noqa: BLE001 (whatever it is, it concerns one message and no run)
        status, said = "failed", f"{type(err).__name__}: {err}"
    said = without_secrets(" ".join(said.split()), message.channel.settings)
    return {**message.note(status, said), "at": utc_now()}


def _send(message: Message, deadline: Deadline, page: str) -> str:
    if message.channel.kind == "email":
        return _send_mail(message, deadline, page)
    return _SENDERS[message.channel.kind](message, deadline)


def _post(body: Callable[[Message], dict[str, t.Any]]) -> Callable[[Message, Deadline], str]:
    def post(message: Message, deadline: Deadline) -> str:
        return f"answered {_posted(message.channel.settings, json.dumps(body(message)).encode(), deadline)}"

    return post


def _posted(settings: Mapping[str, t.Any], body: bytes, deadline: Deadline) -> int:
    """POST JSON; the status when it is a good one."""
    request = _request(settings, body)
    secure = request.full_url.startswith("https:")
    handlers = [urllib.request.HTTPSHandler(context=_tls(settings))] if secure else []
    try:
        # A report that is to go to one host goes to no other.
        with opener(request.full_url, False, *handlers).open(request, timeout=deadline.left()) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        with err:
            elsewhere = ", a redirect, which is not followed" if 300 <= err.code < 400 else ""
        raise NotDelivered(f"answered {err.code}{elsewhere}") from err
    except (OSError, http.client.HTTPException) as err:
        raise _broken(err, deadline) from err


def _request(settings: Mapping[str, t.Any], body: bytes) -> urllib.request.Request:
    """The request; user and password of the address become a header, as with every other client."""
    parts = urllib.parse.urlsplit(str(settings["url"]))
    user, mark, place = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json", "User-Agent": "cypher.rollback"}
    if mark:
        headers["Authorization"] = basic_authorization(user)
    headers |= {str(key): str(value) for key, value in (settings.get("headers") or {}).items()}
    url = urllib.parse.urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))
    return urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - judged with the settings: http or https


def _broken(err: Exception, deadline: Deadline) -> NotDelivered:
    """What an error of the network means."""
    reason = err.reason if isinstance(err, urllib.error.URLError) else err
    if isinstance(reason, TimeoutError):
        return NotDelivered(f"gave no answer within {deadline.seconds:g} s")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return NotDelivered(f"its certificate is not valid: {reason.verify_message}")
    words = str(reason) or type(reason).__name__
    kind = NoConnection if isinstance(reason, OSError) and not isinstance(reason, ssl.SSLError) else NotDelivered
    return kind(f"cannot be reached: {words}")


def _tls(settings: Mapping[str, t.Any]) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(settings.get("ca_cert") or "") or None)
    except OSError as err:
        raise NotDelivered(f"its ca_cert cannot be read: {err.strerror or err}") from err


def _send_mail(message: Message, deadline: Deadline, page: str) -> str:
    settings, letter = message.channel.settings, mail(message, page)
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(_mail_server(settings, deadline))
            refused = server.send_message(letter, to_addrs=list(message.addresses))
    except smtplib.SMTPRecipientsRefused as err:
        raise NotDelivered(f"the mail server refused every recipient: {_refusals(err.recipients)}") from err
    except smtplib.SMTPResponseException as err:
        said = err.smtp_error.decode("utf-8", "replace") if isinstance(err.smtp_error, bytes) else err.smtp_error
        raise NotDelivered(f"the mail server answered {err.smtp_code} {said[:LONGEST_ANSWER]}") from err
    except smtplib.SMTPNotSupportedError as err:
        raise NotDelivered(f"the mail server cannot do what is needed, and nothing was sent: {err}") from err
    except smtplib.SMTPServerDisconnected as err:
        if isinstance(err.__context__, TimeoutError):
            raise NotDelivered(f"gave no answer within {deadline.seconds:g} s") from err
        raise NotDelivered(f"the mail server closed the connection: {err}") from err
    except (OSError, smtplib.SMTPException) as err:
        raise _broken(err, deadline) from err
    if refused:
        raise NotDelivered(
            f"the mail server refused {len(refused)} of {len(message.addresses)} recipients: {_refusals(refused)}"
        )
    return (
        f"taken by the mail server for {len(message.addresses)} recipient{'' if len(message.addresses) == 1 else 's'}"
    )


def _refusals(recipients: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{name} ({code})" for name, (code, _text) in recipients.items())[:LONGEST_ANSWER]


def _mail_server(settings: Mapping[str, t.Any], deadline: Deadline) -> smtplib.SMTP:
    """A connection with the encryption that is set and no less."""
    host, port, tls = (
        str(settings.get("host") or "localhost"),
        mail_port(settings),
        str(settings.get("tls") or "starttls"),
    )
    if tls == "ssl":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=deadline.left(), context=_tls(settings))
    else:
        context = _tls(settings) if tls == "starttls" else None
        server = smtplib.SMTP(host, port, timeout=deadline.left())
    try:
        if tls == "starttls":
            # Where the server does not offer it, this raises, and nothing goes out in the clear.
            server.starttls(context=context)
        if settings.get("username"):
            server.login(str(settings["username"]), str(settings.get("password") or ""))
    except BaseException:
        server.close()
        raise
    return server


def _run(message: Message, deadline: Deadline) -> str:
    """Run a command of the operator's own: the data on its input, what it is about in its environment."""
    try:
        command = Command.parse("command", message.channel.settings["command"])
    except Refused as err:
        raise NotDelivered(str(err)) from err
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        # Files and not pipes: a command that reads nothing, or leaves a daemon behind, holds nobody.
        given.write(json.dumps(data(message)).encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                command.argv(),
                env={**command_environment(), **variables(message)},
                stdin=given,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except (OSError, ValueError) as err:
            raise NotDelivered(f"the command cannot be run: {err}") from err
        code = _ended(process, deadline)
        output.seek(max(0, output.seek(0, os.SEEK_END) - LONGEST_ANSWER))
        said = without_passwords(" ".join(output.read().decode("utf-8", "replace").split()))
    if code is None:
        raise NotDelivered(f"the command did not end within {deadline.seconds:g} s, and was ended")
    if code:
        raise NotDelivered(f"the command ended with exit code {code}" + (f", saying: {said}" if said else ""))
    return "the command ended with exit code 0"


def _ended(process: subprocess.Popen[bytes], deadline: Deadline) -> int | None:
    """The exit code; without one when the time was up, and then nothing of its session is left."""
    try:
        return process.wait(deadline.left())
    except (subprocess.TimeoutExpired, NotDelivered):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(MARGIN)
        return None


_SENDERS: dict[str, Callable[[Message, Deadline], str]] = {
    "webhook": _post(data),
    "slack": _post(slack),
    "teams": _post(teams),
    "command": _run,
}


def without_secrets(text: str, settings: Mapping[str, t.Any]) -> str:
    """The text without anything of an address but its host, without headers, user and password.

    :param settings: of the channel.
    """
    url = str(settings.get("url") or "")
    rest = url.partition("://")[2]
    authority, _slash, path = rest.partition("/")
    user = authority.rpartition("@")[0]
    secrets = [url, rest, path, user, *user.split(":"), *re.split(r"[/?&=#]", path)]
    headers = settings.get("headers") or {}
    secrets += [str(value) for value in (headers.values() if hasattr(headers, "values") else ())]
    secrets += [str(settings.get(key) or "") for key in ("username", "password")]
    for secret in sorted({secret for secret in secrets if len(secret) > 2}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
