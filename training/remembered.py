"""A frozen photo tower sees every photo once: what it made of it is remembered for the rest of the stage.

Most of the time of such a stage would go into making the same embeddings again.
"""

from hashlib import blake2b

import torch
from torch import Tensor, nn

from models.fusion import FusionTagger
from models.towers import PhotoTower

# Embeddings at most: of 384 float32 numbers each they take 400 MB. Photos beyond go through the tower every time.
MOST = 250_000


class Remembered(nn.Module):
    """Stands in for a frozen tower; the photos are known by their pixels."""

    def __init__(self, tower: PhotoTower) -> None:
        super().__init__()
        self.tower = tower
        self.width = tower.width
        self.known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def forward(self, photos: Tensor) -> Tensor:
        """uint8 (P, 3, S, S) to (P, D), with no gradient."""
        keys = [blake2b(photo.numpy().tobytes(), digest_size=16).digest() for photo in photos.cpu()]
        new = [position for position, key in enumerate(keys) if key not in self.known]
        made = dict(zip(new, self.tower.eval()(photos[new]), strict=True)) if new else {}
        for position in new[: max(0, MOST - len(self.known))]:
            self.known[keys[position]] = made[position].clone()
        rows = [made[p] if p in made else self.known[key] for p, key in enumerate(keys)]
        return torch.stack(rows)


def remember(tagger: FusionTagger) -> None:
    """In place. Its tower must be frozen, and its photos must stay as they are, or there is nothing to remember."""
    tagger.add_module("photo_tower", Remembered(tagger.photo_tower))


def forget(network: nn.Module) -> None:
    """Gives a network its own tower back, where it was remembered."""
    tower = getattr(network, "photo_tower", None)
    if isinstance(tower, Remembered):
        network.add_module("photo_tower", tower.tower)
