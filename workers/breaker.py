"""Whether this process should take messages at all: not while the database refuses it. Knows no database.

A worker that PostgreSQL refuses, because it has as many connections as it allows, beside others that it serves: what
that one takes off the queue is done for nothing, and is missing to them. (The circuit breaker of Nygard, Release It!,
chapter 5.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)


class Breaker:
    """Open from a failure until something succeeds; where nobody is trying, and nobody has failed for OPEN_S, what
    comes next is the trial. Any thread may tell and ask.
    """

    OPEN_S = 3.0  # what somebody waits for at least whose product was the trial

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed_at: float | None = None
        self._lock = threading.Lock()
        self._tries = 0  # under way

    @property
    def tripped(self) -> bool:
        """Whether the last that is known is a failure."""
        return self._failed_at is not None

    @property
    def open(self) -> bool:
        failed_at = self._failed_at  # another thread may forget it meanwhile
        return failed_at is not None and (self._tries > 0 or self._clock() - failed_at < self.OPEN_S)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Around all tries of one piece of work, however long they hang: a database that is cut off refuses nobody, and
        until the first try has failed a second is no use.
        """
        with self._lock:
            self._tries += 1
        try:
            yield
        finally:
            with self._lock:
                self._tries -= 1

    def failed(self) -> None:
        if self._failed_at is None:
            log.warning("no message is taken until the database answers this worker")
        self._failed_at = self._clock()

    def succeeded(self) -> None:
        if self._failed_at is not None:
            log.info("the database answers this worker again")
        self._failed_at = None
