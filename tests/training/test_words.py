"""The classifier of exact words learns by itself, from texts alone."""

import pytest
import torch
from accelerate import Accelerator

from training.fit import build
from training.loop import run
from training.recipe import read_recipe
from training.stages import Material
from training.table import make_taxonomy, read_table
from training.words import words_stage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture
def stage_of(recipe_file, catalogue):
    """The stage over the catalogue's rows, and its tagger."""
    recipe = read_recipe(recipe_file, ("words.epochs=3", "words.batch_size=16", "words.heads_lr=1e-2"))
    table = read_table(catalogue, multiple=["material"])
    taxonomy, _ = make_taxonomy(table, table.rows)
    torch.manual_seed(0)
    tagger, preprocessor = build(recipe, taxonomy)
    material = Material(recipe, table.rows[:180], table.rows[180:], preprocessor, taxonomy)
    return words_stage(tagger, recipe.words, material), tagger


def test_it_learns_from_titles_and_touches_nothing_else(stage_of, tmp_path):
    stage, tagger = stage_of
    before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    best = run(stage, Accelerator(cpu=True), tmp_path / "words", 1000)
    untaught = stage.validate(type(tagger.lexicon)(tagger.lexicon.rows, sum(tagger.config.sizes)))
    assert best["loss"] < untaught["loss"] / 2
    changed = {name for name, tensor in tagger.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {name for name in before if name.startswith("lexicon.")}


def test_photos_are_not_read_and_rows_without_text_are_left_out(stage_of):
    stage, _ = stage_of
    rows = stage.loader.dataset.rows
    assert rows
    assert all(row.title and not row.photos for row in rows)
