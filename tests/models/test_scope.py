"""An attribute is offered only where it applies, with the probability that it applies and is right."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from models import Product, Tagger
from models.calibration import Calibration
from models.scope import in_scope
from models.taxonomy import Attribute, Scope, Taxonomy
from tests.tiny_tagger import picture, tiny_checkpoint

KIND = Attribute("kind", ("shirt", "shoe", "boot"))
SHOE_TYPE = Attribute("shoe_type", ("heels", "flats"), applies_when=Scope("kind", ("shoe", "boot")))
HEEL = Attribute("heel_height", ("low", "high"), applies_when=Scope("shoe_type", ("heels",)))
USES = Attribute("uses", ("work", "sport", "home"), multiple=True)
SPORT = Attribute("sport", ("tennis", "golf"), applies_when=Scope("uses", ("sport", "work")))
EVEN = [0.5, 0.5]


def found(taxonomy, *probabilities):
    """One product's InScope of the last attribute, as plain numbers."""
    last = in_scope(taxonomy, [torch.tensor([row]) for row in probabilities])[-1]
    return last.applies.item(), last.offered.item(), last.confidence[0].tolist()


def test_an_attribute_without_a_scope_keeps_its_probabilities():
    applies, offered, confidence = found(Taxonomy((KIND,)), [0.2, 0.3, 0.5])
    assert (applies, offered) == (1, True)
    assert confidence == pytest.approx([0.2, 0.3, 0.5])


def test_it_applies_with_the_sum_of_the_parents_values_in_scope():
    applies, offered, confidence = found(Taxonomy((KIND, SHOE_TYPE)), [0.2, 0.5, 0.3], [0.75, 0.25])
    assert applies == pytest.approx(0.8)
    assert offered
    assert confidence == pytest.approx([0.6, 0.2])


@pytest.mark.parametrize(
    ("kinds", "offered"),
    [
        ([0.9, 0.05, 0.05], False),
        ([0.5, 0.3, 0.2], False),  # as likely as not
        (
            [0.4, 0.35, 0.25],
            False,
        ),  # the parent may offer shirt, and a shoe's type beside it would contradict
        ([0.3, 0.4, 0.3], True),
    ],
)
def test_it_is_offered_where_it_likely_applies_and_the_parents_best_value_agrees(kinds, offered):
    assert found(Taxonomy((KIND, SHOE_TYPE)), kinds, [1.0, 0.0])[1] is offered


def test_a_chain_multiplies_whatever_the_order_of_the_attributes():
    applies, offered, confidence = found(
        Taxonomy((SHOE_TYPE, KIND, HEEL)), [0.9, 0.1], [0.2, 0.8, 0.0], [0.5, 0.5]
    )
    assert applies == pytest.approx(0.72)
    assert offered
    assert confidence == pytest.approx([0.36, 0.36])


def test_a_chain_ends_where_its_first_link_does_not_apply():
    taxonomy = Taxonomy((KIND, SHOE_TYPE, HEEL))
    assert found(taxonomy, [0.9, 0.1, 0.0], [1.0, 0.0], EVEN)[1] is False


def test_several_values_of_a_parent_count_as_the_most_likely_of_them():
    applies, offered, _ = found(Taxonomy((USES, SPORT)), [0.3, 0.6, 0.9], EVEN)
    assert applies == pytest.approx(0.6)
    assert offered
    assert found(Taxonomy((USES, SPORT)), [0.4, 0.45, 0.9], EVEN)[1] is False
    assert found(Taxonomy((USES, SPORT)), [0.4, 0.5, 0.9], EVEN)[1] is False, "as likely as not"


def test_what_applies_for_sure_does_so_with_no_more_than_certainty():
    """The rounded probabilities of a softmax may come to more than one."""
    assert found(Taxonomy((KIND, SHOE_TYPE)), [0.0, 0.7, 0.3000003], EVEN)[0] == 1


def moody(fuse):
    """Makes a network sure of something else for each product, whatever it shows."""

    def fuse_moodily(embedded):
        output = fuse(embedded)
        return replace(output, fused=tuple(3 * torch.randn_like(logits) for logits in output.fused))

    return fuse_moodily


@pytest.fixture(scope="module")
def tagger():
    checkpoint = tiny_checkpoint(Taxonomy((HEEL, KIND, SHOE_TYPE, USES, SPORT)))
    checkpoint.model.fuse = moody(checkpoint.model.fuse)
    return Tagger(checkpoint, "v", "cpu")


@pytest.fixture(scope="module")
def taggings(tagger):
    example = tagger.prepare(Product("red shoe"))
    torch.manual_seed(0)
    return tagger.predict([example] * 200)


def test_a_tagger_never_offers_outside_the_scope(tagger, taggings):
    seen = set()
    for tagging in taggings:
        offered = defaultdict(set)
        for tag in tagging.tags:
            offered[tag.attribute].add(tag.value)
        assert {"kind", "uses"} <= offered.keys()
        for name, scope in tagger.taxonomy.scopes.items():
            seen.add((name, name in offered))
            if scope is not None and name in offered:
                assert offered[scope.attribute] & {*scope.values, None}
    assert {("shoe_type", True), ("shoe_type", False), ("sport", True), ("sport", False)} <= seen


def test_confidence_and_alternatives_share_the_probability_of_applying(taggings):
    compared = 0
    for tagging in taggings:
        tags = {tag.attribute: tag for tag in tagging.tags if tag.value is not None}
        if {"kind", "shoe_type"} <= tags.keys():
            outside = [other.confidence for other in tags["kind"].alternatives if other.value == "shirt"]
            rest = [other.confidence for other in tags["shoe_type"].alternatives]
            assert sum([tags["shoe_type"].confidence, *rest, *outside]) == pytest.approx(1, abs=1e-5)
            compared += 1
    assert compared > 10


def test_evidence_has_the_temperature_of_its_modality_and_the_scope_of_its_attribute():
    """The text head is twice as sure as it may be, the photo head four times."""
    checkpoint = tiny_checkpoint(Taxonomy((KIND, SHOE_TYPE)))
    honest = tuple(torch.tensor([row]).log() for row in ([0.2, 0.5, 0.3], [0.75, 0.25]))
    fuse = checkpoint.model.fuse

    def say(embedded):
        heads = {
            name: tuple(times * one for one in honest)
            for name, times in (("fused", 9), ("text_only", 2), ("photo_only", 4))
        }
        return replace(fuse(embedded), **heads)

    checkpoint.model.fuse = say
    attributes = (replace(one, text_only=2.0, photo_only=4.0) for one in checkpoint.calibration.attributes)
    tagger = Tagger(replace(checkpoint, calibration=Calibration(tuple(attributes))), "v", "cpu")
    example = tagger.prepare(Product("red shoe", photos=(picture(),)))
    kind, shoe_type = tagger.predict([example])[0].tags
    assert (kind.value, shoe_type.value) == ("shoe", "heels")
    assert [kind.evidence.text, kind.evidence.photos] == pytest.approx([0.5, 0.5])
    assert [shoe_type.evidence.text, shoe_type.evidence.photos] == pytest.approx([0.8 * 0.75] * 2)
