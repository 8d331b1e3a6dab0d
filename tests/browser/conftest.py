"""A browser, a web application on a real port, and a worker that gives every product the same tags."""

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import Engine, text
from werkzeug.serving import ThreadedWSGIServer

from catalog import jobs
from catalog.database import transaction
from catalog.jobs import Finished
from catalog.settings import Settings
from catalog.views import LANES, TagView
from web.app import create_app

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# No sandbox: as root Chromium has none. The rest keeps it from calling its maker.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic",
]  # fmt: skip

TAGS = [
    TagView("article_type", "Casual Shoes", 0.97, "auto", {"text": 0.93, "photos": 0.88},
            [{"value": "Sports Shoes", "confidence": 0.02}, {"value": "Sandals", "confidence": 0.001}]),
    TagView("base_colour", "Navy Blue", 0.81, "review", {"text": 0.9, "photos": None}, []),
    TagView("season", None, 0.34, "abstain", {"text": 0.3, "photos": 0.36}, [{"value": "Winter", "confidence": 0.34}]),
]  # fmt: skip


class Server(ThreadedWSGIServer):
    """Ends when its last request has: a page that is closed leaves one that waits for a job, with a connection."""

    daemon_threads = False


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; Debian's package `chromium` has one")
    expect.set_options(timeout=30_000)  # a machine under load shows the same things later
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages and fails the test when one of them logged an error."""
    complaints: list[str] = []
    contexts = []

    def open_it(url: str, width: int = 1280, height: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            # A refused request is logged by the browser itself; the page shows it.
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        page.goto(url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def serve(engine: Engine, redis_url: str, settings: Settings, api_key: str) -> Iterator[Callable[..., str]]:
    """Serves an application with these settings on a free port; gives its address."""
    running: list[tuple[Server, threading.Thread, Flask]] = []
    key_file = settings.var / "api-key"
    key_file.write_text(api_key)

    def start(**changes: Any) -> str:
        app = create_app(settings.model_copy(update=changes))
        server = Server("127.0.0.1", 0, app)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread, app))
        return f"http://127.0.0.1:{server.port}"

    yield start
    for server, thread, app in running:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["tagsmith"].engine.dispose()
        app.extensions["tagsmith"].broker.celery.close()
    key_file.unlink(missing_ok=True)


@pytest.fixture
def worker(engine: Engine, settings: Settings) -> Iterator[None]:
    """Tags every queued product until the test is over."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            with transaction(engine) as session:
                queued = list(session.scalars(text("SELECT id FROM jobs WHERE status = 'queued'")))
                claimed = [
                    job
                    for lane in LANES
                    for job in jobs.claim(session, lane, queued, worker="a test", settings=settings)
                ]
            for job in claimed:
                with transaction(engine) as session:
                    jobs.finish(session, [Finished(job, TAGS, None, "starter", "ab" * 32)])

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()
