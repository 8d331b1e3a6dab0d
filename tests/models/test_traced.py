"""Towers as graphs answer as they did, and one whose graph would not is left as it is."""

import pytest
import torch
from torch import nn

from models.towers import PhotoTower, TextTower
from models.traced import (
    TracedPhotoTower,
    TracedTextTower,
    alike,
    graph,
    noise,
    some_texts,
    traced_photo,
    traced_text,
)
from tests.tiny_tagger import PHOTO_CONFIG, WORDS, text_config


def text_tower(**changes):
    torch.manual_seed(0)
    return TextTower({**text_config(), **changes}).eval()


@pytest.mark.parametrize("changes", [{}, {"prefix_tokens": 2}], ids=["plain", "with a prefix"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (5, 13), (19, 7)])
@torch.inference_mode()
def test_a_text_tower_answers_as_before(dtype, changes, rows, tokens):
    tower = text_tower(**changes).to(dtype)
    quick = traced_text(tower)
    assert isinstance(quick, TracedTextTower)
    texts = some_texts(rows, tokens, len(WORDS))
    expected = tower(*texts)
    assert expected.std() > 0.01
    assert torch.equal(quick(*texts), expected)
    assert quick.width == tower.width


@pytest.mark.parametrize("count", [1, 4])
@torch.inference_mode()
def test_a_photo_tower_answers_as_before(count):
    torch.manual_seed(0)
    tower = PhotoTower(PHOTO_CONFIG).eval()
    tower.normalise_with((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    quick = traced_photo(tower)
    assert isinstance(quick, TracedPhotoTower)
    photos = noise(256, (count, 3, 16, 16)).to(torch.uint8)
    assert torch.equal(quick(photos), tower(photos))
    assert quick.width == tower.width


class Remembers(nn.Module):
    """Takes the number of rows of its example for one that never changes."""

    def forward(self, x):
        return x * len(x)


class Refuses(nn.Module):
    def forward(self, x):
        raise TypeError("not for tracing")


TWO_AND_FOUR_ROWS = [(torch.ones(2, 3),), (torch.ones(4, 3),)]


def test_what_a_graph_would_answer_otherwise_has_none():
    assert graph(Remembers(), Remembers(), TWO_AND_FOUR_ROWS) is None


def test_what_cannot_be_traced_has_none_and_says_why():
    with pytest.warns(UserWarning, match="TypeError: not for tracing"):
        assert graph(Refuses(), Refuses(), TWO_AND_FOUR_ROWS) is None


def test_a_graph_of_a_module_that_answers_otherwise_than_the_tower_is_none():
    assert graph(nn.ReLU(), nn.Identity(), [(-torch.ones(2, 3),)]) is None


@pytest.mark.parametrize(
    ("factor", "answer"), [(1.0, True), (1 + 1e-6, True), (1.001, False), (float("nan"), False)]
)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_numbers_are_alike_but_for_their_rounding(factor, answer, size):
    some = size * torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert alike(some * factor, some) is answer


def test_numbers_of_other_shapes_are_not_alike():
    assert not alike(torch.zeros(1, 4), torch.zeros(2, 4))


def test_of_several_each_is_alike_and_what_are_no_numbers_equal():
    some = torch.ones(2, 3), torch.tensor([True, False]), torch.tensor([1, 2])
    assert alike(some, tuple(each.clone() for each in some))
    for place, other in enumerate((torch.zeros(2, 3), torch.tensor([True, True]), torch.tensor([1, 3]))):
        assert not alike(some, (*some[:place], other, *some[place + 1 :]))
    assert not alike(some, some[:2])


def test_a_graph_is_asked_for_texts_of_several_lengths_and_none_without_a_word():
    ids, types, mask = some_texts(4, 3, len(WORDS))
    assert mask.sum(dim=1).tolist() == [3, 2, 1, 1]
    assert ids.shape == types.shape == mask.shape


def test_what_is_asked_for_one_shape_is_not_asked_for_another():
    assert not torch.equal(noise(256, (2, 8)), noise(256, (4, 8))[:2])


class CountsRows(TextTower):
    def encode(self, token_ids, type_ids, mask):
        return super().encode(token_ids, type_ids, mask) * len(mask)


def test_a_tower_without_a_graph_is_the_same_object():
    tower = CountsRows(text_config())
    assert traced_text(tower) is tower


class CountsPhotos(PhotoTower):
    def forward(self, photos):
        return super().forward(photos) * len(photos)


def test_a_photo_tower_without_a_graph_is_the_same_object():
    tower = CountsPhotos(PHOTO_CONFIG).eval()
    assert traced_photo(tower) is tower
