"""Carries what the heads of a checkpoint know over to another taxonomy: the rows of the values that both hold."""

import torch

from models.checkpoint import Checkpoint
from models.fusion import FusionTagger
from models.taxonomy import Taxonomy
from training.unseen import unseen_in

OF_VALUES = (
    "text_head",
    "photo_head",
    "fused_head",
    "lexicon.head",
)  # a row for each value, in the order of the taxonomy
OF_ATTRIBUTES = "gate.2"  # two rows for each attribute: text, photos
OF_BOTH = ("fused_head", OF_ATTRIBUTES)  # what learns only from products that have text and photos


def keep_heads(model: FusionTagger, taxonomy: Taxonomy, old: Checkpoint) -> None:
    """In place; what the old taxonomy lacks stays as it is. An attribute is the same only where it takes as many
    values at once. Where the old checkpoint never saw text or photos, its gates are closed and nothing would open them
    again: what is of both starts afresh.
    """
    values, attributes = places(taxonomy), {attribute.name: n for n, attribute in enumerate(taxonomy)}
    old_values = places(old.taxonomy)
    old_attributes = {attribute.name: n for n, attribute in enumerate(old.taxonomy)}
    shared = [key for key in values if key in old_values]
    to, of = [values[key] for key in shared], [old_values[key] for key in shared]
    gates_to, gates_of = [], []
    for name in {name: None for name, _, _ in shared}:
        gates_to += [2 * attributes[name], 2 * attributes[name] + 1]
        gates_of += [2 * old_attributes[name], 2 * old_attributes[name] + 1]
    state, known = model.state_dict(), old.model.state_dict()
    if unseen_in(old.metrics) is not None:
        known = {name: tensor for name, tensor in known.items() if not name.startswith(OF_BOTH)}
    with torch.no_grad():
        for kind in ("weight", "bias"):
            for head in OF_VALUES:
                if f"{head}.{kind}" in state and f"{head}.{kind}" in known:
                    state[f"{head}.{kind}"][to] = known[f"{head}.{kind}"][of]
            if f"{OF_ATTRIBUTES}.{kind}" in known:
                state[f"{OF_ATTRIBUTES}.{kind}"][gates_to] = known[f"{OF_ATTRIBUTES}.{kind}"][gates_of]


def places(taxonomy: Taxonomy) -> dict[tuple[str, bool, str], int]:
    """The row of each (attribute, multiple, value) in a head."""
    keys = [(a.name, a.multiple, value) for a in taxonomy for value in a.values]
    return {key: row for row, key in enumerate(keys)}
