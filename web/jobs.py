"""The calls on jobs: read one, wait for it, cancel it."""

from __future__ import annotations

from contextlib import nullcontext

from apiflask import APIBlueprint
from flask import Response, jsonify

from catalog import jobs, places
from catalog.database import transaction
from catalog.places import Place
from catalog.views import JobView, Problem
from web import authentication, problems
from web.authentication import tenant_id
from web.identifiers import JOB, checked
from web.openapi import answers_problems
from web.retry_after import retry_after
from web.schemas import JobError, JobOut, ModelRef, NoQuery, TagOut, WaitQuery
from web.services import services

bp = APIBlueprint("jobs", __name__, url_prefix="/v1/jobs", tag="Jobs")
bp.before_request(authentication.require_key)

_PROBLEMS = (problems.UNAUTHORIZED, problems.NOT_FOUND, problems.INVALID_PARAMETERS, problems.UNAVAILABLE)
# Their reasons are an exception's words, which name hosts and files of ours: they are for `catalog job list`.
_FOR_OPERATORS = ("photo-store-unavailable", "unprepared")


@bp.get("/<job_id>")
@bp.input(WaitQuery, location="query")
@bp.output(JobOut, description="The job")
@bp.doc(
    summary="Read a job, or wait until it ends",
    operation_id="getJob",
    security="ApiKey",
    responses=answers_problems(*_PROBLEMS),
)
def get_job(job_id: str, query_data: WaitQuery) -> Response:
    job = _read(job_id)
    if query_data.wait and not job.ended:
        with services().precedence.person() if job.lane == "interactive" else nullcontext():
            services().job_watch.wait(job.id, query_data.wait, tenant_id())
        job = _read(job_id)
    place = _place(job)
    response = jsonify(job_document(job, place))
    if not job.ended:
        response.headers["Retry-After"] = retry_after(place)
    return response


@bp.delete("/<job_id>")
@bp.input(NoQuery, location="query")
@bp.output(JobOut, description="The job, cancelled")
@bp.doc(
    summary="Cancel a queued job",
    operation_id="cancelJob",
    security="ApiKey",
    responses=answers_problems(*_PROBLEMS, problems.JOB_NOT_CANCELLABLE),
)
def cancel_job(job_id: str, query_data: NoQuery) -> Response:
    with transaction(services().engine) as session:
        job = jobs.cancel(session, tenant_id(), checked(JOB, job_id))
    return jsonify(job_document(job, None))


def job_document(job: JobView, place: Place | None) -> dict[str, object]:
    """`place` is None unless the job is queued."""
    model = None
    if job.model_name is not None and job.model_version is not None:
        model = ModelRef(name=job.model_name, version=job.model_version)
    document = JobOut(
        id=job.id,
        product_id=job.product_id,
        status=job.status,
        lane=job.lane,
        position=place.position if place else None,
        eta_s=place.eta_s if place else None,
        attempts=job.attempts,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        model=model,
        tags=None if job.tags is None else [TagOut.model_validate(tag) for tag in job.tags],
        error=None if job.error is None else _error(job.error),
    )
    return document.model_dump(mode="json")


def _error(problem: Problem) -> JobError:
    """The stored `type` is a bare name; outside it is the address of its page."""
    error = JobError.model_validate(problem)
    if error.type in _FOR_OPERATORS:
        _, error.detail = problems.JOB_ENDINGS[error.type]
    if "/" not in error.type and ":" not in error.type:
        error.type = f"/problems/{error.type}"
    return error


def _place(job: JobView) -> Place | None:
    """Looked up last and not with each read: a job that is waited for has mostly ended by then."""
    if job.status != "queued":
        return None
    with transaction(services().engine) as session:
        return places.find(session, job)


def _read(job_id: str) -> JobView:
    with transaction(services().engine) as session:
        return jobs.get_job(session, tenant_id(), checked(JOB, job_id))
