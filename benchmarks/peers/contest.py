"""Products per second of our worker beside the peers, in turns over the same products.

A round accepts its products at our API while our worker waits, has them tagged, and then gives the model views that our
intake stored to one peer after the other, the other peers stopped and ours idle. Ours counts from the first claim to
the last finish in PostgreSQL; a Celery peer from its first task begun to its last result stored in Redis; so accepting
is counted for neither. LitServe has no queue: it counts from the first request sent to the last answer, and its clients
are on the same cores.

The titles say which numeric type each computes in. The peer that people write first is theirs in float32, eager, and so
is its goal; what it would be in our type is told beside it.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.headline import headline
from benchmarks.installation import Installation
from benchmarks.peers import contestants
from benchmarks.peers.contestants import Payload, Peer, Setting
from benchmarks.products import MadeProduct, ProductMaker
from benchmarks.saturation import accept, held, tagged_in
from catalog.database import make_engine
from catalog.photo_store import PhotoStore
from catalog.queue import make_celery
from catalog.settings import Settings
from catalog.views import Lane
from samples.client import Client

LANE: Lane = "bulk"
OURS = "ours"
WARM_UP = 64  # products of a first round that is not counted


@dataclass(frozen=True)
class Entry:
    """A peer of the contest, and the goals in times its throughput: of it in float32, and in our type if another."""

    start: Callable[[Setting, Path], AbstractContextManager[Peer]]
    goal: float
    goal_as_ours: float | None


PEERS = {
    "naive-celery": Entry(contestants.naive_celery, goal=3.0, goal_as_ours=None),
    "celery-batches": Entry(contestants.celery_batches, goal=1.3, goal_as_ours=1.3),
    "litserve": Entry(contestants.litserve, goal=1.3, goal_as_ours=1.3),
}


def measure(
    installation: Installation,
    settings: Settings,
    machine: dict[str, Any],
    names: Sequence[str],
    products: int,
    rounds: int,
) -> dict[str, Any]:
    """The document. Raises PeerUnavailableError, PeerFailedError and what `benchmarks.saturation` raises."""
    settings = settings.model_copy(update={"var": installation.var})
    computes_with = ours_computes_with(settings)
    store = PhotoStore.open(settings.resolved_photo_store_url())
    maker = ProductMaker.from_samples()
    engine = make_engine(settings)
    counted: list[dict[str, float]] = []
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagsmith-peers-")))
        celery = stack.enter_context(make_celery(settings))
        peers = {
            title: stack.enter_context(PEERS[name].start(setting, folder))
            for name, title, setting in lineup(names, settings.checkpoint, computes_with)
        }

        def tag(made: Sequence[MadeProduct]) -> tuple[float, list[Payload]]:
            with held(celery, LANE):
                accepted = accept(installation, made, LANE)
            took = tagged_in(engine, accepted.job_ids)
            return took, payloads(made, accepted.photo_ids, store, folder)

        for number in range(rounds + 1):
            size = products if number else min(WARM_UP, products)
            made = [maker.make(number * products + n) for n in range(size)]
            one = run_round(made, tag, peers)
            print(f"round {number} of {rounds}{'' if number else ' (not counted)'}", file=sys.stderr)
            if number:
                counted.append(one)
        with Client(installation.base_url, installation.key) as client:
            served = client.call("GET", "/v1/model")
    found = summary(counted)
    return {
        "benchmark": "peers",
        "machine": machine,
        "model": {"name": served["name"], "version": served["version"]},
        "settings": computes_with,
        "products": products,
        "services": found,
        "rounds": [{title: round(value, 2) for title, value in one.items()} for one in counted],
        "headline": headlines(found, computes_with["precision"].removeprefix("torch.")),
    }


def ours_computes_with(settings: Settings) -> dict[str, Any]:
    """By loading it once as the worker does. Raises CheckpointError and DeviceUnavailable."""
    from workers.runtime import ModelRuntime  # torch: seconds that --help need not pay

    return dict(ModelRuntime.load(settings).computes_with)


def lineup(
    names: Sequence[str], checkpoint: Path, computes_with: Mapping[str, Any]
) -> list[tuple[str, str, Setting]]:
    """Name, title and setting of each: in float32, and in our type where that is another. The towers of an exported
    checkpoint have a type of their own, which no peer can change.
    """
    cores = len(os.sched_getaffinity(0))
    device, precision = str(computes_with["device"]), str(computes_with["precision"])
    exported = not precision.startswith("torch.")
    ours = precision.removeprefix("torch.")
    entries = []
    for name in names:
        # A GPU takes whole batches from one process; a task for each product keeps many busy.
        processes = cores if device == "cpu" or name == "naive-celery" else 1
        another = not exported and ours != "float32"
        for dtype in ("float32", *([ours] if another else [])):
            setting = Setting(checkpoint, device, dtype, processes, threads=max(1, cores // processes))
            entries.append((name, f"{name}, {'as exported' if exported else dtype}", setting))
    return entries


def payloads(
    made: Sequence[MadeProduct], photo_ids: Sequence[Sequence[str]], store: PhotoStore, folder: Path
) -> list[Payload]:
    """The products with their model views as files, which every peer reads."""
    written = []
    for product, ids in zip(made, photo_ids, strict=True):
        paths = [folder / f"{photo_id}.jpg" for photo_id in ids]
        for path, photo_id in zip(paths, ids, strict=True):
            path.write_bytes(store.model_view(photo_id))
        written.append(
            {
                "title": product.title,
                "description": product.description,
                "photos": [os.fspath(path) for path in paths],
            }
        )
    return written


def run_round(
    made: Sequence[MadeProduct],
    ours: Callable[[Sequence[MadeProduct]], tuple[float, list[Payload]]],
    peers: Mapping[str, Peer],
) -> dict[str, float]:
    """Products per second of each, ours first; `ours` gives seconds and what the peers get."""
    took, given = ours(made)
    return {OURS: len(made) / took} | {title: len(made) / peer.tag(given) for title, peer in peers.items()}


def summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Of each service the median of the rounds, and of how many times as fast ours is in the same round."""
    found = {}
    for title in rounds[0]:
        times = [one[OURS] / one[title] for one in rounds]
        found[title] = {
            "per_s": round(statistics.median(one[title] for one in rounds), 2),
            "ours_is_times": round(statistics.median(times), 2),
            "range": [round(min(times), 2), round(max(times), 2)],
        }
    return found


