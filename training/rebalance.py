"""Rare values shown more often: repeat-factor sampling (Gupta et al. 2019, LVIS, section 4.1).

Used in a stage of its own after the ordinary training (deferred re-sampling, Cao et al. 2019): from the start it would
teach the towers a catalogue that no shop has.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.taxonomy import Taxonomy
from training.table import Row


def repeated(rows: Sequence[Row], taxonomy: Taxonomy, rare_share: float, seed: int) -> list[Row]:
    """The rows, each as often as its rarest value asks: sqrt(rare_share / share of the value), at least once.

    The fraction of a repetition is drawn once, so that the stage's rows do not change between its epochs.
    """
    factor = np.ones(len(rows))
    for attribute in taxonomy:
        known = set(attribute.values)
        count = Counter(
            value for row in rows for value in row.values.get(attribute.name, ()) if value in known
        )
        for position, row in enumerate(rows):
            for value in known.intersection(row.values.get(attribute.name, ())):
                factor[position] = max(factor[position], np.sqrt(rare_share * len(rows) / count[value]))
    whole = np.floor(factor).astype(int)
    extra = np.random.default_rng(seed).random(len(rows)) < factor - whole
    return [row for row, times in zip(rows, whole + extra, strict=True) for _ in range(times)]
