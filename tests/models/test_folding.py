"""The photo tower without its batch norms answers as with them, and one that would not is left alone."""

import pytest
import torch
from torch import nn

from models.folding import folded
from models.towers import PhotoTower
from tests.tiny_tagger import PHOTO_CONFIG


def convolutional(name):
    """A tower whose batch norms have statistics, weights and biases of their own."""
    torch.manual_seed(0)
    tower = PhotoTower({"embed_dim": 12, "vision_cfg": {"timm_model_name": name, "image_size": 64}}).eval()
    tower.normalise_with((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    with torch.no_grad():
        for norm in norms(tower):
            for tensor in (norm.weight, norm.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (norm.bias, norm.running_mean):
                tensor.normal_()
    return tower


def norms(tower):
    return [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.fixture
def photos():
    return torch.randint(256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


# That of the resnet's stem follows a whole sequence, whose last part is the convolution.
@pytest.mark.parametrize(("name", "left"), [("test_efficientnet", 0), ("test_resnet", 1)])
@torch.inference_mode()
def test_it_answers_as_before_without_its_batch_norms(name, left, photos):
    tower = convolutional(name)
    quick = folded(tower)
    assert len(norms(quick)) == left < len(norms(tower))
    expected = tower(photos)
    assert expected.std() > 0.01
    torch.testing.assert_close(quick(photos), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    torch.testing.assert_close(tower(photos), expected)  # the tower that was given is as it was


def test_a_tower_without_batch_norms_is_the_same_object():
    tower = PhotoTower(PHOTO_CONFIG)
    assert folded(tower) is tower


class BesideEachOther(nn.Module):
    """The norm is declared after the convolution, and sees what came before it."""

    image_size = 64

    def __init__(self, weight, size=1.0):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.size = size
        nn.init.constant_(self.norm.weight, weight)

    def forward(self, photos):
        return self.size * (self.convolution(photos) + self.norm(photos)).mean(dim=(2, 3))


# The last two would be off by less than a hundredth, of features that are small numbers as well.
@pytest.mark.parametrize(("weight", "size"), [(3, 1.0), (1.01, 1.0), (1.01, 1e-4)])
def test_a_norm_that_does_not_follow_its_neighbour_stays(weight, size):
    tower = convolutional("test_resnet")
    tower.visual = BesideEachOther(weight, size)
    assert folded(tower.eval()) is tower


class OfTheBatch(nn.Sequential):
    """Its norm has no statistics of its own: what a photo is told depends on the photos beside it."""

    image_size = 64

    def __init__(self):
        norm = nn.BatchNorm2d(4, track_running_stats=False)
        super().__init__(nn.Conv2d(3, 4, 1), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class OfAnotherWidth(nn.Module):
    """The norm is declared after a convolution that gives more channels than it takes."""

    image_size = 64

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, photos):
        return self.convolution(self.norm(photos)).mean(dim=(2, 3))


@pytest.mark.parametrize("visual", [OfTheBatch, OfAnotherWidth])
def test_a_norm_that_is_no_scale_and_shift_of_the_convolution_before_it_stays(visual):
    tower = convolutional("test_resnet")
    tower.visual = visual()
    assert folded(tower.eval()) is tower
