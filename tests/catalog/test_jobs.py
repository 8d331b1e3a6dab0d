from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from catalog import jobs
from catalog.claims import SUSPECT_AFTER, suspects_among
from catalog.database import transaction
from catalog.errors import NotCancellable, NotFound
from catalog.jobs import Finished
from catalog.views import LEASE_RAN_OUT, SUPERSEDED

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def test_a_claimed_job_carries_all_that_a_worker_needs(shop: "Shop") -> None:
    product, job = shop.accept("A navy shirt", [shop.photo("b"), shop.photo("a"), shop.photo("b")])
    claimed = shop.claim_one(job.id)
    assert (claimed.title, claimed.product_id, claimed.attempts) == ("A navy shirt", product.id, 1)
    assert claimed.photo_ids == ("b" * 64, "a" * 64, "b" * 64)
    running = shop.job(job.id)
    assert running.status == "running"
    assert running.started_at is not None


def test_a_claimed_job_has_its_photos_in_their_order_wherever_their_rows_lie(
    shop: "Shop", engine: Engine
) -> None:
    """A model looks at the first few only."""
    _, job = shop.accept(photos=[shop.photo(digit) for digit in "cab"])
    # A row that is written again lies behind the others.
    shop.sql("UPDATE product_photos SET photo_id = photo_id WHERE position = 0")
    with transaction(engine) as session:
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            session.execute(text(f"SET LOCAL enable_{way} = off"))
        [claimed] = jobs.claim(session, job.lane, [job.id], worker="worker", settings=shop.settings)
    assert [photo_id[0] for photo_id in claimed.photo_ids] == ["c", "a", "b"]


def test_a_finished_job_shows_its_tags_on_the_job_and_on_the_product(shop: "Shop") -> None:
    product, job = shop.accept()
    assert shop.finish(shop.claim_one(job.id), "blue", embedding=[0.5, 0.25])
    done = shop.job(job.id)
    assert (done.status, done.model_name, done.model_version, done.error) == ("succeeded", "m", "v", None)
    assert done.tags == tuple(shop.tags("blue"))
    assert shop.product(product.id).tags == done.tags
    assert shop.sql("SELECT embedding::text, model_version, product_id FROM embeddings") == [
        ("[0.5,0.25]", "v", product.id)
    ]


def test_a_batch_is_finished_in_one_call_and_only_lost_leases_are_left_out(
    shop: "Shop", engine: Engine
) -> None:
    accepted = [shop.accept(f"Product {number}")[1].id for number in range(5)]
    claimed = shop.claim(*accepted)
    lost = claimed[2]
    shop.let_lease_lapse(lost.id)
    taken_over = shop.claim_one(lost.id)
    batch = [Finished(job, shop.tags(job.title), None, "m", "v") for job in claimed]
    with transaction(engine) as session:
        written = jobs.finish(session, batch)
    assert written == set(accepted) - {lost.id}
    assert shop.job(lost.id).status == "running"
    assert shop.finish(taken_over, "from the second worker")
    assert [tag.value for tag in shop.job(lost.id).tags or ()] == ["from the second worker"] * 2


def test_finishing_an_empty_batch_writes_nothing(shop: "Shop", engine: Engine) -> None:
    shop.accept()
    with transaction(engine) as session:
        assert jobs.finish(session, []) == set()


def test_a_job_may_end_without_any_tag(shop: "Shop", engine: Engine) -> None:
    product, job = shop.accept()
    claimed = shop.claim_one(job.id)
    with transaction(engine) as session:
        assert jobs.finish(session, [Finished(claimed, [], None, "m", "v")])
    assert shop.job(job.id).tags == ()
    assert shop.product(product.id).tags == ()


@pytest.mark.parametrize("outcome", ["finish", "fail", "put_back"])
def test_a_worker_that_lost_its_lease_writes_nothing(shop: "Shop", outcome: str) -> None:
    _, job = shop.accept()
    slow = shop.claim_one(job.id)
    shop.let_lease_lapse(job.id)
    shop.claim_one(job.id)
    before = shop.sql("SELECT * FROM jobs")
    assert not getattr(shop, outcome)(slow)
    assert shop.sql("SELECT * FROM jobs") == before
    assert shop.sql("SELECT * FROM tags") == []


