"""The prefix of prefix tuning (Li & Liang 2021): learned keys and values that every layer of a BERT attends to besides
those of the text.

It cannot be merged into the weights, so it is part of the text tower, `prefix_tokens` long by its configuration.
Legend: B products, N prefix tokens, L layers, H heads, D width of the tower.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Prefix(nn.Module):
    """Calling it gives the prefix, (N, L·2·D): for each layer the keys and then the values, as peft lays them out."""

    def __init__(self, tokens: int, config: Any) -> None:
        super().__init__()
        width = config.num_hidden_layers * 2 * config.hidden_size
        self.states = nn.Parameter(torch.randn(tokens, width) * 0.02)

    def forward(self) -> Tensor:
        return self.states


def attend_to(prefix: Tensor, inputs: dict[str, Tensor], config: Any) -> dict[str, Any]:
    """A BERT's keyword arguments with the prefix (N, L·2·D) in front of every text; positions count the text alone."""
    from transformers import DynamicCache  # heavy: paid when there is a prefix

    mask = inputs["attention_mask"]  # (B, T)
    layers = prefix.view(prefix.shape[0], config.num_hidden_layers, 2, config.num_attention_heads, -1)
    layers = (
        layers.permute(1, 2, 3, 0, 4).unsqueeze(2).expand(-1, -1, mask.shape[0], -1, -1, -1)
    )  # (L, 2, B, H, N, D/H)
    cache = DynamicCache(config=config)
    slots: list[Any] = cache.layers
    for slot, (keys, values) in zip(slots, layers, strict=True):
        # Set, where `update` would append to an empty tensor of no shape, which OpenVINO cannot trace.
        slot.lazy_initialization(keys, values)
        slot.keys, slot.values = keys, values
    return {
        **inputs,
        "attention_mask": torch.cat([mask.new_ones(mask.shape[0], prefix.shape[0]), mask], dim=1),
        "position_ids": torch.arange(mask.shape[1], device=mask.device).expand(mask.shape[0], -1),
        "past_key_values": cache,
    }
