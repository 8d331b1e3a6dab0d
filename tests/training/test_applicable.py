"""Offers are judged as a buyer meets them: where an attribute does not apply, every value is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.calibration import Calibration
from models.taxonomy import Attribute, Scope, Taxonomy
from training.applicable import known
from training.calibrate import set_scoped_thresholds
from training.data import MISSING, UNKNOWN, targets_of
from training.evaluation import Logits, report
from training.seen import Seen
from training.table import Row

KIND = Attribute("kind", ("shirt", "shoe"))
HEEL = Attribute("heel", ("low", "high"), applies_when=Scope("kind", ("shoe",)))
SIZE = Attribute("size", ("S", "L"), applies_when=Scope("heel", ("high",)))
USES = Attribute("uses", ("work", "sport"), multiple=True)
SPORT = Attribute("sport", ("golf", "tennis"), applies_when=Scope("uses", ("sport",)))


def test_what_is_known_of_a_chain():
    kind = torch.tensor([0, 1, 1, MISSING, UNKNOWN, MISSING])
    heel = torch.tensor([MISSING, 0, 1, 1, MISSING, MISSING])
    size = torch.full((6,), MISSING)
    everywhere, of_heel, of_size = known((kind, heel, size), Taxonomy((KIND, HEEL, SIZE)))
    assert everywhere.inside.all() and not everywhere.outside.any()
    assert of_heel.inside.tolist() == [False, True, True, False, False, False]
    assert of_heel.outside.tolist() == [True, False, False, False, True, False]
    assert of_size.inside.tolist() == [False, False, True, True, False, False]
    assert of_size.outside.tolist() == [True, True, False, False, True, False]


def test_under_several_values_one_in_scope_is_enough():
    uses = torch.tensor([[1.0, 1.0], [1.0, 0.0], [torch.nan, torch.nan]])
    _, of_sport = known((uses, torch.full((3,), MISSING)), Taxonomy((USES, SPORT)))
    assert of_sport.inside.tolist() == [True, False, False]
    assert of_sport.outside.tolist() == [False, True, False]


def logits(kinds, heels):
    """Log-probabilities of shoe and of high, for products with text and photos."""
    heads = tuple(torch.tensor([[1 - p, p] for p in column]).log() for column in (kinds, heels))
    return Logits(heads, heads, heads, ["both"] * len(kinds))


def targets(taxonomy, *cells):
    rows = [Row("", "", "", (), "", {"kind": kind, "heel": heel}) for kind, heel in cells]
    return targets_of(rows, taxonomy)


SHOE, SHIRT, LOW, HIGH, EMPTY = ("shoe",), ("shirt",), ("low",), ("high",), ()


def test_the_document_tells_how_well_applying_is_told():
    taxonomy = Taxonomy((KIND, HEEL))
    wanted = targets(
        taxonomy, (SHOE, HIGH), (SHOE, LOW), (SHOE, HIGH), (SHIRT, EMPTY), (SHIRT, EMPTY), (EMPTY, LOW)
    )
    seen = logits([0.9, 0.8, 0.3, 0.7, 0.1, 0.9], [0.9, 0.9, 0.9, 0.9, 0.9, 0.1])
    entries = report(seen, wanted, taxonomy, Calibration.uncalibrated(taxonomy, 0.9))
    assert "applicable" not in entries["kind"]
    heel = entries["heel"]
    assert heel["applicable"] == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)}
    assert heel["rows"] == 4
    assert heel["fused"]["accuracy"] == pytest.approx(3 / 4)  # the head alone, where the attribute applies
    # offered: right at .81 twice (.9 * .9), wrong at .72 and at .63 (the shirt)
    assert heel["fused"]["ece"] == pytest.approx((2 * 0.19 + 0.72 + 0.63) / 4)


def test_an_attribute_that_is_offered_nowhere_has_no_offers_to_judge():
    taxonomy = Taxonomy((KIND, HEEL))
    entries = report(
        logits([0.1], [0.9]),
        targets(taxonomy, (SHOE, HIGH)),
        taxonomy,
        Calibration.uncalibrated(taxonomy, 0.9),
    )
    assert entries["heel"]["applicable"] == {"precision": None, "recall": 0.0}
    assert entries["heel"]["auto"] == {"target_precision": 0.9, "precision": None, "coverage": 0.0}


def test_the_promise_counts_offers_that_do_not_apply():
    """Among shoes every value is right, yet a third of the offers are for shirts."""
    taxonomy = Taxonomy((KIND, HEEL))
    wanted = targets(taxonomy, *[(SHOE, HIGH)] * 400, *[(SHIRT, EMPTY)] * 200)
    run, owner = logits([0.99] * 600, [0.99] * 600), np.arange(600)
    found = Calibration.uncalibrated(taxonomy, 0.9)
    set_scoped_thresholds(found, taxonomy, Seen({"both": run}, wanted, owner), "both", 0.95)
    assert found.attributes[1].auto_from["both"] is None
    shirts = torch.linspace(0.55, 0.75, 200)
    run = logits([0.99] * 400 + shirts.tolist(), [0.99] * 600)
    set_scoped_thresholds(found, taxonomy, Seen({"both": run}, wanted, owner), "both", 0.95)
    threshold = found.attributes[1].auto_from["both"]
    auto = int((0.99 * shirts >= threshold).sum())
    assert 0 < auto < 400 / 0.9 - 400
    assert found.attributes[1].auto_from["text"] is None


def test_rows_of_which_nothing_is_left_to_see_do_not_say_how_well_applying_is_told():
    taxonomy = Taxonomy((KIND, HEEL))
    wanted = targets(taxonomy, (SHOE, HIGH), (SHIRT, EMPTY), (SHOE, LOW), (SHOE, HIGH))
    seen = replace(logits([0.9, 0.9, 0.1, 0.9], [0.9, 0.9, 0.1, 0.9]), patterns=["text", None, None, None])
    entries = report(seen, wanted, taxonomy, Calibration.uncalibrated(taxonomy, 0.9))
    assert entries["heel"]["applicable"] == {"precision": 1.0, "recall": 1.0}
