"""How often the broker and the workers behind it are asked for a sign of life."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from catalog import queue
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


def test_a_lane_with_as_many_messages_as_it_may_have_jobs_gets_no_more_for_a_second(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of jobs that were cancelled, say, while there was no worker."""
    waiting, sent, unsent = {"interactive": 10, "bulk": 0}, [], []
    monkeypatch.setattr(queue, "waiting", lambda celery, lane: waiting[lane])
    monkeypatch.setattr(queue, "send", lambda celery, job_ids, lane: sent.extend(job_ids))
    broker = Broker(settings.model_copy(update={"max_queued_interactive": 9}), unsent.append, clock=clock)
    broker.send("one", "interactive")
    broker.send("of another lane", "bulk")
    waiting["interactive"] = 9
    broker.send("two", "interactive")
    assert (sent, unsent) == (["of another lane"], [1, 1])
    clock.now += 1
    broker.send("three", "interactive")
    assert sent == ["of another lane", "three"]


def test_a_broker_that_is_full_is_not_reachable(settings: Settings, servers: Any, clock: Clock) -> None:
    """It answers a ping and refuses every write, as the question to the workers is."""
    broker = Broker(settings, unsent=lambda _: None, clock=clock)
    with closing(servers.redis()) as redis:
        redis.config_set("maxmemory", "1")
        try:
            assert broker.probe() == (False, False)
        finally:
            redis.config_set("maxmemory", "512mb")
            broker.close()
