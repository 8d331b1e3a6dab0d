"""A TCP proxy before a unix socket that can stop forwarding without closing: a half-open connection, on purpose."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

PIECE = 65_536


class Blackhole:
    """Listens on loopback. What comes over a swallowed connection is read and forgotten; nothing is ever answered."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._swallowed: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="blackhole", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join()
        for opened in (self._listener, *self._peers):
            opened.close()
        self._selector.close()

    def swallow(self) -> int:
        """All connections of now fall silent; returns how many. Later ones work."""
        with self._lock:
            self._swallowed |= set(self._peers)
            return len(self._swallowed) // 2

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(timeout=0.1):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._forward(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._target)
        except OSError:
            client.close()
            server.close()
            return
        with self._lock:
            self._peers |= {client: server, server: client}
        for end in (client, server):
            self._selector.register(end, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        with self._lock:
            silent, peer = source in self._swallowed, self._peers.get(source)
        if peer is None:  # closed while this was looked at
            return
        piece = b""
        with suppress(OSError):
            piece = source.recv(PIECE)
        if silent:
            if not piece:
                self._selector.unregister(source)  # its end goes; the other is told nothing
            return
        with suppress(OSError):
            if piece:
                peer.sendall(piece)
                return
        self._close(source, peer)

    def _close(self, *ends: socket.socket) -> None:
        with self._lock:
            for end in ends:
                self._peers.pop(end, None)
        for end in ends:
            with suppress(KeyError):
                self._selector.unregister(end)
            end.close()
