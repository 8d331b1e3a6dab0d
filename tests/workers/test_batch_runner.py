"""What happens to the items of one batch, above all when it fails. No thread, no waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from workers.batch_limit import BatchLimit
from workers.batch_runner import (
    BatchReport,
    BatchRunner,
    DeviceFailed,
    ItemFailed,
    Limits,
    OutOfMemory,
    ResultCountMismatch,
    Staged,
)
from workers.device_health import DeviceHealth
from workers.ready_queue import Entry

Forward = Callable[[list[int]], Sequence[int]]


class Device:
    """Doubles numbers; fails as told. Remembers the size of each forward."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.poisoned: set[int] = set()
        self.broken = False
        self.memory = 1_000_000
        self.now = 0.0
        self.seconds = 0.0

    def __call__(self, batch: list[int]) -> list[int]:
        self.sizes.append(len(batch))
        self.now += self.seconds
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if len(batch) > self.memory:
            raise OutOfMemory(f"{len(batch)} items")
        if self.poisoned & set(batch):
            raise ValueError("bad item")
        return [item * 2 for item in batch]


class Bench:
    """A runner with its device, the reports it made and the reasons it gave up for."""

    def __init__(self, forward: Forward | None = None, **limits: int) -> None:
        self.device = Device()
        self.reports: list[BatchReport] = []
        self.gave_up: list[str] = []
        self.outdated: set[int] = set()
        self.runner: BatchRunner[int, int] = BatchRunner(
            forward or self.device,
            list,
            Limits(max_tokens=10_000, max_ready=100, forward_timeout_s=10, **{"max_batch": 32, **limits}),
            self.gave_up.append,
            self.reports.append,
            lambda: self.device.now,
            lambda item: item not in self.outdated,
        )

    def run(self, *items: int) -> list[Entry[int, int]]:
        entries: list[Entry[int, int]] = [Entry(item, 1, False, submitted_at=0.0) for item in items]
        self.runner.settle(self.runner.stage(entries))
        assert all(entry.future.done() for entry in entries)
        return entries


def outcomes(entries: list[Entry[int, int]]) -> list[int | str]:
    found: list[int | str] = []
    for entry in entries:
        error = entry.future.exception(timeout=0)
        found.append(entry.future.result(timeout=0) if error is None else type(error).__name__)
    return found


def test_each_item_gets_the_result_in_its_place() -> None:
    assert outcomes(Bench().run(1, 2, 3)) == [2, 4, 6]


@pytest.mark.parametrize("guilty", range(8))
def test_a_faulty_item_fails_alone(guilty: int) -> None:
    bench = Bench()
    bench.device.poisoned = {guilty}
    expected: list[int | str] = [item * 2 for item in range(8)]
    expected[guilty] = "ItemFailed"
    assert outcomes(bench.run(*range(8))) == expected


def test_two_faulty_items_fail_and_nobody_else() -> None:
    bench = Bench()
    bench.device.poisoned = {1, 6}
    assert outcomes(bench.run(*range(8))) == [0, "ItemFailed", 4, 6, 8, 10, "ItemFailed", 14]


def test_the_search_for_the_faulty_item_halves() -> None:
    bench = Bench()
    bench.device.poisoned = {0}
    bench.run(*range(8))
    assert bench.device.sizes == [8, 4, 2, 1, 1, 2, 4]


def test_the_verdict_carries_the_error_that_led_to_it() -> None:
    bench = Bench()
    bench.device.poisoned = {1}
    error = bench.run(0, 1)[1].future.exception(timeout=0)
    assert isinstance(error, ItemFailed)
    assert isinstance(error.__cause__, ValueError)
    assert "bad item" in str(error)


def test_a_faulty_item_that_is_alone_is_found_out_by_one_that_worked_before() -> None:
    bench = Bench()
    bench.run(5)
    bench.device.poisoned = {9}
    assert outcomes(bench.run(9)) == ["ItemFailed"]
    assert bench.device.sizes == [1, 1, 1]


