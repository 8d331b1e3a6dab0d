"""The photo tower learns by itself, from photos alone."""

import pytest
import torch
from accelerate import Accelerator

from training.loop import run
from training.network import build
from training.photos import photos_stage
from training.recipe import read_recipe
from training.stages import Material
from training.table import make_taxonomy, read_table

LEARNING = ("photo_tower.", "photo_projection.", "photo_head.")


@pytest.fixture
def stage_of(recipe_file, catalogue):
    """The stage over the catalogue's rows, and its tagger."""
    overrides = ("photos.epochs=4", "photos.batch_size=16", "photos.photo_lr=1e-3", "photos.heads_lr=1e-2")
    recipe = read_recipe(recipe_file, overrides)
    table = read_table(catalogue, multiple=["material"])
    taxonomy, _ = make_taxonomy(table, table.rows)
    torch.manual_seed(0)
    tagger, preprocessor = build(recipe, taxonomy)
    material = Material(recipe, table.rows[:180], table.rows[180:], preprocessor, taxonomy)
    return photos_stage(tagger, recipe.photos, material), tagger


def test_it_learns_what_photos_show_and_touches_nothing_else(stage_of, tmp_path):
    stage, tagger = stage_of
    before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    untaught = stage.validate(tagger)
    best = run(stage, Accelerator(cpu=True), tmp_path / "photos", 1000)
    assert best["accuracy"] > untaught["accuracy"] + 0.2
    changed = {name for name, tensor in tagger.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed
    assert all(name.startswith(LEARNING) for name in changed)


def test_texts_are_not_shown_and_rows_without_photos_are_left_out(stage_of):
    stage, _ = stage_of
    rows = stage.loader.dataset.rows
    assert rows
    assert all(row.photos and not row.title and not row.description for row in rows)
