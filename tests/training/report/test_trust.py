"""Reliability bins and coverage curves, worked out by hand."""

import pytest
import torch

from models.calibration import PATTERNS, AttributeCalibration
from models.taxonomy import Attribute
from training.report.trust import CURVE_POINTS, bins, curve, thinned, trust

COLOUR = Attribute("colour", ("red", "green", "blue"))
MATERIAL = Attribute("material", ("cotton", "wool"), multiple=True)


def calibration(auto_from):
    return AttributeCalibration(0.9, dict.fromkeys(PATTERNS, 1.0), dict.fromkeys(PATTERNS, auto_from))


def test_a_bin_holds_what_was_right_of_its_confidence():
    low, high = bins(torch.tensor([0.91, 0.92, 0.92, 0.41]), torch.tensor([True, True, False, False]))
    assert (low.count, low.right) == (1, 0.0)
    assert (high.count, high.right) == (3, pytest.approx(2 / 3))
    assert high.confidence == pytest.approx(0.9167, abs=1e-4)
    assert high.low < 2 / 3 < high.high


def test_a_curve_takes_equal_confidences_together():
    points = curve(torch.tensor([0.9, 0.8, 0.8, 0.6]), torch.tensor([True, False, True, False]), 4)
    assert [(point.coverage, pytest.approx(point.precision)) for point in points] == [
        (0.25, 1.0),
        (0.75, pytest.approx(2 / 3)),
        (1.0, 0.5),
    ]


def test_the_line_is_drawn_where_the_threshold_leaves_it():
    found = trust(
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.tensor([True, True, False, False]),
        ["both"] * 4,
        [True] * 4,
        4,
        COLOUR,
        calibration(0.75),
        "both",
    )
    assert (found.auto.coverage, found.auto.precision) == (0.5, 1.0)


@pytest.mark.parametrize("auto_from", [None, 0.99])
def test_no_line_is_drawn_where_nothing_is_that_sure(auto_from):
    found = trust(
        torch.tensor([0.9]), torch.tensor([True]), ["both"], [True], 1, COLOUR, calibration(auto_from), "both"
    )
    assert found.auto is None
    assert len(found.curve) == 1


def test_several_values_are_covered_only_among_those_that_are_offered():
    found = trust(
        torch.tensor([0.9, 0.6, 0.2, 0.1]),
        torch.tensor([True, False, False, False]),
        ["both"] * 4,
        [True] * 4,
        1,
        MATERIAL,
        calibration(0.8),
        "both",
    )
    assert found.auto.coverage == 0.5
    assert found.offers == sum(one.count for one in found.bins) == 2
    assert found.ece == pytest.approx((0.1 + 0.6) / 2)


def test_where_no_value_is_offered_nothing_is_shown():
    some = torch.tensor([0.2, 0.1]), torch.tensor([True, False])
    found = trust(*some, ["both"] * 2, [True] * 2, 1, MATERIAL, calibration(0.8), "both")
    assert (found.offers, found.ece, found.bins, found.curve, found.auto) == (0, 0.0, (), (), None)


def test_a_long_curve_is_thinned_and_keeps_its_end():
    points = curve(torch.linspace(0.2, 1, 5000), torch.rand(5000) < 0.5, 5000)
    few = thinned(points)
    assert len(few) == CURVE_POINTS
    assert few[-1] == points[-1]


def test_rows_that_are_offered_nothing_are_not_covered():
    found = trust(
        torch.tensor([0.9, 0.8]),
        torch.tensor([True, True]),
        ["both"] * 2,
        [True] * 2,
        4,
        COLOUR,
        calibration(0.5),
        "both",
    )
    assert (found.auto.coverage, found.auto.precision) == (0.5, 1.0)


def test_an_unfamiliar_product_is_never_auto_here_either():
    found = trust(
        torch.tensor([0.9, 0.8]),
        torch.tensor([True, True]),
        ["both"] * 2,
        [True, False],
        2,
        COLOUR,
        calibration(0.75),
        "both",
    )
    assert found.auto is not None and found.auto.coverage == 0.5
