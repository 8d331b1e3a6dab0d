"""From the body of a POST or PATCH to one checked upload: texts, and photos as bytes, nothing stored.

Reads multipart and JSON, holds every limit of the settings, fetches photo addresses when it is asked to, and bounds
what all requests together may hold in memory. Knows nothing of the database, the store or what becomes of an upload.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Any, Generic, TypeVar

from flask import Request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from catalog import idempotency
from catalog.settings import Settings
from web import multipart, photos, problems, reading
from web.budget import Budget
from web.photo_urls import PhotoUrlFetcher
from web.problems import FieldError, ProblemError
from web.schemas import ProductChange, ProductIn

Content = TypeVar("Content", ProductIn, ProductChange)

# The longest body the limits allow: 20,500 characters as escaped surrogate pairs (12 bytes each) and
# eight addresses make 270 kB. JSON is parsed as a whole, so the general limit is too much for it.
MAX_JSON_BYTES = 1_000_000
# A client slower than this (about 1 Mbit/s), after a first half minute, holds a thread for nothing.
_MIN_BYTES_PER_S = 100_000
_BODY_GRACE_S = 30
_MAX_REPORTED_ERRORS = 20
# Large bodies that are held in memory at once, in largest requests; a decoded photo comes on top of it. A slow line may
# hold its place for minutes, so one account gets no more than its own places.
_BODIES_AT_ONCE, _BODIES_OF_ONE = 3, 2
_SMALL_BYTES = MAX_JSON_BYTES
# Small ones that arrive at once, by number, as each holds a thread meanwhile (of 64 by default, see `web.__main__`): of
# all, and of one account. Whole ones take no time, so only those that drip in are ever refused.
_SMALL_AT_ONCE = 48, 24
_BODY_WAIT_S = 10
_TOO_MANY = "Too many uploads are running; try again shortly."


@dataclass(frozen=True)
class Upload(Generic[Content]):
    """`photos` came with it; those behind `photo_urls` of a JSON body are still to be fetched."""

    content: Content
    photos: tuple[bytes, ...]
    photo_urls: tuple[str, ...] = ()

    @property
    def has_photos(self) -> bool:
        return bool(self.photos or self.photo_urls)


class Intake:
    """Reads uploads under the limits of one installation; safe to share between threads."""

    def __init__(self, settings: Settings, fetcher: PhotoUrlFetcher) -> None:
        self._settings = settings
        self._fetcher = fetcher
        largest = settings.max_request_bytes
        self._large = Budget(_BODIES_AT_ONCE * largest, _BODIES_OF_ONE * largest)
        self._small = Budget(*_SMALL_AT_ONCE)

    @contextmanager
    def room_for(self, request: Request, tenant_id: str) -> Iterator[None]:
        """Held while a request keeps its body in memory; 503 when others hold too much for too long."""
        size, largest = self._size(request), self._settings.max_request_bytes
        if size > largest:
            raise ProblemError(
                problems.REQUEST_TOO_LARGE,
                f"The request has {size:,} bytes; at most {largest:,} ({largest / 1e6:g} MB) are accepted.",
            )
        small = size <= _SMALL_BYTES
        with nullcontext() if small else self._large.take(size, tenant_id, _TOO_MANY, _BODY_WAIT_S):
            yield

    def read(self, request: Request, schema: type[Content], tenant_id: str) -> Upload[Content]:
        """The upload in the body of `request`; call it inside `room_for`. Raises ProblemError."""
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise ProblemError(
                problems.UNSUPPORTED_BODY,
                f"The body has Content-Encoding {encoding!r}: send it uncompressed.",
            )
        # Nobody waits for a place: that would hold the thread that the bound is to leave to others.
        small = self._size(request) <= _SMALL_BYTES
        with self._small.take(1, tenant_id, _TOO_MANY) if small else nullcontext(), _body_deadline(request):
            if request.mimetype == "multipart/form-data":
                upload = self._read_multipart(request, schema)
            elif request.mimetype == "application/json":
                upload = self._read_json(request, schema)
            else:
                given = f"{request.mimetype!r}" if request.mimetype else "no Content-Type"
                raise ProblemError(
                    problems.UNSUPPORTED_BODY, f"The request has {given}. {problems.UNSUPPORTED_BODY.advice}"
                )
        return upload

    def _size(self, request: Request) -> int:
        """Of the body; the most it could become where it is chunked."""
        if request.content_length is not None:
            return request.content_length
        largest = self._settings.max_request_bytes
        return min(MAX_JSON_BYTES, largest) if request.mimetype == "application/json" else largest

    def _read_multipart(self, request: Request, schema: type[Content]) -> Upload[Content]:
        settings = self._settings
        # UTF-8 takes at most four bytes for a character; the exact limits are in characters, below.
        sizes = {
            "title": 4 * settings.max_title_chars,
            "description": 4 * settings.max_description_chars,
            "external_id": 4 * settings.max_external_id_chars,
            "lane": 40,
        }
        limits = multipart.Limits(
            texts={name: size for name, size in sizes.items() if name in schema.model_fields},
            files="photos",
            max_files=settings.max_photos,
            max_file_bytes=settings.max_photo_bytes,
        )
        form = multipart.read_form(
            _Body(request.stream),
            request.mimetype_params.get("boundary"),
            limits,
            lambda number: photos.too_large(f"photo {number}", settings.max_photo_bytes),
        )
        content = _validated(lambda: schema.model_validate(form.texts))
        self._check_lengths(content)
        return Upload(content, tuple(form.files))

    def _read_json(self, request: Request, schema: type[Content]) -> Upload[Content]:
        body = _Body(request.stream).read(MAX_JSON_BYTES + 1)
        if len(body) > MAX_JSON_BYTES:
            raise ProblemError(
                problems.REQUEST_TOO_LARGE, f"A JSON body may have at most {MAX_JSON_BYTES:,} bytes."
            )
        content = _validated(lambda: schema.model_validate_json(body))
        self._check_lengths(content)
        urls = content.photo_urls or []
        if len(urls) > self._settings.max_photos:
            raise ProblemError(
                problems.TOO_MANY_PHOTOS, f"At most {self._settings.max_photos} photos are accepted."
            )
        return Upload(content, (), tuple(urls))

    def photos_of(self, upload: Upload[Any], tenant_id: str) -> list[bytes]:
        """All photos of an upload, fetched where it names addresses. Raises ProblemError."""
        return [*upload.photos, *self._fetcher.fetch_all(upload.photo_urls, tenant_id)]

    def _check_lengths(self, content: ProductIn | ProductChange) -> None:
        settings = self._settings
        given = {
            "title": (content.title, settings.max_title_chars),
            "description": (content.description, settings.max_description_chars),
            "external_id": (getattr(content, "external_id", None), settings.max_external_id_chars),
        }
        too_long = [
            FieldError(name, f"has {len(text):,} characters; at most {limit:,} are accepted")
            for name, (text, limit) in given.items()
            if text is not None and len(text) > limit
        ]
        if too_long:
            raise _invalid(too_long)


def fingerprint(request: Request, upload: Upload[Any]) -> str:
    """Names a request by everything that its answer depends on: two requests with one key must agree in it.

    Photos that were sent count by content, so the same file under another name is the same; others by their addresses,
    since a repetition is answered without fetching them again. No photos are not the same as none named.
    """
    content = upload.content.model_dump(mode="json", exclude_unset=True)
    return idempotency.fingerprint(
        [
            request.method.encode(),
            request.path.encode(),
            json.dumps(content, sort_keys=True).encode(),
            *(hashlib.sha256(photo).digest() for photo in upload.photos),
        ]
    )


def _validated(validate: Callable[[], Content]) -> Content:
    """What `validate` returns, or pydantic's complaints as a problem."""
    try:
        return validate()
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise ProblemError(problems.MALFORMED_JSON, faults[0]["msg"] + ".") from error
        raise _invalid(
            [
                FieldError(
                    _shown(".".join(map(str, fault["loc"])) or "body"),
                    fault["msg"].removeprefix("Value error, "),
                )
                for fault in faults[:_MAX_REPORTED_ERRORS]
            ]
        ) from error


