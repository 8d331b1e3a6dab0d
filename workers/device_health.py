"""What is known of one device: an item that went well on it, and how often it has failed since anything did.

One for all that have batches on the device, so that what one of them learns the others need not learn at the cost of
jobs. Any thread may call it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic

from workers.ready_queue import Entry, Item, Result


class DeviceHealth(Generic[Item, Result]):
    def __init__(
        self, is_current: Callable[[Item], bool], give_up_after: int, give_up: Callable[[str], None]
    ) -> None:
        """`is_current`: whether an item that went well shows that new ones can go well. `give_up(reason)` is called
        at `give_up_after` failures in a row.
        """
        self._is_current = is_current
        self._give_up_after = give_up_after
        self._give_up = give_up
        self._lock = threading.Lock()
        self._witness: Entry[Item, Result] | None = None
        self._failures = 0
        self._counted_at = float("-inf")

    @property
    def witness(self) -> Entry[Item, Result] | None:
        """An item that is known to be good, to tell a broken device from a faulty item."""
        witness = self._witness
        return witness if witness is not None and self._is_current(witness.item) else None

    def went_well(self, entry: Entry[Item, Result]) -> None:
        with self._lock:
            self._failures = 0
            if self._is_current(entry.item):
                self._witness = entry

    def failed(self, error: Exception, began: float, now: float) -> None:
        """The device itself, for all that is known, in a batch that `began` then. Those that were on the device
        together when it failed count once.
        """
        with self._lock:
            if began < self._counted_at:
                return
            self._counted_at = now
            self._failures += 1
            failures = self._failures
        if failures >= self._give_up_after:
            self._give_up(
                f"the device failed {failures} times in a row, last with {error!r}; a new process has to reset it"
            )

    def forget_witness(self) -> None:
        """What went well is current no longer, and may hold much memory."""
        with self._lock:
            self._witness = None
