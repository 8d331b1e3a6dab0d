"""Calls that may never return, and callers that wait for them for a while at most. Knows nothing of what is called."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import BoundedSemaphore, Semaphore
from typing import TypeVar

Answer = TypeVar("Answer")


class Patience:
    """Runs calls on threads of its own. One that was given up goes on and keeps its thread, so there are never more of
    them than `at_once`, however often somebody tries again.

    They are no executor's: Python waits for all of those before a process ends, and one that was told to stop would go
    on for as long as such a call does.
    """

    def __init__(self, at_once: int, patience_s: float) -> None:
        self._patience_s = patience_s
        self._free = BoundedSemaphore(at_once)
        self._idle = Semaphore(0)  # threads that wait for a call
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def __call__(self, call: Callable[[], Answer]) -> Answer:
        """What the call returns or raises. Raises TimeoutError where that takes too long, its wait for a thread too."""
        until = time.monotonic() + self._patience_s
        if not self._free.acquire(timeout=self._patience_s):
            raise TimeoutError(f"no answer to any of the last calls within {self._patience_s:g} s")
        running: Future[Answer] = Future()

        def run() -> None:
            try:
                running.set_result(call())
            except BaseException as error:
                running.set_exception(error)

        if not self._idle.acquire(blocking=False):
            try:
                threading.Thread(target=self._run_calls, name="patience", daemon=True).start()
            except BaseException:  # the system has no thread left to give
                self._free.release()
                raise
        self._calls.put(run)
        try:
            return running.result(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            if running.done():
                return running.result()  # the call's own, or just in time
            raise TimeoutError(f"no answer within {self._patience_s:g} s") from None

    def _run_calls(self) -> None:
        while True:
            self._calls.get()()
            # In this order: who finds a place free finds a thread idle, and no other one is started.
            self._idle.release()
            self._free.release()
