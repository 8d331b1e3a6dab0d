"""Tells waiting requests that a job has ended, with one small query for all of them together.

Polling and not LISTEN/NOTIFY: a NOTIFY takes a lock on the whole cluster at commit, which would put every
finish of every worker in one line, and a transaction-pooling proxy drops it silently. One index lookup
every few milliseconds, only while somebody waits, costs PostgreSQL less than that.
Knows job ids, accounts by name, and a function that says which have ended; knows neither SQL nor HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

import structlog

log = structlog.get_logger(__name__)

# An interactive job takes about 100 ms, so the first seconds are worth a close look; whoever still waits
# after that waits for a queue, and a tenth of a second is nothing to them.
_EAGER_POLL_S, _EAGER_FOR_S, _CALM_POLL_S = 0.008, 3.0, 0.1
# The share of all places that is kept for accounts that have none: a single one must not shut the others out.
_KEPT = 0.25
# After an error of the database: the same pace as a person retrying.
_ERROR_POLL_S = 1.0


class JobWatch:
    """`ended(ids)` gives those that have ended or are gone. The polling thread lives while somebody waits."""

    def __init__(self, ended: Callable[[Collection[str]], Collection[str]], max_waiters: int) -> None:
        self._ended = ended
        self._max_waiters = max_waiters
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiters: dict[_Waiter, None] = {}
        self._polling = False

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def wait(self, job_id: str, seconds: float, account: str) -> bool:
        """True when the job has ended; False after `seconds`, or at once when too many wait already."""
        waiter = _Waiter(job_id, account, time.monotonic())
        with self._lock:
            if len(self._waiters) >= self._places_for(account):
                return False
            if not self._polling:
                try:
                    threading.Thread(target=self._poll, name="job-watch", daemon=True).start()
                except RuntimeError as error:
                    # As many threads as the system allows: the client asks again instead.
                    log.warning("nobody looks for ended jobs", reason=str(error))
                    return False
                self._polling = True
            self._waiters[waiter] = None
            self._changed.notify()
        try:
            return waiter.ended.wait(seconds)
        finally:
            with self._lock:
                self._waiters.pop(waiter, None)
                self._changed.notify()

    def _places_for(self, account: str) -> int:
        waits = any(waiter.account == account for waiter in self._waiters)
        return self._max_waiters - (int(self._max_waiters * _KEPT) if waits else 0)

    def _poll(self) -> None:
        while True:
            with self._lock:
                if not self._waiters:
                    self._polling = False
                    return
                waiters = list(self._waiters)
            pause = self._look(waiters)
            with self._lock:
                if self._waiters:
                    self._changed.wait(pause)

    def _look(self, waiters: list[_Waiter]) -> float:
        """Wakes those whose job has ended; returns how long to pause."""
        try:
            ended = set(self._ended({waiter.job_id for waiter in waiters}))
        except Exception as error:
            # Whoever waits gets the state of the job, or an honest error, from the query after the wait.
            log.warning("looking for ended jobs failed", reason=repr(error))
            return _ERROR_POLL_S
        now = time.monotonic()
        eager = False
        for waiter in waiters:
            if waiter.job_id in ended:
                waiter.ended.set()
            elif now - waiter.since < _EAGER_FOR_S:
                eager = True
        return _EAGER_POLL_S if eager else _CALM_POLL_S


class _Waiter:
    def __init__(self, job_id: str, account: str, since: float) -> None:
        self.job_id = job_id
        self.account = account
        self.since = since
        self.ended = threading.Event()
