"""What the catalog refuses, in the words of HTTP. One place, so that no view can forget one."""

from __future__ import annotations

import math

import structlog
from flask import Flask, Response

from catalog import errors
from web import problems
from web.problem_answers import respond
from web.problems import FieldError, ProblemError, ProblemKind

log = structlog.get_logger(__name__)

_RETRY_AFTER_S = "5"


def register(app: Flask) -> None:
    app.register_error_handler(errors.CatalogError, _respond)


def _respond(error: errors.CatalogError) -> Response:
    return respond(_translate(error))


def _translate(error: errors.CatalogError) -> ProblemError:
    match error:
        case errors.NotFound():
            return _problem(problems.NOT_FOUND, error)
        case errors.InvalidCursor():
            return ProblemError(
                problems.INVALID_PARAMETERS,
                f"{error}.",
                errors=[FieldError("cursor", "is not a cursor of this service")],
            )
        case errors.EmptyProduct():
            return _problem(problems.EMPTY_PRODUCT, error)
        case errors.QueueFull():
            return _problem(problems.QUEUE_FULL, error, str(math.ceil(error.retry_after_s)))
        case errors.NotCancellable():
            return _problem(problems.JOB_NOT_CANCELLABLE, error)
        case errors.IdempotencyMismatch():
            return _problem(problems.IDEMPOTENCY_MISMATCH, error)
        case errors.IdempotencyInProgress():
            return _problem(problems.IDEMPOTENCY_IN_PROGRESS, error, "1")
        case errors.Unavailable():
            # The reason names hosts and files of ours: it belongs in the log.
            log.warning("service unavailable", reason=str(error))
            return ProblemError(
                problems.UNAVAILABLE, problems.UNAVAILABLE.advice, headers={"Retry-After": _RETRY_AFTER_S}
            )
        case _:
            log.error("request failed", exc_info=error)
            return ProblemError(problems.INTERNAL, problems.INTERNAL.advice)


def _problem(kind: ProblemKind, error: errors.CatalogError, retry_after: str | None = None) -> ProblemError:
    message = str(error)
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return ProblemError(kind, message[:1].upper() + message[1:] + ".", headers=headers)
