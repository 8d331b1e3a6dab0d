"""A teacher fills the cells that it is sure of, and no other."""

import json
from dataclasses import replace

import pytest
import torch

from models.checkpoint import save
from models.product import Alternative, Evidence, Tag, Tagging
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint
from training.errors import DataError
from training.pseudo_labels import read, sure, with_pseudo_labels, write
from training.recipe import PseudoLabelsSection, SplitSection
from training.table import Row

COLOUR, KIND, MATERIAL = TAXONOMY.attributes
NO_EVIDENCE = Evidence(None, None)


def tag(attribute, value, confidence, *others):
    alternatives = tuple(Alternative(name, other) for name, other in others)
    decision = "abstain" if value is None else "review"
    return Tag(attribute, value, confidence, decision, NO_EVIDENCE, alternatives)


@pytest.mark.parametrize(
    ("attribute", "tags", "values"),
    [
        (COLOUR, [tag("colour", "red", 0.97)], ("red",)),
        (COLOUR, [tag("colour", "red", 0.95)], ("red",)),
        (COLOUR, [tag("colour", "red", 0.94)], ()),
        (COLOUR, [tag("colour", None, 0.4)], ()),
        (COLOUR, [tag("colour", "pink", 0.99)], ()),
        (MATERIAL, [tag("material", "wool", 0.99, ("linen", 0.01))], ("wool",)),
        (MATERIAL, [tag("material", "wool", 0.99, ("linen", 0.4))], ()),
        (MATERIAL, [tag("material", "wool", 0.99), tag("material", "linen", 0.6)], ()),
        (MATERIAL, [tag("material", "wool", 0.99), tag("material", "linen", 0.96)], ("wool", "linen")),
    ],
)
def test_only_what_the_teacher_is_sure_of_is_taken(attribute, tags, values):
    assert sure(attribute, tags, 0.95) == values


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """A checkpoint that calls every product a red shirt, and counts how often it is asked."""
    save(tiny_checkpoint(), tmp_path / "teacher")
    asked = []

    def answer(self, batch):
        asked.append(batch)
        tags = (tag("colour", "red", 0.99), tag("kind", "shirt", 0.9), tag("material", None, 0.2))
        return [Tagging(tags, ())] * len(batch)

    monkeypatch.setattr("models.tagger.Tagger.run", answer)
    return str(tmp_path / "teacher"), asked


def row(number, **values):
    cells = {name: (value,) if value else () for name, value in values.items()}
    return Row(str(number), f"new shirt {number}", "", (), f"group {number}", cells)


ROWS = [row(1, colour="green", kind="shoe"), row(2, colour="", kind="shoe"), row(3, colour="", kind="")]
SPLIT = SplitSection(test=0.3)


