"""Runs batches on one device until each of their items has a result or a verdict.

Has no thread and no queue: the batcher calls it on its device threads, several at once where the limits allow it. This
is where an error is pinned on the item that caused it, where running out of memory makes batches smaller, and where it
is noticed that the device itself is broken.

    BatcherError
    ├── BatcherFull           no room within the time the submitter gave
    ├── BatcherClosed         shutting down; the item was not run, or its result is unknown
    ├── ItemFailed            this item is at fault: items beside it, or one known to be good, still work
    ├── DeviceFailed          the device is at fault, or nothing proves otherwise: worth another attempt
    └── ResultCountMismatch   `forward` broke its contract
    OutOfMemory               raised by `collate` and `forward`, never given to a submitter
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

from workers.batch_limit import BatchLimit
from workers.busy_time import BusyTime
from workers.device_health import DeviceHealth
from workers.ready_queue import Entry, Item, Result


class BatcherError(Exception):
    """Base of what a submitter can get instead of a result."""


class BatcherFull(BatcherError):
    """The lane is full and stayed full."""


class BatcherClosed(BatcherError):
    """The batcher is shutting down."""


class ItemFailed(BatcherError):
    """The item itself cannot be processed."""


class DeviceFailed(BatcherError):
    """The device could not process an item that may be perfectly good."""


class ResultCountMismatch(BatcherError):
    """`forward` returned another number of results than it was given items."""


class OutOfMemory(Exception):
    """Raised by `collate` and `forward` when the batch did not fit."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a batch and of the queue. Tokens are counted with padding: longest length times size."""

    max_batch: int
    max_tokens: int
    max_ready: int  # in each lane
    forward_timeout_s: float
    max_weight: float = float("inf")  # of all items of a batch that has several
    in_flight: int = 1  # batches that may be in `forward` at the same time
    for_urgent: int = 0  # and so many more that hold nothing but urgent items
    patient_forward_s: float = float("inf")  # how long a forward may take that nobody urgent fills
    recover_after: int = 20  # clean batches at a lowered limit before it is raised by one again
    give_up_after: int = 3  # device failures in a row before the process is ended


@dataclass(frozen=True)
class BatchReport:
    """One forward, for metrics. `waited_s` of each item is empty where they were run before, in a batch that failed."""

    size: int
    tokens: int
    padded_tokens: int
    waited_s: tuple[float, ...]
    forward_s: float
    busy_s: float  # of the device since the report before, in this forward or in one beside it
    error: str | None


@dataclass(frozen=True)
class Staged(Generic[Item, Result]):
    """A batch that `collate` has made ready, or the error it raised, to be handled when the batch's turn comes."""

    entries: list[Entry[Item, Result]]
    batch: Any
    error: Exception | None


