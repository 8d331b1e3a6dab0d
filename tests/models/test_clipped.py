"""A photo tower whose convolutions clip answers as before, and is left alone where none could."""

import pytest
import torch
from torch import nn

from models.clipped import ClippedConvolution, clipped
from models.towers import PhotoTower
from models.traced import TracedPhotoTower, noise, traced_photo
from tests.tiny_tagger import PHOTO_CONFIG


class Visual(nn.Sequential):
    image_size = 16


def tower_of(*layers):
    torch.manual_seed(0)
    tower = PhotoTower(PHOTO_CONFIG)
    tower.visual = Visual(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    tower.normalise_with((0.5, 0.4, 0.3), (0.1, 0.1, 0.1))
    return tower.eval()


def convolutional():
    """Holes and a ReLU6; by channel, a stride and a ReLU as timm's batch norms leave it; a convolution with neither."""
    return tower_of(
        nn.Conv2d(3, 16, 3, padding=1, dilation=2),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False),
        nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
        nn.Conv2d(16, 8, 1),
    )


def clipping(tower):
    return [module.highest for module in tower.modules() if isinstance(module, ClippedConvolution)]


@pytest.fixture
def photos():
    return noise(256, (3, 3, 16, 16)).to(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_it_answers_as_before(dtype, photos):
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bf16 convolutions; there a worker serves the plain graph")
    tower = convolutional().to(dtype)
    quick = clipped(tower)
    assert clipping(quick) == [6.0, float("inf")]
    assert clipping(tower) == [], "the tower that was given is as it was"
    expected = tower(photos)
    assert expected.std() > 0.01
    torch.testing.assert_close(quick(photos), expected)


@torch.inference_mode()
def test_both_ends_are_clipped(photos):
    tower = tower_of(nn.Conv2d(3, 16, 1), nn.ReLU6())
    tower.visual[0].weight.mul_(20)
    pictures = tower.normalised(photos).contiguous(memory_format=torch.channels_last)
    features = tower.visual[:2](pictures)
    assert (features == 0).any() and (features == 6).any()
    torch.testing.assert_close(clipped(tower).visual[:2](pictures), features)


@torch.inference_mode()
def test_a_worker_serves_it_as_a_graph(photos):
    tower = convolutional()
    quick = traced_photo(tower)
    assert isinstance(quick, TracedPhotoTower)
    assert "_convolution_pointwise" in str(quick.run.inlined_graph)
    assert torch.equal(quick(photos), tower(photos))


class Padded(nn.Conv2d):
    """Does more than a convolution."""

    def forward(self, pictures):
        return super().forward(nn.functional.pad(pictures, (1, 1, 1, 1)))


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(3, 4, 3), nn.SiLU()),
        (nn.Conv2d(3, 4, 3), nn.Sequential(nn.SiLU(), nn.ReLU())),
        (nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.SiLU())),
        (nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU6(), nn.SiLU())),
        (nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU()),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        (nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU()),
        (Padded(3, 4, 3), nn.ReLU()),
    ],
    ids=[
        "another activation",
        "another activation first",
        "another activation after a ReLU",
        "another activation after a ReLU6",
        "something between",
        "padded with a mirror",
        "padded as it needs",
        "a subclass",
    ],
)
def test_a_tower_without_such_convolutions_is_the_same_object(layers):
    tower = tower_of(*layers)
    assert clipped(tower) is tower


class SumBeforeActivation(nn.Module):
    """The activation is declared after the convolution, and computed after a sum."""

    image_size = 16

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.activation = nn.ReLU()

    def forward(self, pictures):
        return self.activation(self.convolution(pictures) + pictures).mean(dim=(2, 3))


@torch.inference_mode()
def test_a_tower_that_would_answer_otherwise_is_a_graph_of_its_own(photos):
    tower = tower_of(nn.Identity())
    tower.visual = SumBeforeActivation().eval()
    assert not torch.equal(clipped(tower)(photos), tower(photos))
    quick = traced_photo(tower)
    assert isinstance(quick, TracedPhotoTower)
    assert torch.equal(quick(photos), tower(photos))
