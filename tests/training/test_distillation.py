"""Teachers say how likely each value is of the products to train on."""

from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError

from models.checkpoint import save
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import TAXONOMY, tiny_checkpoint
from training.data import taught_of
from training.distillation import with_teachers
from training.errors import RecipeError
from training.evaluation import evaluate_rows
from training.recipe import DistillationSection
from training.table import Row

ROWS = [Row(str(n), title, "", (), f"group {n}", {}) for n, title in enumerate(("red shirt", "blue shoe"))]
COLOUR, KIND, MATERIAL = TAXONOMY.attributes


def answers(checkpoint, rows):
    logits = evaluate_rows(checkpoint.model, rows, checkpoint.preprocessor, workers=0).fused
    return [
        of.sigmoid() if a.multiple else of.softmax(1)
        for of, a in zip(logits, checkpoint.taxonomy, strict=True)
    ]


@pytest.fixture
def teacher(tmp_path):
    save(tiny_checkpoint(), tmp_path / "teacher")
    return str(tmp_path / "teacher")


def section(*teachers):
    return DistillationSection(teachers=teachers)


def test_rows_carry_what_the_teacher_says_of_each_value(teacher, tmp_path):
    taught = taught_of(with_teachers(ROWS, TAXONOMY, section(teacher), tmp_path / "kept", 0), TAXONOMY)
    for said, expected in zip(taught, answers(tiny_checkpoint(), ROWS), strict=True):
        torch.testing.assert_close(said, expected, atol=1e-3, rtol=0)  # kept in 16 bits


def test_several_teachers_are_averaged(teacher, tmp_path):
    second = tiny_checkpoint()
    with torch.no_grad():
        second.model.text_head.bias[0] += 3
    save(second, tmp_path / "second")
    asked = section(teacher, str(tmp_path / "second"))
    said = taught_of(with_teachers(ROWS, TAXONOMY, asked, tmp_path / "kept", 0), TAXONOMY)[0]
    mean = (answers(tiny_checkpoint(), ROWS)[0] + answers(second, ROWS)[0]) / 2
    torch.testing.assert_close(said, mean, atol=1e-3, rtol=0)


def test_values_are_told_apart_by_name_and_an_attribute_with_an_unknown_value_is_not_taught(
    teacher, tmp_path
):
    turned = Attribute("colour", ("blue", "red"))
    wider = Attribute("kind", ("shirt", "shoe", "hat"))
    taxonomy = Taxonomy((wider, turned))
    kind, colour = taught_of(with_teachers(ROWS, taxonomy, section(teacher), tmp_path / "kept", 0), taxonomy)
    assert kind is None
    theirs = answers(tiny_checkpoint(), ROWS)[0][:, [2, 0]]
    torch.testing.assert_close(colour, theirs / theirs.sum(dim=1, keepdim=True), atol=1e-3, rtol=0)


def test_a_disk_that_is_full_is_an_error_of_the_system(teacher, tmp_path, monkeypatch):
    def full_disk(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("training.distillation.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        with_teachers(ROWS, TAXONOMY, section(teacher), tmp_path / "kept", 0)


def test_a_teacher_of_another_trade_is_refused(teacher, tmp_path):
    taxonomy = Taxonomy((Attribute("engine", ("diesel", "petrol")), replace(MATERIAL, multiple=False)))
    with pytest.raises(RecipeError, match="knows all values"):
        with_teachers(ROWS, taxonomy, section(teacher), tmp_path / "kept", 0)
    assert not (tmp_path / "kept").exists()


def test_a_resumed_run_does_not_ask_again(teacher, tmp_path):
    first = with_teachers(ROWS, TAXONOMY, section(teacher), tmp_path / "kept", 0)
    again = with_teachers(ROWS, TAXONOMY, section("no longer there"), tmp_path / "kept", 0)
    assert all(torch.equal(one.taught, other.taught) for one, other in zip(first, again, strict=True))


def test_asking_draws_no_random_number(teacher, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with_teachers(ROWS, TAXONOMY, section(teacher), tmp_path / "kept", 0)
    assert torch.rand(1) == expected
