"""Keeps a few products for each value, to see what a model is worth in a shop that has hardly any tags yet."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.taxonomy import Taxonomy
from training.table import Row


def few_shot(rows: Sequence[Row], taxonomy: Taxonomy, per_value: int, seed: int) -> list[Row]:
    """So few of the rows, in their order, that every value has `per_value` of them, or all that it has.

    Rare values choose first and a product counts for each of its values, so a common value of one attribute has more
    than `per_value` once the rare ones of another have chosen.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place in np.random.default_rng(seed).permutation(len(rows)).tolist():
        for value in values_of(rows[place], taxonomy):
            places.setdefault(value, []).append(place)
    kept: set[int] = set()
    found: Counter[tuple[str, str]] = Counter()
    for value in sorted(places, key=lambda value: (len(places[value]), value)):
        for place in places[value]:
            if found[value] >= per_value:
                break
            if place not in kept:
                kept.add(place)
                found.update(values_of(rows[place], taxonomy))
    return [rows[place] for place in sorted(kept)]


def values_of(row: Row, taxonomy: Taxonomy) -> list[tuple[str, str]]:
    """The (attribute, value) pairs of a row that the taxonomy holds."""
    return [
        (attribute.name, value)
        for attribute in taxonomy
        for value in row.values.get(attribute.name, ())
        if value in attribute.values
    ]
