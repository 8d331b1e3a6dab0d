"""What happens when several connections want the same job at the same moment."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text

from catalog import job_list, jobs
from catalog.database import transaction
from catalog.errors import DatabaseUnavailable, NotCancellable
from catalog.jobs import ClaimedJob, Finished

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop

THREADS = 10


def at_once(actions: Sequence[Callable[[], Any]]) -> list[Any]:
    """Runs the actions in threads that start together."""
    gate = threading.Barrier(len(actions))

    def run(action: Callable[[], Any]) -> Any:
        gate.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(run, actions))


def test_a_message_delivered_ten_times_at_once_claims_each_job_once(shop: "Shop") -> None:
    ids = [shop.accept(f"Product {number}", lane="bulk")[1].id for number in range(20)]

    def deliver() -> list[ClaimedJob]:
        return shop.claim(*random.sample(ids, len(ids)))

    claimed = [job for delivery in at_once([deliver] * THREADS) for job in delivery]
    assert sorted(job.id for job in claimed) == sorted(ids)
    assert {job.attempts for job in claimed} == {1}


def test_a_lapsed_job_is_taken_over_by_exactly_one_worker(shop: "Shop") -> None:
    _, job = shop.accept()
    shop.claim_one(job.id)
    shop.let_lease_lapse(job.id)
    taken = [claimed for got in at_once([lambda: shop.claim(job.id)] * THREADS) for claimed in got]
    assert [claimed.attempts for claimed in taken] == [2]


def test_two_workers_that_finish_the_same_job_leave_one_set_of_tags(shop: "Shop") -> None:
    for _ in range(5):
        product, job = shop.accept()
        slow = shop.claim_one(job.id)
        shop.let_lease_lapse(job.id)
        fast = shop.claim_one(job.id)
        written = at_once([lambda s=slow: shop.finish(s, "slow"), lambda f=fast: shop.finish(f, "fast")])
        assert written == [False, True]
        assert [tag.value for tag in shop.product(product.id).tags or ()] == ["fast", "fast"]


def test_a_job_is_either_cancelled_or_claimed_never_both(shop: "Shop") -> None:
    def cancel(job_id: str) -> bool:
        try:
            shop.cancel(job_id)
        except NotCancellable:
            return False
        return True

    for _ in range(10):
        _, job = shop.accept()
        cancelled, claimed = at_once([lambda i=job.id: cancel(i), lambda i=job.id: shop.claim(i)])
        # The claim skips a row that the cancelling holds; so one of the two wins, and never both.
        assert cancelled != bool(claimed)
        assert shop.job(job.id).status == ("cancelled" if cancelled else "running")


def test_claims_finishes_changes_and_deletions_at_once_never_deadlock(shop: "Shop") -> None:
    """Everyone who locks products and jobs locks the products first; PostgreSQL would end one of them otherwise."""
    products = [shop.accept(f"Product {number}", lane="bulk") for number in range(8)]
    order = random.Random(7)

    def work() -> None:
        for _ in range(6):
            ids = [row.id for row in shop.sql("SELECT id FROM jobs WHERE status = 'queued'")]
            for claimed in shop.claim(*order.sample(ids, len(ids))):
                shop.finish(claimed)

    def change() -> None:
        for product, _ in order.sample(products[:6], 6):
            shop.revise(product.id, title="Changed", photos=[shop.photo("a"), shop.photo("b")])

    def delete() -> None:
        for product, _ in products[6:]:
            shop.delete(product.id)

    at_once([work, work, work, change, change, delete])
    assert shop.sql("SELECT count(*) FROM products")[0][0] == 6


def test_a_finish_locks_the_product_before_the_job(shop: "Shop", engine: Engine) -> None:
    product, job = shop.accept()
    claimed = shop.claim_one(job.id)
    written: list[bool] = []
    finishing = threading.Thread(target=lambda: written.append(shop.finish(claimed)))
    with transaction(engine) as session:
        session.execute(text("SELECT 1 FROM products WHERE id = :id FOR UPDATE"), {"id": product.id})
        finishing.start()
        finishing.join(0.3)
        assert finishing.is_alive()
        # While it waits for the product it holds nothing that the holder of the product may want.
        session.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE NOWAIT"), {"id": job.id})
    finishing.join()
    assert written == [True]


def test_pruning_locks_the_product_before_its_jobs(shop: "Shop", engine: Engine) -> None:
    """As its deletion does, which takes the same tags and embeddings away: else each could wait for the other."""
    product, old = shop.accept()
    assert shop.finish(shop.claim_one(old.id), embedding=[1.0])
    _, new = shop.revise(product.id, title="Newer")
    assert shop.finish(shop.claim_one(new.id), embedding=[1.0])
    pruned: list[int] = []
    pruning = threading.Thread(target=lambda: pruned.extend(job_list.prune(engine, timedelta(0))))
    with transaction(engine) as session:
        session.execute(text("SELECT 1 FROM products WHERE id = :id FOR UPDATE"), {"id": product.id})
        pruning.start()
        pruning.join(0.3)
        assert pruning.is_alive()
        session.execute(text("SELECT 1 FROM embeddings WHERE job_id = :id FOR UPDATE NOWAIT"), {"id": old.id})
    pruning.join()
    assert pruned == [1]


@pytest.mark.parametrize("table", ["products", "jobs"])
def test_a_finish_locks_its_rows_in_the_order_of_their_ids(shop: "Shop", engine: Engine, table: str) -> None:
    """So that it and whoever locks the same rows wait for each other one way only."""
    accepted = [shop.accept() for _ in range(2)]
    # The later one first, also on the pages of the table.
    finished = [
        jobs.Finished(shop.claim_one(job.id), shop.tags("x"), None, "m", "v") for _, job in accepted[::-1]
    ]
    first, second = [row.id for row in shop.sql(f"SELECT id FROM {table} ORDER BY id")]
    written: list[set[str]] = []

    def finish() -> None:
        with transaction(engine) as session:
            written.append(jobs.finish(session, finished))

    finishing = threading.Thread(target=finish)
    with transaction(engine) as session:
        session.execute(text(f"SELECT 1 FROM {table} WHERE id = :id FOR UPDATE"), {"id": first})
        finishing.start()
        finishing.join(0.3)
        assert finishing.is_alive()
        session.execute(text(f"SELECT 1 FROM {table} WHERE id = :id FOR UPDATE NOWAIT"), {"id": second})
    finishing.join()
    assert written == [{job.id for _, job in accepted}]


def test_a_change_during_a_claim_lets_the_old_job_run_with_the_old_content(
    shop: "Shop", engine: Engine
) -> None:
    product, job = shop.accept("Old title")
    changed = threading.Event()

    def change() -> None:
        shop.revise(product.id, title="New title")
        changed.set()

    with transaction(engine) as session:
        [claimed] = jobs.claim(session, job.lane, [job.id], worker="w", settings=shop.settings)
        changing = threading.Thread(target=change)
        changing.start()
        # The change waits for the claim's row instead of cancelling a job that has just been taken.
        assert not changed.wait(0.2)
    changing.join()
    assert claimed.title == "Old title"
    assert shop.job(job.id).status == "running"


def test_a_claim_skips_a_row_that_is_locked_instead_of_waiting(shop: "Shop", engine: Engine) -> None:
    locked, free = shop.accept()[1].id, shop.accept()[1].id
    with transaction(engine) as session:
        session.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked})
        assert [job.id for job in shop.claim(locked, free)] == [free]
    assert [job.id for job in shop.claim(locked, free)] == [locked]


@pytest.mark.parametrize(("attempts", "claim"), [(1, "claim"), (2, "claim_suspects")])
def test_a_lapsed_job_that_somebody_holds_is_skipped_in_every_way_of_claiming_it(
    shop: "Shop", engine: Engine, attempts: int, claim: str
) -> None:
    locked, free = (shop.accept(lane="bulk")[1].id for _ in range(2))
    shop.claim(locked, free)
    shop.sql("UPDATE jobs SET lease_until = now(), attempts = :attempts", attempts=attempts)
    with transaction(engine) as session:
        session.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked})
        assert [job.id for job in getattr(shop, claim)(locked, free)] == [free]
    assert [job.id for job in getattr(shop, claim)(locked, free)] == [locked]


def test_a_connection_cut_in_the_middle_of_a_finish_writes_nothing(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    claimed = shop.claim_one(job.id)
    reason = ""
    try:
        with transaction(engine) as session:
            jobs.finish(session, [Finished(claimed, shop.tags("cut"), None, "m", "v")])
            mine = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            shop.sql("SELECT pg_terminate_backend(:pid)", pid=mine)
            session.execute(text("SELECT 1"))
    except DatabaseUnavailable as error:
        reason = str(error)
    assert "terminating connection" in reason or "closed" in reason
    assert shop.sql("SELECT count(*) FROM tags")[0][0] == 0
    # The lease still holds, so the same worker may try again.
    assert shop.finish(claimed, "again")
