"""Gathers prepared items into batches and keeps one device busy with them.

Knows neither Celery nor torch nor what an item is: it is given `forward` (a batch in, one result per item out; from
several threads where the limits allow as many), optionally `collate` (makes a batch ready ahead of its turn,
while the device is still busy), the limits and a clock. A device thread runs `forward`; the stager readies the batch
after it; the watchdog ends the process when a forward hangs, because no thread can be stopped from outside and a
supervisor restarts only what has died.

What it promises: the device takes all that is ready the moment it is free and waits for nothing when idle; beside a
batch that runs it takes another one only where that is full, so that what comes one by one still grows together; no
batch is over `max_batch` or the budgets of tokens and weight; urgent items go first and start at once beside batches of
others, in a place of their own (`limits.for_urgent`), and while there are some now and then, others run one batch at a
time, as short as `patient_forward_s` where that pays (`workers.pace`); a faulty item fails alone; every future is
resolved, also at shutdown; a full lane makes the submitter wait, and then says so.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic

from workers.batch_runner import BatcherClosed, BatcherFull, BatchReport, BatchRunner, Limits, Staged
from workers.pace import Pace
from workers.ready_queue import Entry, Item, ReadyQueue, Result

# After so long without an urgent item the device is filled as if there were none: short forwards cost throughput, and
# the next urgent item pays for it: it shares the device with as many full batches as may be in flight.
QUIET_S = 20.0
# The watchdog looks every second at most; one that comes so late was stopped, and the whole process with it.
STOOD_STILL_S = 5.0


class Batcher(Generic[Item, Result]):
    def __init__(
        self,
        forward: Callable[[Any], Sequence[Result]],
        *,
        limits: Limits,
        length: Callable[[Item], int],
        give_up: Callable[[str], None],
        weight: Callable[[Item], int] = lambda item: 1,
        collate: Callable[[list[Item]], Any] = list,
        is_current: Callable[[Item], bool] = lambda item: True,
        observe: Callable[[BatchReport], None] = lambda report: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`give_up(reason)` must end the process: it is called when the device hangs or keeps failing. `is_current`:
        whether running this item again, which went well once, would still show that the device works for new ones.
        """
        self._limits = limits
        self._length = length
        self._weight = weight
        self._give_up = give_up
        self._clock = clock
        self._observe = observe
        self._urgent_at = float("-inf")  # when the last urgent item came
        self._pace = Pace(limits.patient_forward_s, limits.max_batch)
        self._runner: BatchRunner[Item, Result] = BatchRunner(
            forward, collate, limits, give_up, self._learn, clock, is_current
        )

        self._lock = threading.RLock()  # guards all below
        # Each kind of thread waits for its own: to wake all of them for every item costs more than to prepare it.
        self._submitters = threading.Condition(self._lock)
        self._devices = threading.Condition(self._lock)
        self._stager = threading.Condition(self._lock)
        self._ready: ReadyQueue[Item, Result] = ReadyQueue()
        self._staged: Staged[Item, Result] | None = None  # the batch after the running one
        # By device thread: one for each batch that may be in flight.
        self._running: list[list[Entry[Item, Result]]] = [
            [] for _ in range(limits.in_flight + limits.for_urgent)
        ]
        self._staging: list[Entry[Item, Result]] = []  # what the stager is at
        self.settled = 0  # batches since the start: who waits sees by it that the device goes on
        self._closed = False

        self._over = threading.Event()
        self._workers: list[threading.Thread] = []

    # -- for submitters ----------------------------------------------------------------------------------

    def submit(self, item: Item, *, urgent: bool, timeout: float) -> Future[Result]:
        """Queue `item` and return its future; wait up to `timeout` seconds for room in its lane."""
        with self._lock:
            room = self._submitters.wait_for(
                lambda: self._closed or self._ready.waiting(urgent=urgent) < self._limits.max_ready, timeout
            )
            if self._closed:
                raise BatcherClosed("the batcher is shutting down; give the item to another worker")
            if not room:
                raise BatcherFull(
                    f"{self._limits.max_ready} items already wait for the device; try again later"
                )
            entry: Entry[Item, Result] = Entry(
                item=item,
                length=max(1, self._length(item)),
                weight=self._weight(item),
                urgent=urgent,
                submitted_at=self._clock(),
            )
            if urgent:
                self._urgent_at = entry.submitted_at
            self._ready.put(entry)
            self._wake()
            return entry.future

    @property
    def max_batch(self) -> int:
        """The limit in force: lower than the configured one for a while after the device ran out of memory."""
        return self._runner.limit.now

    def ready(self) -> int:
        """How many items wait for the device."""
        with self._lock:
            staged = self._staged.entries if self._staged else []
            return len(self._ready) + len(self._staging) + len(staged)

    def forget_witness(self) -> None:
        """What is current has changed, see `is_current`: the item that is kept to try the device with is dropped."""
        self._runner.health.forget_witness()

    # -- life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        steps = {
            f"device-{slot}": functools.partial(self._run_next, slot) for slot in range(len(self._running))
        }
        self._workers = [
            threading.Thread(target=self._until_closed, args=(step,), name=f"batcher-{name}", daemon=True)
            for name, step in {**steps, "stager": self._stage_next}.items()
        ]
        watchdog = threading.Thread(target=self._watch, name="batcher-watchdog", daemon=True)
        for thread in (*self._workers, watchdog):
            thread.start()

    def alive(self) -> bool:
        """Whether an item that is submitted now would be run."""
        return not self._closed and all(thread.is_alive() for thread in self._workers)

    def close(self, *, drain: bool, timeout: float) -> None:
        """Take nothing more, run what is queued (`drain`) or refuse it, and end the threads.

        What has no result after `timeout` seconds is refused. The watchdog goes last, so that a forward that
        hangs during the shutdown still ends the process.
        """
        with self._lock:
            self._closed = True
            if not drain:
                self._refuse_waiting()
            self._wake()
        give_up_at = time.monotonic() + timeout
        for thread in self._workers:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        with self._lock:
            self._refuse_waiting()
            self._refuse_running("the batcher was closed while this item ran")
        self._over.set()

    def _until_closed(self, step: Callable[[], bool]) -> None:
        """The body of the device and stager threads. None may end alone and leave futures unresolved."""
        try:
            while step():
                pass
        except BaseException as error:
            with self._lock:
                self._closed = True
                self._refuse_waiting()
                self._refuse_running(f"a thread of the batcher died: {error!r}")
                self._wake()
            self._give_up(f"a thread of the batcher died: {error!r}")
            raise

    def _refuse_waiting(self) -> None:
        waiting = self._ready.drain()
        if self._staged is not None:
            waiting += self._staged.entries
        waiting += self._staging
        self._staged, self._staging = None, []
        self._runner.refuse(waiting, BatcherClosed("the batcher was closed before this item ran"))

    def _refuse_running(self, reason: str) -> None:
        for entries in self._running:
            self._runner.refuse(entries, BatcherClosed(reason))

    def _wake(self) -> None:
        """Wakes who has something to do after this change: one thread of a kind, which calls this again once it has
        begun.
        """
        if self._closed:
            for waiting in (self._submitters, self._devices, self._stager):
                waiting.notify_all()
            return
        if self._has_work():
            self._devices.notify()
        if self._should_stage():
            self._stager.notify()

    # -- the device --------------------------------------------------------------------------------------

    def _run_next(self, slot: int) -> bool:
        """Wait for work and settle one batch; False when closed and nothing is left to run."""
        with self._lock:
            self._devices.wait_for(lambda: self._has_work() or (self._closed and not self._staging))
            if not self._has_work():
                return False
            beside = self._urgent_goes_beside()
            staged = None if beside else self._take_staged(self.max_batch)
            entries = staged.entries if staged else self._take(urgent_only=beside)
            self._running[slot] = entries
            self._wake()
        self._runner.settle(staged or self._runner.stage(entries))
        with self._lock:
            self._running[slot] = []
            self.settled += 1
            self._wake()
        return True

    def _has_work(self) -> bool:
        if self._urgent_goes_beside():
            return True
        running = sum(map(bool, self._running))
        if self._staged is not None:
            alone = self._people_are_around() and self._others_run()
            return running < self._limits.in_flight and not alone
        idle = running == 0
        # While the stager readies a batch the device waits for that one rather than overtake it.
        return idle and not self._staging and len(self._ready) > 0

    def _urgent_goes_beside(self) -> bool:
        """Whether what is urgent should start beside what runs. Beside an urgent batch it waits, and becomes one with
        what else comes.
        """
        urgent_runs = any(entry.urgent for entries in self._running for entry in entries)
        return self._others_run() and not urgent_runs and self._ready.waiting(urgent=True) > 0

    def _others_run(self) -> bool:
        """Whether a batch runs that nobody urgent waits for."""
        return any(entries and not any(entry.urgent for entry in entries) for entries in self._running)

    def _take(self, *, urgent_only: bool = False) -> list[Entry[Item, Result]]:
        size = self.max_batch if urgent_only else self._size()
        limits = self._limits
        taken = self._ready.take(size, limits.max_tokens, limits.max_weight, urgent_only=urgent_only)
        self._submitters.notify_all()
        return taken

    def _size(self) -> int:
        """How many items the next batch may hold: `max_batch` while nobody is in a hurry, else as many as are quick.
        Where urgent items wait it is those and one patient item, or more of these up to half of what is quick.
        """
        if not self._people_are_around():
            return self.max_batch
        urgent = self._ready.waiting(urgent=True)
        size = max(urgent + 1, self._pace.size // 2) if urgent else self._pace.size
        return min(self.max_batch, size)

    def _people_are_around(self) -> bool:
        """Whether somebody urgent came lately, so that the next may come soon."""
        return self._clock() - self._urgent_at <= QUIET_S

    def _learn(self, report: BatchReport) -> None:
        if report.error is None:
            with self._lock:
                self._pace.learn(report.size, report.forward_s)
        self._observe(report)

    def _take_staged(self, max_batch: int) -> Staged[Item, Result] | None:
        """The batch that was readied ahead, if its turn has really come.

        It goes back when somebody urgent arrived since and nothing in it is urgent, or when the device ran out of
        memory since and it is now too large.
        """
        staged, self._staged = self._staged, None
        if staged is None:
            return None
        overtaken = self._ready.waiting(urgent=True) > 0 and not any(entry.urgent for entry in staged.entries)
        if overtaken or len(staged.entries) > max_batch:
            self._ready.give_back(staged.entries)
            return None
        return staged

    # -- the stager: one batch ahead ---------------------------------------------------------------------

    def _stage_next(self) -> bool:
        """Wait until a batch can be readied while the device is busy, and ready it; False when closed."""
        with self._lock:
            self._stager.wait_for(lambda: self._closed or self._should_stage())
            if self._closed:
                return False
            self._staging = entries = self._take()
            self._wake()
        staged = self._runner.stage(entries)
        with self._lock:
            if self._staging:  # else it was refused meanwhile
                self._staged, self._staging = staged, []
            self._wake()
        return True

    def _should_stage(self) -> bool:
        """Only a full batch is readied early: a smaller one may still grow until the device is free."""
        return (
            any(self._running)
            and self._staged is None
            and not self._urgent_goes_beside()
            and self._ready.holds_a_full_batch(self._size(), self._limits.max_tokens, self._limits.max_weight)
        )

    # -- the watchdog ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        pause = min(1.0, self._limits.forward_timeout_s / 4)
        looked = self._clock()
        while not self._over.wait(pause):
            late, looked = self._clock() - looked - pause, self._clock()
            # A container that was paused, say. (A driver that holds all threads up looks alike, and is seen later.)
            if late > STOOD_STILL_S:
                self._runner.stood_still(late)
            if self._runner.hangs():
                return
