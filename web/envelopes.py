"""Bulk jobs that share a message: an import sends a few of them in a second instead of one for each product.

The first job after a quiet moment is sent at once; those that follow wait for the end of the moment or for a full
message, whichever comes first. What is collected and lost with the process is sent by the sweep, as is what the
broker does not take. Knows neither broker nor job, only ids.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MOMENT_S = 0.5


class Envelopes:
    """Safe to share between threads. `send` gets one message's ids and must not raise."""

    def __init__(
        self,
        send: Callable[[list[str]], object],
        max_ids: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        timer: Callable[[float, Callable[[], None]], threading.Timer] = threading.Timer,
    ) -> None:
        self._send = send
        self._max_ids = max_ids
        self._clock = clock
        self._make_timer = timer
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._timer: threading.Timer | None = None
        self._quiet_at = clock()

    def add(self, job_id: str) -> None:
        with self._lock:
            self._waiting.append(job_id)
            left_s = self._quiet_at - self._clock()
            waits = len(self._waiting) < self._max_ids and left_s > 0
            if waits and (self._timer is not None or self._start_timer(left_s)):
                return
        self.flush()

    def _start_timer(self, seconds: float) -> bool:
        timer = self._make_timer(seconds, self.flush)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # as many threads as the system allows: sent now, in a message of its own
            return False
        self._timer = timer
        return True

    def flush(self) -> None:
        """Sends what waits, now."""
        with self._lock:
            job_ids, self._waiting = self._waiting, []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._quiet_at = self._clock() + MOMENT_S
        # Outside the lock: a broker that is slow keeps nobody from collecting. Two threads that flush at once may
        # leave more than a message's worth to one of them.
        for start in range(0, len(job_ids), self._max_ids):
            self._send(job_ids[start : start + self._max_ids])
