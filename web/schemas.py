"""The shapes of the HTTP interface: what may come in, what goes out. The OpenAPI document is made of these.

Limits on lengths are settings of the installation: `intake` checks them and `openapi` writes them into the document.
What can never be right (NUL, lone surrogates, unknown fields, wrong types) is refused here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

from catalog.places import MAX_POSITION
from catalog.views import Lane, Status

Decision = Literal["auto", "review", "abstain"]


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL, and a lone surrogate has no UTF-8 form."""
    if "\0" in text:
        raise ValueError("must not contain the NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode without lone surrogates") from error
    return text.strip()


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Text = Annotated[str, AfterValidator(_storable)]
Moment = Annotated[datetime, PlainSerializer(_rfc3339, when_used="json")]
# In this order: behind the validator the limit would speak of items.
PhotoUrl = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_storable)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ProductIn(_In):
    """A product to be tagged. A title or a photo must be there."""

    title: Text | None = Field(None, examples=["Navy blue running shoes"])
    description: Text | None = Field(None, examples=["Light mesh upper, rubber sole."])
    external_id: Text | None = Field(None, description="Your own id of the product.", examples=["SKU-9"])
    lane: Lane = Field("interactive", description="`bulk` for catalogue imports: cheaper, and nobody waits.")
    photo_urls: list[PhotoUrl] = Field(
        default_factory=list,
        description="Public https addresses of photos; fetched at once, no redirects.",
        examples=[["https://images.example.com/shoe.jpg"]],
    )


class ProductChange(_In):
    """What changes; a field that is absent stays as it is, and `null` or an empty value clears it."""

    title: Text | None = None
    description: Text | None = None
    lane: Lane = "interactive"
    photo_urls: list[PhotoUrl] | None = Field(
        None, description="Replaces all photos of the product; an empty list removes them."
    )


class _Query(BaseModel):
    # Not strict: a query string holds text only.
    model_config = ConfigDict(extra="forbid")


class PageQuery(_Query):
    limit: int = Field(20, ge=1, le=100, description="Products on a page.")
    cursor: str | None = Field(None, max_length=500, description="`next_cursor` of the page before.")


class WaitQuery(_Query):
    wait: float = Field(
        0,
        ge=0,
        le=30,
        allow_inf_nan=False,
        description="Seconds to hold the answer until the job has ended. The answer may come "
        "earlier when many requests wait: look at `status`.",
    )


class NoQuery(_Query):
    """A call that takes no query parameter says so instead of ignoring a typing error."""


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PhotoOut(_Out):
    id: str = Field(description="SHA-256 of the stored bytes.")
    width: int
    height: int


class EvidenceOut(_Out):
    text: float | None = Field(description="Probability of the same value from the text alone.")
    photos: float | None = Field(description="Probability of the same value from the photos alone.")


class AlternativeOut(_Out):
    value: str
    confidence: float


class TagOut(_Out):
    attribute: str
    value: str | None = Field(description="null when the decision is `abstain`.")
    confidence: float
    decision: Decision
    evidence: EvidenceOut
    alternatives: list[AlternativeOut]


class ModelRef(_Out):
    name: str
    version: str = Field(description="SHA-256 over the files of the checkpoint.")


class JobError(_Out):
    """Why the job ended without tags, as problem details."""

    model_config = ConfigDict(from_attributes=True, extra="allow")

    type: str = "about:blank"
    title: str
    detail: str | None = None


Position = Annotated[
    int | None,
    Field(
        description="Jobs that are taken before this one: of its lane, and for a bulk job also the interactive ones. "
        "Accounts take turns: of each other account at most one job more than you have ahead of this one. "
        f"Counted up to {MAX_POSITION}, which then means so many or more. null unless the job is queued."
    ),
]
EtaS = Annotated[
    float | None,
    Field(
        description="Seconds until the job will have ended, estimated by the rate of the last five minutes; where "
        f"`position` is {MAX_POSITION}, the least it can be. null unless the job is queued, and while no rate is known."
    ),
]


class JobOut(_Out):
    id: str
    product_id: str
    status: Status
    lane: Lane
    position: Position
    eta_s: EtaS
    attempts: int
    submitted_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    model: ModelRef | None = Field(description="What tagged the product; null until then.")
    tags: list[TagOut] | None = Field(
        description="null until the job has succeeded. An attribute that does not apply to the product has no tag."
    )
    error: JobError | None


class ProductOut(_Out):
    id: str
    external_id: str | None
    title: str
    description: str
    photos: list[PhotoOut]
    job_id: str = Field(description="The newest job of the product.")
    tags: list[TagOut] | None = Field(description="The current tags; null until a job has succeeded.")
    created_at: Moment
    updated_at: Moment


class ProductPage(_Out):
    products: list[ProductOut]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class AcceptedProduct(_Out):
    id: str
    external_id: str | None
    title: str
    description: str
    photos: list[PhotoOut]


class AcceptedJob(_Out):
    id: str
    status: Status
    lane: Lane
    position: Position
    eta_s: EtaS
    submitted_at: Moment


class Accepted(_Out):
    product: AcceptedProduct
    job: AcceptedJob


class ScopeOut(_Out):
    """Products that carry one of `values` for `attribute`."""

    attribute: str
    values: list[str]


class AttributeOut(_Out):
    name: str
    multiple: bool = Field(description="Whether a product may carry several values of it at once.")
    values: list[str]
    applies_when: ScopeOut | None = Field(
        None, description="Absent where it applies to every product; other products get no tag for it."
    )


class ServedTaxonomy(_Out):
    attributes: list[AttributeOut]


class ServedModel(_Out):
    name: str
    version: str = Field(description="SHA-256 over the files of the checkpoint.")
    metrics: dict[str, object] = Field(description="What was measured when it was trained.")


class Readiness(_Out):
    ready: bool
    database: bool
    broker: bool
    worker: bool


class FieldErrorOut(_Out):
    field: str
    detail: str


class ProblemOut(_Out):
    """Problem details of RFC 9457."""

    type: str = Field(examples=["/problems/photo-too-large"])
    title: str
    status: int
    detail: str
    errors: list[FieldErrorOut] | None = Field(None, description="One entry for each field at fault.")
    request_id: str | None = Field(None, description="Finds this request in the log.")
