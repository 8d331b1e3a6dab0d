"""A stage that learns from photos says so where a table has none, before anything is computed."""

from dataclasses import replace

import pytest
import torch

from training import DataError
from training.contrastive import contrastive_stage
from training.framing import framing_stage
from training.network import build
from training.photos import photos_stage
from training.recipe import read_recipe
from training.stages import Material
from training.table import make_taxonomy, read_table

STAGES = {"contrastive": contrastive_stage, "photos": photos_stage, "framing": framing_stage}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("shown", [(20, 0), (0, 20)], ids=["none to validate on", "none to learn from"])
def test_a_table_without_photos_is_refused(name, shown, recipe_file, catalogue):
    recipe = read_recipe(recipe_file, ("photos.epochs=1", "framing.epochs=1"))
    table = read_table(catalogue, multiple=["material"])
    rows = [row for row in table.rows if row.photos and row.title][:20]
    taxonomy, _ = make_taxonomy(table, table.rows)
    torch.manual_seed(0)
    tagger, preprocessor = build(recipe, taxonomy)
    learning, held_out = (rows[:count] + [replace(row, photos=()) for row in rows[count:]] for count in shown)
    material = Material(recipe, learning, held_out, preprocessor, taxonomy)
    with pytest.raises(DataError, match=f"{name}.*{shown[0]} to learn from and {shown[1]} to validate on"):
        STAGES[name](tagger, getattr(recipe, name), material)
