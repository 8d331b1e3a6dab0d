"""How a problem leaves the service: the JSON of `web.problems`, for whatever ends a view without an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from apiflask.exceptions import HTTPError
from flask import Flask, Response, g, json
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from web import problems
from web.problems import FieldError, ProblemError, ProblemKind

log = structlog.get_logger(__name__)

# What werkzeug raises by itself, in the words of this table.
_BY_STATUS: Mapping[int, ProblemKind] = {
    400: problems.BAD_REQUEST,
    404: problems.NOT_FOUND,
    405: problems.METHOD_NOT_ALLOWED,
    413: problems.REQUEST_TOO_LARGE,
    415: problems.UNSUPPORTED_BODY,
    408: problems.REQUEST_TIMEOUT,
}


def respond(error: ProblemError) -> Response:
    response = Response(json.dumps(_body(error)), status=error.kind.status, content_type=problems.MEDIA_TYPE)
    for name, value in error.headers.items():
        response.headers[name] = value
    return response


def register(app: Flask) -> None:
    """Every way out of a view that is not an answer becomes a problem."""
    app.register_error_handler(ProblemError, respond)
    app.register_error_handler(HTTPException, _respond_to_http_exception)
    app.register_error_handler(HTTPError, _respond_to_validation)
    app.register_error_handler(Exception, _respond_to_defect)


def _body(error: ProblemError) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": error.kind.type,
        "title": error.kind.title,
        "status": error.kind.status,
        "detail": error.detail,
    }
    if error.errors:
        document["errors"] = [{"field": e.field, "detail": e.detail} for e in error.errors]
    if request_id := g.get("request_id"):
        document["request_id"] = request_id
    return document


def _respond_to_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:  # a redirect of the router is an answer, not an error
        response = error.get_response()
        assert isinstance(response, Response)
        return response
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = ProblemKind("", status, error.name, "")
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    if isinstance(error, RequestEntityTooLarge):
        return respond(ProblemError(kind, kind.advice, headers=headers))
    return respond(ProblemError(kind, kind.advice or error.description or error.name, headers=headers))


def _respond_to_validation(error: HTTPError) -> Response:
    """APIFlask's own refusal. Views use it for query parameters alone: {"query": {name: [messages]}}."""
    errors = [
        FieldError(name[:80], message.removeprefix("Value error, "))
        for fields in error.detail.values()
        for name, messages in fields.items()
        for message in messages
    ]
    detail = "; ".join(f"{e.field}: {e.detail}" for e in errors)
    return respond(ProblemError(problems.INVALID_PARAMETERS, detail + ".", errors=errors))


def _respond_to_defect(error: Exception) -> Response:
    """The last resort: the log gets the traceback, the client gets an id to quote."""
    log.error("request failed", request_id=g.get("request_id"), exc_info=error)
    return respond(ProblemError(problems.INTERNAL, problems.INTERNAL.advice))
