"""The figures of `evaluate`, worked out by hand on a few rows."""

import math
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from models.calibration import PATTERNS, Calibration
from models.checkpoint import save
from models.taxonomy import Attribute, Scope, Taxonomy
from tests.tiny_tagger import picture, tiny_checkpoint
from training.__main__ import main
from training.conditions import shown
from training.data import MISSING, UNKNOWN, targets_of
from training.evaluation import Logits, ece, evaluate_rows, mean_loss, report, score, summary
from training.table import Row

COLOUR = Attribute("colour", ("red", "green", "blue"))
MATERIAL = Attribute("material", ("cotton", "wool"), multiple=True)


def one_hot(*values):
    return torch.nn.functional.one_hot(torch.tensor(values), 3).float() * 4


def test_macro_f1_is_the_mean_over_the_values_that_occur():
    figures = score(COLOUR, one_hot(0, 0, 1, 0), torch.tensor([0, 0, 1, 1]))
    # red: precision 2/3, recall 1; green: precision 1, recall 1/2; blue does not occur
    assert figures == pytest.approx({"accuracy": 0.75, "macro_f1": (0.8 + 2 / 3) / 2})


def test_a_rare_value_weighs_as_much_as_a_frequent_one():
    figures = score(COLOUR, one_hot(0, 0, 0, 0), torch.tensor([0, 0, 0, 1]))
    assert figures["macro_f1"] == pytest.approx((6 / 7 + 0) / 2)


def test_a_value_that_is_only_answered_is_no_part_of_the_mean():
    figures = score(COLOUR, one_hot(0, 2), torch.tensor([0, 0]))
    assert figures["macro_f1"] == pytest.approx(2 / 3)


def test_the_loss_is_that_of_the_rows_whose_value_is_known():
    target = torch.tensor([0, UNKNOWN])
    assert mean_loss(COLOUR, one_hot(0, 1), target) == pytest.approx(math.log(1 + 2 * math.exp(-4)), rel=1e-4)


def test_a_confidence_of_one_is_in_the_bin_of_the_surest():
    assert ece(torch.tensor([1.0, 0.97]), torch.tensor([False, True])) == pytest.approx(0.985 - 0.5)


def test_an_attribute_without_labels_is_no_part_of_what_early_stopping_watches():
    heads = (one_hot(0, 1), one_hot(0, 0))
    targets = (torch.tensor([0, 0]), torch.tensor([MISSING, MISSING]))
    taxonomy = Taxonomy((COLOUR, replace(COLOUR, name="trim")))
    assert summary(Logits(heads, heads, heads, ["text"] * 2), targets, taxonomy)["accuracy"] == 0.5


def test_a_value_the_taxonomy_lacks_counts_against_the_model():
    figures = score(COLOUR, one_hot(0, 0), torch.tensor([0, UNKNOWN]))
    assert figures == pytest.approx({"accuracy": 0.5, "macro_f1": (2 / 3 + 0) / 2})


def test_several_values_count_only_when_all_are_right():
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    figures = score(MATERIAL, logits, target)
    assert figures["accuracy"] == pytest.approx(1 / 3)
    assert figures["macro_f1"] == pytest.approx((1.0 + 0.0) / 2)


def row(**values):
    return Row("1", "title", "", (), "g", {name: tuple(value) for name, value in values.items()})


def test_a_row_of_unknown_values_alone_is_a_label_that_no_offer_meets():
    (material,) = targets_of([row(material=["silk"]), row(material=[])], Taxonomy((MATERIAL,)))
    assert material[0].tolist() == [0, 0]
    assert material[1].isnan().all()


def test_targets_mark_missing_unknown_and_several():
    colour, material = targets_of(
        [
            row(colour=["blue"], material=["wool"]),
            row(colour=[], material=[]),
            row(colour=["pink"], material=["wool", "cotton"]),
        ],
        Taxonomy((COLOUR, MATERIAL)),
    )
    assert colour.tolist() == [2, MISSING, UNKNOWN]
    assert material[0].tolist() == [0, 1]
    assert material[2].tolist() == [1, 1]
    assert material[1].isnan().all()


def test_heads_are_judged_only_where_their_modality_is():
    taxonomy = Taxonomy((COLOUR,))
    logits = Logits((one_hot(0, 1, 2),), (one_hot(0, 1, 1),), (one_hot(1, 1, 2),), ["both", "text", "photos"])
    target = (torch.tensor([0, 1, 2]),)
    entry = report(logits, target, taxonomy, Calibration.uncalibrated(taxonomy, 0.9))["colour"]
    assert entry["rows"] == 3
    assert entry["fused"]["accuracy"] == 1
    assert entry["text_only"]["accuracy"] == 1  # rows 1 and 2
    assert entry["photo_only"]["accuracy"] == 0.5  # rows 1 and 3
    assert entry["auto"] == {"target_precision": 0.9, "precision": None, "coverage": 0.0}


