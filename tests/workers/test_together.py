"""Threads that share what each would do alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from workers.together import Together

PATIENCE_S = 30.0


class Gate:
    """A run that waits until it is let go, and remembers what it was given each time."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.together: Together[int, int] = Together(self.run)

    def run(self, items: list[int]) -> Sequence[int]:
        self.runs.append(list(items))
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE_S)
        if any(item < 0 for item in items):
            raise ValueError(f"cannot do {items}")
        return [10 * item for item in items]


def all_wait(gate: Gate, count: int) -> None:
    """Until so many wait for the one that runs."""
    while len(gate.together._waiting) < count:
        threading.Event().wait(0.001)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def first_and_then(gate: Gate, pool: ThreadPoolExecutor, items: Sequence[int]) -> list[Future[int]]:
    """The first runs; the others come while it does, in their order."""
    futures = [pool.submit(gate.together, items[0])]
    assert gate.begun.acquire(timeout=PATIENCE_S)
    for number, item in enumerate(items[1:], 1):
        futures.append(pool.submit(gate.together, item))
        all_wait(gate, number)
    return futures


def test_one_that_comes_alone_runs_at_once(gate: Gate) -> None:
    gate.go.release(2)
    assert (gate.together(1), gate.together(2)) == (10, 20)
    assert gate.runs == [[1], [2]]


def test_those_that_come_while_one_runs_are_run_together(gate: Gate) -> None:
    with ThreadPoolExecutor(5) as pool:
        futures = first_and_then(gate, pool, [1, 2, 3, 4])
        gate.go.release(2)
        assert [future.result(PATIENCE_S) for future in futures] == [10, 20, 30, 40]
    assert gate.runs == [[1], [2, 3, 4]]


def test_an_item_that_cannot_be_done_fails_alone(gate: Gate) -> None:
    with ThreadPoolExecutor(5) as pool:
        futures = first_and_then(gate, pool, [1, 2, -3, 4])
        gate.go.release(5)
        assert [futures[n].result(PATIENCE_S) for n in (0, 1, 3)] == [10, 20, 40]
        with pytest.raises(ValueError, match="cannot do"):
            futures[2].result(PATIENCE_S)
    assert gate.runs == [[1], [2, -3, 4], [2], [-3], [4]]
    gate.go.release()
    assert gate.together(5) == 50  # and nobody is left waiting


class Panic(BaseException):
    """As Rust's, which is no Exception."""


def test_what_is_no_exception_reaches_all_who_wait(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(items: list[int]) -> Sequence[int]:
        if len(items) > 1:
            raise Panic
        return gate.run(items)

    monkeypatch.setattr(gate.together, "_run", panic)
    with ThreadPoolExecutor(5) as pool:
        futures = first_and_then(gate, pool, [1, 2, 3])
        gate.go.release()
        assert futures[0].result(PATIENCE_S) == 10
        assert [type(futures[n].exception(PATIENCE_S)) for n in (1, 2)] == [Panic, Panic]
        gate.go.release()
        assert gate.together(5) == 50


def test_many_threads_get_each_its_own_answer() -> None:
    together: Together[int, int] = Together(lambda items: [item + 1 for item in items])
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(together, range(2000))) == list(range(1, 2001))


def test_while_the_next_one_runs_whoever_comes_waits_as_well(gate: Gate) -> None:
    with ThreadPoolExecutor(5) as pool:
        futures = first_and_then(gate, pool, [1, 2])
        gate.go.release()
        assert gate.begun.acquire(timeout=PATIENCE_S), "the second runs"
        futures.append(pool.submit(gate.together, 3))
        assert not gate.begun.acquire(timeout=0.05), "two would run at once"
        gate.go.release(2)
        assert [future.result(PATIENCE_S) for future in futures] == [10, 20, 30]
    assert gate.runs == [[1], [2], [3]]


def test_what_was_done_before_something_that_is_no_exception_has_its_answer(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(items: list[int]) -> Sequence[int]:
        if len(items) > 1:
            raise ValueError("not together")
        if items == [4]:
            raise Panic
        return gate.run(items)

    monkeypatch.setattr(gate.together, "_run", panic)
    with ThreadPoolExecutor(5) as pool:
        futures = first_and_then(gate, pool, [1, 2, 3, 4, 5])
        gate.go.release(3)
        assert [futures[n].result(PATIENCE_S) for n in (0, 2)] == [10, 30]
        assert [type(futures[n].exception(PATIENCE_S)) for n in (3, 4)] == [Panic, Panic]
