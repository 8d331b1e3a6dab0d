"""From a table to a checkpoint that tags, and back again after a kill."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from models.checkpoint import load
from models.errors import CheckpointError
from tests.training.conftest import write_catalogue
from training import fit as fitting
from training.__main__ import main
from training.declared import Declared
from training.errors import AnotherRun, DataError, RecipeError
from training.fit import fit
from training.promotion import in_words
from training.recipe import DistillationSection, PseudoLabelsSection, TranslateSection, read_recipe
from training.renderings import RENDERINGS
from training.run_folder import claim, held
from training.split import part_of
from training.stages import Material
from training.table import read_table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(recipe_file):
    return read_recipe(recipe_file)


def test_fit_leaves_a_checkpoint_that_learned(recipe, catalogue, curves, tmp_path):
    longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 12})})
    path = fit(longer, catalogue, tmp_path / "run")
    checkpoint = load(path)
    assert [(a.name, a.multiple) for a in checkpoint.taxonomy] == [
        ("colour", False),
        ("kind", False),
        ("material", True),
    ]
    tested = checkpoint.metrics["test"]["attributes"]
    assert tested["kind"]["fused"]["accuracy"] > 0.8  # half of the rows by chance
    assert tested["colour"]["fused"]["accuracy"] > 0.8  # a third by chance, half from the titles alone
    rows = read_table(catalogue, multiple=["material"]).rows
    parts = [part_of(row.group, recipe.split) for row in rows]
    assert checkpoint.metrics["rows"] == {
        part: parts.count(part) for part in ("train", "validation", "calibration", "test")
    }
    assert [stage["stage"] for stage in checkpoint.metrics["training"]] == ["contrastive", "tagging", "words"]
    tagging = checkpoint.metrics["training"][1]
    assert len(tagging["history"]) > tagging["best_epoch"] > 0
    assert tagging["history"][0]["macro_f1"] < tagging["history"][tagging["best_epoch"]]["macro_f1"]
    assert {entry.name for entry in (tmp_path / "run").iterdir()} >= {
        "checkpoint",
        "curves.png",
        "logs",
        "run.json",
        "split.csv",
    }


def test_a_run_that_is_killed_twice_ends_as_if_nothing_had_happened(
    recipe, catalogue, tmp_path, fit_killed_at
):
    recipe = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"ema_decay": 0.0, "save_every_steps": 3})}
    )
    whole = load(fit(recipe, catalogue, tmp_path / "whole"))
    killed = tmp_path / "killed"
    assert fit_killed_at(2, recipe, catalogue, killed) == "contrastive"
    assert fit_killed_at(5, recipe, catalogue, killed) == "tagging"
    resumed = load(fit(recipe, catalogue, killed))
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)


def test_early_stopping_keeps_the_best_epoch(recipe, catalogue, tmp_path):
    still = recipe.model_copy(
        update={
            "contrastive": None,
            "train": recipe.train.model_copy(
                update={"epochs": 9, "text_lr": 0.0, "photo_lr": 0.0, "heads_lr": 0.0}
            ),
            "early_stopping": recipe.early_stopping.model_copy(update={"patience": 2}),
        }
    )
    fit(still, catalogue, tmp_path / "run")
    progress = json.loads((tmp_path / "run" / "tagging" / "progress.json").read_text())
    assert progress["epoch"] == 2
    assert progress["early_stopping"]["best_epoch"] == 0


def test_a_target_of_an_attribute_that_there_is_none_of_is_said_before_the_folder_is_taken(
    recipe, catalogue, tmp_path
):
    calibration = recipe.calibration.model_copy(update={"targets": {"kind": 0.9, "size": 0.9}})
    asked = recipe.model_copy(update={"calibration": calibration})
    with pytest.raises(
        RecipeError, match="no attribute 'size' to promise a precision of; there are colour, kind"
    ):
        fit(asked, catalogue, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_validation_part_without_any_label_is_said_before_training(recipe, tmp_path):
    """Nothing could choose an epoch: the untrained heads would be the best."""
    catalogue = write_catalogue(tmp_path / "shop", 240)
    table = pd.read_csv(catalogue, dtype=str, keep_default_na=False)
    rows = read_table(catalogue, multiple=["material"]).rows
    unlabelled = [part_of(row.group, recipe.split) == "validation" for row in rows]
    table.loc[unlabelled, [name for name in table.columns if name in rows[0].values]] = ""
    table.to_csv(catalogue, index=False)
    with pytest.raises(DataError, match="validation part has a label"):
        fit(recipe, catalogue, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_of_a_column_that_fell_out_are_none(recipe, tmp_path):
    """In the training part it holds one value, so it is not learned; the validation part has labels of it alone."""
    catalogue = write_catalogue(tmp_path / "shop", 240)
    table = pd.read_csv(catalogue, dtype=str, keep_default_na=False)
    rows = read_table(catalogue, multiple=["material"]).rows
    parts = [part_of(row.group, recipe.split) for row in rows]
    table["style"] = ["plain" if part == "train" else "ab"[n % 2] for n, part in enumerate(parts)]
    kept_apart = [part == "validation" for part in parts]
    table.loc[kept_apart, [name for name in table.columns if name in rows[0].values]] = ""
    table.to_csv(catalogue, index=False)
    with pytest.raises(DataError, match="validation part has a label"):
        fit(recipe, catalogue, tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("augment", {"thesaurus": "no such file"}),
        ("pseudo_labels", PseudoLabelsSection(teacher="no such folder")),
        ("distillation", DistillationSection(teachers=("no such folder",))),
    ],
)
def test_a_setting_that_is_found_wrong_before_the_first_step_gives_the_folder_back(
    recipe, catalogue, tmp_path, section, wrong
):
    if isinstance(wrong, dict):
        wrong = getattr(recipe, section).model_copy(update=wrong)
    asked = recipe.model_copy(update={section: wrong, "contrastive": None})
    with pytest.raises((RecipeError, CheckpointError), match="no such"):
        fit(asked, catalogue, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wandb_that_is_not_installed_is_said_before_training(recipe, catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    asked = recipe.model_copy(update={"log": recipe.log.model_copy(update={"wandb_project": "shop"})})
    with pytest.raises(RecipeError, match="pip install wandb"):
        fit(asked, catalogue, tmp_path / "run")


def test_a_folder_of_another_run_is_refused(recipe, catalogue, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(AnotherRun, match="not empty"):
        fit(recipe, catalogue, tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"recipe": {}, "data": ""}')
    with pytest.raises(AnotherRun, match="another recipe, table or taxonomy file"):
        fit(recipe, catalogue, tmp_path / "run")


def test_a_folder_that_another_process_trains_in_is_refused_until_that_one_ends(tmp_path):
    holding = (
        "import sys, pathlib\nfrom training.run_folder import held\nwith held(pathlib.Path(sys.argv[1])):"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", f"{holding} print('held', flush=True); sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
    )  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(AnotherRun, match="another process trains in"), held(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with held(tmp_path):
        pass


def test_what_a_killed_process_left_half_saved_is_removed_by_the_next(tmp_path):
    (tmp_path / ".checkpoint.4711.new" / "tokenizer").mkdir(parents=True)
    (tmp_path / "checkpoint").mkdir()
    with held(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "lock"]


def test_rates_that_end_a_run_at_once_leave_its_folder_to_lower_ones(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(FloatingPointError), held(tmp_path / "run"):
        raise FloatingPointError("tagging: the loss is nan at step 1: lower the rates")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_of_the_files_that_the_recipe_names_as_well(recipe, catalogue, tmp_path):
    (tmp_path / "words.txt").write_text("shoe, boot\n")
    augment = recipe.augment.model_copy(update={"thesaurus": str(tmp_path / "words.txt")})
    asked = recipe.model_copy(update={"augment": augment})
    claim(tmp_path / "run", asked, catalogue, Declared())
    claim(tmp_path / "run", asked, catalogue, Declared())
    (tmp_path / "words.txt").write_text("shoe, boot, sandal\n")
    with pytest.raises(AnotherRun, match="other files"):
        claim(tmp_path / "run", asked, catalogue, Declared())


def test_a_run_from_published_towers_is_not_of_the_folder_it_was_started_in(
    recipe, catalogue, tmp_path, monkeypatch
):
    here = tmp_path / "here"
    here.mkdir()
    (here / "config.json").write_text("{}")
    monkeypatch.chdir(here)
    claim(tmp_path / "run", recipe, catalogue, Declared())
    (here / "notes.txt").write_text("since then")
    claim(tmp_path / "run", recipe, catalogue, Declared())
    assert json.loads((tmp_path / "run" / "run.json").read_text()).keys() == {"recipe", "data"}


def test_the_commands_fit_finetune_and_evaluate(recipe_file, catalogue, tmp_path):
    """Fits, fine-tunes another taxonomy from the result, and evaluates: what a person does, in that order."""
    fitted = CliRunner().invoke(
        main, ["fit", str(recipe_file), "--data", str(catalogue), "--out", str(tmp_path / "one")]
    )
    assert fitted.exit_code == 0, fitted.output
    checkpoint = fitted.stdout.strip().splitlines()[-1]
    promotable = load(checkpoint).metrics["promotable"]
    assert promotable["verdict"] in (True, False) and promotable["because"]
    assert in_words(promotable) in fitted.stderr
    assert in_words(promotable) in load(checkpoint).card
    few = sum(
        line.endswith(",calibration") for line in (tmp_path / "one" / "split.csv").read_text().splitlines()
    )
    told = f"{few} products are few to calibrate on"
    before, after = fitted.stderr.split("each attribute's gate is shifted")
    assert told in before and told in after

    again = CliRunner().invoke(
        main,
        [
            "fit",
            "training/recipes/finetune.toml",
            "--data",
            str(catalogue),
            "--out",
            str(tmp_path / "two"),
            "--attributes",
            "kind",
            "--set",
            f"backbones.checkpoint={checkpoint}",
            "--set",
            "train.epochs=1",
            "--set",
            "data.workers=0",
            "--set",
            "model.max_tokens=1000",
        ],
    )
    assert again.exit_code == 0, again.output
    second = load(tmp_path / "two" / "checkpoint")
    assert [attribute.name for attribute in second.taxonomy] == ["kind"]
    # Longer texts than those of the checkpoint before it, as long as the tower can read.
    limits = [one.preprocessor.config.max_tokens for one in (load(checkpoint), second)]
    assert limits == [16, second.model.config.text["max_position_embeddings"]]

    evaluated = CliRunner().invoke(main, ["evaluate", checkpoint, str(catalogue), "--json", "--workers", "0"])
    assert evaluated.exit_code == 0, evaluated.output
    document = json.loads(evaluated.stdout)
    assert document["rows"] == 240
    assert set(document) == {"checkpoint", "version", "rows", "attributes"}
    entry = document["attributes"]["colour"]
    assert set(entry) == {"rows", "fused", "text_only", "photo_only", "auto"}
    assert set(entry["fused"]) == {"accuracy", "macro_f1", "ece"}
    assert set(entry["text_only"]) == set(entry["photo_only"]) == {"accuracy", "macro_f1"}
    assert set(entry["auto"]) == {"target_precision", "precision", "coverage"}
    assert entry["rows"] == sum(1 for row in read_table(catalogue).rows if row.values["colour"])


def test_evaluate_measures_the_part_that_the_checkpoint_kept_apart(recipe, catalogue, tmp_path):
    path = fit(recipe, catalogue, tmp_path / "run")
    arguments = ["evaluate", str(path), str(catalogue), "--json", "--part", "test", "--workers", "0"]
    document = json.loads(CliRunner().invoke(main, arguments).stdout)
    metrics = load(path).metrics
    assert document["rows"] == metrics["rows"]["test"]
    assert document["attributes"] == metrics["test"]["attributes"]
    masked = json.loads(CliRunner().invoke(main, [*arguments, "--condition", "masked_titles"]).stdout)
    assert masked["condition"] == "masked_titles"
    assert masked["attributes"] == metrics["test_masked_titles"]["attributes"]
    assert masked["attributes"] != document["attributes"]


@pytest.mark.parametrize("command", ["fit", "evaluate", "compare", "contract", "calibrate"])
def test_help_ends_in_an_example(command):
    assert f"Example: python -m training {command}" in " ".join(
        CliRunner().invoke(main, [command, "--help"]).stdout.split()
    )


def test_a_wrong_recipe_is_one_clear_line(recipe_file, catalogue, tmp_path):
    result = CliRunner().invoke(
        main,
        [
            "fit",
            str(recipe_file),
            "--data",
            str(catalogue),
            "--out",
            str(tmp_path / "run"),
            "--set",
            "train.speed=9",
        ],
    )
    assert result.exit_code == 1
    assert "train.speed" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_glossary_renders_titles_and_is_measured(recipe, catalogue, tmp_path):
    glossary = tmp_path / "glossary.toml"
    glossary.write_text(
        '[values.colour]\nred = ["红色"]\ngreen = ["绿色"]\nblue = ["蓝色"]\n[held_out.colour]\nred = ["正红"]\n'
        '[descriptions]\noriginal = ["Hand wash."]\n[held_out_descriptions]\noriginal = ["Do not bleach."]\n'
    )
    translate = TranslateSection(glossary=str(glossary), share=0.5)
    path = fit(recipe.model_copy(update={"translate": translate}), catalogue, tmp_path / "run")
    measured = load(path).metrics["test_translated"]
    assert set(measured) == set(RENDERINGS)
    assert all(entry["colour"]["rows"] > 0 for entry in measured.values())
    assert "mixed titles, wordings held out, without photos" in (path / "README.md").read_text()

    command = ["evaluate", str(path), str(catalogue), "--part", "test", "--json", "--glossary", str(glossary)]
    answer = CliRunner().invoke(main, [*command, "--style", "mixed", "--unseen"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["attributes"] == measured["mixed_unseen"]


def test_descriptions_by_a_glossary_without_sentences_are_refused_before_the_folder_is_taken(
    recipe, catalogue, tmp_path
):
    glossary = tmp_path / "glossary.toml"
    glossary.write_text("[values]\n")
    translate = TranslateSection(glossary=str(glossary), descriptions=0.5)
    with pytest.raises(RecipeError, match=r"glossary.toml has no sentences, fill its \[descriptions\]"):
        fit(recipe.model_copy(update={"translate": translate}), catalogue, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def noting(stage, validated):
    """The stage, which also notes the descriptions that it is validated on."""
    made = getattr(fitting, stage)

    def noted(*arguments):
        material = next(each for each in arguments if isinstance(each, Material))
        validated[stage] = [row.description for row in material.validation]
        return made(*arguments)

    return noted


def test_products_are_described_as_well_where_a_stage_that_describes_is_validated(
    recipe, catalogue, tmp_path, monkeypatch
):
    glossary, titles, validated = tmp_path / "glossary.toml", tmp_path / "metadata.csv", {}
    glossary.write_text('[values]\n[descriptions]\noriginal = ["Hand wash."]\n')
    table = pd.read_csv(catalogue).drop(columns="description")
    table["file_name"] = [
        str(catalogue.parent / name) if isinstance(name, str) else "" for name in table["file_name"]
    ]
    table.to_csv(titles, index=False)
    for stage in ("contrastive_stage", "tagging_stage", "learn_words", "settle_gates"):
        monkeypatch.setattr(fitting, stage, noting(stage, validated))
    translate = TranslateSection(glossary=str(glossary), share=0.0, descriptions=0.5)
    fit(recipe.model_copy(update={"translate": translate}), titles, tmp_path / "run")
    plain = validated.pop("contrastive_stage")
    assert set(plain) == {""}
    for told in validated.values():
        assert told[: len(plain)] == plain
        assert len(told) == 2 * len(plain)
        assert set(told[len(plain) :]) == {"", "Hand wash."}  # "": in a language that has no sentence
