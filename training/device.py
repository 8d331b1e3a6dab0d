"""Where a network runs that is trained, measured or asked."""

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from models.compiled import precisions
from models.fusion import FusionTagger


def process_state() -> PartialState:
    """This process among those of its run. `ACCELERATE_USE_CPU=true` keeps it on the processor beside a GPU."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def device_of(model: FusionTagger) -> torch.device:
    """The GPU where there is one; an exported network has none but the processor."""
    exported = precisions(model.text_tower, model.photo_tower)
    return torch.device("cpu") if exported else process_state().device
