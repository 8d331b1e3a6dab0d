"""A worker that is real in everything but its tagger: `celery -A fake_worker worker`.

The stand-in tags every product with its own title, takes a fixed time for each batch, and does as some titles
say: `poison` makes the forward of its batch fail, `hang` makes it hang once (a file remembers that it did), `kill` ends
the process, and what starts with `heavy` makes a batch of more than two run out of memory. Its version is the text of
the checkpoint's file `version`, and where that is empty the checkpoint cannot be loaded.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.simulated_worker import Evidence, Tag, Tagging
from catalog.settings import Settings
from workers.app import create_app
from workers.batch_runner import OutOfMemory
from workers.served import JobFault

KILLED = 71
FITS = 2  # heavy products in one batch


class StandIn:
    """What ModelRuntime is to a worker."""

    name = "stand-in"

    def __init__(self, settings: Settings) -> None:
        version = settings.checkpoint / "version"
        self.version = version.read_text() if version.exists() else "0"
        if not self.version:
            raise ValueError(f"{settings.checkpoint} has no weights")
        self.features_version = self.version
        self._hung = Path(settings.var) / "hung"
        self._batch_seconds = float(os.environ.get("STAND_IN_BATCH_SECONDS", "0"))

    def prepare(self, title: str, description: str, photos: Sequence[bytes], text: object = None) -> str:
        if any(photo.startswith(b"broken") for photo in photos):
            raise JobFault("a photo cannot be decoded: it is broken")
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
        if "hang" in titles and not self._hung.exists():
            self._hung.touch()
            time.sleep(3600)
        time.sleep(self._batch_seconds)
        if "kill" in titles:
            os._exit(KILLED)
        if len(titles) > FITS and any(title.startswith("heavy") for title in titles):
            raise OutOfMemory(f"{len(titles)} products do not fit the stand-in")
        if "poison" in titles:
            raise ValueError("the stand-in cannot tag poison")
        return [
            Tagging((Tag("title", title, 0.9, "auto", Evidence(0.8, None)),), (0.6, 0.8)) for title in titles
        ]


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _app() -> Celery:
    return create_app(Settings.load(), StandIn)
