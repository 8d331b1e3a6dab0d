"""Products per second through the whole service at saturation, beside what the same cores do without it.

A round accepts its products while the worker waits and lets it run until all are tagged; then this process, with the
worker idle, prepares the same products from the same model views, runs the same batched forward on them, and decodes
the views. Both load the model by the same code, so device, threads, numeric type and rule for batches are the same.

End to end counts from the first claim to the last finish, by the times in PostgreSQL: how fast products are accepted
is a figure of its own. It covers reading and preparing photos, forward, tags and rows, with the ramp at both ends, so
few products make it look worse.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from benchmarks.headline import headline
from benchmarks.installation import Installation
from benchmarks.products import MadeProduct, ProductMaker
from benchmarks.saturation import accept, held, tagged_in
from benchmarks.towers import Towers
from catalog.database import make_engine
from catalog.photo_store import PhotoStore
from catalog.queue import make_celery
from catalog.settings import Settings
from catalog.views import Lane
from samples.client import Client
from workers.app import IN_FLIGHT
from workers.ready_queue import Entry, ReadyQueue

if TYPE_CHECKING:
    from workers.runtime import ModelRuntime

# Of the ratio. Larger towers leave less for everything else.
GOALS: dict[tuple[Towers, Lane], float] = {
    ("starter", "bulk"): 0.95,
    ("base", "bulk"): 0.97,
    ("starter", "interactive"): 0.85,
    ("base", "interactive"): 0.85,
}
WARM_UP = 64  # products of a first round that is not counted


@dataclass(frozen=True)
class Round:
    """Products per second."""

    accept_per_s: float
    end_to_end_per_s: float
    bare_forward_per_s: float
    decode_per_s: float
    prepare_per_s: float

    @property
    def ratio(self) -> float:
        """What of the slower of forward and decode is left after everything else."""
        return self.end_to_end_per_s / min(self.bare_forward_per_s, self.decode_per_s)

    @property
    def bound_by(self) -> str:
        """The part of the worker that no product passes faster, were all the others free."""
        rates = {
            "forward": self.bare_forward_per_s,
            "decode": self.decode_per_s,
            "prepare": self.prepare_per_s,
        }
        return min(rates, key=rates.__getitem__)

    @property
    def in_turns_per_s(self) -> float:
        """What cores could do that prepare each product and then run it."""
        return 1 / (1 / self.prepare_per_s + 1 / self.bare_forward_per_s)


class Bare:
    """The model in this process, without service. Prepares and decodes with as many threads as there are cores."""

    def __init__(self, runtime: ModelRuntime, store: PhotoStore, settings: Settings) -> None:
        self._runtime = runtime
        self._store = store
        self._settings = settings
        self._cores = len(os.sched_getaffinity(0))

    def prepare(self, made: Sequence[MadeProduct], photo_ids: Sequence[Sequence[str]]) -> list[Any]:
        """From the store's model views to examples, as the worker does it."""

        def one(product: MadeProduct, ids: Sequence[str]) -> Any:
            views = [self._store.model_view(photo_id) for photo_id in ids]
            return self._runtime.prepare(product.title, product.description, views)

        with ThreadPoolExecutor(self._cores) as pool:
            return list(pool.map(one, made, photo_ids))

    def collate(self, examples: Sequence[Any], *, urgent: bool) -> list[Any]:
        runtime = self._runtime
        batches = full_batches(examples, runtime.length, runtime.new_photos, self._settings, urgent=urgent)
        return [self._runtime.collate(batch, patient=not urgent) for batch in batches]

    def forward(self, batches: Sequence[Any]) -> None:
        """Up to the tags: what the worker's device threads do."""
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for _ in pool.map(self._runtime.forward, batches):
                pass

    def views(self, photo_ids: Sequence[Sequence[str]]) -> list[bytes]:
        return [self._store.model_view(photo_id) for ids in photo_ids for photo_id in ids]

    def decode(self, views: Sequence[bytes]) -> None:
        from models.preprocessing import decode

        with ThreadPoolExecutor(self._cores) as pool:
            for _ in pool.map(decode, views):
                pass


def full_batches(
    examples: Iterable[Any],
    length: Callable[[Any], int],
    new_photos: Callable[[Any], int],
    settings: Settings,
    *,
    urgent: bool,
) -> list[list[Any]]:
    """The batches that the worker's queue gives out when all examples wait in it."""
    queue: ReadyQueue[Any, Any] = ReadyQueue()
    for example in examples:
        entry: Entry[Any, Any] = Entry(example, max(1, length(example)), urgent, 0, new_photos(example))
        queue.put(entry)
    batches = []
    while len(queue):
        taken = queue.take(settings.max_batch, settings.max_batch_tokens, settings.max_batch_photos)
        batches.append([entry.item for entry in taken])
    return batches