def test_a_device_that_dies_between_two_items_is_blamed_for_those_after() -> None:
    device = Device()

    def hiccups_and_then_dies(batch: list[int]) -> list[int]:
        if len(batch) == 4:
            raise RuntimeError("a hiccup")
        results = device(batch)
        device.broken = True
        return results

    bench = Bench(hiccups_and_then_dies)
    assert outcomes(bench.run(1, 2, 3, 4)) == [2, 4, "DeviceFailed", "DeviceFailed"]


def test_batches_that_were_on_the_device_together_when_it_failed_count_once() -> None:
    gave_up: list[str] = []
    health: DeviceHealth[int, int] = DeviceHealth(lambda item: True, 2, gave_up.append)
    for began, now in ((1.0, 3.0), (2.0, 3.1), (2.5, 3.2)):
        health.failed(RuntimeError("a hiccup"), began, now)
    assert gave_up == []
    health.failed(RuntimeError("it is broken"), 4.0, 5.0)
    assert len(gave_up) == 1


def test_a_device_that_fails_with_everything_is_blamed_itself() -> None:
    bench = Bench()
    bench.run(5)
    bench.device.broken = True
    assert outcomes(bench.run(1, 2)) == ["DeviceFailed", "DeviceFailed"]


def test_before_anything_has_worked_an_item_is_not_blamed() -> None:
    bench = Bench()
    bench.device.poisoned = {1}
    assert outcomes(bench.run(1)) == ["DeviceFailed"]


def test_a_device_that_keeps_failing_ends_the_process() -> None:
    bench = Bench(give_up_after=3)
    bench.device.broken = True
    for batches in range(3):
        assert len(bench.gave_up) == 0, batches
        bench.run(1)
    assert len(bench.gave_up) == 1
    assert "3 times in a row" in bench.gave_up[0]


def test_a_batch_that_works_wipes_out_earlier_device_failures() -> None:
    bench = Bench(give_up_after=2)
    for _ in range(4):
        bench.device.broken = True
        bench.run(1)
        bench.device.broken = False
        bench.run(1)
    assert bench.gave_up == []


def test_a_witness_that_works_wipes_out_earlier_device_failures() -> None:
    bench = Bench(give_up_after=2)
    bench.run(1)
    bench.device.poisoned = {3}
    for item, broken, outcome in (
        (2, True, "DeviceFailed"),
        (3, False, "ItemFailed"),
        (4, True, "DeviceFailed"),
    ):
        bench.device.broken = broken
        assert outcomes(bench.run(item)) == [outcome]
    assert bench.gave_up == []


def test_out_of_memory_halves_max_batch_and_loses_nobody() -> None:
    bench = Bench(max_batch=8)
    bench.device.memory = 3
    assert outcomes(bench.run(*range(8))) == [item * 2 for item in range(8)]
    assert bench.runner.limit.now == 2
    assert bench.device.sizes == [8, 4, 2, 2, 2, 2]


def test_max_batch_never_falls_under_one() -> None:
    bench = Bench(max_batch=2)
    bench.device.memory = 0
    bench.run(1, 2)
    assert bench.runner.limit.now == 1


def test_a_batch_of_one_that_did_not_fit_beside_others_does_not_make_batches_of_one() -> None:
    bench = Bench(max_batch=32)
    bench.device.memory = 0
    bench.run(1)
    assert bench.runner.limit.now == 16


def test_an_item_that_alone_is_out_of_memory_is_not_blamed() -> None:
    bench = Bench()
    bench.run(1)
    bench.device.memory = 0
    assert outcomes(bench.run(1)) == ["DeviceFailed"]


def test_an_item_that_alone_is_out_of_memory_is_not_blamed_where_those_beside_it_fit() -> None:
    def forward(batch: list[int]) -> list[int]:
        if 3 in batch:
            raise OutOfMemory
        return batch

    assert outcomes(Bench(forward).run(1, 2, 3, 4)) == [1, 2, "DeviceFailed", 4]


