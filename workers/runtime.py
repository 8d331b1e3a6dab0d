"""The device and the tagger loaded on it: the only module of the workers that imports torch.

Knows no queue and no database. `prepare` and `collate` run on any thread; `forward` only on the batcher's
device threads.
"""

from __future__ import annotations

import io
import math
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
import torch
from PIL import Image

from catalog.settings import Settings
from models import CheckpointError, Example, Product, SeenPhoto, Tagger, Tagging, UnreadablePhoto
from models.tagger import Collated
from models.towers import even
from workers.batch_runner import OutOfMemory
from workers.panics import panics_as_exceptions
from workers.served import JobFault, Remembered

log = structlog.get_logger(__name__)

WARM_UP_BATCHES = (1, 2, 8, 32)
# Only some of those who run out of memory raise an exception of its own: cuBLAS and cuDNN, the allocators of the
# processor and of pinned memory say it in words.
OUT_OF_MEMORY = (
    "out of memory",
    "alloc_failed",
    "allocation_failed",
    "bad_alloc",
    "can't allocate memory",
    "not enough memory",
)


class DeviceUnavailable(Exception):
    """The settings ask for a device that this machine does not have."""


class ModelRuntime:
    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    @classmethod
    def load(cls, settings: Settings) -> ModelRuntime:
        """Load the checkpoint on the chosen device and warm it up. Raises models.CheckpointError as it comes."""
        began = time.monotonic()
        device = choose_device(settings.device)
        dtype = choose_dtype(device, _cpu_flags())
        if device == "cpu":
            use_all_cores()
        tagger = Tagger.load(settings.checkpoint, device=device, dtype=dtype, quick=True)
        runtime = cls(tagger)
        runtime.warm_up()
        log.info(
            "model loaded",
            model=tagger.name,
            version=tagger.version[:12],
            device=device,
            precision=tagger.precision,
            seconds=round(time.monotonic() - began, 1),
        )
        return runtime

    @property
    def name(self) -> str:
        return self._tagger.name

    @property
    def version(self) -> str:
        return self._tagger.version

    @property
    def features_version(self) -> str:
        """What the features of a tagging can be remembered for: another precision makes others, and a tag must not
        depend on which worker saw a photo first.
        """
        return f"{self.version}:{self._tagger.precision}"

    @property
    def computes_with(self) -> dict[str, str | int]:
        """Device, numeric type and threads of torch: what a figure of its speed depends on."""
        return {
            "device": self._tagger.device.type,
            "precision": self._tagger.precision,
            "threads": torch.get_num_threads(),
        }

    def prepare(
        self,
        title: str,
        description: str,
        photos: Sequence[bytes | Remembered],
        text: Remembered | None = None,
    ) -> Example:
        of_product = tuple(
            SeenPhoto(photo.features) if isinstance(photo, Remembered) else photo for photo in photos
        )
        try:
            with panics_as_exceptions():
                return self._tagger.prepare(
                    Product(title, description, of_product, None if text is None else text.features)
                )
        except UnreadablePhoto as error:
            raise JobFault(str(error)) from error

    @staticmethod
    def length(example: Example) -> int:
        """Tokens, as many as the example is padded to where it is the longest of its batch."""
        return even(example.tokens)

    @staticmethod
    def new_photos(example: Example) -> int:
        return len(example.photos)

    def collate(self, examples: list[Example], *, patient: bool = False) -> Collated:
        with _told_apart():
            return self._tagger.collate(examples, patient=patient)

    def forward(self, collated: Collated) -> list[Tagging]:
        with _told_apart():
            return self._tagger.forward(collated)

    def warm_up(self) -> None:
        """Run a few batches, so that the first product does not pay for kernels, buffers and thread pools.

        Raises CheckpointError for a model whose answers are no numbers: no product could be given its tags.
        """
        photo = io.BytesIO()
        Image.new("RGB", (320, 320), "white").save(photo, "JPEG")
        text = "every kernel is chosen and every buffer made on first use"
        example = self.prepare("warm up", text, [photo.getvalue()])
        for size in WARM_UP_BATCHES:
            for tagging in self.forward(self.collate([example] * size)):
                if not all(
                    map(math.isfinite, [*tagging.embedding, *(tag.confidence for tag in tagging.tags)])
                ):
                    raise CheckpointError("its answers are not all finite numbers: its weights are spoiled")


@contextmanager
def _told_apart() -> Iterator[None]:
    """Raises OutOfMemory for what is one, whatever its type and words."""
    try:
        with panics_as_exceptions():
            yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # The error holds the frames that it came through, and they all that the failed forward had made: until the
        # garbage collector comes by, and then its halves find no memory either.
        traceback.clear_frames(error.__traceback__)
        # Now torch has it, in pieces that the smaller batch may not fit.
        torch.cuda.empty_cache()
        raise OutOfMemory(str(error)) from error


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in OUT_OF_MEMORY)


def use_all_cores() -> None:
    """A forward that is alone should have all cores, and the tagger takes their number from here; the preparing threads
    use none of torch. Interop threads serve graphs that fork, and ours do not; torch takes their number once in a
    process.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def choose_device(wanted: str) -> str:
    """`auto` is cuda where there is one. Raises DeviceUnavailable."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "TAGSMITH_DEVICE=cuda, but torch sees no CUDA device here; set it to auto or cpu, or check the driver"
            " (nvidia-smi) and that torch is a CUDA build"
        )
    return wanted


def choose_dtype(device: str, cpu_flags: frozenset[str]) -> torch.dtype:
    """bfloat16 weights where the processor multiplies them natively; elsewhere they are slower than float32.

    Weights, never autocast: under inference_mode autocast casts the weights again for every item of a batch.
    """
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if cpu_flags & {"avx512_bf16", "amx_bf16"} else torch.float32


def _cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor, as Linux names them; none where /proc is not there."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
