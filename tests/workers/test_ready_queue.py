"""Which items make the next batch."""

from __future__ import annotations

import random

import pytest

from workers.ready_queue import Entry, ReadyQueue


def queue_of(*lengths: int, urgent: bool = False) -> ReadyQueue[str, str]:
    queue: ReadyQueue[str, str] = ReadyQueue()
    add(queue, *lengths, urgent=urgent)
    return queue


def add(queue: ReadyQueue[str, str], *lengths: int, urgent: bool = False) -> None:
    for length in lengths:
        queue.put(Entry(f"{'u' if urgent else 'p'}{length}", length, urgent, submitted_at=float(len(queue))))


def items(batch: list[Entry[str, str]]) -> list[str]:
    return [entry.item for entry in batch]


def test_an_empty_queue_gives_an_empty_batch() -> None:
    assert queue_of().take(8, 100) == []


def test_everything_ready_is_taken_when_it_fits() -> None:
    queue = queue_of(3, 1, 2)
    assert items(queue.take(8, 100)) == ["p1", "p2", "p3"]
    assert len(queue) == 0


def test_a_batch_is_sorted_by_length() -> None:
    assert [entry.length for entry in queue_of(9, 2, 7, 4).take(8, 100)] == [2, 4, 7, 9]


def test_a_batch_is_never_over_max_batch() -> None:
    queue = queue_of(1, 1, 1, 1, 1)
    assert [len(queue.take(2, 100)) for _ in range(4)] == [2, 2, 1, 0]


def test_the_token_budget_counts_padding() -> None:
    # 10 and 6 together cost 2 x 10 with padding, which is over 19 although 16 is not.
    queue = queue_of(10, 6)
    assert items(queue.take(8, 19)) == ["p10"]
    assert items(queue.take(8, 19)) == ["p6"]


def test_an_item_over_the_whole_budget_runs_alone() -> None:
    queue = queue_of(500, 1, 2)
    assert items(queue.take(8, 100)) == ["p500"]
    assert items(queue.take(8, 100)) == ["p1", "p2"]


def test_the_budget_of_weights_counts_no_padding() -> None:
    queue: ReadyQueue[str, str] = ReadyQueue()
    for number, weight in enumerate((8, 1, 7, 0, 20, 3)):
        queue.put(Entry(f"w{weight}", 1, False, submitted_at=number, weight=weight))
    assert not queue.holds_a_full_batch(100, 100, 40)
    assert queue.holds_a_full_batch(100, 100, 39)
    assert items(queue.take(8, 100, 10)) == ["w8", "w1", "w0"]
    assert items(queue.take(8, 100, 10)) == ["w7", "w3"]
    assert items(queue.take(8, 100, 10)) == ["w20"], "over the whole budget by itself"


def test_an_item_that_does_not_fit_leaves_its_place_to_shorter_ones_behind_it() -> None:
    queue = queue_of(5, 50, 5)
    assert items(queue.take(8, 20)) == ["p5", "p5"]
    assert items(queue.take(8, 20)) == ["p50"]


def test_items_of_like_length_go_together() -> None:
    queue = queue_of(10, 90, 11, 91, 12, 92)
    assert items(queue.take(3, 1000)) == ["p10", "p11", "p12"]
    assert items(queue.take(3, 1000)) == ["p90", "p91", "p92"]


def test_the_oldest_item_is_in_the_next_batch_however_odd_its_length() -> None:
    queue = queue_of(99, *[1] * 20)
    assert "p99" in items(queue.take(4, 1000))


def test_urgent_items_go_before_patient_ones() -> None:
    queue = queue_of(1, 1, 1, 1)
    add(queue, 7, 8, 9, urgent=True)
    assert sorted(items(queue.take(4, 1000))) == ["p1", "u7", "u8", "u9"]


def test_one_place_is_kept_for_the_oldest_patient_item() -> None:
    queue = queue_of(1, 2)
    add(queue, *[5] * 10, urgent=True)
    assert items(queue.take(4, 1000)) == ["p1", "u5", "u5", "u5"]


