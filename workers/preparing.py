"""From claimed jobs to products that wait for the device: their photos read, prepared and queued.

Knows neither Celery nor torch. A product that cannot be prepared is settled here and takes no other along.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from catalog.embedding_cache import TenantItem
from catalog.errors import PhotoMissing, StoreUnavailable
from catalog.jobs import ClaimedJob
from catalog.photo_store import PhotoStore
from catalog.settings import Settings
from catalog.views import problem
from workers.batch_runner import BatcherError
from workers.batcher import Batcher
from workers.metrics import WorkerMetrics
from workers.outcomes import Outcomes
from workers.served import JobFault, Prepared, Remembered, Runtime

Input = TypeVar("Input")
Output = TypeVar("Output")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claimed:
    """The jobs of a message, the model that will tag them, and what it made of their photos and texts before; and those
    that the message names and that are to be taken one by one.
    """

    jobs: list[ClaimedJob]
    suspects: list[str]
    runtime: Runtime
    photos: Mapping[TenantItem, bytes]
    texts: Mapping[TenantItem, bytes]


@dataclass(frozen=True)
class Read:
    """What a job is prepared from: its photos in order, of which `new_photos` are new to the model, and
    what is remembered of its text.
    """

    runtime: Runtime
    photos: Sequence[bytes | Remembered]
    new_photos: tuple[str, ...]
    text: Remembered | None


@dataclass(frozen=True)
class InFlight:
    """A job on its way through the device, and the photos of it that the model sees for the first time, in order."""

    job: ClaimedJob
    runtime: Runtime
    future: Future[Any]
    new_photos: tuple[str, ...]


class Preparing:
    """Of any messages, on the threads of its callers."""

    # Jobs of one message that are prepared together: one by one, the threads of an import would wake each other for
    # every product; all at once, the photos of a whole message would lie in memory.
    AT_A_TURN = 16

    def __init__(
        self,
        settings: Settings,
        photo_store: PhotoStore,
        batcher: Batcher[Any, Any],
        outcomes: Outcomes,
        metrics: WorkerMetrics,
        bulk_preparers: int,
    ) -> None:
        self._settings = settings
        self._photo_store = photo_store
        self._batcher = batcher
        self._outcomes = outcomes
        self._metrics = metrics
        self._bulk_may_prepare = threading.Semaphore(bulk_preparers)

    def __call__(self, claimed: Claimed) -> Iterator[InFlight]:
        """Those of the jobs that are on their way through the device; all others are settled."""
        for start in range(0, len(claimed.jobs), self.AT_A_TURN):
            yield from self._submit_all(claimed.jobs[start : start + self.AT_A_TURN], claimed)

    def _submit_all(self, jobs: Sequence[ClaimedJob], claimed: Claimed) -> list[InFlight]:
        """Prepare the jobs and queue them for the device; without those whose outcome is settled already."""
        read = self._each([(job, claimed) for job in jobs], self._read)
        # An import has always something to prepare; somebody who waits must not have to share all cores with it.
        with self._bulk_may_prepare if jobs[0].lane == "bulk" else contextlib.nullcontext():
            prepared = self._each(read, self._prepare)
        return [in_flight for _, in_flight in self._each(prepared, self._submit)]

    def _each(
        self, items: Iterable[tuple[ClaimedJob, Input]], step: Callable[[ClaimedJob, Input], Output]
    ) -> list[tuple[ClaimedJob, Output]]:
        """What `step` makes of each job's item; a job that it raises for is settled and left out."""
        made = []
        for job, item in items:
            try:
                made.append((job, step(job, item)))
            except JobFault as fault:
                self._outcomes.fail(job, problem("unreadable-photo", "A photo cannot be read", str(fault)))
            except PhotoMissing as missing:
                # Intake may be about to put it back: whoever deletes another product with the same photo may have come
                # in between, see `web.acceptance`. One that is really gone fails the job after its last attempt.
                self._outcomes.put_back(job, problem("photo-missing", "A photo is gone", str(missing)))
            except StoreUnavailable as error:
                self._outcomes.put_back(
                    job, problem("photo-store-unavailable", "The photos cannot be read now", str(error))
                )
            except BatcherError as error:
                self._outcomes.put_back_unrun(job, error)
            except Exception as error:
                # Nothing that one product triggers may take its neighbours in the message along. It is tried again,
                # since it may be ours (memory, a full disk), and fails with this problem after its last attempt.
                log.exception("a job could not be prepared", job=job.id)
                self._outcomes.put_back(
                    job, problem("unprepared", "The product could not be prepared", repr(error))
                )
        return made

    def _read(self, job: ClaimedJob, claimed: Claimed) -> Read:
        known = {
            photo_id: Remembered(claimed.photos[job.tenant_id, photo_id])
            for photo_id in job.photo_ids
            if (job.tenant_id, photo_id) in claimed.photos
        }
        with self._metrics.photo_read_seconds.time():
            photos = [
                known.get(photo_id) or self._photo_store.model_view(photo_id) for photo_id in job.photo_ids
            ]
        new = tuple(photo_id for photo_id in job.photo_ids if photo_id not in known)
        return Read(claimed.runtime, photos, new, remembered_text(job, claimed.texts))

    def _prepare(self, job: ClaimedJob, read: Read) -> tuple[Read, Any]:
        with self._metrics.decode_seconds.time():
            return read, read.runtime.prepare(job.title, job.description, read.photos, read.text)

    def _submit(self, job: ClaimedJob, prepared: tuple[Read, Any]) -> InFlight:
        read, example = prepared
        urgent = job.lane == "interactive"
        future = self._batcher.submit(
            Prepared(read.runtime, example, urgent),
            urgent=urgent,
            timeout=self._settings.forward_timeout_s,
        )
        self._metrics.photos_seen(
            remembered=len(job.photo_ids) - len(read.new_photos), new=len(read.new_photos)
        )
        if job.text_id is not None:
            self._metrics.text_seen(remembered=read.text is not None)
        return InFlight(job, read.runtime, future, read.new_photos)


def remembered_text(job: ClaimedJob, texts: Mapping[TenantItem, bytes]) -> Remembered | None:
    """What is remembered of the job's text."""
    features = None if job.text_id is None else texts.get((job.tenant_id, job.text_id))
    return None if features is None else Remembered(features)
