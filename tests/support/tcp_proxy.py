# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay to a PostgreSQL server that cuts the connection at COMMIT, as a network does at the worst moment."""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterator

#: Cut before the server got the COMMIT, or after it answered and before the client saw that.
Moment = t.Literal["before", "after"]


class TcpProxy:
    """Relays to a server; use it in a ``with``. Connections have to be without TLS, so that COMMIT can be seen.

    :param cut: when to cut the first connection that sends COMMIT; ``None``, never.
    :param refuse_afterwards: take no connection after the cut.
    :param listen: address of this end.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        cut: Moment | None = None,
        refuse_afterwards: bool = False,
        listen: str = "127.0.0.1",
    ) -> None:
        self._target = (host, port)
        self.host = listen
        self._cut = cut
        self._refuse_afterwards = refuse_afterwards
        self._listener = socket.create_server((self.host, 0))
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0
        self._refusing = threading.Event()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._refusing.set()
        for open_socket in [self._listener, *self._sockets]:
            _close(open_socket)

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            if self._refusing.is_set():
                _close(client)
                continue
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        self._sockets += [client, server]
        committing = threading.Event()
        threading.Thread(target=self._answers, args=(server, client, committing), daemon=True).start()
        for data in _received(client):
            if b"COMMIT\0" in data and self._cut and not self.cuts:
                self._at_commit(data, client, server, committing)
                return
            if not _sent(server, data):
                break
        _close(server)

    def _at_commit(
        self, data: bytes, client: socket.socket, server: socket.socket, committing: threading.Event
    ) -> None:
        self.cuts += 1
        if self._refuse_afterwards:
            self._refusing.set()
        if self._cut == "before":
            _close(client)
            _close(server)
            return
        # The thread of the answers cuts, once the server has said that it committed.
        committing.set()
        _sent(server, data)

    @staticmethod
    def _answers(server: socket.socket, client: socket.socket, committing: threading.Event) -> None:
        for data in _received(server):
            if committing.is_set():
                _close(client)
                _close(server)
                return
            if not _sent(client, data):
                break
        _close(client)


def _received(source: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            yield data


def _sent(target: socket.socket, data: bytes) -> bool:
    try:
        target.sendall(data)
    except OSError:
        return False
    return True


def _close(open_socket: socket.socket) -> None:
    with contextlib.suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)
    open_socket.close()