class BatchRunner(Generic[Item, Result]):
    def __init__(
        self,
        forward: Callable[[Any], Sequence[Result]],
        collate: Callable[[list[Item]], Any],
        limits: Limits,
        give_up: Callable[[str], None],
        observe: Callable[[BatchReport], None],
        clock: Callable[[], float],
        is_current: Callable[[Item], bool],
    ) -> None:
        self.limit = BatchLimit(limits.max_batch, limits.recover_after)
        self.health: DeviceHealth[Item, Result] = DeviceHealth(is_current, limits.give_up_after, give_up)
        self._busy = BusyTime(clock)
        self._forward = forward
        self._collate = collate
        self._limits = limits
        self._give_up = give_up
        self._observe = observe
        self._clock = clock
        self._resolving = threading.Lock()  # a shutdown that loses patience resolves from another thread
        # When what runs now began, by thread: several batches are readied and run at once. Read by the watchdog.
        self._began: dict[int, float] = {}
        self._watching = threading.Lock()  # guards it: a batch that is over must not come back

    def stage(self, entries: list[Entry[Item, Result]]) -> Staged[Item, Result]:
        """Make a batch ready. Safe on another thread than `settle`."""
        try:
            with self._watched():
                return Staged(entries, self._collate([entry.item for entry in entries]), None)
        except Exception as error:
            return Staged(entries, None, error)

    def settle(self, first: Staged[Item, Result]) -> None:
        """Resolve every entry of a batch: run it, and on an error run its halves, down to the guilty ones."""
        pending: list[Staged[Item, Result] | list[Entry[Item, Result]]] = [first]
        failures: list[tuple[Entry[Item, Result], Exception]] = []
        began = self._clock()
        device_works = False  # whether anything went well after the last failure: a device may die in between
        while pending:
            part = pending.pop()
            if not isinstance(part, Staged) and len(part) > self.limit.now:
                pending += _halves(part)  # made before the limit fell
                continue
            staged = part if isinstance(part, Staged) else self.stage(part)
            try:
                results = self._run(staged, again=part is not first)
            except ResultCountMismatch as error:
                # No entry is to blame, so halving would only repeat it.
                self.refuse(staged.entries, error)
            except Exception as error:
                if isinstance(error, OutOfMemory):
                    self.limit.out_of_memory(len(staged.entries))
                if len(staged.entries) == 1:
                    failures.append((staged.entries[0], error))
                    device_works = False
                else:
                    pending += _halves(staged.entries)
            else:
                device_works = True
                self.health.went_well(staged.entries[-1])
                for entry, result in zip(staged.entries, results, strict=True):
                    self._resolve(entry, result)
        if failures:
            self._judge(failures, began, device_works=device_works or self._witness_still_works())

    def hangs(self) -> bool:
        """Whether what runs is over its time; if so the process is given up. For the watchdog."""
        now = self._clock()
        with self._watching:
            began = min(self._began.values(), default=now)
        if now - began <= self._limits.forward_timeout_s:
            return False
        self._give_up(f"a batch has been readied or run for {now - began:.0f} s")
        return True

    def stood_still(self, seconds: float) -> None:
        """The process was stopped for so long, and what ran could not go on: that is no hang."""
        now = self._clock()
        with self._watching:
            for thread, began in self._began.items():
                self._began[thread] = min(began + seconds, now)  # it may have begun since

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Readying a batch hangs where a driver hangs, just as running it does."""
        thread = threading.get_ident()
        with self._watching:
            self._began[thread] = self._clock()
        try:
            yield
        finally:
            with self._watching:
                del self._began[thread]

    def refuse(self, entries: Iterable[Entry[Item, Result]], error: BatcherError) -> None:
        """Resolve entries that have no result yet with an error."""
        with self._resolving:
            for entry in entries:
                if not entry.future.done() and entry.future.set_running_or_notify_cancel():
                    entry.future.set_exception(error)

    def _resolve(self, entry: Entry[Item, Result], result: Result) -> None:
        with self._resolving:
            # Done already: its submitter gave up, or a shutdown stopped waiting for it.
            if not entry.future.done() and entry.future.set_running_or_notify_cancel():
                entry.future.set_result(result)

    def _run(self, staged: Staged[Item, Result], *, again: bool) -> Sequence[Result]:
        """One forward, timed, watched and reported; of items that ran before where it is done `again`."""
        if staged.error is not None:
            raise staged.error
        self._busy.begin()
        began = self._clock()
        failure: Exception | None = None
        try:
            with self._watched():
                results = self._forward(staged.batch)
            if len(results) != len(staged.entries):
                raise ResultCountMismatch(
                    f"forward returned {len(results)} results for {len(staged.entries)} items; it must return one"
                    " result for each item, in the order of the items (also for an item it cannot process)"
                )
        except Exception as error:
            failure = error
            raise
        else:
            self.limit.clean()
            return results
        finally:
            self._report(staged.entries, began, failure, again)

    def _report(
        self, entries: list[Entry[Item, Result]], began: float, failure: Exception | None, again: bool
    ) -> None:
        lengths = [entry.length for entry in entries]
        self._observe(
            BatchReport(
                size=len(entries),
                tokens=sum(lengths),
                padded_tokens=max(lengths) * len(lengths),
                waited_s=() if again else tuple(began - entry.submitted_at for entry in entries),
                forward_s=self._clock() - began,
                busy_s=self._busy.end(),
                error=type(failure).__name__ if failure else None,
            )
        )

    def _judge(
        self, failures: list[tuple[Entry[Item, Result], Exception]], began: float, *, device_works: bool
    ) -> None:
        """Blame each entry that failed alone, or the device when nothing shows that the device works.

        An entry that runs out of memory alone is never to blame: what a shared device has left varies.
        """
        for entry, error in failures:
            guilty = device_works and not isinstance(error, OutOfMemory)
            verdict = (ItemFailed if guilty else DeviceFailed)(f"{type(error).__name__}: {error}")
            verdict.__cause__ = error
            self.refuse([entry], verdict)
        if not device_works:
            self.health.failed(failures[-1][1], began, self._clock())

    def _witness_still_works(self) -> bool:
        witness = self.health.witness
        if witness is None:
            return False
        try:
            self._run(self.stage([witness]), again=True)
        except Exception:
            # What brought us here is reported with its own error; this run only decides whose fault it is.
            return False
        self.health.went_well(witness)
        return True


def _halves(entries: list[Entry[Item, Result]]) -> list[list[Entry[Item, Result]]]:
    """The second half and the first: the last of a stack is taken first, so that the order is kept."""
    middle = len(entries) // 2
    return [entries[middle:], entries[:middle]]
