"""What is true of rows and what heads answered, as truth tables over the same values, so that heads of different
taxonomies can be counted side by side.

A value that a head does not know is a column in which it never answers: there it can only be wrong. Legend: N rows,
V values of an attribute by name.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.calibration import ABSTAIN_BELOW, AttributeCalibration, Pattern
from models.taxonomy import Attribute
from training.table import Row


def values_of(rows: Sequence[Row], attributes: Sequence[Attribute]) -> list[str]:
    """All that these attributes of one name know and that the rows say."""
    known = [value for attribute in attributes for value in attribute.values]
    said = [value for row in rows for value in row.values.get(attributes[0].name, ())]
    return list(dict.fromkeys([*known, *said]))


def wanted(rows: Sequence[Row], attribute: Attribute, values: Sequence[str]) -> NDArray[np.bool_]:
    """(N, V): of several values all, of one the first, as `training.data.targets_of` has it; an unlabelled row is
    False throughout.
    """
    column = {value: position for position, value in enumerate(values)}
    table = np.zeros((len(rows), len(values)), np.bool_)
    for position, row in enumerate(rows):
        said = row.values.get(attribute.name, ())
        table[position, [column[value] for value in (said if attribute.multiple else said[:1])]] = True
    return table


def answered(
    logits: Tensor,
    of: list[Pattern],
    attribute: Attribute,
    calibration: AttributeCalibration,
    values: Sequence[str],
) -> NDArray[np.bool_]:
    """(N, V) from the attribute's own logits: the likeliest value, or of several each that is likelier than not, by the
    confidences of products of these patterns.
    """
    if attribute.multiple:
        return placed(several_answered(logits, of, calibration).numpy(), attribute, values)
    own = np.arange(len(attribute.values)) == logits.argmax(dim=1, keepdim=True).numpy()
    return placed(own, attribute, values)


def several_answered(logits: Tensor, of: list[Pattern], calibration: AttributeCalibration) -> Tensor:
    """bool (N, V): what a worker would offer. Calibration moves it away from the logit 0."""
    return calibration.confidences(logits, of, multiple=True) >= ABSTAIN_BELOW


def placed(own: NDArray[np.bool_], attribute: Attribute, values: Sequence[str]) -> NDArray[np.bool_]:
    """A table over the attribute's own values as one over `values`, which hold them all."""
    column = {value: position for position, value in enumerate(values)}
    table = np.zeros((len(own), len(values)), np.bool_)
    table[:, [column[value] for value in attribute.values]] = own
    return table


def owners(rows: Sequence[Row]) -> tuple[NDArray[np.int64], int]:
    """The number of each row's group, (N,), and how many groups there are."""
    # Not NumPy's own `unique`: a group may be a whole description, and an array has room for the longest in every row.
    groups = sorted({row.group for row in rows})
    place = {group: number for number, group in enumerate(groups)}
    return np.array([place[row.group] for row in rows], np.int64), len(groups)
