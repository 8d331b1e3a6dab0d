"""What a person waits for one product: idle, beside an import, and at shares of what the service can do at most.

Each round of one installation measures all of it in turns: bare forwards of one product; products one at a time on
the idle service; the same while an import, queued before, is worked off, and while one is being sent; how fast the
service is when as many as it can take come at once; and arrivals at shares of that rate. Arrivals are random
(Poisson, seeded) and wait for nobody, and a product's time runs from when it should have been sent, so that a service
that falls behind is not spared the queue.
"""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.headline import headline
from benchmarks.installation import Installation
from benchmarks.latency import WAIT_S, WARM_UP, JobNotTaggedError, milliseconds
from benchmarks.products import MadeProduct, ProductMaker
from benchmarks.products import post as post_product
from benchmarks.saturation import CLIENTS, accept, ended, held, tagged_in
from catalog.database import make_engine, transaction
from catalog.queue import make_celery
from catalog.settings import Settings
from samples.client import Client

SHARES = (0.1, 0.5, 0.8)  # of the service's rate at saturation
AT_ONCE = 12  # products on their way at saturation: as many of one account as may hold a `wait`
EACH = 16  # of them one after the other at most: the first and the last have less company, and then count for little
IN_FLIGHT = 64  # arrivals on their way at most; beyond what a service below saturation lets pile up
PAUSE_S = 0.05  # before asking again for a job, where too many wait already
GOAL = 2.0  # p99 beside an import, in those of the idle service


class ImportTooSmallError(Exception):
    """The import ended before the interactive products did, so that they did not all wait beside it."""

    def __init__(self, products: int, what: str) -> None:
        super().__init__(
            f"all {products} products of the import were {what} before the interactive ones were tagged: "
            "raise --import, or lower --products"
        )


