"""Towers, and what comes after them, traced once into graphs that a processor runs without Python: the same operations,
and a thread that is in one keeps no other from the interpreter, whose lock each of some thousand operations would take
again, and wait for each time where others want it too.

Legend: B products, P photos, T tokens, D width of a tower.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.answers import Answering
from models.clipped import clipped
from models.towers import Encoding, PhotoTower, TextTower

# Rows and tokens of the texts, and numbers of photos: the first is traced, and the graph has to answer all of them like
# the tower. A trace may have taken a number of its example for one that never changes.
TEXTS = ((3, 9), (1, 5), (2, 11), (8, 12))
PHOTOS = (2, 1, 5)
# Products, tokens of their texts, and whose the photos are.
PRODUCTS: tuple[tuple[int, int, tuple[int, ...]], ...] = ((3, 9, (0, 0, 2)), (1, 12, (0,)), (2, 5, ()))
# How far a graph may be from its tower, as a share of the length of its features: for a single photo another routine of
# the library may add up in another order. A few units in the last place of float32, nothing in that of bf16.
ROUNDING = 1e-5


class TracedTextTower(TextTower):
    """A text tower whose encoder and pooling are a graph."""

    def __init__(self, tower: TextTower, run: torch.jit.ScriptModule) -> None:
        nn.Module.__init__(self)  # not the trained tower's: that builds an encoder
        self.width = tower.width
        self.run = run

    def encode(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) to (B, D)."""
        features: Tensor = self.run(token_ids, type_ids, mask)
        return features


class TracedPhotoTower(PhotoTower):
    """A photo tower that is a graph, normalising included."""

    def __init__(self, tower: PhotoTower, run: torch.jit.ScriptModule) -> None:
        nn.Module.__init__(self)  # not the trained tower's: that builds the visual half
        self.width = tower.width
        self.run = run

    def forward(self, photos: Tensor) -> Tensor:
        """uint8 (P, 3, S, S) to (P, D)."""
        features: Tensor = self.run(photos)
        return features


def traced_text(tower: TextTower) -> TextTower:
    """The tower as a graph, or the given one where a graph would answer otherwise. For inference on a processor, in the
    numeric type that it has.
    """
    vocabulary = tower.encoder.config.vocab_size
    encoding = Encoding(tower)
    run = graph(encoding, encoding, [some_texts(rows, tokens, vocabulary) for rows, tokens in TEXTS])
    return tower if run is None else TracedTextTower(tower, run)


def traced_photo(tower: PhotoTower) -> PhotoTower:
    """The same of a photo tower."""
    side = tower.visual.image_size
    height, width = (side, side) if isinstance(side, int) else side
    photos = [(noise(256, (count, 3, height, width)).to(torch.uint8),) for count in PHOTOS]
    quick = clipped(tower)
    run = graph(quick, tower, photos)
    if run is None and quick is not tower:
        run = graph(tower, tower, photos)
    return tower if run is None else TracedPhotoTower(tower, run)


def traced_answering(answering: Answering) -> nn.Module:
    """What comes after the towers as a graph, or as it is given where a graph would answer otherwise."""
    run = graph(answering, answering, [some_features(answering, *shape) for shape in PRODUCTS])
    return answering if run is None else run


def some_features(answering: Answering, rows: int, tokens: int, owners: Sequence[int]) -> tuple[Tensor, ...]:
    """What `FusionTagger.join` takes: texts of the given number, and a photo for each of the owners."""
    layers, (of_text, of_photos) = answering.layers, answering.widths
    ids, types, mask = some_texts(rows, tokens, layers.config.text["vocab_size"])
    of = torch.tensor(owners, dtype=torch.int64)
    texts, photos = (
        noise(9, shape).to(layers.absent_text) - 4 for shape in ((rows, of_text), (len(owners), of_photos))
    )
    return texts, photos, ids, types, mask, of


@torch.inference_mode()
def graph(
    module: nn.Module, tower: nn.Module, examples: Sequence[tuple[Tensor, ...]]
) -> torch.jit.ScriptModule | None:
    """Of a module that should answer as `tower` does, from the first example; None where it gives other numbers for one
    of them, but for rounding, with a warning where there is none at all.
    """
    module.eval()
    tower.eval()
    with warnings.catch_warnings():
        # That all this is deprecated, but `torch.compile` needs a compiler on every machine that serves. And that a
        # trace may not hold for other inputs, which is looked at.
        warnings.simplefilter("ignore")
        # Of the process. Torch would make the graph over for each of the first shapes that come, to join operations of
        # which a processor joins none: 30 MB and no gain.
        torch.jit.set_fusion_strategy([])
        try:
            found = torch.jit.trace(module, examples[0], check_trace=False)
            return found if all(alike(found(*inputs), tower(*inputs)) for inputs in examples) else None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    # Whatever it is that keeps a network from becoming a graph, it is served as it is.
    what = type(tower).__name__
    warnings.warn(f"the model runs slower than it could: {what} cannot be traced ({reason})", stacklevel=3)
    return None


def alike(some: Tensor | tuple[Tensor, ...], others: Tensor | tuple[Tensor, ...]) -> bool:
    """Of the same shapes; numbers but for their rounding, and not where one of them is a NaN."""
    if isinstance(some, tuple):
        return len(some) == len(others) and all(map(alike, some, others))
    assert isinstance(others, Tensor)
    if some.shape != others.shape or not some.is_floating_point():
        return torch.equal(some, others)
    return float((some - others).norm()) <= ROUNDING * float(others.norm())


def some_texts(rows: int, tokens: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, types and mask (B, T); each row is one token shorter than the one before it, down to one."""
    lengths = (tokens - torch.arange(rows)).clamp(min=1)
    mask = torch.arange(tokens) < lengths.unsqueeze(1)
    ids = noise(vocabulary, (rows, tokens)) * mask
    return ids, torch.zeros_like(ids), mask


def noise(below: int, shape: tuple[int, ...]) -> Tensor:
    """Other numbers for each shape: what only happens to be so in one example must not be so in all."""
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(math.prod(shape)))
