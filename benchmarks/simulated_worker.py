"""A worker that is real in everything but its device: `celery -A benchmarks.simulated_worker worker`.

The device is a sleep of a + b·n milliseconds for a batch of n products (BENCHMARK_DEVICE_MS is "a,b"), so that as many
of them as one likes stand beside each other on one machine; only what is around a device uses its cores.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from catalog.settings import Settings
from workers.app import create_app

VARIABLE = "BENCHMARK_DEVICE_MS"
# What the shipped checkpoint answers, in size: its attributes, and the numbers of an embedding.
TAGS = 7
WIDTH = 384


@dataclass(frozen=True)
class Evidence:
    text: float | None
    photos: float | None


@dataclass(frozen=True)
class Tag:
    attribute: str
    value: str
    confidence: float
    decision: str
    evidence: Evidence
    alternatives: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Tagging:
    tags: tuple[Tag, ...]
    embedding: tuple[float, ...]
    photo_features: tuple[bytes, ...] = ()
    text_features: bytes | None = None


@dataclass(frozen=True)
class Device:
    fixed_ms: float
    per_product_ms: float

    @classmethod
    def parse(cls, variable: str) -> Device:
        fixed, per_product = variable.split(",")
        return cls(float(fixed), float(per_product))

    def __str__(self) -> str:
        return f"{self.fixed_ms:g},{self.per_product_ms:g}"

    def seconds(self, products: int) -> float:
        return (self.fixed_ms + self.per_product_ms * products) / 1e3

    def products_per_s(self, max_batch: int) -> float:
        """What it can do at most: full batches without a pause."""
        return max_batch / self.seconds(max_batch)


class SimulatedRuntime:
    """What ModelRuntime is to a worker."""

    name, version, features_version = "simulated", "0", "0"

    def __init__(self, device: Device) -> None:
        self._device = device
        self._one_device = threading.Lock()
        tags = tuple(Tag(f"attribute {n}", "value", 0.9, "auto", Evidence(0.8, None)) for n in range(TAGS))
        self._tagging = Tagging(tags, (WIDTH**-0.5,) * WIDTH)

    def prepare(self, title: str, description: str, photos: Sequence[Any], text: Any = None) -> str:
        return title

    @staticmethod
    def collate(titles: list[str], *, patient: bool) -> list[str]:
        return titles

    @staticmethod
    def new_photos(title: str) -> int:
        return 0

    @staticmethod
    def length(title: str) -> int:
        return len(title)

    def forward(self, titles: list[str]) -> list[Tagging]:
        with self._one_device:
            time.sleep(self._device.seconds(len(titles)))
        return [self._tagging] * len(titles)


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _app() -> Celery:
    device = Device.parse(os.environ[VARIABLE])
    return create_app(Settings.load(), lambda settings: SimulatedRuntime(device))