def measure(
    installation: Installation,
    settings: Settings,
    machine: dict[str, Any],
    count: int,
    import_size: int,
    seconds: float,
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    """The document. Raises ImportTooSmallError, JobNotTaggedError, LaneNotHeldError, ApiError and Unavailable."""
    from workers.runtime import ModelRuntime  # torch: seconds that --help need not pay

    settings = settings.model_copy(update={"var": installation.var})
    runtime = ModelRuntime.load(settings)
    maker = ProductMaker.from_samples()
    numbers = itertools.count()
    engine = make_engine(settings)
    found: list[dict[str, Any]] = []

    def made(products: int) -> list[MadeProduct]:
        return [maker.make(next(numbers)) for _ in range(products)]

    try:
        with make_celery(settings) as celery:
            one_at_a_time(installation, made(WARM_UP))
            for number in range(rounds):
                one: dict[str, Any] = {"forward": bare_forwards(runtime, made(count))}
                one["idle"] = one_at_a_time(installation, made(count))
                with held(celery, "bulk"):
                    imported = accept(installation, made(import_size), "bulk").job_ids
                one["import"] = one_at_a_time(installation, made(count))
                require_running(engine, imported)
                tagged_in(engine, imported)
                with sending(installation, made(import_size)) as sent:
                    one["sending"] = one_at_a_time(installation, made(count))
                ended(engine, sent)
                one["saturation_per_s"] = saturation(installation, made(AT_ONCE * min(count, EACH)))
                for share in SHARES:
                    per_s = share * one["saturation_per_s"]
                    coming = max(count, round(per_s * seconds))
                    plan = arrivals(per_s, coming, seed + number)
                    one[f"load {share}"] = open_loop(installation, made(coming), plan)
                found.append(one)
        with Client(installation.base_url, installation.key) as client:
            served = client.call("GET", "/v1/model")
    finally:
        engine.dispose()
    return {
        "benchmark": "under-load",
        "machine": machine,
        "model": {"name": served["name"], "version": served["version"]},
        "products": count,
        "import": import_size,
        "seconds": seconds,
        "seed": seed,
        **summary(found),
    }


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Percentiles over the products of all rounds, and the medians of each round, from seconds to milliseconds."""
    states = [state for state in rounds[0] if state != "saturation_per_s"]
    waits: dict[str, dict[str, Any]] = {
        state: {
            "products": sum(len(one[state]) for one in rounds),
            **milliseconds([seconds for one in rounds for seconds in one[state]]),
            "p50_of_rounds": [round(statistics.median(one[state]) * 1e3, 1) for one in rounds],
        }
        for state in states
    }
    rates = [one["saturation_per_s"] for one in rounds]
    import_costs = [
        round(statistics.median(one["import"]) / statistics.median(one["idle"]), 2) for one in rounds
    ]
    return {
        "ms": waits,
        "saturation_per_s": round(statistics.median(rates), 2),
        "rounds": [{"saturation_per_s": round(rate, 2)} for rate in rates],
        "headline": [
            headline("interactive p50 under import / idle", statistics.median(import_costs), each=import_costs),
            *(
                headline(f"interactive p99 {title} / idle", round(waits[state]["p99"] / waits["idle"]["p99"], 2),
                         goal=GOAL, at_most=True)
                for state, title in (("import", "under import"), ("sending", "under import being sent"))
            ),
            *(
                headline(f"POST to tags p50 at {share:.0%} of saturation", waits[f"load {share}"]["p50"],
                         unit="ms", each=waits[f"load {share}"]["p50_of_rounds"])
                for share in SHARES
            ),
        ],
    }  # fmt: skip


def bare_forwards(runtime: Any, made: Sequence[MadeProduct]) -> list[float]:
    """Seconds of the forward of one product, each."""
    times = []
    for product in made:
        batch = runtime.collate([runtime.prepare(product.title, product.description, product.photos)])
        began = time.perf_counter()
        runtime.forward(batch)
        times.append(time.perf_counter() - began)
    return times


def tagged_after(client: Client, product: MadeProduct, since: float) -> float:
    """Sends an interactive product; seconds from `since` to its tags. Raises JobNotTaggedError and ApiError."""
    job = post_product(client, product, "interactive")["job"]
    deadline = time.perf_counter() + WAIT_S
    while job["status"] in ("queued", "running") and time.perf_counter() < deadline:
        asked = time.perf_counter()
        job = client.job(job["id"], wait_s=WAIT_S)
        if job["status"] in ("queued", "running") and time.perf_counter() - asked < PAUSE_S:
            time.sleep(PAUSE_S)  # too many wait already, so that the answer came at once
    if job["status"] != "succeeded":
        raise JobNotTaggedError(f"job {job['id']} is {job['status']} after {WAIT_S} s: {job.get('error')}")
    return time.perf_counter() - since


def one_at_a_time(installation: Installation, made: Sequence[MadeProduct]) -> list[float]:
    with Client(installation.base_url, installation.key) as client:
        return [tagged_after(client, product, time.perf_counter()) for product in made]


@contextmanager
def sending(installation: Installation, made: Sequence[MadeProduct]) -> Iterator[list[str]]:
    """Some connections send the products as an import until the block ends; the ids of the jobs, all of them then.

    Raises ApiError, and ImportTooSmallError where they had sent all by then.
    """
    left, stop, begun = iter(made), threading.Event(), threading.Semaphore(0)
    job_ids: list[str] = []
    taking = threading.Lock()

    def send() -> None:
        with Client(installation.base_url, installation.key) as client:
            while not stop.is_set():
                with taking:
                    product = next(left, None)
                if product is None:
                    return
                job_ids.append(post_product(client, product, "bulk")["job"]["id"])
                begun.release()

    with ThreadPoolExecutor(CLIENTS) as pool:
        senders = [pool.submit(send) for _ in range(CLIENTS)]
        try:
            for _ in range(CLIENTS):
                begun.acquire(timeout=WAIT_S)
            yield job_ids
        finally:
            stop.set()
    for sender in senders:
        sender.result()
    if len(job_ids) == len(made):
        raise ImportTooSmallError(len(made), "sent")


def saturation(installation: Installation, made: Sequence[MadeProduct]) -> float:
    """Products per second when AT_ONCE are always on their way."""

    def send(part: Sequence[MadeProduct]) -> None:
        one_at_a_time(installation, part)

    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(send, [made[n::AT_ONCE] for n in range(AT_ONCE)]))
    return len(made) / (time.perf_counter() - began)


def arrivals(per_s: float, count: int, seed: int) -> list[float]:
    """Seconds from the start at which products arrive: independent of each other, so many in a second on average."""
    gaps = random.Random(seed)
    return list(itertools.accumulate(gaps.expovariate(per_s) for _ in range(count)))


def open_loop(installation: Installation, made: Sequence[MadeProduct], plan: Sequence[float]) -> list[float]:
    """Sends each product at its time, whatever became of the others; seconds from then to its tags."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:

        def send(product: MadeProduct, since: float) -> float:
            with Client(installation.base_url, installation.key) as client:
                return tagged_after(client, product, since)

        return [answer.result() for answer in started_at(plan, made, lambda *sent: pool.submit(send, *sent))]


def started_at(
    plan: Sequence[float],
    made: Sequence[MadeProduct],
    start: Callable[[MadeProduct, float], Any],
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Any]:
    """What `start` returns for each product, called at its time with the time at which it should have been."""

    def each() -> Iterator[Any]:
        began = clock()
        for at_s, product in zip(plan, made, strict=True):
            left_s = began + at_s - clock()
            if left_s > 0:
                sleep(left_s)
            yield start(product, began + at_s)

    return list(each())


_LIVE = text("SELECT count(*) FROM jobs WHERE id = ANY(:ids) AND status IN ('queued', 'running')")


def require_running(engine: Engine, job_ids: Sequence[str]) -> None:
    with transaction(engine) as session:
        if session.execute(_LIVE, {"ids": list(job_ids)}).scalar_one() == 0:
            raise ImportTooSmallError(len(job_ids), "tagged")


def table(document: dict[str, Any]) -> str:
    machine, waits = document["machine"], document["ms"]
    titles = {
        "forward": "bare forward, batch 1",
        "idle": "POST to tags, idle",
        "import": f"POST to tags, import of {document['import']}",
        "sending": f"POST to tags, import being sent by {CLIENTS}",
        **{f"load {share}": f"POST to tags at {share:.0%} of saturation" for share in SHARES},
    }
    return "\n".join(
        [
            f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
            f"model {document['model']['name']} {document['model']['version'][:12]}; {len(document['rounds'])} rounds "
            f"of {document['products']} products; saturation {document['saturation_per_s']:.1f} products per second",
            "",
            f"{'ms':<36}{'p50':>9}{'p90':>9}{'p99':>9}",
            *(
                f"{title:<36}" + "".join(f"{waits[state][cut]:>9.1f}" for cut in ("p50", "p90", "p99"))
                for state, title in titles.items()
            ),
        ]
    )
