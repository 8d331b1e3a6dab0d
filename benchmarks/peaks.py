"""The most that these cores, or this GPU, multiply in a second, measured beside what a model reaches.

A peak is the best of some sizes and of torch and OpenVINO, whose multiplications differ by a factor of two on the same
processor, at their best time: a lower one would flatter the model. Integers count as floating-point operations do, two
for a multiplication and an addition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from models.compiled import Network, Precision, openvino_core

if TYPE_CHECKING:
    import openvino

Type = Literal["float32", "bf16", "int8"]
Work = tuple[Callable[[], object], float]  # and the operations of one call
TIMES = 5  # calls of each, after one that is not counted; the best counts
SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
LAYERS = 4  # of a network of multiplications: the first also reads float32
# A linear layer of a BERT-base over 2,048 tokens: what lies narrow in memory can be faster than squares.
TOKENS, WIDTH, WIDER = 2048, 768, 3072


def works(device: str) -> dict[Type, list[Work]]:
    """What is timed for each type that the device multiplies here; int8 only on processors, by OpenVINO."""
    found: dict[Type, list[Work]] = {
        "float32": [*multiplications(device, torch.float32)],
        "bf16": [*multiplications(device, torch.bfloat16)],
    }
    if device == "cpu":
        for kind in ("float32", "bf16", "int8"):
            found.setdefault(kind, []).extend(network(side, kind) for side in SIDES[device])
    return found


def multiplications(device: str, dtype: torch.dtype) -> list[Work]:
    shapes = [(side, side, side) for side in SIDES[device]] + [(TOKENS, WIDTH, WIDER)]
    return [multiplication(device, dtype, shape) for shape in shapes]


def multiplication(device: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> Work:
    rows, inner, columns = shape
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(columns, inner, device=device, dtype=dtype)

    @torch.inference_mode()
    def run() -> Tensor:
        made = torch.nn.functional.linear(a, weight)
        if device == "cuda":
            torch.cuda.synchronize()
        return made

    return run, 2.0 * rows * inner * columns


def network(side: int, kind: Precision) -> Work:
    """Square matrices one after the other, as an exported checkpoint would have them."""
    run = Network(layers(side, quantised=kind == "int8"), kind).compiled().create_infer_request()
    run.set_input_tensor(tensor(np.random.default_rng(0).standard_normal((side, side), np.float32)))
    return run.infer, 2.0 * side**3 * LAYERS


def tensor(values: np.ndarray) -> openvino.Tensor:
    import openvino

    return openvino.Tensor(values)


def layers(side: int, *, quantised: bool) -> openvino.Model:
    openvino_core()
    import openvino
    from openvino import opset13 as operations

    weights = np.random.default_rng(1).integers(-127, 128, (side, side), np.int8)
    row = operations.parameter([side, side], openvino.Type.f32)
    states = row
    for _ in range(LAYERS):
        if quantised:
            low, high = (operations.constant(np.float32(end)) for end in (-1.28, 1.27))
            states = operations.fake_quantize(states, low, high, low, high, 256)
            scale = operations.constant(np.full((side, 1), 1 / 127, np.float32))
            weight = operations.multiply(operations.convert(operations.constant(weights), "f32"), scale)
        else:
            weight = operations.constant(weights.astype(np.float32) / 127)
        states = operations.relu(operations.matmul(states, weight, False, True))
    return openvino.Model([states], [row])


def peaks(works: Mapping[Type, list[Work]]) -> dict[Type, float]:
    """Operations per second of each type."""
    return {kind: max(fastest(*work) for work in of) for kind, of in works.items()}


def fastest(run: Callable[[], object], operations: float) -> float:
    run()
    return operations / min(seconds(run) for _ in range(TIMES))


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
