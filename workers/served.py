"""The model that this process serves, and the change to another one while jobs are being tagged.

A new checkpoint is loaded and warmed up beside the one in use, on a thread of its own, and then takes over between two
batches: an example belongs to the runtime that prepared it and no other may run it, so what was prepared before the
change still runs on the old one, which goes when its last example has gone. Whatever cannot be loaded is refused with
its reason, and nothing changes. Knows neither Celery nor torch.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog

from catalog.settings import Settings
from workers import memory
from workers.batch_runner import ResultCountMismatch
from workers.panics import panics_as_exceptions

log = structlog.get_logger(__name__)

# The finalizer of a runtime runs before its weights are freed, which then takes the thread that let go of it a moment.
WEIGHTS_GONE_S = 1.0


class JobFault(Exception):
    """The product itself cannot be prepared: no other worker and no later attempt would do better."""


@dataclass(frozen=True)
class Remembered:
    """What a runtime's model made of a photo or a text at an earlier job: `photo_features` or `text_features` of that
    job's tagging.
    """

    features: bytes


class Runtime(Protocol):
    """A loaded model on the device. `forward` runs on the batcher's device threads, the rest on any."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def features_version(self) -> str:
        """Whose features it can use: what it made of a photo or a text, and what is Remembered, have this version."""

    def prepare(
        self,
        title: str,
        description: str,
        photos: Sequence[bytes | Remembered],
        text: Remembered | None = None,
    ) -> Any:
        """CPU work on the calling thread; a photo is its encoded bytes or remembered, and `text`, that of the title and
        the description, may be remembered too. Raises JobFault.
        """

    def length(self, example: Any) -> int: ...

    def new_photos(self, example: Any) -> int:
        """How many the photo tower has to run on."""

    def collate(self, examples: list[Any], *, patient: bool) -> Any:
        """`patient`: nobody waits for any of the examples."""

    def forward(self, batch: Any) -> Sequence[Any]: ...


@dataclass(frozen=True, eq=False)
class Prepared:
    """An example, the runtime that prepared it, and whether somebody waits for it."""

    runtime: Runtime
    example: Any
    urgent: bool


@dataclass(frozen=True)
class Part:
    """What of a batch is one runtime's, made ready, and where in the batch it stands."""

    runtime: Runtime
    rows: list[int]
    batch: Any


def length(prepared: Prepared) -> int:
    return prepared.runtime.length(prepared.example)


def new_photos(prepared: Prepared) -> int:
    return prepared.runtime.new_photos(prepared.example)


def collate(items: list[Prepared]) -> list[Part]:
    """A part for each runtime: one, but for the batches around a change."""
    patient = not any(item.urgent for item in items)
    rows: dict[Runtime, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item.runtime, []).append(row)
    return [
        Part(runtime, own, runtime.collate([items[row].example for row in own], patient=patient))
        for runtime, own in rows.items()
    ]


def forward(parts: list[Part]) -> list[Any]:
    """One result for each item, in the order of the items. Raises ResultCountMismatch."""
    results: list[tuple[int, Any]] = []
    for part in parts:
        answers = part.runtime.forward(part.batch)
        if len(answers) != len(part.rows):
            raise ResultCountMismatch(
                f"{part.runtime.name} gave {len(answers)} results for {len(part.rows)} examples"
            )
        results += zip(part.rows, answers, strict=True)
    return [answer for _, answer in sorted(results, key=lambda result: result[0])]


@dataclass(frozen=True)
class Change:
    """The last change that was asked for. `reason` says why it was refused."""

    checkpoint: str
    status: Literal["loading", "serving", "refused"]
    seconds: float = 0.0
    reason: str = ""


class Served:
    def __init__(
        self,
        load: Callable[[Settings], Runtime],
        settings: Settings,
        observe: Callable[[Runtime], None] = lambda runtime: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Loads the checkpoint of the settings; `observe` is told of every runtime that takes over."""
        self._load = load
        self._settings = settings
        self._observe = observe
        self._clock = clock
        self._lock = threading.Lock()
        self._change: Change | None = None
        self._take_over(*self._loaded(settings.checkpoint))
        memory.give_back()
        memory.let_go_of_libraries()

    @property
    def runtime(self) -> Runtime:
        """What prepares the next example."""
        return self._runtime

    def change_to(self, checkpoint: Path) -> None:
        """Begin to load; `report` tells how it went. Does nothing while another is being loaded."""
        with self._lock:
            if self._change is not None and self._change.status == "loading":
                return
            self._change = Change(str(checkpoint), "loading")
        # Not waited for at shutdown: half a model is no loss.
        loader = threading.Thread(
            target=self._load_beside, args=(checkpoint,), name="checkpoint-loader", daemon=True
        )
        try:
            loader.start()
        except RuntimeError as error:  # the system has no thread left to give
            with self._lock:
                self._change = Change(str(checkpoint), "refused", reason=str(error))

    def report(self) -> dict[str, Any]:
        """JSON: what is served, what the next start would serve, and the last change."""
        with self._lock:
            return {
                "checkpoint": str(self._checkpoint),
                "name": self._runtime.name,
                "version": self._runtime.version,
                "setting": str(self._settings.checkpoint),
                "setting_is_served": self._settings.checkpoint.resolve() == self._checkpoint,
                "change": None if self._change is None else asdict(self._change),
            }

    def _load_beside(self, checkpoint: Path) -> None:
        began = self._clock()
        try:
            with panics_as_exceptions():
                loaded = self._loaded(checkpoint)
        except Exception as error:
            # Whatever it is, the model in use goes on, and who asked is told.
            log.warning("checkpoint refused", checkpoint=str(checkpoint), reason=str(error), exc_info=True)
            reason = f"{type(error).__name__}: {error}"
            change = Change(str(checkpoint), "refused", self._clock() - began, reason)
            with self._lock:
                self._change = change
            return
        with self._lock:
            before = self._runtime.version
            weakref.finalize(self._runtime, _gone, before).atexit = False
            self._take_over(*loaded)
            self._change = Change(str(checkpoint), "serving", self._clock() - began)
        log.info("model changed", before=before[:12], after=loaded[1].version[:12])

    def _loaded(self, checkpoint: Path) -> tuple[Path, Runtime]:
        # Resolved first: a symbolic link that is moved while its files are read must not mix two checkpoints.
        resolved = checkpoint.resolve()
        return resolved, self._load(self._settings.model_copy(update={"checkpoint": resolved}))

    def _take_over(self, checkpoint: Path, runtime: Runtime) -> None:
        self._checkpoint, self._runtime = checkpoint, runtime
        self._observe(runtime)


def _gone(version: str) -> None:
    log.info("the model before is gone", version=version[:12])
    clock = threading.Timer(WEIGHTS_GONE_S, memory.give_back)
    clock.daemon = True
    clock.start()
