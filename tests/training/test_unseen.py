"""Of a modality that no training product had nothing is believed, and a run that saw both is as it was."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from models.calibration import PATTERNS, AttributeCalibration, Calibration
from models.checkpoint import load, save
from models.names import NamedValues, key_of
from models.product import Product
from models.tagger import Tagger
from tests.tiny_tagger import TAXONOMY, WORDS, picture, tiny_checkpoint, tiny_model
from training.fit import fit
from training.heads import keep_heads
from training.recalibrate import Wanted, recalibrate
from training.recipe import read_recipe
from training.table import Row
from training.unseen import NEVER, SENTENCES, close, unseen_in, unseen_of, with_unseen

BOTH = Product("red shirt", "soft cotton", (picture("blue"),))
ALONE = {"photos": Product("red shirt", "soft cotton"), "text": Product(photos=BOTH.photos)}


def row(title, *photos):
    return Row("1", title, "", photos, "g", {})


@pytest.fixture
def recipe(recipe_file):
    read = read_recipe(recipe_file)
    return read.model_copy(update={"contrastive": None, "train": read.train.model_copy(update={"epochs": 1})})


def tagged(tagger, *products):
    return [
        [
            (tag.attribute, tag.value, tag.decision, pytest.approx(tag.confidence, abs=1e-4))
            for tag in tagging.tags
        ]
        for tagging in tagger.predict([tagger.prepare(product) for product in products])
    ]


def test_what_is_unseen_is_what_no_row_has(recipe, tmp_path):
    photo = tmp_path / "a.jpg"
    assert unseen_of(recipe, [row("shirt"), row("shoe")]) == "photos"
    assert unseen_of(recipe, [row("", photo)]) == "text"
    assert unseen_of(recipe, [row("shirt"), row("", photo)]) is None


@pytest.mark.parametrize(("before", "found"), [(None, None), ("photos", "photos")])
def test_kept_heads_have_seen_what_their_checkpoint_saw(recipe, tmp_path, before, found):
    checkpoint = tiny_checkpoint()
    checkpoint.metrics.update({} if before is None else {"unseen": before})
    save(checkpoint, tmp_path / "old")
    backbones = recipe.backbones.model_copy(update={"checkpoint": str(tmp_path / "old"), "keep_heads": True})
    assert unseen_of(recipe.model_copy(update={"backbones": backbones}), [row("shirt")]) == found


@pytest.mark.parametrize("unseen", ["photos", "text"])
def test_beside_what_was_seen_the_other_changes_nothing(unseen):
    """Of heads that are sure of what they say, and numbers that differ from pattern to pattern."""
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        for head in (checkpoint.model.text_head, checkpoint.model.photo_head, checkpoint.model.fused_head):
            head.weight.mul_(20)
    apart = Calibration(
        tuple(
            AttributeCalibration(
                0.9,
                dict(zip(PATTERNS, (1.0, 0.7, 2.0), strict=True)),
                dict(zip(PATTERNS, (None, 0.6, 0.7), strict=True)),
                beta=dict(zip(PATTERNS, ([1.0, 1.0, 0.0], [1.0, 0.9, 0.2], [0.8, 1.0, 0.1]), strict=True)),
            )
            for _ in TAXONOMY
        )
    )
    both, alone = tagged(Tagger(replace(checkpoint, calibration=apart), "v", "cpu"), BOTH, ALONE[unseen])
    assert both != alone
    close(checkpoint.model, unseen)
    tagger = Tagger(replace(checkpoint, calibration=with_unseen(apart, unseen)), "v", "cpu")
    both, alone, other = tagged(
        tagger, BOTH, ALONE[unseen], ALONE["text" if unseen == "photos" else "photos"]
    )
    assert both == alone
    assert "auto" in {decision for _, _, decision, _ in both}
    assert "auto" not in {decision for _, _, decision, _ in other}


def test_names_in_a_title_are_closed_with_the_text():
    model = tiny_model()
    model.names = NamedValues(1, len(WORDS) + 5, model.config.sizes)
    model.names.look_for({key_of((4,), 0): 0}, torch.zeros(len(WORDS) + 5, dtype=torch.bool))
    close(model, "photos")
    assert model.names.weights.tolist() == [1.0]
    close(model, "text")
    assert model.names.weights.tolist() == [0.0]


def test_closed_gates_are_not_kept_in_another_network():
    old, model = tiny_checkpoint(), tiny_model()
    close(old.model, "photos")
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        old.model.text_head.bias.add_(1)
    old.metrics["unseen"] = "photos"
    keep_heads(model, TAXONOMY, old)
    assert torch.equal(model.gate[2].weight, fresh["gate.2.weight"])
    assert torch.equal(model.fused_head.weight, fresh["fused_head.weight"])
    assert torch.equal(model.text_head.bias, old.model.text_head.bias)


@pytest.mark.parametrize("unseen", ["photos", "text"])
def test_a_fit_of_one_modality_says_so_and_serves_both(recipe, catalogue, tmp_path, capsys, unseen):
    table = pd.read_csv(catalogue, dtype=str, keep_default_na=False)
    if unseen == "photos":
        table["file_name"] = ""
    else:
        table = table[table["file_name"] != ""].assign(title="", description="")
        table["file_name"] = [str(catalogue.parent / name) for name in table["file_name"]]
    table.to_csv(tmp_path / "metadata.csv", index=False)
    path = fit(recipe, tmp_path / "metadata.csv", tmp_path / "run")
    checkpoint = load(path)
    assert unseen_in(checkpoint.metrics) == unseen
    assert SENTENCES[unseen] in capsys.readouterr().err
    assert SENTENCES[unseen] in checkpoint.card
    assert json.loads((path / "calibration.json").read_text())["familiar_from"][unseen] == NEVER
    both, alone = tagged(Tagger.load(path), BOTH, ALONE[unseen])
    assert both == alone
    other = Wanted({}, target_precision=0.7, certainty=0.7)
    again = recalibrate(path, tmp_path / "metadata.csv", tmp_path / "again", other, None, workers=0)
    assert SENTENCES[unseen] in load(again).card
    both, alone = tagged(Tagger.load(again), BOTH, ALONE[unseen])
    assert both == alone


def test_a_fit_of_both_says_nothing_of_it(recipe, catalogue, tmp_path, capsys):
    checkpoint = load(fit(recipe, catalogue, tmp_path / "run"))
    assert "unseen" not in checkpoint.metrics
    assert not any(sentence in checkpoint.card + capsys.readouterr().err for sentence in SENTENCES.values())
    assert NEVER not in checkpoint.calibration.familiar_from.values()