def test_beside_a_batch_of_patient_items_none_takes_the_place_of_an_urgent_one() -> None:
    queue = queue_of(1, 2)
    add(queue, 5, 4, 3, urgent=True)
    assert items(queue.take(2, 1000, urgent_only=True)) == ["u4", "u5"]
    assert items(queue.take(8, 1000, urgent_only=True)) == ["u3"]
    assert items(queue.take(8, 1000)) == ["p1", "p2"]


def test_a_batch_beside_others_passes_no_patient_item_over() -> None:
    queue = queue_of(1)
    add(queue, 5, 4, urgent=True)
    assert items(queue.take(1, 1000, urgent_only=True)) == ["u5"]
    assert items(queue.take(1, 1000)) == ["u4"]


def test_a_batch_of_one_is_urgent_when_anybody_waits() -> None:
    queue = queue_of(1)
    add(queue, 5, urgent=True)
    assert items(queue.take(1, 1000)) == ["u5"]
    assert items(queue.take(1, 1000)) == ["p1"]


def test_urgent_items_without_end_do_not_keep_a_patient_one_from_a_batch_of_one() -> None:
    queue = queue_of(1)
    add(queue, *[5] * 10, urgent=True)
    assert [items(queue.take(1, 1000)) for _ in range(3)] == [["u5"], ["p1"], ["u5"]]


def test_a_patient_item_that_does_not_fit_beside_an_urgent_one_leads_the_next_batch() -> None:
    queue = queue_of(90)
    add(queue, *[60] * 4, urgent=True)
    assert items(queue.take(2, 120)) == ["u60", "u60"]
    assert items(queue.take(2, 120, urgent_only=True)) == ["u60", "u60"], "a place where it could not be"
    add(queue, 60, urgent=True)
    assert items(queue.take(2, 120)) == ["p90"]


def test_in_batches_of_one_urgent_and_patient_items_take_turns() -> None:
    queue = queue_of(1, 2)
    add(queue, 5, 6, 7, urgent=True)
    assert [items(queue.take(1, 1000)) for _ in range(5)] == [["u5"], ["p1"], ["u6"], ["p2"], ["u7"]]


def test_the_oldest_patient_item_leads_after_younger_ones_went_before_it() -> None:
    queue = queue_of(90, 1, 1)
    add(queue, 60, urgent=True)
    assert items(queue.take(2, 150)) == ["p1", "u60"]
    add(queue, 60, urgent=True)
    assert items(queue.take(2, 150)) == ["p90"]


def test_what_is_given_back_has_not_had_its_turn() -> None:
    queue = queue_of(1)
    add(queue, 5, 6, urgent=True)
    assert items(queue.take(1, 1000)) == ["u5"]
    batch = queue.take(1, 1000)
    queue.give_back(batch)
    assert items(batch) == items(queue.take(1, 1000)) == ["p1"]


def test_what_is_given_back_comes_first_again() -> None:
    queue = queue_of(1, 2, 3, 4)
    batch = queue.take(2, 1000)
    queue.give_back(batch)
    assert [entry.length for entry in queue.drain()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("lengths", "full"), [((1, 1), False), ((1, 1, 1), True), ((50, 50), True), ((), False)]
)
def test_a_full_batch_is_one_that_waiting_cannot_grow(lengths: tuple[int, ...], full: bool) -> None:
    assert queue_of(*lengths).holds_a_full_batch(max_batch=3, max_tokens=100) is full


def test_every_item_comes_out_once_and_within_the_limits_whatever_goes_in() -> None:
    chance = random.Random(7)
    for _ in range(200):
        queue: ReadyQueue[str, str] = ReadyQueue()
        for _ in range(chance.randrange(1, 60)):
            add(queue, chance.randrange(1, 120), urgent=chance.random() < 0.3)
        expected = len(queue)
        max_batch, max_tokens = chance.randrange(1, 12), chance.randrange(1, 500)
        seen: set[int] = set()
        while batch := queue.take(max_batch, max_tokens):
            assert len(batch) <= max_batch
            assert len(batch) == 1 or batch[-1].length * len(batch) <= max_tokens
            assert not seen & set(map(id, batch))
            seen |= set(map(id, batch))
        assert len(seen) == expected


def test_what_is_given_back_waits_in_the_order_in_which_it_came() -> None:
    queue = queue_of(9, 1, 5)
    queue.give_back(queue.take(3, 100))
    assert items(queue.drain()) == ["p9", "p1", "p5"]
