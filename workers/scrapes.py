"""Serves a registry to Prometheus, from inside a process that has other things to do.

prometheus_client's own server has a thread and a file for each connection, for as long as a client likes to stay and
without asking for a key. Those of a thousand clients that send nothing were all the files that a process may have: the
worker read no photo and opened no connection any more, its jobs lost attempts, and the thread that accepts asked in
vain as fast as it could.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

# A scrape takes milliseconds, and there are a few scrapers. Whoever stays is cut off when as many others have come.
MOST_CONNECTIONS = 16

log = structlog.get_logger(__name__)


def serve(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Serve until the returned function is called. Raises OSError where the address cannot be listened on."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    server_class = type("Server", (_Server,), {"address_family": family})
    server: _Server = make_server(host, port, make_wsgi_app(registry), server_class, handler_class=_Handler)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop


class _Server(ThreadingWSGIServer):
    """Cuts the oldest connection off where there are too many: no clock is needed, and a new one finds room always."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        self._open: deque[socket.socket] = deque()
        super().__init__(*arguments, **options)

    def server_bind(self) -> None:
        """As the library's, without asking the DNS what the address is called: a start would wait for a silent one."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), port
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.append(request)
            if len(self._open) > MOST_CONNECTIONS:
                with suppress(OSError):  # its client has gone
                    self._open.popleft().shutdown(socket.SHUT_RDWR)  # whatever its thread waits for returns
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        # Before it is closed: another connection may be given its number.
        with self._lock, suppress(ValueError):  # it was cut off
            self._open.remove(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of a client that has gone, say; the library prints a traceback."""
        log.info("a scrape broke off", reason=repr(sys.exception()))


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: a line for each scrape tells nobody anything."""
