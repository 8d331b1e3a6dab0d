"""The life of one queue message in a worker: claim, prepare, run, finish, acknowledge.

Knows neither Celery nor torch: `workers.app` calls it from a Celery thread, and whatever owns the device is
reached through `workers.served`. It always returns: with True, the message may be acknowledged, since the rows say
what became of the jobs, and the sweep sends again what is still due; with False, nothing was claimed for it.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as DeadlinePassed
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from catalog import embedding_cache
from catalog.errors import InvalidMessage
from catalog.jobs import ClaimedJob, Finished, claim, claim_suspects, suspects_among
from catalog.photo_store import PhotoStore
from catalog.queue import parse_message
from catalog.settings import Settings
from catalog.views import Lane, TagView, problem
from workers.batch_runner import BatcherError, ItemFailed
from workers.batcher import Batcher
from workers.breaker import Breaker
from workers.leases import LeaseKeeper
from workers.metrics import WorkerMetrics
from workers.outcomes import Outcomes
from workers.preparing import Claimed, InFlight, Preparing
from workers.room import Room
from workers.served import Served
from workers.together import Together

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Named:
    """What a message says: that so many jobs of its lane are due. `job_ids` are those that are not held here."""

    job_ids: Sequence[str]
    most: int


class TagProducts:
    """Runs messages on the threads of its callers, any number at once."""

    # A room that stays full for so long gives the message back, well before the queue's visibility timeout would.
    PATIENCE_S = 30.0
    # How long a message waits for a database that does not answer this worker. It may answer other workers, and what
    # waits here they cannot take.
    CLAIM_PATIENCE_S = 5.0
    # A device that has settled no batch for so many times the time-out of a forward is waited for no longer.
    SILENCE_IN_FORWARDS = 2

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
        breaker: Breaker,
        worker: str,
        bulk_preparers: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._served = served
        self._batcher = batcher
        self._leases = leases
        self._room = room
        self._metrics = metrics
        self._worker = worker
        self._breaker = breaker
        self.outcomes = Outcomes(settings, engine, metrics, breaker, clock, sleep)
        self._prepare = Preparing(settings, photo_store, batcher, self.outcomes, metrics, bulk_preparers)
        # Interactive jobs come one in a message: those that come at the same time share their transactions.
        self._claim_interactive = Together(self._claim_together)
        self._one_suspect = threading.Lock()

    def __call__(self, message: dict[str, Any], lane: Lane) -> bool:
        """False when the message is for another worker, or for later: this process had no room for it, or no answer
        from the database.
        """
        try:
            job_ids = parse_message(message)
        except InvalidMessage as error:
            log.error("message refused", reason=str(error))
            self._metrics.messages.labels(lane, "refused").inc()
            return True
        # Only what there is room for is claimed, so that what one process holds, and a kill costs, is bounded.
        with self._room.for_jobs(len(job_ids), lane, timeout=self.PATIENCE_S) as admitted:
            if not admitted:
                self._metrics.messages.labels(lane, "no_room").inc()
                return False
            claimed = self._claim(Named(self._leases.not_held(job_ids), len(job_ids)), lane)
            if claimed is None:
                self._metrics.messages.labels(lane, "database_away").inc()
                return False
            found = self._tagged(claimed) + self._tag_suspects(claimed.suspects)
            self._metrics.messages.labels(lane, "claimed" if found else "nothing_to_do").inc()
        return True

    # -- the stages --------------------------------------------------------------------------------------

    def _tag_suspects(self, job_ids: Sequence[str]) -> int:
        """One after the other, in the whole process: what kills it then costs the others at most an attempt."""
        found, until = 0, time.monotonic() + self.PATIENCE_S
        for job_id in job_ids:
            left_s = until - time.monotonic()
            # What is not looked at is sent again by the sweep.
            if left_s <= 0 or not self._batcher.alive() or not self._one_suspect.acquire(timeout=left_s):
                break
            try:
                found += self._tagged(self._take(claim_suspects, [job_id]))
            finally:
                self._one_suspect.release()
        return found

    def _tagged(self, claimed: Claimed | None) -> int:
        """How many jobs were claimed; of each it is written what became of it."""
        if claimed is None or not claimed.jobs:
            return 0
        self._leases.hold(claimed.jobs)
        try:
            self._tag(claimed)
        finally:
            self._leases.let_go(claimed.jobs)
        return len(claimed.jobs)

    def _claim(self, message: Named, lane: Lane) -> Claimed | None:
        """None when the database stays away."""
        with self._metrics.stage_seconds.labels("claim").time():
            if lane == "interactive":
                return self._claim_interactive(message)
            return self._take_due([message], lane)

    def _claim_together(self, messages: Sequence[Named]) -> list[Claimed | None]:
        """Claims for several messages in one transaction; each gets as many of the jobs as it may."""
        claimed = self._take_due(messages, "interactive")
        if claimed is None:
            return [None] * len(messages)
        jobs, suspects = iter(claimed.jobs), set(claimed.suspects)
        return [
            replace(
                claimed,
                jobs=list(itertools.islice(jobs, message.most)),
                suspects=[job_id for job_id in message.job_ids if job_id in suspects],
            )
            for message in messages
        ]

    def _take_due(self, messages: Sequence[Named], lane: Lane) -> Claimed | None:
        job_ids = dict.fromkeys(job_id for message in messages for job_id in message.job_ids)
        take = functools.partial(claim, lane=lane, most=sum(message.most for message in messages))
        return self._take(take, list(job_ids))

    def _take(self, take: Callable[..., list[ClaimedJob]], job_ids: Sequence[str]) -> Claimed | None:
        runtime = self._served.runtime  # for the whole message, also when another takes over meanwhile

        def claim_them(session: Session) -> Claimed:
            jobs = take(session, job_ids=job_ids, worker=self._worker, settings=self._settings)
            # Others may be taken than those that are named.
            left = set(job_ids) - {job.id for job in jobs}
            photos = {(job.tenant_id, photo_id) for job in jobs for photo_id in job.photo_ids}
            texts = {(job.tenant_id, job.text_id) for job in jobs if job.text_id is not None}
            version, max_age_days = runtime.features_version, self._settings.embedding_cache_days
            return Claimed(
                jobs,
                suspects_among(session, sorted(left)) if left else [],
                runtime,
                embedding_cache.PHOTOS.recall(session, photos, version, max_age_days),
                embedding_cache.TEXTS.recall(session, texts, version, max_age_days),
            )

        # While the database refuses this worker, a message is taken as a trial: its product must not wait for that,
        # since another worker may be let in.
        patience_s = 0.0 if self._breaker.tripped else self.CLAIM_PATIENCE_S
        return self.outcomes.persistently("claim", claim_them, patience_s)

    def _tag(self, claimed: Claimed) -> None:
        with self._metrics.stage_seconds.labels("prepare").time():
            running = list(self._prepare(claimed))
        finished = []
        with self._metrics.stage_seconds.labels("wait").time():
            for one in running:
                tagging = self._result(one.job, one.future)
                if tagging is not None:
                    finished.append(self._finished(one, tagging))
        if finished:
            with self._metrics.stage_seconds.labels("finish").time():
                self.outcomes.finish(finished)

    def _result(self, job: ClaimedJob, future: Future[Any]) -> Any | None:
        """What the device made of one job; None when its outcome is settled already."""
        try:
            return self._wait(future)
        except ItemFailed as error:
            log.warning("a job failed on the device", job=job.id, reason=str(error))
            self.outcomes.fail(job, problem("untaggable", "The model cannot tag this product", str(error)))
        except DeadlinePassed:
            self.outcomes.put_back(
                job, problem("device-too-slow", "The device did not answer in time", "it ends no batch")
            )
        except BatcherError as error:
            self.outcomes.put_back_unrun(job, error)
        return None

    def _wait(self, future: Future[Any]) -> Any:
        """However much is ahead of it: a slow device is no fault of the job, and costs it no attempt.

        Raises DeadlinePassed where the device goes on no more. The watchdog ends such a process before, so that no
        future stays open; Celery's thread pool has no limit of its own, and a thread that waits for ever is lost.
        """
        silent, settled = 0, self._batcher.settled
        while True:
            try:
                return future.result(timeout=self._settings.forward_timeout_s)
            except DeadlinePassed:
                # One by one: where this process stood still, all of it seems to have passed at once.
                silent = silent + 1 if self._batcher.settled == settled else 0
                if silent >= self.SILENCE_IN_FORWARDS:
                    raise
                settled = self._batcher.settled

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
            features_version=one.runtime.features_version,
            photo_embeddings={photo_id: seen for photo_id, seen in features if kept and seen is not None},
            text_embedding=tagging.text_features if kept else None,
        )


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
