# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request of a smoke test or for evidence, telling "it does not work" from "we could not ask"."""

from __future__ import annotations

import base64
import errno
import http.client
import ipaddress
import socket
import ssl
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from .application import without_passwords
from .errors import RollbackError

if t.TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes of an answer that are read.
BODY_LIMIT = 4 << 20

#: Results of OpenSSL's verification that say something about the server, and not about the certificates we trust.
_BAD_CERTIFICATES = {9: "not yet valid", 10: "expired", 23: "revoked", 62: "of another name"}


class NotAsked(RollbackError):
    """The request did not reach the other side, for a reason on ours: address, name service, network, trust, proxy."""


class NoAnswer(RollbackError):
    """The other side was asked and did not answer as HTTP does, or not in time."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_given: t.Any, **_more: t.Any) -> None:
        """None of them is followed."""


def without_credentials(url: str) -> str:
    """The address as it may be shown: without user, password, and values of the query that look like secrets."""
    scheme, mark, rest = url.partition("://")
    if mark:
        authority, slash, path = rest.partition("/")
        name, _colon, port = authority.rpartition(":")
        if name and "@" not in authority and not port.isdigit() and not port.endswith("]"):
            # Not a port, so that it is the beginning of a password with a slash in it.
            authority, slash, path = rest.rpartition("@")[2].partition("/")
        url = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    head, mark, query = url.partition("?")
    if not mark:
        return url
    pairs = [pair.partition("=") for pair in query.split("&")]
    words = ("token", "key", "secret", "passw", "pwd", "sig", "auth")
    shown = [
        f"{name}{sign}{'***' if any(word in name.lower() for word in words) else value}" for name, sign, value in pairs
    ]
    return f"{head}?{'&'.join(shown)}"


def url_problem(url: str) -> str:
    """Why the address cannot be asked, or an empty string."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return "it is neither http nor https"
        if not parts.hostname:
            return "it names no host"
        _port = parts.port
    except ValueError as err:
        return str(err)
    return "it has blanks or control characters" if any(letter <= " " or letter == "\x7f" for letter in url) else ""


def fetch(url: str, seconds: float, headers: Mapping[str, str] | None = None, follow: bool = True) -> tuple[int, str]:
    """GET an address.

    :param seconds: for the whole of it.
    :param follow: whether redirects are followed.
    :returns: the status and the beginning of the body.
    :raises NotAsked: when we could not ask.
    :raises NoAnswer: when there was no answer.
    """
    problem = url_problem(url)
    if problem:
        raise NotAsked(f"{without_credentials(url)} cannot be asked: {problem}.")
    deadline = time.monotonic() + seconds
    try:
        return _open(url, seconds, headers or {}, follow, deadline)
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise _explained(err, without_credentials(url), seconds) from err


def _open(url: str, seconds: float, headers: Mapping[str, str], follow: bool, deadline: float) -> tuple[int, str]:
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    address = urllib.parse.urlunsplit(parts._replace(netloc=host, fragment=""))
    request = urllib.request.Request(address)  # noqa: S310 - url_problem() has looked: the scheme is http or https
    request.add_header("User-Agent", "cypher.rollback")
    if at:
        # Unredirected: a redirect to elsewhere does not get them.
        request.add_unredirected_header("Authorization", basic_authorization(user))
    for name, value in headers.items():
        request.add_unredirected_header(str(name), str(value))
    try:
        with opener(url, follow).open(request, timeout=seconds) as answer:
            return int(answer.status), _body(answer, deadline)
    except urllib.error.HTTPError as err:
        with err:
            return err.code, _body(err, deadline)


def basic_authorization(user: str) -> str:
    """The header for user and password as they stand in an address."""
    return f"Basic {base64.b64encode(urllib.parse.unquote(user).encode()).decode()}"


def opener(url: str, follow: bool, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """What opens an address: past any proxy where it is this host's own, which a proxy would take for its own.

    :param follow: whether redirects are followed.
    """
    more: list[urllib.request.BaseHandler] = [] if follow else [_NoRedirects()]
    if _is_this_host(urllib.parse.urlsplit(url).hostname or ""):
        more.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*more, *handlers)


def _is_this_host(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _body(answer: t.Any, deadline: float) -> str:
    body = b""
    while len(body) < BODY_LIMIT:
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
        piece = answer.read1(65536)
        if not piece:
            break
        body += piece
    return body.decode("utf-8", "replace")


def _untrusted(err: ssl.SSLCertVerificationError, url: str) -> NotAsked | NoAnswer:
    what = _BAD_CERTIFICATES.get(err.verify_code)
    if what:
        return NoAnswer(f"{url} has a certificate that is {what}.")
    return NotAsked(f"{url} cannot be asked: this host does not trust its certificate ({err.verify_message}).")


def _explained(err: Exception, url: str, seconds: float) -> NotAsked | NoAnswer:
    reason = err.reason if isinstance(err, urllib.error.URLError) and isinstance(err.reason, Exception) else err
    said = without_passwords(" ".join(str(reason).split())) or type(reason).__name__
    if isinstance(reason, socket.gaierror):
        return NotAsked(f"{url} cannot be asked: this host does not find its name ({said}).")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _untrusted(reason, url)
    ours = isinstance(reason, OSError) and reason.errno in (errno.ENETUNREACH, errno.EMFILE, errno.ENFILE)
    if ours or "Tunnel connection failed" in said:
        return NotAsked(f"{url} cannot be asked: {said}.")
    late = isinstance(reason, TimeoutError) or "timed out" in said
    return NoAnswer(f"{url} did not answer within {seconds:g} seconds." if late else f"{url} did not answer: {said}.")
