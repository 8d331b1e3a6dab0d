"""How often the promise of `auto` is broken on halves of rows that no training saw."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from models.checkpoint import load, save
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint
from training.__main__ import main
from training.calibrate import calibrate
from training.catalogue import rows_for
from training.contract import contract, halves, in_words, tried
from training.evaluation import Logits
from training.recipe import CalibrationSection, SplitSection
from training.seen import Seen
from training.split import rows_of

SPLIT = {**SplitSection(validation=0.15, calibration=0.2, test=0.15).model_dump(), "rule": "by hash"}
ONE = Taxonomy((Attribute("colour", ("red", "green", "blue")), Attribute("kind", ("shirt", "shoe"))))


def seen(rows, sharpness):
    """Heads that mean what they say; nothing has photos. Nobody knows the kinds."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 3, generator=random) * sharpness
    target = torch.multinomial(logits.softmax(dim=1), 1, generator=random).squeeze(1)
    heads = (logits, torch.zeros(rows, 2))
    run = Logits(heads, heads, heads, ["text"] * rows)
    unknown = torch.full((rows,), -100)
    return Seen({"both": run, "text": run, "photos": run}, (target, unknown), np.arange(rows) // 2)


def test_of_honest_confidences_few_promises_are_broken():
    section = CalibrationSection(targets={"colour": 0.9})
    found = contract(seen(1600, 4.0), ONE, section, splits=30)
    assert found["rows"] == 1600
    assert set(found["attributes"]["colour"]) == {"text"}  # what no row shows is not measured
    assert found["attributes"]["kind"] == {}
    entry = found["attributes"]["colour"]["text"]
    assert entry["target_precision"] == 0.9
    assert found["promised"] == entry["promised"] == 30
    assert found["broken"] == entry["broken"] <= 2
    assert entry["worst"] < entry["precision"]
    assert 0.9 < entry["precision"] < 1
    assert 0.5 < entry["coverage"] < 1
    assert f"{entry['broken']} of 30 promises were broken" in in_words(found)
    assert contract(seen(1600, 4.0), ONE, section, splits=30) == found


def test_rows_of_which_nothing_is_left_to_see_break_no_promise():
    section, found = CalibrationSection(targets={"colour": 0.9}), []
    for unseen in (9.0, -9.0):
        here = seen(1600, 4.0)
        run, target = here.runs["text"], here.targets[0]
        nothing = torch.arange(1600) % 4 == 0
        colour = torch.where(nothing[:, None], unseen * torch.nn.functional.one_hot(target, 3), run.fused[0])
        heads = (colour, run.fused[1])
        patterns = [None if gone else "text" for gone in nothing.tolist()]
        here.runs["text"] = Logits(heads, heads, heads, patterns)
        found.append(contract(here, ONE, section, splits=5))
    assert found[0] == found[1]
    assert found[0]["promised"] == 5


def test_what_no_training_product_had_promises_nothing():
    """However well the untrained head happens to answer here."""
    here = seen(1600, 4.0)
    run = here.runs["photos"]
    here.runs["photos"] = replace(run, patterns=["photos"] * 1600)
    section = CalibrationSection(targets={"colour": 0.9})
    assert contract(here, ONE, section, splits=3)["attributes"]["colour"]["photos"]["promised"] == 3
    found = contract(here, ONE, section, splits=3, unseen="photos")["attributes"]["colour"]
    assert (found["photos"]["promised"], found["text"]["promised"]) == (0, 3)


def test_a_model_that_guesses_promises_nothing_and_says_so():
    found = contract(seen(400, 0.1), ONE, CalibrationSection(), splits=3)
    assert found["promised"] == found["broken"] == 0
    assert found["attributes"]["colour"]["text"]["worst"] is None
    assert "nothing was promised" in in_words(found)


def test_promises_that_luck_made_are_said_to_be_too_few():
    entries = {"kind": {"both": {"promised": 1}, "text": {"promised": 1}, "photos": {"promised": 0}}}
    document = {
        "promised": 2, "broken": 2, "splits": 100, "rows": 175, "certainty": 0.95, "attributes": entries
    }  # fmt: skip
    assert "2 of 2 promises were broken" in in_words(document)
    assert in_words(document).endswith("Where any was made it was in 2 of 200 cases: too few to tell.")
    assert "too few" not in in_words({**document, "promised": 40})


def test_halves_are_whole_groups_and_all_rows():
    owner = np.random.default_rng(0).permutation(np.arange(300) // 3)
    here, there = halves(owner, np.random.default_rng(1))
    assert sorted([*here, *there]) == list(range(300))
    assert not set(owner[here]) & set(owner[there])
    assert len(here) == len(there) == 150


@pytest.fixture
def checkpoint(tmp_path):
    """Of random weights, with a split and with figures that nothing here measures."""
    made = tiny_checkpoint(TAXONOMY)
    made.metrics.update(split=SPLIT, average={"method": "greedy"}, test_translated={"whole": {}})
    made.metrics["rows"] = {"train": 5, "validation": 4, "calibration": 3, "test": 2}
    save(made, tmp_path / "old")
    return tmp_path / "old"


def command(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments), "--workers", "0"])


