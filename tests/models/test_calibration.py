"""Confidences that are still a distribution after the beta map, and that never change what is offered."""

import math
from dataclasses import replace

import pytest
import torch

from models.calibration import (
    PATTERNS,
    AttributeCalibration,
    Calibration,
    familiarity,
    indices_of,
    patterns,
)
from models.errors import CheckpointError
from models.taxonomy import Attribute, Taxonomy

PLAIN = dict.fromkeys(PATTERNS, 1.0)


def calibration(*beta, temperature=1.0):
    return AttributeCalibration(
        0.95,
        dict.fromkeys(PATTERNS, temperature),
        dict.fromkeys(PATTERNS),
        beta={pattern: list(beta) for pattern in PATTERNS},
    )


@pytest.fixture
def logits():
    return torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 4


def test_the_identity_leaves_the_temperature_alone(logits):
    found = AttributeCalibration(0.95, dict.fromkeys(PATTERNS, 2.0), dict.fromkeys(PATTERNS))
    of = ["both"] * len(logits)
    torch.testing.assert_close(
        found.confidences(logits, of, False), (logits / 2).softmax(dim=1), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(found.confidences(logits, of, True), (logits / 2).sigmoid())


@pytest.mark.parametrize("beta", [(0.0, 1.5, -1.0), (2.0, 0.5, 1.0), (1.0, 1.0, -6.0), (0.3, 0.0, 0.0)])
def test_one_choice_stays_a_distribution_with_the_same_value_first(logits, beta):
    found = calibration(*beta).confidences(logits, ["text"] * len(logits), False)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(found)))
    assert (found.argmax(dim=1) == logits.argmax(dim=1)).all()
    assert (found >= 0).all()


def test_the_offered_value_moves_as_the_map_says_and_the_others_share_the_rest():
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    (found,) = calibration(1.0, 1.0, 1.0).confidences(logits, ["both"], False)
    offered = 0.6 * torch.e / (0.6 * torch.e + 0.4)  # the odds 0.6 : 0.4 times e
    assert found.tolist() == pytest.approx([offered, (1 - offered) * 0.75, (1 - offered) * 0.25])


def test_each_of_several_values_is_mapped_by_itself():
    logits = torch.tensor([[0.5, 0.9]]).logit()
    (found,) = calibration(2.0, 1.0, 0.0).confidences(logits, ["both"], True)
    assert found.tolist() == pytest.approx([0.25 / (0.25 + 0.5), 0.81 / (0.81 + 0.1)])


def test_each_product_is_mapped_by_its_own_pattern():
    found = calibration(1.0, 1.0, 0.0)
    found.beta["photos"] = [1.0, 1.0, -1.0]
    both, photos = found.confidences(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), ["both", "photos"], False)
    assert photos[0] < both[0]


def test_a_text_that_offers_no_value_leaves_the_photos_numbers_to_count():
    found = calibration(1.0, 1.0, 0.0)
    sure, torn = [4.0, 0.0, 0.0], [0.2, 0.1, 0.0]
    text_only = torch.tensor([sure, torn, torn, torn])
    assert found.patterns_for(["both", "both", "text", "photos"], text_only, False) == [
        "both",
        "photos",
        "text",
        "photos",
    ]
    assert found.patterns_for(["both"] * 4, text_only - 9, True) == ["both"] * 4, (
        "of several values none may be right"
    )


def test_whether_a_text_tells_is_asked_of_each_attribute_with_its_own_temperature():
    taxonomy = Taxonomy((Attribute("colour", ("red", "green")), Attribute("kind", ("shirt", "shoe", "bag"))))
    cool, hot = calibration(1.0, 1.0, 0.0), replace(calibration(1.0, 1.0, 0.0), text_only=50.0)
    logits = (torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0]]))
    assert Calibration((cool, cool)).patterns_for(["both"], logits, taxonomy) == [["both"], ["both"]]
    assert Calibration((cool, hot)).patterns_for(["both"], logits, taxonomy) == [["both"], ["photos"]]


def test_certainty_and_no_products_are_no_special_case():
    found = calibration(1.3, 0.7, 0.1)
    certain = found.confidences(torch.tensor([[500.0, 0.0, float("-inf")]]), ["both"], False)
    assert certain.tolist() == [[1.0, 0.0, 0.0]]
    assert found.confidences(torch.zeros(0, 3), [], False).shape == (0, 3)


@pytest.mark.parametrize(
    ("target", "confidence", "decision"),
    [
        (0.95, 0.81, "auto"),
        (0.95, 0.79, "review"),
        (0.99, 0.95, "review"),
        (0.8, 0.51, "auto"),
        (0.8, 0.49, "abstain"),
        (0.8, float("nan"), "abstain"),
    ],
)
def test_a_doubtful_value_is_not_auto_however_sure_the_others_are(target, confidence, decision):
    """The threshold alone would let all of them through."""
    calibration = AttributeCalibration(target, dict.fromkeys(PATTERNS, 1.0), dict.fromkeys(PATTERNS, 0.3))
    assert calibration.decide(confidence, "both") == decision


