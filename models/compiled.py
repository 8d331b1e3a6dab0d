"""The two towers of an exported checkpoint: OpenVINO networks for a processor, behind the interface of the trained
ones. They only serve; nothing in them can learn.

`models/export.py` makes them. The extra `cpu` brings OpenVINO, and it is imported only where such a tower is made or
read. Legend: B products, P photos, T tokens, S side, D width of a tower.
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, ExtraMissing
from models.towers import PhotoTower, TextTower

if TYPE_CHECKING:
    import openvino

Precision = Literal["int8", "bf16", "float32"]  # the fastest first
TOWERS = ("text", "photo")  # the names of their files
# How a network computes what its file does not quantise. Processors without bf16 take float32 for it.
HINTS: dict[Precision, str] = {"int8": "bf16", "bf16": "bf16", "float32": "f32"}


@dataclass(frozen=True)
class Network:
    """A network as its files hold it; `precision` is what most of it is computed in."""

    model: "openvino.Model"
    precision: Precision

    @property
    def width(self) -> int:
        """D of its one output."""
        return int(self.model.output(0).partial_shape[1].get_length())

    def compiled(self) -> "openvino.CompiledModel":
        """With as many threads as torch has now: the towers take turns with torch's heads on the same cores."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time on all of them, as `Tagger.forward` gives it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "ENABLE_CPU_PINNING": False,  # other processes live on these cores
        }
        return openvino_core().compile_model(self.model, "CPU", settings)


class CompiledTextTower(TextTower):
    """A text tower whose encoder and pooling are the network."""

    def __init__(self, network: Network) -> None:
        nn.Module.__init__(self)  # not the trained tower's: that builds an encoder
        self.network = network
        self.width = network.width
        self.run = network.compiled()

    def encode(self, token_ids: Tensor, type_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) to (B, D)."""
        return output(self.run, token_ids, type_ids, mask)


class CompiledPhotoTower(PhotoTower):
    """A photo tower whose visual half is the network."""

    def __init__(self, network: Network) -> None:
        nn.Module.__init__(self)  # not the trained tower's: that builds the visual half
        self.network = network
        self.width = network.width
        self.run = network.compiled()
        self.register_normalising()

    def forward(self, photos: Tensor) -> Tensor:
        """uint8 (P, 3, S, S) to (P, D)."""
        return output(self.run, self.normalised(photos))


def output(run: "openvino.CompiledModel", *inputs: Tensor) -> Tensor:
    """What the network makes of tensors of the CPU."""
    return torch.from_numpy(run([tensor.contiguous().numpy() for tensor in inputs])[0])


def networks(text: TextTower, photo: PhotoTower) -> dict[str, Network]:
    """Of the towers that are compiled, by the name of their files."""
    return {
        name: tower.network
        for name, tower in zip(TOWERS, (text, photo), strict=True)
        if isinstance(tower, CompiledTextTower | CompiledPhotoTower)
    }


def precisions(text: TextTower, photo: PhotoTower) -> dict[str, Precision]:
    return {name: network.precision for name, network in networks(text, photo).items()}


def read_towers(folder: Path, precisions: Any) -> tuple[TextTower, PhotoTower]:
    """The towers of a checkpoint folder, in the precision that its config names for each.

    Raises CheckpointError and ExtraMissing.
    """
    known = isinstance(precisions, dict) and set(precisions) == set(TOWERS)
    if not known or not all(precisions[name] in HINTS for name in TOWERS):
        raise CheckpointError(
            f"{folder / 'config.json'} must name the precision of each tower, not {precisions}"
        )
    core = openvino_core()
    read = {}
    for name in TOWERS:
        try:
            read[name] = Network(core.read_model(folder / f"{name}.xml"), precisions[name])
        except RuntimeError as error:  # all that OpenVINO raises
            raise CheckpointError(f"the {name} tower of {folder} cannot be read: {error}") from error
    return CompiledTextTower(read["text"]), CompiledPhotoTower(read["photo"])


def write_towers(folder: Path, text: TextTower, photo: PhotoTower) -> None:
    """Those that are compiled; the weights of a trained one are the checkpoint's own. Raises OSError."""
    for name, network in networks(text, photo).items():
        import openvino

        # In float16 like the weights of a trained checkpoint, except where float32 is the point: norms are folded into
        # the weights here, and rounding the products is not rounding the factors.
        halved = network.precision != "float32"
        try:
            openvino.save_model(network.model, folder / f"{name}.xml", compress_to_fp16=halved)
        except RuntimeError as error:  # all that OpenVINO raises, and it has removed its files by then
            raise OSError(f"the {name} tower cannot be written to {folder}: {error}") from error


def openvino_core() -> "openvino.Core":
    """The one of this process. Raises ExtraMissing without the extra `cpu`."""
    # OpenVINO reports its imports and conversions to its makers by itself, and does without where this is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            "exported checkpoints run on OpenVINO, which is not installed: pip install 'tagsmith[cpu]'"
        ) from error
    return _core()


@functools.cache
def _core() -> "openvino.Core":
    """Lives as long as the process: a core gives the thread that first uses it a stack for signal handlers, and frees
    that stack when it ends. Where it ends on another thread, as with a checkpoint that was replaced, the next signal
    to the first one, such as the SIGTERM of a shutdown, kills the process.
    """
    import openvino

    return openvino.Core()
