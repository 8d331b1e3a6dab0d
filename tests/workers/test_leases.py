"""Leases are renewed while the work goes on, and freed at once when their worker is known to be dead."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from sqlalchemy import text

from catalog.database import transaction
from catalog.errors import BrokerUnavailable, DatabaseUnavailable
from catalog.jobs import ClaimedJob, Finished, claim, finish
from catalog.queue import MAX_IDS
from catalog.views import LANES, Lane
from workers import leases
from workers.identity import worker_identity
from workers.leases import LeaseKeeper, release_leases_of_the_dead, renew

if TYPE_CHECKING:
    from .conftest import Desk


def dead_worker() -> str:
    """This process, as it would be named had it started at another time."""
    host, pid, started = worker_identity().rsplit(":", 2)
    return f"{host}:{pid}:{int(started) - 1}"


def claimed(desk: Desk, *job_ids: str, worker: str) -> list[ClaimedJob]:
    taken: list[ClaimedJob] = []
    for lane in LANES:
        named = [job_id for job_id in job_ids if desk.job(job_id).lane == lane]
        with transaction(desk.engine) as session:
            taken += claim(session, lane, named, worker=worker, settings=desk.settings)
    return taken


def seconds_left(desk: Desk, job_id: str) -> float:
    with transaction(desk.engine) as session:
        left = text("SELECT extract(epoch FROM lease_until - now())::float8 FROM jobs WHERE id = :id")
        return float(session.execute(left, {"id": job_id}).scalar_one())


def test_a_renewed_lease_runs_for_its_full_time_again(desk: Desk) -> None:
    (job,) = claimed(desk, desk.accept(), worker=worker_identity())
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET lease_until = now() + interval '1 second'"))
        assert renew(session, [job.lease_token], 500) == {job.lease_token}
    assert 400 < seconds_left(desk, job.id) <= 500


def test_the_sweep_leaves_a_renewed_lease_alone(desk: Desk) -> None:
    (job,) = claimed(desk, desk.accept(), worker=worker_identity())
    with transaction(desk.engine) as session:
        renew(session, [job.lease_token], 500)
    with transaction(desk.engine) as session:
        assert session.execute(text("SELECT resend_at = lease_until FROM jobs")).scalar_one() is True


def test_a_lost_lease_cannot_be_renewed(desk: Desk) -> None:
    (job,) = claimed(desk, desk.accept(), worker="one")
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET lease_until = now() - interval '1 second'"))
    claimed(desk, job.id, worker="another")
    with transaction(desk.engine) as session:
        assert renew(session, [job.lease_token], 500) == set()


def test_a_job_that_somebody_has_locked_costs_the_others_no_lease(desk: Desk) -> None:
    jobs = claimed(desk, desk.accept(), desk.accept(), worker=worker_identity())
    tokens = [job.lease_token for job in jobs]
    with transaction(desk.engine) as stranger:
        stranger.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": jobs[0].id})
        with transaction(desk.engine) as session:
            assert renew(session, tokens, 500) == set(tokens), "it is not lost, and the next time is soon"
        assert seconds_left(desk, jobs[1].id) > 400
    assert seconds_left(desk, jobs[0].id) < 100
    with transaction(desk.engine) as session:
        renew(session, tokens, 500)
    assert seconds_left(desk, jobs[0].id) > 400


def test_the_jobs_of_a_dead_worker_are_due_at_once(desk: Desk) -> None:
    interactive, bulk = desk.accept(), desk.accept(lane="bulk")
    held = claimed(desk, interactive, bulk, worker=dead_worker())
    assert len(held) == 2
    with transaction(desk.engine) as session:
        assert release_leases_of_the_dead(session) == {"interactive": [interactive], "bulk": [bulk]}
        due = text("SELECT bool_and(resend_at <= now()) FROM jobs")
        assert session.execute(due).scalar_one(), "for the sweep as well, should the broker be away"
    again = claimed(desk, interactive, bulk, worker=worker_identity())
    assert {job.attempts for job in again} == {2}, "the attempt that killed its worker counts"


def test_what_a_dead_worker_had_finished_is_not_run_again(desk: Desk) -> None:
    done, running = desk.accept(), desk.accept()
    (finished, _) = sorted(claimed(desk, done, running, worker=dead_worker()), key=lambda job: job.id != done)
    with transaction(desk.engine) as session:
        assert finish(session, [Finished(finished, [], None, "m", "v")])
    with transaction(desk.engine) as session:
        assert release_leases_of_the_dead(session) == {"interactive": [running]}
    assert desk.job(done).status == "succeeded"


def test_the_dead_cannot_finish_what_was_taken_from_them(desk: Desk) -> None:
    (job,) = claimed(desk, desk.accept(), worker=dead_worker())
    with transaction(desk.engine) as session:
        release_leases_of_the_dead(session)
    with transaction(desk.engine) as session:
        assert not finish(session, [Finished(job, [], None, "m", "v")])


def test_the_jobs_of_the_living_and_of_other_machines_are_left_alone(desk: Desk) -> None:
    mine, elsewhere, of_the_dead = desk.accept(), desk.accept(), desk.accept()
    claimed(desk, mine, worker=worker_identity())
    claimed(desk, elsewhere, worker="elsewhere.example:1:1")
    claimed(desk, of_the_dead, worker=dead_worker())
    with transaction(desk.engine) as session:
        assert release_leases_of_the_dead(session) == {"interactive": [of_the_dead]}
    assert {desk.job(mine).status, desk.job(elsewhere).status} == {"running"}


def test_the_jobs_of_the_dead_are_taken_in_the_order_in_which_others_take_theirs(desk: Desk) -> None:
    """Else two that free them, or one and a worker that ends its batch, could each wait for the other."""
    first, second = sorted([desk.accept(), desk.accept()])
    claimed(desk, first, second, worker=dead_worker())
    with transaction(desk.engine) as session:  # whatever way leads to it comes by the second one before
        session.execute(
            text("UPDATE jobs SET resend_at = resend_at + interval '1 second' WHERE id = :id"),
            {"id": first},
        )

    def release() -> dict[Lane, list[str]]:
        with transaction(desk.engine) as session:
            return release_leases_of_the_dead(session)

    lock = text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE NOWAIT")
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
    with ThreadPoolExecutor(1) as threads:
        with transaction(desk.engine) as other:
            other.execute(lock, {"id": first})
            released = threads.submit(release)
            while not other.execute(waiting).scalar_one() and not released.done():
                time.sleep(0.01)
            other.execute(lock, {"id": second})
        assert sorted(released.result(30)["interactive"]) == [first, second]


def test_a_starting_keeper_sends_what_the_dead_left_behind(desk: Desk) -> None:
    job_id = desk.accept(lane="bulk")
    claimed(desk, job_id, worker=dead_worker())
    desk.leases._recover()
    assert desk.sent == [([job_id], "bulk")]
    assert desk.job(job_id).status == "queued"


def test_a_starting_keeper_sends_the_oldest_jobs_a_dead_worker_may_have_had_and_not_claimed(
    desk: Desk,
) -> None:
    later = desk.accept()
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET not_before = now() + interval '1 hour'"))
    running = desk.accept()
    claimed(desk, running, worker=worker_identity())
    oldest, newest = desk.accept(), desk.accept()
    desk.leases._messages_at_once = 1
    desk.leases._recover()
    assert desk.sent == [([oldest], "interactive")]
    assert {desk.job(newest).status, desk.job(later).status} == {"queued"}


def test_what_the_dead_had_claimed_is_sent_as_well_where_others_have_waited_longer(desk: Desk) -> None:
    died_with = desk.accept()
    claimed(desk, died_with, worker=dead_worker())
    oldest = desk.accept()
    with transaction(desk.engine) as session:
        session.execute(
            text("UPDATE jobs SET submitted_at = now() - interval '1 hour' WHERE id = :id"), {"id": oldest}
        )
    desk.leases._messages_at_once = 1
    desk.leases._recover()
    assert desk.sent == [([died_with, oldest], "interactive")]


def test_a_keeper_recovers_once_and_again_only_where_the_broker_was_away(desk: Desk) -> None:
    job_id = desk.accept()
    claimed(desk, job_id, worker=dead_worker())
    (held,) = claimed(desk, desk.accept(), worker=worker_identity())
    desk.leases.hold([held])
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET lease_until = now() + interval '1 second'"))
    send, desk.leases._send = desk.leases._send, Mock(side_effect=BrokerUnavailable("away"))
    assert desk.leases._round() == leases.RETRY_S
    assert seconds_left(desk, held.id) > 1, "what it runs is renewed all the same"
    desk.leases._send = send
    for _ in range(2):
        desk.leases._round()
    assert desk.sent == [([job_id], "interactive")]


def test_the_keeper_renews_what_is_held_and_not_what_was_let_go(desk: Desk) -> None:
    held, let_go = claimed(desk, desk.accept(), desk.accept(), worker=worker_identity())
    desk.leases.hold([held, let_go])
    desk.leases.let_go([let_go])
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET lease_until = now() + interval '1 second'"))
    desk.leases._renew()
    assert seconds_left(desk, held.id) > 1
    assert seconds_left(desk, let_go.id) <= 1


@pytest.mark.parametrize(
    "failure", [DatabaseUnavailable("away"), RuntimeError("cannot execute UPDATE in a read-only transaction")]
)
def test_a_renewal_that_failed_is_tried_again_soon(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    interval = desk.settings.lease_s / 3
    assert desk.leases._round() == interval > leases.RETRY_S
    (held,) = claimed(desk, desk.accept(), worker=worker_identity())
    desk.leases.hold([held])
    with monkeypatch.context() as away:
        away.setattr(leases, "renew", Mock(side_effect=failure))
        assert desk.leases._round() == leases.RETRY_S
    assert desk.leases._round() == interval


def test_the_keeper_renews_what_it_came_to_hold_at_different_times(desk: Desk) -> None:
    jobs = claimed(desk, desk.accept(), desk.accept(), worker=worker_identity())
    for job in jobs:
        desk.leases.hold([job])
    assert desk.leases.held() == 2
    with transaction(desk.engine) as session:
        session.execute(text("UPDATE jobs SET lease_until = now() + interval '1 second'"))
    desk.leases._renew()
    assert all(seconds_left(desk, job.id) > 1 for job in jobs)


def test_a_job_that_ends_while_leases_are_renewed_is_not_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = claimed(desk, desk.accept(), worker=worker_identity())
    desk.leases.hold([job])

    def ends_meanwhile(*_: object) -> set[str]:
        desk.leases.let_go([job])
        return set()

    monkeypatch.setattr(leases, "renew", ends_meanwhile)
    assert desk.leases._round() == desk.settings.lease_s / 3, "nothing went wrong"


def test_a_starting_keeper_sends_as_many_of_the_oldest_jobs_as_a_worker_takes_at_once(desk: Desk) -> None:
    oldest = [desk.accept() for _ in range(3)]
    desk.use_settings(max_batch=1)
    keeper = LeaseKeeper(desk.engine, desk.settings, lambda ids, lane: desk.sent.append((list(ids), lane)))
    keeper._recover()
    assert desk.sent == [(oldest[: 2 * MAX_IDS["interactive"]], "interactive")]
