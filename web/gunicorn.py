"""gunicorn's configuration, and the worker that it runs. `python -m web` starts it with address and threads.

One process with threads. Decoding photos and waiting for PostgreSQL release the interpreter lock, so threads
fill the cores that intake needs at a third of the memory of three processes, and every counter of
`/metrics` is complete in one memory. More intake means more of these processes on ports of their own.

gunicorn reads the names of this module in its master, which keeps for good whatever is imported here: no Flask, no
pydantic. The worker loads those after the fork, with the application.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from web import problems

# A request line and its headers arrive in one packet or two; a client that needs longer holds a thread.
_HEADERS_TIMEOUT_S = 3.0
# Between two pieces of a body, and for each piece of an answer that a client takes.
_SOCKET_TIMEOUT_S = 30.0
# Where the process has all files that it may have, until it looks again whether there is one for who waits.
_NO_FILE_S = 0.1
# Connections that were answered for the last time and wait for their client to close as well, each on a thread. The
# others are closed at once, and a client that is still sending may see a reset instead of its answer.
_CLOSING_AT_ONCE = 8
# malloc.h of glibc. Bodies and pixels above the threshold are mapped by themselves and given back at once.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_HEAPS = 2
_PROBLEMS = (
    (errors.LimitRequestLine, problems.ADDRESS_TOO_LONG),
    (errors.LimitRequestHeaders, problems.HEADERS_TOO_LARGE),
    (errors.ParseException, problems.BAD_REQUEST),
)
_MMAP_BYTES = 128 * 1024


class BoundedWorker(ThreadWorker):
    """Threads that no slow client can keep: gunicorn itself waits for headers and bodies without end.

    And a process that goes on where the system gives it no further file or thread: gunicorn ends it, with all requests.
    """

    _closing = threading.BoundedSemaphore(_CLOSING_AT_ONCE)

    def accept(self, listener: socket.socket) -> None:
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.log.warning("connection not accepted for now: %s", error)
            time.sleep(_NO_FILE_S)

    def enqueue_req(self, conn: TConn) -> None:
        try:
            super().enqueue_req(conn)
        except RuntimeError as error:
            # It is queued all the same for the threads there are, and closes with its answer, of which nobody is told.
            self.nr_conns -= 1
            self.log.warning("connection waits for another's thread: %s", error)

    def handle(self, conn: TConn) -> Any:
        clock = threading.Timer(_HEADERS_TIMEOUT_S, _end_reading, [conn])
        clock.daemon = True
        conn.headers_clock = clock
        with suppress(RuntimeError):  # the system has no thread left to give
            clock.start()
        try:
            kept = super().handle(conn)
        finally:
            clock.cancel()
        if not kept:
            self._close(conn)
        return kept

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """gunicorn closes here, on the one thread that takes all connections, and waits two seconds for a client that
        does not: each of those stops everybody, and fifteen have the process ended, with all requests.
        """
        if conn.sock.fileno() == -1:  # `handle` has closed it
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)

    def _close(self, conn: TConn) -> None:
        if not self._closing.acquire(blocking=False):
            conn.close()
            return
        try:
            conn.close(graceful=True)
        finally:
            self._closing.release()

    def handle_request(self, req: Any, conn: TConn) -> Any:
        conn.headers_clock.cancel()
        conn.sock.settimeout(_SOCKET_TIMEOUT_S)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Refuses what never became a request, in the same form as the application refuses."""
        kind = next((kind for error, kind in _PROBLEMS if isinstance(exc, error)), problems.INTERNAL)
        if kind is problems.INTERNAL:
            self.log.exception("request failed")
        else:
            # Its words would quote the line that is wrong, which may hold a key.
            self.log.info("request refused: %s", type(exc).__name__)
        body = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": kind.advice}
        content = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\nConnection: close\r\n"
            f"Content-Type: {problems.MEDIA_TYPE}\r\nContent-Length: {len(content)}\r\n"
            "X-Content-Type-Options: nosniff\r\n\r\n"
        )
        try:
            client.sendall(head.encode("ascii") + content)
        except OSError:  # nobody is there to be told
            self.log.debug("client gone before its refusal")


def _end_reading(conn: TConn) -> None:
    try:
        conn.sock.shutdown(socket.SHUT_RD)
    except OSError:  # the client has gone, which ends the reading as well
        return


def post_fork(server: Arbiter, worker: ThreadWorker) -> None:
    """Before the worker's threads start. glibc gives threads heaps of their own, and what large uploads leave
    free in one heap is no use to the others: with dozens of threads that is tens of megabytes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have no such heaps
        mallopt(_M_ARENA_MAX, _HEAPS)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def post_worker_init(worker: ThreadWorker) -> None:
    """Once the application is made. What lives now lives as long as the process: a full collection that looks through
    it holds all requests for 0.2 s on a slow processor, every minute of an import."""
    gc.collect()
    gc.freeze()


def worker_exit(server: Arbiter, worker: ThreadWorker) -> None:
    """After the last request: jobs that wait for the message they share are sent, instead of left to the sweep."""
    application = worker.app.callable
    if application is not None:  # None: it could not be made
        application.extensions["tagsmith"].broker.close()


worker_class = BoundedWorker
workers = 1
worker_connections = 500
keepalive = 15
# Requests that hold a `wait` are cut off at a stop: their jobs are safe and they ask again.
graceful_timeout = 5
limit_request_line = 8190
limit_request_fields = 64
# Nobody but the operator of the machine steers this process, and they use its supervisor.
control_socket_disable = True
