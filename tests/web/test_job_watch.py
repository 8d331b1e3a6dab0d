"""Waiting for jobs: who is woken, who is turned away, and how little is asked of the database."""

import threading
import time
from collections.abc import Collection
from unittest.mock import Mock

import pytest

from web import job_watch
from web.job_watch import JobWatch


class Jobs:
    """Stands for the database: which jobs have ended, and what was asked."""

    def __init__(self) -> None:
        self.over: set[str] = set()
        self.asked: list[set[str]] = []
        self.asked_once = threading.Event()
        self.broken = False

    def ended(self, job_ids: Collection[str]) -> set[str]:
        self.asked.append(set(job_ids))
        self.asked_once.set()
        if self.broken:
            raise OSError("the database is away")
        return self.over & set(job_ids)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def pollers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "job-watch"}


def waiting(
    watch: JobWatch, job_id: str, seconds: float = 30, account: str = "shop"
) -> tuple[threading.Thread, list[bool]]:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(watch.wait(job_id, seconds, account)))
    thread.start()
    return thread, results


def test_who_waits_for_a_job_is_woken_when_it_ends(jobs: Jobs) -> None:
    watch = JobWatch(jobs.ended, max_waiters=2)
    thread, results = waiting(watch, "job_a")
    assert jobs.asked_once.wait(10)
    assert results == []
    jobs.over.add("job_a")
    thread.join(10)
    assert results == [True]
    assert watch.waiting == 0


def test_time_over_is_false(jobs: Jobs) -> None:
    assert JobWatch(jobs.ended, max_waiters=1).wait("job_a", 0.02, "shop") is False


def test_all_waiting_requests_share_one_query(jobs: Jobs) -> None:
    watch, before = JobWatch(jobs.ended, max_waiters=3), pollers()
    waits = [waiting(watch, f"job_{n}") for n in range(3)]
    while not any(len(asked) == 3 for asked in jobs.asked):
        time.sleep(0.001)
    assert len(pollers() - before) == 1
    jobs.over |= {"job_0", "job_1", "job_2"}
    for thread, results in waits:
        thread.join(10)
        assert results == [True]


def test_only_those_whose_job_has_ended_are_woken(jobs: Jobs) -> None:
    watch = JobWatch(jobs.ended, max_waiters=2)
    other, unended = waiting(watch, "job_b")
    while watch.waiting < 1:
        time.sleep(0.001)
    jobs.over.add("job_a")
    assert watch.wait("job_a", 30, "shop") is True
    assert (unended, watch.waiting) == ([], 1)
    jobs.over.add("job_b")
    other.join(10)
    assert unended == [True]


def test_who_comes_is_looked_for_at_once_and_after_a_while_only_now_and_then(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_watch, "_EAGER_FOR_S", 0)
    monkeypatch.setattr(job_watch, "_CALM_POLL_S", 3600)
    watch, before = JobWatch(jobs.ended, max_waiters=2), pollers()
    patient, _ = waiting(watch, "job_a", seconds=0.1)
    patient.join(10)
    assert jobs.asked == [{"job_a"}]
    for poller in pollers() - before:
        poller.join(10)
        assert not poller.is_alive(), "nobody waits any more"
    patient, results = waiting(watch, "job_a")
    while len(jobs.asked) < 2:
        time.sleep(0.001)
    jobs.over |= {"job_a", "job_b"}
    assert watch.wait("job_b", 30, "shop") is True
    patient.join(10)
    assert results == [True]


def test_in_the_first_seconds_a_job_is_looked_at_closely(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_watch, "_EAGER_FOR_S", 3600)
    monkeypatch.setattr(job_watch, "_CALM_POLL_S", 3600)
    watch = JobWatch(jobs.ended, max_waiters=1)
    thread, results = waiting(watch, "job_a")
    while not jobs.asked:
        time.sleep(0.001)
    jobs.over.add("job_a")
    thread.join(10)
    assert results == [True]


def test_one_too_many_is_turned_away_at_once(jobs: Jobs) -> None:
    watch = JobWatch(jobs.ended, max_waiters=1)
    thread, results = waiting(watch, "job_a")
    assert jobs.asked_once.wait(10)
    assert watch.wait("job_b", 3600, "shop") is False
    jobs.over.add("job_a")
    thread.join(10)
    assert results == [True]
    assert watch.wait("job_a", 10, "shop") is True  # the place is free again


def test_one_account_leaves_a_quarter_of_the_places_to_the_others(jobs: Jobs) -> None:
    watch = JobWatch(jobs.ended, max_waiters=8)
    threads = []
    for number in range(6):
        threads.append(waiting(watch, "job_a")[0])
        while watch.waiting <= number:
            time.sleep(0.001)
    assert watch.wait("job_a", 3600, "shop") is False
    for number, account in enumerate(("second", "third"), 6):
        threads.append(waiting(watch, "job_a", account=account)[0])
        while watch.waiting <= number:
            time.sleep(0.001)
    assert watch.wait("job_a", 3600, "fourth") is False, "all are taken"
    jobs.over.add("job_a")
    for thread in threads:
        thread.join(10)


def test_nobody_waiting_asks_nothing(jobs: Jobs) -> None:
    watch = JobWatch(jobs.ended, max_waiters=1)
    watch.wait("job_a", 0.01, "shop")
    for thread in threading.enumerate():
        if thread.name == "job-watch":
            thread.join(10)
            assert not thread.is_alive()


def test_a_database_that_is_away_wakes_nobody_and_is_asked_again(jobs: Jobs) -> None:
    jobs.broken = True
    watch = JobWatch(jobs.ended, max_waiters=1)
    thread, results = waiting(watch, "job_a")
    assert jobs.asked_once.wait(10)
    jobs.over.add("job_a")
    jobs.broken = False
    thread.join(10)
    assert results == [True]
    assert len(jobs.asked) >= 2


def test_a_database_that_is_away_is_left_alone_for_a_while(jobs: Jobs) -> None:
    jobs.broken = True
    assert JobWatch(jobs.ended, max_waiters=1).wait("job_a", 0.1, "shop") is False
    assert len(jobs.asked) < 10


def test_without_a_thread_to_spare_nobody_waits_and_the_next_one_is_served(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = JobWatch(jobs.ended, max_waiters=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        assert watch.wait("job_a", 30, "shop") is False
    assert watch.waiting == 0
    jobs.over.add("job_a")
    assert watch.wait("job_a", 30, "shop") is True
