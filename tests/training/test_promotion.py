"""A checkpoint whose fusion loses to a part is not promotable, and is told where."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from models.calibration import Calibration
from models.taxonomy import Attribute, Scope, Taxonomy
from training import promotion as gate
from training.conditions import CONDITIONS
from training.evaluation import Logits
from training.promotion import in_words
from training.table import Row

COLOUR = Attribute("colour", ("red", "green", "blue"))
KIND = Attribute("kind", ("shirt", "shoe"))
TAXONOMY = Taxonomy((COLOUR, KIND))
ROWS = [
    Row(str(n), "a title", "", (), f"group {n}", {"colour": (COLOUR.values[n % 3],), "kind": ("shoe",)})
    for n in range(90)
]
# pattern of what is present under each condition
PATTERN = {"as_is": "both", "masked_titles": "both", "without_photos": "text", "without_text": "photos"}


def answers(right, attribute=COLOUR, rows=ROWS):
    """Logits of a head that is right on the first `right` rows and says the next value on the others."""
    codes = [attribute.values.index(row.values[attribute.name][0]) for row in rows]
    shifted = [code + (position >= right) for position, code in enumerate(codes)]
    size = len(attribute.values)
    return torch.nn.functional.one_hot(torch.tensor(shifted) % size, size).float()


def measured(fused=80, text_only=70, photo_only=60, rows=ROWS):
    """Every condition alike, and of every attribute."""
    heads = {
        name: tuple(answers(right, attribute, rows) for attribute in TAXONOMY)
        for name, right in (("fused", fused), ("text_only", text_only), ("photo_only", photo_only))
    }
    return {condition: Logits(patterns=[PATTERN[condition]] * len(rows), **heads) for condition in CONDITIONS}


def with_fused(found, condition, right):
    fused = (answers(right), found[condition].fused[1])
    return {**found, condition: dataclasses.replace(found[condition], fused=fused)}


def promotion(found, rows, taxonomy, calibration=None):
    calibration = calibration or Calibration.uncalibrated(taxonomy, 0.95)
    return gate.promotion(found, rows, taxonomy, calibration)


def test_a_fusion_above_its_parts_is_promotable():
    verdict = promotion(measured(), ROWS, TAXONOMY)
    assert verdict["verdict"] is True
    assert in_words(verdict).startswith("Promotable: on 90 products")


@pytest.mark.parametrize(
    ("condition", "words", "part", "other"),
    [
        ("as_is", "as they are", "the text alone", "the photos alone"),
        ("masked_titles", "with masked titles", "the text alone", "the photos alone"),
        ("as_is", "as they are", "the photos alone", "the text alone"),
        ("masked_titles", "with masked titles", "the photos alone", "the text alone"),
        ("without_photos", "without photos", "the text alone", "the photos alone"),
        ("without_text", "without text", "the photos alone", "the text alone"),
    ],
)
def test_a_fusion_below_a_part_is_not_and_the_attribute_and_condition_are_named(
    condition, words, part, other
):
    heads = {"the text alone": "text_only", "the photos alone": "photo_only"}
    found = with_fused(measured(fused=60, **{heads[part]: 60, heads[other]: 10}), condition, 30)
    verdict = promotion(found, ROWS, TAXONOMY)
    assert verdict["verdict"] is False
    assert verdict["because"][0].startswith(f"colour {words}: fused macro-F1 0.")
    assert all(part in reason and words in reason for reason in verdict["because"])
    assert not any(reason.startswith("kind") for reason in verdict["because"])
    assert in_words(verdict).startswith("NOT promotable: colour")


def test_a_loss_that_luck_explains_does_not_decide_and_is_told():
    verdict = promotion(measured(fused=69, text_only=70), ROWS, TAXONOMY)
    assert verdict["verdict"] is True
    assert verdict["because"][1].startswith("by chance colour as they are: fused macro-F1 0.7")
    equal = promotion(measured(fused=70, text_only=70), ROWS, TAXONOMY)
    assert equal["verdict"] is True and len(equal["because"]) == 1


@pytest.mark.parametrize(
    ("part", "other", "shown"), [("photo_only", "text_only", "text"), ("text_only", "photo_only", "photos")]
)
def test_a_part_is_judged_only_where_its_modality_is(part, other, shown):
    """Where the photos are missing the photo head cannot be asked, however right its answers look."""
    found = {"as_is": measured(**{"fused": 50, other: 50, part: 90})["as_is"]}
    assert promotion(found, ROWS, TAXONOMY)["verdict"] is False
    blind = {"as_is": dataclasses.replace(found["as_is"], patterns=[shown] * len(ROWS))}
    assert promotion(blind, ROWS, TAXONOMY)["verdict"] is True


def test_products_of_one_group_are_one_piece_of_evidence():
    found = {"as_is": measured(fused=81, text_only=90)["as_is"]}
    together = [dataclasses.replace(row, group=f"group {n // 9}") for n, row in enumerate(ROWS)]
    assert promotion(found, ROWS, TAXONOMY)["verdict"] is False
    assert promotion(found, together, TAXONOMY)["verdict"] is True


def test_small_losses_on_every_attribute_add_up():
    """Twelve attributes, each with too small a loss to tell: together they are no luck."""
    names = [f"colour {n}" for n in range(12)]
    taxonomy = Taxonomy(tuple(Attribute(name, COLOUR.values) for name in names))
    random = np.random.default_rng(0)
    rows = [dataclasses.replace(row, values=dict.fromkeys(names, row.values["colour"])) for row in ROWS]
    full, fused = answers(90), []
    for _ in names:
        wrong = torch.zeros(90, dtype=torch.bool)
        wrong[random.permutation(90)[:4]] = True
        fused.append(torch.where(wrong[:, None], full.roll(1, dims=1), full))
    logits = Logits(tuple(fused), (full,) * 12, (answers(10),) * 12, ["both"] * 90)
    verdict = promotion({"as_is": logits}, rows, taxonomy)
    assert verdict["verdict"] is False
    assert [reason.split(" as they are")[0] for reason in verdict["because"]] == [
        "the mean over the attributes"
    ]


def test_a_handful_of_products_makes_nothing_promotable():
    few = ROWS[:6]
    verdict = promotion(measured(rows=few), few, TAXONOMY)
    assert verdict == {
        "verdict": False,
        "because": ["6 groups of labelled products are too few to tell: it takes 10 at least"],
    }


def test_of_several_values_those_are_judged_that_would_be_offered():
    """Both say 1 of every value that a row has; the fused head's map offers none of them."""
    colours = dataclasses.replace(COLOUR, multiple=True)
    taxonomy, calibration = Taxonomy((colours,)), Calibration.uncalibrated(Taxonomy((colours,)), 0.95)
    said = (answers(90) * 2 - 1,)
    found = {"as_is": Logits(said, said, said, ["both"] * 90)}
    assert promotion(found, ROWS, taxonomy, calibration)["verdict"] is True
    calibration.attributes[0].beta["both"] = [1.0, 1.0, -9.0]
    assert promotion(found, ROWS, taxonomy, calibration)["verdict"] is False


