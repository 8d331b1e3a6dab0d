"""accepted = succeeded + failed + cancelled + queued + running, and one set of tags per job, whatever happens."""

import random
import threading
from typing import TYPE_CHECKING, TypeVar

import pytest
from sqlalchemy import Engine

from catalog.errors import BrokerUnavailable, NotCancellable, NotFound
from catalog.jobs import ClaimedJob
from catalog.sweep import sweep
from catalog.views import STATUSES, Lane

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop

TAGS = 2
T = TypeVar("T")


class World:
    """Sellers, workers and a broker that do random things, and remember what was accepted."""

    def __init__(self, shop: "Shop", seed: int) -> None:
        self.shop = shop
        self.random = random.Random(seed)
        self.accepted: list[str] = []
        self.products: list[str] = []
        self.messages: list[list[str]] = []
        self.claimed: list[ClaimedJob] = []
        self.results = 0
        self.lock = threading.Lock()

    def act(self) -> None:
        actions = {
            self.accept: 6,
            self.deliver: 10,
            self.finish: 10,
            self.revise: 2,
            self.sweep: 3,
            self.lapse: 2,
            self.put_back: 2,
            self.fail: 1,
            self.cancel: 1,
            self.delete: 1,
        }
        [action] = self.random.choices(list(actions), list(actions.values()))
        action()

    def accept(self) -> None:
        product, job = self.shop.accept(photos=[self.shop.photo(self.random.choice("abc"))], lane=self.lane())
        with self.lock:
            self.accepted.append(job.id)
            self.products.append(product.id)
        self.post([job.id])

    def lane(self) -> Lane:
        return self.random.choice(("interactive", "bulk"))

    def revise(self) -> None:
        if product_id := self.pick(self.products):
            try:
                _, job = self.shop.revise(product_id, title="Changed", lane=self.lane())
            except NotFound:  # another thread deleted it
                return
            with self.lock:
                self.accepted.append(job.id)
            self.post([job.id])

    def post(self, job_ids: list[str]) -> None:
        """A message, which may be lost or delivered twice."""
        for _ in range(self.random.choice((0, 1, 1, 1, 2))):
            self.messages.append(job_ids)

    def deliver(self) -> None:
        if message := self.pick(self.messages):
            self.claimed += [*self.shop.claim(*message), *self.shop.claim_suspects(*message)]

    def finish(self) -> None:
        if job := self.pick(self.claimed):
            self.results += 1
            self.shop.finish(job, f"result {self.results}", embedding=[1.0])

    def put_back(self) -> None:
        if job := self.pick(self.claimed):
            self.shop.put_back(job)

    def fail(self) -> None:
        if job := self.pick(self.claimed):
            self.shop.fail(job)

    def cancel(self) -> None:
        if job_id := self.pick(self.accepted):
            try:
                self.shop.cancel(job_id)
            except NotCancellable:
                return

    def delete(self) -> None:
        if product_id := self.pick(self.products):
            try:
                self.shop.delete(product_id)
            except NotFound:  # it was deleted before
                return

    def lapse(self) -> None:
        if job := self.pick(self.claimed):
            self.shop.let_lease_lapse(job.id)

    def sweep(self) -> None:
        self.shop.let_resend_come()
        sweep(self.shop.engine, self.send, lambda lane: 0, self.shop.settings)

    def send(self, job_ids: list[str], lane: Lane) -> None:
        if self.random.random() < 0.2:
            raise BrokerUnavailable("no broker")
        self.messages.append(job_ids)

    def pick(self, things: list[T]) -> T | None:
        with self.lock:
            return self.random.choice(things) if things else None


def check(world: World) -> None:
    shop = world.shop
    by_status: dict[str, int] = dict(
        map(tuple, shop.sql("SELECT status, count(*) FROM jobs GROUP BY status"))
    )
    assert set(by_status) <= set(STATUSES)
    assert sum(by_status.values()) == len(world.accepted) == len(set(world.accepted))
    # One set of tags, all of one result, for a job that succeeded; none for any other and for deleted products.
    wrong = shop.sql(
        """
        SELECT jobs.id, jobs.status, count(tags.*), count(DISTINCT tags.value)
        FROM jobs LEFT JOIN tags ON tags.job_id = jobs.id LEFT JOIN products ON products.id = jobs.product_id
        GROUP BY jobs.id, products.id
        HAVING count(tags.*) <> CASE WHEN jobs.status = 'succeeded' AND products.id IS NOT NULL THEN :tags ELSE 0 END
            OR count(DISTINCT tags.value) > 1
        """,
        tags=TAGS,
    )
    assert wrong == []
    # A product shows the tags of its newest revision that succeeded.
    stale = shop.sql(
        """
        SELECT products.id FROM products
        WHERE tagged_job_id IS DISTINCT FROM (
            SELECT jobs.id FROM jobs WHERE jobs.product_id = products.id AND jobs.status = 'succeeded'
            ORDER BY revision DESC LIMIT 1
        )
        """
    )
    assert stale == []
    doubled = shop.sql(
        "SELECT product_id FROM jobs WHERE status = 'queued' GROUP BY product_id HAVING count(*) > 1"
    )
    # Two queued jobs of one product: an older one that was put back while the change was on its way. It never runs.
    for (product_id,) in doubled:
        current = shop.sql(
            "SELECT count(*) FROM jobs JOIN products ON products.id = product_id AND products.revision = jobs.revision "
            "WHERE product_id = :id AND status = 'queued'",
            id=product_id,
        )
        assert current == [(1,)]


def drain(world: World) -> None:
    """The world calms down: sweeps and workers that work. Every job must end."""
    shop = world.shop
    for _ in range(2 * shop.settings.max_attempts):
        shop.sql("UPDATE jobs SET lease_until = now() WHERE status = 'running'")
        shop.let_resend_come()
        sent: list[str] = []
        sweep(
            shop.engine, lambda job_ids, lane, sent=sent: sent.extend(job_ids), lambda lane: 0, shop.settings
        )  # type: ignore[misc]
        for job in [*shop.claim(*sent), *shop.claim_suspects(*sent)]:
            assert shop.finish(job, "drained", embedding=[1.0])
    assert shop.sql("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')") == [(0,)]


@pytest.mark.parametrize("seed", range(4))
def test_every_accepted_job_is_in_exactly_one_state_and_ends(shop: "Shop", engine: Engine, seed: int) -> None:
    world = World(shop.with_settings(max_attempts=3), seed)
    for step in range(150):
        world.act()
        if step % 10 == 0:
            check(world)
    assert len(world.accepted) > 15
    assert world.results > 10
    drain(world)
    check(world)


def test_the_invariant_holds_when_everything_happens_at_once(shop: "Shop") -> None:
    world = World(shop.with_settings(max_attempts=3), seed=99)
    failures: list[BaseException] = []

    def live() -> None:
        try:
            for _ in range(40):
                world.act()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=live) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check(world)
    drain(world)
    check(world)
