"""The life of one queue message in a worker: claim, prepare, run, finish, acknowledge.

Knows neither Celery nor torch: `workers.app` calls it from a Celery thread, and whatever owns the device is
reached through `workers.served`. Returning means that the message may be acknowledged, and it always returns: the
rows say what became of the jobs, and the sweep sends again what is still due.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as DeadlinePassed
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from catalog import embedding_cache
from catalog.database import transaction
from catalog.embedding_cache import TenantItem
from catalog.errors import InvalidMessage, PhotoMissing, StoreUnavailable, Unavailable
from catalog.jobs import ClaimedJob, Finished, claim, claim_by_turns, fail, finish_many, put_back
from catalog.photo_store import PhotoStore
from catalog.queue import parse_message
from catalog.settings import Settings
from catalog.views import Problem, TagView, problem
from workers.batch_runner import BatcherClosed, BatcherError, ItemFailed
from workers.batcher import Batcher
from workers.leases import LeaseKeeper
from workers.metrics import Outcome, WorkerMetrics
from workers.room import Room
from workers.served import JobFault, Prepared, Remembered, Runtime, Served
from workers.together import Together

Answer = TypeVar("Answer")
Input = TypeVar("Input")
Output = TypeVar("Output")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claimed:
    """The jobs of a message, the model that will tag them, and what it made of their photos and texts before."""

    jobs: list[ClaimedJob]
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


class TagProducts:
    """Runs messages on the threads of its callers, any number at once."""

    # A database that is away for a restart is waited for; one that is away for longer leaves the jobs to the
    # sweep. Well under the queue's visibility timeout, so that a waiting message is not delivered twice.
    PATIENCE_S = 30.0
    # A job's device must be free of what was ahead of it by then; far beyond what the bounded queue can cost.
    DEADLINE_IN_FORWARDS = 2
    # Jobs of one message that are prepared together: one by one, the threads of an import would wake each other for
    # every product; all at once, the photos of a whole message would lie in memory.
    AT_A_TURN = 16

    def __init__(
        self,
        *,
        settings: Settings,
        engine: Engine,
        photo_store: PhotoStore,
        served: Served,
        batcher: Batcher[Any, Any],
        leases: LeaseKeeper,
        room: Room,
        metrics: WorkerMetrics,
        worker: str,
        bulk_preparers: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._photo_store = photo_store
        self._served = served
        self._batcher = batcher
        self._leases = leases
        self._room = room
        self._metrics = metrics
        self._worker = worker
        self._bulk_may_prepare = threading.Semaphore(bulk_preparers)
        self._clock = clock
        self._sleep = sleep
        # Interactive jobs come one in a message: those that come at the same time share their transactions.
        self._claim_named = Together(self._claim_together)
        self._finish_named = Together(self._finish_together)

    def __call__(self, message: dict[str, Any], lane: str) -> None:
        try:
            job_ids = parse_message(message)
        except InvalidMessage as error:
            log.error("message refused", reason=str(error))
            self._metrics.messages.labels(lane, "refused").inc()
            return
        # Only what there is room for is claimed, so that what one process holds, and a kill costs, is bounded.
        with self._room.for_jobs(len(job_ids), lane, timeout=self.PATIENCE_S) as admitted:
            claimed = self._claim(job_ids, lane) if admitted else None
            self._metrics.messages.labels(lane, "claimed" if claimed else "nothing_to_do").inc()
            if claimed:
                self._leases.hold(claimed.jobs)
                try:
                    self._tag(claimed)
                finally:
                    self._leases.let_go(claimed.jobs)

    # -- the stages --------------------------------------------------------------------------------------

    def _claim(self, job_ids: Sequence[str], lane: str) -> Claimed | None:
        """None when nothing of the message is due."""
        with self._metrics.stage_seconds.labels("claim").time():
            claimed = self._take(claim_by_turns, job_ids) if lane == "bulk" else self._claim_named(job_ids)
        return claimed if claimed and claimed.jobs else None

    def _claim_together(self, messages: Sequence[Sequence[str]]) -> list[Claimed | None]:
        """Claims for several messages in one transaction; a job that two of them name goes to the first."""
        job_ids = dict.fromkeys(job_id for message in messages for job_id in message)
        claimed = self._take(claim, list(job_ids))
        if claimed is None:
            return [None] * len(messages)
        jobs = {job.id: job for job in claimed.jobs}
        return [
            replace(claimed, jobs=[jobs.pop(job_id) for job_id in message if job_id in jobs])
            for message in messages
        ]

    def _take(self, take: Callable[..., list[ClaimedJob]], job_ids: Sequence[str]) -> Claimed | None:
        runtime = self._served.runtime  # for the whole message, also when another takes over meanwhile

        def claim_them(session: Session) -> Claimed:
            jobs = take(session, job_ids, worker=self._worker, settings=self._settings)
            photos = {(job.tenant_id, photo_id) for job in jobs for photo_id in job.photo_ids}
            texts = {(job.tenant_id, job.text_id) for job in jobs if job.text_id is not None}
            version, max_age_days = runtime.version, self._settings.embedding_cache_days
            return Claimed(
                jobs,
                runtime,
                embedding_cache.PHOTOS.recall(session, photos, version, max_age_days),
                embedding_cache.TEXTS.recall(session, texts, version, max_age_days),
            )

        return self._persistently("claim", claim_them)

    def _tag(self, claimed: Claimed) -> None:
        running: list[InFlight] = []
        with self._metrics.stage_seconds.labels("prepare").time():
            for start in range(0, len(claimed.jobs), self.AT_A_TURN):
                running += self._submit_all(claimed.jobs[start : start + self.AT_A_TURN], claimed)
        # The watchdog ends a process whose device hangs, so that no future stays open; a deadline of our own
        # nevertheless, because Celery's thread pool has none and a thread that waits for ever is lost.
        deadline = self._clock() + self.DEADLINE_IN_FORWARDS * self._settings.forward_timeout_s
        finished = []
        with self._metrics.stage_seconds.labels("wait").time():
            for one in running:
                tagging = self._result(one.job, one.future, deadline)
                if tagging is not None:
                    finished.append(self._finished(one, tagging))
        if finished:
            with self._metrics.stage_seconds.labels("finish").time():
                self._finish(finished)

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
                self._fail(job, problem("unreadable-photo", "A photo cannot be read", str(fault)))
            except PhotoMissing as missing:
                self._fail(job, problem("photo-missing", "A photo is gone", str(missing)))
            except StoreUnavailable as error:
                self._put_back(
                    job, problem("photo-store-unavailable", "The photos cannot be read now", str(error))
                )
            except BatcherError as error:
                self._put_back_unrun(job, error)
            except Exception as error:
                # Nothing that one product triggers may take its neighbours in the message along. It is tried again,
                # since it may be ours (memory, a full disk), and fails with this problem after its last attempt.
                log.exception("a job could not be prepared", job=job.id)
                self._put_back(job, problem("unprepared", "The product could not be prepared", repr(error)))
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
        future = self._batcher.submit(
            Prepared(read.runtime, example),
            urgent=job.lane == "interactive",
            timeout=self._settings.forward_timeout_s,
        )
        self._metrics.photos_seen(
            remembered=len(job.photo_ids) - len(read.new_photos), new=len(read.new_photos)
        )
        if job.text_id is not None:
            self._metrics.text_seen(remembered=read.text is not None)
        return InFlight(job, read.runtime, future, read.new_photos)

    def _result(self, job: ClaimedJob, future: Future[Any], deadline: float) -> Any | None:
        """What the device made of one job; None when its outcome is settled already."""
        try:
            return future.result(timeout=max(0.0, deadline - self._clock()))
        except ItemFailed as error:
            log.warning("a job failed on the device", job=job.id, reason=str(error))
            self._fail(job, problem("untaggable", "The model cannot tag this product", str(error)))
        except (DeadlinePassed, CancelledError):
            future.cancel()
            self._put_back(
                job, problem("device-too-slow", "The device did not answer in time", "it is overloaded")
            )
        except BatcherError as error:
            self._put_back_unrun(job, error)
        return None

    def _finished(self, one: InFlight, tagging: Any) -> Finished:
        # The model looks at its first few photos only, so there may be fewer features than new photos.
        features = zip(one.new_photos, tagging.photo_features, strict=False)
        kept = bool(self._settings.embedding_cache_days)
        return Finished(
            job=one.job,
            tags=tuple(tag_views(tagging.tags)),
            embedding=tagging.embedding,
            model_name=one.runtime.name,
            model_version=one.runtime.version,
            photo_embeddings={photo_id: seen for photo_id, seen in features if kept and seen is not None},
            text_embedding=tagging.text_features if kept else None,
        )

    def _finish(self, finished: Sequence[Finished]) -> None:
        """Write all outcomes of a message in one transaction.

        A connection lost during the commit leaves open whether it happened, so it is simply done again: the
        second time writes nothing for a job that has ended already. Which is why, after a repetition, a job
        that was not written may well have succeeded.
        """
        write = self._write if finished[0].job.lane == "bulk" else self._finish_named
        written = write(finished)
        if written is None:
            return  # The leases lapse and the sweep sends the jobs again.
        for entry in finished:
            outcome: Outcome = "succeeded" if entry.job.id in written else "lease_lost"
            self._metrics.job_left(entry.job.lane, outcome, entry.job.attempts)

    def _finish_together(self, messages: Sequence[Sequence[Finished]]) -> list[set[str] | None]:
        """Writes the outcomes of several messages in one transaction."""
        entries = [entry for message in messages for entry in message]
        if len({entry.job.id for entry in entries}) < len(entries):
            # A job that was taken a second time after its lease had lapsed: only one of the two may be written.
            return [self._write(message) for message in messages]
        return [self._write(entries)] * len(messages)

    def _write(self, finished: Sequence[Finished]) -> set[str] | None:
        def finish_them(session: Session) -> set[str]:
            return finish_many(session, finished)

        return self._persistently("finish", finish_them)

    # -- outcomes other than tags ------------------------------------------------------------------------

    def _fail(self, job: ClaimedJob, reason: Problem) -> None:
        self._settle(job, "failed", lambda session: fail(session, job, reason))

    def _put_back(self, job: ClaimedJob, reason: Problem, delay_s: float | None = None) -> None:
        delay = self._settings.retry_delay_s if delay_s is None else delay_s
        self._settle(job, "put_back", lambda session: put_back(session, job, reason, delay))

    def _put_back_unrun(self, job: ClaimedJob, error: BatcherError) -> None:
        if isinstance(error, BatcherClosed):
            # Another worker can take it at once.
            self._put_back(job, problem("worker-stopped", "The worker was stopped", str(error)), delay_s=0)
        else:
            self._put_back(job, problem("device-failed", "The device could not run the product", str(error)))

    def _settle(self, job: ClaimedJob, outcome: Outcome, write: Callable[[Session], bool]) -> None:
        written = self._persistently(outcome, write)
        if written is not None:
            self._metrics.job_left(job.lane, outcome if written else "lease_lost", job.attempts)

    def _persistently(self, what: str, write: Callable[[Session], Answer]) -> Answer | None:
        """Run a transaction, again while the database is away; None when it stays away."""
        deadline = self._clock() + self.PATIENCE_S
        pause = 0.1
        while True:
            try:
                with transaction(self._engine) as session:
                    return write(session)
            except Unavailable as error:
                if self._clock() + pause > deadline:
                    log.error("the database stays away; the sweep will send the jobs again", stage=what)
                    return None
                log.warning("the database does not answer; trying again", stage=what, reason=str(error))
                self._sleep(pause)
                pause = min(2.0, pause * 2)


def remembered_text(job: ClaimedJob, texts: Mapping[TenantItem, bytes]) -> Remembered | None:
    """What is remembered of the job's text."""
    features = None if job.text_id is None else texts.get((job.tenant_id, job.text_id))
    return None if features is None else Remembered(features)


def tag_views(tags: Iterable[Any]) -> Iterable[TagView]:
    """From the model's tags to the catalog's."""
    for tag in tags:
        yield TagView(
            attribute=tag.attribute,
            value=tag.value,
            confidence=tag.confidence,
            decision=tag.decision,
            evidence={"text": tag.evidence.text, "photos": tag.evidence.photos},
            alternatives=tuple({"value": a.value, "confidence": a.confidence} for a in tag.alternatives),
        )
