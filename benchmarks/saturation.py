"""A lane of an installation that is filled while its worker waits, then emptied as fast as the worker can.

So accepting and tagging, which share the cores of one machine, are measured one after the other. The worker stays
loaded and warm: only its consumption of the lane is paused, by Celery's remote control.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from sqlalchemy import Engine, Row, text

from benchmarks.installation import Installation
from benchmarks.latency import JobNotTaggedError
from benchmarks.products import MadeProduct, post
from catalog.database import transaction
from catalog.views import Lane
from samples.client import Client

CLIENTS = (
    4  # connections that send at once: more than a machine's web process can use, so that it is never idle
)
ANSWER_S = 20.0  # of a worker that is busy
POLL_END_S = 1.5  # the worker's last blocking poll of the lane, which lasts 1 s, is over by then
LOOK_S = 0.2
STUCK_S = 120.0  # without a single job ending


class LaneNotHeldError(Exception):
    """The worker did not pause, so accepting and tagging cannot be told apart."""


@dataclass(frozen=True)
class Accepted:
    job_ids: list[str]
    photo_ids: list[list[str]]  # of each product
    took_s: float


@contextmanager
def held(celery: Celery, lane: Lane, workers: int = 1) -> Iterator[None]:
    """The workers take nothing of the lane inside the block, and go on at its end."""
    _tell(celery.control.cancel_consumer, lane, workers)
    try:
        time.sleep(POLL_END_S)
        yield
    finally:
        _tell(celery.control.add_consumer, lane, workers)


def _tell(command: Any, lane: Lane, workers: int) -> None:
    answers = command(lane, reply=True, timeout=ANSWER_S, limit=workers) or []
    if len(answers) < workers or not all("ok" in answer for worker in answers for answer in worker.values()):
        raise LaneNotHeldError(
            f"{len(answers)} of {workers} workers answered on their control queues in {ANSWER_S:.0f} s: {answers}"
        )


def accept(installation: Installation, made: Sequence[MadeProduct], lane: Lane) -> Accepted:
    """POST the products over some connections at once. Raises ApiError."""

    def send(part: Sequence[MadeProduct]) -> list[dict[str, Any]]:
        with Client(installation.base_url, installation.key) as client:
            return [post(client, product, lane) for product in part]

    parts = [made[n::CLIENTS] for n in range(CLIENTS)]
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(send, parts))
    took = time.perf_counter() - began
    in_order = [answers[n % CLIENTS][n // CLIENTS] for n in range(len(made))]
    return Accepted(
        job_ids=[answer["job"]["id"] for answer in in_order],
        photo_ids=[[photo["id"] for photo in answer["product"]["photos"]] for answer in in_order],
        took_s=took,
    )


_PROGRESS = text(
    """
    SELECT count(*) FILTER (WHERE status IN ('queued', 'running')) AS waiting,
           count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
           max(submitted_at) > min(started_at) AS overlap,
           extract(epoch FROM max(finished_at) - min(started_at))::float AS took_s
    FROM jobs WHERE id = ANY(:ids)
    """
)


def tagged_in(engine: Engine, job_ids: Sequence[str]) -> float:
    """Seconds from the first claim to the last finish of these jobs by PostgreSQL's clock, once all have ended.

    Raises JobNotTaggedError, and LaneNotHeldError where the worker began before all was accepted.
    """
    row = ended(engine, job_ids)
    if row.overlap:
        raise LaneNotHeldError("the worker began before all products were accepted")
    took: float = row.took_s
    return took


def ended(engine: Engine, job_ids: Sequence[str]) -> Row[Any]:
    """Waits until these jobs have ended; what _PROGRESS says of them. Raises JobNotTaggedError."""
    waiting, changed_at = len(job_ids), time.monotonic()
    while True:
        with transaction(engine) as session:
            row = session.execute(_PROGRESS, {"ids": list(job_ids)}).one()
        if row.waiting == 0:
            break
        if row.waiting != waiting:
            waiting, changed_at = row.waiting, time.monotonic()
        if time.monotonic() - changed_at > STUCK_S:
            raise JobNotTaggedError(f"{waiting} jobs wait and none has ended for {STUCK_S:.0f} s")
        time.sleep(LOOK_S)
    if row.succeeded != len(job_ids):
        raise JobNotTaggedError(f"{row.succeeded} of {len(job_ids)} jobs ended tagged")
    return row
