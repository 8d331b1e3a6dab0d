"""Going on from an older checkpoint on new data without losing what it knew: rows of its own table are shown again
beside the new ones (experience replay, Chaudhry et al. 2019), and what it forgot all the same is measured.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoint import Checkpoint, load
from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.catalogue import rows_for
from training.data import targets_of
from training.declared import Declared
from training.errors import RecipeError
from training.evaluation import evaluate_rows, labelled, score
from training.readable import require_readable
from training.recipe import ReplaySection, SplitSection
from training.scope import within_scope
from training.split import part_of, split_of
from training.table import Row, values_of


@dataclass(frozen=True)
class Replay:
    """The older checkpoint, and of its table the rows to show again and those that it never trained on."""

    old: Checkpoint
    rows: tuple[Row, ...]
    test: tuple[Row, ...]

    @property
    def names(self) -> frozenset[str]:
        """Of the older attributes."""
        return frozenset(attribute.name for attribute in self.old.taxonomy)

    def extended(
        self,
        taxonomy: Taxonomy,
        rows: Sequence[Row] = (),
        multiple: Collection[str] = (),
        declared: Declared | None = None,
    ) -> Taxonomy:
        """The older taxonomy with the attributes and values that the new data add, each at its end, and with the scopes
        that are declared now. A column in which the new `rows` have too few values for a choice, such as all of one new
        kind, adds them all the same; those of `multiple` take several.

        Raises RecipeError where an attribute takes one value here and several there, or scopes run in a circle.
        """
        declared = declared or Declared()
        new = {attribute.name: attribute for attribute in taxonomy}
        attributes = []
        for attribute in self.old.taxonomy:
            name = attribute.name
            if (other := new.pop(name, None)) is not None:
                values, several, scope = other.values, other.multiple, other.applies_when
            else:
                values = values_of(name, rows, declared)
                several, scope = name in multiple, declared.scopes.get(name)
            added = tuple(value for value in values if value not in attribute.values)
            if several != attribute.multiple and (other is not None or added):
                raise RecipeError(
                    f"[replay]: {name!r} takes one value in one of the tables and several in the other, "
                    "name it in data.multiple or rename the column"
                )
            scope = scope or attribute.applies_when
            attributes.append(replace(attribute, values=attribute.values + added, applies_when=scope))
        try:
            return Taxonomy((*attributes, *new.values()))
        except ValueError as error:
            raise RecipeError(f"[replay]: with those of the older checkpoint {error}") from error

    def forgetting(
        self, model: FusionTagger, preprocessor: Preprocessor, taxonomy: Taxonomy, workers: int
    ) -> dict[str, Any]:
        """For `metrics.json`: the fused scores on the old test part before and after, and the drop.

        `model` answers in the order of `taxonomy`, the extended one.
        """
        rows, _ = within_scope(self.test, taxonomy.scopes)  # so that both are asked the same
        before = scores(self.old.model, rows, self.old.preprocessor, self.old.taxonomy, workers)
        after = scores(model, rows, preprocessor, taxonomy, workers)
        return {
            "rows": len(self.test),
            "attributes": {
                name: {
                    "before": figures,
                    "after": after[name],
                    "drop": {figure: figures[figure] - after[name][figure] for figure in figures},
                }
                for name, figures in before.items()
            },
        }


def scores(
    model: FusionTagger, rows: Sequence[Row], preprocessor: Preprocessor, taxonomy: Taxonomy, workers: int
) -> dict[str, dict[str, Any]]:
    """By attribute that is labelled in the rows."""
    logits = evaluate_rows(model, rows, preprocessor, workers)
    targets = targets_of(rows, taxonomy)
    found = {}
    for index, attribute in enumerate(taxonomy):
        there = labelled(targets[index], attribute)
        if there.any():
            found[attribute.name] = score(attribute, logits.fused[index][there], targets[index][there])
    return found


def read_replay(
    section: ReplaySection, checkpoint: str, split: SplitSection, new: Sequence[Row], seed: int
) -> Replay:
    """The old rows by the split that the older checkpoint was made with.

    Rows to show again never are of a group that the new split keeps for measuring, and those to measure on never of a
    group that the new data train on. Raises CheckpointError, DataError.
    """
    old = load(checkpoint)
    rows = rows_for(old.taxonomy, Path(section.table))
    made_with = split_of(old)
    trained = {row.group for row in new if part_of(row.group, split) == "train"}
    held_out = {row.group for row in new} - trained
    learned = [r for r in rows if part_of(r.group, made_with) == "train" and r.group not in held_out]
    test = [r for r in rows if part_of(r.group, made_with) == "test" and r.group not in trained]
    if not test:
        raise RecipeError(f"[replay]: {section.table} holds no product of the older checkpoint's test part")
    order = np.random.default_rng(seed).permutation(len(learned))
    again = sorted(order[: round(section.share * len(learned))].tolist())
    if seen := {row.group for row in rows if part_of(row.group, made_with) == "train"} & held_out:
        print(
            f"{checkpoint} was trained on {len(seen)} of the groups that are kept apart here: what is measured on "
            "them, and promised, may be too kind. Take the seed and the shares of its split",
            file=sys.stderr,
        )
    replay = Replay(old, tuple(learned[place] for place in again), tuple(test))
    require_readable([*replay.rows, *replay.test])
    return replay
