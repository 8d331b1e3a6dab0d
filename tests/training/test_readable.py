"""Photos that cannot be read are named before any work rests on them."""

import csv
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from models.checkpoint import save
from tests.tiny_tagger import TAXONOMY, picture, tiny_checkpoint
from training.__main__ import main
from training.errors import DataError
from training.readable import NAMED, require_readable
from training.recipe import SplitSection
from training.split import part_of
from training.table import Row

SPLIT = SplitSection(validation=0.2, calibration=0.2, test=0.2)
# Which photo a row of each part has: every command that measures reads a cut one and one that is none.
PHOTO = {"train": "good.jpg", "validation": "cut.jpg", "calibration": "cut.jpg", "test": "note.jpg"}


def write_photos(folder: Path) -> None:
    (folder / "good.jpg").write_bytes(picture())
    (folder / "note.jpg").write_text("no picture at all")
    Image.linear_gradient("L").save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])


@pytest.fixture
def shop(tmp_path):
    """A table of eighty products."""
    folder = tmp_path / "shop"
    folder.mkdir()
    write_photos(folder)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "title", "group", "colour", "kind"])
        for n in range(80):
            colour, kind = TAXONOMY.attributes[0].values[n % 3], TAXONOMY.attributes[1].values[n % 2]
            writer.writerow([PHOTO[part_of(f"g{n}", SPLIT)], f"{colour} {kind}", f"g{n}", colour, kind])
    return folder / "metadata.csv"


def row(*photos: Path) -> Row:
    return Row("1", "red shirt", "", photos, "g", {})


def test_all_photos_that_cannot_be_read_are_named_once_in_one_error(tmp_path):
    write_photos(tmp_path)
    good, cut, note = (tmp_path / name for name in ("good.jpg", "cut.jpg", "note.jpg"))
    with pytest.raises(DataError) as refused:
        require_readable([row(good, cut), row(), row(note, cut)])
    first, *named = str(refused.value).split("\n")
    assert first == "2 photos cannot be read: mend them, or take them out of the table"
    assert [line.partition(": ")[0].strip() for line in named] == [str(cut), str(note)]


def test_photos_that_can_be_read_are_let_through(tmp_path):
    write_photos(tmp_path)
    before = list(warnings.filters)
    require_readable([row(tmp_path / "good.jpg")] * 9)
    require_readable([row()])
    require_readable([])
    assert warnings.filters == before, "the threads leave no filter behind"


def test_of_many_photos_at_fault_only_the_first_are_named(tmp_path):
    photos = [tmp_path / f"{n}.jpg" for n in range(NAMED + 2)]
    for photo in photos:
        photo.write_text("no picture at all")
    with pytest.raises(DataError) as refused:
        require_readable([row(*photos)])
    first, *named, last = str(refused.value).split("\n")
    assert first.startswith(f"{NAMED + 2} photos cannot be read")
    assert len(named) == NAMED
    assert last.strip() == "and 2 more"


def test_a_fit_names_them_in_one_message_and_takes_no_folder(recipe_file, shop, tmp_path):
    out = tmp_path / "run"
    arguments = ["fit", str(recipe_file), "--data", str(shop), "--out", str(out), "--set", "data.multiple=[]"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "2 photos cannot be read" in result.stderr
    assert "cut.jpg" in result.stderr and "note.jpg" in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    "command",
    [
        "evaluate {one} {data}",
        "contract {one} --data {data} --splits 2",
        "calibrate {one} --data {data} --out {out}",
        "compare {one} {other} --data {data}",
        "average {one} {other} --data {data} --out {out}",
    ],
)
def test_a_command_that_measures_names_them_in_one_message(shop, tmp_path, command):
    checkpoint = tiny_checkpoint()
    checkpoint.metrics["split"] = {**SPLIT.model_dump(), "rule": "by hash"}
    places = {"one": tmp_path / "one", "other": tmp_path / "other", "out": tmp_path / "out", "data": shop}
    for name in ("one", "other"):
        save(checkpoint, places[name])
    arguments = [argument.format(**places) for argument in command.split()]
    result = CliRunner().invoke(main, [*arguments, "--workers", "0"])
    assert isinstance(result.exception, SystemExit)
    assert "2 photos cannot be read" in result.stderr
    assert "cut.jpg" in result.stderr and "note.jpg" in result.stderr
    assert not places["out"].exists()
