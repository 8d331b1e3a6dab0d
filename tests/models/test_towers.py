"""How many tokens an encoder has positions for."""

import pytest

from models.towers import even, most_tokens


@pytest.mark.parametrize(
    ("positions", "wanted", "tokens"),
    [(512, 128, 128), (512, 600, 512), (514, 514, 512), (120, 120, 112), (120, 100, 100), (10, 40, 10)],
)
def test_no_more_tokens_than_positions(positions, wanted, tokens):
    assert most_tokens({"max_position_embeddings": positions}, wanted) == tokens
    if positions >= 16:
        assert even(tokens) <= positions


def test_an_encoder_that_names_no_limit_has_none():
    assert most_tokens({}, 1000) == 1000
