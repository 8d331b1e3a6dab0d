"""What each further worker brings, and what ends it: rates of 1, 2, 4 … worker processes with simulated devices.

Everything but the device is real: Celery, PostgreSQL, Redis, claims, leases, tags and embeddings. A step holds the
lane, queues its jobs (rows and messages, without web and without photos), lets all workers go at once and waits for
the last of them to end. Devices that sleep use no core, so the cores of one machine carry what is around many.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from celery import Celery
from sqlalchemy import Engine, text

from benchmarks.backing import CONNECTIONS, Backing, Load, backing, started, wait_until
from benchmarks.headline import headline
from benchmarks.latency import JobNotTaggedError
from benchmarks.saturation import STUCK_S, held, tagged_in
from benchmarks.simulated_worker import VARIABLE, Device
from catalog.database import transaction
from catalog.queue import SWEEPS, make_celery, send
from catalog.tenants import create_tenant
from catalog.views import LANES, Lane

TENANTS = 10
WORKERS_WITHIN_S = 300.0  # 64 processes on few cores import Celery one after the other
# Of PostgreSQL's connections, for this process and some to spare; the workers share out the others.
SPARE_CONNECTIONS = 30
# Above that share the device counts as the limit; the rest of its time are the ramps at both ends of a step.
FULL = 0.9
# A machine whose cores are used to that share has no more to give.
BUSY = 0.85
LOOK_S = 0.5


@dataclass(frozen=True)
class Step:
    workers: int
    jobs: int
    took_s: float  # from the first claim to the last end
    load: Load  # of the whole step
    device_per_s: float  # of one worker
    cores: int
    worker_mb: float  # of one, on average
    database_pool: int

    @property
    def jobs_per_s(self) -> float:
        return self.jobs / self.took_s

    @property
    def device_share(self) -> float:
        """Of what the devices could do together."""
        return self.jobs_per_s / (self.workers * self.device_per_s)

    @property
    def shares(self) -> dict[str, float]:
        """Who used how much of all cores while the step ran."""
        ours = {
            "workers": self.load.workers_s,
            "PostgreSQL": self.load.postgres_s,
            "Redis": self.load.redis_s,
        }
        # Ours was used while jobs ran, the others' also in the moments before and after.
        shares = {name: seconds / (self.cores * self.took_s) for name, seconds in ours.items()}
        others_s = max(0.0, self.load.machine_s - sum(ours.values()))
        return shares | {"others": others_s / (self.cores * self.load.at_s)}

    @property
    def limit(self) -> str:
        """What kept this step from being faster."""
        if self.device_share >= FULL:
            return "the devices"
        shares = self.shares
        if sum(shares.values()) >= BUSY:
            largest = max(shares, key=lambda name: shares[name])
            return f"the cores, mostly used by {largest}"
        if self.load.redis_s / self.took_s >= BUSY:
            return "Redis, which uses one core only"
        return "waiting: neither devices nor cores were full"


def document_of(step: Step) -> dict[str, Any]:
    per_job = {
        "workers_cpu_ms": step.load.workers_s * 1e3,
        "postgres_cpu_ms": step.load.postgres_s * 1e3,
        "redis_cpu_ms": step.load.redis_s * 1e3,
        "redis_commands": step.load.redis_commands,
        "transactions": step.load.transactions,
    }
    return {
        "workers": step.workers,
        "jobs": step.jobs,
        "jobs_per_s": round(step.jobs_per_s, 1),
        "device_share": round(step.device_share, 3),
        "limit": step.limit,
        "share_of_cores": {name: round(share, 3) for name, share in step.shares.items()},
        "per_job": {name: round(amount / step.jobs, 4) for name, amount in per_job.items()},
        "load": {name: round(amount, 3) for name, amount in asdict(step.load).items()},
        "worker_mb": round(step.worker_mb, 1),
        "database_pool": step.database_pool,
    }


def summary(steps: Sequence[Step]) -> dict[str, Any]:
    """The steps, and the first that something else than the devices limits."""
    beyond = next((step for step in steps if step.limit != "the devices"), None)
    fastest = max(steps, key=lambda step: step.jobs_per_s)
    return {
        "steps": [document_of(step) for step in steps],
        "limited_from_workers": None if beyond is None else beyond.workers,
        "limited_by": None if beyond is None else beyond.limit,
        "headline": [
            headline(
                f"growth: fastest, with {fastest.workers} workers",
                round(fastest.jobs_per_s, 1),
                unit="jobs/s",
            ),
            headline("growth: one worker's share of its device", round(steps[0].device_share, 3), goal=FULL),
        ],
    }


def measure(
    machine: dict[str, Any], lane: Lane, workers: Sequence[int], jobs: int, seconds: float, device: Device
) -> dict[str, Any]:
    """The document. Raises NotRunningError, LaneNotHeldError, JobNotTaggedError and the catalog's Unavailable."""
    steps = []
    for count in workers:
        # Fresh ones for each: what a step leaves behind does not fit into PostgreSQL's memory, and slows down the next.
        with backing() as servers:
            settings = servers.settings
            size = step_size(count, jobs, seconds, device.products_per_s(settings.max_batch))
            steps.append(run_step(servers, make_tenants(servers.engine), lane, count, size, device))
    return {
        "benchmark": "growth",
        "machine": machine,
        "lane": lane,
        "device_ms": str(device),
        "max_batch": settings.max_batch,
        "tenants": TENANTS,
        **summary(steps),
    }


