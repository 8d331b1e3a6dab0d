"""Gates that trust the text too much are put right by products that training has not seen."""

import copy
from types import SimpleNamespace

import pytest
import torch

from models.fusion import Embedded
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import tiny_checkpoint
from training import gates
from training.table import Row

COLOURS = ("red", "green", "blue")
TAXONOMY = Taxonomy((Attribute("colour", COLOURS), Attribute("kind", ("shirt", "shoe"), multiple=True)))


def products(count):
    """Of every five the photo shows the colour of four, and the text says that of none."""
    return [
        Row(
            str(n),
            "title",
            "",
            (),
            str(n),
            {"colour": (COLOURS[(n + 2 * (n % 5 == 4)) % 3],), "kind": ("shirt",)},
        )
        for n in range(count)
    ]


@pytest.fixture
def model():
    """Its photos tell the colour and its texts a wrong one, and its gates believe the texts."""
    made = tiny_checkpoint(TAXONOMY).model.eval()
    with torch.no_grad():
        for head in (made.text_head, made.photo_head, made.fused_head):
            head.weight.zero_()
            head.bias.zero_()
        for value in range(3):
            made.photo_head.weight[value, value] = 4.0
            made.text_head.weight[(value + 1) % 3, value] = 4.0
        made.photo_head.bias[3:] = torch.tensor([2.0, -2.0])  # shirt, not shoe
        made.gate[-1].weight.zero_()
        made.gate[-1].bias.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    return made


@pytest.fixture
def settle(model, monkeypatch):
    """Settles the gates of the model by so many products; returns what they were embedded as."""

    def settle(count, *, has_photos=True):
        there = torch.ones(2 * count, dtype=torch.bool)
        seen = torch.eye(model.config.width)[torch.arange(2 * count) % count % 3]
        nothing = torch.zeros(2 * count, sum(model.config.sizes))
        embedded = Embedded(seen, seen, nothing, nothing, there, there & has_photos)
        monkeypatch.setattr(gates, "embed", lambda model, material, rows: embedded)
        material = SimpleNamespace(validation=products(count), taxonomy=TAXONOMY)
        gates.settle_gates(model, material)
        return embedded

    return settle


def test_gates_turn_to_what_was_right_and_nothing_else_changes(model, settle):
    before = copy.deepcopy(model.state_dict())
    embedded = settle(60)
    with torch.no_grad():
        output = model.fuse(embedded)
    assert (output.gates[:, 0, 1] > 0.7).all()
    assert torch.equal(output.fused[0].argmax(dim=1), output.photo_only[0].argmax(dim=1))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {"gate.2.bias"}


def test_few_products_move_them_little(model, settle):
    embedded = settle(1)
    with torch.no_grad():
        few = model.fuse(embedded).gates[0, 0, 1].item()
    embedded = settle(60)
    with torch.no_grad():
        many = model.fuse(embedded).gates[0, 0, 1].item()
    assert torch.tensor([1.0, -1.0]).softmax(0)[1].item() < few < many - 0.1


def test_without_a_product_that_has_both_they_stay(model, settle):
    before = copy.deepcopy(model.state_dict())
    settle(5, has_photos=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_products_are_shown_with_masked_titles_too_and_at_most_so_many(model, monkeypatch):
    seen = []
    nothing = Embedded(
        *(torch.zeros(0, 3) for _ in range(4)), *(torch.zeros(0, dtype=torch.bool) for _ in range(2))
    )
    monkeypatch.setattr(gates, "embed", lambda model, material, rows: seen.extend(rows) or nothing)
    monkeypatch.setattr(gates, "MOST", 10)
    rows = [Row(str(n), "a red shirt", "", (), str(n), {}) for n in range(25)]
    gates.settle_gates(model, SimpleNamespace(validation=rows, taxonomy=TAXONOMY))
    assert [row.title for row in seen] == ["a red shirt"] * 9 + ["a"] * 9


def test_an_attribute_that_would_be_answered_right_less_often_keeps_its_gate(model, settle, monkeypatch):
    before = model.gate[-1].bias.clone()
    shares = iter(
        [torch.tensor([0.9, 0.5]), torch.tensor([0.8, 0.5])]
    )  # before and after, of both attributes
    monkeypatch.setattr(gates, "right", lambda output, targets, taxonomy: next(shares))
    settle(60)
    assert torch.equal(model.gate[-1].bias[:2], before[:2])
    assert not torch.equal(model.gate[-1].bias[2:], before[2:])


def test_gates_are_settled_by_the_network_as_it_will_answer(model, settle):
    model.train()
    settle(5)
    assert not model.training, "what dropout left out would count as unknown"
