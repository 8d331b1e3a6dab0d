"""The figures of `evaluate`, worked out by hand on a few rows."""

import pytest
import torch

from models.calibration import Calibration
from models.taxonomy import Attribute, Taxonomy
from training.data import MISSING, UNKNOWN, targets_of
from training.evaluation import Logits, report, score
from training.table import Row

COLOUR = Attribute("colour", ("red", "green", "blue"))
MATERIAL = Attribute("material", ("cotton", "wool"), multiple=True)


def one_hot(*values):
    return torch.nn.functional.one_hot(torch.tensor(values), 3).float() * 4


def test_macro_f1_is_the_mean_over_the_values_that_occur():
    figures = score(COLOUR, one_hot(0, 0, 1, 0), torch.tensor([0, 0, 1, 1]))
    # red: precision 2/3, recall 1; green: precision 1, recall 1/2; blue does not occur
    assert figures == pytest.approx({"accuracy": 0.75, "macro_f1": (0.8 + 2 / 3) / 2})


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
