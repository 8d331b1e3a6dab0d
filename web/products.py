"""The calls on products: send one, read, list, change, delete."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import structlog
from apiflask import APIBlueprint
from flask import Response, jsonify, request

from catalog import photos as catalog_photos
from catalog import products
from catalog.database import transaction
from catalog.errors import Unavailable
from catalog.idempotency import IdempotencyKey
from catalog.views import ProductView
from web import authentication, problems
from web.acceptance import Write
from web.authentication import tenant_id
from web.identifiers import PRODUCT, checked
from web.intake import Upload, fingerprint
from web.openapi import answers_problems
from web.photos import PreparedPhoto
from web.problems import ProblemError
from web.schemas import (
    Accepted,
    NoQuery,
    PageQuery,
    PhotoOut,
    ProductChange,
    ProductIn,
    ProductOut,
    ProductPage,
    TagOut,
)
from web.services import services

log = structlog.get_logger(__name__)

bp = APIBlueprint("products", __name__, url_prefix="/v1/products", tag="Products")
bp.before_request(authentication.require_key)

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")

_READ_PROBLEMS = (
    problems.UNAUTHORIZED,
    problems.NOT_FOUND,
    problems.INVALID_PARAMETERS,
    problems.UNAVAILABLE,
)
_UPLOAD_PROBLEMS = (
    problems.MALFORMED_JSON,
    problems.MALFORMED_MULTIPART,
    problems.UNAUTHORIZED,
    problems.REQUEST_TIMEOUT,
    problems.IDEMPOTENCY_IN_PROGRESS,
    problems.REQUEST_TOO_LARGE,
    problems.PHOTO_TOO_LARGE,
    problems.UNSUPPORTED_BODY,
    problems.UNSUPPORTED_PHOTO,
    problems.INVALID_FIELDS,
    problems.INVALID_PARAMETERS,
    problems.EMPTY_PRODUCT,
    problems.TOO_MANY_PHOTOS,
    problems.PHOTO_UNREADABLE,
    problems.PHOTO_TOO_MANY_PIXELS,
    problems.PHOTO_ANIMATED,
    problems.PHOTO_URL_REFUSED,
    problems.PHOTO_URL_UNREACHABLE,
    problems.IDEMPOTENCY_MISMATCH,
    problems.IDEMPOTENCY_INVALID,
    problems.QUEUE_FULL,
    problems.BUSY,
    problems.UNAVAILABLE,
)


@bp.post("")
@bp.input(NoQuery, location="query")
@bp.output(Accepted, 202, description="Accepted: the job will tag the product")
@bp.doc(
    summary="Send a product to be tagged",
    operation_id="createProduct",
    security="ApiKey",
    responses=answers_problems(*_UPLOAD_PROBLEMS),
)
def create_product(query_data: NoQuery) -> Response:
    key = _idempotency_key()
    with services().intake.room_for(request, tenant_id()):
        upload = services().intake.read(request, ProductIn, tenant_id())
        content = upload.content
        if not content.title and not upload.has_photos:
            raise ProblemError(problems.EMPTY_PRODUCT, "The product has neither a title nor a photo.")
        request_key = _request_key(key, upload)

        def write(prepared: Sequence[PreparedPhoto]) -> Write:
            return lambda session: products.accept(
                session,
                tenant_id=tenant_id(),
                title=content.title or "",
                description=content.description or "",
                external_id=content.external_id or None,
                photos=[photo.ref for photo in prepared],
                lane=content.lane,
                idempotency=request_key,
                settings=services().settings,
            )

        return _accepted(upload, request_key, write)


@bp.patch("/<product_id>")
@bp.input(NoQuery, location="query")
@bp.output(Accepted, 202, description="Accepted: a new job will tag the changed product")
@bp.doc(
    summary="Change the title, the description or the photos",
    operation_id="changeProduct",
    description="Photos that are sent replace all photos of the product.",
    security="ApiKey",
    responses=answers_problems(*_UPLOAD_PROBLEMS, problems.NOT_FOUND, problems.NOTHING_TO_CHANGE),
)
def change_product(product_id: str, query_data: NoQuery) -> Response:
    checked(PRODUCT, product_id)
    key = _idempotency_key()
    with services().intake.room_for(request, tenant_id()):
        upload = services().intake.read(request, ProductChange, tenant_id())
        given = upload.content.model_fields_set
        photos_change = upload.has_photos or "photo_urls" in given
        if not photos_change and not given & {"title", "description"}:
            raise ProblemError(problems.NOTHING_TO_CHANGE, problems.NOTHING_TO_CHANGE.advice)

        def write(prepared: Sequence[PreparedPhoto]) -> Write:
            change = upload.content
            return lambda session: products.revise(
                session,
                tenant_id(),
                product_id,
                title=(change.title or "") if "title" in given else ...,
                description=(change.description or "") if "description" in given else ...,
                photos=[photo.ref for photo in prepared] if photos_change else ...,
                lane=change.lane,
                settings=services().settings,
            )

        return _accepted(upload, _request_key(key, upload), write)


@bp.get("")
@bp.input(PageQuery, location="query")
@bp.output(ProductPage, description="A page, newest first")
@bp.doc(
    summary="List products",
    operation_id="listProducts",
    security="ApiKey",
    responses=answers_problems(problems.UNAUTHORIZED, problems.INVALID_PARAMETERS, problems.UNAVAILABLE),
)
def list_products(query_data: PageQuery) -> Response:
    with transaction(services().engine) as session:
        page, next_cursor = products.list_products(session, tenant_id(), query_data.limit, query_data.cursor)
    return jsonify(products=[_document(product) for product in page], next_cursor=next_cursor)


@bp.get("/<product_id>")
@bp.input(NoQuery, location="query")
@bp.output(ProductOut, description="The product")
@bp.doc(
    summary="Read a product with its current tags",
    operation_id="getProduct",
    security="ApiKey",
    responses=answers_problems(*_READ_PROBLEMS),
)
def get_product(product_id: str, query_data: NoQuery) -> Response:
    with transaction(services().engine) as session:
        product = products.get_product(session, tenant_id(), checked(PRODUCT, product_id))
    return jsonify(_document(product))


@bp.delete("/<product_id>")
@bp.input(NoQuery, location="query")
@bp.output({}, 204, description="The product, its photos and its tags are gone")
@bp.doc(
    summary="Delete a product",
    operation_id="deleteProduct",
    security="ApiKey",
    responses=answers_problems(*_READ_PROBLEMS),
)
def delete_product(product_id: str, query_data: NoQuery) -> Response:
    with transaction(services().engine) as session:
        free = products.delete_product(session, tenant_id(), checked(PRODUCT, product_id))
    try:
        catalog_photos.remove_released(services().engine, services().photo_store, free)
    except Unavailable:
        # The rows are gone and the bytes are marked: the sweep removes what could not be removed now.
        log.warning("photos of a deleted product not removed yet", product_id=product_id, exc_info=True)
    return Response(status=204)


def _document(product: ProductView) -> dict[str, object]:
    document = ProductOut(
        id=product.id,
        external_id=product.external_id,
        title=product.title,
        description=product.description,
        photos=[PhotoOut.model_validate(photo) for photo in product.photos],
        job_id=product.job_id,
        tags=None if product.tags is None else [TagOut.model_validate(tag) for tag in product.tags],
        created_at=product.created_at,
        updated_at=product.updated_at,
    )
    return document.model_dump(mode="json")


def _prepared(photos: Sequence[bytes]) -> list[PreparedPhoto]:
    prepared = []
    for number, photo in enumerate(photos, 1):
        start = time.perf_counter()
        prepared.append(services().photo_intake.prepare(photo, f"photo {number}", tenant_id()))
        services().metrics.photo_seconds.observe(time.perf_counter() - start)
    return prepared


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and _IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise ProblemError(problems.IDEMPOTENCY_INVALID, problems.IDEMPOTENCY_INVALID.advice)
    return key


def _request_key(key: str | None, upload: Upload[ProductIn] | Upload[ProductChange]) -> IdempotencyKey | None:
    if key is None:
        return None
    return IdempotencyKey(tenant_id(), key, fingerprint(request, upload))


def _accepted(
    upload: Upload[ProductIn] | Upload[ProductChange],
    key: IdempotencyKey | None,
    write: Callable[[Sequence[PreparedPhoto]], Write],
) -> Response:
    acceptance = services().acceptor.accept(
        tenant_id(),
        key,
        lambda: services().intake.photos_of(upload, tenant_id()),
        _prepared,
        write,
        services().precedence.of(upload.content.lane),
    )
    answer = acceptance.answer
    response = Response(answer.body, answer.status, answer.headers, content_type="application/json")
    if acceptance.job is None:
        response.headers["Idempotent-Replayed"] = "true"
    else:
        services().metrics.accepted.labels(acceptance.job.lane).inc()
    return response
