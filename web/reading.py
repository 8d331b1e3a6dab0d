"""Ends the reading of a body that drips in.

A blocking read cannot be asked to stop, and the timeout of its socket starts anew with each byte; but closing the
reading half of the socket makes it return, and the answer still goes out on the other half.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from web.time_limit import calls_after


@contextmanager
def ends_after(connection: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Inside the block nothing is read from the connection after so many seconds; what is yielded is set from then.

    Raises ProblemError, see `calls_after`.
    """
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        try:
            connection.shutdown(socket.SHUT_RD)
        except OSError:  # the client has closed it already, which ends the read as well
            return

    with calls_after(seconds, stop):
        yield expired
