"""Requests per second of POST with one photo, beside the decoding of the same photos, and what web keeps in memory.

Web, PostgreSQL, Redis and the photo store are real; there is no worker, so nothing else uses the cores. In each round
some connections POST their products as fast as they are answered; then, with web idle, this process decodes the same
photos to pixels, with as many threads as there are cores. Decoding is the part of intake that cannot be left out.
"""

from __future__ import annotations

import io
import os
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from benchmarks.backing import Backing, backing, started, wait_until
from benchmarks.headline import headline
from benchmarks.installation import free_port
from benchmarks.service import timed
from catalog.database import transaction
from catalog.tenants import create_api_key, create_tenant
from samples.client import Client, multipart

READY_WITHIN_S = 120.0
CLIENTS = 4  # more than the web process can use of most machines, so that it is never idle
WARM_UP = 16  # requests that are not counted
SIDE = 1000  # pixels: what a shop's photo of 300 kB has
TITLE = "Women's washed denim jacket with a corduroy collar"


@dataclass(frozen=True)
class Round:
    """Photos per second."""

    post_per_s: float
    decode_per_s: float

    @property
    def ratio(self) -> float:
        return self.post_per_s / self.decode_per_s


class PhotoMaker:
    """JPEG files of about the same size, no two alike, so that the store has to write each."""

    def __init__(self, photo_bytes: int, seed: int = 0) -> None:
        self._random = random.Random(seed)
        # Coarse shapes and fine grain, whose strength decides how large the file becomes.
        shapes = Image.frombytes("RGB", (25, 25), self._random.randbytes(25 * 25 * 3))
        self._shapes = shapes.resize((SIDE + 64, SIDE + 64), Image.Resampling.BICUBIC)
        self._grain = Image.frombytes(
            "RGB", (SIDE + 64, SIDE + 64), self._random.randbytes((SIDE + 64) ** 2 * 3)
        )
        self._strength = self._fitting(photo_bytes)

    def make(self) -> bytes:
        return self._encode(self._strength, self._random.randrange(64), self._random.randrange(64))

    def _fitting(self, photo_bytes: int) -> float:
        """The strength of the grain at which a file has that size, by halving."""
        low, high = 0.0, 1.0
        for _ in range(8):
            middle = (low + high) / 2
            if len(self._encode(middle, 0, 0)) < photo_bytes:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def _encode(self, strength: float, left: int, top: int) -> bytes:
        picture = Image.blend(self._shapes, self._grain, strength).crop((left, top, left + SIDE, top + SIDE))
        # What tells two crops of the same place apart.
        picture.putpixel((0, 0), tuple(self._random.randbytes(3)))
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=90)
        return stream.getvalue()


