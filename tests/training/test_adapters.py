"""Adapters learn in place of the text tower, and the checkpoint keeps what they learned."""

import pytest
import torch

from models.checkpoint import load, save
from models.fusion import collate
from models.product import Product
from tests.tiny_tagger import picture, tiny_checkpoint
from training.adapters import Adapters
from training.errors import RecipeError
from training.recipe import AdaptersSection

# peft asks transformers by a name that transformers 6 will drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

METHODS = ["lora", "adalora", "prefix"]


@pytest.fixture
def checkpoint():
    return tiny_checkpoint()


def attach(model, steps=20, **settings):
    return Adapters(model, AdaptersSection(**{"rank": 2, "prefix_tokens": 3, **settings}), steps, seed=0)


def batch_of(checkpoint):
    products = [
        Product("new red shirt", "soft cotton", (picture(),)),
        Product("blue shoe"),
        Product(photos=(picture(),)),
    ]
    return collate([checkpoint.preprocessor(product) for product in products])


def learn(model, adapters, batch, steps=20):
    """A few steps in which the text tower learns whatever the adapters let it."""
    adapters.only_these_learn()
    learning = [p for p in model.text_tower.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.05)
    model.train()
    for step in range(1, steps + 1):
        loss = model(batch).text_only[0].square().sum()
        if adapters.ranks is not None:
            loss = loss + adapters.ranks.regularizer()
        loss.backward()
        optimizer.step()
        if adapters.ranks is not None:
            adapters.ranks(step)
        optimizer.zero_grad()
    model.eval()


@pytest.mark.parametrize("method", METHODS)
def test_only_the_adapters_of_the_text_tower_learn(checkpoint, method):
    model = checkpoint.model
    before = {name: tensor.clone() for name, tensor in model.text_tower.encoder.state_dict().items()}
    adapters = attach(model, method=method)
    adapters.only_these_learn()
    learning = {name for name, p in model.named_parameters() if p.requires_grad and "text_tower" in name}
    assert learning
    assert all(".lora_" in name or "text_tower.prefix." in name for name in learning)
    assert all(p.requires_grad for name, p in model.named_parameters() if "text_tower" not in name)
    learn(model, adapters, batch_of(checkpoint))
    after = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in model.text_tower.encoder.state_dict().items()
    }
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_stored_checkpoint_answers_as_the_adapted_model_did(checkpoint, method, tmp_path):
    model, batch = checkpoint.model, batch_of(checkpoint)
    with torch.no_grad():
        untouched = model(batch).text_only[0].clone()
    adapters = attach(model, method=method)
    learn(model, adapters, batch)
    with torch.no_grad():
        adapted = model(batch)
    adapters.merge()
    save(checkpoint, tmp_path / "checkpoint")
    loaded = load(tmp_path / "checkpoint").model
    assert not any("lora" in name for name in loaded.state_dict())
    with torch.no_grad():
        stored = loaded(batch)
    for one, other in zip(adapted.fused, stored.fused, strict=True):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=5e-3)  # stored as float16
    assert (adapted.text_only[0][:2] - untouched[:2]).abs().max() > 0.05


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_adalora_ends_with_the_ranks_that_were_asked_for(checkpoint, steps):
    adapters = attach(checkpoint.model, method="adalora", steps=steps)
    learn(checkpoint.model, adapters, batch_of(checkpoint), steps=steps)
    factors = [p for name, p in checkpoint.model.named_parameters() if "lora_E" in name]
    assert [len(p) for p in factors] == [3, 3]
    assert sum(int((p != 0).sum()) for p in factors) == 2 * len(factors)


def test_adalora_goes_on_from_its_saved_state(checkpoint):
    batch = batch_of(checkpoint)
    one = attach(checkpoint.model, method="adalora", steps=20)
    learn(checkpoint.model, one, batch, steps=8)
    state = one.ranks.state_dict()
    another = attach(tiny_checkpoint().model, method="adalora", steps=20)
    another.ranks.load_state_dict(state)
    assert another.ranks.allocator.exp_avg_ipt.keys() == state["exp_avg_ipt"].keys()
    assert another.ranks.config.rank_pattern == one.ranks.config.rank_pattern


def test_the_same_seed_attaches_the_same_adapters():
    one, other = tiny_checkpoint().model, tiny_checkpoint().model
    torch.manual_seed(1)
    attach(one, method="prefix")
    torch.manual_seed(2)
    attach(other, method="prefix")
    torch.testing.assert_close(one.text_tower.prefix(), other.text_tower.prefix())


def test_a_prefix_needs_a_bert(checkpoint):
    checkpoint.model.config.text["model_type"] = "distilbert"
    try:
        with pytest.raises(RecipeError, match="take lora"):
            attach(checkpoint.model, method="prefix")
    finally:
        checkpoint.model.config.text["model_type"] = "bert"


def test_layers_that_are_not_there_are_refused_by_setting(checkpoint):
    with pytest.raises(RecipeError, match=r"adapters\.targets"):
        attach(checkpoint.model, targets=("nowhere",))


def test_adalora_passes_over_a_batch_without_any_text(checkpoint):
    adapters = attach(checkpoint.model, method="adalora")
    adapters.only_these_learn()
    photo = collate([checkpoint.preprocessor(Product(photos=(picture(),)))])
    checkpoint.model(photo).photo_only[0].square().sum().backward()
    adapters.ranks(1)
    assert all((importance == 0).all() for importance in adapters.ranks.allocator.ipt.values())


def test_the_regularizer_is_the_way_to_orthogonal_factors(checkpoint):
    ranks = attach(checkpoint.model, method="adalora").ranks
    factors = {n: p for n, p in checkpoint.model.named_parameters() if "lora_A" in n or "lora_B" in n}
    with torch.no_grad():
        for name, factor in factors.items():
            factor.zero_()
            (factor if "lora_A" in name else factor.T).fill_diagonal_(1)
    assert ranks.regularizer().item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for factor in factors.values():
            factor.mul_(2)  # 4 - 1 on three diagonal places
    assert ranks.regularizer().item() == pytest.approx(0.1 * 3 * 3**0.5, rel=1e-5)