def test_the_command_tries_a_checkpoint_on_the_rows_it_kept_apart(checkpoint, catalogue):
    result = command("contract", checkpoint, "--data", catalogue, "--splits", 2, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["splits"] == 2
    assert 40 < document["rows"] < 120  # 35 % of 240, by groups of two
    assert set(document["attributes"]) == {"colour", "kind", "material"}
    assert set(document["attributes"]["colour"]) == {"both", "text", "photos"}
    table = command("contract", checkpoint, "--data", catalogue, "--splits", 2)
    assert "| colour | text and photos | 0.95 | 0 | 0 | - | - | - |" in table.stdout
    assert "2 random halvings" in table.stdout


def with_certainty(checkpoint, certainty):
    old = load(checkpoint)
    save(replace(old, metrics={**old.metrics, "contract": {"certainty": certainty}}), checkpoint)


def test_a_promise_is_tried_with_the_certainty_it_was_made_with(checkpoint, catalogue):
    arguments = ("contract", checkpoint, "--data", catalogue, "--splits", 1, "--json")
    assert json.loads(command(*arguments).stdout)["certainty"] == 0.95, "what a recipe has that says nothing"
    with_certainty(checkpoint, 0.8)
    assert json.loads(command(*arguments).stdout)["certainty"] == 0.8
    assert json.loads(command(*arguments, "--certainty", 0.9).stdout)["certainty"] == 0.9


def test_a_certainty_that_is_not_named_stays(checkpoint, catalogue, tmp_path):
    with_certainty(checkpoint, 0.8)
    result = command("calibrate", checkpoint, "--data", catalogue, "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert load(tmp_path / "new").metrics["contract"]["certainty"] == 0.8


def test_targets_change_without_training(checkpoint, catalogue, tmp_path):
    new = tmp_path / "new"
    result = command(
        *("calibrate", checkpoint, "--data", catalogue, "--out", new),
        *("--target", "colour=0.98", "--target-precision", "0.9"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(new)
    assert "kind from text and photos: a precision of 0.9 is not promised" in result.stderr
    before, after = load(checkpoint), load(new)
    assert after.calibration.targets(TAXONOMY) == {"colour": 0.98, "kind": 0.9, "material": 0.9}
    weights = before.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in after.model.state_dict().items())
    assert after.name == before.name
    # What was measured before is measured anew or gone; what training left stays.
    assert after.metrics["average"] == {"method": "greedy"}
    assert "test_translated" not in after.metrics
    assert "--glossary" in result.stderr
    assert after.metrics["rows"]["train"] == 5
    assert after.metrics["rows"]["test"] == after.metrics["test"]["rows"] > 20
    assert after.metrics["test"]["attributes"]["colour"]["auto"]["target_precision"] == 0.98
    assert in_words(after.metrics["contract"]) in after.card
    assert "aiming at a precision of 90% (colour 98%)." in after.card


def test_what_the_table_cannot_calibrate_is_said(checkpoint, catalogue, tmp_path):
    old = load(checkpoint)
    for numbers in old.calibration.attributes:
        numbers.temperature.update(both=2.0, text=2.0)
    save(old, checkpoint)
    table = pd.read_csv(catalogue, dtype=str, keep_default_na=False).drop(columns=["kind"])
    table["file_name"] = [str(catalogue.parent / name) if name else "" for name in table["file_name"]]
    table.to_csv(tmp_path / "less.csv", index=False)
    result = command("calibrate", checkpoint, "--data", tmp_path / "less.csv", "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert (
        "kind from text and photos: no product of the calibration part shows it with a label" in result.stderr
    )
    assert "kind from text alone: no product" in result.stderr
    assert "colour from text alone: no product" not in result.stderr


def test_targets_that_are_not_named_stay(checkpoint, catalogue, tmp_path):
    arguments = ("calibrate", checkpoint, "--data", catalogue, "--target", "kind=0.8", "--out")
    assert command(*arguments, tmp_path / "new").exit_code == 0
    assert load(tmp_path / "new").calibration.targets(TAXONOMY) == {
        "colour": 0.95,
        "kind": 0.8,
        "material": 0.95,
    }
    again = command(*arguments, tmp_path / "new")
    assert again.exit_code == 1
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("size=0.9", 1, "no attribute 'size' to promise a precision of; there are colour, kind, material"),
        ("colour=1", 2, "1.0 is not in the range"),
        ("colour=nan", 2, "nan is not a number"),
        ("colour", 2, "'colour' is not ATTRIBUTE=PRECISION"),
    ],
)
def test_a_wrong_target_is_one_clear_line(checkpoint, catalogue, tmp_path, target, code, message):
    result = command(
        "calibrate", checkpoint, "--data", catalogue, "--target", target, "--out", tmp_path / "new"
    )
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_promise_is_tried_on_other_products_than_it_was_found_on():
    """Where it was found it holds; with so little certainty it often does not elsewhere."""
    section = CalibrationSection(certainty=0.5, targets={"colour": 0.9})
    found = contract(seen(1600, 4.0), ONE, section, splits=10)
    assert 0 < found["broken"] < found["promised"] == 10


def test_the_command_tries_nothing_on_products_that_chose_the_epoch(checkpoint, catalogue):
    split = SplitSection(validation=0.15, calibration=0.2, test=0.15)
    rows = rows_for(TAXONOMY, catalogue)
    kept = [row for part in ("calibration", "test") for row in rows_of(rows, part, split)]
    result = command("contract", checkpoint, "--data", catalogue, "--splits", 1, "--json")
    assert json.loads(result.stdout)["rows"] == len(kept)


def test_what_is_strange_is_never_auto_where_a_promise_is_tried():
    """As it is served."""
    here = seen(1600, 4.0)
    found = calibrate(here, ONE, CalibrationSection(targets={"colour": 0.9}))
    strange = replace(found, familiar_from={"text": 1e9, "photos": 1e9})
    (usual,), (kept,) = ([one for _, _, one in tried(each, ONE, here)] for each in (found, strange))
    assert usual.coverage > 0.5
    assert (kept.precision, kept.coverage) == (None, 0.0)
