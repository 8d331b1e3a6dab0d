"""A stage that learns from photos says so where a table has none, before anything is computed."""

import csv
from dataclasses import replace

import pytest
import torch

from training import DataError
from training.contrastive import contrastive_stage
from training.fit import fit
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


def test_a_run_says_so_before_the_stages_that_come_before_framing(recipe_file, catalogue, tmp_path):
    text = recipe_file.read_text()
    recipe_file.write_text(text.replace("[contrastive]\nepochs = 1\nbatch_size = 16\n", ""))
    with catalogue.open() as table, (tmp_path / "texts.csv").open("w", newline="") as texts:
        reader = csv.DictReader(table)
        writer = csv.DictWriter(texts, reader.fieldnames)
        writer.writeheader()
        writer.writerows(row | {"file_name": ""} for row in reader)
    with pytest.raises(DataError, match="framing"):
        fit(read_recipe(recipe_file, ("framing.epochs=1",)), tmp_path / "texts.csv", tmp_path / "run")
    assert not (tmp_path / "run" / "tagging").exists()
