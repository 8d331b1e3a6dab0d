"""Other precision targets for a checkpoint: calibrated and measured anew with the weights it has.

Also what a checkpoint needs whose weights were changed without training, as by an export to fewer bits.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from models.calibration import PATTERN_IN_WORDS, Calibration
from models.checkpoint import Checkpoint, load, save
from models.room import make_room
from models.taxonomy import Taxonomy
from training import contract
from training.calibrate import calibrate, certainty_of, check_targets, unpromised
from training.catalogue import rows_for
from training.errors import DataError
from training.measure import measure
from training.model_card import card, description_of
from training.readable import require_readable
from training.recipe import BackbonesSection, CalibrationSection, DataSection, Recipe, TranslateSection
from training.seen import see
from training.split import PARTS, rows_of, split_of
from training.unseen import unseen_in, with_unseen

TRAINED_ON = ("train", "validation")


@dataclass(frozen=True)
class Wanted:
    """Precisions by attribute; those of the others and the certainty of the promise, None for the checkpoint's own."""

    targets: Mapping[str, float]
    target_precision: float | None
    certainty: float | None

    def section(self, checkpoint: Checkpoint) -> CalibrationSection:
        """Raises RecipeError for a target of an attribute that the checkpoint does not have."""
        check_targets(self.targets, checkpoint.taxonomy)
        kept = checkpoint.calibration.targets(checkpoint.taxonomy) if self.target_precision is None else {}
        default = {} if self.target_precision is None else {"target_precision": self.target_precision}
        certainty = self.certainty or certainty_of(checkpoint.metrics)
        return CalibrationSection(certainty=certainty, targets={**kept, **self.targets}, **default)


def recalibrate(
    path: Path, data: Path, out: Path, wanted: Wanted, glossary: Path | None, workers: int
) -> Path:
    """Writes to `out`, which must not exist, the checkpoint at `path` calibrated on the rows that its split rule puts
    into the calibration part of the table, and measured on those of the test part.

    What else its metrics say stays, except for titles rendered by a glossary, which are measured again where it is
    given. Raises DataError, RecipeError and CheckpointError.
    """
    if out.exists():
        raise DataError(f"{out} is there already: name a new folder")
    make_room(out)  # now, and not after minutes of work
    checkpoint = load(path)
    split = split_of(checkpoint)
    rows = rows_for(checkpoint.taxonomy, data)
    parts = {part: rows_of(rows, part, split) for part in PARTS}
    for part in ("calibration", "test"):
        if not parts[part]:
            raise DataError(f"{data}: none of {len(rows)} rows falls into the {part} part")
    require_readable([*parts["calibration"], *parts["test"]])
    recipe = Recipe(
        name=checkpoint.name,
        description=description_of(checkpoint.card),
        backbones=BackbonesSection(checkpoint=str(path)),
        data=DataSection(workers=workers),
        split=split,
        translate=TranslateSection(glossary=str(glossary)) if glossary is not None else None,
        calibration=wanted.section(checkpoint),
    )
    model, preprocessor, taxonomy = checkpoint.model, checkpoint.preprocessor, checkpoint.taxonomy
    seen = see(model, parts["calibration"], preprocessor, taxonomy, workers, quiet=False)
    missing = unseen_in(checkpoint.metrics)
    calibration = with_unseen(calibrate(seen, taxonomy, recipe.calibration), missing)
    for sentence in (
        *unpromised(calibration, taxonomy, seen, recipe.calibration.certainty, missing),
        *forgotten(checkpoint.calibration, calibration, taxonomy),
    ):
        print(sentence, file=sys.stderr)
    measured = measure(recipe, model, preprocessor, taxonomy, calibration, parts, seen, missing)
    stale = {"test_translated"} - measured.keys()
    # The table may be another than that of the training, which is still what was trained on.
    trained = {part: n for part, n in checkpoint.metrics.get("rows", {}).items() if part in TRAINED_ON}
    measured["rows"] |= trained
    metrics = {name: kept for name, kept in checkpoint.metrics.items() if name not in stale} | measured
    if stale & checkpoint.metrics.keys():
        print("the figures of rendered titles are left out: give their --glossary", file=sys.stderr)
    # Of a `Checkpoint` this knows four fields; the others are written as they were read.
    changed = replace(
        checkpoint, calibration=calibration, metrics=metrics, card=card(recipe, taxonomy, metrics)
    )
    save(changed, out)
    print(contract.in_words(metrics["contract"]), file=sys.stderr)
    return out


def forgotten(before: Calibration, after: Calibration, taxonomy: Taxonomy) -> Iterator[str]:
    """A sentence for each pattern of an attribute whose numbers are lost, as no product could tell new ones."""
    for attribute, old, new in zip(taxonomy, before.attributes, after.attributes, strict=True):
        for pattern, temperature in new.temperature.items():
            if temperature == 1.0 and old.temperature[pattern] != 1.0:  # found to be exactly one it never is
                yield (
                    f"{attribute.name} from {PATTERN_IN_WORDS[pattern]}: no product of the calibration part shows it"
                    " with a label, so its confidences are calibrated no more and every value goes to review"
                )
