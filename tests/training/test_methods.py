"""The ways of fine-tuning through a whole run: what each changes on the checkpoint, and going on after a kill."""

import json

import pytest
import torch
from safetensors.torch import load_file

from models.checkpoint import load
from training.errors import RecipeError
from training.fit import fit
from training.language import language_stage
from training.network import build
from training.recipe import read_recipe
from training.table import make_taxonomy, read_table

# peft asks transformers for a name that transformers has since given up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def recipe_with(recipe_file):
    """The recipe with settings: one tagging stage of two epochs unless they say otherwise."""
    text = recipe_file.read_text()
    recipe_file.write_text(text.replace("[contrastive]\nepochs = 1\nbatch_size = 16\n", ""))
    return lambda *settings: read_recipe(recipe_file, ("train.epochs=2", *settings))


@pytest.fixture(scope="module")
def starter(catalogue, tmp_path_factory, backbones):
    """A checkpoint to start from."""
    folder = tmp_path_factory.mktemp("starter")
    (folder / "recipe.toml").write_text(
        f"""
name = "old"
[backbones]
text = "{backbones["text"]}"
photo = "{backbones["photo"]}"
photo_weights = "{backbones["photo_weights"]}"

[data]
multiple = ["material"]
workers = 0

[split]
validation = 0.15
calibration = 0.2
test = 0.15

[model]
width = 16
lexicon = 1024
max_tokens = 16
max_photos = 2

[train]
epochs = 6
batch_size = 16
text_lr = 3e-3
photo_lr = 3e-3
heads_lr = 1e-2
"""
    )
    return fit(read_recipe(folder / "recipe.toml"), catalogue, folder / "run")


def test_low_rank_adapters_leave_a_plain_checkpoint_with_another_text_tower(
    recipe_with, catalogue, starter, tmp_path
):
    settings = ("backbones.text=", "backbones.photo=", "backbones.photo_weights=", "train.text_lr=1e-2")
    recipe = recipe_with(
        *settings, f"backbones.checkpoint={starter}", "adapters.method=lora", "adapters.rank=2"
    )
    before = load(starter).model.text_tower.state_dict()
    after = load(fit(recipe, catalogue, tmp_path / "run")).model.text_tower.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert changed == {f"encoder.encoder.layer.0.attention.self.{part}.weight" for part in ("query", "value")}


def test_a_prefix_is_served_from_the_checkpoint(recipe_with, catalogue, tmp_path):
    recipe = recipe_with("adapters.method=prefix", "adapters.prefix_tokens=3", "train.text_frozen=[]")
    checkpoint = load(fit(recipe, catalogue, tmp_path / "run"))
    assert checkpoint.model.config.text["prefix_tokens"] == 3
    assert checkpoint.model.text_tower.prefix is not None


def test_frozen_towers_stay_as_they_are(recipe_with, catalogue, starter, tmp_path):
    settings = ("backbones.text=", "backbones.photo=", "backbones.photo_weights=")
    frozen = ('train.text_frozen=[""]', 'train.photo_frozen=[""]')
    recipe = recipe_with(*settings, *frozen, f"backbones.checkpoint={starter}")
    before, after = load(starter).model, load(fit(recipe, catalogue, tmp_path / "run")).model
    for name, tensor in before.state_dict().items():
        if "tower" in name:
            torch.testing.assert_close(after.state_dict()[name], tensor, rtol=0, atol=0)


def test_framing_comes_after_all_that_tags(recipe_with, catalogue, tmp_path):
    metrics = load(
        fit(recipe_with("train.epochs=1", "framing.epochs=1"), catalogue, tmp_path / "run")
    ).metrics
    assert [stage["stage"] for stage in metrics["training"]][:2] == ["tagging", "framing"]


def test_few_shot_trains_on_fewer_rows_and_measures_on_all(recipe_with, catalogue, tmp_path):
    metrics = load(fit(recipe_with("few_shot.per_value=4"), catalogue, tmp_path / "run")).metrics
    assert 8 <= metrics["rows"]["train"] <= 4 * 8
    assert metrics["rows"]["test"] > 20