def headlines(services: Mapping[str, Mapping[str, Any]], precision: str) -> list[dict[str, Any]]:
    """`precision` is that of ours."""
    return [
        headline(
            f"ours, {precision} / {title}",
            of["ours_is_times"],
            unit="times",
            each=of["range"],
            goal=goal_of(title, precision),
        )
        for title, of in services.items()
        if title != OURS
    ]


def goal_of(title: str, precision: str) -> float | None:
    name, _, dtype = title.partition(", ")
    return PEERS[name].goal_as_ours if dtype == precision != "float32" else PEERS[name].goal


def table(document: Mapping[str, Any]) -> str:
    machine, settings = document["machine"], document["settings"]
    rows = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
        f"model {document['model']['name']} {document['model']['version'][:12]}; ours on {settings['device']}, "
        f"{settings['precision']}; medians of {len(document['rounds'])} rounds of {document['products']} products",
        "",
        f"{'service':<28}{'products/s':>12}{'ours is times':>15}{'min':>8}{'max':>8}",
    ]
    for title, of in document["services"].items():
        low, high = of["range"]
        rows.append(f"{title:<28}{of['per_s']:>12.1f}{of['ours_is_times']:>15.2f}{low:>8.2f}{high:>8.2f}")
    return "\n".join(rows)