def test_max_batch_recovers_by_one_after_enough_clean_batches() -> None:
    bench = Bench(max_batch=8, recover_after=3)
    bench.device.memory = 4
    bench.run(*range(8))
    limits = [bench.runner.limit.now]
    bench.device.memory = 1000
    for _ in range(14):
        bench.run(1)
        limits.append(bench.runner.limit.now)
    assert limits[0] == 4
    assert sorted(limits) == limits
    assert limits[-1] == 8
    assert all(later - earlier <= 1 for earlier, later in pairwise(limits))


def test_every_step_up_takes_as_many_clean_batches_since_the_limit_last_changed() -> None:
    limit = BatchLimit(8, recover_after=3)
    limit.out_of_memory(8)
    limits = []
    for _ in range(8):
        limit.clean()
        limits.append(limit.now)
    assert limits == [4, 4, 5, 5, 5, 6, 6, 6]
    limit.out_of_memory(6)
    limit.clean()
    assert limit.now == 3


def test_two_full_batches_that_did_not_fit_beside_each_other_halve_the_limit_once() -> None:
    limit = BatchLimit(8, recover_after=3)
    limit.out_of_memory(8)
    limit.out_of_memory(8)
    assert limit.now == 4


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3]])
def test_another_number_of_results_than_items_is_an_error_with_a_hint(results: list[int]) -> None:
    calls: list[int] = []

    def forward(batch: list[int]) -> list[int]:
        calls.append(len(batch))
        return results

    entries = Bench(forward).run(1, 2)
    for entry in entries:
        with pytest.raises(
            ResultCountMismatch, match=f"{len(results)} results for 2 items; it must return one"
        ):
            entry.future.result(timeout=0)
    assert calls == [2], "there is nobody to blame, so nothing is run again"


def test_an_error_while_a_batch_is_made_ready_is_pinned_down_as_well() -> None:
    def collate(items: list[int]) -> list[int]:
        if 3 in items:
            raise ValueError("cannot be stacked")
        return items

    bench = Bench()
    bench.runner._collate = collate
    assert outcomes(bench.run(1, 2, 3, 4)) == [2, 4, "ItemFailed", 8]


def test_a_result_for_somebody_who_left_is_dropped() -> None:
    bench = Bench()
    left: Entry[int, int] = Entry(1, 1, False, submitted_at=0.0)
    stayed: Entry[int, int] = Entry(2, 1, False, submitted_at=0.0)
    assert left.future.cancel()
    bench.runner.settle(Staged([left, stayed], [1, 2], None))
    assert stayed.future.result(timeout=0) == 4
    assert left.future.cancelled()


def test_a_forward_within_its_time_does_not_hang() -> None:
    bench = Bench()
    seen: list[bool] = []

    def forward(batch: list[int]) -> list[int]:
        bench.device.now += 10
        seen.append(bench.runner.hangs())
        return batch

    bench.runner._forward = forward
    bench.run(1)
    assert (seen, bench.gave_up) == ([False], [])


def test_time_in_which_the_process_stood_still_is_no_hang() -> None:
    bench = Bench()
    seen: list[bool] = []

    def forward(batch: list[int]) -> list[int]:
        bench.device.now += 65
        bench.runner.stood_still(60)
        seen.append(bench.runner.hangs())
        bench.device.now += 5.1
        seen.append(bench.runner.hangs())
        return batch

    bench.runner._forward = forward
    bench.run(1)
    assert seen == [False, True]
    assert bench.gave_up == ["a batch has been readied or run for 10 s"]


def test_a_batch_that_began_after_the_process_stood_still_has_no_more_time_for_it() -> None:
    bench = Bench()
    seen: list[bool] = []

    def forward(batch: list[int]) -> list[int]:
        bench.runner.stood_still(3600)
        bench.device.now += 10.1
        seen.append(bench.runner.hangs())
        return batch

    bench.runner._forward = forward
    bench.run(1)
    assert seen == [True]


