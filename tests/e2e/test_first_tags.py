"""From an accepted product to its tags, through `celery -A workers.app worker` and a real, tiny checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from catalog.database import transaction
from catalog.jobs import get_job
from catalog.photo_store import PhotoStore
from catalog.products import accept
from catalog.queue import make_celery, send
from catalog.settings import Settings
from catalog.views import JobView, PhotoRef
from models import Tagger
from models.checkpoint import save
from tests.tiny_tagger import TAXONOMY, picture, tiny_checkpoint

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 150.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def worker(settings: Settings, engine: Engine, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    save(tiny_checkpoint(), settings.checkpoint)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TAGSMITH_")}
    with (settings.checkpoint.parent / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--pool", "threads"),
                *("-Q", "sweep,interactive,bulk", "--without-gossip", "--without-mingle"),
            ],
            cwd=ROOT,
            env={
                **clean,
                "PYTHONPATH": str(ROOT),
                "TAGSMITH_VAR": str(settings.var),
                "TAGSMITH_PHOTO_STORE_URL": settings.resolved_photo_store_url(),
                "TAGSMITH_CHECKPOINT": str(settings.checkpoint),
                "TAGSMITH_DEVICE": "cpu",
                "TAGSMITH_METRICS_PORT": "0",
            },
            stdout=log,
            stderr=log,
        )
    yield process
    if process.poll() is None:
        process.kill()
        process.wait(PATIENCE_S)


def ended(engine: Engine, tenant: str, job_id: str) -> JobView:
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        with transaction(engine) as session:
            job = get_job(session, tenant, job_id)
        if job.ended:
            return job
        assert time.monotonic() < give_up_at, f"the job is still {job.status}"
        time.sleep(0.05)


def test_products_are_tagged_by_the_real_worker_and_it_stops_when_told(
    settings: Settings,
    engine: Engine,
    photo_store: PhotoStore,
    tenant: str,
    worker: subprocess.Popen[bytes],
) -> None:
    photo = picture("red")
    photo_ref = PhotoRef("a" * 64, 30, 40, len(photo), "image/jpeg")
    photo_store.put(photo_ref.id, photo, photo)
    celery = make_celery(settings)
    jobs = []
    for title, photos in (("red cotton shirt", [photo_ref]), ("blue shoe", []), ("", [photo_ref])):
        with transaction(engine) as session:
            job = accept(
                session, tenant_id=tenant, title=title, description="", external_id=None,
                photos=photos, lane="interactive", idempotency=None, settings=settings,
            )[1]  # fmt: skip
        send(celery, [job.id], "interactive")
        jobs.append(job.id)
    celery.close()

    version = Tagger.load(settings.checkpoint).version
    for job_id, has_text, has_photos in zip(jobs, (True, True, False), (True, False, True), strict=True):
        job = ended(engine, tenant, job_id)
        assert (job.status, job.model_name, job.model_version) == ("succeeded", "tiny", version), job.error
        assert job.tags is not None
        assert {tag.attribute for tag in job.tags} == {attribute.name for attribute in TAXONOMY.attributes}
        for tag in job.tags:
            assert (tag.evidence["text"] is not None, tag.evidence["photos"] is not None) == (
                has_text,
                has_photos,
            )

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
