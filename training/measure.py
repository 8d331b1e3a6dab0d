"""What `metrics.json` says of a new checkpoint."""

from pathlib import Path
from typing import Any

from models.calibration import Calibration, Modality
from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.conditions import CONDITIONS, shown
from training.contract import contract
from training.data import targets_of
from training.evaluation import evaluate_rows, report
from training.glossary import read_glossary
from training.promotion import promotion
from training.recipe import Recipe
from training.renderings import rendered
from training.seen import Seen, seen_in
from training.split import Part, rule
from training.table import Row


def measure(
    recipe: Recipe,
    model: FusionTagger,
    preprocessor: Preprocessor,
    taxonomy: Taxonomy,
    calibration: Calibration,
    split: dict[Part, list[Row]],
    calibrated_on: Seen,
    missing: Modality | None,
) -> dict[str, Any]:
    """For `metrics.json`: the test part under every condition, whether it makes the checkpoint promotable, and how
    often halves of it and of the rows `calibrated_on` broke the promise of `auto`; `missing` is what training lacked.
    """
    rows = split["test"]
    targets = targets_of(rows, taxonomy)
    measured, logits = {}, {}
    for condition in CONDITIONS:
        seen = shown(rows, condition, taxonomy)
        logits[condition] = evaluate_rows(model, seen, preprocessor, recipe.data.workers, quiet=False)
        attributes = report(logits[condition], targets, taxonomy, calibration)
        name = "test" if condition == "as_is" else f"test_{condition}"
        measured[name] = {"rows": len(rows), "attributes": attributes}
    if recipe.translate is not None:
        glossary = read_glossary(Path(recipe.translate.glossary))
        measured["test_translated"] = {
            name: report(
                evaluate_rows(model, seen, preprocessor, recipe.data.workers, quiet=False),
                targets,
                taxonomy,
                calibration,
            )
            for name, seen in rendered(rows, glossary, taxonomy)
        }
    unseen = calibrated_on.beside(seen_in(logits, rows, taxonomy))
    return {
        "split": {**recipe.split.model_dump(), "rule": rule(recipe.split)},
        "rows": {part: len(rows) for part, rows in split.items()},
        **measured,
        "contract": contract(
            unseen, taxonomy, recipe.calibration, recipe.calibration.splits, unseen=missing, quiet=False
        ),
        "promotable": promotion(logits, rows, taxonomy, calibration),
    }
