"""A seller who goes on sending products while things break, at a steady rate.

What is refused was not accepted; a message that the broker did not take is left to the sweep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from catalog.errors import Unavailable
from catalog.views import Lane
from samples.client import ApiError, Client, Sample
from tests.faults.installation import Installation, wait_for
from web.broker import Broker

# The id of the job, or None where the product was refused or nobody knows.
Offer = Callable[[str, Lane], str | None]


def intake(installation: Installation) -> Offer:
    """What web does with a product, without its process."""
    broker = Broker(installation.settings, unsent=lambda jobs: None)  # the sweep sends those

    def offer(title: str, lane: Lane) -> str | None:
        try:
            job_id = installation.accept_one(title, lane)
        except Unavailable:
            return None
        broker.send(job_id, lane)
        return job_id

    return offer


def through_web(client: Client, photo: bytes) -> Offer:
    """Over HTTP, with a photo. The client is the load's alone."""

    def offer(title: str, lane: Lane) -> str | None:
        try:
            answer = client.upload(Sample(title, "", "", "photo.jpg", photo))
        except (ApiError, OSError):
            return None
        return str(answer["job"]["id"])

    return offer


class Load:
    """`told` are the ids of the jobs it was told of; a job in whose commit the database died may exist as well."""

    def __init__(self, offer: Offer, per_s: float, prefix: str = "product") -> None:
        self.told: list[str] = []
        self.refused = 0
        self._offer = offer
        self._per_s = per_s
        self._prefix = prefix
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure

    def wait_until(self, products: int) -> None:
        """Until that many have been accepted in all."""
        wait_for(
            lambda: len(self.told) >= products or self._failure is not None,
            f"{products} products",
            patience_s=60 + products / self._per_s * 10,
        )

    def _run(self) -> None:
        try:
            due, number = time.monotonic(), 0
            while not self._over.wait(max(0.0, due - time.monotonic())):
                # What a standstill kept from being sent is not sent all at once: that would be another load.
                due = max(due, time.monotonic() - 1) + 1 / self._per_s
                number += 1
                job_id = self._offer(f"{self._prefix} {number}", "bulk" if number % 10 else "interactive")
                if job_id is None:
                    self.refused += 1
                else:
                    self.told.append(job_id)
        except BaseException as error:
            self._failure = error