def measure(
    installation: Installation,
    settings: Settings,
    machine: dict[str, Any],
    towers: Towers,
    lane: Lane,
    products: int,
    rounds: int,
) -> dict[str, Any]:
    """The document. Raises JobNotTaggedError, LaneNotHeldError, ApiError and the catalog's Unavailable."""
    from workers.runtime import ModelRuntime  # torch: seconds that --help need not pay

    settings = settings.model_copy(update={"var": installation.var})
    runtime = ModelRuntime.load(settings)
    bare = Bare(runtime, PhotoStore.open(settings.resolved_photo_store_url()), settings)
    maker = ProductMaker.from_samples()
    engine = make_engine(settings)
    counted = []
    try:
        with make_celery(settings) as celery:

            def tag(made: Sequence[MadeProduct]) -> tuple[list[list[str]], float, float]:
                with held(celery, lane):
                    accepted = accept(installation, made, lane)
                return accepted.photo_ids, accepted.took_s, tagged_in(engine, accepted.job_ids)

            for number in range(rounds + 1):
                size = products if number else min(WARM_UP, products)
                made = [maker.make(number * products + n) for n in range(size)]
                one = run_round(made, tag, bare, urgent=lane == "interactive")
                if number:
                    counted.append(one)
        with Client(installation.base_url, installation.key) as client:
            served = client.call("GET", "/v1/model")
    finally:
        engine.dispose()
    found = summary(counted, shared_cores=runtime.computes_with["device"] == "cpu")
    return {
        "benchmark": "service",
        "towers": towers,
        "lane": lane,
        "machine": machine,
        "model": {"name": served["name"], "version": served["version"]},
        "settings": {
            **runtime.computes_with,
            "max_batch": settings.max_batch,
            "max_batch_tokens": settings.max_batch_tokens,
        },
        "products": products,
        **found,
        "headline": [
            headline(
                f"{towers}, {lane} lane: end to end / min(forward, decode)",
                found["ratio"],
                each=found["ratio_range"],
                goal=GOALS[towers, lane],
            ),
            headline(
                f"{towers}, {lane} lane: end to end, bound by {found['bound_by']}",
                found["end_to_end_per_s"],
                unit="/s",
                each=[one["end_to_end_per_s"] for one in found["rounds"]],
            ),
        ],
    }


def run_round(
    made: Sequence[MadeProduct],
    tag: Callable[[Sequence[MadeProduct]], tuple[list[list[str]], float, float]],
    bare: Bare,
    *,
    urgent: bool,
) -> Round:
    """One slice through everything, in turns; `tag` gives the photos' ids, the seconds to accept and to tag."""
    photo_ids, accept_s, tag_s = tag(made)
    examples, prepare_s = timed(lambda: bare.prepare(made, photo_ids))
    batches = bare.collate(examples, urgent=urgent)
    _, forward_s = timed(lambda: bare.forward(batches))
    views = bare.views(photo_ids)
    _, decode_s = timed(lambda: bare.decode(views))
    return Round(*(len(made) / took for took in (accept_s, tag_s, forward_s, decode_s, prepare_s)))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def summary(rounds: Sequence[Round], *, shared_cores: bool) -> dict[str, Any]:
    """Medians over the rounds; the ratio is that of the medians. `in_turns_per_s` only where it is the bound."""
    median = Round(
        *(statistics.median(getattr(one, field.name) for one in rounds) for field in fields(Round))
    )
    return {
        **_rounded(median),
        "ratio_range": [round(pick(one.ratio for one in rounds), 3) for pick in (min, max)],
        "bound_by": median.bound_by,
        "in_turns_per_s": round(median.in_turns_per_s, 2) if shared_cores else None,
        "rounds": [_rounded(one) for one in rounds],
    }


def _rounded(one: Round) -> dict[str, float]:
    return {name: round(value, 2) for name, value in asdict(one).items()} | {"ratio": round(one.ratio, 3)}


def table(document: dict[str, Any]) -> str:
    machine, settings = document["machine"], document["settings"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
        f"model {document['model']['name']} {document['model']['version'][:12]} on {settings['device']}, "
        f"{settings['precision']}, {settings['threads']} threads; "
        f"medians of {len(document['rounds'])} rounds of {document['products']} products, {document['lane']} lane",
        "",
        f"{'products per second':<38}{'median':>9}{'min':>9}{'max':>9}",
    ]
    for title, key in (
        ("API accept, worker paused", "accept_per_s"),
        ("end to end, first claim to last tag", "end_to_end_per_s"),
        ("bare batched forward", "bare_forward_per_s"),
        ("decode of the model views", "decode_per_s"),
        ("prepare (read, decode, resize, words)", "prepare_per_s"),
        ("end to end / min(forward, decode)", "ratio"),
    ):
        each = [one[key] for one in document["rounds"]]
        digits = 3 if key == "ratio" else 1
        figures = "".join(f"{value:>9.{digits}f}" for value in (document[key], min(each), max(each)))
        lines.append(f"{title:<38}{figures}")
    lines += ["", f"Bound by {document['bound_by']}, the slowest part."]
    if document["in_turns_per_s"] is not None:
        lines.append(
            f"The same cores prepare and run: in turns that is {document['in_turns_per_s']:.1f} products per second."
        )
    return "\n".join(lines)