@pytest.mark.parametrize(
    ("pattern", "confidence", "vouched", "decision"),
    [
        ("both", 0.9, True, "auto"),
        ("both", 0.89, True, "review"),
        ("both", 0.99, False, "review"),
        ("text", 0.99, True, "review"),
        ("both", 0.49, False, "abstain"),
    ],
)
def test_auto_is_what_reaches_the_threshold_of_its_pattern_and_is_vouched_for(
    pattern, confidence, vouched, decision
):
    auto_from = {"both": 0.9, "text": None, "photos": 0.5}  # of texts alone nothing is promised
    calibration = AttributeCalibration(0.95, dict.fromkeys(PATTERNS, 1.0), auto_from)
    assert calibration.decide(confidence, pattern, vouched) == decision


def test_what_was_never_calibrated_goes_to_a_person():
    taxonomy = Taxonomy((Attribute("colour", ("red", "green")),))
    (attribute,) = Calibration.uncalibrated(taxonomy, 0.5).attributes
    assert {attribute.decide(1.0, pattern) for pattern in PATTERNS} == {"review"}


def test_a_product_with_neither_text_nor_photos_counts_as_text():
    has_text, has_photos = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    assert patterns(has_text, has_photos) == ["both", "text", "photos", "text"]


def test_what_no_logit_rises_for_is_less_familiar_than_what_one_does():
    taxonomy = Taxonomy(
        (Attribute("colour", ("red", "green")), Attribute("material", ("wool", "linen"), multiple=True))
    )
    fused = (torch.tensor([[6.0, 0.0], [0.5, 0.0]]), torch.tensor([[9.0, 9.0], [-9.0, -9.0]]))
    known, strange = familiarity(fused, taxonomy).tolist()
    assert known == pytest.approx(math.log(math.exp(6) + 1))
    assert strange == pytest.approx(math.log(math.exp(0.5) + 1)), "several values at once say nothing of it"


def test_choices_weigh_alike_in_how_familiar_a_product_is_and_many_are_no_more_than_few():
    choices = Taxonomy((Attribute("colour", ("red", "green")), Attribute("size", ("s", "m", "l"))))
    logits = (torch.tensor([[6.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    colour, size = math.log(math.exp(6) + 1), math.log(math.e + 2)
    assert familiarity(logits, choices).item() == pytest.approx((colour + size) / 2)


def test_what_is_familiar_vouches_for_what_it_offers_where_the_rest_is_strange():
    colour = Taxonomy((Attribute("colour", ("red", "green")),))
    red, green, strange = [6.0, 0.0], [0.0, 6.0], [0.5, 0.0]
    both, neither, only_red, only_green = [True, True], [False, False], [True, False], [False, True]
    cases = [
        ("both", red, green, both),
        ("both", red, strange, only_red),
        ("both", strange, green, only_green),
        ("both", strange, strange, neither),
        ("text", red, strange, both),
        ("text", strange, green, neither),
        ("photos", strange, green, both),
        ("photos", red, strange, neither),
    ]
    of = indices_of([pattern for pattern, *_ in cases])
    text, photos = (torch.tensor([case[column] for case in cases]) for column in (1, 2))

    def vouched(**familiar_from):
        found = Calibration((calibration(),), familiar_from).vouched_at((text,), (photos,), of, colour)
        return found[0].tolist()

    assert vouched(text=3.0, photos=3.0) == [expected for *_, expected in cases]
    assert vouched(text=None, photos=None) == [both] * len(cases)
    assert vouched(text=None, photos=3.0)[3] == only_red, "half sure is enough"


def test_calibration_comes_back_as_it_was_written_also_that_of_older_checkpoints():
    taxonomy = Taxonomy((Attribute("attributes", ("red", "green")),))
    found = Calibration((calibration(1.3, 0.7, 0.1),), {"text": None, "photos": 1.0})
    document = found.to_dict(taxonomy)
    assert Calibration.from_dict(document, taxonomy) == found
    older = Calibration.from_dict(document["attributes"], taxonomy)
    assert older == Calibration(found.attributes)
    with pytest.raises(CheckpointError, match="does not fit"):
        Calibration.from_dict({"familiar_from": {"text": None}, "attributes": {}}, taxonomy)
    del document["attributes"]["attributes"]["temperature"]["photos"]
    with pytest.raises(CheckpointError, match="no numbers for photos alone"):
        Calibration.from_dict(document, taxonomy)
