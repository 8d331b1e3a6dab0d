"""A seller and a worker for the tests of the catalog."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from catalog import jobs, products
from catalog.database import transaction
from catalog.jobs import ClaimedJob, Finished
from catalog.settings import Settings
from catalog.views import LANES, JobView, PhotoRef, ProductView, TagView

PROBLEM = {"type": "test", "title": "A problem", "detail": "made by a test"}


@dataclass(frozen=True)
class Shop:
    """One tenant and one worker against one catalog; each call is a transaction of its own."""

    engine: Engine
    settings: Settings
    tenant: str

    @staticmethod
    def photo(digit: str) -> PhotoRef:
        return PhotoRef(digit * 64, width=30, height=40, bytes=500, media_type="image/jpeg")

    @staticmethod
    def tags(value: str, count: int = 2) -> list[TagView]:
        evidence = {"text": 0.8, "photos": None}
        alternatives = ({"value": "other", "confidence": 0.1},)
        return [
            TagView(f"attribute_{number}", value, 0.9, "auto", evidence, alternatives)
            for number in range(count)
        ]

    def with_settings(self, **changes: Any) -> "Shop":
        return replace(self, settings=self.settings.model_copy(update=changes))

    def of(self, tenant: str) -> "Shop":
        return replace(self, tenant=tenant)

    def accept(
        self, title: str = "A shirt", photos: Sequence[PhotoRef] = (), lane: Any = "interactive"
    ) -> tuple[ProductView, JobView]:
        with transaction(self.engine) as session:
            return products.accept(
                session,
                tenant_id=self.tenant,
                title=title,
                description="",
                external_id=None,
                photos=photos,
                lane=lane,
                idempotency=None,
                settings=self.settings,
            )

    def revise(
        self, product_id: str, lane: Any = "interactive", **changes: Any
    ) -> tuple[ProductView, JobView]:
        with transaction(self.engine) as session:
            return products.revise(
                session, self.tenant, product_id, lane=lane, settings=self.settings, **changes
            )

    def product(self, product_id: str) -> ProductView:
        with transaction(self.engine) as session:
            return products.get_product(session, self.tenant, product_id)

    def delete(self, product_id: str) -> list[str]:
        with transaction(self.engine) as session:
            return products.delete_product(session, self.tenant, product_id)

    def job(self, job_id: str) -> JobView:
        with transaction(self.engine) as session:
            return jobs.get_job(session, self.tenant, job_id)

    def claim(self, *job_ids: str, worker: str = "worker") -> list[ClaimedJob]:
        """What one message for each lane claims, in which the jobs of that lane are named, and those that are none."""
        lane_of = {
            row.id: row.lane
            for row in self.sql("SELECT id, lane FROM jobs WHERE id = ANY(:ids)", ids=list(job_ids))
        }
        claimed: list[ClaimedJob] = []
        for lane in LANES:
            named = [job_id for job_id in job_ids if lane_of.get(job_id, lane) == lane]
            with transaction(self.engine) as session:
                claimed += jobs.claim(session, lane, named, worker=worker, settings=self.settings)
        return claimed

    def claim_suspects(self, *job_ids: str, worker: str = "worker") -> list[ClaimedJob]:
        with transaction(self.engine) as session:
            return jobs.claim_suspects(session, job_ids, worker=worker, settings=self.settings)

    def claim_one(self, job_id: str) -> ClaimedJob:
        """That very job, whatever else is due: the others are in other hands meanwhile, and passed over."""
        with transaction(self.engine) as session:
            session.execute(text("SELECT 1 FROM jobs WHERE id <> :id FOR UPDATE SKIP LOCKED"), {"id": job_id})
            [claimed] = self.claim(job_id)
        return claimed

    def finish(self, job: ClaimedJob, value: str = "blue", embedding: Sequence[float] | None = None) -> bool:
        with transaction(self.engine) as session:
            return bool(jobs.finish(session, [Finished(job, self.tags(value), embedding, "m", "v")]))

    def fail(self, job: ClaimedJob) -> bool:
        with transaction(self.engine) as session:
            return jobs.fail(session, job, PROBLEM)

    def put_back(self, job: ClaimedJob, delay_s: float = 0) -> str | None:
        with transaction(self.engine) as session:
            return jobs.put_back(session, job, PROBLEM, delay_s)

    def cancel(self, job_id: str) -> JobView:
        with transaction(self.engine) as session:
            return jobs.cancel(session, self.tenant, job_id)

    def let_lease_lapse(self, job_id: str) -> None:
        """Time passes for this job's lease, and for the sweep's look at it."""
        self.sql("UPDATE jobs SET lease_until = now(), resend_at = now() WHERE id = :id", id=job_id)

    def let_resend_come(self) -> None:
        """Time passes until every live job's next message is due; time waits for no lock, so neither does this."""
        self.sql(
            "UPDATE jobs SET resend_at = now() WHERE id IN "
            "(SELECT id FROM jobs WHERE status IN ('queued', 'running') ORDER BY id FOR UPDATE SKIP LOCKED)"
        )

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        with transaction(self.engine) as session:
            result = session.execute(text(statement), parameters)
            return list(result.all()) if result.returns_rows else []


@pytest.fixture
def shop(engine: Engine, settings: Settings, tenant: str) -> Shop:
    return Shop(engine, settings, tenant)
