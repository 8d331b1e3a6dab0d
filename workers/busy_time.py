"""How long at least one of several things that overlap has gone on. Knows nothing of what they are."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BusyTime:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._going_on = 0
        self._counted_to = 0.0
        self._untold_s = 0.0

    def begin(self) -> None:
        with self._lock:
            self._count()
            self._going_on += 1

    def end(self) -> float:
        """Seconds that have passed with something going on since this was last asked."""
        with self._lock:
            self._count()
            self._going_on -= 1
            told, self._untold_s = self._untold_s, 0.0
            return told

    def _count(self) -> None:
        now = self._clock()
        if self._going_on:
            self._untold_s += now - self._counted_to
        self._counted_to = now
