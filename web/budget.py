"""So much of something at once, in all and for one account: bytes of bodies, bodies, pixels, fetches.

What one account has in work holds threads, and the bound leaves some to the others. Knows nothing of what is counted.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from web import problems
from web.problems import ProblemError

# Who may wait for others to free a place: each holds a thread for nothing meanwhile.
_MOST_WAIT, _MOST_WAIT_OF_ONE = 8, 2


class Budget:
    """`total` at once, and `of_one` account; first come first served as far as they fit."""

    def __init__(self, total: int, of_one: int) -> None:
        self._free = total
        self._of_one = of_one
        self._held: Counter[str] = Counter()  # by account
        self._waiting: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, amount: int, tenant_id: str, detail: str, wait_s: float = 0.0) -> Iterator[None]:
        """Raises ProblemError (503) with `detail` where it does not fit; `wait_s` is for places that others hold."""
        with self._changed:
            if not (self._fits(amount, tenant_id) or self._comes_free(amount, tenant_id, wait_s)):
                raise ProblemError(problems.BUSY, detail, headers={"Retry-After": "5"})
            self._free -= amount
            self._held[tenant_id] += amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._less(self._held, tenant_id, amount)
                self._changed.notify_all()

    def _fits(self, amount: int, tenant_id: str) -> bool:
        return amount <= self._free and self._is_its_part(amount, tenant_id)

    def _is_its_part(self, amount: int, tenant_id: str) -> bool:
        return self._held[tenant_id] + amount <= self._of_one

    def _comes_free(self, amount: int, tenant_id: str, wait_s: float) -> bool:
        if not wait_s or not self._is_its_part(amount, tenant_id):
            return False
        if self._waiting.total() >= _MOST_WAIT or self._waiting[tenant_id] >= _MOST_WAIT_OF_ONE:
            return False
        self._waiting[tenant_id] += 1
        try:
            return self._changed.wait_for(lambda: self._fits(amount, tenant_id), timeout=wait_s)
        finally:
            self._less(self._waiting, tenant_id, 1)

    @staticmethod
    def _less(counter: Counter[str], tenant_id: str, amount: int) -> None:
        counter[tenant_id] -= amount
        if not counter[tenant_id]:
            del counter[tenant_id]
