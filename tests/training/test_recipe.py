"""Recipes are typed: an unknown key or an impossible number is refused with its place."""

from pathlib import Path

import pytest

from training.errors import RecipeError
from training.recipe import read_recipe

RECIPES = Path("training/recipes")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_valid_and_name_no_attribute(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.data.attributes == ()


def test_overrides_take_toml_values_and_bare_words():
    recipe = read_recipe(
        RECIPES / "finetune.toml",
        ("train.epochs=3", "backbones.checkpoint=runs/mine", 'train.text_frozen=["embeddings."]'),
        ("colour", "size"),
    )
    assert (recipe.train.epochs, recipe.backbones.checkpoint) == (3, "runs/mine")
    assert recipe.train.text_frozen == ("embeddings.",)
    assert recipe.data.attributes == ("colour", "size")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "train.epoch"),
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=soon", "train.epochs"),
        ("train.seed=-1", "train.seed"),
        ("train.text_lr=inf", "train.text_lr: Input should be a finite number"),
        ("train.max_grad_norm=inf", "train.max_grad_norm: Input should be a finite number"),
        ("names.weight=nan", "names.weight: Input should be a finite number"),
        ("train.epochs", "section.key=value"),
        ("split.test=0.9", "leave rows to train on"),
        ("name.first=x", "name is not a section"),
        ("backbones.text=bert", "either checkpoint"),
        ("data.multiple=kind", "write a list"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(RECIPES / "finetune.toml", (override,))


def test_attributes_want_a_section_to_be_in(tmp_path):
    (tmp_path / "recipe.toml").write_text('data = "shop.csv"')
    with pytest.raises(RecipeError, match="data is not a section"):
        read_recipe(tmp_path / "recipe.toml", attributes=("kind",))


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "recipe.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="not a readable recipe"):
        read_recipe(tmp_path / "recipe.toml")
