"""What a frozen tower made of a photo is remembered, and nothing else of the network changes."""

import pytest
import torch

from training import remembered
from training.remembered import Remembered, forget, remember


class Tower(torch.nn.Module):
    """Counts the photos that it is asked for."""

    width = 3

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, photos):
        self.asked += len(photos)
        return photos.float().flatten(2).mean(dim=2)


@pytest.fixture
def photos():
    return torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_photo_goes_through_the_tower_once(photos):
    tower = Tower()
    known = Remembered(tower)
    expected = Tower()(photos)
    assert torch.equal(known(photos[:3]), expected[:3])
    assert torch.equal(known(photos.flip(0)), expected.flip(0))
    assert tower.asked == 4


def test_photos_beyond_the_most_are_not_kept(photos, monkeypatch):
    monkeypatch.setattr(remembered, "MOST", 3)
    tower = Tower()
    known = Remembered(tower)
    for _ in range(2):
        assert torch.equal(known(photos), Tower()(photos))
    assert len(known.known) == 3
    assert tower.asked == 5


def test_forgetting_gives_the_tower_back():
    network = torch.nn.Module()
    network.photo_tower = tower = Tower()
    remember(network)
    assert isinstance(network.photo_tower, Remembered)
    forget(network)
    assert network.photo_tower is tower
