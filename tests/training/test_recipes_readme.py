"""The table of the ways to fine-tune says what the recipes can do, and its commands are valid."""

import re
import shlex
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from training.__main__ import main
from training.recipe import Recipe, read_recipe

README = Path("training/recipes/README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`(--set [^`]+)`", README)
EXAMPLES = re.findall(r"^python -m training (.+)$", README, flags=re.MULTILINE)


def settings_of(command):
    words = shlex.split(command)
    assert words[::2] == ["--set"] * (len(words) // 2)
    return tuple(words[1::2])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_way_can_be_switched_on(command):
    finetune = Path("training/recipes/finetune.toml")
    recipe = read_recipe(finetune, settings_of(command))
    for setting in settings_of(command):
        section = setting.split(".")[0]
        assert getattr(recipe, section) is not None
    assert recipe.name == "finetune"


def test_every_section_that_is_a_way_of_its_own_is_in_the_table():
    sections = {
        name
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, types.UnionType) and type(None) in field.annotation.__args__
    }
    switched_on = {setting.split(".")[0] for command in COMMANDS for setting in settings_of(command)}
    assert sections <= switched_on


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_name_commands_and_options_that_there_are(example):
    name, *words = shlex.split(example)
    options = {word for word in words if word.startswith("--")}
    help_text = CliRunner().invoke(main, [name, "--help"]).stdout
    assert options
    assert all(option in help_text for option in options)
