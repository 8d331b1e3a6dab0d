"""How many items a batch may hold while nobody urgent fills it, so that somebody urgent who comes finds the device free
soon. Pure arithmetic: knows no queue, no clock and no item.
"""

from __future__ import annotations

# Fewer gain little for who waits, and where a forward costs the same whatever it holds an import would come to a halt.
LEAST = 4


class Pace:
    """Follows the device: a batch that took too long is answered with a proportionally smaller one, and a full batch
    within the budget with one more. So it needs no model of the device, and forgets a slow moment within some batches.
    """

    def __init__(self, budget_s: float, max_batch: int) -> None:
        self._budget_s = budget_s
        self._most = max_batch
        self.size = max_batch

    def learn(self, size: int, forward_s: float) -> None:
        """Of one forward that went well."""
        if forward_s > self._budget_s:
            if size > LEAST:  # the fixed cost of a smaller one says nothing about larger ones
                self.size = min(
                    self._most, max(LEAST, min(self.size, int(size * self._budget_s / forward_s)))
                )
        elif size >= self.size:
            self.size = min(self._most, self.size + 1)
