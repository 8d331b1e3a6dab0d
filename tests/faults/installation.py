"""An installation of real processes, and the means to start, load, hurt and judge it.

Every process is started here and ended here, by its own pid. Waiting is for a condition, with a limit that only
a failure reaches. The worker's model is a stand-in (`fake_worker`); everything else is what is shipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from sqlalchemy import Engine, func, select, text, update

from benchmarks.installation import free_port
from catalog.database import make_engine, migrate, transaction
from catalog.embedded.places import redis_data, redis_socket
from catalog.errors import Unavailable
from catalog.photo_store import PhotoStore
from catalog.products import accept
from catalog.queue import make_celery, send
from catalog.settings import PREFIX, Settings
from catalog.tables import Job, Tag
from catalog.tenants import create_api_key, create_tenant
from catalog.views import Lane, PhotoRef
from samples.client import Client
from tests.faults import invariant

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE_S = 120.0

# Short times, so that a test does not wait for a lease or a sweep longer than it must.
SHORT_TIMES = {
    "lease_s": 6.0,
    "forward_timeout_s": 4.0,
    "retry_delay_s": 0.5,
    "resend_after_s": 2.0,
    "sweep_interval_s": 1.0,
    "max_batch": 8,
}


@dataclass(frozen=True)
class Outcome:
    status: str
    attempts: int
    tags: tuple[str, ...]
    error: dict[str, Any] | None


class Installation:
    def __init__(self, var: Path, **changes: Any) -> None:
        """`changes` are settings of all its processes."""
        self.changes = {"metrics_port": 0, **changes}
        self.settings = Settings(var=var, **self.changes)
        self.engine: Engine = make_engine(self.settings)
        self.celery: Celery = make_celery(self.settings)
        self.postgres: subprocess.Popen[bytes] | None = None
        self.redis: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self._log = (var / "processes.log").open("ab")

    # -- processes -----------------------------------------------------------------------------------------

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """A process of this installation; `command` is what follows `python -m`."""
        return self.launch([sys.executable, "-m", *command], **environment)

    def launch(self, command: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
        own = {f"{PREFIX}{name.upper()}": str(value) for name, value in self.changes.items()}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
                **own,
                "TAGSMITH_VAR": str(self.settings.var),
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
                **environment,
            },
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def start_redis(self, **environment: str) -> None:
        self.redis = self.start("catalog.embedded", "redis", **environment)
        self.wait_for_redis()

    def wait_for_redis(self) -> None:
        with closing(self.broker()) as client:
            wait_for(lambda: answers(client.ping, redis.RedisError), "Redis to answer")

    def start_postgres(self, **environment: str) -> None:
        self.postgres = self.start("catalog.embedded", "postgres", **environment)
        self.wait_for_postgres()

    def wait_for_postgres(self) -> None:
        wait_for(lambda: bool(self.query("SELECT 1")), "PostgreSQL to answer")

    def start_worker(self, batch_seconds: float = 0.0, **environment: str) -> subprocess.Popen[bytes]:
        worker = self.start(
            "celery", "-A", "fake_worker", "worker", "--pool", "threads", "-Q", "sweep,interactive,bulk",
            "--without-gossip", "--without-mingle",
            STAND_IN_BATCH_SECONDS=str(batch_seconds),
            **environment,
        )  # fmt: skip
        self._others.append(worker)
        return worker

    def start_beat(self, **environment: str) -> subprocess.Popen[bytes]:
        beat = self.start("celery", "-A", "fake_worker", "beat", "--pidfile=", **environment)
        self._others.append(beat)
        return beat

    def start_web(self, host: str, port: int, **environment: str) -> subprocess.Popen[bytes]:
        return self.start("web", TAGSMITH_HOST=host, TAGSMITH_PORT=str(port), **environment)

    @contextmanager
    def web(
        self, host: str = "127.0.0.1", **environment: str
    ) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
        """A seller with a key of the current tenant, and the intake API it talks to; stopped at the end."""
        port = free_port()
        process = self.start_web(host, port, **environment)
        try:
            with Client(f"http://{host}:{port}", self.new_key()) as client:
                wait_for(lambda: answers(lambda: client.request("GET", "/healthz"), OSError), "web to answer")
                yield client, process
        finally:
            end(process, signal.SIGTERM)

    def kill_workers(self) -> None:
        """Workers and beats."""
        for process in self._others:
            end(process, signal.SIGKILL)
        self._others.clear()

    def close(self) -> None:
        self.engine.dispose()
        self.kill_workers()
        for server in (self.redis, self.postgres):
            if server is not None:
                end(server, signal.SIGTERM)
        self.celery.close()
        self._log.close()

    def broker(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(redis_socket(self.settings.var)), socket_timeout=5)

    # -- the work ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        migrate(self.engine)
        invariant.watch_endings(self.engine)
        self.new_tenant("faults")

    def new_tenant(self, name: str) -> None:
        """All that is accepted from now on belongs to it, and is counted by itself."""
        with transaction(self.engine) as session:
            self.tenant_id = create_tenant(session, name).id

    def new_key(self) -> str:
        with transaction(self.engine) as session:
            return create_api_key(session, self.tenant_id, "faults")

    def accept(self, titles: Sequence[str], lane: Lane = "bulk", *, message: bool = True) -> list[str]:
        """Accept a product for each title, as intake does; returns the ids of their jobs."""
        job_ids = [self.accept_one(title, lane) for title in titles]
        if message:
            send(self.celery, job_ids, lane)
        return job_ids

    def accept_with_photo(self, title: str, photo: bytes, photo_id: str) -> str:
        store = PhotoStore.open(self.settings.resolved_photo_store_url())
        store.put(photo_id, photo, photo)
        job_id = self.accept_one(title, "interactive", [PhotoRef(photo_id, 1, 1, len(photo), "image/jpeg")])
        send(self.celery, [job_id], "interactive")
        return job_id

    def accept_one(self, title: str, lane: Lane, photos: Sequence[PhotoRef] = ()) -> str:
        """The rows, without a message. Raises Unavailable."""
        with transaction(self.engine) as session:
            return accept(
                session, tenant_id=self.tenant_id, title=title, description="", external_id=None,
                photos=photos, lane=lane, idempotency=None, settings=self.settings,
            )[1].id  # fmt: skip

    def resend(self, job_ids: Sequence[str], lane: Lane = "bulk") -> None:
        send(self.celery, job_ids, lane)

    def query(self, statement: str, **values: Any) -> list[Any]:
        with transaction(self.engine) as session:
            result = session.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    def log(self) -> bytes:
        """What all processes have written to their logs so far, also those of earlier tests."""
        return (self.settings.var / "processes.log").read_bytes()

    def unfinished(self) -> bool:
        """Whether a job of the current tenant is queued or running."""
        return bool(
            self.query(
                "SELECT 1 FROM jobs WHERE tenant_id = :tenant AND status IN ('queued', 'running') LIMIT 1",
                tenant=self.tenant_id,
            )
        )

    def count(self, job_ids: Sequence[str], *statuses: str) -> int:
        with transaction(self.engine) as session:
            wanted = select(func.count()).where(Job.id.in_(job_ids), Job.status.in_(statuses))
            return int(session.execute(wanted).scalar_one())

    def wait_until_running(self, job_ids: Sequence[str], at_least: int = 1) -> None:
        wait_for(lambda: self.count(job_ids, "running") >= at_least, f"{at_least} jobs to run")

    def wait_until_ended(self, job_ids: Sequence[str]) -> None:
        wait_for(lambda: self.count(job_ids, "queued", "running") == 0, "all jobs to end")

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

    def cancel_what_is_left(self) -> None:
        """Nothing of one test may run in the next."""
        with transaction(self.engine) as session:
            session.execute(
                update(Job)
                .where(Job.status.in_(["queued", "running"]))
                .values(status="cancelled", finished_at=func.now(), lease_token=None, lease_until=None)
            )

    def empty_the_broker(self) -> None:
        with closing(self.broker()) as client:
            client.flushall()

    def forget_the_append_only_file(self) -> None:
        for path in redis_data(self.settings.var).iterdir():
            if path.name.startswith("appendonly") or path.suffix in (".aof", ".rdb"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """A database that is away is waited for as well."""
    give_up_at = time.monotonic() + patience_s
    while not _holds(condition):
        assert time.monotonic() < give_up_at, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.05)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except Unavailable:
        return False


def answers(ask: Callable[[], object], failure: type[Exception]) -> bool:
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
