"""Query strings that mean two things at once mean nothing: a parameter is given once or not at all."""

from __future__ import annotations

from flask import Flask, request

from web import problems
from web.problems import FieldError, ProblemError


def register(app: Flask) -> None:
    app.before_request(_refuse_repetitions)


def _refuse_repetitions() -> None:
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        # A name comes from outside and may be anything that can be written in a URL.
        errors = [FieldError(name[:80], "is given more than once") for name in repeated[:20]]
        detail = "; ".join(f"{error.field}: {error.detail}" for error in errors)
        raise ProblemError(problems.INVALID_PARAMETERS, detail + ".", errors=errors)
