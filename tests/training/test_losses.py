"""The arithmetic of a step: what counts, what is masked."""

import math

import pytest
import torch

from models.fusion import FusionOutput
from models.taxonomy import Attribute, Scope, Taxonomy
from training.data import MISSING, UNKNOWN, targets_of
from training.losses import attribute_loss, head_loss, tagging_loss
from training.table import Row

ALL = torch.tensor([True, True])
ONE = Taxonomy((Attribute("colour", ("red", "blue")),))
KIND = Attribute("kind", ("shirt", "shoe"))
HEEL = Attribute("heel", ("low", "high"), applies_when=Scope("kind", ("shoe",)))


def test_missing_and_unknown_values_are_masked():
    logits = torch.tensor([[2.0, 0.0], [9.0, 9.0]])
    expected = math.log(1 + math.exp(-2))
    for masked in (MISSING, UNKNOWN):
        loss = attribute_loss(logits, torch.tensor([0, masked]), ALL, multiple=False, smoothing=0)
        assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("target", "multiple"), [(torch.tensor([0, 1]), False), (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), True)]
)
def test_a_loss_is_taken_in_float32_also_of_what_mixed_precision_answered(target, multiple):
    logits = torch.tensor([[2.1, 0.3], [-1.7, 0.9]], dtype=torch.bfloat16)
    loss, exact = (attribute_loss(of, target, ALL, multiple, smoothing=0) for of in (logits, logits.float()))
    assert loss.dtype == torch.float32
    assert loss.item() == exact.item()


def test_a_row_without_the_modality_is_masked():
    logits = torch.tensor([[2.0, 0.0], [-50.0, 50.0]])
    present = torch.tensor([True, False])
    loss = attribute_loss(logits, torch.tensor([0, 0]), present, multiple=False, smoothing=0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize(
    ("target", "multiple"),
    [(torch.tensor([MISSING, MISSING]), False), (torch.full((2, 2), math.nan), True)],
)
def test_no_labelled_row_is_zero_and_keeps_the_graph(target, multiple):
    logits = torch.zeros(2, 2, requires_grad=True)
    loss = attribute_loss(logits, target, ALL, multiple=multiple, smoothing=0)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None


def test_several_values_are_binary_choices():
    logits = torch.tensor([[0.0, 0.0], [3.0, 3.0]])
    target = torch.tensor([[1.0, 0.0], [float("nan"), float("nan")]])
    assert attribute_loss(logits, target, ALL, multiple=True, smoothing=0).item() == pytest.approx(
        math.log(2)
    )


def test_several_values_without_the_modality_are_masked():
    logits = torch.tensor([[0.0, 0.0], [-50.0, 50.0]])
    present = torch.tensor([True, False])
    loss = attribute_loss(logits, torch.tensor([[1.0, 0.0]] * 2), present, multiple=True, smoothing=0)
    assert loss.item() == pytest.approx(math.log(2))


def test_smoothing_gives_every_value_its_part():
    loss = attribute_loss(
        torch.tensor([[2.0, 0.0]]), torch.tensor([0]), ALL[:1], multiple=False, smoothing=0.2
    )
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert loss.item() == pytest.approx(0.9 * right + 0.1 * wrong)


def test_attributes_count_alike_however_many_there_are():
    logits, targets = (torch.zeros(2, 2), torch.zeros(2, 2)), (torch.tensor([0, 1]), torch.tensor([1, 1]))
    loss = head_loss(logits, targets, ALL, Taxonomy((ONE.attributes[0], KIND)), smoothing=0)
    assert loss.item() == pytest.approx(math.log(2))


def test_an_attribute_teaches_nothing_outside_of_its_scope():
    """Unless the parent's cell is empty: then it may apply."""
    scoped = Taxonomy((KIND, HEEL))
    rows = [
        Row("", "", "", (), "", {"kind": kind, "heel": ("low",)})
        for kind in ((), ("shirt",), ("shoe",), ("hat",))
    ]
    logits = torch.zeros(4, 2, requires_grad=True)
    present = torch.ones(4, dtype=torch.bool)
    attribute_loss(logits, targets_of(rows, scoped)[1], present, multiple=False, smoothing=0).backward()
    assert (logits.grad != 0).any(dim=1).tolist() == [True, False, True, False]


def test_heads_are_weighed_and_reported():
    even = (torch.zeros(2, 2),)
    output = FusionOutput(even, even, even, torch.zeros(2, 1, 2), torch.zeros(2, 4), ALL, ALL)
    loss, report = tagging_loss(output, (torch.tensor([0, 1]),), ONE, unimodal_weight=0.25, smoothing=0)
    assert loss.item() == pytest.approx(1.5 * math.log(2))
    assert report == pytest.approx(
        {"fused": math.log(2), "text_only": math.log(2), "photo_only": math.log(2)}
    )


def test_a_head_is_judged_only_where_its_modality_is_there():
    even, wrong = [0.0, 0.0], [-50.0, 50.0]
    output = FusionOutput(
        (torch.tensor([even, even]),),
        (torch.tensor([even, wrong]),),
        (torch.tensor([wrong, even]),),
        torch.zeros(2, 1, 2),
        torch.zeros(2, 4),
        has_text=torch.tensor([True, False]),
        has_photos=torch.tensor([False, True]),
    )
    _, report = tagging_loss(output, (torch.tensor([0, 0]),), ONE, unimodal_weight=1, smoothing=0)
    assert report == pytest.approx(dict.fromkeys(("fused", "text_only", "photo_only"), math.log(2)))


def test_what_is_taught_stands_beside_the_labels_and_never_in_the_place_of_a_missing_one():
    logits = torch.tensor([[2.0, 0.0], [-50.0, 50.0]])
    taught = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    loss = attribute_loss(logits, torch.tensor([0, MISSING]), ALL, False, 0.0, taught, share=0.4)
    red, blue = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert loss.item() == pytest.approx(0.6 * red + 0.4 * (0.25 * red + 0.75 * blue))


def test_several_values_are_taught_one_by_one():
    logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    loss = attribute_loss(logits, target, ALL[:1], True, 0.0, torch.tensor([[0.5, 0.5]]), share=0.4)
    there, absent = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert loss.item() == pytest.approx((0.8 * there + 0.2 * absent + math.log(2)) / 2)


def test_an_attribute_that_no_teacher_knows_is_learned_from_its_labels_alone():
    logits, targets = (
        (torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 3.0]])),
        (torch.tensor([0]), torch.tensor([0])),
    )
    both = Taxonomy((ONE.attributes[0], KIND))
    alone = head_loss(logits, targets, ALL[:1], both, smoothing=0)
    taught = head_loss(logits, targets, ALL[:1], both, 0.0, (torch.tensor([[1.0, 0.0]]), None), share=0.4)
    assert taught.item() == pytest.approx(alone.item())
