"""How many items a batch may hold: fewer for a while after the device ran out of memory."""

from __future__ import annotations

import threading


class BatchLimit:
    """One for all that have batches on a device, since they share its memory. Any thread may call it."""

    def __init__(self, most: int, recover_after: int) -> None:
        """After `recover_after` clean batches at a lowered limit it is raised by one again."""
        self.now = most
        self._most = most
        self._recover_after = recover_after
        self._clean_batches = 0
        self._lock = threading.Lock()

    def out_of_memory(self, size: int) -> None:
        """A batch of this size did not fit, alone or beside others."""
        with self._lock:
            # Not below half of what was in force: a batch of one that did not fit beside a full one says little.
            self.now = max(1, self.now // 2, min(self.now, size // 2))
            self._clean_batches = 0

    def clean(self) -> None:
        """A batch went through: what took the memory may have gone."""
        with self._lock:
            if self.now == self._most:
                return
            self._clean_batches += 1
            if self._clean_batches >= self._recover_after:
                self.now += 1
                self._clean_batches = 0
