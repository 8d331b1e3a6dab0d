"""A worker without Celery and without a model: real rows, real photos, a stand-in for the tagger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine, select

from catalog.database import transaction
from catalog.jobs import get_job
from catalog.photo_store import PhotoStore
from catalog.products import accept, revise
from catalog.queue import make_message
from catalog.settings import Settings
from catalog.tables import Tag
from catalog.views import JobView, Lane, PhotoRef
from workers.batch_runner import Limits
from workers.batcher import Batcher
from workers.breaker import Breaker
from workers.identity import worker_identity
from workers.leases import LeaseKeeper
from workers.metrics import WorkerMetrics
from workers.room import Room
from workers.served import JobFault, Prepared, Remembered, Served, collate, forward, length
from workers.tasks import TagProducts


def tagging(
    title: str, photo_features: tuple[bytes | None, ...] = (), text_features: bytes | None = None
) -> Any:
    evidence = SimpleNamespace(text=0.8, photos=None)
    alternative = SimpleNamespace(value="other", confidence=0.1)
    tag = SimpleNamespace(
        attribute="title", value=title, confidence=0.9, decision="auto", evidence=evidence,
        alternatives=(alternative,),
    )  # fmt: skip
    return SimpleNamespace(
        tags=(tag,), embedding=(0.6, 0.8), photo_features=photo_features, text_features=text_features
    )


@dataclass(eq=False)
class StandIn:
    """Tags a product with its title. `on_forward` and `on_prepare` run before, and may raise.

    `photos` and `texts` are those of each product it prepared, the latter None where it was not remembered; the
    features of a photo are the photo's own bytes, and those of a text its title. `patient` says of each batch whether
    it was patient.
    """

    name: str = "stand-in"
    version: str = "1"
    precision: str = "fp32"
    on_forward: Callable[[list[str]], None] = lambda titles: None
    on_prepare: Callable[[str], None] = lambda title: None
    photos: list[tuple[bytes | Remembered, ...]] = field(default_factory=list)
    texts: list[Remembered | None] = field(default_factory=list)
    new: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    patient: list[tuple[list[str], bool]] = field(default_factory=list)

    @property
    def features_version(self) -> str:
        return f"{self.version}:{self.precision}"

    def prepare(
        self,
        title: str,
        description: str,
        photos: Sequence[bytes | Remembered],
        text: Remembered | None = None,
    ) -> str:
        self.on_prepare(title)
        new = tuple(photo for photo in photos if isinstance(photo, bytes))
        if any(photo.startswith(b"broken") for photo in new):
            raise JobFault("a photo cannot be decoded: it is broken")
        self.photos.append(tuple(photos))
        self.texts.append(text)
        self.new[title] = new
        return title

    @staticmethod
    def new_photos(title: str) -> int:
        return 0

    @staticmethod
    def length(title: str) -> int:
        return len(title)

    def collate(self, titles: list[str], *, patient: bool) -> list[str]:
        self.patient.append((list(titles), patient))
        return titles

    def forward(self, titles: list[str]) -> list[Any]:
        self.on_forward(titles)
        return [tagging(title, self.new[title], title.encode()) for title in titles]


class Desk:
    """One worker process and one seller, in one test."""

    def __init__(self, engine: Engine, settings: Settings, photo_store: PhotoStore, tenant: str) -> None:
        self.engine, self.settings, self.photo_store, self.tenant = engine, settings, photo_store, tenant
        self.runtime = StandIn()
        self.metrics = WorkerMetrics()
        self.room = Room(settings.max_ready)
        self.sent: list[tuple[list[str], str]] = []
        self.slept: list[float] = []
        self.now = 0.0
        self.breaker = Breaker(lambda: self.now)
        self.leases = LeaseKeeper(engine, settings, lambda ids, lane: self.sent.append((list(ids), lane)))
        self.served = Served(lambda settings: self.runtime, settings, self.metrics.model_served)
        self.batcher: Batcher[Prepared, Any] = Batcher(
            forward,
            limits=Limits(max_batch=8, max_tokens=1000, max_ready=100, forward_timeout_s=1000),
            length=length,
            collate=collate,
            give_up=lambda reason: None,
        )
        self.batcher.start()
        self.tag = self._task()

    def use_settings(self, **changes: Any) -> None:
        self.settings = self.settings.model_copy(update=changes)
        self.tag = self._task()

    def _task(self) -> TagProducts:
        return TagProducts(
            settings=self.settings,
            engine=self.engine,
            photo_store=self.photo_store,
            served=self.served,
            batcher=self.batcher,
            leases=self.leases,
            room=self.room,
            metrics=self.metrics,
            breaker=self.breaker,
            worker=worker_identity(),
            bulk_preparers=2,
            clock=lambda: self.now,
            sleep=self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def close(self) -> None:
        self.batcher.close(drain=False, timeout=10)

    def accept(
        self, title: str = "shirt", photos: Sequence[PhotoRef] = (), lane: Lane = "interactive"
    ) -> str:
        with transaction(self.engine) as session:
            return accept(
                session, tenant_id=self.tenant, title=title, description="", external_id=None,
                photos=photos, lane=lane, idempotency=None, settings=self.settings,
            )[1].id  # fmt: skip

    def edit(self, job_id: str, title: str) -> str:
        """A new title for the product of a job; returns the id of the job this makes."""
        with transaction(self.engine) as session:
            return revise(
                session, self.tenant, self.job(job_id).product_id,
                title=title, lane="interactive", settings=self.settings,
            )[1].id  # fmt: skip

    def show(self, job_id: str, photos: Sequence[PhotoRef]) -> str:
        """Other photos for the product of a job; returns the id of the job this makes."""
        with transaction(self.engine) as session:
            return revise(
                session, self.tenant, self.job(job_id).product_id,
                photos=photos, lane="interactive", settings=self.settings,
            )[1].id  # fmt: skip

    def store_photo(self, digit: str, content: bytes) -> PhotoRef:
        photo_id = digit * 64
        self.photo_store.put(photo_id, content, content)
        return PhotoRef(photo_id, 1, 1, len(content), "image/jpeg")

    def run(self, *job_ids: str, lane: Lane = "interactive") -> None:
        self.tag(make_message(job_ids), lane)

    def job(self, job_id: str) -> JobView:
        with transaction(self.engine) as session:
            return get_job(session, self.tenant, job_id)

    def tags(self, job_id: str) -> list[str | None]:
        with transaction(self.engine) as session:
            return list(session.scalars(select(Tag.value).where(Tag.job_id == job_id)))

    def outcomes(self) -> dict[str, float]:
        return {
            sample.labels["outcome"]: sample.value
            for metric in self.metrics.jobs.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Logs nothing: rendering a traceback with all its locals takes seconds."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def desk(engine: Engine, settings: Settings, photo_store: PhotoStore, tenant: str) -> Iterator[Desk]:
    made = Desk(engine, settings, photo_store, tenant)
    yield made
    made.close()
