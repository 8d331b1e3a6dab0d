"""A prefix in front of every text, as a part of the text tower."""

import torch

from models.fusion import FusionConfig, FusionTagger
from tests.tiny_tagger import PHOTO_CONFIG, text_config


def tower():
    torch.manual_seed(0)
    config = FusionConfig({**text_config(), "prefix_tokens": 4}, PHOTO_CONFIG, (2, 2), width=16)
    tower = FusionTagger(config).eval().text_tower
    with torch.no_grad():
        tower.prefix.states.mul_(50)
    return tower


IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 5, 3, 0, 0]])


@torch.no_grad()
def test_padding_changes_nothing_behind_a_prefix():
    with_prefix = tower()
    together = with_prefix(IDS, torch.zeros_like(IDS), IDS > 0)
    alone = with_prefix(IDS[1:, :3], torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(together[1:], alone)


@torch.no_grad()
def test_the_prefix_tells_and_the_text_still_sees_itself_both_ways():
    with_prefix, mask = tower(), IDS > 0
    told = with_prefix.states(IDS, torch.zeros_like(IDS), mask)
    later = IDS.clone()
    later[0, 3] = 9
    assert (with_prefix.states(later, torch.zeros_like(IDS), mask)[0, 0] - told[0, 0]).abs().max() > 1e-5
    with_prefix.prefix = None
    assert (with_prefix.states(IDS, torch.zeros_like(IDS), mask) - told).abs().max() > 1e-2


@torch.no_grad()
def test_it_is_part_of_the_weights():
    assert "prefix.states" in tower().state_dict()
    assert tower().prefix.states.shape == (4, 1 * 2 * 16)


@torch.no_grad()
def test_a_text_as_long_as_the_encoder_has_positions_for_has_a_prefix_too():
    with_prefix = tower()
    positions = text_config()["max_position_embeddings"]
    ids = torch.full((1, positions), 5)
    assert with_prefix(ids, torch.zeros_like(ids), ids > 0).isfinite().all()
