"""Batch norms folded into the convolutions before them, for serving: the same function with a pass over memory less for
each (a batch norm of fixed statistics is a scale and a shift, which a convolution has already).
"""

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.towers import PhotoTower

# As a share of the largest feature. The same float32 operations in another order differ by some millionths.
NEAR = 1e-3


def folded(tower: PhotoTower) -> PhotoTower:
    """A tower of the same answers, or the given one where nothing can be folded. Both in float32 and for inference."""
    quick = deepcopy(tower).eval()
    found = list(convolutions_with_norms(quick))
    for parent, convolution, norm in found:
        fold(parent, convolution, norm)
    return quick if found and same_answers(tower, quick) else tower


def convolutions_with_norms(tower: PhotoTower) -> Iterator[tuple[nn.Module, str, str]]:
    """Modules with the names of a convolution and the batch norm declared next after it.

    That one is also computed after the other, and nothing else sees what the convolution gave, is how such networks
    are written and no rule: hence `same_answers`.
    """
    for parent in tower.modules():
        for (first, one), (second, other) in pairwise(parent.named_children()):
            if not (isinstance(one, nn.Conv2d) and isinstance(other, nn.BatchNorm2d)):
                continue
            if other.track_running_stats and other.num_features == one.out_channels:
                yield parent, first, second


def fold(parent: nn.Module, convolution: str, norm: str) -> None:
    old = getattr(parent, norm)
    # timm's batch norms do more than to normalise: they carry dropout and the activation.
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(old, name, None), nn.Module)]
    setattr(parent, convolution, fuse_conv_bn_eval(getattr(parent, convolution), old))
    setattr(parent, norm, nn.Sequential(*rest))


@torch.inference_mode()
def same_answers(tower: PhotoTower, quick: PhotoTower) -> bool:
    """Whether both see the same in two photos of noise."""
    side = tower.visual.image_size
    height, width = (side, side) if isinstance(side, int) else side
    noise = torch.Generator().manual_seed(0)
    photos = torch.randint(256, (2, 3, height, width), generator=noise, dtype=torch.uint8)
    expected = tower.eval()(photos)
    return torch.allclose(quick(photos), expected, rtol=NEAR, atol=NEAR * float(expected.abs().max()))
