"""From trained towers to OpenVINO networks, and from those to int8.

It knows neither files nor how good the result is. Legend: B products, P photos, T tokens, S side, D width of a tower.
"""

import contextlib
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.compiled import openvino_core
from models.fusion import FusionTagger, collate
from models.product import Example
from models.towers import Encoding, PhotoTower, TextTower

if TYPE_CHECKING:
    import openvino

Networks = dict[str, "openvino.Model"]  # by the names in `models.compiled.TOWERS`
# Two rows, so that no dimension of one is taken for a constant; the second padded, so that the mask is not left out.
ROWS, TOKENS = 2, 4


def traced(model: FusionTagger, photo_size: int) -> Networks:
    """Both towers in float32, for any number of products, photos and tokens."""
    return {"text": traced_text(model.text_tower), "photo": traced_photo(model.photo_tower, photo_size)}


def traced_text(tower: TextTower) -> "openvino.Model":
    openvino_core()
    import openvino

    token_ids = torch.ones(ROWS, TOKENS, dtype=torch.int64)
    mask = torch.ones(ROWS, TOKENS, dtype=torch.bool)
    mask[-1, -1] = False
    shape = [-1, -1]
    inputs = [(shape, openvino.Type.i64), (shape, openvino.Type.i64), (shape, openvino.Type.boolean)]
    return converted(Encoding(tower), (token_ids, torch.zeros_like(token_ids), mask), inputs)


def traced_photo(tower: PhotoTower, size: int) -> "openvino.Model":
    openvino_core()
    import openvino

    return converted(
        tower.visual, (torch.zeros(ROWS, 3, size, size),), [([-1, 3, size, size], openvino.Type.f32)]
    )


def converted(module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[object]) -> "openvino.Model":
    import openvino

    with warnings.catch_warnings(), torch.no_grad():
        # It traces, which torch means to give up; and tracing tells of each branch that does not depend on the input.
        warnings.simplefilter("ignore")
        return openvino.convert_model(module.eval(), example_input=example, input=list(inputs))


def quantised(networks: Networks, model: FusionTagger, examples: Sequence[Example]) -> Networks:
    """The networks in int8 of the towers that the examples have something for: the ranges of activations are theirs."""
    batches = [collate([example]) for example in examples]
    towers: dict[str, nn.Module] = {"text": model.text_tower, "photo": model.photo_tower}
    inputs = {
        "text": [
            [batch.token_ids.numpy(), batch.type_ids.numpy(), batch.token_mask.numpy()]
            for batch in batches
            if batch.token_mask.any()
        ],
        "photo": [
            [model.photo_tower.normalised(batch.photos).numpy()] for batch in batches if len(batch.photos)
        ],
    }
    return {
        name: in_int8(networks[name], found, attends(towers[name])) for name, found in inputs.items() if found
    }


def attends(tower: nn.Module) -> bool:
    """Whether it is a transformer, by its layers: open_clip's photo towers come in either kind."""
    return any("attention" in type(layer).__name__.lower() for layer in tower.modules())


def in_int8(network: "openvino.Model", inputs: list[list[np.ndarray]], transformer: bool) -> "openvino.Model":
    """Post-training quantisation with fast bias correction; its progress goes to stderr.

    A transformer also gets SmoothQuant and activations with a zero point. Convolutions agree more without (the
    starter's photo tower alone: 97.9 % of the tags of 1,500 products against 97.4 %).
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        return nncf.quantize(
            network,
            nncf.Dataset(inputs),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            subset_size=len(inputs),
        )
