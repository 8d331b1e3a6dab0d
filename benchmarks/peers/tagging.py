"""What every peer does with a product, on the same checkpoint as ours and its networks as they are written: what our
worker makes of them for speed is a part of what is compared. Runs in the peers' own processes.

Where the checkpoint is, on which device, in which numeric type and with how many threads comes from the environment
that `processes.py` gives them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models import Example, Product, Tagger

CHECKPOINT, DEVICE, PRECISION, THREADS = "PEER_CHECKPOINT", "PEER_DEVICE", "PEER_PRECISION", "PEER_THREADS"


class PeerTagger:
    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    @classmethod
    def from_environment(cls) -> PeerTagger:
        torch.set_num_threads(int(os.environ[THREADS]))
        dtype = getattr(torch, os.environ[PRECISION])
        return cls(Tagger.load(os.environ[CHECKPOINT], os.environ[DEVICE], dtype))

    def prepare(self, product: dict[str, Any]) -> Example:
        """From a title, a description and the paths of photos."""
        photos = tuple(Path(path).read_bytes() for path in product["photos"])
        return self._tagger.prepare(Product(product["title"], product["description"], photos))

    def predict(self, examples: Sequence[Example]) -> list[list[dict[str, Any]]]:
        """The tags of each, as JSON takes them."""
        return [[asdict(tag) for tag in tagging.tags] for tagging in self._tagger.predict(list(examples))]
