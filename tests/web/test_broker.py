"""How often the broker and the workers behind it are asked for a sign of life."""

from __future__ import annotations

import pytest

from catalog.settings import Settings
from web.broker import Broker


class Asked(Broker):
    """Answers what it is told to, and counts the questions."""

    answer = (True, True)
    asked = 0

    def _ask(self) -> tuple[bool, bool]:
        self.asked += 1
        return self.answer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(settings: Settings, clock: Clock) -> Asked:
    return Asked(settings, unsent=lambda _: None, clock=clock)


def test_a_good_answer_is_kept_for_two_seconds(broker: Asked, clock: Clock) -> None:
    assert broker.probe() == (True, True)
    broker.answer = (True, False)
    clock.now += 1.9
    assert broker.probe() == (True, True)
    assert broker.asked == 1
    clock.now += 0.2
    assert broker.probe() == (True, False)


@pytest.mark.parametrize("bad", [(False, False), (True, False)])
def test_a_worker_that_comes_up_is_heard_of_at_once(
    broker: Asked, clock: Clock, bad: tuple[bool, bool]
) -> None:
    broker.answer = bad
    assert broker.probe() == bad
    assert broker.probe() == bad
    assert broker.asked == 1, "who waits beside others shares their answer"
    broker.answer = (True, True)
    clock.now += 0.2
    assert broker.probe() == (True, True)
