"""The benchmark under load: its arrivals and its arithmetic."""

import itertools

import pytest
from sqlalchemy import text

from benchmarks.installation import Installation
from benchmarks.latency import JobNotTaggedError
from benchmarks.products import MadeProduct
from benchmarks.saturation import CLIENTS
from benchmarks.under_load import (
    SHARES,
    ImportTooSmallError,
    arrivals,
    require_running,
    sending,
    started_at,
    summary,
    tagged_after,
)
from catalog.database import transaction
from catalog.products import accept


def test_arrivals_are_random_at_the_rate_and_the_same_for_a_seed():
    plan = arrivals(5.0, 2000, seed=1)
    assert plan == arrivals(5.0, 2000, seed=1) != arrivals(5.0, 2000, seed=2)
    assert plan == sorted(plan)
    assert plan[-1] == pytest.approx(2000 / 5.0, rel=0.1)
    gaps = [after - before for before, after in itertools.pairwise(plan)]
    mean = sum(gaps) / len(gaps)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.2)  # Poisson


def test_a_start_that_comes_late_counts_from_when_it_should_have_been():
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    def start(product, since):
        now[0] += 3.0  # starting takes longer than the time to the next arrival
        return product, since

    made = [MadeProduct(name, "", ()) for name in "abc"]
    found = started_at([1.0, 2.0, 9.0], made, start, clock=lambda: now[0], sleep=sleep)
    assert [(product.title, since) for product, since in found] == [("a", 101.0), ("b", 102.0), ("c", 109.0)]
    assert slept == [1.0, 2.0]  # the second was late: it should have been sent at 102, and went at 104


class Service:
    """Answers for a job what it was given, one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def call(self, *_):
        return {"job": {"id": "job_1", "status": "queued"}}

    def job(self, job_id, wait_s):
        return {"id": job_id, "status": self.answers.pop(0), "error": None}


def test_a_job_that_nobody_could_wait_for_is_asked_for_again():
    service = Service("queued", "running", "succeeded")
    assert tagged_after(service, MadeProduct("a", "", ()), since=0.0) > 0
    assert service.answers == []


def test_a_job_that_failed_is_an_error():
    with pytest.raises(JobNotTaggedError, match="is failed"):
        tagged_after(Service("failed"), MadeProduct("a", "", ()), since=0.0)


def test_an_import_that_ended_too_early_is_an_error(engine, settings, tenant):
    with transaction(engine) as session:
        _, job = accept(
            session, tenant_id=tenant, title="thing", description="", external_id=None, photos=[], lane="bulk",
            idempotency=None, settings=settings,
        )  # fmt: skip
    require_running(engine, [job.id])
    with transaction(engine) as session:
        session.execute(text("UPDATE jobs SET status = 'cancelled', finished_at = now()"))
    with pytest.raises(ImportTooSmallError, match="raise --import"):
        require_running(engine, [job.id])


def test_an_import_is_sent_as_long_as_the_block_lasts(monkeypatch, tmp_path):
    titles = []

    def post(client, product, lane):
        assert lane == "bulk"
        titles.append(product.title)
        return {"job": {"id": f"job of {product.title}"}}

    monkeypatch.setattr("benchmarks.under_load.post_product", post)
    (tmp_path / "api-key").write_text("tsk_a")
    here = Installation("http://127.0.0.1:1", tmp_path)
    products = [MadeProduct(str(number), "", ()) for number in range(100_000)]
    with sending(here, products) as sent:
        assert len(sent) >= CLIENTS
    assert sorted(sent) == sorted(f"job of {title}" for title in titles)
    assert CLIENTS <= len(set(titles)) == len(titles) < len(products)


def test_an_import_that_was_sent_too_early_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.under_load.post_product", lambda *_: {"job": {"id": "job_1"}})
    (tmp_path / "api-key").write_text("tsk_a")
    few = [MadeProduct(str(number), "", ()) for number in range(CLIENTS)]
    with (
        pytest.raises(ImportTooSmallError, match=f"all {CLIENTS} products of the import were sent"),
        sending(Installation("http://127.0.0.1:1", tmp_path), few) as sent,
    ):
        assert len(sent) == len(few)


def one_round(idle, imported, per_s, sent=(0.2, 0.5)):
    return {
        "forward": [0.01, 0.01], "idle": idle, "import": imported, "sending": list(sent), "saturation_per_s": per_s,
        **{f"load {share}": [share, share] for share in SHARES},
    }  # fmt: skip


def test_the_summary_holds_percentiles_of_all_and_the_median_of_each_round():
    rounds = [
        one_round([0.1, 0.1], [0.2, 0.4], 20),
        one_round([0.1, 0.3], [0.2, 0.2], 30),
        one_round([0.1] * 2, [0.1] * 2, 22),
    ]
    document = summary(rounds)
    assert document["ms"]["idle"]["p50"] == 100 and document["ms"]["idle"]["p50_of_rounds"] == [100, 200, 100]
    assert document["ms"]["load 0.8"]["p99"] == 800
    assert document["saturation_per_s"] == 22
    assert document["headline"][0]["value"] == 1.0
    assert document["headline"][0]["range"] == [1.0, 3.0]
    idle, imported, sending = (document["ms"][state]["p99"] for state in ("idle", "import", "sending"))
    assert [line["value"] for line in document["headline"][1:3]] == [
        pytest.approx(imported / idle, abs=0.01), pytest.approx(sending / idle, abs=0.01)
    ]  # fmt: skip
