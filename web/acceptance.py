"""One product into the catalog: photos to the store, the rows in one transaction, then the message.

The order is what makes it safe. A mark that photos come, so that those of a process that dies are found and removed;
then the photos, because a job must never be visible before they are; rows and the answer to the idempotency key
together, because a retry must find both or neither; the message last, because it is only a hint. What a refusal leaves
in the store is removed again.
Knows the catalog; knows HTTP only as far as an answer is a status, headers and a body.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from catalog import idempotency, photos, places
from catalog.database import transaction
from catalog.errors import Unavailable
from catalog.idempotency import IdempotencyKey, StoredAnswer
from catalog.photo_store import PhotoStore
from catalog.places import Place
from catalog.settings import Settings
from catalog.views import JobView, ProductView
from web.broker import Broker
from web.photos import PreparedPhoto
from web.retry_after import retry_after
from web.schemas import Accepted, AcceptedJob, AcceptedProduct, PhotoOut

log = structlog.get_logger(__name__)

Write = Callable[[Session], tuple[ProductView, JobView]]


@dataclass(frozen=True)
class Acceptance:
    answer: StoredAnswer
    job: JobView | None  # None: an answer that was given before


class Acceptor:
    """Safe to share between threads."""

    def __init__(self, settings: Settings, engine: Engine, store: PhotoStore, broker: Broker) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._broker = broker
        # Keys of refused requests that could not be given back because the database was away as well: who repeats the
        # request, as a 503 says, must not be told that it still runs.
        self._unreleased: deque[IdempotencyKey] = deque(maxlen=10_000)

    def accept(
        self,
        tenant_id: str,
        key: IdempotencyKey | None,
        photos: Callable[[], Sequence[bytes]],
        prepare: Callable[[Sequence[bytes]], Sequence[PreparedPhoto]],
        write: Callable[[Sequence[PreparedPhoto]], Write],
        turn: AbstractContextManager[None],
    ) -> Acceptance:
        """`photos` may fetch them, `prepare` checks them, `write` makes the rows; each may refuse, and then nothing
        stays. What takes a processor is done inside `turn`; what waits for others is not.
        """
        self._release_keys()
        try:
            if key is not None:
                with transaction(self._engine) as session:
                    given_before = idempotency.begin(session, key, self._settings)
                if given_before is not None:
                    return Acceptance(given_before, None)
            given = photos()
            with turn:
                prepared = prepare(given)
                job, answer = self._store_all(tenant_id, key, prepared, write(prepared))
        except BaseException:
            if key is not None:
                self._unreleased.append(key)
                self._release_keys()
            raise
        self._broker.send(job.id, job.lane)
        return Acceptance(answer, job)

    def _store_all(
        self, tenant_id: str, key: IdempotencyKey | None, prepared: Sequence[PreparedPhoto], write: Write
    ) -> tuple[JobView, StoredAnswer]:
        try:
            if prepared:
                with transaction(self._engine) as session:
                    photos.announce(session, tenant_id, [photo.ref for photo in prepared])
            self._put(prepared)
            with transaction(self._engine) as session:
                product, job = write(session)
                answer = _answer(product, job, places.find(session, job))
                if key is not None:
                    idempotency.complete(session, key, answer.status, answer.headers, answer.body)
        except BaseException:
            self._remove(prepared)
            raise
        try:
            # Again: a product that was deleted meanwhile may have taken the same photo along.
            self._put(prepared)
        except Unavailable as error:
            # The product is accepted; in that rare case alone its job waits for the photo and fails in the end.
            log.warning("photos not put a second time", job_id=job.id, reason=str(error))
        return job, answer

    def _put(self, prepared: Sequence[PreparedPhoto]) -> None:
        for photo in prepared:
            self._store.put(photo.ref.id, photo.original, photo.model_view)

    def _remove(self, prepared: Sequence[PreparedPhoto]) -> None:
        """What no product holds; a photo that another product holds stays. What cannot be removed now is announced, and
        the sweep finds it.
        """
        try:
            photos.remove_released(self._engine, self._store, [photo.ref.id for photo in prepared])
        except Unavailable as error:
            log.warning("photos of a refused request kept for now", reason=str(error))

    def _release_keys(self) -> None:
        while self._unreleased:
            try:
                key = self._unreleased.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                with transaction(self._engine) as session:
                    idempotency.release(session, key)
            except Unavailable as error:
                self._unreleased.append(key)
                log.warning("idempotency key not released for now", reason=str(error))
                return
            except Exception:
                # The request has an error of its own to tell; the lock on the key lapses by itself.
                log.exception("idempotency key not released")


def _answer(product: ProductView, job: JobView, place: Place) -> StoredAnswer:
    document = Accepted(
        product=AcceptedProduct(
            id=product.id,
            external_id=product.external_id,
            title=product.title,
            description=product.description,
            photos=[
                PhotoOut(id=photo.id, width=photo.width, height=photo.height) for photo in product.photos
            ],
        ),
        job=AcceptedJob(
            id=job.id,
            status=job.status,
            lane=job.lane,
            position=place.position,
            eta_s=place.eta_s,
            submitted_at=job.submitted_at,
        ),
    )
    headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": retry_after(place)}
    return StoredAnswer(202, headers, json.dumps(document.model_dump(mode="json"), ensure_ascii=False))
