"""What threads want done while one of them is at it is done together, next. Knows nothing of what is done.

A transaction costs a job that comes alone more than its rows do. So a thread that finds nobody at work runs at once
and alone, and those that come meanwhile wait for it; then one of them runs for all who wait. An idle worker adds no
delay, and the busier it is the more share a transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Request(Generic[Item, Answer]):
    def __init__(self, item: Item) -> None:
        self.item = item
        self.woken = threading.Event()  # it has its answer, or it is its turn to run
        self.answers: list[Answer] = []
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        return bool(self.answers) or self.error is not None

    def answer(self) -> Answer:
        if self.error is not None:
            raise self.error
        return self.answers[0]


class Together(Generic[Item, Answer]):
    """`run` gets the items of all who wait and returns an answer for each, in their order. It must come to an end.

    Where it raises for several, each is run by itself: what one item causes fails that item alone.
    """

    def __init__(self, run: Callable[[list[Item]], Sequence[Answer]]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._running = False
        self._waiting: list[_Request[Item, Answer]] = []

    def __call__(self, item: Item) -> Answer:
        mine: _Request[Item, Answer] = _Request(item)
        with self._lock:
            self._waiting.append(mine)
            first = not self._running
            self._running = True
        if not first:
            mine.woken.wait()
        if not mine.done:
            self._run_for_all()
        return mine.answer()

    def _run_for_all(self) -> None:
        with self._lock:
            together, self._waiting = self._waiting, []
        try:
            self._settle(together)
        except BaseException as error:
            for request in together:
                request.error = request.error or (None if request.answers else error)
            raise
        finally:
            with self._lock:
                successor = self._waiting[0] if self._waiting else None
                self._running = successor is not None
            for request in [*together, *([successor] if successor else [])]:
                request.woken.set()

    def _settle(self, requests: list[_Request[Item, Answer]]) -> None:
        try:
            answers = self._run([request.item for request in requests])
            for request, answer in zip(requests, answers, strict=True):
                request.answers.append(answer)
        except Exception as error:
            if len(requests) == 1:
                requests[0].error = error
                return
            for request in requests:
                self._settle([request])
