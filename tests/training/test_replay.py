"""Going on from an older checkpoint: its values stay, its rows come again, what it forgot is measured."""

import csv
from dataclasses import replace

import pytest
import torch

from models.checkpoint import save
from models.taxonomy import Attribute, Scope, Taxonomy
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint
from training.declared import Declared
from training.errors import DataError, RecipeError
from training.recipe import ReplaySection, SplitSection
from training.replay import read_replay, scores
from training.split import part_of
from training.table import Row

SPLIT = SplitSection(seed=3, test=0.3)


@pytest.fixture
def old(tmp_path):
    """A checkpoint that was made with SPLIT, and the path of its table of 200 products."""
    checkpoint = tiny_checkpoint()
    checkpoint.metrics["split"] = {**SPLIT.model_dump(), "rule": "by hash"}
    save(checkpoint, tmp_path / "old")
    with (tmp_path / "old.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["title", "group", "colour", "kind"])
        writer.writerows(
            [f"{colour} shirt", f"g{n}", colour, "shirt"]
            for n, colour in enumerate(["red", "green", "blue", "red"] * 50)
        )
    return str(tmp_path / "old"), str(tmp_path / "old.csv")


def read(old, share=0.25, new=(), split=SPLIT):
    return read_replay(ReplaySection(table=old[1], share=share), old[0], split, new, seed=0)


def test_a_share_of_what_it_trained_on_comes_again_and_its_test_part_is_measured(old):
    replay = read(old)
    assert {part_of(row.group, SPLIT) for row in replay.rows} == {"train"}
    assert {part_of(row.group, SPLIT) for row in replay.test} == {"test"}
    trained = sum(part_of(f"g{n}", SPLIT) == "train" for n in range(200))
    assert len(replay.rows) == round(0.25 * trained)
    assert read(old).rows == replay.rows
    assert read(old, share=0).rows == ()


def test_no_group_is_trained_on_by_one_split_and_measured_on_by_the_other(old, capsys):
    new = [Row(str(n), "title", "", (), f"g{n}", {}) for n in range(200)]
    assert read(old, new=new) and not capsys.readouterr().err
    split = SplitSection(seed=9, test=0.5)
    replay = read(old, share=1.0, new=new, split=split)
    assert {part_of(row.group, split) for row in replay.rows} == {"train"}
    assert "train" not in {part_of(row.group, split) for row in replay.test}
    assert replay.test
    # What this run trains on keeps its old measuring clean, not the other way round.
    seen = sum(part_of(f"g{n}", SPLIT) == "train" != part_of(f"g{n}", split) for n in range(200))
    assert f"was trained on {seen} of the groups that are kept apart here" in capsys.readouterr().err


def test_the_old_values_stay_in_their_places_and_new_ones_follow(old):
    new = Taxonomy((Attribute("size", ("S", "M")), Attribute("colour", ("pink", "blue", "red"))))
    extended = read(old).extended(new)
    assert [(a.name, a.values) for a in extended] == [
        ("colour", ("red", "green", "blue", "pink")),
        ("kind", ("shirt", "shoe")),
        ("material", ("cotton", "linen", "wool")),
        ("size", ("S", "M")),
    ]
    assert extended.attributes[2].multiple


def test_a_column_of_one_new_value_adds_it(old):
    hats = [Row(str(n), "hat", "", (), f"h{n}", {"size": ("S",), "kind": ("hat",)}) for n in range(3)]
    extended = read(old).extended(Taxonomy((Attribute("size", ("S", "M")),)), hats)
    assert extended.attributes[1] == Attribute("kind", ("shirt", "shoe", "hat"))


def test_a_column_of_one_new_value_adds_it_where_it_takes_several(old):
    hemp = [Row(str(n), "shirt", "", (), f"h{n}", {"material": ("hemp",)}) for n in range(3)]
    new = Taxonomy((Attribute("size", ("S", "M")),))
    extended = read(old).extended(new, hemp, multiple={"material"})
    assert extended.attributes[2].values == ("cotton", "linen", "wool", "hemp")
    with pytest.raises(RecipeError, match="'material' takes one value"):
        read(old).extended(new, hemp)  # a cell may be "hemp|linen"
    known = [replace(row, values={"material": ("linen",)}) for row in hemp]
    assert read(old).extended(new, known).attributes[2].values == ("cotton", "linen", "wool")


def test_a_column_of_one_new_value_is_extended_as_it_is_declared(old):
    hats = [Row(str(n), "hat", "", (), f"h{n}", {"size": ("S",), "kind": ("hat",)}) for n in range(3)]
    within = {"attribute": "size", "values": ["S"]}
    entry = {"name": "kind", "values": ["hat", "cap"], "applies_when": within}
    declared = Declared.model_validate({"attributes": [entry]})
    extended = read(old).extended(Taxonomy((Attribute("size", ("S", "M")),)), hats, declared=declared)
    assert extended.attributes[1] == Attribute(
        "kind", ("shirt", "shoe", "hat", "cap"), applies_when=Scope("size", ("S",))
    )


def test_an_attribute_of_one_value_here_and_several_there_is_refused(old):
    with pytest.raises(RecipeError, match="'colour' takes one value"):
        read(old).extended(Taxonomy((Attribute("colour", ("red", "blue"), multiple=True),)))


def test_a_scope_that_is_declared_now_holds_for_the_old_attribute_as_well(old):
    replay, scope = read(old), Scope("kind", ("shoe",))
    new = (Attribute("kind", ("shirt", "shoe")), Attribute("colour", ("pink", "red"), applies_when=scope))
    extended = replay.extended(Taxonomy(new))
    assert extended.scopes == {"colour": scope, "kind": None, "material": None}
    forgetting = replay.forgetting(
        tiny_checkpoint(extended).model, replay.old.preprocessor, extended, workers=0
    )
    assert set(forgetting["attributes"]) == {"kind"}, "every old product is a shirt, which has no colour now"


def test_scopes_that_run_in_a_circle_with_older_ones_are_refused(old):
    replay = read(old)
    kind = replace(TAXONOMY.attributes[1], applies_when=Scope("colour", ("red",)))
    before = Taxonomy((TAXONOMY.attributes[0], kind))
    replay = replace(replay, old=replace(replay.old, taxonomy=before))
    colour = Attribute("colour", ("red", "blue"), applies_when=Scope("kind", ("shoe",)))
    with pytest.raises(RecipeError, match="scopes run in a circle"):
        replay.extended(Taxonomy((Attribute("kind", ("shirt", "shoe")), colour)))


def test_forgetting_is_the_drop_on_the_old_test_part(old):
    replay = read(old)
    extended = replay.extended(Taxonomy((Attribute("colour", ("pink", "red")),)))
    model = tiny_checkpoint(extended).model
    with torch.no_grad():  # says pink to everything, which no old product is
        for head in (model.text_head, model.photo_head, model.fused_head):
            head.weight.zero_()
            head.bias.zero_()
            head.bias[3] = 9
    forgetting = replay.forgetting(model, replay.old.preprocessor, extended, workers=0)
    assert forgetting["rows"] == len(replay.test)
    assert set(forgetting["attributes"]) == {"colour", "kind"}
    colour = forgetting["attributes"]["colour"]
    guessed = scores(replay.old.model, replay.test, replay.old.preprocessor, TAXONOMY, 0)["colour"]
    assert colour["before"] == guessed
    assert colour["after"] == {"accuracy": 0.0, "macro_f1": 0.0}
    assert colour["drop"] == guessed


def test_a_table_without_a_product_of_the_test_part_is_refused(old, tmp_path):
    group = next(f"x{n}" for n in range(99) if part_of(f"x{n}", SPLIT) == "train")
    (tmp_path / "old.csv").write_text(f"title,group,colour\nred shirt,{group},red\n")
    with pytest.raises(RecipeError, match="test part"):
        read(old)


def test_a_checkpoint_that_records_no_split_is_refused(old, tmp_path):
    save(tiny_checkpoint(), tmp_path / "old")
    with pytest.raises(DataError, match="names no split"):
        read(old)


def test_photos_of_an_older_table_that_cannot_be_read_are_named_where_they_will_be_shown(old, tmp_path):
    (tmp_path / "note.jpg").write_text("no picture at all")
    trained, tested = (
        next(f"x{n}" for n in range(99) if part_of(f"x{n}", SPLIT) == part) for part in ("train", "test")
    )
    rows = f"red shirt,{trained},red,note.jpg\nred shirt,{tested},red,\n"
    (tmp_path / "old.csv").write_text(f"title,group,colour,file_name\n{rows}")
    assert read(old, share=0).rows == ()
    with pytest.raises(DataError, match=r"1 photos cannot be read(?s:.*)note\.jpg"):
        read(old, share=1.0)
    (tmp_path / "old.csv").write_text(f"title,group,colour,file_name\nred shirt,{tested},red,note.jpg\n")
    with pytest.raises(DataError, match="1 photos cannot be read"):
        read(old, share=0)
