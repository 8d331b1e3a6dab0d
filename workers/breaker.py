"""Whether this process should take messages at all: not while the database refuses it. Knows no database.

A worker that PostgreSQL refuses, because it has as many connections as it allows, beside others that it serves: what
that one takes off the queue is done for nothing, and is missing to them. (The circuit breaker of Nygard, Release It!,
chapter 5.)
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Breaker:
    """Open from a failure until something succeeds, or until nothing has been tried for OPEN_S: then what comes next is
    the trial. Any thread may tell and ask.
    """

    # Longer than the pauses of those that go on trying, so that nothing new comes to them.
    OPEN_S = 3.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed_at: float | None = None

    @property
    def open(self) -> bool:
        failed_at = self._failed_at  # another thread may forget it meanwhile
        return failed_at is not None and self._clock() - failed_at < self.OPEN_S

    def failed(self) -> None:
        if self._failed_at is None:
            log.warning("no message is taken until the database answers this worker")
        self._failed_at = self._clock()

    def succeeded(self) -> None:
        if self._failed_at is not None:
            log.info("the database answers this worker again")
        self._failed_at = None
