"""How often the gate refuses a fusion that is as good as its parts, and that it still sees one that is not.

Small and fixed: the figures of the large simulation stand in `training.promotion`. Values are as rare as in a real
catalogue: half of them have a handful of rows. Rows come in groups of one to five.
"""

import numpy as np
import torch

from models.calibration import Calibration
from models.taxonomy import Attribute, Taxonomy
from tests.training.test_promotion import PATTERN
from training.conditions import CONDITIONS
from training.evaluation import Logits
from training.promotion import promotion
from training.table import Row

SIZES = (2, 4, 8, 20, 40)
TAXONOMY = Taxonomy(tuple(Attribute(f"a{size}", tuple(f"v{n}" for n in range(size))) for size in SIZES))
ROWS = 250
RUNS = 60


def catalogue(random):
    """Rows whose values are drawn by Zipf's law, alike within a group."""
    groups = np.repeat(np.arange(ROWS), random.integers(1, 6, ROWS))[:ROWS]
    codes = []
    for size in SIZES:
        often = 1 / np.arange(1, size + 1)
        codes.append(random.choice(size, ROWS, p=often / often.sum())[groups])
    rows = [
        Row(
            str(n),
            "a title",
            "",
            (),
            f"g{groups[n]}",
            {attribute.name: (f"v{codes[a][n]}",) for a, attribute in enumerate(TAXONOMY)},
        )
        for n in range(ROWS)
    ]
    return rows, codes


def head(random, codes, right):
    """Logits of answers that are right with this probability, whatever the value."""
    heads = []
    for size, code in zip(SIZES, codes, strict=True):
        said = np.where(random.random(ROWS) < right, code, random.integers(0, size, ROWS))
        heads.append(torch.from_numpy(np.eye(size, dtype=np.float32)[said]))
    return tuple(heads)


def refused(seed, fused):
    """Whether a fusion is refused that is right as often as `fused` says, beside parts that are so for 0.8."""
    random = np.random.default_rng(seed)
    rows, codes = catalogue(random)
    measured = {
        condition: Logits(
            head(random, codes, fused),
            head(random, codes, 0.8),
            head(random, codes, 0.8),
            [PATTERN[condition]] * ROWS,
        )
        for condition in CONDITIONS
    }
    return not promotion(measured, rows, TAXONOMY, Calibration.uncalibrated(TAXONOMY, 0.95), seed)["verdict"]


def test_a_fusion_as_good_as_its_parts_is_refused_by_luck_at_most_in_one_of_twenty():
    assert sum(refused(seed, 0.8) for seed in range(RUNS)) <= RUNS // 20


def test_a_fusion_that_is_worse_is_refused():
    assert all(refused(seed, 0.6) for seed in range(5))
