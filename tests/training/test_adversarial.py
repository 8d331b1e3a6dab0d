"""The fast gradient method: a step against the words and nothing left behind."""

import pytest
import torch
from torch import nn

from models.fusion import collate
from models.product import Product
from tests.tiny_tagger import picture, tiny_checkpoint
from training.adversarial import attacked
from training.recipe import AdversarialSection


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 1))


def loss(network, batch):
    return network(batch).square().mean(), {"fused": 1.0}


def test_the_moved_words_are_worse_and_by_no_more_than_epsilon(network):
    batch = torch.tensor([[0, 1, 2], [2, 3, 4]])
    seen = []
    handle = network[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    both, report = attacked(loss, network[0], AdversarialSection(epsilon=0.1))(network, batch)
    handle.remove()
    clean, _ = loss(network, batch)
    assert report["adversarial"] > clean.item()
    assert both.item() == pytest.approx(clean.item() + report["adversarial"])
    assert report["fused"] == 1.0
    torch.testing.assert_close((seen[1] - seen[0]).flatten(1).norm(dim=1), torch.full((2,), 0.1))


def test_the_weight_scales_what_the_attack_adds(network):
    batch = torch.tensor([[0, 1, 2]])
    clean, _ = loss(network, batch)
    both, report = attacked(loss, network[0], AdversarialSection(weight=0.25))(network, batch)
    assert both.item() == pytest.approx(clean.item() + 0.25 * report["adversarial"])


def test_nothing_of_the_attack_stays_on_the_network(network):
    batch = torch.tensor([[0, 1, 2]])
    before = network(batch).item()
    attacked(loss, network[0], AdversarialSection())(network, batch)
    assert network(batch).item() == before
    assert not network[0]._forward_hooks


def test_frozen_words_can_be_attacked(network):
    network[0].weight.requires_grad_(False)
    both, report = attacked(loss, network[0], AdversarialSection())(network, torch.tensor([[0, 1, 2]]))
    both.backward()
    assert report["adversarial"] > 0
    assert network[0].weight.grad is None
    assert network[2].weight.grad is not None


def test_a_tower_that_takes_a_batch_in_parts_has_every_part_moved(network):
    batch = torch.tensor([[0, 1, 2], [2, 3, 4], [1, 1, 1]])

    def in_parts(network, batch):
        return torch.cat([network(batch[:2]), network(batch[2:])]).square().mean(), {}

    section = AdversarialSection(epsilon=0.1)
    whole, of_whole = attacked(loss, network[0], section)(network, batch)
    parts, of_parts = attacked(in_parts, network[0], section)(network, batch)
    assert parts.item() == pytest.approx(whole.item())
    assert of_parts["adversarial"] == pytest.approx(of_whole["adversarial"])


def test_products_without_text_have_nothing_to_move():
    checkpoint = tiny_checkpoint()
    batch = collate([checkpoint.preprocessor(Product(photos=(picture(),)))])
    words = checkpoint.model.text_tower.encoder.get_input_embeddings()

    def by_photo(network, batch):
        return network(batch).fused[0].square().mean(), {}

    clean, _ = by_photo(checkpoint.model, batch)
    both, report = attacked(by_photo, words, AdversarialSection())(checkpoint.model, batch)
    assert both.item() == clean.item()
    assert report == {}


def test_a_regularizer_counts_once_however_much_the_attack_weighs(network):
    batch = torch.tensor([[0, 1, 2]])
    clean, _ = loss(network, batch)
    both, report = attacked(loss, network[0], AdversarialSection(weight=2.0), lambda: torch.tensor(7.0))(
        network, batch
    )
    assert both.item() == pytest.approx(clean.item() + 7 + 2 * report["adversarial"])


def test_a_text_that_the_loss_does_not_depend_on_is_not_moved(network):
    """Such as that of a product without a label: its gradient is zero, and has no direction."""

    def of_the_first(network, batch):
        return network(batch)[0].square().mean(), {}

    both, _ = attacked(of_the_first, network[0], AdversarialSection())(
        network, torch.tensor([[0, 1, 2], [2, 3, 4]])
    )
    alone, _ = attacked(of_the_first, network[0], AdversarialSection())(network, torch.tensor([[0, 1, 2]]))
    both.backward()
    assert both.item() == pytest.approx(alone.item())
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