def promising(taxonomy, auto_from=0.0, **familiar_from):
    """Whatever is offered with that confidence is `auto`, unless it is strange."""
    calibration = Calibration.uncalibrated(taxonomy, 0.5)
    for one in calibration.attributes:
        one.auto_from.update(dict.fromkeys(PATTERNS, auto_from))
    return replace(calibration, familiar_from={"text": None, "photos": None, **familiar_from})


def test_the_precision_of_auto_is_that_of_what_is_auto_and_nothing_strange_is():
    """The first is right and surer than the second, which is wrong."""
    taxonomy = Taxonomy((COLOUR,))
    heads = (one_hot(0, 1) * torch.tensor([[2.0], [0.5]]),)
    measured = Logits(heads, heads, heads, ["text"] * 2)

    def auto(calibration):
        return report(measured, (torch.tensor([0, 0]),), taxonomy, calibration)["colour"]["auto"]

    all_figures = [auto(promising(taxonomy, limit)) for limit in (0.0, 0.9)]
    assert [(one["precision"], one["coverage"]) for one in all_figures] == [(0.5, 1), (1, 0.5)]
    assert auto(promising(taxonomy, text=1e9))["coverage"] == 0


def test_a_label_that_nothing_is_offered_for_lowers_the_coverage():
    """The first is taken for a shoe, so that it is offered no size."""
    kind = Attribute("kind", ("shoe", "hat", "bag"))
    size = Attribute("size", ("S", "M", "L"), applies_when=Scope("kind", ("hat",)))
    taxonomy = Taxonomy((kind, size))
    heads = (one_hot(0, 1) * 3, one_hot(2, 2) * 3)
    targets = (torch.tensor([1, 1]), torch.tensor([2, 2]))
    found = report(Logits(heads, heads, heads, ["both"] * 2), targets, taxonomy, promising(taxonomy))
    assert (found["size"]["auto"]["precision"], found["size"]["auto"]["coverage"]) == (1, 0.5)


def test_of_several_values_the_figures_are_those_of_what_is_offered():
    """A temperature of 2 and a beta map that takes a logit of 1 off: 1.8 is offered no more, 6 with sigmoid(2)."""
    taxonomy = Taxonomy((MATERIAL,))
    logits = (torch.tensor([[6.0, -9.0], [6.0, 1.8], [6.0, -9.0], [-9.0, -9.0]]),)
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    calibration = Calibration.uncalibrated(taxonomy, 0.9)
    calibration.attributes[0].temperature["both"] = 2.0
    calibration.attributes[0].beta["both"] = [1.0, 1.0, -1.0]
    measured = Logits(logits, logits, logits, ["both"] * 4)
    fused = report(measured, (target,), taxonomy, calibration)["material"]["fused"]
    sure = torch.tensor(2.0).sigmoid().item()
    assert fused == pytest.approx(
        {"accuracy": 2 / 4, "macro_f1": (2 * 2 / (3 + 2) + 0) / 2, "ece": sure - 2 / 3}
    )


def test_where_none_of_several_values_is_offered_nothing_can_be_wrong_of_confidences():
    taxonomy = Taxonomy((MATERIAL,))
    logits = (torch.tensor([[-4.0, -4.0]]),)
    measured = Logits(logits, logits, logits, ["both"])
    target = (torch.tensor([[1.0, 0.0]]),)
    entry = report(measured, target, taxonomy, Calibration.uncalibrated(taxonomy, 0.9))["material"]
    assert entry["fused"] == {"accuracy": 0.0, "macro_f1": 0.0, "ece": 0.0}
    assert entry["auto"]["coverage"] == 0.0


def test_the_same_answers_of_several_values_have_the_same_figures_whichever_head_gives_them():
    """Calibrated like products that have that one modality: the map moves what is offered away from the logit 0."""
    taxonomy = Taxonomy((MATERIAL,))
    calibration = Calibration.uncalibrated(taxonomy, 0.9)
    calibration.attributes[0].beta["text"] = [1.0, 1.0, -2.0]
    logits = (torch.tensor([[1.0, 3.0], [3.0, 1.0], [1.0, 1.0]]),)
    measured = Logits(logits, logits, logits, ["text"] * 3)
    target = (torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]),)
    entry = report(measured, target, taxonomy, calibration)["material"]
    assert entry["text_only"] == {"accuracy": 1 / 3, "macro_f1": pytest.approx((2 / 3 + 2 / 3) / 2)}
    assert {name: entry["fused"][name] for name in ("accuracy", "macro_f1")} == entry["text_only"]


