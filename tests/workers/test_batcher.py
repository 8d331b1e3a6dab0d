"""The batcher's threads. A forward waits at a gate, so that a test decides when the device is free; nothing sleeps."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from workers.batch_runner import (
    BatcherClosed,
    BatcherFull,
    BatchReport,
    DeviceFailed,
    ItemFailed,
    Limits,
    OutOfMemory,
)
from workers.batcher import QUIET_S, STOOD_STILL_S, Batcher

PATIENCE = 10.0  # a test that would have to wait this long has failed


class Gate:
    """A device whose forwards wait until they are let through, one by one. Items are (name, length)."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.arrived = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.collated: list[list[str]] = []
        self.was_collated = threading.Semaphore(0)
        self.may_be_ready = threading.Event()  # a batch that is being made ready waits for it
        self.may_be_ready.set()
        self.poisoned: set[str] = set()
        self.on_forward: Callable[[int], None] = lambda size: None

    def forward(self, batch: list[tuple[str, int]]) -> list[str]:
        self.batches.append([name for name, _ in batch])
        self.arrived.release()
        assert self.allowed.acquire(timeout=PATIENCE)
        self.on_forward(len(batch))
        if self.poisoned & {name for name, _ in batch}:
            raise ValueError("poisoned")
        return [name.upper() for name, _ in batch]

    def collate(self, items: list[tuple[str, int]]) -> list[tuple[str, int]]:
        self.collated.append([name for name, _ in items])
        self.was_collated.release()
        assert self.may_be_ready.wait(PATIENCE)
        return items

    def wait_for_a_forward(self) -> None:
        assert self.arrived.acquire(timeout=PATIENCE)

    def wait_for_a_collate(self) -> None:
        assert self.was_collated.acquire(timeout=PATIENCE)

    def let_through(self, forwards: int = 1) -> None:
        for _ in range(forwards):
            self.allowed.release()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def make_batcher(gate: Gate) -> Iterator[Callable[..., Batcher[tuple[str, int], str]]]:
    made: list[Batcher[tuple[str, int], str]] = []

    def make(
        start: bool = True,
        observe: Callable[[BatchReport], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **limits: Any,
    ) -> Any:
        bounds = {"max_batch": 4, "max_tokens": 1000, "max_ready": 100, "forward_timeout_s": 1000.0, **limits}
        batcher: Batcher[tuple[str, int], str] = Batcher(
            gate.forward,
            limits=Limits(**bounds),
            length=lambda item: item[1],
            give_up=lambda reason: None,
            collate=gate.collate,
            observe=observe or (lambda report: None),
            clock=clock,
        )
        if start:
            batcher.start()
        made.append(batcher)
        return batcher

    yield make
    gate.may_be_ready.set()
    gate.let_through(1000)
    for batcher in made:
        batcher.close(drain=False, timeout=PATIENCE)


def put(batcher: Batcher[tuple[str, int], str], *names: str, urgent: bool = False) -> list[Future[str]]:
    return [batcher.submit((name, 1), urgent=urgent, timeout=PATIENCE) for name in names]


def results(futures: list[Future[str]]) -> list[str]:
    return [future.result(timeout=PATIENCE) for future in futures]


def test_an_idle_device_takes_a_single_item_at_once(gate: Gate, make_batcher: Any) -> None:
    futures = put(make_batcher(), "a")
    gate.wait_for_a_forward()
    assert gate.batches == [["a"]]
    gate.let_through()
    assert results(futures) == ["A"]


def test_a_free_device_takes_all_that_became_ready_meanwhile(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher()
    first = put(batcher, "a")
    gate.wait_for_a_forward()
    rest = put(batcher, "b", "c", "d")
    gate.let_through(2)
    assert results(first + rest) == ["A", "B", "C", "D"]
    assert gate.batches == [["a"], ["b", "c", "d"]]


def test_a_full_batch_is_made_ready_while_the_device_is_busy(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=2)
    put(batcher, "a")
    gate.wait_for_a_forward()
    gate.wait_for_a_collate()
    put(batcher, "b", "c")
    gate.wait_for_a_collate()
    assert gate.collated == [["a"], ["b", "c"]]
    assert gate.batches == [["a"]], "the device still runs the first batch"


def test_only_one_batch_is_kept_ahead(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1)
    put(batcher, "a")
    gate.wait_for_a_forward()
    futures = put(batcher, "b", "c", "d")
    gate.wait_for_a_collate()
    gate.wait_for_a_collate()
    assert gate.collated == [["a"], ["b"]]
    assert batcher.ready() == 3
    gate.let_through(4)
    assert results(futures) == ["B", "C", "D"]


def test_less_than_a_full_batch_is_left_to_grow(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=3)
    put(batcher, "a")
    gate.wait_for_a_forward()
    futures = put(batcher, "b", "c")
    assert gate.collated == [["a"]]
    futures += put(batcher, "d")
    gate.let_through(2)
    assert results(futures) == ["B", "C", "D"]
    assert gate.batches[1] == ["b", "c", "d"]


def test_beside_a_batch_that_runs_a_full_one_is_run_at_once(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=2, in_flight=2)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    futures += put(batcher, "b", "c")
    gate.wait_for_a_forward()
    assert gate.batches == [["a"], ["b", "c"]]
    gate.let_through(2)
    assert results(futures) == ["A", "B", "C"]


def test_beside_a_batch_that_runs_less_than_a_full_one_is_left_to_grow(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=3, in_flight=2)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    futures += put(batcher, "b", "c")
    assert gate.batches == [["a"]]
    gate.let_through(2)
    assert results(futures) == ["A", "B", "C"]
    assert gate.batches == [["a"], ["b", "c"]]


def waits_while_others_run(gate: Gate, batcher: Any, runs: int) -> bool:
    """Whether the batch that was made ready would be left where it is, beside so many that run."""
    while batcher._staged is None and len(gate.batches) == runs:
        time.sleep(0.001)  # its stager has not put it down yet
    with batcher._lock:
        return batcher._staged is not None and not batcher._has_work()


def put_until_full(gate: Gate, batcher: Any) -> list[Any]:
    futures: list[Any] = put(batcher, *"abcd")
    for _ in range(2):
        gate.wait_for_a_forward()
    for _ in range(3):
        gate.wait_for_a_collate()
    assert waits_while_others_run(gate, batcher, 2), "the third is made ready and waits"
    return futures


def test_no_more_batches_run_than_may_be_in_flight(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1, in_flight=2)
    futures = put_until_full(gate, batcher)
    assert batcher.ready() == 2
    gate.let_through(4)
    assert results(futures) == list("ABCD")


def test_an_urgent_item_starts_beside_a_batch_of_others(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=4, in_flight=2)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    futures += put(batcher, "b", "c")
    futures += put(batcher, "now", urgent=True)
    gate.wait_for_a_forward()
    assert gate.batches == [["a"], ["now"]], "and takes none of the others along, which would hold it up"
    gate.let_through(3)
    assert results(futures) == ["A", "B", "C", "NOW"]
    assert gate.batches[2] == ["b", "c"]


def test_an_urgent_item_has_a_place_that_no_others_take(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1, in_flight=2, for_urgent=1)
    futures = put_until_full(gate, batcher)
    futures += put(batcher, "now", urgent=True)
    gate.wait_for_a_forward()
    assert gate.batches == [["a"], ["b"], ["now"]]
    gate.let_through(5)
    assert results(futures) == ["A", "B", "C", "D", "NOW"]


def test_an_urgent_item_starts_also_where_a_batch_of_others_is_made_ready(
    gate: Gate, make_batcher: Any
) -> None:
    batcher = make_batcher(max_batch=2, in_flight=2)
    gate.let_through()
    assert results(put(batcher, "before", urgent=True)) == ["BEFORE"]
    futures = put(batcher, "a")
    for _ in range(2):
        gate.wait_for_a_forward()
    futures += put(batcher, "b", "c")
    for _ in range(3):
        gate.wait_for_a_collate()
    futures += put(batcher, "now", urgent=True)
    gate.wait_for_a_forward()
    assert gate.batches == [["before"], ["a"], ["now"]]
    gate.let_through(3)
    assert results(futures) == ["A", "B", "C", "NOW"]
    assert gate.collated == [["before"], ["a"], ["b", "c"], ["now"]], "what was ready is not made again"


def test_urgent_items_grow_together_beside_their_like(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=4, in_flight=2)
    futures = put(batcher, "now", urgent=True)
    gate.wait_for_a_forward()
    futures += put(batcher, "soon", "later", urgent=True)
    gate.let_through()
    gate.wait_for_a_forward()
    assert gate.batches == [["now"], ["soon", "later"]]
    gate.let_through()
    assert results(futures) == ["NOW", "SOON", "LATER"]


def test_urgent_items_grow_together_also_where_a_place_for_others_is_free(
    gate: Gate, make_batcher: Any
) -> None:
    batcher = make_batcher(max_batch=4, in_flight=2, for_urgent=1)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    futures += put(batcher, "now", urgent=True)
    gate.wait_for_a_forward()
    futures += put(batcher, "soon", urgent=True)
    assert not gate.arrived.acquire(timeout=0.05), "it waits for those that come with it"
    futures += put(batcher, "later", urgent=True)
    gate.let_through(3)
    assert results(futures) == ["A", "NOW", "SOON", "LATER"]
    assert gate.batches == [["a"], ["now"], ["soon", "later"]]


def test_while_people_are_around_others_run_one_batch_at_a_time(gate: Gate, make_batcher: Any) -> None:
    now = [0.0]
    batcher = make_batcher(max_batch=2, in_flight=3, clock=lambda: now[0])
    futures = put(batcher, "now", urgent=True)
    gate.wait_for_a_forward()
    futures += put(batcher, *"abcd")
    gate.wait_for_a_forward()
    for _ in range(3):
        gate.wait_for_a_collate()
    assert waits_while_others_run(gate, batcher, 2), "c and d are ready and wait"
    assert gate.batches == [["now"], ["a", "b"]]
    now[0] = QUIET_S + 1
    futures += put(batcher, "e")
    gate.wait_for_a_forward()
    assert gate.batches[2] == ["c", "d"], "nobody came for a while"
    gate.let_through(4)
    assert results(futures) == ["NOW", *"ABCDE"]


def test_a_faulty_item_leaves_the_batch_beside_it_alone(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=2, in_flight=2)
    gate.poisoned = {"b"}
    futures = put(batcher, *"abcd")
    gate.let_through(20)
    assert results([futures[0], *futures[2:]]) == ["A", "C", "D"]
    with pytest.raises(ItemFailed):
        futures[1].result(timeout=PATIENCE)


def test_closing_waits_for_every_batch_in_flight(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1, in_flight=2)
    futures = put(batcher, "a", "b")
    for _ in range(2):
        gate.wait_for_a_forward()
    closing = threading.Thread(target=lambda: batcher.close(drain=False, timeout=PATIENCE))
    closing.start()
    gate.let_through(2)
    closing.join(PATIENCE)
    assert results(futures) == ["A", "B"]


def test_an_urgent_item_overtakes_the_batch_that_was_made_ready(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=2)
    put(batcher, "a")
    gate.wait_for_a_forward()
    futures = put(batcher, "b", "c")
    gate.wait_for_a_collate()
    gate.wait_for_a_collate()
    futures += put(batcher, "now", urgent=True)
    gate.let_through(3)
    assert results(futures) == ["B", "C", "NOW"]
    assert gate.batches == [["a"], ["now", "b"], ["c"]]


class Slow:
    """A device that takes `a + b` times the size of a batch, by a clock that only it moves."""

    def __init__(self, fixed_s: float, each_s: float) -> None:
        self.fixed_s, self.each_s = fixed_s, each_s
        self.now = 0.0
        self.took: list[tuple[int, float]] = []

    def forward(self, batch: list[int]) -> list[int]:
        took = self.fixed_s + self.each_s * len(batch)
        self.now += took
        self.took.append((len(batch), took))
        return batch


def run_on(slow: Slow, patient: int, urgent: int = 0, budget_s: float = 0.03) -> list[Future[int]]:
    """All is submitted before the device starts, so that only the batcher decides the batches."""
    batcher: Batcher[int, int] = Batcher(
        slow.forward,
        limits=Limits(
            max_batch=32,
            max_tokens=10_000,
            max_ready=10_000,
            forward_timeout_s=1000,
            patient_forward_s=budget_s,
        ),
        length=lambda item: 1,
        give_up=lambda reason: None,
        clock=lambda: slow.now,
    )
    futures = [batcher.submit(item, urgent=False, timeout=0) for item in range(patient)]
    futures += [batcher.submit(item, urgent=True, timeout=0) for item in range(urgent)]
    batcher.start()
    for future in futures:
        future.exception(timeout=PATIENCE)
    batcher.close(drain=True, timeout=PATIENCE)
    return futures


def test_an_import_learns_to_leave_the_device_free_within_the_budget() -> None:
    slow = Slow(fixed_s=0.004, each_s=0.01)
    run_on(slow, patient=400, urgent=1, budget_s=0.06)
    settled = slow.took[
        2:
    ]  # the first two were taken before the first was known to be long: one ran, one was ready
    assert max(took for _, took in settled) <= 0.064 + 1e-9, "the budget, and one more item now and then"
    assert max(size for size, _ in settled) == 6
    assert min(size for size, _ in settled[:-1]) == 5


def test_a_fast_device_keeps_its_full_batches() -> None:
    slow = Slow(fixed_s=0.005, each_s=0.0005)
    run_on(slow, patient=335, urgent=1)
    assert [size for size, _ in slow.took] == [16] + [32] * 10, (
        "the urgent one's batch is half of what is quick"
    )


def test_a_forward_that_failed_says_nothing_of_how_long_one_takes() -> None:
    class Failing(Slow):
        def forward(self, batch: list[int]) -> list[int]:
            if 100 in batch:
                self.now += 1.0
                raise ValueError
            return super().forward(batch)

    slow = Failing(fixed_s=0.005, each_s=0.0005)
    futures = run_on(slow, patient=335, urgent=1)
    assert [number for number, future in enumerate(futures) if future.exception(PATIENCE)] == [100]
    sizes = [size for size, _ in slow.took]
    assert sizes[-7:] == [32] * 7
    assert sum(sizes) == 335


def test_an_import_fills_its_batches_while_nobody_is_in_a_hurry() -> None:
    slow = Slow(fixed_s=0.004, each_s=0.01)
    run_on(slow, patient=320)
    assert [size for size, _ in slow.took] == [32] * 10


def test_some_time_after_the_last_urgent_item_an_import_fills_its_batches_again() -> None:
    slow = Slow(fixed_s=0.08, each_s=0.1)
    run_on(slow, patient=400, urgent=1, budget_s=0.6)
    quiet_from = next(n for n in range(1, 1000) if sum(took for _, took in slow.took[:n]) > QUIET_S)
    in_a_hurry, quiet = slow.took[2:quiet_from], slow.took[quiet_from + 1 : -1]
    assert {size for size, _ in in_a_hurry} == {5, 6}
    assert {size for size, _ in quiet} == {32}


def test_urgent_items_share_one_batch_whatever_the_budget() -> None:
    slow = Slow(fixed_s=0.1, each_s=0.1)
    run_on(slow, patient=0, urgent=64)
    assert [size for size, _ in slow.took] == [32, 32]


def test_urgent_items_take_no_more_patient_ones_along_than_are_quick(gate: Gate, make_batcher: Any) -> None:
    now = [0.0]
    batcher = make_batcher(max_batch=8, clock=lambda: now[0], patient_forward_s=0.05)
    gate.on_forward = lambda size: now.__setitem__(0, now[0] + 0.01 * size)
    first = put(batcher, "a")
    gate.wait_for_a_forward()
    rest = put(batcher, *"bcdefghi")  # a full batch, made ready while the device runs
    gate.wait_for_a_collate()
    gate.wait_for_a_collate()
    gate.let_through()
    gate.wait_for_a_forward()  # that takes 80 ms: too long
    rest += put(batcher, *"jklmnopq")
    gate.wait_for_a_collate()  # and these are ready behind it
    rest += put(batcher, "now", urgent=True)
    gate.let_through(20)
    assert results(first + rest)[-1] == "NOW"
    assert "now" in gate.batches[2]
    assert len(gate.batches[2]) == 2


def test_a_batch_keeps_to_its_budget_of_weights() -> None:
    sizes: list[int] = []
    batcher: Batcher[int, int] = Batcher(
        lambda batch: sizes.append(len(batch)) or batch,  # type: ignore[func-returns-value]
        limits=Limits(max_batch=8, max_tokens=100, max_ready=10, forward_timeout_s=1000, max_weight=5),
        length=lambda item: 1,
        weight=lambda item: 2,
        give_up=lambda reason: None,
    )
    futures = [batcher.submit(item, urgent=False, timeout=0) for item in range(5)]
    batcher.start()
    assert [future.result(timeout=PATIENCE) for future in futures] == list(range(5))
    batcher.close(drain=True, timeout=PATIENCE)
    assert sizes == [2, 2, 1]


def test_what_went_well_before_it_was_forgotten_blames_nobody(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher()
    gate.let_through(10)
    assert results(put(batcher, "a")) == ["A"]
    batcher.forget_witness()
    gate.poisoned = {"b"}
    with pytest.raises(DeviceFailed):
        put(batcher, "b")[0].result(timeout=PATIENCE)


def test_a_faulty_item_fails_alone_and_the_device_goes_on(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher()
    first = put(batcher, "a")
    gate.wait_for_a_forward()
    gate.poisoned = {"c"}
    rest = put(batcher, "b", "c", "d")
    gate.let_through(20)
    assert results([*first, rest[0], rest[2]]) == ["A", "B", "D"]
    with pytest.raises(ItemFailed):
        rest[1].result(timeout=PATIENCE)
    assert results(put(batcher, "e")) == ["E"]


def test_a_batch_that_was_made_ready_before_memory_ran_out_is_made_smaller(
    gate: Gate, make_batcher: Any
) -> None:
    def run_out(size: int) -> None:
        if size > 2:
            raise OutOfMemory

    gate.on_forward = run_out
    batcher = make_batcher(start=False, max_batch=4)
    futures = put(batcher, *"abcdefgh")
    batcher.start()
    for _ in range(2):
        gate.wait_for_a_collate()
    gate.let_through(5)
    assert results(futures) == list("ABCDEFGH")
    assert [len(batch) for batch in gate.batches] == [4, 2, 2, 2, 2]


def test_a_full_lane_refuses_the_next_item(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(start=False, max_ready=2)
    put(batcher, "a", "b")
    with pytest.raises(BatcherFull, match="2 items already wait"):
        batcher.submit(("c", 1), urgent=False, timeout=0)


def test_a_full_patient_lane_leaves_the_urgent_one_open(make_batcher: Any) -> None:
    batcher = make_batcher(start=False, max_ready=1)
    put(batcher, "a")
    put(batcher, "b", urgent=True)
    assert batcher.ready() == 2


def test_a_full_lane_makes_its_submitter_wait_for_room(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1, max_ready=1)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    gate.let_through(4)

    def put_the_rest() -> None:
        futures.extend(batcher.submit((name, 1), urgent=False, timeout=100 * PATIENCE) for name in "bcd")

    submitter = threading.Thread(target=put_the_rest, daemon=True)
    submitter.start()
    submitter.join(PATIENCE)  # woken as the device makes room, long before it looks again by itself
    assert not submitter.is_alive()
    assert results(futures) == ["A", "B", "C", "D"]


def test_closing_with_a_drain_runs_what_was_queued(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1)
    futures = put(batcher, "a", "b", "c")
    gate.let_through(3)
    batcher.close(drain=True, timeout=PATIENCE)
    assert results(futures) == ["A", "B", "C"]


def test_closing_with_a_drain_runs_the_batch_that_is_being_made_ready(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    gate.may_be_ready.clear()
    futures += put(batcher, "b")
    for _ in range(2):
        gate.wait_for_a_collate()
    closing = threading.Thread(target=lambda: batcher.close(drain=True, timeout=PATIENCE))
    closing.start()
    while batcher.alive():
        threading.Event().wait(0.001)
    gate.let_through(2)
    batcher._workers[0].join(0.2)  # it must not end before it has run what comes
    gate.may_be_ready.set()
    assert results(futures) == ["A", "B"]
    closing.join(PATIENCE)


def test_closing_without_a_drain_refuses_what_was_queued_and_finishes_what_runs(
    gate: Gate, make_batcher: Any
) -> None:
    batcher = make_batcher(max_batch=1)
    running = put(batcher, "a")
    gate.wait_for_a_forward()
    waiting = put(batcher, "b", "c")
    gate.wait_for_a_collate()
    gate.wait_for_a_collate()
    closing = threading.Thread(target=lambda: batcher.close(drain=False, timeout=PATIENCE))
    closing.start()
    for future in waiting:
        with pytest.raises(BatcherClosed):
            future.result(timeout=PATIENCE)
    gate.let_through()
    closing.join(PATIENCE)
    assert results(running) == ["A"]


def test_a_shutdown_that_cannot_wait_leaves_no_future_open(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    futures += put(batcher, "b")
    batcher.close(drain=True, timeout=0)
    for future in futures:
        with pytest.raises(BatcherClosed):
            future.result(timeout=0)


@pytest.mark.parametrize("drain", [True, False])
def test_a_shutdown_that_cannot_wait_leaves_no_future_open_of_a_batch_that_is_being_made_ready(
    gate: Gate, make_batcher: Any, drain: bool
) -> None:
    batcher = make_batcher(max_batch=1)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    gate.may_be_ready.clear()
    futures += put(batcher, "b")
    for _ in range(2):
        gate.wait_for_a_collate()
    assert batcher.ready() == 1
    batcher.close(drain=drain, timeout=0)
    assert [type(future.exception(timeout=0)) for future in futures] == [BatcherClosed] * 2
    gate.may_be_ready.set()
    gate.let_through()
    batcher.close(drain=drain, timeout=PATIENCE)
    assert gate.batches == [["a"]], "what was refused is run no more"


def test_a_result_that_comes_after_its_future_was_refused_is_dropped(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_batch=1)
    futures = put(batcher, "a")
    gate.wait_for_a_forward()
    batcher.close(drain=True, timeout=0)
    gate.let_through()
    batcher.close(drain=True, timeout=PATIENCE)
    with pytest.raises(BatcherClosed):
        futures[0].result(timeout=0)


def test_a_closed_batcher_takes_nothing(make_batcher: Any) -> None:
    batcher = make_batcher()
    batcher.close(drain=True, timeout=PATIENCE)
    assert not batcher.alive()
    with pytest.raises(BatcherClosed):
        batcher.submit(("a", 1), urgent=False, timeout=0)


def test_a_submitter_that_waits_for_room_learns_of_the_shutdown(gate: Gate, make_batcher: Any) -> None:
    batcher = make_batcher(max_ready=1, max_batch=1)
    put(batcher, "a")
    gate.wait_for_a_forward()
    put(batcher, "b")
    outcome: list[type[Exception]] = []

    def submit_one_too_many() -> None:
        try:
            # Two, because the stager takes the one that waits, and with it makes room for one.
            put(batcher, "c", "d")
        except BatcherClosed as error:
            outcome.append(type(error))

    submitter = threading.Thread(target=submit_one_too_many)
    submitter.start()
    batcher.close(drain=False, timeout=0)
    submitter.join(PATIENCE)
    assert outcome == [BatcherClosed]


# Its thread dies of an exception that nobody catches: that is what is tested.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_thread_that_dies_leaves_no_future_open_and_ends_the_process() -> None:
    gave_up: list[str] = []
    dead = threading.Event()
    may_die = threading.Event()

    class Dying(BaseException):
        pass

    def die(batch: list[int]) -> list[int]:
        assert may_die.wait(PATIENCE)
        raise Dying

    def give_up(reason: str) -> None:
        gave_up.append(reason)
        dead.set()

    batcher: Batcher[int, int] = Batcher(
        die,
        limits=Limits(max_batch=1, max_tokens=100, max_ready=10, forward_timeout_s=1000),
        length=lambda item: 1,
        give_up=give_up,
    )
    batcher.start()
    futures = [batcher.submit(item, urgent=False, timeout=PATIENCE) for item in range(3)]
    may_die.set()
    for future in futures:
        with pytest.raises(BatcherClosed):
            future.result(timeout=PATIENCE)
    assert dead.wait(PATIENCE)
    assert "Dying" in gave_up[0]
    batcher.close(drain=False, timeout=PATIENCE)


# As above.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_leaves_no_batch_open_that_is_just_being_made_ready() -> None:
    being_made, may_be_ready, dead = threading.Event(), threading.Event(), threading.Event()

    class Dying(BaseException):
        pass

    def collate(items: list[str]) -> list[str]:
        if items == ["b"]:
            being_made.set()
            assert may_be_ready.wait(PATIENCE)
        return items

    def die(batch: list[str]) -> list[str]:
        assert being_made.wait(PATIENCE)
        raise Dying

    batcher: Batcher[str, str] = Batcher(
        die,
        limits=Limits(max_batch=1, max_tokens=100, max_ready=10, forward_timeout_s=1000),
        length=lambda item: 1,
        collate=collate,
        give_up=lambda reason: dead.set(),
    )
    batcher.start()
    futures = [batcher.submit(item, urgent=False, timeout=PATIENCE) for item in ("a", "b")]
    assert dead.wait(PATIENCE)
    may_be_ready.set()
    for future in futures:
        with pytest.raises(BatcherClosed):
            future.result(timeout=PATIENCE)
    batcher.close(drain=False, timeout=PATIENCE)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_forward_that_hangs_ends_the_process_on_whichever_thread_it_runs(slot: int) -> None:
    now = [0.0]
    gave_up: queue.Queue[str] = queue.Queue()
    arrived = threading.Semaphore(0)
    may_end = {"a": threading.Event(), "b": threading.Event()}

    def forward(batch: list[str]) -> list[str]:
        arrived.release()
        assert may_end[batch[0]].wait(PATIENCE)
        return batch

    batcher: Batcher[str, str] = Batcher(
        forward,
        limits=Limits(max_batch=1, max_tokens=100, max_ready=10, forward_timeout_s=0.04, in_flight=2),
        length=lambda item: 1,
        give_up=gave_up.put,
        clock=lambda: now[0],
    )
    batcher.start()
    futures = {name: batcher.submit(name, urgent=False, timeout=PATIENCE) for name in may_end}
    for _ in futures:
        assert arrived.acquire(timeout=PATIENCE)
    ends = batcher._running[1 - slot][0].item
    may_end[ends].set()
    futures[ends].result(timeout=PATIENCE)
    now[0] = 0.05
    assert "readied or run" in gave_up.get(timeout=PATIENCE)
    for event in may_end.values():
        event.set()
    batcher.close(drain=True, timeout=PATIENCE)


@pytest.mark.parametrize("in_flight", [1, 3])
def test_many_submitters_at_once_each_get_their_own_result(in_flight: int) -> None:
    batcher: Batcher[int, int] = Batcher(
        lambda batch: [item * item for item in batch],
        limits=Limits(max_batch=8, max_tokens=64, max_ready=16, forward_timeout_s=1000, in_flight=in_flight),
        length=lambda item: 1 + item % 9,
        give_up=lambda reason: None,
    )
    batcher.start()
    wrong: list[int] = []

    def submitter(start: int) -> None:
        for item in range(start, start + 50):
            future = batcher.submit(item, urgent=item % 3 == 0, timeout=PATIENCE)
            if future.result(timeout=PATIENCE) != item * item:
                wrong.append(item)

    threads = [threading.Thread(target=submitter, args=(1000 * number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    batcher.close(drain=True, timeout=PATIENCE)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(("late_s", "given_up"), [(STOOD_STILL_S - 0.1, True), (STOOD_STILL_S + 0.1, False)])
def test_a_watchdog_that_comes_late_takes_it_for_a_pause_of_the_whole_process(
    make_batcher: Callable[..., Any], gate: Gate, late_s: float, given_up: bool
) -> None:
    now = [0.0]

    class Over:
        """Two looks of the watchdog: one late, and one in time."""

        pauses = iter((1.0 + late_s, 1.0))

        def wait(self, pause: float) -> bool:
            late = next(self.pauses, None)
            now[0] += late or 0.0
            return late is None

        def set(self) -> None: ...

    batcher = make_batcher(clock=lambda: now[0], forward_timeout_s=6.0)
    batcher.submit(("a", 1), urgent=True, timeout=0)
    gate.wait_for_a_forward()
    reasons: list[str] = []
    batcher._runner._give_up = reasons.append
    batcher._over.set()  # the watchdog of its own ends
    batcher._over = Over()
    batcher._watch()
    assert bool(reasons) == given_up