def test_an_attribute_that_no_product_shows_is_named():
    heel, silent = Attribute("heel", ("flat", "high")), torch.zeros(len(ROWS), 2)
    found = measured()["as_is"]
    heads = {name: (*getattr(found, name), silent) for name in ("fused", "text_only", "photo_only")}
    with_heel = dataclasses.replace(found, **heads)
    verdict = promotion({"as_is": with_heel}, ROWS, Taxonomy((*TAXONOMY, heel)))
    assert verdict["verdict"] is True
    assert verdict["because"][-1] == "not judged, as no product of the test part shows them: heel"


def test_labels_outside_of_a_scope_decide_nothing():
    """The fusion is right on the sixty shoes; the text also where a shirt is said to have heels."""
    heel = Attribute("heel", COLOUR.values, applies_when=Scope("kind", ("shoe",)))
    rows = [
        dataclasses.replace(row, values={"kind": (KIND.values[n < 60],), "heel": row.values["colour"]})
        for n, row in enumerate(ROWS)
    ]
    kind = answers(90, KIND, rows)
    fused, text_only = (kind, answers(60, heel, rows)), (kind, answers(90, heel, rows))
    logits = Logits(fused, text_only, fused, ["both"] * 90)
    assert promotion({"as_is": logits}, rows, Taxonomy((KIND, heel)))["verdict"] is True
    everywhere = Taxonomy((KIND, dataclasses.replace(heel, applies_when=None)))
    assert promotion({"as_is": logits}, rows, everywhere)["verdict"] is False


def test_what_is_said_of_products_without_a_label_decides_nothing():
    """Both are right on the thirty that have one; of the others the text says red, and the fusion each colour."""
    rows = [dataclasses.replace(row, values=row.values if n < 30 else {}) for n, row in enumerate(ROWS)]
    fused, text_only = answers(90), answers(90)
    text_only[30:] = torch.tensor([1.0, 0.0, 0.0])
    logits = Logits((fused,), (text_only,), (fused,), ["both"] * 90)
    assert promotion({"as_is": logits}, rows, Taxonomy((COLOUR,)))["verdict"] is True


