"""The items that are prepared and wait for the device, and the rule that picks the next batch.

Pure bookkeeping: no thread, no clock and no lock of its own (the batcher calls it under its lock), and no
idea what an item is beyond its length, its weight and whether somebody waits for it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# How many batches' worth of waiting entries are looked at to find entries of like length. A longer window
# means less padding but a longer scan under the lock; four gets most of the gain.
LOOKAHEAD = 4


@dataclass(eq=False)
class Entry(Generic[Item, Result]):
    """One item on its way through the batcher, and the future its submitter waits on."""

    item: Item
    length: int
    urgent: bool
    submitted_at: float
    weight: int = 1
    future: Future[Result] = field(default_factory=Future)


class ReadyQueue(Generic[Item, Result]):
    """Two first-in-first-out lanes, urgent and patient, that give out batches sorted by length."""

    def __init__(self) -> None:
        self._urgent: deque[Entry[Item, Result]] = deque()
        self._patient: deque[Entry[Item, Result]] = deque()
        # Whether the last batch left out the oldest patient entry, and whether the one before it did.
        self._passed_over = self._passed_before = False

    def __len__(self) -> int:
        return len(self._urgent) + len(self._patient)

    def waiting(self, *, urgent: bool) -> int:
        return len(self._urgent if urgent else self._patient)

    def put(self, entry: Entry[Item, Result]) -> None:
        self._lane(entry).append(entry)

    def give_back(self, entries: Iterable[Entry[Item, Result]]) -> None:
        """Put entries that were taken, oldest first, back where they came from: ahead of their lane."""
        for entry in sorted(entries, key=_age, reverse=True):
            self._lane(entry).appendleft(entry)
        self._passed_over = self._passed_before

    def holds_a_full_batch(self, max_batch: int, max_tokens: int, max_weight: float = math.inf) -> bool:
        """Whether waiting longer could not make the next batch any fuller."""
        if len(self) >= max_batch:
            return True
        waiting = [entry for lane in (self._urgent, self._patient) for entry in lane]
        return (
            sum(entry.length for entry in waiting) >= max_tokens
            or sum(entry.weight for entry in waiting) >= max_weight
        )

    def take(
        self, max_batch: int, max_tokens: int, max_weight: float = math.inf, *, urgent_only: bool = False
    ) -> list[Entry[Item, Result]]:
        """Remove and return the next batch, shortest first; empty only when nothing waits.

        A batch costs the device its longest length times its size, padding included, and that product
        stays within `max_tokens`; its weights, of which none is padded, add up to `max_weight` at most. An
        entry that is over either by itself runs alone, since no smaller batch exists. Urgent entries go
        first, but the oldest patient entry keeps one place: otherwise a stream of urgent ones could keep an
        import in the queue for good. Where there is no place for it, in a batch of one or beside a long urgent entry,
        it leads the next batch. `urgent_only` leaves all patient entries out.
        """
        batch: list[Entry[Item, Result]] = []
        longest = weight = 0
        for entry in self._candidates(max_batch, urgent_only=urgent_only):
            if len(batch) == max_batch:
                break
            width = max(longest, entry.length)
            heavier = weight + entry.weight
            if batch and (width * (len(batch) + 1) > max_tokens or heavier > max_weight):
                continue  # A shorter one behind it may still fit; this one leads a later batch.
            batch.append(entry)
            longest, weight = width, heavier
        taken = set(map(id, batch))
        if not urgent_only:
            self._passed_before = self._passed_over
            self._passed_over = bool(self._patient) and id(self._patient[0]) not in taken
        self._urgent = deque(entry for entry in self._urgent if id(entry) not in taken)
        self._patient = deque(entry for entry in self._patient if id(entry) not in taken)
        return sorted(batch, key=lambda entry: entry.length)

    def drain(self) -> list[Entry[Item, Result]]:
        """Remove and return everything."""
        entries = [*self._urgent, *self._patient]
        self._urgent.clear()
        self._patient.clear()
        return entries

    def _candidates(self, max_batch: int, *, urgent_only: bool) -> list[Entry[Item, Result]]:
        """The entries to try, in order: the head of each lane, the urgent ones, the patient ones by likeness."""
        window = LOOKAHEAD * max_batch
        urgent = list(islice(self._urgent, window))
        patient = [] if urgent_only else list(islice(self._patient, window))
        head, others = patient[:1], patient[1:]
        first = head + urgent[:1] if self._passed_over else urgent[:1] + head
        leader = first[0].length if first else 0
        others.sort(key=lambda entry: abs(entry.length - leader))
        return first + urgent[1:] + others

    def _lane(self, entry: Entry[Item, Result]) -> deque[Entry[Item, Result]]:
        return self._urgent if entry.urgent else self._patient


def _age(entry: Entry[Item, Result]) -> float:
    return entry.submitted_at