@pytest.mark.parametrize("outcome", ["finish", "fail", "put_back"])
def test_a_job_that_has_ended_takes_no_second_outcome(shop: "Shop", outcome: str) -> None:
    _, job = shop.accept()
    claimed = shop.claim_one(job.id)
    assert shop.finish(claimed)
    assert not getattr(shop, outcome)(claimed)
    assert shop.job(job.id).status == "succeeded"
    assert len(shop.job(job.id).tags or ()) == 2


def test_a_lease_that_lapsed_while_nobody_took_the_job_still_counts(shop: "Shop") -> None:
    _, job = shop.accept()
    slow = shop.claim_one(job.id)
    shop.let_lease_lapse(job.id)
    assert shop.finish(slow)
    assert shop.claim(job.id) == []


def test_a_failed_job_keeps_its_problem(shop: "Shop") -> None:
    product, job = shop.accept()
    assert shop.fail(shop.claim_one(job.id))
    failed = shop.job(job.id)
    assert failed.status == "failed"
    assert failed.error == {"type": "test", "title": "A problem", "detail": "made by a test"}
    assert failed.finished_at is not None
    assert shop.product(product.id).tags is None


def test_a_job_put_back_is_not_due_before_its_delay(shop: "Shop") -> None:
    _, job = shop.accept()
    assert shop.put_back(shop.claim_one(job.id), delay_s=3600)
    assert shop.job(job.id).status == "queued"
    assert shop.claim(job.id) == []
    shop.sql("UPDATE jobs SET not_before = now()")
    assert shop.claim_one(job.id).attempts == 2


def test_a_job_is_in_the_name_of_the_worker_that_took_it_last(shop: "Shop") -> None:
    _, job = shop.accept()
    (claimed,) = shop.claim(job.id, worker="one")
    assert shop.put_back(claimed)
    assert shop.claim(job.id, worker="another")
    assert shop.sql("SELECT worker FROM jobs") == [("another",)]


def test_a_job_put_back_after_its_last_attempt_is_failed_with_the_last_problem(shop: "Shop") -> None:
    shop = shop.with_settings(max_attempts=3)
    _, job = shop.accept()
    for attempt in range(3):
        assert shop.job(job.id).status == "queued"
        claimed = shop.claim_one(job.id)
        assert claimed.last_attempt == (attempt == 2)
        assert shop.put_back(claimed)
    failed = shop.job(job.id)
    assert (failed.status, failed.attempts) == ("failed", 3)
    assert failed.error is not None
    assert failed.error["detail"] == "made by a test"


def test_a_job_whose_every_worker_died_is_failed_at_the_claim_after_its_last_attempt(shop: "Shop") -> None:
    shop = shop.with_settings(max_attempts=2)
    _, job = shop.accept()
    for _ in range(2):
        shop.claim_one(job.id)
        shop.let_lease_lapse(job.id)
    assert shop.claim_suspects(job.id) == []
    failed = shop.job(job.id)
    assert (failed.status, failed.attempts, failed.error) == ("failed", 2, LEASE_RAN_OUT)


def lapse(shop: "Shop", job_id: str, times: int) -> None:
    for _ in range(times):
        shop.claim_one(job_id)
        shop.let_lease_lapse(job_id)


def test_a_job_that_may_have_killed_its_workers_is_taken_with_no_other(shop: "Shop") -> None:
    suspect, other = (shop.accept()[1].id for _ in range(2))
    lapse(shop, suspect, SUSPECT_AFTER)
    assert [job.id for job in shop.claim(suspect, other)] == [other]
    with transaction(shop.engine) as session:
        assert suspects_among(session, [suspect, other]) == [suspect]
    (claimed,) = shop.claim_suspects(suspect, other)
    assert (claimed.id, claimed.attempts) == (suspect, SUSPECT_AFTER + 1)
    with transaction(shop.engine) as session:
        assert suspects_among(session, [suspect, other]) == [], "it runs"