def test_no_forward_is_no_hang() -> None:
    bench = Bench()
    bench.run(1)
    bench.device.now += 1000
    assert not bench.runner.hangs()


def test_each_forward_is_reported() -> None:
    bench = Bench()
    bench.device.now = 5.0
    bench.device.seconds = 2.0
    entries: list[Entry[int, int]] = [
        Entry(1, 3, False, submitted_at=1.0),
        Entry(2, 8, False, submitted_at=4.0),
    ]
    bench.runner.settle(bench.runner.stage(entries))
    (report,) = bench.reports
    assert report == BatchReport(
        size=2,
        tokens=11,
        padded_tokens=16,
        waited_s=(4.0, 1.0),
        forward_s=2.0,
        busy_s=2.0,
        error=None,
    )


def test_a_forward_that_raised_is_reported_with_its_error() -> None:
    bench = Bench()
    bench.device.broken = True
    entries = bench.run(1)
    assert [report.error for report in bench.reports] == ["RuntimeError"]
    assert isinstance(entries[0].future.exception(timeout=0), DeviceFailed)


def test_what_is_run_again_is_reported_without_the_wait_that_was_told_before() -> None:
    bench = Bench()
    bench.device.poisoned = {1}
    bench.run(1, 2)
    assert [(report.size, len(report.waited_s)) for report in bench.reports] == [(2, 2), (1, 0), (1, 0)]


def test_the_run_of_a_witness_is_nobodys_wait() -> None:
    bench = Bench()
    bench.run(1)
    bench.device.poisoned = {2}
    assert outcomes(bench.run(2)) == ["ItemFailed"]
    assert [len(report.waited_s) for report in bench.reports] == [1, 1, 0]


def test_an_item_that_is_current_no_longer_is_no_witness() -> None:
    bench = Bench()
    bench.run(1)
    bench.outdated = {1}
    bench.device.poisoned = {2}
    assert outcomes(bench.run(2)) == ["DeviceFailed"]
    assert [report.size for report in bench.reports] == [1, 1], "it is not run either"


def test_a_witness_is_forgotten_and_what_is_not_current_is_not_remembered() -> None:
    bench = Bench()
    bench.run(1)
    bench.runner.health.forget_witness()
    bench.outdated = {3}
    bench.run(3)
    bench.outdated = set()
    bench.device.poisoned = {2}
    assert outcomes(bench.run(2)) == ["DeviceFailed"]


@pytest.mark.parametrize("step", ["collate", "forward"])
def test_a_batch_that_hangs_in_either_step_is_seen(step: str) -> None:
    bench = Bench()
    seen: list[bool] = []

    def hang(batch: list[int]) -> list[int]:
        bench.device.now += 10.0
        seen.append(bench.runner.hangs())
        bench.device.now += 0.1
        seen.append(bench.runner.hangs())
        return batch

    setattr(bench.runner, f"_{step}", hang)
    bench.run(1)
    assert seen == [False, True]
    assert bench.gave_up == ["a batch has been readied or run for 10 s"]
    assert not bench.runner.hangs()


def test_a_forward_that_hangs_is_seen_also_while_another_batch_is_being_made_ready() -> None:
    bench = Bench()
    seen: list[bool] = []
    being_made, may_be_ready = threading.Event(), threading.Event()

    def collate(items: list[int]) -> list[int]:
        being_made.set()
        assert may_be_ready.wait(10)
        return items

    def hang(batch: list[int]) -> list[int]:
        bench.device.now += 5.0
        staging = threading.Thread(target=bench.runner.stage, args=([],))
        staging.start()
        assert being_made.wait(10)
        bench.device.now += 5.1
        seen.append(bench.runner.hangs())
        may_be_ready.set()
        staging.join()
        return batch

    bench.runner._forward = hang
    bench.runner._collate = collate
    bench.runner.settle(Staged([Entry(1, 1, False, submitted_at=0.0)], [1], None))
    assert seen == [True]
