"""One installation of real servers for the fault tests, and the means to start, kill and load its workers.

Every process is started here and ended here, by its own pid. Waiting is for a condition, with a limit that only
a failure reaches; how long something took is never judged.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine, func, select, text, update

from catalog.database import make_engine, migrate, transaction
from catalog.embedded.places import redis_data, redis_socket
from catalog.errors import Unavailable
from catalog.photo_store import PhotoStore
from catalog.products import accept
from catalog.queue import make_celery, send
from catalog.settings import Settings
from catalog.tables import Job, Tag
from catalog.tenants import create_tenant
from catalog.views import Lane, PhotoRef

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE_S = 120.0

# Short times, so that a test does not wait for a lease or a sweep longer than it must.
SETTINGS = {
    "lease_s": 6.0,
    "forward_timeout_s": 4.0,
    "retry_delay_s": 0.5,
    "resend_after_s": 2.0,
    "sweep_interval_s": 1.0,
    "max_batch": 8,
    "metrics_port": 0,
}


@dataclass(frozen=True)
class Outcome:
    status: str
    attempts: int
    tags: tuple[str, ...]
    error: dict[str, Any] | None


class Installation:
    def __init__(self, var: Path) -> None:
        self.settings = Settings(var=var, **SETTINGS)
        self.engine: Engine = make_engine(self.settings)
        self.celery: Celery = make_celery(self.settings)
        self.postgres: subprocess.Popen[bytes] | None = None
        self.redis: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._log = (var / "processes.log").open("ab")

    # -- processes -----------------------------------------------------------------------------------------

    def _start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        own = {f"TAGSMITH_{name.upper()}": str(value) for name, value in SETTINGS.items()}
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("TAGSMITH_")},
                **own,
                "TAGSMITH_VAR": str(self.settings.var),
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
                **environment,
            },
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def start_redis(self) -> None:
        self.redis = self._start("catalog.embedded", "redis")
        client = redis.Redis(unix_socket_path=str(redis_socket(self.settings.var)))
        wait_for(lambda: _answers(client.ping, redis.RedisError), "Redis to answer")
        client.close()

    def start_postgres(self) -> None:
        self.postgres = self._start("catalog.embedded", "postgres")
        wait_for(lambda: _answers(lambda: self.query("SELECT 1"), Unavailable), "PostgreSQL to answer")

    def start_worker(self, batch_seconds: float = 0.0) -> subprocess.Popen[bytes]:
        worker = self._start(
            "celery", "-A", "fake_worker", "worker", "--pool", "threads", "-Q", "interactive,bulk",
            "--without-gossip", "--without-mingle",
            STAND_IN_BATCH_SECONDS=str(batch_seconds),
        )  # fmt: skip
        self._workers.append(worker)
        return worker

    def start_beat(self) -> None:
        self._workers.append(self._start("celery", "-A", "fake_worker", "beat", "--pidfile="))

    def kill_workers(self) -> None:
        for process in self._workers:
            end(process, signal.SIGKILL)
        self._workers.clear()

    def close(self) -> None:
        self.engine.dispose()
        self.kill_workers()
        for server in (self.redis, self.postgres):
            if server is not None:
                end(server, signal.SIGTERM)
        self.celery.close()
        self._log.close()

    # -- the work ------------------------------------------------------------------------------------------

    def accept(self, titles: Sequence[str], lane: Lane = "bulk", *, message: bool = True) -> list[str]:
        """Accept a product for each title, as intake does; returns the ids of their jobs."""
        job_ids = [self._accept(title, lane) for title in titles]
        if message:
            send(self.celery, job_ids, lane)
        return job_ids

    def accept_with_photo(self, title: str, photo: bytes, photo_id: str) -> str:
        store = PhotoStore.open(self.settings.resolved_photo_store_url())
        store.put(photo_id, photo, photo)
        job_id = self._accept(title, "interactive", [PhotoRef(photo_id, 1, 1, len(photo), "image/jpeg")])
        send(self.celery, [job_id], "interactive")
        return job_id

    def _accept(self, title: str, lane: Lane, photos: Sequence[PhotoRef] = ()) -> str:
        with transaction(self.engine) as session:
            return accept(
                session, tenant_id=self.tenant_id, title=title, description="", external_id=None,
                photos=photos, lane=lane, idempotency=None, settings=self.settings,
            )[1].id  # fmt: skip

    def prepare(self) -> None:
        migrate(self.engine)
        with transaction(self.engine) as session:
            self.tenant_id = create_tenant(session, "faults").id

    def resend(self, job_ids: Sequence[str], lane: Lane = "bulk") -> None:
        send(self.celery, job_ids, lane)

    def query(self, statement: str) -> list[Any]:
        with transaction(self.engine) as session:
            return list(session.execute(text(statement)).all())

    def count(self, job_ids: Sequence[str], *statuses: str) -> int:
        with transaction(self.engine) as session:
            wanted = select(func.count()).where(Job.id.in_(job_ids), Job.status.in_(statuses))
            return int(session.execute(wanted).scalar_one())

    def wait_until_running(self, job_ids: Sequence[str], at_least: int = 1) -> None:
        wait_for(lambda: self.count(job_ids, "running") >= at_least, f"{at_least} jobs to run")

    def wait_until_ended(self, job_ids: Sequence[str]) -> None:
        def ended() -> bool:
            return self.count(job_ids, "queued", "running") == 0

        wait_for(lambda: _answers(ended, Unavailable) and ended(), "all jobs to end")

    def outcomes(self, job_ids: Sequence[str]) -> list[Outcome]:
        with transaction(self.engine) as session:
            rows = {row.id: row for row in session.scalars(select(Job).where(Job.id.in_(job_ids)))}
            tags = session.execute(select(Tag.job_id, Tag.value).where(Tag.job_id.in_(job_ids))).all()
        values: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
        for job_id, value in tags:
            values[job_id].append(value)
        return [
            Outcome(rows[job_id].status, rows[job_id].attempts, tuple(values[job_id]), rows[job_id].error)
            for job_id in job_ids
        ]

    def assert_all_tagged_once(self, job_ids: Sequence[str], titles: Sequence[str]) -> None:
        """Every product succeeded and has one set of tags, its own: the stand-in tags it with its title."""
        found = [(outcome.status, outcome.tags) for outcome in self.outcomes(job_ids)]
        assert found == [("succeeded", (title,)) for title in titles]

    def cancel_what_is_left(self) -> None:
        """Nothing of one test may run in the next."""
        with transaction(self.engine) as session:
            session.execute(
                update(Job)
                .where(Job.status.in_(["queued", "running"]))
                .values(status="cancelled", finished_at=func.now(), lease_token=None, lease_until=None)
            )

    def empty_the_broker(self) -> None:
        client = redis.Redis(unix_socket_path=str(redis_socket(self.settings.var)))
        client.flushall()
        client.close()

    def forget_the_append_only_file(self) -> None:
        for path in redis_data(self.settings.var).iterdir():
            if path.name.startswith("appendonly") or path.suffix in (".aof", ".rdb"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.05)


def _answers(ask: Callable[[], object], failure: type[Exception]) -> bool:
    try:
        ask()
    except failure:
        return False
    return True


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """Send the signal, if the process still runs, and wait until it is gone; returns its exit code."""
    if process.poll() is None:
        process.send_signal(number)
    return process.wait(PATIENCE_S)


@pytest.fixture(scope="session")
def fault_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("var"))
    try:
        made.start_postgres()
        made.start_redis()
        made.prepare()
        yield made
    finally:
        made.close()


@pytest.fixture
def installation(fault_servers: Installation) -> Iterator[Installation]:
    """The servers, empty, and without a worker: each test starts and ends its own."""
    yield fault_servers
    fault_servers.kill_workers()
    fault_servers.cancel_what_is_left()
    fault_servers.empty_the_broker()
