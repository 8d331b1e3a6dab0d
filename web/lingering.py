"""A refusal must reach a client that is still sending: what is left of the body is read and thrown away.

Closing a connection with unread bytes makes the kernel reset it, and the client then sees "broken pipe"
instead of the answer that says what was wrong. nginx calls the cure "lingering close".
"""

from __future__ import annotations

import socket
import threading
import time

import structlog
from flask import Flask, Response, request

from web import reading

log = structlog.get_logger(__name__)

# What a client on a fast line may still have under way, and how long anybody is listened to.
_MAX_BYTES = 256_000_000
_MAX_S = 10.0
_SILENCE_S = 2.0
_READ_BYTES = 256 * 1024
# Each holds a thread, and needs no key for it: more are refused without, and may see a reset instead of their answer.
_AT_ONCE = 16


def register(app: Flask) -> None:
    places = threading.BoundedSemaphore(_AT_ONCE)

    def drain(response: Response) -> Response:
        if not places.acquire(blocking=False):
            return response
        try:
            return _drain(response)
        finally:
            places.release()

    app.after_request(drain)


def _drain(response: Response) -> Response:
    body = request.environ.get("wsgi.input")
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    announced = request.environ.get("CONTENT_LENGTH") or request.environ.get("HTTP_TRANSFER_ENCODING")
    if response.status_code < 400 or body is None or connection is None or not announced:
        return response
    timeout = connection.gettimeout()
    deadline = time.monotonic() + _MAX_S
    left = _MAX_BYTES
    try:
        connection.settimeout(_SILENCE_S)
        # A read of the server returns when all it was asked for has come.
        with reading.ends_after(connection, _MAX_S):
            while left > 0 and time.monotonic() < deadline:
                read = len(body.read(_READ_BYTES))
                if read == 0:
                    break
                left -= read
    except Exception as error:
        # Silence, a broken connection, or nonsense that the server's parser refuses in words of its own: whatever
        # it is, there is nothing left to read and the answer stands.
        log.debug("rest of the body not read", reason=repr(error))
    finally:
        connection.settimeout(timeout)
    return response
