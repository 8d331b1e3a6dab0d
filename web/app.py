"""The web application, assembled. Reads as a table of contents: settings, services, then what is served.

Nothing connects here: the first request does. A request goes
hosting (host, headers) -> authentication (key) -> products/jobs (the call) -> intake (body) -> precedence
(people first) -> photos (pixels) -> acceptance (store, rows, message) -> catalog.
"""

from __future__ import annotations

from collections.abc import Collection

from apiflask import APIFlask

from catalog import jobs as jobs_catalog
from catalog import lanes, log
from catalog.database import make_engine, transaction
from catalog.photo_store import PhotoStore
from catalog.settings import Settings
from web import (
    catalog_errors,
    health,
    hosting,
    jobs,
    lingering,
    metrics,
    openapi,
    pages,
    problem_answers,
    products,
    queries,
    serving,
)
from web.acceptance import Acceptor
from web.authentication import PageTokens
from web.broker import Broker
from web.intake import Intake
from web.job_watch import JobWatch
from web.photo_urls import PhotoUrlFetcher
from web.photos import PhotoIntake
from web.precedence import Precedence
from web.services import Services, install
from web.serving import ServedCheckpoint

VERSION = "0.1.0"


def create_app(settings: Settings | None = None) -> APIFlask:
    """The WSGI application; without `settings` they are read from the environment."""
    if settings is None:
        settings = Settings.load()
        log.configure_logging(settings)
    app = APIFlask("web", title="Tagsmith", version=VERSION, docs_path=None, json_errors=False)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask types the provider by its base class
    services = make_services(settings)
    install(app, services)
    metrics.register(app, services.metrics)
    hosting.register(app, bound_to=settings.host)
    queries.register(app)
    lingering.register(app)
    problem_answers.register(app)
    catalog_errors.register(app)
    openapi.configure(app)
    for blueprint in (products.bp, jobs.bp, serving.bp, health.bp, pages.bp):
        app.register_blueprint(blueprint)
    return app


def make_services(settings: Settings) -> Services:
    engine = make_engine(settings)
    store = PhotoStore.open(settings.resolved_photo_store_url())
    web_metrics = metrics.WebMetrics()
    broker = Broker(settings, web_metrics.unsent.inc)

    def counts() -> dict[str, lanes.LaneCount]:
        with transaction(engine) as session:
            return {str(lane): count for lane, count in lanes.counts(session).items()}

    def ended(job_ids: Collection[str]) -> set[str]:
        with transaction(engine) as session:
            return jobs_catalog.ended(session, job_ids)

    web_metrics.registry.register(metrics.QueueCollector(counts))
    return Services(
        settings=settings,
        engine=engine,
        photo_store=store,
        broker=broker,
        acceptor=Acceptor(settings, engine, store, broker),
        intake=Intake(settings, PhotoUrlFetcher(settings)),
        photo_intake=PhotoIntake(settings),
        job_watch=JobWatch(ended, settings.max_waiters),
        precedence=Precedence(),
        metrics=web_metrics,
        page_tokens=PageTokens(),
        checkpoint=ServedCheckpoint(settings.checkpoint),
    )
