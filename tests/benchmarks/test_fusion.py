"""The peers of the fused head, on a catalogue whose titles tell all of one attribute and nothing of another."""

import csv
import dataclasses
import json

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from models.checkpoint import save
from tests.tiny_tagger import picture, tiny_checkpoint

SPLIT = {"seed": 0, "validation": 0.0, "calibration": 0.0, "test": 0.4, "rule": "by hash"}
COLOURS = ("red", "green", "blue")


@pytest.fixture
def checkpoint(tmp_path):
    """It says `shirt` and `red` whatever it sees."""
    made = tiny_checkpoint()
    for head in (made.model.fused_head, made.model.text_head, made.model.photo_head):
        head.bias.data[[0, 3]] += 100
    save(dataclasses.replace(made, metrics={"split": SPLIT}), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def table(tmp_path):
    """Of sixty products the titles tell the colour, and the photos of it every second; the kind is always shoe."""
    for colour in COLOURS:
        (tmp_path / f"{colour}.jpg").write_bytes(picture(colour))
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "title", "group", "colour", "kind", "material"])
        for n in range(60):
            colour = COLOURS[n % 3]
            materials = ("wool", "cotton|wool", "linen", "cotton")[n % 4]
            photo = f"{colour}.jpg" if n % 2 else ""
            writer.writerow([photo, f"a {colour} thing of {materials}", f"g{n}", colour, "shoe", materials])
    return tmp_path / "metadata.csv"


def run(checkpoint, table, *options):
    return CliRunner().invoke(main, ["fusion", str(checkpoint), str(table), "--workers", "0", *options])


def test_every_peer_is_measured_on_the_part_it_did_not_learn_from(checkpoint, table):
    result = run(checkpoint, table, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    rows = document["rows"]
    assert rows["learned_from"] == rows["train"] and rows["train"] + rows["test"] == 60
    assert set(document["conditions"]) == {"as_is", "masked_titles", "without_photos"}
    colour = document["conditions"]["as_is"]["colour"]
    assert colour["tfidf"] == {"accuracy": 1, "macro_f1": 1}
    assert 0 < colour["fused"]["accuracy"] < 0.6  # always red
    assert colour["best_peer"] in ("tfidf", "concatenation")
    above = colour["fused_above_best"]
    assert above["macro_f1"] == pytest.approx(colour["fused"]["macro_f1"] - 1)
    assert above["low"] < above["macro_f1"] < above["high"] < 0
    masked = document["conditions"]["masked_titles"]["colour"]
    assert masked["tfidf"]["accuracy"] < 0.6
    assert "photo_only" in masked and "photo_only" not in document["conditions"]["without_photos"]["colour"]


def test_an_attribute_with_one_value_to_learn_from_is_answered_with_it(checkpoint, table):
    kind = json.loads(run(checkpoint, table, "--json").stdout)["conditions"]["as_is"]["kind"]
    assert kind["tfidf"]["accuracy"] == kind["concatenation"]["accuracy"] == 1
    assert kind["fused"]["accuracy"] == 0  # it says shirt


def test_several_values_are_learned_each_for_itself(checkpoint, table):
    material = json.loads(run(checkpoint, table, "--json").stdout)["conditions"]["as_is"]["material"]
    assert material["tfidf"]["accuracy"] > 0.9


def test_fewer_rows_to_learn_from_are_said_in_the_heading(checkpoint, table):
    result = run(checkpoint, table, "--max-rows", "12")
    assert result.exit_code == 0, result.output
    assert "TF-IDF and concatenation learned from 12 of" in result.stdout
    assert "| attribute | TF-IDF | concatenation | text only | photos only | fused |" in result.stdout


def test_a_checkpoint_that_names_no_split_is_one_clear_line(table, tmp_path):
    save(tiny_checkpoint(), tmp_path / "bare")
    result = run(tmp_path / "bare", table)
    assert result.exit_code == 1
    assert "names no split" in result.stderr and "Traceback" not in result.stderr
