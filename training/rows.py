"""The rows that a run trains on, where its recipe asks for others than the table's training part."""

from collections.abc import Sequence
from pathlib import Path

from models.taxonomy import Taxonomy
from training.distillation import with_teachers
from training.few_shot import few_shot
from training.parts import warn_of_shared_products
from training.pseudo_labels import with_pseudo_labels
from training.recipe import Recipe
from training.replay import Replay
from training.scope import within_scope
from training.table import Row


def rows_to_train_on(
    recipe: Recipe,
    rows: list[Row],
    measured: Sequence[Row],
    taxonomy: Taxonomy,
    replay: Replay | None,
    out: Path,
) -> list[Row]:
    """Few of the rows, with pseudo-labels, with those of an older table, with teachers, as the recipe says.

    `measured` are those of the other parts; `out` is the run's folder, where it is kept what teachers said.
    """
    if recipe.few_shot is not None:
        rows = few_shot(rows, taxonomy, recipe.few_shot.per_value, recipe.train.seed)
    own = len(rows)
    if recipe.pseudo_labels is not None:
        kept, workers = out / "pseudo_labels.jsonl", recipe.data.workers
        rows = with_pseudo_labels(rows, taxonomy, recipe.pseudo_labels, recipe.split, kept, workers)
    if replay is not None:
        rows = [*rows, *replay.rows]
    warn_of_shared_products(rows[own:], measured)
    rows = within_scope(rows, taxonomy.scopes)[0]
    if recipe.distillation is not None:
        rows = with_teachers(
            rows, taxonomy, recipe.distillation, out / "taught.safetensors", recipe.data.workers
        )
    return rows