def step_size(workers: int, jobs: int, seconds: float, device_per_s: float) -> int:
    """As many jobs as the devices can do in that time, and no more than `jobs`."""
    return max(1, min(jobs, round(seconds * workers * device_per_s)))


def run_step(
    servers: Backing, tenants: Sequence[str], lane: Lane, count: int, jobs: int, device: Device
) -> Step:
    of_each = (CONNECTIONS - SPARE_CONNECTIONS) // count - 1  # beside the one for its leases
    pool = max(1, min(servers.settings.database_pool, of_each))
    with (
        make_celery(servers.settings) as celery,
        running_workers(servers, celery, count, pool, device) as pids,
    ):
        with held(celery, lane, workers=count):
            job_ids = queue(servers.engine, tenants, lane, jobs)
            send(celery, job_ids, lane)
            before = servers.load(pids)
        wait_until_drained(servers.engine)
        took_s = tagged_in(servers.engine, job_ids)
        load = servers.load(pids).since(before)
        memory = sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / count / 1e6
    return Step(
        workers=count,
        jobs=jobs,
        took_s=took_s,
        load=load,
        device_per_s=device.products_per_s(servers.settings.max_batch),
        cores=len(os.sched_getaffinity(0)),
        worker_mb=memory,
        database_pool=pool,
    )


@contextmanager
def running_workers(
    servers: Backing, celery: Celery, count: int, pool: int, device: Device
) -> Iterator[list[int]]:
    """The process ids of so many workers that all consume, with a beat for their sweeps."""
    environment = servers.environment | {
        VARIABLE: str(device),
        "TAGSMITH_DATABASE_POOL": str(pool),
        "TAGSMITH_METRICS_PORT": "0",
    }
    celery_command = [sys.executable, "-m", "celery", "-A", "benchmarks.simulated_worker"]
    log = servers.settings.var / "workers.log"
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                started(
                    [
                        *(*celery_command, "worker", "--pool", "threads", "-Q", ",".join((SWEEPS, *LANES))),
                        *("--without-gossip", "--without-mingle", "-n", f"simulated{number}@benchmark"),
                    ],
                    environment,
                    log,
                )
            )
            for number in range(count)
        ]
        stack.enter_context(started([*celery_command, "beat", "--pidfile="], environment, log))

        @stack.callback
        def stop_all_at_once() -> None:  # and then wait for one after the other
            for process in processes:
                process.terminate()

        def all_consume() -> bool:
            return len(celery.control.ping(timeout=5.0, limit=count)) == count

        wait_until(all_consume, f"{count} workers", WORKERS_WITHIN_S)
        yield [process.pid for process in processes]