def test_the_language_stage_learns_the_words_of_the_catalogue(recipe_with, catalogue, tmp_path):
    recipe = recipe_with(
        "language.epochs=3", "language.text_lr=1e-2", "language.mask_share=0.3", "train.epochs=1"
    )
    fit(recipe, catalogue, tmp_path / "run")
    history = json.loads((tmp_path / "run" / "language" / "progress.json").read_text())["history"]
    assert history[-1]["loss"] < history[0]["loss"] - 0.5
    assert history[-1]["accuracy"] > history[0]["accuracy"]


def test_the_language_stage_reads_the_texts_of_products_that_few_shot_leaves_out(
    recipe_with, catalogue, tmp_path, monkeypatch
):
    read = []

    def reading(tagger, section, material):
        read.extend(material.rows)
        return language_stage(tagger, section, material)

    monkeypatch.setattr("training.fit.language_stage", reading)
    recipe = recipe_with("language.epochs=1", "few_shot.per_value=2", "train.epochs=1")
    trained = load(fit(recipe, catalogue, tmp_path / "run")).metrics["rows"]["train"]
    assert len(read) > 5 * trained


def test_kept_heads_know_the_values_before_the_first_step(recipe_with, catalogue, starter):
    table = read_table(catalogue, multiple=["material"])
    taxonomy, _ = make_taxonomy(table, table.rows)
    settings = ("backbones.text=", "backbones.photo=", "backbones.photo_weights=")
    recipe = recipe_with(*settings, f"backbones.checkpoint={starter}", "backbones.keep_heads=true")
    model, _ = build(recipe, taxonomy)
    old = load(starter)
    colour, red = old.taxonomy.attributes[0], taxonomy.attributes[0].values.index("red")
    row = colour.values.index("red")
    torch.testing.assert_close(model.text_head.weight[red], old.model.text_head.weight[row])


def test_untrained_towers_have_the_shape_and_none_of_the_weights(recipe_with, catalogue, starter):
    table = read_table(catalogue, multiple=["material"])
    taxonomy, _ = make_taxonomy(table, table.rows)
    settings = ("backbones.text=", "backbones.photo=", "backbones.photo_weights=")
    recipe = recipe_with(*settings, f"backbones.checkpoint={starter}", "backbones.untrained=true")
    model, _ = build(recipe, taxonomy)
    name = "encoder.encoder.layer.0.attention.self.query.weight"
    one, other = model.text_tower.state_dict()[name], load(starter).model.text_tower.state_dict()[name]
    assert one.shape == other.shape
    assert not torch.equal(one, other)


def test_going_on_with_replay_keeps_the_old_values_and_measures_what_was_forgotten(
    recipe_with, catalogue, starter, tmp_path
):
    """The new catalogue sells hats and knows no colour; the old values of both are still answered."""
    lines = ["title,kind"] + [
        f"{('new hat', 'soft shoe')[n % 2]} {n},{('hat', 'shoe')[n % 2]}" for n in range(120)
    ]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    settings = ("backbones.text=", "backbones.photo=", "backbones.photo_weights=", "data.multiple=[]")
    recipe = recipe_with(
        *settings, f"backbones.checkpoint={starter}", f"replay.table={catalogue}", "replay.share=0.5"
    )
    checkpoint = load(fit(recipe, tmp_path / "new.csv", tmp_path / "run"))
    assert checkpoint.taxonomy.attributes[1].values == ("shirt", "shoe", "hat")
    forgetting = checkpoint.metrics["forgetting"]["attributes"]
    assert set(forgetting) == {"colour", "kind", "material"}
    before = load(starter).metrics["test"]["attributes"]["kind"]["fused"]["accuracy"]
    assert forgetting["kind"]["before"]["accuracy"] == before
    assert checkpoint.metrics["rows"]["train"] > 120


