"""How often the broker and the workers behind it are asked for a sign of life."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from typing import Any

import pytest
from pydantic import SecretStr

from catalog import queue
from catalog.errors import BrokerUnavailable
from catalog.settings import Settings
from web import envelopes
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


def test_those_who_ask_at_the_same_time_share_one_answer(
    broker: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    ask = broker._ask

    def ask_slowly() -> tuple[bool, bool]:
        begun.set()
        assert go.wait(10)
        return ask()

    monkeypatch.setattr(broker, "_ask", ask_slowly)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(broker.probe)
        assert begun.wait(10)
        second = threads.submit(broker.probe)
        wait([second], timeout=0.05)
        go.set()
        assert (first.result(10), second.result(10)) == ((True, True), (True, True))
    assert broker.asked == 1


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


def test_a_broker_that_goes_away_between_two_questions_is_not_asked_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(queue, "ping", lambda celery: None)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        broker = Broker(settings.model_copy(update={"broker_url": SecretStr(url)}), lambda jobs: None)
        assert broker.probe() == (False, False)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_worker_that_takes_its_time_to_answer_is_there(settings: Settings, redis_url: str) -> None:
    """As one does whose cores are busy: longer than web waits for the broker itself."""
    broker = Broker(settings, unsent=lambda _: None)

    def ping(state: Any) -> str:
        time.sleep(1.2)
        return "pong"

    with broker.celery.connection_for_write() as connection:
        handlers, channel = {"ping": ping}, connection.default_channel
        node = broker.celery.control.mailbox(connection).Node("slow", handlers=handlers, channel=channel)
        with node.listen(), ThreadPoolExecutor(1) as threads:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)  # subscribes
            probed = threads.submit(broker.probe)
            connection.drain_events(timeout=10)
            assert probed.result(10) == (True, True)
    broker.close()


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


@pytest.mark.parametrize(
    ("jobs", "messages", "takes_more"), [(640, 10, True), (640, 11, False), (10, 1, True), (10, 2, False)]
)
def test_a_lane_takes_messages_for_as_many_jobs_as_it_may_have(
    settings: Settings,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    jobs: int,
    messages: int,
    takes_more: bool,
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(queue, "waiting", lambda celery, lane: messages)
    monkeypatch.setattr(queue, "send", lambda celery, job_ids, lane: sent.extend(job_ids))
    limited = settings.model_copy(update={"max_queued_bulk": jobs})
    Broker(limited, unsent=lambda _: None, clock=clock).send("one", "bulk")
    assert sent == (["one"] if takes_more else [])


def away(celery: Any, *_: Any) -> None:
    raise BrokerUnavailable("no route to the broker")


def test_a_broker_that_did_not_take_a_message_is_left_alone_for_a_moment(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    unsent: list[int] = []
    monkeypatch.setattr(queue, "waiting", lambda celery, lane: 0)
    monkeypatch.setattr(queue, "send", away)
    broker = Broker(settings, unsent.append, clock=clock)
    broker.send("one", "interactive")
    monkeypatch.setattr(queue, "send", lambda celery, job_ids, lane: sent.extend(job_ids))
    clock.now += 2.9
    broker.send("two", "interactive")
    assert (sent, unsent) == ([], [1, 1])
    clock.now += 0.2
    broker.send("three", "interactive")
    assert (sent, unsent) == (["three"], [1, 1])


@pytest.mark.parametrize("why", ["away", "left alone", "full"])
def test_every_job_of_a_message_that_was_not_sent_is_counted(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    unsent: list[int] = []
    monkeypatch.setattr(envelopes, "MOMENT_S", 3600.0)
    monkeypatch.setattr(queue, "waiting", lambda celery, lane: 10**9 if why == "full" else 0)
    monkeypatch.setattr(queue, "send", away)
    broker = Broker(settings, unsent.append, clock=clock)
    for job_id in ("at once", "later", "later still"):
        broker.send(job_id, "bulk")
    clock.now += 10 if why == "away" else 0
    broker.close()
    assert unsent == [1, 2]


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
