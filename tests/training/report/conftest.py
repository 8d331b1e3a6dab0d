"""A measured catalogue without a network: logits that say what each test needs."""

from dataclasses import replace

import pytest
import torch

from models.calibration import Calibration
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint
from training.conditions import CONDITIONS
from training.evaluation import Logits
from training.report.measured import measured_from
from training.table import Row

PATTERNS = {"as_is": "both", "masked_titles": "both", "without_photos": "text", "without_text": "photos"}


def make_row(number, colour="red", kind="shirt", material=("cotton",), title=None, photos=()):
    values = {
        "colour": (colour,) if colour else (),
        "kind": (kind,) if kind else (),
        "material": tuple(material),
    }
    return Row(str(number), title or f"product {number}", "", photos, f"group {number // 2}", values)


@pytest.fixture
def row():
    return make_row


def sure(attribute, values, strength=4.0):
    """Logits (N, V) for one value of each row, or for a tuple of values of a multiple attribute."""
    logits = torch.full((len(values), len(attribute.values)), -strength if attribute.multiple else 0.0)
    for position, value in enumerate(values):
        for one in value if attribute.multiple else (value,):
            logits[position, attribute.values.index(one)] = strength
    return logits


@pytest.fixture
def measured():
    def make(rows, said, taxonomy=TAXONOMY):
        """`said` maps each attribute to what the model tags the rows with, whatever it is shown."""
        heads = tuple(sure(attribute, said[attribute.name]) for attribute in taxonomy)
        logits = {name: Logits(heads, heads, heads, [PATTERNS[name]] * len(rows)) for name in CONDITIONS}
        checkpoint = replace(tiny_checkpoint(taxonomy), calibration=Calibration.uncalibrated(taxonomy, 0.95))
        return measured_from(checkpoint, rows, logits)

    return make
