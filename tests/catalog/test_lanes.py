from collections.abc import Callable
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
    shop = shop.with_settings(max_queued_interactive=2, max_queued_bulk=1)
    shop.accept()
    _, second = shop.accept()
    with pytest.raises(QueueFull) as refusal:
        shop.accept()
    assert (refusal.value.lane, refusal.value.queued, refusal.value.limit) == ("interactive", 2, 2)
    shop.accept(lane="bulk")
    with pytest.raises(QueueFull) as refusal:
        shop.accept(lane="bulk")
    assert (refusal.value.lane, refusal.value.queued, refusal.value.limit) == ("bulk", 1, 1)
    shop.claim_one(second.id)
    shop.accept()


def test_a_change_needs_room_as_well(shop: "Shop") -> None:
    product, _ = shop.accept()
    with pytest.raises(QueueFull):
        shop.with_settings(max_queued_interactive=1).revise(product.id, title="New")


def refused(shop: "Shop", lane: str, limit: int) -> QueueFull:
    with pytest.raises(QueueFull) as refusal:
        shop.with_settings(max_queued_interactive=limit, max_queued_bulk=limit).accept(lane=lane)
    return refusal.value


# 800 queued of at most 800: a hundredth are eight.
@pytest.mark.parametrize(
    ("spacing_s", "expected_s"),
    [(0.05, lanes.RETRY_AFTER_MIN_S), (0.5, 4.0), (2.0, 16.0), (50.0, lanes.RETRY_AFTER_MAX_S)],
)
def test_the_time_to_come_back_is_that_until_workers_have_made_room(
    shop: "Shop", spacing_s: float, expected_s: float
) -> None:
    fill(shop, "interactive", 800)
    worked_off(shop, "interactive", jobs=100, spacing_s=spacing_s)
    refusal = refused(shop, "interactive", 800)
    assert refusal.retry_after_s == pytest.approx(expected_s, rel=0.2)


def test_a_lane_is_full_for_all_tenants_alike_until_workers_have_taken_jobs_of_any(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    """Jobs are counted as rows: whose turn it is, and which of them share a message, makes no difference."""
    shop = shop.with_settings(max_queued_bulk=40)
    other = shop.of(make_tenant("another"))
    fill(shop, "bulk", 39)
    other.accept(lane="bulk")
    worked_off(shop, "bulk", jobs=20, spacing_s=5.0)
    for each in (shop, other):
        with pytest.raises(QueueFull) as refusal:
            each.accept(lane="bulk")
        assert refusal.value.retry_after_s == pytest.approx(5.0, rel=0.2)
    [taken] = other.claim_by_turns(
        "any", "two"
    )  # the jobs of `fill` have no product, so that one of them ends
    assert taken.tenant_id == other.tenant
    for each in (shop, other):
        each.accept(lane="bulk")


def test_the_time_to_come_back_covers_what_came_in_over_the_limit(shop: "Shop") -> None:
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    worked_off(shop, "bulk", jobs=100, spacing_s=0.5)
    refusal = refused(shop, "bulk", lanes.EXACT_QUEUED + 100)
    assert refusal.retry_after_s == pytest.approx((100 + 11) * 0.5, rel=0.2)


def test_where_no_worker_ends_anything_the_time_to_come_back_is_the_longest(shop: "Shop") -> None:
    fill(shop, "interactive", 5)
    assert refused(shop, "interactive", 5).retry_after_s == lanes.RETRY_AFTER_MAX_S


def test_a_deep_lane_is_counted_now_and_then(shop: "Shop") -> None:
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    shop = shop.with_settings(max_queued_bulk=lanes.EXACT_QUEUED + 500)
    shop.accept(lane="bulk")
    assert shop.sql("SELECT lane, queued FROM lane_depths") == [("bulk", lanes.EXACT_QUEUED + 200)]
    # A fresh measure stands; an old one is made again.
    shop.sql("UPDATE lane_depths SET queued = 123456, measured_at = now() + interval '1 hour'")
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


def test_while_one_transaction_measures_a_lane_the_others_use_the_last_measure(
    shop: "Shop", engine: Engine
) -> None:
    fill(shop, "bulk", lanes.EXACT_QUEUED + 200)
    shop.accept(lane="bulk")
    shop.sql("UPDATE lane_depths SET queued = 7000, measured_at = now() - interval '2 s'")
    limited = shop.with_settings(max_queued_bulk=5000)
    with transaction(engine) as session:
        lanes.require_room(session, "bulk", limited.settings)
        with pytest.raises(QueueFull) as refusal:
            limited.accept(lane="bulk")
    assert refusal.value.queued == 7000


def test_counts_cover_live_jobs_by_lane(shop: "Shop", engine: Engine) -> None:
    queued = shop.accept()[1].id
    running = shop.accept()[1].id
    ended = shop.accept()[1].id
    shop.sql("UPDATE jobs SET submitted_at = now() - interval '30 s' WHERE id = :id", id=queued)
    shop.claim_one(running)
    shop.finish(shop.claim_one(ended))
    with transaction(engine) as session:
        counts = lanes.counts(session)
    assert counts["bulk"] == LaneCount(0, 0, None, None)
    assert (counts["interactive"].queued, counts["interactive"].running) == (1, 1)
    assert counts["interactive"].oldest_queued_s == pytest.approx(30, abs=20)
    assert counts["interactive"].jobs_per_s == pytest.approx(1 / 30, rel=0.7)
