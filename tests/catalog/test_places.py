from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from catalog import places
from catalog.database import transaction
from catalog.places import Place
from catalog.views import LANES, JobView, Lane
from tests.catalog.traffic import fill, plans, worked_off

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def place(shop: "Shop", job: JobView) -> Place:
    with transaction(shop.engine) as session:
        return places.find(session, job)


def test_a_job_waits_for_the_older_ones_of_its_lane(shop: "Shop") -> None:
    jobs = [shop.accept()[1] for _ in range(3)]
    shop.accept(lane="bulk")
    assert [place(shop, job).position for job in jobs] == [0, 1, 2]
    shop.claim_one(jobs[0].id)
    assert [place(shop, job).position for job in jobs[1:]] == [0, 1]
    shop.cancel(jobs[1].id)
    assert place(shop, jobs[2]).position == 0


def test_a_bulk_job_waits_for_every_interactive_one_as_well(shop: "Shop") -> None:
    shop.accept(lane="bulk")
    _, bulk = shop.accept(lane="bulk")
    shop.accept()
    shop.accept()
    assert place(shop, bulk).position == 3


def test_of_other_tenants_imports_only_their_turns_come_before_a_bulk_job(
    shop: "Shop", make_tenant: Callable[[str], str]
) -> None:
    fill(shop, "bulk", 50)
    small, tiny = shop.of(make_tenant("small")), shop.of(make_tenant("tiny"))
    tiny.accept(lane="bulk")
    mine = [small.accept(lane="bulk")[1] for _ in range(4)]
    # Of the import one turn more than there are own jobs ahead; the tiny one has a single job.
    assert [place(small, job).position for job in mine] == [0 + 1 + 1, 1 + 2 + 1, 2 + 3 + 1, 3 + 4 + 1]
    started = [job.id for _ in range(9) for job in shop.claim("any")]
    assert all(started.index(job.id) <= 2 * n + 2 for n, job in enumerate(mine))


def test_the_count_ends_at_its_limit(shop: "Shop", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_POSITION", 50)
    fill(shop, "interactive", 30)
    fill(shop, "bulk", 60)
    assert place(shop, shop.accept()[1]).position == 30
    assert place(shop, shop.accept(lane="bulk")[1]).position == 50


def test_the_count_of_other_tenants_ends_at_its_limit(
    shop: "Shop", make_tenant: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAX_TENANTS", 3)
    for number in range(5):
        shop.of(make_tenant(f"other {number}")).accept(lane="bulk")
    assert place(shop, shop.accept(lane="bulk")[1]).position == 3


def test_the_time_is_that_of_the_jobs_ahead_and_of_the_job_itself(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=200, spacing_s=1.0, run_s=5.0)
    fill(shop, "interactive", 200)
    found = place(shop, shop.accept()[1])
    assert found.position == 200
    assert found.eta_s == pytest.approx(200 * 1.0 + 5.0, rel=0.2)


def test_each_lane_ahead_takes_the_time_of_its_own_rate(shop: "Shop") -> None:
    worked_off(shop, "interactive", jobs=100, spacing_s=2.0, run_s=100.0)
    worked_off(shop, "bulk", jobs=200, spacing_s=1.0, run_s=5.0)
    fill(shop, "interactive", 40)
    fill(shop, "bulk", 100)
    found = place(shop, shop.accept(lane="bulk")[1])
    assert found.position == 140
    assert found.eta_s == pytest.approx(40 * 2.0 + 100 * 1.0 + 5.0, rel=0.2)


def test_a_lane_in_which_nothing_waits_takes_no_time_whatever_its_rate(shop: "Shop") -> None:
    worked_off(shop, "bulk", jobs=20, spacing_s=1.0, run_s=5.0)
    assert place(shop, shop.accept(lane="bulk")[1]) == Place(0, 5.0)


def test_where_no_rate_is_known_there_is_no_time(shop: "Shop") -> None:
    worked_off(shop, "bulk", jobs=10, spacing_s=0.1)
    assert place(shop, shop.accept()[1]) == Place(0, None)
    assert place(shop, shop.accept(lane="bulk")[1]) == Place(1, None)


@pytest.mark.parametrize("lane", LANES)
def test_counting_and_measuring_read_no_more_than_their_limits(shop: "Shop", lane: Lane) -> None:
    newest = {"id": f"job_{lane}1", "limit": 100, "tenants": 100}
    statements: list[tuple[str, dict[str, Any]]] = [
        (places._AHEAD_BY_TURNS[lane].text, newest),
        (places._IN_LANE[lane].text, {"limit": 100}),
        (places.rates._MEASURE[lane].text, {"window": "300 s", "sample": 100}),
    ]
    for plan in plans(shop, lane, statements):
        assert not [line for line in plan if "Seq Scan on jobs" in line or "Sort Key" in line], plan
