"""PostgreSQL's clock is set back: what was written before lies in the future."""

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from catalog.clock import RETRY_DOUBLINGS, horizon, start_anew
from catalog.database import transaction
from catalog.sweep import sweep
from catalog.views import Lane
from tests.catalog.test_rates import measured, worked_off
from tests.catalog.test_sweep import Lanes

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop

HOUR = timedelta(hours=1)
TIMES = ("submitted_at", "not_before", "resend_at", "lease_until", "started_at", "finished_at")


def set_back(shop: "Shop", step: timedelta) -> None:
    shop.sql(f"UPDATE jobs SET {', '.join(f'{time} = {time} + :step' for time in TIMES)}", step=step)


def swept(shop: "Shop", engine: Engine) -> list[str]:
    """The ids of the jobs that a sweep sends."""
    lanes = Lanes()
    sweep(engine, lanes.send, lanes.waiting, shop.settings)
    return lanes.ids


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_what_was_queued_is_sent_and_can_be_claimed(shop: "Shop", engine: Engine, lane: Lane) -> None:
    _, job = shop.accept(lane=lane)
    set_back(shop, HOUR)
    assert shop.claim(job.id) == []
    assert swept(shop, engine) == [job.id]
    assert (
        shop.sql("SELECT 1 FROM jobs WHERE submitted_at > now()") == []
    )  # else it would be the last for an hour
    assert shop.claim(job.id) != []


def test_what_was_put_back_is_sent_and_can_be_claimed(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    shop.put_back(shop.claim_one(job.id), delay_s=shop.settings.retry_delay_s)
    set_back(shop, HOUR)
    assert swept(shop, engine) == [job.id]
    assert shop.claim_one(job.id).attempts == 2


def test_the_longest_wait_of_a_job_that_was_put_back_is_no_step_of_the_clock(
    shop: "Shop", engine: Engine
) -> None:
    shop = replace(shop, settings=shop.settings.model_copy(update={"retry_delay_s": 3600.0}))
    _, job = shop.accept()
    shop.put_back(shop.claim_one(job.id), delay_s=3600 * 2**RETRY_DOUBLINGS)
    assert swept(shop, engine) == []
    set_back(shop, horizon(shop.settings))
    assert swept(shop, engine) == [job.id]


def test_a_job_in_good_hands_stays_there_and_one_of_a_dead_worker_comes_back_after_a_lease(
    shop: "Shop", engine: Engine
) -> None:
    alive, dead = (shop.claim_one(shop.accept()[1].id) for _ in range(2))
    set_back(shop, HOUR)
    assert swept(shop, engine) == []
    assert shop.claim(alive.id, dead.id) == []
    assert shop.finish(alive)
    [(left,)] = shop.sql("SELECT lease_until - now() FROM jobs WHERE id = :id", id=dead.id)
    lease = timedelta(seconds=shop.settings.lease_s)
    assert timedelta(0) < left <= lease
    shop.sql(
        "UPDATE jobs SET lease_until = lease_until - :lease, resend_at = resend_at - :lease", lease=lease
    )
    assert swept(shop, engine) == [dead.id]
    assert shop.claim_one(dead.id).attempts == 2


def test_a_smaller_step_and_what_has_ended_are_left_alone(shop: "Shop", engine: Engine) -> None:
    shop.claim_one(shop.accept()[1].id)
    shop.accept()
    set_back(shop, horizon(shop.settings) - timedelta(seconds=shop.settings.resend_after_s + 60))
    _, ended = shop.accept()
    shop.finish(shop.claim_one(ended.id))
    shop.sql("UPDATE jobs SET finished_at = finished_at + :step WHERE id = :id", step=HOUR, id=ended.id)
    before = shop.sql("SELECT * FROM jobs ORDER BY id")
    assert swept(shop, engine) == []
    assert shop.sql("SELECT * FROM jobs ORDER BY id") == before


def test_no_more_jobs_than_the_limit_get_new_times_at_once(shop: "Shop", engine: Engine) -> None:
    for _ in range(3):
        shop.accept()
    set_back(shop, HOUR)
    found = []
    for _ in range(3):
        with transaction(engine) as session:
            found.append(start_anew(session, "interactive", shop.settings, limit=2))
    assert found == [2, 1, 0]


def test_a_job_that_somebody_holds_keeps_no_other_from_its_new_times(shop: "Shop", engine: Engine) -> None:
    held, free = (shop.accept()[1].id for _ in range(2))
    set_back(shop, HOUR)
    with transaction(engine) as other:
        other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": held})
        assert swept(shop, engine) == [free]
    assert swept(shop, engine) == [held]


def test_jobs_that_ended_in_the_future_say_nothing_of_the_rate(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=10, spacing_s=0.5)
    assert measured(shop) is not None
    set_back(shop, HOUR)
    assert measured(shop) is None
