"""POST to tags, one product at a time on an idle installation, beside the bare forward of one product.

The two are interleaved, so that a slow minute of the machine touches both. The difference is what the service
adds: HTTP, the photo's intake, two transactions, the queue and the answer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.headline import headline
from benchmarks.installation import Installation
from benchmarks.machine import describe
from benchmarks.products import MadeProduct, ProductMaker, post
from catalog.settings import Settings
from samples.client import Client

WARM_UP = 5
WAIT_S = 30


class JobNotTaggedError(Exception):
    """A product of the benchmark did not end tagged, so there is nothing to time."""


def milliseconds(times_s: Sequence[float]) -> dict[str, float]:
    """Percentiles by linear interpolation between the measured times."""
    cuts = statistics.quantiles(times_s, n=100, method="inclusive")
    return {"p50": round(cuts[49] * 1e3, 1), "p90": round(cuts[89] * 1e3, 1), "p99": round(cuts[98] * 1e3, 1)}


def post_to_tags(client: Client, product: MadeProduct) -> tuple[float, float]:
    """Seconds until the 202, and until the tags are in hand."""
    began = time.perf_counter()
    job = post(client, product, "interactive")["job"]
    accepted = time.perf_counter()
    job = client.job(job["id"], wait_s=WAIT_S)
    tagged = time.perf_counter()
    if job["status"] != "succeeded":
        raise JobNotTaggedError(f"job {job['id']} is {job['status']} after {WAIT_S} s: {job['error']}")
    return accepted - began, tagged - began


def measure(installation: Installation, settings: Settings, count: int, first: int = 0) -> dict[str, Any]:
    """Figures in milliseconds and megabytes, with the machine they were measured on. `first` is the number of the first
    product: an installation remembers the photos and texts of those that it has had.
    """
    from workers.runtime import ModelRuntime  # torch: seconds that --help need not pay

    machine = describe()
    runtime = ModelRuntime.load(settings)
    maker = ProductMaker.from_samples()
    accepted, tagged, forward = [], [], []
    with Client(installation.base_url, installation.key) as client:
        served = client.call("GET", "/v1/model")
        for number in range(-WARM_UP, count):
            product = maker.make(first + WARM_UP + number)
            times = post_to_tags(client, product)
            example = runtime.prepare(product.title, product.description, product.photos)
            batches = runtime.collate([example])
            began = time.perf_counter()
            runtime.forward(batches)
            took = time.perf_counter() - began
            if number >= 0:
                accepted.append(times[0])
                tagged.append(times[1])
                forward.append(took)
    return {
        "benchmark": "latency",
        "machine": machine,
        "model": {"name": served["name"], "version": served["version"]},
        "products": count,
        "first": first,
        "post_ms": milliseconds(accepted),
        "post_to_tags_ms": milliseconds(tagged),
        "bare_forward_ms": milliseconds(forward),
        "memory_mb": installation.memory_mb(),
        "headline": [
            headline("POST to tags, p50", milliseconds(tagged)["p50"], unit="ms"),
            headline("POST to tags, p99", milliseconds(tagged)["p99"], unit="ms"),
            headline("bare forward of one product, p50", milliseconds(forward)["p50"], unit="ms"),
        ],
    }


def table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
        f"{result['products']} products, model {result['model']['name']} {result['model']['version'][:12]}",
        "",
        f"{'ms':<22}{'p50':>9}{'p90':>9}{'p99':>9}",
    ]
    for title, key in (
        ("POST to 202", "post_ms"),
        ("POST to tags", "post_to_tags_ms"),
        ("bare forward, batch 1", "bare_forward_ms"),
    ):
        figures = result[key]
        lines.append(f"{title:<22}{figures['p50']:>9.1f}{figures['p90']:>9.1f}{figures['p99']:>9.1f}")
    lines += ["", f"{'MB':<22}{'RSS':>9}{'PSS':>9}"]
    for name, memory in sorted(result["memory_mb"].items()):
        lines.append(f"{name:<22}{memory['rss']:>9.1f}{memory['pss']:>9.1f}")
    return "\n".join(lines)
