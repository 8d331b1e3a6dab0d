"""The classifier of exact words learns by itself, from texts alone; a fresh one may beat a checkpoint's own."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from models.fusion import FusionConfig
from models.towers import Lexicon
from training.loop import run
from training.network import build
from training.recipe import ReplaySection, read_recipe
from training.stages import Material
from training.table import Row, make_taxonomy, read_table
from training.words import learn_words, lexicons, start_by_rarity, words_stage

WORDS = ("words.epochs=3", "words.batch_size=16", "words.heads_lr=1e-2")


@pytest.fixture
def material_of(recipe_file, catalogue):
    """A tagger and the catalogue's rows for it, under these settings."""

    def material_of(*settings):
        recipe = read_recipe(recipe_file, (*WORDS, *settings))
        table = read_table(catalogue, multiple=["material"])
        taxonomy, _ = make_taxonomy(table, table.rows)
        torch.manual_seed(0)
        tagger, preprocessor = build(recipe, taxonomy)
        return tagger, Material(recipe, table.rows[:180], table.rows[180:], preprocessor, taxonomy)

    return material_of


def with_lexicon(tagger, rows=100):
    """As if it came from a checkpoint that has one."""
    tagger.lexicon = Lexicon(rows, sum(tagger.config.sizes))
    tagger.config = replace(tagger.config, lexicon=rows)
    return tagger.lexicon


def test_it_learns_from_titles_and_touches_nothing_else(material_of, tmp_path):
    tagger, material = material_of()
    before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    untaught = {}

    def train(stage):
        untaught.update(stage.validate(stage.network))
        return run(stage, Accelerator(cpu=True), tmp_path / stage.name, 1000)

    learn_words(tagger, material, train)
    after = tagger.state_dict()
    assert tagger.config.lexicon == tagger.lexicon.rows == material.recipe.model.lexicon
    stage = words_stage("words", tagger.lexicon, material)
    assert stage.validate(tagger.lexicon)["loss"] < untaught["loss"] / 2
    assert {name for name in after if name not in before} == {n for n in after if n.startswith("lexicon.")}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_photos_are_not_read_and_rows_without_text_are_left_out(material_of):
    tagger, material = material_of()
    [(name, lexicon)] = lexicons(tagger, material).items()
    rows = words_stage(name, lexicon, material).loader.dataset.rows
    assert rows
    assert all(row.title and not row.photos for row in rows)


@pytest.mark.parametrize(
    ("losses", "kept"), [({"words": 0.1, "words_anew": 0.2}, 100), ({"words": 0.2, "words_anew": 0.1}, 1024)]
)
def test_of_a_checkpoints_words_and_fresh_ones_the_better_are_kept(material_of, losses, kept):
    tagger, material = material_of()
    own = with_lexicon(tagger)
    stage = learn_words(tagger, material, lambda stage: {"loss": losses[stage.name]})
    assert losses[stage] == min(losses.values())
    assert tagger.lexicon.rows == tagger.config.lexicon == kept
    assert (tagger.lexicon is own) == (kept == 100)
    assert isinstance(tagger.config, FusionConfig)


def test_a_run_that_keeps_its_heads_keeps_their_words(material_of):
    tagger, material = material_of("backbones.keep_heads=true")
    own = with_lexicon(tagger)
    assert lexicons(tagger, material) == {"words": own}


def test_a_run_from_scratch_takes_no_words_along(material_of):
    tagger, material = material_of("backbones.untrained=true")
    own = with_lexicon(tagger)
    assert [(name, of is own) for name, of in lexicons(tagger, material).items()] == [("words", False)]


def test_what_every_product_says_starts_short_and_what_one_says_long(material_of):
    _, material = material_of()
    words = ("red", "shoe")  # pieces of the vocabulary
    rows = [Row(str(n), words[0], "", (), str(n), {}) for n in range(20)]
    rows.append(Row("rare", words[1], "", (), "rare", {}))
    lexicon = Lexicon(1024, 3)
    start_by_rarity(lexicon, material.preprocessor, rows, seed=0)
    common, rare = (
        lexicon.table.weight[lexicon.rows_of_words(torch.tensor(material.preprocessor.tokens(word, "")[0]))][
            1
        ].norm()
        for word in words
    )
    assert common < 0.2 * rare
    again = Lexicon(1024, 3)
    start_by_rarity(again, material.preprocessor, rows, seed=0)
    assert torch.equal(lexicon.table.weight, again.table.weight)


def test_a_run_that_replays_keeps_its_words_too(material_of):
    tagger, material = material_of()
    own = with_lexicon(tagger)
    replayed = material.recipe.model_copy(update={"replay": ReplaySection(table="older.csv")})
    assert lexicons(tagger, replace(material, recipe=replayed)) == {"words": own}


def test_a_pair_that_every_product_says_starts_short_as_well(material_of):
    _, material = material_of()
    pairs = ("red shoe", "shoe red")
    rows = [Row(str(n), pairs[0], "", (), str(n), {}) for n in range(20)]
    rows.append(Row("rare", pairs[1], "", (), "rare", {}))
    lexicon = Lexicon(4096, 3)
    start_by_rarity(lexicon, material.preprocessor, rows, seed=0)
    common, rare = (
        lexicon.rows_of_pairs(torch.tensor(material.preprocessor.tokens(pair, "")[0])).tolist()
        for pair in pairs
    )
    norms = [
        lexicon.table.weight[sorted(set(own) - set(other))].norm(dim=1)
        for own, other in ((common, rare), (rare, common))
    ]
    assert norms[0].max() < 0.2 * norms[1].min()


def test_words_are_judged_by_texts_that_they_have_not_learned_from(material_of):
    tagger, material = material_of()
    [(name, lexicon)] = lexicons(tagger, material).items()
    nothing_held_out = words_stage(name, lexicon, replace(material, validation=()))
    assert nothing_held_out.validate(lexicon) == {"loss": 0}


def test_a_description_without_a_title_is_a_text(material_of):
    _, material = material_of()
    described = replace(material.rows[0], title="", description="a red shoe")
    silent = replace(material.rows[1], title="", description="")
    stage = words_stage("words", Lexicon(64, 3), replace(material, rows=(described, silent)))
    assert [row.id for row in stage.loader.dataset.rows] == [described.id]
