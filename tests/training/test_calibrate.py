"""Temperatures undo over-confidence; thresholds keep the promised precision."""

import numpy as np
import pytest
import torch

from models.calibration import PATTERNS, AttributeCalibration
from models.taxonomy import Attribute, Scope, Taxonomy
from training.calibrate import best_beta, best_temperature, calibrate, unpromised
from training.data import MISSING
from training.evaluation import Logits, ece, mean_loss
from training.recipe import CalibrationSection
from training.seen import Seen

COLOUR = Attribute("colour", ("red", "green", "blue"))
MATERIAL = Attribute("material", ("cotton", "linen", "wool"), multiple=True)


def test_an_overconfident_head_is_softened_to_the_truth():
    random = torch.Generator().manual_seed(0)
    honest = torch.randn(4000, 3, generator=random) * 2
    target = torch.multinomial(honest.softmax(dim=1), 1, generator=random).squeeze(1)
    assert best_temperature(COLOUR, honest * 3, target) == pytest.approx(3, rel=0.1)


def test_the_temperature_is_as_good_as_the_best_of_many_candidates():
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(500, 3, generator=random) * 4
    target = torch.multinomial((logits / 6).softmax(dim=1), 1, generator=random).squeeze(1)
    candidates = torch.logspace(-0.6, 1, 2000).tolist()
    least = min(mean_loss(COLOUR, logits / candidate, target) for candidate in candidates)
    found = best_temperature(COLOUR, logits, target)
    assert mean_loss(COLOUR, logits / found, target) == pytest.approx(least, abs=1e-5)


