"""The products of the service's benchmark and its arithmetic."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image
from sqlalchemy import text

from benchmarks.latency import JobNotTaggedError
from benchmarks.products import ProductMaker
from benchmarks.saturation import LaneNotHeldError, held, tagged_in
from benchmarks.service import Round, full_batches, run_round, summary
from catalog.database import transaction
from catalog.products import accept
from catalog.settings import Settings
from samples.client import read_samples

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def maker():
    """It cuts its photos from plain pictures."""
    samples = read_samples()
    return ProductMaker(samples, {sample.photo_name: Image.new("RGB", (72, 96), "red") for sample in samples})


def test_a_number_always_makes_the_same_product_and_no_two_are_alike(maker):
    made = [maker.make(number) for number in range(40)]
    assert made == [maker.make(number) for number in range(40)]
    assert len({product.title for product in made}) == 40
    photos = [photo for product in made for photo in product.photos]
    assert len(set(photos)) == len(photos)


def test_texts_and_photos_have_different_sizes(maker):
    made = [maker.make(number) for number in range(60)]
    assert {len(product.photos) for product in made} == {0, 1, 2, 3}
    assert len({len(product.description) for product in made}) > 20
    sizes = {Image.open(io.BytesIO(photo)).size for product in made for photo in product.photos}
    assert len(sizes) > 20 and all(300 <= width <= 900 for width, _ in sizes)


def one_round(end_to_end, forward, decode=1000.0, accept=50.0, prepare=400.0):
    return Round(accept, end_to_end, forward, decode, prepare)


def test_the_ratio_is_end_to_end_over_the_slower_of_forward_and_decode():
    assert one_round(90, forward=100, decode=300).ratio == pytest.approx(0.9)
    assert one_round(90, forward=300, decode=120).ratio == pytest.approx(0.75)


def test_cores_that_prepare_and_run_in_turns_add_their_times():
    assert one_round(1, forward=100, prepare=400).in_turns_per_s == pytest.approx(80)  # 10 ms and 2.5 ms


@pytest.mark.parametrize(
    ("one", "part"),
    [
        (one_round(90, forward=100), "forward"),
        (one_round(90, forward=300, decode=120), "decode"),
        (one_round(90, forward=300, prepare=120), "prepare"),
    ],
)
def test_a_round_is_bound_by_its_slowest_part(one, part):
    assert one.bound_by == part


def test_the_summary_holds_medians_and_the_ratio_of_the_medians():
    rounds = [one_round(80, 100), one_round(90, 120), one_round(70, 70)]
    document = summary(rounds, shared_cores=True)
    assert document["end_to_end_per_s"] == 80 and document["bare_forward_per_s"] == 100
    assert document["decode_per_s"] == 1000
    assert document["ratio"] == 0.8
    assert document["ratio_range"] == [0.75, 1.0]
    assert document["in_turns_per_s"] == 80
    assert document["bound_by"] == "forward"
    assert [one["ratio"] for one in document["rounds"]] == [0.8, 0.75, 1.0]
    assert summary(rounds, shared_cores=False)["in_turns_per_s"] is None


def test_the_bare_forward_gets_the_batches_of_the_workers_queue():
    settings = Settings(max_batch=4, max_batch_tokens=40)
    lengths = [3, 20, 5, 4, 19, 6, 50, 3, 4]
    batches = full_batches(lengths, lambda length: length, lambda length: 1, settings, urgent=False)
    assert sorted(length for batch in batches for length in batch) == sorted(lengths)
    for batch in batches:
        assert batch == sorted(batch)
        assert len(batch) == 1 or max(batch) * len(batch) <= 40
        assert len(batch) <= 4
    assert [20, 19] in batches or [19, 20] in batches  # like beside like


def test_a_round_tags_before_it_does_the_same_bare(maker):
    order = []

    class Bare:
        def __getattr__(self, name):
            return lambda *_, **__: order.append(name)

    made = [maker.make(number) for number in range(3)]

    def tag(products):
        order.append("tag")
        assert products == made
        return [[]] * 3, 0.5, 1.5

    one = run_round(made, tag, Bare(), urgent=False)
    assert (one.accept_per_s, one.end_to_end_per_s) == (6, 2)
    assert order == ["tag", "prepare", "collate", "forward", "views", "decode"]


# -- the times in the database -------------------------------------------------------------------------------


@pytest.fixture
def jobs(engine, settings, tenant):
    """Three jobs of the bulk lane, accepted at noon, a second apart."""
    ids = []
    for number in range(3):
        with transaction(engine) as session:
            _, job = accept(
                session, tenant_id=tenant, title=f"thing {number}", description="", external_id=None, photos=[],
                lane="bulk", idempotency=None, settings=settings,
            )  # fmt: skip
            ids.append(job.id)
        put(engine, job.id, submitted_at=NOON + timedelta(seconds=number))
    return ids


def put(engine, job_id, **columns):
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    with transaction(engine) as session:
        session.execute(text(f"UPDATE jobs SET {assignments} WHERE id = :id"), {"id": job_id, **columns})


def end(engine, job_id, started_s, finished_s, status="succeeded"):
    put(
        engine, job_id, status=status, started_at=NOON + timedelta(seconds=started_s),
        finished_at=NOON + timedelta(seconds=finished_s),
    )  # fmt: skip


def test_time_runs_from_the_first_claim_to_the_last_finish(engine, jobs):
    for job_id, started_s, finished_s in zip(jobs, (3, 2.5, 4), (5, 9, 6), strict=True):
        end(engine, job_id, started_s, finished_s)
    assert tagged_in(engine, jobs) == pytest.approx(6.5)


def test_a_worker_that_did_not_wait_is_an_error(engine, jobs):
    for job_id in jobs:
        end(engine, job_id, 1, 9)
    with pytest.raises(LaneNotHeldError, match="before all products were accepted"):
        tagged_in(engine, jobs)


def test_a_job_that_was_not_tagged_is_an_error(engine, jobs):
    for job_id in jobs:
        end(engine, job_id, 3, 9, status="cancelled")
    with pytest.raises(JobNotTaggedError, match="0 of 3"):
        tagged_in(engine, jobs)


def test_a_lane_without_a_worker_cannot_be_held():
    class Control:
        def cancel_consumer(self, lane, **_):
            return []

    class Celery:
        control = Control()

    with pytest.raises(LaneNotHeldError, match="0 of 1 workers answered"), held(Celery(), "bulk"):
        pytest.fail("it went on")
