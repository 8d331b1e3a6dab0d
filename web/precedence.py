"""People first, in web as in the workers: what an import sends lets the requests of people pass.

All share the cores and the interpreter lock, and an import has many clients at once. While there are people its uploads
are taken in one at a time, each when nobody waits; without people as they come. Knows nothing of HTTP or the database.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from catalog.views import Lane

# After so long without a person an import has web for itself; the workers' batcher is as patient.
QUIET_S = 20.0
# What one upload waits for people: the time of two products of theirs. However many come, an import goes on.
GIVE_WAY_S = 0.2
# And for the uploads before it; shorter than web's grace at a stop.
TURN_S = 4.0
# Uploads that wait, each on a thread of web's; the next ones are taken in at once.
MOST_IN_LINE = 32


class Precedence:
    """Safe to share between threads."""

    def __init__(
        self,
        *,
        most_in_line: int = MOST_IN_LINE,
        give_way_s: float = GIVE_WAY_S,
        turn_s: float = TURN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_in_line = most_in_line
        self._give_way_s = give_way_s
        self._turn_s = turn_s
        self._clock = clock
        self._changed = threading.Condition()  # guards all below
        self._people = 0
        self._person_left_at = float("-inf")
        self._in_line = 0
        self._turn = threading.Lock()

    def of(self, lane: Lane) -> AbstractContextManager[None]:
        """Held from where a request's lane is known until its answer."""
        return self.import_() if lane == "bulk" else self.person()

    @contextmanager
    def person(self) -> Iterator[None]:
        """Held while somebody waits for what this process, or a worker, does for them."""
        with self._changed:
            self._people += 1
        try:
            yield
        finally:
            with self._changed:
                self._people -= 1
                self._person_left_at = self._clock()
                if self._people == 0:
                    self._changed.notify_all()

    @contextmanager
    def import_(self) -> Iterator[None]:
        """Held while an upload that nobody waits for is taken in."""
        if not self._joins_the_line():
            yield
            return
        mine = self._turn.acquire(timeout=self._turn_s)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._people == 0, self._give_way_s)
                self._in_line -= 1
            yield
        finally:
            if mine:
                self._turn.release()

    def _joins_the_line(self) -> bool:
        with self._changed:
            around = self._people > 0 or self._clock() - self._person_left_at <= QUIET_S
            joins = around and self._in_line < self._most_in_line
            self._in_line += joins
            return joins