def test_several_values_out_of_their_scope_are_not_offered():
    taxonomy = Taxonomy(
        (Attribute("kind", ("shoe", "hat")), replace(MATERIAL, applies_when=Scope("kind", ("hat",))))
    )
    kind, material = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]), torch.tensor([[9.0, -9.0], [9.0, -9.0]])
    measured = Logits((kind, material), (kind, material), (kind, material), ["both"] * 2)
    targets = (torch.tensor([1, 1]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    entry = report(measured, targets, taxonomy, Calibration.uncalibrated(taxonomy, 0.9))["material"]
    assert entry["fused"]["accuracy"] == 0.5, "the first is taken for a shoe"


def test_several_values_that_likely_apply_are_not_offered_beside_a_parent_that_rules_them_out():
    kind = Attribute("kind", ("shoe", "hat", "cap"))
    taxonomy = Taxonomy((kind, replace(MATERIAL, applies_when=Scope("kind", ("hat", "cap")))))
    heads = (torch.tensor([[0.4, 0.35, 0.25]]).log(), torch.tensor([[9.0, -9.0]]))
    targets = (torch.tensor([1]), torch.tensor([[1.0, 0.0]]))
    calibration = Calibration.uncalibrated(taxonomy, 0.9)
    entry = report(Logits(heads, heads, heads, ["both"]), targets, taxonomy, calibration)["material"]
    assert entry["fused"]["accuracy"] == 0


def test_a_row_of_which_nothing_is_left_to_see_has_no_pattern(tmp_path):
    (tmp_path / "red.jpg").write_bytes(picture("red"))
    photos, checkpoint = (tmp_path / "red.jpg",), tiny_checkpoint()
    rows = [
        Row("1", "red shirt", "", photos, "1", {}),
        Row("2", "", "", photos, "2", {}),
        Row("3", "red shirt", "", (), "3", {}),
    ]

    def patterns(condition):
        seen = shown(rows, condition, checkpoint.taxonomy)
        return evaluate_rows(checkpoint.model, seen, checkpoint.preprocessor, workers=0).patterns

    assert patterns("as_is") == ["both", "photos", "text"]
    assert patterns("without_photos") == ["text", None, "text"]
    assert patterns("without_text") == ["photos", "photos", None]


def test_measuring_a_model_in_training_uses_no_dropout_and_leaves_the_random_numbers_as_they_were():
    checkpoint = tiny_checkpoint()
    rows = [Row("1", "red shirt", "", (), "1", {})]

    def fused():
        return evaluate_rows(checkpoint.model, rows, checkpoint.preprocessor, workers=0).fused[0]

    expected = fused()
    checkpoint.model.train()
    state = torch.get_rng_state()
    assert torch.equal(fused(), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_which_nothing_is_left_to_see_are_no_part_of_an_entry():
    """Of the two that are left one is answered rightly; nobody sees the third, whose answer is wrong."""
    taxonomy = Taxonomy((COLOUR, Attribute("kind", ("shirt", "shoe", "bag"))))
    heads = (one_hot(0, 1, 0), one_hot(0, 1, 0))
    logits = Logits(heads, heads, heads, ["text", "photos", None])
    targets = (torch.tensor([0, 0, 2]), torch.tensor([MISSING, MISSING, 1]))
    entries = report(logits, targets, taxonomy, Calibration.uncalibrated(taxonomy, 0.9))
    assert set(entries) == {"colour"}, "nothing with a kind is left to see"
    entry = entries["colour"]
    assert entry["rows"] == 2
    assert entry["fused"]["accuracy"] == 0.5
    assert entry["fused"]["ece"] == pytest.approx(1 / (1 + 2 * math.exp(-4)) - 0.5)
    assert entry["text_only"]["accuracy"] == 1
    assert entry["photo_only"]["accuracy"] == 0


@pytest.mark.parametrize(
    ("found", "wanted", "f1"),
    [
        ([0, 0, 0, 0], [1, 0, 0, 0], 0.0),
        ([1, 1, 1, 0], [1, 1, 1, 1], 6 / 7),
        ([1, 1, 0, 0], [0, 0, 0, 0], 0.0),
    ],
)
def test_the_macro_f1_of_one_occurring_value_is_its_own(found, wanted, f1):
    logits = torch.tensor([[1.0 if one else -1.0, -1.0] for one in found])
    target = torch.tensor([[float(one), 0.0] for one in wanted])
    assert score(MATERIAL, logits, target)["macro_f1"] == pytest.approx(f1)


@pytest.mark.parametrize(
    ("table", "condition", "told"),
    [
        ("title,size\nred shirt,M\n", "as_is", "none of the attributes to measure, colour, kind, material"),
        ("title,colour,kind\nred shirt,,\n", "as_is", "as they are, something to see and a value"),
        ("title,colour,kind\nred shirt,red,\n", "without_text", "in one of the columns colour, kind"),
    ],
)
def test_a_table_that_gives_nothing_to_measure_is_an_error_and_no_empty_table(
    tmp_path, table, condition, told
):
    save(tiny_checkpoint(), tmp_path / "checkpoint")
    (tmp_path / "metadata.csv").write_text(table)
    arguments = ("evaluate", str(tmp_path / "checkpoint"), str(tmp_path / "metadata.csv"))
    result = CliRunner().invoke(main, [*arguments, "--condition", condition, "--workers", "0"])
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stdout == ""
