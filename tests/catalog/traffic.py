"""Many jobs at once, queued or ended, for the tests that count them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.catalog.conftest import Shop


def fill(shop: "Shop", lane: str, jobs: int) -> None:
    """Queues jobs of which the last one came first, a millisecond apart, the newest just now."""
    shop.sql(
        "INSERT INTO jobs (id, tenant_id, product_id, revision, lane, resend_at, submitted_at) "
        "SELECT 'job_' || :lane || n, :tenant, 'prd_' || n, 1, :lane, now(), now() - n * interval '1 ms' "
        "FROM generate_series(1, :jobs) AS n",
        lane=lane,
        tenant=shop.tenant,
        jobs=jobs,
    )


def worked_off(
    shop: "Shop", lane: str, *, jobs: int, spacing_s: float, run_s: float = 0.0, ago_s: float = 0.0
) -> None:
    """Jobs that ended `spacing_s` apart, the newest `ago_s` ago; each was queued until the one before had ended."""
    shop.sql(
        """
        INSERT INTO jobs (id, tenant_id, product_id, revision, lane, resend_at, status, submitted_at, started_at,
                          finished_at)
        SELECT 'job_ended_' || :lane || :spacing || n, :tenant, 'prd_' || n, 1, :lane, now(), 'succeeded',
               ended_at - :spacing * interval '1 s', ended_at - :run * interval '1 s', ended_at
        FROM (SELECT n, now() - (:ago + (n - 1) * :spacing) * interval '1 s' AS ended_at
              FROM generate_series(1, :jobs) AS n) AS ended
        """,
        lane=lane,
        tenant=shop.tenant,
        jobs=jobs,
        spacing=spacing_s,
        run=run_s,
        ago=ago_s,
    )


def plans(shop: "Shop", lane: str, statements: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[list[str]]:
    """The plans of the statements on a lane of 30,000 jobs, whatever the planner knows of the table: nothing, as right
    after an import; that the lane is empty, as after a quiet time; and how full it is.
    """
    worked_off(shop, lane, jobs=3000, spacing_s=0.01)
    for known in ("nothing", "empty", "full"):
        shop.sql("DELETE FROM jobs WHERE status = 'queued'")
        if known == "empty":
            shop.sql("ANALYZE jobs")
        fill(shop, lane, 30_000)
        if known == "full":
            shop.sql("ANALYZE jobs")
        for statement, parameters in statements:
            explained = shop.sql(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}", **parameters)
            yield [row[0] for row in explained]