def test_a_job_that_was_put_back_with_a_reason_is_no_suspect(shop: "Shop") -> None:
    job_id = shop.accept()[1].id
    lapse(shop, job_id, SUSPECT_AFTER - 1)
    assert shop.put_back(shop.claim_one(job_id)) == "queued"
    assert shop.claim_suspects(job_id) == []
    assert shop.claim_one(job_id).attempts == SUSPECT_AFTER + 1
    shop.let_lease_lapse(job_id)
    assert shop.claim(job_id) == [], "its reason was that of an earlier attempt"
    assert len(shop.claim_suspects(job_id)) == 1


def test_a_job_that_nobody_tried_is_queued_again_also_from_its_last_attempt(shop: "Shop") -> None:
    shop = shop.with_settings(max_attempts=1)
    claimed = shop.claim_one(shop.accept()[1].id)
    assert claimed.last_attempt
    with transaction(shop.engine) as session:
        assert jobs.put_back(session, claimed, {"type": "test"}, 0, tried=False) == "queued"
    assert shop.claim_one(claimed.id).attempts == 1


def test_put_back_says_what_the_job_is_now(shop: "Shop") -> None:
    shop = shop.with_settings(max_attempts=1)
    product, job = shop.accept()
    assert shop.put_back(shop.claim_one(job.id)) == "failed"
    product, job = shop.accept()
    claimed = shop.claim_one(job.id)
    shop.revise(product.id, title="another")
    assert shop.put_back(claimed) == "cancelled"


def test_a_job_with_a_running_lease_cannot_be_claimed(shop: "Shop") -> None:
    _, job = shop.accept()
    shop.claim_one(job.id)
    assert shop.claim(job.id) == []


def test_unknown_ids_in_a_message_claim_nothing(shop: "Shop") -> None:
    assert shop.claim("job_unknown", "", "'; DROP TABLE jobs; --") == []


def test_a_queued_job_can_be_cancelled_and_is_never_run(shop: "Shop") -> None:
    _, job = shop.accept()
    assert shop.cancel(job.id).status == "cancelled"
    assert shop.claim(job.id) == []


def test_a_job_that_runs_or_has_ended_cannot_be_cancelled(shop: "Shop") -> None:
    _, job = shop.accept()
    claimed = shop.claim_one(job.id)
    with pytest.raises(NotCancellable, match="is running"):
        shop.cancel(job.id)
    shop.finish(claimed)
    with pytest.raises(NotCancellable, match="is succeeded"):
        shop.cancel(job.id)


def test_another_tenants_job_does_not_exist(shop: "Shop", make_tenant: object) -> None:
    _, job = shop.accept()
    stranger = shop.of(make_tenant("a stranger"))  # type: ignore[operator]
    with pytest.raises(NotFound):
        stranger.job(job.id)
    with pytest.raises(NotFound):
        stranger.cancel(job.id)
    assert shop.job(job.id).status == "queued"


