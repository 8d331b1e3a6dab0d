"""A message says how many jobs of its lane are due, and tenants take turns."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from catalog import claims, jobs
from catalog.claims import SUSPECT_AFTER
from catalog.database import transaction
from catalog.queue import MAX_IDS
from catalog.views import LANES, Lane
from tests.catalog.traffic import plans

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop

ENVELOPE = MAX_IDS["bulk"]


def queue(shop: "Shop", tenant: str, count: int, *, ago_s: float = 0, lane: Lane = "bulk") -> list[str]:
    """Queues jobs of that tenant with their products, a millisecond apart, the first one so long ago."""
    rows = shop.sql(
        """
        WITH numbered AS (SELECT n, lpad(n::text, 6, '0') || :tenant || :lane AS name
                          FROM generate_series(1, :count) AS n),
        made AS (
            INSERT INTO products (id, tenant_id, title, description, job_id)
            SELECT 'prd_' || name, :tenant, 'Product ' || n, '', 'job_' || name FROM numbered
        )
        INSERT INTO jobs (id, tenant_id, product_id, revision, lane, resend_at, submitted_at)
        SELECT 'job_' || name, :tenant, 'prd_' || name, 1, :lane, now() + interval '1 hour',
               now() - :ago * interval '1 s' + n * interval '1 ms'
        FROM numbered
        RETURNING id
        """,
        tenant=tenant,
        count=count,
        ago=ago_s,
        lane=lane,
    )
    return sorted(row.id for row in rows)


def envelopes(ids: list[str], size: int = ENVELOPE) -> list[list[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


@pytest.mark.parametrize("lane", LANES)
def test_ten_products_sent_during_a_large_import_do_not_wait_for_it(
    shop: "Shop", make_tenant: Callable[[str], str], lane: Lane
) -> None:
    large, small = shop.tenant, make_tenant("small")
    messages = envelopes(queue(shop, large, 2000, ago_s=600, lane=lane), MAX_IDS[lane])
    messages += envelopes(queue(shop, small, 20, lane=lane), MAX_IDS[lane])
    started: list[str] = []
    for message in messages:
        started += [job.tenant_id for job in shop.claim(*message)]
        if started.count(small) == 20:
            break
    assert len(started) <= 100
    assert started.count(large) > 0


def test_tenants_start_jobs_in_equal_shares_whatever_they_have_queued(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    tenants = [make_tenant(f"tenant {number}") for number in range(5)]
    ids = [
        job_id for number, tenant in enumerate(tenants) for job_id in queue(shop, tenant, 300 + 50 * number)
    ]
    for size, messages in ((1, 50), (3, 20), (64, 4)):
        started: Counter[str] = Counter()
        for message in envelopes(ids, size)[:messages]:
            started.update(job.tenant_id for job in shop.claim(*message))
        assert len(started) == 5
        # One claim gives a tenant more than another by one job in each round that a short share makes.
        assert max(started.values()) - min(started.values()) <= 2
        shop.sql("UPDATE jobs SET status = 'queued', lease_token = NULL, attempts = 0")


def test_more_tenants_than_a_message_has_ids_are_all_served_before_anyone_is_again(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    tenants = [make_tenant(f"tenant {number:03}") for number in range(150)]
    ids = [job_id for tenant in tenants for job_id in queue(shop, tenant, 3)]
    served = [job.tenant_id for message in envelopes(ids, 30)[:5] for job in shop.claim(*message)]
    assert sorted(served) == sorted(tenants)


def test_within_a_tenant_the_oldest_jobs_go_first(shop: "Shop") -> None:
    ids = queue(shop, shop.tenant, 10)
    assert sorted(job.id for job in shop.claim(*ids[-4:])) == ids[:4]


def test_what_others_leave_of_their_share_is_used(shop: "Shop", make_tenant: Callable[[str], str]) -> None:
    large, small, tiny = shop.tenant, make_tenant("small"), make_tenant("tiny")
    ids = queue(shop, large, 200)
    queue(shop, small, 9)
    queue(shop, tiny, 1)
    started = Counter(job.tenant_id for job in shop.claim(*ids[:ENVELOPE]))
    assert started == {large: ENVELOPE - 10, small: 9, tiny: 1}


def test_a_message_never_takes_more_than_it_names(shop: "Shop", make_tenant: Callable[[str], str]) -> None:
    ids = queue(shop, shop.tenant, 20) + queue(shop, make_tenant("another"), 20)
    for size in (1, 2, 7):
        assert len(shop.claim(*ids[:size])) == size


def test_a_message_whose_jobs_are_taken_takes_others_that_are_due_or_none(shop: "Shop") -> None:
    ids = queue(shop, shop.tenant, 10)
    assert sorted(job.id for job in shop.claim(*ids[5:])) == ids[:5]
    assert sorted(job.id for job in shop.claim(*ids[:5])) == ids[5:]
    assert shop.claim(*ids[:5]) == []


def test_a_named_job_whose_lease_lapsed_comes_first_and_one_that_runs_is_left_alone(shop: "Shop") -> None:
    ids = queue(shop, shop.tenant, 5)
    lapsed, running = (job.id for job in shop.claim(*ids[:2]))
    shop.let_lease_lapse(lapsed)
    [again] = shop.claim(lapsed)
    assert (again.id, again.attempts) == (lapsed, 2)
    assert [job.attempts for job in shop.claim(running)] == [1]
    assert shop.job(running).attempts == 1


def test_jobs_that_are_not_due_are_passed_over(shop: "Shop", make_tenant: Callable[[str], str]) -> None:
    later, now = queue(shop, shop.tenant, 3), queue(shop, make_tenant("another"), 1)
    shop.sql("UPDATE jobs SET not_before = now() + interval '1 hour' WHERE id = ANY(:ids)", ids=later)
    assert [job.id for job in shop.claim(*later)] == now
    assert shop.claim(*later) == []


def test_a_job_that_is_not_due_is_passed_over_for_later_ones_of_its_tenant(shop: "Shop") -> None:
    later, *now = queue(shop, shop.tenant, 3)
    shop.sql("UPDATE jobs SET not_before = now() + interval '1 hour' WHERE id = :id", id=later)
    assert sorted(job.id for job in shop.claim(later, *now)) == now
    assert shop.job(later).status == "queued"


def test_superseded_and_worn_out_jobs_end_and_are_not_handed_out(shop: "Shop") -> None:
    ids = queue(shop, shop.tenant, 4)
    shop.sql("UPDATE products SET revision = 2 WHERE job_id = :id", id=ids[0])
    shop.sql(
        """UPDATE jobs SET attempts = :most, error = '{"type": "test"}' WHERE id = :id""",
        most=shop.settings.max_attempts, id=ids[1],
    )  # fmt: skip
    shop.cancel(ids[2])
    assert [job.id for job in shop.claim(*ids)] == [ids[3]]
    assert [shop.job(job_id).status for job_id in ids] == ["cancelled", "failed", "cancelled", "running"]


def test_a_suspect_is_left_out(shop: "Shop") -> None:
    ids = queue(shop, shop.tenant, 3)
    shop.sql("UPDATE jobs SET attempts = :tries WHERE id = :id", tries=SUSPECT_AFTER, id=ids[0])
    assert {job.id for job in shop.claim(*ids)} == set(ids[1:])
    shop.sql(
        "UPDATE jobs SET status = 'running', lease_token = 'of the dead', lease_until = now() WHERE id = :id",
        id=ids[0],
    )
    assert shop.claim(*ids) == []


def test_each_lane_has_its_own_jobs_and_turns(shop: "Shop", make_tenant: Callable[[str], str]) -> None:
    tenants = sorted([shop.tenant, make_tenant("another")])
    ids = {
        lane: [job_id for tenant in tenants for job_id in queue(shop, tenant, 1, lane=lane)] for lane in LANES
    }
    for number in range(2):
        for lane in LANES:
            assert [job.id for job in shop.claim(ids[lane][-1])] == [ids[lane][number]]


def test_rows_that_somebody_holds_are_passed_over_without_waiting(
    shop: "Shop", engine: Engine, make_tenant: Callable[[str], str]
) -> None:
    held = queue(shop, shop.tenant, 5) + queue(shop, make_tenant("held"), 5)
    free = queue(shop, make_tenant("behind them"), 5)
    with transaction(engine) as session:
        session.execute(text("SELECT 1 FROM jobs WHERE id = ANY(:ids) FOR UPDATE"), {"ids": held})
        for _ in range(2):
            assert {job.id for job in shop.claim(*held[:2])} < set(free)
        assert len(shop.claim(*held)) == 1
        assert shop.claim(*held) == []
    assert sorted(job.id for job in shop.claim(*held)) == sorted(held)


def test_whose_turn_it_was_is_remembered_without_waiting_for_another_claim(
    shop: "Shop", engine: Engine, make_tenant: Callable[[str], str]
) -> None:
    ids = [*queue(shop, shop.tenant, 5), *queue(shop, make_tenant("another"), 5)]
    shop.claim(ids[0])
    with transaction(engine) as session:
        session.execute(text("SELECT 1 FROM lane_turns FOR UPDATE"))
        assert len(shop.claim(ids[0])) == 1


def test_many_workers_at_once_claim_every_job_once_and_give_everyone_the_same_share(
    shop: "Shop", engine: Engine, make_tenant: Callable[[str], str]
) -> None:
    large, small = shop.tenant, [make_tenant(f"small {number}") for number in range(4)]
    messages = envelopes(queue(shop, large, 1600, ago_s=600), 16)
    messages += [queue(shop, tenant, 40) for tenant in small]
    started: list[tuple[str, str, int]] = []
    lock = threading.Lock()

    def work(message: list[str]) -> None:
        claimed = shop.claim(*message)
        assert len(claimed) <= len(message)
        with lock:
            started.extend((job.id, job.tenant_id, job.attempts) for job in claimed)
        for job in claimed[:2]:
            assert shop.put_back(job)
            assert not shop.put_back(job)
        with transaction(engine) as session:
            done = [jobs.Finished(job, [], None, "m", "v") for job in claimed[2:]]
            assert jobs.finish(session, done) == {job.id for job in claimed[2:]}

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(work, messages))
        # Each message claimed as many as it names, so those put back are what is left; as the sweep would send them.
        left = [row.id for row in shop.sql("SELECT id FROM jobs WHERE status = 'queued'")]
        assert 0 < len(left) <= 2 * len(messages)
        for _ in range(shop.settings.max_attempts):
            left = [row.id for row in shop.sql("SELECT id FROM jobs WHERE status = 'queued'")]
            list(workers.map(work, envelopes(left)))
    # No attempt of a job was given out twice, and together they are what the rows say.
    assert len(set(started)) == len(started)
    attempts = Counter(job_id for job_id, _, _ in started)
    assert dict(attempts) == {row.id: row.attempts for row in shop.sql("SELECT id, attempts FROM jobs")}
    # The small ones, sent last, were through by the first third.
    first = Counter(tenant for _, tenant, _ in started[: len(started) // 3])
    assert all(first[tenant] >= 40 for tenant in small)


@pytest.mark.parametrize("lane", LANES)
def test_a_claim_reads_neither_the_whole_lane_nor_sorts_it(shop: "Shop", lane: Lane) -> None:
    oldest = {"tenants": [shop.tenant], "share": 64, "limit": 64}
    look = {"last": None, "most": 64, "job_ids": []}
    for plan in plans(shop, lane, [(claims._OLDEST_OF_EACH[lane], oldest), (claims._LOOK[lane].text, look)]):
        assert not [
            line
            for line in plan
            if "Seq Scan on jobs" in line or ("Sort Key" in line and "place" not in line)
        ], plan
        assert any("ix_jobs_turns" in line for line in plan), "\n".join(plan)