def test_nothing_to_learn_from_is_a_temperature_of_one():
    assert best_temperature(COLOUR, torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == 1.0


def test_what_no_temperature_bends_the_beta_map_does():
    """The first answer is right in 70 % of the rows however sure the head is of it."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=random) * 3
    right = torch.rand(4000, generator=random) < 0.7
    first, second = logits.topk(2, dim=1).indices.T
    target = torch.where(right, first, second)
    temperature = best_temperature(COLOUR, logits, target)
    beta = best_beta(COLOUR, logits / temperature, target)
    found = AttributeCalibration(
        0.95,
        dict.fromkeys(PATTERNS, temperature),
        dict.fromkeys(PATTERNS),
        beta=dict.fromkeys(PATTERNS, beta),
    )
    before = (logits / temperature).softmax(dim=1).amax(dim=1)
    after = found.confidences(logits, ["both"] * 4000, False).amax(dim=1)
    assert ece(before, right) > 0.05
    assert ece(after, right) < 0.02


def test_the_values_of_a_multiple_attribute_share_one_map():
    random = torch.Generator().manual_seed(0)
    honest = torch.randn(4000, 3, generator=random) * 2
    target = (torch.rand(4000, 3, generator=random) < honest.sigmoid()).float()
    boasting = honest * 2 + 1
    beta = best_beta(MATERIAL, boasting, target)
    found = AttributeCalibration(
        0.95, dict.fromkeys(PATTERNS, 1.0), dict.fromkeys(PATTERNS), beta=dict.fromkeys(PATTERNS, beta)
    )
    after = found.confidences(boasting, ["both"] * 4000, True)
    assert ece(boasting.sigmoid().flatten(), target.flatten() > 0.5) > 0.05
    assert ece(after.flatten(), target.flatten() > 0.5) < 0.02


def test_a_few_rows_bend_no_map_far():
    beta = best_beta(COLOUR, torch.tensor([[3.0, 0.0, 0.0]] * 2), torch.tensor([0, 1]))
    assert beta == pytest.approx([1, 1, 0], abs=1)
    assert best_beta(COLOUR, torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == [1, 1, 0]


def draw(random, rows):
    """Confidences that mean what they say: right with exactly that probability."""
    confidence = torch.from_numpy(random.uniform(0.5, 1.0, rows))
    return confidence, torch.from_numpy(random.uniform(size=rows)) < confidence


def test_ece_of_honest_confidences_is_small_and_of_boasts_is_the_gap():
    random = np.random.default_rng(0)
    assert ece(*draw(random, 50_000)) < 0.01
    assert ece(torch.full((100,), 0.9), torch.arange(100) < 50) == pytest.approx(0.4)


def test_too_few_products_are_said_to_go_to_review():
    """Thirty products, none of which has photos; of each the head is sure, and right."""
    target = torch.arange(30) % 3
    logits = (10 * torch.nn.functional.one_hot(target, 3).float(),)
    run = Logits(logits, logits, logits, ["text"] * 30)
    seen = Seen({"both": run, "text": run, "photos": run}, (target,), np.arange(30))
    taxonomy, section = Taxonomy((COLOUR,)), CalibrationSection()
    found = calibrate(seen, taxonomy, section)
    assert found.attributes[0].auto_from == {"both": None, "text": None, "photos": None}
    too_few = (
        "colour from text alone: a precision of 0.95 is not promised (30 products are too few, it takes at least "
        "80 that are all right), so every value goes to review"
    )
    assert list(unpromised(found, taxonomy, seen, section.certainty, "photos")) == [too_few]
    assert list(unpromised(found, taxonomy, seen, section.certainty, None)) == [
        "colour from text and photos, photos alone: no product to calibrate on shows it with a value, so its"
        " confidences are not calibrated and every value goes to review",
        too_few,
    ]


def found_on(target, said, owner):
    """Of texts alone, for a precision of 0.9."""
    heads = (3 * torch.nn.functional.one_hot(said, 3).float(),)
    run = Logits(heads, heads, heads, ["text"] * len(said))
    seen = Seen({"both": run, "text": run, "photos": run}, (target,), owner)
    return calibrate(seen, Taxonomy((COLOUR,)), CalibrationSection(targets={"colour": 0.9})).attributes[0]


def test_what_the_products_of_a_group_get_wrong_together_weighs_more():
    """One in twenty is wrong: here and there, or all of two groups of ten."""
    target, rows = torch.zeros(400, dtype=torch.long), np.arange(400)
    said = (torch.arange(400) < 20).long()
    assert found_on(target, said, rows).auto_from["text"] is not None
    assert found_on(target, said, rows // 10).auto_from["text"] is None


def test_the_map_bends_what_the_temperature_has_softened():
    random = torch.Generator().manual_seed(0)
    honest = torch.randn(2000, 3, generator=random) * 2
    target = torch.multinomial(honest.softmax(dim=1), 1, generator=random).squeeze(1)
    heads = (honest * 3,)
    run = Logits(heads, heads, heads, ["text"] * 2000)
    seen = Seen({"both": run, "text": run, "photos": run}, (target,), np.arange(2000))
    (found,) = calibrate(seen, Taxonomy((COLOUR,)), CalibrationSection()).attributes
    confidence, value = found.confidences(heads[0], run.served, False).max(dim=1)
    assert ece(confidence, value == target) < 0.03


def test_products_without_a_label_move_no_number():
    said = torch.arange(400) % 3
    target = torch.where(torch.arange(400) < 300, said, MISSING)
    assert found_on(target, said, np.arange(400)) == found_on(target[:300], said[:300], np.arange(300))


def test_all_but_two_in_a_hundred_of_the_shops_own_products_are_familiar():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 3, generator=random)
    run = Logits((logits,), (logits,), (logits,), ["text"] * 1000)
    colour = Taxonomy((Attribute("colour", ("red", "green", "blue")),))
    seen = Seen({"both": run, "text": run, "photos": run}, (logits.argmax(dim=1),), np.arange(1000))
    found = calibrate(seen, colour, CalibrationSection())
    assert found.familiar_from["photos"] is None, "no row has one"
    assert int(found.familiar_at((logits,), "text", colour).sum()) == 980


def test_rows_of_which_nothing_is_left_to_see_move_no_number():
    """Half of the products have a text and half have photos: what the heads say of nothing is of no account."""
    kind = Attribute("kind", ("shirt", "shoe"))
    size = Attribute("size", ("S", "M"), applies_when=Scope("kind", ("shoe",)))
    rows = torch.arange(400)
    targets = (torch.ones(400, dtype=torch.long), rows % 2)
    has_text = rows < 200

    def run(patterns, unseen):
        """Sure and right of what there is to see; `unseen` is how strongly it says the same of the rest."""
        strength = torch.where(torch.tensor([pattern is not None for pattern in patterns]), 8.0, unseen)
        heads = tuple(strength[:, None] * torch.nn.functional.one_hot(target, 2) for target in targets)
        return Logits(heads, heads, heads, patterns)

    def found(unseen):
        runs = {
            "both": ["text" if text else "photos" for text in has_text],
            "text": ["text" if text else None for text in has_text],
            "photos": [None if text else "photos" for text in has_text],
        }
        seen = Seen({name: run(of, unseen) for name, of in runs.items()}, targets, np.arange(400))
        return calibrate(seen, Taxonomy((kind, size)), CalibrationSection())

    expected = found(unseen=8.0)
    assert all(one.auto_from["text"] and one.auto_from["photos"] for one in expected.attributes)
    assert found(unseen=-8.0) == expected


KIND = Attribute("kind", ("shirt", "shoe"))
SIZE = Attribute("size", ("S", "M"), applies_when=Scope("kind", ("shoe",)))


def test_what_a_group_gets_wrong_together_weighs_more_where_an_attribute_has_a_scope_too():
    """All are shoes; of one in twenty the size is wrong: here and there, or of all of two groups of ten."""
    rows, targets = np.arange(400), (torch.ones(400, dtype=torch.long), torch.zeros(400, dtype=torch.long))
    said = (targets[0], (torch.arange(400) < 20).long())
    heads = tuple(4.0 * torch.nn.functional.one_hot(of, 2) for of in said)
    run = Logits(heads, heads, heads, ["text"] * 400)

    def promised(owner):
        seen = Seen({"both": run, "text": run, "photos": run}, targets, owner)
        section = CalibrationSection(targets={"size": 0.9})
        return calibrate(seen, Taxonomy((KIND, SIZE)), section).attributes[1].auto_from["text"]

    assert promised(rows) is not None
    assert promised(rows // 10) is None


def test_what_is_offered_for_nothing_moves_no_promise_where_an_attribute_has_a_scope():
    """Photos alone of half of the products: without them nothing is left, and is taken for a shoe of some size."""
    targets = (torch.ones(400, dtype=torch.long), torch.arange(400) % 2)
    has_text = torch.arange(400) < 200

    def run(has, size):
        heads = tuple(8.0 * torch.nn.functional.one_hot(of, 2) for of in (targets[0], size))
        name = "text" if has is has_text else "photos"
        return Logits(heads, heads, heads, [name if one else None for one in has.tolist()])

    def found(offered):
        text, photos = (run(has, torch.where(has, targets[1], offered)) for has in (has_text, ~has_text))
        seen = Seen({"both": text, "text": text, "photos": photos}, targets, np.arange(400))
        return calibrate(seen, Taxonomy((KIND, SIZE)), CalibrationSection()).attributes[1].auto_from

    assert found(1 - targets[1]) == found(targets[1])
    assert found(targets[1])["text"] is not None


def test_doubtful_values_that_are_never_auto_cost_the_sure_ones_no_promise():
    """A hundred are sure and right; of three hundred the head is in doubt, and four in ten are wrong."""
    sure = torch.arange(400) < 100
    target = torch.arange(400) % 2
    wrong = ~sure & (torch.arange(400) % 5 < 2)
    said = torch.where(wrong, 1 - target, target)
    heads = (torch.where(sure, 8.0, 0.5)[:, None] * torch.nn.functional.one_hot(said, 2),)
    run = Logits(heads, heads, heads, ["text"] * 400)
    seen = Seen({"both": run, "text": run, "photos": run}, (target,), np.arange(400))
    (found,) = calibrate(seen, Taxonomy((KIND,)), CalibrationSection()).attributes
    assert found.auto_from["text"] is not None


def test_offers_where_an_attribute_does_not_apply_are_errors_of_its_promise():
    """Two hundred sizes are right; a hundred shirts are taken for shoes, as sure, and offered a size."""
    kinds = (torch.arange(300) < 200).long()
    sizes = torch.where(kinds > 0, torch.arange(300) % 2, MISSING)
    heads = tuple(
        8.0 * torch.nn.functional.one_hot(of, 2) for of in (torch.ones_like(kinds), torch.arange(300) % 2)
    )
    run = Logits(heads, heads, heads, ["text"] * 300)
    seen = Seen({"both": run, "text": run, "photos": run}, (kinds, sizes), np.arange(300))
    found = calibrate(seen, Taxonomy((KIND, SIZE)), CalibrationSection()).attributes[1]
    assert found.auto_from["text"] is None
