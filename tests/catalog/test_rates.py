from typing import TYPE_CHECKING

import pytest

from catalog import rates
from catalog.database import transaction
from catalog.rates import Rate
from catalog.views import Lane
from tests.catalog.traffic import fill, worked_off

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def measured(shop: "Shop", lane: Lane = "interactive") -> Rate | None:
    with transaction(shop.engine) as session:
        return rates.measure(session, lane)


def known(shop: "Shop", lane: Lane = "interactive") -> Rate:
    rate = measured(shop, lane)
    assert rate is not None
    return rate


def test_where_nothing_has_ended_lately_no_rate_is_known(shop: "Shop") -> None:
    assert measured(shop) is None
    worked_off(shop, "interactive", jobs=10, spacing_s=0.1, ago_s=rates.WINDOW_S)
    worked_off(shop, "bulk", jobs=10, spacing_s=0.1)
    shop.cancel(shop.accept()[1].id)
    assert measured(shop) is None


def test_what_ended_before_the_last_minutes_says_nothing_of_now(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=rates.SAMPLE, spacing_s=0.5, run_s=60, ago_s=rates.WINDOW_S)
    worked_off(shop, "interactive", jobs=10, spacing_s=0.2, run_s=0.1)
    rate = known(shop)
    assert (rate.jobs_per_s, rate.run_s) == (pytest.approx(5), pytest.approx(0.1))


def test_the_rate_is_that_of_the_time_in_which_there_was_work(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=20, spacing_s=0.25, run_s=0.1, ago_s=200)
    worked_off(shop, "interactive", jobs=10, spacing_s=0.2, run_s=0.1, ago_s=50)
    rate = known(shop)
    assert rate.jobs_per_s == pytest.approx(30 / (20 * 0.25 + 10 * 0.2))
    assert rate.run_s == pytest.approx(0.1)


def test_a_job_that_failed_took_its_time_as_well(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=10, spacing_s=0.5)
    shop.sql("UPDATE jobs SET status = 'failed'")
    assert known(shop).jobs_per_s == pytest.approx(2)


def test_jobs_that_were_queued_at_the_same_time_count_their_time_once(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=40, spacing_s=0.5)
    shop.sql("UPDATE jobs SET submitted_at = (SELECT min(submitted_at) FROM jobs)")
    assert known(shop).jobs_per_s == pytest.approx(2)


def test_a_lane_that_workers_have_stopped_to_serve_gets_slower_while_it_waits(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=100, spacing_s=0.1, ago_s=90)
    assert known(shop).jobs_per_s == pytest.approx(10)
    fill(shop, "interactive", 2)
    shop.sql("UPDATE jobs SET submitted_at = now() - interval '90 s' WHERE id = 'job_interactive2'")
    assert known(shop).jobs_per_s == pytest.approx(1, rel=0.1)


def test_of_many_jobs_the_newest_are_looked_at(shop: "Shop") -> None:
    worked_off(shop, "bulk", jobs=rates.SAMPLE, spacing_s=0.02)
    worked_off(shop, "bulk", jobs=100, spacing_s=1.0, ago_s=60)
    assert known(shop, "bulk").jobs_per_s == pytest.approx(50)


def test_what_ended_in_a_future_from_which_the_clock_was_set_back_says_nothing_of_now(shop: "Shop") -> None:
    worked_off(shop, "bulk", jobs=rates.SAMPLE, spacing_s=0.01, ago_s=-100)
    assert measured(shop, "bulk") is None
    worked_off(shop, "bulk", jobs=10, spacing_s=2.0)
    assert known(shop, "bulk").jobs_per_s == pytest.approx(0.5)


def test_a_clock_that_was_set_back_costs_no_answer(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=10, spacing_s=0.5)
    shop.sql("UPDATE jobs SET submitted_at = finished_at + interval '1 hour'")
    assert measured(shop) is None
    fill(shop, "interactive", 1)
    shop.sql("UPDATE jobs SET submitted_at = now() + interval '1 hour' WHERE status = 'queued'")
    assert measured(shop) is None


def test_of_an_import_that_has_waited_for_long_only_the_time_of_the_newest_endings_counts(
    shop: "Shop",
) -> None:
    worked_off(shop, "bulk", jobs=rates.SAMPLE, spacing_s=0.02)
    shop.sql("UPDATE jobs SET submitted_at = now() - interval '200 s'")
    assert known(shop, "bulk").jobs_per_s == pytest.approx(50, rel=0.01)
