import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

from catalog import lanes
from catalog.database import transaction
from catalog.errors import QueueFull
from catalog.lanes import LaneCount
from tests.catalog.traffic import fill, worked_off

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def test_a_full_lane_refuses_and_the_other_one_does_not(shop: "Shop") -> None:
    shop = shop.with_settings(max_queued_interactive=4, max_queued_bulk=1)
    shop.accept()
    _, second = shop.accept()
    with pytest.raises(QueueFull) as refusal:
        shop.accept()
    assert (refusal.value.lane, refusal.value.queued, refusal.value.limit) == ("interactive", 2, 4)
    shop.accept(lane="bulk")
    with pytest.raises(QueueFull) as refusal:
        shop.accept(lane="bulk")
    assert (refusal.value.lane, refusal.value.queued, refusal.value.limit) == ("bulk", 1, 1)
    shop.claim_one(second.id)
    shop.accept()


def test_what_waits_in_one_lane_takes_no_room_of_another(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    shop = shop.with_settings(max_queued_interactive=4)
    importing = shop.of(make_tenant("importing"))
    for _ in range(4):
        importing.accept(lane="bulk")
    shop.accept()
    shop.accept()
    importing.accept()


def test_a_change_needs_room_as_well(shop: "Shop") -> None:
    product, job = shop.accept()
    shop.finish(shop.claim_one(job.id))
    shop.accept()
    with pytest.raises(QueueFull):
        shop.with_settings(max_queued_interactive=2).revise(product.id, title="New")


def test_a_change_takes_the_place_of_the_job_that_it_makes_superfluous(shop: "Shop") -> None:
    product, older = shop.accept()
    shop.accept()
    with pytest.raises(QueueFull):
        shop.with_settings(max_queued_interactive=3).accept()
    _, job = shop.with_settings(max_queued_interactive=3).revise(product.id, title="New")
    assert (shop.job(older.id).status, shop.job(job.id).status) == ("cancelled", "queued")


def refused(shop: "Shop", lane: str, limit: int) -> QueueFull:
    with pytest.raises(QueueFull) as refusal:
        shop.with_settings(max_queued_interactive=limit, max_queued_bulk=limit).accept(lane=lane)
    return refusal.value


# One tenant with 400 jobs in a lane of 800: each job that ends makes a place free and leaves it with one fewer, so that
# four make the difference of a hundredth.
@pytest.mark.parametrize(
    ("spacing_s", "expected_s"),
    [(0.05, lanes.RETRY_AFTER_MIN_S), (0.5, 2.0), (2.0, 8.0), (80.0, lanes.RETRY_AFTER_MAX_S)],
)
def test_the_time_to_come_back_is_that_until_workers_have_made_room(
    shop: "Shop", spacing_s: float, expected_s: float
) -> None:
    fill(shop, "interactive", 400)
    worked_off(shop, "interactive", jobs=100, spacing_s=spacing_s)
    refusal = refused(shop, "interactive", 800)
    assert refusal.retry_after_s == pytest.approx(expected_s, rel=0.2)


def test_an_import_that_has_taken_its_part_of_a_lane_keeps_nobody_else_out(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    """One after the other takes what it may: half of the places that are free when it comes."""
    tenants = [shop.of(make_tenant(name)).with_settings(max_queued_bulk=20) for name in "abc"]
    assert [accept_until_refused(tenant) for tenant in tenants] == [10, 5, 3]
    # Workers take eleven by turns: whoever had less comes in again, the first does not yet.
    tenants[0].claim(*(f"any {number}" for number in range(11)))
    assert accept_until_refused(tenants[2]) > 0
    assert accept_until_refused(tenants[1]) > 0
    assert accept_until_refused(tenants[0]) == 0


def test_a_tenant_that_is_refused_is_told_what_it_holds_and_what_is_free(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    fill(shop, "bulk", 30)
    other = shop.of(make_tenant("another")).with_settings(max_queued_bulk=40)
    for _ in range(5):
        other.accept(lane="bulk")
    worked_off(shop, "bulk", jobs=20, spacing_s=2.0)
    refusal = refused(other, "bulk", 40)
    assert (refusal.own, refusal.queued) == (5, 35)
    assert "5 queued jobs in the bulk lane, of whose 40 places 5 are free" in str(refusal)
    # One place more than its five, at a job and a half for every job that ends; and for who has 30, 26 places.
    assert refusal.retry_after_s == pytest.approx(1 / 1.5 * 2.0, rel=0.2)
    assert refused(shop, "bulk", 40).retry_after_s == pytest.approx(26 / 1.5 * 2.0, rel=0.2)


def test_in_a_deep_lane_each_tenant_has_its_part_as_well(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    limit = {"max_queued_bulk": 2 * lanes.EXACT_QUEUED}
    other = shop.of(make_tenant("another")).with_settings(**limit)
    refusal = refused(shop, "bulk", limit["max_queued_bulk"])
    assert (refusal.own, refusal.queued) == (lanes.EXACT_QUEUED + 200,) * 2
    other.accept(lane="bulk")
    shop.sql("UPDATE lane_depths SET measured_at = now() - interval '1 hour'")
    other.accept(lane="bulk")
    assert shop.sql("SELECT shares FROM lane_depths") == [
        ({shop.tenant: lanes.EXACT_QUEUED + 200, other.tenant: 1},)
    ]
    worked_off(shop, "bulk", jobs=100, spacing_s=0.5)
    refusal = refused(shop, "bulk", limit["max_queued_bulk"])
    # It has 401 too many and a hundredth more, at a job and a half for every job of the two that ends.
    assert refusal.retry_after_s == pytest.approx((401 + 20) / 1.5 * 0.5, rel=0.2)


def accept_until_refused(shop: "Shop") -> int:
    for accepted in itertools.count():
        try:
            shop.accept(lane="bulk")
        except QueueFull:
            return accepted
    raise AssertionError


def test_the_time_to_come_back_covers_what_came_in_over_the_limit(shop: "Shop") -> None:
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    worked_off(shop, "bulk", jobs=100, spacing_s=0.5)
    refusal = refused(shop, "bulk", 2 * lanes.EXACT_QUEUED)
    assert refusal.retry_after_s == pytest.approx((400 + 20) / 2 * 0.5, rel=0.2)


def test_where_no_worker_ends_anything_the_time_to_come_back_is_the_longest(shop: "Shop") -> None:
    fill(shop, "interactive", 5)
    assert refused(shop, "interactive", 5).retry_after_s == lanes.RETRY_AFTER_MAX_S


def test_a_deep_lane_is_counted_now_and_then(shop: "Shop") -> None:
    fill(shop, "interactive", 100)
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    shop = shop.with_settings(max_queued_bulk=2 * lanes.EXACT_QUEUED + 500)
    shop.accept(lane="bulk")
    assert shop.sql("SELECT lane, queued FROM lane_depths") == [("bulk", lanes.EXACT_QUEUED + 200)]
    # A fresh measure stands; an old one is made again.
    shop.sql("UPDATE lane_depths SET queued = 123456, measured_at = now() + interval '30 s'")
    with pytest.raises(QueueFull) as refusal:
        shop.accept(lane="bulk")
    assert refusal.value.queued == 123456
    # The deeper the lane was, the longer its measure stands: 123456 / 20000 s.
    shop.sql("UPDATE lane_depths SET measured_at = now() - interval '2 s'")
    with pytest.raises(QueueFull):
        shop.accept(lane="bulk")
    shop.sql("UPDATE lane_depths SET measured_at = now() - interval '7 s'")
    shop.accept(lane="bulk")
    assert shop.sql("SELECT queued FROM lane_depths") == [(lanes.EXACT_QUEUED + 201,)]
    # The database's clock was set back.
    shop.sql("UPDATE lane_depths SET queued = 123456, measured_at = now() + interval '1 hour'")
    shop.accept(lane="bulk")
    assert shop.sql("SELECT queued FROM lane_depths") == [(lanes.EXACT_QUEUED + 202,)]


def test_while_one_transaction_measures_a_lane_the_others_use_the_last_measure(
    shop: "Shop", engine: Engine
) -> None:
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    shop.accept(lane="bulk")
    shop.sql("UPDATE lane_depths SET queued = 7000, measured_at = now() - interval '2 s'")
    limited = shop.with_settings(max_queued_bulk=5000)
    with transaction(engine) as session:
        lanes.require_room(session, "bulk", limited.tenant, limited.settings)
        with pytest.raises(QueueFull) as refusal:
            limited.accept(lane="bulk")
    assert refusal.value.queued == 7000


def test_who_comes_while_a_lane_is_measured_for_the_first_time_waits_for_that_measure(
    shop: "Shop", engine: Engine
) -> None:
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    limited = shop.with_settings(max_queued_bulk=lanes.EXACT_QUEUED + 100)
    with ThreadPoolExecutor(1) as thread, transaction(engine) as session:
        with pytest.raises(QueueFull):
            lanes.require_room(session, "bulk", limited.tenant, limited.settings)
        other = thread.submit(limited.accept, lane="bulk")
        while not shop.sql("SELECT 1 FROM pg_locks WHERE NOT granted") and not other.done():
            wait([other], timeout=0.001)
        session.commit()
        with pytest.raises(QueueFull) as refusal:
            other.result(30)
    assert refusal.value.queued == lanes.EXACT_QUEUED + 200


def test_a_lane_without_places_takes_nothing(shop: "Shop") -> None:
    worked_off(shop, "bulk", jobs=10, spacing_s=1.0)
    assert refused(shop, "bulk", 0).retry_after_s == lanes.RETRY_AFTER_MIN_S


def test_counts_cover_live_jobs_by_lane(shop: "Shop", engine: Engine) -> None:
    queued = shop.accept()[1].id
    running = shop.accept()[1].id
    ended = shop.accept()[1].id
    shop.claim_one(shop.accept()[1].id)
    shop.sql("UPDATE jobs SET submitted_at = now() - interval '30 s' WHERE id = :id", id=queued)
    shop.claim_one(running)
    shop.finish(shop.claim_one(ended))
    with transaction(engine) as session:
        counts = lanes.counts(session)
    assert counts["bulk"] == LaneCount(0, 0, None, None)
    assert (counts["interactive"].queued, counts["interactive"].running) == (1, 2)
    assert counts["interactive"].oldest_queued_s == pytest.approx(30, abs=20)
    assert counts["interactive"].jobs_per_s == pytest.approx(1 / 30, rel=0.7)
