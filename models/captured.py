"""Towers captured as CUDA graphs for a few sizes: a batch that fits one is a single launch, where each of some hundred
operations would else be launched by the processor, which takes longer than a GPU takes for a small batch.

A smaller batch is padded to the next size; a larger one fills the GPU and runs as before. Legend: B products, P photos,
T tokens, S side, D width of a tower.
"""

import itertools
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.towers import PhotoTower, TextTower, even
from models.traced import noise, some_texts

ROWS = (1, 2, 4, 8, 16, 32)  # of texts or of photos
TOKENS = (16, 32, 64)  # and as many as a text may have
WARM_UPS = 3  # runs before a capture, in which libraries choose their kernels
# How far a graph may be from the tower, as a share of the length of its features: padding leads to other kernels, and
# bf16 keeps eight bits.
TOLERANCE = 0.03

Size = tuple[int, ...]
Inputs = tuple[Tensor, ...]
Run = Callable[..., Tensor]
Capture = Callable[[Run, Inputs], Callable[[], Tensor]]


class Unlike(Exception):
    """A graph answers otherwise than its tower."""


@dataclass(frozen=True)
class Captured:
    """The memory that a graph reads, and its launch, which gives the memory that it writes."""

    inputs: Inputs
    replay: Callable[[], Tensor]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Of inputs that are no larger in any dimension; one answer for each of their rows."""
        for own, given in zip(self.inputs, inputs, strict=True):
            own.zero_()
            own[tuple(slice(size) for size in given.shape)] = given
        return self.replay()[: len(inputs[0])].clone()


class Graphs:
    """Of one tower. Safe from several threads: they enqueue on one stream, one batch after the other."""

    def __init__(self, run: Run, capture: Capture) -> None:
        self.run = run
        self.capture = capture
        self.turn = threading.Lock()
        self.sizes: dict[Size, Captured] = {}

    def add(self, size: Size, example: Inputs) -> None:
        """A graph for inputs of the example's shapes. Raises Unlike, and whatever a capture raises."""
        expected = self.run(*example)
        inputs = tuple(torch.zeros_like(one) for one in example)
        captured = Captured(inputs, self.capture(self.run, inputs))
        apart = float((captured(*example) - expected).norm() / expected.norm())
        if not apart <= TOLERANCE:  # nor NaN
            raise Unlike(f"at size {size} its features are {apart:.3f} of their length away")
        self.sizes[size] = captured

    def __call__(self, size: Size, *inputs: Tensor) -> Tensor:
        """Of the smallest size that `size` fits in, in each dimension; of the tower itself where there is none."""
        fitting = [known for known in self.sizes if all(a >= b for a, b in zip(known, size, strict=True))]
        if not fitting:
            return self.run(*inputs)
        with self.turn:
            return self.sizes[min(fitting)](*inputs)


class CapturedTextTower(TextTower):
    """A text tower with graphs of its encoder and pooling."""

    def __init__(self, tower: TextTower, graphs: Graphs) -> None:
        nn.Module.__init__(self)  # not the trained tower's: that builds an encoder
        self.width = tower.width
        self.tower = tower
        self.graphs = graphs

    def encode(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) to (B, D)."""
        return self.graphs(tuple(token_ids.shape), token_ids, type_ids, mask)


class CapturedPhotoTower(PhotoTower):
    """A photo tower with graphs of itself, normalising included."""

    def __init__(self, tower: PhotoTower, graphs: Graphs) -> None:
        nn.Module.__init__(self)  # not the trained tower's: that builds the visual half
        self.width = tower.width
        self.tower = tower
        self.graphs = graphs

    def forward(self, photos: Tensor) -> Tensor:
        """uint8 (P, 3, S, S) to (P, D)."""
        return self.graphs((len(photos),), photos)


class CudaCapture:
    """Captures on the current device (CUDA C++ Programming Guide, "CUDA Graphs").

    All graphs of a tower take their memory from one pool: only one of them runs at a time, and its answer is copied
    before the next may overwrite it.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def __call__(self, run: Run, inputs: Inputs) -> Callable[[], Tensor]:
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                run(*inputs)
        here.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on with the model before: what they do is no error of this capture.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            output = run(*inputs)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay


def captured_text(tower: TextTower, max_tokens: int, capture: Capture | None = None) -> TextTower:
    """The tower with graphs for texts of up to `max_tokens`, or the given one where it cannot be captured."""
    most = even(max_tokens)
    tokens = [*(length for length in TOKENS if length < most), most]
    vocabulary, device = tower.encoder.config.vocab_size, device_of(tower)
    examples: dict[Size, Inputs] = {
        (rows, length): tuple(part.to(device) for part in some_texts(rows, length, vocabulary))
        for rows, length in itertools.product(ROWS, tokens)
    }
    graphs = captured(tower.encode, examples, capture or CudaCapture())
    return tower if graphs is None else CapturedTextTower(tower, graphs)


def captured_photo(tower: PhotoTower, side: int, capture: Capture | None = None) -> PhotoTower:
    """The same of a photo tower, for photos of `side` pixels: a convolutional one may get others than its own."""
    device = device_of(tower)
    examples: dict[Size, Inputs] = {
        (count,): (noise(256, (count, 3, side, side)).to(device, torch.uint8),) for count in ROWS
    }
    graphs = captured(tower.forward, examples, capture or CudaCapture())
    return tower if graphs is None else CapturedPhotoTower(tower, graphs)


@torch.inference_mode()
def captured(run: Run, examples: dict[Size, Inputs], capture: Capture) -> Graphs | None:
    """Graphs for the sizes of the examples; None, with a warning, where one of them cannot be had."""
    graphs = Graphs(run, capture)
    try:
        for size in sorted(examples, reverse=True):  # what the largest needs is enough for all
            graphs.add(size, examples[size])
    except Exception as error:
        # Whatever it is that keeps a network from being captured, it is served as it is.
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"a tower runs slower than it could: it cannot be captured ({reason})", stacklevel=3)
        return None
    return graphs


def device_of(tower: nn.Module) -> torch.device:
    return next(tower.parameters()).device
