"""Whether this process lives, and whether the installation can do its work."""

from __future__ import annotations

import structlog
from apiflask import APIBlueprint
from flask import Response, jsonify

from catalog import database
from catalog.errors import Unavailable
from web.openapi import answers_problems
from web.schemas import Readiness
from web.services import services

log = structlog.get_logger(__name__)

bp = APIBlueprint("health", __name__, tag="Health")


@bp.get("/healthz")
@bp.doc(
    summary="Is the process alive?",
    operation_id="getHealth",
    responses=answers_problems(
        json={
            200: (
                "It is",
                {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]},
            )
        }
    ),
)
def healthz() -> Response:
    return jsonify(status="ok")


@bp.get("/readyz")
@bp.output(Readiness, description="Everything is reachable")
@bp.doc(
    summary="Are the database with its newest tables, the broker and a worker reachable?",
    description="With a worker the answer comes at once; that there is none is known after three seconds.",
    operation_id="getReadiness",
    responses=answers_problems(
        json={503: ("Something is not reachable", {"$ref": "#/components/schemas/Readiness"})}
    ),
)
def readyz() -> Response:
    try:
        database.check(services().engine)
        database_answers = True
    except Unavailable as error:
        log.warning("database not ready", reason=str(error))
        database_answers = False
    broker, worker = services().broker.probe()
    report = Readiness(
        ready=database_answers and broker and worker, database=database_answers, broker=broker, worker=worker
    )
    response = jsonify(report.model_dump())
    if not report.ready:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return response


@bp.get("/metrics")
@bp.doc(
    summary="Metrics in the Prometheus text format",
    operation_id="getMetrics",
    responses=answers_problems(text=("Metrics", "text/plain")),
)
def metrics() -> Response:
    services().metrics.waiters.set(services().job_watch.waiting)
    return services().metrics.render()