def _invalid(errors: list[FieldError]) -> ProblemError:
    detail = "; ".join(f"{error.field}: {error.detail}" for error in errors)
    return ProblemError(problems.INVALID_FIELDS, detail + ".", errors=errors)


def _shown(name: str) -> str:
    """A name that a client made up, cut short."""
    return name if len(name) <= 80 else name[:80] + "…"


class _Body:
    """The body as a stream whose faults are the client's: what a WSGI server raises while it reads is its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except HTTPException:  # over the limit, or gone
            raise
        except TimeoutError as error:
            raise ProblemError(problems.REQUEST_TIMEOUT, "The body stopped arriving.") from error
        except Exception as error:  # gunicorn: a chunk that is not one, a connection that was reset
            raise ProblemError(
                problems.BAD_REQUEST, "The body broke off, or its chunks are not valid HTTP."
            ) from error


@contextmanager
def _body_deadline(request: Request) -> Iterator[None]:
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    if connection is None:  # another server than ours: its own limits hold
        yield
        return
    allowed_s = _BODY_GRACE_S + (request.content_length or 0) / _MIN_BYTES_PER_S
    with reading.ends_after(connection, allowed_s) as expired:
        try:
            yield
        except (ProblemError, HTTPException) as error:
            if not expired.is_set():
                raise
            raise ProblemError(
                problems.REQUEST_TIMEOUT, f"The body did not arrive within {allowed_s:.0f} s."
            ) from error
