"""What the catalog hands out: frozen values, never rows. Whoever holds one holds no connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = ("interactive", "bulk")

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("queued", "running", "succeeded", "failed", "cancelled")
ENDED: tuple[Status, ...] = ("succeeded", "failed", "cancelled")

# A problem in the sense of RFC 9457: {"type": …, "title": …, "detail": …}.
Problem = dict[str, Any]
MAX_DETAIL_CHARS = 2000


def problem(kind: str, title: str, detail: str) -> Problem:
    """A problem as it is stored with a job; its `type` is relative to the service's problem pages.

    `detail` may be what any library says: PostgreSQL stores neither NUL nor half of a surrogate pair.
    """
    storable = detail[:MAX_DETAIL_CHARS].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
    return {"type": kind, "title": title, "detail": storable}


SUPERSEDED = problem(
    "superseded", "The product was changed", "A newer job of the same product took this job's place."
)
DELETED = problem(
    "product-deleted", "The product was deleted", "Its product was deleted before the job ended."
)
LEASE_RAN_OUT = problem(
    "lease-ran-out",
    "The worker did not answer",
    "Each attempt at this job ended without an answer from its worker.",
)


@dataclass(frozen=True)
class PhotoRef:
    """One stored photo. `id` is the SHA-256 of the stored bytes, `bytes` their number, sizes are in pixels."""

    id: str
    width: int
    height: int
    bytes: int
    media_type: str


@dataclass(frozen=True)
class TagView:
    """One tag. `value` is None where the model abstains; `evidence` has the keys `text` and `photos`."""

    attribute: str
    value: str | None
    confidence: float
    decision: str
    evidence: Mapping[str, float | None] = field(default_factory=lambda: {"text": None, "photos": None})
    alternatives: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ProductView:
    """A product. `tags` are those of its newest job that succeeded, None before the first; `job_id` is the newest."""

    id: str
    external_id: str | None
    title: str
    description: str
    photos: tuple[PhotoRef, ...]
    tags: tuple[TagView, ...] | None
    job_id: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class JobView:
    """A job. `tags` is None until it has succeeded, and empty once its product is deleted."""

    id: str
    product_id: str
    status: Status
    lane: Lane
    attempts: int
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    model_name: str | None
    model_version: str | None
    tags: tuple[TagView, ...] | None
    error: Problem | None

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self.status in ENDED