def test_own_empty_cells_are_filled_and_filled_ones_stay(teacher, tmp_path):
    section = PseudoLabelsSection(teacher=teacher[0])
    filled = with_pseudo_labels(ROWS, TAXONOMY, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    assert [r.values["colour"] for r in filled] == [("green",), ("red",), ("red",)]
    assert [r.values["kind"] for r in filled] == [("shoe",), ("shoe",), ()]  # 0.9 is not sure enough
    assert [json.loads(line)["id"] for line in (tmp_path / "labels.jsonl").read_text().splitlines()] == [
        "2",
        "3",
    ]


def test_a_second_table_adds_its_training_products_and_none_kept_for_measuring(teacher, tmp_path):
    lines = ["title,group"] + [f"blue shoe {n},g{n}" for n in range(40)]
    (tmp_path / "more.csv").write_text("\n".join(lines))
    section = PseudoLabelsSection(teacher=teacher[0], table=str(tmp_path / "more.csv"))
    rows = with_pseudo_labels(ROWS, TAXONOMY, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    assert rows[:3] == ROWS
    assert 3 + 10 < len(rows) < 3 + 30  # about 54 % of forty groups are for training
    assert all(r.values["colour"] == ("red",) for r in rows[3:])


def test_values_and_questions_that_the_new_taxonomy_lacks_are_not_filled(teacher, tmp_path):
    taxonomy = Taxonomy((Attribute("colour", ("green", "blue")), replace(KIND, multiple=True)))
    section = PseudoLabelsSection(teacher=teacher[0], confidence=0.8)
    rows = with_pseudo_labels(ROWS, taxonomy, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    assert rows == ROWS


@pytest.mark.parametrize(("more", "filled"), [((), ("wool",)), (("silk",), ())])
def test_a_teacher_that_does_not_know_one_of_several_values_cannot_say_that_it_is_absent(
    teacher, tmp_path, monkeypatch, more, filled
):
    sure_of_wool = Tagging((tag("material", "wool", 0.99),), ())
    monkeypatch.setattr("models.tagger.Tagger.run", lambda self, batch: [sure_of_wool] * len(batch))
    taxonomy = Taxonomy((COLOUR, replace(MATERIAL, values=MATERIAL.values + more)))
    section = PseudoLabelsSection(teacher=teacher[0])
    (found,) = with_pseudo_labels(ROWS[:1], taxonomy, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    assert found.values.get("material", ()) == filled


def test_asking_the_teacher_draws_no_random_numbers_as_a_resumed_run_does_not_ask_again(teacher, tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    section = PseudoLabelsSection(teacher=teacher[0])
    with_pseudo_labels(ROWS, TAXONOMY, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_teacher_is_asked_once(teacher, tmp_path):
    path, asked = teacher
    section = PseudoLabelsSection(teacher=path)
    first = with_pseudo_labels(ROWS, TAXONOMY, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    number = len(asked)
    assert number > 0
    again = with_pseudo_labels(ROWS, TAXONOMY, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    assert again == first
    assert len(asked) == number


def test_the_photos_of_a_second_table_are_looked_at_before_the_teacher_is_asked(teacher, tmp_path):
    """Also that of a product with every cell filled, of which nothing is asked: it is trained on all the same."""
    path, asked = teacher
    for name in ("one.jpg", "other.jpg"):
        (tmp_path / name).write_text("no picture at all")
    (tmp_path / "more.csv").write_text(
        "title,group,file_name,colour,kind,material\n"
        "red shirt,g0,one.jpg,red,,\n"
        "blue shoe,g1,other.jpg,blue,shoe,wool\n"
    )
    section = PseudoLabelsSection(teacher=path, table=str(tmp_path / "more.csv"))
    everything = SplitSection(validation=0.0001, calibration=0.0001, test=0.0001)
    with pytest.raises(DataError, match=r"2 photos cannot be read(?s:.*)one\.jpg(?s:.*)other\.jpg"):
        with_pseudo_labels(ROWS, TAXONOMY, section, everything, tmp_path / "labels.jsonl", workers=0)
    assert asked == []


def test_a_value_with_a_line_separator_is_read_as_it_was_written(tmp_path):
    filled = {0: {"colour": ("red\u2028wine",)}, 2: {"kind": ("shirt\u0085",), "material": ("wool", "linen")}}
    write(tmp_path / "labels.jsonl", ROWS, filled)
    assert read(tmp_path / "labels.jsonl") == filled


def test_a_product_of_a_second_table_that_the_teacher_is_not_sure_of_is_left_out(
    teacher, tmp_path, monkeypatch
):
    unsure = Tagging((tag("colour", "red", 0.6), tag("kind", None, 0.2)), ())
    monkeypatch.setattr("models.tagger.Tagger.run", lambda self, batch: [unsure] * len(batch))
    (tmp_path / "more.csv").write_text("title,group\n" + "".join(f"blue shoe {n},g{n}\n" for n in range(9)))
    section = PseudoLabelsSection(teacher=teacher[0], table=str(tmp_path / "more.csv"))
    rows = with_pseudo_labels(ROWS, TAXONOMY, section, SPLIT, tmp_path / "labels.jsonl", workers=0)
    assert rows == ROWS