@pytest.mark.parametrize("named", [(), ("kind", "colour")])
def test_going_on_with_products_of_one_new_value_learns_it(
    recipe_with, catalogue, starter, tmp_path, capsys, named
):
    lines = ["title,kind,colour"] + [f"new hat {n},hat,{('red', 'blue')[n % 2]}" for n in range(60)]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    settings = ("backbones.text=", "backbones.photo=", "backbones.photo_weights=", "data.multiple=[]")
    settings = (*settings, f"backbones.checkpoint={starter}", f"replay.table={catalogue}", "train.epochs=1")
    recipe = recipe_with(*settings, f"data.attributes={json.dumps(named)}")
    checkpoint = load(fit(recipe, tmp_path / "new.csv", tmp_path / "run"))
    assert checkpoint.taxonomy.attributes[1].values == ("shirt", "shoe", "hat")
    assert "'kind' is not used" not in capsys.readouterr().err


def test_going_on_with_products_of_one_new_value_beside_others_learns_it(
    recipe_with, catalogue, starter, tmp_path
):
    lines = ["title,colour,material"] + [f"new shirt {n},{('red', 'blue')[n % 2]},hemp" for n in range(60)]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    settings = ("backbones.text=", "backbones.photo=", "backbones.photo_weights=", "train.epochs=1")
    recipe = recipe_with(*settings, f"backbones.checkpoint={starter}", f"replay.table={catalogue}")
    checkpoint = load(fit(recipe, tmp_path / "new.csv", tmp_path / "run"))
    assert "hemp" in checkpoint.taxonomy.attributes[2].values


def test_pseudo_labels_fill_what_the_table_left_empty(recipe_with, catalogue, starter, tmp_path):
    recipe = recipe_with(f"pseudo_labels.teacher={starter}", "pseudo_labels.confidence=0.6", "train.epochs=1")
    fit(recipe, catalogue, tmp_path / "run")
    lines = (tmp_path / "run" / "pseudo_labels.jsonl").read_text().splitlines()
    filled = [json.loads(line) for line in lines]
    assert filled
    assert {name for entry in filled for name in entry["values"]} == {"colour"}  # a thirteenth has none


def test_what_teachers_say_is_learned_and_kept(recipe_with, catalogue, starter, tmp_path):
    alone = load(fit(recipe_with("train.epochs=1"), catalogue, tmp_path / "alone"))
    recipe = recipe_with("train.epochs=1", f"distillation.teachers=['{starter}']", "distillation.share=0.7")
    taught = load(fit(recipe, catalogue, tmp_path / "taught"))
    kept = load_file(tmp_path / "taught" / "taught.safetensors")["probabilities"]
    assert kept.shape == (taught.metrics["rows"]["train"], sum(taught.taxonomy.sizes))
    for head in ("text_head", "photo_head", "fused_head"):
        names = f"{head}.weight"
        assert not torch.equal(taught.model.state_dict()[names], alone.model.state_dict()[names])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("adapters.method=adalora", "rebalance.epochs=1"), "AdaLoRA"),
        (("replay.table=old.csv",), "backbones.checkpoint"),
    ],
)
def test_sections_that_cannot_go_together_are_refused(recipe_with, settings, message):
    with pytest.raises(RecipeError, match=message):
        recipe_with(*settings)


def test_every_section_goes_on_after_a_kill(recipe_with, catalogue, tmp_path, fit_killed_at):
    """The second save is in the language stage, the fourth after it in the tagging stage, after ranks were taken."""
    recipe = recipe_with(
        "language.epochs=1",
        "language.batch_size=32",
        "adapters.method=adalora",
        "adapters.rank=2",
        "adversarial.epsilon=0.5",
        "train.ema_decay=0.9",
        "train.save_every_steps=3",
        "few_shot.per_value=30",
    )
    whole = load(fit(recipe, catalogue, tmp_path / "whole"))
    killed = tmp_path / "killed"
    for killed_at_save, killed_in in ((2, "language"), (4, "tagging")):
        assert fit_killed_at(killed_at_save, recipe, catalogue, killed) == killed_in
    resumed = load(fit(recipe, catalogue, killed))
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