def make_tenants(engine: Engine) -> list[str]:
    with transaction(engine) as session:
        return [create_tenant(session, f"benchmark {number}").id for number in range(TENANTS)]


_QUEUE = text(
    """
    WITH numbered AS (
        SELECT n, (CAST(:tenants AS text[]))[1 + n % :count] AS tenant_id,
               replace(gen_random_uuid()::text, '-', '') AS name
        FROM generate_series(1, :jobs) AS n
    ), made AS (
        INSERT INTO products (id, tenant_id, title, description, job_id)
        SELECT 'prd_' || name, tenant_id, 'A red shirt ' || n, '', 'job_' || name FROM numbered
    )
    INSERT INTO jobs (id, tenant_id, product_id, revision, lane, resend_at)
    SELECT 'job_' || name, tenant_id, 'prd_' || name, 1, :lane, now() + interval '1 minute' FROM numbered
    RETURNING id
    """
)


def queue(engine: Engine, tenants: Sequence[str], lane: Lane, jobs: int) -> list[str]:
    """Queues so many products without photos, as many for each tenant; returns the ids of their jobs."""
    job_ids: list[str] = []
    with transaction(engine) as session:
        while len(job_ids) < jobs:  # a statement may not take too long
            parameters = {
                "tenants": list(tenants),
                "count": len(tenants),
                "jobs": min(10_000, jobs - len(job_ids)),
                "lane": lane,
            }
            job_ids += session.execute(_QUEUE, parameters).scalars()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE jobs, products"))
    return job_ids


_LIVE = text("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')")


def wait_until_drained(engine: Engine) -> None:
    """Until no job lives. Asking for each by its id, as `tagged_in` does, would be a load worth measuring itself."""
    live, changed_at = 0, time.monotonic()
    while True:
        with transaction(engine) as session:
            now_live = session.execute(_LIVE).scalar_one()
        if now_live == 0:
            return
        if now_live != live:
            live, changed_at = now_live, time.monotonic()
        if time.monotonic() - changed_at > STUCK_S:
            raise JobNotTaggedError(f"{live} jobs wait and none has ended for {STUCK_S:.0f} s")
        time.sleep(LOOK_S)


def table(document: dict[str, Any]) -> str:
    machine = document["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
        f"{document['lane']} lane, simulated devices of {document['device_ms']} ms (fixed, per product), "
        f"batches of up to {document['max_batch']}",
        "",
        f"{'':>7}{'':>8}{'':>9}{'share of':>9}{'CPU ms per job':>27}{'per job':>17}{'% of all cores':>31}",
        f"{'workers':>7}{'jobs':>8}{'jobs/s':>9}{'devices':>9}{'worker':>9}{'postgres':>10}{'redis':>8}"
        f"{'redis ops':>10}{'commits':>8}{'worker':>8}{'postgres':>9}{'redis':>6}{'others':>8}",
    ]
    for step in document["steps"]:
        per_job, cores = step["per_job"], step["share_of_cores"]
        lines.append(
            f"{step['workers']:>7}{step['jobs']:>8}{step['jobs_per_s']:>9.1f}{step['device_share']:>9.1%}"
            f"{per_job['workers_cpu_ms']:>9.3f}{per_job['postgres_cpu_ms']:>10.3f}{per_job['redis_cpu_ms']:>8.3f}"
            f"{per_job['redis_commands']:>10.3f}{per_job['transactions']:>8.3f}"
            f"{cores['workers']:>8.0%}{cores['PostgreSQL']:>9.0%}{cores['Redis']:>6.0%}{cores['others']:>8.0%}"
        )
    lines += ["", *(f"{step['workers']} workers: limited by {step['limit']}" for step in document["steps"])]
    return "\n".join(lines)