def test_an_attribute_without_labels_is_passed_over():
    rows = [dataclasses.replace(row, values={"colour": row.values["colour"]}) for row in ROWS]
    found = measured(fused=50, text_only=90)
    because = promotion(found, rows, TAXONOMY)["because"]
    assert because and not any(reason.startswith("kind") for reason in because)


@pytest.mark.parametrize(
    ("condition", "part"), [("without_photos", "text_only"), ("without_text", "photo_only")]
)
def test_rows_of_which_nothing_is_left_to_see_decide_nothing(condition, part):
    """The fusion is right where its part is, but for the thirty last, of which nobody sees anything."""
    found = measured(**{"fused": 60, "text_only": 60, "photo_only": 60, part: 90})[condition]
    assert promotion({condition: found}, ROWS, TAXONOMY)["verdict"] is False
    blind = dataclasses.replace(found, patterns=[*found.patterns[:60], *[None] * 30])
    assert promotion({condition: blind}, ROWS, TAXONOMY)["verdict"] is True


def test_where_hardly_anything_is_labelled_nothing_can_be_told():
    rows = [row if n < 5 else dataclasses.replace(row, values={}) for n, row in enumerate(ROWS)]
    verdict = promotion(measured(fused=70, text_only=70), rows, TAXONOMY)
    assert verdict["verdict"] is False
    assert "too few to tell" in verdict["because"][0]


def test_a_lost_rare_value_is_not_made_good_by_a_common_one():
    """The fusion takes all of fifty blue products for red ones, the text sixty of three hundred red ones for green."""
    codes = [0] * 300 + [1] * 100 + [2] * 50
    rows = [
        Row(str(n), "a title", "", (), str(n), {"colour": (COLOUR.values[code],)})
        for n, code in enumerate(codes)
    ]
    fused, text = codes[:400] + [0] * 50, [1] * 60 + codes[60:]
    heads = ((torch.nn.functional.one_hot(torch.tensor(said), 3).float(),) for said in (fused, text, fused))
    verdict = promotion({"as_is": Logits(*heads, ["both"] * len(rows))}, rows, Taxonomy((COLOUR,)))
    assert verdict["verdict"] is False


@pytest.mark.parametrize(("wrong", "told"), [(1, 0), (2, 1)])
def test_a_loss_of_half_a_point_is_told_and_a_smaller_one_is_not(wrong, told):
    rows = [dataclasses.replace(ROWS[n % 90], id=str(n), group=str(n)) for n in range(300)]
    full = answers(300, rows=rows)
    logits = Logits((answers(300 - wrong, rows=rows),), (full,), (answers(10, rows=rows),), ["both"] * 300)
    verdict = promotion({"as_is": logits}, rows, Taxonomy((COLOUR,)))
    assert verdict["verdict"] is True
    assert sum(reason.startswith("by chance colour") for reason in verdict["because"]) == told


def test_ten_groups_are_enough_to_judge():
    assert promotion(measured(fused=10, rows=ROWS[:10]), ROWS[:10], TAXONOMY)["verdict"] is True


def several():
    """Two attributes of several values, of which all heads say the same, and their calibration."""
    taxonomy = Taxonomy(tuple(dataclasses.replace(one, multiple=True) for one in TAXONOMY))
    said = tuple(answers(90, attribute) * 2 - 1 for attribute in taxonomy)
    # Uncalibrated attributes share one calibration.
    own = tuple(copy.deepcopy(one) for one in Calibration.uncalibrated(taxonomy, 0.95).attributes)
    return taxonomy, Calibration(own), said


def test_each_attribute_of_several_values_is_judged_by_its_own_calibration():
    taxonomy, calibration, said = several()
    calibration.attributes[1].beta["both"] = [1.0, 1.0, -9.0]
    verdict = promotion({"as_is": Logits(said, said, said, ["both"] * 90)}, ROWS, taxonomy, calibration)
    assert verdict["verdict"] is False and verdict["because"][0].startswith("kind")


def test_of_several_values_a_part_offers_what_it_would_offer_alone():
    """The fusion offers nothing, and neither would the photos alone: what the text alone offers is what is lost."""
    taxonomy, calibration, said = several()
    for one in calibration.attributes:
        one.beta["photos"] = [1.0, 1.0, -9.0]
    nothing = tuple(-head.abs() for head in said)
    verdict = promotion({"as_is": Logits(nothing, said, said, ["both"] * 90)}, ROWS, taxonomy, calibration)
    assert verdict["verdict"] is False
    assert all("the text alone" in reason for reason in verdict["because"])
