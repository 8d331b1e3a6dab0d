"""Calls that may never return, and callers that wait for them for a while at most. Knows nothing of what is called."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

Answer = TypeVar("Answer")


class Patience:
    """Runs calls on threads of its own. One that was given up goes on and keeps its thread, so there are never more of
    them than `at_once`, however often somebody tries again.
    """

    def __init__(self, at_once: int, patience_s: float) -> None:
        self._patience_s = patience_s
        self._free = BoundedSemaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once)

    def __call__(self, call: Callable[[], Answer]) -> Answer:
        """What the call returns or raises. Raises TimeoutError where that takes too long, its wait for a thread too."""
        until = time.monotonic() + self._patience_s
        if not self._free.acquire(timeout=self._patience_s):
            raise TimeoutError(f"no answer to any of the last calls within {self._patience_s:g} s")
        try:
            running = self._threads.submit(call)
        except BaseException:  # the system has no thread left to give
            self._free.release()
            raise
        running.add_done_callback(lambda _: self._free.release())
        try:
            return running.result(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            if running.done():
                return running.result()  # the call's own, or just in time
            raise TimeoutError(f"no answer within {self._patience_s:g} s") from None
