"""A web application on the suite's servers and a seller who uses it."""

from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from flask import Flask
from sqlalchemy import Engine, text

from catalog import jobs
from catalog.database import transaction
from catalog.jobs import Finished
from catalog.settings import Settings
from catalog.views import TagView
from tests.web.seller import Seller, Stored, encoded, picture
from web.app import create_app

TAGS = [
    TagView(
        "article_type",
        "Casual Shoes",
        0.97,
        "auto",
        {"text": 0.93, "photos": None},
        [{"value": "Sports Shoes", "confidence": 0.02}],
    ),
    TagView("season", None, 0.3, "abstain", {"text": 0.3, "photos": None}, []),
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[list[MutableMapping[str, Any]]]:
    """Log entries, kept instead of printed: rendering a traceback with all its locals takes seconds."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def make_app(engine: Engine, redis_url: str, settings: Settings) -> Iterator[Callable[..., Flask]]:
    """Makes applications with other settings; `engine` has emptied the tables."""
    made: list[Flask] = []

    def make(**changes: Any) -> Flask:
        app = create_app(settings.model_copy(update=changes))
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["tagsmith"].engine.dispose()
        app.extensions["tagsmith"].broker.close()


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def seller(app: Flask, api_key: str) -> Seller:
    return Seller(app.test_client(), api_key)


@pytest.fixture
def stored(engine: Engine, tmp_path: Path) -> Stored:
    return Stored(engine, tmp_path / "photos")


@pytest.fixture
def finish_jobs(engine: Engine, settings: Settings) -> Callable[[str], None]:
    """What a worker does with a job: claims it and writes TAGS."""

    def finish(job_id: str) -> None:
        with transaction(engine) as session:
            lane = session.execute(text("SELECT lane FROM jobs WHERE id = :id"), {"id": job_id}).scalar_one()
            (claimed,) = jobs.claim(session, lane, [job_id], worker="a test", settings=settings)
        assert claimed.id == job_id
        with transaction(engine) as session:
            assert jobs.finish(session, [Finished(claimed, TAGS, [0.5, 0.5], "starter", "ab" * 32)])

    return finish


@pytest.fixture
def jpeg() -> bytes:
    return encoded(picture())
