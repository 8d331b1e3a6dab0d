"""The life of a message: what is claimed, what is written, and what a fault of the job or of the world does."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from catalog.database import transaction
from catalog.errors import DatabaseBusy, DatabaseUnavailable, StoreUnavailable
from catalog.jobs import Finished, claim, finish
from catalog.photo_store import PhotoStore
from catalog.queue import make_message
from catalog.views import LANES, Lane
from workers import outcomes
from workers.tasks import tag_views

from .conftest import tagging

if TYPE_CHECKING:
    from .conftest import Desk

PATIENCE_S = 30.0


def test_a_product_is_tagged(desk: Desk) -> None:
    job_id = desk.accept("A red shirt")
    desk.run(job_id)
    job = desk.job(job_id)
    assert (job.status, job.attempts, job.model_name, job.model_version) == ("succeeded", 1, "stand-in", "1")
    assert job.tags is not None
    (tag,) = job.tags
    assert (tag.attribute, tag.value, tag.decision) == ("title", "A red shirt", "auto")
    assert dict(tag.evidence) == {"text": 0.8, "photos": None}
    assert [dict(alternative) for alternative in tag.alternatives] == [{"value": "other", "confidence": 0.1}]


def test_the_model_sees_the_model_views_in_the_order_of_the_photos(desk: Desk) -> None:
    photos = [desk.store_photo("b", b"second"), desk.store_photo("a", b"first")]
    desk.run(desk.accept(photos=photos))
    assert desk.runtime.photos == [(b"second", b"first")]


def test_a_message_of_many_jobs_tags_them_all(desk: Desk) -> None:
    jobs = {desk.accept(f"shirt {number}", lane="bulk"): f"shirt {number}" for number in range(20)}
    desk.run(*jobs, lane="bulk")
    assert {job_id: desk.tags(job_id) for job_id in jobs} == {
        job_id: [title] for job_id, title in jobs.items()
    }
    assert desk.outcomes() == {"succeeded": 20}


@pytest.mark.parametrize("lane", LANES)
def test_a_message_takes_what_is_due_first_in_its_lane(desk: Desk, lane: Lane) -> None:
    others = [desk.accept("of another lane", lane=other) for other in LANES if other != lane]
    first, named = desk.accept("first", lane=lane), desk.accept("named", lane=lane)
    desk.run(named, lane=lane)
    assert (desk.tags(first), desk.tags(named)) == (["first"], [])
    assert [desk.tags(job_id) for job_id in others] == [[]]


def test_a_duplicate_message_claims_nothing(desk: Desk) -> None:
    job_id = desk.accept("shirt")
    desk.run(job_id)
    desk.run(job_id)
    assert desk.tags(job_id) == ["shirt"]
    assert desk.job(job_id).attempts == 1


def test_interactive_messages_that_come_at_the_same_time_share_their_transactions(desk: Desk) -> None:
    """While one waits for the database, the others gather: one transaction claims and one finishes for all of them."""
    jobs = {desk.accept(f"shirt {number}"): f"shirt {number}" for number in range(9)}
    statements = statements_of(desk.engine)
    first, *others = jobs
    held, let_go = threading.Event(), threading.Event()

    def hold_once(*_: object) -> None:
        if not held.is_set():
            held.set()
            assert let_go.wait(PATIENCE_S)

    event.listen(desk.engine, "before_cursor_execute", hold_once)
    threads = [threading.Thread(target=desk.run, args=(job_id,)) for job_id in (first, *others)]
    threads[0].start()
    assert held.wait(PATIENCE_S)
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        while len(desk.tag._claim_interactive._waiting) < number:
            threading.Event().wait(0.001)
    let_go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert {job_id: desk.tags(job_id) for job_id in jobs} == {id_: [title] for id_, title in jobs.items()}
    assert desk.outcomes() == {"succeeded": 9}
    assert sum("AS ring" in statement and "UPDATE" in statement for statement in statements) == 2
    assert sum("status = 'succeeded'" in statement for statement in statements) < 9


@pytest.mark.parametrize("lost_first", [True, False])
def test_two_finishes_of_one_job_at_the_same_time_write_the_tags_of_the_one_that_holds_it(
    desk: Desk, lost_first: bool
) -> None:
    job_id = desk.accept("shirt")
    claims = []
    for _ in range(2):
        with transaction(desk.engine) as session:
            claims += claim(session, "interactive", [job_id], worker="w", settings=desk.settings)
            session.execute(text("UPDATE jobs SET lease_until = now()"))
    entries = [
        [Finished(job, list(tag_views(tagging(title).tags)), None, "m", "v")]
        for job, title in zip(claims, ("lost", "held"), strict=True)
    ]
    both = entries if lost_first else entries[::-1]
    written = desk.tag.outcomes._finish_together(both)
    assert desk.tags(job_id) == ["held"]
    assert written == ([set(), {job_id}] if lost_first else [{job_id}, set()])
    assert desk.tag.outcomes._finish_together(both) == [set(), set()]


def test_the_same_message_at_once_on_many_threads_tags_once(desk: Desk) -> None:
    job_id = desk.accept("shirt")
    together = threading.Barrier(8)

    def deliver() -> None:
        together.wait(PATIENCE_S)
        desk.run(job_id)

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert desk.tags(job_id) == ["shirt"]
    assert desk.job(job_id).attempts == 1


@pytest.mark.parametrize("message", [{}, {"v": 2, "job_ids": ["job_1"]}, {"v": 1, "job_ids": []}])
def test_a_message_of_another_shape_is_refused_and_touches_nothing(
    desk: Desk, message: dict[str, Any]
) -> None:
    job_id = desk.accept()
    assert desk.tag(message, "interactive"), "it is not to come again"
    assert desk.job(job_id).status == "queued"


def test_a_message_about_an_unknown_job_does_nothing(desk: Desk) -> None:
    desk.run("job_that_never_was")
    assert desk.outcomes() == {}


def test_an_unreadable_photo_fails_its_job_and_no_other(desk: Desk) -> None:
    broken = desk.accept("broken", photos=[desk.store_photo("a", b"broken")], lane="bulk")
    good = desk.accept("good", lane="bulk")
    desk.run(broken, good, lane="bulk")
    job = desk.job(broken)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["type"], job.error["detail"]) == (
        "unreadable-photo",
        "a photo cannot be decoded: it is broken",
    )
    assert desk.tags(good) == ["good"]


def test_a_photo_that_is_put_back_a_moment_later_costs_its_job_an_attempt(desk: Desk) -> None:
    desk.use_settings(retry_delay_s=0)
    photo = desk.store_photo("a", b"here")
    job_id = desk.accept("red", photos=[photo])
    desk.photo_store.delete(photo.id)
    desk.run(job_id)
    assert desk.job(job_id).status == "queued"
    desk.store_photo("a", b"here")
    desk.run(job_id)
    assert desk.tags(job_id) == ["red"]


def test_each_attempt_waits_twice_as_long_as_the_one_before_up_to_eight_times(desk: Desk) -> None:
    desk.use_settings(retry_delay_s=600, max_attempts=10)
    photo = desk.store_photo("a", b"here")
    job_id = desk.accept(photos=[photo])
    desk.photo_store.delete(photo.id)
    waits = []
    for _ in range(6):
        desk.run(job_id)
        with transaction(desk.engine) as session:
            due = text("UPDATE jobs SET not_before = now() WHERE id = :id")
            left = text("SELECT extract(epoch FROM not_before - now()) FROM jobs WHERE id = :id")
            waits.append(session.execute(left, {"id": job_id}).scalar_one())
            session.execute(due, {"id": job_id})
    assert [round(float(wait) / 600) for wait in waits] == [1, 2, 4, 8, 8, 8]


def test_a_photo_that_is_gone_fails_its_job_after_the_last_attempt(desk: Desk) -> None:
    desk.use_settings(retry_delay_s=0, max_attempts=2)
    photo = desk.store_photo("a", b"here")
    job_id = desk.accept(photos=[photo])
    desk.photo_store.delete(photo.id)
    desk.run(job_id)
    desk.run(job_id)
    job = desk.job(job_id)
    assert job.status == "failed"
    assert job.error is not None and job.error["type"] == "photo-missing"


def test_a_product_that_the_device_cannot_take_fails_alone(desk: Desk) -> None:
    def refuse(titles: list[str]) -> None:
        if "poison" in titles:
            raise ValueError("cannot tag poison")

    desk.runtime.on_forward = refuse
    titles = [*map(str, range(7)), "poison"]
    jobs = {title: desk.accept(title, lane="bulk") for title in titles}
    desk.run(*jobs.values(), lane="bulk")
    statuses = {title: desk.job(job_id).status for title, job_id in jobs.items()}
    assert statuses == {title: "failed" if title == "poison" else "succeeded" for title in titles}


def test_jobs_that_may_have_killed_a_worker_run_one_by_one_after_the_others(desk: Desk) -> None:
    batches: list[list[str]] = []
    desk.runtime.on_forward = lambda titles: batches.append(sorted(titles))
    jobs = {title: desk.accept(title, lane="bulk") for title in ("a", "suspect 1", "b", "suspect 2")}
    with transaction(desk.engine) as session:
        session.execute(
            text("UPDATE jobs SET attempts = 2 WHERE id = ANY(:ids)"),
            {"ids": [jobs["suspect 1"], jobs["suspect 2"]]},
        )
    desk.run(*jobs.values(), lane="bulk")
    assert sorted(title for batch in batches[:-2] for title in batch) == ["a", "b"]
    assert sorted(batches[-2:]) == [["suspect 1"], ["suspect 2"]]
    assert {desk.job(job_id).status for job_id in jobs.values()} == {"succeeded"}


def make_suspects(desk: Desk) -> None:
    """All jobs have been claimed twice, and nobody knows what became of it."""
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET attempts = 2"))


def test_jobs_that_may_have_killed_a_worker_run_one_by_one_whichever_messages_name_them(desk: Desk) -> None:
    first, second = desk.accept("first", lane="bulk"), desk.accept("second", lane="bulk")
    make_suspects(desk)
    runs, free = threading.Semaphore(0), threading.Event()

    def linger(titles: list[str]) -> None:
        runs.release()
        assert free.wait(PATIENCE_S)

    desk.runtime.on_forward = linger
    running = threading.Thread(target=desk.run, args=(first,), kwargs={"lane": "bulk"})
    running.start()
    assert runs.acquire(timeout=PATIENCE_S)
    desk.tag.PATIENCE_S = 0.05
    other = threading.Thread(target=desk.run, args=(second,), kwargs={"lane": "bulk"})
    other.start()
    other.join(PATIENCE_S)
    gave_up = not other.is_alive()
    free.set()
    running.join(PATIENCE_S)
    other.join(PATIENCE_S)
    assert gave_up
    jobs = [desk.job(job_id) for job_id in (first, second)]
    assert [(job.status, job.attempts) for job in jobs] == [("succeeded", 3), ("queued", 2)]
    desk.tag.PATIENCE_S = PATIENCE_S
    desk.run(second, lane="bulk")
    assert desk.tags(second) == ["second"]


def test_suspects_for_which_no_time_is_left_wait_for_the_sweep(desk: Desk) -> None:
    job_id = desk.accept(lane="bulk")
    make_suspects(desk)
    desk.tag.PATIENCE_S = 0
    assert desk.tag(make_message([job_id]), "bulk")
    assert (desk.job(job_id).status, desk.job(job_id).attempts) == ("queued", 2)


def test_a_worker_that_is_stopping_takes_no_suspect(desk: Desk) -> None:
    job_id = desk.accept(lane="bulk")
    make_suspects(desk)
    desk.batcher.close(drain=False, timeout=PATIENCE_S)
    desk.run(job_id, lane="bulk")
    assert (desk.outcomes(), desk.job(job_id).error) == ({}, None)


def test_an_interactive_suspect_is_run_as_well(desk: Desk) -> None:
    job_id = desk.accept()
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET attempts = 2"))
    desk.run(job_id)
    assert desk.job(job_id).status == "succeeded"


@pytest.mark.parametrize("lane", LANES)
def test_tags_that_cannot_be_stored_put_their_job_back_and_spare_the_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, lane: Lane
) -> None:
    def refuse(session: Session, finished: Sequence[Finished]) -> set[str]:
        if "bad" in {entry.job.title for entry in finished}:
            raise ValueError("Out of range float values are not JSON compliant: nan")
        return finish(session, finished)

    monkeypatch.setattr("workers.outcomes.finish", refuse)
    jobs = {title: desk.accept(title, lane=lane) for title in ("good", "bad", "better")}
    if lane == "bulk":
        desk.run(*jobs.values(), lane=lane)
    else:
        for job_id in jobs.values():
            desk.run(job_id)
    found = {title: desk.job(job_id) for title, job_id in jobs.items()}
    assert {title: job.status for title, job in found.items()} == {
        "good": "succeeded",
        "bad": "queued",
        "better": "succeeded",
    }
    assert found["bad"].error is not None and found["bad"].error["type"] == "unwritten"


def test_a_job_of_which_nothing_can_be_written_keeps_no_other_from_its_tags(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(session: Session, finished: Sequence[Finished]) -> set[str]:
        if "bad" in {entry.job.title for entry in finished}:
            raise ValueError("not JSON compliant")
        return finish(session, finished)

    def refuse_too(*anything: object, **named: object) -> None:
        raise RuntimeError("cannot execute UPDATE in a read-only transaction")

    monkeypatch.setattr("workers.outcomes.finish", refuse)
    monkeypatch.setattr("workers.outcomes.put_back", refuse_too)
    jobs = {title: desk.accept(title, lane="bulk") for title in ("good", "bad", "better")}
    desk.run(*jobs.values(), lane="bulk")
    statuses = {title: desk.job(job_id).status for title, job_id in jobs.items()}
    assert statuses == {"good": "succeeded", "bad": "running", "better": "succeeded"}


def test_a_device_that_fails_with_everything_puts_the_job_back(desk: Desk) -> None:
    def break_down(titles: list[str]) -> None:
        raise RuntimeError("CUDA error")

    desk.runtime.on_forward = break_down
    job_id = desk.accept()
    desk.run(job_id)
    job = desk.job(job_id)
    assert (job.status, job.attempts) == ("queued", 1)
    assert job.error is not None and job.error["type"] == "device-failed"


def test_a_job_that_was_put_back_is_not_due_before_its_delay(desk: Desk) -> None:
    desk.runtime.on_forward = lambda titles: 1 / 0
    job_id = desk.accept()
    desk.run(job_id)
    desk.run(job_id)
    assert desk.job(job_id).attempts == 1


def test_a_fault_that_never_ends_fails_the_job_after_its_last_attempt(desk: Desk) -> None:
    desk.runtime.on_forward = lambda titles: 1 / 0
    job_id = desk.accept()
    for _ in range(desk.settings.max_attempts):
        with transaction(desk.engine) as session:
            session.execute(text("UPDATE jobs SET not_before = now()"))
        desk.run(job_id)
    job = desk.job(job_id)
    assert (job.status, job.attempts) == ("failed", desk.settings.max_attempts)
    assert job.error is not None and "ZeroDivisionError" in job.error["detail"]


def test_a_photo_store_that_is_away_puts_the_job_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def be_away(store: PhotoStore, photo_id: str) -> bytes:
        raise StoreUnavailable("no route to the photos")

    job_id = desk.accept(photos=[desk.store_photo("a", b"photo")])
    monkeypatch.setattr(PhotoStore, "model_view", be_away)
    desk.run(job_id)
    job = desk.job(job_id)
    assert job.status == "queued"
    assert job.error is not None and job.error["type"] == "photo-store-unavailable"


def test_an_error_nobody_expected_puts_its_job_back_and_spares_the_others(desk: Desk) -> None:
    def stumble(title: str) -> None:
        if title == "odd":
            raise MemoryError

    desk.runtime.on_prepare = stumble
    odd, good = desk.accept("odd", lane="bulk"), desk.accept("good", lane="bulk")
    desk.run(odd, good, lane="bulk")
    assert desk.job(odd).status == "queued"
    assert desk.tags(good) == ["good"]


def test_a_reason_that_the_database_cannot_store_is_stored_without_what_it_cannot(desk: Desk) -> None:
    def refuse(titles: list[str]) -> None:
        if "odd" in titles:
            raise ValueError("a NUL \x00, half a pair \ud800" + "!" * 10_000)

    desk.runtime.on_forward = refuse
    odd, good = desk.accept("odd", lane="bulk"), desk.accept("good", lane="bulk")
    desk.run(odd, good, lane="bulk")
    assert desk.tags(good) == ["good"]
    job = desk.job(odd)
    assert job.status == "failed" and job.error is not None
    assert job.error["detail"].startswith("ValueError: a NUL ?, half a pair ?!!!")
    assert len(job.error["detail"]) <= 2000


def test_a_job_whose_failure_cannot_be_written_keeps_no_other_from_its_tags(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, good = (
        desk.accept(photos=[desk.store_photo("a", b"broken")], lane="bulk"),
        desk.accept(lane="bulk"),
    )
    monkeypatch.setattr(outcomes, "fail", Mock(side_effect=RuntimeError("the database refuses it")))
    desk.run(broken, good, lane="bulk")
    assert (desk.job(broken).status, desk.job(good).status) == ("running", "succeeded")
    assert desk.leases.held() == 0


def test_a_process_does_not_take_the_jobs_that_it_runs_when_their_leases_lapse(desk: Desk) -> None:
    job_id = desk.accept("shirt")
    runs: list[list[str]] = []

    def let_the_lease_lapse(titles: list[str]) -> None:
        runs.append(titles)
        with transaction(desk.engine) as session:
            session.execute(text("UPDATE jobs SET lease_until = now() - interval '1 second'"))
        desk.run(job_id)

    desk.runtime.on_forward = let_the_lease_lapse
    desk.run(job_id)
    assert (runs, desk.tags(job_id), desk.job(job_id).attempts) == ([["shirt"]], ["shirt"], 1)


@pytest.mark.parametrize("lane", LANES)
def test_a_message_whose_jobs_this_process_runs_already_takes_as_many_others(desk: Desk, lane: Lane) -> None:
    first, second = desk.accept("first", lane=lane), desk.accept("second", lane=lane)
    with transaction(desk.engine) as session:
        desk.leases.hold(claim(session, lane, [first], worker="this", settings=desk.settings))
    desk.run(first, lane=lane)
    assert (desk.tags(first), desk.tags(second)) == ([], ["second"])


def test_a_worker_that_is_stopping_puts_its_jobs_back_for_another_at_once(desk: Desk) -> None:
    desk.batcher.close(drain=False, timeout=PATIENCE_S)
    job_id = desk.accept()
    for _ in range(desk.settings.max_attempts + 1):  # however often that happens
        desk.run(job_id)
        job = desk.job(job_id)
        assert (job.status, job.attempts) == ("queued", 0)
        assert job.error is not None and job.error["type"] == "worker-stopped"
    with transaction(desk.engine) as session:
        assert len(claim(session, "interactive", [job_id], worker="another", settings=desk.settings)) == 1


def test_jobs_that_wait_for_the_device_of_a_worker_that_is_stopping_are_put_back_for_another_at_once(
    desk: Desk,
) -> None:
    begun, free = threading.Semaphore(0), threading.Event()

    def linger(titles: list[str]) -> None:
        begun.release()
        assert free.wait(PATIENCE_S)

    desk.runtime.on_forward = linger
    jobs = [desk.accept(title) for title in ("runs", "waits")]
    threads = [threading.Thread(target=desk.run, args=(job_id,)) for job_id in jobs]
    threads[0].start()
    assert begun.acquire(timeout=PATIENCE_S)
    threads[1].start()
    while not desk.batcher.ready():
        threading.Event().wait(0.001)
    desk.batcher.close(drain=False, timeout=0)
    for thread in threads:
        thread.join(PATIENCE_S)
    free.set()
    found = [desk.job(job_id) for job_id in jobs]
    assert [(job.status, job.attempts) for job in found] == [("queued", 0)] * 2
    assert [job.error["type"] for job in found if job.error is not None] == ["worker-stopped"] * 2


def test_a_device_that_goes_on_no_more_is_not_waited_for(desk: Desk) -> None:
    free = threading.Event()

    def linger(titles: list[str]) -> None:
        assert free.wait(PATIENCE_S)

    desk.runtime.on_forward = linger
    desk.tag._settings = desk.settings.model_copy(update={"forward_timeout_s": 0.01})
    job_id = desk.accept()
    desk.run(job_id)
    free.set()
    job = desk.job(job_id)
    assert job.status == "queued"
    assert job.error is not None and job.error["type"] == "device-too-slow"


def test_a_device_that_goes_on_is_waited_for_however_slow_it_is(desk: Desk) -> None:
    class Late(Future[str]):
        """Has its answer when the device has settled three batches more."""

        def result(self, timeout: float | None = None) -> str:
            if desk.batcher.settled < 3:
                desk.batcher.settled += 1
                raise TimeoutError
            return "the answer"

    assert desk.tag._wait(Late()) == "the answer"
    desk.run(desk.accept())
    desk.batcher.close(drain=True, timeout=PATIENCE_S)  # it counts after it has answered
    assert desk.batcher.settled == 4


def test_a_silence_in_which_the_process_may_have_stood_still_is_not_the_end(desk: Desk) -> None:
    class Late(Future[str]):
        silences = 1

        def result(self, timeout: float | None = None) -> str:
            assert timeout == desk.settings.forward_timeout_s
            if self.silences:
                self.silences -= 1
                raise TimeoutError
            return "the answer"

    assert desk.tag._wait(Late()) == "the answer"
    never = Late()
    never.silences = desk.tag.SILENCE_IN_FORWARDS
    with pytest.raises(TimeoutError):
        desk.tag._wait(never)


def test_a_device_that_went_on_and_then_falls_silent_is_not_waited_for(desk: Desk) -> None:
    class Stuck(Future[str]):
        waits = 0

        def result(self, timeout: float | None = None) -> str:
            self.waits += 1
            if self.waits == 1:
                desk.batcher.settled += 1
            if self.waits > 10:
                return "waited for"
            raise TimeoutError

    with pytest.raises(TimeoutError):
        desk.tag._wait(Stuck())


def test_work_whose_lease_another_worker_took_over_is_thrown_away(desk: Desk) -> None:
    job_id = desk.accept("shirt")

    def lose_the_lease(titles: list[str]) -> None:
        with transaction(desk.engine) as session:
            session.execute(text("UPDATE jobs SET lease_until = now() - interval '1 second'"))
            assert len(claim(session, "interactive", [job_id], worker="another", settings=desk.settings)) == 1

    desk.runtime.on_forward = lose_the_lease
    desk.run(job_id)
    assert (desk.job(job_id).status, desk.tags(job_id)) == ("running", [])
    assert desk.outcomes() == {"lease_lost": 1}


def test_a_connection_cut_in_the_middle_of_finish_is_made_good(desk: Desk) -> None:
    cuts: list[int] = []

    def cut(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("INSERT INTO tags") and len(cuts) < 2:
            cuts.append(1)
            with desk.engine.connect() as other:
                pid = connection.connection.driver_connection.info.backend_pid
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    event.listen(desk.engine, "before_cursor_execute", cut)
    job_id = desk.accept("shirt")
    desk.run(job_id)
    assert len(cuts) == 2
    assert (desk.job(job_id).status, desk.tags(job_id)) == ("succeeded", ["shirt"])


def test_a_connection_cut_after_the_commit_writes_no_second_set_of_tags(desk: Desk) -> None:
    lost: list[int] = []
    real = desk.tag.outcomes.persistently

    def commit_and_lose_the_answer(what: str, write: Any, *patience: float, **how: bool) -> Any:
        answer = real(what, write)
        if what == "finish" and not lost:
            lost.append(1)
            return real(what, write)  # as after a commit whose answer never came
        return answer

    desk.tag.outcomes.persistently = commit_and_lose_the_answer  # type: ignore[method-assign]
    job_id = desk.accept("shirt")
    desk.run(job_id)
    assert lost == [1]
    assert (desk.job(job_id).status, desk.tags(job_id)) == ("succeeded", ["shirt"])


@contextmanager
def away(engine: Engine) -> Iterator[Session]:
    raise DatabaseUnavailable("no route to the database")
    yield


def test_a_database_that_stays_away_gives_the_message_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.accept("shirt")
    with monkeypatch.context() as patch:
        patch.setattr("workers.outcomes.transaction", away)
        assert not desk.tag(make_message([job_id]), "interactive")
    assert 2 < sum(desk.slept) <= 5, "it was tried again for a while, and others are not kept waiting"
    assert len(desk.slept) < 10, "it is not to be kept from coming up"
    assert (desk.job(job_id).status, desk.job(job_id).attempts) == ("queued", 0)
    assert desk.breaker.open, "no other message is taken meanwhile"
    desk.run(job_id)
    assert (desk.tags(job_id), desk.breaker.open) == (["shirt"], False)


def test_a_trial_that_fails_gives_its_message_back_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.accept("shirt")
    desk.breaker.failed()
    with monkeypatch.context() as patch:
        patch.setattr("workers.outcomes.transaction", away)
        assert not desk.tag(make_message([job_id]), "interactive")
    assert sum(desk.slept) < 0.2, "another worker may be let in"
    assert desk.breaker.open


def test_a_row_that_somebody_holds_keeps_no_other_job(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def locked(engine: Engine) -> Iterator[Session]:
        raise DatabaseBusy("canceling statement due to lock timeout")
        yield

    job_id = desk.accept("shirt")
    monkeypatch.setattr("workers.outcomes.transaction", locked)
    assert not desk.tag(make_message([job_id]), "interactive")
    assert not desk.breaker.open


def test_a_row_that_somebody_holds_is_waited_for_by_its_own_job_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, other = desk.accept("held"), desk.accept("other")
    tried, tagged_meanwhile = [], []

    def refuse_at_first(session: Session, finished: Sequence[Finished]) -> set[str]:
        if held in {entry.job.id for entry in finished}:
            tried.append(held)
            if len(tried) < 4:
                raise DatabaseBusy("canceling statement due to lock timeout")
        return finish(session, finished)

    def pause(seconds: float) -> None:
        if not tagged_meanwhile:
            assert not desk.tag.outcomes._finish_named._running
            desk.run(other)
            tagged_meanwhile.extend(desk.tags(other))

    monkeypatch.setattr("workers.outcomes.finish", refuse_at_first)
    monkeypatch.setattr(desk.tag.outcomes, "_sleep", pause)
    desk.run(held)
    assert (tagged_meanwhile, desk.tags(held), len(tried)) == (["other"], ["held"], 4)


def test_a_transaction_that_fails_once_stops_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = desk.accept("shirt")
    real, seen = outcomes.transaction, []

    @contextmanager
    def once(engine: Engine) -> Iterator[Session]:
        seen.append(desk.breaker.open)
        if len(seen) == 1:
            raise DatabaseUnavailable("deadlock detected")
        with real(engine) as session:
            yield session

    monkeypatch.setattr("workers.outcomes.transaction", once)
    desk.run(job_id)
    assert (desk.tags(job_id), any(seen), len(seen)) == (["shirt"], False, 3)


def test_a_database_that_goes_away_while_a_job_is_run_leaves_the_job_to_the_sweep(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.accept("shirt")
    with monkeypatch.context() as patch:
        desk.runtime.on_forward = lambda titles: patch.setattr("workers.outcomes.transaction", away)
        desk.run(job_id)
    assert sum(desk.slept) > 20, "it was tried again for a while"
    assert max(desk.slept) <= 2, "it may be back any time"
    assert len(desk.slept) < 30, "it is not to be kept from coming up"
    assert (desk.job(job_id).status, desk.leases.held()) == ("running", 0)
    assert desk.outcomes() == {}, "nobody knows"
    assert desk.breaker.open


def test_a_database_that_did_not_answer_while_the_process_stood_still_is_asked_once_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = outcomes.transaction

    @contextmanager
    def away_once(engine: Engine) -> Iterator[Session]:
        asked.append("")
        if len(asked) == 1:
            raise DatabaseUnavailable("the server closed the connection")
        with real(engine) as session:
            yield session

    job_id = desk.accept("shirt")
    desk.tag.CLAIM_PATIENCE_S = -1.0  # over already
    monkeypatch.setattr("workers.outcomes.transaction", away_once)
    desk.run(job_id)
    assert desk.tags(job_id) == ["shirt"]


def test_without_room_a_message_is_given_back(desk: Desk) -> None:
    desk.tag.PATIENCE_S = 0
    job_id = desk.accept(lane="bulk")
    with desk.room.for_jobs(desk.settings.max_ready, "bulk", timeout=0):
        assert not desk.tag(make_message([job_id]), "bulk")
    assert (desk.job(job_id).status, desk.job(job_id).attempts) == ("queued", 0)


@pytest.mark.parametrize(("content", "written"), [(b"broken", "failed"), (None, "put_back")])
@pytest.mark.parametrize("held", [True, False])
def test_what_became_of_a_job_is_counted_as_it_was_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, content: bytes | None, written: str, held: bool
) -> None:
    def read(store: PhotoStore, photo_id: str) -> bytes:
        if not held:
            with transaction(desk.engine) as session:
                session.execute(text("UPDATE jobs SET lease_token = 'of another worker'"))
        if content is None:
            raise StoreUnavailable("no route to the photos")
        return content

    job_id = desk.accept(photos=[desk.store_photo("a", b"photo")])
    monkeypatch.setattr(PhotoStore, "model_view", read)
    desk.run(job_id)
    assert desk.outcomes() == {written if held else "lease_lost": 1}


def test_messages_are_counted_by_what_they_came_to(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = desk.accept()
    for _ in range(2):
        desk.run(job_id)
    desk.tag({}, "interactive")
    monkeypatch.setattr(outcomes, "transaction", Mock(side_effect=DatabaseUnavailable("away")))
    desk.run(job_id)
    desk.room.close()
    desk.run(job_id)
    value = desk.metrics.registry.get_sample_value
    for outcome in ("claimed", "nothing_to_do", "refused", "database_away", "no_room"):
        labels = {"lane": "interactive", "outcome": outcome}
        assert value("tagsmith_worker_messages_total", labels) == 1, outcome


def test_nothing_is_held_once_a_message_is_done(desk: Desk) -> None:
    desk.run(desk.accept(lane="bulk"), desk.accept(lane="bulk"), lane="bulk")
    assert desk.leases.held() == 0
    assert desk.room.wait_until_empty(timeout=0)


def test_an_import_prepares_no_more_products_at_once_than_it_may_and_leaves_the_interactive_alone(
    desk: Desk,
) -> None:
    most = 2  # of the fixture
    at_once: list[int] = []
    busy, count = threading.Semaphore(0), threading.Lock()
    go = threading.Event()
    running = [0]

    def prepare(title: str) -> None:
        if title == "interactive":
            return
        with count:
            running[0] += 1
            at_once.append(running[0])
        busy.release()
        assert go.wait(PATIENCE_S)
        with count:
            running[0] -= 1

    desk.runtime.on_prepare = prepare
    jobs = [desk.accept(f"bulk {n}", lane="bulk") for n in range(6)]
    threads = [threading.Thread(target=desk.run, args=(job,), kwargs={"lane": "bulk"}) for job in jobs]
    for thread in threads:
        thread.start()
    for _ in range(most):
        assert busy.acquire(timeout=PATIENCE_S)
    waiting = desk.accept("interactive")
    desk.run(waiting)  # although the import is at it
    assert desk.tags(waiting) == ["interactive"]
    go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert max(at_once) == most
    assert [desk.tags(job) for job in jobs] == [[f"bulk {n}"] for n in range(6)]


def test_reading_preparing_and_every_stage_of_a_message_are_timed(desk: Desk) -> None:
    jobs = [
        desk.accept(f"shirt {n}", photos=[desk.store_photo(str(n), b"photo")], lane="bulk") for n in range(3)
    ]
    desk.run(*jobs, lane="bulk")
    value = desk.metrics.registry.get_sample_value
    for stage in ("claim", "prepare", "wait", "finish"):
        assert value("tagsmith_worker_stage_seconds_count", {"stage": stage}) == 1
    assert value("tagsmith_worker_photo_read_seconds_count") == 3
    assert value("tagsmith_worker_decode_seconds_count") == 3


def statements_of(engine: Engine) -> list[str]:
    """The statements that run from now on, as they come."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    return statements
