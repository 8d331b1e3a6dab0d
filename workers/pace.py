"""How many items a batch may hold while nobody urgent fills it, so that somebody urgent who comes finds the device free
soon. Pure arithmetic: knows no queue, no clock and no item.
"""

from __future__ import annotations

# Fewer gain little for who waits.
LEAST = 4
# Forwards of a smaller batch that are looked at before it is judged. The quickest counts: what runs beside slows them.
LOOKS = 5
# Forwards for which a judgement stands: the device may have another model by then.
TRUST = 100


class Pace:
    """Follows the device: a batch that took too long is answered with a proportionally smaller one, and a full batch
    within the budget with one more. So it needs no model of the device, and forgets a slow moment within some batches.

    Where a forward costs nearly the same whatever it holds, smaller ones would bring an import to a halt and nobody an
    earlier answer. So a batch that shrank by half or more is compared with what it was, and holds at least as many
    items as take the time of the fixed cost: half of the device's work goes into items, whatever the budget.
    """

    def __init__(self, budget_s: float, max_batch: int) -> None:
        self._budget_s = budget_s
        self._most = max_batch
        self._floor = LEAST
        self._kept_at_floor = 0
        # Size and seconds of a forward that was answered with half or less, and seconds and size of those since.
        self._larger: tuple[int, float] | None = None
        self._smaller: list[tuple[float, int]] = []
        self.size = max_batch

    def learn(self, size: int, forward_s: float) -> None:
        """Of one forward that went well."""
        self._compare(size, forward_s)
        if forward_s > self._budget_s:
            if size > LEAST:  # the fixed cost of a smaller one says nothing about larger ones
                self._shrink(size, forward_s)
        elif size >= self.size:
            self.size = min(self._most, self.size + 1)

    def _shrink(self, size: int, forward_s: float) -> None:
        wanted = max(LEAST, min(self.size, int(size * self._budget_s / forward_s)))
        if wanted < self._floor:
            self._kept_at_floor += 1
            if self._kept_at_floor <= TRUST:
                wanted = self._floor
            else:
                self._floor, self._kept_at_floor = LEAST, 0
        if 2 * wanted <= size:
            self._larger, self._smaller = (size, forward_s), []
        self.size = min(self._most, wanted)

    def _compare(self, size: int, forward_s: float) -> None:
        if self._larger is None or size < LEAST or 2 * size > self._larger[0]:
            return
        self._smaller.append((forward_s, size))
        if len(self._smaller) < LOOKS:
            return
        (large, slow), (quick, small) = self._larger, min(self._smaller)
        self._larger = None
        for_each = (slow - quick) / (large - small)
        fixed = quick - for_each * small
        floor = fixed / for_each if for_each > 0 else self._most
        self._floor, self._kept_at_floor = max(LEAST, min(self._most, int(floor))), 0
        self.size = min(self._most, max(self.size, self._floor))
