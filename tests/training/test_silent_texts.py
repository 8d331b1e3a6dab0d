"""A text that does not tell an attribute is no proof of it: beside photos the promise is then that of photos alone."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from models.taxonomy import Attribute, Taxonomy
from training.calibrate import calibrate
from training.contract import contract, tried
from training.evaluation import Logits, report
from training.recipe import CalibrationSection
from training.seen import Seen

COLOUR = Taxonomy((Attribute("colour", ("red", "green", "blue")),))
ROWS = 600


@pytest.fixture(scope="module")
def seen():
    """Half of the texts tell the colour, and are right. The photos answer for the others, as sure, and err in 40 %."""
    random = torch.Generator().manual_seed(0)
    target = torch.randint(3, (ROWS,), generator=random)
    wrong = torch.rand(ROWS, generator=random) < 0.4
    photos = 6.0 * one_hot(torch.where(wrong, (target + 1) % 3, target), 3)
    tells = (torch.arange(ROWS) % 2 == 0).unsqueeze(1)
    text = torch.where(tells, 6.0 * one_hot(target, 3), torch.zeros(ROWS, 3))
    heads = (text,), (photos,)
    runs = {
        "both": Logits((torch.where(tells, text, photos),), *heads, ["both"] * ROWS),
        "text": Logits((text,), *heads, ["text"] * ROWS),
        "photos": Logits((photos,), *heads, ["photos"] * ROWS),
    }
    return Seen(runs, (target,), np.arange(ROWS))


def test_what_the_text_tells_is_promised_and_what_only_a_photo_shows_is_not(seen):
    found = calibrate(seen, COLOUR, CalibrationSection())
    assert found.attributes[0].auto_from["both"] is not None
    assert found.attributes[0].auto_from["photos"] is None
    auto = report(seen.runs["both"], seen.targets, COLOUR, found)["colour"]["auto"]
    assert (auto["precision"], auto["coverage"]) == (1.0, 0.5)


def test_the_contract_tries_what_is_served(seen):
    found = calibrate(seen, COLOUR, CalibrationSection())
    kept = {pattern: one for _, pattern, one in tried(found, COLOUR, seen)}
    assert (kept["both"].precision, kept["both"].coverage) == (1.0, 0.5)
    assert "photos" not in kept
    entry = contract(seen, COLOUR, CalibrationSection(), splits=5)["attributes"]["colour"]["both"]
    assert (entry["promised"], entry["broken"]) == (5, 0)
