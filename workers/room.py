"""How many jobs of each lane this process may hold at once. Knows no job, only numbers."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """A bound for each lane, so that a full bulk lane never keeps an interactive job out."""

    def __init__(self, jobs_per_lane: int) -> None:
        self._limit = jobs_per_lane
        self._held: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        self._jobs: Counter[str] = Counter()
        self._line: dict[str, deque[object]] = defaultdict(deque)  # who waits, in the order they came
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def for_jobs(self, count: int, lane: str, *, timeout: float) -> Iterator[bool]:
        """Hold room for `count` jobs of a lane; False when there was none in time, or the room is closed.

        In the order of coming: nobody is overtaken, so that whoever waits is let in after what was here before.
        A message larger than the whole room is let in when the lane is empty: it could never enter otherwise.
        """
        line, me = self._line[lane], object()

        def may_enter() -> bool:
            fits = not self._held[lane] or self._held[lane] + count <= self._limit
            return line[0] is me and fits

        with self._changed:
            self._messages[lane] += 1
            self._jobs[lane] += count
            line.append(me)
            self._changed.wait_for(lambda: self._closed or may_enter(), timeout)
            admitted = not self._closed and may_enter()
            if admitted:
                self._held[lane] += count
            line.remove(me)
            self._changed.notify_all()  # there may be room for the next one as well
        try:
            yield admitted
        finally:
            with self._changed:
                self._messages[lane] -= 1
                self._jobs[lane] -= count
                if admitted:
                    self._held[lane] -= count
                    self._changed.notify_all()

    def on_hand(self, lane: str) -> tuple[int, int]:
        """How many messages of a lane hold room or wait for it, and the number of their jobs."""
        with self._changed:
            return self._messages[lane], self._jobs[lane]

    def close(self) -> None:
        """Let nothing in any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_until_empty(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._held.values()), timeout)
