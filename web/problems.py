"""Every error this service answers with: RFC 9457 problem details, one `type` for each kind.

    ProblemError            an answer of 4xx or 5xx, raised anywhere below a view
      .kind: ProblemKind    what went wrong: slug, status, title, what to do about it

A kind is part of the interface: clients branch on `type`, people read `detail`. The page
`/problems/<slug>` is rendered from the same table, so that a `type` can be opened in a browser.
This module knows nothing of products, photos or the database, and nothing of Flask: gunicorn's master
imports it (`web/gunicorn.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class ProblemKind:
    slug: str  # empty where there is no more to say than the status does (RFC 9457, 4.2.1)
    status: int
    title: str
    advice: str

    @property
    def type(self) -> str:
        return f"/problems/{self.slug}" if self.slug else "about:blank"


BAD_REQUEST = ProblemKind(
    "bad-request",
    400,
    "The request cannot be understood",
    "Check the request line and the headers: something in them is not valid HTTP.",
)
MALFORMED_JSON = ProblemKind(
    "malformed-json", 400, "The body is not readable JSON", "Send one JSON object, encoded as UTF-8."
)
MALFORMED_MULTIPART = ProblemKind(
    "malformed-multipart",
    400,
    "The body is not readable multipart/form-data",
    "Let an HTTP library build the form, and let it write the Content-Type header with its boundary.",
)
UNAUTHORIZED = ProblemKind(
    "unauthorized",
    401,
    "A valid API key is required",
    "Send the header `Authorization: Bearer <key>`. `python -m catalog key create` makes a key.",
)
PAGE_NEEDS_KEY = ProblemKind(
    "page-needs-key",
    403,
    "This page needs an API key",
    "Paste an API key into the page. The page opens without one only on the machine itself, when the "
    "service is bound to loopback.",
)
NOT_FOUND = ProblemKind(
    "not-found",
    404,
    "Nothing is here",
    "Check the address and the id. Products and jobs of another account are never shown.",
)
METHOD_NOT_ALLOWED = ProblemKind(
    "method-not-allowed",
    405,
    "This address does not take that method",
    "Use one of the methods in the Allow header.",
)
REQUEST_TIMEOUT = ProblemKind(
    "request-timeout",
    408,
    "The body arrived too slowly",
    "Send the request again over a faster connection, or with smaller photos.",
)
JOB_NOT_CANCELLABLE = ProblemKind(
    "job-not-cancellable",
    409,
    "Only a queued job can be cancelled",
    "Read the job: it is running already, or it has ended.",
)
IDEMPOTENCY_IN_PROGRESS = ProblemKind(
    "idempotency-key-in-progress",
    409,
    "A request with this Idempotency-Key is still running",
    "Wait a moment and send the same request again: the answer of the first one will be returned.",
)
ADDRESS_TOO_LONG = ProblemKind(
    "address-too-long",
    414,
    "The address is too long",
    "Send long values in the body, not in the address.",
)
HEADERS_TOO_LARGE = ProblemKind(
    "headers-too-large",
    431,
    "The headers are too large",
    "Send fewer or shorter headers.",
)
REQUEST_TOO_LARGE = ProblemKind(
    "request-too-large", 413, "The request is too large", "Send fewer or smaller photos in one request."
)
PHOTO_TOO_LARGE = ProblemKind(
    "photo-too-large",
    413,
    "A photo is too large",
    "Save the photo with a stronger compression or fewer pixels and send it again.",
)
UNSUPPORTED_BODY = ProblemKind(
    "unsupported-media-type",
    415,
    "This kind of body is not accepted",
    "Send multipart/form-data (with files) or application/json (with photo_urls).",
)
UNSUPPORTED_PHOTO = ProblemKind(
    "unsupported-photo",
    415,
    "A photo is not a JPEG, PNG, WebP or AVIF",
    "Convert the picture to JPEG, PNG, WebP or AVIF. The content counts, not the name of the file.",
)
UNKNOWN_HOST = ProblemKind(
    "unknown-host",
    421,
    "This service does not answer to that name",
    "Open the address that was printed at the start. A service bound to loopback answers only to "
    "localhost, 127.0.0.1 and [::1].",
)
INVALID_FIELDS = ProblemKind(
    "invalid-fields",
    422,
    "Some fields are not valid",
    "Read `errors`: each entry names a field and says what is wrong with it.",
)
INVALID_PARAMETERS = ProblemKind(
    "invalid-parameters",
    422,
    "Some query parameters are not valid",
    "Read `errors`: each entry names a parameter and says what is wrong with it.",
)
EMPTY_PRODUCT = ProblemKind(
    "empty-product",
    422,
    "A product needs a title or a photo",
    "Send a title, or at least one photo, or both.",
)
NOTHING_TO_CHANGE = ProblemKind(
    "nothing-to-change",
    422,
    "The request changes nothing",
    "Send at least one of title, description and photos.",
)
TOO_MANY_PHOTOS = ProblemKind(
    "too-many-photos", 422, "Too many photos for one product", "Choose the photos that show the product best."
)
PHOTO_UNREADABLE = ProblemKind(
    "photo-unreadable",
    422,
    "A photo is truncated or damaged",
    "Open the file on your side: if it looks complete, save it again and send the new file.",
)
PHOTO_TOO_MANY_PIXELS = ProblemKind(
    "photo-too-many-pixels",
    422,
    "A photo has too many pixels",
    "Scale the photo down: a few megapixels are more than the tagger uses.",
)
PHOTO_ANIMATED = ProblemKind("photo-animated", 422, "A photo is animated", "Send one still picture.")
PHOTO_URL_REFUSED = ProblemKind(
    "photo-url-refused",
    422,
    "A photo address is not acceptable",
    "Use a public https address without user name or redirect.",
)
PHOTO_URL_UNREACHABLE = ProblemKind(
    "photo-url-unreachable",
    422,
    "A photo could not be fetched",
    "Check that the address answers 200 with the picture itself, or upload the file.",
)
IDEMPOTENCY_MISMATCH = ProblemKind(
    "idempotency-key-reused",
    422,
    "This Idempotency-Key was used for another request",
    "Use a new key for a new request; repeat a key only with the same payload.",
)
IDEMPOTENCY_INVALID = ProblemKind(
    "idempotency-key-invalid",
    422,
    "The Idempotency-Key is not valid",
    "Use 1 to 255 visible ASCII characters, for example a UUID.",
)
INTERNAL = ProblemKind(
    "internal-error",
    500,
    "Something went wrong here",
    "Nothing is wrong with the request. Try again, and report the request id if it stays.",
)
QUEUE_FULL = ProblemKind(
    "queue-full",
    503,
    "The queue is full",
    "Nothing was stored. Send the request again after the time in the Retry-After header: about what workers need, at "
    "their rate of the last five minutes, to free a hundredth of the queue. It is 1 to 300 seconds, and 300 where they "
    "ended nothing. The other lane takes products meanwhile, unless it is full as well.",
)
BUSY = ProblemKind(
    "busy",
    503,
    "Too many uploads at once",
    "Nothing was stored. Send the request again after the time in the Retry-After header.",
)
UNAVAILABLE = ProblemKind(
    "service-unavailable",
    503,
    "A part of the service is not reachable",
    "Send the request again after the time in the Retry-After header.",
)

KINDS: Mapping[str, ProblemKind] = {
    kind.slug: kind for kind in list(globals().values()) if isinstance(kind, ProblemKind)
}

# Why a job ended without tags: the `type` of the `error` in a job, as workers and the catalog write it.
JOB_ENDINGS: Mapping[str, tuple[str, str]] = {
    "unreadable-photo": ("A photo cannot be read", "Send the product again with another copy of the photo."),
    "photo-missing": ("A photo is gone", "Send the product again: its photo is no longer in the store."),
    "photo-store-unavailable": ("The photos could not be read", "Send the product again later."),
    "unprepared": ("The product could not be prepared", "Report the id of the job to the operator."),
    "unwritten": ("The tags could not be stored", "Report the id of the job to the operator."),
    "untaggable": ("The model cannot tag this product", "Report the id of the job to the operator."),
    "device-too-slow": ("The device did not answer in time", "Send the product again later."),
    "device-failed": ("The device could not run the product", "Send the product again later."),
    "worker-stopped": ("The worker was stopped", "Send the product again."),
    "lease-ran-out": ("The worker did not answer", "Send the product again."),
    "superseded": ("The product was changed", "Read the newer job of the product."),
    "product-deleted": ("The product was deleted", "Nothing: the product is gone, and its job with it."),
}


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field; `field` is a dotted path (`photo_urls.0`)."""

    field: str
    detail: str


class ProblemError(Exception):
    """An answer that is a problem. `errors` names the fields, `headers` go out as they are."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{kind.slug}: {detail}")
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
