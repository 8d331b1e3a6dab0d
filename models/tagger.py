"""A loaded checkpoint that tags products: prepare on any CPU thread, predict on the device.

It knows no queue, no database and no training. B products, V values.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.answers import Answering, Answers
from models.calibration import PATTERNS, AttributeCalibration, Pattern
from models.captured import captured_photo, captured_text
from models.checkpoint import Checkpoint, load, version
from models.cores import Callers, Pair, one_core, threads
from models.errors import CheckpointError
from models.folding import folded
from models.fusion import Batch, collate, of_text_and_owners, with_seen
from models.product import Alternative, Evidence, Example, Product, Tag, Tagging
from models.taxonomy import Attribute, Taxonomy
from models.traced import traced_answering, traced_photo, traced_text

ALTERNATIVES = 3  # what a reviewer can take in beside the offered value
# On a CPU larger batches are not faster (sixteen fill a core), they only pad and hold more.
CPU_BATCH = 16
# So few products that somebody waits for stay in one batch, with its towers side by side; more, and patient ones, are
# shared out among the cores, see `models.cores`.
TOGETHER = 8


@dataclass(frozen=True)
class Alone:
    """What each modality alone says of every value (V) of one product; None where the product lacks it."""

    text: list[float] | None
    photos: list[float] | None

    def of(self, value: int) -> Evidence:
        return Evidence(
            None if self.text is None else self.text[value],
            None if self.photos is None else self.photos[value],
        )


@dataclass(frozen=True)
class Collated:
    """Products in the batches that the device runs them in, and whether nobody waits for any of them."""

    batches: list[Batch]
    patient: bool


class Tagger:
    """Serves one checkpoint on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        version: str,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        *,
        quick: bool = False,
    ) -> None:
        """`quick` makes the network over for a process that tags for hours: the same answers in less time, for a second
        at the start. It takes over the checkpoint's model.
        """
        self.checkpoint = checkpoint
        self.version = version
        self.device = torch.device(device)
        self.dtype = dtype
        if checkpoint.precisions:
            if self.device.type != "cpu":
                raise CheckpointError(
                    f"checkpoint {checkpoint.name!r} is exported for processors: set the device to cpu, "
                    "or serve the one it was exported from"
                )
            self.dtype = torch.float32  # of the heads: the towers have their own precision
        elif quick:
            checkpoint.model.photo_tower = folded(checkpoint.model.photo_tower)
        self.model = checkpoint.model.to(self.device, self.dtype).eval()
        self.answering: nn.Module = Answering(self.model, checkpoint.taxonomy, checkpoint.calibration)
        # A compiled tower has its own threads, and answers one caller at a time.
        apart = self.device.type == "cpu" and not checkpoint.precisions
        if apart and quick:
            with one_core():
                self.model.text_tower = traced_text(self.model.text_tower)
                self.model.photo_tower = traced_photo(self.model.photo_tower)
        elif quick and self.device.type == "cuda":
            given = checkpoint.preprocessor.config
            self.model.text_tower = captured_text(self.model.text_tower, given.max_tokens)
            self.model.photo_tower = captured_photo(self.model.photo_tower, given.photo_size)
        if quick and self.device.type == "cpu":
            with one_core():
                self.answering = traced_answering(self.answering)
        self.turn = threading.Lock() if checkpoint.precisions else contextlib.nullcontext()
        self.cores = torch.get_num_threads() if apart else 1
        several = self.cores > 1
        # For patient and for large batches: all that a person's product needs goes first.
        self.pool = threads(self.cores, behind=True) if several else None
        # A person's product does not queue behind the parts of those, nor, with a thread more, behind its like.
        self.aside = Pair(2, cores=1) if several else None
        self.alone = Pair(1, cores=self.cores // 2) if several else None
        self.callers = Callers()

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        quick: bool = False,
    ) -> "Tagger":
        """Raises CheckpointError or NewerFormat."""
        path = Path(path)
        of, checkpoint = version(path), load(path)
        if version(path) != of:  # what was read may be half of each, under the name of one
            raise CheckpointError(f"{path} was replaced while it was read: load it again")
        return cls(checkpoint, of, device, dtype, quick=quick)

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def precision(self) -> str:
        """What the towers compute in, in words."""
        towers = self.checkpoint.precisions
        return ", ".join(f"{name} {of}" for name, of in towers.items()) if towers else str(self.dtype)

    @property
    def taxonomy(self) -> Taxonomy:
        return self.checkpoint.taxonomy

    def prepare(self, product: Product) -> Example:
        """CPU work only; safe from several threads. Raises UnreadablePhoto."""
        return self.checkpoint.preprocessor(product)

    def predict(self, examples: list[Example]) -> list[Tagging]:
        """One tagging for each example, in order: per attribute one tag, or one per value of a multiple
        attribute, and none where the attribute does not apply.
        """
        return self.forward(self.collate(examples))

    def collate(self, examples: list[Example], *, patient: bool = False) -> Collated:
        """The examples as the device takes them, made ready on any thread. Nobody waits for `patient` ones."""
        if self.device.type == "cpu":
            together = len(examples) <= TOGETHER and not patient
            share = len(examples) if together else -(-len(examples) // self.cores)
            size = max(1, min(CPU_BATCH, share))
            return Collated([collate(examples[n : n + size]) for n in range(0, len(examples), size)], patient)
        return Collated([collate(examples).pin_memory()] if examples else [], patient)

    def forward(self, collated: Collated) -> list[Tagging]:
        """One tagging for each product, in order. Safe from several threads."""
        behind = collated.patient or len(collated.batches) > 1
        with self.callers as others, self.turn:
            return [tagging for some in self.each(collated.batches, behind, others) for tagging in some]

    def each(self, batches: Sequence[Batch], behind: bool, others: int) -> Iterator[list[Tagging]]:
        """The taggings of each batch, on the threads that it may have while `others` are being run."""
        pair = self.aside if others else self.alone
        if self.pool is None or pair is None:
            return map(self.run, batches)
        if behind:
            return self.pool.map(self.run, batches)
        return pair.texts.map(functools.partial(self.run, beside=pair.photos), batches)

    @torch.inference_mode()
    def run(self, batch: Batch, beside: Executor | None = None) -> list[Tagging]:
        """With `beside` the photo tower runs there, while the text tower does here."""
        batch = batch.to(self.device)
        shown = None if beside is None else beside.submit(self.photo_features, batch)
        texts = self.model.text_features(batch)
        features = self.photo_features(batch) if shown is None else shown.result()
        answers = self.answering(texts, with_seen(features, batch), *of_text_and_owners(batch))
        told = [Answers(*row) for row in zip(*(each.tolist() for each in answers), strict=True)]
        photos_seen = features_by_owner(features, batch)
        texts_seen = new_texts(texts, [bool(one.has_text) for one in told], batch)
        return [
            Tagging(self.tags_of(one), tuple(one.embedding), photos, text)
            for one, photos, text in zip(told, photos_seen, texts_seen, strict=True)
        ]

    @torch.inference_mode()  # of each thread
    def photo_features(self, batch: Batch) -> Tensor:
        return self.model.photo_features(batch)

    def tags_of(self, told: Any) -> tuple[Tag, ...]:
        """The tags of one product, by its Answers as plain numbers and lists of them; none out of scope."""
        tags: list[Tag] = []
        begin = 0
        for index, attribute in enumerate(self.taxonomy):
            own = slice(begin, begin + len(attribute.values))
            begin = own.stop
            if told.offered[index]:
                calibration = self.checkpoint.calibration.attributes[index]
                pattern = PATTERNS[told.pattern[index]]
                alone = Alone(
                    told.text[own] if told.has_text else None, told.photos[own] if told.has_photos else None
                )
                tags += choose(
                    attribute, calibration, pattern, told.confidence[own], alone, told.vouched[own]
                )
        return tuple(tags)


def choose(
    attribute: Attribute,
    calibration: AttributeCalibration,
    pattern: Pattern,
    confidences: list[float],
    evidence: Alone,
    vouched: Sequence[bool],
) -> list[Tag]:
    """The tags of one attribute of one product, most confident first.

    A single-valued attribute offers its most probable value; a multiple one every value that is more likely
    than not. Where nothing may be offered one `abstain` tag without a value says so.
    """
    order = sorted(range(len(confidences)), key=confidences.__getitem__, reverse=True)
    offered = [
        value
        for value in (order if attribute.multiple else order[:1])
        if calibration.decide(confidences[value], pattern) != "abstain"
    ]
    others = [value for value in order if value not in offered][:ALTERNATIVES]
    rest = tuple(Alternative(attribute.values[value], confidences[value]) for value in others)
    if not offered:
        best = order[0]
        return [Tag(attribute.name, None, confidences[best], "abstain", evidence.of(best), rest)]
    return [
        Tag(
            attribute.name,
            attribute.values[v],
            confidences[v],
            calibration.decide(confidences[v], pattern, vouched[v]),
            evidence.of(v),
            rest,
        )
        for v in offered
    ]


def features_by_owner(features: Tensor, batch: Batch) -> list[tuple[bytes | None, ...]]:
    """For every product (B), the features of its photos that the tower ran on, as they can be remembered."""
    of: list[list[bytes | None]] = [[] for _ in range(len(batch))]
    owners = batch.photo_owner[: len(features)].tolist()
    for row, photo in zip(owners, remembered(features), strict=True):
        of[row].append(photo)
    return [tuple(photos) for photos in of]


def new_texts(features: Tensor, has_text: list[bool], batch: Batch) -> list[bytes | None]:
    """For every product (B), the features of its text as they can be remembered, where the tower ran on it."""
    seen = set(batch.seen_text_rows.tolist())
    return [
        text if there and row not in seen else None
        for row, (text, there) in enumerate(zip(remembered(features), has_text, strict=True))
    ]


def remembered(features: Tensor) -> list[bytes | None]:
    """Rows (N, D) in float16. A tower that overflows it is served all the same; it only never remembers."""
    halved = features.half().cpu()
    finite = halved.isfinite().all(dim=1).tolist()
    return [row.tobytes() if whole else None for row, whole in zip(halved.numpy(), finite, strict=True)]
