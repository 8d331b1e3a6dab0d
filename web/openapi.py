"""The OpenAPI document and the page that shows it, both made from the views themselves.

APIFlask collects paths, parameters and answers; this module adds what it has no word for: bodies in two
forms, problem+json with the kinds that an operation can answer, and headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask
from flask import Blueprint, current_app, render_template
from markupsafe import Markup, escape
from pydantic import BaseModel

from catalog.settings import Settings
from web import problems
from web.problems import ProblemKind
from web.schemas import ProblemOut, ProductChange, ProductIn
from web.services import services

bp = Blueprint("docs", __name__)

DESCRIPTION = """\
Send a product (a title, a description, photos), get a job at once, and read its tags seconds later.

Every error is a problem document (RFC 9457), but for the report of `/readyz`; its `type` can be opened in a
browser, or is `about:blank` where the status says all there is. Every call under `/v1` needs an API key:
`Authorization: Bearer <key>`. Times are UTC (RFC 3339). A product or job of another account answers 404."""

_SCHEMAS = "#/components/schemas/"
_PROBLEM_REF = {"$ref": _SCHEMAS + "Problem"}
_PHOTOS = {
    "type": "array",
    # The second word is OpenAPI 3.0's: generators of clients know a file by it.
    "items": {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"},
    "description": "JPEG, PNG, WebP or AVIF files; the content counts, not the name.",
}
_UNITS_S = {"days": 86_400, "hours": 3600, "minutes": 60}
_ORDER = ("/v1/products", "/v1/jobs", "/v1/")
_BODIES: Mapping[str, type[BaseModel]] = {"createProduct": ProductIn, "changeProduct": ProductChange}


def answers_problems(
    *kinds: ProblemKind,
    json: Mapping[int, tuple[str, dict[str, Any]]] | None = None,
    text: tuple[str, str] | None = None,
) -> dict[int | str, Any]:
    """The `responses` of an operation that answers these problems, and beside them what `output` cannot say:
    `json` maps a status to a description and a schema, `text` is a description and a media type."""
    responses: dict[int | str, Any] = {
        status: {"description": description, "content": {"application/json": {"schema": schema}}}
        for status, (description, schema) in (json or {}).items()
    }
    if text is not None:
        responses[200] = {"description": text[0], "content": {text[1]: {"schema": {"type": "string"}}}}
    for status in sorted({kind.status for kind in kinds}):
        lines = [f"`{kind.type}`: {kind.title}." for kind in kinds if kind.status == status]
        responses[status] = {
            "description": "\n".join([HTTPStatus(status).phrase + ".", *lines]),
            "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM_REF}},
        }
    return responses


def configure(app: APIFlask) -> None:
    app.config.update(
        OPENAPI_VERSION="3.1.0",
        DESCRIPTION=DESCRIPTION,
        AUTO_SERVERS=False,
        AUTO_404_RESPONSE=False,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
        AUTO_AUTH_ERROR_RESPONSE=False,
        LICENSE={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        SECURITY_SCHEMES={"ApiKey": {"type": "http", "scheme": "bearer", "description": "An API key."}},
    )
    app.spec_processor(_complete)
    app.add_template_filter(_code, "code")
    app.register_blueprint(bp)


def _complete(spec: dict[str, Any] | str) -> dict[str, Any] | str:
    assert isinstance(spec, dict)  # a string only where SPEC_FORMAT is yaml
    settings = services().settings
    spec["paths"] = dict(sorted(spec["paths"].items(), key=lambda item: _place(item[0])))
    schemas = spec["components"]["schemas"]
    schemas["Problem"] = ProblemOut.model_json_schema(ref_template=_SCHEMAS + "{model}")
    schemas.update(schemas["Problem"].pop("$defs", {}))
    for operations in spec["paths"].values():
        for operation in operations.values():
            if body := _BODIES.get(operation.get("operationId", "")):
                operation["requestBody"] = {"required": True, "content": _body_content(body, settings)}
                operation["parameters"].append(_idempotency_key(settings))
            for status, response in operation["responses"].items():
                _add_headers(status, response, operation)
    return _with_one_of_each_shape(spec)


def _with_one_of_each_shape(spec: dict[str, Any]) -> dict[str, Any]:
    """APIFlask copies a nested shape under the name of each that it is nested in (`JobOut.TagOut`), and generators of
    clients leave out what goes by one title twice.
    """
    spec = _with_short_references(spec)
    shapes: dict[str, Any] = {}
    for name, shape in spec["components"]["schemas"].items():
        known = shapes.setdefault(_short(name), shape)
        assert known == shape, f"two different shapes are called {_short(name)}"
    spec["components"]["schemas"] = shapes
    return spec


def _with_short_references(part: Any) -> Any:
    if isinstance(part, list):
        return [_with_short_references(each) for each in part]
    if isinstance(part, dict):
        return {
            name: _SCHEMAS + _short(value.removeprefix(_SCHEMAS))
            if name == "$ref"
            else _with_short_references(value)
            for name, value in part.items()
        }
    return part


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _place(path: str) -> tuple[int, str]:
    """In the order a newcomer reads: send a product, follow its job, then the rest."""
    for place, start in enumerate(_ORDER):
        if path.startswith(start):
            return place, path
    return len(_ORDER), path


def _idempotency_key(settings: Settings) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Makes it safe to send the request again: the same key with the same payload gets the "
        f"first answer, for {_span(settings.idempotency_ttl_s)}.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    }


def _span(seconds: float) -> str:
    """A time in the largest unit that it is at least two of, if it is a whole number of them."""
    for unit, unit_s in _UNITS_S.items():
        if seconds >= 2 * unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:,g} seconds"


def _body_content(schema: type[BaseModel], settings: Settings) -> dict[str, Any]:
    document = schema.model_json_schema()
    _limit(document["properties"], settings)
    form = {
        **document,
        "properties": {**document["properties"], "photos": _PHOTOS | {"maxItems": settings.max_photos}},
    }
    del form["properties"]["photo_urls"]
    # A form field is text: there is no null to send.
    form["properties"] = {name: _without_null(value) for name, value in form["properties"].items()}
    return {"multipart/form-data": {"schema": form}, "application/json": {"schema": document}}


def _limit(properties: dict[str, Any], settings: Settings) -> None:
    """Writes into a body's fields the limits of this installation, which `intake` checks."""
    limits = {
        "title": ("maxLength", settings.max_title_chars),
        "description": ("maxLength", settings.max_description_chars),
        "external_id": ("maxLength", settings.max_external_id_chars),
        "photo_urls": ("maxItems", settings.max_photos),
    }
    for name in limits.keys() & properties.keys():
        word, limit = limits[name]
        for variant in properties[name].get("anyOf", [properties[name]]):
            if variant["type"] != "null":
                variant[word] = limit


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    variants = [variant for variant in schema.get("anyOf", []) if variant != {"type": "null"}]
    if len(variants) != 1:
        return schema
    kept = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**variants[0], **kept}


