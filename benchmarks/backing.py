"""PostgreSQL and Redis of a benchmark's own, without web, worker or model, and what they have done so far."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy import Engine, text

from benchmarks.installation import ROOT, NotRunningError
from catalog.database import make_engine, migrate, ping, transaction
from catalog.embedded.places import redis_socket
from catalog.errors import Unavailable
from catalog.settings import PREFIX, Settings

STARTED_WITHIN_S = 120.0
STOPPED_WITHIN_S = 60.0
# PostgreSQL's own 100 are too few for 64 workers, each with one for its leases beside its pool.
CONNECTIONS = 200
# A connection of PostgreSQL tells the statistics what it did once a second at most.
STATISTICS_LAG_S = 1.5


@dataclass(frozen=True)
class Load:
    """What was used or done: since the start, or, as a difference, in between. Seconds are of one core."""

    at_s: float
    postgres_s: float
    redis_s: float
    workers_s: float
    machine_s: float  # all cores, whoever used them
    redis_commands: float
    transactions: float

    def since(self, before: Load) -> Load:
        return Load(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(Load)))


@dataclass(frozen=True)
class Backing:
    settings: Settings
    engine: Engine
    redis: redis.Redis
    postgres_pid: int
    redis_pid: int
    environment: dict[str, str]

    def load(self, workers: Sequence[int] = ()) -> Load:
        time.sleep(STATISTICS_LAG_S)
        with transaction(self.engine) as session:
            transactions = session.execute(
                text(
                    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
                )
            ).scalar_one()
        stats: Any = self.redis.info("stats")
        machine = psutil.cpu_times()
        return Load(
            at_s=time.monotonic(),
            postgres_s=cpu_seconds(self.postgres_pid),
            redis_s=cpu_seconds(self.redis_pid),
            workers_s=sum(map(cpu_seconds, workers)),
            machine_s=sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice,
            redis_commands=stats["total_commands_processed"],
            transactions=float(transactions),
        )


def cpu_seconds(pid: int) -> float:
    """Of a process and of all that it started, also of those that have ended."""
    process = psutil.Process(pid)
    seconds = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            seconds += sum(one.cpu_times()[:4])  # its own, and those of its children that have ended
        except psutil.NoSuchProcess:  # its parent has that now
            continue
    return seconds


@contextmanager
def backing() -> Iterator[Backing]:
    """Fresh servers with an empty schema; stopped at the end, with nothing left. Raises NotRunningError."""
    with tempfile.TemporaryDirectory(prefix="tagsmith-bench-") as folder, ExitStack() as stack:
        var = Path(folder) / "var"
        var.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {"TAGSMITH_VAR": os.fspath(var), "PYTHONPATH": os.fspath(ROOT)}
        settings = Settings(var=var)
        pids = {
            name: stack.enter_context(
                started(
                    [sys.executable, "-m", "catalog.embedded", name, *options],
                    environment,
                    var / f"{name}.log",
                )
            ).pid
            for name, options in (("postgres", ["-c", f"max_connections={CONNECTIONS}"]), ("redis", []))
        }
        engine = make_engine(settings)
        stack.callback(engine.dispose)
        client = redis.Redis(unix_socket_path=os.fspath(redis_socket(var)))
        stack.callback(client.close)
        wait_until(lambda: answers(lambda: ping(engine), Unavailable), "PostgreSQL")
        wait_until(lambda: answers(client.ping, redis.RedisError), "Redis")
        migrate(engine)
        yield Backing(settings, engine, client, pids["postgres"], pids["redis"], environment)


@contextmanager
def started(
    command: Sequence[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], what: str, within_s: float = STARTED_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotRunningError(f"{what} did not answer within {within_s:.0f} s")
        time.sleep(0.1)


def answers(ask: Callable[[], object], failure: type[Exception]) -> bool:
    try:
        ask()
    except failure:
        return False
    return True