def measure(machine: dict[str, Any], requests: int, rounds: int, photo_bytes: int) -> dict[str, Any]:
    """The document. Raises NotRunningError, ApiError and the catalog's Unavailable."""
    maker = PhotoMaker(photo_bytes)
    with backing() as servers, running_web(servers) as (base_url, key, pid):
        post(base_url, key, [maker.make() for _ in range(WARM_UP)])
        idle = memory(pid)
        counted, sizes = [], []
        for _ in range(rounds):
            photos = [maker.make() for _ in range(requests)]
            sizes += [len(photo) for photo in photos]
            _, post_s = timed(partial(post, base_url, key, photos))
            _, decode_s = timed(partial(decode, photos))
            counted.append(Round(requests / post_s, requests / decode_s))
        busy = memory(pid)
    return {
        "benchmark": "intake",
        "machine": machine,
        "requests": requests,
        "connections": CLIENTS,
        "photo_kb": round(statistics.mean(sizes) / 1e3, 1),
        "memory_mb": {"after_warm_up": idle, "after_all_rounds": busy},
        **summary(counted),
    }


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians over the rounds; the ratio is that of the medians."""
    median = Round(
        statistics.median(one.post_per_s for one in rounds),
        statistics.median(one.decode_per_s for one in rounds),
    )
    each = [one.ratio for one in rounds]
    return {
        **_rounded(median),
        "rounds": [_rounded(one) for one in rounds],
        "headline": [
            headline("intake: POST with a photo / its decode alone", round(median.ratio, 3), each=each),
            headline(
                "intake: POST with a photo", round(median.post_per_s, 1), unit="/s",
                each=[round(one.post_per_s, 1) for one in rounds],
            ),
        ],
    }  # fmt: skip


def _rounded(one: Round) -> dict[str, float]:
    return {name: round(value, 2) for name, value in asdict(one).items()} | {"ratio": round(one.ratio, 3)}


@contextmanager
def running_web(servers: Backing) -> Iterator[tuple[str, str, int]]:
    """The address of a web process, a key for it, and its process id."""
    with transaction(servers.engine) as session:
        key = create_api_key(session, create_tenant(session, "benchmark").id, "benchmark")
    port = free_port()
    environment = servers.environment | {"TAGSMITH_PORT": str(port)}
    log = servers.settings.var / "web.log"
    with started([sys.executable, "-m", "web"], environment, log) as process:
        base_url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _alive(base_url), "web", READY_WITHIN_S)
        yield base_url, key, process.pid


def _alive(base_url: str) -> bool:
    try:
        with Client(base_url) as client:
            return client.request("GET", "/healthz")[0] == 200
    except OSError:
        return False


def post(base_url: str, key: str, photos: Sequence[bytes]) -> None:
    """POST a product with each photo, over some connections at once. Raises ApiError."""

    def send(part: Sequence[bytes]) -> None:
        with Client(base_url, key) as client:
            for photo in part:
                content_type, body = multipart({"title": TITLE, "lane": "bulk"}, [("photo.jpg", photo)])
                client.call("POST", "/v1/products", body, {"Content-Type": content_type})

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, [photos[n::CLIENTS] for n in range(CLIENTS)]))


def decode(photos: Sequence[bytes]) -> None:
    def one(photo: bytes) -> None:
        with Image.open(io.BytesIO(photo)) as picture:
            picture.load()

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, photos))


def memory(pid: int) -> dict[str, float]:
    """Megabytes of web's processes together: resident now, their own share of it, and the most it ever was."""
    process = psutil.Process(pid)
    total = {"rss": 0.0, "pss": 0.0, "peak_rss": 0.0}
    for one in [process, *process.children(recursive=True)]:
        full = one.memory_full_info()
        status = Path(f"/proc/{one.pid}/status").read_text(encoding="utf-8")
        peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        total["rss"] += full.rss / 1e6
        total["pss"] += full.pss / 1e6
        total["peak_rss"] += peak_kb * 1024 / 1e6
    return {name: round(megabytes, 1) for name, megabytes in total.items()}


def table(document: dict[str, Any]) -> str:
    machine = document["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1m']:.1f} before the run",
        f"medians of {len(document['rounds'])} rounds of {document['requests']} requests over "
        f"{document['connections']} connections, photos of {document['photo_kb']:.0f} kB",
        "",
        f"{'per second':<38}{'median':>9}{'min':>9}{'max':>9}",
    ]
    for title, key in (
        ("POST with one photo", "post_per_s"),
        ("decode of the same photos alone", "decode_per_s"),
        ("POST / decode", "ratio"),
    ):
        each = [one[key] for one in document["rounds"]]
        digits = 3 if key == "ratio" else 1
        figures = "".join(f"{value:>9.{digits}f}" for value in (document[key], min(each), max(each)))
        lines.append(f"{title:<38}{figures}")
    lines += ["", f"{'MB of web':<38}{'RSS':>9}{'PSS':>9}{'peak':>9}"]
    for title, key in (("after a few requests", "after_warm_up"), ("after all rounds", "after_all_rounds")):
        found = document["memory_mb"][key]
        lines.append(f"{title:<38}{found['rss']:>9.1f}{found['pss']:>9.1f}{found['peak_rss']:>9.1f}")
    return "\n".join(lines)