def _add_headers(status: str, response: dict[str, Any], operation: dict[str, Any]) -> None:
    headers: dict[str, Any] = {}
    if status == "202":
        headers["Location"] = {"description": "The job.", "schema": {"type": "string"}}
        headers["Idempotent-Replayed"] = {
            "description": "`true` where this is the first answer to the key once more.",
            "schema": {"type": "string"},
        }
    if status in ("202", "503"):
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer"}}
    if status == "409" and operation.get("operationId") in _BODIES:
        headers["Retry-After"] = {
            "description": "Seconds; where the first request with the key is still at work.",
            "schema": {"type": "integer"},
        }
    if status == "200" and operation.get("operationId") == "getJob":
        headers["Retry-After"] = {
            "description": "Seconds; until the job has ended.",
            "schema": {"type": "integer"},
        }
    if status == "401":
        headers["WWW-Authenticate"] = {
            "description": "How to send a key.",
            "schema": {"type": "string"},
        }
    if headers:
        response["headers"] = headers


def _code(text: str) -> Markup:
    """Text with `names` between backticks, as HTML."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@bp.get("/docs")
def docs() -> str:
    """The document as a page, rendered here: no script of another host."""
    app = current_app
    assert isinstance(app, APIFlask)
    return render_template("docs.html", spec=app.spec)
