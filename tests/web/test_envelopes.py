"""Which bulk jobs share a message, and when it is sent."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from web.envelopes import MOMENT_S, Envelopes


class World:
    """A clock that the test moves, the timers that it fires, and what was sent."""

    def __init__(self) -> None:
        self.now = 100.0
        self.no_thread = False
        self.sent: list[list[str]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.envelopes = Envelopes(
            self.sent.append, 4, clock=lambda: self.now, timer=self.timer  # type: ignore[arg-type]
        )  # fmt: skip

    def timer(self, after_s: float, call: Callable[[], None]) -> Any:
        entry = (self.now + after_s, call)

        class Timer:
            daemon = False

            def start(timer) -> None:
                assert timer.daemon
                if self.no_thread:
                    raise RuntimeError("can't start new thread")
                self.timers.append(entry)

            def cancel(timer) -> None:
                self.timers.remove(entry)

        return Timer()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for at, call in list(self.timers):
            if at <= self.now:
                call()

    def add(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.envelopes.add(job_id)


@pytest.fixture
def world() -> World:
    return World()


def test_a_job_after_a_quiet_moment_is_sent_at_once(world: World) -> None:
    world.add("a")
    assert world.sent == [["a"]]
    world.pass_time(MOMENT_S)
    world.add("b")
    assert world.sent == [["a"], ["b"]]
    assert world.timers == []


def test_those_that_follow_share_a_message_at_the_end_of_the_moment(world: World) -> None:
    world.add("a", "b")
    world.pass_time(MOMENT_S / 2)
    world.add("c")
    assert (world.sent, len(world.timers)) == ([["a"]], 1)
    world.pass_time(MOMENT_S / 2)
    assert (world.sent, world.timers) == ([["a"], ["b", "c"]], [])


def test_a_full_message_waits_for_nothing(world: World) -> None:
    world.add(*"abcdefghi")
    assert world.sent == [["a"], ["b", "c", "d", "e"], ["f", "g", "h", "i"]]
    world.add("j")
    world.pass_time(MOMENT_S)
    assert world.sent[-1] == ["j"]


def test_what_waits_is_sent_at_the_end(world: World) -> None:
    world.add("a", "b")
    world.envelopes.flush()
    assert (world.sent, world.timers) == ([["a"], ["b"]], [])


def test_threads_that_add_at_once_lose_and_double_nothing() -> None:
    sent: list[list[str]] = []
    lock = threading.Lock()

    def send(job_ids: list[str]) -> None:
        with lock:
            sent.append(job_ids)

    envelopes = Envelopes(send, 7)
    ids = [str(number) for number in range(500)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(envelopes.add, ids))
    envelopes.flush()
    assert sorted(job_id for message in sent for job_id in message) == sorted(ids)
    assert max(map(len, sent)) <= 7


def test_without_a_thread_to_spare_a_job_is_sent_in_a_message_of_its_own(world: World) -> None:
    world.add("a")
    world.no_thread = True
    world.add("b", "c")
    world.no_thread = False
    world.add("d", "e")
    assert world.sent == [["a"], ["b"], ["c"]]
    world.pass_time(MOMENT_S)
    assert world.sent[3:] == [["d", "e"]]
