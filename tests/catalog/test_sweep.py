import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, event, text

from catalog.clock import RESEND_DOUBLINGS
from catalog.errors import BrokerUnavailable, PhotoMissing
from catalog.photo_store import PhotoStore
from catalog.queue import MAX_IDS
from catalog.sweep import sweep
from catalog.views import LANES, LEASE_RAN_OUT, Lane

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


class Lanes:
    """A broker that remembers what it was given, and can be away from some message on. `queue` is what waits in it."""

    def __init__(self, works_for: int = 1_000_000) -> None:
        self.messages: list[tuple[Lane, list[str]]] = []
        self.queue: dict[Lane, list[list[str]]] = {lane: [] for lane in LANES}
        self.works_for = works_for

    def waiting(self, lane: Lane) -> int:
        return len(self.queue[lane])

    def send(self, job_ids: list[str], lane: Lane) -> None:
        if len(self.messages) >= self.works_for:
            raise BrokerUnavailable("no broker")
        self.messages.append((lane, job_ids))
        self.queue[lane].append(job_ids)

    @property
    def ids(self) -> list[str]:
        return [job_id for _, job_ids in self.messages for job_id in job_ids]


def test_a_job_whose_message_waits_is_left_alone(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    lanes = Lanes()
    lanes.send([job.id], "interactive")
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0
    shop.let_resend_come()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0


def test_a_queued_job_without_a_message_is_sent_at_once(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    assert lanes.messages == [("interactive", [job.id])]
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0


def test_messages_that_were_lost_make_nobody_wait_while_more_products_come(
    shop: "Shop", engine: Engine
) -> None:
    """Each message takes the oldest job: without those of the sweep three would be queued for ever."""
    lanes = Lanes()
    for lost in (True, True, True, False, False, False, False):
        _, job = shop.accept()
        if not lost:
            lanes.send([job.id], "interactive")
            assert len(shop.claim(*lanes.queue["interactive"].pop(0))) == 1
    assert len(shop.sql("SELECT 1 FROM jobs WHERE status = 'queued'")) == 3
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 3
    assert all(shop.claim(*message) for message in lanes.queue["interactive"])
    assert shop.sql("SELECT 1 FROM jobs WHERE status = 'queued'") == []


def test_a_running_job_whose_lease_lapsed_is_sent_and_can_be_claimed(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    shop.claim_one(job.id)
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0
    shop.let_lease_lapse(job.id)
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    assert shop.claim_one(job.id).attempts == 2


def test_a_worker_that_is_late_may_still_finish_a_job_that_the_sweep_has_sent(
    shop: "Shop", engine: Engine
) -> None:
    _, job = shop.accept()
    late = shop.claim_one(job.id)
    shop.let_lease_lapse(job.id)
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    assert shop.finish(late)
    assert shop.claim(*lanes.ids) == []


def test_a_job_put_back_is_sent_when_it_is_due(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    shop.put_back(shop.claim_one(job.id), delay_s=60)
    assert shop.sql("SELECT resend_at = not_before FROM jobs") == [(True,)]
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0
    shop.sql("UPDATE jobs SET not_before = now(), resend_at = now()")
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    assert lanes.ids == [job.id]


def test_bulk_jobs_share_messages_and_interactive_jobs_go_first_and_alone(
    shop: "Shop", engine: Engine
) -> None:
    bulk = [shop.accept(lane="bulk")[1].id for _ in range(70)]
    interactive = [shop.accept()[1].id for _ in range(3)]
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 73
    assert [lane for lane, _ in lanes.messages] == ["interactive"] * 3 + ["bulk"] * 2
    assert {len(job_ids) for lane, job_ids in lanes.messages if lane == "interactive"} == {1}
    assert sorted(len(job_ids) for lane, job_ids in lanes.messages if lane == "bulk") == [6, MAX_IDS["bulk"]]
    assert sorted(lanes.ids) == sorted(bulk + interactive)


def test_sweeps_that_run_at_once_send_each_job_once(shop: "Shop", engine: Engine) -> None:
    ids = [shop.accept(lane="bulk")[1].id for _ in range(60)]
    lanes = Lanes()
    with ThreadPoolExecutor(4) as sweepers:
        results = list(
            sweepers.map(lambda _: sweep(engine, lanes.send, lanes.waiting, shop.settings), range(4))
        )
    assert sorted(lanes.ids) == sorted(ids)
    assert sum(result.sent for result in results) == 60


def test_a_row_that_another_transaction_holds_is_skipped_and_found_by_the_next_sweep(
    shop: "Shop", engine: Engine
) -> None:
    held, free = shop.accept()[1].id, shop.accept()[1].id
    lanes = Lanes()
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": held})
        sweep(engine, lanes.send, lanes.waiting, shop.settings)
        assert lanes.ids == [free]
    sweep(engine, lanes.send, lanes.waiting, shop.settings)
    assert lanes.ids == [free, held]


def test_one_sweep_sends_no_more_than_its_limit_and_the_oldest_first(shop: "Shop", engine: Engine) -> None:
    ids = [shop.accept()[1].id for _ in range(5)]
    for number, job_id in enumerate(ids):
        shop.sql(
            "UPDATE jobs SET resend_at = now() - :age * interval '1 s' WHERE id = :id",
            age=10 - number,
            id=job_id,
        )
    limited = shop.with_settings(sweep_limit=3).settings
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, limited).sent == 3
    assert sorted(lanes.ids) == sorted(ids[:3])
    assert sweep(engine, lanes.send, lanes.waiting, limited).sent == 2
    assert sorted(lanes.ids) == sorted(ids)


def test_the_limit_of_a_sweep_is_one_for_lapsed_jobs_suspects_and_queued_ones(
    shop: "Shop", engine: Engine
) -> None:
    lapsed, suspect, *_ = [shop.accept()[1].id for _ in range(5)]
    shop.claim_one(lapsed)
    shop.let_lease_lapse(lapsed)
    shop.sql("UPDATE jobs SET attempts = 2 WHERE id = :id", id=suspect)
    shop.let_resend_come()
    lanes = Lanes()
    sweep(engine, lanes.send, lanes.waiting, shop.with_settings(sweep_limit=1).settings)
    assert lanes.ids == [lapsed]
    sweep(engine, lanes.send, lanes.waiting, shop.with_settings(sweep_limit=2).settings)
    assert (lanes.ids[1], len(lanes.ids)) == (suspect, 3)


def test_a_reason_outlives_the_sweep(shop: "Shop", engine: Engine) -> None:
    """Without it a job that was put back would pass for one that kills its workers."""
    _, job = shop.accept()
    shop.put_back(shop.claim_one(job.id))
    reason = shop.job(job.id).error
    assert reason is not None
    shop.let_resend_come()
    assert sweep(engine, Lanes().send, Lanes().waiting, shop.settings).sent == 1
    assert shop.job(job.id).error == reason


def test_a_broker_that_is_away_keeps_the_jobs_due(shop: "Shop", engine: Engine) -> None:
    ids = [shop.accept()[1].id for _ in range(4)] + [shop.accept(lane="bulk")[1].id for _ in range(3)]
    away = Lanes(works_for=2)
    result = sweep(engine, away.send, away.waiting, shop.settings)
    assert (result.sent, result.unsent) == (2, 5)
    assert {shop.job(job_id).status for job_id in ids} == {"queued"}
    back = Lanes()
    back.queue = away.queue
    assert sweep(engine, back.send, back.waiting, shop.settings).sent == 5
    assert sorted(away.ids + back.ids) == sorted(ids)


def test_a_broker_that_refused_is_asked_no_more_in_the_same_sweep(shop: "Shop", engine: Engine) -> None:
    for lane in LANES:
        shop.accept(lane=lane)
    asked: list[Lane] = []

    def refuse(job_ids: list[str], lane: Lane) -> None:
        asked.append(lane)
        raise BrokerUnavailable("no broker")

    assert sweep(engine, refuse, Lanes().waiting, shop.settings).unsent == 2
    assert asked == ["interactive"]


def test_a_job_that_the_broker_did_not_take_waits_no_longer_for_it(shop: "Shop", engine: Engine) -> None:
    shop.accept()
    away = Lanes(works_for=0)
    for _ in range(3):
        assert sweep(engine, away.send, away.waiting, shop.settings).unsent == 1
    assert shop.sql("SELECT resends FROM jobs") == [(0,)]


def test_a_job_that_was_claimed_while_the_broker_failed_is_in_good_hands(
    shop: "Shop", engine: Engine
) -> None:
    """A worker that had its message before: the sweep must neither send it again nor count its attempt as over."""
    shop = shop.with_settings(max_attempts=1)
    _, job = shop.accept()

    def claimed_and_refused(job_ids: list[str], lane: Lane) -> None:
        shop.claim_one(job.id)
        raise BrokerUnavailable("no broker")

    assert sweep(engine, claimed_and_refused, Lanes().waiting, shop.settings).unsent == 1
    assert sweep(engine, Lanes().send, Lanes().waiting, shop.settings).failed == 0
    assert shop.job(job.id).status == "running"


def test_a_sweep_that_dies_before_it_sends_loses_nothing(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()

    def die(job_ids: list[str], lane: Lane) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        sweep(engine, die, Lanes().waiting, shop.settings)
    shop.let_resend_come()
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    assert lanes.ids == [job.id]


def test_the_row_is_free_for_a_worker_when_its_message_is_sent(shop: "Shop", engine: Engine) -> None:
    """A worker may take the message before `send` returns: the sweep must not hold the row then."""
    _, job = shop.accept()
    claimed = []
    sweep(engine, lambda job_ids, lane: claimed.extend(shop.claim(*job_ids)), Lanes().waiting, shop.settings)
    assert [taken.id for taken in claimed] == [job.id]


def test_a_lapsed_job_that_nobody_takes_is_sent_more_and_more_rarely(shop: "Shop", engine: Engine) -> None:
    shop = shop.with_settings(resend_after_s=10)
    _, job = shop.accept()
    shop.claim_one(job.id)
    shop.let_lease_lapse(job.id)
    waits = []
    for _ in range(RESEND_DOUBLINGS + 3):
        shop.let_resend_come()
        sweep(engine, Lanes().send, Lanes().waiting, shop.settings)
        [(wait,)] = shop.sql("SELECT extract(epoch FROM resend_at - now())::float8 FROM jobs")
        waits.append(wait)
    # Some of each has passed when it is asked for.
    assert waits == pytest.approx([10, 20, 40, 80, 160, 160, 160], abs=5)


def test_under_a_long_backlog_what_waits_in_the_broker_stays_bounded_and_a_lost_message_is_sent_again(
    shop: "Shop", engine: Engine
) -> None:
    """Of 30 jobs that wait for a slow worker one has lost its message."""
    ids = [shop.accept()[1].id for _ in range(30)]
    lanes = Lanes()
    lost = ids[3]
    for job_id in ids:
        if job_id != lost:
            lanes.send([job_id], "interactive")
    ended: list[str] = []
    while len(ended) < len(ids):
        shop.let_resend_come()
        if sweep(engine, lanes.send, lanes.waiting, shop.settings).sent:
            assert len(lanes.queue["interactive"]) <= len(ids) - len(ended)
        for job in shop.claim(*lanes.queue["interactive"].pop(0)):
            assert shop.finish(job)
            ended.append(job.id)
    assert lost in ended
    assert len(lanes.messages) <= 2 * len(ids)


def test_a_message_of_a_job_that_was_cancelled_starts_another_whose_own_was_lost(
    shop: "Shop", engine: Engine
) -> None:
    cancelled, waiting = shop.accept()[1].id, shop.accept()[1].id
    lanes = Lanes()
    lanes.send([cancelled], "interactive")
    shop.cancel(cancelled)
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0
    [message] = lanes.queue["interactive"]
    assert [job.id for job in shop.claim(*message)] == [waiting]


def test_bulk_jobs_are_sent_again_only_where_there_are_too_few_messages_for_them(
    shop: "Shop", engine: Engine
) -> None:
    ids = [shop.accept(lane="bulk")[1].id for _ in range(2 * MAX_IDS["bulk"] + 5)]
    lanes = Lanes()
    for start in range(0, len(ids), MAX_IDS["bulk"]):
        lanes.send(ids[start : start + MAX_IDS["bulk"]], "bulk")
    for _ in range(3):
        assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0
    lanes.queue["bulk"].pop()  # lost
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 5
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0
    taken = [job for message in lanes.queue["bulk"] for job in shop.claim(*message)]
    assert sorted(job.id for job in taken) == sorted(ids)


def test_a_lapsed_lease_is_sent_however_much_waits(shop: "Shop", engine: Engine) -> None:
    """Of the bulk lane, too: nobody else would take it."""
    lapsed, *others = [shop.accept(lane="bulk")[1].id for _ in range(3)]
    shop.claim_one(lapsed)
    lanes = Lanes()
    for _ in range(10):
        lanes.send(others, "bulk")
    shop.let_lease_lapse(lapsed)
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    assert lanes.messages[-1] == ("bulk", [lapsed])


def test_a_broker_that_cannot_be_asked_keeps_the_jobs_due(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()

    def away(lane: Lane) -> int:
        raise BrokerUnavailable("no broker")

    lanes = Lanes()
    assert sweep(engine, lanes.send, away, shop.settings).sent == 0
    assert lanes.messages == []
    assert shop.sql("SELECT resends FROM jobs") == [(0,)]
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    assert lanes.ids == [job.id]


def test_a_claim_starts_the_waits_of_the_sweep_anew(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    for _ in range(4):
        shop.let_resend_come()
        sweep(engine, Lanes().send, Lanes().waiting, shop.settings)
    shop.claim_one(job.id)
    assert shop.sql("SELECT resends, resend_at = lease_until FROM jobs") == [(0, True)]


def test_a_job_that_is_put_back_starts_the_waits_of_the_sweep_anew(shop: "Shop", engine: Engine) -> None:
    """Also where its worker was late, and the sweep had sent it meanwhile."""
    _, job = shop.accept()
    late = shop.claim_one(job.id)
    for _ in range(3):
        shop.let_lease_lapse(job.id)
        assert sweep(engine, Lanes().send, Lanes().waiting, shop.settings).sent == 1
    assert shop.put_back(late) == "queued"
    assert shop.sql("SELECT resends FROM jobs") == [(0,)]


def test_a_job_whose_every_worker_died_is_failed_by_the_sweep(shop: "Shop", engine: Engine) -> None:
    shop = shop.with_settings(max_attempts=1)
    _, job = shop.accept()
    shop.claim_one(job.id)
    shop.let_lease_lapse(job.id)
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).failed == 1
    assert lanes.messages == []
    failed = shop.job(job.id)
    assert (failed.status, failed.error) == ("failed", LEASE_RAN_OUT)


def test_a_lapsed_job_of_an_older_revision_is_cancelled_by_the_sweep(shop: "Shop", engine: Engine) -> None:
    product, old = shop.accept()
    shop.claim_one(old.id)
    _, new = shop.revise(product.id, title="Newer")
    shop.let_lease_lapse(old.id)
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).cancelled == 1
    assert lanes.ids == [new.id]
    assert shop.job(old.id).status == "cancelled"
    assert shop.job(new.id).status == "queued"


def test_photos_that_a_change_replaced_are_removed_after_a_while(
    shop: "Shop", engine: Engine, photo_store: PhotoStore
) -> None:
    old, new = shop.photo("a"), shop.photo("b")
    for photo in (old, new):
        photo_store.put(photo.id, b"original", b"view")
    product, _ = shop.accept(photos=[old])
    shop.revise(product.id, photos=[new])
    assert sweep(engine, Lanes().send, Lanes().waiting, shop.settings).photos_removed == 0
    assert photo_store.model_view(old.id) == b"view"
    shop.sql("UPDATE photos SET released_at = now() - interval '1 day' WHERE released_at IS NOT NULL")
    assert sweep(engine, Lanes().send, Lanes().waiting, shop.settings).photos_removed == 1
    assert photo_store.original(new.id) == b"original"
    with pytest.raises(PhotoMissing):
        photo_store.original(old.id)


def test_what_an_upload_left_unfinished_is_removed(
    shop: "Shop", engine: Engine, photo_store: PhotoStore, tmp_path: Path
) -> None:
    changed = shop.settings.model_dump() | {"photo_store_url": f"file://{tmp_path}"}
    settings = shop.settings.model_validate(changed)
    left = tmp_path / "unfinished" / "something"
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    sweep(engine, Lanes().send, Lanes().waiting, settings)
    assert not left.exists()


def test_a_photo_store_that_is_away_does_not_stop_the_sweep(shop: "Shop", engine: Engine) -> None:
    product, _ = shop.accept(photos=[shop.photo("a")])
    shop.delete(product.id)
    shop.accept()
    shop.sql("UPDATE photos SET released_at = now() - interval '1 day'")
    broken = shop.settings.model_copy(update={"photo_store_url": SecretStr("nosuch://store")})
    lanes = Lanes()
    result = sweep(engine, lanes.send, lanes.waiting, broken)
    assert (result.sent, result.photos_removed) == (1, 0)
    assert shop.sql("SELECT count(*) FROM photos")[0][0] == 1


def test_claim_and_sweep_read_no_ended_jobs(shop: "Shop", engine: Engine) -> None:
    """Their plans on a table of mostly ended jobs use the indexes of live ones, and never read the table through."""
    shop.sql(
        "INSERT INTO jobs (id, tenant_id, product_id, revision, status, lane, resend_at, finished_at) "
        "SELECT 'job_' || n, :tenant, 'prd_' || n, 1, 'succeeded', 'bulk', now(), now() "
        "FROM generate_series(1, 20000) AS n",
        tenant=shop.tenant,
    )
    live = [shop.accept(lane="bulk")[1].id for _ in range(3)]
    shop.sql("ANALYZE jobs")
    shop.sql("ANALYZE products")
    plans = plans_of(
        engine, lambda: (sweep(engine, Lanes().send, Lanes().waiting, shop.settings), shop.claim(*live))
    )
    on_jobs = [plan for plan in plans if "jobs" in plan]
    assert any("ix_jobs_overdue" in plan for plan in on_jobs)
    assert any("ix_jobs_turns" in plan for plan in on_jobs)
    assert any("pk_jobs" in plan for plan in on_jobs)
    assert not any("Seq Scan on jobs" in plan for plan in on_jobs)


def test_the_removal_of_a_photo_reads_nothing_of_what_others_hold(shop: "Shop", engine: Engine) -> None:
    """By the photo's name alone an index that begins with the tenant would be read whole, once for each photo."""
    many = "FROM generate_series(1, 5000) AS n"
    shop.sql(
        "INSERT INTO products (id, tenant_id, title, description, job_id) "
        f"SELECT 'prd_' || n, :tenant, '', '', '' {many}",
        tenant=shop.tenant,
    )
    shop.sql(
        "INSERT INTO photos (tenant_id, id, width, height, bytes, media_type) "
        f"SELECT :tenant, 'photo_' || n, 1, 1, 1, '' {many}",
        tenant=shop.tenant,
    )
    shop.sql(
        "INSERT INTO product_photos (product_id, position, tenant_id, photo_id) "
        f"SELECT 'prd_' || n, 0, :tenant, 'photo_' || n {many}",
        tenant=shop.tenant,
    )
    shop.delete(shop.accept(photos=[shop.photo("a")])[0].id)
    shop.sql("UPDATE photos SET released_at = released_at - interval '1 day'")
    shop.sql("ANALYZE product_photos, photos")
    plans = plans_of(engine, lambda: sweep(engine, Lanes().send, Lanes().waiting, shop.settings))
    [plan] = [plan for plan in plans if "product_photos" in plan]
    assert "Seq Scan" not in plan
    assert "Index Cond: ((tenant_id = " in plan


def test_a_sweep_sorts_not_all_photos_that_nobody_holds(shop: "Shop", engine: Engine) -> None:
    """Of a store that removes nothing there are more and more of them."""
    shop.sql(
        "INSERT INTO photos (tenant_id, id, width, height, bytes, media_type, released_at) "
        "SELECT :tenant, lpad(to_hex(n), 64, '0'), 1, 1, 1, '', now() - interval '1 day' - n * interval '1 s' "
        "FROM generate_series(1, 5000) AS n",
        tenant=shop.tenant,
    )
    shop.sql("ANALYZE photos")
    settings = shop.settings.model_copy(update={"sweep_interval_s": 0.1})
    plans = plans_of(engine, lambda: sweep(engine, Lanes().send, Lanes().waiting, settings))
    [plan] = [plan for plan in plans if "released_at <= " in plan]
    assert "Index Scan using ix_photos_released_at" in plan
    assert "Sort" not in plan


def plans_of(engine: Engine, action: object) -> list[str]:
    """The plans of every statement that the action runs."""
    statements: list[tuple[str, object]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def remember(connection, cursor, statement, parameters, context, executemany):  # type: ignore[no-untyped-def]
        if statement.lstrip().startswith(("WITH", "UPDATE", "SELECT", "DELETE")):
            statements.append((statement, parameters))

    try:
        action()  # type: ignore[operator]
    finally:
        event.remove(engine, "before_cursor_execute", remember)
    plans = []
    with engine.connect() as connection:
        for statement, parameters in statements:
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)  # type: ignore[arg-type]
            plans.append("\n".join(row[0] for row in rows))
    return plans


def test_expired_idempotency_records_are_pruned(shop: "Shop", engine: Engine) -> None:
    for number, age_days in enumerate((-1, 1)):
        shop.sql(
            "INSERT INTO idempotency_records (tenant_id, key, fingerprint, token, locked_until, expires_at) "
            "VALUES (:tenant, :key, '', '', now(), now() - :age * interval '1 day')",
            tenant=shop.tenant,
            key=str(number),
            age=age_days,
        )
    assert sweep(engine, Lanes().send, Lanes().waiting, shop.settings).records_pruned == 1
    assert shop.sql("SELECT key FROM idempotency_records") == [("0",)]


def test_the_clock_of_this_process_is_never_asked(shop: "Shop", engine: Engine) -> None:
    """Times come from the database: they agree with each other however wrong this machine's clock is."""
    _, job = shop.accept()
    shop.claim_one(job.id)
    with engine.connect() as connection:
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    running = shop.job(job.id)
    assert running.started_at is not None
    assert now.tzinfo is not None
    assert now.utcoffset() == timedelta(0) == running.submitted_at.utcoffset()
    assert running.submitted_at <= running.started_at <= now.astimezone(UTC)


def test_a_sweep_whose_broker_is_away_waits_for_no_job_that_somebody_holds(
    shop: "Shop", engine: Engine
) -> None:
    ids = [shop.accept()[1].id for _ in range(3)]
    with engine.connect() as other:

        def held_and_refused(job_ids: list[str], lane: Lane) -> None:
            other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": ids[1]})
            raise BrokerUnavailable("no broker")

        assert sweep(engine, held_and_refused, Lanes().waiting, shop.settings).unsent == 3
        other.rollback()
    due = shop.sql("SELECT id FROM jobs WHERE resend_at <= now()")
    assert {job_id for (job_id,) in due} == {ids[0], ids[2]}


def test_a_queued_suspect_is_sent_however_many_messages_wait(shop: "Shop", engine: Engine) -> None:
    _, suspect = shop.accept(lane="bulk")
    shop.sql("UPDATE jobs SET attempts = 2")
    others = [shop.accept(lane="bulk")[1].id for _ in range(3)]
    shop.let_resend_come()
    lanes = Lanes()
    lanes.queue["bulk"] = [others] * 10
    sweep(engine, lanes.send, lanes.waiting, shop.settings)
    assert lanes.messages == [("bulk", [suspect.id])]


def test_all_sweeps_of_a_process_ask_one_store(shop: "Shop", engine: Engine, tmp_path: Path) -> None:
    """Each has threads, and keeps those whose calls never return."""
    changed = shop.settings.model_dump() | {"photo_store_url": f"file://{tmp_path}"}
    opened: list[str] = []
    real = PhotoStore.open

    def counted(url: str) -> PhotoStore:
        opened.append(url)
        return real(url)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhotoStore, "open", counted)
        for _ in range(3):
            sweep(engine, Lanes().send, Lanes().waiting, type(shop.settings)(**changed))
    assert opened == [f"file://{tmp_path}"]


def test_a_sweep_that_may_not_send_all_sends_what_is_due_for_longest(shop: "Shop", engine: Engine) -> None:
    """Whenever it was accepted: the ids of jobs rise with time."""
    _, longest = (shop.accept()[1].id for _ in range(2))
    shop.sql("UPDATE jobs SET resend_at = now() - interval '1 minute' WHERE id = :id", id=longest)
    event.listen(engine, "begin", without_indexes)
    lanes = Lanes()
    sweep(engine, lanes.send, lanes.waiting, shop.with_settings(sweep_limit=1).settings)
    assert lanes.ids == [longest]


def without_indexes(connection: Connection) -> None:
    """An order that only an index gave is none: on another day the planner takes another."""
    for way in ("indexscan", "bitmapscan"):
        connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")


def test_a_queued_suspect_is_not_sent_again_before_its_time(shop: "Shop", engine: Engine) -> None:
    """Nobody may be there to take it: with every sweep there would be a message more."""
    shop.accept()
    shop.sql("UPDATE jobs SET attempts = 2, resend_at = now()")
    lanes = Lanes()
    sent = [sweep(engine, lanes.send, lanes.waiting, shop.settings).sent for _ in range(3)]
    assert sent == [1, 0, 0]


def test_a_queued_suspect_makes_no_message_for_others(shop: "Shop", engine: Engine) -> None:
    """Only its own message takes it: others that have theirs need no more because of it."""
    shop.accept()
    shop.sql("UPDATE jobs SET attempts = 2, resend_at = now()")
    lanes = Lanes()
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 1
    lanes.queue["interactive"] = [[shop.accept()[1].id]]
    assert sweep(engine, lanes.send, lanes.waiting, shop.settings).sent == 0


def test_a_photo_that_a_change_replaced_stays_for_three_leases(
    shop: "Shop", engine: Engine, photo_store: PhotoStore
) -> None:
    """An older job may be reading it, and be taken up again when its lease has run out."""
    shop = shop.with_settings(lease_s=600)
    photo_store.put(shop.photo("a").id, b"original", b"view")
    product, _ = shop.accept(photos=[shop.photo("a")])
    shop.revise(product.id, photos=[shop.photo("b")])
    removed = []
    for minutes in (29, 31):
        shop.sql(
            "UPDATE photos SET released_at = now() - :age * interval '1 min' WHERE released_at IS NOT NULL",
            age=minutes,
        )
        removed.append(sweep(engine, Lanes().send, Lanes().waiting, shop.settings).photos_removed)
    assert removed == [0, 1]
