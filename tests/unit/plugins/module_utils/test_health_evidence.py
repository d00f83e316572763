# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health checks against a real HTTP server."""

from __future__ import annotations

import base64
import http.server
import socket
import ssl
import threading
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import http_request
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.health_evidence import (
    collect_health,
    health_check_problems,
)
from ansible_collections.cypher.rollback.plugins.module_utils.http_request import without_credentials


class Shop(http.server.BaseHTTPRequestHandler):
    """An application of which a part works, a part does not, and a part does every second time."""

    asked: t.ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        path = self.path.split("?")[0]
        if path == "/slow":
            time.sleep(1)
        if path == "/drop":
            self.close_connection = True
            return
        flaky = path == "/flaky" and len([one for one in self.asked if one[0] == self.path]) % 2 == 0
        status = {"/broken": 503, "/moved": 302, "/proxy": 407}.get(path, 500 if flaky else 200)
        body = b"out of stock password=hunter2" if status != 200 else b'{"status": "ok"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_given: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[str]:
    """Address of the running application."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Shop.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def health(url: str, samples: int = 2, timeout: float = 5, **check: t.Any) -> dict[str, t.Any]:
    """The evidence of one check."""
    (found,) = collect_health([{"name": "orders", "url": url, **check}], samples, 0, timeout)
    return found


def test_what_answers_is_up(shop: str) -> None:
    found = health(f"{shop}/", 3, contains="ok", priority="P1")
    assert (found["name"], found["priority"], found["url"]) == ("orders", "P1", f"{shop}/")
    assert (found["status"], found["samples"], found["failures"], len(found["seconds"])) == ("up", 3, 0, 3)
    assert found["message"] == "orders answered as expected, 3 of 3 times."


def test_what_answers_wrongly_is_down_and_its_secrets_are_not_shown(shop: str) -> None:
    found = health(f"{shop}/broken")
    assert (found["status"], found["failures"], found["priority"]) == ("down", 2, "P0")
    assert found["message"] == (
        f"orders failed every time (2 of 2): {shop}/broken answered with status 503 instead of 200: out of stock password=***"
    )
    assert health(f"{shop}/", contains="welcome")["message"] == (
        f'orders failed every time (2 of 2): {shop}/ answered without \'welcome\': {{"status": "ok"}}'
    )


def test_what_fails_now_and_then_is_partly_down(shop: str) -> None:
    found = health(f"{shop}/flaky", 4)
    assert (found["status"], found["failures"], found["samples"]) == ("partly", 2, 4)
    assert found["message"].startswith("orders failed 2 of 4 times, the last time so: ")


def test_other_statuses_and_redirects(shop: str) -> None:
    assert health(f"{shop}/broken", status=[200, 503])["status"] == "up"
    assert health(f"{shop}/moved", status="302")["status"] == "up"
    assert health(f"{shop}/moved")["status"] == "up"


def test_what_does_not_answer_in_time_is_down(shop: str) -> None:
    assert health(f"{shop}/slow", 1, 0.2)["message"] == (
        f"orders failed every time (1 of 1): {shop}/slow did not answer within 0.2 seconds."
    )


def test_what_closes_the_connection_is_down(shop: str) -> None:
    assert health(f"{shop}/drop", 1)["message"].startswith(
        f"orders failed every time (1 of 1): {shop}/drop did not answer: "
    )


def test_what_refuses_the_connection_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        found = health(f"http://127.0.0.1:{port}/", 1)
    assert found["status"] == "down"
    assert "Connection refused" in found["message"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://shop/", "ftp://shop/ cannot be asked: it is neither http nor https."),
        ("http:///x", "http:///x cannot be asked: it names no host."),
        ("http://shop:port/", "Port could not be cast to integer value as 'port'"),
        ("http://shop/a b", "http://shop/a b cannot be asked: it has blanks or control characters."),
        ("http://no-such-host.invalid/", "cannot be asked: this host does not find its name"),
    ],
)
def test_what_we_cannot_ask_is_inconclusive(url: str, said: str) -> None:
    found = health(url, 2)
    assert (found["status"], found["failures"], found["seconds"]) == ("inconclusive", 0, [])
    assert found["not_asked"] == found["samples"] >= 1
    assert said in found["message"]


def test_a_proxy_that_refuses_is_inconclusive(shop: str) -> None:
    assert health(f"{shop}/proxy")["status"] == "inconclusive"


def test_a_few_samples_that_could_not_be_asked_are_left_out(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, calls = http_request._open, []

    def sometimes(*given: t.Any) -> t.Any:
        calls.append(given)
        if len(calls) == 2:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return opened(*given)

    monkeypatch.setattr(http_request, "_open", sometimes)
    found = health(f"{shop}/", 3)
    assert (found["status"], found["not_asked"], found["failures"]) == ("up", 1, 0)


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (10, "down", "has a certificate that is expired."),
        (62, "down", "has a certificate that is of another name."),
        (18, "inconclusive", "this host does not trust its certificate (why)."),
    ],
)
def test_a_bad_certificate_is_theirs_and_an_unknown_issuer_ours(
    monkeypatch: pytest.MonkeyPatch, code: int, status: str, said: str
) -> None:
    def fails(*_given: t.Any) -> t.NoReturn:
        err = ssl.SSLCertVerificationError(1, "certificate verify failed")
        err.verify_code, err.verify_message = code, "why"
        raise err

    monkeypatch.setattr(http_request, "_open", fails)
    found = health("https://shop/", 1)
    assert found["status"] == status
    assert said in found["message"]


def test_credentials_are_sent_and_never_shown(shop: str) -> None:
    address = shop.replace("http://", "http://shop:p%40ss@")
    found = health(f"{address}/broken?token=hunter2&page=1", 1)
    assert Shop.asked == [
        ("/broken?token=hunter2&page=1", f"Basic {base64.b64encode(b'shop:p@ss').decode()}"),
    ]
    assert found["url"] == f"{shop}/broken?token=***&page=1"
    assert not any(secret in str(found) for secret in ("p%40ss", "p@ss", "hunter2"))


def test_credentials_with_odd_letters_are_not_shown() -> None:
    assert without_credentials("https://a:b/c@d@host/x") == "https://host/x"
    assert without_credentials("https://host:1/x@y") == "https://host:1/x@y"
    assert without_credentials("https://a:b@c@host:1/x@y") == "https://host:1/x@y"
    assert without_credentials("host/x") == "host/x"


def test_checks_that_hang_are_asked_at_the_same_time(shop: str) -> None:
    began = time.monotonic()
    found = collect_health([{"name": str(number), "url": f"{shop}/slow"} for number in range(4)], 1, 0, 5)
    assert [one["status"] for one in found] == ["up"] * 4
    assert [one["name"] for one in found] == ["0", "1", "2", "3"]
    assert time.monotonic() - began < 3


def test_no_check_is_no_evidence() -> None:
    assert collect_health([]) == []


def test_what_is_written_wrongly_is_said_beforehand() -> None:
    checks: list[t.Any] = [
        {"name": "a"},
        {"url": "http://x"},
        {"name": "b", "url": "http://x", "priority": "P7", "status": "ok"},
        {"name": "c", "url": "http://x", "status": []},
        7,
    ]
    problems = [
        "rollback_health_checks: a has no url.",
        "rollback_health_checks: entry 2 has no name.",
        "rollback_health_checks: b has the priority 'P7'; use P0, P1 or P2.",
        "rollback_health_checks: status of b must be an HTTP status or a list of them.",
        "rollback_health_checks: status of c must be an HTTP status or a list of them.",
        "rollback_health_checks: entry 5 is no dictionary.",
    ]
    assert health_check_problems(checks) == problems
    assert health_check_problems({}) == ["rollback_health_checks must be a list."]
    with pytest.raises(Refused) as refused:
        collect_health(checks)
    assert str(refused.value) == " ".join(problems)