def test_a_failed_job_can_be_replayed_with_all_its_attempts(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    shop.fail(shop.claim_one(job.id))
    with transaction(engine) as session:
        assert jobs.replay(session, [job.id, "job_unknown"]) == [job.id]
    assert shop.finish(shop.claim_one(job.id))
    assert shop.job(job.id).attempts == 1


def test_a_replayed_job_is_due_for_the_sweep_and_has_lost_its_error(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()
    shop.fail(shop.claim_one(job.id))
    shop.sql("UPDATE jobs SET not_before = now() + interval '1 hour', resend_at = now() + interval '1 hour'")
    shop.sql("UPDATE jobs SET submitted_at = now() - interval '1 day', started_at = now() - interval '1 day'")
    shop.sql("UPDATE jobs SET resends = 1")  # as the sweep leaves one that it ends
    with transaction(engine) as session:
        jobs.replay(session, [job.id])
    replayed = shop.job(job.id)
    assert (replayed.status, replayed.error, replayed.finished_at) == ("queued", None, None)
    # What an autoscaler acts on, and the rate that times are told by, begin anew.
    assert shop.sql("SELECT now() - submitted_at < interval '1 hour', started_at FROM jobs") == [(True, None)]
    assert shop.sql("SELECT not_before <= now(), resend_at <= now(), resends FROM jobs") == [(True, True, 0)]


def test_only_failed_jobs_are_replayed(shop: "Shop", engine: Engine) -> None:
    """A succeeded one would be tagged a second time."""
    ids = {status: shop.accept()[1].id for status in ("queued", "running", "succeeded", "cancelled")}
    shop.claim_one(ids["running"])
    shop.finish(shop.claim_one(ids["succeeded"]))
    shop.cancel(ids["cancelled"])
    with transaction(engine) as session:
        assert jobs.replay(session, list(ids.values())) == []
    assert {status: shop.job(job_id).status for status, job_id in ids.items()} == {s: s for s in ids}


def test_a_failed_job_of_an_older_revision_is_not_replayed(shop: "Shop", engine: Engine) -> None:
    product, job = shop.accept()
    shop.fail(shop.claim_one(job.id))
    shop.revise(product.id, title="Newer")
    with transaction(engine) as session:
        assert jobs.replay(session, [job.id]) == []
    assert shop.job(job.id).status == "failed"


def test_ended_tells_which_jobs_will_not_change_any_more(shop: "Shop", engine: Engine) -> None:
    queued, running, done = (shop.accept()[1].id for _ in range(3))
    shop.claim_one(running)
    shop.finish(shop.claim_one(done))
    with transaction(engine) as session:
        assert jobs.ended(session, {queued, running, done, "job_unknown"}) == {done, "job_unknown"}
        assert jobs.ended(session, set()) == set()


def test_a_crash_before_the_commit_leaves_the_job_to_the_next_worker(shop: "Shop", engine: Engine) -> None:
    product, job = shop.accept()
    claimed = shop.claim_one(job.id)

    def crash() -> None:
        with transaction(engine) as session:
            jobs.finish(session, [Finished(claimed, shop.tags("lost"), [1.0], "m", "v")])
            raise RuntimeError("killed before the commit")

    with pytest.raises(RuntimeError, match="killed"):
        crash()
    assert shop.job(job.id).status == "running"
    assert shop.sql("SELECT count(*) FROM tags")[0][0] == 0
    shop.let_lease_lapse(job.id)
    assert shop.finish(shop.claim_one(job.id), "second")
    assert [tag.value for tag in shop.product(product.id).tags or ()] == ["second", "second"]


def test_a_crash_in_the_middle_of_a_claim_costs_no_attempt(shop: "Shop", engine: Engine) -> None:
    _, job = shop.accept()

    def crash() -> None:
        with transaction(engine) as session:
            assert len(jobs.claim(session, job.lane, [job.id], worker="dying", settings=shop.settings)) == 1
            raise RuntimeError("killed before the commit")

    with pytest.raises(RuntimeError, match="killed"):
        crash()
    assert shop.claim_one(job.id).attempts == 1


def test_a_second_set_of_tags_cannot_be_written_even_by_hand(shop: "Shop") -> None:
    _, job = shop.accept()
    shop.finish(shop.claim_one(job.id))
    with pytest.raises(Exception, match="pk_tags"):
        shop.sql(
            "INSERT INTO tags (job_id, position, attribute, confidence, decision, alternatives) "
            "VALUES (:id, 0, 'a', 1, 'auto', '[]')",
            id=job.id,
        )


def test_a_cancelled_job_does_not_keep_the_reason_of_an_earlier_attempt(shop: "Shop") -> None:
    _, job = shop.accept()
    shop.put_back(shop.claim_one(job.id))
    assert shop.job(job.id).error is not None
    assert shop.cancel(job.id).error is None


def test_a_job_that_is_put_back_after_its_product_was_changed_says_so(shop: "Shop") -> None:
    product, job = shop.accept()
    claimed = shop.claim_one(job.id)
    shop.revise(product.id, title="Another")
    assert shop.put_back(claimed) == "cancelled"
    assert shop.job(job.id).error == SUPERSEDED


def test_new_tags_are_a_change_of_their_product(shop: "Shop") -> None:
    product, job = shop.accept()
    assert shop.finish(shop.claim_one(job.id))
    assert shop.product(product.id).updated_at > product.updated_at
