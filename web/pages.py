"""What a person opens in a browser: the page that tags one product, its token, and the problems."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, render_template, request

from web import authentication, problems
from web.hosting import is_loopback
from web.problems import ProblemError
from web.services import services

bp = Blueprint("pages", __name__)

# Written by `python -m catalog prepare`; the page acts for the account of this key.
KEY_FILE = "api-key"


@bp.get("/")
def index() -> str:
    settings = services().settings
    return render_template("index.html", settings=settings, asks_for_key=not is_loopback(settings.host))


@bp.post("/page/token")
def issue_page_token() -> Response:
    """A short-lived bearer token for the page, so that opening the printed address is enough."""
    token = authentication.page_token(request, services().settings.var / KEY_FILE)
    return jsonify(token=token, expires_in_s=authentication.PAGE_TOKEN_LIFETIME_S)


@bp.get("/problems")
def list_problems() -> str:
    kinds = sorted(problems.KINDS.values(), key=lambda kind: kind.status)
    return render_template("problems.html", kinds=kinds, endings=problems.JOB_ENDINGS)


@bp.get("/problems/<slug>")
def show_problem(slug: str) -> str:
    if slug in problems.KINDS:
        return render_template("problems.html", kinds=[problems.KINDS[slug]], endings={})
    if slug in problems.JOB_ENDINGS:
        return render_template("problems.html", kinds=[], endings={slug: problems.JOB_ENDINGS[slug]})
    raise ProblemError(problems.NOT_FOUND, "There is no problem of that name; `/problems` lists all.")
