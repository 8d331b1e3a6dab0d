"""Convolutions that clip what they write, for a processor: a ReLU or ReLU6 of its own reads and writes all of it once
more, which takes a third of the time of a convolutional tower. The same numbers, since clipping and rounding to a
shorter numeric type can be exchanged.
"""

import functools
import math
import warnings
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any, List, Optional, Union  # noqa: UP035 -- TorchScript knows only these

import torch
from torch import Tensor, nn

from models.towers import PhotoTower


class ClippedConvolution(nn.Module):
    """A convolution and the clipping to 0..`highest` after it."""

    def __init__(self, convolution: nn.Conv2d, highest: float) -> None:
        super().__init__()
        self.convolution = convolution
        self.highest = highest

    def forward(self, pictures: Tensor) -> Tensor:
        """(P, C, H, W) to what the convolution makes of them, clipped."""
        of = self.convolution
        clipped: Tensor = scripted()(
            pictures, of.weight, of.bias, of.padding, of.stride, of.dilation, of.groups, self.highest
        )
        return clipped


def clipped(tower: PhotoTower) -> PhotoTower:
    """A tower of the same answers whose convolutions clip, or the given one where it has none that could."""
    quick = deepcopy(tower)
    found = list(clipping_convolutions(quick))
    for parent, convolution, activation, highest in found:
        setattr(parent, convolution, ClippedConvolution(getattr(parent, convolution), highest))
        setattr(parent, activation, nn.Identity())
    return quick if found else tower


def clipping_convolutions(tower: PhotoTower) -> Iterator[tuple[nn.Module, str, str, float]]:
    """Modules with the names of a convolution and the activation declared next after it, and what that clips to.

    Whether it is also computed next is for who compares the answers.
    """
    for parent in tower.modules():
        for (first, one), (second, other) in pairwise(parent.named_children()):
            highest = clips_to(other)
            # A subclass may do more than its parent, and a padding that is not a number of zeros has a pass of its own.
            plain = type(one) is nn.Conv2d and one.padding_mode == "zeros" and isinstance(one.padding, tuple)
            if plain and highest is not None:
                yield parent, first, second, highest


def clips_to(module: nn.Module) -> float | None:
    """The upper end of a module that does nothing but clip at zero and there; None of any other."""
    parts = [part for part in module.modules() if not isinstance(part, (nn.Identity, nn.Sequential))]
    match parts:
        case [nn.ReLU6()]:
            return 6.0
        case [nn.ReLU()]:
            return math.inf
    return None


def convolve_and_clip(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    padding: List[int],  # noqa: UP006
    stride: List[int],  # noqa: UP006
    dilation: List[int],  # noqa: UP006
    groups: int,
    highest: float,
) -> Tensor:
    bounds: List[Optional[Union[int, float, complex]]] = [0.0, highest]  # noqa: UP006, UP007, UP045
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, "hardtanh", bounds, ""
    )


@functools.cache
def scripted() -> Any:
    """As a script: a trace cannot write down a list of optional numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, see `models.traced`
        return torch.jit.script(convolve_and_clip)
