from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

from catalog import lanes
from catalog.database import transaction
from catalog.errors import QueueFull
from catalog.lanes import LaneCount

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def fill(shop: "Shop", lane: str, jobs: int) -> None:
    shop.sql(
        "INSERT INTO jobs (id, tenant_id, product_id, revision, lane, resend_at) "
        "SELECT 'job_' || :lane || n, :tenant, 'prd_' || n, 1, :lane, now() FROM generate_series(1, :jobs) AS n",
        lane=lane,
        tenant=shop.tenant,
        jobs=jobs,
    )


def test_a_full_lane_refuses_and_says_when_to_come_back(shop: "Shop") -> None:
    shop = shop.with_settings(max_queued_interactive=2)
    shop.accept()
    _, second = shop.accept()
    shop.sql("UPDATE jobs SET submitted_at = now() - interval '100 s'")
    with pytest.raises(QueueFull) as refusal:
        shop.accept()
    assert (refusal.value.lane, refusal.value.queued, refusal.value.limit) == ("interactive", 2, 2)
    assert 9.5 < refusal.value.retry_after_s < 20
    shop.accept(lane="bulk")
    shop.claim_one(second.id)
    shop.accept()


def test_a_change_needs_room_as_well(shop: "Shop") -> None:
    product, _ = shop.accept()
    with pytest.raises(QueueFull):
        shop.with_settings(max_queued_interactive=1).revise(product.id, title="New")


@pytest.mark.parametrize(("oldest_s", "expected_s"), [(0, 1), (200, 20), (100_000, 60)])
def test_the_time_to_come_back_follows_the_oldest_jobs_wait_within_bounds(
    shop: "Shop", oldest_s: int, expected_s: float
) -> None:
    shop.accept()
    shop.sql("UPDATE jobs SET submitted_at = now() - :age * interval '1 s'", age=oldest_s)
    with pytest.raises(QueueFull) as refusal:
        shop.with_settings(max_queued_interactive=1).accept()
    assert refusal.value.retry_after_s == pytest.approx(expected_s, abs=3)


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
    assert counts["bulk"] == LaneCount(0, 0, None)
    assert (counts["interactive"].queued, counts["interactive"].running) == (1, 1)
    assert counts["interactive"].oldest_queued_s == pytest.approx(30, abs=20)
