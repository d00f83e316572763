# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real receivers of notifications: an HTTP server that behaves as its path says, and a mail server."""

from __future__ import annotations

import contextlib
import datetime as dt
import email
import email.policy
import http.server
import ipaddress
import json
import ssl
import threading
import typing as t

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.postgres_server import free_port

if t.TYPE_CHECKING:
    from email.message import EmailMessage
    from pathlib import Path

USER, PASSWORD = "mailer", "pa55phrase"


class HttpReceiver(http.server.ThreadingHTTPServer):
    """/ok takes a message, /error answers 500, /hang never, /drip a byte at a time, /moved leads to /ok, /flaky hangs up once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.received: list[tuple[str, dict[str, str], t.Any]] = []
        self.closing = threading.Event()

    def __enter__(self) -> HttpReceiver:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def url(self, kind: str) -> str:
        """Address of a kind, with user, password and token in it."""
        return f"http://us3r:pa55word@127.0.0.1:{self.server_address[1]}/{kind}/t0ken?key=s3cret"

    def bodies(self, kind: str) -> list[t.Any]:
        """What a kind has received."""
        return [body for received, _headers, body in self.received if received == kind]


class _Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = t.cast("HttpReceiver", self.server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.path.split("/")[1]
        server.received.append((kind, dict(self.headers.items()), body))
        if kind == "hang":
            server.closing.wait(60)
        elif kind == "drip":
            with contextlib.suppress(OSError):
                while not server.closing.wait(0.1):
                    self.wfile.write(b"H")
        elif kind == "flaky" and len(server.bodies("flaky")) == 1:
            self.close_connection = True
        else:
            self._answer({"error": 500, "moved": 302}.get(kind, 200))

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status == 302:
            self.send_header("Location", "/ok/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 (the name of the base class)
        """Nothing is logged."""


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "mail.crt", folder / "mail.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paths


class _Inbox:
    """Takes every mail but those to refused@."""

    def __init__(self) -> None:
        self.letters: list[tuple[list[str], EmailMessage]] = []

    async def handle_RCPT(self, _server: t.Any, _session: t.Any, envelope: t.Any, address: str, _options: t.Any) -> str:  # noqa: N802 (the name that aiosmtpd calls)
        if address.startswith("refused@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: t.Any, _session: t.Any, envelope: t.Any) -> str:  # noqa: N802 (the name that aiosmtpd calls)
        letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.letters.append((list(envelope.rcpt_tos), letter))
        return "250 OK"


class MailServer:
    """A mail server on a free port.

    :param certificate: with its key; none, the server offers no STARTTLS.
    :param auth: whether a login is needed.
    """

    def __init__(self, certificate: tuple[Path, Path] | None = None, *, auth: bool = False) -> None:
        self.inbox = _Inbox()
        self.logins: list[str] = []
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
        options: dict[str, t.Any] = {"authenticator": self._judge, "auth_required": True} if auth else {}
        # The library connects to itself to see whether it listens, so it must know the port.
        self.port = free_port()
        self._controller = Controller(self.inbox, "127.0.0.1", self.port, tls_context=context, **options)

    def _judge(self, _server: t.Any, _session: t.Any, _envelope: t.Any, _mechanism: str, data: t.Any) -> AuthResult:
        self.logins.append(data.login.decode())
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=False)

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._controller.stop()

    @property
    def letters(self) -> list[tuple[list[str], EmailMessage]]:
        """Recipients and mail."""
        return self.inbox.letters
